//! Copies layers to another store, as a plain tar archive:
//!
//! ```text
//! KEY/layer.json          the record
//! KEY/log.zst             the output of the step, if there is any
//! KEY/PLACE.changes.zst   the list of changes of the overlay at PLACE, a mount point in which `/` is written as %2F
//! KEY/PLACE.tar           the upper directory, with overlayfs's whiteouts as character devices 0:0
//! ```
//!
//! Owners are those of the user namespace, so a layer that root made serves an ordinary user. An import computes the digest of the result
//! again: a damaged layer is refused. Nothing shows that the layer is an answer to its key, so an importer must trust the exporter.

use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::super::Store;
use super::super::export::{BUFFER, header};
use super::super::import::Data;
use super::{Found, Layer, LayerRecord, MAX_RECORD, Partial, escaped, result};
use crate::archive::changes::{self, Change, Changes, Kind as ChangeKind};
use crate::archive::pack::tar::{END, padding};
use crate::archive::pack::{self, Format};
use crate::archive::unpack::entry::{Entry, NodeKind};
use crate::archive::unpack::reader::Reader;
use crate::archive::unpack::{Deferred, Limits, Unpacker};
use crate::base::digest::Sha256;
use crate::base::error::{Context, Error, Result};
use crate::base::progress::{Progress, Silent};
use crate::base::text::printable;
use crate::fs::rootfs::Rootfs;
use crate::os::space;

/// Suffix of the list of changes of an overlay.
const CHANGES: &str = ".changes.zst";
/// Suffix of the upper directory of an overlay.
const TREE: &str = ".tar";
/// Size limit of a list of changes, in bytes.
const MAX_CHANGES: u64 = 1 << 30;
/// The attribute of a directory that hides the one of the same name below it.
const OPAQUE: &str = "user.overlay.opaque";

/// Beginning of the places of volumes.
const VOLUME: &str = "volume/";

const DAMAGED: &str = "import an archive that `quern-builder store export --layers` wrote";

/// The number of layers that were copied, and of those that were left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    pub layers: usize,
    /// Layers that another store cannot use, or has already.
    pub left_out: usize,
}

impl Store {
    /// Writes the layers of these keys to `to`. Layers whose record does not give the digest of their files are left out, as those of
    /// Portage's configuration: every build makes them. So are layers of steps with secrets, whose keys only this store can compute.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if a layer cannot be read or the archive not be written, and
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if the store does not have a layer.
    pub fn export_layers(&self, keys: &[Sha256], to: &mut dyn Write, ui: &dyn Progress) -> Result<Copied> {
        let mut copied = Copied::default();
        for key in keys {
            let layer = self.layer(key)?.ok_or_else(|| {
                Error::usage(format!("the store does not have the layer {key}")).with_hint("build the recipe first")
            })?;
            let manifests = layer.manifests()?;
            let named: Vec<_> = manifests.iter().map(|(place, changes)| (place.as_str(), changes.clone())).collect();
            if layer.record.is_of_this_store() || !is_result(&named, &layer.record) {
                copied.left_out += 1;
                continue;
            }
            ui.stage(&format!("exporting the layer of the step {}", layer.record.step));
            self.export_layer(&layer, &manifests, to)?;
            copied.layers += 1;
            ui.done();
        }
        to.write_all(&END).and_then(|()| to.flush()).system(|| "writing the layers")?;
        Ok(copied)
    }

    fn export_layer(&self, layer: &Layer, manifests: &[(String, Changes)], to: &mut dyn Write) -> Result<()> {
        let key = layer.record.key.hex();
        let record =
            serde_json::to_vec(&layer.record).map_err(|error| Error::system("writing a record").with_source(error))?;
        member(to, &format!("{key}/{}", super::RECORD), record.len() as u64, &mut &record[..])?;
        if let Some(path) = layer.log_path() {
            let log = fs_err::File::open(path).system(|| "reading the output of a step")?.into_file();
            member(to, &format!("{key}/{}", super::LOG), size(&log)?, &mut &log)?;
        }
        for (place, changes) in manifests {
            let mut list = Vec::new();
            changes.write(&mut list)?;
            let name = format!("{key}/{}", escaped(place));
            member(to, &format!("{name}{CHANGES}"), list.len() as u64, &mut &list[..])?;
            let upper = layer.upper(place).ok_or_else(|| Error::system("the layer lost an upper directory"))?;
            let root = Rootfs::open(&upper)?;
            let deferred = Deferred::default();
            let tree = pack::Tree { root: &root, deferred: &deferred, part: None };
            let mut packed = tempfile::tempfile_in(self.root()).system(|| "making a temporary file")?;
            let options = pack::Options { format: Format::Plain, threads: 1, ..pack::Options::default() };
            pack::archive(tree, pack::Outputs::archive(&mut packed), None, &options, &Silent)?;
            packed.rewind().system(|| "reading a packed layer")?;
            member(to, &format!("{name}{TREE}"), size(&packed)?, &mut &packed)?;
        }
        Ok(())
    }

