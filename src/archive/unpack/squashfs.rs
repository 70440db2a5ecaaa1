//! Unpacks a squashfs image without mounting it, so that neither root nor FUSE is needed.
//!
//! `backhand` reads the image and keeps all its inodes in memory. The entries are placed like those of a tar archive; extended
//! attributes are ignored. Only images with a verified signed digest are unpacked.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use backhand::v4::inode::InodeInner;
use backhand::{BufReadSeek, FilesystemReader, InnerNode, Node, Squashfs, SquashfsFileReader};

use super::entry::{Entry, MAX_NAME, MAX_PATH, Meta, NodeKind, Time};
use super::failure::{failed, input_error, refused};
use super::place::Data;
use super::{Deferred, Filter, Limits, STEP, Unpacker};
use crate::base::error::Result;
use crate::base::progress::Event;
use crate::base::refusal::{Code, Reason};

/// Bytes of files after which the reader is replaced: it keeps every fragment that it has decoded.
const MAX_READ: u64 = 64 << 20;

impl Unpacker<'_> {
    /// Unpacks the entries of the squashfs image `image` that `wanted` accepts into the directory `top`.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::base::error::Kind::Refused) if the image is malformed, and those of `wanted` and of the system.
    pub fn squashfs(&self, image: &File, top: &Path, wanted: &mut Filter<'_>) -> Result<Deferred> {
        let Self { name, limits, ui, .. } = *self;
        let read = || match open(image, limits) {
            Ok(Some(reader)) => Ok(reader),
            Ok(None) => Err(refused(name, limits.too_many(), limits)),
            Err(error) => Err(input_error(name, error)),
        };
        let mut reader = read()?;
        let nodes = std::mem::take(&mut reader.root.nodes);
        let total = nodes.iter().map(size).fold(0, u64::saturating_add);
        if total > limits.bytes {
            return Err(refused(name, limits.too_large(), limits));
        }
        if nodes.len() as u64 > limits.entries {
            return Err(refused(name, limits.too_many(), limits));
        }
        let mut placer = self.placer(None)?;
        let (mut done, mut read_now, mut told) = (0, 0, 0);
        for (index, node) in nodes.iter().enumerate() {
            let blame = |failure| failed(self, total, &node.fullpath, None, failure);
            let entry = entry(node, top, index == 0).map_err(|reason| blame(reason.into()))?;
            if !wanted(&entry)? {
                continue;
            }
            let size = entry.size;
            if let InnerNode::File(file) = &node.inner {
                if read_now > MAX_READ {
                    (reader, read_now) = (read()?, 0);
                }
                let content = reader.file(file).reader_checked().map_err(|error| input_error(name, error.into()))?;
                let mut content = Content { input: BufReader::new(content), left: size };
                placer.place(entry, &mut content).map_err(blame)?;
            } else {
                placer.place(entry, &mut Content { input: io::empty(), left: 0 }).map_err(blame)?;
            }
            (done, read_now) = (done + size, read_now + size);
            if done >= told + STEP {
                told = done;
                ui.emit(Event::Bytes { done, total: Some(total) });
            }
        }
        let deferred = self.finish(placer, total)?;
        ui.emit(Event::Bytes { done, total: Some(total) });
        Ok(deferred)
    }
}

fn size(node: &Node<SquashfsFileReader>) -> u64 {
    if let InnerNode::File(file) = &node.inner { file.file_len() as u64 } else { 0 }
}

/// Reads the inodes and directories of the image. Returns `None` if there are too many.
fn open(image: &File, limits: &Limits) -> io::Result<Option<FilesystemReader<'static>>> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut image = image.try_clone()?;
    image.rewind()?;
    let mut image = BufReader::new(image);
    let superblock =
        superblock(&mut image).map_err(|error| end(error, "it is not a squashfs image that can be read"))?;
    if u64::from(superblock.inode_count) > limits.entries {
        return Ok(None);
    }
    image.rewind()?;
    let squashfs = Squashfs::from_reader(image).map_err(|error| end(error.into(), "its tables cannot be read"))?;
    // The library would read past its buffer for a directory that claims to be larger than the table of directories.
    let listed = squashfs.dir_blocks.1.len();
    let claims = squashfs.inodes.values().chain([&squashfs.root_inode]).any(|inode| match &inode.inner {
        InodeInner::ExtendedDirectory(directory) => directory.file_size as usize > listed.saturating_add(3),
        _ => false,
    });
    if claims {
        return Err(bad("a directory is larger than the table of directories".to_owned()));
    }
    let reader = squashfs.into_filesystem_reader();
    reader.map(Some).map_err(|error| end(error.into(), "its directories cannot be read"))
}

fn superblock(image: &mut impl BufReadSeek) -> io::Result<backhand::SuperBlock> {
    let kind = backhand::kind::Kind::from_const(backhand::kind::LE_V4_0).map_err(io::Error::other)?;
    Ok(Squashfs::superblock_and_compression_options(image, &kind)?.0)
}

/// Keeps an error of the system, and replaces the text of an error of the library.
fn end(error: io::Error, what: &'static str) -> io::Error {
    match error.raw_os_error() {
        Some(_) => error,
        None => io::Error::new(error.kind(), what),
    }
}

fn entry(node: &Node<SquashfsFileReader>, top: &Path, root: bool) -> Result<Entry, Reason> {
    let bad = |why: &'static str| Reason::new(Code::BadName, why);
    let within = node.fullpath.strip_prefix("/").map_err(|_| bad("its name does not begin at the root"))?;
    if within.as_os_str().is_empty() != root {
        return Err(bad("the root is not the first entry, or there are two"));
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
        // The numbers do not matter: repositories must not contain devices.
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
        dropped: BTreeSet::new(),
    })
}

/// The content of a file, which must have the size in its inode.
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
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file is shorter than its inode says"));
        }
        Ok(&bytes[..length])
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.left -= count as u64;
    }
}
