//! The question what an emerge command would merge, by content.

use crate::base::digest::Sha256;

/// The program. Its arguments are those of emerge. It prints a text that changes exactly if the result of the command would.
pub const PROGRAM: &str = include_str!("content.py");

/// The last line of a whole answer.
const END: &[u8] = b"end\n";

/// Returns the digest of an answer. `None` if it is not whole.
pub fn digest(answer: &[u8]) -> Option<Sha256> {
    answer.ends_with(END).then(|| Sha256::of(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_breaks_off_has_no_digest() {
        assert!(digest(b"merge a/b-1 0\n  ebuild 1\nend\n").is_some());
        assert_eq!(digest(b"merge a/b-1 0\n  ebuild 1\n"), None);
        assert_eq!(digest(b""), None);
    }
}
