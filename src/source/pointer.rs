//! The body of a verified `latest-stage3-….txt`: the builds that a mirror offers. Pure functions from text to types.

use crate::base::error::{Error, Result};
use crate::base::text::printable;
use crate::base::time::is_build_timestamp;
use crate::verify::MAX_FILE;

/// Suffixes of a tarball's name, after the timestamp.
pub(super) const SUFFIXES: [&str; 5] = [".tar.xz", ".tar.zst", ".tar.bz2", ".tar.gz", ".tar"];

/// A parsed pointer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pointer {
    /// Time of the list in seconds since 1970, from `# ts=`.
    pub published: Option<u64>,
    /// Its stage3 tarballs, in the order of the text.
    pub entries: Vec<Entry>,
    /// Number of other tarballs, or of names in another form than Gentoo's.
    pub others: usize,
}

/// One tarball of a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The variant: `amd64-musl`.
    pub variant: String,
    /// Build time, `YYYYMMDDTHHMMSSZ`.
    pub timestamp: String,
    /// `.tar.xz` or another suffix of a tarball.
    pub suffix: String,
    /// Exact size in bytes.
    pub size: u64,
}

impl Entry {
    /// Returns the file's name.
    pub fn name(&self) -> String {
        format!("stage3-{}-{}{}", self.variant, self.timestamp, self.suffix)
    }

    /// Returns its path below `autobuilds/`.
    #[cfg(any(test, fuzzing))]
    pub fn path(&self) -> String {
        format!("{}/{}", self.timestamp, self.name())
    }
}

impl Pointer {
    /// Describes the names in it, for a message.
    pub fn names(&self) -> String {
        let mut names: Vec<&str> = self.entries.iter().take(5).map(|entry| entry.variant.as_str()).collect();
        let more = format!("{} more", self.entries.len() + self.others - names.len());
        match (names.is_empty(), self.entries.len() + self.others > names.len()) {
            (true, false) => return "nothing".to_owned(),
            (true, true) => return format!("no stage3 ({} other files)", self.others),
            (false, true) => names.push(&more),
            (false, false) => {}
        }
        names.join(", ")
    }

    /// Returns the entry of exactly this variant.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::base::error::Kind::Refused) when there are two.
    pub fn entry(&self, variant: &str) -> Result<Option<&Entry>> {
        let mut found = self.entries.iter().filter(|entry| entry.variant == variant);
        let first = found.next();
        match found.next() {
            Some(_) => Err(Error::refused(format!("the signed list names stage3 {variant} more than once"))),
            None => Ok(first),
        }
    }
}

/// Parses the signed text. Skips tarballs that are not a stage3 in Gentoo's form: the list of all variants may hold others.
///
/// # Errors
/// [`Kind::Refused`](crate::base::error::Kind::Refused) for a line that is neither a comment nor `path size`, and for a path that
/// leaves its directory.
pub fn parse(text: &str) -> Result<Pointer> {
    let mut pointer = Pointer::default();
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix('#') {
            if let Some(ts) = comment.trim().strip_prefix("ts=") {
                let ts = ts.parse().map_err(|_| bad(line, "its time is not a number"))?;
                if pointer.published.replace(ts).is_some_and(|before| before != ts) {
                    return Err(bad(line, "it contradicts an earlier time"));
                }
            }
        } else if !line.is_empty() {
            let mut fields = line.split_ascii_whitespace();
            let (Some(path), Some(size), None) = (fields.next(), fields.next(), fields.next()) else {
                return Err(bad(line, "expected a path and a size"));
            };
            let size = size.parse().map_err(|_| bad(line, "its size is not a number"))?;
            if size == 0 || size > MAX_FILE {
                return Err(bad(line, "its size is out of bounds"));
            }
            if path.starts_with('/') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
                return Err(bad(line, "its path leaves the directory"));
            }
            match entry(path, size) {
                Some(entry) => pointer.entries.push(entry),
                None => pointer.others += 1,
            }
        }
    }
    Ok(pointer)
}

/// Returns true if the text can be the name of a variant.
pub fn is_variant(text: &str) -> bool {
    text.len() <= 100
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
}

/// Splits a tarball's name into variant, timestamp and suffix.
pub fn split_name(name: &str) -> Option<(&str, &str, &str)> {
    let rest = name.strip_prefix("stage3-")?;
    let suffix = SUFFIXES.into_iter().find(|suffix| rest.ends_with(suffix))?;
    let (variant, timestamp) = rest.strip_suffix(suffix)?.rsplit_once('-')?;
    (is_variant(variant) && is_build_timestamp(timestamp)).then_some((variant, timestamp, suffix))
}

fn entry(path: &str, size: u64) -> Option<Entry> {
    let (directory, name) = path.split_once('/')?;
    let (variant, timestamp, suffix) = split_name(name)?;
    (directory == timestamp).then(|| Entry {
        variant: variant.to_owned(),
        timestamp: timestamp.to_owned(),
        suffix: suffix.to_owned(),
        size,
    })
}

