//! The running system as the base of a build: directories of a Gentoo host in an otherwise empty tree, each seen through an overlay
//! whose upper layers hide parts of it. Nothing is written to the host. A path that no rule mentions is not in the tree.

mod mask;
mod mounts;
mod rules;
mod table;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mask::Cover;
use rules::{Rules, Visibility};

use super::overlays::OverlayMount;
use crate::base::error::{Context, Error, Result};
use crate::enter;
use crate::fs::rootfs::Rootfs;
use crate::os::userns;
use crate::portage::BuilderInfo;
use crate::store::trees::remove_tree;
use crate::store::work::WorkPaths;

/// Paths that every Gentoo system has.
const GENTOO: [&str; 2] = ["/usr/bin/emerge", "/var/db/pkg"];

/// Files with the name of a system.
const OS_RELEASE: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];

/// Limit on the size of `os-release`, in bytes.
const MAX_OS_RELEASE: u64 = 64 << 10;

/// A Gentoo host and the rules for what a build sees of it.
#[derive(Debug)]
pub struct Host {
    rules: Rules,
    name: String,
}

impl Host {
    /// This machine, with the recipe's paths to hide and to show.
    ///
    /// # Errors
    /// Those of [`check`].
    pub fn new(hide: &[PathBuf], show: &[PathBuf]) -> Result<Self> {
        check(show)?;
        let rules = resolved(hide, show);
        let root = Rootfs::open(Path::new("/"))?;
        let read = |path: &&str| root.read(Path::new(path), MAX_OS_RELEASE).ok().flatten();
        let name = OS_RELEASE.iter().find_map(read).map(|text| name(&String::from_utf8_lossy(&text)));
        Ok(Self { rules, name: name.unwrap_or_else(|| "Gentoo".to_owned()) })
    }

    /// The name in its `os-release`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Looks up the facts about it that a build depends on, as [`info`] does.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if it cannot be read.
    pub fn info(&self, cpus: u32) -> Result<BuilderInfo> {
        info_by(&self.rules, cpus)
    }

    /// Returns the overlays that show it. Makes masks and a tree of mount points in `paths`, which lie in the store.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if the store lies in a directory that the build sees,
    /// [`Kind::System`](crate::base::error::Kind::System) if something cannot be read or made.
    pub fn overlays(&self, paths: &WorkPaths) -> Result<Vec<OverlayMount>> {
        let (tree, masks) = (paths.host().join("tree"), paths.host().join("masks"));
        // Those of an earlier step are not mounted any more.
        remove_tree(&paths.host())?;
        let own = Rootfs::open(paths.directory())?;
        ["host/tree", "host/masks"].iter().try_for_each(|path| own.create_dir_all(Path::new(path), 0o755))?;
        let skeleton = Rootfs::open(&tree)?;
        table::SKELETON.iter().try_for_each(|(path, mode)| skeleton.create_dir_all(Path::new(path), *mode))?;
        table::LINKS.iter().try_for_each(|(path, target)| skeleton.symlink(Path::new(target), Path::new(path)))?;

        let mounted = mounts::parse(&fs_err::read("/proc/self/mountinfo").system(|| "listing this host's mounts")?);
        let store = fs_err::canonicalize(paths.directory()).system(|| "finding the store")?;
        let mut shown = Shown { rules: &self.rules, mounted, masks, overlays: vec![OverlayMount::root(tree)] };
        for root in self.rules.roots() {
            let Ok(real) = fs_err::canonicalize(&root) else { continue };
            let inside = |other: &PathBuf| *other != root && real.starts_with(other);
            if real != root && self.rules.roots().iter().any(inside) {
                let target = fs_err::read_link(&root).unwrap_or(real);
                skeleton.symlink(&target, &root)?;
            } else if real.is_dir() {
                if store.starts_with(&real) || real.starts_with(&store) {
                    return Err(Error::usage(format!(
                        "the build sees {}, which contains the store or lies in it",
                        root.display()
                    ))
                    .with_hint("set QUERN_HOME to another directory, or hide this one with source.hide"));
                }
                skeleton.create_dir_all(&root, 0o755)?;
                shown.add(&root, &real)?;
            } else if real.is_file() {
                copy(&real, &skeleton, &root)?;
            }
        }
        Ok(shown.overlays)
    }
}

/// The overlays so far, and what is needed to add one.
struct Shown<'a> {
    rules: &'a Rules,
    /// The type of the file system at each mount point of the host.
    mounted: BTreeMap<PathBuf, String>,
    /// Directory for masks.
    masks: PathBuf,
    overlays: Vec<OverlayMount>,
}

impl Shown<'_> {
    /// Adds the overlay of the host's directory `real`, which the tree has as `root`, and those of the file systems mounted in it.
    fn add(&mut self, root: &Path, real: &Path) -> Result<()> {
        let mut rules = self.rules.clone();
        let mut places = vec![(root.to_owned(), real.to_owned())];
        for (path, kind) in self.mounted.iter().filter(|(path, _)| *path != real && path.is_dir()) {
            let Ok(inside) = path.strip_prefix(real) else { continue };
            let at = root.join(inside);
            if !table::is_local(kind) {
                rules.hide(&at, "a virtual or remote file system");
            }
            places.push((at, path.clone()));
        }
        let mut covered: Vec<PathBuf> = Vec::new();
        for (at, path) in places {
            let hidden = rules.visibility(&at) == Visibility::Hidden && !rules.show_below(&at);
            if hidden || covered.iter().any(|covered| at.starts_with(covered)) || is_private_mount(&rules, &at, &path)?
            {
                continue;
            }
            let lower = Rootfs::of(enter::overlay::look(&path)?, &path);
            let covers = mask::plan(&lower, &at, &rules)?;
            let mut lowers = vec![path];
            if !covers.is_empty() {
                let mask = self.masks.join(self.overlays.len().to_string());
                fs_err::create_dir(&mask).system(|| "making a mask")?;
                mask::make(&lower, &covers, &Rootfs::open(&mask)?)?;
                lowers.insert(0, mask);
            }
            covered.extend(covers.iter().filter(|(_, cover)| *cover == Cover::Empty).map(|(path, _)| at.join(path)));
            self.overlays.push(OverlayMount::new(at, lowers));
        }
        Ok(())
    }
}

