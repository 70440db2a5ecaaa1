//! Decoding of compressed files. The content decides the format; the decoder runs in its own thread (`.xz` uses one thread per
//! processor); memory is bounded.

mod bzip2;
mod gzip;
mod streams;
mod xz;

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use self::bzip2::Bzip2;
use self::gzip::Gzip;
use self::xz::Xz;
pub use self::xz::claimed_size;

/// Size of a chunk of plain bytes, passed from the decoder to the reader.
const CHUNK: usize = 512 << 10;
/// Decoded chunks that may wait for the reader.
const CHUNKS: usize = 6;

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// `.xz`
    Xz,
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
    /// `.bz2`
    Bzip2,
    /// Not compressed.
    Plain,
}

impl Format {
    /// Recognises the format by the first bytes of a file.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x1f, 0x8b, ..] => Self::Gzip,
            // Parallel encoders begin with a skippable frame.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Self::Bzip2,
            // An empty stream, which others may follow.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Self::Bzip2,
            _ => Self::Plain,
        }
    }
}

/// Reads the plain bytes of a compressed input, decoded ahead of the reader.
#[derive(Debug)]
pub struct Decoder {
    chunks: Option<Receiver<io::Result<Vec<u8>>>>,
    spent: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    taken: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Decoder {
    /// Decodes `input` from its current position in the format that its first bytes indicate.
    pub fn new(mut input: impl Read + Send + 'static) -> io::Result<Self> {
        let mut head = Vec::with_capacity(16);
        (&mut input).take(16).read_to_end(&mut head)?;
        let format = Format::of(&head);
        Self::of(format, io::Cursor::new(head).chain(input))
    }

    /// Decodes `input`, which must have the given format.
    pub fn of(format: Format, input: impl Read + Send + 'static) -> io::Result<Self> {
        let taken = Arc::new(AtomicU64::new(0));
        let input = Counted { input, taken: taken.clone() };
        let mut plain = plain(format, input)?;

        let (sender, chunks) = sync_channel(CHUNKS);
        let (spent, free) = channel::<Vec<u8>>();
        let run = move || decode(&mut plain, &sender, &free);
        let thread = std::thread::Builder::new().name("decode".to_owned()).spawn(run)?;
        Ok(Self { chunks: Some(chunks), spent, chunk: Vec::new(), at: 0, taken, thread: Some(thread) })
    }

    /// Returns the number of compressed bytes read so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl BufRead for Decoder {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len()
            && let Some(chunks) = &self.chunks
        {
            let old = std::mem::take(&mut self.chunk);
            self.at = 0;
            if old.capacity() != 0 {
                // Sending fails after the decoder has ended: it no longer needs the buffer.
                drop(self.spent.send(old));
            }
            match chunks.recv() {
                Ok(Ok(chunk)) => self.chunk = chunk,
                // An empty chunk marks the end.
                Ok(Err(error)) => {
                    self.chunks = None;
                    return Err(error);
                }
                // The decoder panicked, for instance because memory ran out.
                Err(_) => return Err(io::Error::new(io::ErrorKind::OutOfMemory, "the decoder stopped unexpectedly")),
            }
            if self.chunk.is_empty() {
                self.chunks = None;
            }
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Decoder {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(to.len());
        to[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // The thread ends when it cannot send. It must not read the input any longer once the decoder is dropped.
        self.chunks = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn plain(format: Format, input: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let input = io::BufReader::with_capacity(256 << 10, input);
    Ok(match format {
        Format::Plain => Box::new(input),
        Format::Gzip => Box::new(Gzip::new(input)),
        Format::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        Format::Xz => Box::new(Xz::new(input)?),
        Format::Bzip2 => Box::new(Bzip2::new(input)),
    })
}

fn decode(plain: &mut dyn Read, to: &SyncSender<io::Result<Vec<u8>>>, free: &Receiver<Vec<u8>>) {
    loop {
        let mut chunk = free.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let mut filled = 0;
        while filled < CHUNK {
            match plain.read(&mut chunk[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // The reader gets what was decoded before the error, so that a refusal names the entry.
                    chunk.truncate(filled);
                    if filled == 0 || to.send(Ok(chunk)).is_ok() {
                        drop(to.send(Err(error)));
                    }
                    return;
                }
            }
        }
        chunk.truncate(filled);
        if to.send(Ok(chunk)).is_err() || filled == 0 {
            return;
        }
    }
}

/// Counts the bytes that are read.
struct Counted<R> {
    input: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(to)?;
        self.taken.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
