//! Work directories: one for each recipe, locked while a build runs. Each build starts with an empty one.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Store;
use super::lock::{self, Lock, Mode};
use super::trees::remove_tree;
use crate::base::digest::{Sha256, Sha512};
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::progress::Target;
use crate::fs::atomic;
use crate::fs::lock::try_lock;

/// Prefix of the names of shells' directories.
const SCRATCH: &str = "shell-";

/// The paths of the parts of a work directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkPaths {
    directory: PathBuf,
    /// The directory for the changes to trees.
    changes: PathBuf,
}

impl WorkPaths {
    /// The parts of the work directory `directory`, which need not exist.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        Self { changes: directory.clone(), directory }
    }

    /// Returns the same paths with another directory for the changes to trees.
    #[must_use]
    pub fn on(&self, changes: &Path) -> Self {
        Self { changes: changes.to_owned(), ..self.clone() }
    }

    /// The changes of a step that failed.
    pub fn failed(&self) -> PathBuf {
        self.directory.join("failed")
    }

    /// The changes of questions that a build asks. They are thrown away.
    pub fn questions(&self) -> PathBuf {
        self.directory.join("questions")
    }

    /// The trees at the ends of layers of an OCI image, each in a directory of its own. They are thrown away.
    pub fn cuts(&self) -> PathBuf {
        self.directory.join("cuts")
    }

    /// An empty directory, over which the layers of an image lie.
    pub fn empty(&self) -> PathBuf {
        self.directory.join("empty")
    }

    /// The files that steps see: scripts and texts.
    pub fn step_files(&self) -> PathBuf {
        self.directory.join("step")
    }

    /// The work directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Mount point of the builder tree.
    pub fn tree(&self) -> PathBuf {
        self.directory.join("tree")
    }

    /// Changes to the root of the builder tree: the upper directory of its overlay.
    pub fn upper(&self) -> PathBuf {
        self.changes.join("upper")
    }

    /// Changes to the image, and to directories of the host that the builder tree shows: one directory for each overlay.
    pub fn uppers(&self) -> PathBuf {
        self.changes.join("uppers")
    }

    /// Changes to what the builder tree has at `place`, an absolute path.
    pub fn upper_of(&self, place: &Path) -> PathBuf {
        let name = std::os::unix::ffi::OsStrExt::as_bytes(place.as_os_str()).escape_ascii().to_string();
        match place == Path::new("/") {
            true => self.upper(),
            false => self.uppers().join(name.replace('%', "%25").replace('/', "%2F")),
        }
    }

    /// Work directories of the overlays themselves.
    pub fn overlay_work(&self) -> PathBuf {
        self.changes.join("work")
    }

    /// The output of the step that makes the changes.
    pub fn log(&self) -> PathBuf {
        self.changes.join("log")
    }

    /// The output of the daemon `name` of that step.
    pub fn daemon_log(&self, name: &str) -> PathBuf {
        self.changes.join("daemons").join(format!("{name}.log"))
    }

    /// Layers that hold nothing but mount points.
    pub fn mount_points(&self) -> PathBuf {
        self.changes.join("points")
    }

    /// The skeleton and the masks of a build from the host.
    pub fn host(&self) -> PathBuf {
        self.directory.join("host")
    }

    /// Mount point of the image tree (`ROOT`).
    pub fn image(&self) -> PathBuf {
        self.directory.join("image")
    }

    /// Mount point of a volume.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.volumes().join(name)
    }

    /// Mount points of volumes.
    fn volumes(&self) -> PathBuf {
        self.directory.join("volumes")
    }

    /// The image's Portage configuration (`PORTAGE_CONFIGROOT`).
    pub fn config(&self) -> PathBuf {
        self.directory.join("config")
    }

    /// `PORTAGE_TMPDIR`, unless it is a tmpfs.
    pub fn tmp(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    /// `/run` of the sandbox.
    pub fn run(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// `PORTAGE_LOGDIR`.
    pub fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// The logs of the build before the last one.
    fn old_logs(&self) -> PathBuf {
        self.directory.join("logs.old")
    }

    /// The indexes of hosts of binary packages, each in a directory with the number of its host.
    pub fn binhosts(&self) -> PathBuf {
        self.directory.join("binhosts")
    }

    /// The GnuPG home with the certificates that may sign binary packages.
    pub fn gnupg(&self) -> PathBuf {
        self.directory.join("gnupg")
    }

    /// Everything that emerge printed. The build cannot reach this file.
    pub fn emerge_output(&self) -> PathBuf {
        self.directory.join("emerge.out")
    }

    /// The packages of a build: what it makes, and the index of what it may take.
    pub fn packages(&self) -> PathBuf {
        self.directory.join("packages")
    }

    /// PKGDIR of the packages for a tree.
    pub fn private_packages(&self, target: Target) -> PathBuf {
        self.packages().join(format!("{target}"))
    }

    /// The index of the packages that a build may take for a tree.
    pub fn package_index(&self, target: Target) -> PathBuf {
        self.packages().join(format!("{target}-index"))
    }

    /// The record of the packages of a build that has not ended yet.
    pub fn packages_record(&self) -> PathBuf {
        self.directory.join("packages.json")
    }

    /// The record of the steps of the last build.
    pub fn steps_record(&self) -> PathBuf {
        self.directory.join("steps.json")
    }

    /// The compiler cache of the recipe, in the store's cache.
    pub fn ccache(&self) -> PathBuf {
        let home = self.directory.parent().and_then(Path::parent).unwrap_or(&self.directory);
        home.join("cache/ccache").join(self.directory.file_name().unwrap_or_default())
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    fn read_state(&self) -> Result<Option<State>> {
        match fs_err::read(self.state()) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::system("reading the state of the last build").with_source(error)),
        }
    }

    /// The directories that a build changes, except the logs.
    fn changed(&self) -> [PathBuf; 19] {
        [
            self.failed(),
            self.questions(),
            self.cuts(),
            self.empty(),
            self.step_files(),
            self.packages(),
            self.upper(),
            self.uppers(),
            self.mount_points(),
            self.host(),
            self.overlay_work(),
            self.tree(),
            self.image(),
            self.volumes(),
            self.config(),
            self.binhosts(),
            self.gnupg(),
            self.tmp(),
            self.run(),
        ]
    }

    /// The directories that are useless after a build.
    fn temporary(&self) -> [PathBuf; 13] {
        [
            self.questions(),
            self.cuts(),
            self.empty(),
            self.step_files(),
            self.packages(),
            self.volumes(),
            self.overlay_work(),
            self.mount_points(),
            self.host(),
            self.binhosts(),
            self.gnupg(),
            self.tmp(),
            self.run(),
        ]
    }
}

