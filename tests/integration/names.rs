//! Messages, help texts, man pages and documents name only recipe keys, variables, options and commands that exist.

use std::collections::BTreeSet;

use clap::Command;

use crate::prose::{self, Text};

/// Endings of files. `emerge.log` is a file, not a key of `[emerge]`.
const FILE_ENDINGS: [&str; 8] = ["log", "out", "toml", "json", "conf", "rs", "tar", "oci"];

/// Extended attributes of files that have the form of a key.
const ATTRIBUTES: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// Programs in commands that users copy. Their options are their own.
const OTHER_PROGRAMS: [&str; 7] = ["podman", "skopeo", "usermod", "cargo", "rustup", "eit", "equo"];

/// The tables that names are checked against.
struct Tables {
    /// Keys of recipes with their tables: `build.kind`, `name`, `portage.repositories.git`.
    keys: BTreeSet<String>,
    /// Environment variables: one for each key, and those that the program reads by name.
    variables: BTreeSet<String>,
    program: Command,
}

impl Tables {
    fn new() -> Self {
        let (keys, mut variables): (BTreeSet<_>, BTreeSet<_>) =
            quern_builder::testing::recipe_keys().into_iter().unzip();
        variables.extend(prose::literals().into_iter().map(|literal| literal.text).filter(|text| is_variable(text)));
        let mut program = quern_builder::testing::command();
        program.build();
        Self { keys, variables, program }
    }

    fn is_table(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.split('.').next() == Some(name) && key.contains('.'))
    }

    /// Returns true for a key of a recipe, or an entry of a key that is a table itself (`portage.make-conf.CFLAGS`).
    fn has_key(&self, key: &str) -> bool {
        self.keys
            .iter()
            .any(|known| key == known || key.strip_prefix(known.as_str()).is_some_and(|k| k.starts_with('.')))
    }

    /// Returns the command that `words` begin with, and the number of words that name it.
    fn command(&self, words: &[&str]) -> (&Command, usize) {
        let mut command = &self.program;
        for (index, word) in words.iter().enumerate() {
            match command.get_subcommands().find(|sub| sub.get_name() == *word) {
                Some(sub) => command = sub,
                None => return (command, index),
            }
        }
        (command, words.len())
    }

    /// Returns true for an option of any command.
    fn has_option(&self, option: &str) -> bool {
        fn any(command: &Command, option: &str) -> bool {
            takes(command, option) || command.get_subcommands().any(|sub| any(sub, option))
        }
        any(&self.program, option)
    }

    /// Returns the names in `text` that do not exist. `help` is the command whose help the text is.
    fn faults(&self, text: &str, help: Option<&str>) -> Vec<String> {
        let mut found = Vec::new();
        let (phrases, prose) = phrases(text, help.is_none());
        for phrase in &phrases {
            for command in phrase.split(['|', ';', '&', '<', '>']) {
                found.extend(self.command_faults(command));
            }
        }
        let own = help.map(|words| self.command(&words.split(' ').collect::<Vec<_>>()).0);
        for option in prose.lines().flat_map(own_options) {
            let known = own.map_or_else(|| self.has_option(option), |own| takes(own, option));
            if !known {
                found.push(format!("option {option}"));
            }
        }
        for word in words(text) {
            if is_variable(word) && !self.variables.contains(word) {
                found.push(format!("variable {word}"));
            }
            if let Some((table, rest)) = word.split_once('.')
                && self.is_table(table)
                && !rest.is_empty()
                && !FILE_ENDINGS.contains(&rest)
                && !ATTRIBUTES.contains(&word)
                && !self.has_key(word)
            {
                found.push(format!("key {word}"));
            }
        }
        found.extend(self.table_faults(text));
        found
    }

    /// Checks a command line: its commands, and its options. The options of other programs are their own.
    fn command_faults(&self, line: &str) -> Vec<String> {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        while words.first().is_some_and(|word| word.contains('=') && !word.starts_with('-') || *word == "$") {
            words.remove(0);
        }
        let called = words.first().is_some_and(|word| *word == "quern-builder");
        if called {
            words.remove(0);
        }
        let Some(first) = words.first() else { return Vec::new() };
        if first.starts_with('-') && !called {
            let first = first.split('=').next().unwrap_or_default();
            return if self.has_option(first) || !is_option(first) {
                Vec::new()
            } else {
                vec![format!("option {first}")]
            };
        }
        let (command, named) = self.command(&words);
        let mut found = Vec::new();
        let next = words.get(named).copied().unwrap_or("-");
        let expects = command.get_subcommands().next().is_some();
        let is_word = next.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !next.starts_with('-');
        if expects && is_word && (called || named > 0) {
            return vec![format!("command {next} of `{}`", command.get_name())];
        }
        if called || named > 0 {
            let options = words.iter().take_while(|word| **word != "--").map(|word| bare(word));
            let options = options.map(|word| word.split('=').next().unwrap_or_default()).filter(|word| is_option(word));
            found.extend(
                options
                    .filter(|option| !takes(command, option))
                    .map(|o| format!("option {o} of `{}`", command.get_name())),
            );
        }
        found
    }

    /// Checks `[table]`, and `key` in `[table]`.
    fn table_faults(&self, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (at, _) in text.match_indices('[') {
            let Some((table, _)) = text[at + 1..].split_once(']') else { continue };
            let is_name = !table.is_empty() && table.chars().all(|c| c.is_ascii_lowercase() || ".-".contains(c));
            let link = text[at + table.len() + 2..].starts_with('(');
            let inside = link || text[..at].ends_with(|c: char| c.is_alphanumeric() || "[(/".contains(c));
            if !is_name || inside || table.contains('-') && !table.contains('.') {
                continue;
            }
            if !self.is_table(table) && !self.has_key(table) {
                found.push(format!("table [{table}]"));
                continue;
            }
            let before = text[..at].trim_end_matches('`').strip_suffix("` in ");
            let key = before.and_then(|before| before.rsplit('`').next()?.split(' ').next());
            if let Some(key) = key.filter(|key| !self.has_key(&format!("{table}.{key}"))) {
                found.push(format!("key `{key}` in [{table}]"));
            }
        }
        found
    }
}

