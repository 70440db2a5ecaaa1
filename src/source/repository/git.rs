//! Commits of git repositories. The host's `git` moves the bytes, under no configuration but ours, into a bare repository in the
//! store; who signed a commit is judged here, and its tree is unpacked by this program.

use crate::base::text::printable;
use crate::base::time::now;
use std::io::Read;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::digest::{Sha512, hex};
use crate::base::error::{Context, Error, Kind, Result};
use crate::os::process::Exit;
use crate::os::process::helper::{Helper, ask};
use crate::recipe::Git;
use crate::source::{Dated, Site, warn_of_expiry};
use crate::store::Store;
use crate::store::lock::{self, Lock, Mode};
use crate::verify::{self, GENTOO_SNAPSHOTS, Keyring, MAX_DOCUMENT, Signer};

/// Kind of the refs that remember commits.
const REFS: &str = "git";
/// The largest file that git may write: a pack of Gentoo's repository has some hundred megabytes.
const LARGEST: u64 = 8 << 30;
/// Primary key that signs the commits of Gentoo's own repository, where it was imported; [`GENTOO_SNAPSHOTS`] may too.
const GENTOO_COMMITS: &str = "EF9538C9E8E64311A52CDEDFA13D0EF1914E7A72";
/// What no attribute in a repository may change: a tree is what its commit says, byte by byte.
const ATTRIBUTES: &str = "* -export-ignore -export-subst -text -eol -ident -filter -working-tree-encoding\n";

/// A commit that is good by its signature, or by the recipe's word.
#[derive(Debug)]
pub struct Commit {
    url: String,
    facts: Facts,
}

/// What is remembered of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Facts {
    commit: String,
    signer: Option<Signer>,
    /// [`Keyring::id`] it was verified with, or nothing where the recipe wants no signature.
    trust: String,
}

impl Commit {
    /// The address of its repository.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.facts.commit
    }

    /// Primary fingerprint of the certificate that signed it.
    pub fn signer(&self) -> Option<&str> {
        self.facts.signer.as_ref().map(|signer| signer.primary.as_str())
    }

    /// What the trust in it rests on, in words.
    pub fn how(&self) -> String {
        match self.signer() {
            Some(signer) => format!("commit signed by {signer}"),
            None => "commit id in the recipe, unsigned".to_owned(),
        }
    }

    /// What its tree is called in the store: a digest, as a tarball has one.
    pub fn tree(&self) -> Sha512 {
        Sha512::of(format!("git commit {}", self.id()).as_bytes())
    }

    /// What is unpacked is called so in messages.
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
        write!(f, "{}: good\n  commit   {}\n  signer   {signer}\n  verified {}", self.url, self.id(), self.how())
    }
}

/// Finds out which commit it is, and that it may be used. Asks the server, unless the commit is given and known.
///
/// # Errors
/// [`Kind::Refused`] for a commit that is not signed as it must be, [`Kind::Network`] when the server does not give it,
/// [`Kind::System`] when this machine has no git.
pub fn locate(git: &Git, at: &Site<'_>) -> Result<Commit> {
    if (at.options.offline || git.commit.is_some())
        && let Some(known) = known(git, at.store)?
    {
        return Ok(known);
    }
    judged(git, at)
}

/// As [`locate`], but what is known is judged anew.
///
/// # Errors
/// As [`locate`].
pub fn judged(git: &Git, at: &Site<'_>) -> Result<Commit> {
    if at.options.offline {
        return Err(Error::network(format!("the store knows no verified commit of {}", git.url))
            .with_hint("run once without --offline"));
    }
    at.ui.stage(&format!("looking for the commit of {}", git.url));
    let keyring = keyring(git, at.store)?;
    let bare = Bare::open(git, at)?;
    let commit = bare.fetch(git)?;
    let signer = match &keyring {
        Some(keyring) => {
            let signer = bare.commit(&commit)?.verify(keyring)?;
            if git.commit.is_none() {
                let dated = Dated { of: ref_name(git), max_age: git.max_age };
                dated.check(keyring, &described(git), signer.created, at)?;
            }
            warn_of_expiry(keyring, &signer.primary, now(), at.ui);
            Some(signer)
        }
        None => bare.commit(&commit).map(|_| None)?,
    };
    let facts = Facts { commit, signer, trust: keyring.map(|keyring| keyring.id().to_owned()).unwrap_or_default() };
    at.store.write_ref(REFS, &ref_name(git), &facts)?;
    at.ui.done();
    Ok(Commit { url: git.url.clone(), facts })
}

/// The commit as the store remembers it, without asking anybody.
///
/// # Errors
/// Those of the keyring and the store.
pub fn known(git: &Git, store: &Store) -> Result<Option<Commit>> {
    let trust = keyring(git, store)?.map(|keyring| keyring.id().to_owned()).unwrap_or_default();
    let facts = store.read_ref::<Facts>(REFS, &ref_name(git))?.filter(|facts| facts.trust == trust);
    Ok(facts.map(|facts| Commit { url: git.url.clone(), facts }))
}

/// The commit's tree as a tarball with one top directory, given to `unpack`.
///
/// # Errors
/// Those of `unpack`, and as [`locate`].
pub fn archive<T>(
    git: &Git,
    commit: &Commit,
    at: &Site<'_>,
    unpack: impl FnOnce(Box<dyn Read + Send>) -> Result<T>,
) -> Result<T> {
    let bare = Bare::open(git, at)?;
    if !bare.has(commit.id())? {
        if at.options.offline {
            return Err(Error::network(format!("the store does not have {} of {}", commit.id(), git.url))
                .with_hint("run once without --offline"));
        }
        bare.fetch(&Git { commit: Some(commit.id().to_owned()), ..git.clone() })?;
    }
    fs_err::create_dir_all(bare.path.join("info")).system(|| "preparing git's repository")?;
    fs_err::write(bare.path.join("info/attributes"), ATTRIBUTES).system(|| "preparing git's repository")?;
    let mut helper = bare.git(&["archive", "--format=tar", "--prefix=repository/", commit.id()])?;
    let unpacked = unpack(Box::new(helper.output()?));
    let (exit, complaints) = helper.finish()?;
    // Killed by a signal, it only could not write any more.
    match exit {
        Exit::Code(0) | Exit::Signal(_) if unpacked.is_err() || exit.success() => unpacked,
        _ => Err(Error::system(format!("git archive of {} failed", commit.id())).with_details(shown(&complaints))),
    }
}

