//! Atoms (PMS 8.3) and package sets. Pure.

use super::diagnostic::Problem;
use super::words::{Checked, chars, digits, printable, repository};

/// Accepts an argument of emerge: an atom, the name of a package alone, or a set.
pub(super) fn package(text: &str) -> Checked {
    match text.strip_prefix('@') {
        Some(name) => set(name),
        None => atom(text, false),
    }
}

/// Accepts the name of a set. Portage names a set in a directory of `sets` by its path: `web/base`.
pub(super) fn set(text: &str) -> Checked {
    let rest = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
    text.split('/')
        .try_for_each(|part| chars(part, "the name of a set", |c| c.is_ascii_alphanumeric() || c == '_', rest))
}

/// Accepts the name of a package with its category, in which `*` stands for any text, and optionally a slot.
pub(super) fn name(text: &str) -> Checked {
    let help = "write category/package, for example sys-kernel/* or dev-lang/python:3.12";
    if text.starts_with(['<', '>', '=', '~']) || text.contains(['[', ']']) || text.contains("::") {
        return Err(Problem::new("a name and a slot, without a version").help(help));
    }
    if !text.contains('/') {
        return Err(Problem::new("no category").help(help));
    }
    atom(text, true)
}

/// Accepts a package dependency specification (PMS 8.3) that is not a blocker. `wild` allows `*/*` and similar.
pub(super) fn atom(text: &str, wild: bool) -> Checked {
    if text.is_empty() {
        return Err(Problem::new("empty"));
    }
    printable(text)?;
    if text.starts_with('-') && !wild {
        return Err(Problem::new("emerge would read this as an option").help("list options in `options` in [emerge]"));
    }
    if text.starts_with('!') {
        return Err(Problem::new("a blocker cannot be merged"));
    }
    let operator =
        [">=", "<=", ">", "<", "=", "~"].into_iter().find(|operator| text.starts_with(operator)).unwrap_or("");
    let rest = &text[operator.len()..];
    let (rest, flags) = match rest.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
        Some((rest, flags)) => (rest, Some(flags)),
        None => (rest, None),
    };
    if let Some(flags) = flags {
        flags.split(',').try_for_each(use_dependency)?;
    }
    let (rest, repo) = match rest.split_once("::") {
        Some((rest, repo)) => (rest, Some(repo)),
        None => (rest, None),
    };
    if let Some(repo) = repo {
        repository(repo)?;
    }
    let (rest, slot) = match rest.split_once(':') {
        Some((rest, slot)) => (rest, Some(slot)),
        None => (rest, None),
    };
    if let Some(slot) = slot {
        let letter = |c: char| c.is_ascii_alphanumeric() || "_*=".contains(c);
        chars(slot, "a slot", letter, |c| letter(c) || "+.-/".contains(c))?;
    }
    let (category, package) = match rest.split_once('/') {
        Some((category, package)) => (Some(category), package),
        None => (None, rest),
    };
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || (wild && c == '*');
    if let Some(category) = category {
        chars(category, "a category", letter, |c| letter(c) || "+.-".contains(c))?;
    }
    let package = if operator == "=" { package.strip_suffix('*').unwrap_or(package) } else { package };
    chars(package, "the name of a package", letter, |c| letter(c) || "+.-".contains(c))?;
    if !operator.is_empty() && rest.trim_end_matches('*').contains('*') {
        return wild_version(package, operator);
    }
    let revised = package.rsplit_once("-r").is_some_and(|(_, revision)| digits(revision));
    if operator == "~" && revised {
        return Err(Problem::new("`~` stands for every revision").help("leave out the revision, or write `=`"));
    }
    match (operator.is_empty(), has_version(package)) {
        (true, true) => Err(Problem::new("a version without an operator").help(format!("write ={text}"))),
        (false, false) => Err(Problem::new(format!("`{operator}` needs a version"))
            .help(format!("for example {operator}{}-1.0", rest.trim_end_matches('*')))),
        _ => match package.split('-').find(|part| part.contains('.')) {
            // Only a version contains dots.
            Some(_) if operator.is_empty() => Err(Problem::new("the name of a package must not contain `.`")),
            _ => Ok(()),
        },
    }
}

