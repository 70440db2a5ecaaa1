//! Portage profiles: does it exist, do its parents, what is in `@profile`, and for which machine is it.
//!
//! Parents are resolved where the sandbox will see them, with every repository at `/var/db/repos/<name>`: a parent that the
//! host's own directories would satisfy but the sandbox's would not is an error here, and not in the middle of a build.

use crate::base::text::{nearest, plain};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::base::error::{Context, Error, Kind, Result};
use crate::portage::repos::{Repo, Repos, read};
use crate::portage::text::list_lines;
use crate::recipe::ProfileName;

/// Parents of parents of …; Gentoo's own chains have about ten levels.
const MAX_DEPTH: usize = 64;
/// Profiles visited in all, counting one again where two parents share it, as Portage does.
const MAX_NODES: usize = 2_000;

/// A profile whose whole chain of parents was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    repo: String,
    path: String,
    packages: Vec<String>,
    system: Vec<String>,
    variables: BTreeMap<String, String>,
    warnings: Vec<String>,
    /// Why `@profile` may be empty although there is a `packages` file: the layout.conf without `profile-set`.
    without_set: Option<PathBuf>,
    packages_file: PathBuf,
}

/// An OCI platform: `architecture` and `variant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Architecture {
    /// GOARCH's name of it.
    pub name: &'static str,
    /// GOARM's, for ARM.
    pub variant: Option<&'static str>,
}

impl Profile {
    /// Finds the profile and its parents.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it, its repository or a parent does not exist, or when parents go in a circle.
    pub fn resolve(name: &ProfileName, repos: &Repos) -> Result<Self> {
        let repo = match &name.repo {
            None => repos.main(),
            Some(repo) => repos.get(repo).ok_or_else(|| {
                let known: Vec<&str> = repos.iter().map(Repo::name).collect();
                Error::usage(format!("the profile {} names a repository that is not there", shown(name)))
                    .with_hint(format!("portage.repositories has: {}", known.join(", ")))
            })?,
        };
        let path =
            plain_path(&name.path).ok_or_else(|| Error::usage(format!("{} is no path of a profile", shown(name))))?;
        let host = repo.location().join("profiles").join(&path);
        if !host.is_dir() {
            return Err(missing(name, repo, &path));
        }
        let mut walk = Walk { repos, nodes: Vec::new(), stack: Vec::new() };
        let first = walk
            .node_at(&host)
            .ok_or_else(|| Error::usage(format!("the profile {} is a link out of the repositories", shown(name))))?;
        walk.visit(first)?;
        let packages_file = host.join("packages");
        let mut profile = Self {
            repo: repo.name().to_owned(),
            path,
            packages: Vec::new(),
            system: Vec::new(),
            variables: BTreeMap::new(),
            warnings: Vec::new(),
            without_set: None,
            packages_file,
        };
        profile.collect(&walk.nodes)?;
        Ok(profile)
    }

