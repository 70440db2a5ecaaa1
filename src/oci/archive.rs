//! A layout as one tar archive: as it is, or in the form that `docker load` reads. The same layout gives the same bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde_json::json;

use super::digest::{self, Digest};
use super::document::Document as _;
use super::layout::{CONFIG, Descriptor, Layout, MAX_DOCUMENT, Manifest, layer_format};
use super::parts::Parts;
use super::{Checked, Fault, reference};
use crate::archive::pack::tar::{self, END, padding};
use crate::archive::unpack::decode::Format;
use crate::archive::unpack::entry::{Meta, NodeKind};
use crate::base::digest::Hasher;
use crate::base::error::{Context as _, Error, Result};
use crate::base::progress::{Event, Progress};
use crate::base::refusal::{Code, Reason};
use crate::base::text::printable;
use crate::fs::rootfs::Rootfs;

/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;

/// The form of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// The layout.
    Layout,
    /// One image, for `docker load`.
    Docker {
        /// The image: its tag or its digest; `None` for the only one.
        image: Option<String>,
        /// The names that it gets, as `NAME:TAG`.
        names: Vec<String>,
    },
}

/// The content of an archive, before it is written.
#[derive(Debug)]
pub struct Archive {
    layout: Layout,
    files: Vec<(String, Body)>,
}

#[derive(Debug)]
enum Body {
    Bytes(Vec<u8>),
    Blob(Descriptor),
}

impl Archive {
    /// Lists the content of an archive of the layout in `dir`.
    ///
    /// # Errors
    /// The faults of the documents, and [`Kind::Usage`](crate::base::error::Kind::Usage) if the image is not clear.
    pub fn of(dir: &Path, form: &Form) -> Result<Self> {
        let layout = Layout::open(dir)?;
        let at = |fault: Fault| fault.into_error(&dir.display().to_string());
        let files = match form {
            Form::Layout => whole(&layout).map_err(at)?,
            Form::Docker { image, names } => {
                let index = layout.index().map_err(at)?;
                let chosen = reference::chosen(&layout, image.as_deref())?;
                let manifest = reference::find(&layout, &index, &chosen.digest)?;
                for_docker(&layout, &manifest, names).map_err(at)?
            }
        };
        // A missing blob is noticed before anything is written, and all sizes are those of files.
        for (_, body) in &files {
            if let Body::Blob(blob) = body {
                layout.open_blob(blob).map(drop).map_err(|fault| of_blob(fault, blob, dir))?;
            }
        }
        Ok(Self { layout, files })
    }

    /// Returns the size of the archive in bytes.
    pub fn size(&self) -> u64 {
        let of = |(path, body): &(String, Body)| {
            head(path, body.size()).len() as u64 + body.size() + padding(body.size()) as u64
        };
        self.files.iter().map(of).sum::<u64>() + END.len() as u64
    }

    /// Writes the archive. The digest of each blob is verified on the way.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::base::error::Kind::Refused) if a blob is damaged; the archive is then incomplete.
    pub fn write(&self, to: &mut dyn Write, ui: &dyn Progress) -> Result<()> {
        const WRITING: &str = "writing the archive";
        let total = self.files.iter().map(|(_, body)| body.size()).sum();
        ui.stage(&format!("archiving {}", self.layout.path().display()));
        let mut done = 0;
        for (path, body) in &self.files {
            to.write_all(&head(path, body.size())).system(|| WRITING)?;
            match body {
                Body::Bytes(bytes) => to.write_all(bytes).system(|| WRITING)?,
                Body::Blob(descriptor) => {
                    let mut tell = |count| {
                        done += count;
                        ui.emit(Event::Bytes { done, total: Some(total) });
                    };
                    let copied = copy(&self.layout, descriptor, to, &mut tell);
                    copied.map_err(|fault| of_blob(fault, descriptor, self.layout.path()))?;
                }
            }
            to.write_all(&vec![0; padding(body.size())]).system(|| WRITING)?;
        }
        to.write_all(&END).and_then(|()| to.flush()).system(|| WRITING)?;
        ui.done();
        Ok(())
    }
}

/// Turns the fault of a blob into an error that names it.
pub fn of_blob(fault: Fault, blob: &Descriptor, layout: &Path) -> Error {
    fault.into_error(&format!("{} in {}", printable(&blob.digest), layout.display()))
}

