//! `portage.repositories`: the list, and how its repositories refer to each other. Directories on this machine are read here;
//! repositories that are fetched later are checked only for their form.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::{Checker, Word};
use crate::base::text::{escaped, nearest, quoted};
use crate::recipe::diagnostic::{Finding, Place, Problem};
use crate::recipe::merge::reason;
use crate::recipe::parse::{Is, Value};
use crate::recipe::{Origin, RepositorySpec, Source, words};

/// The place of the main repository on a Gentoo system.
const MAIN: &str = "/var/db/repos/gentoo";

/// The repositories on this machine, in the recipe's order; `None` for one that is fetched later.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Vec<Option<Directory>>);

/// A repository on this machine.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    pub(super) name: String,
    /// Other names that it answers to.
    pub(super) aliases: Vec<String>,
    pub(super) location: PathBuf,
}

impl Directory {
    fn read(location: &Path) -> Result<Self, Unreadable> {
        let name = repository_name(location)?;
        let layout = text(&location.join("metadata/layout.conf")).unwrap_or_default();
        let mut aliases =
            layout.lines().filter_map(|line| line.trim().strip_prefix("aliases")?.trim_start().strip_prefix('='));
        let aliases = aliases.next_back().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        Ok(Self { name, aliases, location: location.to_owned() })
    }
}

impl Known {
    /// Returns the main repository, if it is on this machine.
    pub(super) fn main(&self) -> Option<&Directory> {
        self.0.first()?.as_ref()
    }

    /// Returns the repositories on this machine.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Directory> {
        self.0.iter().flatten()
    }

    /// Finds a repository on this machine by its name or an alias.
    pub(super) fn named(&self, name: &str) -> Option<&Directory> {
        let alias = || self.directories().find(|known| known.aliases.iter().any(|alias| alias == name));
        self.directories().find(|known| known.name == name).or_else(alias)
    }

    /// Returns true if every name is known, so that another name is a mistake. An empty list has its own mistake.
    pub(super) fn complete(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(Option::is_some)
    }

    /// Lists the names for a message.
    pub(super) fn listed(&self) -> String {
        let names: Vec<String> = self.directories().map(|known| escaped(&known.name)).collect();
        format!("repositories of this recipe: {}", names.join(", "))
    }
}

/// A repository as written, before the names in it are checked.
pub(super) struct Written {
    pub(super) at: Place,
    pub(super) repository: RepositorySpec,
    /// Names of other repositories in it.
    pub(super) others: Vec<Word>,
}

impl Checker<'_> {
    pub(super) fn repositories(&mut self, source: Option<&Source>) -> (Option<Vec<RepositorySpec>>, Known) {
        let (at, list) = match self.value("portage", "repositories") {
            Some(Value { at, is: Is::List(list) }) => (at.clone(), list.clone()),
            _ => return self.main_repository(),
        };
        if list.is_empty() {
            let problem = Problem::new("empty")
                .help("the first repository is the main one, for example [\"/var/db/repos/gentoo\"]");
            self.texts.problem(&at, "no repository is given", problem);
            return (None, Known::default());
        }
        let mut known = Known::default();
        let mut written: Vec<Written> = Vec::new();
        let count = list.len();
        for value in list {
            let Some(one) = self.repository(&value, source) else { continue };
            let Some(location) = one.repository.location().map(Path::to_owned) else {
                known.0.push(None);
                written.push(one);
                continue;
            };
            match Directory::read(&location) {
                Ok(directory) => {
                    let same = |other: &Option<Directory>| other.as_ref().is_some_and(|o| o.name == directory.name);
                    if let Some(at) = known.0.iter().position(same) {
                        let title = format!("two repositories are named {}", quoted(&directory.name));
                        self.texts.find(Finding::at(&one.at, title, "again here").also(&written[at].at, "first here"));
                        continue;
                    }
                    known.0.push(Some(directory));
                    written.push(one);
                }
                Err(Unreadable { title, problem }) => {
                    let shown = escaped(&location.to_string_lossy());
                    self.texts.problem(&one.at, format!("{title}: {shown}"), problem);
                }
            }
        }
        for other in written.iter().flat_map(|one| &one.others).filter(|_| known.0.iter().all(Option::is_some)) {
            if known.named(&other.text).is_none() {
                let title = format!("no repository is named {}", quoted(&other.text));
                let problem = Problem::new("not a repository of this recipe").help(known.listed());
                self.texts.problem(&other.at, title, problem);
            }
        }
        let repositories: Vec<RepositorySpec> = written.into_iter().map(|one| one.repository).collect();
        ((repositories.len() == count).then_some(repositories), known)
    }

    /// Returns the main repository of a Gentoo system, for recipes that name no repository.
    fn main_repository(&mut self) -> (Option<Vec<RepositorySpec>>, Known) {
        let location = PathBuf::from(MAIN);
        match Directory::read(&location) {
            Ok(directory) => {
                let origin = Origin::Location(location);
                let repository =
                    RepositorySpec { origin, priority: None, masters: None, eclass_overrides: None, kit: None };
                (Some(vec![repository]), Known(vec![Some(directory)]))
            }
            Err(Unreadable { problem, .. }) => {
                let title = format!("no repository is given, and {MAIN} is not a repository: {}", problem.label);
                self.texts.find(
                    Finding::missing(title)
                        .help("in [portage] write repositories = [\"…\"] with the main repository first")
                        .help("repositories = [{ snapshot = \"latest\" }] downloads Gentoo's"),
                );
                (None, Known::default())
            }
        }
    }
}

/// A directory that is not a repository, or that cannot be read.
struct Unreadable {
    title: &'static str,
    problem: Problem,
}

/// Reads the name of a repository.
fn repository_name(location: &Path) -> Result<String, Unreadable> {
    let none = |label: String| {
        let problem = Problem::new(label).help("an ebuild repository has its name in the file profiles/repo_name");
        Unreadable { title: "not an ebuild repository", problem }
    };
    let text = text(&location.join("profiles/repo_name")).map_err(|error| {
        let label = format!("profiles/repo_name: {}", reason(&error));
        match error.kind() {
            ErrorKind::PermissionDenied => {
                let problem = Problem::new(label).help("let the user who runs quern-builder read the repository");
                Unreadable { title: "cannot read the ebuild repository", problem }
            }
            _ => none(label),
        }
    })?;
    let name = text.lines().next().unwrap_or_default().trim();
    words::repository(name)
        .map(|()| name.to_owned())
        .map_err(|problem| none(format!("profiles/repo_name: {}", problem.label)))
}

/// Reads the beginning of a small file of a repository.
fn text(path: &Path) -> std::io::Result<String> {
    const MAX_SIZE: u64 = 4096;
    if !fs_err::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(MAX_SIZE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Finds the entry of a directory whose name is nearest to a missing one.
pub(super) fn similar(dir: &Path, name: &str) -> Option<String> {
    const MAX_ENTRIES: usize = 2000;
    let entries = fs_err::read_dir(dir).ok()?.take(MAX_ENTRIES).filter_map(Result::ok);
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    nearest(name, names.iter().map(String::as_str)).map(escaped)
}
