//! Complete downloads from a mirror with signatures by GnuPG, and local files.

use super::*;
use crate::recipe::{Version, fixture};

pub(super) const VARIANT: &str = "amd64-musl";

pub(super) fn job(base: BaseSpec, mirrors: &[&Server], keyring: &Path) -> Job {
    let mut job = fixture::job();
    job.source.base = base;
    job.source.mirrors = mirrors.iter().map(|server| server.url.clone()).collect();
    job.source.keyring = Some(keyring.to_owned());
    job
}

pub(super) fn latest() -> BaseSpec {
    BaseSpec::Gentoo { stage3: VARIANT.to_owned(), version: Version::Latest }
}

/// The files of a mirror, which a test can change before they are served.
pub(super) struct Mirror {
    pub(super) gpg: Gpg,
    pub(super) keyring: std::path::PathBuf,
    pub(super) files: HashMap<String, Vec<u8>>,
    pub(super) timestamp: &'static str,
    pub(super) name: String,
}

pub(super) const OFFLINE: ResolveOptions<'_> = ResolveOptions { offline: true, allow_rollback: false, locked: None };
pub(super) const AUTOBUILDS: &str = "/releases/amd64/autobuilds";

impl Mirror {
    pub(super) fn new() -> Option<Self> {
        let gpg = gpg()?;
        gpg.key("good", &[]);
        let keyring = gpg.home.path().join("release.asc");
        fs_err::write(&keyring, gpg.run(&["--armor", "--export"], b"")).unwrap();
        let timestamp = "20260810T204554Z";
        let name = format!("stage3-{VARIANT}-{timestamp}.tar.xz");
        let mut mirror = Self { gpg, keyring, files: HashMap::new(), timestamp, name };
        mirror.put(&mirror.tarball(""), data());
        mirror.put(&mirror.tarball(".asc"), mirror.gpg.detach("good", &["--armor"], &data()));
        mirror.sign_lists();
        Some(mirror)
    }

    /// Makes a mirror whose list has no timestamp and was signed at this time, by a key that was a day old.
    pub(super) fn older(then: &str) -> Self {
        let mut mirror = Self::new().expect("GnuPG is there");
        let made: u64 = then.trim_end_matches('!').parse().unwrap();
        mirror.gpg.key("old", &["--faked-system-time", &format!("{}!", made - 86_400)]);
        fs_err::write(&mirror.keyring, mirror.gpg.run(&["--armor", "--export"], b"")).unwrap();
        let text = format!("{} {}\n", mirror.tarball(""), data().len());
        let signed = mirror.gpg.clearsign("old", &["--faked-system-time", then], &text);
        mirror.put(&format!("latest-stage3-{VARIANT}.txt"), signed);
        mirror
    }

    pub(super) fn sign_lists(&mut self) {
        let digests = format!(
            "# SHA512 HASH\n{}  {name}\n# BLAKE2B HASH\n{}  {name}\n# SHA512 HASH\n{}  {name}.CONTENTS.gz\n",
            sha512(&data()),
            Blake2b::of(&data()).hex(),
            "0".repeat(128),
            name = self.name
        );
        self.put(&self.tarball(".DIGESTS"), self.sign(&digests));
        self.publish(now());
    }

    pub(super) fn tarball(&self, suffix: &str) -> String {
        format!("{}/{}{suffix}", self.timestamp, self.name)
    }

    pub(super) fn sign(&self, text: &str) -> Vec<u8> {
        self.gpg.clearsign("good", &[], text)
    }

    pub(super) fn put(&mut self, path: &str, bytes: Vec<u8>) {
        self.files.insert(format!("{AUTOBUILDS}/{path}"), bytes);
    }

    pub(super) fn drop(&mut self, path: &str) {
        self.files.remove(&format!("{AUTOBUILDS}/{path}")).unwrap();
    }

    pub(super) fn publish(&mut self, ts: u64) {
        let text = format!("# Latest as of then\n# ts={ts}\n{} {}\n", self.tarball(""), data().len());
        self.put(&format!("latest-stage3-{VARIANT}.txt"), self.sign(&text));
    }

    pub(super) fn serve(&self) -> Server {
        Server::files(self.files.clone())
    }
}

pub(super) fn build(job: &Job, store: &Store) -> Result<crate::verify::Verified> {
    let located = locate(job, &Site::new(store, ResolveOptions::default(), &Silent))?;
    verify(fetch(&located, &Site::new(store, ResolveOptions::default(), &Silent))?)
}

