//! The packages of earlier builds: their key, their index, and the part of them that a build may take.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Part;
use crate::base::error::{Error, Result};
use crate::portage::binpkg::gpkg::{Gpkg, Metadata};
use crate::portage::binpkg::index::{FileFacts, Index, Stanza};
use crate::portage::binpkg::key::Key;
use crate::portage::binpkg::source::Sources;
use crate::portage::binpkg::{self, Fault};
use crate::portage::{PackageDirs, SHARED};
use crate::store::packages::{Entry, Locked, Shelf};

/// Key of an index: the digest of the image in the package.
pub(super) const IMAGE: &str = "QUERN_IMAGE";
/// Beginning of the keys that only this program reads.
pub(super) const OWN: &str = "QUERN_";
/// Keys that differ between two builds of the same package.
const OF_ONE_BUILD: [&str; 8] = ["BUILD_ID", "BUILD_TIME", "MD5", "MTIME", "PATH", "REPO_REVISIONS", "SHA1", "SIZE"];

/// Gives the directory its key, or compares the key that it has.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if it has another one.
pub(super) fn claim(shelf: &Shelf, part: &Part, write: bool) -> Result<()> {
    if part.any_key {
        return Ok(());
    }
    let locked = write.then(|| shelf.lock()).transpose()?;
    let Some(text) = shelf.key()? else {
        return locked.map_or(Ok(()), |locked| locked.set_key(&part.key.text()));
    };
    match Key::parse(&text) {
        Some(key) if key == part.key => Ok(()),
        key => {
            let differences =
                key.map_or_else(|| vec!["its key.json cannot be read".to_owned()], |key| key.differences(&part.key));
            Err(Error::usage(format!("{} has packages that were built with other settings", shelf.path().display()))
                .with_details(differences.join("\n"))
                .with_hint(
                    "set portage.binpkg to another directory, or leave it out to get one for each group of settings; \
                     portage.binpkg-shared = true mixes them",
                ))
        }
    }
}

/// The directories whose packages a build may take.
pub(super) struct Shelves<'a> {
    pub(super) own: &'a Shelf,
    /// The packages of the key without settings of single packages.
    pub(super) plain: Option<&'a Shelf>,
}

/// Opens the packages of the key without settings of single packages, if there are any.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if the directory cannot be read.
pub(super) fn plain(part: &Part) -> Result<Option<Shelf>> {
    let Some(plain) = part.plain.as_ref().filter(|plain| plain.directory.exists()) else { return Ok(None) };
    let shelf = Shelf::open(&plain.directory)?;
    let key = shelf.key()?.and_then(|text| Key::parse(&text));
    Ok((key.as_ref() == Some(&plain.key)).then_some(shelf))
}

/// Returns the index of the packages of the key without settings of single packages. Packages that have such settings are left out.
pub(super) fn without_excluded(shelf: &Shelf, part: &Part, sources: &Sources) -> Result<Index> {
    let mut index = current(shelf, part, sources)?.0;
    index.packages.retain(|package| part.plain.as_ref().is_some_and(|plain| !plain.exclusion.has(package.cpv())));
    Ok(index)
}

/// Writes the index of the packages that a build may take to the directory `to`.
pub(super) fn offer(from: Shelves<'_>, part: &Part, sources: &Sources, write: bool, to: &Shelf) -> Result<()> {
    let shelf = from.own;
    let mut index = match write {
        true => {
            let locked = shelf.lock()?;
            let (index, changed) = current(shelf, part, sources)?;
            if changed {
                publish(&locked, &index)?;
            }
            index
        }
        false => current(shelf, part, sources)?.0,
    };
    let dirs = PackageDirs::of(part.target);
    place(&mut index, dirs.shared);
    if let Some(shelf) = from.plain {
        let mut plain = without_excluded(shelf, part, sources)?;
        place(&mut plain, dirs.plain);
        index.packages.extend(plain.packages);
    }
    index.packages.retain(|package| sources.is_current(package));
    index.packages.iter_mut().for_each(|package| package.retain(|name| !name.starts_with(OWN)));
    // Portage before 3.0.67 copies the packages from there.
    index.header.insert("URI".to_owned(), format!("file://{SHARED}"));
    publish(&to.lock()?, &index)
}

/// Makes the paths of an index relative to the directory above all packages of earlier builds. `at` is its own directory in the sandbox.
fn place(index: &mut Index, at: &str) {
    let below = at.strip_prefix(SHARED).unwrap_or(at).trim_start_matches('/');
    for package in &mut index.packages {
        let path = format!("{below}/{}", package.get("PATH"));
        package.set("PATH", path);
    }
}

