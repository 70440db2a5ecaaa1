//! Lines of Portage's package files: `package.use` and its kin. Portage skips a wrong line with a message that nobody sees in a build;
//! here a wrong line is a mistake. Pure.

use super::diagnostic::Problem;
use super::words::{Checked, chars, printable, use_flag};
use super::{atom, keys};
use crate::base::text::quoted;

/// Parses a line of a package file and tidies its blanks. Accepts empty lines and comments.
pub(super) fn line(file: &str, text: &str) -> Checked<String> {
    let line = text.replace('\t', " ");
    let line = line.trim();
    printable(line)?;
    // A comment may follow the words.
    let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
    let tidy = || line.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some(first) = words.next() else { return Ok(tidy()) };
    let words: Vec<&str> = words.collect();
    match file {
        "package.provided" => provided(first, &words)?,
        "package.mask" | "package.unmask" | "packages" if !words.is_empty() => {
            return Err(Problem::new(format!("a line of {file} must contain only an atom")));
        }
        "package.mask" | "package.unmask" => wild(first.strip_prefix('-').unwrap_or(first))?,
        // An asterisk puts an atom into @system.
        "packages" => {
            let bare = first.strip_prefix('-').unwrap_or(first);
            wild(bare.strip_prefix('*').unwrap_or(bare))?;
        }
        "package.use" => {
            wild(first)?;
            if first.contains('[') {
                let problem = Problem::new("the atom must not have USE flags in brackets");
                return Err(problem.help("write the flags after the atom: app-misc/hello nls"));
            }
            some(&words, file)?;
            words.iter().try_for_each(|word| about(word, use_word(word)))?;
        }
        // Without a word, a line accepts the unstable keyword.
        "package.accept_keywords" | "package.keywords" => {
            wild(first)?;
            words.iter().try_for_each(|word| about(word, keyword(word)))?;
        }
        _ => {
            wild(first)?;
            some(&words, file)?;
            words.iter().try_for_each(|word| about(word, word_of(file, word)))?;
        }
    }
    Ok(tidy())
}

/// Returns the names of the files of `package.env` that a valid line names.
pub(super) fn env_files(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace().take_while(|word| !word.starts_with('#')).skip(1)
}

/// Accepts the name of a file in the directory `env`.
pub(super) fn env_name(name: &str) -> Checked {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    chars(name, "the name of a file in env", letter, |c| letter(c) || "+.-@".contains(c))
}

/// Accepts an atom with wildcards.
fn wild(text: &str) -> Checked {
    if !text.contains('/') {
        return Err(Problem::new("no category").help("write category/package, for example app-misc/hello"));
    }
    atom::atom(text, true)
}

/// Accepts `category/package-version`.
fn provided(first: &str, words: &[&str]) -> Checked {
    let help = "write category/package-version, for example sys-kernel/gentoo-sources-6.12.8";
    if !words.is_empty() || !first.contains('/') || first.contains(['*', '[', ':']) {
        return Err(Problem::new("a line of package.provided must contain only a package with its version").help(help));
    }
    atom::atom(&format!("={first}"), false).map_err(|problem| Problem { help: Some(help.to_owned()), ..problem })
}

/// Refuses a line that sets nothing.
fn some(words: &[&str], file: &str) -> Checked {
    if words.iter().any(|word| !word.ends_with(':')) {
        return Ok(());
    }
    let example = keys::KEYS.iter().find(|key| matches!(key.of, keys::Type::Lines(of) if of == file));
    let problem = Problem::new("no word follows the atom, so the line has no effect");
    Err(Problem { help: example.map(|key| format!("for example: {}", key.example)), ..problem })
}

/// Names the word with a problem.
fn about(word: &str, result: Checked) -> Checked {
    result.map_err(|problem| Problem { label: format!("{}: {}", quoted(word), problem.label), ..problem })
}

/// Accepts a USE flag, or the name of a USE_EXPAND variable with a colon, which begins its own flags.
fn use_word(word: &str) -> Checked {
    if let Some(variable) = word.strip_suffix(':') {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        return chars(variable, "a USE_EXPAND variable", letter, |c| letter(c) || c.is_ascii_digit());
    }
    use_flag(word).map_err(|problem| match word.contains(',') {
        true => problem.help("separate USE flags by blanks"),
        false => problem,
    })
}

/// Accepts a keyword, with or without a minus.
fn keyword(word: &str) -> Checked {
    let keyword = word.strip_prefix('-').unwrap_or(word);
    if matches!(keyword, "*" | "~*" | "**") {
        return Ok(());
    }
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    chars(keyword.strip_prefix('~').unwrap_or(keyword), "a keyword", letter, |c| letter(c) || c == '-')
}

