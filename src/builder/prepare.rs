//! Portage's configuration in the builder tree and in the image's configuration root.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::base::error::{Context, Error, Kind, Result};
use crate::fs::rootfs::Rootfs;
use crate::portage::accelerate::Tools;
use crate::portage::config::{self, Existing, Seen};
use crate::portage::{BuilderInfo, ConfigTree, Entry, MakeProfile, Resolved};
use crate::recipe::{Job, TreeKind};
use crate::store::work::WorkPaths;

/// Limit on the size of a configuration file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The files that the configurations are combined with.
#[derive(Debug, Clone)]
pub(super) struct Before {
    builder: Existing,
    /// The recipe's own files for the configuration of an image.
    target: Option<Existing>,
}

impl Before {
    /// Collects the files of the tree `root`. Copies the recipe's own files.
    pub(super) fn gather(job: &Job, root: &Rootfs, work: &WorkPaths) -> Result<Self> {
        let target = match job.build.kind {
            TreeKind::Image => {
                let target = Rootfs::open(&work.config())?;
                overlay_user_files(job, &target)?;
                overlay_env(job, root)?;
                Some(existing(&target)?)
            }
            TreeKind::Stage4 => {
                // The user's own files are shipped too: they belong to the configuration from before the build.
                overlay_user_files(job, root)?;
                None
            }
        };
        Ok(Self { builder: existing(root)?, target })
    }

    /// Returns the configuration of the builder, and that of an image.
    fn configured(
        &self,
        job: &Job,
        resolved: &Resolved,
        info: &BuilderInfo,
    ) -> Result<(ConfigTree, Option<ConfigTree>)> {
        let target = self.target.as_ref().map(|before| config::target(job, resolved, info, before)).transpose()?;
        Ok((config::builder(job, resolved, info, &self.builder)?, target))
    }

    /// Describes both configurations, without the parts that no result depends on, and that differ between builds and shells: the date,
    /// the processors, the tools that compile, and the mirrors.
    pub(super) fn identity(&self, job: &Job, resolved: &Resolved, info: &BuilderInfo) -> Result<String> {
        let plain = BuilderInfo { cpus: 1, date: None, tools: Tools::UNKNOWN, ..info.clone() };
        // The digests of sources do not depend on the servers that deliver them.
        let mut anywhere = job.clone();
        anywhere.source.mirrors.clear();
        let (builder, target) = self.configured(&anywhere, resolved, &plain)?;
        Ok(format!("{:?}{target:?}{builder:?}", plain.portage))
    }
}

/// Both configurations of a builder, to be written.
#[derive(Debug)]
pub(super) struct Texts {
    /// The configuration that the builder tree had before.
    pub(super) before: Existing,
    /// The [`Before::identity`].
    pub(super) identity: String,
    builder: ConfigTree,
    /// The configuration of an image.
    target: Option<ConfigTree>,
}

impl Texts {
    /// Combines the recipe with the files of the tree `root`. Copies the recipe's own files.
    pub(super) fn new(
        job: &Job,
        resolved: &Resolved,
        root: &Rootfs,
        work: &WorkPaths,
        info: &BuilderInfo,
    ) -> Result<Self> {
        let before = Before::gather(job, root, work)?;
        let (builder, target) = before.configured(job, resolved, info)?;
        Ok(Self { identity: before.identity(job, resolved, info)?, builder, target, before: before.builder })
    }

    /// Writes them, for the builder to `root`.
    pub(super) fn write(&self, root: &Rootfs, work: &WorkPaths) -> Result<()> {
        if let Some(target) = &self.target {
            write(&Rootfs::open(&work.config())?, target)?;
        }
        write(root, &self.builder)
    }

    /// Copies the recipe's own files for a stage4 into the tree `root`, if the configuration was made with another tree.
    pub(super) fn copy_own_files(job: &Job, root: &Rootfs) -> Result<()> {
        match job.build.kind {
            TreeKind::Image => overlay_env(job, root),
            TreeKind::Stage4 => overlay_user_files(job, root),
        }
    }

