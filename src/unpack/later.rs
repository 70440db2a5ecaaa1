//! What is set on directories when nothing more is written into them. There may be very many: each is held as what differs from the
//! one before. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::entry::Meta;

/// Directories in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Later {
    last: Vec<u8>,
    all: Vec<Directory>,
}

#[derive(Debug)]
struct Directory {
    /// How much of the path is that of the one before.
    shared: u16,
    rest: Box<[u8]>,
    meta: Meta,
}

impl Later {
    /// Adds one; returns how many bytes of memory it takes.
    pub(super) fn push(&mut self, path: &Path, meta: Meta) -> usize {
        let path = path.as_os_str().as_bytes();
        let shared = path.iter().zip(&self.last).take(usize::from(u16::MAX)).take_while(|(one, other)| one == other);
        let shared = shared.count();
        let rest: Box<[u8]> = path[shared..].into();
        self.last.truncate(shared);
        self.last.extend_from_slice(&rest);
        let bytes = size_of::<Directory>() + rest.len() + weight(&meta);
        self.all.push(Directory { shared: shared as u16, rest, meta });
        bytes
    }

    /// All of them.
    pub(super) fn into_each(self) -> impl Iterator<Item = (PathBuf, Meta)> {
        let mut path = Vec::new();
        self.all.into_iter().map(move |directory| {
            path.truncate(usize::from(directory.shared));
            path.extend_from_slice(&directory.rest);
            (OsString::from_vec(path.clone()).into(), directory.meta)
        })
    }
}

/// Memory that attributes take beside the struct they are in, in bytes.
pub(super) fn weight(meta: &Meta) -> usize {
    meta.xattrs.iter().map(|(name, value)| size_of_val(&(name, value)) + 32 + name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(paths in prop::collection::vec("[ab/]{0,9}", 0..20)) {
            let mut later = Later::default();
            let meta = |number: usize| Meta { uid: number as u32, ..Meta::default() };
            for (number, path) in paths.iter().enumerate() {
                later.push(Path::new(path), meta(number));
            }
            let out: Vec<_> = later.into_each().collect();
            let expected = paths.iter().enumerate().map(|(number, path)| (PathBuf::from(path), meta(number)));
            prop_assert_eq!(out, expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_shared_is_held_once() {
        let mut later = Later::default();
        let deep = PathBuf::from("d/".repeat(2000));
        let first = later.push(&deep, Meta::default());
        assert!(first > 3999 && later.push(&deep.join("x"), Meta::default()) < first - 3900);
    }
}