    /// Imports layers from an archive that [`Store::export_layers`] wrote. Messages call it `name`.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::base::error::Kind::Refused) for a damaged archive; layers that were complete before are kept.
    pub fn import_layers(&self, archive: impl Read, name: &str, ui: &dyn Progress) -> Result<Copied> {
        let limits = Limits { entries: 1_000_000, bytes: u64::MAX, pax: 64 << 10, ..Limits::default() };
        let mut reader = Reader::new(BufReader::with_capacity(BUFFER, archive), limits);
        let refused =
            |why: &str| Error::refused(format!("importing layers from {}: {why}", printable(name))).with_hint(DAMAGED);
        let mut copied = Copied::default();
        let mut open: Option<Arriving> = None;
        loop {
            let entry = reader.next_entry().map_err(|error| refused("it is damaged").with_source(error))?;
            let Some(entry) = entry else { break };
            let (key, file) = parts(&entry).ok_or_else(|| {
                refused(&format!("{} does not belong in it", printable(&entry.path.to_string_lossy())))
            })?;
            if open.as_ref().is_none_or(|arriving| arriving.key != key) {
                copied.add(open.take(), ui)?;
                open = Some(Arriving::new(key));
            }
            if let Some(arriving) = &mut open {
                arriving.take(self, &file, entry.size, &mut Data(&mut reader)).map_err(|error| match error.kind() {
                    crate::base::error::Kind::Refused => {
                        error.with_hint(format!("{} is damaged: {DAMAGED}", printable(name)))
                    }
                    _ => error,
                })?;
            }
        }
        if reader.is_unmarked() {
            return Err(refused("it is cut off"));
        }
        copied.add(open.take(), ui)?;
        Ok(copied)
    }
}

impl Copied {
    fn add(&mut self, arriving: Option<Arriving>, ui: &dyn Progress) -> Result<()> {
        match arriving.map(|arriving| arriving.keep(ui)).transpose()? {
            Some(true) => self.layers += 1,
            Some(false) => self.left_out += 1,
            None => {}
        }
        Ok(())
    }
}

impl Layer {
    /// Returns the mount points of the overlays and their lists of changes.
    fn manifests(&self) -> Result<Vec<(String, Changes)>> {
        let mut places = vec!["/".to_owned()];
        if let Ok(entries) = fs_err::read_dir(self.directory.join("manifests")) {
            for entry in entries {
                let name = entry.system(|| "reading a layer")?.file_name();
                let name = name.to_str().and_then(|name| name.strip_suffix(".zst"));
                places.extend(name.and_then(place_of));
            }
        }
        places.sort();
        let mut manifests = Vec::new();
        for place in places {
            if let Some(changes) = self.manifest(&place)? {
                manifests.push((place, changes));
            }
        }
        Ok(manifests)
    }
}

/// A layer that is being imported.
struct Arriving {
    key: Sha256,
    record: Option<LayerRecord>,
    /// `None` if the store has the layer.
    partial: Option<Partial>,
    changes: Vec<(String, Changes)>,
    trees: Vec<String>,
}

impl Arriving {
    fn new(key: Sha256) -> Self {
        Self { key, record: None, partial: None, changes: Vec::new(), trees: Vec::new() }
    }

