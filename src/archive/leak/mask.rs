//! The masking of values of secrets in output.

use std::collections::VecDeque;

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::nfa::noncontiguous::NFA;

use super::{MASK, SHORTEST, Secret, base64_alone, forms, trimmed};
use crate::base::error::{Context, Kind, Result};

/// The bytes from the beginning of a longer value that are masked even if the rest does not follow.
const BEGINNING: usize = 64;

/// Hides the values of secrets in a stream of bytes, wherever it is cut into parts.
///
/// Bytes that may be the beginning of a value are kept back until the next ones decide. A run of bytes that belong to values becomes `***`.
#[derive(Debug)]
pub struct Mask {
    texts: Vec<Vec<u8>>,
    /// Searches for the beginnings of the texts; `None` if there are none.
    search: Option<Beginnings>,
    /// The texts whose beginnings were found and that go on.
    going_on: Vec<Rest>,
    /// The last bytes, which may be the beginning of a value, and if they belong to another one already.
    kept: VecDeque<(u8, bool)>,
    /// The byte before `kept` belongs to a value.
    masked: bool,
}

/// The search for the beginnings of texts, byte by byte (Aho and Corasick).
#[derive(Debug)]
struct Beginnings {
    automaton: NFA,
    start: StateID,
    state: StateID,
    /// For each state, the number of bytes that may be the beginning of a text.
    depths: Vec<usize>,
    /// True for the bytes that leave the first state.
    first: Vec<bool>,
}

/// The search for the rest of a text (Knuth, Morris and Pratt).
#[derive(Debug)]
struct Rest {
    text: usize,
    /// The number of bytes from the beginning that the output ends with.
    matched: usize,
    /// For each number of bytes from the beginning, the longest shorter beginning that they end with.
    shorter: Vec<u32>,
}

impl Mask {
    /// A mask for these secrets. Lines of a value with several are masked one by one, too.
    ///
    /// # Errors
    /// [`Kind::System`] if there are too many values.
    pub fn new<'a>(secrets: impl IntoIterator<Item = Secret<'a>>) -> Result<Self> {
        let mut texts = Vec::new();
        for (_, value) in secrets {
            let value = trimmed(value);
            if value.len() < SHORTEST {
                texts.push(value.to_vec());
                continue;
            }
            texts.extend(forms(value));
            texts.extend(base64_alone(value));
            let lines = value.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            texts.extend(lines.filter(|line| line.len() >= SHORTEST).map(<[u8]>::to_vec));
        }
        texts.retain(|text| !text.is_empty());
        texts.sort();
        texts.dedup();
        Self::of(texts)
    }

    fn of(texts: Vec<Vec<u8>>) -> Result<Self> {
        let search = if texts.is_empty() { None } else { Some(Beginnings::new(&texts)?) };
        Ok(Self { texts, search, going_on: Vec::new(), kept: VecDeque::new(), masked: false })
    }

    /// Adds the next bytes of the stream, and appends those that can be shown to `shown`.
    pub fn push(&mut self, bytes: &[u8], shown: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some((first, after)) = rest.split_first() {
            let free = match &self.search {
                None => rest.len(),
                Some(search) if search.state == search.start && self.going_on.is_empty() => {
                    rest.iter().position(|byte| search.first[usize::from(*byte)]).unwrap_or(rest.len())
                }
                Some(_) => 0,
            };
            if free > 0 {
                // No text begins with these bytes, and none is kept.
                shown.extend_from_slice(&rest[..free]);
                self.masked = false;
                rest = &rest[free..];
            } else {
                self.step(*first, shown);
                rest = after;
            }
        }
    }

    /// Ends the stream: appends the bytes that were kept back to `shown`.
    pub fn end(&mut self, shown: &mut Vec<u8>) {
        self.release(self.kept.len(), shown);
        if let Some(search) = &mut self.search {
            search.state = search.start;
        }
        self.going_on.clear();
        self.masked = false;
    }

    /// Returns a text without values. Ends the stream before it.
    pub fn text(&mut self, text: &str) -> String {
        let mut shown = Vec::new();
        self.end(&mut Vec::new());
        self.push(text.as_bytes(), &mut shown);
        self.end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Adds one byte.
    fn step(&mut self, byte: u8, shown: &mut Vec<u8>) {
        self.kept.push_back((byte, false));
        let Self { texts, search, going_on, .. } = self;
        let mut covered = 0;
        going_on.retain_mut(|rest| {
            rest.step(byte, &texts[rest.text]);
            if rest.matched >= BEGINNING {
                covered = covered.max(rest.matched);
            }
            rest.matched >= BEGINNING
        });
        let mut waiting = 0;
        if let Some(search) = search {
            search.state = search.automaton.next_state(Anchored::No, search.state, byte);
            waiting = search.depths[search.state.as_usize()];
            for number in search.found() {
                covered = covered.max(texts[number].len().min(BEGINNING));
                if texts[number].len() > BEGINNING && !going_on.iter().any(|rest| rest.text == number) {
                    going_on.push(Rest::new(number, &texts[number]));
                }
            }
        }
        // Bytes that are not kept any more are masked already: they belong to the same text.
        self.kept.iter_mut().rev().take(covered).for_each(|(_, hidden)| *hidden = true);
        self.release(self.kept.len().saturating_sub(if waiting > covered { waiting } else { 0 }), shown);
    }

    /// Appends the first `count` bytes that were kept back to `shown`.
    fn release(&mut self, count: usize, shown: &mut Vec<u8>) {
        for (byte, hidden) in self.kept.drain(..count) {
            match hidden {
                true if self.masked => {}
                true => shown.extend_from_slice(MASK),
                false => shown.push(byte),
            }
            self.masked = hidden;
        }
    }
}

