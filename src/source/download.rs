//! Downloads of large files into the store. A download is resumed, tries one mirror after another and is hashed while it arrives. It
//! becomes a blob only if its digest is right.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::obtain::Received;
use super::{BUFFER, hashing};
use crate::base::digest::{Algorithm, Blake2b, Hasher, Sha256, Sha512, Sums};
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::progress::{Event, Progress};
use crate::base::text::printable;
use crate::fs::rewound;
use crate::net::http::{Body, Failure, FailureKind, Http};
use crate::os::space;
use crate::store::Store;
use crate::store::blobs::{PartOrBlob, PartialBlob};
use crate::verify::MAX_FILE;

/// Bytes that a broken connection must have brought to earn a new series of tries.
const WORTH: u64 = 1 << 20;

const CONTINUES: &str = "the next run continues the download";

/// Hint for a file that is not the one that the recipe names.
const REPLACED: &str =
    "nothing was kept; compare the digest with that of the publisher: the file may have been replaced";

/// A file to download, and what is known of its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// A plain file name.
    pub(super) name: &'a str,
    /// Tried in order.
    pub(super) urls: &'a [String],
    /// Exact size, where known.
    pub(super) size: Option<u64>,
    pub(super) sha512: Option<Sha512>,
    pub(super) blake2b: Option<Blake2b>,
    /// A SHA-256 of the recipe, or one that nobody signed.
    pub(super) sha256: Option<Sha256>,
    /// The origin of the digests.
    pub(super) named_by: NamedBy,
    /// Ask no server. Holds the hint for a file that the store lacks.
    pub(super) offline: Option<&'static str>,
}

/// The origin of the digests of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NamedBy {
    /// A signed document. Its SHA-256 is one that nobody signed.
    Signer,
    /// The recipe.
    Recipe,
}

impl Request<'_> {
    /// Computes the known digests, and the SHA-512 that names the blob.
    fn hasher(&self) -> Hasher {
        let mut algorithms = vec![Algorithm::Sha512];
        algorithms.extend(self.blake2b.map(|_| Algorithm::Blake2b));
        algorithms.extend(self.sha256.map(|_| Algorithm::Sha256));
        Hasher::new(&algorithms)
    }

    /// Compares digests with the known ones. Returns the SHA-512.
    fn check(&self, sums: &Sums) -> Result<Sha512> {
        let sha512 = hashing::sha512(sums)?;
        let (named, beside, hint) = match self.named_by {
            NamedBy::Signer => {
                ("the signed one", "the one beside it", "the server sends other bytes than the signed ones")
            }
            NamedBy::Recipe => ("the one in the recipe", "the one in the recipe", REPLACED),
        };
        for (what, wrong, whose) in [
            ("SHA-512", self.sha512.is_some_and(|wanted| wanted != sha512), named),
            ("BLAKE2b", self.blake2b.is_some() && self.blake2b != sums.blake2b(), named),
            ("SHA-256", self.sha256.is_some() && self.sha256 != sums.sha256(), beside),
        ] {
            if wrong {
                let (name, start) = (printable(self.name), &sha512.hex()[..16]);
                return Err(Error::refused(format!("the {what} of {name} is not {whose} (its SHA-512 is {start}…)"))
                    .with_hint(hint));
            }
        }
        Ok(sha512)
    }
}

/// The server of a part's bytes. Without a digest for the whole, only the same file of the same server is continued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    url: String,
    validator: Option<String>,
    /// Size that the server announced. A part of that size is complete.
    #[serde(default)]
    size: Option<u64>,
}

/// A part while it grows.
struct Growing<'w> {
    wanted: &'w Request<'w>,
    /// Directory of the store.
    store: &'w Path,
    part: PartialBlob,
    hasher: Hasher,
    len: u64,
    origin: Option<Origin>,
    /// Holds bytes of more than one answer. Then a wrong digest does not prove that a server lies.
    mixed: bool,
}

