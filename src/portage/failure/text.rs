//! Output of emerge and of builds as lines: bounded, safe to show, and without the chatter that hides a cause.

use crate::base::text::plain;

/// The limit on the lines that are read, and on the characters of each.
const MAX_LINES: usize = 20_000;
const MAX_WIDTH: usize = 4_000;

/// Lines that say nothing about a failure, by their beginning.
const CHATTER: &[&str] = &[
    "Performing Global Updates",
    "(Could take a couple of minutes",
    ".='update pass'",
    "s='/var/db SLOT move'",
    "p='update /etc/portage",
    "Dependency resolution took",
    "These are the packages that would be",
    ">>> Jobs: ",
    ">>> Emerging ",
    ">>> Installing (",
    ">>> Completed (",
    "!!! aux_get(): ebuild for ",
    "!!!            /",
    ">>> Verifying ebuild manifests",
    ">>> Starting parallel fetch",
    ">>> Running pre-merge checks",
    "[ERROR] Task was destroyed",
    "task: <Task ",
];

/// The first lines of paragraphs that say nothing about a failure. A paragraph ends at a blank line.
const PARAGRAPHS: &[&str] = &[
    "Use --",
    "* In order to avoid wasting time, backtracking",
    "NOTE: The --",
    "It may be possible to solve this problem by using package.mask",
    "For more information, see the MASKED PACKAGES",
    "For more information, see MASKED PACKAGES",
    "For more information about Blocked Packages",
    "https://wiki.gentoo.org/wiki/Handbook:",
    "* IMPORTANT: ",
    "Note that this change can be reverted, once",
    "* Note that circular dependencies can often",
    "If you need support, post the output",
];

/// Returns the lines of an output, each safe to show.
pub(super) fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().take(MAX_LINES).map(|line| plain(line, MAX_WIDTH)).collect()
}

/// Leaves out progress, Global Updates and advice for interactive users. Of several blank lines, one is kept.
pub(super) fn without_chatter(lines: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    let mut skipping = false;
    for line in lines {
        let line = after_spinner(line);
        let words = line.trim();
        skipping = if words.trim_matches('*').is_empty() {
            false
        } else {
            skipping || PARAGRAPHS.iter().any(|start| words.starts_with(start))
        };
        let blank = words.is_empty() && kept.last().is_none_or(|last| last.trim().is_empty());
        if !skipping && !blank && !is_chatter(words) {
            kept.push(line.trim_end().to_owned());
        }
    }
    while kept.last().is_some_and(|last| last.trim().is_empty()) {
        kept.pop();
    }
    kept
}

/// Takes the text of a spinner off a line: emerge writes messages right after it.
pub(super) fn after_spinner(line: &str) -> &str {
    line.strip_prefix("Calculating dependencies")
        .map_or(line, |rest| rest.trim_start_matches([' ', '.']).trim_start_matches("done!"))
}

/// Returns true for a line that only reports progress.
pub fn is_chatter(line: &str) -> bool {
    let words = line.trim();
    CHATTER.iter().any(|start| words.starts_with(start)) || words == "done!" || is_update(words)
}

/// Returns true for a line that emerge writes only after it has resolved all dependencies.
pub fn begins_to_merge(line: &str) -> bool {
    [">>> Verifying ebuild", ">>> Running pre-merge", ">>> Emerging", ">>> Installing", ">>> Jobs: "]
        .iter()
        .any(|start| line.starts_with(start))
}

/// Returns true for a line of Global Updates: a file such as `…/profiles/updates/4Q-2025`, and marks.
fn is_update(line: &str) -> bool {
    line.split_once("/profiles/updates/").is_some_and(|(path, rest)| {
        path.starts_with('/')
            && !path.contains(' ')
            && rest.get(1..3) == Some("Q-")
            && rest.trim_end_matches(|c| ".*#@s%Sp".contains(c)).len() == "4Q-2025".len()
    })
}

/// Returns the last `max` lines of a log that lead to its first error, and the head of the error itself. A log without an error
/// gives its last lines.
pub(super) fn cause(lines: &[String], max: usize) -> Vec<String> {
    let is_error = |line: &String| line.trim_start().starts_with("* ERROR: ");
    let kept = match lines.iter().position(is_error) {
        None => without_chatter(lines),
        Some(at) => {
            // The head of an error ends before its call stack.
            let of_head =
                |line: &&String| line.trim_start().strip_prefix('*').is_some_and(|text| !text.trim().is_empty());
            let head = 1 + lines[at + 1..].iter().take_while(of_head).take(5).count();
            without_chatter(&lines[..at + head])
        }
    };
    last(kept, max)
}

/// Returns the last `max` lines.
pub(super) fn last(mut lines: Vec<String>, max: usize) -> Vec<String> {
    lines.split_off(lines.len().saturating_sub(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> Vec<String> {
        without_chatter(&lines(text.as_bytes()))
    }

    #[test]
    fn chatter_is_left_out() {
        let text = "\nPerforming Global Updates\n(Could take a couple of minutes if you have a lot of binary packages.)\n  \
                    .='update pass'  *='binary update'\n/var/db/repos/x/profiles/updates/4Q-2025...##@s\n\n\n\
                    Calculating dependencies ... done!\nDependency resolution took 8.19 s (backtrack: 0/20).\n\n\n\
                    >>> Jobs: 0 of 1 complete, 1 running   Load avg: 1, 2, 3\nemerge: no\n\n\
                    For more information, see the MASKED PACKAGES section in the emerge\nman page\n\nend\n\n";
        assert_eq!(kept(text), ["emerge: no", "", "end"]);
        assert_eq!(kept("Calculating dependencies ...!!! aux_get(): no"), ["!!! aux_get(): no"]);
        assert_eq!(kept("see /x/profiles/updates/4Q-2025 for more"), ["see /x/profiles/updates/4Q-2025 for more"]);
    }

    #[test]
    fn the_words_before_the_first_error_are_the_cause() {
        let text = "a\nb.c:1: error\nmake: *** Error 1\n * ERROR: a/b-1::x failed (compile phase):\n *   emake failed\n * \n\
                    * Call stack:\n * ERROR: a/b-1::x failed (compile phase):\n *   (no error message)\n";
        let expected =
            ["b.c:1: error", "make: *** Error 1", " * ERROR: a/b-1::x failed (compile phase):", " *   emake failed"];
        assert_eq!(cause(&lines(text.as_bytes()), 4), expected);
        assert_eq!(cause(&lines(b"1\n2\n3\n"), 2), ["2", "3"]);
    }
}
