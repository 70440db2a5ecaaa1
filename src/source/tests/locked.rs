//! Locked stage3s, with mirrors that have newer builds.

use super::mirror::{Mirror, build, job, latest, store};
use super::signed_file::{PATH, Publisher, direct};
use super::*;
use crate::lockfile::LockedCommit;
use crate::recipe::Git;
use crate::recipe::Version;
use crate::source::locked::commit;

/// Locks a recipe as `quern-builder lock` does.
fn pin(job: &Job, store: &Store) -> LockedFile {
    inputs::lock_stage3(job, None, &Site::new(store, ResolveOptions::default(), &Silent)).unwrap()
}

fn of(pin: &LockedFile) -> Locked {
    Locked { stage3: Some(pin.clone()), ..Locked::default() }
}

fn locked(job: &Job, pin: &LockedFile, store: &Store) -> Result<crate::verify::Verified> {
    let held = of(pin);
    let terms = ResolveOptions { locked: Some(&held), ..ResolveOptions::default() };
    verify(fetch(
        &locate(job, &Site::new(store, terms, &Silent))?,
        &Site::new(store, ResolveOptions::default(), &Silent),
    )?)
}

#[track_caller]
fn fails(result: Result<crate::verify::Verified>, kind: Kind, why: &str) {
    let error = result.map(|_| ()).unwrap_err();
    let text = format!("{error} {} {}", error.details().unwrap_or_default(), error.hint().unwrap_or_default());
    assert!(error.kind() == kind && text.contains(why), "{kind:?} {why}: {error:?}");
    assert!(error.hint().is_some(), "{error:?}");
}

#[test]
fn the_locked_file_is_used_instead_of_the_latest() {
    let Some(mut mirror) = Mirror::new() else { return };
    let (_home, at_home) = store();
    let server = mirror.serve();
    let job = job(latest(), &[&server], &mirror.keyring);
    let pin = pin(&job, &at_home);
    assert_eq!(server.seen().len(), 2, "signed lists tell all of it: {:?}", server.seen());
    assert_eq!(
        (pin.name.as_str(), pin.size, &pin.sha512),
        (mirror.name.as_str(), data().len() as u64, &Sha512::of(&data()))
    );
    let signers = mirror.gpg.fingerprints("good");
    assert_eq!((pin.signer.as_ref(), pin.subkey.as_ref()), (signers.first(), signers.get(1)));
    assert!(pin.url.as_ref().unwrap().starts_with(&server.url) && pin.blake2b.is_some() && pin.signed.is_some());

    // The lists are too old, and then missing: they are not requested.
    mirror.publish(now() - 90 * 86_400);
    mirror.drop(&mirror.tarball(".DIGESTS"));
    let server = mirror.serve();
    let mut moved = job.clone();
    moved.source.mirrors = vec![server.url.clone()];
    let (_home, elsewhere) = store();
    let verified = locked(&moved, &pin, &elsewhere).unwrap();
    assert_eq!((verified.sha512(), verified.signer()), (pin.sha512, pin.signer.as_deref()));
    assert!(
        verified
            .trust_basis()
            .starts_with("locked: SHA-512 in the lock file; when it was locked: clearsigned DIGESTS by ")
    );
    assert_eq!(server.seen().len(), 1);
    // Without the lock file, the file is not trusted.
    assert!(known(&moved, &elsewhere).unwrap().is_none());
    fails(build(&moved, &elsewhere), Kind::Refused, "90 days old");
    // If the store has the file, no request is sent.
    let asked = server.seen().len();
    let held = of(&pin);
    let offline = ResolveOptions { offline: true, locked: Some(&held), ..ResolveOptions::default() };
    verify(
        fetch(
            &locate(&moved, &Site::new(&elsewhere, offline, &Silent)).unwrap(),
            &Site::new(&elsewhere, ResolveOptions::default(), &Silent),
        )
        .unwrap(),
    )
    .unwrap();
    assert_eq!(server.seen().len(), asked);
    elsewhere.remove_blob(&pin.sha512).unwrap();
    let error = fetch(
        &locate(&moved, &Site::new(&elsewhere, offline, &Silent)).unwrap(),
        &Site::new(&elsewhere, offline, &Silent),
    )
    .map(|_| ())
    .unwrap_err();
    assert!(error.kind() == Kind::Network && error.hint().unwrap().contains("store export` and `import"), "{error:?}");
    // If the recipe's mirrors do not have the file, the mirror in the lock file is used.
    moved.source.mirrors = vec!["http://127.0.0.1:1".to_owned()];
    locked(&moved, &pin, &elsewhere).unwrap();
}