impl Beginnings {
    fn new(texts: &[Vec<u8>]) -> Result<Self> {
        let beginnings: Vec<&[u8]> = texts.iter().map(|text| &text[..text.len().min(BEGINNING)]).collect();
        let preparing = || "preparing the search for secrets";
        let automaton = NFA::builder().prefilter(false).build(&beginnings).context(Kind::System, preparing)?;
        let start = automaton.start_state(Anchored::No).context(Kind::System, preparing)?;
        let mut depths = Vec::new();
        let mut first = vec![false; 256];
        for text in beginnings {
            first[usize::from(text[0])] = true;
            let mut state = start;
            for (depth, byte) in (1..).zip(text) {
                state = automaton.next_state(Anchored::No, state, *byte);
                depths.resize(depths.len().max(state.as_usize() + 1), 0);
                depths[state.as_usize()] = depth;
            }
        }
        depths.resize(depths.len().max(start.as_usize() + 1), 0);
        Ok(Self { automaton, start, state: start, depths, first })
    }

    /// The texts with whose beginnings the output ends.
    fn found(&self) -> impl Iterator<Item = usize> {
        let count = if self.automaton.is_match(self.state) { self.automaton.match_len(self.state) } else { 0 };
        (0..count).map(|index| self.automaton.match_pattern(self.state, index).as_usize())
    }
}

impl Rest {
    /// The rest of a text whose beginning was found.
    fn new(text: usize, bytes: &[u8]) -> Self {
        let mut shorter = vec![0; bytes.len()];
        let mut matched: usize = 0;
        for at in 1..bytes.len() {
            while matched > 0 && bytes[matched] != bytes[at] {
                matched = shorter[matched - 1] as usize;
            }
            matched += usize::from(bytes[matched] == bytes[at]);
            shorter[at] = matched as u32;
        }
        Self { text, matched: BEGINNING, shorter }
    }

