//! The downloads that steps name (`[fetch.NAME]`): fetched, compared with the digests of the recipe or judged by their signature, and
//! kept as trees of the store, which steps see read-only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, Timespec, Timestamps};
use serde::{Deserialize, Serialize};

use super::download::{self, NamedBy, Request};
use super::obtain::Received;
use super::repository::git::{self, Commit};
use super::{Site, locked, without_network};
use crate::archive::unpack::entry::{Entry, NodeKind};
use crate::archive::unpack::{Deferred, Limits, RaisedBy, Unpacker};
use crate::base::digest::{Sha256, Sha512};
use crate::base::error::{Context, Error, Result};
use crate::base::text::quoted;
use crate::fs::rewound;
use crate::fs::rootfs::Rootfs;
use crate::lockfile::{LockedCommit, LockedFetch};
use crate::net::http::Http;
use crate::recipe::{Bounds, Fetch, FetchFrom, Git, Job};
use crate::store::trees::Tree;

/// Kind of the refs that remember the SHA-512 of a file by its SHA-256.
const REFS: &str = "fetch";

/// The name of the content in its tree.
const CONTENT: &str = "content";

/// The top directory of the files of a commit ([`git::archive`]).
const COMMIT: &str = "repository";

/// The reason for missing attributes.
const REFUSED: &str = "this kernel or file system refused them";

/// The version of a download: enough to get the same one again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchVersion {
    /// A file, by the digests in the recipe.
    File {
        url: String,
        sha256: Option<Sha256>,
        sha512: Option<Sha512>,
        /// True if steps see the content of an archive.
        unpacked: bool,
    },
    /// A commit of a git repository.
    Git {
        url: String,
        /// The commit's id.
        commit: String,
        /// Primary fingerprint of the signer. `None` if the recipe accepts an unsigned commit.
        signer: Option<String>,
        /// The reason for trusting it, in words.
        trust_basis: String,
    },
}

/// The SHA-512 of a file whose recipe names its SHA-256, as the store remembers it.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    sha512: Sha512,
}

impl FetchVersion {
    fn of_commit(commit: &Commit) -> Self {
        Self::Git {
            url: commit.url().to_owned(),
            commit: commit.id().to_owned(),
            signer: commit.signer().map(str::to_owned),
            trust_basis: commit.trust_basis(),
        }
    }

    /// Names the content, for the keys of steps.
    pub fn identity(&self) -> String {
        match self {
            Self::File { sha256, sha512, unpacked, .. } => {
                let sha512 = sha512.as_ref().map(|digest| format!("sha512 {digest}"));
                let digest = sha512.or(sha256.as_ref().map(|digest| format!("sha256 {digest}")));
                format!("{}{}", digest.unwrap_or_default(), if *unpacked { " unpacked" } else { "" })
            }
            Self::Git { commit, .. } => format!("commit {commit}"),
        }
    }

    /// The digest that names its tree in the store: that of all digests in the recipe, so that a tree never passes for another file.
    fn tree_key(&self) -> Sha512 {
        let other = match self {
            Self::File { sha256: Some(sha256), .. } => format!(" sha256 {sha256}"),
            _ => String::new(),
        };
        Sha512::of(format!("fetch {}{other}", self.identity()).as_bytes())
    }
}

/// A download in the store, where it stays while this value lives.
#[derive(Debug)]
pub struct FetchInput {
    /// The name, unique in a recipe.
    pub name: String,
    pub version: FetchVersion,
    /// The branch that the recipe asks for. `None` if it names the commit or a file.
    branch: Option<String>,
    tree: Tree,
}

impl FetchInput {
    /// Returns the file or the directory that steps see.
    pub fn path(&self) -> PathBuf {
        let root = self.tree.root();
        match self.version {
            FetchVersion::File { .. } => root.join(CONTENT),
            FetchVersion::Git { .. } => root.join(COMMIT),
        }
    }

    /// Returns its entry in a lock file; `None` if the recipe alone decides the content.
    pub fn lock(&self) -> Option<LockedFetch> {
        let FetchVersion::Git { url, commit, signer, trust_basis } = self.version.clone() else { return None };
        let branch = Some(self.branch.clone()?);
        Some(LockedFetch { name: self.name.clone(), git: LockedCommit { branch, url, commit, signer, trust_basis } })
    }
}

/// The identities of downloads by name.
pub type Identities = BTreeMap<String, String>;

/// Returns the identities of `inputs`.
pub fn identities(inputs: &[FetchInput]) -> Identities {
    inputs.iter().map(|input| (input.name.clone(), input.version.identity())).collect()
}

