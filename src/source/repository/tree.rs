//! Rules for the tree of a fetched ebuild repository: one top directory, which holds only directories, files and symlinks that stay
//! inside. The tree is also read outside the sandbox, where a symlink out of it would lead to the host's files.

use crate::base::text::printable;
use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;

use crate::archive::unpack::Limits;
use crate::archive::unpack::entry::{Entry, NodeKind};
use crate::archive::unpack::limits::MemoryBudget;
use crate::base::error::{Error, Result};
use crate::fs::rootfs::Rootfs;

/// Checks every entry of a repository's archive before it is created.
#[derive(Debug)]
pub struct Admission {
    name: String,
    links: HashSet<PathBuf>,
    kept: MemoryBudget,
}

impl Admission {
    /// Starts with the archive of that name.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), links: HashSet::new(), kept: MemoryBudget::new(&Limits::default()) }
    }

    /// Refuses an entry that does not belong in a repository.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::base::error::Kind::Refused), naming the entry.
    pub fn admit(&mut self, entry: &Entry) -> Result<bool> {
        let refused = |why: &str| {
            let path = printable(&entry.path.to_string_lossy());
            Err(Error::refused(format!("unpacking {}: {path} {why}", printable(&self.name))))
        };
        if entry.path.ancestors().skip(1).any(|above| self.links.contains(above)) {
            return refused("lies below a symbolic link");
        }
        match &entry.kind {
            NodeKind::Dir => {}
            NodeKind::File if entry.meta.mode & 0o6000 != 0 => return refused("is a setuid or setgid file"),
            NodeKind::File | NodeKind::Hardlink(_) => {}
            NodeKind::Symlink(target) => {
                if !stays_inside(&entry.path, Path::new(std::ffi::OsStr::from_bytes(target))) {
                    return refused("is a symbolic link out of the repository");
                }
                if let Err(reason) = self.kept.add(64 + entry.path.as_os_str().len(), "the links") {
                    return refused(&format!("exceeds a limit: {}", reason.text));
                }
                self.links.insert(entry.path.clone());
            }
            NodeKind::Char(..) | NodeKind::Block(..) | NodeKind::Fifo => {
                return refused("is a device or a named pipe");
            }
        }
        Ok(true)
    }
}

/// Returns true if a symlink stays in its top directory. It must be relative, with `..` only at the start and not more of them than
/// there are directories above it.
fn stays_inside(link: &Path, target: &Path) -> bool {
    // The symlink's own name and the top directory do not count.
    let Some(mut depth) = link.components().count().checked_sub(2) else { return false };
    let mut down = false;
    for component in target.components() {
        match component {
            Component::ParentDir if down || depth == 0 => return false,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => down = true,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// Returns the top directory of an unpacked repository, which must be called `wanted` if that is given.
///
/// # Errors
/// [`Kind::Refused`](crate::base::error::Kind::Refused) when there is another number of them, or it is not a repository.
pub fn top(root: &Rootfs, name: &str, wanted: Option<&str>) -> Result<String> {
    let refused = |why: String| Err(Error::refused(format!("{}: {why}", printable(name))));
    let entries = root.read_dir(Path::new(""))?;
    let [(top, FileType::Directory)] = entries.as_slice() else {
        return refused(format!(
            "a repository has one directory at its top, and this one has {} entries",
            entries.len()
        ));
    };
    let Some(top) = top.to_str() else { return refused("the name of its top directory is not UTF-8".to_owned()) };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != top) {
        return refused(format!("it holds {}, not {wanted}", printable(top)));
    }
    let file = Path::new(top).join("profiles/repo_name");
    match root.stat(&file)? {
        Some(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => Ok(top.to_owned()),
        _ => refused("it is not an ebuild repository: it has no file profiles/repo_name".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::unpack::entry::Meta;

    fn entry(path: &str, kind: NodeKind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            meta: Meta { mode: 0o644, ..Meta::default() },
            size: 0,
            stored: 0,
            sparse: None,
            offset: 0,
            dropped: std::collections::BTreeSet::new(),
        }
    }

    #[test]
    fn links_stay_inside_the_repository() {
        let stays = |link: &str, target: &str| stays_inside(Path::new(link), Path::new(target));
        for good in ["x", "./x/y", "../x", "../../licenses/MIT", "..", "../.."] {
            assert!(stays("top/a/b/link", good), "{good}");
        }
        for bad in ["/etc/shadow", "../../../x", "x/../y", "../x/../..", "/"] {
            assert!(!stays("top/a/b/link", bad), "{bad}");
        }
        assert!(!stays("top/link", "../x") && !stays("link", "x"));
    }

    #[test]
    fn only_files_directories_and_links_are_admitted() {
        let mut admission = Admission::new("x.tar");
        let link = |target: &str| NodeKind::Symlink(target.into());
        assert!(admission.admit(&entry("top/a", NodeKind::Dir)).unwrap());
        assert!(admission.admit(&entry("top/a/f", NodeKind::File)).unwrap());
        assert!(admission.admit(&entry("top/l", link("a"))).unwrap());
        for (path, kind) in [
            ("top/l/f", NodeKind::File),
            ("top/m", link("../../etc")),
            ("top/p", NodeKind::Fifo),
            ("top/c", NodeKind::Char(1, 3)),
            ("top/b", NodeKind::Block(1, 3)),
        ] {
            let error = admission.admit(&entry(path, kind)).unwrap_err();
            assert!(error.kind() == crate::base::error::Kind::Refused && error.to_string().contains(path), "{error}");
        }
        let mut setuid = entry("top/s", NodeKind::File);
        setuid.meta.mode = 0o4755;
        assert!(admission.admit(&setuid).is_err());
    }

    #[test]
    fn a_repository_has_one_top_directory_and_a_name() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Rootfs::open(scratch.path()).unwrap();
        assert!(top(&root, "x", None).is_err());
        fs_err::create_dir_all(scratch.path().join("gentoo-20261121/profiles")).unwrap();
        assert!(top(&root, "x", None).unwrap_err().to_string().contains("profiles/repo_name"));
        fs_err::write(scratch.path().join("gentoo-20261121/profiles/repo_name"), "gentoo\n").unwrap();
        assert_eq!(top(&root, "x", None).unwrap(), "gentoo-20261121");
        assert_eq!(top(&root, "x", Some("gentoo-20261121")).unwrap(), "gentoo-20261121");
        let other = top(&root, "x", Some("gentoo-20261120")).unwrap_err();
        assert!(other.to_string().contains("it holds gentoo-20261121, not gentoo-20261120"), "{other}");
        fs_err::write(scratch.path().join("more"), "").unwrap();
        assert!(top(&root, "x", None).unwrap_err().to_string().contains("2 entries"));
        assert_eq!(crate::base::error::Kind::Refused, top(&root, "x", None).unwrap_err().kind());
    }
}
