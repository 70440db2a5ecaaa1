//! Servers without a signed list, in Funtoo's layout.

use super::mirror::{job, store};
use super::*;
use crate::recipe::SignedFile;

pub(super) const PATH: &str = "1.4/x86-64bit/generic_64/stage3-latest.tar.xz";

pub(super) fn direct(latest: bool) -> BaseSpec {
    BaseSpec::SignedFile(SignedFile {
        path: PATH.to_owned(),
        signature: ".gpg".to_owned(),
        digest: ".hash.txt".to_owned(),
        latest,
        arch: "x86-64bit".to_owned(),
    })
}

pub(super) struct Publisher {
    pub(super) gpg: Gpg,
    pub(super) keyring: std::path::PathBuf,
    files: HashMap<String, Vec<u8>>,
}

impl Publisher {
    pub(super) fn new() -> Option<Self> {
        let gpg = gpg()?;
        // The key is old enough to sign files that exceed the maximum age.
        let then = format!("{}!", now() - 90 * 86_400);
        gpg.key("good", &["--faked-system-time", &then]);
        let keyring = gpg.home.path().join("funtoo.asc");
        fs_err::write(&keyring, gpg.run(&["--armor", "--export"], b"")).unwrap();
        let mut site = Self { gpg, keyring, files: HashMap::new() };
        site.put("", data());
        site.put(".hash.txt", format!("sha256 {}\n", Sha256::of(&data()).hex()).into());
        site.sign(0);
        Some(site)
    }

    pub(super) fn put(&mut self, ending: &str, bytes: Vec<u8>) {
        self.files.insert(format!("/{PATH}{ending}"), bytes);
    }

    /// Makes a file and a signature of this age in seconds.
    fn sign(&mut self, ago: u64) {
        let then = format!("{}!", now() - ago);
        let signature = self.gpg.detach("good", &["--faked-system-time", &then], &data());
        self.put(".gpg", signature);
    }

    pub(super) fn serve(&self) -> Server {
        Server::files(self.files.clone())
    }

    fn build(&self, store: &Store, latest: bool, terms: ResolveOptions<'_>) -> Result<crate::verify::Verified> {
        let server = self.serve();
        let job = job(direct(latest), &[&server], &self.keyring);
        let at = Site::new(store, terms, &Silent);
        verify(fetch(&locate(&job, &at)?, &at)?)
    }
}

#[track_caller]
fn refused(result: Result<crate::verify::Verified>, why: &str) {
    let error = result.map(|_| ()).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains(why), "{why}: {error:?}");
}

#[test]
fn a_signed_file_is_fetched_once() {
    let Some(site) = Publisher::new() else { return };
    let (_home, store) = store();
    let server = site.serve();
    let mut job = job(direct(true), &[&server], &site.keyring);
    assert!(known(&job, &store).unwrap().is_none());
    let located = locate(&job, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap();
    assert_eq!((located.name(), located.sha512()), ("stage3-latest.tar.xz", None));
    let verified = verify(fetch(&located, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap()).unwrap();
    let primary = site.gpg.fingerprints("good")[0].clone();
    assert_eq!(verified.signer(), Some(primary.as_str()));
    assert_eq!(verified.trust_basis(), format!("detached signature by {primary}"));
    assert_eq!(server.seen().len(), 3);
    // With the same signature, only the small files are requested, and offline none.
    let again = locate(&job, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap();
    assert_eq!(again.sha512(), Some(verified.sha512()));
    verify(fetch(&again, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap()).unwrap();
    let offline =
        locate(&job, &Site::new(&store, ResolveOptions { offline: true, ..ResolveOptions::default() }, &Silent))
            .unwrap();
    verify(fetch(&offline, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap()).unwrap();
    assert!(server.seen().iter().filter(|request| request.path == format!("/{PATH}")).count() == 1);
    // Without an import no key is trusted, and Gentoo's key is not trusted for Funtoo's files.
    job.source.keyring = None;
    let unknown = locate(&job, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap_err();
    assert!(unknown.kind() == Kind::Usage && unknown.hint().unwrap().contains("keys import"), "{unknown}");
    assert!(job.source.distfiles().is_empty(), "Funtoo's server has no distfiles of Gentoo");
}

#[test]
fn files_with_bad_signatures_are_refused() {
    let Some(mut site) = Publisher::new() else { return };
    let honest = site.serve();
    let good = site.files.clone();
    let mut spoilt = |ending: &str, bytes: Option<Vec<u8>>| {
        site.files.clone_from(&good);
        match bytes {
            Some(bytes) => site.put(ending, bytes),
            None => _ = site.files.remove(&format!("/{PATH}{ending}")).unwrap(),
        }
        let (_home, store) = store();
        (site.build(&store, true, ResolveOptions::default()), site.serve())
    };
    refused(spoilt("", Some(data()[1..].to_vec())).0, "SHA-256");
    refused(spoilt(".hash.txt", Some(format!("sha256 {}", "0".repeat(64)).into())).0, "SHA-256");
    refused(spoilt(".hash.txt", Some(b"<html>".to_vec())).0, "not a line with a SHA-256");
    refused(spoilt(".gpg", Some(b"x".to_vec())).0, "not signed");
    assert!(spoilt(".hash.txt", None).0.is_ok(), "the signature is what counts");
    let (unsigned, lacks) = spoilt(".gpg", None);
    assert_eq!(unsigned.map(|_| ()).unwrap_err().kind(), Kind::Network);
    // If a mirror lacks the file, the next one is used.
    let (_home, store) = store();
    let job = job(direct(true), &[&lacks, &honest], &site.keyring);
    let located = locate(&job, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap();
    assert!(located.urls()[0].starts_with(&honest.url));
    // The digest matches, but the signature is of other bytes.
    site.files = good;
    let other = site.gpg.detach("good", &[], b"other");
    site.put(".gpg", other);
    refused(site.build(&store, true, ResolveOptions::default()), "bad signature");
}

#[test]
fn the_latest_version_may_be_neither_too_old_nor_older_than_before() {
    let Some(mut site) = Publisher::new() else { return };
    let (_home, store) = store();
    site.sign(40 * 86_400);
    refused(site.build(&store, true, ResolveOptions::default()), "40 days old");
    site.build(&store, false, ResolveOptions::default()).unwrap();
    site.sign(3600);
    site.build(&store, true, ResolveOptions::default()).unwrap();
    site.sign(7200);
    refused(site.build(&store, true, ResolveOptions::default()), "older than one seen before");
    site.build(&store, true, ResolveOptions { allow_rollback: true, ..ResolveOptions::default() }).unwrap();
    // An older version is refused even if it is in the store.
    refused(site.build(&store, true, ResolveOptions::default()), "older than one seen before");
}
