//! Where the plain stream is cut: the pieces are what is compressed at once, and what a cache can know again.
//!
//! A cut depends only on what stands near it. Inside of a file it is where a piece is full; before an entry where its path says so,
//! once the piece is long enough, and before a file that is as long as a piece. What is put in or taken out therefore changes the
//! pieces around it and no others.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest, Sha256};

use super::compress::{Compressed, Work};
use super::digest::hex;

/// The compressor has stopped; [`Running::finish`](super::compress::Running::finish) knows why.
#[derive(Debug)]
pub struct Stopped;

/// The writing end of the compressor.
#[derive(Debug)]
pub struct Pieces {
    /// How long a piece is at most.
    most: usize,
    piece: Vec<u8>,
    /// A piece of zeros, made when the first is needed.
    zeros: Option<Arc<Vec<u8>>>,
    work: SyncSender<Work>,
    order: SyncSender<Receiver<Compressed>>,
    hash: SyncSender<Arc<Vec<u8>>>,
    /// Of what is taken since [`Pieces::watch`].
    watch: Option<Sha256>,
}

impl Pieces {
    pub(super) fn new(
        most: usize,
        work: SyncSender<Work>,
        order: SyncSender<Receiver<Compressed>>,
        hash: SyncSender<Arc<Vec<u8>>>,
    ) -> Self {
        Self { most, piece: Vec::with_capacity(most), zeros: None, work, order, hash, watch: None }
    }

    /// An entry begins here, with so much data.
    pub fn entry(&mut self, path: &Path, size: u64) -> Result<(), Stopped> {
        let large = size >= self.most as u64;
        let may = self.piece.len() >= self.most / 4;
        if !self.piece.is_empty() && (large || (may && is_landmark(path))) { self.send() } else { Ok(()) }
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
            let count = bytes.len().min(self.most - self.piece.len());
            self.piece.extend_from_slice(&bytes[..count]);
            self.see(self.piece.len() - count);
            bytes = &bytes[count..];
            self.send_full()?;
        }
        Ok(())
    }

    /// Takes as many zeros. Whole pieces of them cost neither memory nor compression.
    pub fn zeros(&mut self, mut count: u64) -> Result<(), Stopped> {
        while count > 0 {
            if self.piece.is_empty() && count >= self.most as u64 {
                let piece = self.zeros.get_or_insert_with(|| Arc::new(vec![0; self.most])).clone();
                if let Some(sha256) = &mut self.watch {
                    sha256.update(&piece[..]);
                }
                self.hand_over(piece, true)?;
                count -= self.most as u64;
                continue;
            }
            let most = usize::try_from(count).unwrap_or(usize::MAX).min(self.most - self.piece.len());
            self.piece.resize(self.piece.len() + most, 0);
            self.see(self.piece.len() - most);
            count -= most as u64;
            self.send_full()?;
        }
        Ok(())
    }

    /// Takes up to `most` plain bytes straight from a file. Zero at the file's end.
    pub fn read_from(&mut self, file: impl AsFd, most: u64) -> Result<rustix::io::Result<usize>, Stopped> {
        let have = self.piece.len();
        let most = (self.most - have).min(usize::try_from(most).unwrap_or(usize::MAX));
        // The piece is zeroed once by this and then overwritten: the price of safe code is a memset of what is read.
        self.piece.resize(have + most, 0);
        let result = rustix::io::read(file, &mut self.piece[have..]);
        self.piece.truncate(have + result.unwrap_or(0));
        self.see(have);
        self.send_full()?;
        Ok(result)
    }

    /// Takes what the piece has from `at` on into the digest.
    fn see(&mut self, at: usize) {
        if let Some(sha256) = &mut self.watch {
            sha256.update(&self.piece[at..]);
        }
    }

    /// Sends what is left. Dropping the senders ends the threads.
    pub fn finish(mut self) -> Result<(), Stopped> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }

    fn send_full(&mut self) -> Result<(), Stopped> {
        if self.piece.len() == self.most { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Stopped> {
        let plain = Arc::new(std::mem::replace(&mut self.piece, Vec::with_capacity(self.most)));
        self.hand_over(plain, false)
    }

    fn hand_over(&mut self, plain: Arc<Vec<u8>>, zeros: bool) -> Result<(), Stopped> {
        let (to, from) = sync_channel(1);
        self.order.send(from).map_err(|_| Stopped)?;
        self.hash.send(plain.clone()).map_err(|_| Stopped)?;
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
