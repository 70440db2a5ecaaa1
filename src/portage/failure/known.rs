//! Messages of the kernel, of builds and of downloads, and what to do about each.

/// A message that is looked for, and the hint that it brings.
pub(super) struct Known {
    pub(super) needle: &'static str,
    pub(super) hint: &'static str,
    /// True if the system is to blame, not the package.
    pub(super) system: bool,
    /// True for a failed download, which has hints of its own.
    pub(super) fetch: bool,
}

const fn known(needle: &'static str, hint: &'static str) -> Known {
    Known { needle, hint, system: false, fetch: false }
}

const fn system(needle: &'static str, hint: &'static str) -> Known {
    Known { needle, hint, system: true, fetch: false }
}

const fn fetch(needle: &'static str) -> Known {
    Known { needle, hint: "", system: false, fetch: true }
}

pub(super) const KNOWN: &[Known] = &[
    system(
        "No space left on device",
        "no space left: free some on the store's file system (quern-builder clean), or raise build.workdir-storage",
    ),
    system(
        "Unable to unshare",
        "the kernel refused Portage's own sandbox: check the limits in /proc/sys/user, or set FEATURES = \
         \"-network-sandbox -ipc-sandbox\" in portage.make-conf to build without it",
    ),
    system("out of pty devices", "the sandbox has no free pseudo-terminal: check /proc/sys/kernel/pty/max"),
    known(
        "Read-only file system",
        "a file is in a place that the build must not write to: a read-only cache, or a path outside the package's own \
         directories",
    ),
    fetch("Couldn't download"),
    fetch("No mirrors available for file"),
    known(
        "Killed signal terminated program",
        "a compiler was killed, probably for lack of memory: lower emerge.jobs, or MAKEOPTS in portage.make-conf",
    ),
];
