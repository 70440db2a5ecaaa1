//! Dependency strings with their USE conditionals evaluated, as Portage writes them to an index.
//!
//! The rules, including the brackets that are left out, are those of Portage's `use_reduce` and `paren_enclose`.

use std::collections::BTreeSet;

use super::{Fault, Result};

/// Deepest nesting of brackets.
const MAX_DEPTH: usize = 100;
/// The dependency that Portage writes for an `||` without any choice.
const NOTHING: &str = "__const__/empty-any-of";

/// The set of enabled USE flags.
pub type Use<'a> = BTreeSet<&'a str>;

/// An atom, another word, or parts in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Atom(String),
    Word(String),
    Group(Vec<Self>),
}

impl Part {
    fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own == word)
    }

    /// Returns the flag of a USE conditional such as `!foo?`, with its `!`.
    fn conditional(&self) -> Option<&str> {
        match self {
            Self::Word(word) => word.strip_suffix('?'),
            Self::Atom(_) | Self::Group(_) => None,
        }
    }
}

/// Evaluates the conditionals of `text`. `atoms` is true if the words are atoms, whose own conditionals are evaluated too.
///
/// # Errors
/// [`Fault`] if brackets or operators are misplaced.
pub fn evaluated(text: &str, enabled: &Use<'_>, atoms: bool) -> Result<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut stack: Vec<Vec<Part>> = vec![Vec::new()];
    let mut needs_bracket = false;
    for (at, &word) in words.iter().enumerate() {
        let wrong = || Fault::new(format!("a dependency string has a misplaced ‘{word}’"));
        let empty = word == ")" && at > 0 && words[at - 1] == "(";
        if empty || needs_bracket && word != "(" {
            return Err(wrong());
        }
        needs_bracket = false;
        match word {
            "(" if stack.len() > MAX_DEPTH => return Err(Fault::new("a dependency string is nested too deeply")),
            "(" => stack.push(Vec::new()),
            ")" if stack.len() == 1 => return Err(wrong()),
            ")" => close(&mut stack, enabled)?,
            _ => {
                needs_bracket = word == "||" || word.ends_with('?');
                let part = match atoms && !needs_bracket {
                    true => Part::Atom(atom(word, enabled)),
                    false => Part::Word(word.to_owned()),
                };
                if let Some(top) = stack.last_mut() {
                    top.push(part);
                }
            }
        }
    }
    match (&stack[..], needs_bracket) {
        ([parts], false) => Ok(enclosed(parts)),
        _ => Err(Fault::new("a dependency string ends too early")),
    }
}

/// Ends the innermost group: decides about the operator before it, and leaves out redundant brackets.
fn close(stack: &mut Vec<Vec<Part>>, enabled: &Use<'_>) -> Result<()> {
    let mut group = stack.pop().unwrap_or_default();
    let Some((level, below)) = stack.split_last_mut() else { return Ok(()) };
    let single = group.len() == 1 || group.len() == 2 && group[0].is_word("||");
    if let Some(last) = level.last() {
        if last.is_word("||") && group.is_empty() {
            group.push(Part::Word(NOTHING.to_owned()));
            level.pop();
        } else if let Some(condition) = last.conditional() {
            let active = is_active(condition, enabled)?;
            level.pop();
            if !active {
                return Ok(());
            }
        }
    }
    if group.is_empty() {
        return Ok(());
    }
    let any_of = |parts: &Vec<Part>| parts.last().is_some_and(|part| part.is_word("||"));
    let (here, above) = (any_of(level), below.last().is_some_and(any_of));
    if !here && !above {
        level.extend(group);
    } else if level.is_empty() {
        append(level, below, group, single);
    } else if single && here {
        level.pop();
        append(level, below, group, single);
    } else if here && above {
        level.pop();
        level.extend(group);
    } else {
        append(level, below, group, single);
    }
    Ok(())
}

/// Appends a group, without its brackets where they have no meaning.
fn append(level: &mut Vec<Part>, below: &[Vec<Part>], mut group: Vec<Part>, single: bool) {
    if !single {
        return level.push(Part::Group(group));
    }
    let above = below.last().and_then(|parts| parts.last()).is_some_and(|part| part.is_word("||"));
    match &mut group[..] {
        [first, Part::Group(inner)] if first.is_word("||") && above => level.append(inner),
        [Part::Group(inner)] if !is_in_any_of(below) => level.append(inner),
        _ => level.extend(group),
    }
}

/// Returns true if the next group stands in an `||`. As in Portage, an atom before the group does not matter, but another word does.
fn is_in_any_of(below: &[Vec<Part>]) -> bool {
    for last in below.iter().rev().filter_map(|parts| parts.last()) {
        match last {
            Part::Word(word) if word == "||" => return true,
            Part::Word(word) if !word.ends_with('?') => return false,
            _ => {}
        }
    }
    false
}

