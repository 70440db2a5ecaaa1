//! Foreign text made safe to show, and the nearest of some known names.
//!
//! Names in archives, lines of logs and answers of servers may hold terminal escapes or characters that reorder the text
//! around them. [`is_unsafe`] is the only table of such characters.

/// Returns true for a character that steers a terminal, reorders the text around it, or is invisible: the control characters
/// (C0, DEL, C1), and the bidirectional, zero-width and interlinear ones of Unicode.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Escapes every unsafe character as Rust does (`\u{1b}`, `\n`).
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push_escaped(&mut out, c));
    out
}

/// Escapes like [`escaped`], and cuts after 300 bytes, between words if possible: for foreign text in a message.
pub fn printable(text: &str) -> String {
    const MAX: usize = 300;
    let mut out = String::new();
    for c in text.chars() {
        if out.len() >= MAX {
            cut(&mut out, c);
            break;
        }
        push_escaped(&mut out, c);
    }
    out
}

/// Puts a value into backquotes, escaped and cut after 64 characters.
pub fn quoted(value: &str) -> String {
    const LONGEST: usize = 64;
    match value.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("`{}…`", escaped(&value[..cut])),
        None => format!("`{}`", escaped(value)),
    }
}

/// Returns a number of things as text: `1 layer`, `2 layers`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Escapes every unsafe character, line breaks included, and drops colour sequences: for the middle of a line.
pub fn line(text: &str) -> String {
    without_colours(text, |_| false)
}

/// Escapes every unsafe character except line breaks and tabs, and drops colour sequences: for text of several lines.
pub fn block(text: &str) -> String {
    without_colours(text, |c| matches!(c, '\n' | '\t'))
}

/// Makes a line of a command's output safe like [`line()`]. Keeps only the last of several states that carriage returns overwrite.
pub fn output(text: &str) -> String {
    let text = text.trim_end_matches(['\r', '\n']);
    without_colours(text.rsplit('\r').next().unwrap_or_default(), |c| c == '\t')
}

/// Serialises `value` as one line of JSON. Unsafe characters are written as `\uXXXX`, so the value stays the same.
///
/// # Errors
/// Those of `serde_json`.
pub fn json(value: &impl serde::Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    if !text.contains(is_unsafe) {
        return Ok(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    Ok(out)
}

/// Reduces a line to what a reader sees: escape sequences and unsafe characters are dropped, tabs become spaces, and the line
/// is cut to `max` characters, between words if possible. Where carriage returns overwrote the line, the last text written is kept.
pub fn plain(text: &str, max: usize) -> String {
    let text = text.trim_end_matches(['\n', '\r']);
    if text.len() <= max && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text.to_owned();
    }
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
            c if is_unsafe(c) => continue,
            c => c,
        };
        if count == max {
            cut(&mut out, shown);
            break;
        }
        out.push(shown);
        count += 1;
    }
    out
}