#[test]
fn missing_and_wrong_bytes_are_errors() {
    let Some(mut mirror) = Mirror::new() else { return };
    let (_home, store) = store();
    let server = mirror.serve();
    let mut job = job(latest(), &[&server], &mirror.keyring);
    let pin = LockedFile { url: None, ..pin(&job, &store) };
    let mut at = |mirror: &Mirror| {
        let server = mirror.serve();
        job.source.mirrors = vec![server.url.clone()];
        (locked(&job, &pin, &store), server)
    };
    let mut other = data();
    other[0] ^= 1;
    mirror.put(&mirror.tarball(""), other.clone());
    fails(at(&mirror).0, Kind::Refused, "another file than the locked one");
    other.push(0);
    mirror.put(&mirror.tarball(""), other);
    fails(at(&mirror).0, Kind::Refused, "the signed size");
    mirror.drop(&mirror.tarball(""));
    fails(at(&mirror).0, Kind::Network, "store import");
    mirror.put(&mirror.tarball(""), data());
    for spoil in [
        LockedFile { sha512: Sha512::from([0; 64]), ..pin.clone() },
        LockedFile { blake2b: Some(Blake2b::from([0; 64])), ..pin.clone() },
        LockedFile { size: pin.size + 1, ..pin.clone() },
    ] {
        let server = mirror.serve();
        job.source.mirrors = vec![server.url.clone()];
        fails(locked(&job, &spoil, &store), Kind::Refused, "the lock file was changed");
    }
    assert!(store.blobs().unwrap().is_empty());
}

#[test]
fn a_changed_recipe_does_not_match_the_lock() {
    let Some(mirror) = Mirror::new() else { return };
    let (_home, store) = store();
    let server = mirror.serve();
    let asks = job(latest(), &[&server], &mirror.keyring);
    let pin = pin(&asks, &store);
    let gentoo = |stage3: &str, version| {
        job(BaseSpec::Gentoo { stage3: stage3.to_owned(), version }, &[&server], &mirror.keyring)
    };
    let dated = Version::Timestamp(mirror.timestamp.to_owned());
    for other in [gentoo("amd64-openrc", Version::Latest), gentoo("amd64-musl", dated)] {
        fails(locked(&other, &pin, &store), Kind::Usage, "quern-builder lock");
    }
    let swapped = LockedFile { name: pin.name.replace("musl", "openrc"), ..pin.clone() };
    fails(locked(&asks, &swapped, &store), Kind::Usage, "not what the recipe asks for");
    let undated = LockedFile { timestamp: None, ..pin.clone() };
    fails(locked(&asks, &undated, &store), Kind::Usage, "not what the recipe asks for");
    locked(&asks, &pin, &store).unwrap();

    // The signing key must still be trusted, and an unsigned file is not accepted.
    mirror.gpg.key("other", &[]);
    let both = mirror.gpg.home.path().join("both.asc");
    fs_err::write(&both, mirror.gpg.run(&["--armor", "--export"], b"")).unwrap();
    let mut distrusts = asks.clone();
    distrusts.source.keyring = Some(both);
    locked(&distrusts, &pin, &store).unwrap();
    distrusts.source.fingerprints = vec![mirror.gpg.fingerprints("other")[0].clone()];
    fails(locked(&distrusts, &pin, &store), Kind::Refused, "not trusted here");
    fails(locked(&asks, &LockedFile { signer: None, ..pin.clone() }, &store), Kind::Refused, "it is unsigned");
    // The key is revoked. GnuPG stores its revocation certificate with a colon before the armor.
    let primary = &mirror.gpg.fingerprints("good")[0];
    let certificate = mirror.gpg.home.path().join(format!("openpgp-revocs.d/{primary}.rev"));
    let text = fs_err::read_to_string(certificate).unwrap().replace(":-----BEGIN", "-----BEGIN");
    mirror.gpg.run(&["--import"], text.as_bytes());
    let revoked = mirror.gpg.home.path().join("revoked.asc");
    fs_err::write(&revoked, mirror.gpg.run(&["--armor", "--export"], b"")).unwrap();
    let mut job = asks.clone();
    job.source.keyring = Some(revoked);
    fails(locked(&job, &pin, &store), Kind::Refused, "is revoked");
}

#[test]
fn an_older_build_does_not_replace_a_newer_one_in_the_lock() {
    let Some(mirror) = Mirror::new() else { return };
    let (_home, store) = store();
    let job = job(latest(), &[&mirror.serve()], &mirror.keyring);
    let present = pin(&job, &store);
    let newer = LockedFile { timestamp: Some("20260817T204554Z".to_owned()), ..present.clone() };
    let again = |terms| inputs::lock_stage3(&job, Some(&newer), &Site::new(&store, terms, &Silent));
    let error = again(ResolveOptions::default()).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("is older than the locked"), "{error}");
    assert_eq!(again(ResolveOptions { allow_rollback: true, ..ResolveOptions::default() }).unwrap(), present);
}

