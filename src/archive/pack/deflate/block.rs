//! A block: codes of its own for its tokens, or its bytes as they are if that is shorter.

use super::bits::{Bits, MOST};
use super::huffman::{codes, lengths};
use super::tokens::{BLOCK, EXTRA_SHIFT, MATCH, NONE, SECOND, SECOND_SHIFT, Tokens};

/// Symbols of the first alphabet: literals, the end, lengths.
const FIRST: usize = 286;
/// The end of a block.
const END: usize = 256;
/// Shortest match that each symbol of a length stands for.
const LENGTH_BASES: [u16; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
/// Bits that follow it.
const LENGTH_EXTRA: [u8; 29] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
/// The order in which a header has the lengths of the codes of lengths.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// Most bytes of a stored block.
const STORED: usize = 0xffff;

/// Bytes that suffice for `plain` bytes in blocks. One that is stored takes little more than its bytes; before it is, its tokens take
/// six bytes at most for three.
pub(super) fn bound(plain: usize) -> usize {
    plain + plain / 1024 + 2 * (BLOCK + 512) + 1024
}

/// Writes the tokens, which stand for `plain`, and forgets them.
pub(super) fn write(bits: &mut Bits<'_>, tokens: &mut Tokens, plain: &[u8], last: bool) {
    let before = bits.mark();
    coded(bits, tokens, last);
    tokens.clear();
    let stored = plain.len() + 5 * plain.len().div_ceil(STORED).max(1);
    if bits.since(before) > 8 * stored as u64 {
        bits.back(before);
        store(bits, plain, last);
    }
}

fn store(bits: &mut Bits<'_>, plain: &[u8], last: bool) {
    let mut left = plain;
    loop {
        let part = left.split_off(..left.len().min(STORED)).unwrap_or_default();
        bits.put(u64::from(last && left.is_empty()), 3);
        let length = part.len() as u16;
        bits.bytes(&length.to_le_bytes());
        bits.bytes(&(!length).to_le_bytes());
        bits.bytes(part);
        if left.is_empty() {
            return;
        }
    }
}

fn coded(bits: &mut Bits<'_>, tokens: &Tokens, last: bool) {
    let found = tokens.counts();
    let mut counts = [0; FIRST];
    for (literal, count) in counts[..END].iter_mut().enumerate() {
        *count = found.first[literal] + found.second[SECOND + literal];
    }
    counts[END] = 1;
    // The symbol of each length.
    let mut symbols = [0; 512 - MATCH];
    for (symbol, base) in LENGTH_BASES.iter().enumerate() {
        // The last is the longest match alone, though the one before could tell it too.
        let next = LENGTH_BASES.get(symbol + 1).map_or(symbols.len(), |next| usize::from(*next));
        let base = usize::from(*base);
        symbols[base..next].fill(symbol);
        counts[END + 1 + symbol] = found.first[MATCH + base..MATCH + next].iter().sum();
    }
    let (mut first_lengths, mut first_codes) = ([0; FIRST], [0; FIRST]);
    lengths(&counts, 15, &mut first_lengths);
    codes(&first_lengths, &mut first_codes);
    let (mut distance_lengths, mut distance_codes) = ([0; NONE], [0; NONE]);
    lengths(&found.second[..NONE], 15, &mut distance_lengths);
    codes(&distance_lengths, &mut distance_codes);

    let mut table = Table { first: [0; 512], second: [0; 512] };
    for literal in 0..END {
        let (code, length) = (first_codes[literal], first_lengths[literal]);
        table.first[literal] = u32::from(code) | u32::from(length) << 24;
        table.second[SECOND + literal] = u64::from(code) | u64::from(length) << 32 | u64::from(length) << 40;
    }
    for (length, &symbol) in symbols.iter().enumerate().skip(3) {
        let (code, width) = (first_codes[END + 1 + symbol], first_lengths[END + 1 + symbol]);
        let extra = length as u32 - u32::from(LENGTH_BASES[symbol]);
        table.first[MATCH + length] = u32::from(code) | extra << width | u32::from(width + LENGTH_EXTRA[symbol]) << 24;
    }
    for symbol in 0..NONE {
        let (code, length) = (u64::from(distance_codes[symbol]), u64::from(distance_lengths[symbol]));
        let extra = (symbol as u64 / 2).saturating_sub(1);
        table.second[symbol] = code | ((1 << extra) - 1) << 16 | length << 32 | (length + extra) << 40;
    }
    header(bits, &first_lengths, &distance_lengths, last);
    table.write(bits, tokens);
    bits.put(u64::from(first_codes[END]), u32::from(first_lengths[END]));
}

/// What is written for the parts of a token.
struct Table {
    /// Code with extra bits, and from bit 24 on how many those are.
    first: [u32; 512],
    /// Code, from bit 16 on a mask of the extra bits, from bit 32 on how long the code is, from bit 40 on with extra bits.
    second: [u64; 512],
}

impl Table {
    /// The bits of a token, and how many: at most 15 + 5 and 15 + 13.
    #[inline(always)]
    fn bits(&self, token: u32) -> (u64, u32) {
        let first = self.first[token as usize & 511];
        let second = self.second[(token >> SECOND_SHIFT) as usize & 511];
        let extra = u64::from(token >> EXTRA_SHIFT) & (second >> 16 & 0xffff);
        let right = (second & 0xffff) | extra << (second >> 32 & 15);
        let width = first >> 24;
        (u64::from(first & 0xff_ffff) | right << width, width + (second >> 40) as u32)
    }

    /// Two tokens are nearly always short enough for one store.
    #[inline(never)]
    fn write(&self, bits: &mut Bits<'_>, tokens: &Tokens) {
        let mut inner = bits.take();
        for way in tokens.ways() {
            let (pairs, last) = way.as_chunks();
            for &[one, two] in pairs {
                let ((one, width), (two, more)) = (self.bits(one), self.bits(two));
                if width + more <= MOST {
                    inner.put(one | two << width, width + more);
                } else {
                    inner.put(one, width);
                    inner.put(two, more);
                }
            }
            for token in last {
                let (one, width) = self.bits(*token);
                inner.put(one, width);
            }
        }
        *bits = inner;
    }
}

/// Writes what the codes are.
fn header(bits: &mut Bits<'_>, first: &[u8; FIRST], distance: &[u8; NONE], last: bool) {
    let used = |lengths: &[u8]| 1 + lengths.iter().rposition(|length| *length > 0).unwrap_or(0);
    let (firsts, distances) = (used(first), used(distance));
    let all = [&first[..firsts], &distance[..distances]].concat();
    let items = runs(&all);
    let mut counts = [0; 19];
    for (symbol, _) in &items {
        counts[usize::from(*symbol)] += 1;
    }
    let (mut item_lengths, mut item_codes) = ([0; 19], [0; 19]);
    lengths(&counts, 7, &mut item_lengths);
    codes(&item_lengths, &mut item_codes);
    let items_used = used(&ORDER.map(|symbol| item_lengths[symbol])).max(4);
    bits.put(u64::from(last) | 2 << 1, 3);
    bits.put((firsts as u64 - 257) | (distances as u64 - 1) << 5 | (items_used as u64 - 4) << 10, 14);
    for symbol in &ORDER[..items_used] {
        bits.put(u64::from(item_lengths[*symbol]), 3);
    }
    for (symbol, extra) in items {
        let width = [2, 3, 7].get(usize::from(symbol).wrapping_sub(16)).copied().unwrap_or(0);
        let symbol = usize::from(symbol);
        let length = u32::from(item_lengths[symbol]);
        bits.put(u64::from(item_codes[symbol]) | u64::from(extra) << length, length + width);
    }
}

/// The lengths as symbols with extra bits: 16 repeats the last length, 17 and 18 are zeros.
fn runs(lengths: &[u8]) -> Vec<(u8, u8)> {
    let mut items = Vec::with_capacity(lengths.len());
    for run in lengths.chunk_by(|one, other| one == other) {
        let (length, mut left) = (run[0], run.len());
        if length > 0 {
            items.push((length, 0));
            left -= 1;
        }
        while left >= 3 {
            let now = left.min(if length > 0 { 6 } else { 138 });
            items.push(match (length, now) {
                (0, ..=10) => (17, now as u8 - 3),
                (0, _) => (18, now as u8 - 11),
                _ => (16, now as u8 - 3),
            });
            left -= now;
        }
        items.extend(std::iter::repeat_n((length, 0), left));
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_lengths() {
        assert_eq!(runs(&[0, 0, 3]), [(0, 0), (0, 0), (3, 0)]);
        assert_eq!(runs(&[0; 10]), [(17, 7)]);
        assert_eq!(runs(&[0; 11]), [(18, 0)]);
        assert_eq!(runs(&[0; 140]), [(18, 127), (0, 0), (0, 0)]);
        assert_eq!(runs(&[5; 4]), [(5, 0), (16, 0)]);
        assert_eq!(runs(&[5; 12]), [(5, 0), (16, 3), (16, 2)]);
    }
}