/// Returns true when `command` takes `option`, its own or a global one.
fn takes(command: &Command, option: &str) -> bool {
    let long = |arg: &clap::Arg, name: &str| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    };
    option.strip_prefix("--").is_some_and(|name| command.get_arguments().any(|arg| long(arg, name)))
}

fn is_option(word: &str) -> bool {
    word.strip_prefix("--").is_some_and(|name| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    })
}

fn is_variable(word: &str) -> bool {
    word.strip_prefix("QUERN_").is_some_and(|name| {
        name.ends_with(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    })
}

/// Returns the options in a line, except those that follow the name of another program.
fn own_options(line: &str) -> impl Iterator<Item = &str> {
    let mut others = false;
    words(line).filter(move |word| {
        others = OTHER_PROGRAMS.contains(word) || others && *word != "quern-builder";
        is_option(word) && !others
    })
}

/// Removes the punctuation around a word.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric() && !"-_".contains(c)).trim_end_matches('-')
}

/// Returns the words of a text: names with dots and dashes, but not paths.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let part = |c: char| c.is_alphanumeric() || "-_./".contains(c);
    text.split(move |c| !part(c)).map(|word| word.trim_end_matches(['.', '-'])).filter(|word| !word.contains('/'))
}

/// Splits a text into command lines (in backquotes, after `$`, or indented and beginning with the program's name) and the prose
/// between them. With `indented`, every indented line is a command line, as in hints.
fn phrases(text: &str, indented: bool) -> (Vec<String>, String) {
    let mut commands = Vec::new();
    let mut rest = String::new();
    for line in text.lines() {
        let example = line.starts_with([' ', '#', '$']);
        let trimmed = line.trim_start_matches([' ', '#', '$']);
        let set = |word: &str| word.contains('=') && word.starts_with(|c: char| c.is_ascii_uppercase());
        let program = trimmed.split_whitespace().find(|word| !set(word));
        if example && (program == Some("quern-builder") || line.starts_with("$ ") || indented && line.starts_with("  "))
        {
            // What follows two blanks explains the command.
            let (command, about) = trimmed.split_once("  ").unwrap_or((trimmed, ""));
            commands.push(command.to_owned());
            rest.push_str(about);
        } else {
            rest.push_str(line);
        }
        rest.push('\n');
    }
    let mut prose = String::new();
    for (index, part) in rest.split('`').enumerate() {
        match index % 2 {
            0 => prose.push_str(part),
            _ => commands.push(part.replace('\n', " ")),
        }
        prose.push(' ');
    }
    (commands, prose)
}

