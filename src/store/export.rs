//! Exports blobs as a tar archive that other programs can read and `sha512sum` can check:
//!
//! ```text
//! SHA512SUMS                  a line for each blob, in the format of sha512sum
//! blobs/sha512/<SHA-512>      the content
//! ```
//!
//! An export does not contain names, signers or dates, because the importer could not verify them. Trust in a blob comes from a lock
//! file or from a signature.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::Store;
use super::blobs::BLOBS;
use crate::archive::pack::tar::{self, END, padding};
use crate::archive::unpack::entry::{Meta, NodeKind};
use crate::base::digest::{Algorithm, Hasher, Sha512};
use crate::base::error::{Context, Error, Result};
use crate::base::progress::{Event, Progress};
use crate::base::text::counted;

/// Name of the list of digests in an export.
pub(super) const SUMS: &str = "SHA512SUMS";
/// Size of a read buffer in bytes.
pub(super) const BUFFER: usize = 256 << 10;

/// A blob of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The SHA-512 in its name. The content is not hashed again.
    pub sha512: Sha512,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last change, in seconds since 1970.
    pub written: u64,
}

impl Store {
    /// Lists all blobs, sorted by digest.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when they cannot be listed.
    pub fn blobs(&self) -> Result<Vec<Blob>> {
        let directory = self.root().join(BLOBS);
        let doing = || format!("listing {}", directory.display());
        let entries = match fs_err::read_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.system(doing)?,
        };
        let mut blobs = Vec::new();
        for entry in entries {
            let entry = entry.system(doing)?;
            let (name, metadata) = (entry.file_name(), entry.metadata().system(doing)?);
            if let Some(sha512) = blob_name(&name).filter(|_| metadata.is_file()) {
                let written = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                let written = written.map_or(0, |since| since.as_secs());
                blobs.push(Blob { sha512, size: metadata.len(), written });
            }
        }
        blobs.sort_by_key(|blob| blob.sha512);
        Ok(blobs)
    }

    /// Writes the blobs with these digests as an archive. Each is hashed while it is written.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if the store lacks a blob; nothing is written then.
    /// [`Kind::Refused`](crate::base::error::Kind::Refused) if a blob is damaged; the archive is then incomplete, and no import accepts it.
    pub fn export(&self, sha512s: &[Sha512], to: &mut dyn Write, ui: &dyn Progress) -> Result<()> {
        let _used = self.use_caches()?;
        let mut blobs = Vec::new();
        let mut sums = String::new();
        for sha512 in sha512s {
            let Some(file) = self.blob(sha512)? else {
                return Err(Error::usage(format!("the store does not have {sha512}"))
                    .with_hint("list the blobs with `quern-builder store list`"));
            };
            let size = file.metadata().system(|| format!("reading the blob {sha512}"))?.len();
            blobs.push((sha512, file, size));
            sums.push_str(&format!("{sha512}  {BLOBS}/{sha512}\n"));
        }
        let total = blobs.iter().map(|(_, _, size)| size).sum();
        ui.stage(&format!("exporting {}", counted(blobs.len(), "stored file")));
        let mut out = Out { to, done: 0, total, ui };
        let mut head = Vec::new();
        header(&mut head, SUMS, sums.len() as u64);
        head.extend_from_slice(sums.as_bytes());
        head.resize(head.len() + padding(sums.len() as u64), 0);
        out.write(&head)?;
        for (sha512, file, size) in blobs {
            out.blob(sha512, file, size)?;
        }
        out.write(&END)?;
        out.to.flush().system(|| WRITING)?;
        ui.done();
        Ok(())
    }
}

/// Returns the digest that a file in [`BLOBS`] is named by. Names in upper case are not blobs.
pub(super) fn blob_name(name: &OsStr) -> Option<Sha512> {
    let name = name.to_str()?;
    Sha512::parse(name).filter(|sha512| sha512.hex() == name)
}

const WRITING: &str = "writing the archive";

struct Out<'a> {
    to: &'a mut dyn Write,
    done: u64,
    total: u64,
    ui: &'a dyn Progress,
}

impl Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).system(|| format!("{WRITING}, after {} of {} bytes", self.done, self.total))
    }

    fn blob(&mut self, sha512: &Sha512, mut file: File, size: u64) -> Result<()> {
        let mut head = Vec::new();
        header(&mut head, &format!("{BLOBS}/{sha512}"), size);
        self.write(&head)?;
        let mut hash = Hasher::new(&[Algorithm::Sha512]);
        let mut buffer = vec![0; BUFFER];
        let mut left = size;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = file.read(&mut buffer[..most]).system(|| format!("reading the blob {sha512}"))?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            self.write(&buffer[..count])?;
            left -= count as u64;
            self.done += count as u64;
            self.ui.emit(Event::Bytes { done: self.done, total: Some(self.total) });
        }
        if hash.finish().sha512() != Some(*sha512) {
            return Err(Error::refused(format!("exporting {sha512}: the stored blob is damaged"))
                .with_hint("delete the incomplete archive; fetch a damaged stage3 again with `quern-builder fetch`"));
        }
        self.write(&vec![0; padding(size)])
    }
}

/// Writes the header of a file.
pub(super) fn header(to: &mut Vec<u8>, path: &str, size: u64) {
    tar::header(to, Path::new(path), &NodeKind::File, &Meta { mode: 0o444, ..Meta::default() }, size);
}
