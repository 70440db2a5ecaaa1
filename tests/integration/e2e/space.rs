//! Full disks at every stage of a build: exit code 4, the needed and the free space, no partial result under a final name, and a build
//! that continues when there is space again.

use std::collections::BTreeMap;
use std::fs;

use super::Stand;
use crate::env::{PROGRAM, Privilege, output, twins};

/// Runs as root in its own mount namespace. `$1` owns the file systems; the arguments from `$2` on, put before a command, run it as
/// that user.
/// `step NAME COMMAND` prints the exit code of a command and keeps its output. `there NAME DIR` prints the files of a directory.
const SCRIPT: &str = r#"
set -u; said=$PWD/said; mkdir "$said" store results other; store=$PWD/store
owner=$1; shift; become=("$@"); chown "$owner" store results other
step() { name=$1; shift; "${become[@]}" "$@" > "$said/$name.out" 2> "$said/$name.err"; echo "$name $?"; }
small() { mount -t tmpfs -o "uid=${owner%:*},gid=${owner#*:},size=$1" none "$2"; }
there() { echo "there $1 $(find "$2" -mindepth 1 -maxdepth 1 ! -name '*.lock' -printf '%P ' 2>/dev/null)"; }
leave() { fallocate -l $(( $(df --output=avail -B1 store | tail -1) - $1 )) store/ballast; }
export QUERN_HOME=$store QUERN_BUILD_OUTDIR=$PWD/results
small 60m store

step fetch-small "$0" fetch demo.toml
there fetch-small store/blobs/sha512
mount -o remount,size=97m store; leave 20000000
step fetch-half "$0" fetch demo.toml
rm store/ballast; mount -o remount,size=180m store
step fetch "$0" fetch demo.toml

step unpack-small "$0" build demo.toml
there unpack-small store/trees; there unpack-small results
mount -o remount,size=1g store
step too-large "$0" build demo.toml --set "source.max-unpacked=300 MiB"
step too-many "$0" build demo.toml --set source.max-entries=1000
there too-many store/trees
step shell "$0" shell demo.toml -- true

leave 0; step build-full "$0" build demo.toml
there build-full results
rm store/ballast; leave 200000; step emerge-full "$0" build demo.toml
there emerge-full results
rm store/ballast; leave 20000000; step step-full "$0" build step.toml
there step-full results
step step "$0" build step.toml --set step.fill.skip=true --until small
rm store/ballast

small 12k results; step pack-full "$0" build demo.toml
there pack-full results
mount -o remount,size=400m results; step build "$0" build demo.toml

small 30m other
step export-file "$0" store export demo.toml -o other/x.tar
there export-file other
step export-stdout bash -c '"$0" store export demo.toml > other/y.tar' "$0"
rm -f other/*; mount -o remount,size=200m other
step export "$0" store export demo.toml -o other/x.tar
small 50m second; export QUERN_HOME=$PWD/second
step import-small "$0" store import other/x.tar
there import-small second/blobs/sha512
mount -o remount,size=200m second; step import "$0" store import other/x.tar
export QUERN_HOME=$store

small 4k recipes; cp demo.toml recipes/
step lock-full "$0" lock recipes/demo.toml
there lock-full recipes
mount -o remount,size=64k recipes; step lock "$0" lock recipes/demo.toml
"#;

twins!(full_disks => root_full_disks_are_reported_and_leave_nothing, userns_full_disks_are_reported_and_leave_nothing);

fn full_disks(privilege: Privilege) {
    // Only root can mount the small file systems.
    let Some(stand) = Stand::alone(privilege).filter(|_| Privilege::Root.available()) else { return };
    stand.recipe("demo", "[emerge]\npackages = [\"app-test/tiny\"]\n");
    let steps = [("fill", "head -c 100M /dev/zero > /zeros"), ("small", "echo small > /small")];
    let steps = steps.map(|(name, run)| format!("[[step]]\nname = \"{name}\"\nrun = '{run}'\n")).concat();
    stand.recipe("step", &format!("kind = \"stage4\"\n[emerge]\npackages = []\n{steps}"));
    ["second", "recipes"].iter().for_each(|name| fs::create_dir(stand.env.path(name)).unwrap());
    let (mut unshare, become_user) = stand.env.command_of_root("unshare");
    let (uid, gid) = stand.env.owner().unwrap_or((0, 0));
    unshare.args(["--mount", "--propagation", "private", "bash", "-c", SCRIPT, PROGRAM]);
    unshare.arg(format!("{uid}:{gid}")).args(become_user);
    let ran = output(&mut unshare);
    let said = |step: &str| fs::read_to_string(stand.env.path(format!("said/{step}.err"))).unwrap_or_default();
    let lines = ran.stdout.lines().filter(|line| !line.starts_with("there ")).filter_map(|line| line.split_once(' '));
    let codes: BTreeMap<&str, &str> = lines.collect();
    assert!(ran.stderr.is_empty(), "{ran:?}");
    assert_eq!(codes.len(), 20, "{ran:?}");
    for (step, code) in &codes {
        let said = said(step);
        if let "too-large" | "too-many" = *step {
            assert_eq!(*code, "3", "{step}: {said}");
            let key = if *step == "too-large" { "source.max-unpacked" } else { "source.max-entries" };
            assert!(said.contains(&format!("raise the limit with {key}")), "{step}: {said}");
            continue;
        }
        let good = ["fetch", "shell", "step", "build", "export", "import", "lock"].contains(step);
        // The last lines of emerge may not mention the disk.
        let expected: &[&str] = match *step {
            "emerge-full" => &["4", "1"],
            // The step itself fails.
            "step-full" => &["1"],
            _ if good => &["0"],
            _ => &["4"],
        };
        assert!(expected.contains(code), "{step}: {code}: {said}");
        let why = ["No space left on device", "no space left", "the disk is full"];
        assert!(good || (why.iter().any(|why| said.contains(why)) && said.contains("are free")), "{step}: {said}");
        assert!(!said.contains(".quern-") && !said.contains("panicked"), "{step}: {said}");
    }
    for step in ["fetch-small", "fetch-half", "unpack-small", "export-file", "export-stdout", "import-small"] {
        assert!(said(step).contains("bytes are needed"), "{step}: {}", said(step));
    }
    for line in ran.stdout.lines().filter_map(|line| line.strip_prefix("there ")) {
        let (step, there) = line.split_once(' ').unwrap();
        assert_eq!(there.trim(), if step == "lock-full" { "demo.toml" } else { "" }, "{step}");
    }
}
