//! `portage.repositories`: directories of this machine, which are looked at here, and what is to be fetched, of which nothing can be
//! known yet but how it is written.

use crate::base::text::{escaped, nearest, quoted};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Checker, Must, Word};
use crate::recipe::diagnostic::{Finding, Place, Problem};
use crate::recipe::merge::reason;
use crate::recipe::parse::{Is, Table, Value};
use crate::recipe::{
    DEFAULT_MAX_AGE, DEFAULT_MIRROR, GENTOO_GIT, Git, Origin, RepositorySpec, Snapshot, SnapshotFormat, Source, words,
};

/// Where Gentoo keeps its main repository.
const MAIN: &str = "/var/db/repos/gentoo";

/// The keys that say where a repository comes from, and what else each goes with.
const ORIGINS: [(&str, &[&str]); 3] = [
    ("location", &[]),
    ("snapshot", &["format", "mirrors", "keyring", "fingerprints", "max-age", "max-unpacked", "max-entries"]),
    (
        "git",
        &["commit", "branch", "keyring", "fingerprints", "max-age", "allow-unsigned", "max-unpacked", "max-entries"],
    ),
];

/// What is known of the repositories, in their order; none of one that is yet to be fetched.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Vec<Option<Directory>>);

/// A repository that is there.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    pub(super) name: String,
    pub(super) location: PathBuf,
}

impl Known {
    /// The main one, if it is there.
    pub(super) fn main(&self) -> Option<&Directory> {
        self.0.first()?.as_ref()
    }

    /// Those that are there.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Directory> {
        self.0.iter().flatten()
    }

    /// Whether all names are known, so that another is a mistake. Without any, what is wrong is wrong elsewhere.
    pub(super) fn complete(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(Option::is_some)
    }

    /// "repositories of this recipe: a, b" for a message.
    pub(super) fn listed(&self) -> String {
        let names: Vec<String> = self.directories().map(|known| escaped(&known.name)).collect();
        format!("repositories of this recipe: {}", names.join(", "))
    }
}

/// A repository as written, before its relations to others are checked.
struct Written {
    at: Place,
    repository: RepositorySpec,
    others: Vec<Word>,
}

