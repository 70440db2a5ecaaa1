//! Compresses the chunks of the plain stream in parallel. The bytes are the same for any number of threads.
//!
//! Each [chunk](super::chunks) is compressed on its own into a gzip member or a zstd frame. Members one after the other are one gzip
//! file (RFC 1952), as in eStargz layers. Nothing in the result depends on which thread compressed a chunk, or when. Digests are
//! computed on the way, in threads of their own.
//!
//! libdeflate compresses gzip, because it is the fastest encoder of small output; `docs/benchmarks.md` has the speeds of the levels.
//! On every fourth mebibyte of a stage3, compressed on its own, one core, best of three rounds:
//!
//! | | level | MB/s | compressed to |
//! |---|---|---|---|
//! | libdeflate | 5 | 123 | 33.1 % |
//! | libdeflate | 6 | 109 | 32.9 % |
//! | zlib-rs | 6 | 57 | 34.1 % |
//! | zlib-ng | 6 | 67 | 34.1 % |
//!
//! libdeflate only makes whole streams, hence the members. The level of Zstandard is its own default, because each further percent
//! costs more than the one before.
//!
//! liblzma cuts the blocks of `.xz` and compresses them with its own threads, each block on its own, so their number changes nothing.
//! A block ends where it is full, wherever entries begin. A change therefore moves everything after it, and a cache would be useless.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use libdeflater::CompressionLvl;
use sha2::Digest as _;
use xz2::stream::{Check, MtStreamBuilder};

use super::Options;
use super::cache::Cache;
use super::chunks::{Channels, Chunk, Chunker};
use crate::base::digest::Sha256;
use crate::os::probe;

/// Plain bytes of a gzip member.
const GZIP_CHUNK: usize = 2 << 20;
/// Plain bytes of a zstd frame. Longer ones compress better.
const ZSTD_CHUNK: usize = 4 << 20;
/// Plain bytes of an `.xz` block. A constant, because the library's default may change.
const XZ_BLOCK: u64 = 16 << 20;
/// The encoder of `.xz` may use this fraction of the memory, as with `xz -T0`. It then runs fewer threads, but at least one. At
/// level 6 a thread takes about 140 MiB.
const XZ_MEMORY: u64 = 4;

/// Formats of an archive file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An uncompressed archive.
    Plain,
    /// `.gz` with many members.
    Gzip,
    /// `.xz` with many blocks, made by liblzma's own threads.
    Xz,
    /// `.zst` with many frames.
    Zstd,
}

impl Format {
    /// Returns the default level. The one of gzip is the fastest whose result is not larger than that of `gzip -6`.
    pub fn level(self) -> u32 {
        match self {
            Self::Gzip => 5,
            Self::Zstd => 3,
            Self::Plain | Self::Xz => 6,
        }
    }

    /// Returns the package and version of the encoder of chunks. Another version may make other bytes. `None` if the format does not
    /// compress chunks.
    fn encoder(self) -> Option<&'static str> {
        match self {
            Self::Gzip => Some("libdeflate-sys 1.26.1"),
            Self::Zstd => Some("zstd-sys 2.1.2+zstd.1.5.7"),
            Self::Plain | Self::Xz => None,
        }
    }

    fn chunk(self) -> usize {
        if self == Self::Zstd { ZSTD_CHUNK } else { GZIP_CHUNK }
    }
}

/// SHA-256 digests of an archive in the making, computed by the threads that write it.
#[derive(Debug, Default)]
pub struct Digests {
    plain: sha2::Sha256,
    /// `None` if the file is the plain stream.
    file: Option<sha2::Sha256>,
}

impl Digests {
    fn of(format: Format) -> Self {
        Self { plain: sha2::Sha256::new(), file: (format != Format::Plain).then(sha2::Sha256::new) }
    }

    /// Returns the digest of the file and that of the plain stream.
    pub fn finish(self) -> (Sha256, Sha256) {
        let finish = |sha256: sha2::Sha256| Sha256::from(<[u8; 32]>::from(sha256.finalize()));
        let plain = finish(self.plain);
        (self.file.map_or(plain, finish), plain)
    }
}

/// A compressed chunk, or the error of its encoder.
pub(super) type Compressed = io::Result<Output>;

