//! Messages of emerge, Portage and the kernel, and what to do about each.

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
        "there are no ebuilds to satisfy",
        "no repository has this package: check the atom, or add its overlay to portage.repositories",
    ),
    known(
        "there are no binary packages to satisfy",
        "emerge may use only binary packages here, and none fits: build the package first",
    ),
    known(
        "keyword changes are necessary",
        "accept the keyword: add a line to portage.package-accept-keywords, or set ACCEPT_KEYWORDS in portage.make-conf",
    ),
    known("USE changes are necessary", "set the USE flags that emerge names in portage.package-use"),
    known(
        "license changes are necessary",
        "accept the licence: add a line to portage.package-license, or set ACCEPT_LICENSE in portage.make-conf",
    ),
    known(
        "mask changes are necessary",
        "a profile or package.mask masks the package: add a line to portage.package-unmask",
    ),
    known(
        "have been masked",
        "every version is masked, for the reason that emerge names: portage.package-accept-keywords, \
         portage.package-license or portage.package-unmask can allow one",
    ),
    known(
        "Your current profile is invalid",
        "Portage cannot use the builder's or the target's profile: check build.profile and build.unblocker-profile",
    ),
    known(
        "Read-only file system",
        "a file is in a place that the build must not write to: a read-only cache, or a path outside the package's own \
         directories",
    ),
    known("unmet requirements", "REQUIRED_USE is not met: set the flags that emerge names in portage.package-use"),
    known(
        "circular dependencies",
        "packages need each other to be built: turn off one of the USE flags that cause it in portage.package-use",
    ),
    fetch("Fetch failed for"),
    fetch("Couldn't download"),
    known(
        "has fetch restriction turned on",
        "emerge must not download this source: get the file as the log says, and put it into portage.distfiles",
    ),
    known(
        "Digest verification failed",
        "a downloaded file or an ebuild does not match its Manifest: update the Manifest, or remove the file",
    ),
    known(
        "Killed signal terminated program",
        "a compiler was killed, probably for lack of memory: lower emerge.jobs, or MAKEOPTS in portage.make-conf",
    ),
];