pub(super) fn store() -> (tempfile::TempDir, Store) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    (home, store)
}

#[test]
fn the_latest_build_is_located_fetched_verified_and_remembered() {
    let Some(mirror) = Mirror::new() else { return };
    let (_home, store) = store();
    let server = mirror.serve();
    let job = job(latest(), &[&server], &mirror.keyring);
    assert!(known(&job, &store).unwrap().is_none());
    assert_eq!(locate(&job, &Site::new(&store, OFFLINE, &Silent)).unwrap_err().kind(), Kind::Network);
    let verified = build(&job, &store).unwrap();
    let mut bytes = Vec::new();
    verified.open().unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes == data());
    assert_eq!(verified.name(), mirror.name);
    assert_eq!(verified.size(), data().len() as u64);
    assert_eq!(locate(&job, &Site::new(&store, OFFLINE, &Silent)).unwrap().timestamp(), Some(mirror.timestamp));
    assert_eq!(verified.signer(), Some(mirror.gpg.fingerprints("good")[0].as_str()));
    assert!(verified.trust_basis().starts_with("clearsigned DIGESTS by "));
    assert_eq!(server.seen().len(), 3);
    // The second time, only the pointer is requested.
    build(&job, &store).unwrap();
    assert_eq!(server.seen().len(), 4);
    // An offline run sends no requests.
    let offline = locate(&job, &Site::new(&store, OFFLINE, &Silent)).unwrap();
    assert_eq!(offline.sha512(), Some(verified.sha512()));
    verify(fetch(&offline, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap()).unwrap();
    assert_eq!(server.seen().len(), 4);
    store.remove_blob(&verified.sha512()).unwrap();
    let left = store.root().join(format!("blobs/partial/{}-{}.part", mirror.name, &verified.sha512().hex()[..16]));
    fs_err::write(&left, &data()[..1000]).unwrap();
    let error = fetch(&offline, &Site::new(&store, ResolveOptions::default(), &Silent)).map(|_| ()).unwrap_err();
    assert!(error.kind() == Kind::Network && error.hint().unwrap().contains("--offline"));
    assert_eq!(fs_err::metadata(left).unwrap().len(), 1000);
    // With another keyring, the file must be verified again.
    let mut other = job.clone();
    other.source.keyring = None;
    assert!(known(&other, &store).unwrap().is_none());
    assert!(build(&other, &store).unwrap_err().to_string().contains("not in the keyring"));
}

#[test]
fn a_good_mirror_is_used_after_bad_and_silent_ones() {
    let Some(mut mirror) = Mirror::new() else { return };
    let good = mirror.serve();
    let pointer = format!("latest-stage3-{VARIANT}.txt");
    mirror.put(&pointer, b"# ts=1\n".to_vec());
    let unsigned = mirror.serve();
    mirror.publish(now() - 40 * 86_400);
    let stale = mirror.serve();
    let mut down = Server::files(HashMap::new());
    down.url = "http://127.0.0.1:1".to_owned();
    let (_home, store) = store();
    let bad = [&unsigned, &stale, &down];
    let error = locate(&job(latest(), &bad, &mirror.keyring), &Site::new(&store, ResolveOptions::default(), &Silent))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    let details = error.details().unwrap();
    for part in ["it is not signed", "40 days old", "cannot connect"] {
        assert!(details.contains(part), "{details}");
    }
    let error =
        locate(&job(latest(), &[&down], &mirror.keyring), &Site::new(&store, ResolveOptions::default(), &Silent))
            .unwrap_err();
    assert!(error.kind() == Kind::Network && error.hint().is_some());
    let job = job(latest(), &[&unsigned, &stale, &down, &good], &mirror.keyring);
    let heard = Heard::default();
    let located = locate(&job, &Site::new(&store, ResolveOptions::default(), &heard)).unwrap();
    assert_eq!(heard.0.lock().unwrap().len(), 3);
    assert!(located.urls()[0].starts_with(&good.url));
    verify(fetch(&located, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap()).unwrap();
    // Everything is in the store now: without network, the error suggests --offline.
    let mut down_job = job.clone();
    down_job.source.mirrors = vec![down.url.clone()];
    let error = locate(&down_job, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap_err();
    assert!(error.kind() == Kind::Network && error.hint().unwrap().contains("--offline"), "{error:?}");
}

#[test]
fn wrong_digests_are_refused() {
    let Some(mut mirror) = Mirror::new() else { return };
    let (_home, store) = store();
    // The signed digests do not match the tarball.
    let digests = format!("# SHA512 HASH\n{}  {}\n", "0".repeat(128), mirror.name);
    mirror.put(&mirror.tarball(".DIGESTS"), mirror.sign(&digests));
    let error = build(&job(latest(), &[&mirror.serve()], &mirror.keyring), &store).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("SHA-512"), "{error}");
    // Digests of a tarball of another day.
    mirror.put(&mirror.tarball(".DIGESTS"), mirror.sign(&digests.replace("20260810", "20260803")));
    let (_home, store) = self::store();
    let error = build(&job(latest(), &[&mirror.serve()], &mirror.keyring), &store).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("no SHA512 for"), "{error}");
    // The pointer names another variant.
    let text = format!("# ts={}\n{} 1\n", now(), mirror.tarball("").replace("musl", "openrc"));
    mirror.put(&format!("latest-stage3-{VARIANT}.txt"), mirror.sign(&text));
    let error = build(&job(latest(), &[&mirror.serve()], &mirror.keyring), &store).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("does not name"), "{error}");
}

