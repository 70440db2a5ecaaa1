//! Refusals of binary packages in emerge's output.

use crate::base::error::Error;
use crate::base::text::plain;

/// Lines of Portage and GnuPG, each with the reason for the refusal and a hint. The first that occurs counts.
const REASONS: &[(&str, &str, &str)] = &[
    (
        "[GNUPG:] EXPKEYSIG",
        "the key that signed it has expired",
        "if the key's owner has extended it, name a newer copy of the certificate as `keyring` of the host",
    ),
    ("[GNUPG:] REVKEYSIG", "the key that signed it is revoked", ""),
    ("[GNUPG:] EXPSIG", "its signature has expired", ""),
    ("[GNUPG:] BADSIG", "bad signature: it does not belong to these bytes", CHANGED),
    ("[GNUPG:] NO_PUBKEY", "it is signed by a key that the recipe does not trust for this host", SIGNERS),
    ("unknown key", "it is signed by a key that the recipe does not trust for this host", SIGNERS),
    ("undefined trust", "it is signed by a key that the recipe does not trust for this host", SIGNERS),
    ("[GNUPG:] NODATA", "it is not signed", UNSIGNED),
    ("appears unsigned", "it is not signed", UNSIGNED),
    ("signature not found", "it is not signed", UNSIGNED),
    ("!!! Digest verification failed", "its digest differs from that in the index of the host", CHANGED),
    ("GnuPG verification failed", "its signature cannot be verified", SIGNERS),
];

const CHANGED: &str = "the file was changed or damaged on the host; nothing of it was used";
const SIGNERS: &str = "a host without `keyring` and `fingerprints` must have packages that Gentoo signed; for others, name the signers in \
                       the host's table in `binhost` in [portage]: { url = \"…\", keyring = \"packages.asc\" } or \
                       { url = \"…\", fingerprints = [\"…\"] }";
const UNSIGNED: &str = "name a host whose packages are signed; { url = \"…\", allow-unsigned = true } in `binhost` in [portage] accepts \
                        packages that anyone could have changed";

/// Finds the refusal of a package from a host in the output of an emerge that failed.
pub fn refusal(output: &str) -> Option<Error> {
    let package = output.lines().find_map(refused)?;
    let (_, why, hint) = REASONS.iter().find(|(needle, ..)| output.contains(needle))?;
    let signer = output.lines().rev().find_map(key).map(|key| format!(" (key {key})")).unwrap_or_default();
    let error = Error::refused(format!("verifying the binary package {}: {why}{signer}", plain(package, 200)));
    Some(if hint.is_empty() { error } else { error.with_hint(*hint) })
}

/// Returns the package that a line refuses: the name of its file below the directory of its host.
fn refused(line: &str) -> Option<&str> {
    const HOST: &str = "/var/cache/binhost/";
    let line = line.trim();
    let complaint = ["!!! ", " * ", "* "].iter().any(|mark| line.starts_with(mark));
    let path = &line[line.find(HOST)? + HOST.len()..];
    let end = path.find(".gpkg.tar").map(|at| at + ".gpkg.tar".len())?;
    let name = path[..end].split_once('/')?.1;
    complaint.then_some(name)
}

/// Returns the key in a line of GnuPG: `gpg:                using EDDSA key AA42…`.
fn key(line: &str) -> Option<&str> {
    let words = line.trim().trim_start_matches("* ").trim().strip_prefix("gpg:")?.trim();
    let key = words.strip_prefix("using ")?.split_once(" key ")?.1.trim();
    (matches!(key.len(), 16 | 40 | 64) && key.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Kind;

    const END: &str = ">>> Extracting info\n!!! Error extracting \
        '/var/cache/binhost/quern-1/app-test/tiny/tiny-1-1.gpkg.tar', GnuPG verification failed\n";

    #[test]
    fn portages_refusals_have_their_reason() {
        let cases = [
            (" * \tbinpkg appears unsigned (missing any signature)\n * \t[GNUPG:] NODATA 1\n", "it is not signed"),
            (
                " * \tbinpkg signed with at least one unknown key.\n * \tgpg:                using EDDSA key \
                 AA429A0A530CB4F4B75DB310D79CC834FED45FEE\n * \t[GNUPG:] NO_PUBKEY D79CC834FED45FEE\n",
                "does not trust for this host (key AA429A0A530CB4F4B75DB310D79CC834FED45FEE)",
            ),
            (" * \t[GNUPG:] KEYEXPIRED 1795825174\n * \t[GNUPG:] EXPKEYSIG 5CE2E571B07D8181 Three\n", "has expired"),
            (" * \t[GNUPG:] BADSIG B69D0C5E110C0E56 One\n", "does not belong to these bytes"),
            ("", "cannot be verified"),
        ];
        for (output, why) in cases {
            let error = refusal(&format!("{output}{END}")).unwrap();
            assert_eq!(error.kind(), Kind::Refused);
            let text = error.to_string();
            assert!(text.starts_with("verifying the binary package app-test/tiny/tiny-1-1.gpkg.tar: "), "{text}");
            assert!(text.contains(why), "{why}: {text}");
        }
        let digest = "!!! Digest verification failed:\n\
            !!! /var/cache/binhost/quern-1/app-test/tiny/tiny-1-1.gpkg.tar.partial\n!!! Reason: Failed on SHA1 verification\n";
        assert!(refusal(digest).unwrap().to_string().contains("its digest differs"));
    }

    #[test]
    fn other_failures_are_not_refusals() {
        for output in [
            "",
            "wget /var/cache/binhost/quern-1/a/b/b-1-1.gpkg.tar.partial\n!!! GnuPG verification failed\n",
            "!!! Error extracting '/var/cache/binpkgs/a/b/b-1-1.gpkg.tar', GnuPG verification failed\n",
            "!!! /var/cache/binhost/quern-1/a/b/b-1-1.gpkg.tar: No space left on device\n",
        ] {
            assert!(refusal(output).is_none(), "{output}");
        }
    }
}
