//! What runs inside the tree: Portage's configuration as text, emerge's command lines, and what emerge says of its work.
//!
//! Nothing here starts a process or enters a tree. The only reads are of the recipe's repositories ([`repos`], [`profile`])
//! and of directories that the build may write, which are hostile ([`dir`]).
//!
//! Order of use: [`check`] before anything is downloaded; [`Resolved::at`] once the repositories are there;
//! [`config::Existing::gather`] once the builder tree is; [`config::target`] and [`config::builder`] before emerge;
//! [`emerge::steps`]; [`events::Watcher`] while a step runs; [`failure::find`] when one failed; [`config::shipped`] before a
//! stage4 is packed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::error::Result;
use crate::recipe::Job;

pub mod config;
pub mod dir;
pub mod emerge;
pub mod events;
pub mod failure;
pub mod makeconf;
pub mod profile;
pub mod repos;
pub mod text;

pub use profile::Profile;
pub use repos::{Repo, Repos};

/// Where repositories are mounted inside the sandbox, each under its own name.
pub const REPOS: &str = "/var/db/repos";
/// PKGDIR of what is shipped.
pub const PKGDIR: &str = "/var/cache/binpkgs";
/// PKGDIR of what is built for the builder itself: another profile and other USE flags.
pub const BUILDER_PKGDIR: &str = "/var/cache/binpkgs-builder";
/// DISTDIR.
pub const DISTDIR: &str = "/var/cache/distfiles";
/// Where Portage keeps packages of remote hosts (`<name>` below it).
pub const BINHOST: &str = "/var/cache/binhost";
/// PORTAGE_TMPDIR.
pub const TMPDIR: &str = "/var/tmp";
/// PORTAGE_LOGDIR and EMERGE_LOG_DIR.
pub const LOGDIR: &str = "/var/log/portage";
/// PORTAGE_CONFIGROOT of the target.
pub const CONFIGROOT: &str = "/quern/config";
/// ROOT of the target.
pub const ROOT: &str = "/quern/image";
/// Where Portage publishes its observability snapshots.
pub const RUN: &str = "/run/portage";

/// Files and links of a configuration, by path relative to its root (`etc/portage/make.conf`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigTree {
    /// Paths that are removed, whatever they are, before anything is written.
    pub remove: BTreeSet<PathBuf>,
    /// What is written, replacing what is there.
    pub entries: BTreeMap<PathBuf, Entry>,
}

/// One entry of a [`ConfigTree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file with this text, mode 0644.
    File(String),
    /// A symbolic link to this target.
    Symlink(PathBuf),
}

impl ConfigTree {
    fn file(&mut self, path: impl Into<PathBuf>, text: impl Into<String>) {
        self.entries.insert(path.into(), Entry::File(text.into()));
    }

    fn symlink(&mut self, path: impl Into<PathBuf>, target: impl Into<PathBuf>) {
        self.entries.insert(path.into(), Entry::Symlink(target.into()));
    }

    /// The text of a file of the tree.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<&str> {
        match self.entries.get(path.as_ref()) {
            Some(Entry::File(text)) => Some(text),
            _ => None,
        }
    }
}

/// What is known of the builder tree and the machine, found by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuilderInfo {
    /// Whether the builder has `/usr/bin/sandbox`; without it, Portage's `sandbox` features are turned off.
    pub sandbox: bool,
    /// Processors that may be used.
    pub cpus: u32,
    /// Portage's version in the builder, where known ([`portage_version`]).
    pub portage: Option<[u32; 3]>,
}

/// Portage's version from the name of its entry in the package database (`portage-3.0.83-r1`) or of a Python distribution
/// (`portage-3.0.83.dist-info`).
pub fn portage_version(name: &str) -> Option<[u32; 3]> {
    let rest = name.strip_prefix("portage-")?;
    let rest = rest.strip_suffix(".dist-info").unwrap_or(rest);
    let rest = rest.split(['-', '_']).next().unwrap_or(rest);
    let mut parts = rest.split('.').map(|part| part.parse::<u32>().ok());
    let version = [parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)];
    Some(version)
}

/// The recipe's repositories and profiles, found on the host and checked.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The repositories, the main one first.
    pub repos: Repos,
    /// `build.profile`.
    pub profile: Profile,
    /// `build.unblocker-profile`.
    pub unblocker: Option<Profile>,
    /// What the user should look at.
    pub warnings: Vec<String>,
}

impl Resolved {
    /// Reads the repositories and resolves the profiles, where all repositories are directories of this machine; run it before
    /// anything is downloaded.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) for a directory that is no repository, a profile that does not exist or
    /// whose parents do not, and for `@profile` where it is empty.
    pub fn new(job: &Job) -> Result<Self> {
        Self::of(job, Repos::load(&job.portage.repositories)?)
    }

    /// As [`Resolved::new`], each repository in its directory, which was fetched perhaps.
    ///
    /// # Errors
    /// As [`Resolved::new`].
    pub fn at(job: &Job, directories: &[PathBuf]) -> Result<Self> {
        Self::of(job, Repos::load_from(&job.portage.repositories, directories)?)
    }

    fn of(job: &Job, repos: Repos) -> Result<Self> {
        let mut profile = Profile::resolve(&job.build.profile, &repos)?;
        if let Some(directory) = &job.portage.config {
            profile.add_user_packages(&directory.join("profile"))?;
        }
        if job.emerge.packages.iter().any(|atom| atom == "@profile") {
            profile.require_packages()?;
        }
        let unblocker = job.build.unblocker_profile.as_ref().map(|name| Profile::resolve(name, &repos)).transpose()?;
        let mut warnings = repos.warnings();
        warnings.extend(profile.warnings().iter().cloned());
        if let Some(unblocker) = &unblocker {
            warnings.extend(unblocker.warnings().iter().cloned());
        }
        settings(job)?;
        warnings.dedup();
        Ok(Self { repos, profile, unblocker, warnings })
    }
}

/// What can be checked of a recipe without the repositories that it fetches; run it before anything is downloaded.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) for a directory that is no repository, and for configuration that Portage would not
/// take.
pub fn check(job: &Job) -> Result<()> {
    for repository in &job.portage.repositories {
        if let Some(directory) = repository.location() {
            Repo::load(repository, directory)?;
        }
    }
    if job.portage.repositories.iter().all(|repository| repository.location().is_some()) {
        return Resolved::new(job).map(drop);
    }
    settings(job)
}

fn settings(job: &Job) -> Result<()> {
    emerge::check(job)?;
    makeconf::check(job)?;
    config::check(job)
}

#[cfg(test)]
pub(crate) mod fixture;

#[cfg(test)]
mod tests {
    use super::portage_version;

    #[test]
    fn portage_version_is_read_from_both_kinds_of_name() {
        assert_eq!(portage_version("portage-3.0.83-r1"), Some([3, 0, 83]));
        assert_eq!(portage_version("portage-3.0.83.dist-info"), Some([3, 0, 83]));
        assert_eq!(portage_version("portage-3.1"), Some([3, 1, 0]));
        assert_eq!(portage_version("portage-3.0.70_rc1"), Some([3, 0, 70]));
        assert_eq!(portage_version("portage-utils-0.96"), None);
        assert_eq!(portage_version("portage-9999"), None);
    }
}
