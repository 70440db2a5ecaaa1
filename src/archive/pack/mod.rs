//! A tree becomes a `.tar.gz`, `.tar.xz`, `.tar.zst` or `.tar`, the same bytes for the same tree on any machine: fixed order, numeric
//! owners, times clamped, compression that does not depend on the number of threads. One walk, nothing is read twice, and every
//! digest that the results need is taken on the way: the file is the stage4 and the OCI layer at once. What nobody wants is not made.

pub mod cache;
pub mod compress;
pub mod listing;
pub mod manifest;
pub mod pieces;
pub mod tar;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "GNU tar judges what is packed")]
mod tests;
pub mod walk;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use rustix::fs::SeekFrom;

pub use self::cache::Cache;
pub use self::compress::{Digests, Format};
use self::listing::Listing;
use self::manifest::Manifest;
use self::pieces::{Pieces, Stopped};
use self::walk::Item;
use crate::archive::unpack::Record;
use crate::archive::unpack::entry::{NodeKind, Time};
use crate::archive::unpack::limits::Limits;
use crate::base::error::{Context, Error, Result};
use crate::base::progress::{Event, Progress};
use crate::fs::rootfs::Rootfs;
use crate::os::space;

/// Progress is told after this many plain bytes.
const STEP: u64 = 8 << 20;

/// How to pack.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to compress.
    pub format: Format,
    /// No time in the archive is later (seconds since 1970).
    pub epoch: u64,
    /// Level of compression, 1 to 12, or to 9 for xz; above 9 gzip takes very long. None is the format's own,
    /// [`Format::level`].
    pub level: Option<u32>,
    /// Compressing threads; 0 means one per processor.
    pub threads: usize,
    /// Where compressed pieces are kept for the next time, and taken from.
    pub cache: Option<Arc<Cache>>,
    /// Expected plain size, for progress only.
    pub expected: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { format: Format::Gzip, epoch: u64::MAX, level: None, threads: 0, cache: None, expected: None }
    }
}

/// What was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the file, hex: the digest of the OCI layer.
    pub sha256: String,
    /// SHA-256 of the plain archive, hex: the diff id of the OCI layer.
    pub diff_id: String,
    /// Bytes of the plain archive.
    pub tar_size: u64,
    /// Entries.
    pub entries: u64,
    /// How the file is compressed.
    pub format: Format,
}

/// How large an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of the plain archive.
    pub tar_size: u64,
    /// Entries.
    pub entries: u64,
}

/// What is written of the entries, a line each, beside the archive.
#[derive(Default)]
pub struct Lists<'a> {
    /// As `tar -tv` prints them.
    pub contents: Option<&'a mut dyn Write>,
    /// A [`Manifest`], with digests of the files' data; it costs hashing them once more.
    pub manifest: Option<&'a mut dyn Write>,
}

impl std::fmt::Debug for Lists<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lists").field("manifest", &self.manifest.is_some()).finish_non_exhaustive()
    }
}

/// Packs `tree`, and what `record` adds to it, into `out` from where it stands.
pub fn pack(
    tree: &Rootfs,
    record: &Record,
    options: &Options,
    out: &mut File,
    lists: Lists<'_>,
    ui: &dyn Progress,
) -> Result<Packed> {
    let mut digests = Digests::default();
    let Sizes { size, tar_size, entries } = archive(tree, record, options, out, lists, Some(&mut digests), ui)?;
    let (sha256, diff_id) = digests.told();
    Ok(Packed { size, sha256, diff_id, tar_size, entries, format: options.format })
}

/// Packs as [`pack`] does, and takes `digests` only if they are wanted: they cost hashing all of it twice.
pub fn archive(
    tree: &Rootfs,
    record: &Record,
    options: &Options,
    out: &mut File,
    lists: Lists<'_>,
    digests: Option<&mut Digests>,
    ui: &dyn Progress,
) -> Result<Sizes> {
    let doing = || format!("packing {}", tree.path().display());
    let threads = match options.threads {
        0 => crate::os::process::processors(),
        given => given,
    };
    let written = out.metadata().system(|| format!("{}: looking at where the archive goes", doing()))?;
    let mut results: Vec<_> = options.cache.iter().map(|cache| cache.identity()).collect();
    results.extend(written.is_file().then(|| (written.dev(), written.ino())));
    let manifest = match lists.manifest {
        Some(out) => Some(Manifest::new(out).system(|| "writing the manifest")?),
        None => None,
    };
    let (packed, written) = std::thread::scope(|scope| {
        let level = options.level.unwrap_or(options.format.level());
        let cache = options.cache.as_deref();
        let (pieces, running) = compress::start(scope, threads, options.format, level, cache, out, digests)
            .system(|| format!("{}: starting the compressor", doing()))?;
        let mut packer = Packer {
            tree,
            pieces,
            contents: lists.contents.map(|contents| contents as _),
            manifest,
            ui,
            options,
            listing: Listing::default(),
            blocks: Vec::new(),
            told: 0,
            entries: 0,
        };
        let walked = walk::walk(tree, record, &results, ui, &mut |item| packer.take(item));
        let finished = walked.and_then(|()| packer.finish());
        Ok((finished, running.finish()))
    })?;
    // When the compressor has stopped, it knows why; what the walk says then is only that it has.
    let size = written.map_err(|error| write_error(doing(), error, out))?;
    if let Some(warning) = options.cache.as_ref().and_then(|cache| cache.trim()) {
        ui.warn(&warning);
    }
    let (tar_size, entries) = packed?;
    Ok(Sizes { size, tar_size, entries })
}

