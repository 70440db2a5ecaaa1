//! Commits of git repositories. The host's `git` fetches the objects into a bare repository in the store, without any configuration of
//! the host. This program judges the signature of a commit and unpacks its tree.

use std::io::Read;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::digest::{Sha512, hex};
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::text::printable;
use crate::os::process::Exit;
use crate::os::process::git::GitProgram;
use crate::os::process::helper::{Helper, ask};
use crate::recipe::Git;
use crate::source::freshness::SignatureAge;
use crate::source::trust::warn_of_expiry;
use crate::source::{Site, Trust, without_network};
use crate::store::Store;
use crate::store::lock::{self, Lock, Mode};
use crate::verify::{self, Keyring, MAX_DOCUMENT, Signer};

/// Kind of the refs that remember commits.
const REFS: &str = "git";
/// Largest file that git may write, in bytes. A pack of Gentoo's repository has some hundred megabytes.
const LARGEST: u64 = 8 << 30;
/// Attributes that take effect on export, all switched off, so that a tree has exactly the bytes of its commit.
const ATTRIBUTES: &str = "* -export-ignore -export-subst -text -eol -ident -filter -working-tree-encoding\n";

/// A commit that a trusted signature or the recipe itself vouches for.
#[derive(Debug, Clone)]
pub struct Commit {
    url: String,
    meta: CommitMeta,
    /// The document that names its ID, if it is not the recipe.
    named_by: Option<String>,
}

/// Facts about a commit, as the store remembers them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CommitMeta {
    commit: String,
    signer: Option<Signer>,
    /// [`Keyring::id`] of the verification; empty if the recipe accepts an unsigned commit.
    trust: String,
}

impl Commit {
    /// Returns the address of its repository.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn id(&self) -> &str {
        &self.meta.commit
    }

    /// Returns the primary fingerprint of the signer.
    pub fn signer(&self) -> Option<&str> {
        self.meta.signer.as_ref().map(|signer| signer.primary.as_str())
    }

    /// Returns the reason for trusting it, in words.
    pub fn trust_basis(&self) -> String {
        match self.signer() {
            Some(signer) => format!("commit signed by {signer}"),
            None => format!("commit id in {}, unsigned", self.named_by.as_deref().unwrap_or("the recipe")),
        }
    }

    /// Returns the digest that names its tree in the store.
    pub fn tree_key(&self) -> Sha512 {
        Sha512::of(format!("git commit {}", self.id()).as_bytes())
    }

    /// Returns a name for messages: the last part of the address and the start of the id.
    pub fn name(&self) -> String {
        let short = &self.id()[..12];
        let named = |part: &&str| !matches!(*part, "" | ".git");
        let name = self.url.rsplit('/').find(named).unwrap_or_default();
        format!("{}-{short}", name.strip_suffix(".git").unwrap_or(name))
    }
}

impl std::fmt::Display for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let signer = self.signer().unwrap_or("nobody");
        write!(
            f,
            "{}: good\n  commit   {}\n  signer   {signer}\n  verified {}",
            self.url,
            self.id(),
            self.trust_basis()
        )
    }
}

/// Finds the commit and judges it. Asks the server, unless the recipe names a commit that the store knows.
///
/// # Errors
/// [`Kind::Refused`] for a commit without a trusted signature, [`Kind::Network`] when the server does not give it,
/// [`Kind::System`] when this machine has no git.
pub(in crate::source) fn locate(git: &Git, at: &Site<'_>) -> Result<Commit> {
    if (at.options.offline || git.commit.is_some())
        && let Some(known) = known(git, at.store)?
    {
        return Ok(known);
    }
    judge(git, at)
}

/// Finds the commit on the server and judges it, even if the store knows it.
pub(in crate::source) fn judge(git: &Git, at: &Site<'_>) -> Result<Commit> {
    if at.options.offline {
        return Err(Error::network(format!("the store has no verified commit of {}", git.url))
            .with_hint(without_network(&at.options)));
    }
    at.ui.stage(&format!("looking for the commit of {}", git.url));
    let keyring = keyring(git, at.store)?;
    let bare = Bare::open(git, at)?;
    let commit = bare.fetch(git)?;
    let signer = match &keyring {
        Some(keyring) => {
            let signer = bare.commit(&commit)?.verify(keyring)?;
            if git.commit.is_none() {
                let age = SignatureAge { of: ref_name(git), max_age: git.max_age };
                age.check(keyring, &described(git), signer.created, at)?;
            }
            warn_of_expiry(keyring, &signer.primary, at.ui);
            Some(signer)
        }
        None => bare.commit(&commit).map(|_| None)?,
    };
    let meta = CommitMeta { commit, signer, trust: keyring.map(|keyring| keyring.id().to_owned()).unwrap_or_default() };
    at.store.write_ref(REFS, &ref_name(git), &meta)?;
    at.ui.done();
    Ok(Commit { url: git.url.clone(), meta, named_by: git.named_by.clone() })
}

