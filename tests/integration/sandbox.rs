//! The sandbox: attacks from inside, exit codes, and processes that are killed.
//!
//! The tree holds a few of the host's programs with their libraries, so that no stage3 is needed.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sha2::Digest as _;

use crate::env::{PROGRAM, Privilege, TestEnv, output, twins, wait_for};

const PROGRAMS: [&str; 12] =
    ["sh", "cat", "chmod", "grep", "id", "ls", "mkdir", "mount", "sleep", "touch", "umount", "unshare"];

/// Attacks, one in each line, that print a word if they succeed. `sh` continues after a failure.
const ATTACKS: &str = r#"
exec 2>/dev/null
host=/var/db/repos/gentoo
mount -o remount,bind,rw $host && echo remounted
touch $host/mark && echo wrote-read-only
umount $host && echo unmounted
umount /proc && echo unmounted-proc
chmod 0666 /dev/null && echo changed-null
touch /dev/zero && echo touched-zero
value=$(cat /proc/sys/vm/swappiness) && echo "$value" > /proc/sys/vm/swappiness && echo sysctl
mkdir -p /tmp/proc /tmp/cgroup /tmp/sys
mount -t proc proc /tmp/proc && echo "$value" > /tmp/proc/sys/vm/swappiness && echo sysctl-of-new-proc
unshare -mpf sh -c 'mount -t proc proc /tmp/proc && cat /proc/sys/vm/swappiness > /tmp/proc/sys/vm/swappiness' && echo sysctl-of-own-proc
mount -t sysfs sysfs /tmp/sys && echo sysfs
unshare -Cm mount -t cgroup2 cgroup /tmp/cgroup && echo cgroups
ls -l /proc/1/exe | grep -q quern && echo program
ls /proc/1/root/ | grep . && echo root-of-pid-1
cat /proc/1/environ | grep . && echo environment-of-pid-1
chmod 0755 /proc/1/exe && echo changed-program
cat /root/node && echo device
ls /proc/self/fd | grep -v '^[0123]$' && echo descriptors
grep -q '^NoNewPrivs:.1' /proc/self/status || echo privileges
grep -q '^SigBlk:.0*$' /proc/self/status || echo blocked-signals
echo attacked
"#;

/// Adds a recipe `tiny.toml`, whose stage3 holds [`PROGRAMS`], to an environment.
fn tiny(env: TestEnv) -> TestEnv {
    tiny_with(env, "")
}

