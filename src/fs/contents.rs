//! Digest of a file or directory of this machine that a recipe names: what a copy of it would have.
//!
//! Two trees have the same digest exactly if they have the same paths, types, permission bits, symlink targets and bytes. Owners and
//! times do not count, so that a fresh checkout of the same files is the same.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use crate::base::digest::Sha256;
use crate::base::error::{Context, Error, Result};

/// Names the format of the digested text.
const FORMAT: &[u8] = b"quern-builder contents 1\n";

/// Deepest directory that is read.
const DEPTH: usize = 128;

/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;

/// Computes the digest of `path`, following a symlink at `path` itself. `leave_out` returns true for paths relative to it that do not
/// count.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if something cannot be read, or is neither a file, a directory nor a symlink.
pub(crate) fn digest(path: &Path, leave_out: &dyn Fn(&Path) -> bool) -> Result<Sha256> {
    let mut hash = sha2::Sha256::new_with_prefix(FORMAT);
    for Entry { path: below, mode, kind } in list(path, leave_out)? {
        let shown = if below.as_os_str().is_empty() { path.to_owned() } else { path.join(&below) };
        let name = below.as_os_str().as_bytes();
        let (letter, size, target) = match &kind {
            Kind::Directory => (b'd', 0, None),
            Kind::Symlink(target) => (b'l', target.as_os_str().len() as u64, Some(target)),
            Kind::File(size) => (b'f', *size, None),
        };
        hash.update([letter]);
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(mode.to_le_bytes());
        hash.update(size.to_le_bytes());
        if let Some(target) = target {
            hash.update(target.as_os_str().as_bytes());
        }
        if matches!(kind, Kind::File(_)) {
            file(&shown, size, &mut hash)?;
        }
    }
    Ok(<[u8; 32]>::from(hash.finalize()).into())
}

/// A file, directory or symlink below a path.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Relative to the path; empty for the path itself.
    pub(crate) path: PathBuf,
    /// Permission bits; zero for a symlink.
    pub(crate) mode: u32,
    pub(crate) kind: Kind,
}

/// The type of an [`Entry`].
#[derive(Debug)]
pub(crate) enum Kind {
    Directory,
    Symlink(PathBuf),
    /// A regular file with this number of bytes.
    File(u64),
}

/// Lists `path` and everything below it, a directory before its content, names sorted by their bytes.
///
/// # Errors
/// Those of [`digest`].
pub(crate) fn list(path: &Path, leave_out: &dyn Fn(&Path) -> bool) -> Result<Vec<Entry>> {
    let real =
        fs_err::canonicalize(path).map_err(|error| Error::usage("reading files for a step").with_source(error))?;
    let mut entries = Vec::new();
    add(&real, Path::new(""), 0, leave_out, &mut entries)?;
    Ok(entries)
}

fn add(
    top: &Path,
    below: &Path,
    depth: usize,
    leave_out: &dyn Fn(&Path) -> bool,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    let path = if below.as_os_str().is_empty() { top.to_owned() } else { top.join(below) };
    let failed = |error: std::io::Error| Error::usage("reading files for a step").with_source(error);
    let metadata = fs_err::symlink_metadata(&path).map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o7777;
    let entry = |mode, kind| Entry { path: below.to_owned(), mode, kind };
    if metadata.is_dir() {
        if depth > DEPTH {
            return Err(Error::usage(format!("{}: its directories are too deep", path.display())));
        }
        entries.push(entry(mode, Kind::Directory));
        let mut names = Vec::new();
        for found in fs_err::read_dir(&path).map_err(failed)? {
            names.push(found.map_err(failed)?.file_name());
        }
        names.sort_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
        for name in names {
            let next = below.join(name);
            if !leave_out(&next) {
                add(top, &next, depth + 1, leave_out, entries)?;
            }
        }
    } else if metadata.is_symlink() {
        entries.push(entry(0, Kind::Symlink(fs_err::read_link(&path).map_err(failed)?)));
    } else if metadata.is_file() {
        entries.push(entry(mode, Kind::File(metadata.len())));
    } else {
        return Err(Error::usage(format!("{} is not a file, a directory or a symlink", path.display())));
    }
    Ok(())
}

fn file(path: &Path, size: u64, hash: &mut sha2::Sha256) -> Result<()> {
    let reading = || format!("reading {}", path.display());
    let mut file =
        fs_err::File::open(path).map_err(|error| Error::usage("reading files for a step").with_source(error))?;
    let (mut buffer, mut done) = (vec![0; BUFFER], 0);
    loop {
        let count = file.read(&mut buffer).system(reading)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        done += count as u64;
    }
    if done == size {
        return Ok(());
    }
    Err(Error::system(format!("{}: it changed while it was read", reading())).with_hint("try again"))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn times_and_owners_do_not_count_and_everything_else_does() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().join("x");
        fs_err::create_dir_all(top.join("d")).unwrap();
        fs_err::write(top.join("d/f"), "1").unwrap();
        fs_err::write(top.join("skipped"), "1").unwrap();
        let of = || digest(&top, &|path| path == Path::new("skipped")).unwrap();
        let first = of();
        fs_err::File::open(top.join("d/f")).unwrap().into_file().set_modified(std::time::UNIX_EPOCH).unwrap();
        fs_err::write(top.join("skipped"), "2").unwrap();
        assert_eq!(of(), first);
        let mut seen = vec![first];
        let mut differs = || {
            let now = of();
            assert!(!seen.contains(&now));
            seen.push(now);
        };
        fs_err::set_permissions(top.join("d/f"), Permissions::from_mode(0o755)).unwrap();
        differs();
        fs_err::write(top.join("d/f"), "2").unwrap();
        differs();
        fs_err::rename(top.join("d/f"), top.join("d/g")).unwrap();
        differs();
        std::os::unix::fs::symlink("g", top.join("d/l")).unwrap();
        differs();
        fs_err::create_dir(top.join("e")).unwrap();
        differs();
    }

    #[test]
    fn a_file_alone_has_a_digest_of_its_bytes_and_mode() {
        let place = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            fs_err::write(place.path().join(name), text).unwrap();
            digest(&place.path().join(name), &|_| false).unwrap()
        };
        assert_eq!(file("a", "1"), file("b", "1"));
        assert_ne!(file("a", "1"), file("b", "2"));
    }

    #[test]
    fn a_device_is_refused() {
        assert!(digest(Path::new("/dev/null"), &|_| false).unwrap_err().to_string().contains("not a file"));
    }
}
