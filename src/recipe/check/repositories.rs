//! `portage.repositories`: the list, and how its repositories refer to each other. Directories on this machine are read here;
//! repositories that are fetched later are checked only for their form.

use std::io::Read;
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
    pub(super) location: PathBuf,
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
            match repository_name(&location) {
                Ok(name) => {
                    if let Some(at) = known.0.iter().position(|other| other.as_ref().is_some_and(|o| o.name == name)) {
                        let title = format!("two repositories are named {}", quoted(&name));
                        self.texts.find(Finding::at(&one.at, title, "again here").also(&written[at].at, "first here"));
                        continue;
                    }
                    known.0.push(Some(Directory { name, location }));
                    written.push(one);
                }
                Err(problem) => {
                    let shown = escaped(&location.to_string_lossy());
                    self.texts.problem(&one.at, format!("not an ebuild repository: {shown}"), problem);
                }
            }
        }
        for other in written.iter().flat_map(|one| &one.others).filter(|_| known.0.iter().all(Option::is_some)) {
            if !known.directories().any(|known| known.name == other.text) {
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
        match repository_name(&location) {
            Ok(name) => {
                let origin = Origin::Location(location.clone());
                let repository = RepositorySpec { origin, priority: None, masters: None, eclass_overrides: None };
                (Some(vec![repository]), Known(vec![Some(Directory { name, location })]))
            }
            Err(problem) => {
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

/// Reads the name of a repository.
fn repository_name(location: &Path) -> Result<String, Problem> {
    const MAX_SIZE: u64 = 4096;
    let help = "an ebuild repository has its name in the file profiles/repo_name";
    let path = location.join("profiles/repo_name");
    let why = |error: std::io::Error| Problem::new(format!("profiles/repo_name: {}", reason(&error))).help(help);
    if !fs_err::metadata(&path).map_err(why)?.is_file() {
        return Err(Problem::new("profiles/repo_name is not a file").help(help));
    }
    let mut name = String::new();
    fs_err::File::open(&path).and_then(|file| file.take(MAX_SIZE).read_to_string(&mut name)).map_err(why)?;
    let name = name.lines().next().unwrap_or_default().trim();
    words::repository(name)
        .map(|()| name.to_owned())
        .map_err(|problem| Problem::new(format!("profiles/repo_name: {}", problem.label)).help(help))
}

/// Finds the entry of a directory whose name is nearest to a missing one.
pub(super) fn similar(dir: &Path, name: &str) -> Option<String> {
    const MAX_ENTRIES: usize = 2000;
    let entries = fs_err::read_dir(dir).ok()?.take(MAX_ENTRIES).filter_map(Result::ok);
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    nearest(name, names.iter().map(String::as_str)).map(escaped)
}
