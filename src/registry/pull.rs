//! `pull`: an image of a registry into a new layout. The layout appears when everything in it is verified and on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::client::{Client, Connection, Purpose};
use super::parallel::{self, Transfer};
use super::push::JOBS;
use super::reference::Reference;
use super::upload::Stop;
use super::{docker, download};
use crate::base::digest::Sha256;
use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::base::text::printable;
use crate::fs::rootfs::Rootfs;
use crate::fs::staging::{Directory, tree_place};
use crate::oci::layout::{Descriptor, INDEX, MANIFEST, Platform};
use crate::oci::parts::Parts;
use crate::oci::{Checked, Digest, Fault, archive, index, reference};
use crate::os::space;

/// The tag if a reference has neither a tag nor a digest.
const LATEST: &str = "latest";

/// Most images of a list in Docker's form.
const MOST_LISTED: usize = 100;

/// Pulls an image into the layout `dir`, which must not exist or be an empty directory. Of an index, pulls only the image for `platform`, if
/// given. Returns the digest.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if the directory cannot be used, [`Kind::Refused`](crate::base::error::Kind::Refused)
/// if the registry sends something else than the image, and [`Kind::Network`](crate::base::error::Kind::Network) if it fails.
pub fn pull(
    from: &Reference,
    dir: &Path,
    platform: Option<&Platform>,
    connection: &Connection,
    ui: &dyn Progress,
) -> Result<Digest> {
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
    let root = match fill(&client, from, platform, &layout, ui) {
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
fn fill(
    client: &Client<'_>,
    from: &Reference,
    platform: Option<&Platform>,
    layout: &Rootfs,
    ui: &dyn Progress,
) -> Result<Descriptor, Stop> {
    let mut documents = Documents { client, known: BTreeMap::new() };
    let root = documents.root(from, platform, ui)?;
    let mut stopped = None;
    let mut read = |document: &Descriptor| -> Checked<Vec<u8>> {
        let bytes = documents.get(document).map_err(|stop| {
            // The walk over the documents knows nothing of the network.
            stopped = Some(stop);
            Fault::System(Error::network(""))
        })?;
        layout.write(&Digest::parse(&document.digest)?.path(), &bytes, 0o644)?;
        Ok(bytes)
    };
    let parts = Parts::of(&root, &mut read);
    if let Some(stop) = stopped {
        return Err(stop);
    }
    let parts = parts.map_err(|fault| Stop::Local(fault.into_error(&from.to_string())))?;
    let needed = parts.blobs.iter().fold(0u64, |sum, blob| sum.saturating_add(blob.size));
    space::check(layout.fd(), layout.path(), "writing the layers", needed).map_err(Stop::Local)?;
    let transfers = parts.blobs.into_iter().map(|blob| {
        let size = blob.size;
        Transfer::new(blob, size)
    });
    parallel::run(transfers.collect(), JOBS, ui, |transfer| {
        let mut file = archive::create(layout, &Digest::parse(&transfer.what.digest)?.path()).map_err(Stop::Local)?;
        download::blob(client, &transfer.what, &mut file, &transfer.done)
    })?;
    Ok(root)
}

/// The documents of an image.
struct Documents<'a, 'c> {
    client: &'a Client<'c>,
    /// Documents that were downloaded or made, and not yet used.
    known: BTreeMap<String, Vec<u8>>,
}

impl Documents<'_, '_> {
    /// Downloads the first document. Of an index, chooses the image for `platform`. Changes Docker's form into that of OCI.
    fn root(&mut self, from: &Reference, platform: Option<&Platform>, ui: &dyn Progress) -> Result<Descriptor, Stop> {
        let (mut root, mut bytes) = match (from.digest(), from.tag()) {
            (Some(digest), _) => download::document(self.client, &digest.to_string(), Some(digest))?,
            (None, tag) => download::document(self.client, tag.unwrap_or(LATEST), None)?,
        };
        if let Some(platform) = platform {
            root = self.image_for(&root, &bytes, platform, from)?;
            bytes = self.get(&root)?;
        }
        if docker::media_type(&root.media_type).is_some() {
            let original = root.digest.clone();
            (root, bytes) = self.converted(&root, &bytes, 0)?;
            ui.note(&format!("{original} has Docker's form; in that of OCI, its digest is {}", root.digest));
        }
        self.known.insert(root.digest.clone(), bytes);
        Ok(root)
    }

    /// Returns the image of an index for a platform.
    fn image_for(
        &self,
        root: &Descriptor,
        bytes: &[u8],
        platform: &Platform,
        from: &Reference,
    ) -> Result<Descriptor, Stop> {
        let wrong = |text: String| Stop::Local(Error::usage(text));
        if ![INDEX, docker::LIST].contains(&root.media_type.as_str()) {
            return Err(wrong(format!("{from} is one image, and not an index of images for several platforms")));
        }
        let listed = reference::listed(bytes)?;
        let fits = |image: &&Descriptor| image.platform.as_ref().is_some_and(|known| platform.includes(known));
        let found: Vec<_> = listed.iter().filter(fits).collect();
        match &found[..] {
            [image] => Ok(Descriptor::clone(image)),
            other => {
                let known: BTreeSet<String> =
                    listed.iter().filter_map(|image| Some(printable(&image.platform.as_ref()?.to_string()))).collect();
                let known = known.into_iter().take(50).collect::<Vec<_>>().join(", ");
                let many = if other.is_empty() { "no image" } else { "several images" };
                let error = Error::usage(format!("{from} has {many} for {platform}"));
                Err(Stop::Local(error.with_hint(format!("it has images for {known}"))))
            }
        }
    }

    /// Changes a document of Docker's form into that of OCI, and those that it lists.
    fn converted(&mut self, described: &Descriptor, bytes: &[u8], depth: usize) -> Result<(Descriptor, Vec<u8>), Stop> {
        let mut images = Vec::new();
        if described.media_type == docker::LIST {
            let listed = reference::listed(bytes)?;
            let wrong = match (depth, listed.len()) {
                (0, ..=MOST_LISTED) => None,
                (0, _) => Some("lists too many images"),
                _ => Some("is a list within a list"),
            };
            if let Some(wrong) = wrong {
                return Err(Stop::Local(Error::refused(format!("{} {wrong}", described.digest))));
            }
            for image in listed {
                let bytes = self.get(&image)?;
                let (image, bytes) = self.converted(&image, &bytes, depth + 1)?;
                self.known.insert(image.digest.clone(), bytes);
                images.push(image);
            }
        }
        let new = docker::converted(bytes, &images)?;
        let digest = Digest::Sha256(Sha256::of(&new));
        let media_type = docker::media_type(&described.media_type).unwrap_or(MANIFEST);
        Ok((Descriptor::new(media_type, &digest, new.len() as u64), new))
    }

    /// Returns a document. The descriptor in the index gives its size, digest and media type.
    fn get(&mut self, described: &Descriptor) -> Result<Vec<u8>, Stop> {
        if let Some(bytes) = self.known.remove(&described.digest) {
            return Ok(bytes);
        }
        let digest = Digest::parse(&described.digest)?;
        let (found, bytes) = download::document(self.client, &described.digest, Some(&digest))?;
        if (found.size, &found.media_type) != (described.size, &described.media_type) {
            let what = format!("the registry gives {digest} another size or media type than the index does");
            return Err(Stop::Local(Error::refused(what)));
        }
        Ok(bytes)
    }
}
