//! Compression in parallel, the same bytes for any number of threads.
//!
//! The plain stream is cut into [`pieces`](super::pieces). One is compressed on its own, without a look at the others, into a gzip
//! member; members one after the other are one gzip file, as RFC 1952 has it and eStargz layers are. Nothing in the result
//! depends on who compressed a piece or when. Digests are taken on the way, in threads of their own.
//!
//! The compressor is libdeflate because it won. On every fourth mebibyte of a stage3, each by itself, one core, best of three:
//!
//! | | level | MB/s | compressed to |
//! |---|---|---|---|
//! | libdeflate | 1 | 224 | 35.9 % |
//! | libdeflate | 5 | 123 | 33.1 % |
//! | libdeflate | 6 | 109 | 32.9 % |
//! | zlib-rs | 1 | 244 | 44.0 % |
//! | zlib-rs | 6 | 57 | 34.1 % |
//! | zlib-ng | 1 | 180 | 44.0 % |
//! | zlib-ng | 6 | 67 | 34.1 % |
//!
//! That it only makes whole streams is why there are members.
//!
//! Zstandard's level is its own default, as each further percent costs more than the one before. A whole stage3 of 380 MB, two
//! processors, processor seconds, best of three:
//!
//! | | level | CPU s | MB |
//! |---|---|---|---|
//! | gzip | 5 | 3.5 | 124.8 |
//! | Zstandard | 3 | 1.8 | 116.9 |
//! | Zstandard | 6 | 4.1 | 110.1 |
//! | Zstandard | 9 | 6.3 | 108.0 |
//! | Zstandard | 12 | 10.7 | 107.3 |
//! | xz | 6 | 187 | 85.1 |
//!
//! Blocks of `.xz` are cut and compressed by liblzma's threads, each block by itself, so that their number changes nothing. A block is
//! full before it ends, wherever entries begin: nothing of an archive stays the same behind a change, and there is nothing to cache.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Scope;

use libdeflater::{CompressionLvl, Compressor};
use sha2::{Digest, Sha256};
use xz2::stream::{Check, MtStreamBuilder};

use super::cache::Cache;
use super::pieces::{Piece, Pieces};
use crate::base::digest::hex;
use crate::os::process;

/// Plain bytes that become one gzip member.
const GZIP_PIECE: usize = 2 << 20;
/// Plain bytes that become one zstd frame: longer ones compress better.
const ZSTD_PIECE: usize = 4 << 20;
/// Plain bytes of a block of `.xz`. Fixed, as the library's choice is not for us to know.
const XZ_BLOCK: u64 = 16 << 20;
/// Which part of the memory there is the encoder of `.xz` may take, as `xz -T0` does: it uses fewer threads then, and at least
/// one. At level 6 one takes about 140 MiB.
const XZ_MEMORY: u64 = 4;

/// Formats of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A plain archive.
    Plain,
    /// `.gz`, as many members.
    Gzip,
    /// `.xz` of many blocks, made by liblzma's own threads.
    Xz,
    /// `.zst`, as many frames.
    Zstd,
}

impl Format {
    /// The level that is used unless another is asked for. That of gzip is the fastest whose result is no larger than what
    /// `gzip -6` makes.
    pub fn level(self) -> u32 {
        match self {
            Self::Gzip => 5,
            Self::Zstd => 3,
            Self::Plain | Self::Xz => 6,
        }
    }

    /// What compresses a piece, as its package is called: another may make other bytes. None where there are no pieces.
    fn encoder(self) -> Option<&'static str> {
        match self {
            Self::Gzip => Some("libdeflate-sys 1.26.1"),
            Self::Zstd => Some("zstd-sys 2.1.2+zstd.1.5.7"),
            Self::Plain | Self::Xz => None,
        }
    }

    fn piece(self) -> usize {
        if self == Self::Zstd { ZSTD_PIECE } else { GZIP_PIECE }
    }
}

/// SHA-256 digests of an archive, taken by the threads that make it.
#[derive(Debug, Default)]
pub struct Digests {
    plain: Sha256,
    /// None where the file is the plain stream.
    file: Option<Sha256>,
}

impl Digests {
    /// Of nothing yet, for a file of this format.
    fn of(format: Format) -> Self {
        Self { plain: Sha256::new(), file: (format != Format::Plain).then(Sha256::new) }
    }

    /// Of the file and of the plain stream, hex.
    pub fn told(self) -> (String, String) {
        let plain = hex(&self.plain.finalize());
        (self.file.map_or_else(|| plain.clone(), |file| hex(&file.finalize())), plain)
    }
}

/// A piece as it goes into the file.
pub(super) type Compressed = io::Result<Packed>;

/// Bytes for the file.
#[derive(Debug, Clone)]
pub(super) enum Packed {
    /// As they are in the plain stream.
    Plain(Arc<Piece>),
    /// Compressed.
    Made(Arc<Vec<u8>>),
}

impl Deref for Packed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Plain(piece) => piece,
            Self::Made(bytes) => bytes,
        }
    }
}

