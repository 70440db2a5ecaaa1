//! A large file into the store: resumed, mirror after mirror, hashed while it arrives, a blob only when its digest is right.

use crate::base::text::printable;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fetch::{Body, Failure, FailureKind, Http};
use super::hashing;
use super::pointer::MAX_SIZE;
use super::{BUFFER, Got, rewound};
use crate::base::digest::{Algorithm, Hasher, Sha512};
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::progress::{Event, Progress};
use crate::os::space;
use crate::store::Store;
use crate::store::blobs::{PartOrBlob, PartialBlob};

/// Progress that makes a broken connection worth more tries.
const WORTH: u64 = 1 << 20;

const CONTINUES: &str = "a download goes on where it stopped";

/// What is wanted, and what it must be.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// A plain file name.
    pub(super) name: &'a str,
    /// Tried in order.
    pub(super) urls: &'a [String],
    /// Exact size, where known.
    pub(super) size: Option<u64>,
    pub(super) sha512: Option<&'a Sha512>,
    pub(super) blake2b: Option<&'a str>,
    /// A SHA-256 that nobody signed.
    pub(super) sha256: Option<&'a str>,
    /// Only what the store has.
    pub(super) offline: bool,
}

impl Wanted<'_> {
    /// For all the digests that are asked about it, and for the SHA-512 that names the blob.
    fn hasher(&self) -> Hasher {
        let also = [(Algorithm::Blake2b, self.blake2b), (Algorithm::Sha256, self.sha256)];
        let also = also.into_iter().filter(|(_, wanted)| wanted.is_some()).map(|(algorithm, _)| algorithm);
        Hasher::new(&[Algorithm::Sha512].into_iter().chain(also).collect::<Vec<_>>())
    }
}

/// Where the bytes of a part come from: without a digest to judge the whole by, only the same file of the same server is continued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    url: String,
    validator: Option<String>,
    /// How long the server said the file is: a part of that length is whole, and nothing more is asked.
    #[serde(default)]
    size: Option<u64>,
}

/// The part while it grows.
struct Growing<'w> {
    wanted: &'w Wanted<'w>,
    /// The directory of the store.
    store: &'w Path,
    part: PartialBlob,
    hasher: Hasher,
    len: u64,
    origin: Option<Origin>,
    /// Holds bytes of more than one answer, so that a wrong digest may be nobody's fault.
    mixed: bool,
}

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

