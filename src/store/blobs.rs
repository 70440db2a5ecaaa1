//! Blobs: files named by the SHA-512 of their content, and the partial downloads that become blobs.
//!
//! A blob appears under its name only when it is complete: the partial blob is written, synced and renamed. A partial blob is locked by
//! its own inode. The lock ends with its process, and the next process finds the blob or continues the partial one.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Store;
use crate::base::digest::Sha512;
use crate::base::error::{Context, Error, Result};
use crate::fs::{is_named, lock};

/// Directory of the blobs, in a store as in an export.
pub(super) const BLOBS: &str = "blobs/sha512";

/// A partial download, open for reading and writing and locked against every other process.
#[derive(Debug)]
pub struct PartialBlob {
    file: File,
    path: PathBuf,
}

/// The result of [`Store::part`].
#[derive(Debug)]
pub enum PartOrBlob {
    /// The partial blob, locked.
    Part(PartialBlob),
    /// The blob: another process completed it.
    Blob(File),
}

impl Store {
    /// Returns the path of a blob, whether or not the store has it.
    pub fn blob_path(&self, sha512: &Sha512) -> PathBuf {
        self.root().join(BLOBS).join(sha512.hex())
    }

    /// Opens a blob; returns `None` if the store does not have it. Its content may be damaged: the caller must hash it.
    pub fn blob(&self, sha512: &Sha512) -> Result<Option<File>> {
        let path = self.blob_path(sha512);
        match fs_err::File::open(&path) {
            Ok(file) => Ok(Some(file.into_file())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).system(|| format!("opening the blob {}", path.display())),
        }
    }

    /// Removes a blob. Returns false if the store does not have it.
    pub fn remove_blob(&self, sha512: &Sha512) -> Result<bool> {
        remove(&self.blob_path(sha512))
    }

    /// Opens and locks the partial blob `name`, a plain file name. Calls `waiting` before it waits for another process. With `sha512`,
    /// a blob of that digest is preferred, before and after the wait.
    pub fn part(&self, name: &str, sha512: Option<&Sha512>, waiting: &mut dyn FnMut()) -> Result<PartOrBlob> {
        let dir = self.root().join("blobs/partial");
        fs_err::create_dir_all(&dir).system(|| format!("creating {}", dir.display()))?;
        let path = dir.join(format!("{name}.part"));
        loop {
            if let Some(sha512) = sha512
                && let Some(blob) = self.blob(sha512)?
            {
                // A run was killed after it had renamed the blob.
                remove(&path.with_extension("json"))?;
                return Ok(PartOrBlob::Blob(blob));
            }
            let file = fs_err::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .system(|| format!("opening the partial download {}", path.display()))?
                .into_file();
            super::lock::hold(&file, &path, lock::Mode::Exclusive, &mut *waiting)?;
            // The former holder may have renamed or removed this inode. The lock counts only if the name still leads to it.
            if is_named(rustix::fs::CWD, &path, &file) {
                return Ok(PartOrBlob::Part(PartialBlob { file, path }));
            }
        }
    }
}

impl PartialBlob {
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the note about the origin of the bytes so far.
    pub fn note_path(&self) -> PathBuf {
        self.path.with_extension("json")
    }

    /// Syncs and renames the partial blob, and makes it read-only. The caller has computed `sha512` from all of its bytes.
    ///
    /// A process that is killed before the rename leaves a partial blob that can be continued; after the rename, it leaves a blob.
    pub fn finish(self, store: &Store, sha512: &Sha512) -> Result<File> {
        let to = store.blob_path(sha512);
        let dir = to.parent().unwrap_or(store.root()).to_owned();
        fs_err::create_dir_all(&dir).system(|| format!("creating {}", dir.display()))?;
        self.file.sync_all().system(|| format!("writing {} to disk", self.path.display()))?;
        fs_err::rename(&self.path, &to).system(|| format!("renaming the blob {}", to.display()))?;
        self.file
            .set_permissions(std::fs::Permissions::from_mode(0o444))
            .system(|| format!("making {} read-only", to.display()))?;
        remove(&self.note_path())?;
        sync_dir(&dir)?;
        // A new descriptor, which is read-only and does not hold the lock.
        store
            .blob(sha512)?
            .ok_or_else(|| Error::system(format!("opening the blob {}: it does not exist any more", to.display())))
    }

    /// Removes the partial blob and its note.
    pub fn discard(self) -> Result<()> {
        remove(&self.note_path())?;
        remove(&self.path).map(|_| ())
    }
}

pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    fs_err::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .system(|| format!("writing the directory {} to disk", dir.display()))
}

fn remove(path: &Path) -> Result<bool> {
    match fs_err::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).system(|| format!("removing {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    const NAME: &str = "stage3-x";

    fn sha(byte: u8) -> Sha512 {
        Sha512::from([byte; 64])
    }

    fn part(store: &Store) -> PartialBlob {
        match store.part(NAME, None, &mut || panic!("must not wait")).unwrap() {
            PartOrBlob::Part(part) => part,
            PartOrBlob::Blob(_) => panic!("the store has a blob"),
        }
    }

    #[test]
    fn a_finished_part_leaves_only_the_blob() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(store.blob(&sha(0xaa)).unwrap().is_none());
        let mut one = part(&store);
        one.file().write_all(b"bytes").unwrap();
        fs_err::write(one.note_path(), "{}").unwrap();
        let mut text = String::new();
        one.finish(&store, &sha(0xaa)).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "bytes");
        assert_eq!(fs_err::read_dir(dir.path().join("blobs/partial")).unwrap().count(), 0);
        fs_err::write(dir.path().join(format!("blobs/partial/{NAME}.json")), "{}").unwrap();
        assert!(matches!(store.part(NAME, Some(&sha(0xaa)), &mut || ()).unwrap(), PartOrBlob::Blob(_)));
        assert_eq!(fs_err::read_dir(dir.path().join("blobs/partial")).unwrap().count(), 0);
        assert!(store.remove_blob(&sha(0xaa)).unwrap());
        assert!(!store.remove_blob(&sha(0xaa)).unwrap());
    }

    #[test]
    fn a_second_process_waits_and_finds_the_blob() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut one = part(&store);
        one.file().write_all(b"bytes").unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let other = store.clone();
        let second = std::thread::spawn(move || {
            matches!(other.part(NAME, Some(&sha(0xbb)), &mut || tell.send(()).unwrap()).unwrap(), PartOrBlob::Blob(_))
        });
        told.recv().unwrap();
        one.finish(&store, &sha(0xbb)).unwrap();
        assert!(second.join().unwrap());
    }
}
