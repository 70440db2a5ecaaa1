//! How many streams a file may have that is several of them, one after the other. Pure.

use std::io;

/// Streams of one file that may be as short as they like. To begin one takes 50 microseconds, which are more than its bytes take.
const SHORT_STREAMS: u64 = 10_000;
/// Plain bytes that those before have on average where there are more streams. What compresses in parallel makes them 100 times as
/// long.
const STREAM: u64 = 10_000;

/// The streams of a file so far.
#[derive(Default)]
pub(super) struct Streams {
    ended: u64,
    /// Bytes that they had unpacked.
    plain: u64,
}

impl Streams {
    /// One of so many bytes has ended and another begins. Refused when they are so many and so short that little is done but to
    /// begin them.
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