fn bad(line: &str, why: &str) -> Error {
    Error::refused(format!("the signed list of stage3s cannot be used: {why}: {}", printable(line)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REAL: &str = "# Latest as of Mon, 10 Aug 2026 23:30:01 +0000\n# ts=1786404601\n\
        20260810T204554Z/stage3-amd64-openrc-20260810T204554Z.tar.xz 495865168\n";

    #[test]
    fn the_pointer_of_gentoo_is_read() {
        let pointer = parse(REAL).unwrap();
        assert_eq!(pointer.published, Some(1_786_404_601));
        let entry = pointer.entry("amd64-openrc").unwrap().unwrap();
        assert_eq!(entry.path(), "20260810T204554Z/stage3-amd64-openrc-20260810T204554Z.tar.xz");
        assert_eq!(entry.size, 495_865_168);
        // A prefix of a name is another variant.
        assert_eq!(pointer.entry("amd64").unwrap(), None);
        assert_eq!(pointer.entry("amd64-openrc-splitusr").unwrap(), None);
    }

    #[test]
    fn the_list_of_all_variants_is_read() {
        let text = "# ts=1\n20260810T204554Z/stage3-amd64-musl-20260810T204554Z.tar.xz 1\n\
            20260810T204554Z/stage3-amd64-musl-llvm-20260810T204554Z.tar.xz 2\n\
            20260606T000000Z/stage3-x32-openrc-20260606T000000Z.tar.zst 3\n\
            20260810T204554Z/install-amd64-minimal-20260810T204554Z.tar.xz 4\n\
            20260810T204554Z/stage3-amd64-odd-20260810T204555Z.tar.xz 5\n";
        let pointer = parse(text).unwrap();
        let variants: Vec<_> = pointer.entries.iter().map(|entry| entry.variant.as_str()).collect();
        assert_eq!(variants, ["amd64-musl", "amd64-musl-llvm", "x32-openrc"]);
        assert_eq!((pointer.others, pointer.names().as_str()), (2, "amd64-musl, amd64-musl-llvm, x32-openrc, 2 more"));
        assert_eq!(parse("").unwrap().names(), "nothing");
        assert_eq!(parse("a/b.iso 1\n").unwrap().names(), "no stage3 (1 other files)");
    }

    #[test]
    fn malformed_lists_are_refused() {
        for (text, why) in [
            ("20260810T204554Z/stage3-a-20260810T204554Z.tar.xz", "expected a path and a size"),
            ("20260810T204554Z/stage3-a-20260810T204554Z.tar.xz 1 2", "expected a path and a size"),
            ("20260810T204554Z/stage3-a-20260810T204554Z.tar.xz x", "not a number"),
            ("20260810T204554Z/stage3-a-20260810T204554Z.tar.xz -1", "not a number"),
            ("20260810T204554Z/stage3-a-20260810T204554Z.tar.xz 0", "out of bounds"),
            ("20260810T204554Z/stage3-a-20260810T204554Z.tar.xz 99999999999999", "out of bounds"),
            ("../stage3-a-20260810T204554Z.tar.xz 1", "leaves the directory"),
            ("/20260810T204554Z/stage3-a-20260810T204554Z.tar.xz 1", "leaves the directory"),
            ("20260810T204554Z//stage3-a-20260810T204554Z.tar.xz 1", "leaves the directory"),
            ("# ts=yesterday", "not a number"),
            ("# ts=1\n# ts=2", "contradicts"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let line = "20260810T204554Z/stage3-a-20260810T204554Z.tar.xz 1\n";
        assert!(parse(&line.repeat(2)).unwrap().entry("a").is_err());
        assert!(!parse("\u{1b}[31m x y").unwrap_err().to_string().contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*|[#ts=0-9A-Z/. \n-]*") {
            let _ = parse(&text);
            let _ = split_name(&text);
            let _ = is_build_timestamp(&text);
        }

        #[test]
        fn round_trip(ts in any::<u64>(), entries in proptest::collection::vec(
            ("[a-z0-9]{1,8}(-[a-z0-9_.]{1,8}){0,3}", "[0-9]{8}T[0-9]{6}Z", 0usize..5, 1..=MAX_FILE), 0..8))
        {
            let pointer = Pointer {
                published: Some(ts),
                others: 0,
                entries: entries.into_iter().map(|(variant, timestamp, suffix, size)| Entry {
                    variant, timestamp, suffix: SUFFIXES[suffix].to_owned(), size,
                }).collect(),
            };
            let text: String = std::iter::once(format!("# ts={ts}\n"))
                .chain(pointer.entries.iter().map(|entry| format!("{} {}\n", entry.path(), entry.size))).collect();
            prop_assert_eq!(parse(&text).unwrap(), pointer);
        }
    }
}
