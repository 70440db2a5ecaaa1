//! The list of layers of `store list --layers`.

use std::time::UNIX_EPOCH;

use serde::Serialize;

use super::clean::row;
use crate::base::error::{Context, Kind, Result};
use crate::base::{text, time};
use crate::store::Store;
use crate::store::layers::{LayerRecord, Listed};
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