/// Bytes of the file.
#[derive(Debug, Clone)]
pub(super) enum Output {
    /// The bytes of the plain stream.
    Plain(Arc<Chunk>),
    /// Compressed bytes.
    Made(Arc<Vec<u8>>),
}

impl Deref for Output {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Plain(chunk) => chunk,
            Self::Made(bytes) => bytes,
        }
    }
}

/// A chunk to be compressed.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) plain: Arc<Chunk>,
    /// This is the shared chunk of zeros, which is compressed once.
    pub(super) zeros: bool,
    pub(super) to: SyncSender<Compressed>,
}

/// The threads of a compressor.
#[derive(Debug)]
pub struct Running<'scope> {
    writer: ScopedJoinHandle<'scope, io::Result<u64>>,
    hasher: Option<ScopedJoinHandle<'scope, ()>>,
}

/// Starts the threads that compress, hash and write. The file is written from its current position; `digests` are computed if given.
pub fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    options: &'env Options,
    out: &'env mut File,
    digests: Option<&'env mut Digests>,
) -> io::Result<(Chunker, Running<'scope>)> {
    let (format, level) = (options.format, options.level());
    let threads = if options.threads == 0 { probe::processors() } else { options.threads };
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
    // Plain files need no work and liblzma has threads of its own: one thread passes the chunks on.
    let workers = if matches!(format, Format::Gzip | Format::Zstd) { threads } else { 1 };
    for _ in 0..workers {
        let (to_do, zeros) = (to_do.clone(), zeros.clone());
        thread().spawn_scoped(scope, move || compress(&to_do, &zeros, options))?;
    }
    let (hash, hasher) = match plain {
        Some(digest) => {
            let (hash, to_hash) = sync_channel::<Arc<Chunk>>(2 * threads + 2);
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
    Ok((Chunker::new(format.chunk(), Channels { work, order, hash }), Running { writer, hasher }))
}

impl Running<'_> {
    /// Waits for the threads, once the [`Chunker`] is dropped. Returns the size of the file.
    pub fn finish(self) -> io::Result<u64> {
        let dead = |_| io::Error::other("a thread of the compressor panicked");
        let size = self.writer.join().map_err(dead)??;
        self.hasher.map_or(Ok(()), |hasher| hasher.join().map_err(dead))?;
        Ok(size)
    }
}

/// Compresses chunks until the channel closes; the body of a thread.
fn compress(to_do: &Mutex<Receiver<Work>>, known_zeros: &OnceLock<Output>, options: &Options) {
    let (format, level, cache) = (options.format, options.level(), options.cache.as_deref());
    let mut compressor = Compressor::new(format, level);
    let cache = cache.zip(format.encoder()).map(|(cache, encoder)| (cache, format!("{encoder} level {level}")));
    loop {
        let next = to_do.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Work { plain, zeros, to }) = next else { return };
        let packed = match known_zeros.get().filter(|_| zeros) {
            Some(packed) => Ok(packed.clone()),
            None => match &cache {
                Some((cache, encoding)) => compressor.pack_or_get(&plain, cache, encoding),
                None => compressor.pack(&plain),
            },
        };
        if let (true, Ok(packed)) = (zeros, &packed) {
            // Another thread may have been first, with the same bytes.
            known_zeros.get_or_init(|| packed.clone());
        }
        // Nobody receives it if the writer has failed.
        drop(to.send(packed));
    }
}

