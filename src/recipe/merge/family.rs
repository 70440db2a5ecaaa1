//! The recipes that an image starts from, and the file that the images of a tree share.

use std::path::{Path, PathBuf};

use super::{MAX_FILES, Merger, Part, lay};
use crate::base::error::Result;
use crate::recipe::diagnostic::{Finding, Place, Problem};
use crate::recipe::lineage::{self, TREE, TreePlace};
use crate::recipe::parse::{Is, Item, Table, Value};

/// The keys of `[build]` that an image has in common with the one that it starts from.
const INHERITED_OF_BUILD: [&str; 2] = ["kind", "profile"];
/// The tables that an image has in common with the one that it starts from.
const INHERITED: [&str; 5] = ["source", "portage", "sets", "vars", "volume"];

/// The keys of `[oci]` that an image never has in common with the one that it starts from.
const OWN_OF_OCI: [&str; 2] = ["cuts", "on-parent"];

/// A tree whose shared file was read, with the things that only this file can define.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The root directory.
    pub(super) root: PathBuf,
    /// The types of images, by name.
    pub(super) types: Table,
    /// The axes of tuples, by name.
    pub(super) axes: Table,
    /// The tuples.
    pub(super) tuples: Vec<Value>,
}

/// Keys for the shared file of a tree only.
const OF_TREE: [(&str, &str); 3] = [
    ("tree", "`[tree]` is for the file quern-tree.toml"),
    ("axis", "`[axis]` is for the file quern-tree.toml"),
    ("tuple", "`[[tuple]]` is for the file quern-tree.toml"),
];
/// Keys that a fragment of a tuple cannot have.
const NOT_OF_FRAGMENT: [(&str, &str); 3] = [
    ("name", "a tuple has the name that quern-tree.toml gives it"),
    ("from", "a tuple starts from no other image"),
    ("source", "the tuples of a tree have the source of the tree"),
];

impl Tree {
    /// Moves what only the shared file of a tree can define out of a layer.
    fn take_from(&mut self, layer: &mut Table) {
        for (key, all) in [("type", &mut self.types), ("axis", &mut self.axes)] {
            if let Some(Is::Table(table)) = layer.remove(key).map(|item| item.value.is) {
                lay(all, table);
            }
        }
        if let Some(Is::List(list)) = layer.remove("tuple").map(|item| item.value.is) {
            self.tuples.extend(list);
        }
    }
}

