//! The way through the choices, as tokens, with what the block's codes are made of.
//!
//! A token is a number: bits 0 to 8 say what comes first, a literal or from 256 on the length of a match; bits 9 to 17 what comes
//! second, the symbol of a distance, [`NONE`], or from [`SECOND`] on another literal; above are the low bits of the distance less one.

use std::hint::select_unpredictable;

use super::matches::{CHUNK, LENGTH, LITERAL};

/// A block ends with the chunk in which it comes to so many positions.
pub(super) const BLOCK: usize = 8 * CHUNK;
/// Of a token's first part: a match of no bytes.
pub(super) const MATCH: usize = 253;
/// Of a token's second part: nothing.
pub(super) const NONE: usize = 30;
/// Of a token's second part: the literal zero.
pub(super) const SECOND: usize = 256;
/// Where the second part is.
pub(super) const SECOND_SHIFT: u32 = 9;
/// Where the low bits of the distance are.
pub(super) const EXTRA_SHIFT: u32 = 18;

/// The symbol of a distance less one, by that if it is below 256, else by 256 and what is above its low seven bits; of a literal none.
static SYMBOLS: [u8; 1024] = {
    let mut symbols = [NONE as u8; 1024];
    let mut index = 0;
    while index < 256 {
        symbols[index] = distance_symbol(index as u32);
        symbols[256 + index] = distance_symbol((index as u32) << 7);
        index += 1;
    }
    symbols
};

/// The symbol of a distance less one.
const fn distance_symbol(distance: u32) -> u8 {
    if distance < 4 {
        return distance as u8;
    }
    let highest = distance.ilog2();
    (2 * highest + (distance >> (highest - 1) & 1)) as u8
}

/// The tokens of a block.
#[derive(Debug)]
pub(super) struct Tokens {
    tokens: Box<[u32; BLOCK]>,
    count: usize,
    /// Positions that were walked over.
    walked: usize,
    /// How often each first part occurs.
    pub(super) first: [u32; 512],
    /// How often each second part occurs.
    pub(super) second: [u32; 512],
}

impl Tokens {
    pub(super) fn new() -> Self {
        let tokens = vec![0; BLOCK].into_boxed_slice().try_into().expect("as many");
        Self { tokens, count: 0, walked: 0, first: [0; 512], second: [0; 512] }
    }

    /// Goes on from position `at` of the choices until it is at `end` or beyond; gives where.
    #[inline(never)]
    pub(super) fn add(&mut self, choices: &[u32; CHUNK + 1], mut at: usize, end: usize) -> usize {
        let tokens: &mut [u32; CHUNK] =
            (&mut self.tokens[self.count..self.count + CHUNK]).try_into().expect("a chunk's");
        let end = end.min(CHUNK);
        let mut count = 0;
        while at < end {
            let choice = choices[at];
            let then = select_unpredictable(at + 1 < end, choices[at + 1], 0);
            let literals = choice & then & LITERAL != 0;
            let length = choice >> LENGTH;
            at += select_unpredictable(literals, 2, length as usize);
            let low = choice & ((1 << LENGTH) - 1);
            let first = select_unpredictable(low >= LITERAL, low & 0xff, length + MATCH as u32);
            let symbol = SYMBOLS[select_unpredictable(low < 256, low, 256 + (low >> 7)) as usize & 1023];
            let second = select_unpredictable(literals, SECOND as u32 | then & 0xff, u32::from(symbol));
            self.first[first as usize & 511] += 1;
            self.second[second as usize & 511] += 1;
            tokens[count & (CHUNK - 1)] = first & 511 | second << SECOND_SHIFT | low << EXTRA_SHIFT;
            count += 1;
        }
        self.count += count;
        self.walked += end;
        at
    }

    /// The block is to end.
    pub(super) fn full(&self) -> bool {
        self.walked + CHUNK > BLOCK
    }

    pub(super) fn as_slice(&self) -> &[u32] {
        &self.tokens[..self.count]
    }

    /// Begins another block.
    pub(super) fn clear(&mut self) {
        (self.count, self.walked) = (0, 0);
        self.first.fill(0);
        self.second.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::matches::Finder;
    use super::*;

    #[test]
    fn symbols_of_distances() {
        let bases = [
            1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073,
            4097, 6145, 8193, 12289, 16385, 24577, 32769,
        ];
        for (symbol, bases) in bases.windows(2).enumerate() {
            for distance in [bases[0], bases[1] - 1] {
                let less = distance - 1;
                let index = if less < 256 { less } else { 256 + (less >> 7) };
                assert_eq!(usize::from(SYMBOLS[index]), symbol, "{distance}");
            }
        }
        assert_eq!(usize::from(SYMBOLS[256 + (LITERAL as usize >> 7)]), NONE);
    }

    #[test]
    fn literals_come_in_pairs_and_are_counted() {
        let plain = b"abcabcabcabc, and the end..";
        let mut finder = Finder::new();
        let mut tokens = Tokens::new();
        let choices = finder.chunk(plain, 0, plain.len());
        assert_eq!(tokens.add(choices, 0, plain.len()), plain.len());
        let [one, two, three, ..] = tokens.as_slice() else { panic!("{tokens:?}") };
        assert_eq!(*one & 0x3_ffff, u32::from(b'a') | (SECOND as u32 | u32::from(b'b')) << SECOND_SHIFT);
        assert_eq!(*two & 0x3_ffff, u32::from(b'c') | (NONE as u32) << SECOND_SHIFT);
        assert_eq!(*three, (MATCH as u32 + 9) | (2 << SECOND_SHIFT) | (2 << EXTRA_SHIFT));
        assert_eq!(tokens.first.iter().sum::<u32>() as usize, tokens.as_slice().len());
        assert_eq!(tokens.second[SECOND..].iter().sum::<u32>(), 1 + 7, "fifteen literals after the match");
        tokens.clear();
        assert!(tokens.as_slice().is_empty() && tokens.first == [0; 512] && tokens.second == [0; 512]);
    }
}
