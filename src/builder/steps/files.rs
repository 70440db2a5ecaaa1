//! Files that a step copies, writes or deletes, without a command: they work in a tree without a shell.

use std::path::Path;

use super::identity;
use crate::base::digest::Sha256;
use crate::base::error::{Context, Result};
use crate::base::progress::Progress;
use crate::fs::contents::{self, Entry, Kind};
use crate::fs::rootfs::Rootfs;
use crate::recipe::{CopySpec, WriteSpec};
use crate::strip::{self, Rule, Scope, glob};

/// Copies files of the host into the tree `root`.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if they cannot be read,
/// [`Kind::System`](crate::base::error::Kind::System) if the tree cannot be written.
pub(super) fn copy(root: &Rootfs, spec: &CopySpec) -> Result<()> {
    let (uid, gid) = owner(spec.owner.as_deref(), root)?;
    let from = fs_err::canonicalize(&spec.from).system(|| "copying files")?;
    for Entry { path, mode, kind } in contents::list(&from, &|path| left_out(path, &spec.exclude))? {
        let to = if path.as_os_str().is_empty() { spec.to.clone() } else { spec.to.join(&path) };
        match kind {
            Kind::Directory => {
                if root.stat(&to)?.is_none() {
                    root.create_dir_all(to.parent().unwrap_or(&to), 0o755)?;
                    root.create_dir(&to, mode)?;
                    root.own(&to, (uid, gid), Some(mode))?;
                }
            }
            Kind::Symlink(target) => {
                root.symlink(&target, &to)?;
                root.own(&to, (uid, gid), None)?;
            }
            Kind::File(_) => {
                let source = if path.as_os_str().is_empty() { from.clone() } else { from.join(&path) };
                let mode = spec.mode.unwrap_or(mode);
                let mut file = fs_err::File::open(&source).system(|| "copying a file")?;
                root.write_from(&to, &mut file, mode)?;
                root.own(&to, (uid, gid), Some(mode))?;
            }
        }
    }
    Ok(())
}

/// Writes a text file into the tree `root`.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if the tree cannot be written.
pub(super) fn write(root: &Rootfs, spec: &WriteSpec) -> Result<()> {
    let mode = spec.mode.unwrap_or(0o644);
    let owner = owner(spec.owner.as_deref(), root)?;
    root.write(&spec.to, spec.text.as_bytes(), mode)?;
    root.own(&spec.to, owner, Some(mode))
}

/// Removes paths of the tree `root`, whose last component may be a glob. Warns of those that do not exist.
///
/// # Errors
/// Those of [`strip::apply`].
pub(super) fn delete(root: &Rootfs, paths: &[String], ui: &dyn Progress) -> Result<()> {
    let rule = |path: &String| Rule { path: path.clone(), why: "a step", key: Some("delete"), scope: Scope::Anything };
    strip::apply(root, &paths.iter().map(rule).collect::<Vec<_>>(), ui)
}

/// Describes a copy and the content of its files, for the key of a step.
///
/// # Errors
/// Those of [`contents::digest`].
pub(super) fn copied(copy: &CopySpec) -> Result<String> {
    let content = contents::digest(&copy.from, &|path: &Path| left_out(path, &copy.exclude))?;
    Ok(format!("{} {:?} {:?} {}", copy.to.display(), copy.mode, copy.owner, content.hex()))
}

/// Describes a text file, for the key of a step.
pub(super) fn written(text: &WriteSpec) -> String {
    let content = Sha256::of(text.text.as_bytes()).hex();
    format!("{} {:?} {:?} {content}", text.to.display(), text.mode, text.owner)
}

fn owner(spec: Option<&str>, root: &Rootfs) -> Result<(u32, u32)> {
    spec.map_or(Ok((0, 0)), |spec| identity::owner(spec, root))
}

/// Returns true if a pattern of `exclude` matches a path: one with a slash the whole path, one without the name.
fn left_out(path: &Path, exclude: &[String]) -> bool {
    let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
    let name = path.file_name().map(|name| name.as_encoded_bytes().to_vec()).unwrap_or_default();
    exclude.iter().any(|pattern| match pattern.rsplit_once('/') {
        Some((parent, last)) => {
            let above = path.parent().map(bytes).unwrap_or_default();
            above == parent.trim_start_matches('/').as_bytes() && glob::matches(last.as_bytes(), &name)
        }
        None => glob::matches(pattern.as_bytes(), &name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_leave_out_names_and_paths() {
        let out = |path: &str, pattern: &str| left_out(Path::new(path), &[pattern.to_owned()]);
        assert!(out("a/b.o", "*.o") && out(".git", ".git") && out("a/.git", ".git"));
        assert!(out("a/b.o", "a/*.o") && out("a/b.o", "/a/*.o"));
        assert!(!out("c/a/b.o", "a/*.o") && !out("a/b.c", "*.o"));
    }
}
