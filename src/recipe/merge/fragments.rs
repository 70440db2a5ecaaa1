//! The recipe of a tuple: the fragments of its values, united, and its own keys over them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::tuples::{Chosen, Tuple};
use super::unite::Union;
use super::{MAX_FILES, Merger, Part, lay};
use crate::base::error::{Error, Result};
use crate::base::text::{escaped, nearest, quoted};
use crate::recipe::diagnostic::{Finding, Problem, Shown, Texts};
use crate::recipe::lineage::{TREE, TreePlace};
use crate::recipe::parse::{Is, Item, Table, Value};
use crate::recipe::words;
use crate::recipe::{AxisValue, BranchFailure, BranchTree};

/// The number of values that a message lists.
const SHOWN: usize = 20;

/// Lists the tuples of the tree whose root is `directory`, as paths of files in it. None if it is not the root of a tree.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage), with details that show every mistake in the shared file.
pub(in crate::recipe) fn tuples(directory: &Path, colour: bool) -> Result<Vec<PathBuf>> {
    if !directory.join(TREE).is_file() {
        return Ok(Vec::new());
    }
    let mut texts = Texts::default();
    let mut merger = Merger::new(&mut texts);
    let text = merger.shared_file(directory, None)?;
    let tuples = merger.tuples();
    texts.set_main(text);
    if texts.is_wrong() {
        return Err(texts.error(Shown::default(), colour));
    }
    Ok(tuples.iter().map(|tuple| directory.join(&tuple.name)).collect())
}

