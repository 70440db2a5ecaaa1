//! Large trees and large files do not need more memory. `scripts/bench-scale` measures more of it, and times.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use crate::env::{PROGRAM, TestEnv, output};

/// Runs a command and prints its peak memory in KiB on a line of standard error.
const PEAK: &str = r#"
peak() { python3 -c '
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)' "$@"; }
"#;

/// Writes an archive of so many entries: a tenth are directories, and for each there are seven empty files, a hard link and a symlink.
fn archive(path: &Path, entries: u32) {
    let mut out = BufWriter::new(File::create(path).unwrap());
    let mut put = |kind: tar::EntryType, name: String, link: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_path(&name).unwrap();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(0);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        out.write_all(header.as_bytes()).unwrap();
    };
    for number in 0..entries / 10 {
        // Every other directory comes before its content; the others come after it.
        let dir = format!("{:03}/{}/{number}", number % 300, "a-name-of-some-length");
        if number % 2 == 0 {
            put(tar::EntryType::Directory, format!("{dir}/"), "");
        }
        (0..7).for_each(|file| put(tar::EntryType::Regular, format!("{dir}/file-{file}"), ""));
        put(tar::EntryType::Link, format!("{dir}/again"), &format!("{dir}/file-1"));
        put(tar::EntryType::Symlink, format!("{dir}/link"), "/anywhere");
        if number % 2 == 1 {
            put(tar::EntryType::Directory, format!("{dir}/"), "");
        }
    }
    out.write_all(&[0; 1024]).unwrap();
    out.into_inner().unwrap().sync_data().unwrap();
}

/// Returns the peak memory of each command of `script`, in MiB.
fn peaks(env: &TestEnv, script: &str) -> Vec<u64> {
    let script = format!("mkdir t; mount -t tmpfs -o nr_inodes=1m none t; {PEAK} {script}");
    let mut unshare = env.command("unshare");
    unshare.args(["--mount", "--propagation", "private", "bash", "-euo", "pipefail", "-c", &script, PROGRAM]);
    let told = output(&mut unshare).success().stderr;
    let _ = std::fs::remove_dir(env.path("t"));
    let peaks = told.lines().filter_map(|line| line.strip_prefix("peak "));
    peaks.map(|peak| peak.parse::<u64>().unwrap() >> 10).collect()
}

#[test]
fn root_memory_does_not_grow_with_the_tree() {
    let Some(env) = TestEnv::root() else { return };
    let of = |entries: u32| {
        archive(&env.path("archive"), entries);
        // Includes the root and the directories that have no entry.
        let all = entries + 2 * 300 + 1;
        let script = format!(
            "mkdir t/new; peak \"$0\" raw unpack --root t/new < archive; \
             peak \"$0\" raw ls < archive > t/list; [ $(wc -l < t/list) = {entries} ]; \
             peak \"$0\" raw pack t/new --format tar --manifest t/manifest > t/packed; [ $(wc -l < t/manifest) = {} ]; \
             peak \"$0\" raw unpack --root t/new < archive",
            all + 1
        );
        peaks(&env, &script)
    };
    let (few, many) = (of(20_000), of(200_000));
    assert_eq!((few.len(), many.len()), (4, 4));
    for (few, many) in few.iter().zip(&many) {
        // 16 MiB are 93 bytes for each additional entry.
        assert!(*many < 64 && many.saturating_sub(*few) < 16, "{few} MiB for few entries, {many} MiB for many");
    }
}

#[test]
fn root_a_large_sparse_file_stays_sparse() {
    let Some(env) = TestEnv::root() else { return };
    let script = "mkdir t/tree t/new; truncate -s 4G t/tree/sparse; \
                  for at in 0 1500000000 4294967290; do printf data | dd of=t/tree/sparse bs=1 seek=$at conv=notrunc status=none; done; \
                  peak \"$0\" raw pack t/tree --level 1 | peak \"$0\" raw unpack --root t/new; \
                  [ $(stat -c %s t/new/sparse) = 4294967296 ]; [ $(stat -c %b t/new/sparse) -le 64 ]; \
                  for at in 0 1500000000 4294967290; do [ \"$(dd if=t/new/sparse bs=1 skip=$at count=4 status=none)\" = data ]; done";
    let peaks = peaks(&env, script);
    assert!(peaks.len() == 2 && peaks.iter().all(|peak| *peak < 64), "{peaks:?} MiB");
}