/// Returns the downloads that the steps of a recipe name.
pub fn named(job: &Job) -> Vec<&Fetch> {
    let all = job.steps.iter().flat_map(|step| &step.fetch);
    all.map(|fetch| (fetch.name.as_str(), fetch)).collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Returns the downloads that the steps of a recipe name, and those of the recipes that it starts from.
pub fn of_family(job: &Job) -> Vec<&Fetch> {
    let family = std::iter::successors(Some(job), |job| Some(&job.from.as_ref()?.job));
    family.flat_map(named).collect()
}

/// Returns the place of a download and its digest or commit, for a dry run.
pub fn described(fetch: &Fetch) -> String {
    match &fetch.from {
        FetchFrom::File { url, .. } => format!("{}  {url}", fetch.name),
        FetchFrom::Git(git) => {
            let which = git.commit.as_deref().or(git.branch.as_deref()).unwrap_or_default();
            format!("{}  {} {which}", fetch.name, git.url)
        }
    }
}

/// Gets the downloads `wanted`: fetches, verifies and unpacks those that the store lacks.
///
/// # Errors
/// [`Kind::Refused`](crate::base::error::Kind::Refused) for other bytes than the recipe names and for a commit without a trusted
/// signature, [`Kind::Network`](crate::base::error::Kind::Network) if no server has it.
pub fn fetches(wanted: &[&Fetch], at: &Site<'_>) -> Result<Vec<FetchInput>> {
    wanted.iter().map(|fetch| get(fetch, at)).collect()
}

/// Returns the identities of the downloads of a recipe as far as they are known without a server. `None` if the commit of a branch is not.
///
/// # Errors
/// Those of the keyring, the store and the lock file.
pub fn known(job: &Job, at: &Site<'_>) -> Result<Option<Identities>> {
    let mut known = Identities::new();
    for fetch in named(job) {
        let version = match &fetch.from {
            FetchFrom::File { .. } => file_version(fetch),
            FetchFrom::Git(git) => git::known(&asked(fetch, git, at)?, at.store)?.as_ref().map(FetchVersion::of_commit),
        };
        let Some(version) = version else { return Ok(None) };
        known.insert(fetch.name.clone(), version.identity());
    }
    Ok(Some(known))
}

/// Judges the downloads of a recipe again. Returns a paragraph about each.
///
/// # Errors
/// Those of [`fetches`].
pub fn judge(job: &Job, at: &Site<'_>) -> Result<Vec<String>> {
    let judged = |fetch: &Fetch| match &fetch.from {
        FetchFrom::Git(git) => {
            let git = asked(fetch, git, at)?;
            let commit = if at.options.offline { git::locate(&git, at) } else { git::judge(&git, at) };
            commit.map(|commit| commit.to_string())
        }
        FetchFrom::File { url, .. } => {
            let Received { sha512, size, .. } = received(fetch, at)?;
            let name = &fetch.name;
            Ok(format!(
                "{name}: good\n  address  {url}\n  size     {size}\n  sha512   {sha512}\n  verified digest in the recipe"
            ))
        }
    };
    of_family(job).into_iter().map(judged).collect()
}

fn get(fetch: &Fetch, at: &Site<'_>) -> Result<FetchInput> {
    let (version, tree) = match &fetch.from {
        FetchFrom::File { .. } => {
            let version = file_version(fetch).ok_or_else(|| Error::system("a digest of the recipe is not a digest"))?;
            let tree = kept(fetch, &version, at, |root| {
                let received = received(fetch, at)?;
                at.ui.stage(&format!("unpacking {}", fetch.name));
                match fetch.unpack {
                    true => unpack(fetch, received, root, at),
                    false => copy(received, root),
                }
            })?;
            (version, tree)
        }
        FetchFrom::Git(git) => {
            let asked = asked(fetch, git, at)?;
            let commit = git::locate(&asked, at)?;
            let version = FetchVersion::of_commit(&commit);
            let tree = kept(fetch, &version, at, |root| {
                at.ui.stage(&format!("unpacking {}", commit.name()));
                let Bounds { max_unpacked, max_entries } = git.bounds;
                let limits = Limits::of_release(0).set(max_unpacked, max_entries, RaisedBy::Nothing);
                let unpacker = Unpacker { name: &commit.name(), into: root, limits: &limits, ui: at.ui };
                git::archive(&asked, &commit, at, |tarball| unpacker.stream(tarball, None, &mut |_| Ok(true)))
            })?;
            (version, tree)
        }
    };
    let branch = match &fetch.from {
        FetchFrom::Git(git) if git.commit.is_none() => git.branch.clone(),
        _ => None,
    };
    Ok(FetchInput { name: fetch.name.clone(), version, branch, tree })
}

/// Returns the tree of a download, which `fill` makes if the store lacks it.
fn kept(
    fetch: &Fetch,
    version: &FetchVersion,
    at: &Site<'_>,
    fill: impl FnOnce(&Rootfs) -> Result<Deferred>,
) -> Result<Tree> {
    let waiting = || at.ui.note(&format!("waiting for another process that unpacks {}", fetch.name));
    let key = version.tree_key();
    if let Some(tree) = at.store.tree(&key, waiting)? {
        return Ok(tree);
    }
    let tree = at.store.add_tree(&key, &fetch.name, waiting, fill)?;
    at.ui.done();
    Ok(tree)
}

/// Returns the version of a file; `None` if the recipe names no digest.
fn file_version(fetch: &Fetch) -> Option<FetchVersion> {
    let FetchFrom::File { url, sha256, sha512 } = &fetch.from else { return None };
    let (sha256, sha512) = (sha256.as_deref().and_then(Sha256::parse), sha512.as_deref().and_then(Sha512::parse));
    let version = FetchVersion::File { url: url.clone(), sha256, sha512, unpacked: fetch.unpack };
    (sha256.is_some() || sha512.is_some()).then_some(version)
}

/// Returns the request for a commit, held to the lock if the recipe names a branch.
fn asked(fetch: &Fetch, git: &Git, at: &Site<'_>) -> Result<Git> {
    let Some(locks) = at.options.locked.filter(|_| git.commit.is_none()) else { return Ok(git.clone()) };
    // A recipe and the one that it starts from may have different downloads of one name.
    let named = || locks.fetch.iter().filter(|locked| locked.name == fetch.name);
    match named().find(|locked| locked.git.url == git.url).or_else(|| named().next()) {
        Some(locked) => locked::commit(&locked.git, git),
        None => Err(locked::changed(&format!("the download {}", quoted(&fetch.name)), "no such download")),
    }
}

/// Brings the bytes of a file into the store, unless they are there.
fn received(fetch: &Fetch, at: &Site<'_>) -> Result<Received> {
    let Some(FetchVersion::File { url, sha256, sha512, .. }) = file_version(fetch) else {
        return Err(Error::system("a commit is not a file"));
    };
    at.ui.stage(&format!("fetching {}", fetch.name));
    let remembered = match (&sha512, &sha256) {
        (None, Some(sha256)) => at.store.read_ref::<Remembered>(REFS, &sha256.hex())?,
        _ => None,
    };
    // Parts of other files of this name, which the SHA-512 would tell apart.
    let name = match (&sha512, &sha256) {
        (None, Some(sha256)) => format!("{}-{}", fetch.name, &sha256.hex()[..16]),
        _ => fetch.name.clone(),
    };
    let request = Request {
        name: &name,
        urls: &[url],
        size: None,
        sha512: sha512.or(remembered.map(|remembered| remembered.sha512)),
        blake2b: None,
        sha256,
        named_by: NamedBy::Recipe,
        offline: at.options.offline.then(|| without_network(&at.options)),
    };
    let received = download::download(&Http::default(), &request, at.store, &mut |_| Ok(()), at.ui)?;
    if let Some(sha256) = sha256 {
        at.store.write_ref(REFS, &sha256.hex(), &Remembered { sha512: received.sha512 })?;
    }
    at.ui.done();
    Ok(received)
}

/// Copies a file into the tree `root`. Its mode and its time are the same for everybody: a step may copy them.
fn copy(received: Received, root: &Rootfs) -> Result<Deferred> {
    root.write_from(Path::new(CONTENT), &mut rewound(&received.file)?, 0o644)?;
    settle(root, OFlags::RDONLY, 0o644)?;
    Ok(Deferred::default())
}

/// Unpacks an archive into a directory of the tree `root`. Device nodes are left out, because no step could use them.
fn unpack(fetch: &Fetch, received: Received, root: &Rootfs, at: &Site<'_>) -> Result<Deferred> {
    let content = Path::new(CONTENT);
    root.create_dir_all(content, 0o755)?;
    let (into, mut devices) = (root.subtree(content, root.path())?, 0);
    let limits = Limits::of_release(received.size);
    let unpacker = Unpacker { name: &fetch.name, into: &into, limits: &limits, ui: at.ui };
    let mut wanted = |entry: &Entry| {
        let device = matches!(entry.kind, NodeKind::Char(..) | NodeKind::Block(..));
        devices += usize::from(device);
        Ok(!device)
    };
    rewound(&received.file)?;
    let deferred = unpacker.stream(received.file, Some(received.size), &mut wanted)?;
    if !deferred.is_empty() {
        at.ui.warn(&format!("steps do not see some attributes of the download {}: {REFUSED}", quoted(&fetch.name)));
    }
    if devices > 0 {
        at.ui.warn(&format!("{devices} device nodes of the download {} are left out", quoted(&fetch.name)));
    }
    settle(root, OFlags::RDONLY | OFlags::DIRECTORY, 0o755)?;
    Ok(deferred)
}

/// Gives the content of a tree a fixed mode and a fixed time.
fn settle(root: &Rootfs, flags: OFlags, mode: u32) -> Result<()> {
    let doing = || format!("preparing a download in {}", root.path().display());
    let content =
        root.openat2(Path::new(CONTENT), flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).system(doing)?;
    rustix::fs::fchmod(&content, Mode::from_raw_mode(mode)).system(doing)?;
    let time = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::fs::futimens(&content, &Timestamps { last_access: time, last_modification: time }).system(doing)
}