/// Who may sign; none where the recipe wants no signature.
fn keyring(git: &Git, store: &Store) -> Result<Option<Keyring>> {
    if git.allow_unsigned {
        return Ok(None);
    }
    let imported = store.certificates()?;
    match &git.keyring {
        Some(path) => Keyring::load(path, &git.fingerprints),
        None if !git.fingerprints.is_empty() => Keyring::known(&imported, &git.fingerprints),
        // Its checker lets no other repository go without.
        None => {
            let mut trusted = vec![GENTOO_SNAPSHOTS.to_owned()];
            trusted.extend(store.certificate_names()?.into_iter().filter(|name| name == GENTOO_COMMITS));
            Keyring::known(&imported, &trusted)
        }
    }
    .map(Some)
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

/// The bare repository that an address is fetched into, locked.
struct Bare {
    path: PathBuf,
    env: Vec<(String, String)>,
    /// The repository, and the caches against `clean`.
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
        let proxies = std::env::vars().filter(|(name, _)| {
            let lower = name.to_ascii_lowercase();
            lower.ends_with("_proxy") || matches!(name.as_str(), "PATH" | "SSL_CERT_FILE" | "SSL_CERT_DIR")
        });
        let own = [
            ("GIT_DIR", path.to_str().ok_or_else(|| Error::system("the path of the store is not UTF-8"))?),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_SYSTEM", "/dev/null"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ALLOW_PROTOCOL", "http:https"),
            ("LC_ALL", "C"),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let bare = Self { path, env: proxies.chain(own).collect(), _locks: (lock, used) };
        if !bare.path.join("HEAD").exists() {
            let made = ["init", "--quiet", "--bare", "--template=", "--initial-branch=none"];
            bare.run(&[&made[..], &[&format!("--object-format={format}")]].concat())?;
        }
        Ok(bare)
    }

    /// Gets the commit, or the newest of the branch, and what it needs; its id.
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
                    // Not every server gives what no branch names just now.
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
            return Err(Error::system(format!("git calls a commit {}", printable(&id))));
        }
        // That it is here, with all that belongs to it.
        self.run(&["update-ref", &format!("refs/quern/{id}"), &id])?;
        Ok(id)
    }

    /// Whether a commit was fetched whole.
    fn has(&self, id: &str) -> Result<bool> {
        let helper = self.git(&["show-ref", "--verify", "--quiet", &format!("refs/quern/{id}")])?;
        Ok(ask(helper, MAX_DOCUMENT)?.0.success())
    }

    fn commit(&self, id: &str) -> Result<verify::Commit> {
        let (exit, bytes, complaints) = ask(self.git(&["cat-file", "commit", id])?, MAX_DOCUMENT)?;
        if !exit.success() {
            return Err(Error::refused(format!("{id} is no commit")).with_details(shown(&complaints)));
        }
        verify::Commit::read(id, &bytes)
    }

    /// Runs a command that talks to the server.
    fn transfer(&self, arguments: &[&str], url: &str) -> Result<()> {
        let (exit, _, complaints) = ask(self.git(arguments)?, MAX_DOCUMENT)?;
        if exit.success() {
            return Ok(());
        }
        // What git finds wrong with what it got.
        let damaged = ["fsck", "corrupt", "mismatch", "invalid", "necessary objects", "expected object"];
        let kind = if damaged.iter().any(|word| complaints.contains(word)) { Kind::Refused } else { Kind::Network };
        Err(Error::new(kind, format!("fetching {url} with git")).with_details(shown(&complaints)))
    }

    /// Runs a command that talks to nobody; what it prints.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let (exit, output, complaints) = ask(self.git(arguments)?, MAX_DOCUMENT)?;
        if !exit.success() {
            let what = arguments.first().copied().unwrap_or_default();
            return Err(Error::system(format!("git {what} failed")).with_details(shown(&complaints)));
        }
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    fn git(&self, arguments: &[&str]) -> Result<Helper> {
        let settings = [
            "protocol.allow=never",
            "protocol.http.allow=always",
            "protocol.https.allow=always",
            "transfer.fsckObjects=true",
            "fetch.unpackLimit=1",
            "fetch.recurseSubmodules=false",
            "core.hooksPath=/dev/null",
            "core.attributesFile=/dev/null",
            "core.autocrlf=false",
            "core.fsmonitor=false",
            "credential.helper=",
            "gc.auto=0",
            "maintenance.auto=false",
            "http.lowSpeedLimit=1000",
            "http.lowSpeedTime=60",
            "tar.umask=0022",
        ];
        let settings = settings.iter().flat_map(|setting| ["-c", setting]);
        let arguments: Vec<String> = settings.chain(arguments.iter().copied()).map(str::to_owned).collect();
        Helper::start("git", &arguments, &self.env, LARGEST)
            .map_err(|error| error.with_hint("a git repository in a recipe needs the program git on this machine"))
    }
}

/// Complaints of git, which quote the server, for the terminal.
fn shown(complaints: &str) -> String {
    complaints.lines().map(|line| format!("{}\n", printable(line))).collect()
}
