//! Branches of a git repository on this machine: the trees of commits, read from the objects. No work tree changes, and no hook, filter
//! or attribute of the repository takes effect.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::base::error::{Context, Error, Result};
use crate::base::progress::Silent;
use crate::base::text::{escaped, nearest, quoted};
use crate::fs::rootfs::Rootfs;
use crate::fs::staging::Directory;
use crate::os::process::git::GitProgram;
use crate::os::process::helper::ask;
use crate::recipe::{BranchFailure, BranchTree, Branches};

/// The limit on the files of a branch.
const MAX_FILES: usize = 4096;
/// The limit on a file of a branch and on all lists, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// The limit on all files of a branch, in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// The number of branches that a message lists.
const SHOWN: usize = 20;

/// The branches of git repositories on this machine, and a directory for their trees.
#[derive(Debug)]
pub struct LocalBranches {
    store: PathBuf,
}

/// A git repository on this machine.
struct Repository {
    git: GitProgram,
}

/// A file or symlink in a commit.
struct Entry {
    path: PathBuf,
    mode: String,
    object: String,
}

impl LocalBranches {
    /// Keeps trees in the directory `store`, which need not exist.
    pub fn new(store: PathBuf) -> Self {
        Self { store }
    }
}

impl Branches for LocalBranches {
    fn tree(&self, directory: &Path, name: &str) -> std::result::Result<BranchTree, BranchFailure> {
        let repository = Repository::open(directory)?;
        let commit = repository.commit(name)?;
        let path = repository.tree(&commit, &self.store).map_err(BranchFailure::Tree)?;
        Ok(BranchTree { commit, path })
    }
}

impl Repository {
    /// Opens the repository in a directory: a work tree or a bare repository.
    fn open(directory: &Path) -> std::result::Result<Self, BranchFailure> {
        let inner = directory.join(".git");
        let place = if inner.exists() { inner } else { directory.to_owned() };
        if place.is_dir() && !(place.join("objects").is_dir() && place.join("HEAD").exists()) || !place.exists() {
            let help = format!("{} has no objects of git", escaped(&directory.to_string_lossy()));
            return Err(BranchFailure::Repository { why: "not a git repository".to_owned(), help });
        }
        Ok(Self { git: GitProgram::new(&place, &[]) })
    }

    /// Returns the newest commit of a branch.
    fn commit(&self, branch: &str) -> std::result::Result<String, BranchFailure> {
        let name = format!("refs/heads/{branch}^{{commit}}");
        let found = self.run(&["rev-parse", "--verify", "--quiet", "--end-of-options", &name]);
        let id = found.map(|output| String::from_utf8_lossy(&output).trim().to_owned());
        match id {
            Ok(id) if matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(id),
            _ => Err(self.unknown(branch)),
        }
    }

    /// Describes a branch that is not there.
    fn unknown(&self, branch: &str) -> BranchFailure {
        let listed = self.run(&["for-each-ref", "--format=%(refname:strip=2)", "--count=1000", "refs/heads/"]);
        let names = match listed {
            Ok(names) => String::from_utf8_lossy(&names).into_owned(),
            Err(error) => {
                let why = "git cannot read the repository".to_owned();
                return BranchFailure::Repository { why, help: error.to_string() };
            }
        };
        let names: Vec<&str> = names.lines().collect();
        let help = match nearest(branch, names.iter().copied()) {
            Some(meant) => format!("did you mean {}?", quoted(meant)),
            None if names.is_empty() => "the repository has no branch".to_owned(),
            None => format!("branches: {}", names[..names.len().min(SHOWN)].join(", ")),
        };
        BranchFailure::Missing { help }
    }

