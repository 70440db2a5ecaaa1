//! `[portage]`: repositories, caches and configuration.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Checker, Must, Word};
use crate::recipe::diagnostic::{Finding, Place, Problem, harmless, quoted};
use crate::recipe::keys::{self, Type};
use crate::recipe::merge::reason;
use crate::recipe::parse::{Is, Table, Value};
use crate::recipe::suggest::nearest;
use crate::recipe::{Portage, Repository, atom, words};

/// Where Gentoo keeps its main repository.
const MAIN: &str = "/var/db/repos/gentoo";

/// A repository that is there.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) location: PathBuf,
}

/// A repository as written, before its relations to others are checked.
struct Written {
    at: Place,
    repository: Repository,
    others: Vec<Word>,
}

impl Checker<'_> {
    /// The section, and the repositories by name; of repositories that are not there nothing is known.
    pub(super) fn portage(&mut self) -> (Option<Portage>, Vec<Known>) {
        let (repositories, known) = self.repositories();
        let binpkg = self.path_of("portage", "binpkg", Must::BeMade);
        let distfiles = self.path_of("portage", "distfiles", Must::BeMade);
        let binhost = self.each("portage", "binhost", "binary package host", words::url).unwrap_or_default();
        let make_conf = self.make_conf();
        let package_files = self.package_files();
        let config = self.path_of("portage", "config", Must::Directory);
        let portage = repositories.map(|repositories| Portage {
            repositories,
            binpkg,
            distfiles,
            binhost,
            make_conf,
            package_files,
            config,
        });
        (portage, known)
    }

    fn repositories(&mut self) -> (Option<Vec<Repository>>, Vec<Known>) {
        let values = match self.value("portage", "repositories") {
            Some(Value { at, is: Is::List(list) }) => (at.clone(), list.clone()),
            _ => return self.main_repository(),
        };
        let (at, list) = values;
        if list.is_empty() {
            let problem = Problem::new("empty")
                .help("the first repository is the main one, for example [\"/var/db/repos/gentoo\"]");
            self.texts.problem(&at, "no repository is given", problem);
            return (None, Vec::new());
        }
        let mut known: Vec<Known> = Vec::new();
        let mut written = Vec::new();
        let mut places: Vec<Place> = Vec::new();
        let count = list.len();
        for value in list {
            let Some(one) = self.repository(&value) else { continue };
            match repository_name(&one.repository.location) {
                Ok(name) => {
                    if let Some(at) = known.iter().position(|other| other.name == name) {
                        let title = format!("two repositories are named {}", quoted(&name));
                        self.texts.find(Finding::at(&one.at, title, "again here").also(&places[at], "first here"));
                        continue;
                    }
                    known.push(Known { name, location: one.repository.location.clone() });
                    places.push(one.at.clone());
                    written.push(one);
                }
                Err(problem) => {
                    let shown = harmless(&one.repository.location.to_string_lossy());
                    self.texts.problem(&one.at, format!("not an ebuild repository: {shown}"), problem);
                }
            }
        }
        for one in &written {
            for other in &one.others {
                if !known.iter().any(|known| known.name == other.text) {
                    let names = known.iter().map(|known| known.name.as_str());
                    let title = format!("no repository is named {}", quoted(&other.text));
                    self.texts.problem(&other.at, title, Problem::new("not one of the recipe's").help(listed(names)));
                }
            }
        }
        let repositories: Vec<Repository> = written.into_iter().map(|one| one.repository).collect();
        ((repositories.len() == count).then_some(repositories), known)
    }

    /// The main repository where a Gentoo system has it, for recipes that name none.
    fn main_repository(&mut self) -> (Option<Vec<Repository>>, Vec<Known>) {
        let location = PathBuf::from(MAIN);
        match repository_name(&location) {
            Ok(name) => {
                let repository =
                    Repository { location: location.clone(), priority: None, masters: None, eclass_overrides: None };
                (Some(vec![repository]), vec![Known { name, location }])
            }
            Err(problem) => {
                let title = format!("no repository is given, and {MAIN} is not one: {}", problem.label);
                self.texts.find(
                    Finding::missing(title).help("in [portage] write repositories = [\"…\"], the main one first"),
                );
                (None, Vec::new())
            }
        }
    }

    fn repository(&mut self, value: &Value) -> Option<Written> {
        let empty = Table::new();
        let table = match &value.is {
            Is::Table(table) => table,
            _ => &empty,
        };
        let location = match (&value.is, table.get("location")) {
            (Is::Str(_), _) => Word::of(value)?,
            (_, Some(item)) => Word::of(&item.value)?,
            _ => {
                let problem = Problem::new("no `location`")
                    .help("for example { location = \"../overlays/mine\", priority = 50 }");
                self.texts.problem(&value.at, "a repository has a directory", problem);
                return None;
            }
        };
        let path = self.path(&location, Must::Directory);
        let priority = match table.get("priority").map(|item| &item.value) {
            Some(Value { at, is: Is::Int(number) }) => match i32::try_from(*number) {
                Ok(priority) => Some(priority),
                Err(_) => {
                    self.texts.problem(at, "a priority is a small number", Problem::new("beyond 32 bits"));
                    None
                }
            },
            _ => None,
        };
        let mut others = Vec::new();
        let mut names = |checker: &mut Self, key: &str| {
            let Some(Is::List(list)) = table.get(key).map(|item| &item.value.is) else { return None };
            let list: Vec<Word> = list.iter().filter_map(Word::of).collect();
            let valid: Vec<Word> = list
                .into_iter()
                .filter(|word| checker.follow(word, "repository name", words::repository).is_some())
                .collect();
            others.extend(valid.iter().cloned());
            Some(valid.into_iter().map(|word| word.text).collect())
        };
        let masters = names(self, "masters");
        let eclass_overrides = names(self, "eclass-overrides");
        let repository = Repository { location: path?, priority, masters, eclass_overrides };
        Some(Written { at: location.at, repository, others })
    }

    fn make_conf(&mut self) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        for (name, value) in self.map("portage", "make-conf") {
            let named = self.follow(&name, "variable for make.conf", words::variable).is_some();
            let what = format!("value of {}", harmless(&name.text));
            if self.follow(&value, &what, words::printable).is_some() && named {
                variables.insert(name.text, value.text);
            }
        }
        let flags = self.each("portage", "use", "USE flag", |flag| words::use_flag(flag).map(|()| flag.to_owned()));
        if let Some(flags) = flags.filter(|flags| !flags.is_empty()) {
            let all: &mut String = variables.entry("USE".to_owned()).or_default();
            if !all.is_empty() {
                all.push(' ');
            }
            all.push_str(&flags.join(" "));
        }
        variables
    }

    fn package_files(&mut self) -> BTreeMap<String, Vec<String>> {
        let mut files = BTreeMap::new();
        for key in keys::of_section("portage") {
            let Type::Lines(file) = key.of else { continue };
            let what = format!("line of {file}");
            let mut lines: Vec<String> =
                self.each("portage", key.name, &what, |line| atom::package_line(file, line)).unwrap_or_default();
            for (atom, words) in self.map("portage", key.name) {
                // The words first: a line break among them is theirs, not the atom's.
                if self.follow(&words, &what, words::printable).is_none() {
                    continue;
                }
                let line = Word { text: format!("{} {}", atom.text, words.text), at: atom.at };
                lines.extend(self.follow(&line, &what, |line| atom::package_line(file, line)));
            }
            lines.retain(|line| !line.is_empty());
            if !lines.is_empty() {
                files.insert(file.to_owned(), lines);
            }
        }
        files
    }
}

