//! What an archive may demand at most. Pure.

use std::fmt;

use crate::base::refusal::{Code, Reason};

/// The most bytes that an archive may have unpacked, unless somebody says otherwise.
const MOST: u64 = 256 << 30;
/// What is little enough for any archive, however small.
const LEAST: u64 = 4 << 30;
/// How many times its size an archive of programs and sources may have unpacked; real ones have five to fifteen times.
const RATIO: u64 = 100;
/// As [`LEAST`] and [`RATIO`], for layers: one may hold a disk of nothing but a hole, and gzip makes 1032 bytes of one.
const LEAST_OF_LAYERS: u64 = 32 << 30;
const RATIO_OF_LAYERS: u64 = 1100;

/// What an archive may demand at most. What is verified before it is unpacked has a signed size besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Entries in all; directories that are made for them without being entries count apart.
    pub entries: u64,
    /// Bytes of all files together, holes included, and of all else in the plain archive: headers, padding, what is behind its end.
    pub bytes: u64,
    /// Bytes of one PAX header.
    pub pax: u64,
    /// Bytes of what must be kept in memory: names and lists of the directories on the way, and until the archive's end names and
    /// attributes of what the kernel refuses to make.
    pub kept: u64,
    /// What archives before this one, which belong to the same, have spent of the first two.
    pub spent: Spent,
    /// What raises the first two, for the hint.
    pub raised_by: RaisedBy,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Entries, and global headers.
    pub entries: u64,
    /// Bytes, as [`Limits::bytes`] counts them.
    pub bytes: u64,
}

/// What raises a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RaisedBy {
    /// Nothing.
    #[default]
    Nothing,
    /// Options of the command.
    Options,
    /// Keys of the recipe's source.
    Source,
    /// Keys of one of the recipe's repositories.
    Repository,
}

impl Default for Limits {
    /// For an archive of which nothing is known. Its size says nothing: a file of gigabytes that are one hole is a small archive.
    fn default() -> Self {
        let (spent, raised_by) = (Spent::default(), RaisedBy::Nothing);
        Self { entries: 10_000_000, bytes: MOST, pax: 1 << 20, kept: 64 << 20, spent, raised_by }
    }
}

impl Limits {
    /// For programs and sources that are compressed to `size` bytes.
    pub fn of_release(size: u64) -> Self {
        let bytes = size.saturating_mul(RATIO).clamp(LEAST, MOST);
        Self { entries: 1_000_000, bytes, ..Self::default() }
    }

    /// For all the layers of an image, which have `size` bytes together.
    pub fn of_layers(size: u64) -> Self {
        Self { bytes: size.saturating_mul(RATIO_OF_LAYERS).clamp(LEAST_OF_LAYERS, MOST), ..Self::default() }
    }

    /// With what somebody set in their place.
    #[must_use]
    pub fn set(self, bytes: Option<u64>, entries: Option<u64>, raised_by: RaisedBy) -> Self {
        Self { bytes: bytes.unwrap_or(self.bytes), entries: entries.unwrap_or(self.entries), raised_by, ..self }
    }

    /// The refusal of an archive with more bytes.
    pub(super) fn too_large(&self) -> Reason {
        Reason::new(Code::TooLarge, format!("the archive has more than {} bytes unpacked", self.bytes))
    }

    /// The refusal of an archive with more entries.
    pub(super) fn too_many(&self) -> Reason {
        Reason::new(Code::TooManyEntries, format!("the archive has more than {} entries", self.entries))
    }

    /// What to do about a disk that is too small: whoever sets the limits says where the tree is.
    pub(super) fn make_room(&self) -> &'static str {
        match self.raised_by {
            RaisedBy::Source | RaisedBy::Repository => "free some space, or move the store with QUERN_HOME",
            RaisedBy::Nothing | RaisedBy::Options => "free some space",
        }
    }

    /// What to do about a refusal with this code.
    pub fn hint(&self, code: Code) -> Option<String> {
        let which = match code {
            Code::TooLarge => 0,
            Code::TooManyEntries => 1,
            _ => return None,
        };
        let what = ["max-unpacked", "max-entries"][which];
        let setting = match self.raised_by {
            RaisedBy::Nothing => return None,
            RaisedBy::Options => ["--max-bytes", "--max-entries"][which].to_owned(),
            RaisedBy::Source => format!("source.{what}"),
            RaisedBy::Repository => format!("`{what}` of the repository in portage.repositories"),
        };
        Some(format!("if it is meant to be that large, {setting} raises the limit"))
    }
}

/// Counts what is kept in memory.
#[derive(Debug)]
pub struct Kept {
    left: u64,
}

impl Kept {
    /// May count to [`Limits::kept`].
    pub fn new(limits: &Limits) -> Self {
        Self { left: limits.kept }
    }

    /// Counts `bytes` more, which are `what`.
    ///
    /// # Errors
    /// The refusal of an archive that takes too much.
    pub fn add(&mut self, bytes: usize, what: impl fmt::Display) -> Result<(), Reason> {
        match self.left.checked_sub(bytes as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(Reason::new(Code::TooMuchMemory, format!("{what} of the archive take too much memory")));
            }
        }
        Ok(())
    }

    /// Counts `bytes` less, which were counted before.
    pub fn release(&mut self, bytes: usize) {
        self.left = self.left.saturating_add(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proportionate() {
        let gib = 1 << 30;
        assert_eq!(Limits::of_release(290 << 20).bytes, (290 << 20) * 100);
        assert_eq!((Limits::of_release(0).bytes, Limits::of_release(u64::MAX).bytes), (4 * gib, 256 * gib));
        assert_eq!((Limits::of_layers(1000).bytes, Limits::of_layers(gib).bytes), (32 * gib, 256 * gib));
        assert_eq!(Limits::of_layers(100 << 20).bytes, (100 << 20) * 1100);
    }

    #[test]
    fn what_is_set_is_set() {
        let set = Limits::of_release(0).set(Some(1 << 50), Some(7), RaisedBy::Source);
        assert_eq!((set.bytes, set.entries, set.pax), (1 << 50, 7, 1 << 20));
        let unset = Limits::of_release(0).set(None, None, RaisedBy::Source);
        assert_eq!((unset.bytes, unset.entries), (4 << 30, 1_000_000));
    }

    #[test]
    fn the_hint_names_what_raises_the_limit() {
        let hint = |raised_by, code| Limits { raised_by, ..Limits::default() }.hint(code).unwrap_or_default();
        assert!(hint(RaisedBy::Source, Code::TooLarge).contains("source.max-unpacked raises"));
        assert!(hint(RaisedBy::Source, Code::TooManyEntries).contains("source.max-entries raises"));
        assert!(hint(RaisedBy::Options, Code::TooLarge).contains("--max-bytes raises"));
        assert!(hint(RaisedBy::Repository, Code::TooLarge).contains("`max-unpacked` of the repository"));
        assert_eq!(hint(RaisedBy::Source, Code::Corrupt) + &hint(RaisedBy::Nothing, Code::TooLarge), "");
    }

    #[test]
    fn what_is_kept_is_counted() {
        let mut kept = Kept::new(&Limits { kept: 10, ..Limits::default() });
        assert_eq!((kept.add(6, "names"), kept.add(4, "names")), (Ok(()), Ok(())));
        assert_eq!(kept.add(1, "names").unwrap_err().code, Code::TooMuchMemory);
        kept.release(3);
        assert_eq!(kept.add(3, "names"), Ok(()));
    }
}
