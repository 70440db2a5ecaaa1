//! Writes the data of a new file. Parts that are not written read as zeros.

use std::os::fd::OwnedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::Data;
use crate::archive::unpack::entry::Entry;
use crate::archive::unpack::failure::{Call as _, Failure, Syscall};
use crate::archive::unpack::{sparse, zeros};

/// Writes the data of an entry.
pub(super) fn fill(fd: &OwnedFd, entry: &Entry, data: &mut dyn Data) -> Result<(), Failure> {
    let Some(segments) = &entry.sparse else { return fill_plain(fd, entry.size, data) };
    for segment in segments {
        rustix::fs::seek(fd, SeekFrom::Start(segment.offset)).call(Syscall::Lseek)?;
        let mut left = segment.length;
        while left > 0 {
            let bytes = data.data().map_err(Failure::Input)?;
            let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if length == 0 {
                return Err(sparse::bad("its data is too short").into());
            }
            let count = rustix::io::write(fd, &bytes[..length]).or_else(again).call(Syscall::Write)?;
            data.consume(count);
            left -= count as u64;
        }
    }
    rustix::fs::ftruncate(fd, entry.size).call(Syscall::Ftruncate)
}

/// Writes `size` bytes and turns long runs of zeros into holes. Archives that quern-builder writes contain the zeros of holes, so
/// that their bytes do not depend on the file system.
fn fill_plain(fd: &OwnedFd, size: u64, data: &mut dyn Data) -> Result<(), Failure> {
    let (mut at, mut in_hole) = (0u64, false);
    loop {
        let bytes = data.data().map_err(Failure::Input)?;
        if bytes.is_empty() {
            break;
        }
        let count = if in_hole {
            zeros::leading(bytes)
        } else {
            let hole = zeros::run(bytes, at + (bytes.len() as u64) < size);
            in_hole = hole.is_some_and(|start| start == 0);
            match hole {
                Some(0) => zeros::leading(bytes),
                hole => {
                    let bytes = &bytes[..hole.unwrap_or(bytes.len())];
                    rustix::io::write(fd, bytes).or_else(again).call(Syscall::Write)?
                }
            }
        };
        if in_hole && count == 0 {
            rustix::fs::seek(fd, SeekFrom::Start(at)).call(Syscall::Lseek)?;
            in_hole = false;
        }
        data.consume(count);
        at += count as u64;
    }
    if in_hole { rustix::fs::ftruncate(fd, at).call(Syscall::Ftruncate) } else { Ok(()) }
}

fn again(errno: Errno) -> rustix::io::Result<usize> {
    if errno == Errno::INTR { Ok(0) } else { Err(errno) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{self, Read as _, Seek as _};

    use proptest::prelude::*;

    use super::*;

    /// Data that arrives in chunks of this many bytes.
    struct Chunks<'a>(&'a [u8], usize);

    impl Data for Chunks<'_> {
        fn data(&mut self) -> io::Result<&[u8]> {
            Ok(&self.0[..self.0.len().min(self.1)])
        }

        fn consume(&mut self, count: usize) {
            self.0 = &self.0[count..];
        }
    }

    /// Returns the number of bytes of a file that are not in holes.
    fn stored(file: &File) -> u64 {
        let (mut at, mut stored) = (0, 0);
        while let Ok(start) = rustix::fs::seek(file, SeekFrom::Data(at)) {
            at = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap();
            stored += at - start;
        }
        stored
    }

    proptest! {
        #[test]
        fn holes_do_not_depend_on_the_size_of_chunks(
            pieces in prop::collection::vec((zeros::LEAST..200_000, 1usize..9000), 1..5),
            end in prop_oneof![Just(0), zeros::LEAST..100_000],
            chunk in prop_oneof![1usize..100, 1000usize..10_000, 10_000usize..400_000],
        ) {
            let mut plain = Vec::new();
            for (hole, data) in pieces {
                plain.resize(plain.len() + hole, 0);
                plain.resize(plain.len() + data, 1);
            }
            plain.resize(plain.len() + end, 0);
            let mut file = tempfile::tempfile().unwrap();
            let fd = file.try_clone().unwrap().into();
            prop_assert!(fill_plain(&fd, plain.len() as u64, &mut Chunks(&plain, chunk)).is_ok());
            file.rewind().unwrap();
            let mut found = Vec::new();
            file.read_to_end(&mut found).unwrap();
            prop_assert!(found == plain);
            let least: usize = plain.chunks(4096).filter(|block| block.contains(&1)).map(<[u8]>::len).sum();
            prop_assert!(stored(&file) <= least as u64, "{} bytes instead of {least}", stored(&file));
        }
    }
}
