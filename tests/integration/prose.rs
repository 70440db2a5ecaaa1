//! The prose of the project, collected for the tests of its language: docstrings, messages, help texts, man pages, documents.

use std::fs;
use std::path::{Path, PathBuf};

/// A piece of text and the place where a reader finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// `file:line`, or the command of a help text.
    pub place: String,
    pub text: String,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the files below `directory` whose names end with `ending`, in order.
pub fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut pending = vec![root().join(directory)];
    let mut found = Vec::new();
    while let Some(directory) = pending.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => pending.push(path),
                false if path.to_str().unwrap().ends_with(ending) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

fn place(path: &Path, line: usize) -> String {
    format!("{}:{line}", path.strip_prefix(root()).unwrap_or(path).display())
}

/// Returns the first line of each docstring of the crate, its tests and benchmarks.
pub fn first_doc_lines() -> Vec<Text> {
    let sources = ["src", "tests", "benches", "fuzz"].into_iter().flat_map(|directory| files(directory, ".rs"));
    sources
        .flat_map(|path| {
            let source = fs::read_to_string(&path).unwrap();
            let text = |(line, text)| Text { place: place(&path, line), text };
            first_lines(&source).into_iter().map(text).collect::<Vec<_>>()
        })
        .collect()
}

/// Returns the first line of each docstring in `source`, with its number.
pub fn first_lines(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (index, line) in source.lines().enumerate() {
        let line = line.trim_start();
        let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        match doc.map(str::trim).filter(|doc| !doc.is_empty()) {
            Some(doc) if !inside => found.push((index + 1, doc.to_owned())),
            _ => {}
        }
        inside = doc.is_some();
    }
    found
}

/// Returns the string literals of the program, without those of unit tests.
pub fn literals() -> Vec<Text> {
    let test = |path: &PathBuf| {
        let path = path.to_str().unwrap();
        path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("/fuzz.rs")
    };
    let sources = files("src", ".rs").into_iter().filter(|path| !test(path));
    let literals = sources.flat_map(|path| {
        let source = fs::read_to_string(&path).unwrap();
        let product = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let text = |(line, text)| Text { place: place(&path, line), text };
        strings(product).into_iter().map(text).collect::<Vec<_>>()
    });
    literals.collect()
}

/// Returns the string literals in Rust source with the number of the line on which each begins. Comments and characters are skipped.
pub fn strings(source: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = source.chars().collect();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let next = |ahead: usize| chars.get(at + ahead).copied().unwrap_or('\0');
        let end = match (chars[at], next(1)) {
            ('/', '/') => chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n),
            ('/', '*') => {
                (at..chars.len()).find(|&n| chars[n..].starts_with(&['*', '/'])).map_or(chars.len(), |n| n + 2)
            }
            ('\'', '\\') => (at + 3..chars.len()).find(|&n| chars[n] == '\'').map_or(chars.len(), |n| n + 1),
            ('\'', _) if next(2) == '\'' => at + 3,
            ('r', '"' | '#') if at == 0 || !(chars[at - 1].is_alphanumeric() && chars[at - 1] != 'b') => {
                let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
                let begin = at + 2 + hashes;
                let close: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
                match (begin..chars.len()).find(|&n| chars[n..].starts_with(&close)) {
                    Some(end) if chars[begin - 1] == '"' => {
                        found.push((line, chars[begin..end].iter().collect()));
                        end + close.len()
                    }
                    _ => at + 1,
                }
            }
            ('"', _) => {
                let (text, end) = string(&chars, at + 1);
                found.push((line, text));
                end
            }
            _ => at + 1,
        };
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    found
}

/// Reads a string literal whose first character is at `at`; returns its value and the place after its end.
fn string(chars: &[char], mut at: usize) -> (String, usize) {
    let mut text = String::new();
    while at < chars.len() && chars[at] != '"' {
        if chars[at] != '\\' {
            text.push(chars[at]);
            at += 1;
            continue;
        }
        match chars.get(at + 1).copied().unwrap_or('\0') {
            '\n' => {
                at += 2;
                while chars.get(at).is_some_and(|c| c.is_whitespace()) {
                    at += 1;
                }
                continue;
            }
            'n' => text.push('\n'),
            't' => text.push('\t'),
            c => text.push(c),
        }
        at += 2;
    }
    (text, at + 1)
}

/// Returns the long help of each command, with its words (`raw pack`) as the place.
pub fn help() -> Vec<Text> {
    let mut root = quern_builder::testing::command();
    root.build();
    let mut found = Vec::new();
    let mut pending = vec![(String::new(), root)];
    while let Some((words, command)) = pending.pop() {
        let name = |sub: &clap::Command| format!("{words} {}", sub.get_name()).trim().to_owned();
        pending.extend(
            command.get_subcommands().filter(|sub| sub.get_name() != "help").map(|sub| (name(sub), sub.clone())),
        );
        // Wide enough that no word is cut.
        let text = command.term_width(0).render_long_help().to_string();
        found.push(Text { place: words, text });
    }
    found.sort_by(|one, two| one.place.cmp(&two.place));
    found
}

/// Returns the man pages without their markup, and the documents of the repository, line by line.
pub fn pages() -> Vec<Text> {
    let top = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root().join(name));
    let documents = top.into_iter().chain(files("docs", ".md")).chain(files("profiles", ".toml"));
    let manual = [".1", ".5", ".7"].into_iter().flat_map(|ending| files("man", ending));
    let lines = documents.chain(manual).flat_map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().enumerate().map(|(index, line)| (place(&path, index + 1), line.to_owned()));
        let manual = path.starts_with(root().join("man"));
        let mut verbatim = false;
        let shown = move |(place, line): (String, String)| {
            verbatim = line == ".nf" || verbatim && line != ".fi";
            let text = match (manual, verbatim) {
                (true, true) => format!("  {}", unmarked(&line)),
                (true, false) => unmarked(&line),
                (false, _) => line,
            };
            Text { place, text }
        };
        lines.map(shown).collect::<Vec<_>>()
    });
    lines.collect()
}

/// Returns a line of a man page as a reader sees it.
fn unmarked(line: &str) -> String {
    let fonts = ["\\fB", "\\fI", "\\fR", "\\&"];
    let line = fonts.iter().fold(line.to_owned(), |line, font| line.replace(font, ""));
    line.replace("\\-", "-").replace("\\(aq", "'").replace("\\*(Aq", "'").replace("\\e", "\\")
}

#[test]
fn string_literals_are_read_as_the_compiler_reads_them() {
    let source = "// \"no\"\nlet a = \"one \\\n    two\\\"\"; let b = '\"'; let c: &'a str = r#\"raw \"x\"\"#; /* \"no\" */ b\"bytes\\n\"; var\"#\"";
    let found = strings(source);
    let texts: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["one two\"", "raw \"x\"", "bytes\n", "#"]);
    assert_eq!((found[0].0, found[1].0), (2, 3));
}

#[test]
fn first_lines_of_docstrings_are_found() {
    let source = "//! One.\n//! Two.\n\n/// Three\n///\n/// Four\nfn a() {}\n// Five\n    /// Six\n";
    assert_eq!(first_lines(source), [(1, "One.".to_owned()), (4, "Three".to_owned()), (9, "Six".to_owned())]);
}
