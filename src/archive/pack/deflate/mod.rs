//! The encoder of the fast mode: gzip members, at twice the speed of libdeflate's fastest level.
//!
//! What costs an encoder its time on such data is not arithmetic but branches nobody can predict: is there a match, how long is it. So
//! there are three passes without them:
//!
//! 1. [`mod@matches`] asks at every position what begins there, and notes it; only matches of eight bytes and more take a branch, and
//!    jump over what they cover.
//! 2. [`tokens`] walks over the notes from token to token, two literals at a time, two halves of a chunk at once, and counts symbols.
//! 3. [`block`] makes Huffman codes ([`huffman`]) of the counts and writes each token with two look-ups, and two with one store ([`bits`]).
//!
//! There is one candidate for each position and no search, all in integers: the same bytes on every machine. The notes between the
//! passes are the idea of ISA-L, whose own result depends on the processor.

mod bits;
mod block;
mod huffman;
mod matches;
#[cfg(test)]
mod tests;
mod tokens;

use self::bits::Bits;
use self::matches::{CHUNK, Finder};
use self::tokens::Tokens;

/// Its name among encoders: another number for other bytes.
pub(super) const NAME: &str = "quern-deflate 2";

/// Magic, deflate, no flags, no time, fastest, no system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// An encoder and its memory, for one piece after the other.
#[derive(Debug)]
pub(crate) struct Encoder {
    finder: Finder,
    tokens: Tokens,
    /// Room for the largest member so far.
    room: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { finder: Finder::new(), tokens: Tokens::new(), room: Vec::new() }
    }

    /// A gzip member of `plain`, which depends on nothing else.
    ///
    /// # Panics
    ///
    /// If `plain` is larger than a gibibyte.
    pub(crate) fn gzip(&mut self, plain: &[u8]) -> Vec<u8> {
        assert!(plain.len() <= 1 << 30, "a piece of {} bytes", plain.len());
        let most = HEADER.len() + block::bound(plain.len()) + 8;
        let mut out = std::mem::take(&mut self.room);
        if out.len() < most {
            out.resize(most, 0);
        }
        out[..HEADER.len()].copy_from_slice(&HEADER);
        let end = HEADER.len() + self.deflate(plain, &mut out[HEADER.len()..]);
        out[end..end + 4].copy_from_slice(&libdeflater::crc32(plain).to_le_bytes());
        out[end + 4..end + 8].copy_from_slice(&(plain.len() as u32).to_le_bytes());
        let member = out[..end + 8].to_vec();
        self.room = out;
        member
    }

    /// The deflate stream of `plain`; gives its length.
    fn deflate(&mut self, plain: &[u8], out: &mut [u8]) -> usize {
        self.finder.forget();
        let mut bits = Bits::new(out);
        let (mut from, mut block) = (0, 0);
        loop {
            let to = plain.len().min(from + CHUNK);
            self.tokens.add(self.finder.chunk(plain, from, to), &plain[from..to]);
            from = to;
            let last = from == plain.len();
            if last || self.tokens.full() {
                block::write(&mut bits, &mut self.tokens, &plain[block..to], last);
                block = to;
            }
            if last {
                return bits.finish();
            }
        }
    }
}
