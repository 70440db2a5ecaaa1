//! The mounts of a sandbox as data: what a command in the builder tree sees of the host.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::base::error::{Context, Result};
use crate::base::progress::Target;
use crate::enter::plan::{base_env, base_mounts};
use crate::enter::{Mount, Terminal};
use crate::portage::{self, PackageDirs, Resolved, accelerate};
use crate::recipe::{Job, Step, StepTmpfs, TreeKind};
use crate::store::Store;
use crate::store::work::WorkPaths;

/// The host name of all steps of recipes, so that two images can share their layers.
const STEP_HOSTNAME: &str = "quern";

/// The mounts of a sandbox, its host name, and whether it has a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    mounts: Vec<Mount>,
    packages: Vec<PackageMounts>,
    hostname: String,
    network: bool,
}

/// The mounts of the binary packages for one tree.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PackageMounts {
    target: Target,
    /// The host's directories for PKGDIR and for the index.
    own: [PathBuf; 2],
    /// The packages of earlier builds on the host, in a directory of this name or below.
    shared: PathBuf,
    /// The packages of the key without settings of single packages, if there are any.
    plain: Option<PathBuf>,
    /// False until the key of the packages is known. Nothing of them is mounted before.
    known: bool,
}

impl PackageMounts {
    fn new(target: Target, shared: &Path, work: &WorkPaths) -> Self {
        let own = [work.private_packages(target), work.package_index(target)];
        Self { target, own, shared: shared.to_owned(), plain: None, known: false }
    }

    fn mounts(&self) -> Vec<Mount> {
        let PackageDirs { pkgdir, shared, plain, index } = PackageDirs::of(self.target);
        let [private, own_index] = &self.own;
        let own = [
            Mount::writable(private, pkgdir),
            Mount::read_only(own_index, index),
            Mount::read_only(&self.shared, shared),
        ];
        own.into_iter().chain(self.plain.iter().map(|source| Mount::read_only(source, plain))).collect()
    }
}

/// The directories of the caches that builds share, on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caches {
    /// The packages of all keys, each in a directory of its own.
    pub packages: PathBuf,
    /// The directory that the recipe names for the packages of the image.
    pub binpkg: Option<PathBuf>,
    /// `DISTDIR`.
    pub distfiles: PathBuf,
    /// The settings that Portage reported.
    pub settings: PathBuf,
}

impl Caches {
    /// Returns the caches of a recipe: the directories that it names, or those of the store at `home`. Makes nothing.
    pub fn of(job: &Job, home: &Path) -> Self {
        Self {
            packages: Store::packages(home),
            binpkg: job.portage.binpkg.clone(),
            distfiles: job.portage.distfiles.clone().unwrap_or_else(|| home.join("cache/distfiles")),
            settings: home.join("cache/settings"),
        }
    }

    /// Makes the directories that are missing, except those of packages.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if a directory cannot be made.
    pub fn make(&self) -> Result<()> {
        let path = &self.distfiles;
        fs_err::create_dir_all(path).system(|| format!("making the cache {}", path.display()))
    }

    /// The mounts for the packages of a build in `work`. Those for the image come first.
    fn mounts(&self, job: &Job, work: &WorkPaths) -> Vec<PackageMounts> {
        let any = self.packages.join("KEY");
        let image = PackageMounts::new(Target::Image, self.binpkg.as_ref().unwrap_or(&any), work);
        let builder = (job.build.kind == TreeKind::Image).then(|| PackageMounts::new(Target::Builder, &any, work));
        std::iter::once(image).chain(builder).collect()
    }
}