#[test]
fn without_digests_the_detached_signature_is_used() {
    let Some(mut mirror) = Mirror::new() else { return };
    mirror.drop(&mirror.tarball(".DIGESTS"));
    let (_home, store) = store();
    let server = mirror.serve();
    let job_ = job(latest(), &[&server], &mirror.keyring);
    let verified = build(&job_, &store).unwrap();
    assert_eq!(verified.signer(), Some(mirror.gpg.fingerprints("good")[0].as_str()));
    assert!(verified.trust_basis().contains("detached signature by"));
    let located = locate(&job_, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap();
    assert_eq!(located.sha512(), Some(verified.sha512()));
    // A signature of another file is refused, and nothing is kept.
    let mut other = data();
    other[0] ^= 1;
    mirror.put(&mirror.tarball(""), other);
    let (home, store) = self::store();
    let error = build(&job(latest(), &[&mirror.serve()], &mirror.keyring), &store).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("bad signature"), "{error}");
    assert!(!home.path().join("blobs/sha512").exists());
    // Without digests and signature, the file is refused.
    mirror.drop(&mirror.tarball(".asc"));
    let error = build(&job(latest(), &[&mirror.serve()], &mirror.keyring), &store).unwrap_err();
    assert!(error.kind() == Kind::Network && error.to_string().contains("no mirror has"), "{error}");
}

#[test]
fn a_timestamp_needs_no_pointer() {
    let Some(mut mirror) = Mirror::new() else { return };
    mirror.drop(&format!("latest-stage3-{VARIANT}.txt"));
    let (_home, store) = store();
    let server = mirror.serve();
    let at = |ts: &str| BaseSpec::Gentoo { stage3: VARIANT.to_owned(), version: Version::Timestamp(ts.to_owned()) };
    let verified = build(&job(at(mirror.timestamp), &[&server], &mirror.keyring), &store).unwrap();
    assert_eq!(verified.sha512(), Sha512::of(&data()));
    let error = build(&job(at("20200101T000000Z"), &[&server], &mirror.keyring), &store).unwrap_err();
    assert!(error.kind() == Kind::Network && error.hint().unwrap().contains("five weeks"), "{error:?}");
}

#[test]
fn the_list_of_all_variants_is_used_if_the_other_is_missing() {
    let Some(mut mirror) = Mirror::new() else { return };
    mirror.drop(&format!("latest-stage3-{VARIANT}.txt"));
    let line = |variant: &str| format!("{} {}\n", mirror.tarball("").replace(VARIANT, variant), data().len());
    let text = format!("# ts={}\n{}{}", now(), line(VARIANT), line("amd64-openrc"));
    mirror.put("latest-stage3.txt", mirror.sign(&text));
    let (_home, store) = store();
    let server = mirror.serve();
    build(&job(latest(), &[&server], &mirror.keyring), &store).unwrap();
    let typo = BaseSpec::Gentoo { stage3: "amd64-mussel".to_owned(), version: Version::Latest };
    let error = build(&job(typo, &[&server], &mirror.keyring), &store).unwrap_err();
    assert!(error.kind() == Kind::Network && error.hint().unwrap().contains("amd64-musl, amd64-openrc"), "{error:?}");
}

