//! Writes items of a walk as entries of an archive.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::chunks::{Chunker, Stopped};
use super::listing::Listing;
use super::manifest::Manifest;
use super::part::Part;
use super::walk::Item;
use super::{Options, tar};
use crate::archive::unpack::entry::{Meta, NodeKind, Time};
use crate::archive::unpack::limits::Limits;
use crate::base::digest::Sha256;
use crate::base::error::{Context, Error, Result};
use crate::base::progress::{Event, Progress};
use crate::fs::rootfs::Rootfs;

/// Progress is reported after this many plain bytes.
const STEP: u64 = 8 << 20;

/// Prefix of names that remove files in an OCI layer (whiteouts).
const WHITEOUT: &[u8] = b".wh.";

/// An archive in the making.
pub(super) struct Packer<'a> {
    tree: &'a Rootfs,
    chunker: Chunker,
    pub(super) contents: Option<&'a mut dyn Write>,
    pub(super) manifest: Option<Manifest<'a>>,
    ui: &'a dyn Progress,
    options: &'a Options,
    listing: Listing,
    blocks: Vec<u8>,
    reported: u64,
    entries: u64,
}

impl<'a> Packer<'a> {
    pub(super) fn new(tree: &'a Rootfs, chunker: Chunker, options: &'a Options, ui: &'a dyn Progress) -> Self {
        let (listing, blocks) = (Listing::default(), Vec::new());
        Self { tree, chunker, contents: None, manifest: None, ui, options, listing, blocks, reported: 0, entries: 0 }
    }

    /// Writes the entry of an item with its data. The entry of a directory is followed by the names that `part` says are gone.
    pub(super) fn take(&mut self, item: Item, part: Option<&Part>) -> Result<()> {
        if self.options.layer {
            check_name(&item.path)?;
        }
        let gone = part.filter(|_| item.kind == NodeKind::Dir).map(|part| part.gone(&item.path));
        let removals: Vec<_> = gone.into_iter().flatten().map(|name| whiteout(&item.path, name)).collect();
        self.entry(item)?;
        removals.into_iter().try_for_each(|removal| self.entry(removal))
    }

    /// Writes one entry with its data.
    fn entry(&mut self, mut item: Item) -> Result<()> {
        let mtime = item.meta.mtime;
        item.meta.mtime = self.options.clamped(mtime);
        self.entries += 1;
        self.header(&item)?;
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
        let done = self.chunker.length();
        if done >= self.reported + STEP {
            self.reported = done;
            self.ui.emit(Event::Bytes { done, total: None });
        }
        Ok(())
    }

    fn header(&mut self, item: &Item) -> Result<()> {
        self.blocks.clear();
        let records = tar::header(&mut self.blocks, &item.path, &item.kind, &item.meta, item.size);
        let max = Limits::default().pax;
        if records as u64 > max {
            let doing = self.tree.doing("packing", &item.path);
            let message = format!("{doing}: its attributes take {records} bytes; an archive can hold {max}");
            let hint = "a larger header could not be unpacked again: remove attributes from the file, see setfattr(1)";
            return Err(Error::system(message).with_hint(hint));
        }
        self.chunker.entry(&item.path, item.size).map_err(stopped)?;
        self.chunker.write(&self.blocks).map_err(stopped)
    }

    /// Writes the data of a file whose time of modification is `mtime`. Returns its digest if there is a manifest.
    fn data(&mut self, item: &Item, file: &OwnedFd, mtime: Time) -> Result<Option<Sha256>> {
        if self.manifest.is_some() {
            self.chunker.start_digest();
        }
        if item.holes {
            self.copy_with_holes(item, file)?;
        } else {
            self.copy(item, file, item.size)?;
        }
        if item.size > 0 {
            let stat = rustix::fs::fstat(file).system(|| self.tree.doing("examining", &item.path))?;
            let now = Time { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 };
            if stat.st_size as u64 != item.size || now != mtime {
                return Err(self.changed(item));
            }
        }
        let sha256 = self.chunker.take_digest();
        self.chunker.write(&tar::END[..tar::padding(item.size)]).map_err(stopped)?;
        Ok(sha256)
    }

    /// Writes holes as zeros without reading them. The bytes of the archive must not depend on the holes of a file system. Unpacking
    /// turns long runs of zeros into holes again.
    fn copy_with_holes(&mut self, item: &Item, file: &OwnedFd) -> Result<()> {
        let doing = || self.tree.doing("looking for holes in", &item.path);
        let mut at = 0;
        while at < item.size {
            let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                // The rest is a hole, unless the file was truncated.
                Err(Errno::NXIO) => {
                    let size = rustix::fs::fstat(file).system(doing)?.st_size as u64;
                    if size < item.size {
                        return Err(self.changed(item));
                    }
                    item.size
                }
                // The file system does not report holes. The position is still the end of the previous data.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
                other => other.system(doing)?.min(item.size),
            };
            self.chunker.zeros(data - at).map_err(stopped)?;
            if data == item.size {
                return Ok(());
            }
            let end = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
                Err(Errno::INVAL | Errno::OPNOTSUPP) => item.size,
                Err(Errno::NXIO) => return Err(self.changed(item)),
                other => other.system(doing)?.min(item.size),
            };
            rustix::fs::seek(file, SeekFrom::Start(data)).system(doing)?;
            self.copy(item, file, end - data)?;
            at = end;
        }
        Ok(())
    }

    /// Copies `left` bytes from the current position of the file.
    fn copy(&mut self, item: &Item, file: &OwnedFd, mut left: u64) -> Result<()> {
        while left > 0 {
            match self.chunker.read_from(file, left).map_err(stopped)? {
                Ok(0) => return Err(self.changed(item)),
                Ok(count) => left -= count as u64,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).system(|| self.tree.doing("reading", &item.path)),
            }
        }
        Ok(())
    }

    fn changed(&self, item: &Item) -> Error {
        let doing = self.tree.doing("reading", &item.path);
        Error::system(format!("{doing}: the file was modified while it was packed"))
            .with_hint("pack a tree that no program writes to, or a snapshot of it")
    }

    /// Ends the archive. Returns the size of the plain archive and the number of entries.
    pub(super) fn finish(mut self) -> Result<(u64, u64)> {
        self.chunker.write(&tar::END).map_err(stopped)?;
        let size = self.chunker.length();
        self.chunker.finish().map_err(stopped)?;
        self.ui.emit(Event::Bytes { done: size, total: Some(size) });
        Ok((size, self.entries))
    }
}

fn stopped(_: Stopped) -> Error {
    Error::system("compressing: the writer has stopped")
}

/// Returns the entry that removes `name` in `directory` from the layers below.
fn whiteout(directory: &Path, name: &OsStr) -> Item {
    let name = OsStr::from_bytes(&[WHITEOUT, name.as_bytes()].concat()).to_owned();
    Item::new(directory.join(name), NodeKind::File, Meta::default())
}

/// Refuses a name that a container engine would read as the removal of a file.
///
/// # Errors
/// [`Kind::Build`](crate::base::error::Kind::Build).
pub(super) fn check_name(path: &Path) -> Result<()> {
    if !path.file_name().is_some_and(|name| name.as_bytes().starts_with(WHITEOUT)) {
        return Ok(());
    }
    let path = path.as_os_str().as_bytes().escape_ascii();
    let error = format!("packing /{path}: an OCI layer cannot contain a file whose name begins with `.wh.`");
    Err(Error::build(error).with_hint(format!(
        "in a layer the name removes another file: add \"/{path}\" to strip.paths, or remove [oci] from the recipe"
    )))
}
