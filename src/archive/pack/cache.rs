//! Compressed pieces of earlier archives, so that only what changed is compressed again.
//!
//! A file is named by the BLAKE3 of how a piece is compressed and of its plain bytes, and holds the compressed bytes and then the
//! BLAKE3 of its name and of them: what was cut off, damaged or renamed is made again. (The digests that results have to have cost
//! most of packing again already.)
//! Whoever may write here decides what is in an archive, as with the trees themselves: the directory must be its user's alone.

use std::ffi::OsStr;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::walk::Identity;
use crate::base::error::{Context, Error, Result};

/// Bytes that are kept, about 15 images.
const MOST: u64 = 2 << 30;
/// No piece is larger; what is cannot be one.
const LARGEST: u64 = 16 << 20;
/// A piece that is used is marked so, if it was not marked for so long.
const FRESH: Duration = Duration::from_secs(3600);
/// What the names of pieces begin with that are not whole.
const PREFIX: &str = ".piece-";
/// Length of a digest.
const DIGEST: usize = blake3::OUT_LEN;

/// A directory of compressed pieces. Many programs may use it at the same time.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    identity: Identity,
    /// Why a piece could not be kept, the first time.
    failed: Mutex<Option<io::Error>>,
}

impl Cache {
    /// The cache in `directory`, which is made when missing.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when it cannot be made, or when others may write to it.
    pub fn open(directory: &Path) -> Result<Self> {
        let doing = || format!("opening the cache of compressed pieces {}", directory.display());
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.system(doing)?,
        }
        let metadata = fs_err::metadata(directory).system(doing)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            return Err(Error::system(format!("{}: others may write to it", doing())).with_hint(
                "what is there goes into archives: name a directory that is yours alone, or one to be made",
            ));
        }
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { directory: directory.to_owned(), identity, failed: Mutex::new(None) })
    }

    /// Which directory it is.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// The name of a piece.
    pub(super) fn key(how: &str, plain: &[u8]) -> String {
        let mut digest = blake3::Hasher::new();
        digest.update(&how.len().to_le_bytes()).update(how.as_bytes()).update(plain);
        digest.finalize().to_string()
    }

    /// A piece that was kept, as it was.
    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.directory.join(key)).ok()?;
        let metadata = file.metadata().ok().filter(|metadata| metadata.is_file() && metadata.len() <= LARGEST)?;
        let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
        (&file).take(LARGEST).read_to_end(&mut bytes).ok()?;
        let length = bytes.len().checked_sub(DIGEST)?;
        if digest(key, &bytes[..length]) != *bytes.last_chunk::<DIGEST>()? {
            return None;
        }
        bytes.truncate(length);
        if metadata.modified().ok()?.elapsed().is_ok_and(|age| age > FRESH) {
            // Only the order in which pieces go depends on it.
            drop(file.set_modified(SystemTime::now()));
        }
        Some(bytes)
    }

    /// Keeps a piece, whatever has its name so far. That the disk is full, say, is no reason to fail.
    pub(super) fn put(&self, key: &str, piece: &[u8]) {
        let write = || {
            let mut file = tempfile::Builder::new().prefix(PREFIX).tempfile_in(&self.directory)?;
            file.write_all(piece)?;
            file.write_all(digest(key, piece).as_bytes())?;
            file.persist(self.directory.join(key)).map(drop).map_err(io::Error::from)
        };
        if let Err(error) = write() {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    /// Removes the pieces that were not used for longest, if there are too many. Returns what is worth a warning.
    pub(super) fn trim(&self) -> Option<String> {
        let trimmed = trim(&self.directory, MOST).err();
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let error = failed.or(trimmed)?;
        Some(format!("compressed pieces cannot be kept in {}: {error}", self.directory.display()))
    }
}

/// What stands behind a piece that is kept under this key. Keys are of one length.
pub(super) fn digest(key: &str, piece: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(key.as_bytes()).update(piece).finalize()
}

/// Whether this program made a file of this name: all others are somebody's.
fn is_piece(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    name.starts_with(PREFIX.as_bytes()) || (name.len() == 2 * DIGEST && name.iter().all(digit))
}

fn trim(directory: &Path, most: u64) -> io::Result<()> {
    let mut pieces = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let entry = entry?;
        // Another program may have removed it meanwhile.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() && is_piece(&entry.file_name()) {
            pieces.push((metadata.mtime(), metadata.len(), entry.path()));
        }
    }
    let mut total: u64 = pieces.iter().map(|(_, length, _)| length).sum();
    if total <= most {
        return Ok(());
    }
    pieces.sort_unstable();
    for (_, length, path) in pieces {
        // Some more go than must, so that the next archive does not begin with this again.
        if total <= most / 4 * 3 {
            break;
        }
        match fs_err::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => total -= length,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_damaged_is_not_taken() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pieces");
        let cache = Cache::open(&path).unwrap();
        let key = Cache::key("how", b"plain");
        assert_ne!(key, Cache::key("ho", b"wplain"));
        assert_eq!(cache.get(&key), None);
        cache.put(&key, b"compressed");
        assert_eq!(cache.get(&key).as_deref(), Some(&b"compressed"[..]));
        let good = fs_err::read(path.join(&key)).unwrap();
        let flipped = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        let longer = [&good[..], &[0]].concat();
        for bytes in [flipped(0), flipped(good.len() - 1), good[..31].to_vec(), good[..40].to_vec(), longer] {
            fs_err::write(path.join(&key), bytes).unwrap();
            assert_eq!(cache.get(&key), None);
        }
        let other = Cache::key("how", b"other");
        fs_err::write(path.join(&other), &good).unwrap();
        assert_eq!(cache.get(&other), None, "the piece of another name");
        cache.put(&key, b"compressed");
        fs_err::rename(path.join(&key), place.path().join("elsewhere")).unwrap();
        fs_err::os::unix::fs::symlink(place.path().join("elsewhere"), path.join(&key)).unwrap();
        assert_eq!(cache.get(&key), None, "a link is no piece");
        cache.put(&key, b"again");
        assert_eq!(cache.get(&key).as_deref(), Some(&b"again"[..]));
        assert_eq!(cache.trim(), None);
    }

    #[test]
    fn nobody_else_may_write_there() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pieces");
        Cache::open(&path).unwrap();
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs_err::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(Cache::open(&path).unwrap_err().to_string().contains("others may write to it"));
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let place = tempfile::tempdir().unwrap();
        let name = |name: &str| Cache::key("how", name.as_bytes());
        for (name, age) in [(name("old"), 300), (".piece-middle".into(), 200), (name("new"), 100), ("mine".into(), 900)]
        {
            let path = place.path().join(name);
            fs_err::write(&path, [0; 100]).unwrap();
            let file = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        let left = || [name("old"), ".piece-middle".into(), name("new")].map(|name| place.path().join(name).exists());
        trim(place.path(), 300).unwrap();
        assert_eq!(left(), [true; 3]);
        trim(place.path(), 299).unwrap();
        assert_eq!(left(), [false, true, true]);
        trim(place.path(), 10).unwrap();
        assert_eq!(left(), [false; 3]);
        assert!(place.path().join("mine").exists(), "a file that is no piece");
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_said_once() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::open(&place.path().join("pieces")).unwrap();
        fs_err::remove_dir(place.path().join("pieces")).unwrap();
        cache.put("a", b"");
        assert!(cache.trim().unwrap().contains("cannot be kept"));
    }
}
