//! Strict parsers for the framing of cleartext-signed documents and armored signatures. Pure text, without OpenPGP.
//!
//! Other verifiers look for a document somewhere in the file, and tolerate text around it and odd escapes. Most forgeries that
//! "verify" use this. Here the whole file must be the document, and the returned text is exactly the hashed text.

/// A document split into the signed text and the armored signature.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Document<'a> {
    /// Without dash-escaping and without blanks at line ends. Lines are joined by `\n`, without a final line end.
    pub(crate) text: String,
    /// From `-----BEGIN PGP SIGNATURE-----` to its END line.
    pub(crate) signature: &'a str,
    /// The digests of the signatures, as the header names them; empty without such a header.
    pub(crate) hashes: Vec<&'a str>,
}

const BEGIN_MESSAGE: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN_SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END_SIGNATURE: &str = "-----END PGP SIGNATURE-----";

/// Splits a cleartext-signed document. The error describes the mistake in it.
pub(crate) fn document(bytes: &[u8]) -> Result<Document<'_>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let mut lines = Lines { rest: text };
    let first = lines.by_ref().find(|line| !line.trim().is_empty()).ok_or("it is empty")?;
    if first.trim_end() != BEGIN_MESSAGE {
        return Err(not_signed(text, first));
    }
    // Only `Hash` is known there (RFC 9580, 7.2); anything else could be text that a reader takes for signed.
    let mut hashes = Vec::new();
    loop {
        let line = lines.next().ok_or("it ends within its headers")?;
        if line.trim().is_empty() {
            break;
        }
        let names = line
            .strip_prefix("Hash: ")
            .filter(|names| names.bytes().all(|byte| byte.is_ascii_alphanumeric() || b",- ".contains(&byte)))
            .ok_or("it has a header other than Hash before the signed text")?;
        hashes.extend(names.split(',').map(str::trim));
    }
    let mut signed = String::new();
    let mut empty = true;
    let signature = loop {
        let before = lines.rest;
        let line = lines.next().ok_or("it has no signature")?;
        if line.trim_end() == BEGIN_SIGNATURE {
            break before;
        }
        let line = match line.strip_prefix("- ") {
            Some(line) => line,
            None if line.starts_with('-') => {
                return Err("a line of the signed text begins with a dash that is not escaped".to_owned());
            }
            None => line,
        };
        if let Some(control) = line.chars().find(|char| char.is_control() && *char != '\t') {
            return Err(format!("the signed text holds control characters ({})", control.escape_default()));
        }
        if !std::mem::take(&mut empty) {
            signed.push('\n');
        }
        signed.push_str(line.trim_end_matches([' ', '\t']));
    };
    Ok(Document { text: signed, signature: block(signature)?, hashes })
}

/// Returns the armored signature in `text`, which may have only blanks around it.
pub(crate) fn block(text: &str) -> Result<&str, String> {
    let text = text.trim();
    let first = text.lines().next().unwrap_or_default();
    if first.trim_end() != BEGIN_SIGNATURE {
        return Err(not_signed(text, first));
    }
    let mut lines = text.lines().skip(1);
    let inside = lines.by_ref().find(|line| line.starts_with("-----")).ok_or("its signature is cut short")?;
    if inside.trim_end() != END_SIGNATURE {
        return Err("its signature is not closed by its own END line".to_owned());
    }
    match lines.next() {
        Some(_) => Err("there is something after the signature".to_owned()),
        None => Ok(text),
    }
}

fn not_signed(text: &str, first: &str) -> String {
    let first = first.trim_end();
    if first == BEGIN_MESSAGE {
        "it is a cleartext-signed document, not a detached signature".to_owned()
    } else if first == BEGIN_SIGNATURE {
        "it is a detached signature, not a signed document".to_owned()
    } else if first == "-----BEGIN PGP MESSAGE-----" {
        "it is an OpenPGP message; only cleartext-signed documents and detached signatures are accepted".to_owned()
    } else if text.contains(BEGIN_MESSAGE) || text.contains(BEGIN_SIGNATURE) {
        "there is something before its signed part".to_owned()
    } else if first.trim_start().starts_with('<') {
        "it is a web page, and not signed".to_owned()
    } else {
        "it is not signed".to_owned()
    }
}

