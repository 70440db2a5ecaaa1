//! The way through the choices, as tokens, with what the block's codes are made of.
//!
//! A token is a number: bits 0 to 8 say what comes first, a literal or from 256 on the length of a match; bits 9 to 17 what comes
//! second, the symbol of a distance, [`NONE`], or from [`SECOND`] on another literal; above are the low bits of the distance less one.

use std::hint::select_unpredictable;

use super::matches::{CHUNK, LENGTH, LITERAL, WAY};

/// Positions of a block.
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
    ways: Box<[Way; BLOCK / WAY]>,
    /// How many of them were walked.
    walked: usize,
    /// What occurs in the first ways of all chunks, and in the second ones.
    counts: [Counts; 2],
}

/// How often each part of a token occurs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) first: [u32; 512],
    pub(super) second: [u32; 512],
}

/// The tokens of half a chunk.
#[derive(Debug, Clone, Copy)]
struct Way {
    tokens: [u32; WAY],
    count: usize,
}

impl Tokens {
    pub(super) fn new() -> Self {
        let ways = vec![Way { tokens: [0; WAY], count: 0 }; BLOCK / WAY];
        Self { ways: ways.into_boxed_slice().try_into().expect("as many"), walked: 0, counts: [Counts::NONE; 2] }
    }

    /// Walks over the choices of a chunk, whose bytes are `plain`. Where a step leads is known late: two ways are walked at once, so that
    /// one goes on while the other waits.
    #[inline(never)]
    pub(super) fn add(&mut self, choices: &[u32; CHUNK + 1], plain: &[u8]) {
        let ways: &mut [Way; 2] = (&mut self.ways[self.walked..self.walked + 2]).try_into().expect("two");
        let ([one, two], [one_counts, two_counts]) = (ways, &mut self.counts);
        (one.count, two.count) = (0, 0);
        let end = plain.len().min(CHUNK);
        let middle = end.min(WAY);
        let (mut at, mut at_two) = (0, middle);
        while at < middle && at_two < end {
            at += one.step(choices, at, one_counts);
            at_two += two.step(choices, at_two, two_counts);
        }
        while at < middle {
            at += one.step(choices, at, one_counts);
        }
        while at_two < end {
            at_two += two.step(choices, at_two, two_counts);
        }
        one.cut(&plain[..middle], at - middle, one_counts);
        two.cut(plain, at_two - end, two_counts);
        self.walked += 2;
    }

    /// The block is to end.
    pub(super) fn full(&self) -> bool {
        self.walked == self.ways.len()
    }

    /// The tokens of each way.
    pub(super) fn ways(&self) -> impl Iterator<Item = &[u32]> {
        self.ways[..self.walked].iter().map(|way| &way.tokens[..way.count])
    }

    /// What occurs in all of them.
    pub(super) fn counts(&self) -> Counts {
        let [mut all, two] = self.counts;
        let parts = all.first.iter_mut().chain(&mut all.second);
        parts.zip(two.first.iter().chain(&two.second)).for_each(|(one, two)| *one += two);
        all
    }

    /// Begins another block.
    pub(super) fn clear(&mut self) {
        (self.walked, self.counts) = (0, [Counts::NONE; 2]);
    }
}

impl Counts {
    const NONE: Self = Self { first: [0; 512], second: [0; 512] };
}

impl Way {
    /// The token at a position; gives how far it leads.
    #[inline(always)]
    fn step(&mut self, choices: &[u32; CHUNK + 1], at: usize, counts: &mut Counts) -> usize {
        let (choice, then) = (choices[at], choices[at + 1]);
        let literals = choice & then & LITERAL != 0;
        let length = choice >> LENGTH;
        let low = choice & ((1 << LENGTH) - 1);
        let first = select_unpredictable(low >= LITERAL, low & 0xff, length + MATCH as u32);
        let symbol = SYMBOLS[select_unpredictable(low < 256, low, 256 + (low >> 7)) as usize & 1023];
        let second = select_unpredictable(literals, SECOND as u32 | then & 0xff, u32::from(symbol));
        counts.first[first as usize & 511] += 1;
        counts.second[second as usize & 511] += 1;
        self.tokens[self.count & (WAY - 1)] = first & 511 | second << SECOND_SHIFT | low << EXTRA_SHIFT;
        self.count += 1;
        select_unpredictable(literals, 2, length as usize)
    }

