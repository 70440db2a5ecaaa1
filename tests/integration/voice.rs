//! The rule of plain English (CONTRIBUTING.md), as far as a test can check it.

use crate::prose::{self, Text};

/// Words that begin a relative clause or a question. A docstring that opens with one does not name its thing.
const CLAUSE: [&str; 9] = ["What", "Whether", "Who", "Whoever", "Whose", "Where", "How", "Which", "Whatever"];

/// Texts that must stay: of Portage, by which its messages are recognised, and of the provenance.
const FIXED: [&str; 3] =
    ["there are no ebuilds to satisfy", "there are no binary packages to satisfy", "(there are no DIGESTS)"];

/// Returns true for a docstring whose first line opens with one of [`CLAUSE`].
fn opens_with_clause(line: &str) -> bool {
    let word: String = line.chars().take_while(|c| c.is_alphabetic()).collect();
    CLAUSE.contains(&word.as_str())
}

/// Finds a negated noun after a form of "to be": "x is no directory", where English has "x is not a directory".
fn negated_noun(text: &str) -> Option<String> {
    let own = FIXED.iter().fold(text.to_owned(), |text, foreign| text.replace(foreign, ""));
    let words: Vec<&str> = own.split_whitespace().collect();
    let found = words.windows(3).find(|words| {
        let verb = words[0].trim_start_matches(|c: char| !c.is_alphanumeric()).to_ascii_lowercase();
        ["is", "are", "was", "were", "be", "isn't"].contains(&verb.as_str())
            && words[1] == "no"
            && !["longer", "more", "less"].contains(&words[2].trim_end_matches(|c: char| !c.is_alphanumeric()))
    });
    found.map(|words| words.join(" "))
}

fn shown(found: &[(&Text, String)]) -> String {
    found.iter().map(|(text, what)| format!("{}: {what}\n", text.place)).collect()
}

#[test]
fn docstrings_name_their_thing() {
    let lines = prose::first_doc_lines();
    assert!(lines.len() > 1000, "the docstrings were found");
    let found: Vec<_> =
        lines.iter().filter(|line| opens_with_clause(&line.text)).map(|line| (line, line.text.clone())).collect();
    let rate = found.len() as f64 / lines.len() as f64;
    assert!(rate < 0.01, "{} of {} docstrings open with a clause:\n{}", found.len(), lines.len(), shown(&found));
}

#[test]
fn prose_negates_verbs_and_not_nouns() {
    let texts: Vec<Text> = [prose::literals(), prose::help(), prose::pages()].concat();
    assert!(texts.len() > 1000, "the texts were found");
    let found: Vec<_> = texts.iter().filter_map(|text| Some((text, negated_noun(&text.text)?))).collect();
    assert!(found.is_empty(), "\"is not a …\", \"… not found\" or \"has no …\" are plainer:\n{}", shown(&found));
}

#[test]
fn the_checks_find_what_they_look_for() {
    for line in ["What lies below.", "Whether it is", "Who, then", "Which: one", "Whose file"] {
        assert!(opens_with_clause(line), "{line}");
    }
    for line in ["Returns what lies below.", "Whole files.", "`What`", "Hows and whys", "whether"] {
        assert!(!opens_with_clause(line), "{line}");
    }
    for text in ["x is no directory", "there are no\n  packages", "(was no file)", "Is no file", "it may be no mount"] {
        assert!(negated_noun(text).is_some(), "{text}");
    }
    for text in ["x is not a directory", "it is no longer there", "has no file", "is no", "this no file", "are none"] {
        assert!(negated_noun(text).is_none(), "{text}");
    }
}
