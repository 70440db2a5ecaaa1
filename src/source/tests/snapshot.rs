//! Snapshots of the ebuild repository.

use super::mirror::store;
use super::*;
use crate::recipe::Snapshot;
use crate::source::repository::snapshot::{first_urls, known, locate, top, verified};

struct Publisher {
    gpg: Gpg,
    keyring: std::path::PathBuf,
}

impl Publisher {
    fn new() -> Option<Self> {
        let gpg = gpg()?;
        gpg.key("good", &["--faked-system-time", &format!("{}!", now() - 90 * 86_400)]);
        let keyring = gpg.home.path().join("snapshots.asc");
        fs_err::write(&keyring, gpg.run(&["--armor", "--export"], b"")).unwrap();
        Some(Self { gpg, keyring })
    }

    /// Makes a snapshot that was signed this many seconds ago.
    fn files(&self, which: &str, bytes: &[u8], ago: u64) -> HashMap<String, Vec<u8>> {
        let then = format!("{}!", now() - ago);
        let signature = self.gpg.detach("good", &["--faked-system-time", &then], bytes);
        let path = format!("/snapshots/gentoo-{which}.tar.xz");
        HashMap::from([(format!("{path}.gpgsig"), signature), (path, bytes.to_vec())])
    }

    fn snapshot(&self, date: Option<&str>, server: &Server) -> Snapshot {
        Snapshot {
            date: date.map(str::to_owned),
            format: Default::default(),
            mirrors: vec![server.url.clone()],
            keyring: Some(self.keyring.clone()),
            fingerprints: Vec::new(),
            max_age: 30 * 86_400,
            bounds: Default::default(),
        }
    }
}

fn get(snapshot: &Snapshot, store: &Store, terms: ResolveOptions) -> Result<crate::verify::Verified> {
    verified(snapshot, &locate(snapshot, &Site::new(store, terms, &Silent))?, &Site::new(store, terms, &Silent))
}

#[test]
fn the_latest_snapshot_and_that_of_a_date_are_fetched_once() {
    let Some(site) = Publisher::new() else { return };
    let (_home, store) = store();
    let mut files = site.files("latest", &data(), 3600);
    // The name of a dated snapshot contains its age.
    files.extend(site.files("20260910", b"old", 70 * 86_400));
    let server = Server::files(files);
    let latest = site.snapshot(None, &server);
    let offline = ResolveOptions { offline: true, ..ResolveOptions::default() };
    assert!(known(&latest, &store).unwrap().is_none());
    assert_eq!(get(&latest, &store, offline).unwrap_err().kind(), Kind::Network);
    let got = get(&latest, &store, ResolveOptions::default()).unwrap();
    let primary = site.gpg.fingerprints("good")[0].clone();
    assert_eq!((got.signer(), got.size()), (Some(primary.as_str()), data().len() as u64));
    assert_eq!(get(&latest, &store, offline).unwrap().sha512(), got.sha512());
    let day = site.snapshot(Some("20260910"), &server);
    assert_eq!(get(&day, &store, ResolveOptions::default()).unwrap().size(), 3);
    assert_eq!((top(&latest), top(&day).as_deref()), (None, Some("gentoo-20260910")));
    assert_eq!(first_urls(&day), [format!("{}/snapshots/gentoo-20260910.tar.xz.gpgsig", server.url)]);
    let missing = get(&site.snapshot(Some("20260911"), &server), &store, ResolveOptions::default()).unwrap_err();
    assert!(missing.kind() == Kind::Network && missing.hint().unwrap().contains("mirrors keep"), "{missing:?}");
    // The signature is not by Gentoo's own key.
    let gentoo = Snapshot { keyring: None, ..latest };
    let unknown = get(&gentoo, &store, ResolveOptions::default()).unwrap_err();
    assert!(unknown.kind() == Kind::Refused, "{unknown:?}");
}

#[test]
fn a_snapshot_that_is_replaced_between_two_requests_is_fetched_again() {
    let Some(site) = Publisher::new() else { return };
    let (_home, store) = store();
    let (old, new) = (site.files("latest", b"old", 7200), site.files("latest", b"new", 3600));
    let server = Server::start(move |request, stream| {
        let files = if request.number == 0 { &old } else { &new };
        honest(request, stream, &files[&request.path])
    });
    let got = get(&site.snapshot(None, &server), &store, ResolveOptions::default()).unwrap();
    assert_eq!(got.sha512(), Sha512::of(b"new"));
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn a_file_without_its_signature_is_refused_at_once() {
    let Some(site) = Publisher::new() else { return };
    let (_home, store) = store();
    let mut files = site.files("latest", &data(), 3600);
    files.insert("/snapshots/gentoo-latest.tar.xz".to_owned(), data()[1..].to_vec());
    let server = Server::files(files);
    let error = get(&site.snapshot(None, &server), &store, ResolveOptions::default()).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("bad signature"), "{error:?}");
    let bytes = server.seen().iter().filter(|request| request.path.ends_with(".xz")).count();
    assert_eq!(bytes, 1, "the signature is the same: the bytes are not asked for again");
}
