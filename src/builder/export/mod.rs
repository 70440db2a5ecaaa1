//! Copies of binary packages for other machines: the packages of one directory, signed if asked, in another directory with an index.
//!
//! A package in the target directory is never replaced, and the index is written last. A package without the wanted signature is retired;
//! [`tidy`] removes it later. So whoever reads the directory meanwhile finds every package that an index names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::base::error::{Context, Error, Result};
use crate::base::progress::Progress;
use crate::base::text::plain;
use crate::base::time::now;
use crate::fs::atomic;
use crate::portage::binpkg::gpkg::{Gpkg, Metadata};
use crate::portage::binpkg::index::{FileFacts, Index, Stanza};
use crate::portage::binpkg::{self, Fault};
use crate::store::packages::{Entry, Locked, Shelf};
use crate::verify::{self, Keyring};

mod sign;
pub mod tidy;

pub use sign::Signer;

/// Name of the file with the certificate of the signer.
const CERTIFICATE: &str = "packages.asc";
/// Fewest seconds between the times of two indexes. Portage allows for clocks that differ by five seconds.
const BETWEEN: i64 = 6;

/// The numbers of packages of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Packages that were copied.
    pub added: usize,
    /// Packages that the target directory had.
    pub kept: usize,
}

/// A package of either directory.
#[derive(Debug)]
struct Package {
    path: PathBuf,
    stanza: Stanza,
    /// The names and digests of its parts, without signatures.
    content: Vec<String>,
    /// True if the wanted signer has signed it, or if no signature is wanted.
    good: bool,
    signed: bool,
}

/// Copies the packages of `from` to `to`. With a signer, signs the copies.
///
/// # Errors
/// [`Kind::Refused`](crate::base::error::Kind::Refused) for a damaged package or a signature that is not the signer's,
/// [`Kind::System`](crate::base::error::Kind::System) if a file cannot be read or written or the builder cannot sign.
pub fn export(from: &Shelf, to: &Shelf, signer: Option<&Signer<'_>>, ui: &dyn Progress) -> Result<Exported> {
    let keyring = signer.map(Signer::keyring).transpose()?;
    let locked = to.lock()?;
    let mut retired = to.retired()?;
    let mut present = packages(to, to.entries()?, keyring.as_ref())?;
    let mut returning = packages(to, to.retired_entries()?, keyring.as_ref())?;
    let mut exported = Exported::default();
    let mut missing = Vec::new();
    for package in packages(from, from.entries()?, None)? {
        let same = |other: &Package| other.good && other.content == package.content;
        if present.iter().any(same) {
            exported.kept += 1;
        } else if let Some(at) = returning.iter().position(same) {
            let other = returning.swap_remove(at);
            retired.remove(&other.path);
            present.push(other);
            exported.kept += 1;
        } else {
            missing.push(package);
        }
    }
    if let Some(signer) = signer.filter(|_| !missing.is_empty()) {
        ui.stage(&format!("signing {} packages", missing.len()));
        let files: Vec<File> = missing.iter().map(|package| open(from, &package.path)).collect::<Result<_>>()?;
        let copies = signer.sign(files)?;
        for (package, copy) in missing.iter().zip(copies) {
            let added = add(&locked, to, package, copy, keyring.as_ref(), &present)?;
            present.push(added);
        }
        ui.done();
    } else {
        for package in &missing {
            let added = add(&locked, to, package, open(from, &package.path)?, None, &present)?;
            present.push(added);
        }
    }
    exported.added = missing.len();
    let (kept, replaced): (Vec<_>, Vec<_>) = present.into_iter().partition(|package| package.good || package.signed);
    retired.extend(replaced.into_iter().map(|package| (package.path, now())));
    locked.set_retired(&retired)?;
    publish(&locked, from, to, kept)?;
    if let Some(signer) = signer {
        atomic::replace(&to.path().join(CERTIFICATE), &signer.certificate()?, 0o644)?;
    }
    Ok(exported)
}