/// Returns the known name nearest to `written`, if it is near enough to be a slip of the pen. Case and the kind of separator
/// do not count.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance takes quadratic time, and nobody means a known name with a page of text.
    const LONGEST: usize = 200;
    const MOST: usize = 5_000;
    let length = written.chars().count();
    if length > LONGEST {
        return None;
    }
    let folded = fold(written);
    known
        .into_iter()
        .take(MOST)
        .map(|name| (strsim::osa_distance(&folded, &fold(name)), name))
        .filter(|(distance, name)| *distance <= (length.max(name.chars().count()) / 3).clamp(1, 6))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn fold(name: &str) -> String {
    name.chars().map(|c| if matches!(c, '_' | '.' | ' ') { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Marks `out` as cut before the character `next`. Drops the word that `next` belongs to, unless little would be left.
fn cut(out: &mut String, next: char) {
    if next != ' '
        && let Some(blank) = out.rfind(' ').filter(|at| *at >= out.len() / 2)
    {
        out.truncate(blank);
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push('…');
}

fn push_escaped(out: &mut String, c: char) {
    if is_unsafe(c) {
        out.extend(c.escape_default());
    } else {
        out.push(c);
    }
}

fn without_colours(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = skip_colour(rest) {
            rest = after;
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            c if keep(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if is_unsafe(c) => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Returns the text after a colour sequence (`ESC [ … m`) at the beginning of `text`, if there is one.
fn skip_colour(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\x1b[")?;
    parameters.trim_start_matches(|c: char| c.is_ascii_digit() || ";:".contains(c)).strip_prefix('m')
}

/// Skips the rest of an escape sequence after its ESC: a control sequence up to its final byte, a string up to its terminator,
/// or one character (ECMA-48).
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn line_block_and_output_escape_controls_and_drop_colours() {
        assert_eq!(line("a\x1b]0;title\x07b\nc"), "a\\x1b]0;title\\x07b\\nc");
        assert_eq!(block(" \x1b[32;01m*\x1b[0m ok\n\x1b[2J\tx\r"), " * ok\n\\x1b[2J\tx\\r");
        assert_eq!(output("10%\r100%\r\n"), "100%");
        assert_eq!(line("\u{202e}txt.exe \u{9b}31m"), "\\u{202e}txt.exe \\x9b31m");
        assert_eq!(line("Größe 日本"), "Größe 日本");
    }

    #[test]
    fn every_function_handles_the_same_unsafe_characters() {
        let unsafe_characters = "\u{ad}\u{61c}\u{180e}\u{200b}\u{200f}\u{2028}\u{202e}\u{2060}\u{2066}\u{feff}\u{fffa}\u{e0041}\u{9b}\x7f\x1b\0";
        for c in unsafe_characters.chars() {
            let text = format!("a{c}");
            for safe in [
                escaped(&text),
                printable(&text),
                quoted(&text),
                line(&text),
                block(&text),
                output(&text),
                plain(&text, 9),
            ] {
                assert!(!safe.contains(is_unsafe), "{c:?} in {safe:?}");
            }
            assert!(!json(&text).unwrap().contains(is_unsafe), "{c:?}");
        }
    }

    #[test]
    fn json_keeps_the_value() {
        let text = "\x1b[31m\u{9b}31m\u{7f}\u{202e}\u{feff}\u{e0041}\n\"ä日";
        let line = json(&text).unwrap();
        assert_eq!(line, r#""\u001b[31m\u009b31m\u007f\u202e\ufeff\udb40\udc41\n\"ä日""#);
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

    #[test]
    fn plain_drops_escapes_of_every_kind() {
        assert_eq!(plain("\x1b[31;01m*\x1b[0m ERROR", 80), "* ERROR");
        assert_eq!(plain("\x1b]0;title\x07text", 80), "text");
        assert_eq!(plain("\x1b]8;;http://x\x1b\\link", 80), "link");
        assert_eq!(plain("a\u{9b}31mb\u{202e}c", 80), "a31mbc");
        assert_eq!(plain("\x1bcreset", 80), "reset");
        assert_eq!(plain("tab\there", 80), "tab here");
        assert_eq!(plain("10%\r50%\r100%\r\n", 80), "100%");
        assert_eq!((plain("abcdef", 3), plain("abc", 3)), ("abc…".to_owned(), "abc".to_owned()));
    }

    #[test]
    fn long_text_is_cut_between_words() {
        assert_eq!(plain("make: *** no rule to make target", 22), "make: *** no rule to…");
        assert_eq!(plain("make: *** no rule to make target", 25), "make: *** no rule to make…");
        assert_eq!(plain("a verylongwordwithoutanyblank", 20), "a verylongwordwithou…");
        let said = printable(&"word ".repeat(100));
        assert!(said.ends_with(" word…"), "{said}");
    }

    #[test]
    fn printable_and_quoted_are_bounded() {
        assert!(printable(&"x".repeat(1000)).len() < 310);
        assert_eq!(quoted(&"x".repeat(65)), format!("`{}…`", "x".repeat(64)));
    }

    #[test]
    fn nearest_finds_a_slip_and_nothing_far_away() {
        let keys = ["stage3", "mirrors", "include-system"];
        assert_eq!(nearest("stag3", keys), Some("stage3"));
        assert_eq!(nearest("satge3", keys), Some("stage3"));
        assert_eq!(nearest("include_system", keys), Some("include-system"));
        assert_eq!(nearest("Mirror", keys), Some("mirrors"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("", keys), None);
        let profiles = ["default/linux/amd64/23.0/musl", "default/linux/arm64/23.0"];
        assert_eq!(nearest("default/linux/amd64/23/musl", profiles), Some(profiles[0]));
        assert_eq!(nearest("musl-python3", profiles), None);
    }

    proptest! {
        #[test]
        fn nothing_unsafe_survives(text in any::<String>(), max in 0usize..300) {
            for safe in [line(&text), escaped(&text), printable(&text), plain(&text, max)] {
                prop_assert!(!safe.contains(is_unsafe));
            }
            prop_assert!(plain(&text, max).chars().count() <= max + 1);
            prop_assert!(!block(&text).chars().any(|c| is_unsafe(c) && !"\n\t".contains(c)));
        }
    }
}
