//! The text of make.conf: values quoted for Portage's reader, and the recipe's variables in an order in which they can refer to
//! each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::error::{Error, Result};
use crate::base::text::plain;
use crate::recipe::{Job, owned_variable};

/// Refuses variables that cannot be written.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) for an invalid name, a variable that the build sets, a value with control
/// characters or a reference that Portage cannot expand, and variables that refer to each other in a cycle.
pub fn check(job: &Job) -> Result<()> {
    recipe_variables(job)?;
    job.portage.env.keys().try_for_each(|name| env_file(job, name).map(drop))
}

/// Returns the text of a file in `env`.
///
/// # Errors
/// Those of [`check`].
pub(super) fn env_file(job: &Job, name: &str) -> Result<String> {
    let set = &job.portage.env[name];
    let lines = variables(set, &format!("portage.env.{}", plain(name, 60)))?;
    Ok(lines.iter().map(|(name, value)| line(name, value)).collect::<String>() + &flags(set))
}

/// Returns the recipe's variables, quoted. Each comes after those it refers to.
pub(super) fn recipe_variables(job: &Job) -> Result<Vec<(String, String)>> {
    variables(&job.portage.make_conf, "portage.make-conf")
}

/// Writes the compiler flags that use COMMON_FLAGS. Portage itself does not know that variable; a stage3's make.conf uses it
/// in the same way.
pub(super) fn flags(variables: &BTreeMap<String, String>) -> String {
    let given = |name: &&str| variables.contains_key(*name);
    let names = ["CFLAGS", "CXXFLAGS", "FCFLAGS", "FFLAGS"];
    let missing = names.iter().filter(|name| given(&"COMMON_FLAGS") && !given(name));
    missing.map(|name| line(name, "${COMMON_FLAGS}")).collect()
}

/// Returns the variables of the key `of`, quoted. Each comes after those it refers to.
fn variables(variables: &BTreeMap<String, String>, of: &str) -> Result<Vec<(String, String)>> {
    let mut references = BTreeMap::new();
    let mut quoted = BTreeMap::new();
    for (name, value) in variables {
        let key = format!("{of}.{}", plain(name, 60));
        if !is_name(name) {
            return Err(Error::usage(format!("{key}: not a valid name of a variable"))
                .with_hint("use letters, digits and _, and do not begin with a digit"));
        }
        if let Some(instead) = owned_variable(name) {
            return Err(Error::usage(format!("the build sets {key}")).with_hint(instead));
        }
        let (text, names) = quote(value).map_err(|why| Error::usage(format!("{key} {why}")))?;
        quoted.insert(name.as_str(), text);
        references.insert(name.as_str(), names);
    }
    let mut order = Vec::new();
    for name in quoted.keys() {
        visit(name, &references, &mut Vec::new(), &mut order)
            .map_err(|cycle| Error::usage(format!("variables in {of} refer to each other in a cycle: {cycle}")))?;
    }
    Ok(order.into_iter().map(|name| (name.to_owned(), quoted[name].clone())).collect())
}

/// Visits variables depth first, so that each comes after those it refers to. A variable may refer to its own earlier value. The error
/// is a cycle.
fn visit<'a>(
    name: &'a str,
    references: &'a BTreeMap<&'a str, BTreeSet<String>>,
    stack: &mut Vec<&'a str>,
    order: &mut Vec<&'a str>,
) -> Result<(), String> {
    if order.contains(&name) {
        return Ok(());
    }
    if let Some(start) = stack.iter().position(|above| *above == name) {
        return Err([&stack[start..], &[name]].concat().join(" → "));
    }
    stack.push(name);
    for other in references[name].iter().filter(|other| *other != name) {
        if let Some((other, _)) = references.get_key_value(other.as_str()) {
            visit(other, references, stack, order)?;
        }
    }
    stack.pop();
    order.push(name);
    Ok(())
}

/// Writes a line `NAME="text"`. The text comes from [`quote`] or needs no quoting.
pub(super) fn line(name: &str, quoted: &str) -> String {
    format!("{name}=\"{quoted}\"\n")
}

