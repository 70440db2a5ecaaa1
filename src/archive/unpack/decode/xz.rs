//! `.xz`, decoded by one thread per processor.

use std::fs::File;
use std::io::{self, BufRead, Read};

use xz2::stream::{Action, MtStreamBuilder, Status, Stream};

use super::streams::Streams;

/// Memory per thread that the parallel decoder may use before it starts fewer threads: two of the 16 MiB blocks that pixz writes,
/// and the dictionary.
const PER_THREAD: u64 = 48 << 20;
/// Divisor of the machine's memory that limits all threads together. A decoder of a file without blocks needs only the dictionary.
const PART: u64 = 4;
/// Memory that a decoder may always use. Larger dictionaries are refused unless the threads may use as much. The strongest preset
/// of xz has a dictionary of 64 MiB.
const MOST: u64 = 160 << 20;

/// Decodes the streams of an `.xz` file, one after the other. The parallel decoder of liblzma reads only one stream.
pub(super) struct Xz<R> {
    input: R,
    stream: Stream,
    /// Set between two streams, and after the last.
    between: bool,
    streams: Streams,
}

impl<R: BufRead> Xz<R> {
    pub(super) fn new(input: R) -> io::Result<Self> {
        Ok(Self { input, stream: stream()?, between: false, streams: Streams::default() })
    }

    /// Skips the padding after a stream, in units of four zeros. Returns false at the end of the input.
    fn next_stream(&mut self) -> io::Result<bool> {
        let mut zeros = 0;
        loop {
            let input = self.input.fill_buf()?;
            let Some(byte) = input.first() else {
                return if zeros % 4 == 0 { Ok(false) } else { Err(bad(ODD_PADDING)) };
            };
            if *byte != 0 {
                break;
            }
            self.input.consume(1);
            zeros += 1;
        }
        if zeros % 4 != 0 {
            return Err(bad(ODD_PADDING));
        }
        self.streams.next(self.stream.total_out())?;
        self.stream = stream()?;
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
            match status.map_err(explain)? {
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

/// Refuses a stream with an unknown kind of check, which liblzma would not verify. `at` is the position of `input` in the stream.
fn check_is_known(input: &[u8], at: u64) -> io::Result<()> {
    const FLAGS: u64 = 7;
    let flags = FLAGS.checked_sub(at).and_then(|left| input.get(left as usize));
    match flags.map(|flags| flags & 0x0f) {
        // None, CRC32, CRC64, SHA-256.
        None | Some(0 | 1 | 4 | 10) => Ok(()),
        Some(_) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "the .xz file has an unknown kind of integrity check"))
        }
    }
}

const ODD_PADDING: &str = "the padding after the .xz stream is not a multiple of four bytes";

fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn explain(error: xz2::stream::Error) -> io::Error {
    match error {
        xz2::stream::Error::Format => bad("it is not an .xz stream"),
        xz2::stream::Error::Data => bad("the .xz file is corrupt"),
        xz2::stream::Error::MemLimit => {
            bad(&format!("the .xz file needs more than {} MiB of memory to decode", most() >> 20))
        }
        xz2::stream::Error::Mem => {
            io::Error::new(io::ErrorKind::OutOfMemory, "there is not enough memory to decode the .xz file")
        }
        other => other.into(),
    }
}

fn stream() -> io::Result<Stream> {
    let mut builder = MtStreamBuilder::new();
    Ok(builder.threads(threads()).memlimit_threading(for_threads()).memlimit_stop(most()).decoder()?)
}

fn threads() -> u32 {
    crate::os::probe::processors().min(64) as u32
}

fn for_threads() -> u64 {
    (u64::from(threads()) * PER_THREAD).min(crate::os::probe::ram() / PART)
}

/// Returns the memory limit of a decoder. liblzma requires it to be at least the limit for threads.
fn most() -> u64 {
    MOST.max(for_threads())
}

/// Returns the plain size that the index of an `.xz` file claims, without decoding the file. Returns `None` for other files.
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
