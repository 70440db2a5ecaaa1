//! A squashfs image becomes a tree, without a mount: neither root nor FUSE is needed.
//!
//! `backhand` reads the image; its lists of inodes are held in memory whole. What it gives is made as the entries of a tarball are.
//! It is only ever given images whose signed digest was verified.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use backhand::v4::inode::InodeInner;
use backhand::{BufReadSeek, FilesystemReader, InnerNode, Node, Squashfs, SquashfsFileReader};

use super::entry::{Entry, MAX_NAME, MAX_PATH, Meta, NodeKind, Time};
use super::failure::{About, failed, input_error, refused};
use super::place::{Data, Placer};
use super::{Limits, Record, STEP, standing};
use crate::base::error::Result;
use crate::base::progress::{Event, Progress};
use crate::base::refusal::{Code, Reason};
use crate::fs::rootfs::Rootfs;

/// The reader keeps every piece with the ends of files that it decoded: after so many bytes of files it is begun anew.
const KEPT: u64 = 64 << 20;

/// Unpacks `image` into the directory `top` of the tree `into`, which is best empty. `wanted` sees every entry before it is made.
///
/// # Errors
/// [`Kind::Refused`](crate::base::error::Kind::Refused) for what is wrong with the image, and those of `wanted` and of the system.
pub fn extract(
    image: &File,
    name: &str,
    into: &Rootfs,
    top: &Path,
    limits: &Limits,
    ui: &dyn Progress,
    wanted: &mut dyn FnMut(&Entry) -> Result<bool>,
) -> Result<Record> {
    let read = || match open(image, limits) {
        Ok(Some(reader)) => Ok(reader),
        Ok(None) => Err(refused(name, limits.too_many(), limits)),
        Err(error) => Err(input_error(name, error)),
    };
    let mut reader = read()?;
    let nodes = std::mem::take(&mut reader.root.nodes);
    let sizes = nodes.iter().map(|node| match &node.inner {
        InnerNode::File(file) => file.file_len() as u64,
        _ => 0,
    });
    let total = sizes.fold(0, u64::saturating_add);
    if total > limits.bytes {
        return Err(refused(name, limits.too_large(), limits));
    }
    if nodes.len() as u64 > limits.entries {
        return Err(refused(name, limits.too_many(), limits));
    }
    let standing = standing(into, None)?;
    let placer = Placer::new(into, standing, Record::default(), limits, ui);
    let mut placer = placer.map_err(|reason| refused(name, reason, limits))?;
    let about = About { into, total, limits };
    let (mut done, mut kept, mut told) = (0, 0, 0);
    for (index, node) in nodes.iter().enumerate() {
        let blame = |failure| failed(name, &node.fullpath, None, failure, &about);
        let entry = entry(node, top, index == 0).map_err(|reason| blame(reason.into()))?;
        if !wanted(&entry)? {
            continue;
        }
        let size = entry.size;
        match &node.inner {
            InnerNode::File(file) => {
                if kept > KEPT {
                    (reader, kept) = (read()?, 0);
                }
                let content = reader.file(file).reader_checked().map_err(|error| input_error(name, error.into()))?;
                let mut content = Content { input: BufReader::new(content), left: size };
                placer.place(entry, &mut content).map_err(blame)?;
            }
            _ => placer.place(entry, &mut Content { input: io::empty(), left: 0 }).map_err(blame)?,
        }
        (done, kept) = (done + size, kept + size);
        if done >= told + STEP {
            told = done;
            ui.emit(Event::Bytes { done, total: Some(total) });
        }
    }
    let record = placer.finish().map_err(|failure| failed(name, Path::new(""), None, failure, &about))?;
    ui.emit(Event::Bytes { done, total: Some(total) });
    Ok(record)
}