/// Copies a blob, and verifies its size and digest.
pub(super) fn copy(
    layout: &Layout,
    descriptor: &Descriptor,
    to: &mut dyn Write,
    tell: &mut dyn FnMut(u64),
) -> Checked<()> {
    let expected = Digest::parse(&descriptor.digest)?;
    let mut file = layout.open_blob(descriptor)?.take(descriptor.size);
    let mut hasher = Hasher::new(&[expected.algorithm()]);
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = file.read(&mut buffer).system(|| format!("reading {expected}"))?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count]).system(|| format!("writing {expected}"))?;
        tell(count as u64);
    }
    if file.limit() > 0 || Digest::from_sums(expected.algorithm(), &hasher.finish()) != Some(expected) {
        return Err(digest::mismatch().into());
    }
    Ok(())
}

/// Creates the file of a blob in a new layout.
pub fn create(layout: &Rootfs, path: &Path) -> Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW;
    let fd = layout.openat2(path, flags, Mode::from_raw_mode(0o644)).system(|| layout.doing("creating", path))?;
    Ok(File::from(fd))
}

impl Body {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob(descriptor) => descriptor.size,
        }
    }
}

/// Returns the header of a file. Programs look for these names without a prefix.
fn head(path: &str, size: u64) -> Vec<u8> {
    let mut head = Vec::new();
    tar::header_of(&mut head, path.as_bytes(), &NodeKind::File, &Meta { mode: 0o644, ..Meta::default() }, size);
    head
}

/// Lists the named files, and every blob that an image of the layout refers to.
fn whole(layout: &Layout) -> Checked<Vec<(String, Body)>> {
    let index = layout.index()?;
    let mut blobs: BTreeMap<String, Descriptor> = BTreeMap::new();
    for image in &index.manifests {
        let parts = Parts::of(image, &mut |document| layout.bytes(document))?;
        for part in parts.documents.into_iter().chain(parts.blobs) {
            let path = Digest::parse(&part.digest)?.path();
            blobs.insert(path.to_string_lossy().into_owned(), part);
        }
    }
    let mut files = Vec::new();
    for name in ["oci-layout", "index.json"] {
        files.push((name.to_owned(), Body::Bytes(layout.named_file(name)?)));
    }
    files.extend(blobs.into_iter().map(|(path, descriptor)| (path, Body::Blob(descriptor))));
    Ok(files)
}

/// Lists the files of the form that `docker load` reads: the configuration, the layers, and `manifest.json`.
fn for_docker(layout: &Layout, image: &Descriptor, names: &[String]) -> Checked<Vec<(String, Body)>> {
    let manifest: Manifest = layout.document(image)?;
    manifest.check()?;
    if manifest.config.media_type != CONFIG || manifest.config.size > MAX_DOCUMENT {
        return Err(Reason::new(Code::BadMediaType, "its configuration is not that of an image").into());
    }
    let mut files: BTreeMap<String, Body> = BTreeMap::new();
    let config = format!("{}.json", hex(&manifest.config)?);
    files.insert(config.clone(), Body::Blob(manifest.config.clone()));
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        let suffix = match layer_format(&layer.media_type) {
            Some(Format::Plain) => "tar",
            Some(Format::Gzip) => "tar.gz",
            Some(Format::Zstd) => "tar.zst",
            _ => {
                let text = format!("the media type of {} is not that of a layer", printable(&layer.digest));
                return Err(Reason::new(Code::BadMediaType, text).into());
            }
        };
        let name = format!("{}.{suffix}", hex(layer)?);
        files.insert(name.clone(), Body::Blob(layer.clone()));
        layers.push(name);
    }
    let names = (!names.is_empty()).then_some(names);
    let described = json!([{ "Config": config, "RepoTags": names, "Layers": layers }]).to_string();
    let mut files: Vec<_> = files.into_iter().collect();
    files.push(("manifest.json".to_owned(), Body::Bytes(described.into_bytes())));
    Ok(files)
}

/// Returns the digits of a digest, which cannot be a path.
fn hex(descriptor: &Descriptor) -> Checked<String> {
    let path = Digest::parse(&descriptor.digest)?.path();
    Ok(path.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// Checks a name for `docker load`.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if it is not `NAME:TAG`.
pub fn check_name(name: &str) -> Result<()> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/:".contains(&byte);
    let good = name
        .rsplit_once(':')
        .is_some_and(|(name, tag)| !name.is_empty() && name.bytes().all(is_name) && reference::is_tag(tag));
    let wrong = || {
        Error::usage(format!("`{}` is not a name for an image", printable(name)))
            .with_hint("write NAME:TAG, such as demo:1")
    };
    if good { Ok(()) } else { Err(wrong()) }
}
