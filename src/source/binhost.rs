//! The indexes of hosts of binary packages. An index is not signed: it only names packages, whose signatures Portage verifies.

use std::io::{Read, Write};

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use super::{Site, Trust};
use crate::base::digest::{Sha256, Sha512};
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::text::printable;
use crate::lockfile::LockedIndex;
use crate::net::http::{DocumentVersion, Failure, FailureKind, Http};
use crate::recipe::{Binhost, Job};
use crate::store::Store;
use crate::store::blobs::PartOrBlob;
use crate::verify::Keyring;

/// Largest index in bytes, unpacked. Gentoo's own has about 20 MB.
const MAX: u64 = 256 << 20;

/// Kind of the refs that hold [`Stored`] by address.
const REFS: &str = "binhost";

/// The names of an index. The first that a host has is used.
const NAMES: [&str; 2] = ["Packages.gz", "Packages"];

/// A host of binary packages and its index.
#[derive(Debug)]
pub struct BinhostInput {
    /// The recipe's request.
    pub spec: Binhost,
    /// The index, unpacked. `None` for a host that cannot be asked because the build is offline.
    pub index: Option<Vec<u8>>,
    /// The certificates that may sign its packages. `None` if the recipe accepts unsigned ones.
    pub keyring: Option<Keyring>,
}

/// The stored index of a host.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// The name of the index on the host.
    name: String,
    version: DocumentVersion,
    /// The digest of the index, unpacked.
    sha512: Sha512,
}

/// Gets the indexes of the recipe's hosts. An index that has not changed is not downloaded again.
///
/// # Errors
/// Those of the keyring and the store; [`Kind::Network`] if a host has no index or cannot be asked, [`Kind::Refused`] for an index that
/// is too large or damaged.
pub fn binhosts(job: &Job, at: &Site<'_>) -> Result<Vec<BinhostInput>> {
    job.portage.binhost.iter().map(|host| binhost(host, at)).collect()
}

/// Returns the recipe's hosts with the indexes that the store has. No server is asked. `at` must be offline.
///
/// # Errors
/// Those of the keyring and the store, and of directories.
pub fn known(job: &Job, at: &Site<'_>) -> Result<Vec<BinhostInput>> {
    let mut hosts = binhosts(job, at)?;
    for host in hosts.iter_mut().filter(|host| host.spec.directory().is_none()) {
        host.index = match at.options.locked {
            Some(locked) => blob(&locked.index(&host.spec.url)?.sha512, at.store)?,
            None => stored(&Sha256::of(host.spec.url.as_bytes()).hex(), at.store)?.map(|(_, index)| index),
        };
    }
    Ok(hosts)
}

/// Returns the lock entries of the hosts that are servers.
pub fn lock(hosts: &[BinhostInput]) -> Vec<LockedIndex> {
    let remote = hosts.iter().filter(|host| host.spec.directory().is_none());
    let entry = |host: &BinhostInput| {
        let bytes = host.index.as_deref()?;
        let header = bytes.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
        let timestamp =
            header.filter_map(|line| std::str::from_utf8(line).ok()?.strip_prefix("TIMESTAMP: ")?.parse().ok());
        Some(LockedIndex { url: host.spec.url.clone(), sha512: Sha512::of(bytes), timestamp: timestamp.last() })
    };
    remote.filter_map(entry).collect()
}

fn binhost(host: &Binhost, at: &Site<'_>) -> Result<BinhostInput> {
    let keyring = if host.allow_unsigned { None } else { Some(Trust::of_binhost(host).keyring(at.store)?) };
    let index = match host.directory() {
        Some(directory) => Some(local(directory, &host.url)?),
        None if at.options.offline => {
            at.ui.note(&format!("offline: {} is not used", printable(&host.url)));
            None
        }
        None => Some(match at.options.locked {
            Some(locked) => pinned(locked.index(&host.url)?, at)?,
            None => remote(&host.url, at)?,
        }),
    };
    Ok(BinhostInput { spec: host.clone(), index, keyring })
}

/// Reads the index of a directory of this machine.
fn local(directory: &std::path::Path, url: &str) -> Result<Vec<u8>> {
    for name in NAMES {
        let path = directory.join(name);
        match fs_err::File::open(&path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                let reading = || format!("reading {}", path.display());
                file.take(MAX + 1).read_to_end(&mut bytes).context(Kind::Usage, reading)?;
                return unpacked(&bytes, &path.display().to_string());
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::usage(format!("opening {}", path.display())).with_source(error)),
        }
    }
    Err(Error::usage(format!("{} has no index of binary packages", printable(url)))
        .with_hint("a host of binary packages has a file Packages or Packages.gz in its directory"))
}

