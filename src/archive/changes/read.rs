//! Reads an upper directory.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sha2::Digest as _;

use super::{Change, Changes, Entry, Kind, Node};
use crate::archive::pack::Tree;
use crate::archive::pack::walk::{Item, walk};
use crate::archive::unpack::Deferred;
use crate::archive::unpack::entry::{NodeKind, Time};
use crate::base::digest::Sha256;
use crate::base::error::{Context, Error, Result};
use crate::base::progress::{Event, Progress, Silent};
use crate::fs::rootfs::Rootfs;

/// Bytes that are read at once, and the length of the parts of a longer file that have a digest each.
const CHUNK: usize = 1 << 20;

/// Progress is reported after this many bytes of data.
const STEP: u64 = 8 << 20;

/// Reads the upper directory `upper` of an overlay that is not mounted any more. A modification time from `began` on is one that the
/// command caused, see [`super::now`]. The data of a file do not count if `varies` returns true for its path.
///
/// Sockets and attributes of the host are left out, as in an archive; packing the tree reports them.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) for a file that cannot be read or that changes meanwhile, for an owner that is
/// not mapped, and for a mount.
pub fn read(upper: &Rootfs, began: SystemTime, varies: &dyn Fn(&Path) -> bool, ui: &dyn Progress) -> Result<Changes> {
    let began = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let began = Time { sec: i64::try_from(began.as_secs()).unwrap_or(i64::MAX), nsec: began.subsec_nanos() };
    let mut reader =
        Reader { upper, began, varies, ui, removed: HashSet::new(), done: 0, reported: 0, buffer: Vec::new() };
    let mut entries = Vec::new();
    walk(Tree { root: upper, deferred: &Deferred::default(), part: None }, &[], &Silent, &mut |item| {
        entries.push(reader.entry(item)?);
        Ok(())
    })?;
    Ok(Changes { entries })
}

struct Reader<'a> {
    upper: &'a Rootfs,
    began: Time,
    varies: &'a dyn Fn(&Path) -> bool,
    ui: &'a dyn Progress,
    /// The first names of whiteouts with several: overlayfs makes hard links of one whiteout.
    removed: HashSet<PathBuf>,
    /// Bytes of data so far.
    done: u64,
    reported: u64,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    fn entry(&mut self, item: Item) -> Result<Entry> {
        let Item { path, kind, meta, size, file, linked, opaque, .. } = item;
        let kind = match kind {
            NodeKind::Char(0, 0) => {
                if linked {
                    self.removed.insert(path.clone());
                }
                return Ok(Entry { path, change: Change::Removed });
            }
            NodeKind::Hardlink(first) if self.removed.contains(&first) => {
                return Ok(Entry { path, change: Change::Removed });
            }
            NodeKind::Hardlink(first) => return Ok(Entry { path, change: Change::Hardlink(first) }),
            NodeKind::Dir => Kind::Dir { opaque },
            NodeKind::File => {
                let sha256 = match &file {
                    Some(file) => self.hash(file, &path, size, meta.mtime)?,
                    None => Sha256::of(b""),
                };
                Kind::File { size, sha256, varies: (self.varies)(&path) }
            }
            NodeKind::Symlink(target) => Kind::Symlink(target),
            NodeKind::Char(major, minor) => Kind::Char(major, minor),
            NodeKind::Block(major, minor) => Kind::Block(major, minor),
            NodeKind::Fifo => Kind::Fifo,
        };
        let time = (meta.mtime < self.began).then_some(meta.mtime);
        let node = Node { kind, mode: meta.mode, uid: meta.uid, gid: meta.gid, time, xattrs: meta.xattrs };
        Ok(Entry { path, change: Change::Node(node) })
    }

    /// Hashes the data of a file, which has this size and this modification time.
    /// Hashes a file. One that is longer than [`CHUNK`] counts as the digests of its chunks, so that a hole takes no time.
    fn hash(&mut self, file: &OwnedFd, path: &Path, size: u64, mtime: Time) -> Result<Sha256> {
        self.buffer.resize(CHUNK, 0);
        let mut chunks = sha2::Sha256::new();
        let mut only = None;
        let (mut at, mut data, mut zeros) = (0, 0, None);
        let mut whole = true;
        while at < size && whole {
            let length = CHUNK.min(usize::try_from(size - at).unwrap_or(CHUNK));
            if at >= data {
                data = next_data(file, at);
            }
            if size > CHUNK as u64 && length == CHUNK && data >= at + CHUNK as u64 {
                chunks.update(zeros.get_or_insert_with(|| sha2::Sha256::digest(vec![0; CHUNK])));
                at += CHUNK as u64;
                continue;
            }
            let count = self.fill(file, path, at, length)?;
            whole = count == length;
            let digest = sha2::Sha256::digest(&self.buffer[..count]);
            chunks.update(digest);
            only = Some(digest);
            at += count as u64;
            self.tell(count);
        }
        let stat = rustix::fs::fstat(file).system(|| self.upper.doing("examining", path))?;
        let now = Time { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 };
        if !whole || stat.st_size as u64 != size || now != mtime {
            let doing = self.upper.doing("reading", path);
            return Err(Error::system(format!("{doing}: it changed while it was read")));
        }
        let digest = match only {
            Some(digest) if size <= CHUNK as u64 => digest,
            None if size == 0 => sha2::Sha256::digest([]),
            _ => chunks.finalize(),
        };
        Ok(<[u8; 32]>::from(digest).into())
    }

    /// Reads `length` bytes of a file at `at` into the buffer, or fewer at its end. Returns their number.
    fn fill(&mut self, file: &OwnedFd, path: &Path, at: u64, length: usize) -> Result<usize> {
        let mut filled = 0;
        while filled < length {
            let rest = &mut self.buffer[filled..length];
            let count = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *rest, at + filled as u64))
                .system(|| self.upper.doing("reading", path))?;
            if count == 0 {
                break;
            }
            filled += count;
        }
        Ok(filled)
    }

    fn tell(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.done >= self.reported + STEP {
            self.reported = self.done;
            self.ui.emit(Event::Bytes { done: self.done, total: None });
        }
    }
}

/// Returns the position of the next data of a file from `at` on; that of its end or beyond if there is none.
fn next_data(file: &OwnedFd, at: u64) -> u64 {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => data,
        Err(Errno::NXIO) => u64::MAX,
        // A file system that does not tell has data everywhere.
        Err(_) => at,
    }
}