/// Reads the lists of the image, as far as they may be believed; none when there are too many entries in them.
fn open(image: &File, limits: &Limits) -> io::Result<Option<FilesystemReader<'static>>> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut image = image.try_clone()?;
    image.rewind()?;
    let mut image = BufReader::new(image);
    let superblock = superblock(&mut image).map_err(|error| end(error, "it is no squashfs image that can be read"))?;
    if u64::from(superblock.inode_count) > limits.entries {
        return Ok(None);
    }
    image.rewind()?;
    let squashfs = Squashfs::from_reader(image).map_err(|error| end(error.into(), "its lists cannot be read"))?;
    // A directory that claims more than all of them have would lead the library out of its buffer.
    let listed = squashfs.dir_blocks.1.len();
    let claims = squashfs.inodes.values().chain([&squashfs.root_inode]).any(|inode| match &inode.inner {
        InodeInner::ExtendedDirectory(directory) => directory.file_size as usize > listed.saturating_add(3),
        _ => false,
    });
    if claims {
        return Err(bad("a directory is larger than all of them together".to_owned()));
    }
    let reader = squashfs.into_filesystem_reader();
    reader.map(Some).map_err(|error| end(error.into(), "its directories cannot be read"))
}

fn superblock(image: &mut impl BufReadSeek) -> io::Result<backhand::SuperBlock> {
    let kind = backhand::kind::Kind::from_const(backhand::kind::LE_V4_0).map_err(io::Error::other)?;
    Ok(Squashfs::superblock_and_compression_options(image, &kind)?.0)
}

/// The system's errors as they are; in place of the library's, what they mean here.
fn end(error: io::Error, what: &'static str) -> io::Error {
    match error.raw_os_error() {
        Some(_) => error,
        None => io::Error::new(error.kind(), what),
    }
}

fn entry(node: &Node<SquashfsFileReader>, top: &Path, root: bool) -> Result<Entry, Reason> {
    let bad = |why: &'static str| Reason::new(Code::BadName, why);
    let within = node.fullpath.strip_prefix("/").map_err(|_| bad("it does not begin at the root"))?;
    if within.as_os_str().is_empty() != root {
        return Err(bad("there is one root, and it comes first"));
    }
    let plain = |component: Component<'_>| match component {
        Component::Normal(name) => name.len() <= MAX_NAME && !name.as_bytes().contains(&0),
        _ => false,
    };
    if within.as_os_str().len() + top.as_os_str().len() >= MAX_PATH || !within.components().all(plain) {
        return Err(bad("no file can have this name"));
    }
    let mut size = 0;
    let kind = match &node.inner {
        InnerNode::Dir(_) => NodeKind::Dir,
        InnerNode::File(file) => {
            size = file.file_len() as u64;
            NodeKind::File
        }
        InnerNode::Symlink(link) => NodeKind::Symlink(link.link.as_os_str().as_bytes().to_vec()),
        // Which one says nothing to who refuses them all.
        InnerNode::CharacterDevice(_) => NodeKind::Char(0, 0),
        InnerNode::BlockDevice(_) => NodeKind::Block(0, 0),
        InnerNode::NamedPipe => NodeKind::Fifo,
        InnerNode::Socket => return Err(Reason::new(Code::UnsupportedEntry, "it is a socket")),
    };
    let header = node.header;
    Ok(Entry {
        path: if root { top.to_owned() } else { top.join(within) },
        kind,
        meta: Meta {
            mode: u32::from(header.permissions) & 0o7777,
            uid: header.uid,
            gid: header.gid,
            mtime: Time { sec: header.mtime.into(), nsec: 0 },
            xattrs: Vec::new(),
        },
        size,
        stored: size,
        sparse: None,
        offset: 0,
        dropped: None,
    })
}

/// What a file holds, which must be as long as its inode says.
struct Content<R> {
    input: R,
    left: u64,
}

impl<R: BufRead> Data for Content<R> {
    fn data(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let bytes = self.input.fill_buf()?;
        let length = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file is shorter than it should be"));
        }
        Ok(&bytes[..length])
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.left -= count as u64;
    }
}
