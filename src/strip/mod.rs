//! Removes files that an image must not contain: by rules of the recipe and rules for every image ([`rules`], pure), applied
//! through [`Rootfs`] ([`apply`]).

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::archive::unpack::Deferred;
use crate::base::error::{Context, Error, Result};
use crate::base::progress::Progress;
use crate::fs::rootfs::Rootfs;
use crate::recipe::{Job, Strip, TreeKind};

pub(crate) mod glob;
#[cfg(test)]
mod tests;

/// Documentation. The directories themselves stay, because packages own them.
const DOCUMENTATION: [&str; 4] = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/gtk-doc/*"];

/// Leftovers of a build and files of one machine, which no image contains.
const ALWAYS: [(&str, &str); 22] = [
    ("/var/tmp/*", "temporary files"),
    ("/tmp/*", "temporary files"),
    ("/run/*", "state of a running system"),
    ("/etc/machine-id", "identity of one machine"),
    ("/.dockerenv", "marker of a container"),
    ("/root/.bash_history", "history of the builder"),
    ("/var/log/emerge.log", "log of the build"),
    ("/var/log/portage/*", "logs of the build"),
    ("/var/cache/edb/dep/*", "Portage's metadata cache"),
    ("/var/cache/edb/mtimedb", "Portage's record of the build's directories"),
    ("/var/cache/edb/binhost", "copies of the indexes of binary packages"),
    ("/var/cache/binpkgs/*", "the shared cache"),
    ("/var/cache/binpkgs-builder", "the shared cache"),
    ("/var/cache/binhost/*", "the shared cache"),
    ("/var/cache/distfiles/*", "the shared cache"),
    ("/var/cache/ldconfig", "a cache with inode numbers"),
    ("/quern", "the builder's own directory"),
    ("/etc/resolv.conf", "name servers of the builder"),
    ("/etc/*-", "backups of account files"),
    ("/etc/ssh/ssh_host_*", "keys of one machine"),
    ("/var/lib/dbus/machine-id", "identity of one machine"),
    ("/var/lib/systemd/random-seed", "random numbers of one machine"),
];

/// A rule that removes files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The absolute path in the image. Its last component may be a glob (`*`, `?`, `[a-z]`, `[!a-z]`), which also matches
    /// hidden names.
    pub path: String,
    /// The reason.
    pub why: &'static str,
    /// The key of the recipe that has the path: a missing path causes a warning, and symlinks in its parents are followed.
    pub key: Option<&'static str>,
    /// The kind of files to remove.
    pub scope: Scope,
}

/// The kind of files that a [`Rule`] removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Files of any kind, and directories with their content.
    Anything,
    /// Regular files only.
    Files,
    /// Regular files, also in directories below.
    FilesBelow,
    /// The content of a directory, which itself stays.
    Content,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path, self.why)
    }
}

/// Returns the rules for an image, `with_kits` for a builder that saw the kits of a meta-repo. The recipe's come first, so that no other
/// rule makes their paths missing.
pub fn rules(strip: &Strip, kind: TreeKind, with_kits: bool) -> Vec<Rule> {
    let rule = |path: &str, why, scope| Rule { path: path.to_owned(), why, key: None, scope };
    let of_recipe = |paths: &[String], why, key, scope| {
        let rule = |path: &String| Rule { key: Some(key), ..rule(path, why, scope) };
        paths.iter().map(rule).collect::<Vec<_>>()
    };
    let mut rules = of_recipe(&strip.paths, "the recipe's strip.paths", "strip.paths", Scope::Anything);
    rules.extend(of_recipe(&strip.empty, "the content; the recipe's strip.empty", "strip.empty", Scope::Content));
    if strip.doc {
        rules.extend(DOCUMENTATION.map(|path| rule(path, "the recipe's strip.doc", Scope::Anything)));
    }
    rules.extend(ALWAYS.map(|(path, why)| {
        // A package may install a symlink or a directory of this name; only a file is a leftover.
        let file = matches!(path, "/etc/resolv.conf" | "/etc/*-" | "/etc/ssh/ssh_host_*" | "/var/lib/dbus/machine-id");
        rule(path, why, if file { Scope::Files } else { Scope::Anything })
    }));
    rules.push(rule("/etc/._cfg????_*", "configuration updates left by Portage", Scope::FilesBelow));
    if kind == TreeKind::Stage4 {
        rules.push(rule("/var/db/repos/*", "mount points of repositories", Scope::Anything));
        if with_kits {
            // `ego sync` refuses a directory that is not a git repository.
            rules.push(rule("/var/git/meta-repo", "mount points of kits", Scope::Anything));
        }
    }
    rules
}

/// Removes the files that the rules name. Warns of paths of the recipe that do not exist.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) for a rule without a file name, and errors of the tree.
pub fn apply(tree: &Rootfs, rules: &[Rule], ui: &dyn Progress) -> Result<()> {
    for rule in rules {
        let found = apply_one(tree, rule)?;
        if let (false, Some(key)) = (found, rule.key) {
            let kind = if rule.scope == Scope::Content { "directory " } else { "" };
            ui.warn(&format!("{key}: the image has no {kind}{}", rule.path));
        }
    }
    Ok(())
}

/// Returns the rules that empty the directories of archives of their own, after these are packed.
pub fn split_rules(job: &Job) -> Vec<Rule> {
    let rule = |path: &String| Rule {
        path: path.clone(),
        why: "the content, which goes to an archive of its own",
        key: Some("split"),
        scope: Scope::Content,
    };
    job.split.values().flatten().map(rule).collect()
}

/// Removes the nodes that the kernel refused to make from `deferred`, if rules name them. `tree` is the tree after [`apply`].
///
/// # Errors
/// Errors of the tree.
pub fn forget(tree: &Rootfs, rules: &[Rule], deferred: &mut Deferred) -> Result<()> {
    if deferred.is_empty() {
        return Ok(());
    }
    for rule in rules.iter().filter(|rule| matches!(rule.scope, Scope::Anything | Scope::Content)) {
        let path = Path::new(&rule.path);
        let (directory, pattern) = match (rule.scope, path.parent(), path.file_name()) {
            (Scope::Content, ..) => (path, OsStr::new("*")),
            (_, Some(parent), Some(pattern)) => (parent, pattern),
            _ => continue,
        };
        let Ok(directory) = tree.real(directory) else { continue };
        let removed = |node: &&PathBuf| {
            let below = node.strip_prefix(&directory).ok().and_then(|below| below.iter().next());
            below.is_some_and(|name| glob::matches(pattern.as_bytes(), name.as_bytes()))
        };
        let gone: Vec<PathBuf> = deferred.nodes().keys().filter(removed).cloned().collect();
        gone.iter().for_each(|node| deferred.remove_one(node));
    }
    Ok(())
}

/// Applies a rule. Returns true if it removed something, or found the directory whose content it removes.
fn apply_one(tree: &Rootfs, rule: &Rule) -> Result<bool> {
    let path = Path::new(&rule.path);
    let (Some(parent), Some(pattern)) = (path.parent(), path.file_name()) else {
        return Err(Error::usage(format!("strip.paths: `{}` does not name a file in the image", rule.path))
            .with_hint("write absolute paths, such as /usr/share/locale"));
    };
    if rule.scope == Scope::Content {
        return remove_content(tree, path);
    }
    let kind = match tree.stat(parent)? {
        Some(stat) => FileType::from_raw_mode(stat.st_mode),
        None => return Ok(false),
    };
    // A symlink may lead to files that the rule does not mean, for example if /tmp is one.
    if kind != FileType::Directory && !(rule.key.is_some() && kind == FileType::Symlink) {
        return Ok(false);
    }
    remove_matching(tree, parent, pattern, rule.scope)
}

/// Removes everything in the directory `path`, which may be a symlink to one. Returns false if there is not such a directory.
fn remove_content(tree: &Rootfs, path: &Path) -> Result<bool> {
    let directory = match tree.real(path) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
        other => other.system(|| tree.doing("emptying", path))?,
    };
    for (name, _) in tree.read_dir(&directory)? {
        tree.remove(&directory.join(name))?;
    }
    Ok(true)
}

fn remove_matching(tree: &Rootfs, parent: &Path, pattern: &OsStr, scope: Scope) -> Result<bool> {
    if scope == Scope::Anything && !pattern.as_bytes().iter().any(|byte| b"*?[".contains(byte)) {
        return tree.remove(&parent.join(pattern));
    }
    let mut removed = false;
    let mut pending = vec![parent.to_owned()];
    while let Some(directory) = pending.pop() {
        let (below, here) = matching(tree, &directory, pattern, scope)?;
        for path in here {
            removed |= tree.remove(&path)?;
        }
        pending.extend(below);
    }
    Ok(removed)
}

/// Returns the directories to visit next and the paths to remove.
fn matching(tree: &Rootfs, directory: &Path, pattern: &OsStr, scope: Scope) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let mut below = Vec::new();
    let mut here = Vec::new();
    for (name, kind) in tree.read_dir(directory)? {
        let path = directory.join(&name);
        if scope == Scope::FilesBelow && kind == FileType::Directory {
            below.push(path);
        } else if (scope == Scope::Anything || kind == FileType::RegularFile)
            && glob::matches(pattern.as_bytes(), name.as_bytes())
        {
            here.push(path);
        }
    }
    Ok((below, here))
}
