//! One entry of `portage.repositories`: a directory, a snapshot from a mirror, a commit of a git repository, or the kits of a
//! meta-repo.

use std::path::PathBuf;

use super::path::Must;
use super::repositories::Written;
use super::{Checker, Word, unchanged};
use crate::recipe::diagnostic::{Finding, Place, Problem};
use crate::recipe::parse::{Is, Table, Value};
use crate::recipe::{
    DEFAULT_MAX_AGE, DEFAULT_MIRROR, GENTOO_GIT, Git, MetaRepo, MetaRepoPlace, Origin, RepositorySpec, Snapshot,
    SnapshotFormat, Source, words,
};

/// The keys that name the origin of a repository, each with the keys that go with it.
const ORIGINS: [(&str, &[&str]); 4] = [
    ("location", &[]),
    ("snapshot", &["format", "mirrors", "keyring", "fingerprints", "max-age", "max-unpacked", "max-entries"]),
    (
        "git",
        &["commit", "branch", "keyring", "fingerprints", "max-age", "allow-unsigned", "max-unpacked", "max-entries"],
    ),
    (
        "meta-repo",
        &[
            "release",
            "kits",
            "commit",
            "keyring",
            "fingerprints",
            "max-age",
            "allow-unsigned",
            "max-unpacked",
            "max-entries",
        ],
    ),
];

/// Keyring, fingerprints and greatest age.
type Trust = (Option<PathBuf>, Vec<String>, u64);

