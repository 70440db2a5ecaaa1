//! What an image does not carry: rules from the recipe and rules for every image ([`rules`], pure), applied through
//! [`Rootfs`] ([`apply`]).

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::fs::rootfs::Rootfs;
use crate::recipe::{Job, TreeKind};

/// Where documentation lies; the directories themselves stay, for packages own them.
const DOCUMENTATION: [&str; 4] = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/gtk-doc/*"];

/// What belongs to the making of an image or to one machine, never to the image.
const ALWAYS: [(&str, &str); 18] = [
    ("/var/tmp/*", "temporary files"),
    ("/tmp/*", "temporary files"),
    ("/run/*", "state of a running system"),
    ("/etc/machine-id", "identity of one machine"),
    ("/.dockerenv", "mark of a container"),
    ("/root/.bash_history", "history of the builder"),
    ("/var/log/emerge.log", "log of the build"),
    ("/var/log/portage/*", "logs of the build"),
    ("/var/cache/edb/dep/*", "Portage's metadata cache"),
    ("/var/cache/edb/mtimedb", "Portage's notes of when the build's directories changed"),
    ("/var/cache/binpkgs/*", "the shared cache"),
    ("/var/cache/binpkgs-builder", "the shared cache"),
    ("/var/cache/binhost/*", "the shared cache"),
    ("/var/cache/distfiles/*", "the shared cache"),
    ("/var/cache/ldconfig", "a cache that depends on inode numbers"),
    ("/quern", "the builder's own directory"),
    ("/etc/resolv.conf", "name servers of the builder"),
    ("/etc/*-", "backups of account files"),
];

/// One thing to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Absolute path in the image; its last component may be a glob (`*`, `?`, `[a-z]`, `[!a-z]`), which takes hidden names too.
    pub path: String,
    /// Why.
    pub why: &'static str,
    /// Whether the recipe names it: then it is missed when it is not there, and links above it are followed.
    pub wanted: bool,
    /// What of the names that match is removed.
    pub scope: Scope,
}

/// What of the names that match a [`Rule`] is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Anything, a directory with all that is in it.
    Anything,
    /// Regular files only.
    Files,
    /// Regular files, in the directories below as well.
    FilesBelow,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path, self.why)
    }
}

/// What [`apply`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stripped {
    /// Names removed; a directory counts as one.
    pub removed: u64,
    /// Paths of the recipe that were not there.
    pub missing: Vec<String>,
}

/// The rules for an image: the recipe's first, so that none of them is missed because of another.
pub fn rules(job: &Job) -> Vec<Rule> {
    let rule = |path: &str, why, scope| Rule { path: path.to_owned(), why, wanted: false, scope };
    let wanted = job.strip.paths.iter().map(|path| Rule {
        path: path.clone(),
        why: "the recipe's strip.paths",
        wanted: true,
        scope: Scope::Anything,
    });
    let mut rules: Vec<_> = wanted.collect();
    if job.strip.doc {
        rules.extend(DOCUMENTATION.map(|path| rule(path, "the recipe's strip.doc", Scope::Anything)));
    }
    rules.extend(ALWAYS.map(|(path, why)| {
        // A link or a directory of such a name is some package's idea, not a leftover.
        let file = matches!(path, "/etc/resolv.conf" | "/etc/*-");
        rule(path, why, if file { Scope::Files } else { Scope::Anything })
    }));
    rules.push(rule("/etc/._cfg????_*", "configuration updates that nobody will merge", Scope::FilesBelow));
    if job.build.kind == TreeKind::Stage4 {
        rules.push(rule("/var/db/repos/*", "where the builder mounts repositories", Scope::Anything));
    }
    rules
}

/// Removes what the rules name.
pub fn apply(tree: &Rootfs, rules: &[Rule], ui: &dyn Progress) -> Result<Stripped> {
    let mut stripped = Stripped::default();
    for rule in rules {
        let removed = apply_one(tree, rule)?;
        stripped.removed += removed;
        if removed == 0 && rule.wanted {
            ui.warn(&format!("strip.paths: the image has no {}", rule.path));
            stripped.missing.push(rule.path.clone());
        }
    }
    Ok(stripped)
}

fn apply_one(tree: &Rootfs, rule: &Rule) -> Result<u64> {
    let path = Path::new(&rule.path);
    let (Some(parent), Some(pattern)) = (path.parent(), path.file_name()) else {
        return Err(Error::usage(format!("strip.paths: `{}` names no file in the image", rule.path))
            .with_hint("give absolute paths of what is to be removed, such as /usr/share/locale"));
    };
    let kind = match tree.stat(parent)? {
        Some(stat) => FileType::from_raw_mode(stat.st_mode),
        None => return Ok(0),
    };
    // Behind a link may be what the rule never meant, for instance where /tmp is one.
    if kind != FileType::Directory && !(rule.wanted && kind == FileType::Symlink) {
        return Ok(0);
    }
    remove_matching(tree, parent, pattern, rule.scope)
}

fn remove_matching(tree: &Rootfs, parent: &Path, pattern: &OsStr, scope: Scope) -> Result<u64> {
    if scope == Scope::Anything && !pattern.as_bytes().iter().any(|byte| b"*?[".contains(byte)) {
        return tree.remove(&parent.join(pattern)).map(u64::from);
    }
    let mut removed = 0;
    let mut pending = vec![parent.to_owned()];
    while let Some(directory) = pending.pop() {
        let (below, here) = matching(tree, &directory, pattern, scope)?;
        for path in here {
            removed += u64::from(tree.remove(&path)?);
        }
        pending.extend(below);
    }
    Ok(removed)
}

/// Directories to go on with, and paths to remove.
fn matching(tree: &Rootfs, directory: &Path, pattern: &OsStr, scope: Scope) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let mut below = Vec::new();
    let mut here = Vec::new();
    for (name, kind) in tree.read_dir(directory)? {
        let path = directory.join(&name);
        if scope == Scope::FilesBelow && kind == FileType::Directory {
            below.push(path);
        } else if (scope == Scope::Anything || kind == FileType::RegularFile)
            && glob(pattern.as_bytes(), name.as_bytes())
        {
            here.push(path);
        }
    }
    Ok((below, here))
}

/// Whether a name of one component matches a shell pattern.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    // Where to go on when what follows the last `*` does not fit: one byte further in the name.
    let mut retry: Option<(usize, usize)> = None;
    let (mut at, mut byte) = (0, 0);
    loop {
        if at == pattern.len() && byte == name.len() {
            return true;
        }
        if pattern.get(at) == Some(&b'*') {
            retry = Some((at, byte));
            at += 1;
            continue;
        }
        if let Some(width) = name.get(byte).and_then(|&found| matches_one(&pattern[at..], found)) {
            at += width;
            byte += 1;
            continue;
        }
        match retry {
            Some((star, from)) if from < name.len() => {
                retry = Some((star, from + 1));
                (at, byte) = (star + 1, from + 1);
            }
            _ => return false,
        }
    }
}

/// Length of the pattern's first element if it matches `found`.
fn matches_one(pattern: &[u8], found: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', set @ ..] => {
            let negated = matches!(set.first(), Some(b'!' | b'^'));
            let start = usize::from(negated);
            // A `]` that comes first is a member. A set without an end is a plain bracket.
            let Some(end) = set.iter().skip(start + 1).position(|&byte| byte == b']').map(|end| end + start + 1) else {
                return (found == b'[').then_some(1);
            };
            (in_set(&set[start..end], found) != negated).then_some(end + 2)
        }
        [plain, ..] => (*plain == found).then_some(1),
    }
}

fn in_set(mut set: &[u8], found: u8) -> bool {
    loop {
        set = match set {
            [] => return false,
            [low, b'-', high, ..] if (*low..=*high).contains(&found) => return true,
            [_, b'-', _, rest @ ..] => rest,
            [member, ..] if *member == found => return true,
            [_, rest @ ..] => rest,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;
    use crate::base::progress::Silent;
    use crate::output::tests::job;

    fn tree(files: &[&str]) -> (tempfile::TempDir, Rootfs) {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "x").unwrap();
        }
        let rootfs = Rootfs::open(root.path()).unwrap();
        (root, rootfs)
    }

    fn listing(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut pending = vec![root.to_owned()];
        while let Some(directory) = pending.pop() {
            for entry in fs_err::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    pending.push(entry.path());
                } else {
                    found.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn an_image_loses_what_it_should_and_nothing_else() {
        let keep = [
            "etc/conf-d/x",
            "etc/passwd",
            "usr/bin/python3",
            "usr/lib/python3.11/os.py",
            "usr/share/doc-base",
            "var/db/x",
        ];
        let lose = [
            ".dockerenv",
            "etc/._cfg0000_make.conf",
            "etc/env.d/._cfg0001_00x",
            "etc/machine-id",
            "etc/passwd-",
            "etc/resolv.conf",
            "quern/config/etc/portage/make.conf",
            "tmp/.hidden",
            "usr/lib/python3.11/test/a.py",
            "usr/share/doc/x/README",
            "usr/share/man/man1/x.1",
            "var/cache/binpkgs-builder/Packages",
            "var/cache/edb/mtimedb",
            "var/cache/ldconfig/aux-cache",
            "var/db/pkg/a/b/CONTENTS",
            "var/db/repos/gentoo/x",
            "var/log/portage/x.log",
            "var/tmp/portage/x",
        ];
        let (root, rootfs) = tree(&[&keep[..], &lose[..]].concat());
        let mut job = job(Path::new("/out"));
        job.build.kind = TreeKind::Stage4;
        job.strip.paths = ["/var/db/pkg", "/usr/lib/python3.*/test", "/usr/lib/*/test", "/no/such", "/etc/no*"]
            .map(str::to_owned)
            .into();
        job.strip.paths[1] = "/usr/lib/python3.11/test/".to_owned();
        let stripped = apply(&rootfs, &rules(&job), &Silent).unwrap();
        assert_eq!(listing(root.path()), keep);
        assert_eq!(stripped.missing, ["/usr/lib/*/test", "/no/such", "/etc/no*"]);
        for directory in ["tmp", "usr/share/doc", "var/log/portage", "var/db/repos"] {
            assert!(root.path().join(directory).is_dir(), "{directory} stays");
        }
        // A second time there is nothing left to do.
        job.strip.paths.clear();
        assert_eq!(apply(&rootfs, &rules(&job), &Silent).unwrap(), Stripped::default());
    }

    #[test]
    fn documentation_stays_unless_the_recipe_says_otherwise_and_repositories_in_an_image() {
        let files = ["usr/share/doc/x/README", "var/db/repos/mine/x"];
        let (root, rootfs) = tree(&files);
        let mut job = job(Path::new("/out"));
        job.strip.doc = false;
        apply(&rootfs, &rules(&job), &Silent).unwrap();
        assert_eq!(listing(root.path()), files);
    }

    #[test]
    fn links_are_removed_not_followed() {
        let (root, rootfs) = tree(&["usr/keep", "usr/doc/x", "var/x"]);
        let outside = tempfile::tempdir().unwrap();
        fs_err::write(outside.path().join("precious"), "x").unwrap();
        symlink("usr", root.path().join("tmp")).unwrap();
        symlink("../run/resolv.conf", root.path().join("etc-resolv")).unwrap();
        fs_err::create_dir(root.path().join("etc")).unwrap();
        symlink("../run/systemd/resolve/stub-resolv.conf", root.path().join("etc/resolv.conf")).unwrap();
        symlink(outside.path(), root.path().join("var/tmp")).unwrap();
        symlink(outside.path(), root.path().join("usr/out")).unwrap();
        symlink("usr", root.path().join("u")).unwrap();
        let mut job = job(Path::new("/out"));
        job.strip.paths = ["/usr/out", "/u/doc"].map(str::to_owned).into();
        let stripped = apply(&rootfs, &rules(&job), &Silent).unwrap();
        assert!(outside.path().join("precious").exists());
        assert_eq!(listing(root.path()), ["etc-resolv", "etc/resolv.conf", "tmp", "u", "usr/keep", "var/tmp", "var/x"]);
        assert_eq!(stripped, Stripped { removed: 2, missing: Vec::new() });
    }

    #[test]
    fn the_root_itself_cannot_be_stripped() {
        let (_root, rootfs) = tree(&["x"]);
        let mut job = job(Path::new("/out"));
        job.strip.paths = vec!["/".to_owned()];
        assert_eq!(apply(&rootfs, &rules(&job), &Silent).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn globs() {
        let cases = [
            ("*", "", true),
            ("*-", "passwd-", true),
            ("*-", "passwd-x", false),
            ("._cfg????_*", "._cfg0000_a", true),
            ("._cfg????_*", "._cfg000_a", false),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[x", "[x", true),
            ("[x", "x", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn globs_agree_with_a_plain_recursion(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            fn plain(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern, name) {
                    ([], []) => true,
                    ([b'*', rest @ ..], _) => plain(rest, name) || (!name.is_empty() && plain(pattern, &name[1..])),
                    ([b'?', rest @ ..], [_, left @ ..]) => plain(rest, left),
                    ([wanted, rest @ ..], [found, left @ ..]) => wanted == found && plain(rest, left),
                    _ => false,
                }
            }
            prop_assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), plain(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
