//! The packages that a build made, taken over for later builds. Everything in the PKGDIR of a build is untrusted.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Part, shelf};
use crate::base::error::{Context, Result};
use crate::base::progress::{Progress, Target};
use crate::base::text::plain;
use crate::portage::binpkg::built::Built;
use crate::portage::binpkg::index::Stanza;
use crate::portage::binpkg::key::Key;
use crate::portage::binpkg::source::Sources;
use crate::portage::binpkg::{Fault, gpkg::Metadata};
use crate::portage::dir::Dir;
use crate::store::packages::Shelf;
use crate::store::work::WorkPaths;

/// Longest log of emerge that is read, in bytes.
const MAX_LOG: u64 = 64 << 20;
/// Names that are looked at in one directory.
const MAX_NAMES: usize = 100_000;
/// Names of unwanted files in one warning.
const MAX_SHOWN: usize = 10;

/// Facts about the build.
pub(super) struct Run<'a> {
    pub(super) began: i64,
    pub(super) sources: &'a Sources,
    pub(super) built: Built,
}

/// A package that the build made, checked.
struct Checked {
    file: File,
    stanza: Stanza,
    /// `category/name`.
    directory: PathBuf,
    pf: String,
}

/// Returns the packages that the build in `work` compiled and took.
pub(super) fn built(work: &WorkPaths, in_place: bool) -> Built {
    let log = Dir::open(&work.logs()).and_then(|dir| dir.file(OsStr::new("emerge.log"))?.read(0, MAX_LOG));
    Built::parse(&String::from_utf8_lossy(&log.unwrap_or_default()), in_place)
}

/// Takes over the new packages for one tree.
pub(super) fn part(part: &mut Part, run: &Run<'_>, work: &WorkPaths, ui: &dyn Progress) -> Result<()> {
    let (mut checked, mut unwanted) = (Vec::new(), Vec::new());
    let private = Dir::open(&work.private_packages(part.target));
    for path in private.iter().flat_map(|dir| files(dir, Path::new(""), 2)) {
        if !part.seen.insert(path.clone()) || is_of_portage(&path) {
            continue;
        }
        match private.as_ref().map(|dir| check(dir, &path, part, run)) {
            Some(Ok(Some(one))) => checked.push(one),
            Some(Err(fault)) => unwanted.push((path, fault)),
            Some(Ok(None)) | None => {}
        }
    }
    warn(&unwanted, ui);
    if checked.is_empty() {
        return Ok(());
    }
    let adding = |path: &Path| format!("adding a package to the cache {}", path.display());
    let shelf = Shelf::make(part.directory())?;
    let locked = shelf.lock()?;
    let (mut index, mut changed) = shelf::current(&shelf, part, run.sources)?;
    for Checked { mut file, mut stanza, directory, pf } in checked {
        let same = |other: &Stanza| shelf::identity(other) == shelf::identity(&stanza);
        if index.packages.iter().any(same) {
            continue;
        }
        // A run that was killed before it wrote the index has copied the same file. Its sources are known only now.
        if let Some(copy) = index.packages.iter_mut().find(|other| shelf::is_copy(other, &stanza)) {
            let own = |name: &&str| name.starts_with(shelf::OWN);
            stanza.fields().filter(|(name, _)| own(name)).for_each(|(name, value)| copy.set(name, value));
            changed = true;
            continue;
        }
        let path = free_name(&shelf, &directory, &pf);
        let added = file.seek(SeekFrom::Start(0)).and_then(|_| locked.add(&path, &mut file));
        let entry = added.system(|| adding(shelf.path()))?;
        stanza.set("PATH", path.to_string_lossy());
        stanza.set("MTIME", entry.mtime.to_string());
        index.packages.push(stanza);
        changed = true;
    }
    if changed { shelf::publish(&locked, &index) } else { Ok(()) }
}

