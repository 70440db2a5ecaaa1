//! OpenPGP verification. Only this room makes [`Verified`] values. It uses neither the network nor a tree.
//!
//! A signature counts when it was made by a certificate of the [`Keyring`] whose primary fingerprint is trusted, by any of its
//! keys that was alive, not revoked and allowed to sign at that time, with a digest that cannot be forged. Everything else
//! is refused with its own message. A cleartext-signed document must be of type "text" and a detached signature of type
//! "binary", so that neither can stand in for the other.

use crate::base::text::printable;
use crate::base::time::readable;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use openpgp::armor;
use openpgp::cert::Cert;
use openpgp::cert::amalgamation::ValidAmalgamation;
use openpgp::packet::Signature;
use openpgp::parse::stream::{
    DetachedVerifierBuilder, GoodChecksum, MessageLayer, MessageStructure, VerificationError, VerificationHelper,
};
use openpgp::parse::{Dearmor, PacketParserBuilder, PacketParserResult, Parse};
use openpgp::policy::StandardPolicy;
use openpgp::types::{HashAlgorithm, RevocationStatus, SignatureType};
use openpgp::{KeyHandle, Packet};
use sequoia_openpgp as openpgp;
use serde::{Deserialize, Serialize};

use crate::base::error::{Error, Result};

mod candidate;
pub(crate) mod cleartext;
mod commit;
mod keyring;

pub use candidate::{Candidate, Evidence, Verified, verify};
pub use commit::Commit;
pub use keyring::{Certificate, Keyring};

/// Primary key of Gentoo's release engineering: stage3s, their lists and digests, official binary packages.
pub const GENTOO_RELEASE: &str = "13EBBDBEDE7A12775DFDB1BABB572E0E2D182910";
/// Primary key of Gentoo's infrastructure: snapshots of the ebuild repository.
pub const GENTOO_SNAPSHOTS: &str = "DCD05B71EAB94199527F44ACDB6B8C1F96D8BF6D";

/// Largest stage3 or snapshot in bytes. A signed size beyond it is a mistake or an attack.
pub const MAX_FILE: u64 = 64 << 30;
/// Largest signed document or signature, in bytes.
pub const MAX_DOCUMENT: u64 = 1 << 20;
/// Most signatures in one document. More of them are an attempt at denial of service.
const MAX_SIGNATURES: usize = 16;

/// The maker of a good signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// Fingerprint of the certificate (of its primary key), upper-case hex.
    pub primary: String,
    /// Fingerprint of the key that signed, the primary or one of its subkeys.
    pub key: String,
    /// Time in seconds since 1970, as the signature states it.
    pub created: u64,
}

/// The text of a cleartext-signed document, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Exactly the signed text: without dash-escaping and without blanks at line ends.
    pub text: String,
    /// The maker of the signature.
    pub signer: Signer,
}

/// Verifies a cleartext-signed document, which must be the whole of `bytes`. `what` names it in messages.
///
/// # Errors
/// [`Kind::Refused`](crate::base::error::Kind::Refused) without a good signature of a trusted certificate.
pub fn clearsigned(what: &str, bytes: &[u8], keyring: &Keyring) -> Result<Signed> {
    bounded(what, bytes)?;
    let document = cleartext::document(bytes)
        .map_err(|why| Error::refused(format!("verifying {what}: {why}")).with_hint(UNSIGNED))?;
    let packets = packets(what, document.signature.as_bytes(), SignatureType::Text, &document.hashes)?;
    let signer = check(what, &packets, document.text.as_bytes(), keyring)?;
    Ok(Signed { text: document.text, signer })
}

