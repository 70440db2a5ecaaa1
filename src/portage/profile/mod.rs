//! Portage profiles: whether a profile and its parents exist, and the packages of `@profile` and `@system`.
//!
//! Parents are resolved as the sandbox sees them, with every repository at `/var/db/repos/<name>`. A parent that exists only in
//! the host's layout of directories is an error here, not in the middle of a build.

use std::path::{Component, Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::base::text::{nearest, plain};
use crate::portage::repos::{Repo, Repos, read};
use crate::portage::text::list_lines;
use crate::recipe::{ProfileName, ProfileSpec};

pub mod funtoo;
mod walk;

use walk::{Node, Walk};

/// A profile with a complete chain of parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    place: Place,
    packages: Vec<String>,
    system: Vec<String>,
    chost: Option<String>,
    warnings: Vec<String>,
    /// The layout.conf without `profile-set` that makes `@profile` ignore a `packages` file.
    without_set: Option<PathBuf>,
    /// Its file `packages`, unless the profile is one of the main repository, which is synced and not edited.
    packages_file: Option<PathBuf>,
}

/// The place of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Repository(InRepository),
    /// No repository: `make.profile` is a directory with these parents.
    Configuration(Vec<InRepository>),
}

/// A profile's repository and its path below `profiles/`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct InRepository {
    repo: String,
    /// Its directory inside the sandbox.
    mountpoint: PathBuf,
    path: String,
}

/// The content of `etc/portage/make.profile`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MakeProfile {
    /// A symlink to this target.
    Link(PathBuf),
    /// A directory with a file `parent` of this text.
    Parents(String),
}

impl Profile {
    /// Finds the profile that a recipe asks for.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if a profile, its repository or a parent does not exist, or if parents form a cycle.
    pub fn of(spec: &ProfileSpec, repos: &Repos) -> Result<Self> {
        match spec {
            ProfileSpec::Named(name) => Self::resolve(name, repos),
            ProfileSpec::Parents(parents) => Self::with_parents(parents, repos),
            ProfileSpec::Funtoo(parts) => Self::with_parents(&funtoo::parents(parts, repos)?, repos),
        }
    }

    /// Finds a profile of a repository and its parents.
    ///
    /// # Errors
    /// Those of [`Profile::of`].
    pub fn resolve(name: &ProfileName, repos: &Repos) -> Result<Self> {
        let mut walk = Walk::new(repos);
        let (repo, at) = visit(name, &mut walk, repos)?;
        let packages_file = repo.location().join("profiles").join(&at.path).join("packages");
        let packages_file = (repo.name() != repos.main().name()).then_some(packages_file);
        Self::new(Place::Repository(at), packages_file, &walk)
    }

    /// Finds the parents of a profile that belongs to no repository.
    fn with_parents(parents: &[ProfileName], repos: &Repos) -> Result<Self> {
        let mut walk = Walk::new(repos);
        let parents = parents.iter().map(|name| visit(name, &mut walk, repos).map(|(_, at)| at));
        let place = Place::Configuration(parents.collect::<Result<_>>()?);
        Self::new(place, None, &walk)
    }

    fn new(place: Place, packages_file: Option<PathBuf>, walk: &Walk<'_>) -> Result<Self> {
        let (packages, system, warnings) = (Vec::new(), Vec::new(), Vec::new());
        let mut profile = Self { place, packages, system, chost: None, warnings, without_set: None, packages_file };
        profile.collect(walk.nodes())?;
        for node in walk.chosen() {
            profile.warnings.extend(deprecation(node)?);
        }
        Ok(profile)
    }

    fn collect(&mut self, nodes: &[Node<'_>]) -> Result<()> {
        let mut all = Vec::new();
        for node in nodes {
            if let Some(text) = read(&node.host.join("make.defaults"))? {
                self.chost = chost(&text).or(self.chost.take());
            }
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
        Ok(())
    }

    /// Adds `packages` of the user's own profile directory (`etc/portage/profile`), which is always part of `@profile`.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if the file cannot be read.
    pub fn add_user_packages(&mut self, directory: &Path) -> Result<()> {
        if let Some(text) = read(&directory.join("packages"))? {
            list_lines(&text).for_each(|(_, token)| self.add_package(&token));
        }
        Ok(())
    }

    /// Adds a line of the user's own file `packages`.
    pub fn add_package(&mut self, token: &str) {
        match token.strip_prefix('*') {
            Some(atom) => stack(&mut self.system, atom),
            None => stack(&mut self.packages, token),
        }
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

    /// Returns its CHOST, as far as it is a plain value.
    pub fn chost(&self) -> Option<&str> {
        self.chost.as_deref()
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

    /// Returns `etc/portage/make.profile` below `config_root` inside the sandbox: a symlink as `eselect profile set` writes it, or a
    /// directory as Funtoo's `ego` does.
    pub fn make_profile(&self, config_root: &str) -> MakeProfile {
        match &self.place {
            Place::Repository(at) => MakeProfile::Link(link_target(config_root, at)),
            Place::Configuration(parents) => {
                MakeProfile::Parents(parents.iter().map(|parent| format!("{parent}\n")).collect())
            }
        }
    }
}

fn link_target(config_root: &str, at: &InRepository) -> PathBuf {
    let depth = Path::new(config_root).components().filter(|part| matches!(part, Component::Normal(_))).count() + 2;
    let mut target: PathBuf = std::iter::repeat_n("..", depth).collect();
    target.extend(at.mountpoint.components().skip(1));
    target.push("profiles");
    target.push(&at.path);
    target
}

/// Visits a profile and its parents.
fn visit<'a>(name: &ProfileName, walk: &mut Walk<'a>, repos: &'a Repos) -> Result<(&'a Repo, InRepository)> {
    let repo = name.repo.as_ref().map_or_else(|| Ok(repos.main()), |repo| repos.named(repo))?;
    let path = plain_path(&name.path)
        .ok_or_else(|| Error::usage(format!("{} is not a valid path of a profile", shown(name))))?;
    let host = repo.location().join("profiles").join(&path);
    if !host.is_dir() {
        return Err(missing(name, repo, &path));
    }
    let first = walk
        .node_at(&host)
        .ok_or_else(|| Error::usage(format!("the profile {} is a symlink out of the repositories", shown(name))))?;
    walk.choose(first)?;
    Ok((repo, InRepository { repo: repo.name().to_owned(), mountpoint: repo.mountpoint(), path }))
}

/// Returns the last plain value of CHOST in a make.defaults.
fn chost(text: &str) -> Option<String> {
    let mut values =
        text.lines().filter_map(|line| line.trim().strip_prefix("CHOST=")).map(|value| value.trim_matches(['"', '\'']));
    let plain =
        |value: &&str| !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    values.rfind(plain).map(str::to_owned)
}

/// Returns the warning about a deprecated profile.
fn deprecation(node: &Node<'_>) -> Result<Option<String>> {
    let Some(text) = read(&node.host.join("deprecated"))? else { return Ok(None) };
    let instead = text.lines().next().map(|line| plain(line, 200)).unwrap_or_default();
    let mut warning = format!("the profile {node} is deprecated");
    if !instead.trim().is_empty() {
        warning.push_str(&format!("; its repository recommends {}", instead.trim()));
    }
    Ok(Some(warning))
}

impl std::fmt::Display for InRepository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.repo, self.path)
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Repository(at) => at.fmt(f),
            Place::Configuration(parents) => {
                let parents: Vec<String> = parents.iter().map(ToString::to_string).collect();
                f.write_str(&parents.join(" + "))
            }
        }
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