impl Merger<'_> {
    /// Lays the recipe of an image over the tree, after the shared file of its tree and the recipes that it starts from.
    pub(super) fn image(&mut self, path: &Path, shown: &Path, from: Option<&Place>) -> Result<Option<usize>> {
        let place = TreePlace::of(path);
        if let Some(place) = place.as_ref().filter(|place| !self.trees.iter().any(|tree| tree.root == place.root)) {
            self.shared_file(&place.root, from)?;
        }
        self.image = Some(place);
        self.file(path, shown, from)
    }

    /// Lays the shared file of the tree in `root` over the tree. Returns the index of its text.
    pub(super) fn shared_file(&mut self, root: &Path, from: Option<&Place>) -> Result<Option<usize>> {
        self.trees.push(Tree { root: root.to_owned(), ..Tree::default() });
        let part = self.part;
        // A tree of another image counts as a part of that image.
        self.part = if part == Part::Own { Part::Shared } else { part };
        self.is_shared_file = true;
        let file = root.join(TREE);
        let text = self.file(&file, &file, from)?;
        (self.part, self.is_shared_file) = (part, false);
        self.check_types();
        Ok(text)
    }

    /// Lays the recipe that an image starts from over the tree: the one that `from` names, or that of the directory above. `text` is
    /// the text of the image.
    pub(super) fn start(&mut self, place: Option<&TreePlace>, layer: &mut Table, text: usize) -> Result<()> {
        let from = layer.remove("from").map(|from| from.value);
        let from = from.as_ref();
        let named = from.and_then(|from| Some((from.as_str()?, &from.at)));
        let (path, shown, at) = match (named, place.and_then(TreePlace::above)) {
            (Some((name, at)), _) => {
                let path = lineage::recipe_at(&self.texts.get(text).dir.join(name));
                (path, Path::new(&self.texts.get(text).label).with_file_name(name), Some(at))
            }
            (None, Some(above)) => (above.clone(), above, None),
            (None, None) => return Ok(()),
        };
        let identity = path.canonicalize().unwrap_or_else(|_| path.clone());
        if let Some(at) = at {
            let problem = if self.stack.contains(&identity) {
                Some(("images start from each other in a cycle", "this recipe is already being read".to_owned()))
            } else if self.texts.len() >= MAX_FILES {
                Some(("too many recipes start from each other", format!("more than {MAX_FILES} files")))
            } else {
                None
            };
            if let Some((title, label)) = problem {
                self.texts.problem(at, title, Problem::new(label));
                return Ok(());
            }
        }
        if self.part == Part::Own {
            self.parent = Some(identity);
        }
        let (part, inherits_oci) = (self.part, self.inherits_oci);
        let is_on_parent = on_parent(layer).or_else(|| on_parent(&self.tree)).unwrap_or(false);
        self.inherits_oci = is_on_parent && (part == Part::Own || inherits_oci);
        self.part = Part::Parent;
        self.image(&path, &shown, at)?;
        (self.part, self.inherits_oci, self.below) = (part, inherits_oci, true);
        Ok(())
    }

    /// Notes the keys of a layer that its file must not have. Returns the type of the image.
    pub(super) fn check_part(&mut self, layer: &mut Table, is_image: bool) -> Option<Item> {
        if self.is_shared_file
            && let Some(tree) = self.trees.last_mut()
        {
            let is_name = layer.get("type").is_some_and(|item| item.value.as_str().is_some());
            let named = if is_name { layer.remove("type") } else { None };
            tree.take_from(layer);
            layer.extend(named.map(|item| ("type".to_owned(), item)));
        }
        let is_fragment = self.part == Part::Fragment;
        let mut refuse = |key: &str, title: &str, label: &str| {
            if let Some(item) = layer.remove(key) {
                self.texts.find(Finding::at(&item.key_at, title, label));
            }
        };
        if self.is_shared_file {
            refuse("name", "the images of a tree have the names of their directories", "not for all images");
            refuse("needs", "`needs` is for the recipe of an image", "not for all images");
        } else {
            for (key, title) in OF_TREE {
                refuse(key, title, "not in a recipe");
            }
        }
        if is_fragment {
            for (key, title) in NOT_OF_FRAGMENT {
                refuse(key, title, "not in a fragment");
            }
        } else {
            refuse("override", "`override` is for a fragment of a tuple", "not in a recipe");
        }
        if !is_image {
            refuse("from", "`from` is for the recipe of an image", "only in the recipe itself");
        }
        if !is_image {
            refuse("tuples", "`tuples` is for the recipe of an image", "only in the recipe itself");
        }
        if !is_image && !is_fragment {
            refuse("type", "the name of a type is for the recipe of an image", "only in the recipe itself");
        }
        if self.below {
            let title = "an image that starts from another one has the stage3 of that one";
            refuse("source", title, "the source is given again here");
        }
        if is_fragment && let Some(Is::Bool(true)) = layer.remove("override").map(|item| item.value.is) {
            self.overrides = true;
        }
        let named = layer.get("type").map(|item| item.value.clone());
        if let Some(Value { at, is: Is::Table(_) }) = named {
            let finding = Finding::at(&at, "types are defined in the file quern-tree.toml", "a definition");
            self.texts.find(finding.help("the recipe of an image names its type: type = \"stage4\""));
            layer.remove("type");
        }
        if is_image { layer.remove("type") } else { None }
    }
}

/// Returns `oci.on-parent` of a recipe, if it is there.
fn on_parent(recipe: &Table) -> Option<bool> {
    let Some(Is::Table(oci)) = recipe.get("oci").map(|item| &item.value.is) else { return None };
    oci.get("on-parent").map(|item| matches!(item.value.is, Is::Bool(true)))
}

/// Returns the part of a recipe that an image has in common with the one that it starts from; `with_oci` if that is so of `[oci]`, too.
pub(super) fn inherited(mut layer: Table, with_oci: bool) -> Table {
    if let Some(Is::Table(build)) = layer.get_mut("build").map(|item| &mut item.value.is) {
        build.retain(|key, _| INHERITED_OF_BUILD.contains(&key.as_str()));
    }
    if let Some(Is::Table(oci)) = layer.get_mut("oci").map(|item| &mut item.value.is) {
        oci.retain(|key, _| !OWN_OF_OCI.contains(&key.as_str()));
    }
    let is_inherited = |key: &str| key == "build" || INHERITED.contains(&key) || (with_oci && key == "oci");
    layer.retain(|key, _| is_inherited(key));
    layer
}
