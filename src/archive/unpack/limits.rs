//! Limits for one archive. Pure.

use std::fmt;

use crate::base::refusal::{Code, Reason};

/// Default limit for the unpacked bytes of any archive.
const MOST: u64 = 256 << 30;
/// Unpacked bytes that are always allowed, however small the archive is.
const LEAST: u64 = 4 << 30;
/// Allowed ratio of unpacked to compressed bytes for programs and sources. Real archives have 5 to 15.
const RATIO: u64 = 100;
/// Like [`LEAST`], for image layers: a layer may hold a disk image that is one hole.
const LEAST_OF_LAYERS: u64 = 32 << 30;
/// Like [`RATIO`], for image layers: gzip compresses zeros 1032 times.
const RATIO_OF_LAYERS: u64 = 1100;

/// Limits for one archive. A verified archive also has a signed size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Number of entries. Directories that are created without an entry count separately, against the same number.
    pub entries: u64,
    /// Bytes of all files with their holes, and of everything else in the plain archive: headers, padding, trailing bytes.
    pub bytes: u64,
    /// Bytes of one extended header.
    pub pax: u64,
    /// Bytes of memory for names and ACLs of the directories on the current path, and for deferred nodes and attributes.
    pub memory: u64,
    /// Allow whiteouts of files with the longest names. Their own names are too long to be created.
    pub whiteouts: bool,
    /// The part of `entries` and `bytes` that earlier layers of the same image have used.
    pub spent: Spent,
    /// The setting that raises `entries` and `bytes`, for the hint.
    pub raised_by: RaisedBy,
}

/// The used part of the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Entries and global headers.
    pub entries: u64,
    /// Bytes, counted like [`Limits::bytes`].
    pub bytes: u64,
}

/// The kind of setting that raises a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RaisedBy {
    /// No setting.
    #[default]
    Nothing,
    /// Options of the command.
    Options,
    /// Keys in `[source]` of the recipe.
    Source,
    /// Keys of a repository in the recipe.
    Repository,
}

impl Default for Limits {
    /// Returns the limits for an unknown archive. They do not depend on its size: a small archive may hold a large sparse file.
    fn default() -> Self {
        let (spent, raised_by) = (Spent::default(), RaisedBy::Nothing);
        Self { entries: 10_000_000, bytes: MOST, pax: 1 << 20, memory: 64 << 20, whiteouts: false, spent, raised_by }
    }
}

impl Limits {
    /// Returns the limits for programs or sources of `size` compressed bytes.
    pub fn of_release(size: u64) -> Self {
        let bytes = size.saturating_mul(RATIO).clamp(LEAST, MOST);
        Self { entries: 1_000_000, bytes, ..Self::default() }
    }

    /// Returns the limits for all layers of an image, which have `size` compressed bytes together.
    pub fn of_layers(size: u64) -> Self {
        let bytes = size.saturating_mul(RATIO_OF_LAYERS).clamp(LEAST_OF_LAYERS, MOST);
        Self { bytes, whiteouts: true, ..Self::default() }
    }

    /// Replaces the limits that a setting gives.
    #[must_use]
    pub fn set(self, bytes: Option<u64>, entries: Option<u64>, raised_by: RaisedBy) -> Self {
        Self { bytes: bytes.unwrap_or(self.bytes), entries: entries.unwrap_or(self.entries), raised_by, ..self }
    }

    /// Returns the refusal of an archive with too many bytes.
    pub(super) fn too_large(&self) -> Reason {
        Reason::new(Code::TooLarge, format!("the archive has more than {} bytes unpacked", self.bytes))
    }

    /// Returns the refusal of an archive with too many entries.
    pub(super) fn too_many(&self) -> Reason {
        Reason::new(Code::TooManyEntries, format!("the archive has more than {} entries", self.entries))
    }

