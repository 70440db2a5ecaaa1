//! Images for several platforms as one image: an index of the images of several layouts, in a new layout.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::document::Document as _;
use super::layout::{CONFIG, Descriptor, INDEX, Layout, MANIFEST, Manifest, Platform};
use super::parts::Parts;
use super::{Checked, Config, Digest, Fault, archive, document};
use crate::base::digest::Sha256;
use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Progress};
use crate::base::refusal::{Code, Reason};
use crate::base::text::{counted, printable};
use crate::fs::rootfs::Rootfs;
use crate::fs::staging::{Directory, tree_place};

/// An image with its platform, and the layout that has it.
struct Image<'a> {
    layout: &'a Layout,
    descriptor: Descriptor,
    platform: Platform,
}

/// Makes the layout `to` with one index of all images in the layouts `from`, tagged `tag`. Returns the digest of the index.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if two images have the same platform, and the faults of the layouts.
pub fn index(from: &[PathBuf], to: &Path, tag: &str, ui: &dyn Progress) -> Result<Digest> {
    let layouts: Vec<Layout> = from.iter().map(|dir| Layout::open(dir)).collect::<Result<_>>()?;
    let mut images: BTreeMap<Platform, Image<'_>> = BTreeMap::new();
    for layout in &layouts {
        let found = images_of(layout).map_err(|fault| fault.into_error(&layout.path().display().to_string()))?;
        for image in found {
            let (shown, place) = (printable(&image.platform.to_string()), layout.path().display().to_string());
            if let Some(other) = images.insert(image.platform.clone(), image) {
                let places = format!("{} and {place}", other.layout.path().display());
                return Err(Error::usage(format!("two images are for {shown}: in {places}"))
                    .with_hint("name each layout once, and build each image for another architecture"));
            }
        }
    }
    ui.stage(&format!("writing an index of {}", counted(images.len(), "image")));
    let (above, name) = tree_place(to)?;
    let staging = Directory::create(above.fd(), above.path(), ui)?;
    let hidden = staging.name().join("layout");
    above.create_dir(&hidden, 0o755)?;
    let layout = above.subtree(&hidden, to)?;
    layout.create_dir_all(Path::new("blobs/sha256"), 0o755)?;
    let digest = write(&layout, images.into_values().collect(), tag, ui)?;
    layout.sync()?;
    staging.undisturbed(|| above.rename(&hidden, name))?;
    ui.done();
    Ok(digest)
}

/// Lists the images of a layout, also those in indexes.
fn images_of(layout: &Layout) -> Checked<Vec<Image<'_>>> {
    let mut seen = BTreeSet::new();
    let mut images = Vec::new();
    for entry in layout.index()?.manifests {
        let parts = Parts::of(&entry, &mut |document| layout.bytes(document))?;
        for descriptor in parts.documents {
            if descriptor.media_type == MANIFEST && seen.insert(descriptor.digest.clone()) {
                let platform = platform(layout, &descriptor)?;
                images.push(Image { layout, descriptor, platform });
            }
        }
    }
    Ok(images)
}

/// Returns the platform that the configuration of an image names.
fn platform(layout: &Layout, descriptor: &Descriptor) -> Checked<Platform> {
    let manifest: Manifest = layout.document(descriptor)?;
    manifest.check()?;
    if manifest.config.media_type != CONFIG {
        return Err(Reason::new(Code::BadMediaType, format!("{} is not an image that runs", descriptor.digest)).into());
    }
    let bytes = layout.bytes(&manifest.config)?;
    document::parse::<Config>(&bytes)?;
    match serde_json::from_slice::<Platform>(&bytes) {
        Ok(Platform { os, architecture, variant }) if !os.is_empty() && !architecture.is_empty() => {
            Ok(Platform { os, architecture, variant: variant.filter(|variant| !variant.is_empty()) })
        }
        _ => Err(Reason::new(Code::BadConfig, format!("{} does not name its platform", descriptor.digest)).into()),
    }
}

/// Writes the blobs and the documents of a new layout.
fn write(to: &Rootfs, images: Vec<Image<'_>>, tag: &str, ui: &dyn Progress) -> Result<Digest> {
    let mut listed = Vec::new();
    let (mut written, mut done) = (BTreeSet::new(), 0);
    for image in images {
        let at = |fault: Fault| fault.into_error(&image.layout.path().display().to_string());
        let parts = Parts::of(&image.descriptor, &mut |document| image.layout.bytes(document)).map_err(at)?;
        for part in parts.blobs.iter().chain(&parts.documents) {
            if written.insert(part.digest.clone()) {
                copy(image.layout, part, to, &mut |count| {
                    done += count;
                    ui.emit(Event::Bytes { done, total: None });
                })
                .map_err(|fault| archive::of_blob(fault, part, image.layout.path()))?;
            }
        }
        let Descriptor { media_type, digest, size, .. } = image.descriptor;
        let Platform { os, architecture, variant } = image.platform;
        let mut platform = json!({ "os": os, "architecture": architecture });
        if let Some(variant) = variant {
            platform["variant"] = variant.into();
        }
        listed.push(json!({ "mediaType": media_type, "digest": digest, "size": size, "platform": platform }));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": listed }).to_string();
    let digest = Digest::Sha256(Sha256::of(index.as_bytes()));
    to.write(&digest.path(), index.as_bytes(), 0o644)?;
    name_image(to, &Descriptor::new(INDEX, &digest, index.len() as u64), Some(tag))?;
    Ok(digest)
}

fn copy(from: &Layout, part: &Descriptor, to: &Rootfs, tell: &mut dyn FnMut(u64)) -> Checked<()> {
    let path = Digest::parse(&part.digest)?.path();
    to.create_dir_all(path.parent().unwrap_or(Path::new("")), 0o755)?;
    archive::copy(from, part, &mut archive::create(to, &path)?, tell)
}

/// Writes `index.json` and `oci-layout` of a new layout with one image.
pub fn name_image(layout: &Rootfs, image: &Descriptor, tag: Option<&str>) -> Result<()> {
    let mut listed = json!({ "mediaType": image.media_type, "digest": image.digest, "size": image.size });
    if let Some(tag) = tag {
        listed["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [listed] });
    layout.write(Path::new("index.json"), index.to_string().as_bytes(), 0o644)?;
    layout.write(Path::new("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)
}
