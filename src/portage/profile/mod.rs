//! Portage profiles: whether a profile and its parents exist, and the packages of `@profile` and `@system`.
//!
//! Parents are resolved as the sandbox sees them, with every repository at `/var/db/repos/<name>`. A parent that exists only in
//! the host's layout of directories is an error here, not in the middle of a build.

use std::path::{Component, Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::base::text::{nearest, plain};
use crate::portage::repos::{Repo, Repos, read};
use crate::portage::text::list_lines;
use crate::recipe::ProfileName;

mod walk;

use walk::{Node, Walk};

/// A profile with a complete chain of parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    repo: String,
    path: String,
    packages: Vec<String>,
    system: Vec<String>,
    warnings: Vec<String>,
    /// The layout.conf without `profile-set` that makes `@profile` ignore a `packages` file.
    without_set: Option<PathBuf>,
    /// Its file `packages`, unless the profile is one of the main repository, which is synced and not edited.
    packages_file: Option<PathBuf>,
}

impl Profile {
    /// Finds a profile and its parents.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if the profile, its repository or a parent does not exist, or if parents form a cycle.
    pub fn resolve(name: &ProfileName, repos: &Repos) -> Result<Self> {
        let repo = match &name.repo {
            None => repos.main(),
            Some(repo) => repos.get(repo).ok_or_else(|| {
                let known: Vec<&str> = repos.iter().map(Repo::name).collect();
                Error::usage(format!("the profile {} names an unknown repository", shown(name)))
                    .with_hint(format!("portage.repositories contains: {}", known.join(", ")))
            })?,
        };
        let path = plain_path(&name.path)
            .ok_or_else(|| Error::usage(format!("{} is not a valid path of a profile", shown(name))))?;
        let host = repo.location().join("profiles").join(&path);
        if !host.is_dir() {
            return Err(missing(name, repo, &path));
        }
        let mut walk = Walk::new(repos);
        let first = walk
            .node_at(&host)
            .ok_or_else(|| Error::usage(format!("the profile {} is a symlink out of the repositories", shown(name))))?;
        walk.visit(first)?;
        let packages_file = (repo.name() != repos.main().name()).then(|| host.join("packages"));
        let mut profile = Self {
            repo: repo.name().to_owned(),
            path,
            packages: Vec::new(),
            system: Vec::new(),
            warnings: Vec::new(),
            without_set: None,
            packages_file,
        };
        profile.collect(walk.nodes())?;
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

    /// Adds `packages` of the user's own profile directory (`etc/portage/profile`), which is always part of `@profile`.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if the file cannot be read.
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

    /// Refuses an empty `@profile`, with which emerge would do nothing and succeed.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage), with the file to edit and the line to write.
    pub fn require_packages(&self) -> Result<()> {
        if !self.packages.is_empty() {
            return Ok(());
        }
        let mut hint = "name the packages of the image in the recipe: emerge.packages = [\"…\"]".to_owned();
        match (&self.packages_file, &self.without_set) {
            (Some(_), Some(layout)) => hint.push_str(&format!(
                "; or let `packages` add to @profile: write\nprofile-formats = portage-2 profile-set\nin {}",
                layout.display()
            )),
            (Some(file), None) => hint.push_str(&format!("; or in {}, one atom per line", file.display())),
            (None, _) => {}
        }
        Err(Error::usage(format!("@profile is empty in the profile {self}")).with_hint(hint))
    }

    /// Returns the name of its repository.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// Returns its path below `profiles/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the atoms of `@profile`.
    #[cfg(test)]
    pub fn packages(&self) -> &[String] {
        &self.packages
    }

    /// Returns the atoms of `@system`, without the asterisk.
    #[cfg(test)]
    pub fn system(&self) -> &[String] {
        &self.system
    }

    /// Returns warnings for the user.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns the target of the symlink `etc/portage/make.profile` below `config_root` inside the sandbox, in the form that
    /// `eselect profile set` writes.
    pub fn link_target(&self, config_root: &str) -> PathBuf {
        link_target(config_root, &self.repo, &self.path)
    }
}

/// Implements [`Profile::link_target`].
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

/// Returns a relative path of plain components, without control characters.
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
    let error = Error::usage(format!("no profile {} in {}", shown(name), profiles.display()));
    let mut names: Vec<String> = Vec::new();
    if let Ok(Some(text)) = read(&profiles.join("profiles.desc")) {
        names.extend(list_lines(&text).filter_map(|(_, line)| line.split(' ').nth(1).map(str::to_owned)));
    }
    // A repository may not list its profiles: also suggest the entries of the deepest directory that exists.
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

/// Adds a token to an incremental list: `-token` removes one, `-*` removes all.
fn stack(list: &mut Vec<String>, token: &str) {
    if token == "-*" {
        list.clear();
    } else if let Some(removed) = token.strip_prefix('-') {
        list.retain(|present| present != removed);
    } else if !list.iter().any(|present| present == token) {
        list.push(token.to_owned());
    }
}

#[cfg(test)]
mod tests;
