//! An image becomes a tree: its layers one over the other, each checked as a whole before anything of it is made.

use crate::base::text::printable;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Seek as _;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::layout::{Algorithm, CONFIG, Config, Descriptor, Layout, Manifest, layer_format, other_digest};
use super::marks::Marks;
use super::validate::unreadable;
use super::whiteout::{self, Mark};
use super::{layer, reference, refused};
use crate::archive::unpack::decode::{Decoder, Format};
use crate::archive::unpack::hashed::Hashed;
use crate::archive::unpack::limits::{Limits, RaisedBy, Spent};
use crate::archive::unpack::reader::Reader;
use crate::archive::unpack::{Deferred, Unpacker};
use crate::base::digest;
use crate::base::error::{Context, Error, Result};
use crate::base::progress::Progress;
use crate::base::refusal::{Code, Reason};
use crate::fs::rootfs::{self, Rootfs};
use crate::fs::staging::Directory;

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
pub fn unpack(dir: &Path, name: &str, tree: &Path, demand: &Demand, ui: &dyn Progress) -> Result<Deferred> {
    let layout = Layout::open(dir)?;
    let about = |what: &str| format!("{what} in {}", dir.display());
    let index = layout.index()?.map_err(|reason| refused(&about("index.json"), &reason))?;
    let manifest = reference::find(&layout, &index, name)?;
    let manifest: Manifest =
        layout.document(&manifest)?.map_err(|reason| refused(&about(&printable(&manifest.digest)), &reason))?;
    manifest.check().map_err(|reason| refused(&about("the manifest"), &reason))?;
    let config = &manifest.config;
    if config.media_type != CONFIG {
        return Err(refused(&about("the manifest"), &Reason::new(Code::BadMediaType, "it is not that of an image")));
    }
    let config: Config =
        layout.document(config)?.map_err(|reason| refused(&about(&printable(&config.digest)), &reason))?;
    if config.rootfs.kind != "layers" || config.rootfs.diff_ids.len() != manifest.layers.len() {
        let reason = Reason::new(Code::LayerCount, "manifest and configuration speak of different layers");
        return Err(refused(&about("the manifest"), &reason));
    }

    let (above, name) = place(tree)?;
    let limits = limits(&manifest.layers, demand)?;
    let staging = Directory::create(above.fd(), above.path(), ui)?;
    let path = staging.name().join("tree");
    // The mode is for an image that does not speak of its root.
    above.create_dir(&path, 0o755)?;
    let root = above.subtree(&path, tree)?;
    let record = layers(&layout, &manifest.layers, &config.rootfs.diff_ids, &root, limits, ui)?;
    root.sync()?;
    staging.undisturbed(|| above.rename(&path, name))?;
    Ok(record)
}

/// The directory that `tree` will be in, and its name there, which nothing has but perhaps an empty directory.
fn place(tree: &Path) -> Result<(Rootfs, &Path)> {
    let Some(name) = tree.file_name().map(Path::new) else {
        return Err(Error::usage(format!("{}: the tree needs a name", tree.display())));
    };
    let above = tree.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let above = Rootfs::open(above)?;
    let Some(there) = above.stat(name)? else { return Ok((above, name)) };
    if FileType::from_raw_mode(there.st_mode) != FileType::Directory || !above.read_dir(name)?.is_empty() {
        return Err(Error::usage(format!("{} is no empty directory", tree.display())));
    }
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match rootfs::openat2(above.fd(), name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), resolve) {
        Err(Errno::XDEV) => Err(Error::usage(format!(
            "{} is a mount point, and a tree appears as a whole or not at all",
            tree.display()
        ))
        .with_hint(format!("name a directory in it that does not exist: {}", tree.join("tree").display()))),
        other => other.system(|| above.doing("opening", name)).map(|_| (above, name)),
    }
}

/// What the layers may demand. What is named again is read again: it counts as if it were unpacked.
fn limits(layers: &[Descriptor], demand: &Demand) -> Result<Limits> {
    let (mut seen, mut once, mut again) = (BTreeSet::new(), 0u64, 0u64);
    for layer in layers {
        let sum = if seen.insert(&layer.digest) { &mut once } else { &mut again };
        *sum = sum.saturating_add(layer.size);
    }
    let limits = Limits::of_layers(once).set(demand.bytes, demand.entries, RaisedBy::Options);
    match again > limits.bytes {
        true => Err(too_large(&limits, "the manifest", format!("{again} bytes of layers are named again"))),
        false => Ok(limits),
    }
}

/// What a layer was found to be when it was read for the first time.
#[derive(Clone, Copy)]
struct Known {
    spent: Spent,
    marks: bool,
}

