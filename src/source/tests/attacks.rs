//! The attacks that the specification of The Update Framework lists in section 1.5.2, and slow retrieval, which older editions list.
//! There is one test for each, with TUF's name, against mirrors in Gentoo's layout.

use super::mirror::{Mirror, OFFLINE, VARIANT, build, job, latest, store};
use super::*;
use crate::recipe::Version;

const DAY: u64 = 86_400;

/// Returns the path of the variant's list.
fn list() -> String {
    format!("latest-stage3-{VARIANT}.txt")
}

/// A store, and a recipe whose mirrors are these servers, in order.
struct User {
    _home: tempfile::TempDir,
    store: Store,
    job: Job,
}

impl User {
    fn of(mirror: &Mirror, servers: &[&Server]) -> Self {
        let (home, store) = store();
        Self { _home: home, store, job: job(latest(), servers, &mirror.keyring) }
    }

    fn asks(&mut self, servers: &[&Server]) -> &mut Self {
        self.job.source.mirrors = servers.iter().map(|server| server.url.clone()).collect();
        self
    }

    fn builds(&self) -> Result<crate::verify::Verified> {
        build(&self.job, &self.store)
    }

    /// Checks that the store has no complete blob of the received bytes.
    #[track_caller]
    fn is_refused(&self, kind: Kind, why: &str) {
        let error = self.builds().map(|_| ()).unwrap_err();
        let text = format!("{error} {}", error.details().unwrap_or_default());
        assert!(error.kind() == kind && text.contains(why), "{kind:?} {why}: {error:?}");
        assert!(self.blobs().is_empty(), "{:?}", self.blobs());
    }

    fn blobs(&self) -> Vec<std::path::PathBuf> {
        let dir = fs_err::read_dir(self.store.root().join("blobs/sha512"));
        dir.map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
    }
}

/// "An attacker installs anything they want on the client system": changed bytes, lists signed by the attacker, and both.
#[test]
fn arbitrary_installation() {
    let Some(mut mirror) = Mirror::new() else { return };
    let evil = vec![0xee; data().len()];
    mirror.gpg.key("attacker", &[]);
    let good = mirror.files.clone();
    mirror.put(&mirror.tarball(""), evil.clone());
    User::of(&mirror, &[&mirror.serve()]).is_refused(Kind::Refused, "SHA-512");
    let lists = |mirror: &mut Mirror, sign: &dyn Fn(&Mirror, &str) -> Vec<u8>| {
        let digests = format!("# SHA512 HASH\n{}  {}\n", sha512(&evil), mirror.name);
        mirror.put(&mirror.tarball(".DIGESTS"), sign(mirror, &digests));
        let pointer = format!("# ts={}\n{} {}\n", now(), mirror.tarball(""), evil.len());
        mirror.put(&list(), sign(mirror, &pointer));
    };
    lists(&mut mirror, &|_, text| text.into());
    User::of(&mirror, &[&mirror.serve()]).is_refused(Kind::Refused, "it is not signed");
    lists(&mut mirror, &|mirror, text| mirror.gpg.clearsign("attacker", &[], text));
    User::of(&mirror, &[&mirror.serve()]).is_refused(Kind::Refused, "not in the keyring");
    // A genuine pointer with the attacker's digests, and a signature by the attacker without digests.
    mirror.publish(now());
    User::of(&mirror, &[&mirror.serve()]).is_refused(Kind::Refused, "not in the keyring");
    mirror.drop(&mirror.tarball(".DIGESTS"));
    let signature = mirror.gpg.detach("attacker", &[], &evil);
    mirror.put(&mirror.tarball(".asc"), signature);
    User::of(&mirror, &[&mirror.serve()]).is_refused(Kind::Refused, "not in the keyring");
    mirror.files = good;
    User::of(&mirror, &[&mirror.serve()]).builds().unwrap();
}

