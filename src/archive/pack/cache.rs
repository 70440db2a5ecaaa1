//! A cache of compressed chunks from earlier archives, so that only changed chunks are compressed again.
//!
//! A file's name is the BLAKE3 digest of the encoder's name and the plain bytes. The file holds the compressed bytes, followed by the
//! BLAKE3 digest of its name and those bytes: truncated, damaged or renamed files are ignored and made again.
//! Anybody who can write to the directory can change the content of archives, so it must belong to the user alone.

use std::ffi::OsStr;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::walk::Identity;
use crate::base::error::{Context, Error, Result};

/// Size of the cache in bytes; room for about 15 images.
const MAX_SIZE: u64 = 2 << 30;
/// Larger files cannot be chunks.
const MAX_CHUNK: u64 = 16 << 20;
/// The time of a used chunk is refreshed if it is older than this.
const FRESH: Duration = Duration::from_secs(3600);
/// Prefix of the names of incomplete chunks.
const PREFIX: &str = ".piece-";
/// Bytes of a digest.
const DIGEST: usize = blake3::OUT_LEN;

/// A directory of compressed chunks. Several processes may use it at the same time.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    identity: Identity,
    /// The first error of [`Cache::put`].
    failed: Mutex<Option<io::Error>>,
}

impl Cache {
    /// Opens the cache in `directory`, and creates the directory if it is missing.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when it cannot be created, or when others may write to it.
    pub fn open(directory: &Path) -> Result<Self> {
        let doing = || format!("opening the cache of compressed chunks {}", directory.display());
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.system(doing)?,
        }
        let metadata = fs_err::metadata(directory).system(doing)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            return Err(Error::system(format!("{}: other users can write to it", doing())).with_hint(
                "its files end up in archives: name a directory that only you can write to, or one that does not exist yet",
            ));
        }
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { directory: directory.to_owned(), identity, failed: Mutex::new(None) })
    }

    /// Returns the device and inode of the directory.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Returns the name of the chunk with these plain bytes. `encoding` names the encoder and its level.
    pub(super) fn key(encoding: &str, plain: &[u8]) -> String {
        let mut digest = blake3::Hasher::new();
        digest.update(&encoding.len().to_le_bytes()).update(encoding.as_bytes()).update(plain);
        digest.finalize().to_string()
    }

    /// Returns the compressed bytes of a chunk, if the cache has them undamaged.
    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.directory.join(key)).ok()?;
        let metadata = file.metadata().ok().filter(|metadata| metadata.is_file() && metadata.len() <= MAX_CHUNK)?;
        let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
        (&file).take(MAX_CHUNK).read_to_end(&mut bytes).ok()?;
        let length = bytes.len().checked_sub(DIGEST)?;
        if digest(key, &bytes[..length]) != *bytes.last_chunk::<DIGEST>()? {
            return None;
        }
        bytes.truncate(length);
        if metadata.modified().ok()?.elapsed().is_ok_and(|age| age > FRESH) {
            // The time only decides which chunks are removed first.
            drop(file.set_modified(SystemTime::now()));
        }
        Some(bytes)
    }

    /// Keeps a chunk and replaces any file of its name. An error, such as a full disk, is only recorded.
    pub(super) fn put(&self, key: &str, chunk: &[u8]) {
        let write = || {
            let mut file = tempfile::Builder::new().prefix(PREFIX).tempfile_in(&self.directory)?;
            file.write_all(chunk)?;
            file.write_all(digest(key, chunk).as_bytes())?;
            file.persist(self.directory.join(key)).map(drop).map_err(io::Error::from)
        };
        if let Err(error) = write() {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    /// Removes the least recently used chunks if the cache is too large. Returns a warning if chunks could not be kept or removed.
    pub(super) fn trim(&self) -> Option<String> {
        let trimmed = trim(&self.directory, MAX_SIZE).err();
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let error = failed.or(trimmed)?;
        Some(format!("compressed chunks cannot be kept in {}: {error}", self.directory.display()))
    }
}

/// Computes the digest that follows a chunk in its file. All keys have the same length.
pub(super) fn digest(key: &str, chunk: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(key.as_bytes()).update(chunk).finalize()
}

/// Tells the files of this program from those of the user.
fn is_chunk(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    name.starts_with(PREFIX.as_bytes()) || (name.len() == 2 * DIGEST && name.iter().all(digit))
}

fn trim(directory: &Path, max: u64) -> io::Result<()> {
    let mut chunks = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let entry = entry?;
        // Another process may have removed it meanwhile.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() && is_chunk(&entry.file_name()) {
            chunks.push((metadata.mtime(), metadata.len(), entry.path()));
        }
    }
    let mut total: u64 = chunks.iter().map(|(_, length, _)| length).sum();
    if total <= max {
        return Ok(());
    }
    chunks.sort_unstable();
    for (_, length, path) in chunks {
        // Remove more than necessary, so that the next archive does not trim again.
        if total <= max / 4 * 3 {
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
    fn damaged_chunks_are_not_used() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("chunks");
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
        assert_eq!(cache.get(&other), None, "the chunk of another name");
        cache.put(&key, b"compressed");
        fs_err::rename(path.join(&key), place.path().join("elsewhere")).unwrap();
        fs_err::os::unix::fs::symlink(place.path().join("elsewhere"), path.join(&key)).unwrap();
        assert_eq!(cache.get(&key), None, "a symlink is not a chunk");
        cache.put(&key, b"again");
        assert_eq!(cache.get(&key).as_deref(), Some(&b"again"[..]));
        assert_eq!(cache.trim(), None);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("chunks");
        Cache::open(&path).unwrap();
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs_err::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(Cache::open(&path).unwrap_err().to_string().contains("other users can write to it"));
    }

    #[test]
    fn least_recently_used_chunks_are_removed_first() {
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
        assert!(place.path().join("mine").exists(), "a file that is not a chunk");
    }

    #[test]
    fn a_cache_that_cannot_be_written_causes_one_warning() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::open(&place.path().join("chunks")).unwrap();
        fs_err::remove_dir(place.path().join("chunks")).unwrap();
        cache.put("a", b"");
        assert!(cache.trim().unwrap().contains("cannot be kept"));
    }
}