impl View {
    /// The view of a build whose work directory is `work`.
    pub fn build(job: &Job, resolved: &Resolved, caches: &Caches, work: &WorkPaths) -> Self {
        let mut mounts = base_mounts();
        mounts.push(Mount::writable(work.run(), "/run"));
        mounts.push(match job.build.workdir_tmpfs {
            Some(size) => Mount::Tmpfs { target: portage::TMPDIR.into(), mode: 0o1777, size: Some(size) },
            None => Mount::writable(work.tmp(), portage::TMPDIR),
        });
        mounts.push(Mount::writable(work.logs(), portage::LOGDIR));
        // Without sources, nothing is built and nothing is stored.
        if !job.emerge.binary_only {
            mounts.push(Mount::writable(&caches.distfiles, portage::DISTDIR));
        }
        if let Some(directory) = ccache(job, work) {
            mounts.push(Mount::writable(directory, accelerate::CCACHE_DIR));
        }
        for repo in resolved.repos.iter() {
            mounts.push(Mount::read_only(repo.location(), repo.mountpoint()));
        }
        mounts.extend(binhosts(job, work));
        if job.build.kind == TreeKind::Image {
            mounts.push(Mount::writable(work.config(), portage::CONFIGROOT));
            mounts.push(Mount::writable(work.image(), portage::ROOT));
        }
        Self { mounts, packages: caches.mounts(job, work), hostname: hostname(&job.name), network: true }
    }

    /// The view of a shell in an image: nothing of the host.
    pub fn image(job: &Job) -> Self {
        let mut mounts = base_mounts();
        mounts.push(Mount::Tmpfs { target: "/run".into(), mode: 0o755, size: None });
        Self { mounts, packages: Vec::new(), hostname: hostname(&job.name), network: true }
    }

    /// The view of a step of a recipe: nothing of the host but what it names, and no network unless it asks for it. `own` has its
    /// binds and caches.
    pub fn step(step: &Step, own: Vec<Mount>, offline: bool) -> Self {
        let mut mounts = base_mounts();
        mounts.push(Mount::Tmpfs { target: "/run".into(), mode: 0o755, size: None });
        let view = Self { mounts, packages: Vec::new(), hostname: STEP_HOSTNAME.to_owned(), network: true };
        view.for_step(step, own).offline(offline)
    }

    /// Adds the mounts of a step: `own`, its binds and caches, and its directories in memory. Takes the network away unless the step asks
    /// for it.
    #[must_use]
    pub fn for_step(mut self, step: &Step, own: Vec<Mount>) -> Self {
        let tmpfs = |tmpfs: &StepTmpfs| Mount::Tmpfs { target: tmpfs.at.clone(), mode: 0o755, size: tmpfs.size };
        let mut own: Vec<Mount> = step.tmpfs.iter().map(tmpfs).chain(own).collect();
        // A mount in another one comes after it.
        own.sort_by(|one, other| one.target().cmp(other.target()));
        self.mounts.extend(own);
        self.offline(!step.network)
    }

