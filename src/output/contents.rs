//! The lists of an archive's entries, compressed as they are written.

use std::io::{self, Write};

use flate2::{Compression, GzBuilder, write::GzEncoder};

use crate::base::error::{Context, Result};

/// Takes the lines that the packer writes and makes a `CONTENTS.gz` or `mtree.gz` of them: no time, no name, the same bytes for the same lines.
#[derive(Debug)]
pub struct Contents {
    encoder: GzEncoder<Vec<u8>>,
}

impl Contents {
    /// An empty listing.
    pub fn new() -> Self {
        // 255 is "unknown": the same on every system.
        Self { encoder: GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::new(6)) }
    }

    /// The bytes of the file.
    pub fn finish(self) -> Result<Vec<u8>> {
        self.encoder.finish().system(|| "compressing the listing of the archive")
    }
}

impl Default for Contents {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Contents {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_listing_has_no_time_and_reads_back() {
        let mut contents = Contents::new();
        contents.write_all(b"drwxr-xr-x 0/0 ./\n").unwrap();
        let bytes = contents.finish().unwrap();
        assert_eq!(bytes[3..8], [0; 5], "no name, no time");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "drwxr-xr-x 0/0 ./\n");
    }
}