/// The reason why a transfer stopped.
enum Stop {
    Remote(Failure),
    Local(Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Remote(failure)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Local(error)
    }
}

/// Downloads the file. `accept` judges the whole beyond size and digests; if it refuses, the next mirror is tried.
pub(super) fn download(
    http: &Http,
    wanted: &Request<'_>,
    store: &Store,
    accept: &mut dyn FnMut(&File) -> Result<()>,
    ui: &dyn Progress,
) -> Result<Received> {
    let key = match wanted.sha512 {
        Some(sha512) => format!("{}-{}", wanted.name, &sha512.hex()[..16]),
        None => wanted.name.to_owned(),
    };
    let part = loop {
        // This comes before a part is opened: without a network, a part of an earlier run must stay as it is.
        if let Some(hint) = wanted.offline
            && wanted.sha512.is_none_or(|sha512| !store.blob(&sha512).is_ok_and(|blob| blob.is_some()))
        {
            return Err(Error::network(format!("{} is not in the store", printable(wanted.name))).with_hint(hint));
        }
        let mut waiting =
            || ui.note(&format!("another build is downloading {}; waiting for it", printable(wanted.name)));
        match store.part(&key, wanted.sha512.as_ref(), &mut waiting)? {
            PartOrBlob::Part(part) => break part,
            PartOrBlob::Blob(file) => {
                let what = format!("the stored {}", printable(wanted.name));
                let algorithms: Vec<_> =
                    [Algorithm::Sha512].into_iter().chain(wanted.sha256.map(|_| Algorithm::Sha256)).collect();
                let (sums, size) = hashing::of_file(&file, &algorithms, &what, ui)?;
                if sums.sha512() == wanted.sha512 {
                    let sha512 = Request { blake2b: None, ..*wanted }.check(&sums)?;
                    return Ok(Received { file, sha512, size });
                }
                ui.warn(&format!(
                    "the stored copy of {} is damaged; it is removed and fetched again",
                    printable(wanted.name)
                ));
                if let Some(sha512) = &wanted.sha512 {
                    store.remove_blob(sha512)?;
                }
            }
        }
    };
    let mut growing =
        Growing { wanted, store: store.root(), part, hasher: wanted.hasher(), len: 0, origin: None, mixed: false };
    growing.take_over(ui)?;
    let mut troubles: Vec<(Kind, String)> = Vec::new();
    for url in wanted.urls {
        match growing.from(http, url, accept, ui) {
            Ok(sha512) => {
                let size = growing.len;
                let file = growing.part.finish(store, &sha512)?;
                return Ok(Received { file, sha512, size });
            }
            Err(Stop::Local(error)) if error.kind() != Kind::Refused => return Err(error),
            Err(Stop::Local(error)) => troubles.push((Kind::Refused, format!("{}: {error}", printable(url)))),
            Err(Stop::Remote(failure)) => troubles.push((Kind::Network, failure.to_string())),
        }
        if let (Some((_, trouble)), true) = (troubles.last(), troubles.len() < wanted.urls.len()) {
            ui.warn(&format!("{trouble}; trying the next mirror"));
        }
    }
    Err(failed(wanted, &troubles))
}