    /// Adds a byte of output.
    fn step(&mut self, byte: u8, text: &[u8]) {
        while text.get(self.matched) != Some(&byte) {
            match self.matched.checked_sub(1) {
                Some(last) => self.matched = self.shorter[last] as usize,
                None => return,
            }
        }
        self.matched += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALUE: &[u8] = b"hunter2/hunter2\n";

    /// Masks parts of a stream one after the other.
    fn masked<'a>(mask: &mut Mask, parts: impl IntoIterator<Item = &'a [u8]>) -> String {
        let mut shown = Vec::new();
        parts.into_iter().for_each(|part| mask.push(part, &mut shown));
        mask.end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Masks a whole stream, one text at one place after the other.
    fn expected(texts: &[Vec<u8>], stream: &[u8]) -> String {
        let mut hidden = vec![false; stream.len()];
        for text in texts {
            for start in 0..stream.len() {
                let same = text.iter().zip(&stream[start..]).take_while(|(one, other)| one == other).count();
                if same >= text.len().min(BEGINNING) {
                    hidden[start..start + same].fill(true);
                }
            }
        }
        let mut shown = Vec::new();
        for (at, byte) in stream.iter().enumerate() {
            match (hidden[at], at > 0 && hidden[at - 1]) {
                (false, _) => shown.push(*byte),
                (true, false) => shown.extend_from_slice(MASK),
                (true, true) => {}
            }
        }
        String::from_utf8_lossy(&shown).into_owned()
    }

    proptest! {
        #[test]
        fn a_stream_is_masked_in_the_same_way_wherever_it_is_cut(
            texts in prop::collection::vec(prop::collection::vec(b'a'..b'd', 1..5), 1..5),
            long in prop::collection::vec(b'a'..b'c', 60..80),
            stream in prop::collection::vec(b'a'..b'e', 0..200),
            at in 0..100_usize,
            cuts in prop::collection::vec(0..280_usize, 0..6),
        ) {
            let texts = [texts, vec![long.clone()]].concat();
            let at = at.min(stream.len());
            let stream = [&stream[..at], &long, &stream[at..]].concat();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let parts = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
            let mut mask = Mask::of(texts.clone()).unwrap();
            prop_assert_eq!(masked(&mut mask, parts), expected(&texts, &stream));
            // A mask is used again.
            prop_assert_eq!(masked(&mut mask, [&stream[..]]), expected(&texts, &stream));
        }

        #[test]
        fn no_value_is_shown_in_any_form(
            value in prop::collection::vec(any::<u8>(), SHORTEST..300),
            before in prop::collection::vec(any::<u8>(), 0..4),
            cut in 0..900_usize,
        ) {
            for text in forms(trimmed(&value)).into_iter().chain(base64_alone(trimmed(&value))) {
                let stream = [&before, &text[..], b" end"].concat();
                let (one, other) = stream.split_at(cut.min(stream.len()));
                let mut shown = Vec::new();
                let mut mask = Mask::new([("s", &value[..])]).unwrap();
                for part in [one, other] {
                    mask.push(part, &mut shown);
                }
                mask.end(&mut shown);
                prop_assert!(shown.ends_with(b"*** end") || text.is_empty());
            }
        }
    }

    #[test]
    fn values_are_masked_in_all_forms() {
        let mut mask = Mask::new([("s", VALUE), ("pin", b"12"), ("empty", b"\n")]).unwrap();
        let mut shown = |text: &[u8]| masked(&mut mask, [text]);
        assert_eq!(shown(b"a hunter2/hunter2 b 12\n"), "a *** b ***\n");
        assert_eq!(shown(b"68756e746572322f68756e74657232 hunter2%2Fhunter2"), "*** ***");
        assert_eq!(shown(b"aHVudGVyMi9odW50ZXIy aHVudGVyMi9odW50ZXIyCg=="), "*** ***Cg==");
        assert_eq!(shown(b"hunter2/hunter2hunter2/hunter2hunter2/hunter"), "***hunter2/hunter");
    }

    #[test]
    fn a_long_value_and_its_lines_are_masked() {
        let value: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
        let mut mask = Mask::new([("key", value.as_bytes())]).unwrap();
        let stream = format!("before\n{value}after line 777\nline\n");
        let parts: Vec<&[u8]> = stream.as_bytes().chunks(8192).collect();
        assert_eq!(masked(&mut mask, parts), "before\n***\nafter ***\nline\n");
        // The beginning of a value alone.
        assert_eq!(masked(&mut mask, [&value.as_bytes()[..1000]]), "***");
    }

    #[test]
    fn a_line_that_cannot_be_a_value_is_shown_at_once() {
        let mut mask = Mask::new([("s", VALUE)]).unwrap();
        let mut shown = Vec::new();
        mask.push(b"password: hunt\n", &mut shown);
        assert_eq!(shown, b"password: hunt\n");
        mask.push(b"hunt", &mut shown);
        assert_eq!(shown, b"password: hunt\n");
    }
}
