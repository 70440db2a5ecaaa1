//! The images that an image needs: `needs`, and `of` of volumes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::ask::User;
use super::diagnostic::{Finding, Place, Problem, Shown, Texts};
use super::lineage;
use super::parse::{Is, Table, Value};
use super::variables::Family;
use super::{OtherImage, Read, Request, read};
use crate::base::error::Result;

/// The greatest number of images that need each other in a row.
pub(super) const MAX_DEPTH: usize = 32;

/// Facts about the recipes of other images, apart from the images.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) warnings: Vec<String>,
    /// Their answers, which are not variables of this recipe.
    pub(super) answers: BTreeMap<String, String>,
    /// The answers that they lack.
    pub(super) unanswered: Shown,
}

/// Reads the recipes of the images that the recipe `tree` needs, each once, and takes the key `needs` from it. Notes mistakes of the
/// recipe itself in `texts`.
///
/// # Errors
/// Those of [`read`], for another recipe.
pub(super) fn load(
    request: &Request,
    texts: &mut Texts,
    tree: &mut Table,
    family: &mut Family,
    user: &mut dyn User,
) -> Result<Notes> {
    let mut notes = Notes::default();
    for value in named(tree) {
        let Some(name) = value.as_str() else { continue };
        let origin = origin(texts, &value.at, name);
        if family.needs.iter().any(|other| other.origin == origin) {
            continue;
        }
        if let Some(finding) = mistake(request, &value.at, name, &origin) {
            texts.find(finding);
            continue;
        }
        let Read { loaded, unanswered } = read(&request.of_other(origin.clone()), user)?;
        notes.unanswered.extend(unanswered);
        notes.answers.extend(loaded.answers);
        family.questions.extend(loaded.questions);
        notes.warnings.extend(loaded.warnings);
        family.needs.push(OtherImage { job: loaded.job, origin });
    }
    Ok(notes)
}

/// Returns the recipe that `name` means, written at the place `at`.
pub(super) fn origin(texts: &Texts, at: &Place, name: &str) -> PathBuf {
    let path = lineage::recipe_at(&texts.get(at.text).dir.join(name));
    lineage::identity(&path).unwrap_or(path)
}

/// Takes `needs` from a recipe. Returns its values, and those of `of` of volumes.
fn named(tree: &mut Table) -> Vec<Value> {
    let mut named = match tree.remove("needs").map(|item| item.value.is) {
        Some(Is::List(list)) => list,
        _ => Vec::new(),
    };
    if let Some(Is::Table(volumes)) = tree.get("volume").map(|item| &item.value.is) {
        let of = volumes.values().filter_map(|volume| match &volume.value.is {
            Is::Table(volume) => volume.get("of").map(|of| of.value.clone()),
            _ => None,
        });
        named.extend(of);
    }
    named
}

/// Returns the mistake in the name of an image that is needed, if there is one.
fn mistake(request: &Request, at: &Place, name: &str, origin: &Path) -> Option<Finding> {
    let wrong = |title: &str, problem: Problem| {
        let finding = Finding::at(at, title.to_owned(), problem.label);
        Some(match problem.help {
            Some(help) => finding.help(help),
            None => finding,
        })
    };
    if name.is_empty() || name.contains('\0') {
        return wrong("an image that is needed has no name", Problem::new("not a path"));
    }
    if lineage::identity(origin).is_err() {
        let help = "name the directory of the image, or the file of its recipe";
        return wrong("cannot find an image that is needed", Problem::new("no such recipe").help(help));
    }
    if request.own_origin().as_deref() == Some(origin) || request.within.iter().any(|file| file == origin) {
        return wrong("images need each other in a cycle", Problem::new("this image waits for the one that needs it"));
    }
    if request.within.len() >= MAX_DEPTH {
        return wrong("too many images need each other", Problem::new(format!("more than {MAX_DEPTH} in a row")));
    }
    None
}