fn is_active(condition: &str, enabled: &Use<'_>) -> Result<bool> {
    let (flag, negated) = match condition.strip_prefix('!') {
        Some(flag) => (flag, true),
        None => (condition, false),
    };
    let valid = flag.starts_with(|c: char| c.is_ascii_alphanumeric())
        && flag.bytes().all(|b| b.is_ascii_alphanumeric() || b"+_@-".contains(&b));
    match valid {
        true => Ok(enabled.contains(flag) != negated),
        false => Err(Fault::new(format!("‘{condition}?’ is not a USE conditional"))),
    }
}

/// Evaluates the conditionals of an atom's USE dependencies: `a/b[x?,!y=]`.
fn atom(word: &str, enabled: &Use<'_>) -> String {
    let Some((name, flags)) = word.split_once('[').and_then(|(name, rest)| Some((name, rest.strip_suffix(']')?)))
    else {
        return word.to_owned();
    };
    if !flags.split(',').any(|flag| flag.ends_with(['?', '='])) {
        return word.to_owned();
    }
    // Portage writes such an atom anew, without its repository.
    let name = name.split_once("::").map_or(name, |(name, _)| name);
    let flags: Vec<String> = flags.split(',').filter_map(|flag| use_dependency(flag, enabled)).collect();
    if flags.is_empty() { name.to_owned() } else { format!("{name}[{}]", flags.join(",")) }
}

/// Evaluates one USE dependency, which may have a default: `x(+)?`.
fn use_dependency(text: &str, enabled: &Use<'_>) -> Option<String> {
    let (body, operator) = match text.strip_suffix('?') {
        Some(body) => (body, '?'),
        None => match text.strip_suffix('=') {
            Some(body) => (body, '='),
            None => return Some(text.to_owned()),
        },
    };
    let (body, negated) = body.strip_prefix('!').map_or((body, false), |body| (body, true));
    let flag = body.split('(').next().unwrap_or(body);
    let on = enabled.contains(flag);
    match operator {
        '?' if on == negated => None,
        _ if on != negated && (operator == '=' || !negated) => Some(body.to_owned()),
        _ => Some(format!("-{body}")),
    }
}

fn enclosed(parts: &[Part]) -> String {
    let part = |part: &Part| match part {
        Part::Atom(word) | Part::Word(word) => word.clone(),
        Part::Group(parts) => format!("( {} )", enclosed(parts)),
    };
    parts.iter().map(part).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditionals_are_evaluated_as_portage_does() {
        // Texts, and the results of Portage 3.0.83 without flags and with foo, bar, x and z.
        let cases = [
            ("a/b foo? ( c/d[x?,-y,z=,!w=,!v?] ) !foo? ( e/f )", "a/b e/f", "a/b c/d[x,-y,z,w,-v]"),
            ("a/b[x(+)?,!x(-)?,!x=]", "a/b[-x(-),x]", "a/b[x(+),-x]"),
            ("|| ( a/b ( c/d e/f ) )", "|| ( a/b ( c/d e/f ) )", "|| ( a/b ( c/d e/f ) )"),
            ("|| ( || ( a/b c/d ) e/f )", "|| ( a/b c/d e/f )", "|| ( a/b c/d e/f )"),
            ("|| ( foo? ( a/b ) )", NOTHING, "a/b"),
            ("( a/b ( c/d ) )", "a/b c/d", "a/b c/d"),
            (" a/b:0=::r[x?,y?]", "a/b:0=", "a/b:0=[x]"),
            ("a/b:0=::r[y]", "a/b:0=::r[y]", "a/b:0=::r[y]"),
            ("|| ( foo? ( a/b c/d ) e/f )", "e/f", "|| ( ( a/b c/d ) e/f )"),
            ("|| ( ( a/b c/d ) )", "a/b c/d", "a/b c/d"),
            ("!!<a/b-3[x?]", "!!<a/b-3", "!!<a/b-3[x]"),
            ("|| ( foo? ( a/b ) bar? ( b/c ) )", NOTHING, "|| ( a/b b/c )"),
            ("", "", ""),
        ];
        let some = Use::from(["foo", "bar", "x", "z"]);
        for (text, none, with) in cases {
            assert_eq!(evaluated(text, &Use::new(), true).unwrap(), none, "{text}");
            assert_eq!(evaluated(text, &some, true).unwrap(), with, "{text}");
        }
        // The words of a licence are not atoms.
        assert_eq!(evaluated("foo? ( x[y?] ) z", &some, false).unwrap(), "x[y?] z");
    }

    #[test]
    fn misplaced_brackets_and_operators_are_refused() {
        let deep = "( ".repeat(200) + "a/b" + &" )".repeat(200);
        for text in ["(", ")", "( )", "||", "|| a/b", "foo? a/b", "a/b )", "( a/b", "|| ||", "fo{o? ( a/b )", &deep] {
            assert!(evaluated(text, &Use::new(), true).is_err(), "{text}");
        }
    }
}
