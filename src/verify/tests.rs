//! Good and bad signatures by GnuPG, and Gentoo's genuine certificates.

use super::gnupg::{Gpg, gpg};
use super::*;
use crate::base::error::Kind;

const TEXT: &str = "# ts=1\n- dashes\n-----\ntrailing  \nlast\n";

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, why: &str) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.to_string().contains(why), "expected {why:?}: {error}, hint {:?}", error.hint());
    assert!(!format!("{error}{error:?}").contains('\u{1b}'));
    error
}

#[test]
fn genuine_certificates_have_their_primary_and_a_signing_subkey() {
    let policy = StandardPolicy::new();
    for (keyring, primary, subkey) in [
        (Keyring::embedded().unwrap(), GENTOO_RELEASE, "534E4209AB49EEE1C19D96162C44695DB9F6043D"),
        (Keyring::embedded_snapshots().unwrap(), GENTOO_SNAPSHOTS, "E1D6ABB63BFCFB4BA02FDF1CEC590EEAC9189250"),
    ] {
        assert_eq!(keyring.trusted().collect::<Vec<_>>(), [primary]);
        let signing: Vec<String> = keyring.certs[0]
            .keys()
            .with_policy(&policy, UNIX_EPOCH + std::time::Duration::from_secs(1_786_404_601))
            .alive()
            .revoked(false)
            .for_signing()
            .map(|key| key.key().fingerprint().to_hex())
            .collect();
        assert!(signing.iter().any(|key| key == subkey), "{signing:?}");
    }
    assert_eq!(
        Keyring::known(&[], &[GENTOO_SNAPSHOTS.to_lowercase()]).unwrap().trusted().collect::<Vec<_>>(),
        [GENTOO_SNAPSHOTS]
    );
    let missing = Keyring::known(&[], &["0".repeat(40)]).unwrap_err();
    assert_eq!(missing.kind(), Kind::Usage);
    assert_ne!(Keyring::embedded().unwrap().id(), Keyring::embedded_snapshots().unwrap().id());
}

#[test]
fn keyrings_may_be_armored_or_binary_and_hold_several_certificates() {
    let Some(gpg) = gpg() else { return };
    let (one, two) = (gpg.key("one", &[]), gpg.key("two", &[]));
    let armored = [gpg.run(&["--armor", "--export", &one], b""), gpg.run(&["--armor", "--export", &two], b"")].concat();
    let mut both = [one.as_str(), two.as_str()];
    both.sort_unstable();
    for bytes in [armored, gpg.run(&["--export"], b"")] {
        assert_eq!(Keyring::from_bytes("x", &bytes, &[]).unwrap().trusted().collect::<Vec<_>>(), both);
        assert_eq!(
            Keyring::from_bytes("x", &bytes, std::slice::from_ref(&two)).unwrap().trusted().collect::<Vec<_>>(),
            [two.as_str()]
        );
    }
    for bytes in [&b""[..], b"text", b"\x99\x01"] {
        assert_eq!(Keyring::from_bytes("x", bytes, &[]).unwrap_err().kind(), Kind::Usage);
    }
}

#[test]
fn good_signatures_by_gnupg_are_accepted() {
    let Some(gpg) = gpg() else { return };
    let primary = gpg.key("good", &[]);
    let keyring = gpg.keyring(&[]);
    let signed = clearsigned("x", &gpg.clearsign("good", &[], TEXT), &keyring).unwrap();
    assert_eq!(signed.text, TEXT.trim_end().replace("trailing  ", "trailing"));
    assert_eq!(signed.signer.primary, primary);
    assert_eq!(signed.signer.key, gpg.fingerprints("good")[1]);
    assert!(seconds(SystemTime::now()) - signed.signer.created < 60);
    let crlf = String::from_utf8(gpg.clearsign("good", &[], TEXT)).unwrap().replace('\n', "\r\n");
    assert_eq!(clearsigned("x", crlf.as_bytes(), &keyring).unwrap(), signed);
    let data = vec![7u8; 3 << 20];
    for options in [&[][..], &["--armor"]] {
        assert_eq!(detached("x", &gpg.detach("good", options, &data), &data[..], &keyring).unwrap().primary, primary);
    }
}

