//! An image becomes a tree: its layers one over the other, each checked as a whole before anything of it is made.

use std::fs::File;
use std::io::Seek as _;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use sha2::{Digest, Sha256, Sha512};

use super::layer;
use super::layout::{Algorithm, CONFIG, Config, Descriptor, Layout, MANIFEST, Manifest, layer_format, other_digest};
use super::marks::Marks;
use super::validate::unreadable;
use super::whiteout::{self, Mark};
use crate::error::{Context, Error, Result};
use crate::progress::Progress;
use crate::rootfs::Rootfs;
use crate::unpack::decode::{Decoder, Format};
use crate::unpack::hashed::Hashed;
use crate::unpack::limits::{Limits, RaisedBy};
use crate::unpack::reader::Reader;
use crate::unpack::refusal::Reason;
use crate::unpack::{self, Record};

/// What an image may demand at most, all layers together, in place of what is proportionate to their size.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demand {
    /// Bytes, as [`Limits::bytes`] counts them.
    pub bytes: Option<u64>,
    /// Entries.
    pub entries: Option<u64>,
}

/// Unpacks the image `name` (or digest) of the layout in `dir` into the directory `tree`, which does not exist or is empty. It
/// appears when it is whole. Returns what the kernel refused to make.
pub fn unpack(dir: &Path, name: &str, tree: &Path, demand: &Demand, ui: &dyn Progress) -> Result<Record> {
    let layout = Layout::open(dir)?;
    let about = |what: &str| format!("{what} in {}", dir.display());
    let index = layout.index()?.map_err(|reason| refused(&about("index.json"), &reason))?;
    let manifest = choose(&index.manifests, name, dir)?;
    let manifest: Manifest =
        layout.document(manifest)?.map_err(|reason| refused(&about(&printable(&manifest.digest)), &reason))?;
    manifest.check().map_err(|reason| refused(&about("the manifest"), &reason))?;
    let config = &manifest.config;
    if config.media_type != CONFIG {
        return Err(refused(&about("the manifest"), &Reason::new("bad-media-type", "it is not that of an image")));
    }
    let config: Config =
        layout.document(config)?.map_err(|reason| refused(&about(&printable(&config.digest)), &reason))?;
    if config.rootfs.kind != "layers" || config.rootfs.diff_ids.len() != manifest.layers.len() {
        let reason = Reason::new("layer-count", "manifest and configuration speak of different layers");
        return Err(refused(&about("the manifest"), &reason));
    }

    let Some(name) = tree.file_name().map(Path::new) else {
        return Err(Error::usage(format!("{}: the tree needs a name", tree.display())));
    };
    let above = tree.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let above = Rootfs::open(above)?;
    if let Some(there) = above.stat(name)? {
        let dir = FileType::from_raw_mode(there.st_mode) == FileType::Directory;
        if !dir || !above.read_dir(name)?.is_empty() {
            return Err(Error::usage(format!("{} is no empty directory", tree.display())));
        }
    }
    let size = manifest.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
    let limits = Limits::of_layers(size).set(demand.bytes, demand.entries, RaisedBy::Options);
    let staging = staging(&above)?;
    let made = fill(&layout, &manifest.layers, &config.rootfs.diff_ids, &above, &staging, tree, limits, ui)
        .and_then(|record| above.rename(&staging.join(TREE), name).map(|()| record));
    // Whatever is in it, also directories that may not be entered; but why it failed comes first.
    let removed = above.remove(&staging);
    made.and_then(|record| removed.map(|_| record))
}

/// The tree in its staging directory.
const TREE: &str = "tree";

/// Makes a directory of a new name.
fn staging(above: &Rootfs) -> Result<PathBuf> {
    let mut number = 0;
    loop {
        let name = PathBuf::from(format!(".quern-unpack-{}-{number}", std::process::id()));
        if above.create_dir(&name, 0o700)? {
            return Ok(name);
        }
        number += 1;
    }
}

#[allow(clippy::too_many_arguments, reason = "the image, the place, and how")]
fn fill(
    layout: &Layout,
    descriptors: &[Descriptor],
    diff_ids: &[String],
    above: &Rootfs,
    staging: &Path,
    tree: &Path,
    limits: Limits,
    ui: &dyn Progress,
) -> Result<Record> {
    let path = staging.join(TREE);
    // The mode is for an image that does not speak of its root.
    above.create_dir(&path, 0o755)?;
    let root = above.subtree(&path, tree)?;
    let record = layers(layout, descriptors, diff_ids, &root, limits, ui)?;
    root.sync()?;
    Ok(record)
}

