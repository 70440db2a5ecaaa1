//! A compressed file as plain bytes: the format is told by the content, the decoder has a thread of its own (and `.xz` as many
//! as there are processors), memory is bounded.

mod bzip2;
mod streams;
mod xz;

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use self::bzip2::Bzip2;
use self::xz::Xz;
pub use self::xz::claimed_size;

/// Size of a chunk of plain bytes handed over.
const CHUNK: usize = 512 << 10;
/// Chunks on their way at most.
const CHUNKS: usize = 6;

/// Formats of compressed files.
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
    /// Tells the format by a file's first bytes.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x1f, 0x8b, ..] => Self::Gzip,
            // Parallel encoders begin with a frame to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Self::Bzip2,
            // A stream of nothing, before others.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Self::Bzip2,
            _ => Self::Plain,
        }
    }
}

/// The plain bytes of a compressed input, decoded ahead.
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
    /// Decodes `input`, whatever its format, from where it stands.
    pub fn new(mut input: impl Read + Send + 'static) -> io::Result<Self> {
        let mut head = Vec::with_capacity(16);
        (&mut input).take(16).read_to_end(&mut head)?;
        let format = Format::of(&head);
        Self::of(format, io::Cursor::new(head).chain(input))
    }

    /// Decodes `input`, which must be of this format.
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

    /// Bytes of the compressed input read so far.
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
                // The decoder may have ended: nobody needs the buffer then.
                drop(self.spent.send(old));
            }
            match chunks.recv() {
                Ok(Ok(chunk)) => self.chunk = chunk,
                // An empty chunk is the orderly end.
                Ok(Err(error)) => {
                    self.chunks = None;
                    return Err(error);
                }
                // Its thread panicked, as it may where there is no memory.
                Err(_) => return Err(io::Error::new(io::ErrorKind::OutOfMemory, "the decoder stopped without a word")),
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
        // The thread ends as soon as it cannot hand over: nothing may still read the input when this is gone.
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
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
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
                    // What was decoded before is handed over: a refusal names its entry rather than the decoder's fault.
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
