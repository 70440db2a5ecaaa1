//! USE flags in refusals: changes that emerge proposes, and REQUIRED_USE expressions.

use std::collections::BTreeMap;

/// The limit on the words of an expression, on its depth, and on the flags that are tried.
const MAX_WORDS: usize = 2_000;
const MAX_DEPTH: usize = 40;
const MAX_FLAGS: usize = 12;
/// The limit on proposals for one package.
const MAX_CANDIDATES: usize = 8;

/// A REQUIRED_USE expression, in PMS's spelling or in that of emerge's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    /// A flag and the state that it must have.
    Flag(String, bool),
    /// A group.
    Group(Kind, Vec<Self>),
    /// A group for the case that a flag has this state.
    If(String, bool, Vec<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    All,
    Any,
    One,
    AtMostOne,
}

/// The USE flags of a package, by name: on or off, and true if the profile fixes the state.
pub(super) type Flags = BTreeMap<String, (bool, bool)>;

/// Reads the flags of a line such as `USE="a -b (-c)" ABI_X86="(64)"`.
pub(super) fn flags(text: &str) -> Flags {
    let mut flags = Flags::new();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once("=\"") {
        let name = head.rsplit(' ').next().unwrap_or_default();
        let (value, after) = tail.split_once('"').unwrap_or((tail, ""));
        let prefix = if name == "USE" { String::new() } else { format!("{}_", name.to_ascii_lowercase()) };
        for word in value.split_whitespace().take(MAX_WORDS) {
            let fixed = word.starts_with('(');
            let word = word.trim_matches(['(', ')', '{', '}']).trim_end_matches(['*', '%']).trim_end_matches(')');
            let (on, flag) = word.strip_prefix('-').map_or((true, word), |flag| (false, flag));
            if is_flag(flag) {
                flags.insert(format!("{prefix}{flag}"), (on, fixed));
            }
        }
        rest = after;
    }
    flags
}

/// Reads the changes of `Change USE: +foo -bar`, as words of package.use. Text after a comma is a warning of emerge.
pub(super) fn changes(text: &str) -> Vec<String> {
    let words = text.split(',').next().unwrap_or_default().split_whitespace();
    let word = |word: &str| word.strip_prefix('+').unwrap_or(word).to_owned();
    words.map(word).filter(|word| is_flag(word.strip_prefix('-').unwrap_or(word))).take(100).collect()
}

/// Returns true for the name of a USE flag (PMS 3.1.4).
pub(super) fn is_flag(text: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || "+_@-".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(rest) && text.len() < 100
}

/// Returns the smallest changes of `flags` that satisfy `complete`, as words of package.use. Flags of `unsatisfied` are tried first.
/// Of changes of the same size, those that turn off none of the flags in `wanted` come first.
pub(super) fn candidates(unsatisfied: &str, complete: &str, flags: &Flags, wanted: &[String]) -> Vec<Vec<String>> {
    let Some(whole) = parse(complete).or_else(|| parse(unsatisfied)) else { return Vec::new() };
    let open = |expression: &str| -> Vec<String> {
        let mut names = Vec::new();
        if let Some(parsed) = parse(expression) {
            parsed.collect(&mut names);
        }
        names.retain(|name| flags.get(name).is_some_and(|(_, fixed)| !fixed));
        names
    };
    for names in [open(unsatisfied), open(complete)] {
        if names.len() <= MAX_FLAGS {
            let mut found = smallest(&whole, &names, flags);
            found.sort_by_key(|change| change.iter().filter(|word| contradicts(word, wanted)).count());
            found.truncate(MAX_CANDIDATES);
            if !found.is_empty() {
                return found;
            }
        }
    }
    Vec::new()
}

fn contradicts(word: &str, wanted: &[String]) -> bool {
    let opposite = word.strip_prefix('-').map_or_else(|| format!("-{word}"), str::to_owned);
    wanted.contains(&opposite)
}

/// Tries every change of the flags `names`, and keeps those that contain no other one.
fn smallest(whole: &Expression, names: &[String], flags: &Flags) -> Vec<Vec<String>> {
    let mut sets: Vec<u32> = (1..1 << names.len()).collect();
    sets.sort_by_key(|set| set.count_ones());
    let mut found: Vec<u32> = Vec::new();
    for set in sets {
        let changed = |name: &str| names.iter().position(|known| known == name).is_some_and(|at| set >> at & 1 == 1);
        let state = |name: &str| flags.get(name).is_some_and(|(on, _)| *on) != changed(name);
        if found.iter().all(|smaller| smaller & set != *smaller) && whole.satisfied(&state) {
            found.push(set);
        }
    }
    let word = |name: &String| if flags[name].0 { format!("-{name}") } else { name.clone() };
    let words = |set: u32| (0..names.len()).filter(|at| set >> at & 1 == 1).map(|at| word(&names[at])).collect();
    found.into_iter().map(words).collect()
}

fn parse(text: &str) -> Option<Expression> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() || words.len() > MAX_WORDS {
        return None;
    }
    let mut at = 0;
    let items = group(&words, &mut at, 0)?;
    (at == words.len()).then_some(Expression::Group(Kind::All, items))
}

