//! Steps that attack the host, the program or later steps. After each of them the host is unchanged, nothing of the step runs, and the
//! next build works.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use super::hostile::list;
use super::{Stand, text};
use crate::env::{Output, Privilege, twins};

/// A stage4 of nothing but its steps.
const HEAD: &str = "kind = \"stage4\"\n[emerge]\npackages = []\n";

/// Returns a step with a script.
fn step(name: &str, keys: &str, script: &str) -> String {
    format!("[[step]]\nname = \"{name}\"\n{keys}\nrun = '''\n{script}\n'''\n")
}

/// Builds up to the step `last` of a recipe of these steps, without packing.
fn until(stand: &Stand, privilege: Privilege, name: &str, steps: &str, last: &str) -> Output {
    let name = format!("{name}-{privilege:?}").to_lowercase();
    let recipe = stand.recipe(&name, &format!("{HEAD}{steps}"));
    stand.env.run(["build", text(&recipe), "--until", last])
}

/// Builds a harmless step in the store of an attack.
#[track_caller]
fn still_builds(stand: &Stand, privilege: Privilege) {
    let harmless = step("harmless", "", "id -u > /harmless && test -s /etc/passwd");
    let _ = until(stand, privilege, "harmless", &harmless, "harmless").success();
}

/// Returns the command lines of all processes with `mark` in them.
fn with_mark(mark: &str) -> Vec<String> {
    let lines =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(mark)).collect()
}

twins!(a_step_cannot_reach_the_host => root_a_step_cannot_reach_the_host, userns_a_step_cannot_reach_the_host);

fn a_step_cannot_reach_the_host(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let canary = stand.env.write("canary/file", "sings");
    let socket = format!("quern-test-{privilege:?}-{}", std::process::id());
    let listening = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&socket).unwrap()).unwrap();
    let port = stand.server.url();
    let python = |code: &str| format!("python3 -c 'import ctypes, os, socket, sys\n{code}'");
    let connect = |address: &str, family: &str| python(&format!("socket.socket(socket.{family}).connect({address})"));
    let server = format!("(\"127.0.0.1\", {})", port.rsplit(':').next().unwrap());
    // All of these must fail. They run as root of the tree, each in a shell of its own.
    let attempts = [
        connect(&format!("\"\\0{socket}\""), "AF_UNIX"),
        python("sys.exit(ctypes.CDLL(None).ptrace(16, 1, None, None))"),
        "ls /proc/1/root/".to_owned(),
        "ls -l /proc/1/fd/".to_owned(),
        "head -c 1 /proc/1/mem || cat /proc/1/maps".to_owned(),
        "value=$(cat /proc/sys/vm/swappiness) && echo \"$value\" > /proc/sys/vm/swappiness".to_owned(),
        "ls /sys/kernel".to_owned(),
        "echo x >> /quern/step".to_owned(),
        "chmod u+w /quern/step".to_owned(),
        "rm /quern/step".to_owned(),
        "mount -o remount,bind,rw /quern/step && echo x >> /quern/step".to_owned(),
        "umount /quern/step".to_owned(),
        "unshare --user --mount --map-root-user umount -l /quern/step".to_owned(),
        // Nothing but the standard streams and the listing's own.
        python("sys.exit(sorted(os.listdir(\"/proc/self/fd\")) == [\"0\", \"1\", \"2\", \"3\"])"),
        "mknod /block b 8 0 && head -c 1 /block".to_owned(),
        "mknod /memory c 1 1 && head -c 1 /memory".to_owned(),
        "mknod /tmp/whiteout c 0 0 && cp -a /tmp/whiteout /moved".to_owned(),
        "mknod /whiteout c 0 0".to_owned(),
        format!("echo x > {} || cat {0}", text(&canary)),
    ];
    let tried: String = attempts
        .iter()
        .map(|attempt| {
            format!(
                "if ( {attempt} ) &> /dev/null; then echo \"{}\" >> /tmp/succeeded; fi\n",
                attempt.replace(['"', '\\', '$', '`'], ".")
            )
        })
        .collect();
    // These may succeed and must have no effect outside the sandbox. PID 1 ignores the signal.
    let harmless = "kill -9 1\nhostname taken || true\n\
                    unshare --user --mount --map-root-user sh -c 'mkdir -p /tmp/u /tmp/w && mount -t overlay -o userxattr,lowerdir=/etc,upperdir=/tmp/u,workdir=/tmp/w none /mnt && echo x > /mnt/x' || true\n\
                    mount --bind /tmp /mnt || true\n";
    let script = |online: &str| {
        format!("{harmless}{tried}{online}\nif [ -e /tmp/succeeded ]; then cat /tmp/succeeded; exit 9; fi")
    };
    let reached = connect(&server, "AF_INET");
    let steps = step("offline", "", &script(&format!("if {reached} 2> /dev/null; then echo network; exit 9; fi")))
        + &step("online", "network = true", &script(&reached))
        + &step("after", "", "test ! -e /mnt/x && test ! -e /moved && test -s /etc/passwd");
    let before = [list(Path::new("/etc")), list(&stand.env.path("canary"))];
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let mounted = mounts();
    let _ = until(&stand, privilege, "reach", &steps, "after").success();
    assert_eq!([list(Path::new("/etc")), list(&stand.env.path("canary"))], before);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), host);
    assert_eq!(mounts(), mounted);
    drop(listening);
    still_builds(&stand, privilege);
}

