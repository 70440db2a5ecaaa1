//! `raw verify`, compared with `gpgv` and `sqv`: it accepts nothing that both refuse, and gives a reason for every refusal.

use std::fs;
use std::path::{Path, PathBuf};

use crate::env::{TestEnv, output, require_program};
use crate::keys::Gpg;

/// A signature, the data that it signs (`None` for a signed document), and the expected verdict.
struct Vector {
    name: String,
    sig: Vec<u8>,
    data: Option<Vec<u8>>,
    expected: Expected,
}

enum Expected {
    Good,
    /// Refused, with this text in the reason.
    Refused(&'static str),
    /// Damaged: accepted only if another program accepts it too.
    Damaged,
}

const DATA: &[u8] = b"line one\n- dash\n-----BEGIN\ntrailing\n";

struct Maker {
    gpg: Gpg,
    vectors: Vec<Vector>,
}

impl Maker {
    fn gpg(&self, name: &str, options: &[&str], verb: &str) -> Vec<u8> {
        let input = self.gpg.env.write("input", DATA);
        let out = self.gpg.env.path("output");
        let _ = fs::remove_file(&out);
        let paths = ["--output", out.to_str().unwrap(), verb, input.to_str().unwrap()];
        self.gpg.run(&[options, &["--local-user", name], &paths].concat());
        fs::read(out).unwrap()
    }

    /// Adds the three forms of a signature by a key.
    fn forms(&mut self, name: &str, options: &[&str], expected: impl Fn() -> Expected) {
        let label = format!("{name} {}", options.join(" "));
        let armor = [options, &["--armor"]].concat();
        let sigs = [
            ("binary", self.gpg(name, options, "--detach-sign"), Some(DATA.to_vec())),
            ("armored", self.gpg(name, &armor, "--detach-sign"), Some(DATA.to_vec())),
            ("clearsigned", self.gpg(name, options, "--clearsign"), None),
        ];
        for (form, sig, data) in sigs {
            self.add(format!("{label} {form}"), sig, data, expected());
        }
    }

    fn add(&mut self, name: impl Into<String>, sig: Vec<u8>, data: Option<Vec<u8>>, expected: Expected) {
        self.vectors.push(Vector { name: name.into(), sig, data, expected });
    }

    /// Adds signatures by good, expired, revoked and unknown keys, with all digests.
    fn keys(&mut self) {
        self.gpg.key("good", "never");
        self.gpg.run(&["--quick-gen-key", "rsa <rsa@example.org>", "rsa2048", "cert,sign", "never"]);
        self.gpg.run(&["--quick-gen-key", "nist <nist@example.org>", "nistp256", "cert,sign", "never"]);
        self.gpg.key("revoked", "never");
        self.gpg.key("stranger", "never");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let at = |days: i64| format!("{}!", now as i64 + days * 86_400);
        let (past, future) = (at(-5), at(5));
        let old = ["--faked-system-time", past.as_str()];
        let make = ["--quick-gen-key", "expired <expired@example.org>", "ed25519", "cert,sign", "seconds=3600"];
        self.gpg.run(&[&old[..], &make].concat());

        self.forms("good", &[], || Expected::Good);
        self.forms("nist", &[], || Expected::Good);
        for digest in ["SHA224", "SHA256", "SHA384", "SHA512"] {
            self.forms("rsa", &["--digest-algo", digest], || Expected::Good);
        }
        for digest in ["SHA1", "RIPEMD160"] {
            let options = ["--allow-weak-digest-algos", "--digest-algo", digest];
            self.forms("rsa", &options, || Expected::Refused("can be forged"));
        }
        self.forms("stranger", &[], || Expected::Refused("not in the keyring"));
        self.forms("revoked", &[], || Expected::Refused("is revoked"));
        let lived = ["--faked-system-time", past.as_str()];
        self.forms("expired", &lived, || Expected::Good);
        let before = ["--faked-system-time", past.as_str(), "--ignore-time-conflict", "--ignore-valid-from"];
        self.forms("good", &before, || Expected::Refused("not a valid key"));
        self.forms("good", &["--faked-system-time", &future], || Expected::Refused("in the future"));
        let brief = ["--faked-system-time", past.as_str(), "--default-sig-expire", "1d"];
        self.gpg.run(
            &[&old[..], &["--quick-gen-key", "aged <aged@example.org>", "ed25519", "cert,sign", "never"]].concat(),
        );
        self.forms("aged", &brief, || Expected::Refused("has expired"));
        let revocation = self.gpg.env.path("gnupg/openpgp-revocs.d");
        let listing = self.gpg.run(&["--with-colons", "--list-keys", "revoked"]);
        let revoked = listing.lines().find_map(|line| line.strip_prefix("fpr:")?.split(':').nth(8)).unwrap().to_owned();
        let revocation = revocation.join(format!("{revoked}.rev"));
        let text = fs::read_to_string(&revocation).unwrap().replace(":-----BEGIN", "-----BEGIN");
        fs::write(&revocation, text).unwrap();
        self.gpg.run(&["--import", revocation.to_str().unwrap()]);
    }