    /// Adds a mount.
    #[must_use]
    pub fn with(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Returns true if commands can reach the network.
    pub fn has_network(&self) -> bool {
        self.network
    }

    /// The view of a shell or a question in a builder tree whose changes go to `scratch`: that of a build, with temporary directories of
    /// its own and read-only caches.
    pub fn scratch(job: &Job, resolved: &Resolved, caches: &Caches, scratch: &WorkPaths) -> Self {
        let mut mounts = base_mounts();
        for at in ["/run", portage::TMPDIR] {
            mounts.push(Mount::Tmpfs { target: at.into(), mode: 0o1777, size: None });
        }
        mounts.push(Mount::read_only(&caches.distfiles, portage::DISTDIR));
        for repo in resolved.repos.iter() {
            mounts.push(Mount::read_only(repo.location(), repo.mountpoint()));
        }
        mounts.extend(binhosts(job, scratch));
        if job.build.kind == TreeKind::Image {
            mounts.push(Mount::writable(scratch.config(), portage::CONFIGROOT));
            mounts.push(Mount::writable(scratch.image(), portage::ROOT));
        }
        Self { mounts, packages: caches.mounts(job, scratch), hostname: hostname(&job.name), network: true }
    }

    /// Returns the place of a path of the sandbox on the host: the directory that is mounted there, and the path in it.
    pub fn on_host(&self, path: &Path) -> Option<(PathBuf, PathBuf)> {
        let bind = |mount: &Mount| match mount {
            Mount::Bind { source, target, .. } => Some((source.clone(), path.strip_prefix(target).ok()?.to_owned())),
            Mount::Tmpfs { .. } | Mount::Dev | Mount::Proc => None,
        };
        self.all_mounts().iter().rev().find_map(bind)
    }

    /// The variables that make Portage act on the image, if the view has one.
    pub fn target_env(&self) -> BTreeMap<String, String> {
        let image = self.targets().contains(&Path::new(portage::CONFIGROOT));
        image.then(|| ("PORTAGE_CONFIGROOT".to_owned(), portage::CONFIGROOT.to_owned())).into_iter().collect()
    }

    /// The view of a command that only answers a question: nothing of the host can be written, and there is no network.
    #[must_use]
    pub fn query(&self) -> Self {
        let temporary = ["/run", portage::TMPDIR, portage::LOGDIR].map(Path::new);
        let read_only = |mount: &Mount| match mount {
            Mount::Bind { target, .. } if temporary.contains(&target.as_path()) => {
                Mount::Tmpfs { target: target.clone(), mode: 0o1777, size: None }
            }
            Mount::Bind { source, target, .. } => Mount::read_only(source, target),
            other => other.clone(),
        };
        let mounts = self.all_mounts().iter().map(read_only).collect();
        Self { mounts, packages: Vec::new(), hostname: self.hostname.clone(), network: false }
    }

    /// Shows the directory `tmp` as `PORTAGE_TMPDIR`, and the logs of the build in `work`.
    #[must_use]
    pub fn of_failed(mut self, tmp: PathBuf, work: &WorkPaths) -> Self {
        self.mounts.retain(|mount| mount.target() != Path::new(portage::TMPDIR));
        self.mounts.push(Mount::writable(tmp, portage::TMPDIR));
        self.mounts.push(Mount::read_only(work.logs(), portage::LOGDIR));
        self
    }

    /// The view of a command that signs the packages in `directory` with the keys in `home`: nothing else of the host, and no network.
    pub fn signing(directory: &Path, home: &Path) -> Self {
        let mut mounts = base_mounts();
        mounts.push(Mount::Tmpfs { target: "/run".into(), mode: 0o755, size: None });
        mounts.push(Mount::Tmpfs { target: portage::TMPDIR.into(), mode: 0o1777, size: None });
        mounts.push(Mount::writable(directory, portage::SIGNED_DIRECTORY));
        mounts.push(Mount::read_only(home, portage::SIGNING_KEYS));
        Self { mounts, packages: Vec::new(), hostname: "signing".to_owned(), network: false }
    }

    /// The view of a command that only writes the GnuPG home `home`.
    #[must_use]
    pub fn trusting(&self, home: &Path) -> Self {
        let mut view = self.query();
        view.mounts.retain(|mount| mount.target() != Path::new(portage::TRUST_HOME));
        view.mounts.push(Mount::writable(home, portage::TRUST_HOME));
        view
    }

    /// Takes the network away if `offline`.
    #[must_use]
    pub fn offline(self, offline: bool) -> Self {
        Self { network: self.network && !offline, ..self }
    }

    /// Returns the directory of the host that is mounted at `target`.
    pub fn source_of(&self, at: &str) -> Option<&Path> {
        self.mounts.iter().find_map(|mount| match mount {
            Mount::Bind { source, target, .. } if target == Path::new(at) => Some(source.as_path()),
            _ => None,
        })
    }

    /// The mount points, absolute paths in the tree.
    pub fn targets(&self) -> Vec<&Path> {
        let packages = self.packages.iter().flat_map(|packages| PackageDirs::of(packages.target).all().map(Path::new));
        self.mounts.iter().map(Mount::target).chain(packages).collect()
    }

    /// The mount points that a tree must have: directories, and files. Mount points in a file system that the sandbox makes are not
    /// among them.
    pub fn points(&self) -> (Vec<&Path>, Vec<&Path>) {
        let made: Vec<&Path> = self.mounts.iter().filter(|mount| !mount.is_bind()).map(Mount::target).collect();
        let inside = |path: &Path| made.iter().any(|at| path.starts_with(at) && path != *at);
        let files: Vec<&Path> = self.mounts.iter().filter(|mount| mount.is_file()).map(Mount::target).collect();
        let (files, directories): (Vec<&Path>, Vec<&Path>) =
            self.targets().into_iter().filter(|path| !inside(path)).partition(|path| files.contains(path));
        (directories, files)
    }

    /// Provides the packages for a tree: those of earlier builds are in the directories `shared` and `plain`.
    pub fn provide(&mut self, target: Target, shared: &Path, plain: Option<&Path>) {
        for packages in self.packages.iter_mut().filter(|packages| packages.target == target) {
            (packages.shared, packages.known) = (shared.to_owned(), true);
            packages.plain = plain.map(Path::to_owned);
        }
    }

    /// Returns all mounts, with those of packages whose key is known.
    fn all_mounts(&self) -> Vec<Mount> {
        let packages = self.packages.iter().filter(|packages| packages.known).flat_map(PackageMounts::mounts);
        self.mounts.iter().cloned().chain(packages).collect()
    }

    /// Returns a plan for a command in the tree `root`.
    pub fn plan(&self, root: PathBuf, argv: Vec<OsString>, terminal: Terminal) -> crate::enter::Plan {
        crate::enter::Plan {
            root,
            mounts: self.all_mounts(),
            secrets: Vec::new(),
            hostname: self.hostname.clone(),
            network: self.network,
            argv,
            directory: "/".into(),
            env: base_env(std::env::vars_os()),
            user: None,
            limit: None,
            terminal,
            daemons: Vec::new(),
            left: None,
        }
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packages = self.packages.iter().flat_map(PackageMounts::mounts);
        self.mounts.iter().cloned().chain(packages).try_for_each(|mount| writeln!(f, "{mount}"))?;
        if self.network { Ok(()) } else { writeln!(f, "no network") }
    }
}

/// Returns the mounts for hosts of binary packages. A command can change neither their indexes nor the trusted certificates.
fn binhosts(job: &Job, work: &WorkPaths) -> Vec<Mount> {
    if job.portage.binhost.is_empty() {
        return Vec::new();
    }
    let own = [(work.binhosts(), portage::BINHOST_INDEXES), (work.gnupg(), portage::TRUST_HOME)];
    let own = own.into_iter().map(|(path, at)| Mount::read_only(path, at));
    let directories = (1..).zip(&job.portage.binhost).filter_map(|(number, host)| {
        Some(Mount::read_only(host.directory()?, portage::binhost::directory(host, number)?))
    });
    own.chain(directories).collect()
}

/// Returns the directory of ccache of a recipe whose work directory is `work`. Every package may write to it, so that by default no two
/// recipes share one.
pub fn ccache(job: &Job, work: &WorkPaths) -> Option<PathBuf> {
    let ccache = job.accelerate.ccache.as_ref()?;
    Some(ccache.dir.clone().unwrap_or_else(|| work.ccache()))
}

/// Makes a host name of a recipe's name: letters, digits and hyphens, at most 63.
fn hostname(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    name.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portage::fixture::{World, job};
    use crate::recipe::EMERGE_MOUNTS;

    #[test]
    fn a_recipe_knows_the_places_of_emerge() {
        let world = World::new();
        let mut job = job(world.usual());
        job.accelerate.ccache = Some(crate::recipe::Ccache::default());
        let (resolved, work) = (Resolved::new(&job).unwrap(), WorkPaths::new(world.path("work")));
        let caches = Caches::of(&job, &world.path("home"));
        let known = |path: &Path| {
            ["/dev", "/proc", "/tmp", "/quern"].iter().chain(&EMERGE_MOUNTS).any(|at| path.starts_with(at))
        };
        for kind in [TreeKind::Image, TreeKind::Stage4] {
            job.build.kind = kind;
            let view = View::build(&job, &resolved, &caches, &work);
            assert_eq!(view.targets().into_iter().find(|path| !known(path)), None);
        }
        assert!([portage::BINHOST, portage::KITS].iter().all(|path| known(Path::new(path))));
    }

    #[test]
    fn a_host_name_has_letters_digits_and_hyphens() {
        assert_eq!(hostname("musl-python3"), "musl-python3");
        assert_eq!(hostname("a.b_c+"), "a-b-c");
        assert_eq!(hostname(&"x".repeat(100)).len(), 63);
    }
}
