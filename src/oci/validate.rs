//! Validates a whole layout and reports everything that is wrong with it, not only the first fault.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use super::digest::Digest;
use super::document::Document;
use super::layout::{CONFIG, Config, Descriptor, INDEX, Layout, MANIFEST, MAX_DEPTH, Manifest, layer_format};
use super::paths::{Change, Paths};
use super::unpack::{Demand, diff_id_mismatch};
use super::whiteouts::Whiteouts;
use super::{Checked, Fault, document, layer};
use crate::archive::unpack::decode::Format;
use crate::archive::unpack::limits::Limits;
use crate::base::digest::Algorithm;
use crate::base::error::Result;
use crate::base::refusal::{Code, Reason};

/// Memory in bytes for the paths of all layers. The paths of larger layouts are not checked.
const MAX_MEMORY: usize = 1 << 30;

/// Entries of which the paths are checked, in all images together.
const MAX_ENTRIES: usize = 50_000_000;

/// A fault of a layout, or a note about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The stable code.
    pub code: Code,
    /// The digest or the file that the finding is about.
    pub about: String,
    /// The text for people.
    pub text: String,
    /// True for a fault, which makes the layout invalid; false for a note.
    pub wrong: bool,
}

/// The result of a validation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// Faults and notes.
    pub findings: Vec<Finding>,
    /// Number of blobs that descriptors refer to.
    pub blobs: usize,
    /// Number of images.
    pub images: usize,
}

impl Report {
    /// Returns true if the layout has no fault.
    pub fn is_valid(&self) -> bool {
        !self.findings.iter().any(|finding| finding.wrong)
    }
}

/// Validates the layout in `dir`. Faults of the layout are in the report; an error means that the system failed.
pub fn validate(dir: &Path) -> Result<Report> {
    let layout = Layout::open(dir)?;
    let mut validator = Validator {
        layout: &layout,
        seen: BTreeSet::new(),
        checked: BTreeSet::new(),
        layers: BTreeMap::new(),
        memory: 0,
        entries: 0,
        report: Report::default(),
    };
    if let Some(index) = validator.judge("index.json", layout.index())? {
        validator.index(&index, 0)?;
    }
    validator.rest()?;
    validator.report.blobs = validator.seen.len();
    Ok(validator.report)
}

/// A layer as it was read: digest and size of its blob, its compression, and the algorithm of its diff ID.
type LayerKey = (String, u64, Format, Algorithm);

/// A layer that was read, and its changes unless they need too much memory.
#[derive(Clone)]
struct Layer {
    summary: layer::Summary,
    changes: Option<Rc<Vec<Change>>>,
}

struct Validator<'a> {
    layout: &'a Layout,
    /// Digests that a descriptor refers to.
    seen: BTreeSet<String>,
    /// Digest, size and media type of every descriptor that was checked. A document may list the same one very often.
    checked: BTreeSet<(String, u64, String)>,
    /// Results of reading layers.
    layers: BTreeMap<LayerKey, Result<Layer, Reason>>,
    /// Memory of all changes in `layers`, in bytes.
    memory: usize,
    /// Changes that were applied to the paths of images.
    entries: usize,
    report: Report,
}

