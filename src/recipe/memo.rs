//! The recipes of a run, each read once. The images of a tree have parents in common: without this memory, each image would read and merge
//! the recipes of all its parents again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::needs::MAX_DEPTH;
use super::parse::Table;
use super::{Read, Request};

/// The recipes that were read for a request and its copies. A file that changes afterwards is not read again, so that all images
/// that a process builds have the same recipes.
#[derive(Clone, Default)]
pub struct Memo(Rc<Kept>);

#[derive(Default)]
struct Kept {
    /// Recipes without mistakes, with the greatest number of images in a row that start from or need each other.
    recipes: RefCell<BTreeMap<Key, (Read, usize)>>,
    /// Files without mistakes and warnings.
    files: RefCell<BTreeMap<PathBuf, Rc<Parsed>>>,
    /// The number of files that were read.
    reads: Cell<usize>,
}

/// A recipe: its file, and the values of `--set`. The other parts of a request are the same for all recipes of a run.
type Key = (PathBuf, Vec<String>);

/// A file and its checked values. Their places name the first text.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) text: String,
    pub(super) layer: Table,
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.recipes.borrow().keys()).finish()
    }
}

impl Memo {
    /// Returns the recipe of a request, if it was read before.
    pub(super) fn recipe(&self, request: &Request) -> Option<Read> {
        let recipes = self.0.recipes.borrow();
        let (read, height) = recipes.get(&key(request)?)?;
        // Otherwise, it is read again for the message.
        (request.within.len() + height <= MAX_DEPTH).then(|| read.clone())
    }

    /// Keeps the recipe of a request.
    pub(super) fn keep_recipe(&self, request: &Request, read: &Read) {
        let Some(key) = key(request) else { return };
        let mut recipes = self.0.recipes.borrow_mut();
        let sets = request.common_sets();
        let others = read.loaded.job.others();
        let heights = others.filter_map(|other| recipes.get(&(other.origin.clone(), sets.clone())));
        let height = 1 + heights.map(|(_, height)| *height).max().unwrap_or_default();
        recipes.insert(key, (read.clone(), height));
    }

    /// Returns the file at `path`, if it was read before.
    pub(super) fn file(&self, path: &Path) -> Option<Rc<Parsed>> {
        self.0.files.borrow().get(path).cloned()
    }

    /// Keeps the file at `path`.
    pub(super) fn keep_file(&self, path: &Path, text: &str, layer: &Table) {
        let keep = || Rc::new(Parsed { text: text.to_owned(), layer: layer.clone() });
        self.0.files.borrow_mut().entry(path.to_owned()).or_insert_with(keep);
    }

    /// Counts a file that is read.
    pub(super) fn count(&self) {
        self.0.reads.set(self.0.reads.get() + 1);
    }

    /// The number of files that were read.
    #[cfg(test)]
    pub(super) fn reads(&self) -> usize {
        self.0.reads.get()
    }

    /// The number of recipes that were merged.
    #[cfg(test)]
    pub(super) fn merges(&self) -> usize {
        self.0.recipes.borrow().len()
    }
}

/// Returns the key of a request for one file. Standard input can be read only once.
fn key(request: &Request) -> Option<Key> {
    match request.files.as_slice() {
        [file] if file != Path::new("-") => Some((request.cwd.join(file), request.sets.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::recipe::ask::Nobody;
    use crate::recipe::tests::Place;
    use crate::recipe::{Request, load, load_each, read_each};

    const TREE: &str = "[source]\nstage3 = 'amd64-musl'\n[portage]\nrepositories = ['repo']\n[build]\nprofile = 'main:base'\n\
                        kind = 'stage4'\n";

    /// A tree of `p`, and of five chains of four images that start from it.
    fn tree() -> (Place, Vec<PathBuf>) {
        let place = Place::new();
        place.write("quern-tree.toml", TREE);
        let mut files = vec![PathBuf::from("p/quern.toml")];
        for chain in 0..5 {
            let mut path = "p".to_owned();
            for depth in 0..4 {
                path += &format!("/{chain}-{depth}");
                files.push(PathBuf::from(&path).join("quern.toml"));
            }
        }
        for file in &files {
            place.write(file.to_str().unwrap(), "[[step]]\nname = 's'\nrun = 'true'\n");
        }
        (place, files)
    }

    #[test]
    fn the_recipes_of_parents_are_read_and_merged_once() {
        let (place, files) = tree();
        let request = Request { cwd: place.path().canonicalize().unwrap(), ..place.request(&[]) };
        let all = read_each(&request, &files, &mut Nobody).unwrap();
        assert_eq!((request.memo.merges(), request.memo.reads()), (files.len(), files.len() + 1));
        for (file, loaded) in files.iter().zip(all) {
            let alone = load(&Request { files: vec![file.clone()], ..request.clone() }).unwrap();
            assert_eq!(loaded.job, alone.job);
        }
        assert_eq!(request.memo.merges(), files.len(), "a recipe alone is read anew");
    }

    #[test]
    fn a_recipe_with_other_values_is_another_recipe() {
        let (place, files) = tree();
        let each = |sets: &[&str]| {
            let sets = sets.iter().map(|set| (*set).to_owned()).collect();
            let all = load_each(&Request { sets, ..place.request(&[]) }, &files[..2], &mut Nobody).unwrap();
            (all[0].job.clone(), all[1].job.clone())
        };
        let ((own, below), (other, above)) = (each(&[]), each(&["emerge.packages=['a/b']"]));
        assert_eq!((own.emerge.packages.len(), other.emerge.packages.len()), (0, 1));
        // Packages are those of the image that is built, not of the one that it starts from.
        assert_eq!(above.from.as_ref().map(|parent| &parent.job), Some(&own));
        assert_eq!(below.from, above.from);
    }

    #[test]
    fn a_mistake_names_the_file_as_the_user_does() {
        let (place, files) = tree();
        place.write(files[1].to_str().unwrap(), "[[step]]\nname = 's'\nrum = 'true'\n");
        let request = place.request(&[]);
        for file in [files[1].clone(), place.path().join(&files[1])] {
            let error = read_each(&request, std::slice::from_ref(&file), &mut Nobody).unwrap_err();
            assert!(error.to_string().contains(&format!("{}: 1 mistake", file.display())), "{error}");
        }
    }
}
