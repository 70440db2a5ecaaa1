//! The text of an error: the message, its causes, the details, and hints.

use std::error::Error as StdError;

use crate::base::error::Error;
use crate::base::text;

/// Renders an error with its causes, details and hints. The text ends with a line break.
pub fn render(error: &Error, color: bool) -> String {
    let mut out = String::new();
    let mut details = Vec::new();
    let mut hints = Vec::new();
    let mut said = String::new();
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(link) = next {
        let message = link.to_string();
        // Some libraries repeat the text of the cause in their message.
        if said.is_empty() {
            out.push_str(&format!("{} {}\n", paint("error:", "1;31", color), text::line(&message)));
        } else if !said.ends_with(&message) {
            out.push_str(&format!("  {} {}\n", paint("caused by:", "1", color), text::line(&message)));
        }
        if let Some(own) = link.downcast_ref::<Error>() {
            details.extend(own.details());
            hints.extend(own.hint());
        }
        said = message;
        next = link.source();
    }
    for block in details {
        out.push('\n');
        out.push_str(text::block(block).trim_end_matches('\n'));
        out.push('\n');
    }
    if !hints.is_empty() && !out.ends_with("\n\n") && error.details().is_some() {
        out.push('\n');
    }
    for hint in hints {
        let hint = text::block(hint).trim_end().replace('\n', "\n      ");
        out.push_str(&format!("{} {hint}\n", paint("hint:", "1;36", color)));
    }
    out
}

/// Colours a word with an ANSI code.
pub fn paint(word: &str, code: &str, color: bool) -> String {
    if color { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::{Context, Kind};

    #[test]
    fn a_report_has_the_chain_the_details_and_the_hints() {
        let cause: Result<(), _> = Err(std::io::Error::other("no such \x1b[2Jthing"));
        let inner = cause.system(|| "opening /x").unwrap_err().with_hint("make it\nthen try again");
        let outer = Err::<(), _>(inner)
            .context(Kind::Build, || "building the image demo")
            .unwrap_err()
            .with_details("line one\n\x1b[31mline two\x1b[0m\n");
        let expected = "error: building the image demo\n  caused by: opening /x\n  caused by: no such \\x1b[2Jthing\n\n\
                        line one\nline two\n\nhint: make it\n      then try again\n";
        assert_eq!(render(&outer, false), expected);
        let colored = render(&outer, true);
        assert!(colored.starts_with("\x1b[1;31merror:\x1b[0m building"), "{colored}");
    }

    #[test]
    fn a_cause_that_the_message_repeats_is_left_out() {
        let error = Error::network("fetching x: refused").with_source(std::io::Error::other("refused"));
        assert_eq!(render(&error, false), "error: fetching x: refused\n");
    }
}
