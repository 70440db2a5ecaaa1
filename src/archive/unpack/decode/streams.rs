//! Files that consist of several compressed streams: a limit on short ones, and the padding after the last.

use std::io::{self, BufRead};

/// Streams of one file that may have any length. Starting a decoder takes 50 microseconds, longer than decoding a short stream.
const SHORT_STREAMS: u64 = 10_000;
/// Required average of plain bytes per stream in a file with more streams. Parallel compressors write streams of a hundred times this
/// length.
const STREAM: u64 = 10_000;

/// Counts the streams of a file.
#[derive(Default)]
pub(super) struct Streams {
    ended: u64,
    /// Plain bytes of all streams so far.
    plain: u64,
}

impl Streams {
    /// Counts a stream of `plain` bytes that another one follows.
    ///
    /// # Errors
    /// The refusal of a file with so many short streams that starting decoders takes most of the time.
    pub(super) fn next(&mut self, plain: u64) -> io::Result<()> {
        self.ended += 1;
        self.plain = self.plain.saturating_add(plain);
        if self.ended > SHORT_STREAMS + self.plain / STREAM {
            let text = format!("its first {} streams have fewer than {STREAM} bytes on average", self.ended);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(())
    }
}

/// Returns true at the end of the file. Skips zeros that pad it, as tapes and some registries do: gzip, bzip2, GNU tar, bsdtar and
/// Python ignore them.
///
/// # Errors
/// Those of the input, and a refusal where data follows the zeros: some programs read it and some do not.
pub(super) fn is_at_end(input: &mut impl BufRead) -> io::Result<bool> {
    let mut padded = false;
    loop {
        let bytes = input.fill_buf()?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        match bytes.get(zeros) {
            None if bytes.is_empty() => return Ok(true),
            None => {}
            Some(_) if padded || zeros > 0 => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "data follows the zeros at the end of the file",
                ));
            }
            Some(_) => return Ok(false),
        }
        padded = true;
        input.consume(zeros);
    }
}
