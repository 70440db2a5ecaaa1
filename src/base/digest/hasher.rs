//! Computes several digests of one stream, each in a thread of its own over the same buffers. The wall time is that of the slowest.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use blake2::Blake2b512;
use sha2::digest::DynDigest;

use super::{Algorithm, Blake2b, Sha256, Sha512};

/// Size of a buffer in bytes.
const BUFFER: usize = 256 * 1024;

/// Buffers that wait for the slowest thread. With the one being filled and the one being hashed, this bounds the memory.
const DEPTH: usize = 4;

/// Hashes what it is given, in bounded memory.
#[derive(Debug)]
pub struct Hasher {
    lanes: Vec<Lane>,
    /// Bytes not given to the threads yet.
    filling: Vec<u8>,
    /// Buffers that the threads have, the oldest first. A buffer is filled again once every thread has finished with it.
    sent: VecDeque<Arc<Vec<u8>>>,
    threads: bool,
}

/// The state of one digest.
struct Lane {
    algorithm: Algorithm,
    worker: Worker,
}

type State = Box<dyn DynDigest + Send + Sync>;

enum Worker {
    /// No bytes were hashed yet.
    Unused,
    /// Hashing takes place in the caller's thread.
    Caller(State),
    /// A thread that ends when nothing more is fed.
    Thread { feed: SyncSender<Arc<Vec<u8>>>, thread: JoinHandle<State> },
}

/// The digests of one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    sha256: Option<Sha256>,
    sha512: Option<Sha512>,
    blake2b: Option<Blake2b>,
}

impl Sums {
    /// The SHA-256, if it was asked for.
    pub fn sha256(&self) -> Option<Sha256> {
        self.sha256
    }

    /// The SHA-512, if it was asked for.
    pub fn sha512(&self) -> Option<Sha512> {
        self.sha512
    }

    /// The BLAKE2b, if it was asked for.
    pub fn blake2b(&self) -> Option<Blake2b> {
        self.blake2b
    }

    /// Keeps a finished digest, whose length is that of its algorithm.
    fn keep(&mut self, algorithm: Algorithm, bytes: &[u8]) {
        match algorithm {
            Algorithm::Sha256 => self.sha256 = bytes.try_into().ok().map(<[u8; 32]>::into),
            Algorithm::Sha512 => self.sha512 = bytes.try_into().ok().map(<[u8; 64]>::into),
            Algorithm::Blake2b => self.blake2b = bytes.try_into().ok().map(<[u8; 64]>::into),
        }
    }
}

impl Hasher {
    /// Computes these digests. Starts no thread on a machine with one processor or for a short stream.
    pub fn new(algorithms: &[Algorithm]) -> Self {
        Self::with(algorithms, thread::available_parallelism().is_ok_and(|processors| processors.get() > 1))
    }

    /// Computes these digests, in threads only if `threads` is set.
    pub fn with(algorithms: &[Algorithm], threads: bool) -> Self {
        let lanes = algorithms.iter().map(|&algorithm| Lane { algorithm, worker: Worker::Unused });
        Self { lanes: lanes.collect(), filling: Vec::new(), sent: VecDeque::new(), threads }
    }

    /// Hashes `bytes`. Waits while the threads are behind.
    pub fn update(&mut self, mut bytes: &[u8]) {
        if !self.threads {
            return self.lanes.iter_mut().for_each(|lane| lane.update(bytes));
        }
        while !bytes.is_empty() {
            self.filling.reserve_exact(BUFFER - self.filling.len());
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER - self.filling.len()));
            self.filling.extend_from_slice(now);
            bytes = later;
            if self.filling.len() == BUFFER {
                self.send();
            }
        }
    }

    /// Returns the digests of all bytes.
    pub fn finish(mut self) -> Sums {
        if self.sent.is_empty() {
            self.lanes.iter_mut().for_each(|lane| lane.update(&self.filling));
        } else {
            self.send();
        }
        let mut sums = Sums::default();
        self.lanes.into_iter().for_each(|lane| sums.keep(lane.algorithm, &lane.finish()));
        sums
    }

    /// Gives the buffer to every thread, and takes back one that every thread has finished with.
    fn send(&mut self) {
        let oldest = if self.sent.len() > DEPTH + 1 { self.sent.pop_front() } else { None };
        let next = oldest.and_then(Arc::into_inner).unwrap_or_default();
        let full = Arc::new(std::mem::replace(&mut self.filling, next));
        self.filling.clear();
        self.lanes.iter_mut().for_each(|lane| lane.feed(&full));
        self.sent.push_back(full);
    }
}