/// Reads packages of a directory. With a keyring, those that it has not signed are not good.
fn packages(shelf: &Shelf, entries: Vec<Entry>, keyring: Option<&Keyring>) -> Result<Vec<Package>> {
    let mut packages = Vec::new();
    for entry in entries {
        let file = open(shelf, &entry.path)?;
        let (gpkg, stanza) =
            read(&file, &entry.path, entry.mtime).map_err(|fault| unusable(shelf, &entry.path, &fault))?;
        let good = keyring.is_none_or(|keyring| signed_by(&gpkg, &entry.path, keyring).is_ok());
        let (content, signed) = (gpkg.content(), gpkg.is_signed());
        packages.push(Package { path: entry.path, stanza, content, good, signed });
    }
    Ok(packages)
}

/// Reads a package completely.
fn read(file: &File, path: &Path, mtime: i64) -> binpkg::Result<(Gpkg<File>, Stanza)> {
    let broken = |error: std::io::Error| Fault::new(format!("it cannot be read: {error}"));
    let gpkg = Gpkg::open(file.try_clone().map_err(broken)?)?;
    gpkg.verify()?;
    let metadata: Metadata = gpkg.metadata()?;
    let mut all = file;
    all.seek(SeekFrom::Start(0)).map_err(broken)?;
    let facts = FileFacts::read(path.to_string_lossy().into_owned(), mtime, &mut all).map_err(broken)?;
    let stanza = Stanza::new(&metadata, &facts)?;
    Ok((gpkg, stanza))
}

/// Adds a copy of a package under a free name.
fn add(
    locked: &Locked<'_>,
    to: &Shelf,
    package: &Package,
    mut copy: File,
    keyring: Option<&Keyring>,
    present: &[Package],
) -> Result<Package> {
    let (gpkg, _) = read(&copy, &package.path, 0).map_err(|fault| unusable(to, &package.path, &fault))?;
    let what = package.path.display();
    if gpkg.content() != package.content {
        return Err(Error::refused(format!("copying {what}: the copy has another content")));
    }
    if let Some(keyring) = keyring {
        signed_by(&gpkg, &package.path, keyring)?;
    }
    let path =
        free(&package.path, |path| present.iter().any(|other| other.path == *path) || to.path().join(path).exists());
    copy.seek(SeekFrom::Start(0)).system(|| format!("reading {what}"))?;
    let entry = locked.add(&path, &mut copy).system(|| format!("writing {}", to.path().join(&path).display()))?;
    let (gpkg, stanza) = read(&open(to, &path)?, &path, entry.mtime).map_err(|fault| unusable(to, &path, &fault))?;
    Ok(Package { path, stanza, content: gpkg.content(), good: true, signed: gpkg.is_signed() })
}

/// Returns the path, or one with the next free number: `tiny-1-1.gpkg.tar`, `tiny-1-2.gpkg.tar`, …
fn free(path: &Path, taken: impl Fn(&PathBuf) -> bool) -> PathBuf {
    const SUFFIX: &str = ".gpkg.tar";
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(SUFFIX).unwrap_or(&name);
    let (pf, number) = match stem.rsplit_once('-').map(|(pf, number)| (pf, number.parse::<u64>())) {
        Some((pf, Ok(number))) => (pf, number),
        _ => (stem, 1),
    };
    let numbered = (number..).map(|number| path.with_file_name(format!("{pf}-{number}{SUFFIX}")));
    std::iter::once(path.to_owned()).chain(numbered).find(|path| !taken(path)).unwrap_or_default()
}

/// Writes the index, if it differs from the present one in more than its time.
fn publish(locked: &Locked<'_>, from: &Shelf, to: &Shelf, packages: Vec<Package>) -> Result<()> {
    let read = |shelf: &Shelf| Ok::<_, Error>(shelf.index()?.and_then(|bytes| Index::read(&bytes).ok()));
    let old = read(to)?;
    let header = match (&old, read(from)?) {
        (_, Some(index)) if !index.header.is_empty() => index.header,
        (Some(index), _) => index.header.clone(),
        (None, _) => BTreeMap::new(),
    };
    let own = |key: &String| !matches!(key.as_str(), "URI" | "TIMESTAMP" | "PACKAGES" | "VERSION");
    let header = header.into_iter().filter(|(key, _)| own(key)).collect();
    let index = Index { header, packages: packages.into_iter().map(|package| package.stanza).collect() };
    let time = old.as_ref().and_then(|old| old.header.get("TIMESTAMP")?.parse::<i64>().ok());
    let same = |time: i64| to.index().ok().flatten().is_some_and(|bytes| bytes == index.text(time).as_bytes());
    if time.is_some_and(same) {
        return Ok(());
    }
    let now = i64::try_from(now()).unwrap_or(0).max(time.map_or(0, |time| time + BETWEEN));
    let text = index.text(now);
    locked.set_index(&text, &Index::compressed(&text), now)
}

