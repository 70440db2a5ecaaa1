//! Which image of a layout is meant: by its tag, or by the digest of its manifest, also where indexes lead to it.

use crate::base::text::printable;
use std::collections::BTreeSet;

use super::layout::{Descriptor, INDEX, Index, Layout, MANIFEST, MAX_DEPTH};
use super::refused;
use crate::base::error::{Error, Result};
use crate::base::refusal::{Code, Reason};

/// Images of an index that a message names.
const NAMED: usize = 50;

/// The manifest of the image `name`: of an index the only one, or the only one for this machine.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) when there is none or several, and what reading an index may say.
pub(super) fn find(layout: &Layout, index: &Index, name: &str) -> Result<Descriptor> {
    let images = &index.manifests;
    let called = format!("{} in {}", printable(name), layout.path().display());
    let mut meant: Vec<_> =
        images.iter().filter(|image| image.name() == Some(name) || image.digest == name).cloned().collect();
    // Several tags may be of one image.
    meant.dedup_by(|one, other| one.is_same(other));
    if meant.is_empty() && name.contains(':') {
        meant.extend(below(layout, images, name, 0, &mut BTreeSet::new())?);
    }
    let [image] = &mut meant[..] else {
        let what = if meant.is_empty() { "there is no image" } else { "there are several images" };
        let called_there = |image: &Descriptor| printable(image.name().unwrap_or(&image.digest));
        let there = images.iter().take(NAMED).map(called_there).collect::<Vec<_>>().join(", ");
        let hint = match images.is_empty() {
            true => "its index.json leads to no image".to_owned(),
            false => format!("give one of these, or a digest: {there}"),
        };
        return Err(Error::usage(format!("{what} {called}")).with_hint(hint));
    };
    for _ in 0..=MAX_DEPTH {
        match &image.media_type[..] {
            MANIFEST => return Ok(image.clone()),
            INDEX => *image = of_this_machine(&read(layout, image)?, &called)?,
            _ => break,
        }
    }
    let (code, text) = match &image.media_type[..] {
        INDEX => (Code::TooDeep, "indexes in indexes"),
        _ => (Code::BadMediaType, "it is not the manifest of an image"),
    };
    Err(refused(&called, &Reason::new(code, text)))
}

/// What has this digest below `images`.
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

fn read(layout: &Layout, descriptor: &Descriptor) -> Result<Index> {
    let index = layout.document::<Index>(descriptor)?.and_then(|index| index.check().map(|()| index));
    let about = || format!("{} in {}", printable(&descriptor.digest), layout.path().display());
    index.map_err(|reason| refused(&about(), &reason))
}

fn of_this_machine(index: &Index, called: &str) -> Result<Descriptor> {
    // What BuildKit attests stands beside the images, for no platform.
    let is_image = |image: &&Descriptor| image.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
    let images: Vec<_> = index.manifests.iter().filter(is_image).collect();
    let fits = |image: &&Descriptor| image.platform.as_ref().is_some_and(|platform| platform.is_of_this_machine());
    let fitting: Vec<_> = images.iter().copied().filter(fits).collect();
    match (&images[..], &fitting[..]) {
        ([image], _) | (_, [image]) => return Ok(Descriptor::clone(image)),
        _ => {}
    }
    let what = match (images.len(), fitting.len()) {
        (0, _) => "there is no image",
        (_, 0) => "there is no image for this machine",
        _ => "there are several images for this machine",
    };
    let line = |image: &&Descriptor| {
        let platform = image.platform.as_ref().map_or_else(|| "no platform".to_owned(), ToString::to_string);
        format!("{} ({})", printable(&image.digest), printable(&platform))
    };
    let mut lines: Vec<String> = images.iter().take(NAMED).map(line).collect();
    lines.extend((images.len() > NAMED).then(|| format!("and {} more", images.len() - NAMED)));
    let error = Error::usage(format!("{what}: {called} is an index of {}", images.len()));
    Err(if lines.is_empty() { error } else { error.with_hint(format!("give a digest:\n{}", lines.join("\n"))) })
}
