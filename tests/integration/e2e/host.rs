//! Builds from the running system. The host is the stand-in stage3 in a private mount namespace, with files that builds must not see.
//! Afterwards it must be unchanged, including its timestamps.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::listing::{Listing, content};
use super::{EPOCH, Stand};
use crate::env::{Output, PROGRAM, Privilege, output};

/// The content of all files that builds must not see.
const SECRET: &str = "hunter2";

/// Makes `$1` the root of a mount namespace, with the test's directory `$2` as `/srv` and the world's `$3` as `/media`, and runs the
/// shell command `$4` in it.
const ENTER: &str = r#"set -e
mount --rbind "$1" "$1"
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/run"
mount --rbind /dev "$1/dev"
mount --bind "$2" "$1/srv"
mount --bind "$3" "$1/media"
[ -d "$2/var" ] && mount --bind "$2/var" "$1/var"
[ -d "$2/share" ] && mount --bind "$2/share" "$1/usr/share"
[ -d "$2/vault" ] && mount --bind "$2/vault" "$1/etc/vault"
[ -d "$1/opt/proc" ] && mount -t proc proc "$1/opt/proc"
cd "$1"
pivot_root . mnt
exec chroot . /bin/sh -c 'umount -l /mnt; cd /srv; exec /bin/sh -c "$1" sh' sh "$4""#;

/// A Gentoo host.
struct Host {
    stand: Stand,
    root: PathBuf,
}

impl Host {
    fn new() -> Option<Self> {
        let stand = Stand::alone(Privilege::Root)?;
        let root = stand.env.path("host");
        fs::create_dir(&root).unwrap();
        let builds = stand.world.path("mirror/releases/amd64/autobuilds");
        let pointer = fs::read_to_string(builds.join("latest-stage3-amd64-musl.txt")).unwrap();
        let tarball = pointer.lines().find_map(|line| line.split(' ').next().filter(|name| name.ends_with(".tar.xz")));
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--numeric-owner", "--xattrs", "--file"]).arg(builds.join(tarball.unwrap()));
        let _ = output(tar.arg("--directory").arg(&root)).success();
        let host = Self { stand, root };
        fs::copy(PROGRAM, host.stand.env.path("quern-builder")).unwrap();
        fs::create_dir_all(host.root.join("var/db/pkg")).unwrap();
        fs::create_dir(host.root.join("var/cache/quern")).unwrap();
        host.furnish();
        Some(host)
    }

    fn write(&self, path: &str, mode: u32, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Adds files that a host has and a stage3 lacks.
    fn furnish(&self) {
        for (path, mode) in [
            ("home/me/.ssh/id_ed25519", 0o600),
            ("root/.netrc", 0o600),
            ("data/database", 0o644),
            ("var/lib/mysql/user", 0o644),
            ("var/spool/mail/me", 0o644),
            ("usr/local/bin/tool", 0o755),
            ("etc/ssh/ssh_host_ed25519_key", 0o644),
            ("etc/app/token", 0o640),
            ("etc/app/named", 0o644),
            ("etc/private/key", 0o644),
            ("etc/machine-id", 0o444),
            ("etc/portage/binrepos.conf/mine.conf", 0o644),
            ("etc/portage/repos.conf/mine.conf", 0o644),
            ("opt/app/licence", 0o600),
        ] {
            self.write(path, mode, &format!("[mine]\nsync-uri = https://me:{SECRET}@example.org\n"));
        }
        self.write("etc/shadow", 0o640, &format!("root:{SECRET}:19000:0:99999:7:::\nportage:!:19000::::::\n"));
        fs::set_permissions(self.root.join("etc/private"), fs::Permissions::from_mode(0o750)).unwrap();
        self.write("etc/app/public", 0o644, "seen\n");
        self.write("opt/app/bin/app", 0o755, "seen\n");
        self.write("data/shown/text", 0o600, "shown\n");
        self.write("root/.config/app", 0o600, "shown\n");
        // Portage's configuration of the host applies only to packages for the builder.
        self.write("etc/portage/package.use/mine", 0o644, "app-own/helper host\napp-own/spy host\n");
        self.write("etc/portage/bashrc", 0o644, "export OF_HOST=yes\n");
        symlink("/data/linked", self.root.join("etc/linked")).unwrap();
        self.write("data/linked", 0o644, SECRET);
        chown(self.root.join("etc/app/token"), Some(0), Some(250)).unwrap();
    }

    /// Runs `script` on the host.
    fn run(&self, script: &str) -> Output {
        let mut command = self.stand.env.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]);
        command.arg(&self.root).arg(self.stand.env.path("")).arg(self.stand.world.path("")).arg(script);
        command.env_remove("QUERN_HOME").env("HOME", "/root").env("TMPDIR", "/tmp").env("SOURCE_DATE_EPOCH", EPOCH);
        command
            .env("QUERN_PORTAGE_REPOSITORIES", "[\"/media/repo\", \"/srv/overlay\"]")
            .env_remove("QUERN_SOURCE_KEYRING");
        output(&mut command)
    }

    /// Returns the metadata of all files outside the store. Every change changes one of the times.
    fn state(&self) -> String {
        let mut find = Command::new("find");
        find.arg(&self.root).arg("-path").arg(self.root.join("var/cache/quern")).args(["-prune", "-o", "-printf"]);
        output(find.arg("%P %y %m %U:%G %s %T@ %C@ %l\n")).success().stdout
    }

    fn recipe(&self, rest: &str) {
        self.stand.env.write(
            "spy.toml",
            format!("[source]\nhost = true\n{rest}\n[build]\nprofile = \"gentoo:default/linux/amd64/23.0/musl\"\n[emerge]\npackages = [\"app-own/spy\"]\n"),
        );
    }
}

