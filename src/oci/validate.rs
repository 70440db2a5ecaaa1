//! A whole layout, judged: everything that is wrong with it, not only the first thing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::layer;
use super::layout::{
    Algorithm, CONFIG, Config, Descriptor, INDEX, Index, Layout, MANIFEST, MAX_DEPTH, Manifest, layer_format,
};
use crate::archive::unpack::decode::Format;
use crate::archive::unpack::limits::Limits;
use crate::archive::unpack::refusal::ReadError;
use crate::base::error::{Context as _, Result};
use crate::base::refusal::{Code, Reason};

/// Something about a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable, kebab-case.
    pub code: Code,
    /// The digest or the file that it is about.
    pub about: String,
    /// For people.
    pub text: String,
    /// It makes the layout invalid; else it is only worth a note.
    pub wrong: bool,
}

/// What was looked at.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was found.
    pub findings: Vec<Finding>,
    /// Blobs that something points at.
    pub blobs: usize,
    /// Images.
    pub images: usize,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_valid(&self) -> bool {
        !self.findings.iter().any(|finding| finding.wrong)
    }
}

/// Judges the layout in `dir`. An error is one of the system; what is wrong with the layout is in the report.
pub fn validate(dir: &Path) -> Result<Report> {
    let layout = Layout::open(dir)?;
    let mut judge = Judge {
        layout: &layout,
        seen: BTreeSet::new(),
        judged: BTreeSet::new(),
        plain: BTreeMap::new(),
        report: Report::default(),
    };
    match layout.index()? {
        Ok(index) => judge.index(&index, 0)?,
        Err(reason) => judge.wrong("index.json", reason),
    }
    judge.rest()?;
    judge.report.blobs = judge.seen.len();
    Ok(judge.report)
}

/// Digest of a plain layer, or why there is none.
type Plain = std::result::Result<String, Reason>;

struct Judge<'a> {
    layout: &'a Layout,
    /// Digests that something points at.
    seen: BTreeSet<String>,
    /// Descriptors that need no second look, as digest, size and media type: a document may name the same one very often.
    judged: BTreeSet<(String, u64, String)>,
    /// Digests of plain layers, or why there is none, by digest and size of the blob, and how it was read.
    plain: BTreeMap<(String, u64, Format, Algorithm), Plain>,
    report: Report,
}