/// "known: a, b" for a message.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    format!("repositories of this recipe: {}", names.into_iter().map(harmless).collect::<Vec<_>>().join(", "))
}

/// The name that a repository gives itself.
fn repository_name(location: &Path) -> Result<String, Problem> {
    const LONGEST: u64 = 4096;
    let help = "an ebuild repository has its name in the file profiles/repo_name";
    let path = location.join("profiles/repo_name");
    let why = |error: std::io::Error| Problem::new(format!("profiles/repo_name: {}", reason(&error))).help(help);
    if !fs_err::metadata(&path).map_err(why)?.is_file() {
        return Err(Problem::new("profiles/repo_name is not a file").help(help));
    }
    let mut name = String::new();
    fs_err::File::open(&path).and_then(|file| file.take(LONGEST).read_to_string(&mut name)).map_err(why)?;
    let name = name.lines().next().unwrap_or_default().trim();
    words::repository(name)
        .map(|()| name.to_owned())
        .map_err(|problem| Problem::new(format!("profiles/repo_name: {}", problem.label)).help(help))
}

/// The entry of a directory nearest to a name that is not there.
pub(super) fn similar(dir: &Path, name: &str) -> Option<String> {
    const MOST: usize = 2000;
    let entries = fs_err::read_dir(dir).ok()?.take(MOST).filter_map(Result::ok);
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    nearest(name, names.iter().map(String::as_str)).map(harmless)
}