/// Returns the index that a recipe is locked to: the stored one, or that of the server if it is still the same.
fn pinned(index: &LockedIndex, at: &Site<'_>) -> Result<Vec<u8>> {
    if let Some(bytes) = blob(&index.sha512, at.store)? {
        return Ok(bytes);
    }
    let bytes = remote(&index.url, at)?;
    if Sha512::of(&bytes) != index.sha512 {
        return Err(Error::refused(format!(
            "the index of the binary packages of {} is not the locked one",
            printable(&index.url)
        ))
        .with_hint("the host has other packages now: `quern-builder lock` takes them"));
    }
    Ok(bytes)
}

/// Asks a server for its index, or takes the stored one if it has not changed.
fn remote(url: &str, at: &Site<'_>) -> Result<Vec<u8>> {
    at.ui.stage(&format!("asking {} for its packages", printable(url)));
    let http = Http::default();
    let key = Sha256::of(url.as_bytes()).hex();
    let stored = stored(&key, at.store)?;
    let mut missing = None;
    for name in NAMES {
        let known = stored.as_ref().filter(|(stored, _)| stored.name == name);
        let version = known.map(|(stored, _)| stored.version.clone()).unwrap_or_default();
        let address = format!("{url}/{name}");
        match http.newer_document(&address, MAX, &version) {
            Ok((bytes, version)) => {
                let index = unpacked(&bytes, &address)?;
                let sha512 = keep(&index, &key, at)?;
                at.store.write_ref(REFS, &key, &Stored { name: name.to_owned(), version, sha512 })?;
                at.ui.done();
                return Ok(index);
            }
            Err(Failure { kind: FailureKind::Unchanged, .. }) => {
                let index = known.map(|(_, index)| index.clone()).unwrap_or_default();
                at.ui.done();
                return Ok(index);
            }
            Err(failure) if failure.kind == FailureKind::Missing => missing = Some(failure),
            Err(failure) => return Err(unreachable(url, &failure)),
        }
    }
    let error = match missing {
        Some(failure) => unreachable(url, &failure),
        None => Error::network(format!("{} has no index", printable(url))),
    };
    Err(error.with_hint(
        "a host of binary packages has a file Packages or Packages.gz in its directory: check `binhost` in [portage]",
    ))
}

fn unreachable(url: &str, failure: &Failure) -> Error {
    Error::network(format!("getting the index of the binary packages of {}", printable(url)))
        .with_details(failure.to_string())
        .with_hint("leave the host out of `binhost` in [portage], or run with --offline, to build without it")
}

/// Reads the stored index of a host. A damaged one counts as missing.
fn stored(key: &str, store: &Store) -> Result<Option<(Stored, Vec<u8>)>> {
    let Some(stored) = store.read_ref::<Stored>(REFS, key)? else { return Ok(None) };
    Ok(blob(&stored.sha512, store)?.map(|bytes| (stored, bytes)))
}

/// Reads the stored index with this digest.
fn blob(sha512: &Sha512, store: &Store) -> Result<Option<Vec<u8>>> {
    let Some(file) = store.blob(sha512)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(MAX + 1).read_to_end(&mut bytes).system(|| "reading a stored index of binary packages")?;
    Ok((Sha512::of(&bytes) == *sha512).then_some(bytes))
}

/// Puts an index into the store, under its digest.
fn keep(index: &[u8], key: &str, at: &Site<'_>) -> Result<Sha512> {
    let sha512 = Sha512::of(index);
    let waiting = &mut || at.ui.note("waiting for another download of the same index");
    if let PartOrBlob::Part(mut part) = at.store.part(&format!("binhost-{}", &key[..32]), Some(&sha512), waiting)? {
        let written = part.file().set_len(0).and_then(|()| part.file().write_all(index));
        written.system(|| "storing the index of binary packages")?;
        part.finish(at.store, &sha512)?;
    }
    Ok(sha512)
}

/// Decompresses an index, if it is compressed.
fn unpacked(bytes: &[u8], what: &str) -> Result<Vec<u8>> {
    let refused = |why: &str| Error::refused(format!("reading {}: {why}", printable(what)));
    let mut plain = Vec::new();
    let read = if bytes.starts_with(&[0x1f, 0x8b]) {
        MultiGzDecoder::new(bytes).take(MAX + 1).read_to_end(&mut plain)
    } else {
        bytes.take(MAX + 1).read_to_end(&mut plain)
    };
    read.map_err(|error| refused("it is damaged").with_source(error))?;
    if plain.len() as u64 > MAX {
        return Err(refused(&format!("it is larger than {} MiB", MAX >> 20)));
    }
    Ok(plain)
}
