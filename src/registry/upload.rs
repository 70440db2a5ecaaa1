//! Uploads of blobs. A small blob goes in one request, a large one in pieces: after a broken connection, the upload goes on at the byte
//! that the registry names.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::client::{Call, Client};
use crate::base::digest::Hasher;
use crate::base::error::Error;
use crate::base::refusal::Reason;
use crate::net::http::address::Address;
use crate::net::http::exchange::{Answer, Content, Method};
use crate::net::http::{Failure, FailureKind};
use crate::oci::Digest;

/// Largest piece of a blob in one request. Less than this is lost with a connection.
pub(super) const PIECE: u64 = if cfg!(test) { 64 << 10 } else { 32 << 20 };

/// Smallest piece after failures.
const SMALLEST_PIECE: u64 = if cfg!(test) { 16 << 10 } else { 4 << 20 };

/// Bytes that a registry must have kept to earn a new series of tries.
const WORTH: u64 = if cfg!(test) { 16 << 10 } else { 1 << 20 };

/// Bytes that a registry is expected to hash and copy in a second, at the end of an upload.
const SLOWEST_REGISTRY: u64 = 1 << 20;

/// Sessions for one blob.
const MOST_SESSIONS: u32 = 5;

/// Bytes that are read and hashed at a time.
const BUFFER: usize = 128 << 10;

/// A blob to upload.
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) file: Arc<File>,
    /// Bytes that are sent.
    pub(super) done: Arc<AtomicU64>,
}

/// The way in which a blob came into the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It was there.
    Present,
    /// The registry took it from another repository.
    Mounted,
    /// It was uploaded.
    Sent,
}

/// The reason why an upload stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The registry or the network failed.
    Remote(Failure),
    /// The blob is not what its name says, or cannot be read.
    Local(Error),
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Local(Error::refused(reason.to_string()))
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Remote(failure)
    }
}

/// Puts a blob into the repository, if it is not there. `sources` are repositories of the registry that may have it.
pub(super) fn upload(client: &Client<'_>, blob: &Blob, sources: &[String]) -> Result<Way, Stop> {
    if client.has_blob(&blob.digest)? {
        return Ok(Way::Present);
    }
    let mut session = None;
    for source in sources {
        session = mount(client, blob, source)?;
        if session.is_none() {
            return Ok(Way::Mounted);
        }
    }
    let reading = Arc::new(Reading::new(blob));
    let session = match session {
        Some(session) => session,
        None => Session::start(client)?,
    };
    let mut upload =
        Upload { client, blob, reading, piece: PIECE.max(session.smallest), session, at: 0, best: 0, sessions: 1 };
    match upload.run() {
        Ok(()) => Ok(Way::Sent),
        // The failure of the network is only a consequence.
        Err(failure) => Err(upload.reading.broken().map_or(Stop::Remote(failure), Stop::Local)),
    }
}

/// Asks the registry to take a blob from another repository. Returns an upload session if it does not.
fn mount(client: &Client<'_>, blob: &Blob, source: &str) -> Result<Option<Session>, Failure> {
    let digest = blob.digest.to_string();
    let address = client.at("blobs/uploads/")?.with_query(&[("mount", &digest), ("from", source)]);
    let answer = client.call(&Call::new(Method::Post, address.clone()))?;
    match answer.status() {
        201 => Ok(None),
        202 => Session::of(client, &answer, &address).map(Some),
        // The user may not read the other repository.
        401 | 403 | 404 => Session::start(client).map(Some),
        _ => Err(client.refused(answer)),
    }
}

/// An upload that the registry waits for.
struct Session {
    location: Address,
    /// Smallest piece that the registry takes, apart from the last one.
    smallest: u64,
}

impl Session {
    fn start(client: &Client<'_>) -> Result<Self, Failure> {
        let address = client.at("blobs/uploads/")?;
        let answer = client.call(&Call::new(Method::Post, address.clone()))?;
        match answer.status() {
            202 => Self::of(client, &answer, &address),
            _ => Err(client.refused(answer)),
        }
    }

    fn of(client: &Client<'_>, answer: &Answer, address: &Address) -> Result<Self, Failure> {
        let location = client.location(answer, address)?;
        let smallest = answer.header("oci-chunk-min-length").and_then(|length| length.parse().ok()).unwrap_or_default();
        Ok(Self { location, smallest })
    }
}

