//! System calls that neither nix nor rustix offers in a safe form. The only file with `unsafe`.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use rustix::io::Errno;

/// The standard streams (input, output) that were closed when the program started.
static CLOSED: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];

/// The loader runs this before Rust's runtime starts. The runtime opens `/dev/null` in place of closed streams, and a whole archive
/// could be written there.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_ALL: extern "C" fn() = note_closed;

extern "C" fn note_closed() {
    for (fd, closed) in (0..).zip(&CLOSED) {
        // SAFETY: F_GETFD only looks the number up.
        closed.store(unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0, Ordering::Relaxed);
    }
}

/// Returns whether `fd` is standard input or output and was closed when the program started.
pub(crate) fn was_closed(fd: BorrowedFd<'_>) -> bool {
    let closed = usize::try_from(fd.as_raw_fd()).ok().and_then(|fd| CLOSED.get(fd));
    closed.is_some_and(|closed| closed.load(Ordering::Relaxed))
}

/// The two sides of a [`fork`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fork {
    /// This is the new process.
    Child,
    /// This is the old process; the child has this pid.
    Parent(nix::unistd::Pid),
}

/// `fork(2)` for the single-threaded sandbox process.
///
/// # Errors
/// Refuses in a process with several threads, where the child could not allocate memory. Otherwise the error of fork(2).
pub(crate) fn fork() -> io::Result<Fork> {
    let threads = fs_err::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("fork in a process with {threads} threads")));
    }
    // SAFETY: this is the only thread (checked above), so the child inherits no lock that another thread holds.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(Fork::Child),
        nix::unistd::ForkResult::Parent { child } => Ok(Fork::Parent(child)),
    }
}

/// Takes over a descriptor inherited through `execve`.
///
/// # Errors
/// `EBADF` when no such descriptor is open; anything below 3 is refused.
pub(crate) fn inherited_fd(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 3 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: F_GETFD only looks the number up.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open (checked above) and was passed to this process by its parent for this one use.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    set_cloexec(&owned, true)?;
    Ok(owned)
}

/// Brings up the interface `lo` of the current network namespace (netdevice(7)).
///
/// # Errors
/// Those of socket(2) and of the requests `SIOCGIFFLAGS` and `SIOCSIFFLAGS` of ioctl(2).
pub(crate) fn bring_up_loopback() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all bytes zero are a valid `ifreq`: it has an array and a union of plain numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    for ioctl in [libc::SIOCGIFFLAGS, libc::SIOCSIFFLAGS] {
        // SAFETY: `request` is an `ifreq` with a name that ends with zero, and outlives the call. The first call sets the flags.
        if unsafe { libc::ioctl(socket.as_raw_fd(), ioctl as _, &raw mut request) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both requests use the member `ifru_flags` of the union.
        unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    }
    Ok(())
}