/// Verifies the signature of a package.
fn signed_by(gpkg: &Gpkg<File>, path: &Path, keyring: &Keyring) -> Result<()> {
    let what = format!("the Manifest of {}", plain(&path.to_string_lossy(), 200));
    let manifest = gpkg.manifest().map_err(|fault| Error::refused(format!("verifying {what}: {fault}")))?;
    verify::clearsigned(&what, &manifest, keyring).map(drop)
}

fn open(shelf: &Shelf, path: &Path) -> Result<File> {
    shelf.file(path).system(|| format!("opening {}", shelf.path().join(path).display()))
}

fn unusable(shelf: &Shelf, path: &Path, fault: &Fault) -> Error {
    let path = shelf.path().join(path);
    Error::refused(format!("reading {}: {fault}", plain(&path.to_string_lossy(), 300)))
        .with_hint("remove the file, or build the package again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::Silent;
    use crate::portage::binpkg::fixture::Make;

    /// Returns the packages that an index names, with their sizes.
    fn named(index: &[u8]) -> Vec<(PathBuf, u64)> {
        let packages = Index::read(index).unwrap().packages;
        packages.iter().map(|package| (package.path().unwrap().into(), package.get("SIZE").parse().unwrap())).collect()
    }

    #[test]
    fn readers_find_every_package_that_an_index_names() {
        use std::sync::atomic::{AtomicBool, Ordering};

        let place = tempfile::tempdir().unwrap();
        let from = Shelf::make(&place.path().join("from")).unwrap();
        let to = Shelf::make(&place.path().join("to")).unwrap();
        let round = |number: usize| {
            // Of each package, a new build with the same USE flags.
            let name = format!("p{}", number % 5);
            let make = Make::new("a", &format!("{name}-1")).key("BUILD_TIME", &number.to_string());
            let path = PathBuf::from(format!("a/{name}/{name}-1-{number}.gpkg.tar"));
            from.lock().unwrap().add(&path, &mut &make.bytes()[..]).unwrap();
            export(&from, &to, None, &Silent).unwrap();
            if number.is_multiple_of(7) {
                let rules = tidy::Rules { younger: 0, grace: 3600, repositories: &[] };
                tidy::tidy(to.path(), &rules, &Default::default(), false, &mut |_, _, _| ()).unwrap();
            }
        };
        round(0);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (1..40).for_each(round);
                done.store(true, Ordering::Relaxed);
            });
            let mut reads = 0;
            while reads < 200 || !done.load(Ordering::Relaxed) {
                let index = fs_err::read(to.path().join(["Packages", "Packages.gz"][reads % 2])).unwrap();
                for (path, size) in named(&index) {
                    assert_eq!(to.file(&path).expect("it is there").metadata().unwrap().len(), size);
                }
                reads += 1;
            }
        });
        assert!(!named(&to.index().unwrap().unwrap()).is_empty());
    }

    #[test]
    fn a_package_gets_the_next_free_number() {
        let taken = |names: &[&str]| {
            let names: Vec<PathBuf> = names.iter().map(|name| Path::new("a/b").join(name)).collect();
            free(Path::new("a/b/b-1-1.gpkg.tar"), |path| names.contains(path)).display().to_string()
        };
        assert_eq!(taken(&[]), "a/b/b-1-1.gpkg.tar");
        assert_eq!(taken(&["b-1-1.gpkg.tar", "b-1-2.gpkg.tar"]), "a/b/b-1-3.gpkg.tar");
    }
}
