//! Builds with a stand-in for emerge, a shell script in a tiny stage3: what every stage leaves behind when it fails, what is checked
//! before the first stage, and that a dry run shows what a build does.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::env::{Output, PROGRAM, Privilege, TestEnv, output, twins};
use crate::sandbox::tiny_with;

/// The answer of the Portage in the tiny stage3 when it is asked for its settings, as a word of a shell.
const SETTINGS: &str =
    r#"{\"variables\":{\"CHOST\":\"x86_64-pc-linux-musl\"},\"configured\":[],\"profile\":\"gentoo:p\"}"#;

/// Adds to the tiny stage3: a Portage of a version that knows all options, and an emerge that runs `script`.
pub(crate) fn with_emerge(env: TestEnv, script: &str) -> TestEnv {
    let script = script.replace('\'', r"'\''");
    let more = format!(
        "mkdir -p tree/var/db/pkg/sys-apps/portage-3.0.83 tree/etc/portage\n\
         ln -s ../../var/db/repos/gentoo/profiles/default/linux/amd64/23.0/musl tree/etc/portage/make.profile\n\
         printf '%s\\n' '#!/bin/sh' '{script}' > tree/bin/emerge\n\
         printf '%s\\n' '#!/bin/sh' 'one={SETTINGS}' '[ $# = 5 ] || more=\",$one\"' 'echo \"[$one$more]\"' > tree/bin/python3\n\
         chmod 755 tree/bin/emerge tree/bin/python3\n"
    );
    tiny_with(env, &more)
}

fn build(env: &TestEnv, options: &[&str]) -> Output {
    env.run([&["build", "tiny.toml"], options].concat())
}

/// The options of a stage4 whose results are called `out`.
const STAGE4: [&str; 6] =
    ["--set", "build.kind=stage4", "--set", "build.image-name=out", "--set", "build.compression=none"];

twins!(a_failed_stage_leaves_no_mount => root_a_failed_stage_leaves_no_mount, userns_a_failed_stage_leaves_no_mount);

/// In debug builds the program compares its mounts before and after the work, and reports those that are left.
fn a_failed_stage_leaves_no_mount(privilege: Privilege) {
    let broken = |more: &str, said: &str| {
        let Some(env) = TestEnv::with(privilege) else { return };
        let told = build(&tiny_with(env, more), &STAGE4);
        assert!(told.code != 0 && told.stderr.contains(said), "{said}: {}", told.stderr);
        assert!(!told.stderr.contains("mounts are left"), "{}", told.stderr);
    };
    // While mounting, while configuring, and when the first command starts.
    broken("rmdir tree/var; touch tree/var", "making the mount point");
    broken("touch tree/etc/portage", "etc/portage");
    broken("", "starting \"python3\" in the tree");

    let Some(env) = TestEnv::with(privilege) else { return };
    let env = with_emerge(env, "touch /usr/installed; [ \"$FAIL\" != x ]; [ ! -e /var/db/repos/gentoo/fail ]");
    let told = build(&env, &STAGE4).success();
    assert!(told.stdout.contains("out.tar"), "{}", told.stdout);
    // While publishing: a directory has the name of a result.
    fs::remove_file(env.outdir().join("out.json")).unwrap();
    fs::create_dir_all(env.outdir().join("out.json/full")).unwrap();
    let told = build(&env, &STAGE4);
    assert!(told.code != 0 && told.stderr.contains("out.json"), "{}", told.stderr);
    assert!(!told.stderr.contains("mounts are left"), "{}", told.stderr);
    fs::remove_dir_all(env.outdir().join("out.json")).unwrap();
    let _ = build(&env, &STAGE4).success();

    // While emerge runs, and while packing.
    let Some(env) = TestEnv::with(privilege) else { return };
    let told = build(&with_emerge(env, "exit 1"), &STAGE4).code(1);
    assert!(!told.stderr.contains("mounts are left"), "{}", told.stderr);
    let Some(env) = TestEnv::with(privilege) else { return };
    let env = with_emerge(env, "touch /usr/.wh.x");
    let told = build(&env, &[&STAGE4[..], &["--set", "oci.cmd=[\"/bin/sh\"]"]].concat());
    assert!(told.code != 0 && told.stderr.contains(".wh.x"), "{}", told.stderr);
    assert!(!told.stderr.contains("mounts are left"), "{}", told.stderr);
}