/// A piece to be compressed.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) plain: Arc<Piece>,
    /// It is the piece of zeros, which is compressed once.
    pub(super) zeros: bool,
    pub(super) to: SyncSender<Compressed>,
}

/// Threads at work.
#[derive(Debug)]
pub struct Running<'scope> {
    writer: std::thread::ScopedJoinHandle<'scope, io::Result<u64>>,
    hasher: Option<std::thread::ScopedJoinHandle<'scope, ()>>,
}

/// Starts `threads` compressors and what belongs to them. The file is written from where it stands; `digests` are taken if wanted.
pub fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    threads: usize,
    format: Format,
    level: u32,
    cache: Option<&'env Cache>,
    out: &'env mut File,
    digests: Option<&'env mut Digests>,
) -> io::Result<(Pieces, Running<'scope>)> {
    let thread = || std::thread::Builder::new().name("pack".to_owned());
    let threads = threads.clamp(1, 256);
    let (work, to_do) = sync_channel::<Work>(threads);
    let (order, ordered) = sync_channel(2 * threads + 2);
    let (plain, file) = digests
        .map(|digests| {
            *digests = Digests::of(format);
            (&mut digests.plain, digests.file.as_mut())
        })
        .unzip();
    let to_do = Arc::new(Mutex::new(to_do));
    let zeros = Arc::new(OnceLock::new());
    // What needs no work, or has threads of its own, takes one that passes it on.
    let workers = if matches!(format, Format::Gzip | Format::Zstd) { threads } else { 1 };
    for _ in 0..workers {
        let (to_do, zeros) = (to_do.clone(), zeros.clone());
        thread().spawn_scoped(scope, move || compress(&to_do, &zeros, format, level, cache))?;
    }
    let (hash, hasher) = match plain {
        Some(digest) => {
            let (hash, to_hash) = sync_channel::<Arc<Piece>>(2 * threads + 2);
            let work = move || to_hash.into_iter().for_each(|plain| digest.update(&plain[..]));
            (Some(hash), Some(thread().spawn_scoped(scope, work)?))
        }
        None => (None, None),
    };
    let writer = thread().spawn_scoped(scope, move || {
        let out = Out { file: out, digest: file.flatten(), size: 0 };
        match format {
            Format::Xz => write_xz(ordered, threads, level, out),
            _ => write(ordered, out),
        }
    })?;
    Ok((Pieces::new(format.piece(), work, order, hash), Running { writer, hasher }))
}

impl Running<'_> {
    /// Waits for the end, once [`Pieces`] is gone. Gives the bytes of the file.
    pub fn finish(self) -> io::Result<u64> {
        let dead = |_| io::Error::other("a thread of the compressor panicked");
        let size = self.writer.join().map_err(dead)??;
        self.hasher.map_or(Ok(()), |hasher| hasher.join().map_err(dead))?;
        Ok(size)
    }
}

fn compress(
    to_do: &Mutex<Receiver<Work>>,
    known_zeros: &OnceLock<Packed>,
    format: Format,
    level: u32,
    cache: Option<&Cache>,
) {
    let mut compressor = One::new(format, level);
    let cache = cache.zip(format.encoder()).map(|(cache, encoder)| (cache, format!("{encoder} level {level}")));
    loop {
        let next = to_do.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Work { plain, zeros, to }) = next else { return };
        let packed = match known_zeros.get().filter(|_| zeros) {
            Some(packed) => Ok(packed.clone()),
            None => match &cache {
                Some((cache, how)) => compressor.pack_or_get(&plain, cache, how),
                None => compressor.pack(&plain),
            },
        };
        if let (true, Ok(packed)) = (zeros, &packed) {
            // Another thread may have been first, with the same bytes.
            known_zeros.get_or_init(|| packed.clone());
        }
        // Nobody waits for it when the writer has failed.
        drop(to.send(packed));
    }
}

/// The compressor of one thread. That of gzip has room for what it makes.
enum One {
    Gzip(Compressor, Vec<u8>),
    Zstd(io::Result<zstd::bulk::Compressor<'static>>),
    Plain,
}

impl One {
    fn new(format: Format, level: u32) -> Self {
        match format {
            Format::Gzip => {
                let level = CompressionLvl::new(level.clamp(1, 12) as i32).unwrap_or_default();
                Self::Gzip(Compressor::new(level), Vec::new())
            }
            Format::Zstd => {
                let compressor = zstd::bulk::Compressor::new(level.clamp(1, 12) as i32).and_then(|mut compressor| {
                    compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
                    Ok(compressor)
                });
                Self::Zstd(compressor)
            }
            Format::Plain | Format::Xz => Self::Plain,
        }
    }

    fn pack_or_get(&mut self, plain: &Arc<Piece>, cache: &Cache, how: &str) -> Compressed {
        let key = Cache::key(how, plain);
        if let Some(kept) = cache.get(&key) {
            return Ok(Packed::Made(Arc::new(kept)));
        }
        let packed = self.pack(plain)?;
        cache.put(&key, &packed);
        Ok(packed)
    }

