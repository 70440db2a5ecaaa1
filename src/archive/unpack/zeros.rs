//! Finds runs of zeros in data, which become holes. Pure.

/// Shortest run that becomes a hole. A hole costs system calls and fragments the file.
pub(super) const LEAST: usize = 64 << 10;
/// Distance of the bytes that are checked: every run of [`LEAST`] bytes contains one. At the end of the data, a run of this length
/// is enough.
const STEP: usize = 4 << 10;

/// Returns the number of zeros at the beginning of `bytes`.
pub(super) fn leading(bytes: &[u8]) -> usize {
    // Compares 64 bytes at a time first: a hole may be very long.
    let words =
        bytes.chunks_exact(64).take_while(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0).count() * 64;
    words + bytes[words..].iter().take_while(|byte| **byte == 0).count()
}

/// Returns the start of the first run of zeros that is long enough. If `more` bytes follow, a run of any length at the end counts,
/// because it may continue.
pub(super) fn run(bytes: &[u8], more: bool) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == 0 {
            let before = bytes[..at].iter().rev().take_while(|byte| **byte == 0).count();
            let length = before + leading(&bytes[at..]);
            let start = at - before;
            if length >= LEAST || (length >= STEP && start + length == bytes.len()) {
                return Some(start);
            }
            at = start + length;
        }
        at = (at / STEP + 1) * STEP;
    }
    let last = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    (more && last > 0).then(|| bytes.len() - last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_runs_are_found_where_they_begin() {
        let last = |bytes: &[u8]| run(bytes, false);
        assert_eq!(last(&[0; LEAST]), Some(0));
        assert_eq!(last(&[[1; 100].as_slice(), &[0; STEP]].concat()), Some(100));
        assert_eq!(last(&[[1; 100].as_slice(), &[0; LEAST - 1], &[1]].concat()), None);
        assert_eq!(last(&[[1; 4097].as_slice(), &[0; LEAST], &[1]].concat()), Some(4097));
        assert_eq!((last(&[]), last(&[0; 100]), last(&[1; 5000])), (None, None, None));
        assert_eq!((run(&[], true), run(&[0; 100], true), run(&[1; 5000], true)), (None, Some(0), None));
        assert_eq!(run(&[[1; 100].as_slice(), &[0; 7]].concat(), true), Some(100));
        assert_eq!((leading(&[0; 1000]), leading(&[]), leading(&[0, 0, 1])), (1000, 0, 2));
    }

    proptest! {
        #[test]
        fn every_long_run_is_found(lengths in prop::collection::vec(0usize..200_000, 1..6)) {
            let bytes: Vec<u8> = lengths.iter().enumerate().flat_map(|(at, length)| vec![(at % 2) as u8; *length]).collect();
            let mut at = 0;
            let mut expected = None;
            for (number, length) in lengths.iter().enumerate() {
                if number % 2 == 0 && *length >= LEAST && expected.is_none() {
                    expected = Some(at);
                }
                at += length;
            }
            let found = run(&bytes, false);
            prop_assert!(found.is_some() || expected.is_none());
            if let (Some(found), Some(expected)) = (found, expected) {
                prop_assert!(found <= expected && bytes[found] == 0);
            }
        }
    }
}
