//! The downloads of steps: files with digests in the recipe, and commits.

use super::git::Forge;
use super::mirror::store;
use super::*;
use crate::lockfile::LockedFetch;
use crate::recipe::{Action, Fetch, FetchFrom, Git, Job, Phase, Step};
use crate::source::fetched::{self, FetchInput, FetchVersion};
use crate::store::Store;

const OFFLINE: ResolveOptions<'_> = ResolveOptions { offline: true, allow_rollback: false, locked: None };

/// Returns true if this process can unpack trees.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var_os("QUERN_TEST_STRICT").is_none(), "unpacking needs root");
    root
}

fn file(url: &str, sha256: Option<Sha256>, sha512: Option<Sha512>) -> Fetch {
    let (sha256, sha512) = (sha256.map(|digest| digest.hex()), sha512.map(|digest| digest.hex()));
    Fetch { name: "patch".to_owned(), from: FetchFrom::File { url: url.to_owned(), sha256, sha512 }, unpack: false }
}

fn get(fetch: &Fetch, store: &Store, options: ResolveOptions<'_>) -> Result<FetchInput> {
    Ok(fetched::fetches(&[fetch], &Site::new(store, options, &Silent))?.remove(0))
}

#[test]
fn a_file_is_known_by_each_digest_and_found_without_a_server() {
    if !is_root() {
        return;
    }
    let (_home, store) = store();
    let server = Server::files(HashMap::from([("/f".to_owned(), b"bytes\n".to_vec())]));
    let url = format!("{}/f", server.url);
    let (sha256, sha512) = (Sha256::of(b"bytes\n"), Sha512::of(b"bytes\n"));
    let online = ResolveOptions::default();
    let by_256 = file(&url, Some(sha256), None);
    assert_eq!(get(&by_256, &store, OFFLINE).unwrap_err().kind(), Kind::Network);
    let input = get(&by_256, &store, online).unwrap();
    assert_eq!(fs_err::read(input.path()).unwrap(), b"bytes\n");
    let meta = fs_err::metadata(input.path()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions());
    assert_eq!((mode & 0o7777, meta.modified().unwrap()), (0o644, std::time::UNIX_EPOCH));
    assert_eq!((input.version.identity(), input.lock()), (format!("sha256 {sha256}"), None));
    // The other digest, or another address, needs no server.
    let by_512 = file("http://127.0.0.1:1/gone", None, Some(sha512));
    assert_eq!(get(&by_512, &store, OFFLINE).unwrap().version.identity(), format!("sha512 {sha512}"));
    drop(input);
    store.clean(&[crate::store::clean::Category::Trees], false, |_| {}).unwrap();
    let both = file("http://127.0.0.1:1/gone", Some(sha256), Some(sha512));
    assert_eq!(get(&both, &store, OFFLINE).unwrap().version.identity(), format!("sha512 {sha512}"));
    get(&file("http://127.0.0.1:1/gone", Some(sha256), None), &store, OFFLINE).unwrap();
    assert_eq!(server.seen().len(), 1);
    // A digest that contradicts the other one is not believed because the store has the file.
    let lie = file(&url, Some(Sha256::of(b"other")), Some(sha512));
    let error = get(&lie, &store, online).unwrap_err();
    assert!(
        error.kind() == Kind::Refused && error.to_string().contains("the SHA-256 of patch is not the one"),
        "{error}"
    );
}

