//! The body of a verified `.DIGESTS` or `.sha256`: digests by algorithm and file name. Pure functions from text to types.

use crate::base::digest::{Algorithm, Blake2b, Sha256, Sha512};
use crate::base::error::{Error, Result};
use crate::base::text::printable;

/// Returns the algorithm of a header or of a line in BSD form; `None` for one that is not used (WHIRLPOOL, MD5).
fn named(name: &str) -> Option<Algorithm> {
    match name {
        "SHA256" => Some(Algorithm::Sha256),
        "SHA512" => Some(Algorithm::Sha512),
        "BLAKE2B" => Some(Algorithm::Blake2b),
        _ => None,
    }
}

fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Sha256 => "SHA256",
        Algorithm::Sha512 => "SHA512",
        Algorithm::Blake2b => "BLAKE2B",
    }
}

/// Parsed digests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digests {
    entries: Vec<Entry>,
    /// Number of digests of algorithms that are not used.
    others: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    algorithm: Algorithm,
    /// Lower-case hex digits, as many as the algorithm has.
    digest: String,
    file: String,
}

impl Digests {
    /// Describes the digests and their files, for a message.
    pub fn given(&self) -> String {
        let mut given: Vec<String> = self
            .entries
            .iter()
            .take(3)
            .map(|entry| format!("{} of {}", name(entry.algorithm), printable(&entry.file)))
            .collect();
        match self.entries.len() {
            0 if self.others == 0 => return "nothing".to_owned(),
            0 => return format!("{} of algorithms that are not used", self.others),
            count if count > given.len() => given.push(format!("{} more", count - given.len())),
            _ => {}
        }
        given.join(", ")
    }

    /// Lists the names of the files, each once for each of its digests.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.file.as_str())
    }

    /// Returns the SHA-512 of exactly this file.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::base::error::Kind::Refused) when there are two different ones.
    pub fn sha512(&self, file: &str) -> Result<Option<Sha512>> {
        Ok(self.of(file, Algorithm::Sha512)?.and_then(Sha512::parse))
    }

    /// Returns the SHA-256 of exactly this file.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::base::error::Kind::Refused) when there are two different ones.
    pub fn sha256(&self, file: &str) -> Result<Option<Sha256>> {
        Ok(self.of(file, Algorithm::Sha256)?.and_then(Sha256::parse))
    }

    /// Returns the BLAKE2b of exactly this file.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::base::error::Kind::Refused) when there are two different ones.
    pub fn blake2b(&self, file: &str) -> Result<Option<Blake2b>> {
        Ok(self.of(file, Algorithm::Blake2b)?.and_then(Blake2b::parse))
    }

    pub(crate) fn of(&self, file: &str, algorithm: Algorithm) -> Result<Option<&str>> {
        let mut digests = self
            .entries
            .iter()
            .filter(|entry| entry.algorithm == algorithm && entry.file == file)
            .map(|entry| entry.digest.as_str());
        let first = digests.next();
        if digests.any(|other| Some(other) != first) {
            let name = name(algorithm);
            return Err(Error::refused(format!(
                "the signed digests give two different {name} for {}",
                printable(file)
            )));
        }
        Ok(first)
    }
}

/// Parses the signed text: `# SHA512 HASH` followed by `hex  file` lines, or `SHA512 (file) = hex` lines.
pub fn parse(text: &str) -> Result<Digests> {
    // `None` before any header; `Some(None)` below the header of an algorithm that is not used.
    let mut header: Option<Option<Algorithm>> = None;
    let mut digests = Digests::default();
    for line in text.lines().map(str::trim_end) {
        if line.trim().is_empty() {
            continue;
        }
        if let Some(comment) = line.strip_prefix('#') {
            if let Some(name) = comment.trim().strip_suffix("HASH") {
                header = Some(named(name.trim()));
            }
            continue;
        }
        let (algorithm, digest, file) = if let Some((name, digest, file)) = bsd(line) {
            (named(name), digest, file)
        } else {
            let (digest, rest) = line.split_once(' ').ok_or_else(|| bad(line, "expected a digest and a file name"))?;
            let Some(file) = rest.strip_prefix([' ', '*']) else {
                return Err(bad(line, "expected two spaces between digest and file name"));
            };
            (header.ok_or_else(|| bad(line, "no header names the algorithm"))?, digest, file)
        };
        let Some(algorithm) = algorithm else {
            digests.others += 1;
            continue;
        };
        if digest.len() != algorithm.digits() || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad(line, &format!("it is not a {} digest", name(algorithm))));
        }
        if file.is_empty() || file.contains('/') {
            return Err(bad(line, "it does not name a file"));
        }
        digests.entries.push(Entry { algorithm, digest: digest.to_ascii_lowercase(), file: file.to_owned() });
    }
    Ok(digests)
}

/// Reads the SHA-256 from a file that has only the line `sha256 <hex>`, as Funtoo's `.hash.txt` does.
pub fn line(bytes: &[u8]) -> Option<Sha256> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = text.split_ascii_whitespace();
    let (Some("sha256"), Some(hex), None) = (words.next(), words.next(), words.next()) else { return None };
    Sha256::parse(hex)
}

fn bsd(line: &str) -> Option<(&str, &str, &str)> {
    let (head, digest) = line.rsplit_once(") = ")?;
    let (name, file) = head.split_once(" (")?;
    Some((name, digest, file))
}

