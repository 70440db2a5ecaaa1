//! Free space of file systems, and errors about full ones.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::StatVfs;
use rustix::io::Errno;

use crate::base::error::{Error, Kind, Result};

/// The hint for a full store.
pub const STORE: &str = "free some space there, or set QUERN_HOME to a directory on another file system";

/// With less free space than this, a program that writes files has probably failed for lack of space.
const CROWDED: u64 = 1 << 20;

/// Returns the free bytes of the file system of an open file, without those that are reserved for root. Returns `None` if the file
/// system does not report them.
pub fn free(fd: impl AsFd) -> Option<u64> {
    rustix::fs::fstatvfs(fd).ok().map(|stat| left(&stat))
}

fn left(stat: &StatVfs) -> u64 {
    stat.f_bavail.saturating_mul(stat.f_frsize)
}

/// Checks that the file system of `fd`, which messages call `place`, has `needed` bytes free. `doing` names the operation.
///
/// # Errors
/// [`Kind::System`] with both numbers if it has not.
pub fn check(fd: impl AsFd, place: &Path, doing: impl Display, needed: u64) -> Result<()> {
    let Some(free) = free(fd).filter(|free| needed > *free) else { return Ok(()) };
    let place = place.display();
    Err(Error::system(format!("{doing}: {needed} bytes are needed in {place}, {free} are free"))
        .with_source(io::Error::from(Errno::NOSPC)))
}

/// Returns whether the error means that a file system is full or that a quota is exceeded.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Adds the free space of `places` to an error about a full file system, unless it is there already. Returns other errors unchanged.
pub fn told(error: Error, places: &[&Path]) -> Error {
    if error.kind() != Kind::System || !is_of_space(&error) {
        return error;
    }
    let hint = error.hint().unwrap_or_default();
    if hint.contains("are free") || error.to_string().contains("are free") {
        return error;
    }
    let free =
        places.iter().filter_map(|place| Some(format!("{} bytes are free in {}", free_in(place)?, place.display())));
    let lines: Vec<String> = Some(hint.to_owned()).filter(|hint| !hint.is_empty()).into_iter().chain(free).collect();
    if lines.is_empty() { error } else { error.with_hint(lines.join("\n")) }
}

/// Adds those of `places` that are almost full to the error of a program that wrote there.
pub fn crowded(error: Error, places: &[&Path]) -> Error {
    let mut lines: Vec<String> = error.hint().map(str::to_owned).into_iter().collect();
    let mut seen = BTreeSet::new();
    for place in places {
        let Ok(metadata) = fs_err::metadata(place) else { continue };
        if let Some(free) = free_in(place).filter(|free| *free < CROWDED && seen.insert(metadata.dev())) {
            lines.push(format!("the disk is full: {free} bytes are free in {}", place.display()));
        }
    }
    if lines.is_empty() { error } else { error.with_hint(lines.join("\n")) }
}

/// Returns true if the file system of `place` is almost full.
pub fn is_crowded(place: &Path) -> bool {
    free_in(place).is_some_and(|free| free < CROWDED)
}

/// Returns the free bytes of the file system of a directory. If it does not exist, its parent counts.
fn free_in(place: &Path) -> Option<u64> {
    place.ancestors().find_map(|place| rustix::fs::statvfs(place).ok()).map(|stat| left(&stat))
}

/// Returns whether an error was caused by a full file system.
fn is_of_space(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let full = error.downcast_ref::<io::Error>().is_some_and(is_full);
        if full || error.downcast_ref::<Errno>().is_some_and(|errno| matches!(*errno, Errno::NOSPC | Errno::DQUOT)) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Context as _;

    #[test]
    fn too_little_space_is_refused_with_numbers() {
        let place = tempfile::tempdir().unwrap();
        let dir = fs_err::File::open(place.path()).unwrap().into_file();
        assert!(check(&dir, place.path(), "writing x", 0).is_ok());
        let error = check(&dir, place.path(), "writing x", u64::MAX).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        let said = error.to_string();
        assert!(said.starts_with("writing x: 18446744073709551615 bytes are needed in "), "{said}");
        assert!(said.ends_with(" are free") && is_of_space(&error), "{said}");
    }

    #[test]
    fn free_space_is_not_mentioned_if_there_is_enough() {
        let place = tempfile::tempdir().unwrap();
        let error = crowded(Error::build("emerge failed").with_hint("see the log"), &[place.path()]);
        assert_eq!(error.hint(), Some("see the log"));
        assert_eq!(crowded(Error::build("emerge failed"), &[place.path()]).hint(), None);
    }

    #[test]
    fn errors_about_a_full_disk_have_the_free_space() {
        let place = tempfile::tempdir().unwrap();
        let missing = place.path().join("out/sub");
        let full = || Err::<(), _>(io::Error::from(Errno::NOSPC)).system(|| "making a directory").unwrap_err();
        let hint = told(full(), &[&missing]).hint().unwrap_or_default().to_owned();
        assert!(hint.contains(" bytes are free in ") && hint.ends_with("out/sub"), "{hint}");
        let hint = told(full().with_hint("make room"), &[place.path()]).hint().unwrap_or_default().to_owned();
        assert!(hint.starts_with("make room\n") && hint.contains("are free in"), "{hint}");
        let nested = Err::<(), _>(full()).system(|| "building").unwrap_err();
        assert!(told(nested, &[place.path()]).hint().is_some());
        let errno = Err::<(), _>(Errno::DQUOT).system(|| "locking").unwrap_err();
        assert!(told(errno, &[place.path()]).hint().is_some());
        for other in [io::Error::from(Errno::ACCESS), io::Error::other("No space left on device")] {
            let error = Err::<(), _>(other).system(|| "x").unwrap_err();
            assert_eq!(told(error, &[place.path()]).hint(), None);
        }
    }
}
