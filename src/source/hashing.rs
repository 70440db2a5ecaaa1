//! Digests of open files.

use std::fs::File;
use std::io::{self, Read};

use crate::base::digest::{Algorithm, HashingReader, Sha512, Sums};
use crate::base::error::{Context, Error, Result};
use crate::base::progress::{Event, Progress};
use crate::fs::rewound;

/// A reader that reports its progress.
pub(super) struct Metered<'a, R> {
    input: R,
    done: u64,
    total: Option<u64>,
    ui: &'a dyn Progress,
}

impl<'a, R> Metered<'a, R> {
    pub(super) fn new(input: R, total: Option<u64>, ui: &'a dyn Progress) -> Self {
        Self { input, done: 0, total, ui }
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.done += count as u64;
        self.ui.emit(Event::Bytes { done: self.done, total: self.total });
        Ok(count)
    }
}

/// Computes the digests and the size of an open file, from its beginning. `what` names it in messages.
pub(super) fn of_file(file: &File, algorithms: &[Algorithm], what: &str, ui: &dyn Progress) -> Result<(Sums, u64)> {
    let total = file.metadata().system(|| format!("reading {what}"))?.len();
    let mut reader = HashingReader::new(Metered::new(rewound(file)?, Some(total), ui), algorithms);
    rest(&mut reader).system(|| format!("reading {what}"))?;
    let size = reader.count();
    Ok((reader.finish(), size))
}

/// Reads to the end and drops the bytes.
pub(super) fn rest(input: &mut impl Read) -> io::Result<()> {
    let mut buffer = vec![0; super::BUFFER];
    while input.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Returns the SHA-512 of sums that were asked for it.
pub(super) fn sha512(sums: &Sums) -> Result<Sha512> {
    sums.sha512().ok_or_else(|| Error::system("no SHA-512 was computed"))
}