    /// Adds signatures of the wrong form, several signatures in one file, and signatures of other data.
    fn detached_confusions(&mut self) {
        let binary = self.gpg("good", &[], "--detach-sign");
        let armored = self.gpg("good", &["--armor"], "--detach-sign");
        let document = self.gpg("good", &[], "--clearsign");
        let stranger = self.gpg("stranger", &[], "--detach-sign");
        let inline = self.gpg("good", &["--armor"], "--sign");
        let text_mode = self.gpg("good", &["--textmode"], "--detach-sign");
        let data = || Some(DATA.to_vec());
        for (name, other) in
            [("other", &b"other"[..]), ("empty", b""), ("longer", b"line one\n- dash\n-----BEGIN\ntrailing\n\n")]
        {
            self.add(format!("{name} data"), binary.clone(), Some(other.to_vec()), Expected::Refused("bad signature"));
        }
        self.add("twice", binary.repeat(2), data(), Expected::Good);
        self.add("beside a stranger's", [&stranger[..], &binary].concat(), data(), Expected::Good);
        let certificate = fs::read(self.gpg.env.path("keyring.pgp")).unwrap();
        for (name, sig, why) in [
            ("far too many", binary.repeat(17), "too many"),
            ("document as detached", document, "cleartext-signed document"),
            ("inline as detached", inline.clone(), "OpenPGP message"),
            ("text signature over a file", text_mode, "signed as text"),
            ("certificate", certificate, "packets other than signatures"),
            ("nothing", Vec::new(), "empty"),
            ("noise", vec![0xc2; 300], ""),
            ("text before armor", [b"evil\n", &armored[..]].concat(), "before its signed part"),
            ("text after armor", [&armored[..], b"evil\n"].concat(), "after the signature"),
            ("text after packets", [&binary[..], b"evil\n"].concat(), ""),
        ] {
            self.add(name, sig, data(), Expected::Refused(why));
        }
        self.add("detached as document", armored, None, Expected::Refused("detached signature"));
        self.add("inline as document", inline, None, Expected::Refused("OpenPGP message"));
    }

    /// Adds changed clearsigned documents.
    fn document_confusions(&mut self) {
        let clear = String::from_utf8(self.gpg("good", &[], "--clearsign")).unwrap();
        let armored = String::from_utf8(self.gpg("good", &["--armor"], "--detach-sign")).unwrap();
        let glued = format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{armored}");
        let (text, signature) = clear.split_at(clear.find("-----BEGIN PGP SIGNATURE").unwrap());
        for (name, text, why) in [
            ("other text", clear.replace("line one", "line two"), "bad signature"),
            ("an added line", clear.replace("trailing\n", "trailing\nevil\n"), "bad signature"),
            ("a removed line", clear.replace("line one\n", ""), "bad signature"),
            ("an added empty line", clear.replace("trailing\n", "trailing\n\n"), "bad signature"),
            ("text before", format!("evil\n{clear}"), "before its signed part"),
            ("text after", format!("{clear}evil\n"), "after the signature"),
            ("twice", clear.repeat(2), "after the signature"),
            ("a header", clear.replacen("\n\n", "\nComment: evil\n\n", 1), "header other than Hash"),
            ("another digest in the header", clear.replacen("Hash: SHA", "Hash: SHA384, SHA3-", 1), "does not say"),
            ("text as a header", clear.replacen("\n\n", "\nevil\n\n", 1), "header other than Hash"),
            ("a blank header", clear.replacen("\n\n", "\n \nevil\n\n", 1), "bad signature"),
            ("dashes not escaped", clear.replace("- - dash", "- dash"), ""),
            ("a removed dash", clear.replace("- -----BEGIN", "-----BEGIN"), "not escaped"),
            ("a form feed", clear.replace("line one", "line\x0cone"), "control characters"),
            ("an escape", clear.replace("trailing\n", "trailing\n\x1b[2J\n"), "control characters"),
            ("a NUL", clear.replace("line one", "line one\0"), "control characters"),
            ("no end", clear.replace("-----END PGP SIGNATURE-----\n", ""), "cut short"),
            ("no signature", text.to_owned(), "no signature"),
            ("no text", signature.to_owned(), "detached signature"),
            ("a web page", "<html></html>\n".to_owned(), "web page"),
            ("not signed", "line one\n".to_owned(), "not signed"),
            ("the signature of a file", glued.replace("\n\n-----", "\n\nline one\n-----"), "signed as a file"),
        ] {
            self.add(format!("clearsigned, {name}"), text.into_bytes(), None, Expected::Refused(why));
        }
        for (name, text) in [
            ("CRLF", clear.replace('\n', "\r\n")),
            ("blanks at ends", clear.replace("line one", "line one \t")),
            ("empty lines around", format!("\n{clear}\n\n")),
        ] {
            self.add(format!("clearsigned, {name}"), text.into_bytes(), None, Expected::Good);
        }
    }

