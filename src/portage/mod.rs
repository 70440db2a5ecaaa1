//! Portage's configuration as text, emerge's command lines, and emerge's reports.
//!
//! Nothing here starts a process or enters a tree. It reads only the recipe's repositories ([`repos`], [`profile`]) and
//! directories that the build may write to, which are untrusted ([`dir`]).
//!
//! Order of use: [`check`] before any download; [`Resolved::at`] once the repositories are there;
//! [`config::Existing::gather`] once the builder tree is there; [`config::target`] and [`config::builder`] before emerge;
//! [`emerge::steps`]; [`events::Watcher`] while a step runs; [`failure::find`] when a step failed; [`config::shipped`] before
//! a stage4 is packed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::error::Result;
use crate::base::progress::Target;
use crate::base::time::SourceDate;
use crate::recipe::{Job, RepositorySpec};

pub mod accelerate;
pub mod binhost;
pub mod binpkg;
pub mod config;
pub mod dir;
pub mod elog;
pub mod emerge;
pub mod events;
pub mod failure;
pub mod installed;
pub mod left;
pub mod makeconf;
pub mod profile;
pub mod query;
pub mod repos;
pub mod specification;
pub mod text;
pub mod workdir;

pub use profile::{MakeProfile, Profile};
pub use repos::{Repo, Repos};

/// The directory of repositories inside the sandbox, each under its own name.
pub const REPOS: &str = "/var/db/repos";
/// The directory of the kits of a meta-repo inside the sandbox, as `ego` lays them out.
pub const KITS: &str = "/var/git/meta-repo/kits";
/// The directories of packages that are shipped.
pub const PACKAGES: PackageDirs = PackageDirs {
    pkgdir: "/var/cache/binpkgs",
    shared: "/quern/shared/image",
    plain: "/quern/shared/image-plain",
    index: "/quern/index/image",
};
/// The directories of packages of the builder itself, which has another profile and other USE flags.
pub const BUILDER_PACKAGES: PackageDirs = PackageDirs {
    pkgdir: "/var/cache/binpkgs-builder",
    shared: "/quern/shared/builder",
    plain: "/quern/shared/builder-plain",
    index: "/quern/index/builder",
};
/// The directory above those of the packages of earlier builds. Paths in the indexes are relative to it.
pub const SHARED: &str = "/quern/shared";
/// The database of installed packages, relative to a root.
pub const PKGDB: &str = "var/db/pkg";
/// DISTDIR.
pub const DISTDIR: &str = "/var/cache/distfiles";
/// The directory of packages from hosts, in `<name>` below it.
pub const BINHOST: &str = "/var/cache/binhost";
/// The directory of the hosts' indexes, in `<number>` below it.
pub const BINHOST_INDEXES: &str = "/quern/binhost";
/// The directory of the packages of hosts that are directories of this machine, in `<number>` below it.
pub const BINHOST_DIRECTORIES: &str = "/quern/packages";
/// The directory of packages that are signed.
pub const SIGNED_DIRECTORY: &str = "/quern/signed";
/// The GnuPG home with the keys that sign packages. No build sees it.
pub const SIGNING_KEYS: &str = "/quern/keys";
/// The GnuPG home with the certificates that may sign binary packages.
pub const TRUST_HOME: &str = "/quern/gnupg";
/// PORTAGE_TMPDIR.
pub const TMPDIR: &str = "/var/tmp";
/// PORTAGE_LOGDIR and EMERGE_LOG_DIR.
pub const LOGDIR: &str = "/var/log/portage";
/// PORTAGE_CONFIGROOT of the target.
pub const CONFIGROOT: &str = "/quern/config";
/// ROOT of the target.
pub const ROOT: &str = "/quern/image";

/// Directories of binary packages inside the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackageDirs {
    /// PKGDIR, for the packages that this build makes.
    pub pkgdir: &'static str,
    /// The packages of earlier builds with the same key, read-only.
    pub shared: &'static str,
    /// The packages of earlier builds with the same key but for settings of single packages, read-only.
    pub plain: &'static str,
    /// An index of those that this build may take.
    pub index: &'static str,
}

impl PackageDirs {
    /// Returns the directories of the packages for a tree.
    pub fn of(target: Target) -> Self {
        match target {
            Target::Image => PACKAGES,
            Target::Builder => BUILDER_PACKAGES,
        }
    }

    /// Returns all four.
    pub fn all(self) -> [&'static str; 4] {
        [self.pkgdir, self.shared, self.plain, self.index]
    }
}

/// The files and links of a configuration, by path relative to its root (`etc/portage/make.conf`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigTree {
    /// Paths to remove, of any kind, before anything is written.
    pub remove: BTreeSet<PathBuf>,
    /// Entries to write. Each replaces an existing one.
    pub entries: BTreeMap<PathBuf, Entry>,
}