/// An upload while it runs.
struct Upload<'a, 'c> {
    client: &'a Client<'c>,
    blob: &'a Blob,
    reading: Arc<Reading>,
    session: Session,
    /// Size of the pieces.
    piece: u64,
    /// Bytes that the registry has.
    at: u64,
    /// Most bytes that it ever had in this session.
    best: u64,
    /// Sessions that were begun.
    sessions: u32,
}

impl Upload<'_, '_> {
    fn run(&mut self) -> Result<(), Failure> {
        let mut tries = 0;
        loop {
            let failure = match self.step() {
                Ok(true) => return Ok(()),
                Ok(false) if self.has_advanced() => {
                    tries = 0;
                    continue;
                }
                Ok(false) => self.failure("the registry does not keep what is sent", FailureKind::Again(None)),
                Err(failure) => failure,
            };
            if self.reading.is_broken() {
                return Err(failure);
            }
            let Some(pause) = self.client.http.wait(&failure, tries) else { return Err(failure) };
            tries += 1;
            self.client.pause(&failure, pause);
            if self.client.has_blob(&self.blob.digest)? {
                return Ok(());
            }
            self.piece = (self.piece / 2).max(SMALLEST_PIECE).max(self.session.smallest);
            self.find()?;
        }
    }

    /// Returns true if the registry has clearly more than ever before.
    fn has_advanced(&mut self) -> bool {
        let advanced = self.at >= self.best.saturating_add(WORTH) || (self.at == self.blob.size && self.best < self.at);
        if advanced {
            self.best = self.at;
        }
        advanced
    }

    /// Sends the next request. Returns true if the registry has the blob.
    fn step(&mut self) -> Result<bool, Failure> {
        if self.blob.size <= self.piece && self.at == 0 {
            self.finish(self.blob.size).map(|()| true)
        } else if self.at < self.blob.size {
            self.send_piece().map(|()| false)
        } else {
            self.finish(0).map(|()| true)
        }
    }

    /// Ends the upload with the last `length` bytes.
    fn finish(&mut self, length: u64) -> Result<(), Failure> {
        let address = self.session.location.with_query(&[("digest", &self.blob.digest.to_string())]);
        let content = || self.content(self.blob.size - length, length);
        let grace = Duration::from_secs(self.blob.size / SLOWEST_REGISTRY);
        let call = Call::new(Method::Put, address).header("content-type", "application/octet-stream").content(&content);
        let answer = self.client.once(&call.grace(grace))?;
        match answer.status() {
            200 | 201 | 204 => Ok(()),
            _ => Err(self.refused(answer)),
        }
    }

    fn send_piece(&mut self) -> Result<(), Failure> {
        let (at, length) = (self.at, self.piece.min(self.blob.size - self.at));
        let content = || self.content(at, length);
        let call = Call::new(Method::Patch, self.session.location.clone());
        let call = call.header("content-type", "application/octet-stream");
        let call = call.header("content-range", format!("{at}-{}", at + length - 1)).content(&content);
        let answer = self.client.once(&call)?;
        match answer.status() {
            // Without a range, the registry has everything.
            201 | 202 | 204 => self.take_over(&answer, at + length),
            _ => Err(self.refused(answer)),
        }
    }

    /// Returns the failure of a refused piece. A smaller piece, another offset or another session may help.
    fn refused(&self, answer: Answer) -> Failure {
        let again = match answer.status() {
            404 | 416 => true,
            413 => self.piece > SMALLEST_PIECE.max(self.session.smallest),
            _ => false,
        };
        let failure = self.client.refused(answer);
        if again { Failure { kind: FailureKind::Again(None), ..failure } } else { failure }
    }

    /// Asks the registry for the bytes that it has. Begins a new session if this one is gone.
    fn find(&mut self) -> Result<(), Failure> {
        if self.at == 0 && self.blob.size <= self.piece {
            return self.begin_anew();
        }
        let answer = self.client.call(&Call::new(Method::Get, self.session.location.clone()))?;
        match answer.status() {
            200 | 202 | 204 => self.take_over(&answer, 0),
            _ => self.begin_anew(),
        }
    }

    fn begin_anew(&mut self) -> Result<(), Failure> {
        if self.sessions == MOST_SESSIONS {
            return Err(self.failure("the registry gives the upload up again and again", FailureKind::Never));
        }
        self.sessions += 1;
        (self.at, self.best) = (0, 0);
        self.session = Session::start(self.client)?;
        Ok(())
    }

