//! What a command in the builder tree sees of the host, as data: the mounts of a build.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::base::error::{Context, Result};
use crate::enter::plan::{base_env, base_mounts};
use crate::enter::{Mount, Plan, Terminal};
use crate::fs::rootfs::Rootfs;
use crate::portage::{self, Resolved};
use crate::recipe::{BaseSpec, Job, TreeKind};
use crate::store::Store;

/// The mounts of a sandbox and its host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    mounts: Vec<Mount>,
    hostname: String,
}

/// Where the caches that builds share lie on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caches {
    /// PKGDIR of the target.
    pub binpkgs: PathBuf,
    /// PKGDIR of the builder itself, whose packages are built for another profile.
    pub builder_binpkgs: PathBuf,
    /// DISTDIR.
    pub distfiles: PathBuf,
}

impl Caches {
    /// The caches of a recipe: its own, or those of the store. Makes what is missing.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when a directory cannot be made.
    pub fn of(job: &Job, store: &Store) -> Result<Self> {
        let caches = Self::planned(job, store.root());
        for path in [&caches.binpkgs, &caches.builder_binpkgs, &caches.distfiles] {
            fs_err::create_dir_all(path).system(|| format!("making the cache {}", path.display()))?;
        }
        Ok(caches)
    }

    /// Where the caches of a recipe are or would be, below the store at `home`. Makes nothing.
    pub fn planned(job: &Job, home: &Path) -> Self {
        // What is built with the host's own flags is no stage3's business.
        let host = matches!(job.source.base, BaseSpec::Host { .. });
        let own = |path: &Option<PathBuf>, name| path.clone().unwrap_or_else(|| home.join("cache").join(name));
        Self {
            binpkgs: own(&job.portage.binpkg, "binpkgs"),
            builder_binpkgs: own(&None, if host { "host-binpkgs" } else { "builder-binpkgs" }),
            distfiles: own(&job.portage.distfiles, "distfiles"),
        }
    }
}

impl View {
    /// What a build sees. `work` is the build's work directory.
    pub fn build(job: &Job, resolved: &Resolved, caches: &Caches, work: &Path) -> Self {
        let mut mounts = base_mounts();
        let target = |path: &str| PathBuf::from(path);
        mounts.push(Mount::writable(work.join("run"), "/run"));
        mounts.push(match job.build.workdir_tmpfs {
            Some(size) => Mount::Tmpfs { target: target(portage::TMPDIR), mode: 0o1777, size: Some(size) },
            None => Mount::writable(work.join("tmp"), portage::TMPDIR),
        });
        mounts.push(Mount::writable(work.join("logs"), portage::LOGDIR));
        mounts.push(Mount::writable(&caches.distfiles, portage::DISTDIR));
        mounts.push(Mount::writable(&caches.binpkgs, portage::PKGDIR));
        for repo in resolved.repos.iter() {
            mounts.push(Mount::read_only(repo.location(), repo.mountpoint()));
        }
        if job.build.kind == TreeKind::Image {
            mounts.push(Mount::writable(&caches.builder_binpkgs, portage::BUILDER_PKGDIR));
            mounts.push(Mount::writable(work.join("config"), portage::CONFIGROOT));
            mounts.push(Mount::writable(work.join("image"), portage::ROOT));
        }
        Self { mounts, hostname: hostname(&job.name) }
    }

    /// What a shell in an image sees: nothing of the host.
    pub fn image(job: &Job) -> Self {
        let mut mounts = base_mounts();
        mounts.push(Mount::Tmpfs { target: "/run".into(), mode: 0o755, size: None });
        Self { mounts, hostname: hostname(&job.name) }
    }

    /// What a shell in the builder tree sees: what its build sees, but scratch space of its own and the caches read-only.
    pub fn shell(job: &Job, resolved: &Resolved, caches: &Caches, work: &Path) -> Self {
        let mut mounts = base_mounts();
        for at in ["/run", portage::TMPDIR] {
            mounts.push(Mount::Tmpfs { target: at.into(), mode: 0o1777, size: None });
        }
        mounts.push(Mount::read_only(&caches.distfiles, portage::DISTDIR));
        mounts.push(Mount::read_only(&caches.binpkgs, portage::PKGDIR));
        for repo in resolved.repos.iter() {
            mounts.push(Mount::read_only(repo.location(), repo.mountpoint()));
        }
        for (part, at) in [("config", portage::CONFIGROOT), ("image", portage::ROOT)] {
            if job.build.kind == TreeKind::Image && work.join(part).exists() {
                mounts.push(Mount::read_only(work.join(part), at));
            }
        }
        Self { mounts, hostname: hostname(&job.name) }
    }

    /// Makes the mount points that a tree lacks.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when one cannot be made.
    pub fn make_targets(&self, root: &Rootfs) -> Result<()> {
        self.mounts.iter().try_for_each(|mount| {
            let made = root.create_dir_all(mount.target(), 0o755);
            made.map_err(|error| error.with_hint("the tree needs a directory there, or a link to one, to be built in"))
        })
    }

    /// A plan for a command in `root` with this view.
    pub fn plan(&self, root: PathBuf, argv: Vec<OsString>, terminal: Terminal) -> Plan {
        Plan {
            root,
            mounts: self.mounts.clone(),
            hostname: self.hostname.clone(),
            argv,
            env: base_env(std::env::vars_os()),
            terminal,
        }
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mounts.iter().try_for_each(|mount| writeln!(f, "  {mount}"))
    }
}

/// A host name from a recipe's name: letters, digits and hyphens, 63 at most.
fn hostname(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    name.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::hostname;

    #[test]
    fn host_names_are_host_names() {
        assert_eq!(hostname("musl-python3"), "musl-python3");
        assert_eq!(hostname("a.b_c+"), "a-b-c");
        assert_eq!(hostname(&"x".repeat(100)).len(), 63);
    }
}