/// "An attacker responds to any request with an endless stream of data": lists may have 1 MiB, and the tarball its signed size.
#[test]
fn endless_data() {
    let Some(mirror) = Mirror::new() else { return };
    for (endless, why) in
        [(list(), "larger than"), (mirror.tarball(".DIGESTS"), "larger than"), (mirror.tarball(""), "sends more than")]
    {
        let files = mirror.files.clone();
        let server = Server::start(move |request, stream| {
            if request.path.ends_with(&endless) {
                head(stream, "200 OK", &[])?;
                loop {
                    stream.write_all(&[0; 65536])?;
                }
            }
            honest(request, stream, &files[&request.path])
        });
        let user = User::of(&mirror, &[&server]);
        user.is_refused(Kind::Network, why);
        let kept: u64 = walk(user.store.root()).iter().map(|path| fs_err::metadata(path).unwrap().len()).sum();
        assert!(kept <= data().len() as u64 + 65536, "{kept} bytes are kept");
    }
}

/// "An attacker causes clients to install unrelated software as dependencies": only the recipe's own file is
/// requested, whatever else a list names, and a list with an unsigned line is refused.
#[test]
fn extraneous_dependencies() {
    let Some(mut mirror) = Mirror::new() else { return };
    let other = mirror.tarball("").replace(VARIANT, "amd64-extra");
    let text = format!("# ts={}\n{other} 7\n{} {}\n{other}.more 9\n", now(), mirror.tarball(""), data().len());
    let signed = mirror.sign(&text);
    mirror.put(&list(), signed);
    mirror.put(&other, b"another".to_vec());
    let server = mirror.serve();
    User::of(&mirror, &[&server]).builds().unwrap();
    let asked: Vec<String> =
        server.seen().iter().map(|request| request.path.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(asked, [list(), format!("{}.DIGESTS", mirror.name), mirror.name.clone()]);
    let added = String::from_utf8(mirror.sign(&text)).unwrap().replace("# ts=", "2026/extra.tar.xz 1\n# ts=");
    mirror.put(&list(), added.into());
    User::of(&mirror, &[&mirror.serve()]).is_refused(Kind::Refused, "bad signature");
}

/// "An attacker arbitrarily increases the version numbers": a temporary holder of the key cannot advance the
/// stored version so far that later genuine lists count as old.
#[test]
fn fast_forward() {
    let Some(mut mirror) = Mirror::new() else { return };
    let honest = mirror.serve();
    let mut user = User::of(&mirror, &[&honest]);
    let far = |mirror: &Mirror, ts: u64, build: &str| {
        let name = mirror.tarball("").replace(mirror.timestamp, build);
        mirror.sign(&format!("# ts={ts}\n{name} {}\n", data().len()))
    };
    for (ts, build, why) in [
        (now() + 2 * DAY, mirror.timestamp, "from the future"),
        (u64::MAX, mirror.timestamp, "from the future"),
        (now(), "99991231T235959Z", "a build from its future"),
        (now(), "20991231T235959Z", "a build from its future"),
    ] {
        let signed = far(&mirror, ts, build);
        mirror.put(&list(), signed);
        let ahead = mirror.serve();
        user.asks(&[&ahead]).is_refused(Kind::Refused, why);
        assert!(user.store.ref_names("seen").unwrap().is_empty(), "{ts} {build} is remembered");
    }
    user.asks(&[&honest]).builds().unwrap();
}

/// "An attacker continues to present files that the client has already seen": a signed list that is older than the
/// recipe allows is refused, even if no newer one was seen.
#[test]
fn indefinite_freeze() {
    let Some(mut mirror) = Mirror::new() else { return };
    let user = User::of(&mirror, &[&mirror.serve()]);
    user.builds().unwrap();
    mirror.publish(now() - 31 * DAY);
    let frozen = mirror.serve();
    User::of(&mirror, &[&frozen]).is_refused(Kind::Refused, "31 days old");
    // A list without a timestamp is as old as its signature.
    let then = format!("{}!", now() - 31 * DAY);
    let old = Mirror::older(&then);
    User::of(&old, &[&old.serve()]).is_refused(Kind::Refused, "31 days old");
    // The maximum age does not apply to a version that the recipe pins.
    let mut pinned = User::of(&mirror, &[&frozen]);
    let version = Version::Timestamp(mirror.timestamp.to_owned());
    pinned.job.source.base = BaseSpec::Gentoo { stage3: VARIANT.to_owned(), version };
    pinned.builds().unwrap();
}

/// "An attacker in control of one mirror prevents clients from obtaining updates from other, good mirrors".
#[test]
fn malicious_mirrors_preventing_updates() {
    let Some(mut mirror) = Mirror::new() else { return };
    let honest = mirror.serve();
    mirror.drop(&mirror.tarball(""));
    let no_tarball = mirror.serve();
    mirror.publish(now() - 40 * DAY);
    let frozen = mirror.serve();
    mirror.put(&list(), b"<html>".to_vec());
    let page = mirror.serve();
    let silent = Server::start(|_, _| {
        std::thread::sleep(Duration::from_secs(3600));
        Ok(())
    });
    let empty = Server::files(HashMap::new());
    let garbage = Server::start(|_, stream| stream.write_all(b"\0\0\0\x1b]0;x\x07"));
    let user = User::of(&mirror, &[&frozen, &page, &silent, &empty, &garbage, &no_tarball, &honest]);
    user.builds().unwrap();
    assert!(honest.seen().iter().any(|request| request.path.ends_with(".tar.xz")));
}

/// "An attacker presents a view of files that never existed together": a list of Monday with a tarball or digests of Sunday.
#[test]
fn mix_and_match() {
    let Some(mut monday) = Mirror::new() else { return };
    let mut sunday = data();
    sunday[77] ^= 1;
    let good = monday.files.clone();
    // The bytes of Sunday under the name of Monday.
    monday.put(&monday.tarball(""), sunday.clone());
    User::of(&monday, &[&monday.serve()]).is_refused(Kind::Refused, "SHA-512");
    // Genuine digests of Sunday instead of those of Monday, then with the name of Monday but another size.
    let digests = format!("# SHA512 HASH\n{}  {}\n", sha512(&sunday), monday.name.replace("20260810", "20260809"));
    let signed = monday.sign(&digests);
    monday.put(&monday.tarball(".DIGESTS"), signed);
    User::of(&monday, &[&monday.serve()]).is_refused(Kind::Refused, "no SHA512 for");
    sunday.push(0);
    let signed = monday.sign(&format!("# SHA512 HASH\n{}  {}\n", sha512(&sunday), monday.name));
    monday.put(&monday.tarball(".DIGESTS"), signed);
    monday.put(&monday.tarball(""), sunday);
    User::of(&monday, &[&monday.serve()]).is_refused(Kind::Refused, "instead of the signed size");
    // Two digests of different days.
    monday.files = good;
    let text = format!(
        "# SHA512 HASH\n{}  {name}\n# BLAKE2B HASH\n{}  {name}\n",
        sha512(&data()),
        Blake2b::of(b"sunday").hex(),
        name = monday.name
    );
    let signed = monday.sign(&text);
    monday.put(&monday.tarball(".DIGESTS"), signed);
    User::of(&monday, &[&monday.serve()]).is_refused(Kind::Refused, "BLAKE2b");
}

/// "An attacker presents files older than those the client has already seen", with good signatures and within the maximum age.
#[test]
fn rollback() {
    let Some(mut mirror) = Mirror::new() else { return };
    let mut user = User::of(&mirror, &[]);
    mirror.publish(now() - 3600);
    let older = mirror.serve();
    mirror.publish(now());
    let newer = mirror.serve();
    user.asks(&[&older]).builds().unwrap();
    user.asks(&[&newer]).builds().unwrap();
    user.asks(&[&older]);
    let error = user.builds().map(|_| ()).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("older than one seen before"), "{error}");
    // A listing is checked against the stored version, but does not update it.
    let name = mirror.tarball("").replace(mirror.timestamp, "20260101T000000Z");
    let all = mirror.sign(&format!("# ts={}\n{name} {}\n", now(), data().len()));
    mirror.put("latest-stage3.txt", all);
    let shown = |mirror: &Mirror, user: &mut User| {
        let server = mirror.serve();
        user.asks(&[&server]);
        offers(&user.job.source, "amd64", &Site::new(&user.store, ResolveOptions::default(), &Silent))
    };
    assert!(shown(&mirror, &mut user).unwrap_err().to_string().contains("older than one seen before"));
    let all = mirror.sign(&format!("# ts={}\n{} {}\n", now() + 60, mirror.tarball(""), data().len()));
    mirror.put("latest-stage3.txt", all);
    assert_eq!(shown(&mirror, &mut user).unwrap().entries.len(), 1);
    user.asks(&[&newer]).builds().unwrap();
}