/// Verifies a detached signature, armored or binary, over the bytes of `data`. `what` names the signed object in messages.
///
/// # Errors
/// [`Kind::Refused`](crate::base::error::Kind::Refused) without a good signature of a trusted certificate.
pub fn detached(what: &str, signature: &[u8], data: impl Read + Send + Sync, keyring: &Keyring) -> Result<Signer> {
    bounded(what, signature)?;
    let refused = |why: String| Error::refused(format!("verifying the signature of {what}: {why}"));
    let block = match signature.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => return Err(refused("the signature is empty".to_owned())),
        // The first byte of a packet has its highest bit set, and armor is ASCII.
        Some(byte) if byte & 0x80 != 0 && signature[0] == *byte => signature,
        Some(_) => {
            let text = std::str::from_utf8(signature)
                .map_err(|_| refused("it is neither armor nor an OpenPGP packet".to_owned()))?;
            cleartext::block(text).map_err(refused)?.as_bytes()
        }
    };
    let packets = packets(what, block, SignatureType::Binary, &[])?;
    check(what, &packets, data, keyring)
}

const UNSIGNED: &str = "unsigned files are never used; try another mirror";

fn bounded(what: &str, bytes: &[u8]) -> Result<()> {
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(Error::refused(format!("verifying {what}: it is larger than {} MiB", MAX_DOCUMENT >> 20)));
    }
    Ok(())
}

/// Removes the armor. Checks that every packet is a signature of the wanted type, with one of `hashes` if any are named.
fn packets(what: &str, block: &[u8], wanted: SignatureType, hashes: &[&str]) -> Result<Vec<u8>> {
    let refused = |why: &str| Error::refused(format!("verifying {what}: {why}"));
    let mut bytes = Vec::new();
    if block[0] & 0x80 != 0 {
        bytes.extend_from_slice(block);
    } else {
        armor::Reader::from_bytes(block, armor::ReaderMode::Tolerant(Some(armor::Kind::Signature)))
            .read_to_end(&mut bytes)
            .map_err(|error| refused("its signature is malformed").with_source(printable(&error.to_string())))?;
    }
    only_signatures(&bytes, wanted, hashes).map_err(|why| refused(&why))?;
    Ok(bytes)
}

fn only_signatures(bytes: &[u8], wanted: SignatureType, hashes: &[&str]) -> Result<(), String> {
    let malformed = |error: openpgp::anyhow::Error| format!("its signature is malformed: {}", cause(&error));
    let mut parser = PacketParserBuilder::from_bytes(bytes)
        .and_then(|builder| builder.dearmor(Dearmor::Disabled).build())
        .map_err(malformed)?;
    let mut count = 0;
    while let PacketParserResult::Some(packet) = parser {
        let (packet, next) = packet.next().map_err(malformed)?;
        parser = next;
        count += 1;
        if count > MAX_SIGNATURES {
            return Err("it carries too many signatures".to_owned());
        }
        let Packet::Signature(signature) = packet else {
            return Err("its signature holds packets other than signatures".to_owned());
        };
        if signature.typ() != wanted {
            let why = match signature.typ() {
                SignatureType::Text => "it is signed as text, where a signature of a file is needed",
                SignatureType::Binary => "it is signed as a file, where a signature of text is needed",
                _ => "its signature is of a type that does not sign documents",
            };
            return Err(why.to_owned());
        }
        let hash = signature.hash_algo().to_string();
        if !hashes.is_empty() && !hashes.iter().any(|name| name.eq_ignore_ascii_case(&hash)) {
            return Err(format!("its header does not say that it is signed with {hash}"));
        }
    }
    if count == 0 { Err("it contains no signature".to_owned()) } else { Ok(()) }
}

