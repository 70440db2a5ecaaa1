//! What may begin at each position of a piece.
//!
//! The last position with the same hash of four bytes is the one candidate. Its first eight bytes are compared at once and the outcome
//! is selected, not branched on. A choice is a number: how far it leads in bits 23 and up; below, the distance less one, or
//! [`LITERAL`] and the byte.
//!
//! A match of eight bytes and more is noted for its first eight positions only: no shorter match leads from before it to a later one,
//! which are neither looked at nor noted. It wins over a match that begins one position before; of shorter ones the first is taken.

use std::hint::select_unpredictable;

/// Positions that are noted together.
pub(super) const CHUNK: usize = 16384;
/// Positions of a way: a chunk is walked over in two ways at once.
pub(super) const WAY: usize = CHUNK / 2;
/// Set in the choice of a literal, whose low byte it is.
pub(super) const LITERAL: u32 = 1 << 15;
/// Where the length of a choice is.
pub(super) const LENGTH: u32 = 23;
/// How far back a match may be.
const WINDOW: usize = 1 << 15;
/// Longest match of deflate.
const LONGEST: usize = 258;
/// Shortest match that is taken.
const SHORTEST: u32 = 4;
/// Notes that a long match makes.
const NOTED: usize = 8;
/// The table fits into the innermost cache of any processor.
const HASH_BITS: u32 = 14;

/// The table of candidates, and the choices of a chunk.
#[derive(Debug)]
pub(super) struct Finder {
    /// The low bits of the last position of each hash. What they mean beyond the window is a candidate as good as another: it is
    /// the bytes that decide. Zero is the first position, with which everything begins.
    table: Box<[u16; 1 << HASH_BITS]>,
    /// The choices of the chunk, and those noted beyond it.
    choices: Box<[u32; CHUNK + NOTED + 1]>,
    /// The next position to look at.
    next: usize,
}

/// What is at a position.
struct Look {
    /// Its eight bytes.
    word: u64,
    /// To the candidate, less one: below [`WINDOW`].
    distance: u32,
    /// Where the eight bytes are not those of the candidate.
    differ: u64,
}

impl Finder {
    pub(super) fn new() -> Self {
        Self { table: boxed(), choices: boxed(), next: 0 }
    }

    /// Begins another piece.
    pub(super) fn forget(&mut self) {
        self.table.fill(0);
        self.next = 0;
    }

    /// The choices for `from..to` of the piece, a chunk, and one more that is of no meaning. Chunks are asked for one after the other.
    pub(super) fn chunk(&mut self, plain: &[u8], from: usize, to: usize) -> &[u32; CHUNK + 1] {
        // What the last chunk noted beyond its end.
        self.choices.copy_within(CHUNK.., 0);
        let start = self.next.max(from);
        let fill = if from >= WINDOW { fill::<true> } else { fill::<false> };
        self.next = fill(plain, &mut self.table, &mut self.choices, from as u32, start as u32, to as u32) as usize;
        self.choices[..CHUNK + 1].try_into().expect("as many")
    }
}

fn boxed<T: Copy + Default + std::fmt::Debug, const N: usize>() -> Box<[T; N]> {
    vec![T::default(); N].into_boxed_slice().try_into().expect("as many")
}

/// Notes choices from `start` on to `to` and a little beyond; gives the next position to look at. `FAR` is behind the first window.
#[inline(never)]
fn fill<const FAR: bool>(
    plain: &[u8],
    table: &mut [u16; 1 << HASH_BITS],
    choices: &mut [u32; CHUNK + NOTED + 1],
    from: u32,
    start: u32,
    to: u32,
) -> u32 {
    // Two positions are looked at together, with eight bytes each.
    let end = to.min((plain.len() as u32).saturating_sub(9));
    let mut at = start;
    if at == 0 && end > 0 {
        choices[0] = literal(u64::from(plain[0]));
        at = 1;
    }
    while at < end {
        let (one, two) = if FAR { look_far(plain, table, at) } else { look_near(plain, table, at) };
        let note = (at - from) as usize;
        let notes: &mut [u32; 2] = (&mut choices[note..note + 2]).try_into().expect("two");
        notes[0] = choice(&one, same(one.differ));
        if (one.differ == 0) | (two.differ == 0) {
            let second = one.differ != 0;
            at += u32::from(second);
            let word = select_unpredictable(second, two.word, one.word);
            let distance = select_unpredictable(second, two.distance, one.distance);
            // A way ends at its border, or in a match that is no longer than what is noted.
            let most = ((at | (WAY as u32 - 1)) + 1 - at).max(NOTED as u32);
            let length = extend(plain, at, at - distance - 1).min(most);
            let note = (at - from) as usize;
            // Better than a shorter match at the position before.
            choices[note.saturating_sub(1)] = literal(u64::from(plain[at as usize - 1]));
            let notes: &mut [u32; NOTED] = (&mut choices[note..note + NOTED]).try_into().expect("as many");
            for (less, note) in notes.iter_mut().enumerate() {
                *note = (length - less as u32) << LENGTH | distance;
            }
            // The last two bytes are no match.
            let eight = length == 8;
            notes[6] = select_unpredictable(eight, literal(word >> 48), notes[6]);
            notes[7] = select_unpredictable(eight, literal(word >> 56), notes[7]);
            remember(plain, table, at, length, word);
            at += length;
            continue;
        }
        notes[1] = choice(&two, same(two.differ));
        at += 2;
    }
    for at in at..to {
        choices[(at - from) as usize] = literal(u64::from(plain[at as usize]));
    }
    at.max(to)
}

