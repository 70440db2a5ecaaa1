//! Checksum files.

use crate::base::digest::Sha256;

/// Formats a line for `sha256sum --check`. The name must not need the escapes of coreutils; [`checked_name`](super::staging::checked_name)
/// ensures that.
pub fn sha256_line(sha256: Sha256, name: &str) -> String {
    format!("{sha256}  {name}\n")
}
