//! Unpacks tar archives and squashfs images into a tree.
//!
//! [`decode`] recognises the compression by the content and decodes ahead in its own threads. [`reader`] splits the plain bytes into
//! entries within [`limits`]; [`entry`], [`pax`] and [`sparse`] are pure parsers. `place` creates the files, only through [`Rootfs`].
//! [`Deferred`] holds what the kernel refused to create. An archive that is not accepted is refused with a
//! [`Reason`], the name of the entry and its offset.

pub mod acl;
pub mod decode;
pub mod deferred;
pub mod entry;
mod failure;
pub mod hashed;
pub mod limits;
pub mod pax;
mod place;
pub mod reader;
pub mod refusal;
pub mod sparse;
mod squashfs;
#[cfg(test)]
pub(crate) mod tests;
mod unsupported;
mod zeros;

use std::fs::File;
use std::io::{self, BufRead, Read, Seek};
use std::path::Path;

use self::decode::Decoder;
use self::entry::Entry;
use self::failure::{failed, input_error, read_error, refused};
use self::place::{Data, Existing, Placer};
use self::reader::Reader;
use crate::base::error::{Context, Result};
use crate::base::progress::{Event, Progress};
use crate::base::refusal::Reason;
use crate::fs::rootfs::Rootfs;
use crate::os::space;

pub use self::deferred::{Deferred, Node};
pub use self::limits::{Limits, RaisedBy};

/// Compressed bytes between two progress events.
const STEP: u64 = 2 << 20;

/// Decides about each entry before it is placed: `false` skips it.
pub type Filter<'a> = dyn FnMut(&Entry) -> Result<bool> + 'a;

/// Unpacks one archive into a tree.
///
/// In an empty tree a duplicate entry is refused. In any other tree an entry replaces what stands in its place, except a directory
/// that is not empty.
#[derive(Clone, Copy)]
pub struct Unpacker<'a> {
    /// Name of the archive in messages.
    pub name: &'a str,
    /// Tree to unpack into.
    pub into: &'a Rootfs,
    /// Limits for the archive.
    pub limits: &'a Limits,
    /// Receiver of progress and warnings.
    pub ui: &'a dyn Progress,
}

