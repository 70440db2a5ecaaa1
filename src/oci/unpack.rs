//! Unpacks an image into a tree: layer over layer, each verified as a whole before any of its entries is created.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Seek as _;
use std::path::Path;

use super::digest::{self, Digest};
use super::document::Document as _;
use super::layout::{CONFIG, Config, Descriptor, Layout, Manifest, layer_format};
use super::whiteouts::Whiteouts;
use super::{Checked, Fault, layer, reference, refused, whiteout};
use crate::archive::unpack::decode::{Decoder, Format};
use crate::archive::unpack::hashed::Hashed;
use crate::archive::unpack::limits::{Limits, Spent};
use crate::archive::unpack::reader::Reader;
use crate::archive::unpack::{Deferred, RaisedBy, Unpacker};
use crate::base::error::{Context, Error, Result};
use crate::base::progress::Progress;
use crate::base::refusal::{Code, Reason};
use crate::base::text::printable;
use crate::fs::rootfs::Rootfs;
use crate::fs::staging::{Directory, tree_place};

/// Limits that the user sets for all layers together. Unset ones depend on the size of the layers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demand {
    /// Unpacked bytes, counted like [`Limits::bytes`].
    pub bytes: Option<u64>,
    /// Number of entries.
    pub entries: Option<u64>,
}

/// Unpacks the image `name` (a tag or a digest) of the layout in `dir` into the directory `tree`, which must not exist or be empty.
/// The tree appears when it is complete. Returns what the kernel refused to create.
pub fn unpack(dir: &Path, name: &str, tree: &Path, demand: &Demand, ui: &dyn Progress) -> Result<Deferred> {
    let layout = Layout::open(dir)?;
    let object = |what: &str| format!("{what} in {}", dir.display());
    let index = layout.index().map_err(|fault| fault.into_error(&object("index.json")))?;
    let manifest = reference::find(&layout, &index, name)?;
    let called = object(&printable(&manifest.digest));
    let (manifest, diff_ids) = image(&layout, &manifest).map_err(|fault| fault.into_error(&called))?;
    let limits = layer::limits(&manifest.layers, demand).map_err(|reason| {
        let hint = Limits::default().set(None, None, RaisedBy::Options).hint(reason.code);
        hint.into_iter().fold(refused(&called, &reason), Error::with_hint)
    })?;

    let (above, name) = tree_place(tree)?;
    let staging = Directory::create(above.fd(), above.path(), ui)?;
    let path = staging.name().join("tree");
    // The mode of the root, unless a layer has an entry for it.
    above.create_dir(&path, 0o755)?;
    let root = above.subtree(&path, tree)?;
    let mut image = Image { layout: &layout, root: &root, limits, deferred: Deferred::default(), ui };
    image.layers(&manifest.layers, &diff_ids)?;
    root.sync()?;
    staging.undisturbed(|| above.rename(&path, name))?;
    Ok(image.deferred)
}

/// Reads the manifest of an image and the diff IDs of its layers.
fn image(layout: &Layout, descriptor: &Descriptor) -> Checked<(Manifest, Vec<String>)> {
    let manifest: Manifest = layout.document(descriptor)?;
    manifest.check()?;
    if manifest.config.media_type != CONFIG {
        return Err(Reason::new(Code::BadMediaType, "its configuration is not that of an image").into());
    }
    let config: Config = layout.document(&manifest.config)?;
    let diff_ids = config.diff_ids()?;
    manifest.check_count(&diff_ids)?;
    Ok((manifest, diff_ids))
}

/// Facts about a layer that was read before.
#[derive(Clone, Copy)]
struct Known {
    spent: Spent,
    has_whiteouts: bool,
}

/// A layer with a verified blob.
struct LayerFile<'a> {
    file: File,
    format: Format,
    descriptor: &'a Descriptor,
    diff_id: &'a str,
    /// The digest for messages.
    name: String,
}

impl LayerFile<'_> {
    /// Returns the file at its beginning.
    fn start(&self) -> Result<File> {
        let doing = || format!("reading layer {}", self.name);
        let mut file = self.file.try_clone().system(doing)?;
        file.rewind().system(doing)?;
        Ok(file)
    }
}

/// An image while it is unpacked.
struct Image<'a> {
    layout: &'a Layout,
    root: &'a Rootfs,
    limits: Limits,
    deferred: Deferred,
    ui: &'a dyn Progress,
}

