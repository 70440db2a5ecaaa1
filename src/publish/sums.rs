//! What lies beside the tarball: its checksum file and the compressed listing of what is in it.

use std::io::{self, Write};

/// A line that `sha256sum --check` reads. Names here are checked already: none needs coreutils' escapes.
pub fn sha256_line(sha256: &str, file: &str) -> String {
    format!("{sha256}  {file}\n")
}

/// A listing, compressed without a name or a time, so that equal listings are equal files.
///
/// # Errors
/// None in practice: it writes to memory.
pub fn gzip(listing: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::default());
    encoder.write_all(listing)?;
    encoder.finish()
}
