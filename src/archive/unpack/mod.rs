//! A tarball becomes a tree.
//!
//! [`decode`] tells the format by its content and decodes ahead in threads of its own; [`reader`] cuts the plain bytes into
//! entries ([`entry`], [`pax`] and [`sparse`] are pure) within [`limits`]; `place` makes them, through [`Rootfs`] only. What the
//! kernel refuses to make is returned as a [`Record`]. Whatever is wrong with an archive is refused with a stable code
//! ([`Reason`]), the entry's name and its offset.

pub mod acl;
pub mod decode;
pub mod entry;
mod failure;
pub mod hashed;
pub mod limits;
pub mod pax;
mod place;
pub mod reader;
pub mod record;
pub mod refusal;
pub mod sparse;
pub mod squashfs;
#[cfg(test)]
pub(crate) mod tests;
mod zeros;

use std::fs::File;
use std::io::{self, BufRead, Read, Seek};
use std::path::Path;

use self::decode::Decoder;
use self::entry::Entry;
use self::failure::{About, failed, input_error, read_error, refused};
use self::place::{Data, Placer, Standing};
use self::reader::Reader;
use crate::base::error::{Context, Result};
use crate::base::progress::{Event, Progress};
use crate::base::refusal::Reason;
use crate::fs::rootfs::Rootfs;
use crate::os::space;

pub use self::limits::{Limits, RaisedBy};
pub use self::record::{Node, Record};

/// Progress is told after this many bytes of the compressed file.
const STEP: u64 = 2 << 20;

/// Unpacks `tarball`, from its beginning and whatever its compression, into the tree `into`, which is best empty: then an entry
/// that comes twice is refused instead of replacing the first. Otherwise an entry takes the place of what stands there, but a directory
/// with something in it gives way to none. `name` is for messages.
pub fn extract(mut tarball: File, name: &str, into: &Rootfs, limits: &Limits, ui: &dyn Progress) -> Result<Record> {
    tarball.rewind().system(|| format!("reading {name}"))?;
    let size = tarball.metadata().system(|| format!("reading {name}"))?.len();
    check_size(&tarball, into, name, limits)?;
    extract_stream(tarball, Some(size), name, into, limits, ui)
}

/// As [`extract`], from something that is only read, such as a pipe.
pub fn extract_stream(
    input: impl Read + Send + 'static,
    size: Option<u64>,
    name: &str,
    into: &Rootfs,
    limits: &Limits,
    ui: &dyn Progress,
) -> Result<Record> {
    extract_some(input, size, name, into, limits, ui, &mut |_| Ok(true))
}

/// As [`extract_stream`], of those entries only for which `wanted` says so. It sees every entry before it is made.
pub fn extract_some(
    input: impl Read + Send + 'static,
    size: Option<u64>,
    name: &str,
    into: &Rootfs,
    limits: &Limits,
    ui: &dyn Progress,
    wanted: &mut dyn FnMut(&Entry) -> Result<bool>,
) -> Result<Record> {
    let decoder = Decoder::new(input).map_err(|error| input_error(name, error))?;
    extract_over(decoder, size, name, into, None, limits, ui, wanted)
}

/// As [`extract_some`] of what is decoded already. A layer of an image also takes the place of whole directories of the layers `below`
/// it, which this is the record of: what is returned is what then is missing of all of them.
#[allow(clippy::too_many_arguments, reason = "what is read, where it goes, and how")]
pub fn extract_over(
    decoder: Decoder,
    size: Option<u64>,
    name: &str,
    into: &Rootfs,
    below: Option<Record>,
    limits: &Limits,
    ui: &dyn Progress,
    wanted: &mut dyn FnMut(&Entry) -> Result<bool>,
) -> Result<Record> {
    let standing = standing(into, below.as_ref())?;
    let placer = Placer::new(into, standing, below.unwrap_or_default(), limits, ui);
    let mut placer = placer.map_err(|reason| refused(name, reason, limits))?;
    let mut reader = Reader::new(decoder, limits.clone());
    let mut told = 0;
    while let Some(entry) = reader.next_entry().map_err(|error| read_error(name, error, limits))? {
        if !wanted(&entry)? {
            continue;
        }
        let (offset, path) = (entry.offset, entry.path.clone());
        placer.place(entry, &mut reader).map_err(|failure| {
            let total = reader.spent().bytes;
            failed(name, &path, Some(offset), failure, &About { into, total, limits })
        })?;
        let done = reader.input().taken();
        if done >= told + STEP {
            told = done;
            ui.emit(Event::Bytes { done, total: size });
        }
    }
    let total = reader.spent().bytes;
    read_to_end(&mut reader, name, ui)?;
    let about = About { into, total, limits };
    let record = placer.finish().map_err(|failure| failed(name, Path::new(""), None, failure, &about))?;
    ui.emit(Event::Bytes { done: reader.input().taken(), total: size });
    Ok(record)
}

/// What stands in a tree, of which `below` is the record where it has layers.
fn standing(tree: &Rootfs, below: Option<&Record>) -> Result<Standing> {
    let empty = below.is_none_or(Record::is_empty) && tree.read_dir(Path::new(""))?.is_empty();
    Ok(match below {
        _ if empty => Standing::Nothing,
        Some(_) => Standing::Layers,
        None => Standing::Files,
    })
}

/// Gives every entry of an archive to `each`, and reads the archive to its end. Makes nothing.
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
    read_to_end(&mut reader, name, ui)
}

fn read_to_end(reader: &mut Reader<impl BufRead>, name: &str, ui: &dyn Progress) -> Result<()> {
    let foreign = reader.finish().map_err(|error| read_error(name, error, &Limits::default()))?;
    if foreign > 0 {
        ui.warn(&format!("{name}: {foreign} bytes behind the end of the archive are ignored"));
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

/// Says early what would otherwise be found out half-way, of a `tarball` that is an `.xz` file and says how large it is unpacked:
/// that this is more than the limits allow, or than there is space for.
///
/// # Errors
/// [`Kind::Refused`](crate::base::error::Kind::Refused) for the one, [`Kind::System`](crate::base::error::Kind::System) for the other.
pub fn check_size(tarball: &File, into: &Rootfs, name: &str, limits: &Limits) -> Result<()> {
    let Some(needed) = decode::claimed_size(tarball) else { return Ok(()) };
    if needed > limits.bytes {
        let text = format!("it says that it has {needed} bytes unpacked, more than {}", limits.bytes);
        return Err(refused(name, Reason { text: text.into(), ..limits.too_large() }, limits));
    }
    space::check(into.fd(), into.path(), format!("unpacking {name}"), needed).map_err(|error| match limits.raised_by {
        RaisedBy::Options => {
            error.with_hint("free some space; of holes nothing is needed: `xz -dc` before this skips the question")
        }
        _ => error.with_hint(limits.make_room()),
    })
}
