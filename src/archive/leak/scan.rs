//! The search for values of secrets in the files of a tree.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::search::Search;
use super::{BASE64_LINES, MASK, SHORTEST, Secret, forms, trimmed};
use crate::archive::pack::Tree;
use crate::archive::pack::walk::{Item, walk};
use crate::archive::unpack::Deferred;
use crate::archive::unpack::entry::NodeKind;
use crate::base::error::{Context, Result};
use crate::base::progress::Silent;
use crate::fs::rootfs::Rootfs;

/// The bytes of a longer value that are looked for: its first ones.
const LONGEST: usize = 1024;

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// Looks for the values of secrets in files.
#[derive(Debug)]
pub struct Scan {
    texts: Search,
    /// The name of the secret of each text.
    names: Vec<String>,
    longest: usize,
}

/// A value of a secret in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The absolute path in the tree. Values in it are masked.
    pub path: String,
    /// The name of the secret.
    pub secret: String,
}

impl Scan {
    /// A scan for those of these secrets that have at least `shortest` bytes. `None` if there are none.
    pub fn new<'a>(secrets: impl IntoIterator<Item = Secret<'a>>, shortest: usize) -> Option<Self> {
        let (mut texts, mut names) = (Vec::new(), Vec::new());
        for (name, value) in secrets {
            let value = trimmed(value);
            if value.len() < shortest.max(SHORTEST) {
                continue;
            }
            for text in forms(&value[..value.len().min(LONGEST)]).into_iter().chain(base64_lines(value)) {
                texts.push(text);
                names.push(name.to_owned());
            }
        }
        let longest = texts.iter().map(Vec::len).max()?;
        Some(Self { texts: Search::new(texts), names, longest })
    }

    /// Looks for a value in the files of `root`, in their names, in targets of symlinks and in extended attributes. Returns the first one.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if a file cannot be read.
    pub fn find(&self, root: &Rootfs) -> Result<Option<Found>> {
        let mut buffer = Vec::new();
        let mut found = None;
        walk(Tree { root, deferred: &Deferred::default(), part: None }, &[], &Silent, &mut |item| {
            if found.is_none() {
                found = self.in_item(&item, root, &mut buffer)?.map(|secret| self.found(&item.path, secret));
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn in_item(&self, item: &Item, root: &Rootfs, buffer: &mut Vec<u8>) -> Result<Option<&str>> {
        let named = self.within(item.path.as_os_str().as_bytes());
        let target = match &item.kind {
            NodeKind::Symlink(target) => self.within(target),
            _ => None,
        };
        let attribute = || {
            let mut attributes = item.meta.xattrs.iter();
            attributes.find_map(|(name, value)| self.within(name).or_else(|| self.within(value)))
        };
        match (named.or(target).or_else(attribute), &item.file) {
            (None, Some(file)) => self.in_file(file, item.size, buffer).system(|| root.doing("reading", &item.path)),
            (found, _) => Ok(found),
        }
    }

    /// Reads a file in parts that overlap, and passes over its holes.
    fn in_file(&self, file: &OwnedFd, size: u64, buffer: &mut Vec<u8>) -> rustix::io::Result<Option<&str>> {
        let overlap = self.longest - 1;
        buffer.clear();
        let mut at = 0;
        while at < size {
            let data = next_data(file, at)?.min(size);
            if data > at {
                // A value may begin or end with zeros.
                let zeros = usize::try_from(data - at).unwrap_or(usize::MAX).min(self.longest);
                buffer.resize(buffer.len() + zeros, 0);
                at = data;
            } else {
                let kept = buffer.len();
                buffer.resize(kept + CHUNK, 0);
                let count = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut buffer[kept..], at))?;
                buffer.truncate(kept + count);
                if count == 0 {
                    break;
                }
                at += count as u64;
            }
            if let Some(found) = self.within(buffer) {
                return Ok(Some(found));
            }
            buffer.drain(..buffer.len().saturating_sub(overlap));
        }
        Ok(None)
    }

    /// Returns the name of the secret that these bytes have.
    fn within(&self, bytes: &[u8]) -> Option<&str> {
        self.texts.find(bytes).map(|(number, _)| self.names[number].as_str())
    }

    fn found(&self, path: &Path, secret: &str) -> Found {
        let mut path = path.as_os_str().as_bytes().to_vec();
        while let Some((number, start)) = self.texts.find(&path) {
            path.splice(start..start + self.texts.text(number).len(), MASK.iter().copied());
        }
        Found { path: format!("/{}", path.escape_ascii()), secret: secret.to_owned() }
    }
}

/// Returns a line from the middle of the base64 of a value that is broken into lines: other values may begin and end in the same way.
fn base64_lines(value: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    for length in BASE64_LINES {
        let lines_of = value.chunks_exact(length / 4 * 3);
        let middle = lines_of.len() / 2;
        lines.extend(lines_of.skip(middle).take(1).flat_map(forms_alone));
    }
    lines
}

fn forms_alone(bytes: &[u8]) -> Option<Vec<u8>> {
    super::base64_alone(bytes).pop()
}

/// Returns the position of the next data of a file from `at` on; the largest number if there is none.
fn next_data(file: &OwnedFd, at: u64) -> rustix::io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(data),
        Err(Errno::NXIO) => Ok(u64::MAX),
        // A file system that does not tell has data everywhere.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(at),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, symlink};

    use super::*;

    const VALUE: &[u8] = b"hunter2/hunter2\n";

    /// Returns the path and the name of the secret that is found in a tree which `write` makes.
    fn found(value: &[u8], write: impl Fn(&Path)) -> Option<(String, String)> {
        let place = tempfile::tempdir().unwrap();
        fs_err::write(place.path().join("ordinary"), "hunter2 hunter").unwrap();
        write(place.path());
        let scan = Scan::new([("s", value)], SHORTEST).unwrap();
        scan.find(&Rootfs::open(place.path()).unwrap()).unwrap().map(|Found { path, secret }| (path, secret))
    }

    fn at(path: &str) -> Option<(String, String)> {
        Some((path.to_owned(), "s".to_owned()))
    }

    #[test]
    fn values_are_found_in_bytes_names_targets_and_nowhere_else() {
        assert_eq!(found(VALUE, |_| {}), None);
        let within = |path: &Path| fs_err::write(path.join("x"), [&[b'.'; 9][..], VALUE].concat()).unwrap();
        assert_eq!(found(VALUE, within), at("/x"));
        assert_eq!(found(VALUE, |path| symlink("../hunter2/hunter2", path.join("link")).unwrap()), at("/link"));
        assert_eq!(found(VALUE, |path| fs_err::create_dir_all(path.join("a/hunter2/hunter2")).unwrap()), at("/a/***"));
        assert!(Scan::new([("pin", &b"12345"[..]), ("empty", b"\n")], SHORTEST).is_none());
    }

    #[test]
    fn values_are_found_at_every_border_of_a_part_and_beside_holes() {
        for offset in (CHUNK - 20..CHUNK + 2).chain([3 * CHUNK - 7]) {
            let write = |path: &Path| {
                let file = fs_err::File::create(path.join("sparse")).unwrap();
                file.file().write_at(b"hunter2/hunter2", offset as u64).unwrap();
                file.set_len(1 << 40).unwrap();
            };
            assert_eq!(found(VALUE, write), at("/sparse"), "{offset}");
        }
        // The value ends with zeros, which are a hole in the file.
        let value = [&b"hunter2"[..], &[0; 300]].concat();
        let write = |path: &Path| {
            let file = fs_err::File::create(path.join("sparse")).unwrap();
            file.file().write_at(b"hunter2", (1 << 20) - 7).unwrap();
            file.set_len(1 << 21).unwrap();
        };
        assert_eq!(found(&value, write), at("/sparse"));
    }

    #[test]
    fn a_long_value_is_found_in_lines_of_base64() {
        let value: Vec<u8> = (0..2000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for text in super::super::base64_alone(&value) {
            let write = |path: &Path| fs_err::write(path.join("x"), &text).unwrap();
            assert_eq!(found(&value, write), at("/x"));
        }
    }
}