fn bad(line: &str, why: &str) -> Error {
    Error::refused(format!("the signed digests cannot be used: {why}: {}", printable(line)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(digit: &str) -> String {
        digit.repeat(128)
    }

    #[test]
    fn a_digest_is_chosen_by_name_and_not_by_position() {
        let text = format!(
            "# SHA512 HASH\n{}  f.tar.xz.CONTENTS.gz\n# BLAKE2B HASH\n{}  f.tar.xz.CONTENTS.gz\n\
             # SHA512 HASH\n{}  f.tar.xz\n# BLAKE2B HASH\n{}  f.tar.xz\n# WHIRLPOOL HASH\nabc  f.tar.xz\n",
            hex("1"),
            hex("2"),
            hex("A"),
            hex("b")
        );
        let digests = parse(&text).unwrap();
        assert_eq!(digests.of("f.tar.xz", Algorithm::Sha512).unwrap(), Some(hex("a").as_str()));
        assert_eq!(digests.of("f.tar.xz", Algorithm::Blake2b).unwrap(), Some(hex("b").as_str()));
        assert_eq!(digests.of("f.tar.xz", Algorithm::Sha256).unwrap(), None);
        assert_eq!(digests.of("f.tar", Algorithm::Sha512).unwrap(), None);
        assert!(digests.given().starts_with("SHA512 of f.tar.xz.CONTENTS.gz, ") && digests.given().ends_with("1 more"));
        assert_eq!(parse("").unwrap().given(), "nothing");
    }

    #[test]
    fn the_digests_of_gentoo_are_read() {
        let file = "stage3-amd64-desktop-openrc-20260719T170103Z.tar.xz";
        let text: String =
            [("65c8e11b", "667aae9", ""), ("919af6dd", "7eddd3f", ""), ("fbdd3fe6", "aaeae267", ".CONTENTS.gz")]
                .iter()
                .enumerate()
                .map(|(at, (first, last, suffix))| {
                    let (name, middle) =
                        (["SHA512", "BLAKE2B", "SHA512"][at], "0".repeat(128 - first.len() - last.len()));
                    format!("# {name} HASH\n{first}{middle}{last}  {file}{suffix}\n")
                })
                .collect();
        let digests = parse(&text).unwrap();
        assert!(digests.of(file, Algorithm::Sha512).unwrap().unwrap().starts_with("65c8e11b0"));
        assert!(digests.of(file, Algorithm::Blake2b).unwrap().unwrap().ends_with("07eddd3f"));
        let contents = format!("{file}.CONTENTS.gz");
        assert!(digests.of(&contents, Algorithm::Sha512).unwrap().unwrap().starts_with("fbdd3fe6"));
        assert_eq!(digests.of(&contents, Algorithm::Blake2b).unwrap(), None);
    }

    #[test]
    fn sha256_and_bsd_forms_are_read() {
        let sha256 = "c".repeat(64);
        let digests = parse(&format!("# SHA256 HASH\n{sha256}  f\n")).unwrap();
        assert_eq!(digests.of("f", Algorithm::Sha256).unwrap(), Some(sha256.as_str()));
        let digests = parse(&format!("SHA512 (f (1).tar) = {}\nMD5 (f) = 00\n", hex("d"))).unwrap();
        assert_eq!(digests.of("f (1).tar", Algorithm::Sha512).unwrap(), Some(hex("d").as_str()));
    }

    #[test]
    fn malformed_digests_are_refused() {
        let sha = hex("0");
        for (text, why) in [
            (format!("{sha}  f"), "no header"),
            (format!("# SHA512 HASH\n{sha} f"), "two spaces"),
            (format!("# SHA512 HASH\n{sha}"), "a digest and a file name"),
            (format!("# SHA256 HASH\n{sha}  f"), "not a SHA256"),
            (format!("# SHA512 HASH\n{}  f", "g".repeat(128)), "not a SHA512"),
            (format!("# SHA512 HASH\n{sha}  ../f"), "does not name a file"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let two = parse(&format!("# SHA512 HASH\n{sha}  f\n{}  f\n", hex("1"))).unwrap();
        assert!(two.of("f", Algorithm::Sha512).is_err());
    }

    proptest! {
        #[test]
        fn a_line_is_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..100), hex in "[0-9a-fA-F]{64}") {
            let _ = line(&bytes);
            prop_assert_eq!(line(format!("sha256 {hex}\n").as_bytes()), Sha256::parse(&hex));
            prop_assert_eq!(line(format!("md5 {hex}\n").as_bytes()), None);
            prop_assert_eq!(line(format!("sha256 {hex} {hex}\n").as_bytes()), None);
        }

        #[test]
        fn never_panics(text in "\\PC*|[# A-Z0-9a-f()=*\n]*") {
            if let Ok(digests) = parse(&text) {
                let _ = digests.of("f", Algorithm::Sha512);
            }
        }

        #[test]
        fn round_trip(entries in proptest::collection::hash_map("[a-z0-9][a-z0-9._-]{0,12}", ("[0-9a-f]{128}", "[0-9a-f]{128}"), 0..6)) {
            let text: String = entries.iter()
                .map(|(file, (sha, blake))| format!("# SHA512 HASH\n{sha}  {file}\n# BLAKE2B HASH\n{blake}  {file}\n")).collect();
            let digests = parse(&text).unwrap();
            for (file, (sha, blake)) in &entries {
                prop_assert_eq!(digests.of(file, Algorithm::Sha512).unwrap(), Some(sha.as_str()));
                prop_assert_eq!(digests.of(file, Algorithm::Blake2b).unwrap(), Some(blake.as_str()));
            }
        }
    }
}