twins!(a_step_leaves_no_process_behind => root_a_step_leaves_no_process_behind, userns_a_step_leaves_no_process_behind);

fn a_step_leaves_no_process_behind(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let mark = format!("3600.{}{}", std::process::id(), u8::from(privilege == Privilege::Root));
    let deaf = format!("setsid bash -c 'trap \"\" TERM INT HUP; sleep {mark}; sleep {mark}' &> /dev/null &");
    let forked = format!("( ( {deaf} ) & ) &> /dev/null");
    let cases = [
        (
            "covered",
            format!(
                "{deaf}\n{forked}\nmkdir /cover\nmount -t tmpfs none /cover\nmount --move /cover /\nmount -t tmpfs none /"
            ),
            0,
        ),
        ("killed", format!("{deaf}\n{forked}\nsleep 0.2\nkill -9 -1\nkill -9 $$"), 1),
        ("failed", format!("{deaf}\nexit 3"), 1),
    ];
    for (name, script, code) in cases {
        let ended = until(&stand, privilege, name, &step(name, "", &script), name).code(code);
        assert_eq!(with_mark(&mark), Vec::<String>::new(), "{name}: {}", ended.stderr);
        assert!(name == "killed" || ended.stderr.contains("left a process behind"), "{name}: {}", ended.stderr);
        still_builds(&stand, privilege);
    }
}

twins!(symlinks_of_a_step_lead_nowhere_on_the_host => root_symlinks_of_a_step_lead_nowhere_on_the_host, userns_symlinks_of_a_step_lead_nowhere_on_the_host);