/// Returns true for a scratch directory among the work directories. A recipe may have such a name, but its directory has a lock file.
pub(super) fn is_scratch(path: &Path) -> bool {
    let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SCRATCH));
    named && !path.with_added_extension("lock").exists()
}

/// Locks a scratch directory. Returns `None` if another process uses it, or if it is gone.
pub(super) fn lock_scratch(path: &Path) -> Result<Option<File>> {
    let Ok(directory) = fs_err::File::open(path) else { return Ok(None) };
    let locked = try_lock(directory.file(), Mode::Exclusive).system(|| "locking a scratch directory")?;
    Ok(locked.then(|| directory.into_file()))
}

/// The directory for a shell's changes. Dropping it removes it.
#[derive(Debug)]
pub struct Scratch {
    paths: WorkPaths,
    /// A lock on a directory that no build would remove.
    _lock: Option<File>,
}

impl Scratch {
    fn new(place: &Path) -> Result<Self> {
        let making = || "making a scratch directory";
        let made = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(place).system(making)?;
        let scratch = Self { paths: WorkPaths::new(made.keep()), _lock: None };
        fs_err::create_dir(scratch.paths.tree()).system(making)?;
        Ok(scratch)
    }

    /// Its parts.
    pub fn paths(&self) -> &WorkPaths {
        &self.paths
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next build of the recipe removes what this cannot.
        remove_tree(self.paths.directory()).ok();
    }
}