    /// Makes the last token shorter by the bytes that it leads too far, for the way to end with `plain`.
    fn cut(&mut self, plain: &[u8], over: usize, counts: &mut Counts) {
        let Some(last) = self.count.checked_sub(1).filter(|_| over > 0) else { return };
        let token = self.tokens[last];
        let (first, second) = (token as usize & 511, (token >> SECOND_SHIFT) as usize & 511);
        counts.first[first] -= 1;
        counts.second[second] -= 1;
        let length = if second >= SECOND { 1 } else { first - MATCH - over };
        let (first, second) = match plain[plain.len() - length..] {
            [one] => (usize::from(one), NONE),
            [one, two] => (usize::from(one), SECOND | usize::from(two)),
            // Long enough for a match.
            _ => (MATCH + length, second),
        };
        counts.first[first] += 1;
        counts.second[second] += 1;
        let extra = token >> EXTRA_SHIFT << EXTRA_SHIFT;
        self.tokens[last] = first as u32 | (second as u32) << SECOND_SHIFT | extra;
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
        tokens.add(choices, plain);
        let (all, counts) = (tokens.ways().next().unwrap(), tokens.counts());
        let [one, two, three, ..] = all else { panic!("{all:?}") };
        assert_eq!(*one & 0x3_ffff, u32::from(b'a') | (SECOND as u32 | u32::from(b'b')) << SECOND_SHIFT);
        assert_eq!(*two & 0x3_ffff, u32::from(b'c') | (NONE as u32) << SECOND_SHIFT);
        assert_eq!(*three, (MATCH as u32 + 9) | (2 << SECOND_SHIFT) | (2 << EXTRA_SHIFT));
        assert_eq!(counts.first.iter().sum::<u32>() as usize, all.len());
        assert_eq!(counts.second[SECOND..].iter().sum::<u32>(), 1 + 7, "fifteen literals after the match");
        tokens.clear();
        let counts = tokens.counts();
        assert!(tokens.ways().count() == 0 && counts.first == [0; 512] && counts.second == [0; 512]);
    }

    /// First and second part of the last token of a way of six bytes, the last of which are a match of so many and lead further.
    fn cut(length: usize, over: usize) -> (usize, usize) {
        let mut way = Way { tokens: [0; WAY], count: 1 };
        let mut counts = Counts::NONE;
        way.tokens[0] = (MATCH + length) as u32 | 5 << SECOND_SHIFT | 3 << EXTRA_SHIFT;
        (counts.first[MATCH + length], counts.second[5]) = (1, 1);
        way.cut(b"abcdef", over, &mut counts);
        let token = way.tokens[0];
        let parts = (token as usize & 511, (token >> SECOND_SHIFT) as usize & 511);
        assert_eq!((counts.first.iter().sum::<u32>(), counts.second.iter().sum::<u32>()), (1, 1));
        assert_eq!((counts.first[parts.0], counts.second[parts.1], token >> EXTRA_SHIFT), (1, 1, 3));
        parts
    }

    #[test]
    fn the_last_token_of_a_way_ends_with_it() {
        assert_eq!(cut(8, 0), (MATCH + 8, 5));
        assert_eq!(cut(8, 2), (MATCH + 6, 5));
        assert_eq!(cut(8, 5), (MATCH + 3, 5));
        assert_eq!(cut(8, 6), (b'e'.into(), SECOND | usize::from(b'f')));
        assert_eq!(cut(8, 7), (b'f'.into(), NONE));
    }
}
