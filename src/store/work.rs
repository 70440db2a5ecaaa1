//! Work directories: one for each recipe, locked while a build runs, begun afresh by each build.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Store;
use super::lock::{self, Lock, Mode};
use super::trees::remove_tree;
use crate::base::digest::{Sha256, Sha512};
use crate::base::error::{Context, Error, Kind, Result};
use crate::fs::atomic;

/// What a build changes and keeps, by name below the work directory.
const PARTS: [&str; 9] = ["upper", "uppers", "host", "work", "tree", "image", "config", "tmp", "run"];

/// Files of the last build that a new one begins without.
const FILES: [&str; 2] = ["state.json", "emerge.out"];

/// What the names of shells' directories begin with.
const SCRATCH: &str = "shell-";

/// A shell's throw-away directory, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now goes with the next build of the recipe.
        remove_tree(&self.path).ok();
    }
}

/// The work directory of a recipe, with its lock.
#[derive(Debug)]
pub struct Work {
    directory: PathBuf,
    _lock: Lock,
}

/// What a build started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Below {
    /// The stage3 with this SHA-512.
    Stage3(Sha512),
    /// The host.
    Host,
}

/// What the last build left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What lies below its changes.
    pub below: Below,
    /// Whether the build came to its end.
    pub finished: bool,
}

impl Store {
    /// Where the work directory of the recipe called `name` that came from `origin` is, or would be, in the store at `home`.
    pub fn work_directory(home: &Path, name: &str, origin: &Path) -> PathBuf {
        let digest = Sha256::of(std::os::unix::ffi::OsStrExt::as_bytes(origin.as_os_str())).hex();
        home.join("builds").join(format!("{name}-{}", &digest[..8]))
    }

    /// Takes the work directory of the recipe called `name` that came from `origin`. `waiting` is called before waiting for
    /// another process that builds it.
    ///
    /// # Errors
    /// [`Kind::System`] when it cannot be made or locked.
    pub fn work(&self, name: &str, origin: &Path, mode: Mode, waiting: impl FnOnce()) -> Result<Work> {
        let directory = Self::work_directory(self.root(), name, origin);
        let lock = lock::take(&directory.with_added_extension("lock"), mode, waiting)?;
        fs_err::create_dir_all(&directory).system(|| format!("making the work directory {}", directory.display()))?;
        Ok(Work { directory, _lock: lock })
    }
}

impl Work {
    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A directory of the build: `upper` and `uppers`, `work`, `tree` (the mounted overlays), `image`, `config`, `tmp`, `run`, `logs`.
    pub fn part(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Begins a build: empties what the last one left, but keeps its logs as `logs.old`.
    ///
    /// # Errors
    /// [`Kind::System`] when something cannot be removed or made.
    pub fn begin(&self, state: &State) -> Result<()> {
        self.empty()?;
        let (logs, old) = (self.part("logs"), self.part("logs.old"));
        if logs.exists() {
            remove_tree(&old)?;
            fs_err::rename(&logs, &old).system(|| "keeping the last build's logs")?;
        }
        for part in PARTS.into_iter().chain(["logs"]) {
            let part = self.part(part);
            fs_err::create_dir(&part).system(|| "making the work directory")?;
            // Portage's own user works in some of them, and one becomes the root of the image: the umask has no say.
            fs_err::set_permissions(&part, Permissions::from_mode(0o755)).system(|| "making the work directory")?;
        }
        self.write(state)
    }

    /// Removes what a build made, except its logs.
    ///
    /// # Errors
    /// [`Kind::System`] when something cannot be removed.
    pub fn empty(&self) -> Result<()> {
        for file in FILES {
            match fs_err::remove_file(self.part(file)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::system("clearing the work directory").with_source(error));
                }
                _ => {}
            }
        }
        for entry in fs_err::read_dir(&self.directory).system(|| "clearing the work directory")? {
            let entry = entry.system(|| "clearing the work directory")?;
            if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
                remove_tree(&entry.path())?;
            }
        }
        PARTS.iter().try_for_each(|part| remove_tree(&self.part(part)))
    }

    /// Removes the parts that nobody looks at after a build: the overlays' work directories, masks, temporary files.
    ///
    /// # Errors
    /// [`Kind::System`] when something cannot be removed.
    pub fn finish(&self, state: &State) -> Result<()> {
        ["work", "host", "tmp", "run"].iter().try_for_each(|part| remove_tree(&self.part(part)))?;
        self.write(state)
    }

    /// A directory for a shell's throw-away changes. One that a killed shell left goes with the next build.
    ///
    /// # Errors
    /// [`Kind::System`] when it cannot be made.
    pub fn scratch(&self) -> Result<Scratch> {
        let made = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(&self.directory);
        Ok(Scratch { path: made.system(|| "making a scratch directory")?.keep() })
    }

    /// What the last build left, if anything.
    ///
    /// # Errors
    /// [`Kind::System`] when what is there cannot be read.
    pub fn state(&self) -> Result<Option<State>> {
        let path = self.part("state.json");
        match fs_err::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::system("reading the state of the last build").with_source(error)),
        }
    }

    fn write(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec(state).context(Kind::System, || "writing down the state of the build")?;
        atomic::replace(&self.part("state.json"), &text, 0o600)
    }
}