#[test]
fn another_text_or_file_is_refused() {
    let Some(gpg) = gpg() else { return };
    gpg.key("good", &[]);
    let keyring = gpg.keyring(&[]);
    let file = String::from_utf8(gpg.clearsign("good", &[], TEXT)).unwrap();
    refused(clearsigned("x", file.replace("last", "lost").as_bytes(), &keyring), "bad signature");
    refused(clearsigned("x", file.replace("last\n", "last\n\n").as_bytes(), &keyring), "bad signature");
    refused(clearsigned("x", file.replace("- dashes", "dashes").as_bytes(), &keyring), "bad signature");
    // Blanks at line ends are not signed, and are removed from the text.
    assert!(!clearsigned("x", file.replace("last", "last \t").as_bytes(), &keyring).unwrap().text.contains('\t'));
    let signature = gpg.detach("good", &[], b"data");
    for data in [&b"date"[..], b"", b"data\n"] {
        refused(detached("x", &signature, data, &keyring), "bad signature");
    }
    let mut damaged = signature.clone();
    *damaged.last_mut().unwrap() ^= 1;
    refused(detached("x", &damaged, &b"data"[..], &keyring), "bad signature");
    refused(detached("x", &signature[..signature.len() - 5], &b"data"[..], &keyring), "malformed");
    refused(detached("x", &[&signature[..], b"text"].concat(), &b"data"[..], &keyring), "");
    refused(detached("x", b"", &b"data"[..], &keyring), "empty");
    refused(detached("x", &vec![0x88; (MAX_DOCUMENT + 1) as usize], &b"data"[..], &keyring), "larger than");
}

#[test]
fn forms_of_signatures_are_not_confused() {
    let Some(gpg) = gpg() else { return };
    gpg.key("good", &[]);
    let keyring = gpg.keyring(&[]);
    let clear = gpg.clearsign("good", &[], "text\n");
    let inline = gpg.run(&["--local-user", "good", "--sign"], b"text\n");
    let inline_armored = gpg.run(&["--local-user", "good", "--armor", "--sign"], b"text\n");
    refused(clearsigned("x", &gpg.detach("good", &["--armor"], b"text"), &keyring), "detached signature");
    refused(clearsigned("x", &gpg.detach("good", &[], b"text"), &keyring), "not text");
    refused(clearsigned("x", &inline_armored, &keyring), "OpenPGP message");
    refused(detached("x", &clear, &b"text"[..], &keyring), "cleartext-signed document");
    refused(detached("x", &inline_armored, &b"text\n"[..], &keyring), "OpenPGP message");
    refused(detached("x", &inline, &b"text\n"[..], &keyring), "");
    // The signature of a clearsigned text as a detached one, and the signature of a file below a text.
    let clear = String::from_utf8(clear).unwrap();
    let cut = &clear[clear.find("-----BEGIN PGP SIGNATURE").unwrap()..];
    refused(detached("x", cut.as_bytes(), &b"text"[..], &keyring), "signed as text");
    let armored = String::from_utf8(gpg.detach("good", &["--armor"], b"text")).unwrap();
    let glued = format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\ntext\n{armored}");
    refused(clearsigned("x", glued.as_bytes(), &keyring), "signed as a file");
    let certificate = gpg.run(&["--export", "good"], b"");
    refused(detached("x", &certificate, &b"text"[..], &keyring), "packets other than signatures");
}