/// Slow retrieval: "an attacker responds with a stream that is so slow that it never completes".
#[test]
fn slow_retrieval() {
    let Some(mirror) = Mirror::new() else { return };
    let honest_one = mirror.serve();
    for slow in [list(), mirror.tarball(".DIGESTS"), mirror.tarball("")] {
        let files = mirror.files.clone();
        let server = Server::start(move |request, stream| {
            if !request.path.ends_with(&slow) {
                return honest(request, stream, &files[&request.path]);
            }
            head(stream, "200 OK", &[("Content-Length", &files[&request.path].len().to_string())])?;
            for byte in &files[&request.path] {
                stream.write_all(&[*byte])?;
                std::thread::sleep(Duration::from_secs(1));
            }
            Ok(())
        });
        let user = User::of(&mirror, &[&server, &honest_one]);
        user.builds().unwrap();
    }
}

/// "An attacker provides a client with a trusted file that is not the one the client wanted".
#[test]
fn wrong_software_installation() {
    let Some(mut mirror) = Mirror::new() else { return };
    let good = mirror.files.clone();
    let other = |text: &str| text.replace(VARIANT, "amd64-openrc");
    // Genuine files of another variant under the names of this one.
    let text = format!("# ts={}\n{} {}\n", now(), other(&mirror.tarball("")), data().len());
    let signed = mirror.sign(&text);
    mirror.put(&list(), signed);
    User::of(&mirror, &[&mirror.serve()]).is_refused(Kind::Refused, "but amd64-openrc");
    mirror.files.clone_from(&good);
    let digests = format!("# SHA512 HASH\n{}  {}\n", sha512(b"openrc"), other(&mirror.name));
    let signed = mirror.sign(&digests);
    mirror.put(&mirror.tarball(".DIGESTS"), signed);
    User::of(&mirror, &[&mirror.serve()]).is_refused(Kind::Refused, "but SHA512 of stage3-amd64-openrc");
    // A detached signature does not cover the name: the bytes and the signature of another variant would be accepted. The size in
    // the signed list prevents it.
    mirror.files = good;
    mirror.drop(&mirror.tarball(".DIGESTS"));
    let openrc = [data(), vec![1]].concat();
    let signature = mirror.gpg.detach("good", &[], &openrc);
    mirror.put(&mirror.tarball(".asc"), signature);
    mirror.put(&mirror.tarball(""), openrc);
    User::of(&mirror, &[&mirror.serve()]).is_refused(Kind::Refused, "instead of the signed size");
}

