//! `pull`: an image of a registry into a new layout. The layout appears when everything in it is verified and on disk.

use std::fs::File;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::client::{Client, Connection, Purpose};
use super::download;
use super::parallel::{self, Transfer};
use super::push::JOBS;
use super::reference::Reference;
use super::upload::Stop;
use crate::base::error::{Context as _, Error, Result};
use crate::base::progress::Progress;
use crate::fs::rootfs::Rootfs;
use crate::fs::staging::{Directory, tree_place};
use crate::oci::layout::Descriptor;
use crate::oci::parts::Parts;
use crate::oci::{Checked, Digest, Fault, index};
use crate::os::space;

/// The tag if a reference has neither a tag nor a digest.
const LATEST: &str = "latest";

/// Pulls an image into the layout `dir`, which must not exist or be an empty directory. Returns the digest.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if the directory cannot be used, [`Kind::Refused`](crate::base::error::Kind::Refused)
/// if the registry sends something else than the image, and [`Kind::Network`](crate::base::error::Kind::Network) if it fails.
pub fn pull(from: &Reference, dir: &Path, connection: &Connection, ui: &dyn Progress) -> Result<Digest> {
    let (above, name) = tree_place(dir)?;
    let client = Client::new(from, connection, Purpose::Pull, &[], ui)?;
    let doing = format!("pulling {from}");
    ui.stage(&doing);
    let staging = Directory::create(above.fd(), above.path(), ui)?;
    let hidden = staging.name().join("layout");
    above.create_dir(&hidden, 0o755)?;
    let layout = above.subtree(&hidden, dir)?;
    for blobs in ["blobs", "blobs/sha256", "blobs/sha512"] {
        layout.create_dir(Path::new(blobs), 0o755)?;
    }
    let root = match fill(&client, from, &layout, ui) {
        Ok(root) => root,
        Err(stop) => return Err(client.stopped(&doing, stop)),
    };
    // An empty directory would be a difference to layouts of other programs.
    if layout.read_dir(Path::new("blobs/sha512"))?.is_empty() {
        layout.remove(Path::new("blobs/sha512"))?;
    }
    let digest = Digest::parse(&root.digest).map_err(|reason| Error::refused(reason.text.into_owned()))?;
    let tag = from.tag().or(from.digest().is_none().then_some(LATEST));
    index::name_image(&layout, &root, tag)?;
    layout.sync()?;
    staging.undisturbed(|| above.rename(&hidden, name))?;
    ui.done();
    Ok(digest)
}

/// Downloads all parts of the image. Returns its descriptor.
fn fill(client: &Client<'_>, from: &Reference, layout: &Rootfs, ui: &dyn Progress) -> Result<Descriptor, Stop> {
    let (root, bytes) = match (from.digest(), from.tag()) {
        (Some(digest), _) => download::document(client, &digest.to_string(), Some(digest))?,
        (None, tag) => download::document(client, tag.unwrap_or(LATEST), None)?,
    };
    let mut first = Some(bytes);
    let mut stopped = None;
    let mut read = |document: &Descriptor| -> Checked<Vec<u8>> {
        let bytes = match first.take() {
            Some(bytes) => bytes,
            None => child(client, document).map_err(|stop| {
                // The walk over the documents knows nothing of the network.
                stopped = Some(stop);
                Fault::System(Error::network(""))
            })?,
        };
        layout.write(&Digest::parse(&document.digest)?.path(), &bytes, 0o644)?;
        Ok(bytes)
    };
    let parts = Parts::of(&root, &mut read);
    if let Some(stop) = stopped {
        return Err(stop);
    }
    let parts = parts.map_err(|fault| Stop::Local(fault.into_error(&from.to_string())))?;
    let needed = parts.blobs.iter().fold(0u64, |sum, blob| sum.saturating_add(blob.size));
    space::check(layout.fd(), layout.path(), format!("pulling {from}"), needed).map_err(Stop::Local)?;
    let transfers = parts.blobs.into_iter().map(|blob| {
        let size = blob.size;
        Transfer::new(blob, size)
    });
    parallel::run(transfers.collect(), JOBS, ui, |transfer| {
        let digest = Digest::parse(&transfer.what.digest)
            .map_err(|reason| Stop::Local(Error::refused(reason.text.into_owned())))?;
        let mut file = create(layout, &digest.path()).map_err(Stop::Local)?;
        download::blob(client, &transfer.what, &mut file, &transfer.done)
    })?;
    Ok(root)
}

/// Downloads a document of an index, which says its size, digest and media type.
fn child(client: &Client<'_>, described: &Descriptor) -> Result<Vec<u8>, Stop> {
    let digest =
        Digest::parse(&described.digest).map_err(|reason| Stop::Local(Error::refused(reason.text.into_owned())))?;
    let (found, bytes) = download::document(client, &described.digest, Some(&digest))?;
    if (found.size, &found.media_type) != (described.size, &described.media_type) {
        let what = format!("the registry gives {digest} another size or media type than the index does");
        return Err(Stop::Local(Error::refused(what)));
    }
    Ok(bytes)
}

fn create(layout: &Rootfs, path: &Path) -> Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW;
    let fd = layout.openat2(path, flags, Mode::from_raw_mode(0o644)).system(|| layout.doing("creating", path))?;
    Ok(File::from(fd))
}