    /// Returns the next step when the disk is full. Archives of a recipe are unpacked in the store.
    pub(super) fn make_room(&self) -> &'static str {
        match self.raised_by {
            RaisedBy::Source | RaisedBy::Repository => "free some space, or move the store with QUERN_HOME",
            RaisedBy::Nothing | RaisedBy::Options => "free some space",
        }
    }

    /// Returns the next step after a refusal with this code, if a setting helps.
    pub fn hint(&self, code: Code) -> Option<String> {
        let (option, key) = match code {
            Code::TooLarge => ("--max-bytes", "max-unpacked"),
            Code::TooManyEntries => ("--max-entries", "max-entries"),
            _ => return None,
        };
        let setting = match self.raised_by {
            RaisedBy::Nothing => return None,
            RaisedBy::Options => option.to_owned(),
            RaisedBy::Source => format!("source.{key}"),
            RaisedBy::Repository => format!("`{key}` of the repository in portage.repositories"),
        };
        Some(format!("if the archive is meant to be that large, raise the limit with {setting}"))
    }
}

/// Limits the memory that one archive may use.
#[derive(Debug)]
pub struct MemoryBudget {
    left: u64,
}

impl MemoryBudget {
    /// Allows [`Limits::memory`] bytes.
    pub fn new(limits: &Limits) -> Self {
        Self { left: limits.memory }
    }

    /// Reserves `bytes` for `what`, a plural for the message.
    ///
    /// # Errors
    /// [`Code::TooMuchMemory`] if the budget is used up.
    pub fn add(&mut self, bytes: usize, what: impl fmt::Display) -> Result<(), Reason> {
        let left = self.left.checked_sub(bytes as u64);
        self.left = left.ok_or_else(|| {
            Reason::new(Code::TooMuchMemory, format!("{what} of the archive need more memory than is allowed"))
        })?;
        Ok(())
    }

    /// Returns `bytes` that were reserved before.
    pub fn release(&mut self, bytes: usize) {
        self.left = self.left.saturating_add(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_with_the_compressed_size() {
        let gib = 1 << 30;
        assert_eq!(Limits::of_release(290 << 20).bytes, (290 << 20) * 100);
        assert_eq!((Limits::of_release(0).bytes, Limits::of_release(u64::MAX).bytes), (4 * gib, 256 * gib));
        assert_eq!((Limits::of_layers(1000).bytes, Limits::of_layers(gib).bytes), (32 * gib, 256 * gib));
        assert_eq!(Limits::of_layers(100 << 20).bytes, (100 << 20) * 1100);
    }

    #[test]
    fn settings_replace_the_defaults() {
        let set = Limits::of_release(0).set(Some(1 << 50), Some(7), RaisedBy::Source);
        assert_eq!((set.bytes, set.entries, set.pax), (1 << 50, 7, 1 << 20));
        let unset = Limits::of_release(0).set(None, None, RaisedBy::Source);
        assert_eq!((unset.bytes, unset.entries), (4 << 30, 1_000_000));
    }

    #[test]
    fn the_hint_names_the_setting_that_raises_the_limit() {
        let hint = |raised_by, code| Limits { raised_by, ..Limits::default() }.hint(code).unwrap_or_default();
        assert!(hint(RaisedBy::Source, Code::TooLarge).ends_with("with source.max-unpacked"));
        assert!(hint(RaisedBy::Source, Code::TooManyEntries).ends_with("with source.max-entries"));
        assert!(hint(RaisedBy::Options, Code::TooLarge).ends_with("with --max-bytes"));
        assert!(hint(RaisedBy::Repository, Code::TooLarge).contains("`max-unpacked` of the repository"));
        assert_eq!(hint(RaisedBy::Source, Code::Corrupt) + &hint(RaisedBy::Nothing, Code::TooLarge), "");
    }

    #[test]
    fn memory_is_counted() {
        let mut budget = MemoryBudget::new(&Limits { memory: 10, ..Limits::default() });
        assert_eq!((budget.add(6, "names"), budget.add(4, "names")), (Ok(()), Ok(())));
        assert_eq!(budget.add(1, "names").unwrap_err().code, Code::TooMuchMemory);
        budget.release(3);
        assert_eq!(budget.add(3, "names"), Ok(()));
    }
}