impl Image<'_> {
    fn layers(&mut self, layers: &[Descriptor], diff_ids: &[String]) -> Result<()> {
        let mut known = BTreeMap::new();
        for (descriptor, diff_id) in layers.iter().zip(diff_ids) {
            let key = (&descriptor.digest, descriptor.size, &descriptor.media_type, diff_id);
            let layer = self.layer(descriptor, diff_id, known.get(&key).copied());
            let layer = layer.map_err(|fault| self.error(fault, descriptor))?;
            known.insert(key, layer);
        }
        Ok(())
    }

    /// Unpacks a layer over those below. `known` are the facts of an earlier reading: the diff ID is then verified already.
    fn layer(&mut self, descriptor: &Descriptor, diff_id: &str, known: Option<Known>) -> Checked<Known> {
        let Some(format) = layer_format(&descriptor.media_type) else {
            return Err(Reason::new(Code::BadMediaType, "its media type is not that of a layer").into());
        };
        if let Some(known) = known.filter(|known| known.spent.entries == 0) {
            layer::spend(&mut self.limits, known.spent)?;
            return Ok(known);
        }
        let file = if known.is_some() { self.layout.open_blob(descriptor)? } else { self.layout.blob(descriptor)? };
        let layer = LayerFile { file, format, descriptor, diff_id, name: printable(&descriptor.digest) };
        let known = match known {
            Some(known) if !known.has_whiteouts => known,
            _ => self.whiteouts(&layer)?,
        };
        self.entries(&layer)?;
        layer::spend(&mut self.limits, known.spent)?;
        Ok(known)
    }

    /// Reads a layer to its end, verifies its diff ID and applies its whiteouts.
    fn whiteouts(&mut self, layer: &LayerFile<'_>) -> Checked<Known> {
        let expected = Digest::parse(layer.diff_id)?;
        let mut whiteouts = Whiteouts::new(&self.limits);
        let mut add = |_, whiteout: Option<_>| whiteout.map_or(Ok(()), |whiteout| whiteouts.add(whiteout));
        let bad = |error| Fault::of_layer(error, &layer.name);
        let read = layer::read(layer.start()?, layer.format, expected.algorithm(), &self.limits, &mut add);
        let read = read.map_err(bad)?;
        if read.digest != Some(expected) {
            return Err(diff_id_mismatch().into());
        }
        if !whiteouts.apply(self.root, &mut self.deferred)? {
            let decoder =
                Decoder::of(layer.format, layer.start()?).system(|| format!("reading layer {}", layer.name))?;
            let mut reader = Reader::of_layer(decoder, self.limits.clone());
            while let Some(entry) = reader.next_entry().map_err(bad)? {
                let whiteout = whiteout::of(&entry)?;
                whiteouts.follow(self.root, &mut self.deferred, &entry, whiteout.as_ref())?;
            }
        }
        Ok(Known { spent: read.spent, has_whiteouts: !whiteouts.is_empty() })
    }

    /// Creates the entries of a layer. Verifies the digest of the blob again: it may have changed since the first reading.
    fn entries(&mut self, layer: &LayerFile<'_>) -> Checked<()> {
        let expected = Digest::parse(&layer.descriptor.digest)?;
        let (input, sums) = Hashed::new(layer.start()?, expected.algorithm());
        let decoder = Decoder::of(layer.format, input).system(|| format!("reading layer {}", layer.name))?;
        let unpacker = Unpacker { name: &layer.name, into: self.root, limits: &self.limits, ui: self.ui };
        let below = std::mem::take(&mut self.deferred);
        self.deferred = unpacker.layer(decoder, layer.descriptor.size, below, &mut |entry| {
            let whiteout = whiteout::of(entry);
            whiteout.map(|whiteout| whiteout.is_none()).map_err(|reason| refused(&layer.name, &reason))
        })?;
        let found = sums.get().and_then(|sums| Digest::from_sums(expected.algorithm(), sums));
        if found == Some(expected) { Ok(()) } else { Err(digest::mismatch().into()) }
    }

    /// Converts the fault of a layer into an error, with the option that raises a limit.
    fn error(&self, fault: Fault, descriptor: &Descriptor) -> Error {
        let hint = match &fault {
            Fault::Wrong(reason) => self.limits.hint(reason.code),
            Fault::System(_) => None,
        };
        let error = fault.into_error(&format!("layer {}", printable(&descriptor.digest)));
        hint.into_iter().fold(error, Error::with_hint)
    }
}

/// Returns the reason for a layer whose plain archive does not have the digest of its diff ID.
pub(super) fn diff_id_mismatch() -> Reason {
    Reason::new(Code::DiffIdMismatch, "its plain archive has a different digest than its diff ID")
}
