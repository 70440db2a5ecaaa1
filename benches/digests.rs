//! Measures several digests of the same bytes against the slowest of them alone: `cargo bench --bench digests`.
//!
//! The cases take turns. Wall time is the best of all rounds, and CPU time is that of the whole process in the same round.

use std::io::Write as _;
use std::time::Instant;

use quern_builder::testing::Algorithm::{self, Blake2b, Sha256, Sha512};
use quern_builder::testing::Hasher;

const SIZE: usize = 256 << 20;
const CHUNK: usize = 256 << 10;
const ROUNDS: usize = 7;

/// The cases: a name, the digests, and the use of threads.
const CASES: [(&str, &[Algorithm], bool); 6] = [
    ("SHA-512", &[Sha512], false),
    ("BLAKE2b", &[Blake2b], false),
    ("SHA-256", &[Sha256], false),
    ("all three, one thread", &[Sha512, Blake2b, Sha256], false),
    ("SHA-512 and BLAKE2b, a thread each", &[Sha512, Blake2b], true),
    ("all three, a thread each", &[Sha512, Blake2b, Sha256], true),
];

fn main() -> std::io::Result<()> {
    let bytes: Vec<u8> = (0..SIZE as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut best = [(f64::INFINITY, 0.0); CASES.len()];
    for _ in 0..ROUNDS {
        for ((_, algorithms, threads), best) in CASES.iter().zip(&mut best) {
            let (wall, cpu) = (Instant::now(), cpu());
            let mut hasher = Hasher::with(algorithms, *threads);
            bytes.chunks(CHUNK).for_each(|chunk| hasher.update(chunk));
            std::hint::black_box(hasher.finish());
            let wall = wall.elapsed().as_secs_f64();
            if wall < best.0 {
                *best = (wall, self::cpu() - cpu);
            }
        }
    }
    let slowest = best[..3].iter().map(|(wall, _)| *wall).fold(0.0, f64::max);
    let mut out = std::io::stdout().lock();
    for ((name, ..), (wall, cpu)) in CASES.iter().zip(best) {
        let speed = SIZE as f64 / wall / 1e6;
        writeln!(out, "{name:36} {wall:6.3} s wall {cpu:6.3} s CPU {speed:6.0} MB/s   {:4.2} x", wall / slowest)?;
    }
    Ok(())
}

/// Returns the CPU time of this process so far in seconds. The kernel counts hundredths.
fn cpu() -> f64 {
    let stat = fs_err::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
