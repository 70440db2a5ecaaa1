//! Failures of placing an entry, and the errors that users see for them.

use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::limits::Limits;
use super::refusal::{self, ReadError, Refusal};
use super::{Unpacker, unsupported};
use crate::base::error::Error;
use crate::base::refusal::Reason;
use crate::os::space;

/// A failure to place one entry.
pub(super) enum Failure {
    /// The archive is refused.
    Refused(Reason),
    /// A system call failed.
    Call(Syscall, Errno),
    /// Placing or leaving this directory failed.
    Dir(PathBuf, Box<Self>),
    /// The data of the entry could not be read.
    Input(io::Error),
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

/// Declares [`Syscall`] from its variants and their names in `strace`.
macro_rules! syscalls {
    ($($variant:ident $name:literal)*) => {
        /// A system call that places entries.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Syscall { $($variant,)* }

        impl fmt::Display for Syscall {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $name,)* })
            }
        }
    };
}

syscalls! {
    Close "close" Fchmod "fchmod" Fchmodat2 "fchmodat2" Fchown "fchown" Fchownat "fchownat" Fgetxattr "fgetxattr"
    Flistxattr "flistxattr" Fremovexattr "fremovexattr" Fsetxattr "fsetxattr" Fstat "fstat" Fstatat "fstatat"
    Ftruncate "ftruncate" Futimens "futimens" Linkat "linkat" Lseek "lseek" Mkdirat "mkdirat" Mknodat "mknodat"
    Openat "openat" Openat2 "openat2" Setxattr "setxattr" Symlinkat "symlinkat" Unlinkat "unlinkat"
    Utimensat "utimensat" Write "write"
}

impl Syscall {
    /// Returns true for the calls that set an owner.
    fn is_chown(self) -> bool {
        matches!(self, Self::Fchown | Self::Fchownat)
    }
}

/// Attaches the name of a system call to its error.
pub(super) trait Call<T> {
    fn call(self, call: Syscall) -> Result<T, Failure>;
}

impl<T> Call<T> for rustix::io::Result<T> {
    fn call(self, call: Syscall) -> Result<T, Failure> {
        self.map_err(|errno| Failure::Call(call, errno))
    }
}

/// Returns the error for a failure to read the archive `name`.
pub(super) fn read_error(name: &str, error: ReadError, limits: &Limits) -> Error {
    match error {
        ReadError::Refused(refusal) => of_refusal(name, refusal, limits),
        ReadError::Input(error) => input_error(name, error),
    }
}

/// Returns the error that refuses the archive `name` as a whole.
pub(super) fn refused(name: &str, reason: Reason, limits: &Limits) -> Error {
    of_refusal(name, Refusal { reason, name: Vec::new(), offset: 0 }, limits)
}

fn of_refusal(name: &str, mut refusal: Refusal, limits: &Limits) -> Error {
    if let Some(reason) = unsupported::by_name(name, &refusal) {
        refusal.reason = reason;
    }
    let hint = limits.hint(refusal.reason.code).or_else(|| unsupported::hint(&refusal));
    let error = Error::refused(format!("unpacking {name}")).with_source(refusal);
    if let Some(hint) = hint { error.with_hint(hint) } else { error }
}

/// Returns a system error if the file could not be read, and a refusal if its content is wrong.
pub(super) fn input_error(name: &str, error: io::Error) -> Error {
    let outer = if refusal::is_of_system(&error) {
        Error::system(format!("reading {name}"))
    } else {
        Error::refused(format!("unpacking {name}"))
    };
    outer.with_source(error)
}

/// Returns the error for a failure to place `path`, whose header is at `offset`. `total` is the number of bytes unpacked so far.
pub(super) fn failed(unpacker: &Unpacker<'_>, total: u64, path: &Path, offset: Option<u64>, failure: Failure) -> Error {
    let Unpacker { name, into, limits, .. } = unpacker;
    let bytes = path.as_os_str().as_bytes();
    let (call, errno) = match failure {
        Failure::Input(error) => {
            return read_error(name, ReadError::of(error, bytes, offset.unwrap_or_default()), limits);
        }
        Failure::Refused(reason) => {
            let refusal = Refusal { reason, name: bytes.to_vec(), offset: offset.unwrap_or_default() };
            return of_refusal(name, refusal, limits);
        }
        Failure::Call(call, errno) => (call, errno),
        Failure::Dir(path, failure) => return failed(unpacker, total, &path, None, *failure),
    };
    let place = into.path().display();
    let error = Error::system(format!("unpacking {} of {name} into {place}: {call}", bytes.escape_ascii()))
        .with_source(io::Error::from(errno));
    let hint = match errno {
        Errno::NOSPC | Errno::DQUOT => {
            let free = space::free(into.fd()).unwrap_or_default();
            return error.with_hint(format!(
                "{total} bytes were needed up to this entry, {free} are free; {}",
                limits.make_room()
            ));
        }
        _ => hint(call, errno),
    };
    if let Some(hint) = hint { error.with_hint(hint) } else { error }
}

/// Returns the next step after a failed system call, if one is known.
fn hint(call: Syscall, errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::INVAL if call.is_chown() => {
            "its owner or group is outside the range of subordinate IDs: give this user 65536 of them in /etc/subuid and /etc/subgid"
        }
        Errno::PERM if call.is_chown() => "unpacking needs root, or root in a user namespace",
        Errno::PERM if call == Syscall::Unlinkat => {
            "the file that the entry replaces may be immutable: check it with lsattr(1)"
        }
        Errno::BUSY | Errno::XDEV if call == Syscall::Unlinkat => {
            "the entry would replace a mount point: unmount it first"
        }
        Errno::NOSYS if call == Syscall::Openat2 => {
            "openat2 is missing: Linux 5.6 or newer is needed, and a container must not filter this call"
        }
        Errno::NOSYS => "before Linux 6.13 this needs /proc: mount it, and do not hide it in a container",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_depend_on_the_call_and_the_error() {
        for call in [Syscall::Fchown, Syscall::Fchownat] {
            assert!(hint(call, Errno::INVAL).unwrap().contains("/etc/subuid"));
            assert!(hint(call, Errno::PERM).unwrap().contains("needs root"));
        }
        assert!(hint(Syscall::Openat2, Errno::NOSYS).unwrap().contains("Linux 5.6"));
        assert!(hint(Syscall::Fchmodat2, Errno::NOSYS).unwrap().contains("/proc"));
        assert!(hint(Syscall::Unlinkat, Errno::PERM).unwrap().contains("lsattr"));
        assert_eq!((hint(Syscall::Write, Errno::IO), hint(Syscall::Fchmod, Errno::INVAL)), (None, None));
    }
}
