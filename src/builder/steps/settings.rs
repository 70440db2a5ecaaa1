//! The step that writes the settings of the image.

use std::path::Path;

use rustix::fs::FileType;

use super::super::Builder;
use super::files;
use super::script::Command;
use crate::base::digest::Sha256;
use crate::base::error::{Error, Result};
use crate::base::text::escaped;
use crate::fs::rootfs::Rootfs;
use crate::recipe::{CopySpec, FileSpec, Password, Step, System};
use crate::source::Site;
use crate::store::Store;
use crate::system::{self, Access, Change, Facts, Node, Tree, password};

/// Version of the files that settings make. A change of their content needs a new one.
const FORMAT: u32 = 1;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// The size limit of a file of the tree that is read, in bytes.
const MAX: u64 = 16 << 20;

/// The longest value that an explanation shows, in bytes.
const SHOWN: usize = 100;

impl Builder<'_> {
    /// Writes the settings into the tree `root`, after all of them were checked.
    pub(super) fn write_settings(
        &self,
        step: &Step,
        system: &System,
        (root, command): (&Rootfs, &Command<'_>),
        at: &Site<'_>,
    ) -> Result<()> {
        let facts = Facts { day: self.parts.plan.epoch / DAY, hashes: hashes(system, at.store)? };
        let outcome = system::settings(system, &Files(root), &facts)?;
        outcome.warnings.iter().for_each(|warning| at.ui.warn(warning));
        outcome.changes.iter().try_for_each(|change| apply(root, change))?;
        match outcome.command {
            Some(argv) => self.run_command(step, argv.into_iter().map(Into::into).collect(), command, at),
            None => Ok(()),
        }
    }
}

/// Returns the hashes of the passwords that are secrets, by user. The salt depends on the user, the password and the store, so that a
/// build makes the same bytes again.
fn hashes(system: &System, store: &Store) -> Result<std::collections::BTreeMap<String, String>> {
    let mut hashes = std::collections::BTreeMap::new();
    for user in &system.users {
        let Some(Password::Secret(secret)) = &user.password else { continue };
        let value = secret.value.expose();
        let seal = store.seal(&zeroize::Zeroizing::new([user.name.as_bytes(), value].concat()))?;
        let mut salt = [0; password::SALT];
        salt.copy_from_slice(&seal.bytes()[..password::SALT]);
        let hash = password::hash(value, &salt).map_err(|error| error.within(&format!("the secret {}", secret.name)));
        hashes.insert(user.name.clone(), hash?);
    }
    Ok(hashes)
}

/// Adds the inputs of settings: one for each key of `[system]`, and the content of files of this machine.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if such a file cannot be read.
pub(super) fn inputs(system: &System, epoch: u64, add: &mut dyn FnMut(&str, String)) -> Result<()> {
    add("format", FORMAT.to_string());
    let files: Vec<_> = system
        .files
        .iter()
        .map(|file| match file {
            FileSpec::Write(spec) => Ok(files::written(spec)),
            FileSpec::Copy(spec) => files::copied(spec),
        })
        .collect::<Result<_>>()?;
    for (number, how) in (1..).zip(files) {
        add(&format!("file {number}"), how);
    }
    for user in &system.users {
        if let Some(from) = &user.home_files {
            let copy = CopySpec { from: from.clone(), to: "/".into(), mode: None, owner: None, exclude: Vec::new() };
            add(&format!("home of {}", user.name), files::copied(&copy)?);
        }
    }
    if !system.users.is_empty() {
        add("day", (epoch / DAY).to_string());
    }
    let mut rest = System { files: Vec::new(), ..system.clone() };
    rest.users.iter_mut().for_each(|user| user.home_files = None);
    let document =
        serde_json::to_value(&rest).map_err(|error| Error::system("describing the settings").with_source(error))?;
    for (key, value) in document.as_object().into_iter().flatten() {
        let text = escaped(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        add(key, if text.len() <= SHOWN { text } else { Sha256::of(text.as_bytes()).hex() });
    }
    Ok(())
}

/// Makes a change.
fn apply(root: &Rootfs, change: &Change) -> Result<()> {
    match change {
        Change::File { path, bytes, access } => {
            let path = Path::new(path);
            let (mode, owner) = match access {
                Access::Exactly(mode, owner) => (*mode, *owner),
                Access::Kept(mode) => match root.stat(path)? {
                    Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                        (stat.st_mode & 0o7777, (stat.st_uid, stat.st_gid))
                    }
                    _ => (*mode, (0, 0)),
                },
            };
            // Nobody else may read a password file for a moment.
            root.write(path, bytes, mode & 0o600)?;
            root.own(path, owner, Some(mode))
        }
        Change::Link { path, target, owner } => {
            root.symlink(Path::new(target), Path::new(path))?;
            root.own(Path::new(path), *owner, None)
        }
        Change::Directory { path, mode, owner } => {
            let path = Path::new(path);
            root.create_dir_all(path.parent().unwrap_or(path), 0o755)?;
            root.create_dir(path, *mode)?;
            root.own(path, *owner, Some(*mode))
        }
        Change::Copy(spec) => files::copy(root, spec),
        Change::Remove(path) => root.remove(Path::new(path)).map(drop),
        Change::RemoveEmpty(path) => {
            let path = Path::new(path);
            if root.read_dir(path)?.is_empty() { root.remove(path).map(drop) } else { Ok(()) }
        }
    }
}

/// The files of a tree.
struct Files<'a>(&'a Rootfs);

impl Tree for Files<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self.0.stat(Path::new(path))? {
            Some(_) => self.0.read(Path::new(path), MAX),
            None => Ok(None),
        }
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        if self.0.real(Path::new(path)).is_err() {
            return Ok(None);
        }
        let names = self.0.read_dir(Path::new(path))?;
        Ok(Some(names.into_iter().filter_map(|(name, _)| name.into_string().ok()).collect()))
    }

    fn look(&self, path: &str) -> Result<Option<Node>> {
        let Some(stat) = self.0.stat(Path::new(path))? else { return Ok(None) };
        let mode = stat.st_mode & 0o7777;
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Node::File(mode),
            FileType::Directory => Node::Directory(mode),
            FileType::Symlink => {
                let target = self.0.read_link(Path::new(path))?.unwrap_or_default();
                Node::Link(target.to_string_lossy().into_owned())
            }
            _ => Node::Other,
        }))
    }
}
