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
//! That it only makes whole streams is why there are members. Where speed is all, at level 1 of gzip, pieces go to an encoder of our own,
//! [`deflate`]: 1.4 times as fast as its level 1, with 2 % more bytes.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Scope;

use libdeflater::{CompressionLvl, Compressor};
use sha2::{Digest, Sha256};

use super::cache::Cache;
use super::deflate;
use super::digest::hex;
use super::pieces::Pieces;

/// Plain bytes that become one gzip member.
const GZIP_PIECE: usize = 2 << 20;
/// Plain bytes that become one zstd frame: longer ones compress better.
const ZSTD_PIECE: usize = 4 << 20;
/// Plain bytes of a block of `.xz`. Fixed, as the library's choice is not for us to know.
const XZ_BLOCK: u64 = 16 << 20;

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
    fn encoder(self, level: u32) -> Option<&'static str> {
        match self {
            Self::Gzip if level <= 1 => Some(deflate::NAME),
            Self::Gzip => Some("libdeflate-sys 1.26.1"),
            Self::Zstd => Some("zstd-sys 2.1.2+zstd.1.5.7"),
            Self::Plain | Self::Xz => None,
        }
    }

    fn piece(self) -> usize {
        if self == Self::Zstd { ZSTD_PIECE } else { GZIP_PIECE }
    }
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// SHA-256 of the plain stream.
    pub plain_sha256: String,
    /// Bytes of the plain stream.
    pub plain_size: u64,
}

/// A piece as it goes into the file.
pub(super) type Compressed = io::Result<Arc<Vec<u8>>>;

/// A piece to be compressed.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) plain: Arc<Vec<u8>>,
    /// It is the piece of zeros, which is compressed once.
    pub(super) zeros: bool,
    pub(super) to: SyncSender<Compressed>,
}

/// Threads at work.
#[derive(Debug)]
pub struct Running<'scope> {
    writer: std::thread::ScopedJoinHandle<'scope, io::Result<Written>>,
    hasher: std::thread::ScopedJoinHandle<'scope, (String, u64)>,
}

/// Starts `threads` compressors and what belongs to them. The file is written from where it stands.
pub fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    threads: usize,
    format: Format,
    level: u32,
    cache: Option<&'env Cache>,
    out: &'env mut File,
) -> io::Result<(Pieces, Running<'scope>)> {
    let thread = || std::thread::Builder::new().name("pack".to_owned());
    let threads = threads.clamp(1, 256);
    let (work, to_do) = sync_channel::<Work>(threads);
    let (order, ordered) = sync_channel(2 * threads + 2);
    let (hash, to_hash) = sync_channel::<Arc<Vec<u8>>>(2 * threads + 2);
    let to_do = Arc::new(Mutex::new(to_do));
    let zeros = Arc::new(OnceLock::new());
    // What needs no work, or has threads of its own, takes one that passes it on.
    let workers = if matches!(format, Format::Gzip | Format::Zstd) { threads } else { 1 };
    for _ in 0..workers {
        let (to_do, zeros) = (to_do.clone(), zeros.clone());
        thread().spawn_scoped(scope, move || compress(&to_do, &zeros, format, level, cache))?;
    }
    let hasher = thread().spawn_scoped(scope, move || {
        let mut digest = Sha256::new();
        let mut size = 0;
        for plain in to_hash {
            digest.update(&plain[..]);
            size += plain.len() as u64;
        }
        (hex(&digest.finalize()), size)
    })?;
    let writer = thread().spawn_scoped(scope, move || {
        let out = Out { file: out, digest: Sha256::new(), size: 0 };
        match format {
            Format::Xz => write_xz(ordered, threads, level, out),
            _ => write(ordered, out),
        }
    })?;
    Ok((Pieces::new(format.piece(), work, order, hash), Running { writer, hasher }))
}

impl Running<'_> {
    /// Waits for the end, once [`Pieces`] is gone.
    pub fn finish(self) -> io::Result<Written> {
        let dead = |_| io::Error::other("a thread of the compressor panicked");
        let mut written = self.writer.join().map_err(dead)??;
        (written.plain_sha256, written.plain_size) = self.hasher.join().map_err(dead)?;
        Ok(written)
    }
}