struct Packer<'a> {
    tree: &'a Rootfs,
    pieces: Pieces,
    contents: Option<&'a mut dyn Write>,
    manifest: Option<Manifest<'a>>,
    ui: &'a dyn Progress,
    options: &'a Options,
    listing: Listing,
    blocks: Vec<u8>,
    told: u64,
    entries: u64,
}

impl Packer<'_> {
    fn take(&mut self, mut item: Item) -> Result<()> {
        let mtime = item.meta.mtime;
        if i64::try_from(self.options.epoch).is_ok_and(|epoch| item.meta.mtime > Time { sec: epoch, nsec: 0 }) {
            item.meta.mtime = Time { sec: self.options.epoch as i64, nsec: 0 };
        }
        self.entries += 1;
        self.blocks.clear();
        let (records, most) =
            (tar::header(&mut self.blocks, &item.path, &item.kind, &item.meta, item.size), Limits::default().pax);
        if records as u64 > most {
            let doing = self.tree.doing("packing", &item.path);
            return Err(Error::system(format!(
                "{doing}: its attributes take {records} bytes, archives have at most {most}"
            ))
            .with_hint("what is larger is not read again: take attributes away from it, see setfattr(1)"));
        }
        self.pieces.entry(&item.path, item.size).map_err(|Stopped| stopped())?;
        self.pieces.write(&self.blocks).map_err(|Stopped| stopped())?;
        let sha256 = match (&item.kind, &item.file) {
            (NodeKind::File, Some(file)) => self.data(&item, file, mtime)?,
            _ => None,
        };
        if let Some(contents) = &mut self.contents {
            let line = self.listing.line(&item);
            contents.write_all(line.as_bytes()).system(|| "writing the list of contents")?;
        }
        if let Some(manifest) = &mut self.manifest {
            manifest.entry(&item, sha256).system(|| "writing the manifest")?;
        }
        let done = self.pieces.taken();
        if done >= self.told + STEP {
            self.told = done;
            self.ui.emit(Event::Bytes { done, total: self.options.expected });
        }
        Ok(())
    }

    /// A file's data, last changed at `mtime`; its SHA-256 where there is a manifest.
    fn data(&mut self, item: &Item, file: &OwnedFd, mtime: Time) -> Result<Option<String>> {
        if self.manifest.is_some() {
            self.pieces.watch();
        }
        if item.holes {
            self.pieces_with_holes(item, file)?;
        } else {
            self.copy(item, file, item.size)?;
        }
        if item.size > 0 {
            let stat = rustix::fs::fstat(file).system(|| self.tree.doing("looking at", &item.path))?;
            let now = Time { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 };
            if stat.st_size as u64 != item.size || now != mtime {
                return Err(self.changed(item));
            }
        }
        let sha256 = self.pieces.watched();
        let padding = tar::padding(item.size);
        self.pieces.write(&tar::END[..padding]).map_err(|Stopped| stopped())?;
        Ok(sha256)
    }

    /// The archive has the zeros of holes, so that its bytes do not depend on where a file system keeps some; they are not read.
    /// Unpacking makes holes of them again.
    fn pieces_with_holes(&mut self, item: &Item, file: &OwnedFd) -> Result<()> {
        let doing = || self.tree.doing("looking for holes in", &item.path);
        let mut at = 0;
        while at < item.size {
            let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                // Nothing but a hole is left, if the file is still as long as it was.
                Err(rustix::io::Errno::NXIO) => {
                    let size = rustix::fs::fstat(file).system(doing)?.st_size as u64;
                    if size < item.size {
                        return Err(self.changed(item));
                    }
                    item.size
                }
                // A file system without such a thing: its position is where the last data ended.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => at,
                other => other.system(doing)?.min(item.size),
            };
            self.pieces.zeros(data - at).map_err(|Stopped| stopped())?;
            if data == item.size {
                return Ok(());
            }
            let end = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => item.size,
                Err(rustix::io::Errno::NXIO) => return Err(self.changed(item)),
                other => other.system(doing)?.min(item.size),
            };
            rustix::fs::seek(file, SeekFrom::Start(data)).system(doing)?;
            self.copy(item, file, end - data)?;
            at = end;
        }
        Ok(())
    }

    /// `left` bytes from where the file stands.
    fn copy(&mut self, item: &Item, file: &OwnedFd, mut left: u64) -> Result<()> {
        while left > 0 {
            match self.pieces.read_from(file, left).map_err(|Stopped| stopped())? {
                Ok(0) => return Err(self.changed(item)),
                Ok(count) => left -= count as u64,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno).system(|| self.tree.doing("reading", &item.path)),
            }
        }
        Ok(())
    }

    fn changed(&self, item: &Item) -> Error {
        let doing = self.tree.doing("reading", &item.path);
        Error::system(format!("{doing}: it was written to while it was packed"))
            .with_hint("pack a tree that nobody writes to, or a snapshot of it")
    }

    /// Gives the bytes of the plain archive, and its entries.
    fn finish(mut self) -> Result<(u64, u64)> {
        self.pieces.write(&tar::END).map_err(|Stopped| stopped())?;
        let size = self.pieces.taken();
        self.pieces.finish().map_err(|Stopped| stopped())?;
        self.ui.emit(Event::Bytes { done: size, total: Some(size) });
        Ok((size, self.entries))
    }
}

fn stopped() -> Error {
    Error::system("compressing: the writer has stopped")
}

fn write_error(doing: String, error: io::Error, out: &File) -> Error {
    let full = space::is_full(&error);
    let error = Error::system(format!("{doing}: writing the archive")).with_source(error);
    if !full {
        return error;
    }
    let free = space::free(out).unwrap_or_default();
    error.with_hint(format!("{free} bytes are free; make room where the results go, or choose another outdir"))
}
