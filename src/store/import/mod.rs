//! Imports blobs from an export of unknown origin. Every byte is hashed while it is copied, a blob is named by the computed digest, and
//! no path of the archive is opened. Blobs appear in the store only after the whole export was read.
//!
//! Importing does not make a blob trusted. A blob is used only if a lock file names its digest or its signature verifies.

use crate::base::text::printable;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode as FileMode, OFlags};

use super::Store;
use super::blobs::{BLOBS, PartOrBlob, PartialBlob};
use super::export::{BUFFER, SUMS, blob_name};
use super::lock::{self, Mode};
use crate::archive::unpack::Limits;
use crate::archive::unpack::entry::{Entry, NodeKind};
use crate::archive::unpack::reader::Reader;
use crate::archive::unpack::refusal::{ReadError, Refusal};
use crate::base::digest::{Algorithm, Hasher, Sha512};
use crate::base::error::{Context, Error, Result};
use crate::base::progress::{Event, Progress};
use crate::base::refusal::{Code, Reason};
use crate::os::space;

/// Returns the limits for an export. Only the free space limits the size of its files.
fn limits() -> Limits {
    Limits { entries: 10_000, bytes: u64::MAX, pax: 64 << 10, ..Limits::default() }
}

/// Beginning of the names of unfinished imports.
const PREFIX: &str = "import-";
const NO_EXPORT: &str = "import an uncompressed archive that `quern-builder store export` wrote";

/// A blob of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The SHA-512, computed during the import.
    pub sha512: Sha512,
    /// True if the store had the blob before.
    pub known: bool,
}

impl Store {
    /// Imports an archive that [`Store::export`] wrote. Messages call it `name`; `size` is its size in bytes, if known.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::base::error::Kind::Refused) if it is incomplete or not an export; nothing of it is kept then.
    pub fn import(
        &self,
        archive: impl Read,
        name: &str,
        size: Option<u64>,
        ui: &dyn Progress,
    ) -> Result<Vec<Imported>> {
        let mut import = Import::begin(self, name, size, ui)?;
        let read = |error: ReadError| match error {
            ReadError::Input(error) => Error::system(format!("reading {name}")).with_source(error),
            error => Error::refused(format!("importing {name}")).with_source(error).with_hint(NO_EXPORT),
        };
        let mut reader = Reader::new(BufReader::with_capacity(BUFFER, archive), limits());
        while let Some(entry) = reader.next_entry().map_err(read)? {
            if let Some(sha512) = import.claimed(&entry)? {
                import.blob(&sha512, entry.size, &mut Data(&mut reader)).map_err(|error| match error {
                    Stopped::Input(error) => {
                        read(ReadError::of(error, entry.path.as_os_str().as_bytes(), entry.offset))
                    }
                    Stopped::Other(error) => error,
                })?;
            }
        }
        if reader.is_unmarked() {
            let reason = Reason::new(Code::Truncated, "the archive is cut off: its end is missing");
            return Err(read(Refusal { reason, name: Vec::new(), offset: reader.offset() }.into()));
        }
        import.finish()
    }

    /// Imports the blobs of an unpacked export or of another store: the files in `directory/blobs/sha512`.
    ///
    /// # Errors
    /// Those of [`Store::import`].
    pub fn import_directory(&self, directory: &Path, ui: &dyn Progress) -> Result<Vec<Imported>> {
        let name = directory.display().to_string();
        let doing = || format!("reading {name}");
        let mut found: Vec<(Sha512, File, u64)> = Vec::new();
        let blobs = directory.join(BLOBS);
        let entries = fs_err::read_dir(&blobs).context(crate::base::error::Kind::Usage, doing);
        for entry in entries.map_err(|error| error.with_hint(NO_EXPORT))? {
            let entry = entry.system(doing)?;
            let Some(sha512) = blob_name(&entry.file_name()) else { continue };
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::open(entry.path(), flags, FileMode::empty()).system(doing)?);
            let metadata = file.metadata().system(doing)?;
            if metadata.is_file() {
                found.push((sha512, file, metadata.len()));
            }
        }
        found.sort_by_key(|(sha512, ..)| *sha512);
        let total = found.iter().map(|(_, _, size)| size).sum();
        let mut import = Import::begin(self, &name, Some(total), ui)?;
        for (sha512, file, size) in found {
            import.blob(&sha512, size, &mut file.take(size)).map_err(|error| match error {
                Stopped::Input(error) => Error::system(doing()).with_source(error),
                Stopped::Other(error) => error,
            })?;
        }
        import.finish()
    }
}

/// An unfinished import. Dropping it removes the copied parts.
struct Import<'a> {
    store: &'a Store,
    name: &'a str,
    size: Option<u64>,
    ui: &'a dyn Progress,
    seen: BTreeSet<Sha512>,
    parts: Vec<(PartialBlob, Sha512)>,
    known: Vec<Sha512>,
    done: u64,
    _locks: (lock::Lock, lock::Lock),
}

