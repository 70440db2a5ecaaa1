//! Fuzz bodies, one for every parser of foreign bytes. A body accepts any input and panics if the parser breaks a promise.
//!
//! Tests run each body over its seeds in `fuzz/corpus` and over mutations of them; `scripts/fuzz` (or `cargo fuzz`) looks for new
//! inputs. All parsers promise not to panic or loop forever, to use bounded memory, and to keep control characters out of messages.

use crate::base::digest::Algorithm;
use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Component, Path};
use std::time::SystemTime;

use crate::archive::changes::{Change, Changes};
use crate::archive::unpack;
use crate::archive::unpack::decode::{Decoder, Format};
use crate::archive::unpack::limits::Limits;
use crate::archive::unpack::pax::Pax;
use crate::archive::unpack::reader::Reader;
use crate::base::error::Error;
use crate::lockfile::Lockfile;
use crate::oci::whiteout;
use crate::plan::packages::{Packages, Target};
use crate::portage::accelerate::Statistics;
use crate::portage::binpkg::gpkg::Gpkg;
use crate::portage::binpkg::index::{FileFacts, Index, Stanza};
use crate::portage::profile::funtoo::Directories;
use crate::portage::{binhost, failure, workdir};
use crate::recipe;
use crate::registry::{Reference, challenge, credentials};
use crate::source::digests;
use crate::source::pointer;
use crate::source::repository::meta_repo;
use crate::system;
use crate::verify::{self, Keyring, cleartext};

/// A fuzz body.
pub type Body = fn(&[u8]);

/// Every body, by the name of its target.
pub const TARGETS: &[(&str, Body)] = &[
    ("pointer", pointer),
    ("digests", digests),
    ("hash_file", hash_file),
    ("cleartext", cleartext),
    ("signature", signature),
    ("recipe", recipe),
    ("refusals", refusals),
    ("lockfile", lockfile),
    ("tar", tar),
    ("pax", pax),
    ("xz", |bytes| decoded(Format::Xz, bytes)),
    ("gzip", |bytes| decoded(Format::Gzip, bytes)),
    ("zstd", |bytes| decoded(Format::Zstd, bytes)),
    ("bzip2", |bytes| decoded(Format::Bzip2, bytes)),
    ("gpkg", gpkg),
    ("packages", packages),
    ("plan", plan),
    ("audit", audit),
    ("changes", changes),
    ("ego", ego),
    ("kits", kits),
    ("elf", elf),
    ("stat", stat),
    ("environment", environment),
    ("ccache", ccache),
    ("accounts", accounts),
    ("unit", unit),
    ("registry", registry),
];

/// Reads the header of a registry that asks for credentials, a file of credentials and a reference.
pub fn registry(bytes: &[u8]) {
    credentials::fuzz(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    challenge::parse(text.lines());
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(Reference::parse(&reference.to_string()).expect("it was one before"), reference);
        assert!(!reference.name().contains(".."));
    }
}

/// Maximum number of bytes to decompress from an input.
const ENOUGH: u64 = 4 << 20;

/// Runs the body of a target.
pub fn run(target: &str, bytes: &[u8]) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target's name");
    body(bytes);
}

/// Parses the list of a mirror. Each entry must be a path of two plain components.
pub fn pointer(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let found = match pointer::parse(text) {
        Ok(found) => found,
        Err(error) => return harmless(&error),
    };
    plain(&found.names());
    for entry in &found.entries {
        let path = entry.path();
        assert_eq!(path.split('/').count(), 2, "{path}");
        assert!(path.bytes().all(|byte| byte.is_ascii_graphic()), "{path}");
        assert!(!path.split('/').any(|part| matches!(part, "" | "." | "..")), "{path}");
        let name = entry.name();
        let parts = (entry.variant.as_str(), entry.timestamp.as_str(), entry.suffix.as_str());
        assert_eq!(pointer::split_name(&name), Some(parts));
        assert!((1..=crate::verify::MAX_FILE).contains(&entry.size));
        if let Ok(one) = found.entry(&entry.variant) {
            assert_eq!(one, Some(entry), "the one of its variant");
        }
    }
}

/// Parses signed digests. A digest must have the length of its algorithm, and its name must not contain a directory.
pub fn digests(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let found = match digests::parse(text) {
        Ok(found) => found,
        Err(error) => return harmless(&error),
    };
    plain(&found.given());
    for name in text.split_ascii_whitespace() {
        let name = name.trim_matches(['*', '(', ')']);
        for (algorithm, length) in [(Algorithm::Sha256, 64), (Algorithm::Sha512, 128), (Algorithm::Blake2b, 128)] {
            match found.of(name, algorithm) {
                Ok(Some(digest)) => {
                    assert!(digest.len() == length && digest.bytes().all(|byte| b"0123456789abcdef".contains(&byte)));
                    assert!(!name.contains('/'), "{name}");
                }
                Ok(None) => {}
                Err(error) => harmless(&error),
            }
        }
    }
}