impl Merger<'_> {
    /// Lists the tuples of the tree that was read last.
    fn tuples(&mut self) -> Vec<Tuple> {
        self.trees.last().map(|tree| tree.tuples(self.texts)).unwrap_or_default()
    }

    /// Lays the recipe of a tuple over the tree, after the shared file of its tree. Returns the index of the text of that file.
    pub(super) fn tuple(&mut self, place: &TreePlace, shown: &Path) -> Result<Option<usize>> {
        let text = self.shared_file(&place.root, None)?;
        let tuples = self.tuples();
        let name = place.path();
        let Some(tuple) = tuples.iter().find(|tuple| tuple.name == name) else {
            if self.texts.is_wrong() {
                self.broken = true;
                return Ok(text);
            }
            let title = format!("cannot read the recipe {}", escaped(&shown.to_string_lossy()));
            let error = Error::usage(format!("{title}: it does not exist, and the tree has no such tuple"));
            return Err(match nearest(&name, tuples.iter().map(|tuple| tuple.name.as_str())) {
                Some(meant) => error.with_hint(format!("did you mean {meant}?")),
                None => error.with_hint("`quern-builder tree DIR` lists the images of a tree"),
            });
        };
        let below = std::mem::take(&mut self.tree);
        let part = std::mem::replace(&mut self.part, Part::Fragment);
        let (mut layers, mut overriding) = (Vec::new(), BTreeSet::new());
        for chosen in &tuple.values {
            let first = self.texts.len();
            self.fragment(chosen, place)?;
            if std::mem::take(&mut self.overrides) {
                overriding.extend(first..self.texts.len());
            }
            layers.push(std::mem::take(&mut self.tree));
        }
        (self.tree, self.part) = (below, part);
        let mut united = Table::new();
        let mut union = Union { texts: &mut *self.texts, overriding };
        layers.into_iter().for_each(|layer| union.unite(&mut united, layer));
        if let Some(text) = text {
            let named = united.remove("type");
            self.follow(Some(place), named, text)?;
        }
        lay(&mut self.tree, united);
        lay(&mut self.tree, tuple.own.clone());
        Ok(text)
    }

    /// Lays the fragment of a value over the tree.
    fn fragment(&mut self, chosen: &Chosen, place: &TreePlace) -> Result<()> {
        let axis = self.trees.iter().find(|tree| tree.root == place.root).and_then(|tree| tree.axes.get(&chosen.axis));
        let (from, at) = match axis.map(|item| (&item.value.is, item.key_at.clone())) {
            Some((Is::Table(axis), at)) => (axis.get("from").map(|from| from.value.clone()), at),
            _ => (None, chosen.at.clone()),
        };
        let git = from.as_ref().and_then(|from| match &from.is {
            Is::Table(table) => table.get("git").map(|git| git.value.clone()),
            _ => None,
        });
        match (git, from) {
            (Some(git), _) => self.branch(chosen, &git),
            (None, Some(from)) if from.as_str().is_some() => self.file_of(chosen, &from)?,
            _ => {
                let title = format!("the axis {} needs `from`, a directory of fragments", quoted(&chosen.axis));
                self.texts.find(Finding::at(&at, title, "no `from`").help("for example: from = \"cpu\""));
            }
        }
        Ok(())
    }

    /// Returns the directory that a value of quern-tree.toml names.
    fn directory(&self, named: &Value) -> PathBuf {
        self.texts.get(named.at.text).dir.join(named.as_str().unwrap_or_default())
    }

    /// Lays the fragment in a file over the tree.
    fn file_of(&mut self, chosen: &Chosen, from: &Value) -> Result<()> {
        self.axes.insert(chosen.axis.clone(), AxisValue::Fragment(chosen.value.clone()));
        let title = no_value(chosen);
        if let Err(problem) = words::name(&chosen.value) {
            let problem = problem.help("a value is the name of a file in the directory of the axis, without `.toml`");
            self.texts.problem(&chosen.at, title, problem);
            return Ok(());
        }
        let directory = self.directory(from);
        let path = directory.join(format!("{}.toml", chosen.value));
        if fs_err::symlink_metadata(&path).is_err() {
            let values = values(&directory);
            let finding = Finding::at(&chosen.at, title, "no such fragment").also(&from.at, "not in this directory");
            let meant = nearest(&chosen.value, values.iter().map(String::as_str));
            let known: Vec<&str> = values.iter().take(SHOWN).map(String::as_str).collect();
            let known = (!known.is_empty()).then(|| format!("values: {}", known.join(", ")));
            let meant = meant.map(|meant| format!("did you mean `{meant}`?"));
            self.texts.find(finding.maybe_help(meant).maybe_help(known));
        } else if self.texts.len() >= MAX_FILES {
            let problem = Problem::new(format!("more than {MAX_FILES} files"));
            self.texts.problem(&chosen.at, "too many fragments", problem);
        } else {
            self.file(&path, &path, Some(&chosen.at))?;
        }
        Ok(())
    }

    /// Makes the tree of a branch the directory `portage.config`.
    fn branch(&mut self, chosen: &Chosen, git: &Value) {
        let Some(branches) = self.branches else {
            let problem = Problem::new("this command has no store for its files");
            self.texts.problem(&git.at, "cannot read the git repository", problem);
            return;
        };
        let missing = |problem: Problem| {
            let finding = Finding::at(&chosen.at, no_value(chosen), problem.label);
            finding.also(&git.at, "the repository").maybe_help(problem.help)
        };
        let found = match words::branch(&chosen.value) {
            Ok(()) => branches.tree(&self.directory(git), &chosen.value),
            Err(problem) => return self.texts.find(missing(problem)),
        };
        let BranchTree { commit, path } = match found {
            Ok(tree) => tree,
            Err(BranchFailure::Repository { why, help }) => {
                let problem = Problem::new(why).help(help);
                return self.texts.problem(&git.at, "cannot read the git repository", problem);
            }
            Err(BranchFailure::Missing { help }) => {
                return self.texts.find(missing(Problem::new("no such branch").help(help)));
            }
            Err(BranchFailure::Tree(error)) => {
                let problem = Problem::new(error.to_string());
                return self.texts.problem(
                    &chosen.at,
                    format!("cannot use the branch {}", quoted(&chosen.value)),
                    problem,
                );
            }
        };
        let value = |is| Value { at: chosen.at.clone(), is };
        let item = |is| Item { key_at: chosen.at.clone(), value: value(is) };
        let config = Table::from([("config".to_owned(), item(Is::Str(path.to_string_lossy().into_owned())))]);
        lay(&mut self.tree, Table::from([("portage".to_owned(), item(Is::Table(config)))]));
        let value = AxisValue::Branch { branch: chosen.value.clone(), commit };
        self.axes.insert(chosen.axis.clone(), value);
    }
}

fn no_value(chosen: &Chosen) -> String {
    format!("the axis {} has no value {}", quoted(&chosen.axis), quoted(&chosen.value))
}

/// Lists the values of an axis: the names of the fragments in its directory.
fn values(directory: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_owned()));
    let mut names: Vec<String> = names.filter(|name| words::name(name).is_ok()).take(1000).collect();
    names.sort_unstable();
    names
}