/// The one image that is meant.
fn choose<'a>(manifests: &'a [Descriptor], name: &str, dir: &Path) -> Result<&'a Descriptor> {
    let meant: Vec<_> = manifests.iter().filter(|image| image.name() == Some(name) || image.digest == name).collect();
    let there = || manifests.iter().filter_map(|image| image.name()).map(printable).collect::<Vec<_>>().join(", ");
    let [image] = meant[..] else {
        let what = if meant.is_empty() { "there is no image" } else { "there are several images" };
        return Err(Error::usage(format!("{what} {} in {}", printable(name), dir.display()))
            .with_hint(format!("give one of these, or a digest: {}", there())));
    };
    if image.media_type != MANIFEST {
        let reason = Reason::new("bad-media-type", "it is not the manifest of an image");
        return Err(refused(&format!("{} in {}", printable(name), dir.display()), &reason));
    }
    Ok(image)
}

fn layers(
    layout: &Layout,
    layers: &[Descriptor],
    diff_ids: &[String],
    root: &Rootfs,
    mut limits: Limits,
    ui: &dyn Progress,
) -> Result<Record> {
    let mut record = Record::default();
    for (descriptor, diff_id) in layers.iter().zip(diff_ids) {
        let name = printable(&descriptor.digest);
        let refuse = |reason: Reason| refused(&format!("layer {name}"), &reason);
        let Some(format) = layer_format(&descriptor.media_type) else {
            return Err(refuse(Reason::new("bad-media-type", "its media type is not that of a layer")));
        };
        let mut file = layout.blob(descriptor)?.map_err(refuse)?;
        let (algorithm, expected) = Algorithm::parse(diff_id).map_err(refuse)?;

        // Marks speak of the layers below only, wherever in the layer they stand: they come first.
        let mut marks = Marks::new(&limits);
        let again = clone(&file, &name)?;
        let read = layer::read(again, format, algorithm, &limits, &mut |_, mark| marks.add(mark));
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                let reason = unreadable(error)?;
                let hint = limits.hint(reason.code);
                return Err(hint.into_iter().fold(refuse(reason), Error::with_hint));
            }
        };
        if read.digest != expected {
            return Err(refuse(Reason::new(
                "diff-id-mismatch",
                "its plain archive has another digest than its diff id",
            )));
        }
        if !marks.apply(root, &mut record)?.map_err(refuse)? {
            file.rewind().system(|| format!("reading layer {name}"))?;
            let decoder = Decoder::of(format, clone(&file, &name)?).system(|| format!("reading layer {name}"))?;
            let mut reader = Reader::new(decoder, limits.clone());
            let bad = |error| unreadable(error).map_or_else(|error| error, refuse);
            while let Some(entry) = reader.next_entry().map_err(bad)? {
                let mark = whiteout::mark(&entry).map_err(refuse)?;
                marks.follow(root, &mut record, &entry, &mark)?.map_err(refuse)?;
            }
        }

        file.rewind().system(|| format!("reading layer {name}"))?;
        record = match algorithm_of(descriptor)? {
            Algorithm::Sha256 => entries::<Sha256>(file, format, descriptor, root, record, &limits, ui)?,
            Algorithm::Sha512 => entries::<Sha512>(file, format, descriptor, root, record, &limits, ui)?,
        };
        limits.spent = read.spent;
    }
    Ok(record)
}

/// Makes the entries of a layer, and looks at its digest once more: what was judged may have been changed since.
fn entries<D: Digest + Clone + Send + 'static>(
    file: File,
    format: Format,
    descriptor: &Descriptor,
    root: &Rootfs,
    record: Record,
    limits: &Limits,
    ui: &dyn Progress,
) -> Result<Record> {
    let name = printable(&descriptor.digest);
    let refuse = |reason: Reason| refused(&format!("layer {name}"), &reason);
    let (input, whole) = Hashed::<_, D>::new(file);
    let decoder = Decoder::of(format, input).system(|| format!("reading layer {name}"))?;
    let size = Some(descriptor.size);
    let record = unpack::extract_over(decoder, size, &name, root, record, limits, ui, &mut |entry| {
        whiteout::mark(entry).map(|mark| mark == Mark::Entry).map_err(refuse)
    })?;
    let expected = descriptor.digest.split_once(':').map(|(_, hex)| hex);
    match whole.get().map(String::as_str) == expected {
        true => Ok(record),
        false => Err(refuse(other_digest())),
    }
}

fn algorithm_of(descriptor: &Descriptor) -> Result<Algorithm> {
    Algorithm::parse(&descriptor.digest)
        .map(|(algorithm, _)| algorithm)
        .map_err(|reason| refused(&printable(&descriptor.digest), &reason))
}

fn clone(file: &File, name: &str) -> Result<File> {
    file.try_clone().system(|| format!("reading layer {name}"))
}

fn refused(about: &str, reason: &Reason) -> Error {
    Error::refused(format!("{about} [{}]", reason.code)).with_source(reason.text.to_string())
}

/// Words of a document, for a message.
fn printable(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}
