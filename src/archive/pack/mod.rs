//! Packs a tree into a `.tar.gz`, `.tar.xz`, `.tar.zst` or `.tar`.
//!
//! The same tree gives the same bytes on any machine: fixed order, numeric owners, clamped times, and compression that does not depend
//! on the number of threads. One walk reads every file once and computes every digest that the results need, because the file is the
//! stage4 and the OCI layer at once. Digests and lists that nobody asks for are not made.

pub mod cache;
pub mod chunks;
pub mod compress;
mod difference;
pub mod listing;
pub mod manifest;
mod packer;
mod part;
pub mod tar;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the tests run GNU tar and other programs")]
mod tests;
pub mod walk;

use std::fs::File;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

pub use self::cache::Cache;
pub use self::compress::{Digests, Format};
pub use self::difference::difference;
use self::manifest::Manifest;
use self::packer::Packer;
pub use self::part::Part;
use crate::archive::unpack::Deferred;
use crate::archive::unpack::entry::Time;
use crate::base::digest::Sha256;
use crate::base::error::{Context, Error, Result};
use crate::base::progress::Progress;
use crate::fs::rootfs::Rootfs;
use crate::os::space;

/// Options of packing.
#[derive(Debug, Clone)]
pub struct Options {
    /// Format of the file.
    pub format: Format,
    /// The latest time in the archive, in seconds since 1970. Later times are clamped to it.
    pub epoch: u64,
    /// Spans of seconds since 1970 in which the tree was made. A time in one of them depends on when that happened, and counts as
    /// [`epoch`](Self::epoch).
    pub spans: Vec<RangeInclusive<i64>>,
    /// Level of compression: 1 to 12, for xz to 9. Above 9, gzip is very slow. `None` is [`Format::level`].
    pub level: Option<u32>,
    /// Threads that compress; 0 means one per processor.
    pub threads: usize,
    /// The cache of compressed chunks.
    pub cache: Option<Arc<Cache>>,
    /// Refuse names that mean the removal of a file in an OCI layer.
    pub layer: bool,
}

impl Options {
    fn level(&self) -> u32 {
        self.level.unwrap_or(self.format.level())
    }

    /// Returns the time that an archive has for `time`.
    fn clamped(&self, time: Time) -> Time {
        let latest = i64::try_from(self.epoch).map_or(time, |sec| Time { sec, nsec: 0 });
        if self.spans.iter().any(|span| span.contains(&time.sec)) { latest } else { time.min(latest) }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: Format::Gzip,
            epoch: u64::MAX,
            spans: Vec::new(),
            level: None,
            threads: 0,
            cache: None,
            layer: false,
        }
    }
}

/// The tree to be packed.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    /// The root of the tree.
    pub root: &'a Rootfs,
    /// Nodes and attributes that the kernel refused when the tree was unpacked.
    pub deferred: &'a Deferred,
    /// The part that is packed; `None` for the whole tree.
    pub part: Option<&'a Part>,
}

/// Destinations of an archive.
pub struct Outputs<'a> {
    /// The archive itself, written from the current position.
    pub archive: &'a mut File,
    /// A line for each entry, as `tar -tv` prints it.
    pub contents: Option<&'a mut dyn Write>,
    /// An mtree(5) manifest with digests of file data. It costs hashing the data once more.
    pub manifest: Option<&'a mut dyn Write>,
}

impl std::fmt::Debug for Outputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs").field("archive", &self.archive).finish_non_exhaustive()
    }
}

impl<'a> Outputs<'a> {
    /// Writes the archive and no lists.
    pub fn archive(archive: &'a mut File) -> Self {
        Self { archive, contents: None, manifest: None }
    }
}

/// A packed archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Bytes of the file.
    pub size: u64,
    /// Digest of the file, which is the digest of the OCI layer.
    pub sha256: Sha256,
    /// Digest of the plain archive, which is the diff ID of the OCI layer.
    pub diff_id: Sha256,
    /// Bytes of the plain archive.
    pub tar_size: u64,
    /// Number of entries.
    pub entries: u64,
    /// Format of the file.
    pub format: Format,
}

/// Sizes of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of the plain archive.
    pub tar_size: u64,
    /// Number of entries.
    pub entries: u64,
}

/// Packs a tree and computes the digests of the archive.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if the tree cannot be read, changes while it is read, or the archive cannot be
/// written; [`Kind::Build`](crate::base::error::Kind::Build) for a name that [`Options::layer`] excludes.
pub fn pack(tree: Tree<'_>, outputs: Outputs<'_>, options: &Options, ui: &dyn Progress) -> Result<Packed> {
    let mut digests = Digests::default();
    let Sizes { size, tar_size, entries } = archive(tree, outputs, Some(&mut digests), options, ui)?;
    let (sha256, diff_id) = digests.finish();
    Ok(Packed { size, sha256, diff_id, tar_size, entries, format: options.format })
}

/// Packs a tree like [`pack`], and computes `digests` only if they are given: they cost hashing everything twice.
///
/// # Errors
/// Those of [`pack`].
pub fn archive(
    tree: Tree<'_>,
    outputs: Outputs<'_>,
    digests: Option<&mut Digests>,
    options: &Options,
    ui: &dyn Progress,
) -> Result<Sizes> {
    let Outputs { archive: out, contents, manifest } = outputs;
    let doing = || format!("packing {}", tree.root.path().display());
    let written = out.metadata().system(|| format!("{}: examining the output file", doing()))?;
    let mut results: Vec<_> = options.cache.iter().map(|cache| cache.identity()).collect();
    results.extend(written.is_file().then(|| (written.dev(), written.ino())));
    let manifest = match manifest {
        Some(out) => Some(Manifest::new(out).system(|| "writing the manifest")?),
        None => None,
    };
    let (packed, written) = std::thread::scope(|scope| {
        let (chunker, running) =
            compress::start(scope, options, out, digests).system(|| format!("{}: starting the compressor", doing()))?;
        let mut packer = Packer::new(tree.root, chunker, options, ui);
        packer.contents = contents.map(|out| out as _);
        packer.manifest = manifest;
        let walked = walk::walk(tree, &results, ui, &mut |item| packer.take(item, tree.part));
        let packed = walked.and_then(|()| packer.finish());
        Ok((packed, running.finish()))
    })?;
    // If the compressor has stopped, its error is the cause; the error of the walk only says that it has stopped.
    let size = written.map_err(|error| write_error(doing(), error, out))?;
    if let Some(warning) = options.cache.as_ref().and_then(|cache| cache.trim()) {
        ui.warn(&warning);
    }
    let (tar_size, entries) = packed?;
    Ok(Sizes { size, tar_size, entries })
}

fn write_error(doing: String, error: io::Error, out: &File) -> Error {
    let full = space::is_full(&error);
    let error = Error::system(format!("{doing}: writing the archive")).with_source(error);
    if !full {
        return error;
    }
    let free = space::free(out).unwrap_or_default();
    error.with_hint(format!("{free} bytes are free: free more space there, or choose another outdir"))
}
