//! `push`: an image of a layout to a registry. The blobs come first, then the documents, and the tags last.

use std::path::Path;
use std::sync::Arc;

use super::client::{Client, Connection, Purpose};
use super::parallel::{self, Transfer};
use super::reference::{self, Reference};
use super::upload::{self, Blob, Stop, Way};
use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::oci::layout::{Descriptor, Layout};
use crate::oci::parts::Parts;
use crate::oci::reference as layout_reference;
use crate::oci::{Digest, archive};

/// Blobs that are transferred at the same time.
pub(super) const JOBS: usize = 4;

/// The choices of the user for a push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// The image of the layout, by its tag or digest; `None` for the only one.
    pub image: Option<String>,
    /// Further tags.
    pub tags: Vec<String>,
    /// Repositories of the registry that may have blobs of the image.
    pub sources: Vec<String>,
}

/// The outcome of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// `HOST/NAME@DIGEST`
    pub reference: String,
    /// Bytes of blobs that were uploaded.
    pub sent: u64,
    /// Blobs that were uploaded, taken from another repository, and there already.
    pub blobs: [usize; 3],
}

/// Pushes an image of the layout in `dir`.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if the image is not clear, [`Kind::Refused`](crate::base::error::Kind::Refused) if
/// the layout is wrong, and [`Kind::Network`](crate::base::error::Kind::Network) if the registry fails or refuses.
pub fn push(
    dir: &Path,
    to: &Reference,
    options: &PushOptions,
    connection: &Connection,
    ui: &dyn Progress,
) -> Result<Pushed> {
    if to.digest().is_some() {
        return Err(
            Error::usage(format!("{to} names a digest, which the image decides")).with_hint("give a tag, or neither")
        );
    }
    for source in &options.sources {
        reference::check_name(source).map_err(Error::usage)?;
    }
    let layout = Layout::open(dir)?;
    let image = layout_reference::chosen(&layout, options.image.as_deref())?;
    let targets = targets(to, &image, &options.tags)?;
    let at = |fault: crate::oci::Fault| fault.into_error(&dir.display().to_string());
    let parts = Parts::of(&image, &mut |document| layout.bytes(document)).map_err(at)?;
    let client = Client::new(to, connection, Purpose::Push, &options.sources, ui)?;
    let doing = format!("pushing {} to {}", dir.display(), targets[0]);
    ui.stage(&doing);

    let mut transfers = Vec::new();
    for descriptor in parts.blobs {
        // Each file is opened again when its turn comes: an image can have more blobs than a process may open.
        layout.open_blob(&descriptor).map_err(|fault| archive::of_blob(fault, &descriptor, dir))?;
        let size = descriptor.size;
        transfers.push(Transfer::new(descriptor, size));
    }
    let sent = parallel::run(transfers, JOBS, ui, |transfer| {
        let descriptor = transfer.what;
        let digest = Digest::parse(&descriptor.digest)?;
        let file = layout.open_blob(&descriptor);
        let file = file.map_err(|fault| Stop::Local(archive::of_blob(fault, &descriptor, dir)))?;
        let blob = Blob { digest, size: descriptor.size, file: Arc::new(file), done: transfer.done };
        upload::upload(&client, &blob, &options.sources).map(|way| (way, descriptor.size))
    });
    let sent = sent.map_err(|stop| client.stopped(&doing, stop))?;
    documents(&client, &layout, &parts.documents, &targets).map_err(|stop| client.stopped(&doing, stop))?;
    ui.done();
    let count = |wanted| sent.iter().filter(|(way, _)| *way == wanted).count();
    Ok(Pushed {
        reference: format!("{}@{}", to.name(), image.digest),
        sent: sent.iter().filter(|(way, _)| *way == Way::Sent).map(|(_, size)| size).sum(),
        blobs: [count(Way::Sent), count(Way::Mounted), count(Way::Present)],
    })
}

/// Stores the documents by their digests, and the last one under all tags.
fn documents(
    client: &Client<'_>,
    layout: &Layout,
    documents: &[Descriptor],
    targets: &[Reference],
) -> Result<(), Stop> {
    let bytes =
        |document: &Descriptor| layout.bytes(document).map_err(|fault| Stop::Local(fault.into_error(&document.digest)));
    let Some((image, others)) = documents.split_last() else { return Ok(()) };
    for document in others {
        client.put_document(&document.digest, &document.media_type, &bytes(document)?)?;
    }
    let bytes = bytes(image)?;
    for tag in targets.iter().filter_map(Reference::tag) {
        client.put_document(tag, &image.media_type, &bytes)?;
    }
    Ok(())
}

/// Returns the references to tag: the given one, or with the tag of the image if it has none, and those of further tags.
fn targets(to: &Reference, image: &Descriptor, tags: &[String]) -> Result<Vec<Reference>> {
    let first = match (to.tag(), image.name(), tags) {
        (Some(_), ..) => Some(to.clone()),
        (None, Some(name), _) => Some(to.tagged(name)?),
        (None, None, []) => {
            return Err(
                Error::usage(format!("{to} has no tag, nor has the image")).with_hint(format!("write {to}:TAG"))
            );
        }
        _ => None,
    };
    first.into_iter().map(Ok).chain(tags.iter().map(|tag| to.tagged(tag))).collect()
}