fn state(algorithm: Algorithm) -> State {
    match algorithm {
        Algorithm::Sha256 => Box::new(sha2::Sha256::default()),
        Algorithm::Sha512 => Box::new(sha2::Sha512::default()),
        Algorithm::Blake2b => Box::new(Blake2b512::default()),
    }
}

/// Starts a thread that hashes `first` and the buffers that it is fed.
fn start(algorithm: Algorithm, first: &Arc<Vec<u8>>) -> std::io::Result<Worker> {
    let (feed, fed) = sync_channel(DEPTH);
    let (mut state, first) = (state(algorithm), Arc::clone(first));
    let thread = thread::Builder::new().name("digest".to_owned()).spawn(move || {
        state.update(&first);
        drop(first);
        fed.into_iter().for_each(|buffer: Arc<Vec<u8>>| state.update(&buffer));
        state
    })?;
    Ok(Worker::Thread { feed, thread })
}

impl Lane {
    /// Hashes in the caller's thread, unless a thread was started.
    fn update(&mut self, bytes: &[u8]) {
        if matches!(self.worker, Worker::Unused) {
            self.worker = Worker::Caller(state(self.algorithm));
        }
        if let Worker::Caller(state) = &mut self.worker {
            state.update(bytes);
        }
    }

    /// Gives the buffer to the thread. The first buffer starts the thread; if that fails, the caller hashes all buffers.
    fn feed(&mut self, buffer: &Arc<Vec<u8>>) {
        match &self.worker {
            // If the thread has panicked, `finish` passes the panic on.
            Worker::Thread { feed, .. } => _ = feed.send(Arc::clone(buffer)),
            // The state stays with the caller: a thread started now would miss the earlier buffers.
            Worker::Caller(_) => self.update(buffer),
            Worker::Unused => match start(self.algorithm, buffer) {
                Ok(worker) => self.worker = worker,
                Err(_) => self.update(buffer),
            },
        }
    }

    fn finish(self) -> Box<[u8]> {
        let state = match self.worker {
            Worker::Unused => state(self.algorithm),
            Worker::Caller(state) => state,
            Worker::Thread { feed, thread } => {
                drop(feed);
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }
        };
        state.finalize()
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lane({:?})", self.algorithm)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::Digest as _;

    use super::*;

    const ALL: [Algorithm; 3] = [Algorithm::Sha512, Algorithm::Blake2b, Algorithm::Sha256];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn threads_give_the_same_digests_as_one_thread(size in 0usize..3 << 20, step in 1usize..600_000, threads: bool) {
            let bytes: Vec<u8> = (0..size as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let mut hasher = Hasher::with(&ALL, threads);
            bytes.chunks(step).for_each(|chunk| hasher.update(chunk));
            let sums = hasher.finish();
            prop_assert_eq!(sums.sha512(), Some(Sha512::of(&bytes)));
            prop_assert_eq!(sums.blake2b(), Some(Blake2b::of(&bytes)));
            prop_assert_eq!(sums.sha256(), Some(Sha256::of(&bytes)));
        }
    }

    #[test]
    fn the_caller_hashes_all_buffers_if_no_thread_could_be_started() {
        let mut lane = Lane { algorithm: Algorithm::Sha256, worker: Worker::Unused };
        // As `feed` does when the thread for the first buffer cannot be started.
        lane.update(b"first");
        lane.feed(&Arc::new(b"second".to_vec()));
        assert_eq!(&*lane.finish(), &*sha2::Sha256::digest(b"firstsecond"));
    }

    #[test]
    fn buffers_are_reused() {
        let mut hasher = Hasher::with(&ALL, true);
        let block = vec![7; BUFFER];
        for _ in 0..200 {
            hasher.update(&block);
            assert!(hasher.sent.len() <= DEPTH + 2, "{}", hasher.sent.len());
        }
        let expected = (0..200).fold(sha2::Sha512::new(), |sha512, _| sha512.chain_update(&block));
        assert_eq!(hasher.finish().sha512(), Some(Sha512::from(<[u8; 64]>::from(expected.finalize()))));
        assert_eq!(Hasher::new(&[]).finish(), Sums::default());
    }
}