/// Gets the file. `accept` judges the whole beyond size and digests; what it refuses is tried from the next mirror.
pub(super) fn download(
    http: &Http,
    wanted: &Wanted<'_>,
    store: &Store,
    accept: &mut dyn FnMut(&File) -> Result<()>,
    ui: &dyn Progress,
) -> Result<Got> {
    let key = match wanted.sha512 {
        Some(sha512) => format!("{}-{}", wanted.name, &sha512.hex()[..16]),
        None => wanted.name.to_owned(),
    };
    let part = loop {
        // Before a part is opened: what an earlier run left of it is not offline's to touch.
        if wanted.offline && wanted.sha512.is_none_or(|sha512| !store.blob(sha512).is_ok_and(|blob| blob.is_some())) {
            return Err(Error::network(format!("{} is not in the store", printable(wanted.name)))
                .with_hint("run once without --offline"));
        }
        let mut waiting =
            || ui.note(&format!("another build is downloading {}; waiting for it", printable(wanted.name)));
        match store.part(&key, wanted.sha512, &mut waiting)? {
            PartOrBlob::Part(part) => break part,
            PartOrBlob::Blob(file) => {
                let what = format!("the stored {}", printable(wanted.name));
                let (sums, size) = hashing::of_file(&file, &[Algorithm::Sha512], &what, ui)?;
                let sha512 = hashing::sha512(&sums)?;
                if Some(&sha512) == wanted.sha512 {
                    return Ok(Got { file, sha512, size });
                }
                ui.warn(&format!(
                    "the stored copy of {} is damaged; it is removed and fetched again",
                    printable(wanted.name)
                ));
                wanted.sha512.map(|sha512| store.remove_blob(sha512)).transpose()?;
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
                return Ok(Got { file, sha512, size });
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
    /// Takes over what an earlier run left, if it can be part of what is wanted.
    fn take_over(&mut self, ui: &dyn Progress) -> Result<()> {
        let wanted = self.wanted;
        let len = self.part.file().metadata().system(|| format!("reading {}", self.part.path().display()))?.len();
        if len == 0 {
            return Ok(());
        }
        self.origin = fs_err::read(self.part.note_path()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let traceable = self.origin.as_ref().is_some_and(|origin| origin.validator.is_some());
        if len > wanted.size.unwrap_or(MAX_SIZE) || (wanted.sha512.is_none() && !traceable) {
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

    /// All of the file from one server (after what is there already), judged. Its SHA-512.
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
            let complete = self.wanted.size.or(self.said()).is_some_and(|size| size == self.len);
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
                        ui.note(&format!("{error}; it was put together from several answers: fetching it whole"));
                        continue;
                    }
                    return Err(error.into());
                }
                other => return other.map_err(Stop::from),
            }
        }
    }

    /// One answer of the server, appended.
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
                // The answer is whole and something else: no fault of the network.
                let what = format!("the server has {total} bytes where the signed size is {size}");
                return Err(Error::refused(what).into());
            }
            (Some(total), None) if total > MAX_SIZE => {
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
        let ceiling = expected.unwrap_or(MAX_SIZE);
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = body.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if self.len + count as u64 > ceiling {
                // What came before the excess is not this file either, or it would have ended there.
                self.reset()?;
                return Err(never(format!("the server sends more than the {ceiling} bytes there are")).into());
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

    /// The SHA-512 of the whole, if it is what is wanted.
    fn judge(&mut self, accept: &mut dyn FnMut(&File) -> Result<()>) -> Result<Sha512> {
        let wanted = self.wanted;
        let sha512 = wanted.sha512.map(Sha512::hex);
        let name = printable(wanted.name);
        let hint = "the server sends something else than what was signed";
        if let Some(size) = wanted.size
            && size != self.len
        {
            return Err(Error::refused(format!("{name} has {} bytes where the signed size is {size}", self.len))
                .with_hint(hint));
        }
        let sums = std::mem::replace(&mut self.hasher, wanted.hasher()).finish();
        for (what, algorithm, should, whose) in [
            ("SHA-512", Algorithm::Sha512, sha512.as_deref(), "the signed one"),
            ("BLAKE2b", Algorithm::Blake2b, wanted.blake2b, "the signed one"),
            ("SHA-256", Algorithm::Sha256, wanted.sha256, "the one beside it"),
        ] {
            let is = sums.hex(algorithm).unwrap_or_default();
            if should.is_some_and(|should| should != is) {
                let is = is.get(..16).unwrap_or_default();
                return Err(
                    Error::refused(format!("the {what} of {name} is not {whose} (it is {is}…)")).with_hint(hint)
                );
            }
        }
        accept(self.part.file())?;
        hashing::sha512(&sums)
    }

    /// Back to nothing.
    fn reset(&mut self) -> Result<()> {
        let path = self.part.path().to_owned();
        let file = self.part.file();
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .system(|| format!("emptying {}", path.display()))?;
        (self.hasher, self.len, self.origin, self.mixed) = (self.wanted.hasher(), 0, None, false);
        Ok(())
    }

    /// The size that the server of the first bytes gave.
    fn said(&self) -> Option<u64> {
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

fn failed(wanted: &Wanted<'_>, troubles: &[(Kind, String)]) -> Error {
    let name = printable(wanted.name);
    let refused = troubles.iter().any(|(kind, _)| *kind == Kind::Refused);
    let (kind, hint) = if refused {
        (Kind::Refused, "nothing of it was kept; another mirror (source.mirrors) may have the right file")
    } else {
        (Kind::Network, "run it again to continue where it stopped, or name other mirrors in source.mirrors")
    };
    let error = match troubles {
        [(_, one)] => Error::new(kind, format!("fetching {name}: {one}")),
        _ => Error::new(kind, format!("fetching {name}: no mirror gave it"))
            .with_details(troubles.iter().map(|(_, trouble)| format!("{trouble}\n")).collect::<String>()),
    };
    error.with_hint(hint)
}