/// Parses a file with one digest.
pub fn hash_file(bytes: &[u8]) {
    if let Some(digest) = digests::line(bytes) {
        assert!(bytes.to_ascii_lowercase().windows(64).any(|part| part == digest.hex().as_bytes()));
    }
}

/// Parses the framing of a cleartext-signed document. Framing an accepted text again must give the same text.
pub fn cleartext(bytes: &[u8]) {
    let document = match cleartext::document(bytes) {
        Ok(document) => document,
        Err(why) => return plain(&why),
    };
    assert!(!document.text.chars().any(|char| char.is_control() && !"\t\n".contains(char)));
    assert!(document.signature.starts_with("-----BEGIN PGP SIGNATURE-----"));
    assert!(document.signature.ends_with("-----END PGP SIGNATURE-----") || document.signature.ends_with('-'));
    let escaped: Vec<String> = document.text.split('\n').map(|line| format!("- {line}")).collect();
    let again = format!("-----BEGIN PGP SIGNED MESSAGE-----\n\n{}\n{}\n", escaped.join("\n"), document.signature);
    let again = cleartext::document(again.as_bytes()).expect("an accepted document, framed again");
    assert_eq!(again.text, document.text);
    assert_eq!(again.signature, document.signature);
}

/// Verifies signatures, detached or of a cleartext document. No input may pass as a signature of Gentoo's.
pub fn signature(bytes: &[u8]) {
    thread_local!(static KEYRING: Keyring = Keyring::embedded().expect("the built-in certificate"));
    KEYRING.with(|keyring| {
        harmless(&verify::detached("x", bytes, &b"data"[..], keyring).expect_err("a forged signature"));
        harmless(&verify::clearsigned("x", bytes, keyring).expect_err("a forged document"));
    });
}

/// Loads a recipe. The files that it includes do not exist.
pub fn recipe(bytes: &[u8]) {
    thread_local!(static PLACE: tempfile::TempDir = tempfile::tempdir().expect("a directory"));
    PLACE.with(|place| {
        let file = place.path().join("recipe.toml");
        fs_err::write(&file, bytes).expect("writing the recipe");
        let request = recipe::Request { files: vec![file], cwd: place.path().to_owned(), ..recipe::Request::default() };
        match recipe::load(&request) {
            Ok(loaded) => {
                loaded.warnings.iter().for_each(|warning| plain(warning));
                serde_json::to_string(&*loaded.job).expect("a job can be written");
            }
            Err(error) => harmless(&error),
        }
    });
}

/// Parses a lock file, which users merge and edit.
pub fn lockfile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = Lockfile::parse("quern.lock", text) {
        harmless(&error);
    }
}

/// Reads an archive twice: as it is, and with correct header checksums. A reader stops at a wrong checksum, so mutations would reach
/// little code otherwise.
pub fn tar(bytes: &[u8]) {
    archive(bytes);
    let mut repaired = bytes.to_vec();
    for block in repaired.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive(&repaired);
}

/// Reads an archive. Every path must stay inside the tree, and the data of an entry must match its header and the limits.
fn archive(bytes: &[u8]) {
    let limits = Limits { entries: 1000, bytes: 1 << 40, pax: 64 << 10, ..Limits::default() };
    let mut reader = Reader::new(bytes, limits);
    loop {
        let entry = match reader.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => return plain(&error.to_string()),
        };
        for path in [Some(&entry.path), entry_target(&entry)].into_iter().flatten() {
            let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
            assert!(inside || path.as_os_str().is_empty(), "{path:?}");
        }
        if let Ok(Some(whiteout::Whiteout::Remove(path))) = whiteout::of(&entry) {
            assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
            assert!(path.file_name().is_some() && path.parent() == entry.path.parent(), "{path:?}");
        }
        if let Some(segments) = &entry.sparse {
            let ends = segments.iter().map(|segment| segment.offset + segment.length);
            assert!(ends.max().unwrap_or(0) <= entry.size, "a segment ends after the file");
            assert_eq!(segments.iter().map(|segment| segment.length).sum::<u64>(), entry.stored);
        }
        let mut stored = 0;
        loop {
            match reader.data().map(<[u8]>::len) {
                Ok(0) => break,
                Ok(count) => {
                    stored += count as u64;
                    reader.consume(count);
                }
                Err(_) => return,
            }
        }
        assert_eq!(stored, entry.stored);
    }
    let _ = reader.finish();
}