/// Adds the same recipe as [`tiny`]. The shell commands `more` change the directory `tree` before it becomes the stage3.
pub(crate) fn tiny_with(env: TestEnv, more: &str) -> TestEnv {
    let script = format!(
        r#"set -e
        mkdir -p tree/bin tree/etc tree/root tree/usr tree/var
        for program in {}; do
            path=$(command -v "$program")
            cp -L "$path" tree/bin/
        done
        for path in tree/bin/* {PROGRAM}; do
            for library in $(ldd "$path" | grep -o '/[^ ]*'); do
                mkdir -p "tree$(dirname "$library")"; cp -L "$library" "tree$library"
            done
        done
        ln -s /proc/self/exe tree/bin/me
        ln -s sh tree/bin/bash
        if [ "$(id -u)" = 0 ]; then mknod -m 666 tree/root/node c 1 5; fi
        {more}
        tar --owner=0 --group=0 -C tree -cf tiny.tar .
        chmod 644 tiny.tar"#,
        PROGRAMS.join(" ")
    );
    let _ = output(Command::new("sh").args(["-c", &script]).current_dir(env.path(""))).success();
    let sha512: String = sha2::Sha512::digest(fs::read(env.path("tiny.tar")).unwrap())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/profiles/repos/gentoo");
    env.write(
        "tiny.toml",
        format!(
            "[source]\nfile = \"tiny.tar\"\nsha512 = \"{sha512}\"\n[portage]\nrepositories = [{repository:?}]\n\
             [build]\noutdir = \"out\"\nprofile = \"gentoo:default/linux/amd64/23.0/musl\"\n[emerge]\npackages = [\"a/b\"]\n"
        ),
    );
    env
}

fn arguments<'a>(command: &[&'a str]) -> Vec<&'a str> {
    [&["-q", "shell", "tiny.toml", "--"], command].concat()
}

twins!(a_command_stays_in_its_sandbox => root_a_command_stays_in_its_sandbox, userns_a_command_stays_in_its_sandbox);

fn a_command_stays_in_its_sandbox(privilege: Privilege) {
    let Some(env) = TestEnv::with(privilege).map(tiny) else { return };
    let told = env.run(arguments(&["sh", "-c", ATTACKS])).success();
    assert_eq!(told.stdout.trim(), "attacked", "{}", told.stderr);
}

/// A command can run the program's own file through a link, but cannot change it.
#[test]
fn root_a_command_cannot_change_the_program() {
    let Some(env) = TestEnv::root().map(tiny) else { return };
    let before = fs::metadata(PROGRAM).unwrap().modified().unwrap();
    // `me` is the program itself. In the tree it is an ordinary program, which prints its usage.
    let told = env.run(arguments(&["/bin/me", "--no-such-option"])).code(2);
    assert!(told.stderr.contains("--no-such-option"), "{}", told.stderr);
    assert_eq!(fs::metadata(PROGRAM).unwrap().modified().unwrap(), before);
}

#[test]
fn userns_the_program_exits_as_its_command_does() {
    let Some(mut env) = TestEnv::userns().map(tiny) else { return };
    env.set("SECRET", "1").set("QUERN_SANDBOX_FD", "3");
    for code in [0, 1, 2, 126, 255] {
        let _ = env.run(arguments(&["sh", "-c", &format!("exit {code}")])).code(code);
    }
    for signal in [1, 2, 9, 15] {
        let _ = env.run(arguments(&["sh", "-c", &format!("kill -{signal} $$")])).code(128 + signal);
    }
    for wrong in ["no-such", "/etc", "/etc/resolv.conf", ""] {
        let told = env.run(arguments(&[wrong])).code(2);
        assert!(told.stderr.contains(&format!("starting {wrong:?} in the tree")), "{}", told.stderr);
    }
    // A command that closes its output is waited for. A process that outlives the command is killed.
    let _ = env.run(arguments(&["sh", "-c", "exec >&- 2>&-; sleep 0.5; exit 9"])).code(9);
    let _ = env.run(arguments(&["sh", "-c", "(unshare -m sleep 3600 &) ; exit 3"])).code(3);
    let told = env.run(arguments(&["sh", "-c", "export -p"])).success();
    assert!(!told.stdout.contains("SECRET") && !told.stdout.contains("QUERN"), "{}", told.stdout);
}

#[test]
fn userns_typed_keys_reach_the_command_once_and_the_terminal_is_restored() {
    let Some(env) = TestEnv::userns().map(tiny) else { return };
    let typed = |keys: &str, inside: &str, after: &str| {
        let command = format!("{PROGRAM} -q shell tiny.toml {inside}; echo code $?; {after}");
        // The outer shell must survive the typed interrupt.
        let command = format!("trap : INT; {command}");
        let script = format!("({keys}) | script -qec {} /dev/null", quoted(&format!("sh -c {}", quoted(&command))));
        output(env.command("sh").args(["-c", &script])).stdout
    };
    let count = "-- sh -c 'trap \"echo got\" INT; echo ready; sleep 30; sleep 2'";
    let told = typed("sleep 8; printf '\\003'; sleep 4", count, "true");
    assert_eq!(told.matches("got").count(), 1, "{told:?}");
    let told = typed("sleep 6; printf '\\003'; sleep 3", "-- sleep 60", "true");
    assert!(told.contains("code 130"), "{told:?}");
    // The inner shell takes the foreground and gives it to its jobs. Afterwards the caller can read again.
    let told = typed(
        "sleep 6; echo sleep 60; sleep 3; printf '\\003'; sleep 3; echo exit 7; sleep 4; echo typed; sleep 2",
        "",
        "read line; echo \"read $line\"",
    );
    assert!(told.contains("code 7") && told.contains("read typed"), "{told:?}");
}

/// Returns `text` quoted as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

twins!(killing_any_process_leaves_nothing => root_killing_any_process_leaves_nothing, userns_killing_any_process_leaves_nothing);

/// Kills each process of the program, including the command, at several points in time.
fn killing_any_process_leaves_nothing(privilege: Privilege) {
    let Some(env) = TestEnv::with(privilege).map(tiny) else { return };
    // An ordinary user's program starts itself again in a user namespace.
    let processes = if privilege == Privilege::Root { 4 } else { 5 };
    let _ = env.run(arguments(&["true"])).code(2);
    for round in 0..24_u64 {
        // No other process has this number in its arguments.
        let mark = format!("{}{round:02}", 900_000 + std::process::id());
        let command = format!("unshare -m sleep {mark} & exec sleep {mark}");
        let mut child = env
            .program(arguments(&["sh", "-c", &command]))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(round * 7 % 90));
        let kill = |chain: &[u32]| {
            let victim = chain[round as usize % chain.len()];
            let _ = Command::new("kill").args(["-9", &victim.to_string()]).stderr(Stdio::null()).status();
        };
        let mut known = chain(child.id(), processes);
        kill(&known);
        wait_for("the program to end", || {
            // Before the command, a sandbox checks what the kernel allows. If it is killed, the program starts the next one.
            let now = chain(child.id(), processes);
            let sandbox = now.get(processes - 3);
            if sandbox.is_some_and(|sandbox| !known.contains(sandbox)) && known.len() > processes - 3 {
                kill(&now);
                known.extend(now);
            }
            ended(&mut child)
        });
        wait_for("the processes to end", || known.iter().all(|&pid| gone(pid)) && !any_with(&mark));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(env.store().to_str().unwrap()), "{mounts}");
}

fn ended(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_some()
}

/// Returns a process, its first child, the first child of that, and so on.
fn chain(pid: u32, length: usize) -> Vec<u32> {
    let mut chain = vec![pid];
    while chain.len() < length
        && let Ok(children) = fs::read_to_string(format!("/proc/{0}/task/{0}/children", chain[chain.len() - 1]))
        && let Some(child) = children.split_whitespace().next()
    {
        chain.push(child.parse().unwrap());
    }
    chain
}

/// Returns whether a process has ended. A zombie has ended.
fn gone(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

fn any_with(mark: &str) -> bool {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|line| line.windows(mark.len()).any(|window| window == mark.as_bytes()))
}

#[test]
fn root_a_store_of_another_user_is_refused() {
    let (Some(env), Some(theirs)) = (TestEnv::root().map(tiny), TestEnv::userns()) else { return };
    fs::create_dir(theirs.path("home/store")).unwrap();
    std::os::unix::fs::chown(theirs.path("home/store"), Some(65534), Some(65534)).unwrap();
    let told = output(env.program(arguments(&["true"])).env("QUERN_HOME", theirs.store())).code(4);
    assert!(told.stderr.contains("belongs to another user"), "{}", told.stderr);
    assert_eq!(fs::read_dir(theirs.store()).unwrap().count(), 0);
}