    /// Takes the package files of another recipe's build out of the tree `root`.
    pub(super) fn replace(&self, job: &Job, root: &Rootfs) -> Result<()> {
        write(root, &config::without_package_files(job, &self.before))
    }
}

/// Replaces the build's configuration by the one that a stage4 is shipped with.
pub(super) fn ship(job: &Job, resolved: &Resolved, root: &Rootfs, before: &Existing) -> Result<()> {
    write(root, &config::shipped(job, resolved, before)?)
}

/// Writes an empty file in place of the builder tree's name servers: commands see those of the host while the tree is mounted, and no
/// image contains them.
pub(super) fn no_name_servers(root: &Rootfs) -> Result<()> {
    root.write(Path::new("etc/resolv.conf"), &[], 0o644)
}

/// Sets the profile of the builder.
pub(super) fn set_profile(root: &Rootfs, profile: &MakeProfile) -> Result<()> {
    write(root, &config::make_profile(profile))
}

fn existing(root: &Rootfs) -> Result<Existing> {
    Existing::gather(|path| {
        let Some(stat) = root.stat(path)? else { return Ok(None) };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => root.read(path, MAX_FILE)?.map(Seen::File),
            FileType::Directory => {
                let names = root.read_dir(path)?.into_iter().filter_map(|(name, _)| name.into_string().ok());
                Some(Seen::Directory(names.collect()))
            }
            FileType::Symlink => root.read_link(path)?.map(Seen::Symlink),
            _ => None,
        })
    })
}

fn write(root: &Rootfs, tree: &ConfigTree) -> Result<()> {
    for path in &tree.remove {
        root.remove(path)?;
    }
    for (path, entry) in &tree.entries {
        match entry {
            Entry::File(text) => root.write(path, text.as_bytes(), 0o644)?,
            Entry::Symlink(target) => root.symlink(target, path)?,
        }
    }
    Ok(())
}

/// Copies the recipe's directories `portage.config` and `portage.patches` over `etc/portage`.
fn overlay_user_files(job: &Job, root: &Rootfs) -> Result<()> {
    let at = Path::new("etc/portage");
    root.create_dir_all(at, 0o755)?;
    let patches = (at.join("patches"), &job.portage.patches);
    for (at, directory) in [(at.to_owned(), &job.portage.config), patches] {
        if let Some(directory) = directory {
            root.create_dir_all(&at, 0o755)?;
            copy(directory, root, &at)?;
        }
    }
    Ok(())
}

/// Copies the files that lines of `package.env` in `portage.config` name. Those lines also apply to the builder.
fn overlay_env(job: &Job, root: &Rootfs) -> Result<()> {
    let env = job.portage.config.as_ref().map(|directory| directory.join("env")).filter(|env| env.is_dir());
    let at = Path::new("etc/portage/env");
    env.map_or(Ok(()), |env| root.create_dir_all(at, 0o755).and_then(|()| copy(&env, root, at)))
}

fn copy(from: &Path, root: &Rootfs, to: &Path) -> Result<()> {
    let reading = || format!("copying {}", from.display());
    for entry in fs_err::read_dir(from).context(Kind::Usage, reading)? {
        let entry = entry.context(Kind::Usage, reading)?;
        let (source, target): (PathBuf, PathBuf) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().context(Kind::Usage, reading)?;
        if kind.is_dir() {
            root.create_dir_all(&target, 0o755)?;
            copy(&source, root, &target)?;
        } else if kind.is_symlink() {
            root.symlink(&fs_err::read_link(&source).context(Kind::Usage, reading)?, &target)?;
        } else if kind.is_file() {
            let mode = entry.metadata().context(Kind::Usage, reading)?.permissions().mode() & 0o755;
            root.write(&target, &fs_err::read(&source).context(Kind::Usage, reading)?, mode)?;
        } else {
            return Err(Error::usage(format!("{} is not a file, a directory or a symlink", source.display())));
        }
    }
    Ok(())
}