/// Looks at a position that is not the first, and at the next.
#[inline(always)]
fn look_near(plain: &[u8], table: &mut [u16; 1 << HASH_BITS], at: u32) -> (Look, Look) {
    let one = look(table, at, load(plain, at), |distance| load(plain, at - distance - 1));
    let two = look(table, at + 1, load(plain, at + 1), |distance| load(plain, at - distance));
    (one, two)
}

/// The same behind the first window, where one comparison guards all that is read.
#[inline(always)]
fn look_far(plain: &[u8], table: &mut [u16; 1 << HASH_BITS], at: u32) -> (Look, Look) {
    let window = &plain[at as usize - WINDOW..at as usize + 9];
    let window: &[u8; WINDOW + 9] = window.try_into().expect("as many");
    let word = |at: usize| u64::from_le_bytes(window[at..at + 8].try_into().expect("eight bytes"));
    let one = look(table, at, word(WINDOW), |distance| word(WINDOW - 1 - distance as usize));
    let two = look(table, at + 1, word(WINDOW + 1), |distance| word(WINDOW - distance as usize));
    (one, two)
}

/// Looks at a position, where `word` is, and puts it into the table; `before` gives the word at a distance, less one.
#[inline(always)]
fn look(table: &mut [u16; 1 << HASH_BITS], at: u32, word: u64, before: impl Fn(u32) -> u64) -> Look {
    let slot = &mut table[hash(word)];
    let distance = u32::from((at as u16).wrapping_sub(*slot).wrapping_sub(1)) & (WINDOW as u32 - 1);
    *slot = at as u16;
    Look { word, distance, differ: word ^ before(distance) }
}

/// The choice where less than eight bytes are the same.
#[inline(always)]
fn choice(look: &Look, length: u32) -> u32 {
    select_unpredictable(length >= SHORTEST, length << LENGTH | look.distance, literal(look.word))
}

/// The choice of a literal: the lowest byte.
#[inline(always)]
fn literal(word: u64) -> u32 {
    1 << LENGTH | LITERAL | u32::from(word as u8)
}

/// Puts some positions of a long match into the table, of which `word` are the first bytes: those after the first and the last three.
#[inline(always)]
fn remember(plain: &[u8], table: &mut [u16; 1 << HASH_BITS], at: u32, length: u32, word: u64) {
    for after in 1..5 {
        table[hash(word >> (8 * after))] = (at + after) as u16;
    }
    let end = at + length;
    if (end + 4) as usize <= plain.len() {
        let word = load(plain, end - 4);
        for after in 1..4 {
            table[hash(word >> (8 * after))] = (end - 4 + after) as u16;
        }
    }
}

/// How many bytes are the same at two positions, of which the first eight are; no more than a match may have.
#[inline(always)]
fn extend(plain: &[u8], at: u32, before: u32) -> u32 {
    if (at + 24) as usize <= plain.len() {
        let one = same(load(plain, at + 8) ^ load(plain, before + 8));
        let two = same(load(plain, at + 16) ^ load(plain, before + 16));
        let length = 8 + one + (one >> 3) * two;
        if length < 24 {
            return length;
        }
    }
    extend_far(plain, at as usize, before as usize)
}

#[inline(never)]
fn extend_far(plain: &[u8], at: usize, before: usize) -> u32 {
    let here = &plain[at..plain.len().min(at + LONGEST)];
    let there = &plain[before..before + here.len()];
    let ((here, here_end), (there, there_end)) = (here.as_chunks(), there.as_chunks());
    let mut length = 0;
    for (here, there) in here.iter().zip(there) {
        let differ = u64::from_le_bytes(*here) ^ u64::from_le_bytes(*there);
        if differ != 0 {
            return length + same(differ);
        }
        length += 8;
    }
    length + here_end.iter().zip(there_end).take_while(|(here, there)| here == there).count() as u32
}

/// Bytes that are the same before the first that differs, 8 if none does.
#[inline(always)]
fn same(differ: u64) -> u32 {
    differ.trailing_zeros() >> 3
}

/// Of the first four bytes.
#[inline(always)]
fn hash(word: u64) -> usize {
    ((word as u32).wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize
}

#[inline(always)]
fn load(plain: &[u8], at: u32) -> u64 {
    u64::from_le_bytes(plain[at as usize..at as usize + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Length and distance, or literal, of the choices of a piece shorter than a chunk.
    fn chosen(plain: &[u8]) -> Vec<(u32, u32)> {
        let mut finder = Finder::new();
        let choices = finder.chunk(plain, 0, plain.len());
        choices[..plain.len()].iter().map(|choice| (choice >> LENGTH, choice & 0xffff)).collect()
    }

    #[test]
    fn a_long_match_at_the_next_position_wins() {
        for before in [&b""[..], b"!"] {
            let plain = [before, b"abcd-bcdefghij-abcdefghij#########"].concat();
            let found = &chosen(&plain)[before.len()..];
            assert_eq!(found[15], (1, LITERAL | u32::from(b'a')), "a match of four before one of nine");
            assert_eq!(found[16], (9, 10));
            assert!(found[..15].iter().all(|(length, _)| *length == 1));
        }
    }

    #[test]
    fn a_long_match_is_noted_where_a_short_one_may_end() {
        let text = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let plain = [&text[..], b"#", text, b"##########"].concat();
        let found = chosen(&plain);
        for after in 0..NOTED - 1 {
            assert_eq!(found[37 + after], (37 - after as u32, 36), "{after}");
        }
    }

    #[test]
    fn a_match_is_no_longer_than_258_and_ends_with_the_piece() {
        assert_eq!(chosen(&[7; 600])[1], (258, 0));
        assert_eq!(chosen(&[7; 40])[1], (39, 0));
        assert_eq!(chosen(&[7; 9]), [(1, LITERAL | 7); 9], "too short to be looked at");
    }
}
