//! The recipe's ebuild repositories: directories of this machine as they are, others fetched, verified and unpacked once.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::archive::unpack::{Deferred, Limits, RaisedBy, Unpacker};
use crate::base::error::{Error, Result};
use crate::fs::rootfs::Rootfs;
use crate::portage::{self, Resolved};
use crate::recipe::{Bounds, Git, Job, Origin, Snapshot, SnapshotFormat};
use crate::source::locked::{LockedRepository, PinnedCommit};
use crate::source::pin::{self, Pin};
use crate::source::repository::tree::{self, Admission};
use crate::source::repository::{Fact, checkout, git, snapshot};
use crate::source::{Located, Site};
use crate::store::Store;
use crate::store::trees::Tree;

const WAITING: &str = "waiting for another process that unpacks the same repository";

/// A repository that is there, and stays for as long as this value lives.
#[derive(Debug)]
pub struct Repository {
    /// What it is made from.
    pub fact: Fact,
    directory: PathBuf,
    _tree: Option<Tree>,
}

impl Repository {
    /// A directory of this machine, as it is.
    fn here(path: &Path) -> Self {
        let fact = Fact::Directory { commit: checkout::commit(path) };
        Self { fact, directory: path.to_owned(), _tree: None }
    }

    /// Its directory on this machine.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Gets the repositories of a recipe, in its order, and resolves its profiles in them. What can be checked before anything is
/// downloaded, is.
///
/// # Errors
/// Those of [`crate::source`], [`crate::verify`], [`crate::archive::unpack`] and [`Resolved::at`].
pub fn repositories(job: &Job, at: &Site<'_>) -> Result<(Vec<Repository>, Resolved)> {
    if job.portage.repositories.iter().any(|repository| repository.location().is_none()) {
        portage::check(job)?;
    }
    let each = job.portage.repositories.iter().enumerate().map(|(index, repository)| match &repository.origin {
        Origin::Location(path) => Ok(Repository::here(path)),
        Origin::Snapshot(snapshot) => of_snapshot(snapshot, index, at),
        Origin::Git(git) => of_git(&of_lock(git, index, at)?, at),
    });
    let all = each.collect::<Result<Vec<_>>>()?;
    let resolved = resolved(job, &all)?;
    Ok((all, resolved))
}

fn resolved(job: &Job, repositories: &[Repository]) -> Result<Resolved> {
    let directories: Vec<PathBuf> = repositories.iter().map(|repository| repository.directory.clone()).collect();
    Resolved::at(job, &directories)
}

/// The repositories and profiles of a recipe as the store knows them, without asking anybody and without unpacking anything; none
/// when one of them is not there.
///
/// # Errors
/// Those of [`Resolved::at`], and what the store cannot read.
pub fn stored(job: &Job, store: &Store) -> Result<Option<(Vec<Repository>, Resolved)>> {
    let mut all = Vec::new();
    for repository in &job.portage.repositories {
        let (key, top) = match &repository.origin {
            Origin::Location(path) => {
                all.push(Repository::here(path));
                continue;
            }
            Origin::Snapshot(snapshot) => {
                let known = snapshot::known(snapshot, store)?;
                (known.and_then(|known| known.sha512()), snapshot::top(snapshot))
            }
            Origin::Git(git) => (git::known(git, store)?.map(|commit| commit.tree()), None),
        };
        let Some(key) = key else { return Ok(None) };
        let Some(tree) = store.tree_of_anyone(&key)? else { return Ok(None) };
        let directory = tree.root().join(tree::top(&Rootfs::open(&tree.root())?, tree.name(), top.as_deref())?);
        all.push(Repository { fact: Fact::Directory { commit: None }, directory, _tree: Some(tree) });
    }
    let resolved = resolved(job, &all)?;
    Ok(Some((all, resolved)))
}

/// The repositories of a recipe that are fetched, judged again; a paragraph about each.
///
/// # Errors
/// Those of [`crate::source`] and [`crate::verify`].
pub fn judged(job: &Job, at: &Site<'_>) -> Result<Vec<String>> {
    let mut paragraphs = Vec::new();
    for (index, repository) in job.portage.repositories.iter().enumerate() {
        match &repository.origin {
            Origin::Location(_) => {}
            Origin::Snapshot(snapshot) => {
                let located = located(snapshot, index, at)?;
                paragraphs.push(snapshot::verified(snapshot, &located, at)?.to_string());
            }
            Origin::Git(git) => {
                let git = of_lock(git, index, at)?;
                let commit = match at.options.offline {
                    true => git::locate(&git, at)?,
                    false => git::judged(&git, at)?,
                };
                paragraphs.push(commit.to_string());
            }
        }
    }
    Ok(paragraphs)
}

/// What the recipe's repositories are, for a lock file; of one that holds that `file`, its name alone.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) when the size of a snapshot is not known.
pub(super) fn locked(
    job: &Job,
    repositories: &[Repository],
    resolved: &Resolved,
    file: Option<&Path>,
) -> Result<Vec<LockedRepository>> {
    let mut all = Vec::new();
    for ((repository, repo), asked) in repositories.iter().zip(&resolved.repos).zip(&job.portage.repositories) {
        let mut one = LockedRepository { name: repo.name().to_owned(), commit: None, snapshot: None, git: None };
        match (&asked.origin, repository.fact.clone()) {
            (Origin::Snapshot(asked), Fact::Snapshot { name, urls, size, sha512, signer, how }) => {
                let name = snapshot::file_name(asked, &name);
                let directory = urls.first().and_then(|url| url.rsplit_once('/'));
                one.snapshot = Some(Pin {
                    asked: snapshot::asked(asked),
                    url: directory.map(|(directory, _)| format!("{directory}/{name}")),
                    size: size.ok_or_else(|| Error::system(format!("locking {name}: its size is not known")))?,
                    name,
                    sha512,
                    blake2b: None,
                    timestamp: None,
                    signer,
                    subkey: None,
                    signed: None,
                    verified: how,
                });
            }
            (Origin::Git(asked), Fact::Git { url, commit, signer, how: verified }) => {
                let branch = asked.branch.clone().filter(|_| asked.commit.is_none());
                one.git = Some(PinnedCommit { branch, url, commit, signer, verified });
            }
            _ if file.is_some_and(|file| file.starts_with(&repository.directory)) => {}
            (_, Fact::Directory { commit }) => one.commit = commit,
            _ => {}
        }
        all.push(one);
    }
    Ok(all)
}

/// The snapshot that a recipe asks for, or that it was locked to.
fn located(snapshot: &Snapshot, index: usize, at: &Site<'_>) -> Result<Located> {
    let Some(locked) = at.options.locked else { return snapshot::locate(snapshot, at) };
    match locked.repository.get(index).and_then(|repository| repository.snapshot.as_ref()) {
        Some(pin) => snapshot::pinned(snapshot, pin, at),
        None => Err(pin::changed(&snapshot::asked(snapshot), "something else")),
    }
}

/// The commit that a recipe asks for, or that its branch was locked to.
fn of_lock(git: &Git, index: usize, at: &Site<'_>) -> Result<Git> {
    let Some(locked) = at.options.locked else { return Ok(git.clone()) };
    match locked.repository.get(index).and_then(|repository| repository.git.as_ref()) {
        Some(pin) => pin.of(git),
        None => Err(pin::changed(&git.url, "something else")),
    }
}

/// A snapshot, unpacked in the store.
fn of_snapshot(snapshot: &Snapshot, index: usize, at: &Site<'_>) -> Result<Repository> {
    let located = located(snapshot, index, at)?;
    let wanted = snapshot::top(snapshot);
    let waiting = || at.ui.note(WAITING);
    let unpacked = match located.sha512() {
        Some(sha512) => at.store.tree(&sha512, waiting)?,
        None => None,
    };
    let urls = located.urls().to_vec();
    let (tree, file, signer, how, size) = match unpacked {
        Some(tree) => (
            tree,
            located.name().to_owned(),
            located.signer().map(str::to_owned),
            located.how().to_owned(),
            located.size(),
        ),
        None => {
            let verified = snapshot::verified(snapshot, &located, at)?;
            let name = verified.name();
            let tree = at.store.add_tree(&verified.sha512(), name, waiting, |root| {
                let top = wanted.as_deref();
                let limits = limits(&snapshot.bounds, Some(verified.size()));
                let unpacker = Unpacker { name, into: root, limits: &limits, ui: at.ui };
                match snapshot.format {
                    SnapshotFormat::Tar => {
                        let tarball = verified.open()?;
                        unpacker.check_size(&tarball)?;
                        unpack(&unpacker, tarball, Some(verified.size()), top)
                    }
                    SnapshotFormat::Squashfs => unpack_image(&unpacker, &verified.open()?),
                }
            })?;
            let signer = verified.signer().map(str::to_owned);
            (tree, name.to_owned(), signer, verified.how().to_owned(), Some(verified.size()))
        }
    };
    let top = tree::top(&Rootfs::open(&tree.root())?, tree.name(), wanted.as_deref())?;
    let sha512 = tree.sha512();
    let directory = tree.root().join(&top);
    let name = snapshot::called(snapshot, top, &file);
    let fact = Fact::Snapshot { name, urls, size, sha512, signer, how };
    Ok(Repository { fact, directory, _tree: Some(tree) })
}

/// A commit, its tree unpacked in the store.
fn of_git(git: &Git, at: &Site<'_>) -> Result<Repository> {
    let commit = git::locate(git, at)?;
    let (key, name) = (commit.tree(), commit.name());
    let waiting = || at.ui.note(WAITING);
    let tree = match at.store.tree(&key, waiting)? {
        Some(tree) => tree,
        None => at.store.add_tree(&key, &name, waiting, |root| {
            let limits = limits(&git.bounds, None);
            let unpacker = Unpacker { name: &name, into: root, limits: &limits, ui: at.ui };
            git::archive(git, &commit, at, |tarball| unpack(&unpacker, tarball, None, None))
        })?,
    };
    let directory = tree.root().join(tree::top(&Rootfs::open(&tree.root())?, &name, None)?);
    let (url, id, signer) = (commit.url().to_owned(), commit.id().to_owned(), commit.signer().map(str::to_owned));
    let fact = Fact::Git { url, commit: id, signer, how: commit.how() };
    Ok(Repository { fact, directory, _tree: Some(tree) })
}

/// What a repository of so many bytes may be unpacked; Gentoo's has some 150,000 entries of half a gigabyte.
fn limits(bounds: &Bounds, size: Option<u64>) -> Limits {
    let limits = Limits::of_release(size.unwrap_or_default());
    limits.set(bounds.max_unpacked, bounds.max_entries, RaisedBy::Repository)
}

/// Unpacks a tarball and checks that it is one ebuild repository, so that the store holds nothing else.
fn unpack(
    unpacker: &Unpacker<'_>,
    tarball: impl Read + Send + 'static,
    size: Option<u64>,
    top: Option<&str>,
) -> Result<Deferred> {
    unpacker.ui.stage(&format!("unpacking {}", unpacker.name));
    let mut admission = Admission::new(unpacker.name);
    let deferred = unpacker.stream(tarball, size, &mut |entry| admission.admit(entry))?;
    tree::top(unpacker.into, unpacker.name, top)?;
    unpacker.ui.done();
    Ok(deferred)
}

/// Works like [`unpack()`] for a squashfs image. The root of the image is the repository; a directory is created for it.
fn unpack_image(unpacker: &Unpacker<'_>, image: &File) -> Result<Deferred> {
    unpacker.ui.stage(&format!("unpacking {}", unpacker.name));
    let mut admission = Admission::new(unpacker.name);
    let deferred = unpacker.squashfs(image, Path::new("gentoo"), &mut |entry| admission.admit(entry))?;
    tree::top(unpacker.into, unpacker.name, None)?;
    unpacker.ui.done();
    Ok(deferred)
}

#[cfg(test)]
mod tests;