    fn pack(&mut self, plain: &Arc<Piece>) -> Compressed {
        let made = match self {
            Self::Plain => return Ok(Packed::Plain(plain.clone())),
            Self::Zstd(Ok(compressor)) => compressor.compress(plain)?,
            Self::Zstd(Err(error)) => return Err(io::Error::other(error.to_string())),
            Self::Gzip(compressor, room) => {
                let most = compressor.gzip_compress_bound(plain.len());
                if room.len() < most {
                    room.resize(most, 0);
                }
                let size = compressor.gzip_compress(plain, room).map_err(io::Error::other)?;
                room[..size].to_vec()
            }
        };
        Ok(Packed::Made(Arc::new(made)))
    }
}

/// The file, with what is told of it.
struct Out<'a> {
    file: &'a mut File,
    digest: Option<&'a mut Sha256>,
    size: u64,
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes).map_err(|error| match error.kind() {
            kind @ (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                io::Error::new(kind, format!("{error}, after {} bytes", self.size))
            }
            _ => error,
        })?;
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn write(ordered: Receiver<Receiver<Compressed>>, mut out: Out<'_>) -> io::Result<u64> {
    for piece in ordered {
        out.write_all(&received(&piece)?)?;
    }
    Ok(out.size)
}

fn write_xz(ordered: Receiver<Receiver<Compressed>>, threads: usize, level: u32, out: Out<'_>) -> io::Result<u64> {
    let builder = xz_builder(threads as u32, level, process::memory() / XZ_MEMORY);
    let mut encoder = xz2::write::XzEncoder::new_stream(out, builder.encoder()?);
    for piece in ordered {
        encoder.write_all(&received(&piece)?)?;
    }
    Ok(encoder.finish()?.size)
}

/// An encoder of `.xz` with so many threads, or fewer, for it to take no more than `memory` bytes. The result is the same.
fn xz_builder(threads: u32, level: u32, memory: u64) -> MtStreamBuilder {
    let mut builder = MtStreamBuilder::new();
    builder.block_size(XZ_BLOCK).preset(level.clamp(1, 9)).check(Check::Crc64);
    for threads in (1..=threads).rev() {
        if builder.threads(threads).memusage() <= memory {
            break;
        }
    }
    builder
}

fn received(piece: &Receiver<Compressed>) -> Compressed {
    piece.recv().unwrap_or_else(|_| Err(io::Error::other("a thread of the compressor panicked")))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "xz judges what is packed")]
mod tests {
    use super::*;

    #[test]
    fn threads_of_xz_are_as_many_as_the_memory_allows() {
        let memory = |threads, level, memory| xz_builder(threads, level, memory).memusage();
        let one = memory(1, 6, u64::MAX);
        assert!((100 << 20..200 << 20).contains(&one), "{one}");
        assert_eq!(memory(64, 6, 0), one);
        assert_eq!(memory(64, 6, one), one);
        let some = memory(64, 6, 2 << 30);
        assert!((1 << 30..=2 << 30).contains(&some), "{some}");
        assert!(memory(64, 6, u64::MAX) > 4 << 30);
        assert!(memory(64, 9, 2 << 30) <= 2 << 30);
    }

    #[test]
    fn blocks_of_xz_are_the_same_whatever_the_threads() {
        let mut noise = 1u64;
        let plain: Vec<u8> = (0..(XZ_BLOCK * 5 / 2))
            .map(|at| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if at % 64 == 0 { (noise >> 56) as u8 } else { (at >> 16) as u8 }
            })
            .collect();
        let packed = |threads| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            std::thread::scope(|scope| {
                let (mut pieces, running) =
                    start(scope, threads, Format::Xz, 6, None, file.as_file_mut(), None).unwrap();
                pieces.write(&plain).unwrap();
                pieces.finish().unwrap();
                running.finish().unwrap()
            });
            file
        };
        let one = packed(1);
        let bytes = fs_err::read(one.path()).unwrap();
        for threads in [2, 4] {
            assert!(fs_err::read(packed(threads).path()).unwrap() == bytes, "{threads} threads");
        }
        // Blocks that say how long they are: a decoder needs that to give each a thread.
        let told =
            std::process::Command::new("xz").args(["--robot", "--list", "-vv"]).arg(one.path()).output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let sized = |line: &&str| line.starts_with("block\t") && line.split('\t').any(|flags| flags == "cu");
        assert_eq!(told.lines().filter(sized).count(), 3, "{told}");
        let mut decoded = Vec::new();
        let mut decoder = crate::archive::unpack::decode::Decoder::new(io::Cursor::new(bytes)).unwrap();
        io::Read::read_to_end(&mut decoder, &mut decoded).unwrap();
        assert!(decoded == plain);
    }

    /// What is in a cache is of these encoders: a new one must have another name here.
    #[test]
    fn encoders_are_those_of_the_lock_file() {
        let lock = include_str!("../../../Cargo.lock");
        for format in [Format::Gzip, Format::Zstd] {
            let (name, version) = format.encoder().unwrap().split_once(' ').unwrap();
            let package = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert_eq!(lock.matches(&package).count(), 1, "{package}");
            assert_eq!(lock.matches(&format!("name = \"{name}\"")).count(), 1, "{name}");
        }
    }
}
