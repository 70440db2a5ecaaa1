//! Hostile archives, unpacked in a mount namespace whose `/` is an overlay. Writes outside the tree would appear in the upper directory,
//! which must stay empty. System calls are traced: none may use a path except through the root of the tree.

use std::fs;
use std::process::{Command, Stdio};

use crate::env::{PROGRAM, TestEnv, output, require, require_suites};
use crate::exact::readers;
use crate::exact::trace::{self, STRACE};

/// Makes archives of kinds that have tricked other programs into writing outside the tree, with Python's tarfile.
const MAKE: &str = r#"
import io, sys, tarfile
out = sys.argv[1]
def entry(name, kind=tarfile.REGTYPE, link='', data=b'moo', **more):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o777
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    for key, value in more.items():
        setattr(info, key, value)
    return info, data
sym = lambda name, to: entry(name, tarfile.SYMTYPE, to)
hard = lambda name, to: entry(name, tarfile.LNKTYPE, to)
folder = lambda name, **more: entry(name, tarfile.DIRTYPE, **more)
up = '../' * 30
cases = {
    'absolute': [entry('/etc/moo')],
    'slashes': [entry('//etc//moo')],
    'relative': [entry(up + 'etc/moo')],
    'inside-out': [folder('tmp'), entry('tmp/' + up + 'etc/moo')],
    'symlink': [sym('moo', '/etc/moo'), entry('moo')],
    'dirsymlink': [sym('tmp', '/etc'), entry('tmp/moo')],
    'dirsymlink-up': [sym('cur', '.'), sym('par', 'cur/..'), sym('etc', 'par/' + up + 'etc'), entry('etc/moo')],
    'link-in-link': [sym('a', 'b/c'), folder('b'), sym('b/c', up + 'etc'), entry('a/moo')],
    'root-is-a-link': [sym('.', '/etc'), entry('moo')],
    'root-slash-link': [sym('/.', '/etc'), entry('moo')],
    'hardlink': [hard('moo', '/etc/hostname'), entry('moo')],
    'hardlink-up': [hard('moo', up + 'etc/hostname')],
    'hardlink-through': [sym('e', '/etc'), hard('moo', 'e/hostname'), entry('moo')],
    'hardlink-to-link': [sym('s', '/etc/moo'), hard('h', 's'), entry('h')],
    'chmod-through': [sym('d', '/etc'), folder('d', mode=0)],
    'chown-through': [folder('d'), sym('d', '/etc'), folder('d', uid=250)],
    'fifo-through': [sym('d', '/etc'), entry('d/moo', tarfile.FIFOTYPE)],
    'device-through': [sym('d', '/etc'), entry('d/moo', tarfile.CHRTYPE, devmajor=1, devminor=3)],
    'pax-path': [entry('x', pax_headers={'path': '/etc/moo'})],
    'pax-link': [entry('x', tarfile.SYMTYPE, 'y', pax_headers={'linkpath': '/etc'}), entry('x/moo')],
    'pax-attribute': [entry('x', tarfile.SYMTYPE, '/etc/hostname', pax_headers={'SCHILY.xattr.user.moo': 'moo'})],
    'long': [entry('/etc/' + 'm' * 200)],
    'long-up': [entry('d/' * 100 + '../' * 150 + 'etc/moo')],
    'proc': [sym('p', '/proc/self/cwd/etc'), entry('p/moo'), sym('r', '/proc/self/root'), entry('r/etc/moo')],
    'node': [entry('moo', tarfile.BLKTYPE, devmajor=8, devminor=0), entry('moo')],
    'chain': [sym(f'l{n}', f'l{n + 1}') for n in range(60)] + [sym('l60', '/etc'), entry('l0/moo')],
    'good': [folder('d'), entry('d/moo'), sym('s', '/etc/hostname'), entry('suid', mode=0o4755)],
}
for name, entries in cases.items():
    for form, kind in (('gnu', tarfile.GNU_FORMAT), ('pax', tarfile.PAX_FORMAT)):
        with tarfile.open(f'{out}/{name}.{form}.tar', 'w', format=kind) as archive:
            for info, data in entries:
                archive.addfile(info, io.BytesIO(data))
"#;

/// Makes the overlay, unpacks each archive in it, and prints which archive put a file into the upper directory.
const RUN: &str = r#"
set -eu
program=$1 place=$2 strace=$3
mkdir "$place/over"
mount -t tmpfs none "$place/over"
mkdir "$place/over/upper" "$place/over/work" "$place/over/new"
mount -t overlay -o "lowerdir=/,upperdir=$place/over/upper,workdir=$place/over/work" none "$place/over/new" || exit 77
upper() { (cd "$place/over/upper"; find . -mindepth 1) }
count=0
for archive in "$place"/archives/*; do
    tree=$place/trees/${archive##*/}
    mount --bind "$tree" "$place/over/new$tree"
    code=0
    strace $strace "$place/traces/${archive##*/}" \
        chroot "$place/over/new" "$program" raw unpack --root "$tree" < "$archive" 2> "$place/stderr" || code=$?
    umount "$place/over/new$tree"
    case "$code" in 0|3) ;; *) echo "${archive##*/} ended with $code: $(cat "$place/stderr")";; esac
    [ -z "$(upper)" ] || { echo "${archive##*/} wrote: $(upper)"; exit 0; }
    count=$((count + 1))
done
chroot "$place/over/new" /bin/sh -c 'echo moo > /etc/moo'
[ "$(upper | sort | tr '\n' ' ')" = './etc ./etc/moo ' ] || echo "writes are not detected: $(upper)"
echo "$count archives"
"#;

#[test]
fn root_no_archive_changes_anything_outside_the_tree() {
    let Some(suites) = require_suites() else { return };
    let Some(env) = TestEnv::root() else { return };
    fs::create_dir(env.path("archives")).unwrap();
    fs::create_dir(env.path("traces")).unwrap();
    let _ = output(Command::new("python3").args(["-c", MAKE]).arg(env.path("archives"))).success();
    for archive in readers::archives(&suites) {
        let name = archive.to_str().unwrap().replace('/', "-");
        fs::copy(suites.join(&archive), env.path("archives").join(name)).unwrap();
    }
    let mut archives = 0;
    for archive in fs::read_dir(env.path("archives")).unwrap() {
        fs::create_dir_all(env.path("trees").join(archive.unwrap().file_name())).unwrap();
        archives += 1;
    }
    let mut run = Command::new("unshare");
    run.args(["--mount", "--propagation", "private", "sh", "-c", RUN, "sh", PROGRAM]);
    run.arg(env.path("archives").parent().unwrap()).arg(STRACE.join(" "));
    let ended = output(run.stdin(Stdio::null()));
    if ended.code == 77 {
        require::<()>("an overlay of /", Err(ended.stderr));
        return;
    }
    assert_eq!(ended.code(0).stdout.trim_end(), format!("{archives} archives"));
    for traced in fs::read_dir(env.path("traces")).unwrap() {
        let name = traced.unwrap().file_name();
        let text = fs::read_to_string(env.path("traces").join(&name)).unwrap();
        // Calls before the root of the tree is opened, such as those of chroot, are skipped.
        let outside = trace::paths_outside(&text, &env.path("trees").join(&name));
        assert!(outside.is_empty(), "{}: {}", name.display(), outside.join("\n"));
        archives -= 1;
    }
    assert_eq!(archives, 0, "some archives were not traced");
    assert!(env.path("trees/good.pax.tar/d/moo").is_file(), "a good archive was not unpacked");
    assert!(env.path("trees/absolute.gnu.tar/etc/moo").is_file(), "an absolute name does not lead into the tree");
}