    fn collect(&mut self, nodes: &[Node<'_>]) -> Result<()> {
        let mut all = Vec::new();
        for node in nodes {
            if let Some(text) = read(&node.host.join("packages"))? {
                let with_set = node.repo.has_format("profile-set");
                for (_, token) in list_lines(&text) {
                    let ours = !token.starts_with('*') && !token.starts_with('-');
                    if ours && !with_set {
                        self.without_set = Some(node.repo.layout_file());
                    }
                    if with_set {
                        stack(&mut self.packages, &token);
                    }
                    stack(&mut all, &token);
                }
            }
            if let Some(text) = read(&node.host.join("make.defaults"))? {
                scan_variables(&text, &mut self.variables);
            }
        }
        self.packages.retain(|token| !token.starts_with('*'));
        self.system = all.iter().filter_map(|token| token.strip_prefix('*').map(str::to_owned)).collect();
        if let Some(own) = nodes.last()
            && let Some(text) = read(&own.host.join("deprecated"))?
        {
            let instead = text.lines().next().map(|line| plain(line, 200)).unwrap_or_default();
            let mut warning = format!("the profile {self} is deprecated");
            if !instead.trim().is_empty() {
                warning.push_str(&format!("; its repository recommends {}", instead.trim()));
            }
            self.warnings.push(warning);
        }
        Ok(())
    }

    /// Adds `packages` of the user's own profile directory (`etc/portage/profile`), which always counts for `@profile`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the file cannot be read.
    pub fn add_user_packages(&mut self, directory: &Path) -> Result<()> {
        if let Some(text) = read(&directory.join("packages"))? {
            for (_, token) in list_lines(&text) {
                match token.strip_prefix('*') {
                    Some(atom) => stack(&mut self.system, atom),
                    None => stack(&mut self.packages, &token),
                }
            }
        }
        Ok(())
    }

    /// Refuses an empty `@profile`, which emerge would take for success.
    ///
    /// # Errors
    /// [`Kind::Usage`], with the file to edit and the line to write.
    pub fn require_packages(&self) -> Result<()> {
        if !self.packages.is_empty() {
            return Ok(());
        }
        let error = Error::usage(format!("@profile is empty in the profile {self}"));
        Err(match &self.without_set {
            Some(layout) => error.with_hint(format!(
                "its repository does not say that `packages` names packages to install: write\n\
                 profile-formats = portage-2 profile-set\nin {}",
                layout.display()
            )),
            None => error.with_hint(format!("list packages, one atom a line, in {}", self.packages_file.display())),
        })
    }

    /// The name of its repository.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// Its path below `profiles/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Atoms of `@profile`.
    pub fn packages(&self) -> &[String] {
        &self.packages
    }

    /// Atoms of `@system`, without the asterisk.
    pub fn system(&self) -> &[String] {
        &self.system
    }

    /// What the user should look at.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// ARCH of its make.defaults.
    pub fn arch(&self) -> Option<&str> {
        self.variables.get("ARCH").map(String::as_str)
    }

    /// CHOST of its make.defaults.
    pub fn chost(&self) -> Option<&str> {
        self.variables.get("CHOST").map(String::as_str)
    }

    /// The OCI platform, where ARCH is known. CHOST tells endianness and the level of ARM.
    pub fn architecture(&self) -> Option<Architecture> {
        architecture(self.arch()?, self.chost().unwrap_or_default())
    }

    /// Target of the link `etc/portage/make.profile` below `config_root` inside the sandbox, as `eselect profile set` writes
    /// it.
    pub fn link_target(&self, config_root: &str) -> PathBuf {
        link_target(config_root, &self.repo, &self.path)
    }
}

/// See [`Profile::link_target`].
pub(super) fn link_target(config_root: &str, repo: &str, path: &str) -> PathBuf {
    let depth = Path::new(config_root).components().filter(|part| matches!(part, Component::Normal(_))).count() + 2;
    let mut target: PathBuf = std::iter::repeat_n("..", depth).collect();
    target.push(super::REPOS.trim_start_matches('/'));
    target.push(repo);
    target.push("profiles");
    target.push(path);
    target
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.repo, self.path)
    }
}

/// A profile of the chain.
#[derive(Debug, Clone)]
struct Node<'a> {
    repo: &'a Repo,
    /// Its path in its repository, as Portage will write it inside the sandbox.
    path: PathBuf,
    host: PathBuf,
}

struct Walk<'a> {
    repos: &'a Repos,
    /// Parents before children: the order in which Portage reads them.
    nodes: Vec<Node<'a>>,
    stack: Vec<PathBuf>,
}

impl<'a> Walk<'a> {
    /// The node of a directory of the host, with links resolved.
    fn node_at(&self, host: &Path) -> Option<Node<'a>> {
        let real = fs_err::canonicalize(host).ok()?;
        let inside = |repo: &&'a Repo| real.starts_with(repo.location());
        let repo = self.repos.iter().filter(inside).max_by_key(|repo| repo.location().as_os_str().len())?;
        let path = real.strip_prefix(repo.location()).ok()?.to_owned();
        Some(Node { repo, path, host: real })
    }

    fn visit(&mut self, node: Node<'a>) -> Result<()> {
        let real = fs_err::canonicalize(&node.host)
            .context(Kind::Usage, || format!("opening the profile {}", node.host.display()))?;
        let file = node.host.join("parent");
        if self.stack.contains(&real) {
            return Err(Error::usage(format!("the parents of the profile {} go in a circle", node.host.display()))
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
                return Err(format!("has a colon, which needs `portage-2` in profile-formats in {}", layout.display()));
            }
            Some(("", path)) => (node.repo, normal(&Path::new("profiles").join(path))),
            Some((name, path)) => match self.repos.get(name) {
                Some(repo) => (repo, normal(&Path::new("profiles").join(path))),
                None => return Err("names a repository that is not among portage.repositories".into()),
            },
            None => {
                let inside = normal(&node.repo.mountpoint().join(&node.path).join(parent)).unwrap_or_default();
                let owner = self.repos.iter().find_map(|repo| {
                    inside.strip_prefix(repo.mountpoint()).ok().map(|path| (repo, Some(path.to_owned())))
                });
                owner.ok_or_else(|| format!("would be {} inside the sandbox, in no repository", inside.display()))?
            }
        };
        let path = path.ok_or("leaves its repository")?;
        let host = repo.location().join(&path);
        if !host.is_dir() {
            return Err(format!("does not exist ({})", host.display()));
        }
        if self.node_at(&host).is_none() {
            return Err(format!("is a link out of the repositories ({})", host.display()));
        }
        Ok(Node { repo, path, host })
    }
}