/// Returns true for a literal that is an argument, a name or a pattern, and not a text for the user.
fn is_data(literal: &str) -> bool {
    let words = || literal.split_whitespace();
    let key = words().count() == 1 && literal.split('.').count() == 2 && !literal.contains('/');
    literal.trim_start().starts_with('[') || !key && (words().count() <= 1 || words().all(|word| word.starts_with('-')))
}

fn check(tables: &Tables, texts: &[Text], of_help: bool) -> Vec<String> {
    let faults = |text: &Text| {
        let faults = tables.faults(&text.text, of_help.then_some(text.place.as_str()));
        faults.into_iter().map(|fault| format!("{}: {fault}", text.place)).collect::<Vec<_>>()
    };
    texts.iter().flat_map(faults).collect()
}

#[test]
fn messages_name_things_that_exist() {
    let tables = Tables::new();
    // The table of keys lists the names of older programs, to say what became of them.
    let texts: Vec<Text> = prose::literals()
        .into_iter()
        .filter(|text| !is_data(&text.text) && !text.place.starts_with("src/recipe/keys/mod.rs"))
        .collect();
    assert!(texts.len() > 300, "the messages were found");
    let found = check(&tables, &texts, false);
    assert!(found.is_empty(), "messages name what does not exist:\n{}", found.join("\n"));
}

#[test]
fn help_names_things_that_exist() {
    let found = check(&Tables::new(), &prose::help(), true);
    assert!(found.is_empty(), "help texts name what does not exist:\n{}", found.join("\n"));
}

#[test]
fn pages_name_things_that_exist() {
    let mut pages = prose::pages();
    // For contributors, not for users: it names the commands and variables of the tests.
    pages.retain(|page| !page.place.starts_with("CONTRIBUTING.md"));
    let found = check(&Tables::new(), &pages, false);
    assert!(found.is_empty(), "pages name what does not exist:\n{}", found.join("\n"));
}

#[test]
fn names_that_do_not_exist_are_found() {
    let tables = Tables::new();
    let wrong = [
        "set build.tmpfs to `disk`",
        "a larger build.tmpfs, or",
        "`tmpfs` in [build]",
        "`kind` in `[builds]`",
        "`kinds = \"image\"` in [build]",
        "use --allow-rolback",
        "use `--allow-rolback`",
        "`quern-builder fetsh x.toml` gets it",
        "`quern-builder store exprot` writes it",
        "`raw unpak` reads it",
        "`quern-builder lock --offline`",
        "  quern-builder build x.toml --lock",
        "podman run --rm x, quern-builder with --rm",
        "QUERN_HOMES moves it",
        "QUERN_BUILD_TMPFS=4G",
        "portage.repositores",
        "$ quern-builder keys lst",
    ];
    for text in wrong {
        assert!(!tables.faults(text, None).is_empty(), "{text}");
    }
    assert!(!tables.faults("with --offline", Some("lock")).is_empty(), "another command's option");
    let right = [
        "set build.workdir-storage to `disk`",
        "`kind` in [build], strip.paths, portage.make-conf.CFLAGS",
        "emerge.log and /source.x and `emerge --pretend`",
        "`usermod --add-subuids 1-2 USER`",
        "as root:\n  usermod --add-subuids 1-2 USER",
        "run it: podman run --rm x",
        "`quern-builder store export x.toml -o stage3.tar`, `raw pack`, `lock --check`, --allow-rollback",
        "  SOURCE_DATE_EPOCH=1 quern-builder build x.toml --set emerge.jobs=4 --locked",
        "QUERN_HOME, QUERN_LOG, QUERN_BUILD_OUTDIR, QUERN_<TABLE>_<KEY>",
        "  quern-builder shell x.toml -- emerge --info      a command",
    ];
    for text in right {
        assert_eq!(tables.faults(text, None), [""; 0], "{text}");
    }
}