/// "An attacker who is able to compromise a key": after the owner's revocation, no signature of the key is
/// accepted, whether old or new. A known key that may not sign these files is not accepted either.
#[test]
fn vulnerability_to_key_compromises() {
    let Some(mut mirror) = Mirror::new() else { return };
    let server = mirror.serve();
    let user = User::of(&mirror, &[&server]);
    user.builds().unwrap();
    locate(&user.job, &Site::new(&user.store, OFFLINE, &Silent)).unwrap();
    // The keyring has a second certificate, which the recipe does not name.
    let good = mirror.gpg.fingerprints("good")[0].clone();
    mirror.gpg.key("other", &[]);
    let pointer = format!("# ts={}\n{} {}\n", now(), mirror.tarball(""), data().len());
    let signed = mirror.gpg.clearsign("other", &[], &pointer);
    mirror.put(&list(), signed);
    fs_err::write(&mirror.keyring, mirror.gpg.run(&["--armor", "--export"], b"")).unwrap();
    let mut pinned = User::of(&mirror, &[&mirror.serve()]);
    pinned.job.source.fingerprints = vec![good.clone()];
    pinned.is_refused(Kind::Refused, "not trusted here");
    mirror.gpg.revoke(&good);
    fs_err::write(&mirror.keyring, mirror.gpg.run(&["--armor", "--export", &good], b"")).unwrap();
    assert_eq!(
        locate(&user.job, &Site::new(&user.store, OFFLINE, &Silent)).unwrap_err().kind(),
        Kind::Network,
        "it is forgotten"
    );
    let error = user.builds().map(|_| ()).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("is revoked"), "{error}");
}

/// Returns all files below a directory.
fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs_err::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
