//! Finds an image in a layout by its tag, or by the digest of its manifest, also through nested indexes.

use std::collections::BTreeSet;

use super::document::Document as _;
use super::layout::{Descriptor, INDEX, Layout, MANIFEST, MAX_DEPTH};
use super::{Checked, document, refused};
use crate::base::error::{Error, Result};
use crate::base::refusal::{Code, Reason};
use crate::base::text::printable;

/// Images of an index that a message lists.
const LISTED: usize = 50;

/// Returns the manifest of the image `name`. Of an index, that is its only image, or the only one for this machine.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) when no image matches or several do, and the faults of the indexes that are read.
pub(super) fn find(layout: &Layout, index: &document::Index, name: &str) -> Result<Descriptor> {
    let images = &index.manifests;
    let called = format!("{} in {}", printable(name), layout.path().display());
    let mut found: Vec<_> =
        images.iter().filter(|image| image.name() == Some(name) || image.digest == name).cloned().collect();
    // One image may have several tags.
    found.dedup_by(|one, other| one.is_same(other));
    if found.is_empty() && name.contains(':') {
        found.extend(below(layout, images, name, 0, &mut BTreeSet::new())?);
    }
    let [image] = &mut found[..] else {
        let error = match found.is_empty() {
            true => format!("{called} not found"),
            false => format!("several images fit {called}"),
        };
        let label = |image: &Descriptor| printable(image.name().unwrap_or(&image.digest));
        let known = images.iter().take(LISTED).map(label).collect::<Vec<_>>().join(", ");
        let hint = match images.is_empty() {
            true => "its index.json does not list any image".to_owned(),
            false => format!("give one of these, or a digest: {known}"),
        };
        return Err(Error::usage(error).with_hint(hint));
    };
    for _ in 0..=MAX_DEPTH {
        match &image.media_type[..] {
            MANIFEST => return Ok(image.clone()),
            INDEX => *image = for_this_machine(&read(layout, image)?, &called)?,
            _ => break,
        }
    }
    let reason = match &image.media_type[..] {
        INDEX => Reason::new(Code::TooDeep, "its indexes are nested too deeply"),
        _ => Reason::new(Code::BadMediaType, "it is not the manifest of an image"),
    };
    Err(refused(&called, &reason))
}

/// Returns the descriptor with this digest in the indexes below `images`.
fn below(
    layout: &Layout,
    images: &[Descriptor],
    digest: &str,
    depth: usize,
    seen: &mut BTreeSet<String>,
) -> Result<Option<Descriptor>> {
    for image in images.iter().filter(|image| image.media_type == INDEX) {
        if depth == MAX_DEPTH || !seen.insert(image.digest.clone()) {
            continue;
        }
        let index = read(layout, image)?;
        if let Some(found) = index.manifests.iter().find(|image| image.digest == digest) {
            return Ok(Some(found.clone()));
        }
        if let Some(found) = below(layout, &index.manifests, digest, depth + 1, seen)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Returns the entry of `index.json` with the tag or digest `name`, or the only entry.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if no entry fits or several do.
pub fn chosen(layout: &Layout, name: Option<&str>) -> Result<Descriptor> {
    let place = layout.path().display();
    let index = layout.index().map_err(|fault| fault.into_error(&format!("index.json in {place}")))?;
    let mut found: Vec<Descriptor> = index.manifests;
    if let Some(name) = name {
        found.retain(|image| image.name() == Some(name) || image.digest == name);
    }
    found.dedup_by(|one, other| one.is_same(other));
    let known = |images: &[Descriptor]| {
        let names = images.iter().take(LISTED).map(|image| printable(image.name().unwrap_or(&image.digest)));
        names.collect::<Vec<_>>().join(", ")
    };
    match (&found[..], name) {
        ([image], _) => Ok(image.clone()),
        ([], Some(name)) => Err(Error::usage(format!("{} in {place} not found", printable(name)))),
        ([], None) => Err(Error::usage(format!("{place} has no image"))),
        (images, _) => {
            let hint = format!("name one of them with --image: {}", known(images));
            Err(Error::usage(format!("{place} has several images")).with_hint(hint))
        }
    }
}

/// Returns the images that an index, or a list in Docker's form, names. Only their descriptors are checked.
pub fn listed(bytes: &[u8]) -> Result<Vec<Descriptor>, Reason> {
    document::parse::<document::Index>(bytes).map(|index| index.manifests)
}

/// Returns true for a well-formed tag.
pub fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || b".-".contains(&byte))
}

fn read(layout: &Layout, descriptor: &Descriptor) -> Result<document::Index> {
    let index = || -> Checked<document::Index> {
        let index: document::Index = layout.document(descriptor)?;
        index.check()?;
        Ok(index)
    };
    let object = || format!("{} in {}", printable(&descriptor.digest), layout.path().display());
    index().map_err(|fault| fault.into_error(&object()))
}

fn for_this_machine(index: &document::Index, called: &str) -> Result<Descriptor> {
    // BuildKit lists its attestations beside the images, with an unknown platform.
    let is_image = |image: &&Descriptor| image.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
    let images: Vec<_> = index.manifests.iter().filter(is_image).collect();
    let fits = |image: &&Descriptor| image.platform.as_ref().is_some_and(|platform| platform.is_of_this_machine());
    let fitting: Vec<_> = images.iter().copied().filter(fits).collect();
    match (&images[..], &fitting[..]) {
        ([image], _) | (_, [image]) => return Ok(Descriptor::clone(image)),
        _ => {}
    }
    let error = match (images.len(), fitting.len()) {
        (0, _) => "the index is empty",
        (_, 0) => "no image fits this machine",
        _ => "several images fit this machine",
    };
    let line = |image: &&Descriptor| {
        let platform = image.platform.as_ref().map_or_else(|| "no platform".to_owned(), ToString::to_string);
        format!("{} ({})", printable(&image.digest), printable(&platform))
    };
    let mut lines: Vec<String> = images.iter().take(LISTED).map(line).collect();
    lines.extend((images.len() > LISTED).then(|| format!("and {} more", images.len() - LISTED)));
    let error = Error::usage(format!("{error}: {called} is an index of {}", images.len()));
    Err(if lines.is_empty() { error } else { error.with_hint(format!("give a digest:\n{}", lines.join("\n"))) })
}