    /// Returns a directory below `store` with the tree of a commit, and makes it if it is missing.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) and [`Kind::Refused`](crate::base::error::Kind::Refused).
    fn tree(&self, commit: &str, store: &Path) -> Result<PathBuf> {
        let place = store.join(commit);
        if place.is_dir() {
            return Ok(place);
        }
        fs_err::create_dir_all(store).system(|| "making the directory for trees of branches")?;
        let above = Rootfs::open(store)?;
        let staging = Directory::create(above.fd(), store, &Silent)?;
        let made = store.join(staging.name()).join("tree");
        fs_err::create_dir(&made).system(|| "making a directory for the tree of a branch")?;
        let root = Rootfs::open(&made)?;
        let mut bytes = 0;
        for entry in self.entries(commit)? {
            bytes += self.write(&entry, &root)?;
            if bytes > MAX_BYTES {
                return Err(Error::refused(format!("the tree of the commit {commit} is larger than 64 MiB")));
            }
        }
        root.sync()?;
        match staging.undisturbed(|| fs_err::rename(&made, &place)) {
            // Another build may have been faster.
            Err(error) if !place.is_dir() => Err(error).system(|| "keeping the tree of a branch"),
            _ => Ok(place),
        }
    }

    fn entries(&self, commit: &str) -> Result<Vec<Entry>> {
        let listed = self.run(&["ls-tree", "-r", "-z", "--full-tree", commit])?;
        let mut entries = Vec::new();
        for line in listed.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            let refused = |why: &str| {
                let line = escaped(&String::from_utf8_lossy(line));
                Error::refused(format!("the commit {commit} has a file that {why}: {line}"))
            };
            let tab = line.iter().position(|byte| *byte == b'\t').ok_or_else(|| refused("git does not name"))?;
            let facts = String::from_utf8_lossy(&line[..tab]).into_owned();
            let [mode, _, object] = facts.split(' ').collect::<Vec<_>>()[..] else {
                return Err(refused("git does not describe"));
            };
            if !["100644", "100755", "120000"].contains(&mode) {
                return Err(refused("is not a regular file or a symbolic link"));
            }
            let path = PathBuf::from(OsStr::from_bytes(&line[tab + 1..]));
            let plain = |component| matches!(component, Component::Normal(name) if !name.eq_ignore_ascii_case(".git"));
            if !path.components().all(plain) || path.as_os_str().is_empty() {
                return Err(refused("does not stay in its directory"));
            }
            entries.push(Entry { path, mode: mode.to_owned(), object: object.to_owned() });
            if entries.len() > MAX_FILES {
                return Err(Error::refused(format!("the commit {commit} has more than {MAX_FILES} files")));
            }
        }
        Ok(entries)
    }

    /// Writes a file or symlink below `root`. Returns its size.
    fn write(&self, entry: &Entry, root: &Rootfs) -> Result<u64> {
        let bytes = self.run(&["cat-file", "blob", &entry.object])?;
        match entry.mode.as_str() {
            "120000" => {
                let target = Path::new(OsStr::from_bytes(&bytes));
                if bytes.is_empty() || !target.components().all(|part| matches!(part, Component::Normal(_))) {
                    let shown = escaped(&entry.path.to_string_lossy());
                    return Err(Error::refused(format!(
                        "the symbolic link {shown} of a branch may leave its directory"
                    )));
                }
                root.symlink(target, &entry.path)?;
            }
            mode => root.write(&entry.path, &bytes, if mode == "100755" { 0o755 } else { 0o644 })?,
        }
        Ok(bytes.len() as u64)
    }

    fn run(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let (exit, output, complaints) = ask(self.git.start(arguments, MAX_FILE)?, MAX_FILE)?;
        if !exit.success() {
            let what = arguments.first().copied().unwrap_or_default();
            return Err(Error::system(format!("git {what} failed")).with_details(escaped(&complaints)));
        }
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// Makes a git repository with the branch `main`, and runs a script in it.
    fn git_repository(script: &str) -> TempDir {
        let place = tempfile::tempdir().unwrap();
        let script =
            format!("set -e; git init -q -b main .; git config user.email a@b; git config user.name x; {script}");
        #[allow(clippy::disallowed_methods, reason = "the repository of a test")]
        let mut shell = std::process::Command::new("bash");
        let made =
            shell.arg("-ec").arg(script).current_dir(place.path()).env("GIT_CONFIG_GLOBAL", "/dev/null").output();
        let made = made.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        place
    }

    #[test]
    fn the_tree_of_a_branch_has_the_bytes_of_its_commit() {
        let place = tempfile::tempdir().unwrap();
        let ran = place.path().join("ran");
        let script = format!(
            "git checkout -q -b server && mkdir -p package.use && echo a/b x > package.use/one && ln -s one package.use/two
             echo '* filter=evil export-ignore text eol=crlf' > .gitattributes
             git config filter.evil.smudge 'touch {0}; cat' && git config filter.evil.clean cat && git config core.fsmonitor 'touch {0}'
             git config core.autocrlf true
             git add . && git commit -q -m one && git checkout -q -b other && git rm -q -r package.use && git commit -q -m two
             printf '#!/bin/sh\\ntouch {0}\\n' > .git/hooks/post-checkout && chmod +x .git/hooks/post-checkout; rm -f {0}",
            ran.display()
        );
        let repository = git_repository(&script);
        let store = place.path().join("store");
        let branches = LocalBranches::new(store.clone());
        let BranchTree { commit, path: tree } = branches.tree(repository.path(), "server").unwrap();
        assert_eq!(tree, store.join(&commit));
        assert_eq!(fs_err::read(tree.join("package.use/two")).unwrap(), b"a/b x\n");
        assert!(fs_err::symlink_metadata(tree.join("package.use/two")).unwrap().is_symlink());
        // No work tree was switched, and nothing of the repository ran.
        assert!(!repository.path().join("package.use").exists() && !ran.exists());
        assert_eq!(branches.tree(repository.path(), "server").unwrap().path, tree);
        assert_eq!(fs_err::read_dir(&store).unwrap().count(), 1);
        assert_ne!(branches.tree(repository.path(), "other").unwrap().commit, commit);
        match branches.tree(repository.path(), "sever") {
            Err(BranchFailure::Missing { help }) => assert_eq!(help, "did you mean `server`?"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn hostile_branches_are_harmless() {
        let place = tempfile::tempdir().unwrap();
        let script = "echo x > f && git add . && git commit -q -m one && id=$(git rev-parse HEAD)
             printf '%s refs/heads/../../x\\n%s refs/heads/a$(touch y)\\n' $id $id > .git/packed-refs
             blob=$(printf ../../../etc/passwd | git hash-object -w --stdin)
             tree=$(printf '120000 blob %s\\tlink\\n' $blob | git mktree) && git update-ref refs/heads/link $(git commit-tree -m l $tree)
             tree=$(printf '160000 commit %s\\tsub\\n' $id | git mktree) && git update-ref refs/heads/sub $(git commit-tree -m s $tree)
             tree=$(printf '100644 blob %s\\tx\\n' $blob | git mktree)
             tree=$(printf '040000 tree %s\\t.GIT\\n' $tree | git mktree) && git update-ref refs/heads/dot $(git commit-tree -m d $tree)";
        let repository = git_repository(script);
        let branches = LocalBranches::new(place.path().to_owned());
        for name in ["../../x", "a$(touch y)", "-h", "", "a..b", "main^{tree}", "nope"] {
            assert!(branches.tree(repository.path(), name).is_err(), "{name}");
        }
        for (name, said) in
            [("link", "may leave its directory"), ("sub", "is not a regular file"), ("dot", "does not stay")]
        {
            match branches.tree(repository.path(), name) {
                Err(BranchFailure::Tree(error)) => assert!(error.to_string().contains(said), "{name}: {error}"),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert_eq!(fs_err::read_dir(place.path()).unwrap().count(), 0);
        assert!(matches!(branches.tree(place.path(), "main"), Err(BranchFailure::Repository { .. })));
    }
}