    /// Goes on where the registry says. `otherwise` is the number of bytes that it has if it does not say that.
    fn take_over(&mut self, answer: &Answer, otherwise: u64) -> Result<(), Failure> {
        if answer.header("location").is_some() {
            self.session.location = self.client.location(answer, &self.session.location)?;
        }
        let at = match answer.header("range") {
            None => otherwise,
            Some(range) => held(range).ok_or_else(|| answer.wrong("the registry names a range that cannot be read"))?,
        };
        if at > self.reading.sent() {
            return Err(answer.wrong("the registry claims to have more bytes than were sent"));
        }
        self.at = at;
        Ok(())
    }

    fn content(&self, at: u64, length: u64) -> Content {
        if length == 0 {
            return Content::Nothing;
        }
        let reading = Arc::clone(&self.reading);
        Content::Stream(Box::new(Piece { reading, at, end: at + length, buffer: Vec::new(), from: 0 }), length)
    }

    fn failure(&self, why: &str, kind: FailureKind) -> Failure {
        Failure { url: self.session.location.to_string(), why: why.to_owned(), kind }
    }
}

/// Returns the number of bytes that a `Range` header says are there. For no byte, registries write `0-0`, as for one.
fn held(range: &str) -> Option<u64> {
    let (first, last) = range.trim().trim_start_matches("bytes=").split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    if first.trim() == "0" { if last == 0 { Some(0) } else { last.checked_add(1) } } else { None }
}

/// The blob as it is read. The digest is computed on the way, so that no byte is read for it alone.
struct Reading {
    file: Arc<File>,
    size: u64,
    digest: Digest,
    done: Arc<AtomicU64>,
    state: Mutex<State>,
}

struct State {
    hasher: Option<Hasher>,
    /// Bytes that are hashed: the most that were ever sent.
    hashed: u64,
    broken: Option<Error>,
}

impl Reading {
    fn new(blob: &Blob) -> Self {
        let hasher = Some(Hasher::new(&[blob.digest.algorithm()]));
        let state = Mutex::new(State { hasher, hashed: 0, broken: None });
        let (file, done) = (Arc::clone(&blob.file), Arc::clone(&blob.done));
        Self { file, size: blob.size, digest: blob.digest, done, state }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self) -> u64 {
        self.state().hashed
    }

    fn is_broken(&self) -> bool {
        self.state().broken.is_some()
    }

    fn broken(&self) -> Option<Error> {
        self.state().broken.take()
    }

    /// Reads up to the size of `to` at an offset. The last bytes are given only if the digest of all is right.
    fn read(&self, at: u64, to: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(to, at)?;
        let mut state = self.state();
        if count == 0 {
            state.broken = Some(Error::refused(format!("{} became shorter while it was read", self.digest)));
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = at + count as u64;
        if at <= state.hashed && state.hashed < end {
            let new = usize::try_from(state.hashed - at).unwrap_or(count);
            if let Some(hasher) = &mut state.hasher {
                hasher.update(&to[new..count]);
            }
            state.hashed = end;
            if end == self.size {
                let sums = state.hasher.take().map(Hasher::finish);
                if sums.and_then(|sums| Digest::from_sums(self.digest.algorithm(), &sums)) != Some(self.digest) {
                    let error = Error::refused(format!("the content of {} has a different digest", self.digest));
                    state.broken = Some(error.with_hint("`quern-builder oci validate DIR` checks a whole layout"));
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
        self.done.store(end, Ordering::Relaxed);
        Ok(count)
    }
}

/// The body of one request.
struct Piece {
    reading: Arc<Reading>,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    /// First byte of the buffer that is not taken.
    from: usize,
}

impl Read for Piece {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.from == self.buffer.len() {
            let length = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(BUFFER);
            if length == 0 {
                return Ok(0);
            }
            self.buffer.resize(length, 0);
            let count = self.reading.read(self.at, &mut self.buffer)?;
            self.buffer.truncate(count);
            (self.from, self.at) = (0, self.at + count as u64);
        }
        let count = to.len().min(self.buffer.len() - self.from);
        to[..count].copy_from_slice(&self.buffer[self.from..self.from + count]);
        self.from += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_gives_the_bytes_that_are_there() {
        for (range, bytes) in [("0-0", 0), ("0-4", 5), ("bytes=0-99", 100), (" 0-1 ", 2)] {
            assert_eq!(held(range), Some(bytes), "{range}");
        }
        for bad in ["", "0", "5-9", "0-x", "-5", "0--1", "0-18446744073709551615", "0-18446744073709551616", "a-b"] {
            assert_eq!(held(bad), None, "{bad}");
        }
    }
}