/// Writes a package that looks for secrets while it builds, and a helper that is built into the builder.
fn spies(stand: &Stand) {
    stand.overlay("masters = gentoo\nthin-manifests = true\n");
    stand.ebuild(
        "app-own",
        "helper",
        "IUSE=\"host\"\nsrc_install() {\n\tnewbin - helper <<<\"#!/bin/sh\necho $(usev host) ${OF_HOST}\"\n}\n",
    );
    let body = format!(
        "IUSE=\"host\"\nBDEPEND=\"app-own/helper\"\nsrc_install() {{\n\
         \tinsinto /usr/share/spy\n\
         \t{{ echo \"helper: $(helper)\"; echo \"own: $(usev host) ${{OF_HOST}}\"; cat /etc/app/public /opt/app/bin/app /data/shown/text; }} | newins - seen\n\
         \tgrep -rslI {SECRET} /boot /data /etc /home /media /mnt /opt /root /run /srv /usr/local /usr/src /var/lib /var/spool /var/log /tmp | newins - secrets\n\
         \tls -A / /home /root /srv /data /etc/private /etc/ssh /var /var/cache 2>/dev/null | newins - names\n}}\n"
    );
    stand.ebuild("app-own", "spy", &body);
}

#[test]
fn root_an_image_is_built_from_the_host_without_its_secrets() {
    let Some(host) = Host::new() else { return };
    spies(&host.stand);
    host.recipe("hide = [\"/etc/app/named\", \"/etc/linked\"]\nshow = [\"/data/shown\", \"/root/.config/app\"]");
    let before = host.state();

    // A shell before any build.
    let shell = |command: &str| host.run(&format!("./quern-builder -q shell spy.toml -- sh -c '{command}'"));
    let inside =
        shell("cat /etc/app/* /root/.config/app /etc/shadow; ls /home /etc/ssh /etc/private; command -v helper")
            .code(127);
    let seen = ["seen", "shown", "root:*:::::::", "portage:*:::::::", "/etc/private:", "", "/etc/ssh:", "", "/home:"];
    assert_eq!(inside.stdout.lines().collect::<Vec<_>>(), seen, "{}", inside.stderr);
    let inside = shell("ls -ld /etc /opt/app /bin /root /tmp /etc/shadow | cut -c1-10; stat -c %g /etc/shadow");
    let modes = ["lrwxrwxrwx", "drwxr-xr-x", "-rw-r-----", "drwxr-xr-x", "drwx------", "drwxrwxrwt", "42"];
    assert_eq!(inside.success().stdout.lines().collect::<Vec<_>>(), modes);
    // Changes to the visible files reveal nothing and do not reach the host.
    let inside = shell(
        "touch /usr/bin/mark /etc/mark; rm -r /etc/app /usr/share/portage; mkdir /etc/app; rmdir /etc/ssh; mv /opt/app /opt/b; \
         mkdir /etc/ssh /opt/app; find /etc/ssh /etc/app /opt/app /opt/b /usr/local",
    );
    let found = ["/etc/ssh", "/etc/app", "/opt/app", "/opt/b", "/opt/b/bin", "/opt/b/bin/app", "/usr/local"];
    assert_eq!(inside.success().stdout.lines().collect::<Vec<_>>(), found);
    assert_same(&before, &host.state());

    for again in [false, true] {
        let built = host.run("./quern-builder build spy.toml").success();
        let tarball = host.stand.env.outdir().join("spy-2023-11-14.tar.gz");
        assert!(built.stdout.contains("/srv/out/spy-2023-11-14.tar.gz"), "{}", built.stdout);
        assert_eq!(content(&tarball, "usr/share/spy/secrets"), "");
        assert_eq!(content(&tarball, "usr/share/spy/seen"), "helper: host yes\nown:  \nseen\nseen\nshown\n");
        if !again {
            // The second time, the package comes from the cache, so that the helper is not built.
            assert_eq!(shell("helper; touch /etc/mark; ls /etc/mark").success().stdout, "host yes\n/etc/mark\n");
        }
        let names = content(&tarball, "usr/share/spy/names");
        assert!(
            !names.contains("quern-builder") && !names.contains("database") && !names.contains("ssh_host"),
            "{names}"
        );
        let listing = Listing::of(&tarball);
        assert!(!listing.names().any(|name| name.starts_with("etc/app") || name.starts_with("etc/ssh")));
    }
    assert_same(&before, &host.state());
    let provenance = fs::read_to_string(host.stand.env.outdir().join("spy-2023-11-14.json")).unwrap();
    let provenance: serde_json::Value = serde_json::from_str(&provenance).unwrap();
    let base = &provenance["predicate"]["buildDefinition"]["resolvedDependencies"][0];
    assert_eq!(base["name"], "host");
    assert!(base["annotations"]["verification"].as_str().unwrap().starts_with("none"), "{base}");
}