impl Checker<'_> {
    pub(super) fn repository(&mut self, value: &Value, source: Option<&Source>) -> Option<Written> {
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
        let priority = self.priority(table);
        let masters = self.words_in(table, "masters", "repository name", unchanged(words::repository));
        let eclass_overrides =
            self.words_in(table, "eclass-overrides", "repository name", unchanged(words::repository));
        let others = [&masters, &eclass_overrides].into_iter().flatten().flatten().map(|(word, _)| word.clone());
        let others = others.collect();
        let texts =
            |list: Option<Vec<(Word, String)>>| list.map(|list| list.into_iter().map(|(_, text)| text).collect());
        let (masters, eclass_overrides) = (texts(masters), texts(eclass_overrides));
        let repository = RepositorySpec { origin: origin?, priority, masters, eclass_overrides, kit: None };
        Some(Written { at, repository, others })
    }

    /// Returns the place and the origin of a repository that is written as a table. The origin is `None` if it has mistakes.
    fn origin(&mut self, at: &Place, table: &Table, source: Option<&Source>) -> Option<(Place, Option<Origin>)> {
        let mut given = ORIGINS.iter().filter_map(|(key, with)| Some((*key, *with, table.get(*key)?)));
        let Some((key, with, item)) = given.next() else {
            let problem = Problem::new("no `location`").help(
                "for example { location = \"../overlays/mine\", priority = 50 }, { snapshot = \"latest\" } or \
                 { git = \"https://…\", branch = \"stable\" }",
            );
            self.texts.problem(at, "a repository needs `location`, `snapshot`, `git` or `meta-repo`", problem);
            return None;
        };
        if let Some((other, _, second)) = given.next() {
            let title = format!("a repository has only one origin: `{key}` or `{other}`");
            self.texts.find(Finding::at(&second.key_at, title, "second origin").also(&item.key_at, "first origin"));
            return None;
        }
        let mut wrong: Vec<&str> = ORIGINS.iter().flat_map(|(_, others)| others.iter().copied()).collect();
        wrong.retain(|other| !with.contains(other) && table.contains_key(*other));
        wrong.sort_unstable();
        wrong.dedup();
        for other in &wrong {
            let title = format!("`{other}` does not apply to a repository with `{key}`");
            let finding = Finding::at(&table[*other].key_at, title, "remove this");
            self.texts.find(finding.also(&item.key_at, format!("because of `{key}`")));
        }
        let word = Word::of(&item.value)?;
        let origin = match key {
            "snapshot" => self.snapshot(&word, table, source).map(Origin::Snapshot),
            "git" => self.git(&word, table).map(Origin::Git),
            "meta-repo" => self.meta_repo(&word, table).map(Origin::MetaRepo),
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
            let problem = Problem::new("only for \"latest\"").help("the snapshot of a day may have any age");
            self.texts.problem(&age.key_at, "`max-age` does not apply to the snapshot of a day", problem);
        }
        let format = match table.get("format").and_then(|item| Word::of(&item.value)) {
            Some(word) => self.follow(&word, "format of a snapshot", words::snapshot_format),
            None => Some(SnapshotFormat::default()),
        };
        let mirrors = match self.words_in(table, "mirrors", "mirror", words::url) {
            Some(mirrors) => {
                let empty = |list: &Is| matches!(list, Is::List(list) if list.is_empty());
                if let Some(item) = table.get("mirrors").filter(|item| empty(&item.value.is)) {
                    let problem =
                        Problem::new("empty").help("remove `mirrors` to use those of [source], or Gentoo's own");
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

    fn meta_repo(&mut self, word: &Word, table: &Table) -> Option<MetaRepo> {
        for key in ["masters", "eclass-overrides"] {
            if let Some(item) = table.get(key) {
                let problem =
                    Problem::new("remove this").help("each kit names its masters in its own metadata/layout.conf");
                self.texts.problem(&item.key_at, format!("`{key}` does not apply to the kits of a meta-repo"), problem);
                return None;
            }
        }
        let Some(release) = table.get("release").and_then(|item| Word::of(&item.value)) else {
            let problem = Problem::new("no release").help("add release = \"1.4\"");
            self.texts.problem(&word.at, "a meta-repo needs the release of its kits", problem);
            return None;
        };
        let release = self.follow(&release, "release", unchanged(words::branch));
        let kits = self.words_in(table, "kits", "name of a kit", unchanged(words::repository)).unwrap_or_default();
        let kits = kits.into_iter().map(|(_, name)| name).collect();
        let place = if word.text.contains("://") {
            let branch = MetaRepo::branch_of(release.as_deref()?);
            self.git_at(word, table, Some(Some(branch))).map(MetaRepoPlace::Git)
        } else {
            let of_git =
                ["commit", "keyring", "fingerprints", "max-age", "allow-unsigned", "max-unpacked", "max-entries"];
            for item in of_git.iter().filter_map(|key| table.get(*key)) {
                let problem = Problem::new("remove this");
                self.texts.problem(&item.key_at, "this key does not apply to a meta-repo in a directory", problem);
            }
            self.path(word, Must::Directory).map(MetaRepoPlace::Directory)
        };
        Some(MetaRepo { at: place?, release: release?, kits })
    }

    pub(super) fn git(&mut self, word: &Word, table: &Table) -> Option<Git> {
        let branch = match table.get("branch").and_then(|item| Word::of(&item.value)) {
            Some(word) => self.follow(&word, "branch", unchanged(words::branch)).map(Some),
            None => Some(None),
        };
        self.git_at(word, table, branch)
    }

    /// Returns the commit of a repository or, if there is none, of its branch. `branch` is `None` if it has mistakes.
    fn git_at(&mut self, word: &Word, table: &Table, branch: Option<Option<String>>) -> Option<Git> {
        let url = self.follow(word, "address of a git repository", words::url);
        let commit = match table.get("commit").and_then(|item| Word::of(&item.value)) {
            Some(word) => self.follow(&word, "commit", words::commit).map(Some),
            None => Some(None),
        };
        if let (Some(None), Some(None)) = (&commit, &branch) {
            let problem = Problem::new("no commit or branch").help("add commit = \"…\" or branch = \"stable\"");
            self.texts.problem(&word.at, "a git repository needs a commit or a branch", problem);
            return None;
        }
        let allow_unsigned = matches!(table.get("allow-unsigned").map(|item| &item.value.is), Some(Is::Bool(true)));
        let (keyring, fingerprints, max_age) = self.trust(table)?;
        let (url, commit, branch) = (url?, commit?, branch?);
        let (bounds, named_by) = (Default::default(), None);
        let git = Git { url, commit, branch, keyring, fingerprints, max_age, allow_unsigned, bounds, named_by };
        self.check_signers(&git, word, table)?;
        if let (Some(_), Some(age)) = (&git.commit, table.get("max-age")) {
            let problem = Problem::new("only for a branch").help("an exact commit may have any age");
            self.texts.problem(&age.key_at, "`max-age` does not apply to an exact commit", problem);
        }
        let bounds = self.bounds(|_, key| table.get(key).map(|item| item.value.clone()))?;
        Some(Git { bounds, ..git })
    }

    /// Checks that a git repository names its signers, or accepts an exact commit without a signature.
    fn check_signers(&mut self, git: &Git, word: &Word, table: &Table) -> Option<()> {
        let named = git.keyring.is_some() || !git.fingerprints.is_empty();
        if git.allow_unsigned && git.commit.is_none() {
            let problem =
                Problem::new("no commit").help("only its ID identifies an unsigned commit: add commit = \"…\"");
            self.texts.problem(&word.at, "`allow-unsigned` needs an exact commit", problem);
            return None;
        }
        if git.allow_unsigned && named {
            let at = table.get("allow-unsigned").map_or(&word.at, |item| &item.key_at);
            let problem = Problem::new("remove this, or the signers");
            self.texts.problem(at, "`allow-unsigned` contradicts `keyring` and `fingerprints`", problem);
            return None;
        }
        if !git.allow_unsigned && !named && git.url != GENTOO_GIT {
            let problem = Problem::new("no signers")
                .help("add fingerprints = [\"…\"] or keyring = \"…\"; or, with an exact commit, allow-unsigned = true");
            self.texts.problem(&word.at, "a git repository needs the signers of its commits", problem);
            return None;
        }
        Some(())
    }

    fn trust(&mut self, table: &Table) -> Option<Trust> {
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

    /// Returns the priority in a table.
    pub(super) fn priority(&mut self, table: &Table) -> Option<i32> {
        let Some(Value { at, is: Is::Int(number) }) = table.get("priority").map(|item| &item.value) else {
            return None;
        };
        let priority = i32::try_from(*number).ok();
        if priority.is_none() {
            self.texts.problem(at, "a priority must fit into 32 bits", Problem::new("more than 32 bits"));
        }
        priority
    }

    /// Applies a rule to the words of a list in a table. Returns `None` if the key is absent.
    pub(super) fn words_in<T>(
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