/// Returns whether only the owner may read the file system mounted at `path`, in a place where that hides it. Masks look at the
/// mode of the mount point below, which may differ.
fn is_private_mount(rules: &Rules, at: &Path, path: &Path) -> Result<bool> {
    let mode = fs_err::metadata(path).system(|| "looking at this host's mounts")?.mode();
    Ok(rules.visibility(at) == Visibility::Guarded && table::is_guarded(at) && mode & 0o005 != 0o005)
}

/// Checks that this machine can be the base of a build that sees the paths `show`.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if it has no Portage or lacks a path of `show`;
/// [`Kind::System`](crate::base::error::Kind::System) if its files do not belong to root here.
pub fn check(show: &[PathBuf]) -> Result<()> {
    check_gentoo()?;
    let owner = fs_err::metadata("/usr").system(|| "looking at this host")?.uid();
    if owner != 0 || !userns::is_root() {
        return Err(Error::system(
            "building from this host requires its root user: in the user namespace of another user its files have no owner",
        )
        .with_hint("run as root, or name a stage3 in [source], from which ordinary users can build"));
    }
    match show.iter().find(|path| !path.exists()) {
        Some(missing) => Err(Error::usage(format!("source.show: this host has no {}", missing.display()))),
        None => Ok(()),
    }
}

/// Checks that this machine runs Gentoo.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if it does not.
pub fn check_gentoo() -> Result<()> {
    match GENTOO.iter().find(|path| !Path::new(path).exists()) {
        None => Ok(()),
        Some(missing) => Err(Error::usage(format!("this host is not a Gentoo system: {missing} not found")).with_hint(
            "build from a stage3 instead: in [source] write stage3 = \"amd64-musl\" in place of host = true",
        )),
    }
}

/// Collects the facts about this machine on which a build depends. `hide` and `show` are paths of the recipe.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if it cannot be read.
pub fn info(hide: &[PathBuf], show: &[PathBuf], cpus: u32) -> Result<BuilderInfo> {
    info_by(&resolved(hide, show), cpus)
}

fn info_by(rules: &Rules, cpus: u32) -> Result<BuilderInfo> {
    let seen = |path: &Path| rules.visibility(&Path::new("/").join(path)) != Visibility::Hidden;
    super::base::info(&Rootfs::open(Path::new("/"))?, seen, cpus)
}

/// Returns the rules, extended to the targets of symlinks.
fn resolved(hide: &[PathBuf], show: &[PathBuf]) -> Rules {
    let mut rules = Rules::new(hide, show);
    rules.resolve(|path| fs_err::canonicalize(path).ok());
    rules
}

/// Describes what a build sees of a host, for a dry run.
pub fn describe(hide: &[PathBuf], show: &[PathBuf]) -> Vec<String> {
    let rules = Rules::new(hide, show);
    let mut lines: Vec<String> = rules.iter().map(ToString::to_string).collect();
    lines.push("hide files in /etc and /opt that other users of the host may not read".to_owned());
    lines.push("hide everything else".to_owned());
    lines
}

/// Copies a file of the host that lies in no directory that the build sees.
fn copy(from: &Path, skeleton: &Rootfs, to: &Path) -> Result<()> {
    let doing = || format!("showing {}", to.display());
    let mode = fs_err::metadata(from).system(doing)?.mode();
    skeleton.write(to, &fs_err::read(from).system(doing)?, mode)
}

/// Reads the name of a system in the text of its `os-release`.
fn name(os_release: &str) -> String {
    let value = |key: &str| os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let text = value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or("Gentoo");
    text.trim_matches(['"', '\'']).chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Kind;

    #[test]
    fn the_name_of_a_system_is_read() {
        assert_eq!(name("NAME=Gentoo\nPRETTY_NAME=\"Gentoo Linux\"\n"), "Gentoo Linux");
        assert_eq!(name("NAME='Funtoo'\n"), "Funtoo");
        assert_eq!(name("PRETTY_NAME=\"a\u{1b}[31m\"\n"), "a[31m");
        assert_eq!(name(""), "Gentoo");
    }

    #[test]
    fn a_machine_without_portage_is_refused() {
        if Path::new(GENTOO[0]).exists() {
            return;
        }
        let error = check(&[]).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains("not a Gentoo system") && error.hint().unwrap().contains("stage3"));
    }

    #[test]
    fn a_description_has_reasons() {
        let lines = describe(&["/etc/x".into()], &[]);
        assert!(lines.contains(&"hide /etc/ssh (keys of this machine)".to_owned()));
        assert!(lines.contains(&"hide /etc/x (the recipe's source.hide)".to_owned()));
    }
}
