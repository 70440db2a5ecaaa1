//! Checksum files.

/// A line that `sha256sum --check` reads. Names here are checked already: none needs coreutils' escapes.
pub fn sha256_line(sha256: &str, file: &str) -> String {
    format!("{sha256}  {file}\n")
}