impl Judge<'_> {
    fn wrong(&mut self, about: &str, reason: Reason) {
        let text = reason.text.into_owned();
        self.report.findings.push(Finding { code: reason.code, about: about.to_owned(), text, wrong: true });
    }

    fn note(&mut self, code: Code, about: &str, text: &str) {
        self.report.findings.push(Finding { code, about: about.to_owned(), text: text.to_owned(), wrong: false });
    }

    fn index(&mut self, index: &Index, depth: usize) -> Result<()> {
        for descriptor in &index.manifests {
            self.seen.insert(descriptor.digest.clone());
            if !self.is_new(descriptor) {
                continue;
            }
            let about = &descriptor.digest;
            match descriptor.media_type.as_str() {
                MANIFEST => match self.layout.document::<Manifest>(descriptor)? {
                    Ok(manifest) => {
                        if let Err(reason) = manifest.check() {
                            self.wrong(about, reason);
                        }
                        self.manifest(about, &manifest)?;
                    }
                    Err(reason) => self.wrong(about, reason),
                },
                INDEX if depth >= MAX_DEPTH => self.wrong(about, Reason::new(Code::TooDeep, "indexes in indexes")),
                INDEX => match self.layout.document::<Index>(descriptor)? {
                    Ok(index) => {
                        if let Err(reason) = index.check() {
                            self.wrong(about, reason);
                        }
                        self.index(&index, depth + 1)?;
                    }
                    Err(reason) => self.wrong(about, reason),
                },
                _ => {
                    self.note(Code::UnknownMediaType, about, "what it points at is neither a manifest nor an index");
                    if let Err(reason) = self.layout.blob(descriptor)? {
                        self.wrong(about, reason);
                    }
                }
            }
        }
        Ok(())
    }

    fn is_new(&mut self, descriptor: &Descriptor) -> bool {
        self.judged.insert((descriptor.digest.clone(), descriptor.size, descriptor.media_type.clone()))
    }

    fn manifest(&mut self, about: &str, manifest: &Manifest) -> Result<()> {
        self.report.images += 1;
        if manifest.config.media_type != CONFIG {
            self.note(Code::UnknownMediaType, about, "its configuration is not that of an image: its layers are blobs");
            for descriptor in manifest.layers.iter().chain([&manifest.config]) {
                self.blob(descriptor)?;
            }
            return Ok(());
        }
        self.seen.insert(manifest.config.digest.clone());
        let diff_ids = match self.layout.document::<Config>(&manifest.config)? {
            Ok(config) if config.rootfs.kind != "layers" => {
                let reason = Reason::new(Code::BadConfig, "its rootfs is not made of layers");
                self.wrong(&manifest.config.digest, reason);
                None
            }
            Ok(config) => Some(config.rootfs.diff_ids),
            Err(reason) => {
                self.wrong(&manifest.config.digest, reason);
                None
            }
        };
        if let Some(diff_ids) = diff_ids.as_ref().filter(|diff_ids| diff_ids.len() != manifest.layers.len()) {
            let text = format!("it has {} layers, its configuration {}", manifest.layers.len(), diff_ids.len());
            self.wrong(about, Reason::new(Code::LayerCount, text));
        }
        if manifest.layers.is_empty() {
            self.note(Code::NoLayers, about, "the image has no layers");
        }
        for (number, descriptor) in manifest.layers.iter().enumerate() {
            self.layer(descriptor, diff_ids.as_ref().and_then(|diff_ids| diff_ids.get(number)))?;
        }
        Ok(())
    }

    fn layer(&mut self, descriptor: &Descriptor, diff_id: Option<&String>) -> Result<()> {
        let about = &descriptor.digest;
        self.seen.insert(about.clone());
        let Some(format) = layer_format(&descriptor.media_type) else {
            self.wrong(about, Reason::new(Code::BadMediaType, "its media type is not that of a layer"));
            return self.blob(descriptor);
        };
        let parsed = diff_id.map(|diff_id| Algorithm::parse(diff_id));
        let (algorithm, expected) = match parsed {
            Some(Ok((algorithm, expected))) => (algorithm, Some(expected)),
            Some(Err(_)) => {
                self.wrong(about, Reason::new(Code::BadDigest, "its diff id is malformed"));
                (Algorithm::Sha256, None)
            }
            None => (Algorithm::Sha256, None),
        };
        let key = (about.clone(), descriptor.size, format, algorithm);
        let plain = match self.plain.get(&key) {
            Some(known) => known.clone(),
            None => {
                let limits = Limits::of_layers(descriptor.size);
                let plain = match self.layout.blob(descriptor)? {
                    Ok(file) => match layer::read(file, format, algorithm, &limits, &mut |_, _| Ok(())) {
                        Ok(read) => Ok(read.digest),
                        Err(error) => Err(unreadable(error, about)?),
                    },
                    Err(reason) => Err(reason),
                };
                self.plain.insert(key, plain.clone());
                plain
            }
        };
        match plain {
            Ok(plain) if expected.is_some_and(|expected| expected != plain) => {
                let reason = Reason::new(Code::DiffIdMismatch, "its plain archive has another digest than its diff id");
                self.wrong(about, reason);
            }
            Ok(_) => {}
            Err(reason) => self.wrong(about, reason),
        }
        Ok(())
    }

    /// A blob that nothing more is known of.
    fn blob(&mut self, descriptor: &Descriptor) -> Result<()> {
        self.seen.insert(descriptor.digest.clone());
        if self.is_new(descriptor)
            && let Err(reason) = self.layout.blob(descriptor)?
        {
            self.wrong(&descriptor.digest, reason);
        }
        Ok(())
    }

    /// What nothing points at.
    fn rest(&mut self) -> Result<()> {
        for (dir, blobs) in self.layout.blobs()? {
            let Some(blobs) = blobs else {
                self.wrong(&dir.to_string_lossy(), Reason::new(Code::BadFile, "it is no directory"));
                continue;
            };
            for (path, digest) in blobs {
                match digest {
                    Some(digest) if self.seen.contains(&digest) => {}
                    Some(digest) => match self.layout.fault(&digest)? {
                        None => self.note(Code::ExtraBlob, &digest, "nothing points at it"),
                        Some(reason) => self.wrong(&digest, reason),
                    },
                    None => self.note(Code::ExtraFile, &path.to_string_lossy(), "its name is no digest"),
                }
            }
        }
        Ok(())
    }
}

/// Why a layer's content is not accepted; an error when it is not to blame.
pub(super) fn unreadable(error: ReadError, name: &str) -> Result<Reason> {
    match error {
        ReadError::Refused(refusal) => Ok(Reason::new(refusal.reason.code, refusal.to_string())),
        ReadError::Input(error) => Err(error).system(|| format!("reading layer {name}")),
    }
}