impl Validator<'_> {
    fn wrong(&mut self, about: &str, reason: Reason) {
        let text = reason.text.into_owned();
        self.report.findings.push(Finding { code: reason.code, about: about.to_owned(), text, wrong: true });
    }

    fn note(&mut self, code: Code, about: &str, text: &str) {
        self.report.findings.push(Finding { code, about: about.to_owned(), text: text.to_owned(), wrong: false });
    }

    /// Returns the value, or reports the fault.
    fn judge<T>(&mut self, about: &str, checked: Checked<T>) -> Result<Option<T>> {
        match checked {
            Ok(value) => Ok(Some(value)),
            Err(Fault::Wrong(reason)) => {
                self.wrong(about, reason);
                Ok(None)
            }
            Err(Fault::System(error)) => Err(error),
        }
    }

    fn index(&mut self, index: &document::Index, depth: usize) -> Result<()> {
        for descriptor in &index.manifests {
            self.seen.insert(descriptor.digest.clone());
            if !self.is_new(descriptor) {
                continue;
            }
            let about = &descriptor.digest;
            match descriptor.media_type.as_str() {
                MANIFEST => {
                    if let Some(manifest) = self.document::<Manifest>(descriptor)? {
                        self.manifest(about, &manifest)?;
                    }
                }
                INDEX if depth >= MAX_DEPTH => {
                    self.wrong(about, Reason::new(Code::TooDeep, "its indexes are nested too deeply"));
                }
                INDEX => {
                    if let Some(index) = self.document::<document::Index>(descriptor)? {
                        self.index(&index, depth + 1)?;
                    }
                }
                _ => {
                    self.note(Code::UnknownMediaType, about, "it is neither a manifest nor an index");
                    self.judge(about, self.layout.blob(descriptor))?;
                }
            }
        }
        Ok(())
    }

    fn is_new(&mut self, descriptor: &Descriptor) -> bool {
        self.checked.insert((descriptor.digest.clone(), descriptor.size, descriptor.media_type.clone()))
    }

    /// Reads a document. Its version and media type may be wrong: the rest of it is validated all the same.
    fn document<T: Document>(&mut self, descriptor: &Descriptor) -> Result<Option<T>> {
        let document = self.judge(&descriptor.digest, self.layout.document::<T>(descriptor))?;
        if let Some(Err(reason)) = document.as_ref().map(Document::check) {
            self.wrong(&descriptor.digest, reason);
        }
        Ok(document)
    }

    fn manifest(&mut self, about: &str, manifest: &Manifest) -> Result<()> {
        self.report.images += 1;
        if manifest.config.media_type != CONFIG {
            self.note(Code::UnknownMediaType, about, "its configuration is not that of an image: its layers are blobs");
            return manifest.layers.iter().chain([&manifest.config]).try_for_each(|blob| self.blob(blob));
        }
        self.seen.insert(manifest.config.digest.clone());
        let config = self.document::<Config>(&manifest.config)?;
        let diff_ids = config.map(|config| config.diff_ids().map_err(Fault::Wrong));
        let diff_ids = diff_ids.map(|diff_ids| self.judge(&manifest.config.digest, diff_ids)).transpose()?.flatten();
        if let Some(diff_ids) = &diff_ids {
            self.judge(about, manifest.check_count(diff_ids).map_err(Fault::Wrong))?;
        }
        if manifest.layers.is_empty() {
            self.note(Code::NoLayers, about, "the image has no layers");
        }
        let limits = layer::limits(&manifest.layers, &Demand::default()).map_err(Fault::Wrong);
        let Some(mut limits) = self.judge(about, limits)? else { return Ok(()) };
        let mut paths = Some(Paths::new());
        for (number, descriptor) in manifest.layers.iter().enumerate() {
            let diff_id = diff_ids.as_ref().and_then(|diff_ids| diff_ids.get(number));
            self.seen.insert(descriptor.digest.clone());
            let layer = self.layer(descriptor, diff_id, &mut limits);
            let layer = self.judge(&descriptor.digest, layer)?;
            paths = self.paths(paths, layer, &descriptor.digest);
        }
        Ok(())
    }

    /// Applies a layer to the paths of the layers below. Returns `None` when the paths of the image cannot be checked any further.
    fn paths(&mut self, paths: Option<Paths>, layer: Option<Layer>, about: &str) -> Option<Paths> {
        let (mut paths, layer) = (paths?, layer?);
        let Some(changes) = layer.changes.filter(|changes| self.entries.saturating_add(changes.len()) <= MAX_ENTRIES)
        else {
            self.note(Code::TooMuchMemory, about, "the image is too large to check its paths");
            return None;
        };
        self.entries += changes.len();
        match paths.apply(&changes) {
            Ok(()) => Some(paths),
            Err(reason) => {
                self.wrong(about, reason);
                None
            }
        }
    }

    /// Validates a layer. Without a diff ID only its archive is validated.
    fn layer(&mut self, descriptor: &Descriptor, diff_id: Option<&String>, limits: &mut Limits) -> Checked<Layer> {
        let Some(format) = layer_format(&descriptor.media_type) else {
            self.blob(descriptor)?;
            return Err(Reason::new(Code::BadMediaType, "its media type is not that of a layer").into());
        };
        let expected = diff_id.map(|diff_id| Digest::parse(diff_id)).transpose()?;
        let algorithm = expected.map_or(Algorithm::Sha256, |expected| expected.algorithm());
        let key = (descriptor.digest.clone(), descriptor.size, format, algorithm);
        let layer = match self.layers.get(&key) {
            Some(known) => known.clone()?,
            None => match self.read(descriptor, format, algorithm, limits) {
                Err(Fault::Wrong(reason)) => {
                    // Another image may have other limits.
                    if !matches!(reason.code, Code::TooLarge | Code::TooManyEntries) {
                        self.layers.insert(key, Err(reason.clone()));
                    }
                    return Err(reason.into());
                }
                read => {
                    let layer = read?;
                    self.layers.insert(key, Ok(layer.clone()));
                    layer
                }
            },
        };
        layer::spend(limits, layer.summary.spent)?;
        match expected {
            Some(expected) if layer.summary.digest != Some(expected) => Err(diff_id_mismatch().into()),
            _ => Ok(layer),
        }
    }

    fn read(
        &mut self,
        descriptor: &Descriptor,
        format: Format,
        algorithm: Algorithm,
        limits: &Limits,
    ) -> Checked<Layer> {
        let file = self.layout.blob(descriptor)?;
        let mut whiteouts = Whiteouts::new(limits);
        let (mut changes, mut memory) = (Vec::new(), self.memory);
        let read = layer::read(file, format, algorithm, limits, &mut |entry, whiteout| {
            if let Some(whiteout) = &whiteout {
                whiteouts.add(whiteout.clone())?;
            }
            let change = Change::new(entry, whiteout);
            memory = memory.saturating_add(change.weight());
            if memory <= MAX_MEMORY {
                changes.push(change);
            }
            Ok(())
        });
        let summary = read.map_err(|error| Fault::of_layer(error, &descriptor.digest))?;
        let complete = memory <= MAX_MEMORY;
        if complete {
            self.memory = memory;
        }
        Ok(Layer { summary, changes: complete.then(|| Rc::new(changes)) })
    }

    /// Validates a blob whose content has no known form.
    fn blob(&mut self, descriptor: &Descriptor) -> Result<()> {
        self.seen.insert(descriptor.digest.clone());
        if self.is_new(descriptor) {
            self.judge(&descriptor.digest, self.layout.blob(descriptor))?;
        }
        Ok(())
    }

    /// Validates the blobs that no descriptor refers to.
    fn rest(&mut self) -> Result<()> {
        for (dir, blobs) in self.layout.blobs()? {
            let Some(blobs) = blobs else {
                self.wrong(&dir.to_string_lossy(), Reason::new(Code::BadFile, "it is not a directory"));
                continue;
            };
            for (path, digest) in blobs {
                let Some(digest) = digest else {
                    self.note(Code::ExtraFile, &path.to_string_lossy(), "its name is not a digest");
                    continue;
                };
                let name = digest.to_string();
                if !self.seen.contains(&name) && self.judge(&name, self.layout.check_blob(&digest))?.is_some() {
                    self.note(Code::ExtraBlob, &name, "no descriptor refers to it");
                }
            }
        }
        Ok(())
    }
}
