//! The layers of `store`: the list, and copies for other stores.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::Serialize;

use super::clean::row;
use super::named::{OutputFile, SpooledOutput};
use super::standard;
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::progress::Progress;
use crate::base::text::{self, counted};
use crate::base::time;
use crate::os::space;
use crate::recipe::lineage;
use crate::store::Store;
use crate::store::layers::{Copied, LayerRecord, Listed};
use crate::store::work::State;
use crate::ui::Terminal;

/// A layer in the JSON document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown<'a> {
    #[serde(flatten)]
    record: &'a LayerRecord,
    /// The identity of the state above it, which is the `parent` of the next layer.
    chain: String,
    /// Last use, in seconds since 1970.
    used: u64,
    in_use: bool,
}

/// Prints the layers, sorted by image and age.
pub(super) fn list(store: &Store, json: bool, ui: &Terminal) -> Result<()> {
    let layers = store.layers()?;
    if json {
        let shown: Vec<_> = layers.iter().map(shown).collect();
        ui.plan(&text::json(&shown).context(Kind::System, || "writing the document")?);
    } else if !layers.is_empty() {
        ui.plan(&layers.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}

/// Writes the layers of the last builds of `recipes` to the file `output` or to standard output.
pub(super) fn export(store: &Store, recipes: &[PathBuf], output: Option<&Path>, ui: &Terminal) -> Result<()> {
    let mut keys = Vec::new();
    for recipe in recipes {
        let built = last_build(store, &lineage::recipe_at(recipe))?;
        keys.extend(built.layers.into_iter().map(|(_, key)| key));
    }
    let mut seen = BTreeSet::new();
    keys.retain(|key| seen.insert(*key));
    let copied = match output {
        Some(path) => {
            let mut file = SpooledOutput::new(OutputFile::find(path, "archive")?, "archive")?;
            let copied = store.export_layers(&keys, &mut file, ui).map_err(|error| space::told(error, &[path]))?;
            file.keep()?;
            copied
        }
        None => store.export_layers(&keys, &mut standard::archive()?, ui)?,
    };
    ui.note(&format!("exported {}", told(copied, "of this store alone")));
    Ok(())
}

/// Imports layers from the file `from`; `-` is standard input.
pub(super) fn import(store: &Store, from: &Path, ui: &Terminal) -> Result<()> {
    let copied = if from == Path::new("-") {
        store.import_layers(standard::input()?, "standard input", ui)
    } else {
        let file = fs_err::File::open(from).context(Kind::Usage, || "opening the archive")?;
        store.import_layers(file, &from.display().to_string(), ui)
    };
    let copied = copied.map_err(|error| space::told(error, &[store.root()]))?;
    ui.note(&format!("imported {}", told(copied, "in the store already")));
    Ok(())
}

fn told(copied: Copied, others: &str) -> String {
    let Copied { layers, left_out } = copied;
    let layers = counted(layers, "layer");
    if left_out == 0 { layers } else { format!("{layers}; {left_out} are {others}") }
}

/// Returns the state that the last build of a recipe left.
///
/// # Errors
/// [`Kind::Usage`] if the recipe was not built.
pub(super) fn last_build(store: &Store, recipe: &Path) -> Result<State> {
    let origin = lineage::identity(recipe).context(Kind::Usage, || "finding the recipe")?;
    store.last_state(&origin)?.ok_or_else(|| {
        Error::usage(format!("the store has no build of {}", text::line(&recipe.to_string_lossy())))
            .with_hint("`quern-builder store list --layers` lists the layers and their images")
    })
}

fn shown(layer: &Listed) -> Shown<'_> {
    Shown { record: &layer.record, chain: layer.record.chain().hex(), used: used(layer), in_use: layer.busy }
}

fn line(layer: &Listed) -> String {
    let LayerRecord { bytes, key, image, step, .. } = &layer.record;
    let busy = if layer.busy { " (in use)" } else { "" };
    row(*bytes, &format!("{}  {}  {image} {step}{busy}", time::readable(used(layer)), &key.hex()[..16]))
}

fn used(layer: &Listed) -> u64 {
    layer.used.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
