//! `.gz`.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

use super::streams;

/// Decodes the members of a `.gz` file, one after the other.
pub(super) struct Gzip<R> {
    /// The member being decoded. `None` at the end of the file.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gzip<R> {
    pub(super) fn new(input: R) -> Self {
        Self { member: Some(GzDecoder::new(input)) }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(member) = &mut self.member else { return Ok(0) };
            let count = member.read(to)?;
            if count > 0 || to.is_empty() {
                return Ok(count);
            }
            let Some(mut input) = self.member.take().map(GzDecoder::into_inner) else { return Ok(0) };
            if !streams::is_at_end(&mut input)? {
                self.member = Some(GzDecoder::new(input));
            }
        }
    }
}
