//! Downloads of manifests and blobs. Nothing is accepted before its size and its digest are those of its descriptor.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use super::client::{Call, Client};
use super::docker;
use super::upload::Stop;
use crate::base::digest::{Algorithm, Hasher};
use crate::base::error::{Context as _, Error};
use crate::net::http::exchange::Method;
use crate::net::http::{Body, Failure, FailureKind};
use crate::oci::Digest;
use crate::oci::layout::{Descriptor, INDEX, MANIFEST, MAX_DOCUMENT};

/// Bytes that a broken connection must have brought to earn a new series of tries.
const WORTH: u64 = if cfg!(test) { 16 << 10 } else { 1 << 20 };
const BUFFER: usize = 128 << 10;

/// Downloads the manifest or the index with the name `name`, a tag or a digest. It may be in Docker's form.
pub(super) fn document(
    client: &Client<'_>,
    name: &str,
    digest: Option<&Digest>,
) -> Result<(Descriptor, Vec<u8>), Stop> {
    let call = Call::new(Method::Get, client.at(&format!("manifests/{name}"))?);
    let accepted = format!("{INDEX}, {MANIFEST}, {}, {}", docker::LIST, docker::IMAGE);
    let answer = client.call(&call.header("accept", accepted))?;
    if answer.status() != 200 {
        return Err(client.refused(answer).into());
    }
    let header = |name| answer.header(name).map(|value| value.split(';').next().unwrap_or_default().trim().to_owned());
    let (media_type, claimed) = (header("content-type").unwrap_or_default(), header("docker-content-digest"));
    if ![INDEX, MANIFEST, docker::LIST, docker::IMAGE].contains(&media_type.as_str()) {
        return Err(answer.wrong("the registry does not answer with the manifest of an image").into());
    }
    let bytes = answer.document(MAX_DOCUMENT)?;
    let algorithm = digest.map_or(Algorithm::Sha256, Digest::algorithm);
    let found = Digest::of(algorithm, &bytes[..]).ok().flatten();
    let Some(found) = found.filter(|found| digest.is_none_or(|digest| digest == found)) else {
        return Err(Stop::Local(Error::refused(format!("the registry sends another manifest than {name}"))));
    };
    let same = |claimed: &String| {
        Digest::parse(claimed).is_ok_and(|claimed| claimed.algorithm() != algorithm || claimed == found)
    };
    if claimed.as_ref().is_some_and(|claimed| !same(claimed)) {
        return Err(Stop::Local(Error::refused(format!(
            "the registry names another digest than that of the manifest {name}"
        ))));
    }
    Ok((Descriptor::new(&media_type, &found, bytes.len() as u64), bytes))
}

/// A blob while it grows.
struct Growing<'a, 'c> {
    client: &'a Client<'c>,
    digest: Digest,
    size: u64,
    file: &'a mut File,
    done: &'a AtomicU64,
    hasher: Hasher,
    len: u64,
    /// Holds bytes of more than one answer.
    mixed: bool,
}

/// Downloads a blob into an empty file.
pub(super) fn blob(client: &Client<'_>, blob: &Descriptor, file: &mut File, done: &AtomicU64) -> Result<(), Stop> {
    let digest = Digest::parse(&blob.digest)?;
    let hasher = Hasher::new(&[digest.algorithm()]);
    Growing { client, digest, size: blob.size, file, done, hasher, len: 0, mixed: false }.run()
}

impl Growing<'_, '_> {
    fn run(mut self) -> Result<(), Stop> {
        if self.size == 0 && self.is_right() {
            return Ok(());
        }
        let (mut tries, mut began_anew) = (0, false);
        loop {
            let before = self.len;
            let failure = match self.receive() {
                Ok(()) if self.is_right() => return Ok(()),
                Ok(()) if self.mixed && !began_anew => {
                    began_anew = true;
                    self.reset()?;
                    continue;
                }
                Ok(()) => {
                    let what = format!("the registry sends other bytes than those of {}", self.digest);
                    return Err(Stop::Local(Error::refused(what)));
                }
                Err(Stop::Remote(failure)) if failure.kind == FailureKind::Range && !began_anew => {
                    began_anew = true;
                    self.reset()?;
                    continue;
                }
                Err(Stop::Remote(failure)) => failure,
                Err(stop) => return Err(stop),
            };
            if self.len >= before.saturating_add(WORTH) {
                tries = 0;
            }
            let Some(pause) = self.client.http.wait(&failure, tries) else { return Err(failure.into()) };
            self.client.pause(&failure, pause);
            tries += 1;
        }
    }

    /// Returns true if the bytes so far have the digest.
    fn is_right(&mut self) -> bool {
        let algorithm = self.digest.algorithm();
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(&[algorithm]));
        Digest::from_sums(algorithm, &hasher.finish()) == Some(self.digest)
    }

    /// Appends one answer. The file is complete then.
    fn receive(&mut self) -> Result<(), Stop> {
        let from = self.len;
        let call = Call::new(Method::Get, self.client.at(&format!("blobs/{}", self.digest))?);
        let call = if from > 0 { call.header("range", format!("bytes={from}-")) } else { call };
        let answer = self.client.once(&call)?;
        let mut body = match answer.status() {
            200 | 206 | 416 => answer.file(from)?,
            _ => return Err(self.client.refused(answer).into()),
        };
        if let Some(total) = body.total.filter(|total| *total != self.size) {
            return Err(self.other_size(&total.to_string()));
        }
        if body.start == 0 {
            self.reset()?;
        } else {
            self.mixed = true;
        }
        self.append(&mut body)?;
        if self.len < self.size {
            let (url, size) = (self.digest.to_string(), self.size);
            let why = format!("the answer ended after {} of {size} bytes", self.len);
            return Err(Failure { url, why, kind: FailureKind::Again(None) }.into());
        }
        Ok(())
    }

    fn append(&mut self, body: &mut Body) -> Result<(), Stop> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = body.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if self.len + count as u64 > self.size {
                return Err(self.other_size("more"));
            }
            self.file.write_all(&buffer[..count]).system(|| format!("writing {}", self.digest)).map_err(Stop::Local)?;
            self.hasher.update(&buffer[..count]);
            self.len += count as u64;
            self.done.store(self.len, Ordering::Relaxed);
        }
    }

    fn other_size(&self, found: &str) -> Stop {
        let what = format!("the registry has {found} bytes for {} instead of {}", self.digest, self.size);
        Stop::Local(Error::refused(what))
    }

    /// Removes the bytes so far.
    fn reset(&mut self) -> Result<(), Stop> {
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.system(|| format!("writing {}", self.digest)).map_err(Stop::Local)?;
        self.hasher = Hasher::new(&[self.digest.algorithm()]);
        (self.len, self.mixed) = (0, false);
        Ok(())
    }
}
