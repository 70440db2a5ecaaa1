//! Hashes of passwords (crypt(5)).

use sha_crypt::{Algorithm, Params, PasswordHasher, ShaCrypt};

use crate::base::error::{Error, Result};

/// The bytes of a salt, which are 16 characters of the hash.
pub const SALT: usize = 12;

/// The rounds of SHA-512.
const ROUNDS: u32 = 65_536;

/// The longest password that the programs of an image accept, in bytes.
const MAX: usize = 511;

/// Returns the hash of a password by SHA-512 crypt. One line end after the password is not a part of it.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) for a password that nobody can enter.
pub fn hash(value: &[u8], salt: &[u8; SALT]) -> Result<String> {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    let value = value.strip_suffix(b"\r").unwrap_or(value);
    let wrong = |what: &str| Err(Error::usage(format!("hashing a password: it {what}")));
    match value {
        [] => return wrong("is empty"),
        _ if value.len() > MAX => return wrong(&format!("has more than {MAX} bytes")),
        _ if value.iter().any(|byte| matches!(byte, 0 | b'\n' | b'\r')) => return wrong("has more than one line"),
        _ => {}
    }
    let hashing = |error: &dyn std::fmt::Display| Error::system(format!("hashing a password: {error}"));
    let params = Params::new(ROUNDS).map_err(|error| hashing(&error))?;
    let hasher = ShaCrypt::new(Algorithm::Sha512Crypt, params);
    Ok(hasher.hash_password_with_salt(value, salt).map_err(|error| hashing(&error))?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_another_implementation() {
        // Made by crypt(3) of glibc.
        let hashed = hash(b"hunter2-hunter2\n", &[0; SALT]).unwrap();
        let expected = "$6$rounds=65536$................$qvH.cHB8sk7umaWo90.RryjU4NiQvBrpVr6oW4sdVtJizPtsX0WSLBa7KCvJDQ2A0N3aRhXqGs8XWOT.eKWpW1";
        assert_eq!(hashed, expected);
        assert_ne!(hash(b"hunter2-hunter2", &[1; SALT]).unwrap(), hashed);
        assert_eq!(hash(b"hunter2-hunter2\r\n", &[0; SALT]).unwrap(), hashed);
    }

    #[test]
    fn passwords_that_nobody_can_enter_are_refused() {
        for value in [&b""[..], b"\n", b"a\nb", b"a\0", &[b'x'; MAX + 1]] {
            assert!(hash(value, &[0; SALT]).is_err());
        }
    }
}
