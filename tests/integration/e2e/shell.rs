//! `shell`: the builder tree and the image, seen from inside.

use std::collections::BTreeMap;
use std::path::Path;

use super::traces::{assert_nothing_runs, names};
use super::{Stand, TINY, text};
use crate::env::{Privilege, twins};

twins!(a_shell_is_a_sandbox => root_a_shell_is_a_sandbox, userns_a_shell_is_a_sandbox);

fn a_shell_is_a_sandbox(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    // This recipe has not been built.
    let recipe = stand.recipe("inside", TINY);
    for code in [0, 7, 255] {
        let _ = stand.shell(&recipe, &[], &["sh", "-c", &format!("exit {code}")]).code(code);
    }
    let _ = stand.shell(&recipe, &[], &["sh", "-c", "kill -9 $$"]).code(137);
    let missing = stand.shell(&recipe, &[], &["no-such-command"]).code(2);
    assert!(missing.stderr.contains("no-such-command"), "{}", missing.stderr);
    let inside = |command: &str| stand.shell(&recipe, &[], &["bash", "-c", command]).success().stdout;

    // Root of a user namespace with only the capabilities that installing needs.
    let status = inside("cat /proc/self/status");
    let status: BTreeMap<_, _> = status.lines().filter_map(|line| line.split_once(":\t")).collect();
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["Uid"], "0\t0\t0\t0");
    let bounding = u64::from_str_radix(status["CapBnd"], 16).unwrap();
    assert_eq!(status["CapEff"], status["CapBnd"]);
    // CAP_LINUX_IMMUTABLE, CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_BOOT, CAP_SYS_TIME, CAP_SYSLOG, CAP_BPF
    for capability in [9, 16, 17, 22, 25, 34, 39] {
        assert_eq!(bounding >> capability & 1, 0, "capability {capability} of {}", status["CapBnd"]);
    }
    // CAP_CHOWN, CAP_SETFCAP
    assert_eq!((bounding & 1, bounding >> 31 & 1), (1, 1));
    let maps = inside("cat /proc/self/uid_map /proc/self/gid_map");
    let ids: u64 = maps.lines().map(|line| line.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(ids, 2 * 65536, "{maps}");

    // No foreign descriptors and processes, and no access to process 1.
    assert_eq!(inside("cd /proc/self/fd; echo [0-9]*"), "0 1 2 3\n", "3 is the directory that the shell reads");
    let pids = inside("cd /proc; echo [0-9]*");
    let pids: Vec<u32> = pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.contains(&1) && pids.len() <= 3 && pids.iter().all(|pid| *pid < 10), "{pids:?}");
    assert_eq!(
        inside("{ readlink /proc/1/exe /proc/1/fd/*; ls /proc/1/root/; cat /proc/1/environ; } 2>/dev/null; true"),
        ""
    );
    assert_eq!(inside("hostname"), "inside\n");
    // Only the parts of the host that a build needs.
    let outside = stand.env.path("");
    let seen = inside(&format!("ls -d /work /home/*/ {} 2>/dev/null; true", text(&outside)));
    assert_eq!(seen, "");
    let mounts = inside("cut -d' ' -f5 /proc/self/mountinfo");
    let expected = ["/", "/dev", "/proc", "/run", "/tmp", "/var/tmp"];
    for mount in mounts.lines() {
        let below = ["/dev/", "/proc/", "/var/db/repos/", "/var/cache/", "/quern/"]
            .iter()
            .any(|place| mount.starts_with(place));
        assert!(below || expected.contains(&mount), "{mount} in {mounts}");
    }

    // Changes are discarded when the shell ends.
    assert_eq!(inside("echo x >/usr/bin/changed && cat /usr/bin/changed && rm -r /usr/share/portage"), "x\n");
    assert_eq!(
        inside("ls /usr/bin/changed /usr/share/portage/config/repos.conf 2>/dev/null; true"),
        "/usr/share/portage/config/repos.conf\n"
    );
    assert_nothing_runs(&outside);
}

twins!(a_shell_runs_in_the_image => root_a_shell_runs_in_the_image, userns_a_shell_runs_in_the_image);

fn a_shell_runs_in_the_image(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    // A static program that records its last argument and prints its environment.
    let source = "#include <stdio.h>\\nint main(int n, char **a, char **e) { FILE *f = fopen(\"/marks\", \"a+\"); int c; \
                  fprintf(f, \"%s\\\\n\", a[n - 1]); rewind(f); while ((c = getc(f)) != EOF) putchar(c); \
                  for (; *e; e++) fprintf(stderr, \"%s\\\\n\", *e); return n; }";
    let body = format!(
        "src_compile() {{\n\tprintf '%b' '{}' >mark.c || die\n\t${{CHOST}}-gcc -static -o mark mark.c || die\n}}\n\
         src_install() {{\n\tdobin mark\n}}\n",
        source.replace('\'', "'\\''")
    );
    let repositories = format!("portage.repositories={:?}", [stand.world.repository(), overlay]);
    stand.ebuild("app-own", "mark", &body);
    let recipe = stand.recipe("image", "[emerge]\npackages = [\"app-own/mark\"]\n");
    let set: &[&str] = &["--set", &repositories];
    let image: &[&str] = &["--image", "--set", &repositories];
    let early = stand.shell(&recipe, image, &["/usr/bin/mark"]).code(2);
    assert!(early.stderr.contains("image has no image yet"), "{}", early.stderr);
    let _ = stand.env.run([&["build", text(&recipe)], set].concat()).success();

    for _ in 0..2 {
        let ran = stand.shell(&recipe, image, &["/usr/bin/mark", "one", "two"]).code(3);
        assert_eq!(ran.stdout, "two\n", "changes to the image were kept");
        let names: Vec<_> = ran.stderr.lines().filter_map(|line| line.split('=').next()).collect();
        assert_eq!(names, ["HOME", "LANG", "LOGNAME", "PATH", "TERM", "USER"]);
    }
    // The builder tree contains the image's configuration.
    let told =
        stand.shell(&recipe, set, &["sh", "-c", "cat /quern/config/etc/portage/make.conf; ls /quern/image"]).success();
    assert!(told.stdout.contains("PKGDIR=\"/var/cache/binpkgs\"") && told.stdout.contains("usr"), "{}", told.stdout);
    assert_nothing_runs(&stand.env.path(""));
    let works = scratch_directories(&stand);
    assert!(works.is_empty(), "{works:?}");
}

/// Returns the directories that shells of these tests left in the store.
fn scratch_directories(stand: &Stand) -> Vec<String> {
    let home = stand
        .env
        .command("sh")
        .get_envs()
        .find(|(name, _)| *name == "QUERN_HOME")
        .and_then(|(_, home)| home.map(Path::new).map(Path::to_owned));
    let builds = home.expect("a store").join("builds");
    let works = names(&builds).into_iter().filter(|name| name.starts_with("image-"));
    works.flat_map(|work| names(&builds.join(work))).filter(|name| name.starts_with("shell-")).collect()
}