fn compress(
    to_do: &Mutex<Receiver<Work>>,
    known_zeros: &OnceLock<Arc<Vec<u8>>>,
    format: Format,
    level: u32,
    cache: Option<&Cache>,
) {
    let mut compressor = One::new(format, level);
    let cache = cache.zip(format.encoder(level)).map(|(cache, encoder)| (cache, format!("{encoder} level {level}")));
    loop {
        let next = to_do.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Work { plain, zeros, to }) = next else { return };
        let packed = match known_zeros.get().filter(|_| zeros) {
            Some(packed) => Ok(packed.clone()),
            None => match &cache {
                Some((cache, how)) => compressor.pack_or_get(plain, cache, how),
                None => compressor.pack(plain),
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

/// The compressor of one thread.
enum One {
    Fast(Box<deflate::Encoder>),
    Gzip(Compressor),
    Zstd(io::Result<zstd::bulk::Compressor<'static>>),
    Plain,
}

impl One {
    fn new(format: Format, level: u32) -> Self {
        match format {
            Format::Gzip if level <= 1 => Self::Fast(Box::new(deflate::Encoder::new())),
            Format::Gzip => Self::Gzip(Compressor::new(CompressionLvl::new(level.min(12) as i32).unwrap_or_default())),
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

    fn pack_or_get(&mut self, plain: Arc<Vec<u8>>, cache: &Cache, how: &str) -> Compressed {
        let key = Cache::key(how, &plain);
        if let Some(kept) = cache.get(&key) {
            return Ok(Arc::new(kept));
        }
        let packed = self.pack(plain)?;
        cache.put(&key, &packed);
        Ok(packed)
    }

    fn pack(&mut self, plain: Arc<Vec<u8>>) -> Compressed {
        match self {
            Self::Plain => Ok(plain),
            Self::Fast(encoder) => Ok(Arc::new(encoder.gzip(&plain))),
            Self::Zstd(Ok(compressor)) => compressor.compress(&plain).map(Arc::new),
            Self::Zstd(Err(error)) => Err(io::Error::other(error.to_string())),
            Self::Gzip(compressor) => {
                let mut packed = vec![0; compressor.gzip_compress_bound(plain.len())];
                let size = compressor.gzip_compress(&plain, &mut packed).map_err(io::Error::other)?;
                packed.truncate(size);
                Ok(Arc::new(packed))
            }
        }
    }
}

/// The file, with what is told of it.
struct Out<'a> {
    file: &'a mut File,
    digest: Sha256,
    size: u64,
}

impl Out<'_> {
    fn finish(self) -> Written {
        let sha256 = hex(&self.digest.finalize());
        Written { size: self.size, sha256, plain_sha256: String::new(), plain_size: 0 }
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes).map_err(|error| match error.kind() {
            kind @ (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                io::Error::new(kind, format!("{error}, after {} bytes", self.size))
            }
            _ => error,
        })?;
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn write(ordered: Receiver<Receiver<Compressed>>, mut out: Out<'_>) -> io::Result<Written> {
    for piece in ordered {
        out.write_all(&received(&piece)?)?;
    }
    Ok(out.finish())
}

fn write_xz(ordered: Receiver<Receiver<Compressed>>, threads: usize, level: u32, out: Out<'_>) -> io::Result<Written> {
    let mut builder = xz2::stream::MtStreamBuilder::new();
    builder.threads(threads as u32).block_size(XZ_BLOCK).preset(level.clamp(1, 9)).check(xz2::stream::Check::Crc64);
    let mut encoder = xz2::write::XzEncoder::new_stream(out, builder.encoder()?);
    for piece in ordered {
        encoder.write_all(&received(&piece)?)?;
    }
    Ok(encoder.finish()?.finish())
}

fn received(piece: &Receiver<Compressed>) -> Compressed {
    piece.recv().unwrap_or_else(|_| Err(io::Error::other("a thread of the compressor panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in a cache is of these encoders: a new one must have another name here.
    #[test]
    fn encoders_are_those_of_the_lock_file() {
        let lock = include_str!("../../Cargo.lock");
        for format in [Format::Gzip, Format::Zstd] {
            let (name, version) = format.encoder(format.level()).unwrap().split_once(' ').unwrap();
            let package = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert_eq!(lock.matches(&package).count(), 1, "{package}");
            assert_eq!(lock.matches(&format!("name = \"{name}\"")).count(), 1, "{name}");
        }
    }
}
