//! The rules of the architecture, checked against the source: imports, words reserved for one room, and the length of files.

use std::fs;
use std::path::{Path, PathBuf};

const LONGEST: usize = 600;

/// Words that only these files, or files of these directories (with a slash), may contain.
const ONLY: [(&str, &[&str]); 10] = [
    ("allow(unsafe_code)", &["os/sys.rs"]),
    ("reqwest", &["net/"]),
    ("sequoia_openpgp", &["verify/"]),
    ("backhand", &["archive/unpack/squashfs.rs"]),
    ("clap", &["cli/"]),
    ("indicatif", &["ui/", "cli/"]),
    ("nix::mount", &["enter/"]),
    // A new mount namespace is cut off from the host's.
    ("rustix::mount", &["enter/", "os/userns/"]),
    ("pivot_root", &["enter/", "os/sys.rs"]),
    // Other rooms take the parts that they use, not everything.
    ("Site", &["source/", "builder/", "pipeline/", "cli/"]),
];

/// Texts that no file may contain.
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
    assert!(found.len() > 10, "the source was not found");
    found
}

/// Returns the lines of code with their numbers. Comments may contain any word.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// Returns true if `line` contains `word` as a whole word.
fn has_word(line: &str, word: &str) -> bool {
    let part =
        |character: Option<char>| character.is_some_and(|character| character.is_alphanumeric() || character == '_');
    line.match_indices(word)
        .any(|(at, _)| !part(line[..at].chars().next_back()) && !part(line[at + word.len()..].chars().next()))
}

#[test]
fn reserved_words_stand_only_in_their_rooms() {
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
    assert!(wrong.is_empty(), "reserved words outside their rooms:\n{}", wrong.join("\n"));
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
    assert!(main.is_some_and(|lines| lines <= 40), "main.rs only chooses the process");
}

#[test]
fn no_work_is_left_for_later() {
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

/// The room of a source file: the first part of its path.
fn room(name: &str) -> &str {
    name.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// The floor of a room, counted from the ground.
fn floor(room: &str) -> Option<usize> {
    quern_builder::FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Returns the names that follow `crate::` in `text`, with those of a group in braces, and the lines on which they stand.
fn crate_paths(text: &str) -> Vec<(usize, String)> {
    let text: String = text
        .lines()
        .map(|line| if line.trim_start().starts_with("//") { "\n" } else { line }.to_owned() + "\n")
        .collect();
    let first_word = |path: &str| -> String {
        path.trim_start().chars().take_while(|c| c.is_alphanumeric() || "_*".contains(*c)).collect()
    };
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate") {
        let rest = text[at + "crate".len()..].trim_start();
        let Some(path) = rest.strip_prefix("::") else { continue };
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let line = text[..at].matches('\n').count() + 1;
        match path.trim_start().strip_prefix('{') {
            None => found.push((line, first_word(path))),
            Some(group) => {
                let mut depth = 0;
                let mut members = vec![String::new()];
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => members.push(String::new()),
                        _ => {}
                    }
                    if let Some(member) = members.last_mut().filter(|_| c != ',' || depth > 0) {
                        member.push(c);
                    }
                }
                found.extend(
                    members.iter().map(|member| (line, first_word(member))).filter(|(_, word)| !word.is_empty()),
                );
            }
        }
    }
    found
}

/// Returns the names that a chain of `super::` reaches in the root of the crate from a file `depth` modules below it.
fn climbing_paths(text: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in code(text) {
        let mut rest = line;
        while let Some(at) = rest.find("super::") {
            let mut path = &rest[at..];
            let mut climbed = 0;
            while let Some(next) = path.strip_prefix("super::") {
                (path, climbed) = (next, climbed + 1);
            }
            let word: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if climbed >= depth && floor(&word).is_some() {
                found.push((number, word));
            }
            rest = path;
        }
    }
    found
}

/// Returns every import of `text`, a file of the source, that does not go down.
fn wrong_imports(name: &str, text: &str) -> Vec<String> {
    let room = room(name);
    // The root declares the rooms, and these two are for tests: they may use every room, and no room may use them.
    if matches!(room, "lib" | "main" | "testing" | "fuzz") {
        return Vec::new();
    }
    let Some(own) = floor(room) else { return vec![format!("{name}: the room {room} is on no floor of FLOORS")] };
    let depth = name.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
    let mut paths = crate_paths(text);
    paths.extend(climbing_paths(text, depth));
    paths
        .into_iter()
        .filter(|(_, other)| other != room && floor(other).is_none_or(|other| other >= own))
        .map(|(number, other)| format!("{name}:{number}: {room} uses {other}"))
        .collect()
}

#[test]
fn every_import_goes_to_a_lower_floor() {
    let wrong: Vec<_> = sources().iter().flat_map(|(name, text)| wrong_imports(name, text)).collect();
    assert!(wrong.is_empty(), "imports that do not go down:\n{}", wrong.join("\n"));
}

#[test]
fn every_floor_has_rooms_that_exist() {
    let rooms: Vec<_> = sources().iter().map(|(name, _)| room(name).to_owned()).collect();
    for name in quern_builder::FLOORS.iter().flat_map(|rooms| rooms.iter()) {
        assert!(rooms.iter().any(|room| room == name), "room {name} not found");
        assert_eq!(
            quern_builder::FLOORS.iter().flat_map(|rooms| rooms.iter()).filter(|other| *other == name).count(),
            1,
            "{name}"
        );
    }
}

#[test]
fn an_import_that_goes_up_is_found_in_every_form() {
    for text in [
        "use crate::cli::Args;",
        "use crate :: cli;",
        "use crate::{base::error, cli};",
        "use crate::{\n    base::{error, text},\n    cli::Args,\n};",
        "use crate::*;",
        "fn f() { crate::pipeline::build() }",
        "pub(crate) use crate::builder::Builder;",
        "use super::super::cli;",
        "fn f() { super::super::ui::paint() }",
        "type T = crate::recipe::Job;",
    ] {
        assert_eq!(wrong_imports("store/blobs.rs", text).len(), 1, "{text}");
    }
    for text in [
        "use crate::fs::lock;",
        "// use crate::cli;",
        "use super::lock;",
        "use crate::store::blobs;",
        "use crate::{base, fs};",
    ] {
        assert!(wrong_imports("store/blobs.rs", text).is_empty(), "{text}");
    }
    assert_eq!(wrong_imports("attic/mod.rs", "").len(), 1);
}

#[test]
fn only_whole_words_are_found() {
    assert!(has_word("use clap::Parser;", "clap") && has_word("clap", "clap"));
    assert!(!has_word("overclap clapper", "clap"));
}
