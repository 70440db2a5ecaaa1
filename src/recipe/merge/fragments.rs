//! The recipe of a tuple: the fragments of its values, united, and its own keys over them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::tuples::{Chosen, Tuple};
use super::unite::Union;
use super::{MAX_FILES, Merger, Part, lay};
use crate::base::error::{Error, Result};
use crate::base::text::{escaped, nearest, quoted};
use crate::recipe::diagnostic::{Finding, Place, Problem, Texts};
use crate::recipe::lineage::{TREE, TreePlace};
use crate::recipe::parse::{Is, Table};
use crate::recipe::words;

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
        return Err(texts.error(colour));
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
            self.axes.insert(chosen.axis.clone(), chosen.value.clone());
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
        let tree = self.trees.iter().find(|tree| tree.root == place.root);
        let from = tree.and_then(|tree| match &tree.axes.get(&chosen.axis)?.value.is {
            Is::Table(axis) => axis.get("from").cloned(),
            _ => None,
        });
        let title = format!("the axis {} has no value {}", quoted(&chosen.axis), quoted(&chosen.value));
        let Some((from, directory)) = from.as_ref().and_then(|from| Some((from, from.value.as_str()?))) else {
            let at = tree.and_then(|tree| tree.axes.get(&chosen.axis)).map(|item| item.key_at.clone());
            let title = format!("the axis {} needs `from`, a directory of fragments", quoted(&chosen.axis));
            let finding = Finding::at(&at.unwrap_or_else(|| chosen.at.clone()), title, "no `from`");
            self.texts.find(finding.help("for example: from = \"cpu\""));
            return Ok(());
        };
        if let Err(problem) = words::name(&chosen.value) {
            let problem = problem.help("a value is the name of a file in the directory of the axis, without `.toml`");
            self.texts.problem(&chosen.at, title, problem);
            return Ok(());
        }
        let directory = self.texts.get(from.value.at.text).dir.join(directory);
        let path = directory.join(format!("{}.toml", chosen.value));
        if fs_err::symlink_metadata(&path).is_err() {
            let values = values(&directory);
            let finding =
                Finding::at(&chosen.at, title, "no such fragment").also(&from.value.at, "not in this directory");
            let meant = nearest(&chosen.value, values.iter().map(String::as_str));
            let known: Vec<&str> = values.iter().take(SHOWN).map(String::as_str).collect();
            let known = (!known.is_empty()).then(|| format!("values: {}", known.join(", ")));
            self.texts
                .find(finding.maybe_help(meant.map(|meant| format!("did you mean `{meant}`?"))).maybe_help(known));
        } else if self.texts.len() >= MAX_FILES {
            let problem = Problem::new(format!("more than {MAX_FILES} files"));
            self.texts.problem(&chosen.at, "too many fragments", problem);
        } else {
            let at: Place = chosen.at.clone();
            self.file(&path, &path, Some(&at))?;
        }
        Ok(())
    }
}

/// Lists the values of an axis: the names of the fragments in its directory.
fn values(directory: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_owned()));
    let mut names: Vec<String> = names.filter(|name| words::name(name).is_ok()).take(1000).collect();
    names.sort_unstable();
    names
}
