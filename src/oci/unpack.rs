//! An image becomes a tree: its layers one over the other, each checked as a whole before anything of it is made.

use std::fs::File;
use std::io::Seek as _;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::layer;
use super::layout::{Algorithm, CONFIG, Config, Descriptor, Layout, MANIFEST, Manifest, layer_format};
use super::validate::unreadable;
use super::whiteout::{self, Mark};
use crate::error::{Context, Error, Result};
use crate::progress::Progress;
use crate::rootfs::Rootfs;
use crate::unpack::refusal::Reason;
use crate::unpack::{self, Limits};

/// Unpacks the image `name` (or digest) of the layout in `dir` into the directory `tree`, which does not exist or is empty. It
/// appears when it is whole.
pub fn unpack(dir: &Path, name: &str, tree: &Path, ui: &dyn Progress) -> Result<()> {
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

    match fs_err::read_dir(tree).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => return Err(Error::usage(format!("{} is not empty", tree.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::usage("looking at where the tree goes").with_source(error)),
    }
    let above = tree.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let making = || format!("making {}", tree.display());
    let staging = tempfile::Builder::new().prefix(".quern-unpack-").tempdir_in(above).system(making)?;
    let path = staging.path().join("tree");
    fs_err::create_dir(&path).system(making)?;
    // For an image that does not speak of its root.
    fs_err::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).system(making)?;
    let made = layers(&layout, &manifest.layers, &config.rootfs.diff_ids, &path, ui).and_then(|()| {
        let root = Rootfs::open(&path)?;
        root.sync()?;
        fs_err::rename(&path, tree).system(making)
    });
    if made.is_err() {
        // Whatever is in it, also directories that may not be entered.
        Rootfs::open(staging.path())?.remove(Path::new("tree"))?;
    }
    made
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

fn layers(layout: &Layout, layers: &[Descriptor], diff_ids: &[String], path: &Path, ui: &dyn Progress) -> Result<()> {
    let root = Rootfs::open(path)?;
    let mut missing = 0;
    for (descriptor, diff_id) in layers.iter().zip(diff_ids) {
        let name = printable(&descriptor.digest);
        let refuse = |reason: Reason| refused(&format!("layer {name}"), &reason);
        let Some(format) = layer_format(&descriptor.media_type) else {
            return Err(refuse(Reason::new("bad-media-type", "its media type is not that of a layer")));
        };
        let mut file = layout.blob(descriptor)?.map_err(refuse)?;
        let (algorithm, expected) = Algorithm::parse(diff_id).map_err(refuse)?;

        // Marks speak of the layers below only, wherever in the layer they stand: they come first.
        let mut marks = Vec::new();
        let plain = layer::read(clone(&file, &name)?, format, algorithm, &mut |_, mark| match mark {
            Mark::Entry => {}
            mark => marks.push(mark),
        });
        if plain.map_err(|error| refuse(unreadable(&error)))? != expected {
            return Err(refuse(Reason::new(
                "diff-id-mismatch",
                "its plain archive has another digest than its diff id",
            )));
        }
        marks.iter().try_for_each(|mark| apply(&root, mark))?;

        file.rewind().system(|| format!("reading layer {name}"))?;
        let limits = Limits::default();
        let record = unpack::extract_some(file, None, &name, &root, &limits, ui, &mut |entry| {
            whiteout::mark(entry).map(|mark| mark == Mark::Entry).map_err(refuse)
        })?;
        missing += record.nodes.len() + record.xattrs.len();
    }
    if missing > 0 {
        ui.warn(&format!("{missing} device nodes and attributes of the image cannot be made without root"));
    }
    Ok(())
}

fn apply(root: &Rootfs, mark: &Mark) -> Result<()> {
    let (dir, all) = match mark {
        Mark::Entry => return Ok(()),
        Mark::Remove(path) => return root.remove(path).map(drop),
        Mark::Opaque(dir) => (dir, root.stat(dir)?),
    };
    // A link is replaced by the layer's directory; what it leads to stays.
    if all.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory) {
        let children: Vec<PathBuf> = root.read_dir(dir)?.into_iter().map(|(name, _)| dir.join(name)).collect();
        for child in children {
            root.remove(&child)?;
        }
    }
    Ok(())
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
