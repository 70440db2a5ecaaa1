//! Where the plain stream is cut: the pieces are what is compressed at once, and what a cache can know again.
//!
//! A cut depends only on what stands near it. Inside of a file it is where a piece is full; before an entry where its path says so,
//! once the piece is long enough, and before a file that is as long as a piece. What is put in or taken out therefore changes the
//! pieces around it and no others.

use std::ops::Deref;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use sha2::{Digest, Sha256};

use super::compress::{Compressed, Work};
use crate::base::digest::hex;

/// The compressor has stopped; [`Running::finish`](super::compress::Running::finish) knows why.
#[derive(Debug)]
pub struct Stopped;

/// Bytes of the plain stream. Whoever lets go of them last gives their room back for the next ones: neither are they cleared for each
/// other nor does the kernel clear pages for them.
#[derive(Debug)]
pub(super) struct Piece {
    room: Vec<u8>,
    length: usize,
    back: Option<Sender<Vec<u8>>>,
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.room[..self.length]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(back) = &self.back {
            // Nobody takes it when there is no more to come.
            drop(back.send(std::mem::take(&mut self.room)));
        }
    }
}

/// The writing end of the compressor.
#[derive(Debug)]
pub struct Pieces {
    /// The piece that is being filled, and how far it is. Its room is as long as a piece may be.
    room: Vec<u8>,
    filled: usize,
    used: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    /// A piece of zeros, made when the first is needed.
    zeros: Option<Arc<Piece>>,
    work: SyncSender<Work>,
    order: SyncSender<Receiver<Compressed>>,
    /// Where the plain stream's digest is taken.
    hash: Option<SyncSender<Arc<Piece>>>,
    /// Bytes of all pieces before this.
    before: u64,
    /// Of what is taken since [`Pieces::watch`].
    watch: Option<Sha256>,
}

impl Pieces {
    pub(super) fn new(
        most: usize,
        work: SyncSender<Work>,
        order: SyncSender<Receiver<Compressed>>,
        hash: Option<SyncSender<Arc<Piece>>>,
    ) -> Self {
        Self { room: vec![0; most], filled: 0, used: channel(), zeros: None, work, order, hash, before: 0, watch: None }
    }

    /// How long a piece is at most.
    fn most(&self) -> usize {
        self.room.len()
    }

    /// Bytes that were taken.
    pub fn taken(&self) -> u64 {
        self.before + self.filled as u64
    }

    /// The room that is left in this piece, or so much of it.
    fn free(&self, most: u64) -> usize {
        usize::try_from(most).unwrap_or(usize::MAX).min(self.room.len() - self.filled)
    }

    /// An entry begins here, with so much data.
    pub fn entry(&mut self, path: &Path, size: u64) -> Result<(), Stopped> {
        let large = size >= self.most() as u64;
        let may = self.filled >= self.most() / 4;
        if self.filled > 0 && (large || (may && is_landmark(path))) { self.send() } else { Ok(()) }
    }

    /// Begins a digest of what is taken from here on.
    pub fn watch(&mut self) {
        self.watch = Some(Sha256::new());
    }

    /// The SHA-256 of what was taken since [`Pieces::watch`], in hex; none without it.
    pub fn watched(&mut self) -> Option<String> {
        self.watch.take().map(|sha256| hex(&sha256.finalize()))
    }

    /// Takes plain bytes.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), Stopped> {
        while !bytes.is_empty() {
            let count = self.free(bytes.len() as u64);
            self.room[self.filled..][..count].copy_from_slice(&bytes[..count]);
            self.took(count)?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Takes as many zeros. Whole pieces of them cost neither memory nor compression.
    pub fn zeros(&mut self, mut count: u64) -> Result<(), Stopped> {
        while count > 0 {
            if self.filled == 0 && count >= self.most() as u64 {
                let length = self.most();
                let piece = || Arc::new(Piece { room: vec![0; length], length, back: None });
                let piece = self.zeros.get_or_insert_with(piece).clone();
                if let Some(sha256) = &mut self.watch {
                    sha256.update(&**piece);
                }
                self.hand_over(piece, true)?;
                count -= length as u64;
                continue;
            }
            let some = self.free(count);
            self.room[self.filled..][..some].fill(0);
            self.took(some)?;
            count -= some as u64;
        }
        Ok(())
    }

    /// Takes up to `most` plain bytes straight from a file. Zero at the file's end.
    pub fn read_from(&mut self, file: impl AsFd, most: u64) -> Result<rustix::io::Result<usize>, Stopped> {
        let most = self.free(most);
        let result = rustix::io::read(file, &mut self.room[self.filled..][..most]);
        self.took(result.unwrap_or(0))?;
        Ok(result)
    }

    /// So much was put into the piece.
    fn took(&mut self, count: usize) -> Result<(), Stopped> {
        if let Some(sha256) = &mut self.watch {
            sha256.update(&self.room[self.filled..][..count]);
        }
        self.filled += count;
        if self.filled == self.most() { self.send() } else { Ok(()) }
    }

    /// Sends what is left. Dropping the senders ends the threads.
    pub fn finish(mut self) -> Result<(), Stopped> {
        if self.filled == 0 { Ok(()) } else { self.send() }
    }

    fn send(&mut self) -> Result<(), Stopped> {
        let (back, used) = &self.used;
        let next = used.try_recv().unwrap_or_else(|_| vec![0; self.room.len()]);
        let piece =
            Piece { room: std::mem::replace(&mut self.room, next), length: self.filled, back: Some(back.clone()) };
        self.filled = 0;
        self.hand_over(Arc::new(piece), false)
    }

    fn hand_over(&mut self, plain: Arc<Piece>, zeros: bool) -> Result<(), Stopped> {
        let (to, from) = sync_channel(1);
        self.order.send(from).map_err(|_| Stopped)?;
        self.before += plain.len() as u64;
        if let Some(hash) = &self.hash {
            hash.send(plain.clone()).map_err(|_| Stopped)?;
        }
        self.work.send(Work { plain, zeros, to }).map_err(|_| Stopped)
    }
}

/// One path in 32, by the FNV-1a hash of its bytes.
fn is_landmark(path: &Path) -> bool {
    let hash = path
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 32).is_multiple_of(32)
}