fn symlinks_of_a_step_lead_nowhere_on_the_host(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    stand.env.write("canary/file", "sings");
    stand.env.write("copied", "copied");
    let canary = stand.env.path("canary");
    let evil = step(
        "evil",
        "at = \"start\"",
        &format!(
            "mv /etc /etc-old\nln -s /../../.. /etc\nln -s {} /evil\nln -s /../../../..{} /up",
            text(&canary),
            text(&canary)
        ),
    );
    let followers = [
        "write = [{ to = \"/evil/file\", text = \"x\" }, { to = \"/up/new\", text = \"x\" }]",
        "write = [{ to = \"/etc/quern-test-written\", text = \"x\" }]",
        "copy = [{ from = \"copied\", to = \"/evil/file\" }, { from = \"copied\", to = \"/up/new\" }]",
        "delete = [\"/evil/file\", \"/up/*\"]",
        "run = 'true'\nworkdir = \"/evil\"",
        "run = 'echo x > /evil/file'\ntmpfs = [\"/evil/memory\"]",
        "run = 'echo x > /up/file || exit 0'\nbinds = [{ file = \"copied\", at = \"/up/bound\" }]",
        "run = 'true'\nuser = \"nobody\"",
    ];
    let before = list(&canary);
    for (number, follower) in followers.into_iter().enumerate() {
        let steps = format!("{evil}[[step]]\nname = \"follow\"\n{follower}\n");
        let name = format!("links-{number}");
        let done = until(&stand, privilege, &name, &steps, "follow");
        assert!([0, 1, 2, 4].contains(&done.code) && !done.stderr.contains("panicked"), "{follower}: {}", done.stderr);
        assert!(!done.stderr.contains("unknown key"), "{follower}: {}", done.stderr);
        assert_eq!(list(&canary), before, "{follower}");
        let strays = ["/quern-test-written", "/portage", "/etc/quern-test-written"];
        assert!(strays.iter().all(|path| !Path::new(path).exists()), "{follower}");
    }
    still_builds(&stand, privilege);
}

twins!(names_and_attributes_of_layers_mean_nothing => root_names_and_attributes_of_layers_mean_nothing, userns_names_and_attributes_of_layers_mean_nothing);

/// A step that writes the marks of OCI layers and of overlayfs into the tree.
const MARKS: &str = r#"
ls -R /usr/share /etc > /tmp/before
mkdir /below && touch /below/.wh.there /below/there && touch /below/.wh..wh..opq
touch /etc/.wh.passwd /etc/.wh..wh..opq /.wh.usr /.wh..wh..opq
cat > /tmp/marks.py <<'PYTHON'
import os
done = 0
for path in ["/usr/share", "/etc", "/etc/passwd", "/below", "/below/there", "/usr"]:
    for name, value in [("opaque", b"y"), ("opaque", b"x"), ("redirect", b"/etc"), ("metacopy", b""), ("whiteout", b"y"),
                        ("whiteout", b""), ("origin", b"x"), ("overlay.opaque", b"y"), ("overlay.redirect", b"/root")]:
        try:
            os.setxattr(path, f"user.overlay.{name}", value)
            done += 1
        except OSError:
            pass
print(done, "attributes set")
PYTHON
python3 /tmp/marks.py
mkdir /kept && ls -R /usr/share /etc > /kept/after && cp -a /etc/passwd /kept
"#;

fn names_and_attributes_of_layers_mean_nothing(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let check = "ls -R /usr/share /etc | cmp - /kept/after\ncmp /etc/passwd /kept/passwd\n\
                 test -e /below/there -a -e /below/.wh.there -a -e /below/.wh..wh..opq -a -e /.wh.usr -a -d /usr/bin\ntest \"$(stat -c %s /below/there)\" = 0";
    let steps =
        step("marks", "", MARKS) + &step("check", "", check) + &step("again", "", &format!("{check}\nrm -r /below"));
    let _ = until(&stand, privilege, "marks", &steps, "again").success();
    still_builds(&stand, privilege);
}

twins!(a_step_of_many_files_becomes_a_layer => root_a_step_of_many_files_becomes_a_layer, userns_a_step_of_many_files_becomes_a_layer);

fn a_step_of_many_files_becomes_a_layer(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let make = "mkdir /many && cd /many && seq 100000 | xargs touch && cp /bin/sh setuid && chown 250:250 setuid && chmod 6755 setuid";
    let count = "test \"$(ls -f /many | wc -l)\" = 100003 && test \"$(stat -c '%a %u' /many/setuid)\" = '6755 250'";
    let steps = step("make", "", make) + &step("count", "", count);
    let _ = until(&stand, privilege, "many", &steps, "count").success();
    let again = until(&stand, privilege, "many", &steps, "count").success();
    assert!(!again.stderr.contains("running the step"), "{}", again.stderr);
}
