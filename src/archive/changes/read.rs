//! Reads an upper directory.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

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

/// Bytes that are read at once.
const BUFFER: usize = 1 << 20;

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
    walk(Tree { root: upper, deferred: &Deferred::default() }, &[], &Silent, &mut |item| {
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
    fn hash(&mut self, file: &OwnedFd, path: &Path, size: u64, mtime: Time) -> Result<Sha256> {
        self.buffer.resize(BUFFER, 0);
        let mut hash = sha2::Sha256::new();
        let mut left = size;
        while left > 0 {
            let want = BUFFER.min(usize::try_from(left).unwrap_or(BUFFER));
            let count = rustix::io::retry_on_intr(|| rustix::io::read(file, &mut self.buffer[..want]))
                .system(|| self.upper.doing("reading", path))?;
            if count == 0 {
                break;
            }
            hash.update(&self.buffer[..count]);
            left -= count as u64;
            self.done += count as u64;
            if self.done >= self.reported + STEP {
                self.reported = self.done;
                self.ui.emit(Event::Bytes { done: self.done, total: None });
            }
        }
        let stat = rustix::fs::fstat(file).system(|| self.upper.doing("examining", path))?;
        let now = Time { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 };
        if left > 0 || stat.st_size as u64 != size || now != mtime {
            let doing = self.upper.doing("reading", path);
            return Err(Error::system(format!("{doing}: it changed while it was read")));
        }
        Ok(<[u8; 32]>::from(hash.finalize()).into())
    }
}