impl Unpacker<'_> {
    /// Unpacks the file `tarball` from its beginning.
    pub fn file(&self, mut tarball: File) -> Result<Deferred> {
        let reading = || format!("reading {}", self.name);
        tarball.rewind().system(reading)?;
        let size = tarball.metadata().system(reading)?.len();
        self.check_size(&tarball)?;
        self.stream(tarball, Some(size), &mut |_| Ok(true))
    }

    /// Unpacks the entries of `input` that `wanted` accepts. `size` is the number of compressed bytes, if it is known.
    pub fn stream(
        &self,
        input: impl Read + Send + 'static,
        size: Option<u64>,
        wanted: &mut Filter<'_>,
    ) -> Result<Deferred> {
        let decoder = Decoder::new(input).map_err(|error| input_error(self.name, error))?;
        self.decoded(decoder, size, None, wanted)
    }

    /// Unpacks a layer of an image over the layers `below`, whose deferred nodes are given. An entry of a layer may also replace a
    /// directory with its content. Returns the deferred nodes of all layers.
    pub fn layer(&self, decoder: Decoder, size: u64, below: Deferred, wanted: &mut Filter<'_>) -> Result<Deferred> {
        self.decoded(decoder, Some(size), Some(below), wanted)
    }

    fn decoded(
        &self,
        decoder: Decoder,
        size: Option<u64>,
        below: Option<Deferred>,
        wanted: &mut Filter<'_>,
    ) -> Result<Deferred> {
        let Self { name, limits, ui, .. } = *self;
        let is_layer = below.is_some();
        let mut placer = self.placer(below)?;
        let new = if is_layer { Reader::of_layer } else { Reader::new };
        let mut reader = new(decoder, limits.clone());
        let mut told = 0;
        while let Some(entry) = reader.next_entry().map_err(|error| read_error(name, error, limits))? {
            if !wanted(&entry)? {
                continue;
            }
            let (offset, path) = (entry.offset, entry.path.clone());
            let placed = placer.place(entry, &mut reader);
            placed.map_err(|failure| failed(self, reader.spent().bytes, &path, Some(offset), failure))?;
            let done = reader.input().taken();
            if done >= told + STEP {
                told = done;
                ui.emit(Event::Bytes { done, total: size });
            }
        }
        let total = reader.spent().bytes;
        // The digest of a layer shows that the layer is complete.
        read_to_end(&mut reader, name, ui, !is_layer)?;
        let deferred = self.finish(placer, total)?;
        ui.emit(Event::Bytes { done: reader.input().taken(), total: size });
        Ok(deferred)
    }

    /// Starts to place entries over `below`.
    fn placer(&self, below: Option<Deferred>) -> Result<Placer<'_>> {
        let existing = match &below {
            Some(_) => Existing::Layers,
            None if self.into.read_dir(Path::new(""))?.is_empty() => Existing::Nothing,
            None => Existing::Files,
        };
        Placer::new(self.into, existing, below.unwrap_or_default(), self.limits, self.ui)
            .map_err(|reason| refused(self.name, reason, self.limits))
    }

    fn finish(&self, placer: Placer<'_>, total: u64) -> Result<Deferred> {
        placer.finish(self.name).map_err(|failure| failed(self, total, Path::new(""), None, failure))
    }

    /// Checks the plain size that an `.xz` file claims against the limits and the free space, before anything is unpacked.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::base::error::Kind::Refused) if the limits do not allow the size,
    /// [`Kind::System`](crate::base::error::Kind::System) if there is too little free space.
    pub fn check_size(&self, tarball: &File) -> Result<()> {
        let Self { name, into, limits, .. } = self;
        let Some(needed) = decode::claimed_size(tarball) else { return Ok(()) };
        if needed > limits.bytes {
            let text = format!("its index claims {needed} bytes unpacked, more than {}", limits.bytes);
            return Err(refused(name, Reason { text: text.into(), ..limits.too_large() }, limits));
        }
        space::check(into.fd(), into.path(), format!("unpacking {name}"), needed).map_err(|error| {
            error.with_hint(match limits.raised_by {
                RaisedBy::Options => {
                    "free some space; if most of it is holes, pipe the output of `xz -dc` to skip this check"
                }
                _ => limits.make_room(),
            })
        })
    }
}

/// Passes every entry of an archive to `each` and reads the archive to its end. Creates nothing.
pub fn list(
    input: impl Read + Send + 'static,
    name: &str,
    limits: &Limits,
    ui: &dyn Progress,
    each: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    let decoder = Decoder::new(input).map_err(|error| input_error(name, error))?;
    let mut reader = Reader::new(decoder, limits.clone());
    while let Some(entry) = reader.next_entry().map_err(|error| read_error(name, error, limits))? {
        each(&entry)?;
    }
    read_to_end(&mut reader, name, ui, true)
}

/// Reads to the end of the input. Warns about an archive without an end mark if `marked` is set.
fn read_to_end(reader: &mut Reader<impl BufRead>, name: &str, ui: &dyn Progress, marked: bool) -> Result<()> {
    let foreign = reader.finish().map_err(|error| read_error(name, error, &Limits::default()))?;
    if foreign > 0 {
        ui.warn(&format!("{name}: ignoring {foreign} bytes after the end of the archive"));
    }
    if marked && reader.is_unmarked() {
        ui.warn(&format!("{name}: the archive has no end mark (two blocks of zeros); entries may be missing"));
    }
    Ok(())
}

impl<R: BufRead> Data for Reader<R> {
    fn data(&mut self) -> io::Result<&[u8]> {
        Self::data(self)
    }

    fn consume(&mut self, count: usize) {
        Self::consume(self, count);
    }
}
