//! Kernels without the newest system calls: older calls give the same trees and archives, and a false `/proc` is not used.

use std::fs;

use crate::env::{PROGRAM, TestEnv, output};

/// Runs a command with a seccomp filter that hides fchmodat2 and the *xattrat calls (452, 463 to 465).
const OLD: &str = r#"
import ctypes, os, struct, sys
missing = [452, 463, 464, 465]
code = [struct.pack("HBBI", 0x20, 0, 0, 0)]
code += [struct.pack("HBBI", 0x15, len(missing) - at, 0, number) for at, number in enumerate(missing)]
code += [struct.pack("HBBI", 6, 0, 0, 0x7fff0000), struct.pack("HBBI", 6, 0, 0, 0x00050000 | 38)]
program = ctypes.create_string_buffer(b"".join(code))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(code), ctypes.addressof(program)))) == 0
assert libc.syscall(465, -1, 0, 0, 0, 0) == -1 and ctypes.get_errno() == 38
os.execv(sys.argv[1], sys.argv[1:])
"#;

const GROW: &str = r#"
mkdir -p tree/d; echo x > tree/d/file; chmod 4711 tree/d/file; ln -s file tree/d/link; ln -s /nowhere tree/dangling
mkfifo -m 620 tree/pipe; mknod -m 660 tree/block b 8 0
setfattr -h -n trusted.note -v link tree/d/link; setfattr -h -n trusted.note -v gone tree/dangling; setfattr -n trusted.note -v pipe tree/pipe
setfattr -n trusted.note -v block tree/block; setfattr -n user.note -v file tree/d/file; setfacl -m u:7:r tree/block
find tree -exec touch -h -d @5.25 {} +
"#;

#[test]
fn root_older_kernels_give_the_same_bytes() {
    let Some(env) = TestEnv::root() else { return };
    let shell = |script: &str| {
        let script = format!("old() {{ python3 -c \"$OLD\" \"$@\"; }}; {script}");
        output(env.command("unshare").args(["--mount", "bash", "-euc", &script, PROGRAM]).env("OLD", OLD))
    };
    let _ = shell(GROW).success();
    let made = "\"$0\" raw pack tree --format tar > new.tar; old \"$0\" raw pack tree --format tar > old.tar; cmp new.tar old.tar; \
                mkdir new; old \"$0\" raw unpack --root new < new.tar; \"$0\" raw pack new --format tar | cmp new.tar -";
    let _ = shell(made).success();
    let archive = fs::read(env.path("new.tar")).unwrap();
    let notes = archive.windows(12).filter(|window| *window == b"trusted.note").count();
    assert_eq!(notes, 4);

    // A file system that is mounted instead of /proc would redirect every call to another file.
    let astray = "mkdir again; touch canary; mount -t tmpfs none /proc; mkdir -p /proc/thread-self/fd; \
                  for fd in $(seq 3 40); do ln -s $PWD/canary /proc/thread-self/fd/$fd; done; ";
    for (command, hint) in [
        ("old \"$0\" raw unpack --root again < new.tar", "this needs /proc"),
        ("old \"$0\" raw pack tree > /dev/null", "Function not implemented"),
    ] {
        let ended = shell(&format!("{astray} {command}"));
        assert_eq!(ended.code, 4, "{}", ended.stderr);
        assert!(ended.stderr.contains(hint), "{}", ended.stderr);
        let _ =
            shell("[ $(stat -c %a canary) = 644 ]; [ -z \"$(getfattr -m - canary)\" ]; rm -r again canary").success();
    }
}