/// Returns the commit that the store remembers, without asking a server.
pub(in crate::source) fn known(git: &Git, store: &Store) -> Result<Option<Commit>> {
    let trust = keyring(git, store)?.map(|keyring| keyring.id().to_owned()).unwrap_or_default();
    let meta = store.read_ref::<CommitMeta>(REFS, &ref_name(git))?.filter(|meta| meta.trust == trust);
    Ok(meta.map(|meta| Commit { url: git.url.clone(), meta, named_by: git.named_by.clone() }))
}

/// Reads a file of the commit's tree, at most [`MAX_DOCUMENT`] bytes. `None` if the commit has no such file.
pub(in crate::source) fn file(git: &Git, commit: &Commit, path: &str, at: &Site<'_>) -> Result<Option<Vec<u8>>> {
    let bare = Bare::open(git, at)?;
    bare.bring(git, commit, at)?;
    let (exit, bytes, _) = ask(bare.git(&["cat-file", "blob", &format!("{}:{path}", commit.id())])?, MAX_DOCUMENT)?;
    Ok(exit.success().then_some(bytes))
}

/// Asks the server for the names of its branches.
pub(in crate::source) fn branches(git: &Git, at: &Site<'_>) -> Result<Vec<String>> {
    let bare = Bare::open(git, at)?;
    let (_, output, _) = ask(bare.git(&["ls-remote", "--heads", "--", &git.url])?, MAX_DOCUMENT)?;
    let output = String::from_utf8_lossy(&output).into_owned();
    let names = output.lines().filter_map(|line| line.split_once("\trefs/heads/"));
    Ok(names.map(|(_, name)| printable(name)).collect())
}

/// Gives `unpack` a tarball of the commit's tree, with one top directory.
pub(in crate::source) fn archive<T>(
    git: &Git,
    commit: &Commit,
    at: &Site<'_>,
    unpack: impl FnOnce(Box<dyn Read + Send>) -> Result<T>,
) -> Result<T> {
    let bare = Bare::open(git, at)?;
    bare.bring(git, commit, at)?;
    fs_err::create_dir_all(bare.path.join("info")).system(|| "preparing git's repository")?;
    fs_err::write(bare.path.join("info/attributes"), ATTRIBUTES).system(|| "preparing git's repository")?;
    let mut helper = bare.git(&["archive", "--format=tar", "--prefix=repository/", commit.id()])?;
    let unpacked = unpack(Box::new(helper.output()?));
    let (exit, complaints) = helper.finish()?;
    // A signal ends git when nobody reads its output any more. Then the error of `unpack` matters.
    match exit {
        Exit::Code(0) | Exit::Signal(_) if unpacked.is_err() || exit.success() => unpacked,
        _ => Err(Error::system(format!("git archive of {} failed", commit.id())).with_details(shown(&complaints))),
    }
}

/// Returns the certificates that may sign, or `None` if the recipe accepts an unsigned commit.
fn keyring(git: &Git, store: &Store) -> Result<Option<Keyring>> {
    if git.allow_unsigned {
        return Ok(None);
    }
    Trust::of_git(git).keyring(store).map(Some)
}

fn described(git: &Git) -> String {
    match (&git.commit, &git.branch) {
        (Some(commit), _) => format!("{commit} of {}", git.url),
        (None, branch) => format!("{} of {}", branch.as_deref().unwrap_or_default(), git.url),
    }
}

fn ref_name(git: &Git) -> String {
    hex(&Sha256::digest(described(git)))
}

/// The bare repository for an address, locked.
struct Bare {
    path: PathBuf,
    program: GitProgram,
    /// Locks of the repository, and of the caches against `clean`.
    _locks: (Lock, Lock),
}

impl Bare {
    fn open(git: &Git, at: &Site<'_>) -> Result<Self> {
        let used = at.store.use_caches()?;
        let sha256 = git.commit.as_ref().is_some_and(|commit| commit.len() == 64);
        let directory = at.store.cache("git")?;
        let format = if sha256 { "sha256" } else { "sha1" };
        let path = directory.join(format!("{}-{format}", &hex(&Sha256::digest(&git.url))[..32]));
        let waiting = || at.ui.note(&format!("waiting for another process that fetches {}", git.url));
        let lock = lock::take(&path.with_added_extension("lock"), Mode::Exclusive, waiting)?;
        let program = GitProgram::new(&path, &["http", "https"]);
        let bare = Self { path, program, _locks: (lock, used) };
        if !bare.path.join("HEAD").exists() {
            let made = ["init", "--quiet", "--bare", "--template=", "--initial-branch=none"];
            bare.run(&[&made[..], &[&format!("--object-format={format}")]].concat())?;
        }
        Ok(bare)
    }