#[test]
fn unknown_and_unpinned_keys_are_named() {
    let Some(gpg) = gpg() else { return };
    let (good, other) = (gpg.key("good", &[]), gpg.key("other", &[]));
    let file = gpg.clearsign("other", &[], TEXT);
    let unpinned = refused(clearsigned("x", &file, &gpg.keyring(std::slice::from_ref(&good))), "not trusted here");
    assert!(unpinned.to_string().contains(&other) && unpinned.hint().unwrap().contains(&good));
    let unknown = refused(clearsigned("x", &file, &Keyring::embedded().unwrap()), "not in the keyring");
    assert!(unknown.to_string().contains(&gpg.fingerprints("other")[1]));
    let hint = unknown.hint().unwrap();
    assert!(
        hint.contains(GENTOO_RELEASE) && hint.contains("source.keyring") && hint.contains("source.fingerprints"),
        "{hint}"
    );
    // An unknown signature beside a good one is ignored; a bad one is not.
    let only_good = Keyring::from_bytes("x", &gpg.run(&["--export", &good], b""), &[]).unwrap();
    let two = gpg.run(&["--local-user", "good", "--local-user", "other", "--clearsign"], TEXT.as_bytes());
    assert_eq!(clearsigned("x", &two, &only_good).unwrap().signer.primary, good);
    refused(clearsigned("x", &two, &gpg.keyring(std::slice::from_ref(&good))), "not trusted here");
    let bad = [gpg.detach("good", &[], b"data"), gpg.detach("good", &[], b"else")].concat();
    refused(detached("x", &bad, &b"data"[..], &only_good), "bad signature");
    let many = gpg.detach("good", &[], b"data").repeat(MAX_SIGNATURES + 1);
    refused(detached("x", &many, &b"data"[..], &only_good), "too many signatures");
}

#[test]
fn weak_digests_are_refused() {
    let Some(gpg) = gpg() else { return };
    gpg.run(&["--quick-gen-key", "weak <weak@example.org>", "rsa2048", "sign", "never"], b"");
    let keyring = gpg.keyring(&[]);
    for name in ["SHA1", "RIPEMD160"] {
        let options = ["--allow-weak-digest-algos", "--digest-algo", name];
        refused(clearsigned("x", &gpg.clearsign("weak", &options, TEXT), &keyring), "can be forged");
        refused(detached("x", &gpg.detach("weak", &options, b"data"), &b"data"[..], &keyring), "can be forged");
    }
    assert!(detached("x", &gpg.detach("weak", &["--digest-algo", "SHA256"], b"data"), &b"data"[..], &keyring).is_ok());
}

#[test]
fn keys_that_were_invalid_at_the_time_of_signing_are_refused() {
    let Some(gpg) = gpg() else { return };
    let ago = |days: u64| format!("{}!", seconds(SystemTime::now()) - days * 86_400);
    // Made ten days ago and signing now. Nine days ago, its expiry was set to one day.
    let expired = gpg.key("expired", &["--faked-system-time", &ago(10)]);
    let file = gpg.clearsign("expired", &[], TEXT);
    assert!(clearsigned("x", &file, &gpg.keyring(&[])).is_ok());
    gpg.run(&["--faked-system-time", &ago(9), "--quick-set-expire", &expired, "seconds=86400"], b"");
    let error = refused(clearsigned("x", &file, &gpg.keyring(&[])), "had expired");
    assert!(error.hint().unwrap().contains("source.keyring"));
    // A signature from before the expiry is still good.
    let noon = format!("{}!", seconds(SystemTime::now()) - 9 * 86_400 + 43_200);
    assert!(
        clearsigned("x", &gpg.clearsign("expired", &["--faked-system-time", &noon], TEXT), &gpg.keyring(&[])).is_ok()
    );
    // A signature that has expired.
    gpg.key("brief", &["--faked-system-time", &ago(10)]);
    let brief = gpg.clearsign("brief", &["--faked-system-time", &ago(5), "--default-sig-expire", "1d"], TEXT);
    refused(clearsigned("x", &brief, &gpg.keyring(&[])), "has expired");
    // A signature from the future.
    let future = format!("{}!", seconds(SystemTime::now()) + 5 * 86_400);
    let error = refused(
        clearsigned("x", &gpg.clearsign("brief", &["--faked-system-time", &future], TEXT), &gpg.keyring(&[])),
        "in the future",
    );
    assert!(error.hint().unwrap().contains("clock"));
    // A key from the future, which is what a slow clock makes of every new certificate.
    let tomorrow = format!("{}!", seconds(SystemTime::now()) + 4 * 86_400);
    gpg.key("tomorrow", &["--faked-system-time", &tomorrow]);
    let of_tomorrow = gpg.clearsign("tomorrow", &["--faked-system-time", &future], TEXT);
    let error = refused(clearsigned("x", &of_tomorrow, &gpg.keyring(&[])), "in the future");
    assert!(error.hint().unwrap().contains("clock"));
    // A signature from before the creation of the key.
    let before = gpg.clearsign(
        "brief",
        &["--faked-system-time", &ago(20), "--ignore-time-conflict", "--ignore-valid-from"],
        TEXT,
    );
    refused(clearsigned("x", &before, &gpg.keyring(&[])), "not a valid key");
}