/// The encoder of one thread.
enum Compressor {
    /// With a buffer for its output.
    Gzip(libdeflater::Compressor, Vec<u8>),
    Zstd(io::Result<zstd::bulk::Compressor<'static>>),
    Plain,
}

impl Compressor {
    fn new(format: Format, level: u32) -> Self {
        match format {
            Format::Gzip => {
                let level = CompressionLvl::new(level.clamp(1, 12) as i32).unwrap_or_default();
                Self::Gzip(libdeflater::Compressor::new(level), Vec::new())
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

    /// Takes the chunk from the cache, or compresses and keeps it. `encoding` names the encoder and its level.
    fn pack_or_get(&mut self, plain: &Arc<Chunk>, cache: &Cache, encoding: &str) -> Compressed {
        let key = Cache::key(encoding, plain);
        if let Some(kept) = cache.get(&key) {
            return Ok(Output::Made(Arc::new(kept)));
        }
        let packed = self.pack(plain)?;
        cache.put(&key, &packed);
        Ok(packed)
    }

    fn pack(&mut self, plain: &Arc<Chunk>) -> Compressed {
        let made = match self {
            Self::Plain => return Ok(Output::Plain(plain.clone())),
            Self::Zstd(Ok(compressor)) => compressor.compress(plain)?,
            Self::Zstd(Err(error)) => return Err(io::Error::other(error.to_string())),
            Self::Gzip(compressor, buffer) => {
                let max = compressor.gzip_compress_bound(plain.len());
                if buffer.len() < max {
                    buffer.resize(max, 0);
                }
                let size = compressor.gzip_compress(plain, buffer).map_err(io::Error::other)?;
                buffer[..size].to_vec()
            }
        };
        Ok(Output::Made(Arc::new(made)))
    }
}

/// The file, with its digest and size so far.
struct Out<'a> {
    file: &'a mut File,
    digest: Option<&'a mut sha2::Sha256>,
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
    for chunk in ordered {
        out.write_all(&received(&chunk)?)?;
    }
    Ok(out.size)
}

fn write_xz(ordered: Receiver<Receiver<Compressed>>, threads: usize, level: u32, out: Out<'_>) -> io::Result<u64> {
    let builder = xz_builder(threads as u32, level, probe::ram() / XZ_MEMORY);
    let mut encoder = xz2::write::XzEncoder::new_stream(out, builder.encoder()?);
    for chunk in ordered {
        encoder.write_all(&received(&chunk)?)?;
    }
    Ok(encoder.finish()?.size)
}

/// Configures the encoder of `.xz` with at most `threads` threads, and fewer if they would need more than `memory` bytes. The number of
/// threads does not change the result.
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

fn received(chunk: &Receiver<Compressed>) -> Compressed {
    chunk.recv().unwrap_or_else(|_| Err(io::Error::other("a thread of the compressor panicked")))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the tests run xz")]
mod tests {
    use super::*;

    #[test]
    fn xz_uses_as_many_threads_as_the_memory_allows() {
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
    fn xz_blocks_do_not_depend_on_the_number_of_threads() {
        let mut noise = 1u64;
        let plain: Vec<u8> = (0..(XZ_BLOCK * 5 / 2))
            .map(|at| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if at % 64 == 0 { (noise >> 56) as u8 } else { (at >> 16) as u8 }
            })
            .collect();
        let packed = |threads| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            let options = Options { format: Format::Xz, threads, ..Options::default() };
            std::thread::scope(|scope| {
                let (mut chunker, running) = start(scope, &options, file.as_file_mut(), None).unwrap();
                chunker.write(&plain).unwrap();
                chunker.finish().unwrap();
                running.finish().unwrap()
            });
            file
        };
        let one = packed(1);
        let bytes = fs_err::read(one.path()).unwrap();
        for threads in [2, 4] {
            assert!(fs_err::read(packed(threads).path()).unwrap() == bytes, "{threads} threads");
        }
        // Each block header gives the sizes of the block: a decoder needs them to run blocks in parallel.
        let listed =
            std::process::Command::new("xz").args(["--robot", "--list", "-vv"]).arg(one.path()).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let sized = |line: &&str| line.starts_with("block\t") && line.split('\t').any(|flags| flags == "cu");
        assert_eq!(listed.lines().filter(sized).count(), 3, "{listed}");
        let mut decoded = Vec::new();
        let mut decoder = crate::archive::unpack::decode::Decoder::new(io::Cursor::new(bytes)).unwrap();
        io::Read::read_to_end(&mut decoder, &mut decoded).unwrap();
        assert!(decoded == plain);
    }

    /// The names are part of the keys of the cache: they must change with the encoders.
    #[test]
    fn names_of_encoders_match_the_lock_file() {
        let lock = include_str!("../../../Cargo.lock");
        for format in [Format::Gzip, Format::Zstd] {
            let (name, version) = format.encoder().unwrap().split_once(' ').unwrap();
            let package = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert_eq!(lock.matches(&package).count(), 1, "{package}");
            assert_eq!(lock.matches(&format!("name = \"{name}\"")).count(), 1, "{name}");
        }
    }
}