fn check(what: &str, packets: &[u8], data: impl Read + Send + Sync, keyring: &Keyring) -> Result<Signer> {
    let policy = StandardPolicy::new();
    let helper = Helper { keyring, verdicts: None };
    let refused = |why: &str| Error::refused(format!("verifying {what}: {why}"));
    let mut verifier = DetachedVerifierBuilder::from_bytes(packets)
        .and_then(|builder| builder.with_policy(&policy, None, helper))
        .map_err(|error| refused("its signature is malformed").with_source(cause(&error)))?;
    let outcome = verifier.verify_reader(data);
    let verdicts = verifier.into_helper().verdicts;
    if let Err(error) = outcome {
        return Err(match error.downcast::<std::io::Error>() {
            Ok(error) => Error::system(format!("reading {what}")).with_source(error),
            Err(error) => refused("its signature cannot be checked").with_source(cause(&error)),
        });
    }
    let mut good = None;
    let mut unknown = None;
    for verdict in verdicts.unwrap_or_default() {
        match verdict {
            Verdict::Good(signer) => good = good.or(Some(signer)),
            Verdict::Unknown(who) => unknown = unknown.or(Some(who)),
            // One bad signature spoils the document, even beside a good one.
            Verdict::Bad(why, hint) => {
                let error = refused(&why);
                return Err(if hint.is_empty() { error } else { error.with_hint(hint) });
            }
        }
    }
    match (good, unknown) {
        (Some(signer), _) => Ok(signer),
        (None, Some(who)) => {
            Err(refused(&format!("it is signed by {who}, which is not in the keyring")).with_hint(untrusted(keyring)))
        }
        (None, None) => Err(refused("it contains no signature").with_hint(UNSIGNED)),
    }
}

enum Verdict {
    Good(Signer),
    /// A key that is not in the keyring.
    Unknown(String),
    /// The reason and a hint.
    Bad(String, String),
}

struct Helper<'k> {
    keyring: &'k Keyring,
    verdicts: Option<Vec<Verdict>>,
}

impl VerificationHelper for Helper<'_> {
    fn get_certs(&mut self, _ids: &[KeyHandle]) -> openpgp::Result<Vec<Cert>> {
        Ok(self.keyring.certs.clone())
    }

    fn check(&mut self, structure: MessageStructure<'_>) -> openpgp::Result<()> {
        let mut layers = structure.into_iter();
        let (Some(MessageLayer::SignatureGroup { results }), None) = (layers.next(), layers.next()) else {
            return Err(openpgp::anyhow::anyhow!("it is not a plain group of signatures"));
        };
        // The caller decides. An error from here would lose the reason.
        self.verdicts = Some(results.into_iter().map(|result| verdict(result, self.keyring)).collect());
        Ok(())
    }
}

fn verdict(result: Result<GoodChecksum<'_>, VerificationError<'_>>, keyring: &Keyring) -> Verdict {
    let bad = |why: String| Verdict::Bad(why, String::new());
    match result {
        Ok(GoodChecksum { sig, ka, .. }) => {
            let primary = ka.cert().fingerprint().to_hex();
            if weak(sig) {
                return bad(weak_digest(sig));
            }
            if !keyring.trusted.contains(&primary) {
                return Verdict::Bad(
                    format!("it is signed by {primary}, which the keyring holds but which is not trusted here"),
                    untrusted(keyring),
                );
            }
            match sig.signature_creation_time() {
                Some(time) => {
                    Verdict::Good(Signer { primary, key: ka.key().fingerprint().to_hex(), created: seconds(time) })
                }
                None => bad("its signature does not say when it was made".to_owned()),
            }
        }
        Err(VerificationError::MissingKey { sig }) => match sig.get_issuers().into_iter().next() {
            Some(KeyHandle::Fingerprint(fingerprint)) => Verdict::Unknown(format!("the key {}", fingerprint.to_hex())),
            Some(KeyHandle::KeyID(id)) => Verdict::Unknown(format!("the key {}", id.to_hex())),
            None => Verdict::Unknown("a key that it does not name".to_owned()),
        },
        Err(VerificationError::UnboundKey { sig, cert, error }) => Verdict::Bad(
            format!(
                "its key was not a valid key of {} when it was made ({}): {}",
                cert.fingerprint().to_hex(),
                made(sig),
                cause(&error)
            ),
            "the certificate in the keyring has no self-signature that covers that time; a newer or fuller copy of it may".to_owned(),
        ),
        Err(VerificationError::BadKey { sig, ka, error }) => {
            let key = ka.key().fingerprint().to_hex();
            let revoked = |status| matches!(status, RevocationStatus::Revoked(_));
            if revoked(ka.valid_cert().revocation_status()) || revoked(ka.revocation_status()) {
                bad(format!("its key {key} is revoked"))
            } else if ka.valid_cert().alive().is_err() || ka.alive().is_err() {
                Verdict::Bad(
                    format!("its key {key} had expired when it was made ({}): {}", made(sig), cause(&error)),
                    "if the key's owner has extended it since, a newer keyring says so: set source.keyring".to_owned(),
                )
            } else if !ka.for_signing() {
                bad(format!("its key {key} may not sign"))
            } else {
                bad(format!("its key {key} is not good: {}", cause(&error)))
            }
        }
        Err(VerificationError::BadSignature { sig, ka, error }) => {
            bad_signature(sig, &ka.key().fingerprint().to_hex(), &error)
        }
        Err(VerificationError::MalformedSignature { error, .. }) => {
            bad(format!("its signature is malformed: {}", cause(&error)))
        }
        Err(VerificationError::UnknownSignature { sig }) => {
            bad(format!("its signature is malformed: {}", cause(sig.error())))
        }
        Err(_) => bad("its signature cannot be checked".to_owned()),
    }
}

