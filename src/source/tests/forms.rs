//! Good and bad forms of a mirror's documents, signed by GnuPG with new keys. Each form is a row of a table.
//!
//! A bad form is refused with its own message, leaves no blob, and does not prevent the use of the next, honest mirror.

use std::collections::BTreeMap;

use super::mirror::{AUTOBUILDS, Mirror, VARIANT, build, job, latest, store};
use super::*;

/// A mirror, good and bad keys, and the rows that change the mirror.
struct Forge {
    mirror: Mirror,
    /// The primary fingerprint of the key that may sign.
    good: String,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    /// The content that replaces the file; `None` removes the file.
    changes: Vec<(String, Option<Vec<u8>>)>,
    expected: Expected,
}

enum Expected {
    Good,
    Bad(Kind, &'static str),
    /// Signed by the right key, so that all mirrors have it.
    Signed(&'static str),
}

/// A document that can have a bad signature.
#[derive(Clone, Copy)]
enum Document {
    List,
    Digests,
}
use Document::{Digests, List};

impl Forge {
    fn new() -> Option<Self> {
        let mut mirror = Mirror::new()?;
        let gpg = &mirror.gpg;
        let good = gpg.fingerprints("good")[0].clone();
        let days_ago = |days: u64| format!("{}!", now() - days * 86_400);
        for name in ["stranger", "unnamed", "revoked"] {
            gpg.key(name, &[]);
        }
        for name in ["aged", "expired"] {
            gpg.key(name, &["--faked-system-time", &days_ago(10)]);
        }
        gpg.run(&["--quick-gen-key", "weak <weak@example.org>", "rsa2048", "sign", "never"], b"");
        mirror.sign_lists();
        Some(Self { mirror, good, rows: Vec::new() })
    }

    /// Writes the keyring of the recipe: all keys except the stranger's. Must be called last.
    fn keyring(&self) {
        let names = ["good", "unnamed", "revoked", "aged", "expired", "weak"];
        self.mirror.gpg.revoke(&self.mirror.gpg.fingerprints("revoked")[0]);
        let bytes = self.mirror.gpg.run(&[&["--armor", "--export"], &names[..]].concat(), b"");
        fs_err::write(&self.mirror.keyring, bytes).unwrap();
    }

    fn path(&self, document: Document) -> String {
        match document {
            List => format!("latest-stage3-{VARIANT}.txt"),
            Digests => self.mirror.tarball(".DIGESTS"),
        }
    }

    fn text(&self, document: Document) -> String {
        let name = &self.mirror.name;
        match document {
            List => format!("# Latest as of then\n# ts={}\n{}\n", now(), self.line()),
            Digests => {
                let blake2b = Blake2b::of(&data()).hex();
                format!("# SHA512 HASH\n{}  {name}\n# BLAKE2B HASH\n{blake2b}  {name}\n", sha512(&data()))
            }
        }
    }

    /// Returns the line of the variant in the list.
    fn line(&self) -> String {
        format!("{} {}", self.mirror.tarball(""), data().len())
    }

    fn row(&mut self, name: &str, changes: Vec<(String, Option<Vec<u8>>)>, expected: Expected) {
        self.rows.push(Row { name: name.to_owned(), changes, expected });
    }

    /// Adds a document with a wrong kind of signature.
    fn signed(&mut self, name: &str, at: Document, why: &'static str, sign: impl Fn(&Gpg, &str) -> Vec<u8>) {
        let bytes = sign(&self.mirror.gpg, &self.text(at));
        self.row(name, vec![(self.path(at), Some(bytes))], Expected::Bad(Kind::Refused, why));
    }

    /// Adds a document that is changed after signing.
    fn edited(&mut self, name: &str, at: Document, why: &'static str, edit: impl Fn(String) -> String) {
        self.signed(name, at, why, |gpg, text| edit(clearsigned(gpg, text)).into_bytes());
    }

    /// Adds a document with a good signature and other content.
    fn says(&mut self, name: &str, at: Document, text: &str, expected: Expected) {
        let bytes = self.mirror.sign(text);
        self.row(name, vec![(self.path(at), Some(bytes))], expected);
    }

    /// Adds another tarball.
    fn tarball(&mut self, name: &str, bytes: Option<Vec<u8>>, kind: Kind, why: &'static str) {
        self.row(name, vec![(self.mirror.tarball(""), bytes)], Expected::Bad(kind, why));
    }

    /// Removes the digests and replaces the detached signature.
    fn detached(&mut self, name: &str, signature: Option<Vec<u8>>, expected: Expected) {
        let changes = vec![(self.mirror.tarball(".DIGESTS"), None), (self.mirror.tarball(".asc"), signature)];
        self.row(name, changes, expected);
    }

    fn signatures(&mut self) {
        let at = |days: i64| format!("{}!", now() as i64 + days * 86_400);
        let (before, past, future) = (at(-20), at(-5), at(5));
        self.signed("not signed", List, "it is not signed", |_, text| text.into());
        self.signed("not signed", Digests, "it is not signed", |_, text| text.into());
        self.signed("empty", List, "it is empty", |_, _| Vec::new());
        self.signed("blanks", Digests, "it is empty", |_, _| b" \n\n".to_vec());
        self.signed("a web page", List, "it is a web page", |_, _| b"<!doctype html><p>".to_vec());
        self.signed("by a stranger", List, "not in the keyring", |gpg, text| gpg.clearsign("stranger", &[], text));
        self.signed("by a stranger", Digests, "not in the keyring", |gpg, text| gpg.clearsign("stranger", &[], text));
        self.signed("by another", List, "not trusted here", |gpg, text| gpg.clearsign("unnamed", &[], text));
        for (digest, document) in [("SHA1", List), ("MD5", List), ("RIPEMD160", List), ("SHA1", Digests)] {
            let options = ["--allow-weak-digest-algos", "--digest-algo", digest];
            self.signed(digest, document, "can be forged", |gpg, text| gpg.clearsign("weak", &options, text));
        }
        self.signed("an expired signature", List, "has expired", |gpg, text| {
            gpg.clearsign("aged", &["--faked-system-time", &past, "--default-sig-expire", "1d"], text)
        });
        self.signed("an expired key", List, "had expired", |gpg, text| {
            // The owner sets afterwards, with an earlier date, that the key expired after its second day.
            let bytes = gpg.clearsign("expired", &[], text);
            let expired = gpg.fingerprints("expired")[0].clone();
            gpg.run(&["--faked-system-time", &at(-9), "--quick-set-expire", &expired, "seconds=86400"], b"");
            bytes
        });
        self.signed("a revoked key", List, "is revoked", |gpg, text| gpg.clearsign("revoked", &[], text));
        self.signed("of the future", List, "in the future", |gpg, text| {
            gpg.clearsign("good", &["--faked-system-time", &future], text)
        });
        self.signed("older than its key", Digests, "not a valid key", |gpg, text| {
            let options = ["--faked-system-time", &before, "--ignore-time-conflict", "--ignore-valid-from"];
            gpg.clearsign("aged", &options, text)
        });
        self.signed("an OpenPGP message", List, "OpenPGP message", |gpg, text| {
            gpg.run(&["--local-user", "good", "--armor", "--sign"], text.as_bytes())
        });
        self.signed("a detached signature", Digests, "it is a detached signature", |gpg, text| {
            gpg.detach("good", &["--armor"], text.as_bytes())
        });
        self.signed("a binary signature", List, "it is not text", |gpg, text| gpg.detach("good", &[], text.as_bytes()));
        self.signed("a file's signature", List, "signed as a file", |gpg, text| {
            let armored = String::from_utf8(gpg.detach("good", &["--armor"], text.trim_end().as_bytes())).unwrap();
            format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{text}{armored}").into_bytes()
        });
        self.signed("of another document", Digests, "bad signature", |gpg, text| {
            let (other, this) = (clearsigned(gpg, "other\n"), clearsigned(gpg, text));
            let cut = |text: &str| text.find("-----BEGIN PGP SIGNATURE").unwrap();
            [&this[..cut(&this)], &other[cut(&other)..]].concat().into_bytes()
        });
        self.signed("a certificate as signature", Digests, "packets other than signatures", |gpg, text| {
            let key = String::from_utf8(gpg.run(&["--armor", "--export", "good"], b"")).unwrap();
            let this = clearsigned(gpg, text);
            let key = key.replace("PUBLIC KEY BLOCK", "SIGNATURE");
            format!("{}{key}", &this[..this.find("-----BEGIN PGP SIGNATURE").unwrap()]).into_bytes()
        });
        self.signed("too many signatures", List, "too many signatures", |gpg, text| {
            let block = gpg.detach("good", &["--textmode", "--digest-algo", "SHA512"], text.trim_end().as_bytes());
            let armored = gpg.run(&["--enarmor"], &block.repeat(17));
            let armored = String::from_utf8(armored).unwrap().replace("PGP ARMORED FILE", "PGP SIGNATURE");
            format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{text}{armored}").into_bytes()
        });
    }

    fn framing(&mut self) {
        let end = "-----END PGP SIGNATURE-----";
        self.edited("a changed text", List, "bad signature", |text| text.replace("# Latest", "# Oldest"));
        self.edited("text before", List, "before its signed part", |text| format!("evil\n{text}"));
        self.edited("text after", List, "after the signature", |text| format!("{text}evil\n"));
        self.edited("a second document", Digests, "after the signature", |text| text.repeat(2));
        self.edited("NotDashEscaped", List, "header other than Hash", |text| {
            text.replacen("\n\n", "\nNotDashEscaped: x\n\n", 1)
        });
        self.edited("text as a header", Digests, "header other than Hash", |text| text.replacen("\n\n", "\nx\n\n", 1));
        self.edited("another digest in the header", List, "does not say", |text| text.replace("SHA512\n", "SHA384\n"));
        self.edited("a dash", List, "not escaped", |text| text.replace("# ts", "-evil 1\n# ts"));
        self.edited("an END as text", Digests, "not escaped", |text| text.replace("# SHA512", &format!("{end}\n#")));
        for (name, control, at) in [
            ("a form feed", "\u{c}", List),
            ("a vertical tab", "\u{b}", List),
            ("a NUL", "\0", List),
            ("a carriage return", "x\rx", List),
            ("a next line", "\u{85}", List),
            ("a terminal escape", "\u{1b}[2J", List),
            ("a backspace", "\u{8}", Digests),
        ] {
            self.edited(name, at, "control characters", |text| text.replace("# ", &format!("# {control}")));
        }
        self.signed("Latin-1", Digests, "it is not text", |gpg, text| {
            let text = clearsigned(gpg, text).into_bytes();
            text.iter().map(|byte| if *byte == b'#' { 0xe9 } else { *byte }).collect()
        });
        self.edited("no signature", List, "it has no signature", |text| cut(&text, "-----BEGIN PGP SIGNATURE"));
        self.edited("half a signature", List, "cut short", |text| cut(&text, end));
        self.edited("another END", List, "not closed", |text| text.replace("END PGP SIG", "END PGP MESSAGE SIG"));
        self.edited("headers alone", List, "within its headers", |text| cut(&text, "\n\n"));
        self.edited("damaged armor", Digests, "malformed", |text| {
            let at = text.find("-----BEGIN PGP SIGNATURE").unwrap() + 40;
            format!("{}!!!!{}", &text[..at], &text[at + 4..])
        });
        let mib = vec![b'x'; (crate::verify::MAX_DOCUMENT + 1) as usize];
        self.row("1 MiB", vec![(self.path(List), Some(mib))], Expected::Bad(Kind::Network, "larger than 1024 KiB"));
    }

    fn lists(&mut self) {
        let (line, ts) = (self.line(), now());
        let refused = |why| Expected::Bad(Kind::Refused, why);
        let mut says = |name: &str, text: String, why: &'static str| self.says(name, List, &text, refused(why));
        let fresh = |line: &str| format!("# ts={ts}\n{line}\n");
        says("no entry", format!("# ts={ts}\n"), "but nothing");
        says("another variant", fresh(&line.replace("musl", "openrc")), "but amd64-openrc");
        says("a longer variant", fresh(&line.replace("musl", "musl-llvm")), "but amd64-musl-llvm");
        says("two entries", fresh(&format!("{line}\n{line}")), "more than once");
        says("of two days", fresh(&line.replacen("0810", "0809", 1)), "no stage3 (1 other files)");
        says("up", fresh(&format!("../{line}")), "leaves the directory: ../2026");
        says("up in the middle", fresh(&line.replace('/', "/../")), "/../stage3");
        says("absolute", fresh(&format!("/{line}")), "leaves the directory: /2026");
        says("a URL", fresh(&format!("http://evil.example/{line}")), "leaves the directory: http:");
        says("no size", fresh(line.split(' ').next().unwrap()), "expected a path and a size");
        says("three fields", fresh(&format!("{line} 1")), "expected a path and a size");
        for (size, why) in [
            ("0", "out of bounds"),
            ("99999999999999", "out of bounds"),
            ("18446744073709551616", "not a number"),
            ("-1", "not a number"),
            ("1e6", "not a number"),
            ("٣", "not a number"),
        ] {
            says(&format!("size {size}"), fresh(&line.replace("1200000", size)), why);
        }
        self.says(
            "another size",
            List,
            &fresh(&line.replace("1200000", "1200001")),
            Expected::Signed("instead of the signed size, 1200001"),
        );
        let mut says = |name: &str, text: String, why: &'static str| self.says(name, List, &text, refused(why));
        says("ts of the future", format!("# ts={}\n{line}\n", ts + 200_000), "from the future");
        says("ts too old", format!("# ts={}\n{line}\n", ts - 31 * 86_400), "31 days old");
        says("ts 0", format!("# ts=0\n{line}\n"), "1970-01-01");
        says("two ts", format!("# ts={ts}\n# ts={}\n{line}\n", ts - 1), "contradicts");
        says("ts no number", format!("# ts=now\n{line}\n"), "not a number: # ts=now");
        says("ts negative", format!("# ts=-1\n{line}\n"), "not a number: # ts=-1");
        says("a build of the future", fresh(&line.replace("2026", "2999")), "a build from its future");
    }

    fn digests(&mut self) {
        let name = self.mirror.name.clone();
        let (right, wrong) = (sha512(&data()), sha512(b"other"));
        let blake2b = Blake2b::of(b"other").hex();
        let mut says = |what: &str, text: String, why: &'static str| {
            self.says(what, Digests, &format!("{text}\n"), Expected::Bad(Kind::Refused, why));
        };
        let of = |digest: &str| format!("# SHA512 HASH\n{digest}  {name}");
        says("no digest", "# nothing".to_owned(), "but nothing");
        says("of its CONTENTS", format!("{}.CONTENTS.gz", of(&right)), ".CONTENTS.gz");
        says("of another day", of(&right).replace("0810", "0809"), "but SHA512 of");
        says("WHIRLPOOL", of(&right).replace("SHA512", "WHIRLPOOL"), "but 1 of algorithms that are not used");
        says("SHA256 alone", format!("# SHA256 HASH\n{}  {name}", &right[..64]), "but SHA256 of");
        says("BLAKE2B alone", of(&right).replace("SHA512", "BLAKE2B"), "but BLAKE2B of");
        says("two different", format!("{}\n{wrong}  {name}", of(&right)), "two different SHA512");
        says("too short", of(&right[1..]), "not a SHA512 digest");
        says("too long", of(&format!("{right}0")), "not a SHA512 digest");
        says("not hex", of(&format!("x{}", &right[1..])), "not a SHA512 digest");
        says("one blank", of(&right).replace("  ", " "), "two spaces");
        says("no file", of(&right).replace(&format!("  {name}"), ""), "a digest and a file name");
        says("no header", format!("{right}  {name}"), "no header");
        says("a path", of(&right).replace("stage3", "../stage3"), "does not name a file");
        for (what, text, why) in [
            ("another SHA512", of(&wrong), "the SHA-512 of"),
            ("another BLAKE2B", format!("{}\n# BLAKE2B HASH\n{blake2b}  {name}", of(&right)), "the BLAKE2b of"),
        ] {
            self.says(what, Digests, &text, Expected::Signed(why));
        }
    }

    fn tarballs(&mut self) {
        let changed = |at: usize| {
            let mut bytes = data();
            bytes[at] ^= 1;
            Some(bytes)
        };
        let (whole, half) = (data(), data().len() / 2);
        self.tarball("cut short", Some(whole[..half].to_vec()), Kind::Refused, "the server has 600000 bytes");
        self.tarball("longer", Some([&whole[..], &[0]].concat()), Kind::Refused, "the server has 1200001 bytes");
        self.tarball("empty", Some(Vec::new()), Kind::Refused, "the server has 0 bytes");
        self.tarball("the first bit", changed(0), Kind::Refused, "the SHA-512 of");
        self.tarball("the last bit", changed(1_199_999), Kind::Refused, "the SHA-512 of");
        self.tarball("of Sunday", Some(vec![7; data().len()]), Kind::Refused, "the SHA-512 of");
        self.tarball("missing", None, Kind::Network, "404");
        let refused = |why| Expected::Bad(Kind::Refused, why);
        let sign =
            |forge: &Self, key: &str, options: &[&str], bytes: &[u8]| forge.mirror.gpg.detach(key, options, bytes);
        let good = sign(self, "good", &["--armor"], &whole);
        self.detached("neither digests nor signature", None, Expected::Bad(Kind::Network, "no mirror has"));
        self.detached("empty .asc", Some(Vec::new()), refused("the signature is empty"));
        self.detached("text as .asc", Some(b"good\n".to_vec()), refused("it is not signed"));
        self.detached("noise as .asc", Some(vec![0xff, 0xfe, 0xfd]), refused("malformed"));
        self.detached("cut .asc", Some(good[..good.len() / 2].to_vec()), refused("cut short"));
        self.detached(".asc and more", Some([&good[..], b"x\n"].concat()), refused("after the signature"));
        let other = sign(self, "good", &[], b"other");
        self.detached(".asc of another file", Some(other), refused("bad signature"));
        let stranger = sign(self, "stranger", &[], &whole);
        self.detached(".asc by a stranger", Some(stranger), refused("not in the keyring"));
        let unnamed = sign(self, "unnamed", &[], &whole);
        self.detached(".asc by another", Some(unnamed), refused("not trusted here"));
        let text = sign(self, "good", &["--textmode"], &whole);
        self.detached("text signature as .asc", Some(text), refused("signed as text"));
        let clear = self.mirror.sign("text\n");
        self.detached("document as .asc", Some(clear), refused("it is a cleartext-signed document"));
        let weak = sign(self, "weak", &["--allow-weak-digest-algos", "--digest-algo", "SHA1"], &whole);
        self.detached(".asc of SHA1", Some(weak), refused("can be forged"));
        let message = self.mirror.gpg.run(&["--local-user", "good", "--armor", "--sign"], b"x");
        self.detached("message as .asc", Some(message), refused("OpenPGP message"));
        let many = sign(self, "good", &[], &whole).repeat(17);
        self.detached("17 signatures", Some(many), refused("too many signatures"));
    }

    fn good_forms(&mut self) {
        let (list, line, name) = (self.text(List), self.line(), self.mirror.name.clone());
        let (sha, blake2b) = (sha512(&data()), Blake2b::of(&data()).hex());
        let mut edited = |name: &str, at: Document, edit: &dyn Fn(String) -> String| {
            let bytes = edit(clearsigned(&self.mirror.gpg, &self.text(at))).into_bytes();
            self.row(name, vec![(self.path(at), Some(bytes))], Expected::Good);
        };
        edited("as it is", List, &|text| text);
        edited("CRLF", List, &|text| text.replace('\n', "\r\n"));
        edited("CRLF", Digests, &|text| text.replace('\n', "\r\n"));
        edited("empty lines around", List, &|text| format!("\n\n{text}\n \n"));
        edited("blanks at ends", Digests, &|text| text.replace(&name, &format!("{name} \t")));
        edited("no Hash header", List, &|text| text.replacen("Hash: SHA512\n", "", 1));
        let mut says = |name: &str, at: Document, text: &str| self.says(name, at, text, Expected::Good);
        says("no ts", List, &format!("{line}\n"));
        let ts = list.lines().find(|line| line.contains("ts=")).unwrap();
        says("the same ts twice", List, &list.replace(ts, &format!("{ts}\n{ts}")));
        says("other variants too", List, &format!("{list}{}\n", line.replace("musl", "openrc")));
        says("capital digits", Digests, &format!("# SHA512 HASH\n{}  {name}\n", sha.to_uppercase()));
        says("BSD form", Digests, &format!("SHA512 ({name}) = {sha}\nBLAKE2B ({name}) = {blake2b}\n"));
        says("binary marks", Digests, &format!("# SHA512 HASH\n{sha} *{name}\n"));
        says("twice the same", Digests, &format!("# SHA512 HASH\n{sha}  {name}\n{sha}  {name}\n"));
        says(
            "old digests too",
            Digests,
            &format!("# MD5 HASH\n00  {name}\n# SHA512 HASH\n{sha}  {name}\n# WHIRLPOOL HASH\n1  {name}\n"),
        );
        let two =
            self.mirror.gpg.run(&["--local-user", "good", "--local-user", "stranger", "--clearsign"], list.as_bytes());
        self.row("a stranger beside", vec![(self.path(List), Some(two))], Expected::Good);
        let all = self.mirror.sign(&format!("{list}{}\n", line.replace("musl", "openrc")));
        let changes = vec![(self.path(List), None), ("latest-stage3.txt".to_owned(), Some(all))];
        self.row("the list of all variants", changes, Expected::Good);
        for (name, options) in [("binary .asc", &[][..]), ("SHA384 .asc", &["--digest-algo", "SHA384", "--armor"])] {
            let signature = self.mirror.gpg.detach("good", options, &data());
            self.detached(name, Some(signature), Expected::Good);
        }
        for suffix in [".tar.bz2", ".tar.zst", ".tar.gz"] {
            let other = |text: &str| text.replace(".tar.xz", suffix);
            let changes = vec![
                (self.path(List), Some(self.mirror.sign(&other(&list)))),
                (other(&self.path(Digests)), Some(self.mirror.sign(&other(&self.text(Digests))))),
                (other(&self.mirror.tarball("")), Some(data())),
            ];
            self.row(suffix, changes, Expected::Good);
        }
    }

    /// Returns the error for a bad row.
    fn run(&self, row: &Row) -> Result<Option<String>, String> {
        let bad = Server::files(self.files(row));
        let wants = |servers: &[&Server]| {
            let mut job = job(latest(), servers, &self.mirror.keyring);
            job.source.fingerprints = vec![self.good.clone()];
            job
        };
        let (_home, store) = store();
        let alone = build(&wants(&[&bad]), &store);
        let said = match &alone {
            Ok(verified) => format!("accepted, with {}", verified.sha512()),
            Err(error) => told(error, &bad),
        };
        let (kind, why) = match row.expected {
            Expected::Good => (None, ""),
            Expected::Bad(kind, why) => (Some(kind), why),
            Expected::Signed(why) => (Some(Kind::Refused), why),
        };
        match (kind, alone) {
            (None, Ok(verified)) if verified.sha512() == Sha512::of(&data()) => return Ok(None),
            (Some(kind), Err(error)) => {
                if error.kind() != kind || !said.contains(why) || said.contains(char::is_control) {
                    return Err(format!("{kind:?} {why}: {:?} {said}", error.kind()));
                }
                if fs_err::read_dir(store.root().join("blobs/sha512")).is_ok_and(|mut blobs| blobs.next().is_some()) {
                    return Err(format!("a blob is left: {said}"));
                }
            }
            _ => return Err(said),
        }
        let honest = self.mirror.serve();
        match build(&wants(&[&bad, &honest]), &store) {
            Ok(verified) if verified.sha512() == Sha512::of(&data()) => Ok(Some(said)),
            Err(error) if matches!(row.expected, Expected::Signed(_)) && error.kind() == Kind::Refused => {
                Ok(Some(said))
            }
            Ok(_) => Err("other bytes with an honest mirror behind it".to_owned()),
            Err(error) => Err(format!("with an honest mirror behind it: {}", told(&error, &bad))),
        }
    }

    fn files(&self, row: &Row) -> HashMap<String, Vec<u8>> {
        let mut files = self.mirror.files.clone();
        for (path, bytes) in &row.changes {
            let path = format!("{AUTOBUILDS}/{path}");
            match bytes {
                Some(bytes) => _ = files.insert(path, bytes.clone()),
                None => _ = files.remove(&path),
            }
        }
        files
    }
}

/// Returns the message without the server's address.
fn told(error: &Error, server: &Server) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {}", printable(&cause.to_string())));
        source = cause.source();
    }
    text.replace(&server.url, "")
}

fn clearsigned(gpg: &Gpg, text: &str) -> String {
    String::from_utf8(gpg.clearsign("good", &["--digest-algo", "SHA512"], text)).unwrap()
}

/// Returns the text before `mark`.
fn cut(text: &str, mark: &str) -> String {
    text[..text.find(mark).unwrap()].to_owned()
}

#[test]
fn bad_forms_of_a_signed_mirror_are_refused() {
    let Some(mut forge) = Forge::new() else { return };
    forge.good_forms();
    let good = forge.rows.len();
    forge.signatures();
    forge.framing();
    forge.lists();
    forge.digests();
    forge.tarballs();
    forge.keyring();
    let (mut wrong, mut messages) = (Vec::new(), BTreeMap::new());
    for row in &forge.rows {
        match forge.run(row) {
            Ok(None) => {}
            Ok(Some(message)) => {
                if let Some(other) = messages.insert(message.clone(), &row.name) {
                    wrong.push(format!("{} and {other} have the same message: {message}", row.name));
                }
            }
            Err(error) => wrong.push(format!("{}: {error}", row.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(good > 20 && forge.rows.len() - good > 90, "{good} good rows of {}", forge.rows.len());
}