twins!(mount_points_leave_no_trace => root_mount_points_leave_no_trace, userns_mount_points_leave_no_trace);

/// The tiny stage3 has none of the mount points. A command sees them, and the upper layer has nothing of them.
fn mount_points_leave_no_trace(privilege: Privilege) {
    let Some(env) = TestEnv::with(privilege) else { return };
    let env = with_emerge(env, "touch /var/cache/distfiles/seen /quern/image/file");
    let _ = build(&env, &["--set", "build.image-name=out"]).success();
    assert!(env.store().join("cache/distfiles/seen").exists());
    let find = format!("cd {}/builds/*/upper && find . -path ./etc -prune -o -print", env.store().display());
    let found = output(env.command("sh").args(["-c", &find])).success().stdout;
    assert_eq!(found.trim(), ".");
}

#[test]
fn userns_a_dry_run_shows_the_commands_that_run() {
    let Some(env) = TestEnv::userns() else { return };
    let env = with_emerge(env, "exit 0");
    let commands = |options: &[&str]| {
        let told = build(&env, &[options, &["--dry-run"]].concat()).success().stdout;
        let lines = told.lines().skip_while(|line| *line != "emerge").skip(1).take_while(|line| !line.is_empty());
        lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    env.write("packages/Packages", "ARCH: amd64\nTIMESTAMP: 1\nVERSION: 0\n\n");
    // The store does not have the stage3, and the options depend on its Portage.
    let early = commands(&["--set", "emerge.jobs=3"]);
    assert!(early.last().unwrap().contains("not in the store yet"), "{early:?}");
    assert!(!early.iter().any(|line| line.contains("--jobs")), "{early:?}");
    for (index, options) in [
        &["--set", "emerge.jobs=3"][..],
        &["--set", "emerge.jobs=1", "--set", "build.include-system=true"],
        &["--set", "build.kind=stage4", "--set", "emerge.options=[\"--keep-going\"]"],
        &["--set", "build.unblocker-profile=default/linux/amd64/23.0", "--set", "portage.binhost=[\"file:packages\"]"],
        &["--offline"],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("build.image-name=out{index}");
        let options = [options, &["--set", &name]].concat();
        let _ = build(&env, &options).success();
        let shown = commands(&options);
        let provenance = fs::read(env.outdir().join(format!("out{index}.json"))).unwrap();
        let provenance: serde_json::Value = serde_json::from_slice(&provenance).unwrap();
        let ran = &provenance["predicate"]["buildDefinition"]["internalParameters"]["emerge"];
        let ran: Vec<String> = ran
            .as_array()
            .unwrap()
            .iter()
            .map(|step| {
                let words = step["argv"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
                words.collect::<Vec<_>>().join(" ")
            })
            .collect();
        let shown: Vec<_> = shown.iter().map(|line| line[line.find("emerge ").unwrap_or(0)..].to_owned()).collect();
        assert_eq!(shown, ran, "{options:?}");
        assert!(ran.iter().any(|line| line.contains("--jobs-tmpdir-require-free-gb=0")) != (index == 1), "{ran:?}");
    }
}

twins!(offline_there_is_no_network => root_offline_there_is_no_network, userns_offline_there_is_no_network);

fn offline_there_is_no_network(privilege: Privilege) {
    let Some(env) = TestEnv::with(privilege) else { return };
    let env = with_emerge(
        env,
        "grep -q 'eth\\|en[a-z0-9]*:' /proc/net/dev && echo interfaces; echo \"!!! Couldn't download 'a-1.tar'. Aborting.\"; exit 1",
    );
    let interfaces = |options: &[&str]| {
        let arguments = [&["-q", "shell"], options, &["tiny.toml", "--", "grep", ":", "/proc/net/dev"]].concat();
        let told = env.run(arguments).success().stdout;
        told.lines().map(|line| line.split(':').next().unwrap().trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(interfaces(&["--offline"]), ["lo"]);
    let host = fs::read_to_string("/proc/net/dev").unwrap().lines().filter(|line| line.contains(':')).count();
    assert_eq!(interfaces(&[]).len(), host);
    let told = build(&env, &["-v", "--offline"]).code(1);
    let said = format!("{}{}", told.stdout, told.stderr);
    assert!(said.contains("a-1.tar") && said.contains("--offline") && !said.contains("interfaces"), "{said}");
}

/// Runs a build in a mount namespace in which `mount` has changed something, and lists the files in the store afterwards.
fn build_after(env: &TestEnv, mount: &str) -> Output {
    let script = format!(
        "mkdir -p store; {mount}; export QUERN_HOME=$PWD/store; code=0; \"$0\" build tiny.toml || code=$?; \
         find store/blobs store/trees store/refs -type f 2>/dev/null || true; exit $code"
    );
    let mut unshare: Command = env.command("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-ec", &script, PROGRAM]);
    output(&mut unshare)
}

#[test]
fn root_a_store_that_cannot_hold_a_build_is_refused_at_the_start() {
    let Some(env) = TestEnv::root().map(|env| with_emerge(env, "exit 0")) else { return };
    for (mount, said) in [
        ("mkdir l u w; mount -t overlay -o lowerdir=l,upperdir=u,workdir=w none store", "mounting an overlay"),
        ("mount -t tmpfs -o noexec none store", "noexec"),
        ("mount -t tmpfs -o size=16k none store", "are free"),
        ("mount -t tmpfs -o ro none store", "Read-only file system"),
    ] {
        let told = build_after(&env, mount).code(4);
        assert!(told.stderr.contains(said) && told.stderr.contains("QUERN_HOME"), "{mount}: {}", told.stderr);
        assert_eq!(told.stdout, "", "{mount}: the store got files");
    }
    let _ = build_after(&env, "mount -t tmpfs none store").success();
}

#[test]
fn userns_a_namespace_with_one_id_is_refused_at_the_start() {
    let Some(env) = TestEnv::userns().map(|env| with_emerge(env, "exit 0")) else { return };
    let told =
        output(env.command("unshare").args(["--user", "--map-root-user", PROGRAM, "build", "tiny.toml"])).code(4);
    assert!(told.stderr.contains("1 of the 65535 user ids") && told.stderr.contains("/etc/subuid"), "{}", told.stderr);
    let blobs = output(env.command("find").arg(env.store().join("blobs")).args(["-type", "f"])).stdout;
    assert_eq!(blobs, "");
}

#[test]
fn userns_other_faults_of_the_machine_are_noticed_at_the_start() {
    let Some(env) = TestEnv::userns().map(|env| with_emerge(env, "exit 0")) else { return };
    let foreign = fs::read(env.path("tiny.tar")).unwrap();
    let foreign = env.write("stage3-s390x-20260101T000000Z.tar", foreign);
    let cache = env.path("cache");
    fs::create_dir(&cache).unwrap();
    for (options, said) in [
        (vec![format!("source.file={}", foreign.display())], "cannot run the programs"),
        (vec![format!("portage.binpkg={}", cache.display())], "making a file in the cache"),
        (vec!["build.outdir=/proc/none".to_owned()], "/proc/none"),
    ] {
        let options: Vec<&str> = options.iter().flat_map(|option| ["--set", option]).collect();
        let told = build(&env, &options);
        assert!(told.code == 4 && told.stderr.contains(said), "{options:?}: {}", told.stderr);
        assert!(!told.stderr.contains("unpacking"), "{}", told.stderr);
        assert!(!Path::new(&env.store().join("blobs/sha512")).exists(), "{options:?}");
    }
}