/// Returns `value` as it is written between double quotes in make.conf, and the names of the variables it refers to.
///
/// `$NAME` and `${NAME}` remain references and `\$` remains a dollar sign; every other character means itself. Line breaks
/// become spaces, as Portage reads them. The quoting is for two readers: one splits words, for which `\` and `"` are escaped;
/// the other expands variables and removes a second layer of `\`, except between apostrophes.
pub(super) fn quote(value: &str) -> Result<(String, BTreeSet<String>), String> {
    let mut names = BTreeSet::new();
    let mut expanded = String::with_capacity(value.len());
    let (mut single, mut double) = (false, false);
    let mut rest = value.trim_end_matches('\n');
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = after;
        match c {
            '\n' | '\t' => expanded.push(' '),
            c if c.is_control() => return Err(format!("contains the control character {}", c.escape_default())),
            '\'' => {
                single ^= !double;
                expanded.push(c);
            }
            '"' => {
                double ^= !single;
                expanded.push(c);
            }
            '\\' if single => expanded.push('\\'),
            '\\' if after.starts_with('$') => {
                expanded.push_str("\\$");
                rest = &after[1..];
            }
            // The reader that expands variables skips a quote after a pair of backslashes.
            '\\' => {
                expanded.push_str("\\\\");
                if let Some(quote @ ('\'' | '"')) = after.chars().next() {
                    expanded.push(quote);
                    rest = &after[1..];
                }
            }
            '$' if single => expanded.push('$'),
            '$' => {
                let (name, length) = reference(after)?;
                match name {
                    Some(name) => {
                        names.insert(name.to_owned());
                        expanded.push('$');
                        expanded.push_str(&after[..length]);
                        rest = &after[length..];
                    }
                    None => expanded.push_str("\\$"),
                }
            }
            c => expanded.push(c),
        }
    }
    let mut quoted = expanded.replace('\\', "\\\\").replace('"', "\\\"");
    // Portage's reader takes this word for a command, even in quotes.
    if quoted == "source" {
        quoted.push(' ');
    }
    Ok((quoted, names))
}

