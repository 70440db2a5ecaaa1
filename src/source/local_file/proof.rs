//! The evidence for a file of this machine: a signature or digests, named by the recipe or found beside the file.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{LocalFile, read_small};
use crate::base::digest::hex;
use crate::base::error::{Error, Result};
use crate::base::text::printable;
use crate::store::Store;

/// Suffixes of lists of digests.
const DIGESTS: [&str; 3] = [".DIGESTS", ".DIGESTS.asc", ".sha256"];

/// A document that proves a file, or claims to.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A detached signature.
    Detached,
    /// Signed digests: Gentoo's `.DIGESTS` and `.sha256`.
    Digests,
    /// Digests that nobody signed.
    Unsigned,
}

impl LocalFile<'_> {
    /// Finds the document that proves the file. `None` if the recipe's digest or `allow-unsigned` stands in for one; otherwise a
    /// missing document is an error.
    pub(super) fn proof(&self) -> Result<Option<Proof>> {
        const WITHOUT: &str = "give source.sha512, or accept the file as it is with source.allow-unsigned = true";
        if let Some(path) = self.signature_path() {
            let bytes = read_small(&path)?;
            let form = if bytes.trim_ascii_start().starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----") {
                Form::Digests
            } else if self.signature.is_none()
                && DIGESTS.iter().any(|suffix| path.as_os_str().as_encoded_bytes().ends_with(suffix.as_bytes()))
            {
                Form::Unsigned
            } else {
                Form::Detached
            };
            if form != Form::Unsigned || self.allow_unsigned {
                return Ok(Some(Proof { path, bytes, form }));
            }
            let path = printable(&path.display().to_string());
            return Err(Error::refused(format!("{path} is not signed, and so proves nothing"))
                .with_hint(format!("anybody who can replace the file can replace its digest: {WITHOUT}")));
        }
        if self.sha512.is_some() || self.allow_unsigned {
            return Ok(None);
        }
        if self.is_stdin() {
            return Err(Error::refused("nothing proves standard input")
                .with_hint(format!("name its signature in source.signature, {WITHOUT}")));
        }
        let path = printable(&self.path.display().to_string());
        let beside = format!("no {path}.asc, .sig, .gpg, .DIGESTS or .sha256 found beside it");
        Err(Error::refused(format!("nothing proves {path}: {beside}"))
            .with_hint(format!("put its signature there, name it in source.signature, {WITHOUT}")))
    }

    /// Returns an identifier of everything that the trust depends on. With another keyring, signature or digest the file is judged
    /// again.
    pub(super) fn trust_id(&self, store: &Store) -> Result<String> {
        let mut trust = Sha256::new();
        if let Some(path) = self.signature_path() {
            trust.update(self.trust.keyring(store)?.id());
            trust.update(read_small(&path)?);
        }
        trust.update([u8::from(self.allow_unsigned)]);
        trust.update(self.sha512.unwrap_or_default());
        Ok(hex(&trust.finalize()))
    }

    fn signature_path(&self) -> Option<PathBuf> {
        if let Some(path) = self.signature {
            return Some(path.to_owned());
        }
        // A digest in the recipe stands in for a signature. A signature that lies beside the file may be by an unknown signer.
        if self.sha512.is_some() || self.is_stdin() {
            return None;
        }
        [".asc", ".sig", ".gpg"].into_iter().chain(DIGESTS).find_map(|suffix| {
            let mut path = self.path.as_os_str().to_owned();
            path.push(suffix);
            let path = PathBuf::from(path);
            path.symlink_metadata().is_ok().then_some(path)
        })
    }

    pub(super) fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }
}
