//! Text that a build wrote, made safe to show.

/// `text` as one line without escapes, control characters and characters that turn the reading direction, cut to `max`
/// characters.
///
/// Where a carriage return overwrote the line, what was written last is kept, as a terminal would show it.
pub fn clean(text: &str, max: usize) -> String {
    let text = text.trim_end_matches(['\n', '\r']);
    let text = text.rsplit('\r').find(|part| !part.trim().is_empty()).unwrap_or(text);
    let mut out = String::with_capacity(text.len().min(max));
    let mut chars = text.chars().peekable();
    let mut count = 0;
    while let Some(c) = chars.next() {
        let shown = match c {
            '\x1b' => {
                skip_escape(&mut chars);
                continue;
            }
            '\t' => ' ',
            c if c.is_control() || is_invisible(c) => continue,
            c => c,
        };
        if count == max {
            out.push('…');
            break;
        }
        out.push(shown);
        count += 1;
    }
    out
}

/// Skips what follows an ESC: a control sequence up to its final byte, a string up to its terminator, or one character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            while let Some(&c) = chars.peek() {
                // A byte outside the grammar ends the sequence and is text again.
                if !('\x20'..='\x7e').contains(&c) {
                    return;
                }
                chars.next();
                if ('\x40'..='\x7e').contains(&c) {
                    return;
                }
            }
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            chars.next();
            while let Some(c) = chars.next() {
                match c {
                    '\x07' | '\u{9c}' => return,
                    '\x1b' => {
                        chars.next_if_eq(&'\\');
                        return;
                    }
                    _ => {}
                }
            }
        }
        Some(_) => {
            chars.next_if(|c| ('\x20'..='\x7e').contains(c));
        }
        None => {}
    }
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The last `count` lines of `bytes`, each made safe and cut to `width`; blank lines at the end are dropped.
pub fn last_lines(bytes: &[u8], count: usize, width: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines: Vec<String> = text
        .lines()
        .rev()
        .map(|line| clean(line, width))
        .skip_while(|line| line.trim().is_empty())
        .take(count)
        .collect();
    lines.reverse();
    lines
}

/// The lines of a file in Portage's list format with their numbers: comments and blank lines dropped, blanks collapsed.
pub fn list_lines(text: &str) -> impl Iterator<Item = (usize, String)> + '_ {
    text.lines().enumerate().filter_map(|(index, line)| {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        (!words.is_empty()).then(|| (index + 1, words.join(" ")))
    })
}

/// The one of `names` nearest to `wanted`, when one is near enough to be meant.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wanted.chars().count() / 4).clamp(1, 6);
    names
        .into_iter()
        .take(5_000)
        .map(|name| (distance(wanted, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance; long strings are cut, which only matters to suggestions.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(200).collect();
    let b: Vec<char> = b.chars().take(200).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_of_every_kind_are_gone() {
        assert_eq!(clean("\x1b[31;01m*\x1b[0m ERROR", 80), "* ERROR");
        assert_eq!(clean("\x1b]0;title\x07text", 80), "text");
        assert_eq!(clean("\x1b]8;;http://x\x1b\\link", 80), "link");
        assert_eq!(clean("a\u{9b}31mb\u{202e}c", 80), "a31mbc");
        assert_eq!(clean("\x1bcreset", 80), "reset");
        assert_eq!(clean("tab\there", 80), "tab here");
    }

    #[test]
    fn an_overwritten_line_shows_what_was_written_last() {
        assert_eq!(clean("10%\r50%\r100%\r\n", 80), "100%");
    }

    #[test]
    fn long_lines_are_cut_with_a_mark() {
        assert_eq!(clean("abcdef", 3), "abc…");
        assert_eq!(clean("abc", 3), "abc");
    }

    #[test]
    fn last_lines_drop_blank_ends_and_keep_order() {
        assert_eq!(last_lines(b"1\n2\n3\n\n \n", 2, 80), ["2", "3"]);
        assert!(last_lines(b"", 2, 80).is_empty());
    }

    #[test]
    fn list_lines_are_read_as_portage_reads_them() {
        let lines: Vec<_> = list_lines("# comment\n\n a/b  # why\n#x\n*c/d").collect();
        assert_eq!(lines, [(3, "a/b".to_owned()), (5, "*c/d".to_owned())]);
    }

    #[test]
    fn nearest_finds_a_slip_and_nothing_far() {
        let names = ["default/linux/amd64/23.0/musl", "default/linux/arm64/23.0"];
        assert_eq!(nearest("default/linux/amd64/23/musl", names), Some(names[0]));
        assert_eq!(nearest("musl-python3", names), None);
    }

    proptest! {
        #[test]
        fn clean_never_lets_a_control_character_out(text in any::<String>(), max in 0usize..300) {
            let out = clean(&text, max);
            prop_assert!(!out.chars().any(|c| c.is_control() || is_invisible(c)));
            prop_assert!(out.chars().count() <= max + 1);
        }

        #[test]
        fn last_lines_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let lines = last_lines(&bytes, 5, 40);
            prop_assert!(lines.len() <= 5);
            prop_assert!(lines.iter().all(|line| !line.contains(char::is_control)));
        }
    }
}
