//! Digests as they are written: lower-case hex.

use sha2::Digest;

/// SHA-256 and SHA-512 of the same bytes.
#[derive(Default)]
pub struct Both {
    sha256: sha2::Sha256,
    sha512: sha2::Sha512,
}

impl std::fmt::Debug for Both {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Both")
    }
}

impl Both {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.sha512.update(bytes);
    }

    /// Both digests.
    pub fn finish(self) -> (String, String) {
        (hex(&self.sha256.finalize()), hex(&self.sha512.finalize()))
    }
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from_digit(half.into(), 16).unwrap_or('0'));
        }
        text
    })
}