/// Returns the target of a hard link.
fn entry_target(entry: &unpack::entry::Entry) -> Option<&std::path::PathBuf> {
    match &entry.kind {
        unpack::entry::NodeKind::Hardlink(target) => Some(target),
        _ => None,
    }
}

/// Parses PAX records.
pub fn pax(bytes: &[u8]) {
    for global in [false, true] {
        match Pax::parse(bytes, global) {
            Ok(pax) if global => assert!(pax.path.is_none() && pax.size.is_none(), "defaults for all files"),
            Ok(pax) => assert!(pax.path.is_none_or(|path| !path.is_empty() && !path.contains(&0))),
            Err(_) => {}
        }
    }
}

/// Decompresses a file. Truncated and damaged files must end with an error.
fn decoded(format: Format, bytes: &[u8]) {
    let Ok(decoder) = Decoder::of(format, io::Cursor::new(bytes.to_vec())) else { return };
    let _ = io::copy(&mut decoder.take(ENOUGH), &mut io::sink());
}

/// Reads a binary package, also one whose digests are wrong: mutations would reach little code otherwise.
pub fn gpkg(bytes: &[u8]) {
    let gpkg = match Gpkg::open(bytes.to_vec()) {
        Ok(gpkg) => gpkg,
        Err(fault) => return plain(&fault.to_string()),
    };
    assert!(!gpkg.prefix().contains('/'));
    let faults = [gpkg.verify().err(), gpkg.image().err(), gpkg.metadata().err()];
    faults.iter().flatten().for_each(|fault| plain(&fault.to_string()));
    if let Ok(metadata) = gpkg.metadata() {
        match Stanza::new(&metadata, &FileFacts::default()) {
            Ok(stanza) => {
                let index = Index { packages: vec![stanza], ..Index::default() };
                packages(index.text(0).as_bytes());
            }
            Err(fault) => plain(&fault.to_string()),
        }
    }
}

/// Reads an index of binary packages. An accepted index, written again, is the same index.
pub fn packages(bytes: &[u8]) {
    let index = match Index::read(bytes) {
        Ok(index) => index,
        Err(fault) => return plain(&fault.to_string()),
    };
    for package in &index.packages {
        package.fields().for_each(|(key, value)| plain(&format!("{key} {value}")));
        assert!(package.path().is_none_or(|path| !path.starts_with('/') && !path.split('/').any(|part| part == "..")));
    }
    let text = index.text(1);
    let again = Index::parse(&text).expect("an accepted index, written again");
    assert_eq!(again.text(1), text);
}

/// Reads the packages that a program in the builder names, and writes the table of them.
pub fn plan(bytes: &[u8]) {
    match crate::portage::query::plan::read(bytes) {
        Ok(found) => {
            let mut packages = Packages::default();
            packages.add(found, |package| if package.source { Target::Image } else { Target::Builder });
            packages.to_string().lines().for_each(plain);
            plain(&serde_json::to_string(&packages.document()).expect("a document"));
        }
        Err(error) => harmless(&error),
    }
}