    /// Takes a file of the layer. The record comes first.
    fn take(&mut self, store: &Store, name: &str, size: u64, data: &mut dyn Read) -> Result<()> {
        let refused = |why: &str| Error::refused(format!("importing the layer {}: {why}", self.key));
        if name == super::RECORD {
            let record =
                LayerRecord::parse(&bytes(data, size, MAX_RECORD).ok_or_else(|| refused("its record is too long"))?);
            let record = record.filter(|record| record.key == self.key && self.record.is_none());
            let record = record.ok_or_else(|| refused("its record is of another version, or of another layer"))?;
            if let Found::Missing(partial) = store.find_layer(&self.key, |_| true, || {})? {
                self.partial = Some(partial);
            }
            self.record = Some(record);
            return Ok(());
        }
        if self.record.is_none() {
            return Err(refused("its record is missing"));
        }
        let Some(partial) = &self.partial else { return Ok(()) };
        if name == super::LOG {
            let log = bytes(data, size, MAX_CHANGES).ok_or_else(|| refused("its output is too long"))?;
            let log =
                zstd::decode_all(&log[..]).map_err(|error| refused("its output is damaged").with_source(error))?;
            return fs_err::write(partial.log(), log).system(|| "writing the output of a step");
        }
        if let Some(place) = name.strip_suffix(CHANGES) {
            let place = place_of(place).ok_or_else(|| refused("a file does not belong in it"))?;
            let list = bytes(data, size, MAX_CHANGES).ok_or_else(|| refused("its list of changes is too long"))?;
            let changes =
                Changes::parse(&list).map_err(|error| refused("its list of changes is damaged").with_source(error))?;
            self.changes.push((place, changes));
            return Ok(());
        }
        let place =
            name.strip_suffix(TREE).and_then(place_of).ok_or_else(|| refused("a file does not belong in it"))?;
        let changes = self.changes.iter().find(|(known, _)| *known == place && !self.trees.contains(known));
        let changes = changes.map(|(_, changes)| changes).ok_or_else(|| refused("it has no list of changes"))?;
        let upper = partial.upper(&place);
        fs_err::create_dir_all(&upper).system(|| "making a layer")?;
        space::check(fs_err::File::open(&upper).system(|| "making a layer")?, store.root(), "importing a layer", size)?;
        let mut packed = tempfile::tempfile_in(store.root()).system(|| "making a temporary file")?;
        let mut buffer = vec![0; BUFFER];
        loop {
            // An error of the archive, whose data are read here.
            let count = data.read(&mut buffer).map_err(|error| refused("it is damaged").with_source(error))?;
            if count == 0 {
                break;
            }
            packed.write_all(&buffer[..count]).system(|| "copying a layer")?;
        }
        if self::size(&packed)? != size {
            return Err(refused("it is cut off"));
        }
        unpack(packed, &Rootfs::open(&upper)?, changes)?;
        self.trees.push(place);
        Ok(())
    }

    /// Verifies the layer and keeps it. Returns false if the store had it.
    fn keep(self, ui: &dyn Progress) -> Result<bool> {
        let refused = |why: &str| Error::refused(format!("importing the layer {}: {why}", self.key)).with_hint(DAMAGED);
        let (Some(record), Some(partial)) = (self.record, self.partial) else { return Ok(false) };
        if self.trees.len() != self.changes.len() {
            return Err(refused("a part of it is missing"));
        }
        ui.stage(&format!("importing the layer of the step {}", printable(&record.step)));
        let named: Vec<_> = self.changes.iter().map(|(place, changes)| (place.as_str(), changes.clone())).collect();
        if !is_result(&named, &record) {
            return Err(refused("its changes are not those of its record"));
        }
        // Every time counts: those in the list are the times before the step.
        let never = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 64);
        for (place, changes) in &named {
            let found = changes::read(&Rootfs::open(&partial.upper(place))?, never, &|_| false, ui)?;
            if !found.agrees(changes) {
                return Err(refused("its files are not those of its list of changes"));
            }
        }
        partial.keep(record, &named)?;
        ui.done();
        Ok(true)
    }
}

/// Returns true if a record has the digests of these changes.
fn is_result(changes: &[(&str, Changes)], record: &LayerRecord) -> bool {
    let of_volume = |place: &str| place.strip_prefix(VOLUME).and_then(|name| record.volumes.get(name));
    let (volumes, others): (Vec<_>, Vec<_>) =
        changes.iter().cloned().partition(|(place, _)| of_volume(place).is_some());
    let good = |(place, changes): &(&str, Changes)| of_volume(place) == Some(&changes.digest());
    result(&others) == record.result && volumes.len() == record.volumes.len() && volumes.iter().all(good)
}