    /// Fetches the commit, or the newest of the branch, with its whole tree. Returns its id.
    fn fetch(&self, git: &Git) -> Result<String> {
        let branch = git.branch.as_ref().map(|branch| format!("refs/heads/{branch}"));
        let fetch = |depth: &[&str], refspec: &str| {
            let options = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--force"];
            self.transfer(&[&options[..], depth, &["--", &git.url, refspec]].concat(), &git.url)
        };
        let id = match (&git.commit, &branch) {
            (Some(commit), branch) if !self.has(commit)? => {
                let found = fetch(&["--depth=1"], &format!("{commit}:refs/quern/new"));
                match (found, branch) {
                    // Some servers only give commits that a branch names at the moment.
                    (Err(error), Some(branch)) if error.kind() == Kind::Network => {
                        fetch(&[], &format!("{branch}:refs/quern/branch")).map_err(|_| error)?;
                        self.run(&["cat-file", "-e", &format!("{commit}^{{tree}}")]).map_err(|error| {
                            Error::network(format!("{} does not have the commit {commit}", git.url)).with_source(error)
                        })?;
                    }
                    (found, _) => found?,
                }
                commit.clone()
            }
            (Some(commit), _) => return Ok(commit.clone()),
            (None, branch) => {
                fetch(&["--depth=1"], &format!("{}:refs/quern/new", branch.as_deref().unwrap_or("HEAD")))?;
                self.run(&["rev-parse", "--verify", "--quiet", "refs/quern/new^{commit}"])?.trim().to_owned()
            }
        };
        if !matches!(id.len(), 40 | 64) || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Error::system(format!("git returned an invalid commit id: {}", printable(&id))));
        }
        // This ref records that the commit is here as a whole.
        self.run(&["update-ref", &format!("refs/quern/{id}"), &id])?;
        Ok(id)
    }

    /// Fetches a commit again if it is not here any more.
    fn bring(&self, git: &Git, commit: &Commit, at: &Site<'_>) -> Result<()> {
        if self.has(commit.id())? {
            return Ok(());
        }
        if at.options.offline {
            return Err(Error::network(format!("the store does not have {} of {}", commit.id(), git.url))
                .with_hint(without_network(&at.options)));
        }
        self.fetch(&Git { commit: Some(commit.id().to_owned()), ..git.clone() }).map(drop)
    }

    /// Returns true if a commit was fetched as a whole.
    fn has(&self, id: &str) -> Result<bool> {
        let helper = self.git(&["show-ref", "--verify", "--quiet", &format!("refs/quern/{id}")])?;
        Ok(ask(helper, MAX_DOCUMENT)?.0.success())
    }

    fn commit(&self, id: &str) -> Result<verify::Commit> {
        let (exit, bytes, complaints) = ask(self.git(&["cat-file", "commit", id])?, MAX_DOCUMENT)?;
        if !exit.success() {
            return Err(Error::refused(format!("{id} is not a commit")).with_details(shown(&complaints)));
        }
        verify::Commit::read(id, &bytes)
    }

    /// Runs a git command that talks to the server.
    fn transfer(&self, arguments: &[&str], url: &str) -> Result<()> {
        let (exit, _, complaints) = ask(self.git(arguments)?, MAX_DOCUMENT)?;
        if exit.success() {
            return Ok(());
        }
        // Words in git's messages about damaged objects.
        let damaged = ["fsck", "corrupt", "mismatch", "invalid", "necessary objects", "expected object"];
        let kind = if damaged.iter().any(|word| complaints.contains(word)) { Kind::Refused } else { Kind::Network };
        Err(Error::new(kind, format!("fetching {url} with git")).with_details(shown(&complaints)))
    }

    /// Runs a git command that does not use the network. Returns its output.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let (exit, output, complaints) = ask(self.git(arguments)?, MAX_DOCUMENT)?;
        if !exit.success() {
            let what = arguments.first().copied().unwrap_or_default();
            return Err(Error::system(format!("git {what} failed")).with_details(shown(&complaints)));
        }
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    fn git(&self, arguments: &[&str]) -> Result<Helper> {
        self.program.start(arguments, LARGEST)
    }
}

/// Makes git's messages, which quote the server, safe for the terminal.
fn shown(complaints: &str) -> String {
    complaints.lines().map(|line| format!("{}\n", printable(line))).collect()
}
