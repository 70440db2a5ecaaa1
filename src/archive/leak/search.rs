//! A fast search for texts in the bytes of files.

use std::collections::HashMap;

/// The number of bytes that are looked at together.
const GRAM: usize = 4;

/// The binary logarithm of the size of the table of bytes.
const BITS: u32 = 18;

/// The part of a text from its beginning whose bytes are in the table, at most.
const INDEXED: usize = 64;

/// Finds texts of at least [`GRAM`] bytes.
///
/// Of every part of the bytes that is as long as the shortest text, it looks up four bytes in a table. This is faster than an automaton,
/// which looks at each byte.
#[derive(Debug)]
pub(super) struct Search {
    texts: Vec<Vec<u8>>,
    /// The distance of the bytes that are looked up.
    step: usize,
    /// A bit for each hash of four bytes of a text.
    table: Vec<u64>,
    /// The texts that have four bytes, and the offsets.
    places: HashMap<u32, Vec<(usize, usize)>>,
}

impl Search {
    /// The search for these texts. Shorter ones are not found.
    pub(super) fn new(texts: Vec<Vec<u8>>) -> Self {
        let shortest = texts.iter().map(Vec::len).filter(|length| *length >= GRAM).min().unwrap_or(GRAM).min(INDEXED);
        let step = shortest - GRAM + 1;
        let mut search = Self { texts: Vec::new(), step, table: vec![0; 1 << (BITS - 6)], places: HashMap::new() };
        for (number, text) in texts.iter().enumerate() {
            for (offset, bytes) in text.windows(GRAM).take(step).enumerate() {
                let gram = gram(bytes, 0);
                let (word, bit) = slot(gram);
                search.table[word] |= bit;
                search.places.entry(gram).or_default().push((number, offset));
            }
        }
        Self { texts, ..search }
    }

    /// Returns a text by its number.
    pub(super) fn text(&self, number: usize) -> &[u8] {
        &self.texts[number]
    }

    /// Returns the number of a text in these bytes, and its place.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let ends = bytes.len().saturating_sub(GRAM - 1);
        (0..ends).step_by(self.step).find_map(|at| {
            let gram = gram(bytes, at);
            let (word, bit) = slot(gram);
            if self.table[word] & bit == 0 {
                return None;
            }
            let here = |(number, offset): &(usize, usize)| {
                let start = at.checked_sub(*offset)?;
                bytes[start..].starts_with(&self.texts[*number]).then_some((*number, start))
            };
            self.places.get(&gram)?.iter().find_map(here)
        })
    }
}

fn gram(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Returns the place of four bytes in the table: the word and the bit.
fn slot(gram: u32) -> (usize, u64) {
    let hash = gram.wrapping_mul(0x9e37_79b1) >> (32 - BITS);
    (hash as usize >> 6, 1 << (hash & 63))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_text_is_found_and_nothing_else(
            texts in prop::collection::vec(prop::collection::vec(b'a'..b'c', GRAM..12), 1..6),
            bytes in prop::collection::vec(b'a'..b'd', 0..300),
        ) {
            let search = Search::new(texts.clone());
            let has = texts.iter().any(|text| bytes.windows(text.len()).any(|part| part == text));
            let found = search.find(&bytes);
            prop_assert_eq!(found.is_some(), has);
            prop_assert!(found.is_none_or(|(number, start)| bytes[start..].starts_with(&texts[number])));
        }

        #[test]
        fn a_long_text_is_found_at_every_place(
            text in prop::collection::vec(any::<u8>(), 60..2000),
            before in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let search = Search::new(vec![text.clone()]);
            prop_assert!(search.find(&[before, text].concat()).is_some());
        }
    }
}