fn layers(
    layout: &Layout,
    layers: &[Descriptor],
    diff_ids: &[String],
    root: &Rootfs,
    mut limits: Limits,
    ui: &dyn Progress,
) -> Result<Deferred> {
    let mut record = Deferred::default();
    let mut known = BTreeMap::new();
    for (descriptor, diff_id) in layers.iter().zip(diff_ids) {
        let name = printable(&descriptor.digest);
        let refuse = |reason: Reason| refused(&format!("layer {name}"), &reason);
        let Some(format) = layer_format(&descriptor.media_type) else {
            return Err(refuse(Reason::new(Code::BadMediaType, "its media type is not that of a layer")));
        };
        let key = (&descriptor.digest, descriptor.size, &descriptor.media_type, diff_id);
        let mut layer = known.get(&key).copied();
        if layer.is_none_or(|layer: Known| layer.spent.entries > 0) {
            let opened = if layer.is_some() { layout.open_blob(descriptor) } else { layout.blob(descriptor) };
            let file = opened?.map_err(refuse)?;
            if layer.is_none_or(|layer| layer.marks) {
                layer = Some(remove(&file, format, &name, diff_id, root, &mut record, &limits)?);
            }
            record = entries(file, format, descriptor, root, record, &limits, ui)?;
        }
        if let Some(layer) = layer {
            limits.spent.entries += layer.spent.entries;
            limits.spent.bytes = limits.spent.bytes.saturating_add(layer.spent.bytes);
            known.insert(key, layer);
        }
        if limits.spent.bytes > limits.bytes {
            let text = format!("the layers have more than {} bytes unpacked", limits.bytes);
            return Err(too_large(&limits, &format!("layer {name}"), text));
        }
    }
    Ok(record)
}

/// Reads a layer to its end, and removes what it does not leave of those below it.
fn remove(
    file: &File,
    format: Format,
    name: &str,
    diff_id: &str,
    root: &Rootfs,
    record: &mut Deferred,
    limits: &Limits,
) -> Result<Known> {
    let refuse = |reason: Reason| {
        let hint = limits.hint(reason.code);
        hint.into_iter().fold(refused(&format!("layer {name}"), &reason), Error::with_hint)
    };
    let (algorithm, expected) = Algorithm::parse(diff_id).map_err(refuse)?;
    let mut marks = Marks::new(limits);
    let read = layer::read(start(file, name)?, format, algorithm, limits, &mut |_, mark| marks.add(mark));
    let bad = |error| unreadable(error, name).map_or_else(|error| error, refuse);
    let read = read.map_err(bad)?;
    if read.digest != expected {
        let text = "its plain archive has another digest than its diff id";
        return Err(refuse(Reason::new(Code::DiffIdMismatch, text)));
    }
    if !marks.apply(root, record)?.map_err(refuse)? {
        let decoder = Decoder::of(format, start(file, name)?).system(|| format!("reading layer {name}"))?;
        let mut reader = Reader::new(decoder, limits.clone());
        while let Some(entry) = reader.next_entry().map_err(bad)? {
            let mark = whiteout::mark(&entry).map_err(refuse)?;
            marks.follow(root, record, &entry, &mark)?.map_err(refuse)?;
        }
    }
    let entries = read.spent.entries - limits.spent.entries;
    let bytes = read.spent.bytes - limits.spent.bytes;
    Ok(Known { spent: Spent { entries, bytes }, marks: !marks.is_empty() })
}

/// Makes the entries of a layer, and looks at its digest once more: what was judged may have been changed since.
fn entries(
    file: File,
    format: Format,
    descriptor: &Descriptor,
    root: &Rootfs,
    below: Deferred,
    limits: &Limits,
    ui: &dyn Progress,
) -> Result<Deferred> {
    let name = printable(&descriptor.digest);
    let refuse = |reason: Reason| refused(&format!("layer {name}"), &reason);
    let (algorithm, expected) = Algorithm::parse(&descriptor.digest).map_err(refuse)?;
    let algorithm = match algorithm {
        Algorithm::Sha256 => digest::Algorithm::Sha256,
        Algorithm::Sha512 => digest::Algorithm::Sha512,
    };
    let (input, sums) = Hashed::new(start(&file, &name)?, algorithm);
    let decoder = Decoder::of(format, input).system(|| format!("reading layer {name}"))?;
    let unpacker = Unpacker { name: &name, into: root, limits, ui };
    let deferred = unpacker.layer(decoder, descriptor.size, below, &mut |entry| {
        whiteout::mark(entry).map(|mark| mark == Mark::Entry).map_err(refuse)
    })?;
    if sums.get().and_then(|sums| sums.hex(algorithm)).as_deref() == Some(expected) {
        Ok(deferred)
    } else {
        Err(refuse(other_digest()))
    }
}

/// The file from its beginning.
fn start(file: &File, name: &str) -> Result<File> {
    let doing = || format!("reading layer {name}");
    let mut file = file.try_clone().system(doing)?;
    file.rewind().system(doing)?;
    Ok(file)
}

fn too_large(limits: &Limits, about: &str, text: String) -> Error {
    let error = refused(about, &Reason::new(Code::TooLarge, text));
    limits.hint(Code::TooLarge).into_iter().fold(error, Error::with_hint)
}