/// Explains why a signature does not verify with the key of its issuer.
fn bad_signature(sig: &Signature, key: &str, error: &openpgp::anyhow::Error) -> Verdict {
    let bad = |why: String| Verdict::Bad(why, String::new());
    if weak(sig) {
        return bad(weak_digest(sig));
    }
    let now = seconds(SystemTime::now());
    let created = sig.signature_creation_time().map_or(0, seconds);
    if created > now + 1800 {
        return Verdict::Bad(
            format!("its signature was made in the future: {}", readable(created)),
            format!("this machine's clock says {}; if that is wrong, set the clock", readable(now)),
        );
    }
    if error.chain().any(|cause| matches!(cause.downcast_ref(), Some(openpgp::Error::PolicyViolation(..)))) {
        return bad(format!("its signature is not strong enough: {}", cause(error)));
    }
    if sig.signature_alive(None, None).is_err() {
        return bad(format!("its signature has expired: {}", cause(error)));
    }
    Verdict::Bad(
        format!("bad signature: it does not belong to these bytes (key {key})"),
        "the file was changed or damaged after it was signed; try another mirror".to_owned(),
    )
}

/// Returns true if the signed digest can be forged. The policy refuses it too, but this check has its own message and does not
/// depend on the version of the library.
fn weak(sig: &Signature) -> bool {
    matches!(sig.hash_algo(), HashAlgorithm::MD5 | HashAlgorithm::SHA1 | HashAlgorithm::RipeMD)
}

fn weak_digest(sig: &Signature) -> String {
    format!("its signature rests on {}, which can be forged", sig.hash_algo())
}

fn untrusted(keyring: &Keyring) -> String {
    format!(
        "trusted here: {}; if you trust the signer, import its certificate (`keys import`) and name it in `fingerprints` of what it signed, or give it as `keyring`: source.keyring and source.fingerprints for a stage3",
        list(&keyring.trusted)
    )
}

fn list(fingerprints: &BTreeSet<String>) -> String {
    let mut text = String::new();
    for (index, fingerprint) in fingerprints.iter().take(5).enumerate() {
        let _ = write!(text, "{}{fingerprint}", if index == 0 { "" } else { ", " });
    }
    if fingerprints.len() > 5 {
        let _ = write!(text, " and {} more", fingerprints.len() - 5);
    }
    text
}

fn made(sig: &Signature) -> String {
    sig.signature_creation_time().map_or_else(|| "no date".to_owned(), |time| readable(seconds(time)))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Formats an error of the library in one printable line. It may quote downloaded text.
fn cause(error: &openpgp::anyhow::Error) -> String {
    printable(&format!("{error:#}"))
}

#[cfg(test)]
pub(crate) mod gnupg;
#[cfg(test)]
mod tests;