    /// Adds signatures with a flipped bit, and truncated signatures.
    fn damages(&mut self) {
        let binary = self.gpg("good", &[], "--detach-sign");
        for at in (0..binary.len()).step_by(2) {
            let mut sig = binary.clone();
            sig[at] ^= 1 << (at % 8);
            self.add(format!("bit {} of byte {at}", at % 8), sig, Some(DATA.to_vec()), Expected::Damaged);
        }
        for at in (0..binary.len()).step_by(9) {
            self.add(
                format!("the first {at} bytes"),
                binary[..at].to_vec(),
                Some(DATA.to_vec()),
                Expected::Refused(""),
            );
        }
        let clear = self.gpg("good", &[], "--clearsign");
        for at in (0..clear.len()).step_by(7) {
            let mut text = clear.clone();
            text[at] ^= 1 << (at % 7);
            self.add(format!("clearsigned, bit {} of byte {at}", at % 7), text, None, Expected::Damaged);
        }
    }
}

/// Returns whether `gpgv` accepts a signature and, for a detached one, whether `sqv` does.
fn others(env: &TestEnv, keyring: &Path, sig: &Path, data: Option<&Path>) -> Vec<bool> {
    let mut verdicts = Vec::new();
    for program in ["gpgv", "sqv"] {
        if program == "sqv" && data.is_none() {
            continue;
        }
        verdicts.push(output(env.command(program).arg("--keyring").arg(keyring).arg(sig).args(data)).code == 0);
    }
    verdicts
}

/// Returns the text of an accepted document.
fn signed(env: &TestEnv, keyring: &Path, document: &Path) -> Vec<u8> {
    let text = env.path("text");
    let mut verify = env.program(["raw", "verify", "--keyring"]);
    let _ = output(verify.arg(keyring).arg("--output").arg(&text).arg(document)).success();
    fs::read(text).unwrap()
}

#[test]
fn verdicts_agree_with_gpgv_and_sqv() {
    let Some(gpg) = Gpg::new() else { return };
    if !require_program("gpgv") || !require_program("sqv") {
        return;
    }
    let mut maker = Maker { gpg, vectors: Vec::new() };
    maker.keys();
    let keyring = maker.gpg.env.path("keyring.pgp");
    let names = ["good", "rsa", "nist", "revoked", "expired", "aged"];
    maker.gpg.run(&[&["--output", keyring.to_str().unwrap(), "--export"], &names[..]].concat());
    maker.detached_confusions();
    maker.document_confusions();
    maker.damages();
    let env = &maker.gpg.env;
    let (mut wrong, mut stricter, mut accepted) = (Vec::new(), 0, 0);
    for vector in &maker.vectors {
        let name = &vector.name;
        let sig = env.write("sig", &vector.sig);
        let data: Option<PathBuf> = vector.data.as_ref().map(|data| env.write("data", data));
        let mut ours = env.program(["raw", "verify", "--keyring"]);
        let ours = output(ours.arg(&keyring).arg(&sig).args(&data));
        let json: serde_json::Value = serde_json::from_str(&ours.stdout).unwrap_or_default();
        let reason = format!("{} {}", json["reason"].as_str().unwrap_or_default(), json["causes"]);
        let good = match (ours.code, json["verdict"].as_str()) {
            (0, Some("good")) => true,
            (3, Some("refused")) => false,
            other => {
                wrong.push(format!("{name}: {other:?} {}", ours.stderr));
                continue;
            }
        };
        let others = others(env, &keyring, &sig, data.as_deref());
        // gpgv needs a known key for every signature, and does not find the key if the unsigned issuer hint is wrong. A document
        // that only this program accepts must still have the signed text.
        if good && !others.contains(&true) && signed(env, &keyring, &sig) != DATA {
            wrong.push(format!("{name}: accepted here, by the others {others:?}"));
        }
        match vector.expected {
            Expected::Good if !good => wrong.push(format!("{name}: {reason}")),
            Expected::Refused(why) if good || !reason.contains(why) => {
                wrong.push(format!("{name}: {reason} instead of {why}"))
            }
            _ => {}
        }
        accepted += usize::from(good);
        if !good && others.contains(&true) {
            stricter += 1;
            if json["reason"].as_str().is_none_or(str::is_empty) {
                wrong.push(format!("{name}: no reason"));
            }
        }
        if ours.stdout.contains('\x1b') || ours.stderr.contains('\x1b') {
            wrong.push(format!("{name}: a terminal escape"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(maker.vectors.len() > 200, "{} vectors", maker.vectors.len());
    assert!(accepted >= 20 && stricter >= 10, "{accepted} accepted, {stricter} refused that others accept");
}

#[test]
fn verify_checks_its_arguments_and_reads_standard_input() {
    let Some(gpg) = Gpg::new() else { return };
    gpg.key("good", "never");
    let keyring = gpg.export("keyring.asc");
    let maker = Maker { gpg, vectors: Vec::new() };
    let (clear, sig) = (maker.gpg("good", &[], "--clearsign"), maker.gpg("good", &[], "--detach-sign"));
    let env = &maker.gpg.env;
    let keyring = keyring.to_str().unwrap();
    let (clear_path, sig, data) = (env.write("clear", &clear), env.write("sig", sig), env.write("data", DATA));
    let (sig, data) = (sig.to_str().unwrap(), data.to_str().unwrap());
    let verify = |arguments: &[&str]| env.run([&["raw", "verify"], arguments].concat());
    // The key is not Gentoo's: without the keyring it is refused, and a fingerprint that is not in the keyring is a usage error.
    assert!(verify(&[sig, data]).code(3).stdout.contains("not in the keyring"));
    let _ = verify(&["--keyring", keyring, "--fingerprint", &"0".repeat(40), sig, data]).code(2);
    let primary: serde_json::Value =
        serde_json::from_str(&verify(&["--keyring", keyring, sig, data]).success().stdout).unwrap();
    let primary = primary["primary"].as_str().unwrap().to_owned();
    let _ = verify(&["--keyring", keyring, "--fingerprint", &primary.to_lowercase(), sig, data]).success();
    for arguments in [
        &["no-such-file", data][..],
        &[sig, "no-such-file"],
        &["--keyring", "no-such-file", sig, data],
        &["--keyring", data, sig, data],
        &["-", "-"],
        &["--output", "text", sig, data],
        &["."],
        &[sig, "."],
        &[],
    ] {
        let output = verify(arguments).code(2);
        assert_eq!(output.stdout, "", "{arguments:?}");
    }
    let _ = verify(&["--keyring", keyring, "--output", "text", clear_path.to_str().unwrap()]).success();
    assert_eq!(fs::read(env.path("text")).unwrap(), DATA);
    let bad = String::from_utf8(clear).unwrap().replace("line one", "line two");
    let bad = env.write("bad", bad);
    let _ = verify(&["--keyring", keyring, "--output", "text", bad.to_str().unwrap()]).code(3);
    let _ = verify(&["--keyring", keyring, "--output", "none", bad.to_str().unwrap()]).code(3);
    assert_eq!(fs::read(env.path("text")).unwrap(), DATA, "the file was changed");
    assert!(!env.path("none").exists());
    let mut piped = env.program(["raw", "verify", "--keyring", keyring, sig, "-"]);
    let _ = output(piped.stdin(fs::File::open(data).unwrap())).success();
    let mut piped = env.program(["raw", "verify", "--keyring", keyring, "-"]);
    let _ = output(piped.stdin(fs::File::open(clear_path).unwrap())).success();
}