#[test]
fn other_bytes_than_the_recipe_names_are_refused_and_not_kept() {
    if !is_root() {
        return;
    }
    let (_home, store) = store();
    let server = Server::start(|request: &Request, stream| match request.path.as_str() {
        "/moved" => head(stream, "302 Found", &[("Location", "/f"), ("Content-Length", "0")]),
        "/local" => head(stream, "302 Found", &[("Location", "file:///etc/passwd"), ("Content-Length", "0")]),
        "/huge" => head(stream, "200 OK", &[("Content-Length", "999999999999999")]),
        _ => honest(request, stream, b"bytes\n"),
    });
    let sha256 = Some(Sha256::of(b"bytes\n"));
    let ask = |path: &str, sha256| {
        let found = get(&file(&format!("{}{path}", server.url), sha256, None), &store, ResolveOptions::default());
        found.map(|_| ()).map_err(|error| (error.kind(), format!("{error} {}", error.hint().unwrap_or_default())))
    };
    let (kind, said) = ask("/f", Some(Sha256::of(b"other"))).unwrap_err();
    assert!(kind == Kind::Refused && said.contains("is not the one in the recipe"), "{said}");
    assert!(said.contains("compare the digest with that of the publisher"), "{said}");
    for path in ["/local", "/huge"] {
        assert_eq!(ask(path, sha256).unwrap_err().0, Kind::Network, "{path}");
    }
    assert!(!store.root().join("blobs/sha512").exists());
    assert_eq!(ask("/moved", sha256), Ok(()));
}

#[test]
fn a_commit_of_a_branch_is_held_by_a_lock() {
    if !is_root() {
        return;
    }
    let Some(forge) = Forge::new() else { return };
    let (_home, store) = store();
    let fetch = |git: Git| Fetch { name: "firmware".to_owned(), from: FetchFrom::Git(git), unpack: false };
    let mut job: Job = crate::recipe::fixture::job();
    let mut step = Step::new("s", Phase::End, Action::Depclean);
    step.fetch = vec![fetch(forge.branch())];
    job.steps = vec![step];
    let known = |options| fetched::known(&job, &Site::new(&store, options, &Silent)).unwrap();
    assert_eq!(known(OFFLINE), None);
    // It need not be a repository, and its symlinks lead wherever they like.
    fs_err::remove_dir_all(forge.path("profiles")).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", forge.path("out")).unwrap();
    forge.write("boot/kernel", "one\n");
    let first = forge.commit(Some("good"), 3600);
    let input = get(&fetch(forge.branch()), &store, ResolveOptions::default()).unwrap();
    assert_eq!(fs_err::read_to_string(input.path().join("boot/kernel")).unwrap(), "one\n");
    assert_eq!(input.path().join("out").read_link().unwrap(), Path::new("/etc/shadow"));
    let locked: LockedFetch = input.lock().unwrap();
    assert_eq!((locked.git.commit.as_str(), locked.git.branch.as_deref()), (first.as_str(), Some("stable")));
    assert!(matches!(&input.version, FetchVersion::Git { signer: Some(_), .. }));
    assert_eq!(known(OFFLINE).unwrap()["firmware"], format!("commit {first}"));

    forge.write("boot/kernel", "two\n");
    let second = forge.commit(Some("good"), 1800);
    let lock = Locked { fetch: vec![locked], ..Locked::default() };
    let held = ResolveOptions { locked: Some(&lock), ..ResolveOptions::default() };
    let of = |options, git| get(&fetch(git), &store, options).map(|input| input.version.identity());
    assert_eq!(of(held, forge.branch()).unwrap(), format!("commit {first}"));
    assert_eq!(of(ResolveOptions::default(), forge.branch()).unwrap(), format!("commit {second}"));
    // The recipe itself names a commit: the lock does not.
    let pinned = get(&fetch(forge.at(&second)), &store, held).unwrap();
    assert_eq!((pinned.version.identity(), pinned.lock()), (format!("commit {second}"), None));
    let empty = Locked::default();
    let nothing = ResolveOptions { locked: Some(&empty), ..ResolveOptions::default() };
    assert_eq!(of(nothing, forge.branch()).unwrap_err().kind(), Kind::Usage);
    let moved =
        Locked { fetch: vec![LockedFetch { name: "firmware".to_owned(), ..lock.fetch[0].clone() }], ..empty.clone() };
    assert_eq!(lock.changes(&moved), Vec::<String>::new());
    assert!(lock.changes(&empty)[0].starts_with("download firmware: "), "{:?}", lock.changes(&empty));
}