/// Makes a socket and a pipe in a directory that builds see, and runs a command in the builder tree that tries to connect to them.
const KNOCK: &str = r#"
import os, socket, subprocess
at = "/usr/share/knock"
os.mkdir(at)
door = socket.socket(socket.AF_UNIX)
door.bind(at + "/door")
door.listen(1)
os.mkfifo(at + "/pipe")
pipe = os.open(at + "/pipe", os.O_RDONLY | os.O_NONBLOCK)
# On the host itself, both work.
socket.socket(socket.AF_UNIX).connect(at + "/door")
os.close(os.open(at + "/pipe", os.O_WRONLY | os.O_NONBLOCK))
knock = """
import os, socket
for what in (lambda: socket.socket(socket.AF_UNIX).connect("/usr/share/knock/door"),
             lambda: os.open("/usr/share/knock/pipe", os.O_WRONLY | os.O_NONBLOCK)):
    try:
        what()
        print("open")
    except OSError as error:
        print(error.strerror)
"""
subprocess.run(["./quern-builder", "-q", "shell", "spy.toml", "--", "python3", "-c", knock], check=True)
"#;

#[test]
fn root_a_host_with_several_file_systems_is_visible() {
    let Some(host) = Host::new() else { return };
    spies(&host.stand);
    host.recipe("");
    for (path, mode) in [("vault/key", 0o644), ("share/doc/text", 0o644), ("var/lib/mysql/user", 0o644)] {
        host.stand.env.write(path, if path.starts_with("share") { "seen\n" } else { SECRET });
        fs::set_permissions(host.stand.env.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(host.stand.env.path("vault"), fs::Permissions::from_mode(0o700)).unwrap();
    for directory in ["etc/vault", "opt/proc"] {
        fs::create_dir(host.root.join(directory)).unwrap();
    }
    // These directories become other file systems.
    for (path, to) in
        [("var/db", "var/db"), ("var/lib/portage", "var/lib/portage"), ("usr/share/portage", "share/portage")]
    {
        let to = host.stand.env.path(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let _ = output(Command::new("cp").arg("--archive").arg(host.root.join(path)).arg(to)).success();
    }
    fs::create_dir_all(host.stand.env.path("var/cache/quern")).unwrap();
    let before = host.state();
    let shell = "./quern-builder -q shell spy.toml -- sh -c";
    let seen = host.run(&format!(
        "{shell} 'ls /etc/vault /opt/proc; ls /usr/share; cat /usr/share/doc/text; ls /var/lib; ls /var/db/pkg | head -n 1; touch /usr/share/doc/x'"
    ));
    let expected = ["/etc/vault:", "", "/opt/proc:", "doc", "portage", "seen", "portage", "app-alternatives"];
    assert_eq!(seen.success().stdout.lines().collect::<Vec<_>>(), expected);
    assert_same(&before, &host.state());
    assert!(!host.stand.env.path("share/doc/x").exists());

    // A store that builds would see is refused, and showing the store is refused too.
    let told = host.run(&format!("QUERN_HOME=/opt/store {shell} true")).code(2);
    assert!(told.stderr.contains("QUERN_HOME"), "{}", told.stderr);
    let told = host.run(&format!("{} --set 'source.show=[\"/var/cache\"]' -- true", &shell[..shell.len() - 9])).code(2);
    assert!(told.stderr.contains("QUERN_HOME"), "{}", told.stderr);
}

#[test]
fn root_sockets_and_pipes_of_the_host_are_unreachable() {
    let Some(host) = Host::new() else { return };
    spies(&host.stand);
    host.recipe("");
    host.stand.env.write("knock.py", KNOCK);
    let told = host.run("python3 knock.py").success();
    assert_eq!(told.stdout, "Connection refused\nNo such device or address\n");

    // An ordinary user, and root of another user namespace, cannot build from the host.
    let user = "HOME=/srv/u; QUERN_HOME=/srv/u/store; export HOME QUERN_HOME; exec setpriv --reuid 1000 --clear-groups";
    fs::create_dir(host.stand.env.path("u")).unwrap();
    chown(host.stand.env.path("u"), Some(1000), None).unwrap();
    for more in ["", "unshare --user --map-root-user"] {
        let told = host.run(&format!("{user} {more} ./quern-builder build spy.toml")).code(4);
        assert!(told.stderr.contains("requires its root user") && told.stderr.contains("stage3"), "{}", told.stderr);
    }
    // A dry run works for every user.
    let told = host
        .run("HOME=/srv/u exec setpriv --reuid 1000 --clear-groups ./quern-builder build --dry-run spy.toml")
        .success();
    assert!(told.stdout.contains("hide /etc/ssh (keys of this machine)"), "{}", told.stdout);
    assert!(told.stdout.contains("show /usr (programs"), "{}", told.stdout);
    // There is nothing to download or to verify.
    let told = host.run("./quern-builder fetch spy.toml").success();
    assert!(told.stderr.contains("nothing to fetch") && told.stdout.is_empty(), "{}", told.stderr);
    let told = host.run("./quern-builder verify spy.toml").code(2);
    assert!(told.stderr.contains("without a stage3"), "{}", told.stderr);
    let told = host.run("./quern-builder build spy.toml --set 'source.show=[\"/no/such\"]'").code(2);
    assert!(told.stderr.contains("/no/such"), "{}", told.stderr);
}

#[test]
fn root_a_host_without_gentoo_is_refused() {
    if Path::new("/usr/bin/emerge").exists() {
        return;
    }
    let Some(stand) = Stand::alone(Privilege::Root) else { return };
    let recipe = stand.env.write(
        "spy.toml",
        "[source]\nhost = true\n[build]\nprofile = \"gentoo:default/linux/amd64/23.0/musl\"\n[emerge]\npackages = [\"app-test/tiny\"]\n",
    );
    for more in [&["build"][..], &["build", "--dry-run"], &["build", "--offline"], &["shell"]] {
        let told = stand.env.run(more.iter().copied().chain([recipe.to_str().unwrap()])).code(2);
        assert!(
            told.stderr.contains("this host is not a Gentoo system") && told.stderr.contains("stage3"),
            "{}",
            told.stderr
        );
    }
    assert_eq!(super::traces::names(&stand.env.outdir()), Vec::<String>::new());
}

/// Checks that the host is unchanged.
#[track_caller]
fn assert_same(before: &str, after: &str) {
    let lines = |text: &str| -> std::collections::BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    let (before, after) = (lines(before), lines(after));
    let changed: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(changed.is_empty(), "{changed:#?}");
}
