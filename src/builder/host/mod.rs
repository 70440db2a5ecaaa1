//! The running system as what a build starts from: directories of a Gentoo host, each seen through an overlay with what hides
//! parts of it, in a tree that is otherwise empty. Nothing of the host is written to; what no rule speaks of is not in the tree
//! at all.

mod mask;
mod mounts;
mod rules;
mod table;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mask::Cover;
use rules::{Rules, Sight};

use super::layers::Layer;
use crate::base::error::{Context, Error, Result};
use crate::enter;
use crate::fs::rootfs::Rootfs;
use crate::os::userns;

/// What a build from a host needs, and what must not be missing for it to be called one.
const GENTOO: [&str; 2] = ["/usr/bin/emerge", "/var/db/pkg"];

/// Where a system says what it is called.
const OS_RELEASE: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];

/// The longest `os-release`, in bytes.
const MAX_OS_RELEASE: u64 = 64 << 10;

/// A Gentoo host, as much of it as a recipe lets be seen.
#[derive(Debug)]
pub struct Host {
    rules: Rules,
    name: String,
}

impl Host {
    /// This machine, if it is one that can be built from.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) when it has no Portage, or lacks what is to be shown;
    /// [`Kind::System`](crate::base::error::Kind::System) when its files are not root's here.
    pub fn new(hide: &[PathBuf], show: &[PathBuf]) -> Result<Self> {
        check()?;
        let owner = fs_err::metadata("/usr").system(|| "looking at this host")?.uid();
        if owner != 0 || !userns::is_root() {
            let hint = "run as root, or name a stage3 in [source]: an ordinary user can build from that";
            return Err(Error::system("only root of this host can build from it: to others its files are nobody's")
                .with_hint(hint));
        }
        let mut rules = Rules::new(hide, show);
        if let Some(missing) = rules.wanted().find(|path| !path.exists()) {
            return Err(Error::usage(format!("source.show: this host has no {}", missing.display())));
        }
        rules.resolve(|path| fs_err::canonicalize(path).ok());
        let root = Rootfs::open(Path::new("/"))?;
        let read = |path: &&str| root.read(Path::new(path), MAX_OS_RELEASE).ok().flatten();
        let name = OS_RELEASE.iter().find_map(read).map(|text| name(&String::from_utf8_lossy(&text)));
        Ok(Self { rules, name: name.unwrap_or_else(|| "Gentoo".to_owned()) })
    }

    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is made of. Masks and an empty tree to mount in are made below `directory`, which lies in the store.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) when the store lies in what is seen, [`Kind::System`](crate::base::error::Kind::System)
    /// when something cannot be read or made.
    pub fn layers(&self, directory: &Path) -> Result<Vec<Layer>> {
        let (tree, masks) = (directory.join("host/tree"), directory.join("host/masks"));
        let own = Rootfs::open(directory)?;
        ["host/tree", "host/masks"].iter().try_for_each(|path| own.create_dir_all(Path::new(path), 0o755))?;
        let skeleton = Rootfs::open(&tree)?;
        table::SKELETON.iter().try_for_each(|(path, mode)| skeleton.create_dir_all(Path::new(path), *mode))?;
        table::LINKS.iter().try_for_each(|(path, target)| skeleton.symlink(Path::new(target), Path::new(path)))?;

        let mounted = mounts::parse(&fs_err::read("/proc/self/mountinfo").system(|| "looking at this host's mounts")?);
        let store = fs_err::canonicalize(directory).system(|| "finding the store")?;
        let mut layers = vec![Layer::root(tree)];
        for root in self.rules.roots() {
            let Ok(real) = fs_err::canonicalize(&root) else { continue };
            let inside = |other: &PathBuf| *other != root && real.starts_with(other);
            if real != root && self.rules.roots().iter().any(inside) {
                let target = fs_err::read_link(&root).unwrap_or(real);
                skeleton.symlink(&target, &root)?;
            } else if real.is_dir() {
                if store.starts_with(&real) || real.starts_with(&store) {
                    return Err(Error::usage(format!(
                        "the store and {}, which the build sees, lie in each other",
                        root.display()
                    ))
                    .with_hint("QUERN_HOME moves the store; source.hide hides that directory from the build"));
                }
                skeleton.create_dir_all(&root, 0o755)?;
                self.add(&root, &real, &mounted, &masks, &mut layers)?;
            } else if real.is_file() {
                copy(&real, &skeleton, &root)?;
            }
        }
        Ok(layers)
    }

    /// Adds the layers of the host's directory `real`, which is seen as `root`: its own and those of what is mounted in it.
    fn add(
        &self,
        root: &Path,
        real: &Path,
        mounted: &BTreeMap<PathBuf, String>,
        masks: &Path,
        layers: &mut Vec<Layer>,
    ) -> Result<()> {
        let mut rules = self.rules.clone();
        let mut places = vec![(root.to_owned(), real)];
        for (path, kind) in mounted.iter().filter(|(path, _)| *path != real && path.is_dir()) {
            let Ok(inside) = path.strip_prefix(real) else { continue };
            let at = root.join(inside);
            if !table::is_local(kind) {
                rules.hide(&at, "a file system of the kernel's own or of another machine");
            }
            places.push((at, path));
        }
        let mut covered: Vec<PathBuf> = Vec::new();
        for (at, path) in places {
            let hidden = rules.sight(&at) == Sight::Hidden && !rules.show_below(&at);
            if hidden || covered.iter().any(|covered| at.starts_with(covered)) || is_private_mount(&rules, &at, path)? {
                continue;
            }
            let lower = Rootfs::of(enter::overlay::look(path)?, path);
            let covers = mask::plan(&lower, &at, &rules)?;
            let mut lowers = vec![path.to_owned()];
            if !covers.is_empty() {
                let mask = masks.join(layers.len().to_string());
                fs_err::create_dir(&mask).system(|| "making a mask")?;
                mask::make(&lower, &covers, &Rootfs::open(&mask)?)?;
                lowers.insert(0, mask);
            }
            covered.extend(covers.iter().filter(|(_, cover)| *cover == Cover::Empty).map(|(path, _)| at.join(path)));
            layers.push(Layer::new(at, lowers));
        }
        Ok(())
    }
}