/// Checks a file. Returns `None` for one that Portage fetched, and for an empty one.
fn check(private: &Dir, path: &Path, part: &Part, run: &Run<'_>) -> std::result::Result<Option<Checked>, Fault> {
    let parts: Option<Vec<&str>> = path.iter().map(OsStr::to_str).collect();
    let Some([category, name, file_name]) = parts.as_deref() else {
        return Err(Fault::new("it is not a package"));
    };
    let pf = file_name.strip_suffix(".gpkg.tar").and_then(|stem| stem.rsplit_once('-'));
    let Some((pf, number)) = pf.filter(|(pf, _)| pf.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')))
    else {
        return Err(Fault::new("it is not a package"));
    };
    let cpv = format!("{category}/{pf}");
    let own = match part.target {
        Target::Image => &run.built.image,
        Target::Builder => &run.built.builder,
    };
    let regular =
        private.dir(OsStr::new(category)).and_then(|dir| dir.dir(OsStr::new(name))?.file(OsStr::new(file_name)));
    let regular = regular.ok_or_else(|| Fault::new("it is not a regular file"))?;
    if !own.contains(&cpv) && run.built.taken.contains(&cpv) || regular.size == 0 {
        return Ok(None);
    }
    if !own.contains(&cpv) || number.parse::<u32>().is_err() {
        return Err(Fault::new("this build did not make such a package"));
    }
    let mtime = regular.modified.duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let file = regular.into_file();
    if rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).is_ok_and(|hole| hole < file_size(&file)) {
        return Err(Fault::new("it is a sparse file"));
    }
    let (mut stanza, metadata) = shelf::examined(&file, String::new(), i64::try_from(mtime).unwrap_or(0))?;
    judge(&stanza, &metadata, &cpv, &part.key)?;
    if !run.sources.record(&mut stanza, &metadata, run.began) {
        return Err(Fault::new("its ebuild or its files changed during the build"));
    }
    let directory = Path::new(category).join(name);
    Ok(Some(Checked { file, stanza, directory, pf: pf.to_owned() }))
}

/// Compares the metadata of a package with its place and the key.
fn judge(stanza: &Stanza, metadata: &Metadata, cpv: &str, key: &Key) -> std::result::Result<(), Fault> {
    if stanza.cpv() != cpv {
        return Err(Fault::new(format!("it contains {}", stanza.cpv())));
    }
    for name in ["CHOST", "CBUILD"] {
        let own = metadata.value(name);
        if !own.is_empty() && own != key.get(name) {
            return Err(Fault::new(format!("it was built with {name}={own}, not {}", key.get(name))));
        }
    }
    Ok(())
}

/// Returns a name in `directory` that no package has.
fn free_name(shelf: &Shelf, directory: &Path, pf: &str) -> PathBuf {
    let names = (1u32..).map(|number| directory.join(format!("{pf}-{number}.gpkg.tar")));
    let mut free =
        names.filter(|path| matches!(shelf.file(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound));
    free.next().unwrap_or_default()
}

/// Lists everything that is not a directory, at most `depth` directories below, and directories that are deeper.
fn files(dir: &Dir, below: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in dir.names(MAX_NAMES) {
        let path = below.join(&name);
        match dir.dir(&name).filter(|_| depth > 0) {
            Some(inner) => found.extend(files(&inner, &path, depth - 1)),
            None => found.push(path),
        }
    }
    found
}

/// Returns true for the files that Portage itself writes beside packages.
fn is_of_portage(path: &Path) -> bool {
    let name = path.file_name().map(OsString::from).and_then(|name| name.into_string().ok()).unwrap_or_default();
    let index = path.components().count() == 1 && ["Packages", "Packages.gz"].contains(&name.as_str());
    // A package that is being written, and that of a failed build.
    let half = name
        .rsplit_once(".gpkg.tar.")
        .is_some_and(|(_, rest)| rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '.'));
    index || half || name.ends_with(".portage_lockfile") || name.ends_with(".partial")
}

fn file_size(file: &File) -> u64 {
    file.metadata().map_or(0, |stat| stat.len())
}

/// Names the files that were not taken over.
fn warn(unwanted: &[(PathBuf, Fault)], ui: &dyn Progress) {
    for (path, fault) in unwanted.iter().take(MAX_SHOWN) {
        ui.warn(&format!("left out of the package cache: {}: {fault}", plain(&path.to_string_lossy(), 200)));
    }
    if unwanted.len() > MAX_SHOWN {
        ui.warn(&format!("left out of the package cache: {} more files", unwanted.len() - MAX_SHOWN));
    }
}