#[test]
fn revoked_keys_and_keys_that_may_not_sign_are_refused() {
    let Some(gpg) = gpg() else { return };
    let revoked = gpg.key("revoked", &[]);
    let file = gpg.clearsign("revoked", &[], TEXT);
    assert!(clearsigned("x", &file, &gpg.keyring(&[])).is_ok());
    gpg.revoke(&revoked);
    refused(clearsigned("x", &file, &gpg.keyring(&[])), "revoked");
    // A subkey that signed, and that the certificate later marks as only for encryption.
    // The change is dated before the signature.
    let ago = |days: u64| format!("{}!", seconds(SystemTime::now()) - days * 86_400);
    let two_days = ago(2);
    let then = ["--faked-system-time", &two_days];
    gpg.run(&[&then[..], &["--quick-gen-key", "usage <usage@example.org>", "rsa2048", "cert", "never"]].concat(), b"");
    let usage = gpg.fingerprints("usage")[0].clone();
    gpg.run(&[&then[..], &["--quick-add-key", &usage, "rsa2048", "sign", "never"]].concat(), b"");
    let file = gpg.clearsign("usage", &[], TEXT);
    let only = |gpg: &Gpg| Keyring::from_bytes("x", &gpg.run(&["--export", &usage], b""), &[]).unwrap();
    assert!(clearsigned("x", &file, &only(&gpg)).is_ok());
    gpg.run(
        &["--faked-system-time", &ago(1), "--expert", "--command-fd", "0", "--edit-key", &usage],
        b"key 1\nchange-usage\nS\nE\nQ\nsave\n",
    );
    let key = gpg.fingerprints("usage")[1].clone();
    refused(clearsigned("x", &file, &only(&gpg)), &format!("its key {key} may not sign"));
}

#[test]
fn text_around_a_document_is_refused() {
    let Some(gpg) = gpg() else { return };
    gpg.key("good", &[]);
    let keyring = gpg.keyring(&[]);
    let file = String::from_utf8(gpg.clearsign("good", &[], "text\n")).unwrap();
    for (bytes, why) in [
        (format!("evil\n{file}"), "before its signed part"),
        (format!("{file}evil\n"), "after the signature"),
        (format!("{file}{file}"), "after the signature"),
        (file.replace("\n\ntext", "\nNotDashEscaped: yes\n\ntext"), "header other than Hash"),
        (file.replace("text\n", "text\n\u{1b}]0;x\u{7}\n"), "control characters"),
        ("text\n".to_owned(), "it is not signed"),
        ("\u{1b}[31m".to_owned(), "it is not signed"),
        (String::new(), "empty"),
    ] {
        refused(clearsigned("x", bytes.as_bytes(), &keyring), why);
    }
    assert!(clearsigned("x", format!("\n\n{file}\n \n").as_bytes(), &keyring).is_ok());
    // gpg prints the same text for the good document.
    let path = gpg.home.path().join("file");
    fs_err::write(&path, &file).unwrap();
    gpg.run(&["--verify", path.to_str().unwrap()], b"");
}