#[test]
fn a_build_of_a_date_is_fetched_once_to_learn_its_size() {
    let Some(mirror) = Mirror::new() else { return };
    let ((_one, one), (_two, two)) = (store(), store());
    let server = mirror.serve();
    let base =
        BaseSpec::Gentoo { stage3: "amd64-musl".to_owned(), version: Version::Timestamp(mirror.timestamp.to_owned()) };
    let job = job(base, &[&server], &mirror.keyring);
    let first = pin(&job, &one);
    assert_eq!((first.size, one.blobs().unwrap().len()), (data().len() as u64, 1));
    // With the lock file, checking for changes fetches nothing.
    let second = inputs::lock_stage3(&job, Some(&first), &Site::new(&two, ResolveOptions::default(), &Silent)).unwrap();
    assert!(first.changes(&second).is_empty() && two.blobs().unwrap().is_empty());
}

#[test]
fn local_files_are_locked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("base.tar");
    fs_err::write(&path, data()).unwrap();
    let ((_home, one), (_other, two)) = (store(), store());
    let base = |sha512: Option<String>, allow_unsigned| {
        job(
            BaseSpec::File { path: path.clone(), signature: None, sha512, allow_unsigned },
            &[],
            Path::new("/nonexistent"),
        )
    };
    let asks = base(None, true);
    let pin = pin(&asks, &one);
    assert_eq!((pin.name.as_str(), pin.url.as_ref(), pin.signer.as_ref()), ("base.tar", None, None));
    locked(&asks, &pin, &two).unwrap();
    fails(locked(&base(None, false), &pin, &two), Kind::Refused, "it is unsigned");
    locked(&base(Some(sha512(&data())), false), &pin, &two).unwrap();
    fails(locked(&base(Some("0".repeat(128)), false), &pin, &two), Kind::Usage, "not what the recipe asks for");
    // The file has changed: the store still has the locked one, but another store does not.
    fs_err::write(&path, b"other").unwrap();
    locked(&asks, &pin, &two).unwrap();
    let (_home, three) = store();
    fails(locked(&asks, &pin, &three), Kind::Refused, "is not the locked file");
}

#[test]
fn a_file_of_a_server_without_lists_is_locked_by_its_digest() {
    let Some(mut site) = Publisher::new() else { return };
    let ((_home, one), (_other, two)) = (store(), store());
    let asks = job(direct(true), &[&site.serve()], &site.keyring);
    let pin = pin(&asks, &one);
    assert_eq!((pin.asked.as_str(), &pin.sha512), (format!("{PATH} (latest)").as_str(), &Sha512::of(&data())));
    assert_eq!((pin.signer.as_ref(), pin.blake2b.as_ref()), (site.gpg.fingerprints("good").first(), None));
    locked(&asks, &pin, &two).unwrap();
    fails(locked(&job(direct(false), &[], &site.keyring), &pin, &two), Kind::Usage, "quern-builder lock");
    // The path is that of the latest build, where there is another file now.
    site.put("", b"newer".to_vec());
    let moved = job(direct(true), &[&site.serve()], &site.keyring);
    let pin = LockedFile { url: None, ..pin };
    locked(&moved, &pin, &two).unwrap();
    two.remove_blob(&pin.sha512).unwrap();
    fails(locked(&moved, &pin, &two), Kind::Refused, "another file than the locked one");
}

#[test]
fn a_branch_is_held_to_its_locked_commit() {
    let id = |digit: &str| digit.repeat(40);
    let git = |commit: Option<&str>, branch: Option<&str>| Git {
        url: "https://example.org/own.git".to_owned(),
        commit: commit.map(id),
        branch: branch.map(str::to_owned),
        keyring: None,
        fingerprints: Vec::new(),
        max_age: 1,
        bounds: Default::default(),
        allow_unsigned: false,
        named_by: None,
    };
    let pin = LockedCommit {
        branch: Some("stable".to_owned()),
        url: "https://example.org/own.git".to_owned(),
        commit: id("a"),
        signer: Some("A".repeat(40)),
        trust_basis: "commit signed".to_owned(),
    };
    assert_eq!(commit(&pin, &git(None, Some("stable"))).unwrap(), git(Some("a"), Some("stable")));
    let exact = LockedCommit { branch: None, ..pin.clone() };
    assert_eq!(commit(&exact, &git(Some("a"), Some("stable"))).unwrap(), git(Some("a"), Some("stable")));
    let elsewhere = Git { url: "https://example.com/own.git".to_owned(), ..git(None, Some("stable")) };
    for (pin, other) in [
        (&pin, git(None, Some("main"))),
        (&pin, git(Some("a"), None)),
        (&exact, git(Some("b"), None)),
        (&exact, git(None, Some("stable"))),
        (&pin, elsewhere),
    ] {
        assert_eq!(commit(pin, &other).unwrap_err().kind(), Kind::Usage, "{other:?}");
    }
}
