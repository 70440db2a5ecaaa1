//! Cuts the plain stream into chunks. A chunk is compressed on its own and is the unit of the cache.
//!
//! A cut depends only on the bytes and paths near it. Inside a file, a cut is made where the chunk is full. Between entries, a cut is
//! made before a file at least as long as a chunk, and, once the chunk is long enough, before a path that is a cut point. A change
//! in the tree therefore changes the chunks around it and no others.

use std::ops::Deref;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use sha2::Digest as _;

use super::compress::{Compressed, Work};
use crate::base::digest::Sha256;

/// The compressor has stopped. [`Running::finish`](super::compress::Running::finish) returns the reason.
#[derive(Debug)]
pub struct Stopped;

/// Bytes of the plain stream. Dropping the last reference returns the buffer to its [`Chunker`], so that the buffer is neither
/// zeroed again nor faulted in again.
#[derive(Debug)]
pub(super) struct Chunk {
    buffer: Vec<u8>,
    length: usize,
    pool: Option<Sender<Vec<u8>>>,
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            // The send fails after the chunker was dropped, which nobody needs to know.
            drop(pool.send(std::mem::take(&mut self.buffer)));
        }
    }
}

/// The channels from the chunker to the threads of the compressor.
#[derive(Debug)]
pub(super) struct Channels {
    /// Chunks to be compressed, for whichever thread is free.
    pub(super) work: SyncSender<Work>,
    /// The results in the order of the file, for the writer.
    pub(super) order: SyncSender<Receiver<Compressed>>,
    /// Chunks in order, for the thread that computes the digest of the plain stream.
    pub(super) hash: Option<SyncSender<Arc<Chunk>>>,
}

/// Cuts the plain stream and sends the chunks to the compressor.
#[derive(Debug)]
pub struct Chunker {
    /// The chunk that is being filled. Its length is the maximum of a chunk.
    buffer: Vec<u8>,
    filled: usize,
    pool: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    /// A chunk of zeros, made when the first one is needed.
    zeros: Option<Arc<Chunk>>,
    channels: Channels,
    /// Bytes of all chunks that were sent.
    sent: u64,
    /// The digest of the bytes since [`Chunker::start_digest`].
    digest: Option<sha2::Sha256>,
}

impl Chunker {
    /// Cuts into chunks of at most `max` bytes.
    pub(super) fn new(max: usize, channels: Channels) -> Self {
        Self { buffer: vec![0; max], filled: 0, pool: channel(), zeros: None, channels, sent: 0, digest: None }
    }

    fn max(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the length of the plain stream so far.
    pub fn length(&self) -> u64 {
        self.sent + self.filled as u64
    }

    /// Returns how many of `wanted` bytes still fit into this chunk.
    fn fitting(&self, wanted: u64) -> usize {
        usize::try_from(wanted).unwrap_or(usize::MAX).min(self.max() - self.filled)
    }

    /// Begins an entry with `size` bytes of data.
    pub fn entry(&mut self, path: &Path, size: u64) -> Result<(), Stopped> {
        let large = size >= self.max() as u64;
        let long_enough = self.filled >= self.max() / 4;
        if self.filled > 0 && (large || (long_enough && is_cut_point(path))) { self.send() } else { Ok(()) }
    }

    /// Begins a digest of the bytes from here on.
    pub fn start_digest(&mut self) {
        self.digest = Some(sha2::Sha256::new());
    }

    /// Returns the digest of the bytes since [`Chunker::start_digest`], if one was begun.
    pub fn take_digest(&mut self) -> Option<Sha256> {
        self.digest.take().map(|sha256| Sha256::from(<[u8; 32]>::from(sha256.finalize())))
    }

    /// Appends plain bytes.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), Stopped> {
        while !bytes.is_empty() {
            let count = self.fitting(bytes.len() as u64);
            self.buffer[self.filled..][..count].copy_from_slice(&bytes[..count]);
            self.advance(count)?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Appends `count` zeros. Whole chunks of zeros share one buffer and are compressed once.
    pub fn zeros(&mut self, mut count: u64) -> Result<(), Stopped> {
        while count > 0 {
            if self.filled == 0 && count >= self.max() as u64 {
                let length = self.max();
                let chunk = || Arc::new(Chunk { buffer: vec![0; length], length, pool: None });
                let chunk = self.zeros.get_or_insert_with(chunk).clone();
                if let Some(sha256) = &mut self.digest {
                    sha256.update(&**chunk);
                }
                self.hand_over(chunk, true)?;
                count -= length as u64;
                continue;
            }
            let some = self.fitting(count);
            self.buffer[self.filled..][..some].fill(0);
            self.advance(some)?;
            count -= some as u64;
        }
        Ok(())
    }

    /// Appends up to `wanted` bytes straight from a file. Returns zero at the end of the file.
    pub fn read_from(&mut self, file: impl AsFd, wanted: u64) -> Result<rustix::io::Result<usize>, Stopped> {
        let wanted = self.fitting(wanted);
        let result = rustix::io::read(file, &mut self.buffer[self.filled..][..wanted]);
        self.advance(result.unwrap_or(0))?;
        Ok(result)
    }

    /// Accounts for `count` bytes that were put into the buffer.
    fn advance(&mut self, count: usize) -> Result<(), Stopped> {
        if let Some(sha256) = &mut self.digest {
            sha256.update(&self.buffer[self.filled..][..count]);
        }
        self.filled += count;
        if self.filled == self.max() { self.send() } else { Ok(()) }
    }

    /// Sends the last chunk. Dropping the senders then ends the threads.
    pub fn finish(mut self) -> Result<(), Stopped> {
        if self.filled == 0 { Ok(()) } else { self.send() }
    }

    fn send(&mut self) -> Result<(), Stopped> {
        let (back, used) = &self.pool;
        let next = used.try_recv().unwrap_or_else(|_| vec![0; self.buffer.len()]);
        let buffer = std::mem::replace(&mut self.buffer, next);
        let chunk = Chunk { buffer, length: self.filled, pool: Some(back.clone()) };
        self.filled = 0;
        self.hand_over(Arc::new(chunk), false)
    }

    fn hand_over(&mut self, plain: Arc<Chunk>, zeros: bool) -> Result<(), Stopped> {
        let (to, from) = sync_channel(1);
        self.channels.order.send(from).map_err(|_| Stopped)?;
        self.sent += plain.len() as u64;
        if let Some(hash) = &self.channels.hash {
            hash.send(plain.clone()).map_err(|_| Stopped)?;
        }
        self.channels.work.send(Work { plain, zeros, to }).map_err(|_| Stopped)
    }
}

/// Selects one path in 32, by the FNV-1a hash of its bytes.
fn is_cut_point(path: &Path) -> bool {
    let hash = path
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 32).is_multiple_of(32)
}