/// Accepts a word of the other files, with or without a minus: a licence or a group of licences, a file, a property, a restriction.
fn word_of(file: &str, word: &str) -> Checked {
    let bare = word.strip_prefix('-').unwrap_or(word);
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match file {
        "package.env" => word.split('/').try_for_each(env_name),
        _ if bare == "*" => Ok(()),
        "package.license" => {
            let name = bare.strip_prefix('@').unwrap_or(bare);
            chars(name, "a licence", letter, |c| letter(c) || "+.-".contains(c))
        }
        _ => chars(bare, "a word of this file", letter, |c| letter(c) || "+.-".contains(c)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_lines() {
        for (file, text, tidy) in [
            ("package.use", " app-misc/hello   nls  -foo ", "app-misc/hello nls -foo"),
            ("package.use", "# why", "# why"),
            ("package.use", "app-misc/hello\tnls\t# because, of x", "app-misc/hello nls # because, of x"),
            ("package.use", "*/* PYTHON_TARGETS: -* python3_13 L10N: de pt-BR", ""),
            ("package.use", "app-misc/hello -*", ""),
            ("package.use", ">=dev-lang/python-3.11::gentoo -ncurses", ""),
            ("package.mask", "-app-misc/hello", ""),
            ("package.mask", ">=app-misc/hello-3 # broken", ""),
            ("package.mask", "*/*::overlay", ""),
            ("package.unmask", "=*/*-*9999*", ""),
            ("package.accept_keywords", "app-misc/hello", ""),
            ("package.accept_keywords", "app-misc/hello ~amd64 -~x86 ** ~* -* amd64-linux", ""),
            ("package.license", "*/* -* @FREE -@EULA GPL-2+ Apache-2.0", ""),
            ("package.env", "app-misc/hello no-lto.conf own/debug", ""),
            ("package.properties", "*/* -interactive", ""),
            ("package.accept_restrict", "*/* * -fetch", ""),
            ("package.provided", "sys-kernel/gentoo-sources-6.12.8-r1", ""),
            ("packages", "-*sys-apps/baselayout", ""),
        ] {
            let tidy = if tidy.is_empty() { text } else { tidy };
            assert_eq!(line(file, text), Ok(tidy.to_owned()), "{file}");
        }
    }

    #[test]
    fn wrong_lines_name_the_wrong_word() {
        for (file, text, named) in [
            ("package.use", "hello nls", "no category"),
            ("package.use", "a/b nls\n*/* -sandbox", "more than one line"),
            ("package.use", "a/b", "has no effect"),
            ("package.use", "a/b # nls", "has no effect"),
            ("package.use", "a/b L10N:", "has no effect"),
            ("package.use", "a/b nls,foo", "`nls,foo`"),
            ("package.use", "a/b +nls", "`+nls`"),
            ("package.use", "a/b nls?", "`nls?`"),
            ("package.use", "a/b 10N-x: de", "`10N-x:`"),
            ("package.use", "a/b[nls] foo", "brackets"),
            ("package.use", "-a/b foo", "must not start with"),
            ("package.mask", "app-misc/hello nls", "only an atom"),
            ("package.accept_keywords", "a/b ~~amd64", "`~~amd64`"),
            ("package.accept_keywords", "a/b ~", "`~`"),
            ("package.accept_keywords", "a/b ***", "`***`"),
            ("package.license", "a/b @", "`@`"),
            ("package.license", "a/b GPL|2", "`GPL|2`"),
            ("package.license", "a/b", "has no effect"),
            ("package.env", "a/b ../../etc/passwd", "`../../etc/passwd`"),
            ("package.env", "a/b /etc/passwd", "`/etc/passwd`"),
            ("package.properties", "a/b inter,active", "`inter,active`"),
            ("package.provided", "=a/b-1", "must not start with"),
            ("package.provided", "a/b", "needs a version"),
            ("package.provided", "a/b-1 c/d-1", "only a package"),
            ("package.provided", "a/b-1:0", "only a package"),
        ] {
            let problem = line(file, text).unwrap_err();
            assert!(problem.label.contains(named), "{file}: {text}: {}", problem.label);
        }
    }

    #[test]
    fn env_files_are_named_before_a_comment() {
        assert_eq!(env_files("a/b one two # three").collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(env_files("# a/b one").count(), 0);
    }

    proptest! {
        #[test]
        fn an_accepted_line_is_one_line_and_stays_accepted(file in 0..9_usize, text in "\\PC*|[ -~\t\n]*|a/b [ -~\t]*") {
            let files = ["package.use", "package.mask", "package.accept_keywords", "package.license", "package.env",
                "package.properties", "package.accept_restrict", "package.provided", "package.unmask"];
            if let Ok(tidy) = line(files[file], &text) {
                prop_assert!(!tidy.contains(char::is_control));
                prop_assert_eq!(line(files[file], &tidy), Ok(tidy.clone()));
            }
        }
    }
}