/// The work directory of a recipe, locked.
#[derive(Debug)]
pub struct Work {
    paths: WorkPaths,
    _lock: Lock,
}

/// The base of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Below {
    /// The stage3 with this SHA-512.
    Stage3(Sha512),
    /// The host.
    Host,
}

/// The state in which the last build left a work directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The base that its changes belong to.
    pub below: Below,
    /// True if the build succeeded.
    pub finished: bool,
    /// The steps that its tree has, in order: names, and the keys of their layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<(String, Sha256)>,
    /// The layers of other images that its volumes began with, by the names of the volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Vec<(String, Sha256)>>,
    /// The step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<String>,
    /// The package whose build failed, as `category/package-version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl State {
    /// The state of a build that has just begun.
    pub fn begun(below: Below) -> Self {
        Self { below, finished: false, layers: Vec::new(), volumes: BTreeMap::new(), failed_step: None, failed: None }
    }
}

impl Store {
    /// Returns the paths of the work directory of the recipe `name` from the file `origin`, in the store at `home`. Neither needs
    /// to exist.
    pub fn work_paths(home: &Path, name: &str, origin: &Path) -> WorkPaths {
        let digest = Sha256::of(std::os::unix::ffi::OsStrExt::as_bytes(origin.as_os_str())).hex();
        WorkPaths::new(home.join("builds").join(format!("{name}-{}", &digest[..8])))
    }

    /// Returns the state that the last build of the recipe in the file `origin` left; `None` if it was not built.
    ///
    /// # Errors
    /// [`Kind::System`] if the store cannot be read.
    pub fn last_state(&self, origin: &Path) -> Result<Option<State>> {
        let digest = Sha256::of(std::os::unix::ffi::OsStrExt::as_bytes(origin.as_os_str())).hex();
        let suffix = format!("-{}", &digest[..8]);
        let named = |path: &PathBuf| path.to_str().is_some_and(|path| path.ends_with(&suffix));
        let found = super::clean::children(&self.root().join("builds"))?.into_iter().find(named);
        found.map_or(Ok(None), |directory| WorkPaths::new(directory).read_state())
    }

    /// Locks the work directory of the recipe `name` from the file `origin`, and makes it if it is missing. Calls `waiting` before
    /// it waits for another process that holds the lock.
    ///
    /// # Errors
    /// [`Kind::System`] if the directory cannot be made or locked.
    pub fn work(&self, name: &str, origin: &Path, mode: Mode, waiting: impl FnOnce()) -> Result<Work> {
        let paths = Self::work_paths(self.root(), name, origin);
        let directory = paths.directory();
        let lock = lock::take(&directory.with_added_extension("lock"), mode, waiting)?;
        fs_err::create_dir_all(directory).system(|| format!("making the work directory {}", directory.display()))?;
        Ok(Work { paths, _lock: lock })
    }

    /// Does the same as [`Store::work`] in shared mode. Returns `None` if a build of the recipe runs.
    ///
    /// # Errors
    /// [`Kind::System`] if the directory cannot be made or locked.
    pub fn work_now(&self, name: &str, origin: &Path) -> Result<Option<Work>> {
        let directory = Self::work_paths(self.root(), name, origin).directory().to_owned();
        match lock::try_take(&directory.with_added_extension("lock"), Mode::Shared)? {
            None => Ok(None),
            Some(_held) => self.work(name, origin, Mode::Shared, || {}).map(Some),
        }
    }
}