/// Iterates over lines that end in `\n` or `\r\n`. Unlike [`str::lines`], it gives access to the rest of the text.
struct Lines<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        self.rest = rest;
        Some(line.strip_suffix('\r').unwrap_or(line))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----\n\niQ==\n=abcd\n-----END PGP SIGNATURE-----\n";

    fn signed(text: &str) -> String {
        format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{text}\n{SIGNATURE}")
    }

    #[test]
    fn the_returned_text_is_the_hashed_text() {
        let file = signed("one  \n\n- -----two\t\r\n- three");
        let document = document(file.as_bytes()).unwrap();
        assert_eq!(document.text, "one\n\n-----two\nthree");
        assert_eq!(document.signature, SIGNATURE.trim_end());
        assert_eq!(super::document(signed("").as_bytes()).unwrap().text, "");
        assert_eq!(super::document(format!("\n \n{}\n\n", signed("\na")).as_bytes()).unwrap().text, "\na");
    }

    #[test]
    fn malformed_documents_are_refused() {
        let good = signed("text");
        for (file, why) in [
            (String::new(), "empty"),
            ("text\n".to_owned(), "not signed"),
            ("<html>\n".to_owned(), "web page"),
            (format!("before\n{good}"), "before its signed part"),
            (format!("{good}after\n"), "after the signature"),
            (format!("{good}{good}"), "after the signature"),
            (format!("{good}{SIGNATURE}"), "after the signature"),
            (SIGNATURE.to_owned(), "detached signature"),
            (good.replace("SIGNED MESSAGE", "MESSAGE"), "OpenPGP message"),
            (good.replace("Hash: SHA512", "Comment: x"), "header other than Hash"),
            (good.replace("Hash: SHA512\n\n", "Hash: SHA512\n"), "header other than Hash"),
            (good.replace("Hash: SHA512", "Hash: SHA512\n\u{c}x"), "header other than Hash"),
            (signed("-unescaped"), "not escaped"),
            (signed(" \u{1b}[31mred"), "control characters"),
            (signed("form\u{c}feed"), "control characters"),
            (signed("carriage\rreturn"), "control characters"),
            (signed("vertical\u{b}tab"), "control characters"),
            (signed("next\u{85}line"), "control characters"),
            (good.replace(SIGNATURE, ""), "no signature"),
            (good.replace("-----END PGP SIGNATURE-----\n", ""), "cut short"),
            (good.replace("-----END PGP SIGNATURE", "-----END PGP MESSAGE"), "not closed"),
            ("-----BEGIN PGP SIGNED MESSAGE-----".to_owned(), "within its headers"),
        ] {
            let error = document(file.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{file:?}: {error}");
        }
        assert_eq!(document(b"\xff").unwrap_err(), "it is not text");
        assert!(block(&good).unwrap_err().contains("cleartext-signed"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(-----BEGIN PGP SIGNED MESSAGE-----\n|-----BEGIN PGP SIGNATURE-----|Hash: SHA512|- |-----END PGP SIGNATURE-----|[a\r\n\t-])*") {
            let _ = document(text.as_bytes());
            let _ = block(&text);
        }

        #[test]
        fn escaping_round_trip(lines in proptest::collection::vec("[ -~]{0,12}[!-~]|", 1..6)) {
            let escaped: Vec<String> = lines.iter().map(|line| if line.starts_with('-') || line.starts_with("From ") {
                format!("- {line}")
            } else {
                line.clone()
            }).collect();
            prop_assert_eq!(document(signed(&escaped.join("\n")).as_bytes()).unwrap().text, lines.join("\n"));
        }
    }
}
