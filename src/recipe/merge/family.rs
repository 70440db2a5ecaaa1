//! The recipes that an image starts from, and the file that the images of a tree share.

use std::path::Path;

use super::{MAX_FILES, Merger, Part};
use crate::base::error::Result;
use crate::recipe::diagnostic::{Finding, Place, Problem};
use crate::recipe::lineage::{self, TREE, TreePlace};
use crate::recipe::parse::{Is, Table};

/// The keys of `[build]` that an image has in common with the one that it starts from.
const INHERITED_OF_BUILD: [&str; 2] = ["kind", "profile"];
/// The tables that an image has in common with the one that it starts from.
const INHERITED: [&str; 5] = ["source", "portage", "sets", "vars", "volume"];

/// The keys of `[oci]` that an image never has in common with the one that it starts from.
const OWN_OF_OCI: [&str; 2] = ["cuts", "on-parent"];

impl Merger<'_> {
    /// Lays the recipe of an image over the tree, after the shared file of its tree and the recipes that it starts from.
    pub(super) fn image(&mut self, path: &Path, shown: &Path, from: Option<&Place>) -> Result<Option<usize>> {
        let place = TreePlace::of(path);
        if let Some(place) = place.as_ref().filter(|place| !self.roots.contains(&place.root)) {
            self.roots.push(place.root.clone());
            let part = self.part;
            // A tree of another image counts as a part of that image.
            self.part = if part == Part::Own { Part::Shared } else { part };
            let file = place.root.join(TREE);
            self.file(&file, &file, from)?;
            self.part = part;
        }
        self.image = Some(place);
        self.file(path, shown, from)
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

    /// Notes the keys of a layer that its file must not have.
    pub(super) fn check_part(&mut self, layer: &mut Table, is_image: bool) {
        let mut refuse = |key: &str, title: &str, label: &str| {
            if let Some(item) = layer.remove(key) {
                self.texts.find(Finding::at(&item.key_at, title, label));
            }
        };
        if self.part == Part::Shared {
            refuse("name", "the images of a tree have the names of their directories", "not for all images");
        } else {
            refuse("tree", "`[tree]` is for the file quern-tree.toml", "not in a recipe");
        }
        if !is_image {
            refuse("from", "`from` is for the recipe of an image", "only in the recipe itself");
        }
        if self.below {
            let title = "an image that starts from another one has the stage3 of that one";
            refuse("source", title, "the source is given again here");
        }
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