impl Checker<'_> {
    pub(super) fn repositories(&mut self, source: Option<&Source>) -> (Option<Vec<RepositorySpec>>, Known) {
        let values = match self.value("portage", "repositories") {
            Some(Value { at, is: Is::List(list) }) => (at.clone(), list.clone()),
            _ => return self.main_repository(),
        };
        let (at, list) = values;
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
                self.texts.problem(&other.at, title, Problem::new("not one of the recipe's").help(known.listed()));
            }
        }
        let repositories: Vec<RepositorySpec> = written.into_iter().map(|one| one.repository).collect();
        ((repositories.len() == count).then_some(repositories), known)
    }

    /// The main repository where a Gentoo system has it, for recipes that name none.
    fn main_repository(&mut self) -> (Option<Vec<RepositorySpec>>, Known) {
        let location = PathBuf::from(MAIN);
        match repository_name(&location) {
            Ok(name) => {
                let origin = Origin::Location(location.clone());
                let repository = RepositorySpec { origin, priority: None, masters: None, eclass_overrides: None };
                (Some(vec![repository]), Known(vec![Some(Directory { name, location })]))
            }
            Err(problem) => {
                let title = format!("no repository is given, and {MAIN} is not one: {}", problem.label);
                self.texts.find(Finding::missing(title).help(
                    "in [portage] write repositories = [\"…\"], the main one first; [{ snapshot = \"latest\" }] fetches Gentoo's",
                ));
                (None, Known::default())
            }
        }
    }

    fn repository(&mut self, value: &Value, source: Option<&Source>) -> Option<Written> {
        let empty = Table::new();
        let table = match &value.is {
            Is::Table(table) => table,
            _ => &empty,
        };
        let (at, origin) = match &value.is {
            Is::Str(_) => {
                let location = Word::of(value)?;
                (location.at.clone(), self.path(&location, Must::Directory).map(Origin::Location))
            }
            _ => self.origin(&value.at, table, source)?,
        };
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
        let masters = self.words_in(table, "masters", "repository name", plain(words::repository));
        let eclass_overrides = self.words_in(table, "eclass-overrides", "repository name", plain(words::repository));
        let others = [&masters, &eclass_overrides].into_iter().flatten().flatten().map(|(word, _)| word.clone());
        let others = others.collect();
        let texts =
            |list: Option<Vec<(Word, String)>>| list.map(|list| list.into_iter().map(|(_, text)| text).collect());
        let (masters, eclass_overrides) = (texts(masters), texts(eclass_overrides));
        let repository = RepositorySpec { origin: origin?, priority, masters, eclass_overrides };
        Some(Written { at, repository, others })
    }

    /// Where a repository that is written as a table comes from; none in the second place after noting what is wrong with it.
    fn origin(&mut self, at: &Place, table: &Table, source: Option<&Source>) -> Option<(Place, Option<Origin>)> {
        let mut given = ORIGINS.iter().filter_map(|(key, with)| Some((*key, *with, table.get(*key)?)));
        let Some((key, with, item)) = given.next() else {
            let problem = Problem::new("no `location`").help(
                "for example { location = \"../overlays/mine\", priority = 50 }, { snapshot = \"latest\" } or \
                 { git = \"https://…\", branch = \"stable\" }",
            );
            self.texts.problem(at, "a repository has a directory, or is fetched", problem);
            return None;
        };
        if let Some((other, _, second)) = given.next() {
            let title = format!("a repository comes from one place, not from both `{key}` and `{other}`");
            self.texts.find(Finding::at(&second.key_at, title, "also from here").also(&item.key_at, "from here"));
            return None;
        }
        let mut wrong: Vec<&str> = ORIGINS.iter().flat_map(|(_, others)| others.iter().copied()).collect();
        wrong.retain(|other| !with.contains(other) && table.contains_key(*other));
        wrong.sort_unstable();
        wrong.dedup();
        for other in &wrong {
            let title = format!("`{other}` says nothing of a repository that is given as `{key}`");
            let finding = Finding::at(&table[*other].key_at, title, "leave this out");
            self.texts.find(finding.also(&item.key_at, format!("because of `{key}`")));
        }
        let word = Word::of(&item.value)?;
        let origin = match key {
            "snapshot" => self.snapshot(&word, table, source).map(Origin::Snapshot),
            "git" => self.git(&word, table).map(Origin::Git),
            _ => self.path(&word, Must::Directory).map(Origin::Location),
        };
        Some((word.at, origin))
    }

    fn snapshot(&mut self, word: &Word, table: &Table, source: Option<&Source>) -> Option<Snapshot> {
        let date = match word.text.as_str() {
            "latest" => Some(None),
            _ => self.follow(word, "snapshot", |text| words::day(text).map(|()| Some(text.to_owned()))),
        };
        if let (Some(Some(_)), Some(age)) = (&date, table.get("max-age")) {
            let problem = Problem::new("only of the latest").help("a snapshot of a day is as old as it is");
            self.texts.problem(&age.key_at, "`max-age` says nothing of the snapshot of a day", problem);
        }
        let format = match table.get("format").and_then(|item| Word::of(&item.value)) {
            Some(word) => self.follow(&word, "format of a snapshot", words::snapshot_format),
            None => Some(SnapshotFormat::default()),
        };
        let mirrors = match self.words_in(table, "mirrors", "mirror", words::url) {
            Some(mirrors) => {
                if let Some(item) =
                    table.get("mirrors").filter(|item| matches!(&item.value.is, Is::List(list) if list.is_empty()))
                {
                    let problem =
                        Problem::new("empty").help("leave `mirrors` out to use those of the stage3, or Gentoo's own");
                    self.texts.problem(&item.value.at, "no mirror is given", problem);
                }
                mirrors.into_iter().map(|(_, url)| url).collect()
            }
            None => match source.map(Source::distfiles) {
                Some(mirrors) if !mirrors.is_empty() => mirrors.to_owned(),
                _ => vec![DEFAULT_MIRROR.to_owned()],
            },
        };
        let (keyring, fingerprints, max_age) = self.trust(table)?;
        let bounds = self.bounds(|_, key| table.get(key).map(|item| item.value.clone()))?;
        Some(Snapshot { date: date?, format: format?, mirrors, keyring, fingerprints, max_age, bounds })
    }

    fn git(&mut self, word: &Word, table: &Table) -> Option<Git> {
        let url = self.follow(word, "address of a git repository", words::url);
        let commit = match table.get("commit").and_then(|item| Word::of(&item.value)) {
            Some(word) => self.follow(&word, "commit", words::commit).map(Some),
            None => Some(None),
        };
        let branch = match table.get("branch").and_then(|item| Word::of(&item.value)) {
            Some(word) => self.follow(&word, "branch", plain(words::branch)).map(Some),
            None => Some(None),
        };
        if let (Some(None), Some(None)) = (&commit, &branch) {
            let problem = Problem::new("which commit?").help("add commit = \"…\" or branch = \"stable\"");
            self.texts.problem(&word.at, "neither a commit nor a branch is given", problem);
            return None;
        }
        let allow_unsigned = matches!(table.get("allow-unsigned").map(|item| &item.value.is), Some(Is::Bool(true)));
        let (keyring, fingerprints, max_age) = self.trust(table)?;
        let named = keyring.is_some() || !fingerprints.is_empty();
        let (url, commit, branch) = (url?, commit?, branch?);
        if allow_unsigned && commit.is_none() {
            let problem = Problem::new("no commit")
                .help("a commit that nobody signed is only known by its id: add commit = \"…\"");
            self.texts.problem(&word.at, "`allow-unsigned` needs an exact commit", problem);
            return None;
        }
        if allow_unsigned && named {
            let at = table.get("allow-unsigned").map_or(&word.at, |item| &item.key_at);
            let problem = Problem::new("leave this out, or the signers");
            self.texts.problem(at, "either somebody must have signed, or nobody", problem);
            return None;
        }
        if !allow_unsigned && !named && url != GENTOO_GIT {
            let problem = Problem::new("who signs its commits?")
                .help("add fingerprints = [\"…\"] or keyring = \"…\"; or, with an exact commit, allow-unsigned = true");
            self.texts.problem(&word.at, "nobody is named who may sign", problem);
            return None;
        }
        if let (Some(_), Some(age)) = (&commit, table.get("max-age")) {
            let problem = Problem::new("only of a branch").help("a commit is as old as it is");
            self.texts.problem(&age.key_at, "`max-age` says nothing of an exact commit", problem);
        }
        let bounds = self.bounds(|_, key| table.get(key).map(|item| item.value.clone()))?;
        Some(Git { url, commit, branch, keyring, fingerprints, max_age, allow_unsigned, bounds })
    }

    /// Keyring, fingerprints and greatest age.
    fn trust(&mut self, table: &Table) -> Option<(Option<PathBuf>, Vec<String>, u64)> {
        let keyring = match table.get("keyring").and_then(|item| Word::of(&item.value)) {
            Some(word) => Some(self.path(&word, Must::File)?),
            None => None,
        };
        let fingerprints = self.words_in(table, "fingerprints", "fingerprint", words::fingerprint).unwrap_or_default();
        let max_age = match table.get("max-age").and_then(|item| Word::of(&item.value)) {
            Some(word) => self.follow(&word, "age", words::age)?,
            None => DEFAULT_MAX_AGE,
        };
        Some((keyring, fingerprints.into_iter().map(|(_, text)| text).collect(), max_age))
    }

    /// The words of a list in a table, each with what a rule makes of it; none where the key is absent.
    fn words_in<T>(
        &mut self,
        table: &Table,
        key: &str,
        what: &str,
        rule: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<Vec<(Word, T)>> {
        let Some(Is::List(list)) = table.get(key).map(|item| &item.value.is) else { return None };
        let words: Vec<Word> = list.iter().filter_map(Word::of).collect();
        Some(words.into_iter().filter_map(|word| Some((word.clone(), self.follow(&word, what, &rule)?))).collect())
    }
}

/// A rule that changes nothing, as one that returns the word.
fn plain(rule: impl Fn(&str) -> Result<(), Problem>) -> impl Fn(&str) -> Result<String, Problem> {
    move |text| rule(text).map(|()| text.to_owned())
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
    nearest(name, names.iter().map(String::as_str)).map(escaped)
}
