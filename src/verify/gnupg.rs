//! GnuPG in its own home directory, for tests: signatures by another program.
#![allow(clippy::disallowed_methods)]

use std::io::Write;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::Keyring;

/// A home directory of GnuPG.
pub(crate) struct Gpg {
    pub(crate) home: TempDir,
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.home.path()).args(["--kill", "all"]).status();
    }
}

/// Returns `None` if GnuPG is missing and the tests do not demand it.
pub(crate) fn gpg() -> Option<Gpg> {
    if Command::new("gpg").arg("--version").stdout(Stdio::null()).status().is_ok() {
        return Some(Gpg { home: tempfile::Builder::new().prefix("gpg").tempdir().unwrap() });
    }
    assert!(std::env::var_os("QUERN_TEST_STRICT").is_none(), "gpg is not installed");
    eprint_skip();
    None
}

#[allow(clippy::print_stderr)]
fn eprint_skip() {
    eprintln!("skipped: gpg is not installed");
}

impl Gpg {
    pub(crate) fn run(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new("gpg")
            .arg("--homedir")
            .arg(self.home.path())
            .args(["--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes a key like Gentoo's: the primary key only certifies, and a subkey signs. Returns the primary fingerprint.
    pub(crate) fn key(&self, name: &str, options: &[&str]) -> String {
        let args = |rest: &[&'static str]| [options, rest].concat();
        let id = format!("{name} <{name}@example.org>");
        self.run(&[options, &["--quick-gen-key", &id, "ed25519", "cert", "never"]].concat(), b"");
        let fingerprint = self.fingerprints(name)[0].clone();
        let mut add = args(&["--quick-add-key"]);
        add.extend([fingerprint.as_str(), "ed25519", "sign", "never"]);
        self.run(&add, b"");
        fingerprint
    }

    pub(crate) fn fingerprints(&self, name: &str) -> Vec<String> {
        let listing = String::from_utf8(self.run(&["--with-colons", "--list-keys", name], b"")).unwrap();
        listing.lines().filter_map(|line| line.strip_prefix("fpr:")?.split(':').nth(8).map(str::to_owned)).collect()
    }

    /// Imports the revocation that GnuPG made with the key.
    pub(crate) fn revoke(&self, fingerprint: &str) {
        let path = self.home.path().join(format!("openpgp-revocs.d/{fingerprint}.rev"));
        let revocation = fs_err::read_to_string(path).unwrap().replace(":-----BEGIN", "-----BEGIN");
        self.run(&["--import"], revocation.as_bytes());
    }

    pub(crate) fn keyring(&self, pins: &[String]) -> Keyring {
        Keyring::from_bytes("the test's keyring", &self.run(&["--armor", "--export"], b""), pins).unwrap()
    }

    pub(crate) fn clearsign(&self, key: &str, options: &[&str], text: &str) -> Vec<u8> {
        self.run(&[options, &["--local-user", key, "--clearsign"]].concat(), text.as_bytes())
    }

    pub(crate) fn detach(&self, key: &str, options: &[&str], bytes: &[u8]) -> Vec<u8> {
        self.run(&[options, &["--local-user", key, "--detach-sign"]].concat(), bytes)
    }
}
