//! `.bz2`.

use std::io::{self, BufRead, Read};

use super::streams::{self, Streams};

/// Decodes the streams of a `.bz2` file, one after the other.
pub(super) struct Bzip2<R> {
    input: R,
    stream: bzip2::Decompress,
    /// Set between two streams, and after the last.
    between: bool,
    streams: Streams,
}

impl<R> Bzip2<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, stream: bzip2::Decompress::new(false), between: false, streams: Streams::default() }
    }
}

impl<R: BufRead> Read for Bzip2<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while !to.is_empty() {
            if self.between {
                if streams::is_at_end(&mut self.input)? {
                    return Ok(0);
                }
                self.streams.next(self.stream.total_out())?;
                self.stream = bzip2::Decompress::new(false);
                self.between = false;
            }
            let input = self.input.fill_buf()?;
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
