//! A tarball becomes a tree.
//!
//! [`decode`] tells the format by its content and decodes ahead in threads of its own; [`reader`] cuts the plain bytes into
//! entries ([`entry`], [`pax`] and [`sparse`] are pure); `place` makes them, through [`Rootfs`] only. What the kernel refuses to
//! make is returned as a [`Record`]. Whatever is wrong with an archive is refused with a stable code ([`refusal::Reason`]), the
//! entry's name and its offset.

pub mod acl;
pub mod decode;
pub mod entry;
pub mod hashed;
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
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use self::decode::Decoder;
use self::entry::Entry;
use self::place::{Data, Failure, Placer};
use self::reader::Reader;
use self::refusal::{ReadError, Refusal};
use crate::error::{Context, Error, Result};
use crate::progress::{Event, Progress};
use crate::rootfs::Rootfs;

pub use self::reader::Limits;
pub use self::record::{Node, Record};

/// Progress is told after this many bytes of the compressed file.
const STEP: u64 = 2 << 20;

/// Unpacks `tarball`, from its beginning and whatever its compression, into the tree `into`, which is best empty: then an entry
/// that comes twice is refused instead of replacing the first. `name` is for messages.
pub fn extract(mut tarball: File, name: &str, into: &Rootfs, limits: &Limits, ui: &dyn Progress) -> Result<Record> {
    tarball.rewind().system(|| format!("reading {name}"))?;
    let size = tarball.metadata().system(|| format!("reading {name}"))?.len();
    check_space(&tarball, into, name)?;
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
    let fresh = into.read_dir(Path::new(""))?.is_empty();
    let decoder = Decoder::new(input).map_err(|error| input_error(name, error))?;
    place_all(decoder, size, name, Placer::new(into, fresh, Record::default(), ui), limits, ui, wanted)
}

/// As [`extract_some`] of what is decoded already, over a tree that `record` belongs to: what is returned is what then is missing of
/// all of it.
pub fn extract_over(
    decoder: Decoder,
    name: &str,
    into: &Rootfs,
    record: Record,
    limits: &Limits,
    ui: &dyn Progress,
    wanted: &mut dyn FnMut(&Entry) -> Result<bool>,
) -> Result<Record> {
    let fresh = record.is_empty() && into.read_dir(Path::new(""))?.is_empty();
    place_all(decoder, None, name, Placer::new(into, fresh, record, ui), limits, ui, wanted)
}

fn place_all(
    decoder: Decoder,
    size: Option<u64>,
    name: &str,
    mut placer: Placer<'_>,
    limits: &Limits,
    ui: &dyn Progress,
    wanted: &mut dyn FnMut(&Entry) -> Result<bool>,
) -> Result<Record> {
    let into = placer.root();
    let mut reader = Reader::new(decoder, limits.clone());
    let mut told = 0;
    while let Some(entry) = reader.next_entry().map_err(|error| read_error(name, error))? {
        if !wanted(&entry)? {
            continue;
        }
        let (offset, path) = (entry.offset, entry.path.clone());
        placer.place(entry, &mut reader).map_err(|failure| {
            let total = reader.total();
            failed(name, &path, Some(offset), failure, into, total)
        })?;
        let done = reader.input().taken();
        if done >= told + STEP {
            told = done;
            ui.emit(Event::Bytes { done, total: size });
        }
    }
    let total = reader.total();
    read_to_end(&mut reader, name, ui)?;
    let record = placer.finish().map_err(|(path, failure)| failed(name, &path, None, failure, into, total))?;
    ui.emit(Event::Bytes { done: reader.input().taken(), total: size });
    Ok(record)
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
    while let Some(entry) = reader.next_entry().map_err(|error| read_error(name, error))? {
        each(&entry)?;
    }
    read_to_end(&mut reader, name, ui)
}

fn read_to_end(reader: &mut Reader<impl BufRead>, name: &str, ui: &dyn Progress) -> Result<()> {
    let foreign = reader.finish().map_err(|error| input_error(name, error))?;
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

/// Says early what would otherwise be found out half-way: that there is less space than `tarball`, if it is an `.xz` file, says
/// that it takes.
pub fn check_space(tarball: &File, into: &Rootfs, name: &str) -> Result<()> {
    let (Some(needed), Some(free)) = (decode::claimed_size(tarball), free_space(into)) else { return Ok(()) };
    if needed <= free {
        return Ok(());
    }
    let place = into.path().display();
    Err(Error::system(format!("unpacking {name}: {needed} bytes are needed in {place}, {free} are free"))
        .with_source(io::Error::from(Errno::NOSPC))
        .with_hint("free some space, or move the store with QUERN_HOME"))
}

fn free_space(into: &Rootfs) -> Option<u64> {
    let stat = rustix::fs::fstatvfs(into.fd()).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn read_error(name: &str, error: ReadError) -> Error {
    match error {
        ReadError::Refused(refusal) => Error::refused(format!("unpacking {name}")).with_source(refusal),
        ReadError::Input(error) => input_error(name, error),
    }
}

/// An error of the system when the file could not be read, a refusal when what was read is not right.
fn input_error(name: &str, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(_) => Error::system(format!("reading {name}")),
        None => Error::refused(format!("unpacking {name}")),
    }
    .with_source(error)
}

fn failed(name: &str, path: &Path, offset: Option<u64>, failure: Failure, into: &Rootfs, total: u64) -> Error {
    let bytes = path.as_os_str().as_bytes();
    let (call, errno) = match failure {
        Failure::Input(error) => return input_error(name, error),
        Failure::Refused(reason) => {
            let refusal = Refusal { reason, name: bytes.to_vec(), offset: offset.unwrap_or_default() };
            return Error::refused(format!("unpacking {name}")).with_source(refusal);
        }
        Failure::Call(call, errno) => (call, errno),
    };
    let place = into.path().display();
    let error = Error::system(format!("unpacking {} of {name} into {place}: {call}", bytes.escape_ascii()));
    let hint = match errno {
        Errno::NOSPC | Errno::DQUOT => {
            let free = free_space(into).unwrap_or_default();
            format!("{total} bytes were needed up to this entry, {free} are free; free some space, or move the store with QUERN_HOME")
        }
        Errno::INVAL if call.contains("chown") => {
            "its owner or group is outside the range of subordinate ids: give this user 65536 of them in /etc/subuid and /etc/subgid"
                .to_owned()
        }
        Errno::PERM if call.contains("chown") => "unpacking needs root, or root in a user namespace".to_owned(),
        Errno::NOSYS => "openat2 is missing: Linux 5.6 or newer is needed, and a container must not filter it".to_owned(),
        _ => return error.with_source(io::Error::from(errno)),
    };
    error.with_source(io::Error::from(errno)).with_hint(hint)
}
