//! Commits with signatures by GnuPG, fetched from git's own server.
#![allow(clippy::disallowed_methods, reason = "tests start git themselves")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::git_server::serve;
use super::mirror::store;
use super::*;
use crate::lockfile::Locked;
use crate::recipe::Git;
use crate::recipe::Job;
use crate::source::repository::git::{archive, judge, known, locate};
use crate::source::repository::meta_repo;

const DAY: u64 = 86_400;
const OFFLINE: ResolveOptions<'_> = ResolveOptions { offline: true, allow_rollback: false, locked: None };

/// A git repository with its server and its signing keys.
pub(super) struct Forge {
    gpg: Gpg,
    keyring: PathBuf,
    directory: tempfile::TempDir,
    url: String,
    requests: std::sync::Arc<Mutex<usize>>,
}

impl Forge {
    /// Returns `None` without GnuPG or git: the test is skipped.
    pub(super) fn new() -> Option<Self> {
        let gpg = gpg()?;
        if Command::new("git").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("QUERN_TEST_STRICT").is_none(), "git is not installed");
            return None;
        }
        let then = format!("{}!", now() - 90 * DAY);
        gpg.key("good", &["--faked-system-time", &then]);
        let keyring = gpg.home.path().join("good.asc");
        fs_err::write(&keyring, gpg.run(&["--armor", "--export", "good"], b"")).unwrap();
        gpg.key("evil", &["--faked-system-time", &then]);
        let script = "#!/bin/sh\nexec gpg --homedir \"$QUERN_GPG\" --batch --quiet --faked-system-time \"$QUERN_THEN!\" \"$@\"\n";
        let program = gpg.home.path().join("program");
        fs_err::write(&program, script).unwrap();
        fs_err::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let requests = std::sync::Arc::new(Mutex::new(0));
        let url = serve(directory.path().to_owned(), requests.clone());
        let forge = Self { gpg, keyring, directory, url, requests };
        forge.git(&["init", "--quiet", "--initial-branch=stable"], b"", 0);
        forge.write("profiles/repo_name", "own\n");
        forge.write("metadata/layout.conf", "masters =\n");
        Some(forge)
    }

    pub(super) fn git(&self, arguments: &[&str], input: &[u8], ago: u64) -> String {
        let then = (now() - ago).to_string();
        let date = format!("{then} +0000");
        let program = format!("gpg.program={}", self.gpg.home.path().join("program").display());
        let mut child = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", &program])
            .args(arguments)
            .current_dir(self.directory.path())
            .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_AUTHOR_DATE", &date), ("GIT_COMMITTER_DATE", &date)])
            .envs([("QUERN_THEN", then.as_str()), ("QUERN_GPG", self.gpg.home.path().to_str().unwrap())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.directory.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    /// Returns a path of its work tree.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Commits all files, with or without a signature. Returns the id of the commit.
    pub(super) fn commit(&self, signer: Option<&str>, ago: u64) -> String {
        self.git(&["add", "--all"], b"", ago);
        let sign = signer.map_or("--no-gpg-sign".to_owned(), |signer| format!("--gpg-sign={signer}"));
        self.git(&["commit", "--quiet", "--allow-empty", "--message=m", &sign], b"", ago);
        self.git(&["rev-parse", "HEAD"], b"", ago)
    }

    pub(super) fn branch(&self) -> Git {
        Git {
            url: format!("{}/.git", self.url),
            commit: None,
            branch: Some("stable".to_owned()),
            keyring: Some(self.keyring.clone()),
            fingerprints: Vec::new(),
            max_age: 30 * DAY,
            bounds: Default::default(),
            allow_unsigned: false,
            named_by: None,
        }
    }

    pub(super) fn at(&self, commit: &str) -> Git {
        Git { commit: Some(commit.to_owned()), branch: None, ..self.branch() }
    }

    fn requests(&self) -> usize {
        *self.requests.lock().unwrap()
    }

    /// Returns the names and contents in the archive of a commit.
    fn files(&self, git: &Git, store: &Store, terms: ResolveOptions) -> HashMap<String, Vec<u8>> {
        let commit = locate(git, &Site::new(store, terms, &Silent)).unwrap();
        let mut files = HashMap::new();
        archive(git, &commit, &Site::new(store, terms, &Silent), |tarball| {
            let mut archive = tar::Archive::new(tarball);
            for entry in archive.entries().unwrap() {
                let mut entry = entry.unwrap();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                files.insert(entry.path().unwrap().display().to_string(), bytes);
            }
            Ok(())
        })
        .unwrap();
        files
    }
}

#[track_caller]
fn refused(git: &Git, store: &Store, why: &str) {
    let error = locate(git, &Site::new(store, ResolveOptions::default(), &Silent)).map(|_| ()).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains(why), "{why}: {error:?}");
}

#[test]
fn a_signed_commit_is_fetched_once_with_the_bytes_of_its_tree() {
    let Some(forge) = Forge::new() else { return };
    forge.write(
        ".gitattributes",
        "[attr]all export-ignore\nhidden export-ignore\n*.e export-subst eol=crlf text ident\n",
    );
    forge.write("sub/.gitattributes", "* export-ignore\n");
    forge.write("hidden", "seen");
    forge.write("sub/file", "seen");
    forge.write("a.e", "$Format:%H$\n$Id$\n");
    let id = forge.commit(Some("good"), 3600);
    let (_home, store) = store();
    let branch = forge.branch();
    assert_eq!(locate(&branch, &Site::new(&store, OFFLINE, &Silent)).unwrap_err().kind(), Kind::Network);
    let commit = locate(&branch, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap();
    assert_eq!(commit.id(), id);
    assert_eq!(commit.signer(), Some(forge.gpg.fingerprints("good")[0].as_str()));
    // After the fetch of the branch, the commit is in the store, also offline and by its id.
    let requests = forge.requests();
    let files = forge.files(&branch, &store, OFFLINE);
    assert_eq!(forge.requests(), requests);
    let has = |name: &str| files.get(&format!("repository/{name}")).map(Vec::as_slice);
    assert_eq!(has("profiles/repo_name"), Some(b"own\n".as_slice()));
    assert_eq!((has("hidden"), has("sub/file")), (Some(b"seen".as_slice()), Some(b"seen".as_slice())));
    assert_eq!(has("a.e"), Some(b"$Format:%H$\n$Id$\n".as_slice()));
    let exact = forge.at(&id);
    assert!(known(&exact, &store).unwrap().is_none(), "the branch was judge, not the commit");
    locate(&exact, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap();
    assert_eq!((known(&exact, &store).unwrap().unwrap().id(), forge.requests()), (id.as_str(), requests));
    // In another store, it is fetched by its id, and the second time without a request.
    let (_home, other) = super::mirror::store();
    assert_eq!(forge.files(&exact, &other, ResolveOptions::default()), files);
    let requests = forge.requests();
    locate(&exact, &Site::new(&other, ResolveOptions::default(), &Silent)).unwrap();
    assert_eq!(forge.requests(), requests);
    judge(&branch, &Site::new(&other, ResolveOptions::default(), &Silent)).unwrap();
    assert!(forge.requests() > requests);
}

#[test]
fn commits_with_bad_signatures_are_refused() {
    let Some(forge) = Forge::new() else { return };
    let (_home, store) = store();
    let unsigned = forge.commit(None, 3600);
    refused(&forge.branch(), &store, "nobody signed it");
    refused(&forge.at(&unsigned), &store, "nobody signed it");
    let allowed = Git { keyring: None, allow_unsigned: true, ..forge.at(&unsigned) };
    let commit = locate(&allowed, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap();
    assert_eq!((commit.signer(), commit.trust_basis().as_str()), (None, "commit id in the recipe, unsigned"));
    // If one recipe accepts unsigned commits, others still refuse them.
    refused(&forge.at(&unsigned), &store, "nobody signed it");
    let evil = forge.commit(Some("evil"), 3600);
    refused(&forge.at(&evil), &store, "not in the keyring");
    // The signature of another commit.
    let good = forge.commit(Some("good"), 3600);
    let text = forge.git(&["cat-file", "commit", &good], b"", 0) + "\n";
    let forged = forge.git(&["hash-object", "-t", "commit", "-w", "--stdin"], (text + "more\n").as_bytes(), 0);
    forge.git(&["update-ref", "refs/heads/stable", &forged], b"", 0);
    refused(&forge.branch(), &store, "bad signature");
    assert!(known(&forge.branch(), &store).unwrap().is_none());
    let missing = Git { branch: Some("nowhere".to_owned()), ..forge.branch() };
    let error = locate(&missing, &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap_err();
    assert!(error.kind() == Kind::Network && error.details().unwrap().contains("nowhere"), "{error:?}");
}

#[test]
fn an_object_that_does_not_match_its_id_is_refused() {
    let Some(forge) = Forge::new() else { return };
    let (_home, store) = store();
    let id = forge.commit(Some("good"), 3600);
    let object = |id: &str| forge.directory.path().join(".git/objects").join(&id[..2]).join(&id[2..]);
    let name = forge.git(&["rev-parse", "HEAD:profiles/repo_name"], b"", 0);
    let other = forge.git(&["hash-object", "-w", "--stdin"], b"evil\n", 0);
    fs_err::remove_file(object(&name)).unwrap();
    fs_err::copy(object(&other), object(&name)).unwrap();
    let error = locate(&forge.at(&id), &Site::new(&store, ResolveOptions::default(), &Silent)).map(|_| ()).unwrap_err();
    assert!(matches!(error.kind(), Kind::Refused | Kind::Network), "{error:?}");
    assert!(known(&forge.at(&id), &store).unwrap().is_none());
}

#[test]
fn a_branch_may_be_neither_too_old_nor_older_than_before() {
    let Some(forge) = Forge::new() else { return };
    let (_home, store) = store();
    let old = forge.commit(Some("good"), 40 * DAY);
    refused(&forge.branch(), &store, "40 days old");
    locate(&forge.at(&old), &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap();
    let before = forge.commit(Some("good"), 2 * DAY);
    let newer = forge.commit(Some("good"), DAY);
    assert_eq!(locate(&forge.branch(), &Site::new(&store, ResolveOptions::default(), &Silent)).unwrap().id(), newer);
    forge.git(&["update-ref", "refs/heads/stable", &before], b"", 0);
    refused(&forge.branch(), &store, "older than one seen before");
    assert_eq!(known(&forge.branch(), &store).unwrap().unwrap().id(), newer);
    let allowed = ResolveOptions { allow_rollback: true, ..ResolveOptions::default() };
    assert_eq!(locate(&forge.branch(), &Site::new(&store, allowed, &Silent)).unwrap().id(), before);
}

#[test]
fn a_commit_is_unpacked_once_and_only_if_it_is_a_repository() {
    let Some(forge) = Forge::new() else { return };
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("QUERN_TEST_STRICT").is_none(), "unpacking needs root");
        return;
    }
    let (_home, store) = store();
    let repository = |git: &Git| {
        let origin = crate::recipe::Origin::Git(git.clone());
        crate::recipe::RepositorySpec { origin, priority: None, masters: None, eclass_overrides: None, kit: None }
    };
    let found =
        |git: Git| inputs::repository(&repository(&git), 0, &Site::new(&store, ResolveOptions::default(), &Silent));
    let trees = || {
        let names = fs_err::read_dir(store.root().join("trees")).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_none_or(|end| end != "lock")).count()
    };
    forge.write("profiles/p/make.defaults", "ARCH=\"amd64\"\n");
    let id = forge.commit(Some("good"), 3600);
    let used = found(forge.branch()).unwrap();
    assert!(used.directory().ends_with("root/repository"));
    assert!(matches!(&used.version, RepositoryVersion::Git { commit, .. } if *commit == id));
    assert_eq!(trees(), 1);
    // The same commit under another name is the same tree, which is kept while it is used.
    let _again = found(forge.at(&id)).unwrap();
    assert_eq!(trees(), 1);
    store.clean(&[crate::store::clean::Category::Trees], false, |item| assert!(item.busy)).unwrap();
    assert!(used.directory().join("profiles/repo_name").exists());
    // A signed commit with a symlink that leads out of the store.
    std::os::unix::fs::symlink("/etc/shadow", forge.directory.path().join("profiles/p/packages")).unwrap();
    forge.commit(Some("good"), 1800);
    let error = found(forge.branch()).map(drop).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("out of the repository"), "{error:?}");
    assert_eq!(trees(), 1);
    // A signed commit that is not a repository.
    forge.git(&["rm", "--quiet", "-r", "profiles"], b"", 0);
    forge.commit(Some("good"), 900);
    let error = found(forge.branch()).map(drop).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("profiles/repo_name"), "{error:?}");
    assert_eq!(trees(), 1);
}

#[test]
fn the_kits_of_a_release_are_those_of_a_signed_meta_repo() {
    use crate::recipe::{MetaRepo, MetaRepoPlace, Origin};
    let Some(forge) = Forge::new() else { return };
    let (_home, store) = store();
    let pin = "a".repeat(40);
    forge.write("metadata/kit-info.json", r#"{"release_defs": {"core-kit": ["1.4-release"], "x-kit": ["3.7"]}}"#);
    forge.write("metadata/kit-sha1.json", &format!(r#"{{"core-kit": {{"1.4-release": "{pin}"}}, "x-kit": {{}}}}"#));
    let unsigned = forge.commit(None, 3600);
    forge.git(&["branch", "--move", "1.4-release"], b"", 0);
    let job = |git: Git, release: &str, kits: &[&str]| {
        let kits = kits.iter().map(|kit| (*kit).to_owned()).collect();
        let git = Git { branch: Some(MetaRepo::branch_of(release)), ..git };
        let meta = MetaRepo { at: MetaRepoPlace::Git(git), release: release.to_owned(), kits };
        let mut job = crate::recipe::fixture::job();
        job.portage.repositories = vec![crate::recipe::RepositorySpec {
            origin: Origin::MetaRepo(meta),
            priority: None,
            masters: None,
            eclass_overrides: None,
            kit: None,
        }];
        job
    };
    let listed = |job: &Job, terms| meta_repo::listed(job, &Site::new(&store, terms, &Silent));
    let online = ResolveOptions::default();
    let core = job(forge.branch(), "1.4", &["core-kit"]);
    assert_eq!(listed(&core, OFFLINE).unwrap_err().kind(), Kind::Network);
    assert_eq!(listed(&core, online).unwrap_err().kind(), Kind::Refused);
    let id = forge.commit(Some("good"), 1800);
    let found = listed(&core, online).unwrap();
    let Origin::Git(kit) = &found[0].spec.origin else { panic!("{found:?}") };
    assert_eq!((kit.commit.as_ref(), kit.branch.as_deref()), (Some(&pin), Some("1.4-release")));
    assert!(kit.allow_unsigned && kit.url.ends_with("/core-kit.git"), "{kit:?}");
    assert!(kit.named_by.as_ref().unwrap().contains(&id[..12]), "{kit:?}");
    let locked = found[0].meta_repo.clone().unwrap();
    assert_eq!((locked.commit.as_str(), locked.branch.as_deref()), (id.as_str(), Some("1.4-release")));
    assert_eq!(listed(&core, OFFLINE).unwrap()[0].spec, found[0].spec);
    // The lock holds the meta-repo, whatever the branch has now.
    forge.write("metadata/kit-info.json", "{}");
    forge.commit(Some("good"), 900);
    assert!(listed(&core, online).unwrap_err().to_string().contains("kit-info.json"));
    let lock = Locked { meta_repo: vec![locked], ..Locked::default() };
    let held = ResolveOptions { locked: Some(&lock), ..online };
    assert_eq!(listed(&core, held).unwrap()[0].spec, found[0].spec);
    let empty = ResolveOptions { locked: Some(&Locked::default()), ..online };
    assert_eq!(listed(&core, empty).unwrap_err().kind(), Kind::Usage);
    // Mistakes of the recipe, and of the meta-repo.
    for (git, release, kit, hint) in [
        (forge.branch(), "1.5-release", "core-kit", "1.4"),
        (forge.at(&id), "1.4", "core-kid", "did you mean core-kit?"),
        (forge.at(&id), "1.4", "x-kit", ""),
    ] {
        let error = listed(&job(git, release, &[kit]), online).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error:?}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{error:?}");
    }
    let allowed = Git { keyring: None, allow_unsigned: true, ..forge.at(&unsigned) };
    assert_eq!(
        listed(&job(allowed, "1.4", &["core-kit"]), online).unwrap()[0].meta_repo.as_ref().unwrap().signer,
        None
    );
}