/// Sets or clears `FD_CLOEXEC`.
///
/// # Errors
/// The error of fcntl(2).
pub(crate) fn set_cloexec(fd: &OwnedFd, on: bool) -> io::Result<()> {
    let flags = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: F_SETFD takes an int and touches no memory; the descriptor is owned by the caller.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets close-on-exec on every descriptor from 3, so that a command inherits only the standard streams.
///
/// # Errors
/// The error of close_range(2) (Linux 5.11).
pub(crate) fn cloexec_all() -> io::Result<()> {
    // SAFETY: CLOSE_RANGE_CLOEXEC only sets flags on this process's descriptors.
    match unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets mount attributes (`MOUNT_ATTR_*` bits) on the mount at `fd`, and on all below it when `recursive`.
///
/// # Errors
/// The error of mount_setattr(2) (Linux 5.12).
pub(crate) fn mount_setattr(fd: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    let attr = MountAttr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static C string, `attr` lives through the call, and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct xattr_args` of setxattrat(2) and getxattrat(2).
#[repr(C, align(8))]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// The numbers of these system calls follow this one on every architecture.
const SYS_SETXATTRAT: libc::c_long = libc::SYS_fchmodat2 + 11;
const SYS_GETXATTRAT: libc::c_long = libc::SYS_fchmodat2 + 12;
const SYS_LISTXATTRAT: libc::c_long = libc::SYS_fchmodat2 + 13;

/// Sets the mode of `name` in `at`, which is not followed.
///
/// # Errors
/// `ENOSYS` before Linux 6.6, otherwise the error of fchmodat2(2).
pub(crate) fn fchmodat2(at: BorrowedFd<'_>, name: &OsStr, mode: u32) -> rustix::io::Result<()> {
    let name = terminated(name.as_bytes())?;
    // SAFETY: the name is a C string that lives through the call.
    let result = unsafe {
        libc::syscall(libc::SYS_fchmodat2, at.as_raw_fd(), name.as_ptr(), mode & 0o7777, libc::AT_SYMLINK_NOFOLLOW)
    };
    count(result).map(drop)
}

/// Names of the extended attributes of `name` in `at`, which is not followed.
///
/// # Errors
/// `ENOSYS` before Linux 6.13, otherwise the error of listxattr(2).
pub(crate) fn listxattrat(at: BorrowedFd<'_>, name: &OsStr, to: &mut [u8]) -> rustix::io::Result<usize> {
    let name = terminated(name.as_bytes())?;
    // SAFETY: the name is a C string, `to` is writable for its length, and both live through the call.
    let result = unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            at.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            to.as_mut_ptr(),
            to.len(),
        )
    };
    count(result)
}

/// Value of the extended attribute `key` of `name` in `at`, which is not followed.
///
/// # Errors
/// `ENOSYS` before Linux 6.13, otherwise the error of getxattr(2).
pub(crate) fn getxattrat(at: BorrowedFd<'_>, name: &OsStr, key: &[u8], to: &mut [u8]) -> rustix::io::Result<usize> {
    let (name, key) = (terminated(name.as_bytes())?, terminated(key)?);
    let size = u32::try_from(to.len()).map_err(|_| Errno::INVAL)?;
    let args = XattrArgs { value: to.as_mut_ptr() as u64, size, flags: 0 };
    // SAFETY: both names are C strings, `args` points to `to` and its length, and all live through the call.
    let result = unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            at.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            key.as_ptr(),
            &raw const args,
            size_of::<XattrArgs>(),
        )
    };
    count(result)
}

/// Sets the extended attribute `key` of `name` in `at`, which is not followed.
///
/// # Errors
/// `ENOSYS` before Linux 6.13, otherwise the error of setxattr(2).
pub(crate) fn setxattrat(at: BorrowedFd<'_>, name: &OsStr, key: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    let (name, key) = (terminated(name.as_bytes())?, terminated(key)?);
    let size = u32::try_from(value.len()).map_err(|_| Errno::TOOBIG)?;
    let args = XattrArgs { value: value.as_ptr() as u64, size, flags: 0 };
    // SAFETY: both names are C strings, `args` points to `value` and its length, and all live through the call.
    let result = unsafe {
        libc::syscall(
            SYS_SETXATTRAT,
            at.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            key.as_ptr(),
            &raw const args,
            size_of::<XattrArgs>(),
        )
    };
    count(result).map(drop)
}

fn terminated(text: &[u8]) -> rustix::io::Result<CString> {
    CString::new(text).map_err(|_| Errno::INVAL)
}

fn count(result: libc::c_long) -> rustix::io::Result<usize> {
    let failed = |_| Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO);
    usize::try_from(result).map_err(failed)
}

/// Forbids this process and its descendants to connect to abstract unix sockets of other processes, with Landlock. Needs `no_new_privs`.
/// Returns false if the kernel cannot do that (before Linux 6.12, or without Landlock).
///
/// # Errors
/// The error of landlock_restrict_self(2).
pub(crate) fn keep_from_abstract_sockets() -> io::Result<bool> {
    /// `struct landlock_ruleset_attr`. No file system access is handled, so that mounts stay allowed.
    #[repr(C)]
    struct Ruleset {
        handled_access_fs: u64,
        handled_access_net: u64,
        scoped: u64,
    }
    const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
    let rules = Ruleset { handled_access_fs: 0, handled_access_net: 0, scoped: SCOPE_ABSTRACT_UNIX_SOCKET };
    // SAFETY: `rules` lives through the call and its size is given; the result is a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const rules, size_of::<Ruleset>(), 0) };
    let Ok(fd @ 0..) = RawFd::try_from(fd) else { return Ok(false) };
    // SAFETY: the kernel just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: takes a descriptor and a number.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd.as_raw_fd(), 0) } {
        0 => Ok(true),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Replaces the inherited session keyring by a new, empty one. A kernel or a container without keyrings is not an error.
///
/// # Errors
/// The error of keyctl(2).
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is touched.
    match unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) } {
        0.. => Ok(()),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
            error => Err(error),
        },
    }
}

/// Forbids this process and its descendants the two requests of ioctl(2) that put characters into the input of a terminal, where the
/// caller's shell would run them. Needs `no_new_privs`.
///
/// # Errors
/// The error of seccomp(2).
pub(crate) fn keep_from_typing() -> io::Result<()> {
    /// ioctl of the 32-bit personalities, and of x32.
    const OTHERS: [u32; 2] = [54, 0x4000_0000 | 514];
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let jump = |k: u32, jt: u8, jf: u8| libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ) as u16, jt, jf, k };
    let load = |at: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at);
    let answer = |k: u32| statement(libc::BPF_RET, k);
    // The kernel uses only the low half of the request, and so does this filter.
    let low = if cfg!(target_endian = "little") { 0 } else { 4 };
    // The filter does not check the architecture of a system call. At worst, a 32-bit program is refused another call whose second
    // argument is one of the requests.
    let mut program = [
        load(std::mem::offset_of!(libc::seccomp_data, nr) as u32),
        jump(libc::SYS_ioctl as u32, 2, 0),
        jump(OTHERS[0], 1, 0),
        jump(OTHERS[1], 0, 4),
        load(std::mem::offset_of!(libc::seccomp_data, args) as u32 + 8 + low),
        jump(libc::TIOCSTI as u32, 1, 0),
        jump(libc::TIOCLINUX as u32, 0, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` and the program it points to live through the call, which copies them.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a command start with no signal blocked or ignored. This process blocks signals, and nohup(1) or a shell script may have made it
/// ignore some; a command must stop on every signal all the same. Before that the child runs `first`, which must not wait for another
/// thread.
pub(crate) fn fresh_start(
    command: &mut std::process::Command,
    first: impl Fn() -> nix::Result<()> + Send + Sync + 'static,
) {
    use std::os::unix::process::CommandExt;
    // SAFETY: sigaction and sigprocmask are async-signal-safe, and what `first` is promised to do is safe in the only thread.
    unsafe {
        command.pre_exec(move || {
            first()?;
            for signal in nix::sys::signal::Signal::iterator() {
                // SIGKILL and SIGSTOP cannot be set, and need not be.
                nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl).ok();
            }
            nix::sys::signal::SigSet::empty().thread_set_mask()?;
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    use super::*;

    /// Runs a test in a thread of its own, since the restriction cannot be undone.
    fn confined(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            test();
        });
        thread.join().unwrap();
    }

    #[test]
    fn abstract_sockets_of_others_cannot_be_reached() {
        let address = SocketAddr::from_abstract_name(format!("quern-test-{}", std::process::id())).unwrap();
        let _listener = UnixListener::bind_addr(&address).unwrap();
        UnixStream::connect_addr(&address).unwrap();
        confined(move || {
            if keep_from_abstract_sockets().unwrap() {
                let refused = UnixStream::connect_addr(&address).unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            }
            let (_one, _other) = UnixStream::pair().unwrap();
        });
    }

    #[test]
    fn requests_that_type_are_refused_and_others_pass() {
        confined(|| {
            let null = fs_err::File::open("/dev/null").unwrap();
            // SAFETY: the requests read one byte, or nothing, since this is not a terminal.
            let ask = |request| match unsafe { libc::ioctl(null.as_raw_fd(), request, c"x".as_ptr()) } {
                0.. => None,
                _ => io::Error::last_os_error().raw_os_error(),
            };
            assert_eq!(ask(libc::TIOCSTI), Some(libc::ENOTTY));
            keep_from_typing().unwrap();
            assert_eq!(ask(libc::TIOCSTI), Some(libc::EPERM));
            assert_eq!(ask(libc::TIOCLINUX), Some(libc::EPERM));
            assert_eq!(ask(libc::TCGETS), Some(libc::ENOTTY));
        });
    }
}
