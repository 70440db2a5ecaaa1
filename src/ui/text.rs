//! Foreign text → text that is safe to print. Names in archives, lines of logs and answers of servers may hold whatever their
//! authors liked, terminal escapes among them.

/// A text for the middle of a line: every control character, line breaks included, becomes visible.
pub fn line(text: &str) -> String {
    clean(text, |_| false)
}

/// A text of several lines: line breaks and tabs stay, colours go, all other control characters become visible.
pub fn block(text: &str) -> String {
    clean(text, |character| matches!(character, '\n' | '\t'))
}

/// A line of a command's output: of what a carriage return overwrites only the last state stays.
pub fn output(text: &str) -> String {
    let text = text.trim_end_matches(['\r', '\n']);
    clean(text.rsplit('\r').next().unwrap_or_default(), |character| character == '\t')
}

/// A line of JSON in which what moves a cursor or reorders a line is escaped, in JSON's way: the value stays what it is.
pub fn json(value: &impl serde::Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    let shown = |character: char| !character.is_control() && !reorders(character);
    if text.chars().all(shown) {
        return Ok(text);
    }
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match shown(character) {
            true => out.push(character),
            false => out.push_str(&format!("\\u{:04x}", u32::from(character))),
        }
    }
    Ok(out)
}

fn clean(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if let Some(after) = skip_colour(rest) {
            rest = after;
            continue;
        }
        rest = &rest[character.len_utf8()..];
        match character {
            kept if keep(kept) => out.push(kept),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(control))),
            hidden if reorders(hidden) => out.push_str(&format!("\\u{{{:x}}}", u32::from(hidden))),
            plain => out.push(plain),
        }
    }
    out
}

/// What follows a colour sequence (`ESC [ … m`) at the beginning of `text`; these are dropped, for they carry nothing to read.
fn skip_colour(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\x1b[")?;
    parameters
        .trim_start_matches(|character: char| character.is_ascii_digit() || ";:".contains(character))
        .strip_prefix('m')
}

/// Characters that make a terminal show other text than is there.
fn reorders(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_shown_and_colours_dropped() {
        assert_eq!(line("a\x1b]0;title\x07b\nc"), "a\\x1b]0;title\\x07b\\nc");
        assert_eq!(block(" \x1b[32;01m*\x1b[0m ok\n\x1b[2J\tx\r"), " * ok\n\\x1b[2J\tx\\r");
        assert_eq!(output("10%\r100%\r\n"), "100%");
        assert_eq!(line("\u{202e}txt.exe \u{9b}31m"), "\\u{202e}txt.exe \\x9b31m");
        assert_eq!(line("Größe 日本"), "Größe 日本");
    }

    #[test]
    fn json_says_the_same_and_moves_nothing() {
        let text = "\x1b[31m\u{9b}31m\u{7f}\u{202e}\u{feff}\n\"ä日";
        let line = json(&text).unwrap();
        assert_eq!(line, r#""\u001b[31m\u009b31m\u007f\u202e\ufeff\n\"ä日""#);
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

    proptest! {
        #[test]
        fn nothing_that_moves_a_cursor_survives(text in "[\\x00-\\x7f\u{80}-\u{9f}\u{202a}-\u{202e}ä\\x1b\\[m;]{0,60}") {
            prop_assert!(!line(&text).chars().any(|character| character.is_control() || reorders(character)));
            prop_assert!(!block(&text).chars().any(|character| character.is_control() && !"\n\t".contains(character)));
        }
    }
}
