//! A stream of bits, the lowest first, into memory that is there already.

/// Bits that are appended at most at once.
pub(super) const MOST: u32 = 56;

/// The stream so far.
#[derive(Debug)]
pub(super) struct Bits<'out> {
    out: &'out mut [u8],
    /// Whole bytes written; less than four gibibytes, so that one comparison guards a store.
    at: u32,
    /// Bits after them.
    pending: u64,
    /// How many: less than eight.
    count: u32,
}

/// A place in the stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    at: u32,
    pending: u64,
    count: u32,
}

impl<'out> Bits<'out> {
    pub(super) fn new(out: &'out mut [u8]) -> Self {
        Self { out, at: 0, pending: 0, count: 0 }
    }

    /// Appends the `count` low bits of `bits`, of which no others are set; at most [`MOST`].
    #[inline(always)]
    pub(super) fn put(&mut self, bits: u64, count: u32) {
        debug_assert!(count <= MOST && bits >> count == 0, "{bits:x} in {count} bits");
        self.pending |= bits << self.count;
        let at = self.at as usize;
        self.out[at..at + 8].copy_from_slice(&self.pending.to_le_bytes());
        let count = self.count + count;
        self.at += count >> 3;
        self.pending >>= count & 56;
        self.count = count & 7;
    }

    /// Appends bytes at the next whole byte.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.put(0, (8 - self.count) & 7);
        let at = self.at as usize;
        self.out[at..at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len() as u32;
    }

    /// The stream, to be put back: a loop keeps one of its own in registers.
    pub(super) fn take(&mut self) -> Self {
        Self { out: std::mem::take(&mut self.out), ..*self }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { at: self.at, pending: self.pending, count: self.count }
    }

    /// Forgets what came after the mark.
    pub(super) fn back(&mut self, mark: Mark) {
        (self.at, self.pending, self.count) = (mark.at, mark.pending, mark.count);
    }

    /// Bits since the mark.
    pub(super) fn since(&self, mark: Mark) -> u64 {
        8 * u64::from(self.at - mark.at) + u64::from(self.count) - u64::from(mark.count)
    }

    /// Bytes in all.
    pub(super) fn finish(self) -> usize {
        self.at as usize + usize::from(self.count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_bit_is_the_first() {
        let mut out = [0; 32];
        let mut bits = Bits::new(&mut out);
        bits.put(0b1, 1);
        bits.put(0b01, 2);
        let mark = bits.mark();
        bits.put(0xff_ffff_ffff_ffff, 56);
        assert_eq!(bits.since(mark), 56);
        bits.back(mark);
        bits.put(0x1f << 1, 6);
        bits.bytes(b"ab");
        bits.put(1, 1);
        assert_eq!(bits.since(mark), 6 + 7 + 16 + 1);
        assert_eq!(bits.finish(), 5);
        assert_eq!(out[..5], [0b1111_0011, 0b1, b'a', b'b', 1]);
    }
}
