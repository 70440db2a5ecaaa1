//! The walk through the parents of a profile.

use std::path::{Component, Path, PathBuf};

use crate::base::error::{Context, Error, Kind, Result};
use crate::base::text::plain;
use crate::portage::repos::{Repo, Repos, read};
use crate::portage::text::list_lines;

/// The limit on the depth of parents. Gentoo's own chains have about ten levels.
const MAX_DEPTH: usize = 64;
/// The limit on visited profiles. A profile that two parents share counts twice, as in Portage.
const MAX_NODES: usize = 2_000;

/// A profile in the chain of parents.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    pub(super) repo: &'a Repo,
    /// Its path in its repository, as the sandbox sees it.
    path: PathBuf,
    /// Its directory on the host.
    pub(super) host: PathBuf,
}

/// A walk through the parents of a profile.
pub(super) struct Walk<'a> {
    repos: &'a Repos,
    /// The profiles in the order in which Portage reads them: parents first.
    nodes: Vec<Node<'a>>,
    stack: Vec<PathBuf>,
    /// The indexes of the profiles that [`Walk::choose`] got.
    chosen: Vec<usize>,
}

impl std::fmt::Display for Node<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.strip_prefix("profiles").unwrap_or(&self.path);
        write!(f, "{}:{}", self.repo.name(), path.display())
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(repos: &'a Repos) -> Self {
        Self { repos, nodes: Vec::new(), stack: Vec::new(), chosen: Vec::new() }
    }

    /// Returns the visited profiles, parents first.
    pub(super) fn nodes(&self) -> &[Node<'a>] {
        &self.nodes
    }

    /// Returns the profiles that a recipe names, without their parents.
    pub(super) fn chosen(&self) -> impl Iterator<Item = &Node<'a>> {
        self.chosen.iter().map(|index| &self.nodes[*index])
    }

    /// Visits a profile that a recipe names, after its parents.
    pub(super) fn choose(&mut self, node: Node<'a>) -> Result<()> {
        self.visit(node)?;
        self.chosen.push(self.nodes.len() - 1);
        Ok(())
    }

    /// Finds the profile in a directory of the host, with symlinks resolved.
    pub(super) fn node_at(&self, host: &Path) -> Option<Node<'a>> {
        let real = fs_err::canonicalize(host).ok()?;
        let inside = |repo: &&'a Repo| real.starts_with(repo.location());
        let repo = self.repos.iter().filter(inside).max_by_key(|repo| repo.location().as_os_str().len())?;
        let path = real.strip_prefix(repo.location()).ok()?.to_owned();
        Some(Node { repo, path, host: real })
    }

    /// Visits a profile after its parents.
    fn visit(&mut self, node: Node<'a>) -> Result<()> {
        let real = fs_err::canonicalize(&node.host)
            .context(Kind::Usage, || format!("opening the profile {}", node.host.display()))?;
        let file = node.host.join("parent");
        if self.stack.contains(&real) {
            return Err(Error::usage(format!("the parents of the profile {} form a cycle", node.host.display()))
                .with_hint(format!("see {}", file.display())));
        }
        if self.stack.len() >= MAX_DEPTH || self.nodes.len() >= MAX_NODES {
            return Err(Error::usage(format!("the profile {} has too many parents", node.host.display())));
        }
        self.stack.push(real);
        if let Some(text) = read(&file)? {
            let mut parents = list_lines(&text).peekable();
            if parents.peek().is_none() {
                return Err(Error::usage(format!("{} is empty", file.display()))
                    .with_hint("Portage refuses such a profile: name a parent, or remove the file"));
            }
            for (line, parent) in parents {
                let found = self.parent(&node, &parent).map_err(|why| {
                    Error::usage(format!("{}:{line}: the parent {} {why}", file.display(), plain(&parent, 200)))
                })?;
                self.visit(found)?;
            }
        }
        self.stack.pop();
        self.nodes.push(node);
        Ok(())
    }

    fn parent(&self, node: &Node<'a>, parent: &str) -> Result<Node<'a>, String> {
        let colon = parent.split_once(':').filter(|_| !parent.starts_with('/'));
        let (repo, path) = match colon {
            Some(_) if !node.repo.has_format("portage-2") => {
                let layout = node.repo.layout_file();
                return Err(format!(
                    "contains a colon, which needs `portage-2` in profile-formats in {}",
                    layout.display()
                ));
            }
            Some(("", path)) => (node.repo, normal(&Path::new("profiles").join(path))),
            Some((name, path)) => match self.repos.get(name) {
                Some(repo) => (repo, normal(&Path::new("profiles").join(path))),
                None => return Err("names a repository that portage.repositories does not contain".into()),
            },
            None => {
                let inside = normal(&node.repo.mountpoint().join(&node.path).join(parent)).unwrap_or_default();
                let owner = self.repos.iter().find_map(|repo| {
                    inside.strip_prefix(repo.mountpoint()).ok().map(|path| (repo, Some(path.to_owned())))
                });
                owner.ok_or_else(|| {
                    format!("would be {} inside the sandbox, which is not in a repository", inside.display())
                })?
            }
        };
        let path = path.ok_or("leads out of its repository")?;
        let host = repo.location().join(&path);
        if !host.is_dir() {
            return Err(format!("does not exist ({})", host.display()));
        }
        if self.node_at(&host).is_none() {
            return Err(format!("is a symlink out of the repositories ({})", host.display()));
        }
        Ok(Node { repo, path, host })
    }
}

/// Resolves `.` and `..` in a path as text. Returns `None` if the path leads above its start.
pub(super) fn normal(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::RootDir => out.push("/"),
            Component::Normal(name) => out.push(name),
            Component::ParentDir if out.file_name().is_some() => {
                out.pop();
            }
            Component::ParentDir | Component::Prefix(_) => return None,
            Component::CurDir => {}
        }
    }
    Some(out)
}