/// Accepts a USE dependency of an atom (PMS 8.3.4).
fn use_dependency(text: &str) -> Checked {
    let flag = text.strip_suffix(['?', '=']).unwrap_or(text);
    let flag = flag.strip_suffix("(+)").or_else(|| flag.strip_suffix("(-)")).unwrap_or(flag);
    let flag = flag.strip_prefix(['-', '!']).unwrap_or(flag);
    let first = |c: char| c.is_ascii_alphanumeric();
    chars(flag, "a USE flag of an atom", first, |c| first(c) || "+_@-".contains(c))
}

/// Accepts `=category/package-*9999*`, the only form of an atom with both an operator and wildcards. The last `*` of `package` is
/// taken off already.
fn wild_version(package: &str, operator: &str) -> Checked {
    let version = package.rsplit_once('-').and_then(|(_, version)| version.strip_prefix('*'));
    let word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match version {
        Some(version) if operator == "=" && word(version) => Ok(()),
        _ => Err(Problem::new("an operator and a wildcard together").help("write */*, dev-lang/*, or =*/*-*9999*")),
    }
}

/// Returns true if a name ends with a version (PMS 3.2).
fn has_version(package: &str) -> bool {
    let Some((head, last)) = package.rsplit_once('-') else { return false };
    let revision = last.strip_prefix('r').is_some_and(digits);
    match head.rsplit_once('-') {
        Some((_, version)) if revision && is_version(version) => true,
        _ => is_version(last),
    }
}

fn is_version(text: &str) -> bool {
    let mut parts = text.split('_');
    let numbers = parts.next().unwrap_or_default();
    let numbers = numbers.strip_suffix(|c: char| c.is_ascii_lowercase()).unwrap_or(numbers);
    let suffix = |part: &str| {
        ["alpha", "beta", "pre", "rc", "p"]
            .iter()
            .any(|word| part.strip_prefix(word).is_some_and(|number| number.is_empty() || digits(number)))
    };
    numbers.split('.').all(digits) && parts.all(suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atoms() {
        let good = [
            "app-misc/hello",
            "hello",
            "=app-misc/hello-2.12",
            "~app-misc/hello-2.12",
            ">=dev-lang/python-3.11.9_p1-r2",
            "=dev-lang/python-3.11*",
            "dev-lang/python:3.11",
            "dev-lang/python:3.11/3.11=",
            "x11-libs/gtk+:3::gentoo",
            "sys-apps/util-linux[-nls,static-libs(+)]",
            "virtual/libc",
            "app-misc/foo-bar",
            "media-fonts/font-100dpi",
            "www-servers/h2o",
            "=app-misc/x-1-r0",
        ];
        for text in good {
            assert_eq!(atom(text, false), Ok(()), "{text}");
        }
        let bad = [
            "",
            "-1",
            "--ask",
            "!app-misc/hello",
            "app-misc/hello-2.12",
            "=app-misc/hello",
            "a b",
            "a/b/c",
            "a/b;c",
            "a/$(x)",
            "/b",
            "a/",
            "a/b:",
            "a/b::",
            "a/b\u{1b}[2J",
            "*/*",
            "a/b.c",
            ">=a/b-1*",
            "a/b-1-r2",
            "a/b[]",
            "a/b[c,,d]",
            "a/b[c d]",
            "a/b[+c]",
            "a/b[c(x)]",
            "~a/b-1-r2",
            "=*/*-*9999*",
        ];
        for text in bad {
            assert!(atom(text, false).is_err(), "{text}");
        }
        assert_eq!(atom("*/*", true), Ok(()));
        for text in
            ["dev-lang/*", "dev-*/*lib*", "=*/*-*9999*", "=a/b-1*", "*/*::repo", "a/b[-c,d(+)]", "a/b[c?,!d=,e(-)?]"]
        {
            assert_eq!(atom(text, true), Ok(()), "{text}");
        }
        for text in [">=*/*-1", "=a/*", "=a/*-1", "=a/b-**", "=a/b-*1.0*"] {
            assert!(atom(text, true).is_err(), "{text}");
        }
        assert_eq!(package("@profile"), Ok(()));
        assert!(package("@").is_err());
    }
}
