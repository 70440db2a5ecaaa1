//! The rules of the rooms, read off the source: what only one place may do, and how long a file may be.

use std::fs;
use std::path::{Path, PathBuf};

const LONGEST: usize = 600;

/// A text that only these files (or directories, with a slash) may hold.
const ONLY: [(&str, &[&str]); 9] = [
    ("allow(unsafe_code)", &["sys.rs"]),
    ("reqwest", &["source/fetch.rs"]),
    ("sequoia_openpgp", &["verify.rs", "verify/"]),
    ("backhand", &["unpack/squashfs.rs"]),
    ("clap", &["cli/"]),
    ("indicatif", &["ui.rs", "ui/", "cli/"]),
    ("nix::mount", &["enter/"]),
    // userns.rs cuts its new mount namespace off from the host's.
    ("rustix::mount", &["enter/", "userns.rs"]),
    ("pivot_root", &["enter/", "sys.rs"]),
];

/// Texts that nothing may hold.
const NEVER: [&str; 5] = ["todo!(", "unimplemented!(", "FIXME", "XXX:", "dbg!("];

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut pending: Vec<PathBuf> = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(found.len() > 10, "the source is not where this test looks for it");
    found
}

/// The lines of a source that are code: comments may speak of anything.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// Whether `line` has `word` as a word of its own, not as a part of another.
fn has_word(line: &str, word: &str) -> bool {
    let part =
        |character: Option<char>| character.is_some_and(|character| character.is_alphanumeric() || character == '_');
    line.match_indices(word)
        .any(|(at, _)| !part(line[..at].chars().next_back()) && !part(line[at + word.len()..].chars().next()))
}

#[test]
fn what_only_one_place_may_do_is_done_there_only() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        for (word, places) in ONLY {
            if places.iter().any(|place| if place.ends_with('/') { name.starts_with(place) } else { name == *place }) {
                continue;
            }
            wrong.extend(
                code(&text)
                    .filter(|(_, line)| has_word(line, word))
                    .map(|(number, _)| format!("{name}:{number}: {word}")),
            );
        }
    }
    assert!(wrong.is_empty(), "outside of their rooms:\n{}", wrong.join("\n"));
}

#[test]
fn files_stay_short() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .collect();
    assert!(long.is_empty(), "longer than {LONGEST} lines: {long:?}");
    let main = sources().into_iter().find(|(name, _)| name == "main.rs").map(|(_, text)| text.lines().count());
    assert!(main.is_some_and(|lines| lines <= 40), "main.rs only says which process this is");
}

#[test]
fn nothing_is_left_for_later() {
    let mut found = Vec::new();
    for (name, text) in sources() {
        for (index, line) in text.lines().enumerate() {
            found.extend(
                NEVER.iter().filter(|word| line.contains(**word)).map(|word| format!("{name}:{}: {word}", index + 1)),
            );
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_module_needs_those_that_use_it() {
    // Who may not know whom: the pure and the low know nothing of the high.
    const BELOW: [(&str, &[&str]); 10] = [
        ("error.rs", &["cli", "pipeline", "progress", "recipe", "store", "ui"]),
        ("progress.rs", &["cli", "pipeline", "recipe", "store", "ui"]),
        ("recipe/", &["cli", "enter", "pipeline", "portage", "publish", "source", "store", "ui", "verify"]),
        ("enter/", &["cli", "pipeline", "portage", "publish", "recipe", "source", "ui", "verify"]),
        ("rootfs", &["cli", "enter", "pipeline", "portage", "publish", "recipe", "source", "store", "ui", "verify"]),
        ("oci", &["cli", "enter", "pipeline", "portage", "publish", "recipe", "source", "store", "ui", "verify"]),
        ("pack/", &["cli", "enter", "pipeline", "portage", "publish", "recipe", "source", "store", "ui", "verify"]),
        ("unpack/", &["cli", "enter", "pipeline", "portage", "publish", "recipe", "source", "store", "ui"]),
        ("verify", &["cli", "enter", "pipeline", "portage", "publish", "rootfs", "ui", "unpack"]),
        ("portage/", &["cli", "enter", "pipeline", "publish", "source", "ui", "verify"]),
    ];
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        for (_, above) in BELOW.iter().filter(|(below, _)| name.starts_with(below)) {
            for module in *above {
                let path = format!("crate::{module}");
                let lines = code(&text).filter(|(_, line)| has_word(line, &path));
                wrong.extend(lines.map(|(number, _)| format!("{name}:{number}: {path}")));
            }
        }
    }
    assert!(wrong.is_empty(), "knows what is above it:\n{}", wrong.join("\n"));
}

#[test]
fn words_are_found_as_words() {
    assert!(has_word("use clap::Parser;", "clap") && has_word("clap", "clap"));
    assert!(!has_word("overclap clapper", "clap"));
}
