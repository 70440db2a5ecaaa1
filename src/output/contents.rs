//! Lists of the entries of an archive, compressed while they are written.

use std::io::{self, Write};

use flate2::{Compression, GzBuilder, write::GzEncoder};

use crate::base::error::{Context, Result};

/// Compresses the lines of the packer into a `CONTENTS.gz` or `mtree.gz`. The gzip header has neither a time nor a name, so the same
/// lines give the same bytes.
#[derive(Debug)]
pub struct Contents {
    encoder: GzEncoder<Vec<u8>>,
}

impl Contents {
    /// Begins an empty list.
    pub fn new() -> Self {
        // 255 means an unknown system.
        Self { encoder: GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::new(6)) }
    }

    /// Ends the list and returns the bytes of the file.
    pub fn finish(self) -> Result<Vec<u8>> {
        self.encoder.finish().system(|| "compressing a list of the archive")
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
        assert_eq!(bytes[3..8], [0; 5], "neither a name nor a time");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "drwxr-xr-x 0/0 ./\n");
    }
}