/// `path` with `.` and `..` resolved as text; none when it leaves where it began.
fn normal(path: &Path) -> Option<PathBuf> {
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

/// A relative path of plain components, without control characters.
fn plain_path(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let plain = |part: &&str| !part.is_empty() && *part != "." && *part != ".." && !part.contains(char::is_control);
    parts.iter().all(plain).then(|| parts.join("/"))
}

fn shown(name: &ProfileName) -> String {
    let path = plain(&name.path, 200);
    name.repo.as_ref().map_or_else(|| format!("‘{path}’"), |repo| format!("‘{}:{path}’", plain(repo, 40)))
}

fn missing(name: &ProfileName, repo: &Repo, path: &str) -> Error {
    let profiles = repo.location().join("profiles");
    let error = Error::usage(format!("there is no profile {} in {}", shown(name), profiles.display()));
    let mut names: Vec<String> = Vec::new();
    if let Ok(Some(text)) = read(&profiles.join("profiles.desc")) {
        names.extend(list_lines(&text).filter_map(|(_, line)| line.split(' ').nth(1).map(str::to_owned)));
    }
    // The deepest directory that exists, for repositories that list nothing.
    let mut parent = Path::new(path).parent();
    while let Some(directory) = parent {
        if let Ok(entries) = fs_err::read_dir(profiles.join(directory)) {
            let directories = entries.flatten().take(1_000).filter(|entry| entry.path().is_dir());
            names.extend(directories.map(|entry| directory.join(entry.file_name()).to_string_lossy().into_owned()));
            break;
        }
        parent = directory.parent();
    }
    match nearest(path, names.iter().map(String::as_str)) {
        Some(near) => error.with_hint(format!("did you mean {}:{}?", repo.name(), plain(near, 200))),
        None => error.with_hint(format!("see {}", profiles.join("profiles.desc").display())),
    }
}

/// Adds a token of an incremental list: `-token` removes, `-*` empties.
fn stack(list: &mut Vec<String>, token: &str) {
    if token == "-*" {
        list.clear();
    } else if let Some(removed) = token.strip_prefix('-') {
        list.retain(|present| present != removed);
    } else if !list.iter().any(|present| present == token) {
        list.push(token.to_owned());
    }
}

/// Takes ARCH and CHOST from lines `NAME="value"`, with `${…}` of what is known; anything cleverer is passed over.
fn scan_variables(text: &str, into: &mut BTreeMap<String, String>) {
    for line in text.lines().map(str::trim) {
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else { continue };
        if !matches!(name, "ARCH" | "CHOST") {
            continue;
        }
        let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned();
        let value = match value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
            Some(other) => into.get(other).cloned().unwrap_or_default(),
            None => value,
        };
        if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            into.insert(name.to_owned(), value);
        }
    }
}

fn architecture(arch: &str, chost: &str) -> Option<Architecture> {
    let machine = chost.split('-').next().unwrap_or_default();
    let (name, variant) = match arch {
        "amd64" => ("amd64", None),
        "x86" => ("386", None),
        "arm64" => ("arm64", Some("v8")),
        "arm" => match machine.get(..5) {
            Some("armv5") => ("arm", Some("v5")),
            Some("armv6") => ("arm", Some("v6")),
            Some("armv7") => ("arm", Some("v7")),
            _ => ("arm", None),
        },
        "riscv" if machine.starts_with("riscv32") => return None,
        "riscv" => ("riscv64", None),
        "loong" => ("loong64", None),
        "ppc64" if machine.starts_with("powerpc64le") => ("ppc64le", None),
        "ppc64" => ("ppc64", None),
        "ppc" => ("ppc", None),
        "s390" if machine.starts_with("s390x") => ("s390x", None),
        "s390" => ("s390", None),
        "mips" => match (machine.starts_with("mips64"), machine.contains("el")) {
            (true, true) => ("mips64le", None),
            (true, false) => ("mips64", None),
            (false, true) => ("mipsle", None),
            (false, false) => ("mips", None),
        },
        _ => return None,
    };
    Some(Architecture { name, variant })
}

#[cfg(test)]
mod tests;