enum Stopped {
    /// Reading the archive failed.
    Input(io::Error),
    Other(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl<'a> Import<'a> {
    fn begin(store: &'a Store, name: &'a str, size: Option<u64>, ui: &'a dyn Progress) -> Result<Self> {
        let used = store.use_caches()?;
        // One import at a time: two could wait for each other's parts forever.
        let waiting = || ui.note("waiting for another import");
        let alone = lock::take(&store.root().join("blobs/import.lock"), Mode::Exclusive, waiting)?;
        remove_stale(store)?;
        ui.stage(&format!("importing {}", printable(name)));
        let (seen, parts, known) = Default::default();
        Ok(Self { store, name, size, ui, seen, parts, known, done: 0, _locks: (used, alone) })
    }

    fn refused(&self, why: &str) -> Error {
        Error::refused(format!("importing {}: {why}", printable(self.name))).with_hint(NO_EXPORT)
    }

    /// Returns the digest that an entry claims, or `None` for the other entries of an export.
    fn claimed(&self, entry: &Entry) -> Result<Option<Sha512>> {
        let path = entry.path.to_str().unwrap_or_default();
        match &entry.kind {
            NodeKind::Dir if [Path::new(""), Path::new("blobs"), Path::new(BLOBS)].contains(&&*entry.path) => Ok(None),
            NodeKind::File if path == SUMS => Ok(None),
            NodeKind::File if entry.sparse.is_none() => {
                let name = path.strip_prefix(BLOBS).and_then(|rest| rest.strip_prefix('/'));
                match name.and_then(|name| blob_name(name.as_ref())) {
                    Some(sha512) => Ok(Some(sha512)),
                    None => Err(self.refused(&format!("{} does not belong in an export", shown(entry)))),
                }
            }
            _ => Err(self.refused(&format!("{} is not a regular file", shown(entry)))),
        }
    }

    /// Copies a blob and verifies the claimed digest and size.
    fn blob(&mut self, claimed: &Sha512, size: u64, from: &mut dyn Read) -> Result<(), Stopped> {
        if !self.seen.insert(*claimed) {
            return Err(self.refused(&format!("{claimed} appears twice")).into());
        }
        let name = format!("{PREFIX}{}", &claimed.hex()[..32]);
        let mut waiting = || self.ui.note("waiting for another process that imports the same blob");
        let part = match self.store.part(&name, Some(claimed), &mut waiting)? {
            PartOrBlob::Part(part) => part,
            PartOrBlob::Blob(_) => {
                self.known.push(*claimed);
                self.done += size;
                return Ok(());
            }
        };
        // From here on, dropping the import removes it.
        self.parts.push((part, *claimed));
        let (store, name, ui, total) = (self.store, self.name, self.ui, self.size);
        let Some((part, _)) = self.parts.last_mut() else { return Ok(()) };
        let path = part.path().to_owned();
        let file = part.file();
        file.set_len(0).and_then(|()| file.rewind()).system(|| format!("emptying {}", path.display()))?;
        space::check(&*file, store.root(), "importing", size).map_err(|error| error.with_hint(space::STORE))?;
        let mut hash = Hasher::new(&[Algorithm::Sha512]);
        let mut buffer = vec![0; BUFFER];
        let mut copied = 0;
        loop {
            let count = from.read(&mut buffer).map_err(Stopped::Input)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            file.write_all(&buffer[..count])
                .system(|| format!("writing {}", path.display()))
                .map_err(|error| error.with_hint(space::STORE))?;
            copied += count as u64;
            self.done += count as u64;
            ui.emit(Event::Bytes { done: self.done, total });
        }
        let computed = hash.finish().sha512();
        if computed != Some(*claimed) || copied != size {
            let computed = computed.map_or_else(String::new, |computed| computed.hex());
            let error = Error::refused(format!("importing {}: the export is damaged or forged", printable(name)))
                .with_details(format!("computed SHA-512  {computed}\nclaimed SHA-512   {claimed}"))
                .with_hint("nothing was imported; export the blobs again");
            return Err(error.into());
        }
        Ok(())
    }

    /// Renames all parts to blobs.
    fn finish(mut self) -> Result<Vec<Imported>> {
        let known = std::mem::take(&mut self.known).into_iter().map(|sha512| Imported { sha512, known: true });
        let mut imported: Vec<_> = known.collect();
        while let Some((part, sha512)) = self.parts.pop() {
            part.finish(self.store, &sha512)?;
            imported.push(Imported { sha512, known: false });
        }
        imported.sort_by_key(|blob| blob.sha512);
        self.ui.done();
        Ok(imported)
    }
}

impl Drop for Import<'_> {
    fn drop(&mut self) {
        // The next import removes parts that cannot be removed now.
        self.parts.drain(..).for_each(|(part, _)| _ = part.discard());
    }
}

/// The data of the current entry.
pub(super) struct Data<'a, R>(pub(super) &'a mut Reader<R>);

impl<R: io::BufRead> Read for Data<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.data()?;
        let count = bytes.len().min(to.len());
        to[..count].copy_from_slice(&bytes[..count]);
        self.0.consume(count);
        Ok(count)
    }
}

/// Removes the parts of killed imports. The caller holds the lock of imports.
fn remove_stale(store: &Store) -> Result<()> {
    let directory = store.root().join("blobs/partial");
    let Ok(entries) = fs_err::read_dir(&directory) else { return Ok(()) };
    for entry in entries {
        let entry = entry.system(|| "looking for unfinished imports")?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            fs_err::remove_file(entry.path()).system(|| "removing an unfinished import")?;
        }
    }
    Ok(())
}

fn shown(entry: &Entry) -> String {
    printable(&entry.path.to_string_lossy())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "GNU tar and sha512sum judge what is exported")]
mod tests;
