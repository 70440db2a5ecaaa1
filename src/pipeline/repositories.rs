//! The recipe's ebuild repositories: directories of this machine as they are, others fetched, verified and unpacked once.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::portage::{self, Resolved};
use crate::progress::Progress;
use crate::publish::provenance::{self, RepositoryOrigin};
use crate::recipe::{Job, Origin, Snapshot};
use crate::rootfs::Rootfs;
use crate::source::Terms;
use crate::source::repository::tree::{self, Admission};
use crate::source::repository::{Fact, snapshot};
use crate::store::Store;
use crate::store::trees::Tree;
use crate::unpack;

/// A repository that is there, and stays for as long as this value lives.
#[derive(Debug)]
pub struct Repository {
    /// What it is made from.
    pub fact: Fact,
    directory: PathBuf,
    _tree: Option<Tree>,
}

impl Repository {
    /// What the provenance says of it.
    pub fn origin(&self) -> RepositoryOrigin {
        match self.fact.clone() {
            Fact::Directory => RepositoryOrigin::Directory { commit: provenance::repository_commit(&self.directory) },
            Fact::Snapshot { name, sha512, signer, how, .. } => {
                RepositoryOrigin::Snapshot { name, sha512, signer, how }
            }
        }
    }

    fn of_tree(tree: Tree, fact: Fact, top: &str) -> Self {
        Self { fact, directory: tree.root().join(top), _tree: Some(tree) }
    }
}

/// Gets the repositories of a recipe, in its order, and resolves its profiles in them. What can be checked before anything is
/// downloaded, is.
///
/// # Errors
/// Those of [`crate::source`], [`crate::verify`], [`unpack`] and [`Resolved::at`].
pub fn repositories(job: &Job, store: &Store, terms: Terms, ui: &dyn Progress) -> Result<(Vec<Repository>, Resolved)> {
    if job.portage.repositories.iter().any(|repository| repository.location().is_none()) {
        portage::check(job)?;
    }
    let each = job.portage.repositories.iter().map(|repository| match &repository.origin {
        Origin::Location(path) => Ok(Repository { fact: Fact::Directory, directory: path.clone(), _tree: None }),
        Origin::Snapshot(snapshot) => of_snapshot(snapshot, store, terms, ui),
        Origin::Git(_) => Err(crate::error::Error::usage("git repositories are not supported yet")),
    });
    let all = each.collect::<Result<Vec<_>>>()?;
    let directories: Vec<PathBuf> = all.iter().map(|repository| repository.directory.clone()).collect();
    let resolved = Resolved::at(job, &directories)?;
    Ok((all, resolved))
}

/// A snapshot, unpacked in the store.
fn of_snapshot(snapshot: &Snapshot, store: &Store, terms: Terms, ui: &dyn Progress) -> Result<Repository> {
    let located = snapshot::locate(snapshot, store, terms, ui)?;
    let wanted = snapshot::top(snapshot);
    let fact = |name: String, sha512: &str, signer: Option<&str>, how: &str, size| Fact::Snapshot {
        name,
        urls: located.urls().to_vec(),
        size,
        sha512: sha512.to_owned(),
        signer: signer.map(str::to_owned),
        how: how.to_owned(),
    };
    let waiting = || ui.note("waiting for another process that unpacks the same repository");
    if let Some(sha512) = located.sha512()
        && let Some(tree) = store.tree(sha512, waiting)?
    {
        let top = tree::top(&Rootfs::open(&tree.root())?, located.name(), wanted.as_deref())?;
        let fact = fact(top.clone(), sha512, located.signer(), located.how(), located.size());
        return Ok(Repository::of_tree(tree, fact, &top));
    }
    let verified = snapshot::verified(snapshot, &located, store, terms, ui)?;
    let name = verified.name();
    let tree = store.add_tree(verified.sha512(), name, waiting, |root| {
        ui.stage(&format!("unpacking {name}"));
        let mut admission = Admission::new(name);
        let (size, mut admit) = (Some(verified.size()), |entry: &_| admission.admit(entry));
        let record = unpack::extract_some(verified.open()?, size, name, root, &tree::LIMITS, ui, &mut admit)?;
        tree::top(root, name, wanted.as_deref())?;
        ui.done();
        Ok(record)
    })?;
    let top = tree::top(&Rootfs::open(&tree.root())?, name, wanted.as_deref())?;
    let fact = fact(top.clone(), verified.sha512(), verified.signer(), verified.how(), Some(verified.size()));
    Ok(Repository::of_tree(tree, fact, &top))
}

/// What a dry run knows of the repositories without asking a server: all of them, if the store has those that are fetched.
///
/// # Errors
/// As [`repositories`], but for what only a server knows.
pub fn stored(job: &Job, home: &Path, ui: &dyn Progress) -> Result<Option<(Vec<Repository>, Resolved)>> {
    portage::check(job)?;
    if job.portage.repositories.iter().all(|repository| repository.location().is_some()) {
        let resolved = Resolved::new(job)?;
        return Ok(Some((Vec::new(), resolved)));
    }
    if !home.is_dir() {
        return Ok(None);
    }
    let store = Store::open(home)?;
    let _ = (store, ui);
    Ok(None)
}
