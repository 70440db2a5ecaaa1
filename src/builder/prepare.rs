//! Writing Portage's configuration into the builder tree and the target's configuration root, and reading what the stage3 has.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::base::error::{Context, Error, Kind, Result};
use crate::fs::rootfs::Rootfs;
use crate::portage::config::{self, Existing, Seen};
use crate::portage::{BuilderInfo, ConfigTree, Entry, Resolved, portage_version};
use crate::recipe::{Job, TreeKind};
use crate::store::work::Work;

/// The longest configuration file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What the generator needs to know of the stage3.
pub(super) fn builder_info(root: &Rootfs, cpus: u32) -> Result<BuilderInfo> {
    let sandbox = root.stat(Path::new("usr/bin/sandbox"))?.is_some();
    Ok(BuilderInfo { sandbox, cpus, portage: installed_portage(root)? })
}

/// Portage's version, from the package database or else from its Python distribution.
fn installed_portage(root: &Rootfs) -> Result<Option<[u32; 3]>> {
    let named = |directory: &Path| -> Result<Option<[u32; 3]>> {
        if root.stat(directory)?.is_none_or(|stat| !FileType::from_raw_mode(stat.st_mode).is_dir()) {
            return Ok(None);
        }
        let names = root.read_dir(directory)?;
        Ok(names.iter().find_map(|(name, _)| portage_version(name.to_str()?)))
    };
    if let Some(version) = named(Path::new("var/db/pkg/sys-apps"))? {
        return Ok(Some(version));
    }
    let lib = Path::new("usr/lib");
    if root.stat(lib)?.is_none() {
        return Ok(None);
    }
    for (name, _) in root.read_dir(lib)? {
        if name.to_str().is_some_and(|name| name.starts_with("python3"))
            && let Some(version) = named(&lib.join(name).join("site-packages"))?
        {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

/// Writes both configurations; returns what the stage3's own was.
pub(super) fn configure(
    job: &Job,
    resolved: &Resolved,
    root: &Rootfs,
    work: &Work,
    info: &BuilderInfo,
) -> Result<Existing> {
    let before = existing(root)?;
    match job.build.kind {
        TreeKind::Image => {
            let target = Rootfs::open(&work.part("config"))?;
            overlay_user_files(job, &target)?;
            write(&target, &config::target(job, resolved, info, &existing(&target)?)?)?;
            write(root, &config::builder(job, resolved, info, &before)?)?;
        }
        TreeKind::Stage4 => {
            // The user's own files are shipped too: they are part of what the configuration was before the build's.
            overlay_user_files(job, root)?;
            let before = existing(root)?;
            write(root, &config::builder(job, resolved, info, &before)?)?;
            return Ok(before);
        }
    }
    Ok(before)
}

/// Replaces the build's configuration by the one that a stage4 is shipped with.
pub(super) fn ship(job: &Job, resolved: &Resolved, root: &Rootfs, before: &Existing) -> Result<()> {
    write(root, &config::shipped(job, resolved, before)?)
}

/// Gives the builder tree the host's name servers. A file, not a bind: the host's may be a link into a directory that the
/// tree does not have.
pub(super) fn resolver(root: &Rootfs) -> Result<()> {
    let text = match fs_err::read("/etc/resolv.conf") {
        Ok(text) if text.len() as u64 <= MAX_FILE => text,
        _ => Vec::new(),
    };
    root.write(Path::new("etc/resolv.conf"), &text, 0o644)
}

/// Points the builder's profile link somewhere else.
pub(super) fn set_profile(root: &Rootfs, target: &Path) -> Result<()> {
    root.symlink(target, Path::new("etc/portage/make.profile"))
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

/// Lays the recipe's `portage.config` directory over `etc/portage`.
fn overlay_user_files(job: &Job, root: &Rootfs) -> Result<()> {
    let at = Path::new("etc/portage");
    root.create_dir_all(at, 0o755)?;
    match &job.portage.config {
        Some(directory) => copy(directory, root, at),
        None => Ok(()),
    }
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
            return Err(Error::usage(format!("{} is neither a file nor a directory nor a link", source.display())));
        }
    }
    Ok(())
}