/// Unpacks the upper directory of an overlay, with its whiteouts and opaque marks.
fn unpack(packed: File, into: &Rootfs, changes: &Changes) -> Result<()> {
    let limits = Limits { entries: 100_000_000, bytes: u64::MAX, ..Limits::default() };
    let unpacker = Unpacker { name: "a layer", into, limits: &limits, ui: &Silent };
    let deferred = unpacker.file(packed)?;
    for entry in changes.entries() {
        let doing = || format!("making {}", entry.path.display());
        match &entry.change {
            Change::Removed if deferred.nodes().contains_key(&entry.path) => {
                let (parent, name) = (entry.path.parent().unwrap_or(Path::new("")), entry.path.file_name());
                let directory = into.open_dir(parent)?;
                let stat = rustix::fs::fstat(&directory).system(doing)?;
                let name = name.unwrap_or_default();
                rustix::fs::mknodat(&directory, name, FileType::CharacterDevice, Mode::empty(), 0).system(doing)?;
                let time = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
                let times = Timestamps { last_access: time, last_modification: time };
                rustix::fs::futimens(&directory, &times).system(doing)?;
            }
            Change::Node(node) if node.kind == (ChangeKind::Dir { opaque: true }) => {
                let directory = into.open_dir(&entry.path)?;
                rustix::fs::fsetxattr(&directory, OPAQUE, b"y", XattrFlags::empty()).system(doing)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Splits the path of a file in the archive into the key of its layer and its name.
fn parts(entry: &Entry) -> Option<(Sha256, String)> {
    let (key, name) = entry.path.to_str()?.split_once('/')?;
    let plain = entry.kind == NodeKind::File && entry.sparse.is_none() && !name.contains('/');
    Some((Sha256::parse(key)?, name.to_owned())).filter(|_| plain)
}

/// Returns the place that [`escaped`] wrote as a file name: a mount point, or that of a volume. Any other name, such as `..`, could lead
/// out of the directory of a layer.
fn place_of(name: &str) -> Option<String> {
    let place = name.replace("%2F", "/").replace("%25", "%");
    (place.starts_with('/') || place.starts_with(VOLUME)).then_some(place)
}

fn size(file: &File) -> Result<u64> {
    Ok(file.metadata().system(|| "reading a layer")?.len())
}

/// Reads at most `most` bytes; `None` if there are more.
fn bytes(data: &mut dyn Read, size: u64, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = data.take(most).read_to_end(&mut bytes);
    (read.is_ok() && size <= most && bytes.len() as u64 == size).then_some(bytes)
}

/// Writes a file of the archive.
fn member(to: &mut dyn Write, path: &str, size: u64, data: &mut dyn Read) -> Result<()> {
    let writing = || "writing the layers";
    let mut head = Vec::new();
    header(&mut head, path, size);
    to.write_all(&head).system(writing)?;
    let written = std::io::copy(&mut data.take(size), to).system(writing)?;
    if written != size {
        return Err(Error::system(format!("{}: a file became shorter", writing())));
    }
    to.write_all(&vec![0; padding(size)]).system(writing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_a_layer_are_no_places() {
        for place in ["/", "/quern/image", "/50%", "volume/entropy"] {
            assert_eq!(place_of(&escaped(place)).as_deref(), Some(place));
        }
        for name in ["", ".", "..", "%2E%2E", "..%2F..", "upper", "volume"] {
            assert_eq!(place_of(name), None, "{name}");
        }
    }

    #[test]
    fn an_archive_cannot_name_the_directory_of_a_layer() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let key = Sha256::of(b"key");
        let record = LayerRecord {
            format: super::super::FORMAT,
            key,
            parent: key,
            result: key,
            volumes: Default::default(),
            image: String::new(),
            step: String::new(),
            inputs: Default::default(),
            why: String::new(),
            started: 0,
            milliseconds: 0,
            bytes: 0,
            notes: Vec::new(),
            packages: None,
        };
        let record = serde_json::to_vec(&record).unwrap();
        for name in ["...changes.zst", "...tar", ".changes.zst"] {
            let mut archive = Vec::new();
            member(&mut archive, &format!("{}/layer.json", key.hex()), record.len() as u64, &mut &record[..]).unwrap();
            member(&mut archive, &format!("{}/{name}", key.hex()), 1, &mut &b"x"[..]).unwrap();
            archive.extend_from_slice(&END);
            let refused = store.import_layers(&archive[..], "test", &Silent).unwrap_err();
            assert_eq!(refused.exit_code(), 3, "{name}: {refused}");
            assert!(refused.to_string().contains("does not belong in it"), "{name}: {refused}");
            assert!(store.layers().unwrap().is_empty());
        }
    }
}
