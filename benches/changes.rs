//! Measures the list of changes of an upper directory and its digest: `cargo bench --bench changes`, in TMPDIR.
//!
//! The files are in the page cache, as after a step. Wall time is the best of all rounds.

use std::io::Write as _;
use std::path::Path;
use std::time::{Instant, SystemTime};

use quern_builder::testing::changes;
use quern_builder::testing::{Rootfs, Silent};

const ROUNDS: usize = 5;

/// The cases: a name, the number of files, and the size of each in bytes.
const CASES: [(&str, u32, usize); 3] =
    [("large files", 4, 128 << 20), ("files of 64 KiB", 4_000, 64 << 10), ("files of 2 KiB", 50_000, 2 << 10)];

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for (name, count, size) in CASES {
        let place = tempfile::tempdir()?;
        fill(place.path(), count, size)?;
        let upper = Rootfs::open(place.path()).map_err(std::io::Error::other)?;
        let (mut best, mut listed) = (f64::INFINITY, 0);
        for _ in 0..ROUNDS {
            let wall = Instant::now();
            let list = changes::read(&upper, SystemTime::UNIX_EPOCH, &|_| false, &Silent);
            let list = list.map_err(std::io::Error::other)?;
            std::hint::black_box(list.digest());
            best = best.min(wall.elapsed().as_secs_f64());
            listed = list.entries().len();
        }
        let (speed, each) = (f64::from(count) * size as f64 / best / 1e9, best / listed as f64 * 1e6);
        writeln!(out, "{name:16} {listed:6} entries {best:6.3} s {speed:6.2} GB/s {each:9.1} µs for each entry")?;
    }
    Ok(())
}

/// Makes files of different data, a hundred in a directory.
fn fill(place: &Path, count: u32, size: usize) -> std::io::Result<()> {
    let mut bytes: Vec<u8> = (0..size as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for number in 0..count {
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        let directory = place.join((number / 100).to_string());
        fs_err::create_dir_all(&directory)?;
        fs_err::write(directory.join(number.to_string()), &bytes)?;
    }
    Ok(())
}
