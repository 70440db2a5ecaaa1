//! A compressed file as plain bytes: the format is told by the content, the decoder has a thread of its own (and `.xz` as many
//! as there are processors), memory is bounded.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use xz2::stream::{Action, MtStreamBuilder, Status, Stream};

/// Size of a chunk of plain bytes handed over.
const CHUNK: usize = 512 << 10;
/// Chunks on their way at most.
const CHUNKS: usize = 6;
/// Memory that the parallel decoder of `.xz` may take before it uses fewer threads, per thread. Two blocks of the 16 MiB that
/// pixz makes, and the dictionary.
const XZ_PER_THREAD: u64 = 48 << 20;
/// Which part of the memory there is that may be, however many threads. One that decodes without blocks needs the dictionary only.
const XZ_PART: u64 = 4;
/// Streams of one file that may be as short as they like. To begin one takes 50 microseconds, which are more than its bytes take.
const SHORT_STREAMS: u64 = 10_000;
/// Plain bytes that those before have on average where there are more streams. What compresses in parallel makes them 100 times as
/// long.
const STREAM: u64 = 10_000;
/// Memory that a decoder of `.xz` may never pass: larger dictionaries are refused. The strongest preset has one of 64 MiB.
const XZ_MOST: u64 = 160 << 20;

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
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
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
        Format::Xz => Box::new(Xz { input, stream: xz_stream()?, between: false, streams: Streams::default() }),
        Format::Bzip2 => Box::new(Bzip2 {
            input,
            stream: bzip2::Decompress::new(false),
            between: false,
            streams: Streams::default(),
        }),
    })
}

fn xz_stream() -> io::Result<Stream> {
    let threads = crate::process::processors().min(64) as u32;
    let threading = (u64::from(threads) * XZ_PER_THREAD).min(crate::process::memory() / XZ_PART);
    let mut builder = MtStreamBuilder::new();
    Ok(builder.threads(threads).memlimit_threading(threading).memlimit_stop(XZ_MOST.max(threading)).decoder()?)
}

/// The streams of a file so far.
#[derive(Default)]
struct Streams {
    ended: u64,
    /// Bytes that they had unpacked.
    plain: u64,
}

impl Streams {
    /// One of so many bytes has ended and another begins. Refused when they are so many and so short that little is done but to
    /// begin them.
    fn next(&mut self, plain: u64) -> io::Result<()> {
        self.ended += 1;
        self.plain = self.plain.saturating_add(plain);
        if self.ended > SHORT_STREAMS + self.plain / STREAM {
            let text = format!("its first {} streams have fewer than {STREAM} bytes on average", self.ended);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(())
    }
}

/// Streams of `.bz2`, one after the other.
struct Bzip2<R> {
    input: R,
    stream: bzip2::Decompress,
    /// Between two streams, or behind the last.
    between: bool,
    streams: Streams,
}

impl<R: BufRead> Read for Bzip2<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while !to.is_empty() {
            let input = self.input.fill_buf()?;
            if self.between && input.is_empty() {
                return Ok(0);
            }
            if self.between {
                self.streams.next(self.stream.total_out())?;
                self.stream = bzip2::Decompress::new(false);
                self.between = false;
            }
            let (before_in, before_out) = (self.stream.total_in(), self.stream.total_out());
            let status = self.stream.decompress(input, to);
            let consumed = (self.stream.total_in() - before_in) as usize;
            let count = (self.stream.total_out() - before_out) as usize;
            let cut_off = input.is_empty() && count == 0;
            self.input.consume(consumed);
            let status = status.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.between = status == bzip2::Status::StreamEnd;
            if cut_off && !self.between {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the .bz2 file is cut off"));
            }
            if count > 0 {
                return Ok(count);
            }
        }
        Ok(0)
    }
}

/// Streams of `.xz`, one after the other: the parallel decoder of the library knows only one.
struct Xz<R> {
    input: R,
    stream: Stream,
    /// Between two streams, or behind the last.
    between: bool,
    streams: Streams,
}

