//! Digests of files.

use std::fs::File;
use std::io::Read as _;

use super::{BUFFER, rewound};
use crate::base::digest::{Algorithm, Hasher, Sha512, Sums};
use crate::base::error::{Context, Error, Result};
use crate::base::progress::{Event, Progress};

/// Computes the digests and the size of an open file, from its beginning. `what` names it in messages.
pub(super) fn of_file(file: &File, algorithms: &[Algorithm], what: &str, ui: &dyn Progress) -> Result<(Sums, u64)> {
    let total = file.metadata().system(|| format!("reading {what}"))?.len();
    let mut reader = rewound(file)?;
    let mut hasher = Hasher::new(algorithms);
    let mut buffer = vec![0; BUFFER];
    let mut done = 0;
    loop {
        let count = reader.read(&mut buffer).system(|| format!("reading {what}"))?;
        if count == 0 {
            return Ok((hasher.finish(), done));
        }
        hasher.update(&buffer[..count]);
        done += count as u64;
        ui.emit(Event::Bytes { done, total: Some(total) });
    }
}

/// Returns the SHA-512 of sums that were computed with it.
pub(super) fn sha512(sums: &Sums) -> Result<Sha512> {
    sums.sha512().ok_or_else(|| Error::system("computing a SHA-512: it was not asked for"))
}