/// Whether what is mounted at `path` is for its owner only, in a place where that counts. Its mount point, which is what a mask is
/// made for, may say otherwise.
fn is_private_mount(rules: &Rules, at: &Path, path: &Path) -> Result<bool> {
    let mode = fs_err::metadata(path).system(|| "looking at this host's mounts")?.mode();
    Ok(rules.sight(at) == Sight::Guarded && table::is_guarded(at) && mode & 0o005 != 0o005)
}

/// Whether this machine is a Gentoo at all.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) when it has no Portage.
pub fn check() -> Result<()> {
    match GENTOO.iter().find(|path| !Path::new(path).exists()) {
        None => Ok(()),
        Some(missing) => Err(Error::usage(format!("this machine is no Gentoo: it has no {missing}")).with_hint(
            "build from a stage3 instead: in [source] write stage3 = \"amd64-musl\" in place of host = true",
        )),
    }
}

/// What of a host is seen and what is not, for a dry run.
pub fn describe(hide: &[PathBuf], show: &[PathBuf]) -> Vec<String> {
    let rules = Rules::new(hide, show);
    let mut lines: Vec<String> = rules.iter().map(ToString::to_string).collect();
    lines.push("hide what other users of the host may not read (in /etc and /opt)".to_owned());
    lines.push("hide everything else".to_owned());
    lines
}

/// A file of the host that lies in no directory that is seen.
fn copy(from: &Path, skeleton: &Rootfs, to: &Path) -> Result<()> {
    let doing = || format!("showing {}", to.display());
    let mode = fs_err::metadata(from).system(doing)?.mode();
    skeleton.write(to, &fs_err::read(from).system(doing)?, mode)
}

/// The name of a system in the text of its `os-release`.
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
    fn a_system_has_a_name() {
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
        let error = Host::new(&[], &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains("no Gentoo") && error.hint().unwrap().contains("stage3"));
    }

    #[test]
    fn a_description_has_reasons() {
        let lines = describe(&["/etc/x".into()], &[]);
        assert!(lines.contains(&"hide /etc/ssh (keys of this machine)".to_owned()));
        assert!(lines.contains(&"hide /etc/x (the recipe's source.hide)".to_owned()));
    }
}