impl<R: BufRead> Xz<R> {
    /// Skips zeros (in fours) behind a stream. False at the end of the input.
    fn next_stream(&mut self) -> io::Result<bool> {
        let mut zeros = 0;
        loop {
            let input = self.input.fill_buf()?;
            let Some(byte) = input.first() else {
                return if zeros % 4 == 0 {
                    Ok(false)
                } else {
                    Err(xz_error("padding of an odd length behind the .xz stream"))
                };
            };
            if *byte != 0 {
                break;
            }
            self.input.consume(1);
            zeros += 1;
        }
        if zeros % 4 != 0 {
            return Err(xz_error("padding of an odd length behind the .xz stream"));
        }
        self.streams.next(self.stream.total_out())?;
        self.stream = xz_stream()?;
        self.between = false;
        Ok(true)
    }
}

impl<R: BufRead> Read for Xz<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            if to.is_empty() || (self.between && !self.next_stream()?) {
                return Ok(0);
            }
            let input = self.input.fill_buf()?;
            let action = if input.is_empty() { Action::Finish } else { Action::Run };
            let (before_in, before_out) = (self.stream.total_in(), self.stream.total_out());
            check_is_known(input, before_in)?;
            let status = self.stream.process(input, to, action);
            let consumed = (self.stream.total_in() - before_in) as usize;
            let count = (self.stream.total_out() - before_out) as usize;
            self.input.consume(consumed);
            match status.map_err(explain_xz)? {
                Status::StreamEnd => self.between = true,
                Status::MemNeeded => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the .xz file is cut off"));
                }
                Status::Ok | Status::GetCheck => {}
            }
            if count > 0 {
                return Ok(count);
            }
        }
    }
}

/// Refuses a stream whose check the library does not know, and so would not look at. `at` is where in the stream `input` begins.
fn check_is_known(input: &[u8], at: u64) -> io::Result<()> {
    const FLAGS: u64 = 7;
    let flags = FLAGS.checked_sub(at).and_then(|left| input.get(left as usize));
    match flags.map(|flags| flags & 0x0f) {
        // None, CRC32, CRC64, SHA-256.
        None | Some(0 | 1 | 4 | 10) => Ok(()),
        Some(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "the .xz file has a check of an unknown kind")),
    }
}

fn xz_error(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn explain_xz(error: xz2::stream::Error) -> io::Error {
    match error {
        xz2::stream::Error::Format => xz_error("this is no .xz stream"),
        xz2::stream::Error::Data => xz_error("the .xz file is corrupt"),
        xz2::stream::Error::MemLimit => {
            xz_error(&format!("the .xz file needs more than {} MiB of memory to decode", XZ_MOST >> 20))
        }
        xz2::stream::Error::Mem => {
            io::Error::new(io::ErrorKind::OutOfMemory, "there is no memory to decode the .xz file")
        }
        other => other.into(),
    }
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

/// The plain size that an `.xz` file claims in its index, without decoding it. None for everything else.
pub fn claimed_size(file: &File) -> Option<u64> {
    use std::os::unix::fs::FileExt;
    let end = file.metadata().ok()?.len();
    let mut footer = [0; 12];
    file.read_exact_at(&mut footer, end.checked_sub(12)?).ok()?;
    if footer[10..] != *b"YZ" {
        return None;
    }
    let length = (u64::from(u32::from_le_bytes([footer[4], footer[5], footer[6], footer[7]])) + 1) * 4;
    if length > 16 << 20 {
        return None;
    }
    let mut index = vec![0; length as usize];
    file.read_exact_at(&mut index, end.checked_sub(12 + length)?).ok()?;
    let mut bytes = index.strip_prefix(&[0])?.iter();
    let mut varint = || -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = *bytes.next()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    };
    let records = varint()?;
    let mut sum = 0u64;
    for _ in 0..records {
        varint()?;
        sum = sum.checked_add(varint()?)?;
    }
    Some(sum)
}