#[test]
fn local_files_are_verified() {
    let Some(gpg) = gpg() else { return };
    gpg.key("good", &[]);
    let keyring = gpg.home.path().join("release.asc");
    fs_err::write(&keyring, gpg.run(&["--armor", "--export"], b"")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage3-amd64-musl-20260810T204554Z.tar.xz");
    fs_err::write(&path, data()).unwrap();
    let (_home, store) = store();
    let base = |sha512: Option<String>, allow_unsigned| {
        job(BaseSpec::File { path: path.clone(), signature: None, sha512, allow_unsigned }, &[], &keyring)
    };
    let error = build(&base(None, false), &store).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.hint().unwrap().contains("allow-unsigned"), "{error:?}");
    let unsigned = build(&base(None, true), &store).unwrap();
    assert!(unsigned.trust_basis().contains("unsigned") && unsigned.signer().is_none());
    let located = locate(&base(None, true), &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap();
    assert_eq!(located.timestamp(), Some("20260810T204554Z"));
    let digest = build(&base(Some(sha512(&data())), false), &store).unwrap();
    assert!(digest.trust_basis().contains("SHA-512 in the recipe"));
    let error = build(&base(Some("0".repeat(128)), true), &store).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    for suffix in [".asc", ".sig", ".gpg"] {
        let signature = dir.path().join(format!("{}{suffix}", path.file_name().unwrap().display()));
        let armor: &[&str] = if suffix == ".asc" { &["--armor"] } else { &[] };
        fs_err::write(&signature, gpg.detach("good", armor, &data())).unwrap();
        let signed = build(&base(None, false), &store).unwrap();
        assert_eq!(signed.signer(), Some(gpg.fingerprints("good")[0].as_str()));
        fs_err::write(&signature, gpg.detach("good", armor, b"else")).unwrap();
        assert!(build(&base(None, true), &store).unwrap_err().to_string().contains("bad signature"));
        fs_err::remove_file(&signature).unwrap();
    }
    // The file changes between locating and fetching.
    let located = locate(&base(None, true), &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap();
    store.remove_blob(&located.sha512().unwrap()).unwrap();
    fs_err::write(&path, b"other").unwrap();
    let error = fetch(&located, &Site::new(&store, ResolveOptions::default(), &Silent)).map(|_| ()).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("changed"), "{error}");
    fs_err::remove_file(&path).unwrap();
    assert_eq!(build(&base(None, true), &store).unwrap_err().kind(), Kind::Usage);
    let fifo = BaseSpec::File { path: dir.path().to_owned(), signature: None, sha512: None, allow_unsigned: true };
    assert_eq!(build(&job(fifo, &[], &keyring), &store).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn an_unchanged_file_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.tar");
    fs_err::write(&path, data()).unwrap();
    // The first run must be well after the change, because of the resolution of file times.
    std::thread::sleep(Duration::from_millis(3200));
    let (_home, store) = store();
    let job = job(
        BaseSpec::File { path: path.clone(), signature: None, sha512: None, allow_unsigned: true },
        &[],
        dir.path(),
    );
    assert!(known(&job, &store).unwrap().is_none());
    let located = locate(&job, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap();
    assert_eq!(known(&job, &store).unwrap().unwrap().sha512(), located.sha512());
    fs_err::write(&path, data()).unwrap();
    assert!(known(&job, &store).unwrap().is_none());
}

#[test]
fn an_older_list_is_refused_and_the_newest_one_is_remembered() {
    let Some(mut mirror) = Mirror::new() else { return };
    let (_home, store) = store();
    let pointer = |mirror: &Mirror, ts: u64, build: &str| {
        let name = mirror.tarball("").replace(mirror.timestamp, build);
        mirror.sign(&format!("# ts={ts}\n{name} {}\n", data().len()))
    };
    let list = format!("latest-stage3-{VARIANT}.txt");
    let ask = |mirror: &Mirror, terms: ResolveOptions| {
        let server = mirror.serve();
        locate(&job(latest(), &[&server], &mirror.keyring), &Site::new(&store, terms, &Silent))
    };
    let allowed = ResolveOptions { allow_rollback: true, ..ResolveOptions::default() };
    ask(&mirror, ResolveOptions::default()).unwrap();
    // The same list is accepted again. An older list is refused, even if it names the same build.
    let made = now();
    mirror.publish(made - 3600);
    let error = ask(&mirror, ResolveOptions::default()).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("older than one seen before"), "{error}");
    assert!(error.hint().unwrap().contains("--allow-rollback"));
    ask(&mirror, allowed).unwrap();
    assert_eq!(ask(&mirror, ResolveOptions::default()).unwrap_err().kind(), Kind::Refused, "accepted once");
    // An older build in a new list, and in the list of all variants.
    mirror.put(&list, pointer(&mirror, made + 10, "20260101T000000Z"));
    let error = ask(&mirror, ResolveOptions::default()).unwrap_err();
    assert!(error.to_string().contains("20260101T000000Z") && error.to_string().contains(mirror.timestamp), "{error}");
    mirror.drop(&list);
    mirror.put("latest-stage3.txt", pointer(&mirror, made + 10, "20260101T000000Z"));
    assert_eq!(ask(&mirror, ResolveOptions::default()).unwrap_err().kind(), Kind::Refused);
    // The list of all variants may be a few seconds older than the other list.
    mirror.put("latest-stage3.txt", pointer(&mirror, made - 60, mirror.timestamp));
    ask(&mirror, ResolveOptions::default()).unwrap();
    // After an outdated mirror, the next one is used.
    mirror.put("latest-stage3.txt", pointer(&mirror, made - 600, mirror.timestamp));
    let lagging = mirror.serve();
    mirror.publish(made + 20);
    let good = mirror.serve();
    let both = job(latest(), &[&lagging, &good], &mirror.keyring);
    assert!(
        locate(&both, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap().urls()[0].starts_with(&good.url)
    );
    // A renewed keyring with the same keys keeps the stored version.
    mirror.publish(made);
    fs_err::write(&mirror.keyring, mirror.gpg.run(&["--export"], b"")).unwrap();
    assert_eq!(ask(&mirror, ResolveOptions::default()).unwrap_err().kind(), Kind::Refused);
}

#[test]
fn the_recipe_sets_the_maximum_age_of_a_list() {
    let Some(mut mirror) = Mirror::new() else { return };
    let (_home, store) = store();
    mirror.publish(now() - 3 * 3600);
    let server = mirror.serve();
    let mut job = job(latest(), &[&server], &mirror.keyring);
    job.source.max_age = 2 * 3600;
    let error = locate(&job, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("3 hours old"), "{error}");
    assert!(error.hint().unwrap().contains("clock") && error.hint().unwrap().contains("source.max-age"));
    job.source.max_age = 4 * 3600;
    locate(&job, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap();
}

#[test]
fn an_imported_certificate_is_trusted_only_if_the_recipe_names_it() {
    let Some(mirror) = Mirror::new() else { return };
    let (_home, store) = store();
    let server = mirror.serve();
    let primary = mirror.gpg.fingerprints("good")[0].clone();
    let mut job = job(latest(), &[&server], &mirror.keyring);
    job.source.keyring = None;
    job.source.fingerprints = vec![primary.clone()];
    let missing = locate(&job, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap_err();
    assert!(missing.kind() == Kind::Usage && missing.hint().unwrap().contains("keys import"), "{missing}");
    store.write_certificate(&primary, &fs_err::read(&mirror.keyring).unwrap()).unwrap();
    build(&job, &store).unwrap();
    job.source.fingerprints.clear();
    let error = locate(&job, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("not trusted here"), "{error}");
}

#[test]
fn a_key_that_expires_soon_causes_a_warning() {
    let Some(mut mirror) = Mirror::new() else { return };
    let primary = mirror.gpg.fingerprints("good")[0].clone();
    let mut warned = |expires: &[&str]| {
        // GnuPG replaces the self-signatures, so the documents must be signed again.
        if !expires.is_empty() {
            mirror.gpg.run(&[&["--quick-set-expire", &primary], expires].concat(), b"");
            mirror.sign_lists();
        }
        let (_home, store) = store();
        let heard = Heard::default();
        fs_err::write(&mirror.keyring, mirror.gpg.run(&["--armor", "--export"], b"")).unwrap();
        locate(
            &job(latest(), &[&mirror.serve()], &mirror.keyring),
            &Site::new(&store, ResolveOptions::default(), &heard),
        )
        .unwrap();
        heard.0.into_inner().unwrap()
    };
    assert!(warned(&[]).is_empty());
    // First the signing subkey, then the whole certificate.
    let lines = warned(&["59d", "*"]);
    assert!(lines.len() == 1 && lines[0].contains(&primary) && lines[0].contains("keys refresh"), "{lines:?}");
    assert!(warned(&["62d", "*"]).is_empty());
    assert_eq!(warned(&["59d"]).len(), 1);
}

#[test]
fn a_renewed_certificate_needs_no_network() {
    let Some(mirror) = Mirror::new() else { return };
    let (_home, store) = store();
    let server = mirror.serve();
    let job = job(latest(), &[&server], &mirror.keyring);
    build(&job, &store).unwrap();
    let primary = mirror.gpg.fingerprints("good")[0].clone();
    mirror.gpg.run(&["--quick-add-uid", &primary, "good <good@example.com>"], b"");
    mirror.gpg.run(&["--quick-gen-key", "another <another@example.org>", "ed25519", "sign", "never"], b"");
    fs_err::write(&mirror.keyring, mirror.gpg.run(&["--armor", "--export"], b"")).unwrap();
    let asked = server.seen().len();
    let located = locate(&job, &Site::new(&store, OFFLINE, &Silent)).unwrap();
    let verified = verify(fetch(&located, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap()).unwrap();
    assert_eq!((verified.signer(), server.seen().len()), (Some(primary.as_str()), asked));
    // With only another certificate, the key is unknown.
    fs_err::write(&mirror.keyring, mirror.gpg.run(&["--armor", "--export", "another"], b"")).unwrap();
    assert_eq!(locate(&job, &Site::new(&store, OFFLINE, &Silent)).unwrap_err().kind(), Kind::Network);
}

#[test]
fn signed_digests_beside_a_file_are_used() {
    let Some(gpg) = gpg() else { return };
    let primary = gpg.key("good", &[]);
    let dir = tempfile::tempdir().unwrap();
    let keyring = dir.path().join("release.asc");
    fs_err::write(&keyring, gpg.run(&["--armor", "--export"], b"")).unwrap();
    let path = dir.path().join("f.tar.xz");
    fs_err::write(&path, data()).unwrap();
    let judged = |allow_unsigned| {
        let (_home, store) = store();
        let base = BaseSpec::File { path: path.clone(), signature: None, sha512: None, allow_unsigned };
        build(&job(base, &[], &keyring), &store)
    };
    let sha256 = Sha256::of(&data()).hex();
    let lists = [
        (".DIGESTS", format!("# SHA512 HASH\n{}  f.tar.xz\n", sha512(&data()))),
        (".DIGESTS.asc", format!("# SHA512 HASH\n{}  f.tar.xz\n", sha512(&data()))),
        (".sha256", format!("# SHA256 HASH\n{sha256}  f.tar.xz\n")),
    ];
    for (suffix, text) in &lists {
        let list = dir.path().join(format!("f.tar.xz{suffix}"));
        let put = |bytes: &[u8]| fs_err::write(&list, bytes).unwrap();
        put(&gpg.clearsign("good", &[], text));
        let verified = judged(false).unwrap();
        assert!(
            verified.trust_basis().contains(&format!("f.tar.xz{suffix} by {primary}")),
            "{}",
            verified.trust_basis()
        );
        assert_eq!(verified.signer(), Some(primary.as_str()));
        // Digests of another file, of other bytes, changed, and unsigned.
        for (bytes, why) in [
            (gpg.clearsign("good", &[], &text.replace("f.tar", "g.tar")), "neither SHA512 nor SHA256"),
            (gpg.clearsign("good", &[], &text.replace(['b', 'e'], "d")), "does not have the digests"),
            (
                String::from_utf8(gpg.clearsign("good", &[], text)).unwrap().replace("f.tar", "g.tar").into(),
                "bad signature",
            ),
            (text.clone().into_bytes(), "not signed"),
        ] {
            put(&bytes);
            let error = judged(false).unwrap_err();
            assert!(error.kind() == Kind::Refused && error.to_string().contains(why), "{suffix}: {error}");
        }
        fs_err::remove_file(&list).unwrap();
    }
    // A checksum file of sha256sum detects damage if the recipe accepts an unsigned file. The trust basis is recorded.
    let list = dir.path().join("f.tar.xz.sha256");
    fs_err::write(&list, format!("{sha256}  f.tar.xz\n")).unwrap();
    assert_eq!(judged(false).unwrap_err().kind(), Kind::Refused);
    let verified = judged(true).unwrap();
    assert!(
        verified.trust_basis().starts_with("unsigned") && verified.trust_basis().ends_with("f.tar.xz.sha256"),
        "{}",
        verified.trust_basis()
    );
    fs_err::write(&list, format!("{}  f.tar.xz\n", "0".repeat(64))).unwrap();
    assert!(judged(true).unwrap_err().to_string().contains("does not have the digests"));
}