/// Reads items up to the closing parenthesis or the end.
fn group(words: &[&str], at: &mut usize, depth: usize) -> Option<Vec<Expression>> {
    let mut items = Vec::new();
    while let Some(&word) = words.get(*at) {
        if word == ")" {
            break;
        }
        *at += 1;
        let kind = match word {
            "(" => {
                *at -= 1;
                Some(Kind::All)
            }
            "||" | "any-of" => Some(Kind::Any),
            "^^" | "exactly-one-of" => Some(Kind::One),
            "??" | "at-most-one-of" => Some(Kind::AtMostOne),
            _ => None,
        };
        let (on, name) = word.strip_prefix('!').map_or((true, word), |name| (false, name));
        items.push(match (kind, name.strip_suffix('?')) {
            (Some(kind), _) => Expression::Group(kind, enclosed(words, at, depth)?),
            (None, Some(name)) if is_flag(name) => Expression::If(name.to_owned(), on, enclosed(words, at, depth)?),
            (None, None) if is_flag(name) => Expression::Flag(name.to_owned(), on),
            _ => return None,
        });
    }
    Some(items)
}

fn enclosed(words: &[&str], at: &mut usize, depth: usize) -> Option<Vec<Expression>> {
    if depth >= MAX_DEPTH || words.get(*at) != Some(&"(") {
        return None;
    }
    *at += 1;
    let items = group(words, at, depth + 1)?;
    if words.get(*at) != Some(&")") {
        return None;
    }
    *at += 1;
    Some(items)
}

impl Expression {
    fn satisfied(&self, state: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Flag(name, on) => state(name) == *on,
            Self::If(name, on, items) => state(name) != *on || items.iter().all(|item| item.satisfied(state)),
            Self::Group(kind, items) => {
                // A conditional item of a group counts only while its condition holds.
                let counts =
                    |item: &&Self| *kind == Kind::All || !matches!(item, Self::If(name, on, _) if state(name) != *on);
                let mut counted = items.iter().filter(counts).map(|item| item.satisfied(state));
                match kind {
                    Kind::All => counted.all(|satisfied| satisfied),
                    Kind::Any => items.is_empty() || counted.any(|satisfied| satisfied),
                    Kind::One => counted.filter(|satisfied| *satisfied).count() == 1,
                    Kind::AtMostOne => counted.filter(|satisfied| *satisfied).count() <= 1,
                }
            }
        }
    }

    /// Adds the names of all flags.
    fn collect(&self, names: &mut Vec<String>) {
        let mut add = |name: &String| {
            if !names.contains(name) {
                names.push(name.clone());
            }
        };
        match self {
            Self::Flag(name, _) => add(name),
            Self::If(name, _, items) => {
                add(name);
                items.iter().for_each(|item| item.collect(names));
            }
            Self::Group(_, items) => items.iter().for_each(|item| item.collect(names)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(expression: &str, state: &str, wanted: &[&str]) -> Vec<String> {
        let wanted: Vec<String> = wanted.iter().map(|&word| word.to_owned()).collect();
        let found = candidates(expression, expression, &flags(state), &wanted);
        found.iter().map(|change| change.join(" ")).collect()
    }

    #[test]
    fn flags_of_every_form_are_read() {
        let read = flags("USE=\"a -b (c) (-d%*) {e} f* -g%\" ABI_X86=\"(64) -32\" PYTHON_TARGETS=\"\"");
        let state = |name: &str| read[name];
        assert_eq!(
            [state("a"), state("b"), state("c"), state("d")],
            [(true, false), (false, false), (true, true), (false, true)]
        );
        assert_eq!([state("e"), state("f"), state("g")], [(true, false), (true, false), (false, false)]);
        assert_eq!([state("abi_x86_64"), state("abi_x86_32")], [(true, true), (false, false)]);
        assert_eq!(read.len(), 9);
        assert_eq!(changes("+foo -bar"), ["foo", "-bar"]);
        assert_eq!(changes("-a, this change violates use flag constraints defined by x"), ["-a"]);
        assert_eq!(changes("+$(x) +ok"), ["ok"]);
    }

    #[test]
    fn the_smallest_changes_are_found() {
        let none: &[&str] = &[];
        assert_eq!(tried("exactly-one-of ( foo bar )", "USE=\"-foo -bar\"", none), ["foo", "bar"]);
        assert_eq!(
            tried("^^ ( gawk busybox mawk )", "USE=\"busybox gawk -mawk\"", &["busybox"]),
            ["-gawk", "-busybox"]
        );
        assert_eq!(tried("any-of ( a b )", "USE=\"-a (-b)\"", none), ["a"]);
        assert_eq!(tried("?? ( a b c )", "USE=\"a b c\"", none), ["-a -b", "-a -c", "-b -c"]);
        assert_eq!(tried("x? ( y !z )", "USE=\"x -y z\"", none), ["-x", "y -z"]);
        assert_eq!(tried("|| ( ( a b ) c )", "USE=\"-a -b -c\"", none), ["c", "a b"]);
        assert!(tried("a", "USE=\"(-a)\"", none).is_empty());
        // The complete expression decides.
        let found = candidates("any-of ( a b )", "any-of ( a b ) a? ( c ) !c", &flags("USE=\"-a -b -c\""), &[]);
        assert_eq!(found, [["b"]]);
        let found = candidates("a", "a !b", &flags("USE=\"-a b\""), &[]);
        assert_eq!(found, [["a", "-b"]]);
    }

    #[test]
    fn wrong_expressions_have_no_candidates() {
        for text in ["", "(", ")", "|| a", "|| ( a", "a? b", "$x", &"( ".repeat(100), &"a ".repeat(5_000)] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
