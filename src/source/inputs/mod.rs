//! The ebuild repositories of a recipe as inputs of a build: directories of this machine as they are, others fetched, verified and
//! unpacked once.

use std::path::{Path, PathBuf};

use super::locked;
use super::obtain::{Located, Wanted};
use super::repository::meta_repo::{self, Listed};
use super::repository::{checkout, content, snapshot, tree};
use super::{ResolveOptions, Site, SourceFile};
use crate::base::digest::{Sha256, Sha512};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Progress, Silent};
use crate::fs::rootfs::Rootfs;
use crate::lockfile::{LockedCommit, LockedFile, LockedRepository};
use crate::recipe::{Job, Origin, RepositorySpec};
use crate::store::Store;
use crate::store::trees::Tree;

/// The version of a repository: enough to get the same one again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepositoryVersion {
    /// A directory of this machine.
    Directory {
        /// The commit that is checked out, if it is a git repository. Files may differ from it.
        commit: Option<String>,
        /// Digest of the files that emerge can read ([`content::digest`]). `None` until it is computed.
        content: Option<Sha256>,
    },
    /// A snapshot.
    Snapshot {
        /// The name that it gives itself, such as `gentoo-20261121`.
        name: String,
        /// Its addresses, the preferred one first.
        urls: Vec<String>,
        /// Size in bytes, if known.
        size: Option<u64>,
        /// Digest of the tarball or image.
        sha512: Sha512,
        /// Primary fingerprint of the signer.
        signer: Option<String>,
        /// The reason for trusting it, in words.
        trust_basis: String,
    },
    /// A commit of a git repository.
    Git {
        /// The address of the repository.
        url: String,
        /// The commit's id, 40 or 64 lower-case hex digits.
        commit: String,
        /// Primary fingerprint of the signer. `None` if the recipe accepts an unsigned commit.
        signer: Option<String>,
        /// The reason for trusting it, in words.
        trust_basis: String,
    },
}

impl RepositoryVersion {
    /// Names the state of its files. `None` for a directory whose digest was not computed.
    pub fn state(&self) -> Option<String> {
        match self {
            Self::Directory { content, .. } => content.as_ref().map(|digest| digest.hex()),
            Self::Snapshot { sha512, .. } => Some(sha512.hex()),
            Self::Git { commit, .. } => Some(commit.clone()),
        }
    }
}

/// A repository of a recipe, ready to be read. It stays in the store while this value lives.
#[derive(Debug)]
pub struct RepositoryInput {
    /// The recipe's request.
    pub spec: RepositorySpec,
    /// The version that the build uses.
    pub version: RepositoryVersion,
    /// The commit of the meta-repo that lists it, if that was fetched.
    pub meta_repo: Option<LockedCommit>,
    directory: PathBuf,
    _tree: Option<Tree>,
}

impl RepositoryInput {
    fn of_directory(spec: &RepositorySpec, path: &Path) -> Self {
        let version = RepositoryVersion::Directory { commit: checkout::commit(path), content: None };
        Self { spec: spec.clone(), version, meta_repo: None, directory: path.to_owned(), _tree: None }
    }

    /// Returns its directory on this machine.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Computes the digest of its contents, if it is a directory of this machine.
    ///
    /// # Errors
    /// Those of [`content::digest`].
    pub fn hash(&mut self, ui: &dyn Progress) -> Result<()> {
        if let RepositoryVersion::Directory { content, .. } = &mut self.version {
            *content = Some(content::digest(&self.directory, ui)?);
        }
        Ok(())
    }

    /// Returns its entry in a lock file, under its `repo_name`. A directory that holds the lock file `file` is locked by its name
    /// alone, because no commit could name the lock file that names the commit.
    ///
    /// # Errors
    /// [`Kind::System`] when the size of a snapshot is not known.
    pub fn lock(&self, name: &str, file: Option<&Path>) -> Result<LockedRepository> {
        let mut entry = LockedRepository { name: name.to_owned(), ..LockedRepository::default() };
        match (&self.spec.origin, self.version.clone()) {
            (
                Origin::Snapshot(asked),
                RepositoryVersion::Snapshot { name, urls, size, sha512, signer, trust_basis },
            ) => {
                let name = snapshot::file_name(asked, &name);
                let directory = urls.first().and_then(|url| url.rsplit_once('/'));
                entry.snapshot = Some(LockedFile {
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
                    trust_basis,
                });
            }
            (Origin::Git(asked), RepositoryVersion::Git { url, commit, signer, trust_basis }) => {
                let branch = asked.branch.clone().filter(|_| asked.commit.is_none());
                entry.git = Some(LockedCommit { branch, url, commit, signer, trust_basis });
            }
            (_, RepositoryVersion::Directory { commit, content }) => {
                let holds_the_lock = file.is_some_and(|file| file.starts_with(&self.directory));
                (entry.commit, entry.content) = if holds_the_lock { (None, None) } else { (commit, content) };
            }
            _ => {}
        }
        Ok(entry)
    }
}

