//! Blobs: files named by the SHA-512 of their content, and the partial downloads that become blobs.
//!
//! A blob appears under its name only when it is whole: written as a part, synced, renamed. A part is locked by its own inode, so
//! that nothing is left to clean: the lock ends with the process, and whoever comes next finds the blob or continues the part.

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

/// What [`Store::part`] found.
#[derive(Debug)]
pub enum PartOrBlob {
    /// The part, locked.
    Part(PartialBlob),
    /// Somebody finished it meanwhile.
    Blob(File),
}

impl Store {
    /// Returns the path of a blob, whether or not the store has it.
    pub fn blob_path(&self, sha512: &Sha512) -> PathBuf {
        self.root().join(BLOBS).join(sha512.hex())
    }

    /// Opens a blob; none when the store does not have it. What it holds is as it was written: hash it before trusting it.
    pub fn blob(&self, sha512: &Sha512) -> Result<Option<File>> {
        let path = self.blob_path(sha512);
        match fs_err::File::open(&path) {
            Ok(file) => Ok(Some(file.into_file())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).system(|| format!("opening the blob {}", path.display())),
        }
    }

    /// Removes a blob; false when there is none.
    pub fn remove_blob(&self, sha512: &Sha512) -> Result<bool> {
        remove(&self.blob_path(sha512))
    }

    /// Opens and locks the part called `name` (a plain file name), waiting for whoever holds it; `waiting` is called once before
    /// the wait. With `sha512`, a blob of that digest is preferred, before and after the wait.
    pub fn part(&self, name: &str, sha512: Option<&Sha512>, waiting: &mut dyn FnMut()) -> Result<PartOrBlob> {
        let dir = self.root().join("blobs/partial");
        fs_err::create_dir_all(&dir).system(|| format!("making {}", dir.display()))?;
        let path = dir.join(format!("{name}.part"));
        loop {
            if let Some(sha512) = sha512
                && let Some(blob) = self.blob(sha512)?
            {
                // Of a run that was killed when it had just made the blob.
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
    /// The open file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Facts about where the bytes so far come from, written beside the part.
    pub fn note_path(&self) -> PathBuf {
        self.path.with_extension("json")
    }

    /// Makes the part a blob: synced, renamed, read-only. The caller has hashed every byte of it to `sha512`.
    ///
    /// Killed before the rename it leaves a part that anybody can open and go on with, note and all; killed after it, a blob.
    pub fn finish(self, store: &Store, sha512: &Sha512) -> Result<File> {
        let to = store.blob_path(sha512);
        let dir = to.parent().unwrap_or(store.root()).to_owned();
        fs_err::create_dir_all(&dir).system(|| format!("making {}", dir.display()))?;
        self.file.sync_all().system(|| format!("writing {} to disk", self.path.display()))?;
        fs_err::rename(&self.path, &to).system(|| format!("naming the blob {}", to.display()))?;
        self.file
            .set_permissions(std::fs::Permissions::from_mode(0o444))
            .system(|| format!("making {} read-only", to.display()))?;
        remove(&self.note_path())?;
        sync_dir(&dir)?;
        // A new descriptor: read-only, and free of the lock once `self` is gone.
        store.blob(sha512)?.ok_or_else(|| Error::system(format!("opening the blob {}: it is gone", to.display())))
    }

    /// Removes the part and what was noted about it.
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
            PartOrBlob::Blob(_) => panic!("there is no blob"),
        }
    }

    #[test]
    fn a_part_becomes_a_blob_and_leaves_nothing() {
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
    fn the_second_waits_and_finds_the_blob() {
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