impl Store {
    /// Makes a scratch directory that belongs to no recipe, and removes those that killed processes left.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be made.
    pub fn scratch(&self) -> Result<Scratch> {
        let place = self.root().join("builds");
        // Another process must not take a directory that is not locked yet for one that nobody uses.
        let builds = fs_err::File::open(&place).system(|| "locking the work directories")?;
        lock::hold(builds.file(), &place, Mode::Exclusive, || {})?;
        for old in super::clean::children(&place)? {
            if is_scratch(&old) {
                let lock = lock_scratch(&old)?;
                // The process that made it may have removed it before its lock ended.
                if lock.is_some() && old.exists() {
                    remove_tree(&old)?;
                }
            }
        }
        let mut scratch = Scratch::new(&place)?;
        scratch._lock = lock_scratch(scratch.paths.directory())?;
        Ok(scratch)
    }
}

impl Work {
    /// Its parts.
    pub fn paths(&self) -> &WorkPaths {
        &self.paths
    }

    /// Starts a build: removes what the last build left, except its logs, which become `logs.old`.
    ///
    /// # Errors
    /// [`Kind::System`] if something cannot be removed or made.
    pub fn begin(&self, state: &State) -> Result<()> {
        self.empty()?;
        let (logs, old) = (self.paths.logs(), self.paths.old_logs());
        if logs.exists() {
            remove_tree(&old)?;
            fs_err::rename(&logs, &old).system(|| "keeping the last build's logs")?;
        }
        for part in self.paths.changed().into_iter().chain([logs]) {
            fs_err::create_dir(&part).system(|| "making the work directory")?;
            // Portage's own user works in some of them, and one becomes the root of the image: the umask must not matter.
            fs_err::set_permissions(&part, Permissions::from_mode(0o755)).system(|| "making the work directory")?;
        }
        self.write(state)
    }

    /// Removes everything that the last build made, except its logs.
    ///
    /// # Errors
    /// [`Kind::System`] if something cannot be removed.
    pub fn empty(&self) -> Result<()> {
        for file in [self.paths.state(), self.paths.emerge_output(), self.paths.packages_record()] {
            match fs_err::remove_file(file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::system("clearing the work directory").with_source(error));
                }
                _ => {}
            }
        }
        for entry in fs_err::read_dir(self.paths.directory()).system(|| "clearing the work directory")? {
            let entry = entry.system(|| "clearing the work directory")?;
            if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
                remove_tree(&entry.path())?;
            }
        }
        self.paths.changed().iter().try_for_each(|part| remove_tree(part))
    }

    /// Ends a build: removes the temporary directories and records `state`.
    ///
    /// # Errors
    /// [`Kind::System`] if something cannot be removed.
    pub fn finish(&self, state: &State) -> Result<()> {
        self.paths.temporary().iter().try_for_each(|part| remove_tree(part))?;
        self.write(state)
    }

    /// Makes a directory for a shell's changes. If the shell is killed, the next build removes the directory.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be made.
    pub fn scratch(&self) -> Result<Scratch> {
        Scratch::new(self.paths.directory())
    }

    /// Reads the state that the last build left; `None` before the first build.
    ///
    /// # Errors
    /// [`Kind::System`] if the file cannot be read.
    pub fn state(&self) -> Result<Option<State>> {
        self.paths.read_state()
    }

    /// Records the state of a build that failed.
    ///
    /// # Errors
    /// [`Kind::System`] if the state cannot be written.
    pub fn record(&self, state: &State) -> Result<()> {
        self.write(state)
    }

    fn write(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec(state).context(Kind::System, || "recording the state of the build")?;
        atomic::replace(&self.paths.state(), &text, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simultaneous_looks_keep_their_scratch_directories() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        fs_err::create_dir_all(home.path().join("builds/shell-left-behind")).unwrap();
        let used = store.scratch().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..40 {
                        let scratch = store.scratch().unwrap();
                        assert!(scratch.paths().tree().is_dir());
                        fs_err::create_dir(scratch.paths().tree().join("used")).unwrap();
                    }
                });
            }
        });
        let mut seen = Vec::new();
        store.clean(&[super::super::clean::Category::Builds], false, |item| seen.push(item.busy)).unwrap();
        assert_eq!(seen, [true]);
        assert!(used.paths().tree().is_dir());
        drop(used);
        assert_eq!(fs_err::read_dir(home.path().join("builds")).unwrap().count(), 0);
    }
}