impl Growing<'_> {
    /// Continues the part of an earlier run, if it can belong to the wanted file.
    fn take_over(&mut self, ui: &dyn Progress) -> Result<()> {
        let wanted = self.wanted;
        let len = self.part.file().metadata().system(|| format!("reading {}", self.part.path().display()))?.len();
        if len == 0 {
            return Ok(());
        }
        self.origin = fs_err::read(self.part.note_path()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let traceable = self.origin.as_ref().is_some_and(|origin| origin.validator.is_some());
        if len > wanted.size.unwrap_or(MAX_FILE) || (wanted.sha512.is_none() && !traceable) {
            return self.reset();
        }
        ui.note(&format!("continuing {} after {} MiB", printable(wanted.name), len >> 20));
        let path = self.part.path().to_owned();
        let mut file = rewound(self.part.file())?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = file.read(&mut buffer).system(|| format!("reading {}", path.display()))?;
            if count == 0 {
                break;
            }
            self.hasher.update(&buffer[..count]);
            self.len += count as u64;
        }
        self.mixed = true;
        Ok(())
    }

    /// Gets the rest of the file from one server, and judges the whole. Returns its SHA-512.
    fn from(
        &mut self,
        http: &Http,
        url: &str,
        accept: &mut dyn FnMut(&File) -> Result<()>,
        ui: &dyn Progress,
    ) -> Result<Sha512, Stop> {
        let mut tries = 0;
        let mut began_anew = false;
        loop {
            let before = self.len;
            let complete = self.wanted.size.or(self.announced()).is_some_and(|size| size == self.len);
            match if complete { Ok(()) } else { self.receive(http, url, ui) } {
                Ok(()) => {}
                Err(Stop::Remote(failure)) if failure.kind == FailureKind::Range && !began_anew => {
                    began_anew = true;
                    self.reset()?;
                    continue;
                }
                Err(Stop::Remote(failure)) => {
                    if self.len > before + WORTH {
                        tries = 0;
                    }
                    let Some(pause) = http.wait(&failure, tries) else { return Err(failure.into()) };
                    tries += 1;
                    ui.note(&format!("{failure}; trying again"));
                    std::thread::sleep(pause);
                    continue;
                }
                Err(stop) => return Err(stop),
            }
            match self.judge(accept) {
                Err(error) if error.kind() == Kind::Refused => {
                    let mixed = self.mixed;
                    self.reset()?;
                    if mixed && !began_anew {
                        began_anew = true;
                        ui.note(&format!("{error}; it was made from several answers: fetching it again as a whole"));
                        continue;
                    }
                    return Err(error.into());
                }
                other => return other.map_err(Stop::from),
            }
        }
    }

    /// Appends one answer of the server.
    fn receive(&mut self, http: &Http, url: &str, ui: &dyn Progress) -> Result<(), Stop> {
        let wanted = self.wanted;
        let validator =
            self.origin.as_ref().filter(|origin| origin.url == url).and_then(|origin| origin.validator.clone());
        if self.len > 0 && wanted.sha512.is_none() && validator.is_none() {
            self.reset()?;
        }
        let mut body = http.open(url, self.len, validator.as_deref())?;
        let never = |why: String| Failure { url: url.to_owned(), why, kind: FailureKind::Never };
        match (body.total, wanted.size) {
            (Some(total), Some(size)) if total != size => {
                // The server answers in full with another file, so the network is not at fault.
                let what = format!("the server has {total} bytes instead of the signed size, {size}");
                return Err(Error::refused(what).into());
            }
            (Some(total), None) if total > MAX_FILE => {
                return Err(never(format!("the server offers {total} bytes")).into());
            }
            _ => {}
        }
        if body.start == 0 {
            self.reset()?;
            self.note(Origin { url: url.to_owned(), validator: body.validator.take(), size: body.total })?;
        } else {
            self.mixed = true;
        }
        let expected = wanted.size.or(body.total);
        if let Some(size) = expected {
            let (file, doing) = (&*self.part.file(), format!("downloading {}", printable(wanted.name)));
            space::check(file, self.store, doing, size.saturating_sub(self.len))
                .map_err(|error| error.with_hint(format!("{}; {CONTINUES}", space::STORE)))?;
        }
        self.append(&mut body, expected, ui, &never)?;
        match expected {
            Some(size) if self.len < size => Err(Stop::Remote(Failure {
                url: url.to_owned(),
                why: format!("the answer ended after {} of {size} bytes", self.len),
                kind: FailureKind::Again(None),
            })),
            _ => Ok(()),
        }
    }

    fn append(
        &mut self,
        body: &mut Body,
        expected: Option<u64>,
        ui: &dyn Progress,
        never: &dyn Fn(String) -> Failure,
    ) -> Result<(), Stop> {
        let ceiling = expected.unwrap_or(MAX_FILE);
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = body.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if self.len + count as u64 > ceiling {
                // The bytes before the excess are not this file either: it would have ended there.
                self.reset()?;
                return Err(never(format!("the server sends more than {ceiling} bytes")).into());
            }
            let written = self.part.file().write_all(&buffer[..count]);
            written.map_err(|error| self.unwritten(error, expected))?;
            self.hasher.update(&buffer[..count]);
            self.len += count as u64;
            ui.emit(Event::Bytes { done: self.len, total: expected });
        }
    }

    fn unwritten(&mut self, error: io::Error, expected: Option<u64>) -> Error {
        let (full, place) = (space::is_full(&error), self.part.path().display().to_string());
        let error = Error::system(format!("writing {place}")).with_source(error);
        if !full {
            return error;
        }
        let more = expected.map_or_else(String::new, |size| format!("{} bytes more are needed, ", size - self.len));
        let free = space::free(self.part.file()).unwrap_or_default();
        error.with_hint(format!("{more}{free} are free; {}; {CONTINUES}", space::STORE))
    }

    /// Judges the whole file. Returns its SHA-512.
    fn judge(&mut self, accept: &mut dyn FnMut(&File) -> Result<()>) -> Result<Sha512> {
        let wanted = self.wanted;
        let name = printable(wanted.name);
        let hint = "the server sends other bytes than the signed ones";
        if let Some(size) = wanted.size
            && size != self.len
        {
            return Err(Error::refused(format!("{name} has {} bytes instead of the signed size, {size}", self.len))
                .with_hint(hint));
        }
        let sha512 = wanted.check(&std::mem::replace(&mut self.hasher, wanted.hasher()).finish())?;
        accept(self.part.file())?;
        Ok(sha512)
    }

    /// Empties the part.
    fn reset(&mut self) -> Result<()> {
        let path = self.part.path().to_owned();
        let file = self.part.file();
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .system(|| format!("emptying {}", path.display()))?;
        (self.hasher, self.len, self.origin, self.mixed) = (self.wanted.hasher(), 0, None, false);
        Ok(())
    }

    /// Returns the size that the server of the first bytes announced.
    fn announced(&self) -> Option<u64> {
        self.origin.as_ref().and_then(|origin| origin.size)
    }

    fn note(&mut self, origin: Origin) -> Result<()> {
        let path = self.part.note_path();
        let bytes = serde_json::to_vec(&origin).system(|| format!("writing {}", path.display()))?;
        fs_err::write(&path, bytes).system(|| format!("writing {}", path.display()))?;
        self.origin = Some(origin);
        Ok(())
    }
}

fn failed(wanted: &Request<'_>, troubles: &[(Kind, String)]) -> Error {
    let name = printable(wanted.name);
    let refused = troubles.iter().any(|(kind, _)| *kind == Kind::Refused);
    let (kind, hint) = match (refused, wanted.named_by) {
        (true, NamedBy::Signer) => {
            (Kind::Refused, "nothing was kept; another mirror (source.mirrors) may have the right file")
        }
        (true, NamedBy::Recipe) => (Kind::Refused, REPLACED),
        (false, NamedBy::Signer) => {
            (Kind::Network, "run again to continue the download, or name other mirrors in source.mirrors")
        }
        (false, NamedBy::Recipe) => (Kind::Network, "run again to continue the download, or name another address"),
    };
    let error = match troubles {
        [(_, one)] => Error::new(kind, format!("fetching {name}: {one}")),
        _ => Error::new(kind, format!("fetching {name}: no mirror gave the file"))
            .with_details(troubles.iter().map(|(_, trouble)| format!("{trouble}\n")).collect::<String>()),
    };
    error.with_hint(hint)
}