/// Returns the index of a directory, with its packages as they are on disk, and true if that differs from the index on disk.
pub(super) fn current(shelf: &Shelf, part: &Part, sources: &Sources) -> Result<(Index, bool)> {
    let old = shelf.index()?.and_then(|bytes| Index::read(&bytes).ok());
    let mut changed = old.is_none();
    let mut old = old.unwrap_or_default();
    let mut known: BTreeMap<String, Stanza> = BTreeMap::new();
    for package in old.packages.drain(..) {
        match package.path() {
            Some(path) => _ = known.insert(path.to_owned(), package),
            None => changed = true,
        }
    }
    let mut index = Index { header: part.header.clone(), packages: Vec::new() };
    for entry in shelf.entries()? {
        let path = entry.path.to_string_lossy().into_owned();
        match known.remove(&path) {
            Some(package) if is_of(&package, &entry) => index.packages.push(package),
            // Something that is not a package stays where it is. It is not offered.
            known => {
                changed = true;
                index.packages.extend(adopted(shelf, &entry, known, sources).ok());
            }
        }
    }
    // Packages in the older format are kept as another program indexed them.
    let (older, missing): (Vec<_>, Vec<_>) = known.into_values().partition(|package| is_there(shelf, package));
    index.packages.extend(older);
    changed |= !missing.is_empty();
    index.packages.sort_by(|a, b| (a.cpv(), a.get("PATH")).cmp(&(b.cpv(), b.get("PATH"))));
    Ok((index, changed))
}

/// Writes an index with the present time.
pub(super) fn publish(locked: &Locked<'_>, index: &Index) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let now = i64::try_from(now).unwrap_or(0);
    let text = index.text(now);
    locked.set_index(&text, &Index::compressed(&text), now)
}

/// Returns the parts of a stanza that two builds of the same package share.
pub(super) fn identity(package: &Stanza) -> Vec<(&str, &str)> {
    package.fields().filter(|(name, _)| !OF_ONE_BUILD.contains(name)).collect()
}

/// Returns true if two packages are the same file.
pub(super) fn is_copy(one: &Stanza, other: &Stanza) -> bool {
    ["CPV", "SHA1", "SIZE", IMAGE].iter().all(|name| one.get(name) == other.get(name))
}

/// Reads a package completely. Returns its stanza, with the digest of its image, and its metadata.
pub(super) fn examined(file: &File, path: String, mtime: i64) -> binpkg::Result<(Stanza, Metadata)> {
    let broken = |error: std::io::Error| Fault::new(format!("it cannot be read: {error}"));
    let gpkg = Gpkg::open(file.try_clone().map_err(broken)?)?;
    gpkg.verify()?;
    let metadata = gpkg.metadata()?;
    if !gpkg.prefix().starts_with(&metadata.value("PF")) {
        return Err(Fault::new("its members have the name of another package"));
    }
    let mut all = file;
    all.seek(SeekFrom::Start(0)).map_err(broken)?;
    let facts = FileFacts::read(path, mtime, &mut all).map_err(broken)?;
    let mut stanza = Stanza::new(&metadata, &facts)?;
    stanza.set(IMAGE, gpkg.image()?.hex());
    Ok((stanza, metadata))
}

/// Reads a package that the index does not have: someone put it there, or a run was killed before it wrote the index. `known` is the
/// stanza of a file of the same name; a copied file has another time and the same content.
fn adopted(shelf: &Shelf, entry: &Entry, known: Option<Stanza>, sources: &Sources) -> binpkg::Result<Stanza> {
    let file = shelf.file(&entry.path).map_err(|error| Fault::new(error.to_string()))?;
    let (mut stanza, metadata) = examined(&file, entry.path.to_string_lossy().into_owned(), entry.mtime)?;
    if let Some(mut known) = known.filter(|known| is_copy(known, &stanza)) {
        known.set("MTIME", entry.mtime.to_string());
        return Ok(known);
    }
    sources.adopt(&mut stanza, &metadata);
    Ok(stanza)
}

fn is_of(package: &Stanza, entry: &Entry) -> bool {
    package.get("SIZE") == entry.size.to_string() && package.get("MTIME") == entry.mtime.to_string()
}

/// Returns true for a package in the older format that is on disk.
fn is_there(shelf: &Shelf, package: &Stanza) -> bool {
    let path = package.path().filter(|path| !path.ends_with(".gpkg.tar"));
    path.is_some_and(|path| shelf.file(path.as_ref()).is_ok())
}