/// Returns the name after a `$` and the length of the reference after the `$`. The name is `None` if the `$` is a dollar sign.
fn reference(after: &str) -> Result<(Option<&str>, usize), String> {
    let word = |text: &str| text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    if let Some(inner) = after.strip_prefix('{') {
        let length = word(inner);
        if length == 0 || !inner[length..].starts_with('}') {
            return Err(
                "contains a ${…} with more than a name, which Portage cannot expand (write \\${ for the text itself)"
                    .into(),
            );
        }
        return Ok((Some(&inner[..length]), length + 2));
    }
    let length = word(after);
    Ok(((length > 0).then(|| &after[..length]), length))
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') && !matches!(name, "source" | "export")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::portage::fixture::job;

    fn quoted(value: &str) -> String {
        quote(value).unwrap().0
    }

    /// Reads a quoted value as Portage's two readers do: `shlex` in POSIX mode, then `varexpand`.
    fn read_back(quoted: &str, variables: &BTreeMap<String, String>) -> String {
        let mut plain = String::new();
        let mut chars = quoted.chars().peekable();
        while let Some(c) = chars.next() {
            assert_ne!(c, '"', "the value would end early: {quoted}");
            if c == '\\' && matches!(chars.peek(), Some('\\' | '"')) {
                plain.push(chars.next().unwrap());
            } else {
                plain.push(c);
            }
        }
        let text: Vec<char> = plain.chars().collect();
        let (mut at, mut single, mut double, mut out) = (0, false, false, String::new());
        while at < text.len() {
            let c = text[at];
            at += 1;
            match c {
                '\'' => {
                    single ^= !double;
                    out.push(c);
                }
                '"' => {
                    double ^= !single;
                    out.push(c);
                }
                _ if single => out.push(c),
                '\\' => match text.get(at) {
                    None => out.push('\\'),
                    Some('$') => {
                        out.push('$');
                        at += 1;
                    }
                    Some('\\') => {
                        out.push('\\');
                        at += 1;
                        if let Some(next @ ('\'' | '"' | '$')) = text.get(at) {
                            out.push(*next);
                            at += 1;
                        }
                    }
                    Some(next) => {
                        out.extend(['\\', *next]);
                        at += 1;
                    }
                },
                '$' => {
                    let braced = text.get(at) == Some(&'{');
                    at += usize::from(braced);
                    let name: String =
                        text[at..].iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '_').collect();
                    assert!(!name.is_empty(), "bad substitution: {plain}");
                    at += name.len() + usize::from(braced);
                    out.push_str(variables.get(&name).map_or("", String::as_str));
                }
                c => out.push(c),
            }
        }
        out
    }

    #[test]
    fn ordinary_values_stay_unquoted() {
        assert_eq!(quoted("-O2 -pipe -march=x86-64-v3"), "-O2 -pipe -march=x86-64-v3");
        assert_eq!(quoted("${COMMON_FLAGS} $LDFLAGS"), "${COMMON_FLAGS} $LDFLAGS");
        assert_eq!(quoted("a\nb\tc\n"), "a b c");
    }

    #[test]
    fn characters_that_would_end_the_string_are_escaped() {
        assert_eq!(quoted(r#"a"b"#), r#"a\"b"#);
        assert_eq!(quoted(r"\"), r"\\\\");
        assert_eq!(quoted("$(rm) $ 100$"), r"\\$(rm) \\$ 100\\$");
        assert_eq!(quoted(r#"wget -O \"\${DISTDIR}\""#), r#"wget -O \\\\\"\\${DISTDIR}\\\\\""#);
        assert_eq!(quoted("source"), "source ");
    }

    #[test]
    fn control_characters_and_complex_expansions_are_refused() {
        assert!(quote("a\0b").is_err());
        assert!(quote("a\x1b[0m").is_err());
        assert!(quote("a\rb").is_err());
        assert!(quote("${A:-b}").is_err());
        assert!(quote("${A").is_err());
        assert!(quote("${}").is_err());
    }

    #[test]
    fn variables_come_after_those_they_refer_to() {
        let mut job = job(Vec::new());
        let set = |job: &mut Job, name: &str, value: &str| {
            job.portage.make_conf.insert(name.into(), value.into());
        };
        set(&mut job, "CFLAGS", "${COMMON_FLAGS} -g");
        set(&mut job, "COMMON_FLAGS", "-O2 ${LEVEL}");
        set(&mut job, "LEVEL", "${LEVEL} -pipe ${ELSEWHERE}");
        let order: Vec<String> = recipe_variables(&job).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(order, ["LEVEL", "COMMON_FLAGS", "CFLAGS"]);
        set(&mut job, "LEVEL", "$CFLAGS");
        let error = check(&job).unwrap_err();
        assert!(error.to_string().ends_with("CFLAGS → COMMON_FLAGS → LEVEL → CFLAGS"), "{error}");
    }

    #[test]
    fn invalid_names_and_variables_of_the_build_are_refused() {
        for name in ["", "1A", "A-B", "A B", "A=B", "é", "source", "ROOT", "PKGDIR", "PORTDIR"] {
            let mut job = job(Vec::new());
            job.portage.make_conf.insert(name.into(), "x".into());
            assert!(check(&job).is_err(), "{name:?}");
        }
    }

    proptest! {
        /// Text without references is read back unchanged.
        #[test]
        fn values_survive_both_readers(value in "[a-z\"'\\\\ #=;`()é]{0,30}") {
            let text = quoted(&value);
            let back = read_back(&text, &BTreeMap::new());
            prop_assert_eq!(back.trim_end(), value.trim_end(), "{}", text);
        }

        #[test]
        fn nothing_ends_the_string_or_breaks_a_substitution(value in "[aA_1\"'\\\\${} \n]{0,30}") {
            if let Ok((text, _)) = quote(&value) {
                read_back(&text, &BTreeMap::new());
            }
        }

        #[test]
        fn references_are_expanded(prefix in "[a-z\"\\\\ ]{0,10}", suffix in "[a-z ]{0,10}") {
            let variables = BTreeMap::from([("X".to_owned(), "value".to_owned())]);
            let text = quoted(&format!("{prefix} ${{X}}{suffix}"));
            let back = read_back(&text, &variables);
            let expected = format!("{prefix} value{suffix}");
            prop_assert_eq!(back.trim_end(), expected.trim_end());
        }

        #[test]
        fn quote_never_panics(value in any::<String>()) {
            let _ = quote(&value);
        }
    }
}
