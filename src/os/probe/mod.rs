//! Facts about this machine and this process that must be read from files. [`look`] reads them at the start: once a hostile tree is
//! open, this program makes no path lookups except inside the tree.

mod ram;

use std::sync::OnceLock;

use crate::os::userns::owners;

/// Facts that stay the same for as long as this process runs.
#[derive(Debug)]
struct Facts {
    processors: usize,
    ram: u64,
    umask: u32,
}

fn facts() -> &'static Facts {
    static FACTS: OnceLock<Facts> = OnceLock::new();
    FACTS.get_or_init(|| Facts {
        processors: std::thread::available_parallelism().map_or(1, |count| count.get()),
        ram: ram::read(),
        umask: read_umask(),
    })
}

/// Reads all facts. Call it at the start, as the user and in the user namespace that the work is done in.
pub fn look() {
    facts();
    owners::look();
}

/// The number of processors that this process may use, by its affinity and its control groups.
pub fn processors() -> usize {
    facts().processors
}

/// Bytes of memory that this process may use: the machine's, or less if a control group has a limit; 0 if unknown.
pub fn ram() -> u64 {
    facts().ram
}

/// The umask that this process was started with; all bits if it is unknown.
pub fn umask() -> u32 {
    facts().umask
}

fn read_umask() -> u32 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
}