/// Gets the repositories of a recipe, in its order.
///
/// # Errors
/// Those of [`Wanted::tree`].
pub fn repositories(job: &Job, at: &Site<'_>) -> Result<Vec<RepositoryInput>> {
    let each = meta_repo::listed(job, at)?
        .into_iter()
        .enumerate()
        .map(|(index, Listed { spec, meta_repo })| Ok(RepositoryInput { meta_repo, ..repository(&spec, index, at)? }));
    each.collect()
}

pub(super) fn repository(spec: &RepositorySpec, index: usize, at: &Site<'_>) -> Result<RepositoryInput> {
    let wanted = match &spec.origin {
        Origin::Location(path) => return Ok(RepositoryInput::of_directory(spec, path)),
        Origin::Snapshot(snapshot) => Wanted::Snapshot { snapshot, index },
        Origin::Git(git) => Wanted::Commit { git, index },
        Origin::MetaRepo(_) => return Err(Error::system("a meta-repo is not a repository")),
    };
    let (located, tree) = wanted.tree(at)?;
    let top = tree::top(&Rootfs::open(&tree.root())?, tree.name(), wanted.top().as_deref())?;
    let directory = tree.root().join(&top);
    let version = match located {
        Located::Commit(commit) => RepositoryVersion::Git {
            url: commit.url().to_owned(),
            commit: commit.id().to_owned(),
            signer: commit.signer().map(str::to_owned),
            trust_basis: commit.trust_basis(),
        },
        Located::File(file) => RepositoryVersion::Snapshot {
            name: wanted.name_of(top, &file),
            urls: file.urls().to_vec(),
            size: file.size(),
            sha512: sha512(&file)?,
            signer: file.signer().map(str::to_owned),
            trust_basis: file.trust_basis().to_owned(),
        },
    };
    Ok(RepositoryInput { spec: spec.clone(), version, meta_repo: None, directory, _tree: Some(tree) })
}

fn sha512(file: &SourceFile) -> Result<Sha512> {
    file.sha512().ok_or_else(|| Error::system(format!("the digest of {} is not known", file.name())))
}

/// Gets the repositories of a recipe as the store knows them. No server is asked, and nothing is unpacked. `None` if one of them is
/// missing.
///
/// # Errors
/// Those of the keyring and the store.
pub fn stored(job: &Job, store: &Store) -> Result<Option<Vec<RepositoryInput>>> {
    let offline = ResolveOptions { offline: true, ..ResolveOptions::default() };
    let listed = match meta_repo::listed(job, &Site::new(store, offline, &Silent)) {
        Err(error) if error.kind() == Kind::Network => return Ok(None),
        listed => listed?,
    };
    let mut all = Vec::new();
    for (index, Listed { spec, meta_repo }) in listed.iter().enumerate() {
        let Some(wanted) = Wanted::repository(spec, index) else {
            all.extend(spec.location().map(|path| RepositoryInput::of_directory(spec, path)));
            continue;
        };
        let Some(key) = wanted.known(store)?.and_then(|located| located.tree_key()) else { return Ok(None) };
        let Some(tree) = store.tree_of_anyone(&key)? else { return Ok(None) };
        let top = tree::top(&Rootfs::open(&tree.root())?, tree.name(), wanted.top().as_deref())?;
        let version = RepositoryVersion::Directory { commit: None, content: None };
        all.push(RepositoryInput {
            spec: spec.clone(),
            version,
            meta_repo: meta_repo.clone(),
            directory: tree.root().join(top),
            _tree: Some(tree),
        });
    }
    Ok(Some(all))
}

/// Judges the meta-repos and the fetched repositories of a recipe again. Returns a paragraph about each.
///
/// # Errors
/// Those of [`Wanted::judge`].
pub fn judge(job: &Job, at: &Site<'_>) -> Result<Vec<String>> {
    let mut verdicts = meta_repo::judge(job, at)?;
    for (index, Listed { spec, .. }) in meta_repo::listed(job, at)?.iter().enumerate() {
        verdicts.extend(Wanted::repository(spec, index).map(|wanted| wanted.judge(at)).transpose()?);
    }
    Ok(verdicts)
}

/// Returns the lock entry of a recipe's stage3. An `old` entry of the same bytes spares the download that would tell their size.
///
/// # Errors
/// Those of [`Wanted::bytes`]; [`Kind::Refused`] when the stage3 is older than the locked one.
pub fn lock_stage3(job: &Job, old: Option<&LockedFile>, at: &Site<'_>) -> Result<LockedFile> {
    let wanted = Wanted::base(job)?;
    let asked = || locked::asked(&job.source);
    let file = wanted.locate(at)?.file();
    let entry = match file.as_ref().and_then(|file| locked::entry(asked(), file, old)) {
        Some(entry) => entry,
        None => {
            let file = file.ok_or_else(|| Error::system("a stage3 is a file"))?;
            let file = wanted.verified(file, at)?.0;
            locked::entry(asked(), &file, old)
                .ok_or_else(|| Error::system(format!("the digest of {} is not known", file.name())))?
        }
    };
    if let Some(old) = old.filter(|_| !at.options.allow_rollback) {
        old.not_older(&entry)?;
    }
    Ok(entry)
}

#[cfg(test)]
mod tests;