/// Reads the output of a failed emerge. The error must be safe to show and of a bounded size, and its lines for the recipe valid.
pub fn refusals(bytes: &[u8]) {
    let (output, pretended) = bytes.split_at(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    if let Some(error) = binhost::refusal(&String::from_utf8_lossy(output)) {
        harmless(&error);
    }
    let mut failure = failure::find(Path::new("/nonexistent"), SystemTime::UNIX_EPOCH, output);
    failure.learn(pretended);
    let present = failure::PackageFiles::from([("package.use".to_owned(), vec!["a/b c".to_owned()])]);
    let error = failure.into_error("merging a/b", &present);
    harmless(&error);
    let hint = error.hint().unwrap_or_default();
    assert!(hint.len() + error.to_string().len() < 1 << 20);
    if let Some(at) = hint.find("\n[portage]\n") {
        let lines =
            hint[at..].lines().take_while(|line| !line.starts_with("the whole log")).collect::<Vec<_>>().join("\n");
        assert!(toml::from_str::<toml::Table>(&lines).is_ok(), "{lines}");
    }
}

/// Reads the advisories that a program in the builder names.
pub fn audit(bytes: &[u8]) {
    match crate::portage::query::audit::read(bytes) {
        Ok(audit) => {
            plain(&audit.to_string());
            audit.warnings().for_each(|warning| plain(&warning));
        }
        Err(error) => harmless(&error),
    }
}

/// Reads a list of changes, which another store may have exported. Paths must stay inside the tree, and no other text may be accepted
/// for the same list.
pub fn changes(bytes: &[u8]) {
    let changes = match Changes::parse_plain(bytes) {
        Ok(changes) => changes,
        Err(error) => return harmless(&error),
    };
    let inside = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    for entry in changes.entries() {
        let first = if let Change::Hardlink(first) = &entry.change { Some(first) } else { None };
        assert!(inside(&entry.path) && first.is_none_or(|first| inside(first)), "{entry:?}");
    }
    assert_eq!(changes.plain(), bytes);
}

/// Reads the directories of the parts of a Funtoo profile. None may lead out of a repository.
pub fn ego(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(directories) = Directories::parse(text) else { return };
    for kind in ["arch", "build", "subarch", "flavor", "mix-ins"] {
        for path in directories.of(kind, "x86-64bit") {
            assert!(Path::new(&path).components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
        }
    }
}

/// Reads the kits of a meta-repo: the two documents, with a zero byte between them.
pub fn kits(bytes: &[u8]) {
    let (info, commits) = bytes.split_at(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    match meta_repo::kits(info, commits.get(1..).unwrap_or_default(), "1.4", &[]) {
        Ok(kits) => {
            for kit in kits {
                assert!(recipe::is_repository_name(&kit.name) && recipe::is_branch(&kit.branch), "{kit:?}");
                assert!(matches!(kit.commit.len(), 40 | 64), "{kit:?}");
                assert!(kit.commit.bytes().all(|byte| b"0123456789abcdef".contains(&byte)), "{kit:?}");
            }
        }
        Err(error) => harmless(&error),
    }
}

/// Reads the head of a program.
pub fn elf(bytes: &[u8]) {
    if let Some(loader) = crate::builder::elf::loader(bytes) {
        assert!(loader.starts_with('/') && loader.len() <= 256);
        plain(&loader);
    }
}

/// Reads what `/proc` says about processes, one in each line.
pub fn stat(bytes: &[u8]) {
    let stats = bytes.split(|byte| *byte == b'\n');
    let processes = stats.clone().count();
    assert!(crate::enter::left::count_descendants(stats) <= processes);
}

/// Finds the sources of a package in the environment of its phases. They must lie in its own work directory.
pub fn environment(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(path) = workdir::sources(&text, "a/b-1") {
        assert!(path.starts_with(workdir::builddir("a/b-1").join("work")), "{path:?}");
        let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        assert!(path.components().all(plain), "{path:?}");
    }
}

/// Reads the statistics of ccache.
pub fn ccache(bytes: &[u8]) {
    let (before, after) = bytes.split_at(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    plain(&Statistics::parse(after).since(Statistics::parse(before)));
}

/// A tree of a few files.
struct Files<'a>(Vec<(&'a str, &'a [u8])>);

impl system::Tree for Files<'_> {
    fn read(&self, path: &str) -> crate::base::error::Result<Option<Vec<u8>>> {
        Ok(self.0.iter().find(|(name, _)| *name == path).map(|(_, bytes)| bytes.to_vec()))
    }

    fn list(&self, path: &str) -> crate::base::error::Result<Option<Vec<String>>> {
        let names = self.0.iter().filter_map(|(name, _)| name.strip_prefix(path)?.strip_prefix('/'));
        Ok(Some(names.map(str::to_owned).collect()))
    }

    fn look(&self, path: &str) -> crate::base::error::Result<Option<system::Node>> {
        Ok(self.read(path)?.map(|_| system::Node::File(0o644)))
    }
}

/// Adds a user to account files, which the input has one after the other with a NUL between them. Each line stays, and the new files are
/// accepted again without a change.
pub fn accounts(bytes: &[u8]) {
    const NAMES: [&str; 4] = ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"];
    let user = recipe::UserSpec { name: "me".to_owned(), groups: vec!["wheel".to_owned()], ..Default::default() };
    let settings = recipe::System { users: vec![user], ..Default::default() };
    let files: Vec<_> = NAMES.into_iter().zip(bytes.split(|byte| *byte == 0)).collect();
    let change = |files: &[(&str, &[u8])]| system::settings(&settings, &Files(files.to_vec()), &Default::default());
    let outcome = match change(&files) {
        Ok(outcome) => outcome,
        Err(error) => return harmless(&error),
    };
    let mut after: BTreeMap<&str, Vec<u8>> = files.iter().map(|(name, bytes)| (*name, bytes.to_vec())).collect();
    for change in outcome.changes {
        let system::Change::File { path, bytes, .. } = change else { continue };
        let Some(name) = NAMES.into_iter().find(|name| *name == path) else { continue };
        let lines = after.get(name).map(|before| before.split(|byte| *byte == b'\n').count()).unwrap_or_default();
        assert!(bytes.split(|byte| *byte == b'\n').count() + 1 >= lines, "{path}");
        after.insert(name, bytes);
    }
    let after: Vec<_> = after.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
    let again = change(&after).expect("files of the program's own");
    let of_accounts =
        |change: &&system::Change| matches!(change, system::Change::File { path, .. } if NAMES.contains(&&**path));
    assert_eq!(again.changes.iter().find(of_accounts), None);
}

/// Enables a unit. Every link lies in systemd's directory and has a plain name.
pub fn unit(bytes: &[u8]) {
    let units = recipe::Units { enable: vec!["x@1.service".to_owned()], ..Default::default() };
    let settings = recipe::System { units, init: Some(recipe::Init::Systemd), ..Default::default() };
    let tree = Files(vec![("/usr/lib/systemd/system/x@.service", bytes)]);
    let outcome = match system::settings(&settings, &tree, &Default::default()) {
        Ok(outcome) => outcome,
        Err(error) => return harmless(&error),
    };
    outcome.warnings.iter().for_each(|warning| plain(warning));
    for change in &outcome.changes {
        let system::Change::Link { path, target, .. } = change else { panic!("{change:?}") };
        let inner = Path::new(path).strip_prefix("/etc/systemd/system").expect("a place for links");
        assert!(inner.components().all(|part| matches!(part, Component::Normal(_))), "{path}");
        assert_eq!(target, "/usr/lib/systemd/system/x@.service");
    }
}

/// Checks that an error contains no control characters.
fn harmless(error: &Error) {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(said) = cause {
        plain(&said.to_string());
        cause = said.source();
    }
    error.hint().into_iter().chain(error.details()).for_each(plain);
}

fn plain(text: &str) {
    assert!(!text.chars().any(|char| char.is_control() && !"\n\t".contains(char)), "{text:?}");
}

#[cfg(test)]
mod tests {

    use super::*;

    /// Mutations of each seed.
    const MUTATIONS: usize = 400;

    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % end.max(1) as u64) as usize
        }

        /// Makes one to four changes: flips a bit, sets, inserts or removes bytes, repeats a part, splices from another seed, or truncates.
        fn mutated(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
            let mut bytes = seed.to_vec();
            for _ in 0..=self.below(4) {
                let at = self.below(bytes.len());
                let end = (at + 1 + self.below(32)).min(bytes.len());
                match self.below(7) {
                    0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                    1 if at < bytes.len() => bytes[at] = b"\0\n\r-/. 09\xff\x1b="[self.below(12)],
                    2 if at < end => drop(bytes.drain(at..end)),
                    3 if at < end => bytes.extend_from_within(at..end),
                    4 => bytes.truncate(at),
                    5 => {
                        let from = self.below(other.len());
                        let to = (from + self.below(64)).min(other.len());
                        bytes.splice(at..at, other[from..to].iter().copied()).for_each(drop);
                    }
                    _ => bytes.insert(at, self.below(256) as u8),
                }
            }
            bytes
        }
    }

    #[test]
    fn every_body_accepts_its_seeds_and_mutations_of_them() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        // A published crate does not contain the corpus.
        if !root.exists() {
            return;
        }
        for &(name, body) in TARGETS {
            let mut paths: Vec<_> =
                fs_err::read_dir(root.join("corpus").join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs_err::read(path).unwrap()).collect();
            assert!(seeds.len() > 1, "{name} has no seeds");
            let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
            for seed in &seeds {
                body(seed);
                for _ in 0..MUTATIONS {
                    let other = &seeds[dice.below(seeds.len())];
                    let bytes = dice.mutated(seed, other);
                    body(&bytes);
                }
            }
        }
    }

    #[test]
    fn every_body_has_a_target() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        if !root.exists() {
            return;
        }
        let manifest = fs_err::read_to_string(root.join("Cargo.toml")).unwrap();
        for &(name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            let source = fs_err::read_to_string(root.join(format!("fuzz_targets/{name}.rs"))).unwrap();
            assert!(source.contains(&format!("run(\"{name}\", bytes)")), "{name}");
        }
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    }
}