/// An entry of a [`ConfigTree`].
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

    /// Writes `etc/portage/make.profile` in place of a link or directory.
    fn make_profile(&mut self, profile: &MakeProfile) {
        let path = Path::new(config::MAKE_PROFILE);
        self.remove.insert(path.into());
        match profile {
            MakeProfile::Link(target) => self.symlink(path, target),
            MakeProfile::Parents(parent) => {
                self.file(path.join("eapi"), "8\n");
                self.file(path.join("parent"), parent.as_str());
            }
        }
    }

    fn symlink(&mut self, path: impl Into<PathBuf>, target: impl Into<PathBuf>) {
        self.entries.insert(path.into(), Entry::Symlink(target.into()));
    }

    /// Returns the text of a file.
    #[cfg(test)]
    pub fn text(&self, path: impl AsRef<std::path::Path>) -> Option<&str> {
        match self.entries.get(path.as_ref()) {
            Some(Entry::File(text)) => Some(text),
            _ => None,
        }
    }
}

/// Facts about the builder tree, the machine and the build that the configuration and the commands depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuilderInfo {
    /// True if the builder has `/usr/bin/sandbox`. Without it, Portage's `sandbox` features are turned off.
    pub sandbox: bool,
    /// The number of processors to use.
    pub cpus: u32,
    /// Portage's version in the builder, if known ([`portage_version`]).
    pub portage: Option<[u32; 3]>,
    /// The date that packages get as SOURCE_DATE_EPOCH, if the tree is for a build.
    pub date: Option<SourceDate>,
    /// The tools that compile.
    pub tools: accelerate::Tools,
}

/// Parses Portage's version from the name of its entry in the package database (`portage-3.0.83-r1`) or of its Python
/// distribution (`portage-3.0.83.dist-info`).
pub fn portage_version(name: &str) -> Option<[u32; 3]> {
    let rest = name.strip_prefix("portage-")?;
    let rest = rest.strip_suffix(".dist-info").unwrap_or(rest);
    let rest = rest.split(['-', '_']).next().unwrap_or(rest);
    let mut parts = rest.split('.').map(|part| part.parse::<u32>().ok());
    let version = [parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)];
    Some(version)
}

/// The recipe's repositories and profiles, found on this host and checked.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The repositories, the main one first.
    pub repos: Repos,
    /// `build.profile`.
    pub profile: Profile,
    /// `build.unblocker-profile`.
    pub unblocker: Option<Profile>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

impl Resolved {
    /// Reads the repositories and resolves the profiles of a recipe whose repositories are all directories on this machine.
    /// Run it before any download.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) for a directory that is not a repository, a profile that does not exist
    /// or lacks a parent, and an empty `@profile`.
    pub fn new(job: &Job) -> Result<Self> {
        Self::of(job, Repos::load(&job.portage.repositories)?)
    }

    /// Does the same as [`Resolved::new`], with the repositories and the directory of each, which may have been downloaded.
    ///
    /// # Errors
    /// Those of [`Resolved::new`].
    pub fn at(job: &Job, located: &[(&RepositorySpec, &Path)]) -> Result<Self> {
        Self::of(job, Repos::load_from(located)?)
    }

    fn of(job: &Job, repos: Repos) -> Result<Self> {
        let mut profile = Profile::of(&job.build.profile, &repos)?;
        job.build.profile_packages.iter().for_each(|line| profile.add_package(line));
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
        warnings.extend(accelerate::warnings(job));
        check_settings(job)?;
        warnings.dedup();
        Ok(Self { repos, profile, unblocker, warnings })
    }
}

/// Checks the parts of a recipe that do not depend on repositories to download. Run it before any download.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) for a directory that is not a repository, and for configuration that
/// Portage would not accept.
pub fn check(job: &Job) -> Result<()> {
    for repository in &job.portage.repositories {
        if let Some(directory) = repository.location() {
            Repo::load(repository, directory)?;
        }
    }
    if job.portage.repositories.iter().all(|repository| repository.location().is_some()) {
        return Resolved::new(job).map(drop);
    }
    check_settings(job)
}

/// Checks the parts of a recipe that go into Portage's configuration and the command lines of emerge.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) for values that Portage would not accept.
pub fn check_settings(job: &Job) -> Result<()> {
    emerge::check(job)?;
    makeconf::check(job)?;
    binhost::check(job)?;
    config::check(job)
}

#[cfg(test)]
pub(crate) mod fixture;

#[cfg(test)]
mod tests {
    use super::portage_version;

    #[test]
    fn portage_version_is_parsed_from_both_kinds_of_name() {
        assert_eq!(portage_version("portage-3.0.83-r1"), Some([3, 0, 83]));
        assert_eq!(portage_version("portage-3.0.83.dist-info"), Some([3, 0, 83]));
        assert_eq!(portage_version("portage-3.1"), Some([3, 1, 0]));
        assert_eq!(portage_version("portage-3.0.70_rc1"), Some([3, 0, 70]));
        assert_eq!(portage_version("portage-utils-0.96"), None);
        assert_eq!(portage_version("portage-9999"), None);
    }
}
