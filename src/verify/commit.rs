//! Git commits: checks that the bytes belong to the id, and verifies the signature.
//!
//! The signature is in a header of the commit and covers everything but that header. The signed part names the tree by its id.

use openpgp::types::HashAlgorithm;
use sequoia_openpgp as openpgp;

use super::{Keyring, Signer, cause, detached};
use crate::base::digest::hex;
use crate::base::error::{Error, Result};

/// A commit whose bytes belong to its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    id: String,
    /// The signed part.
    payload: Vec<u8>,
    /// The armored signature.
    signature: Option<Vec<u8>>,
}

impl Commit {
    /// Reads the commit `bytes`, which must be the object `id` (40 or 64 lower-case hex digits).
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::base::error::Kind::Refused) when they are another object, or have two signatures.
    pub fn read(id: &str, bytes: &[u8]) -> Result<Self> {
        let refused = |why: &str| Error::refused(format!("the commit {id}: {why}"));
        let algorithm = if id.len() == 64 { HashAlgorithm::SHA256 } else { HashAlgorithm::SHA1 };
        // This SHA-1 implementation detects the known collision attacks.
        let digest = algorithm.context().and_then(|context| {
            let mut context = context.for_digest();
            context.update(format!("commit {}\0", bytes.len()).as_bytes());
            context.update(bytes);
            context.into_digest()
        });
        let digest = digest.map_err(|error| refused("its id cannot be computed").with_source(cause(&error)))?;
        if hex(&digest) != id {
            return Err(refused("the repository has another object under this id"));
        }
        let (payload, signature) = split(bytes).map_err(refused)?;
        Ok(Self { id: id.to_owned(), payload, signature })
    }

    /// Verifies the signature and returns its maker.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::base::error::Kind::Refused) for a commit that no trusted certificate signed.
    pub fn verify(&self, keyring: &Keyring) -> Result<Signer> {
        let what = format!("the commit {}", self.id);
        match &self.signature {
            Some(signature) if signature.starts_with(b"-----BEGIN PGP SIGNATURE-----") => {
                detached(&what, signature, self.payload.as_slice(), keyring)
            }
            Some(_) => Err(Error::refused(format!("verifying {what}: its signature is not one of OpenPGP"))),
            None => Err(Error::refused(format!("verifying {what}: nobody signed it")).with_hint(
                "another commit may be signed; if you trust this one, pin it: commit = \"…\" with allow-unsigned = true",
            )),
        }
    }
}

/// Splits a commit into the signed part and the signature.
fn split(bytes: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>), &'static str> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").ok_or("it has no message")? + 1;
    let (headers, message) = bytes.split_at(end);
    let mut payload = Vec::with_capacity(bytes.len());
    let mut signature: Option<Vec<u8>> = None;
    let mut inside = false;
    for line in headers.split_inclusive(|byte| *byte == b'\n') {
        match (line.strip_prefix(b" "), &mut signature) {
            (Some(more), Some(signature)) if inside => {
                signature.extend_from_slice(more);
                continue;
            }
            _ => inside = false,
        }
        match line.strip_prefix(b"gpgsig ").or_else(|| line.strip_prefix(b"gpgsig-sha256 ")) {
            // Each of two signatures could cover the rest without the other.
            Some(_) if signature.is_some() => return Err("it has two signatures"),
            Some(first) => {
                signature = Some(first.to_vec());
                inside = true;
            }
            None => payload.extend_from_slice(line),
        }
    }
    payload.extend_from_slice(message);
    Ok((payload, signature))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::error::Kind;

    const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

    fn commit(signature: &str) -> String {
        format!("tree {EMPTY_TREE}\nauthor a <a> 0 +0000\ncommitter a <a> 0 +0000\n{signature}\nmessage\n\ngpgsig no\n")
    }

    #[test]
    fn the_signature_is_split_off() {
        let plain = commit("");
        assert_eq!(split(plain.as_bytes()).unwrap(), (plain.clone().into_bytes(), None));
        let signed = commit("gpgsig -----BEGIN PGP SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----\n");
        let (payload, signature) = split(signed.as_bytes()).unwrap();
        assert_eq!(payload, plain.into_bytes());
        let armor = "-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n";
        assert_eq!(signature.unwrap(), armor.as_bytes());
        // A folded header other than a signature belongs to the signed part.
        let tag = commit("mergetag object x\n gpgsig y\ngpgsig a\n b\n");
        let (payload, signature) = split(tag.as_bytes()).unwrap();
        assert!(String::from_utf8(payload).unwrap().contains("mergetag object x\n gpgsig y\n"));
        assert_eq!(signature.unwrap(), b"a\nb\n");
        assert!(split(commit("gpgsig a\ngpgsig b\n").as_bytes()).is_err());
        assert!(split(commit("gpgsig a\ngpgsig-sha256 b\n").as_bytes()).is_err());
        assert!(split(b"tree x\n").is_err());
    }

    #[test]
    fn the_id_must_be_that_of_the_bytes() {
        // `git hash-object -t commit --stdin` said so.
        let bytes = format!("tree {EMPTY_TREE}\nauthor a <a> 0 +0000\ncommitter a <a> 0 +0000\n\nm\n");
        let id = "812f6a2dcd4070dded00872233c1edff2f111909";
        let commit = Commit::read(id, bytes.as_bytes()).unwrap();
        assert_eq!(commit.verify(&Keyring::embedded().unwrap()).unwrap_err().kind(), Kind::Refused);
        let error = Commit::read(&id.replace('1', "2"), bytes.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("another object"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            bytes.extend_from_slice(b"\n\n");
            let _ = split(&bytes);
        }
    }
}
