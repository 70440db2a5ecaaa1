//! The trees `profiles/zentoo` and `profiles/raspi`. An overlay has small packages in place of those that the stand-in lacks.

use std::fs;
use std::path::{Path, PathBuf};

use super::{EPOCH, Stand, ask, text};
use crate::env::{Privilege, Server};

/// Copies a tree of `profiles` to where a test may change it. Returns its directory.
pub(super) fn copy(stand: &Stand, name: &str) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles").join(name);
    let to = stand.env.path(name);
    let _ = ask("cp", &["-r", text(&from), text(&to)]);
    let _ = ask("chmod", &["-R", "a+rX", text(&to)]);
    to
}

/// Changes a text in a file, which must contain it.
#[track_caller]
pub(super) fn replace(file: &Path, from: &str, to: &str) {
    let old = fs::read_to_string(file).unwrap();
    assert!(old.contains(from), "{}: {old}", file.display());
    fs::write(file, old.replace(from, to)).unwrap();
}

/// Makes an overlay with packages that only install files: empty ones, or scripts of OpenRC.
fn with_packages(stand: Stand, packages: &[(&str, &[&str])]) -> Stand {
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    let mut categories = String::new();
    for (package, files) in packages {
        let (category, name) = package.split_once('/').unwrap();
        categories.push_str(&format!("{category}\n"));
        let install = |path: &&str| {
            let (directory, file) = path.rsplit_once('/').unwrap();
            format!("\texeinto {directory}\n\tnewexe - {file} <<<'#!/sbin/openrc-run'\n")
        };
        let body: String = files.iter().map(install).collect();
        stand.ebuild(category, name, &format!("IUSE=\"X gpg wayland\"\nsrc_install() {{\n\t:\n{body}}}\n"));
    }
    stand.env.write("overlay/profiles/categories", categories);
    stand.with_repositories(&[&overlay])
}

pub(super) fn content(tarball: &Path, path: &str) -> String {
    ask("tar", &["--extract", "--to-stdout", "--file", text(tarball), &format!("./{path}")])
}

pub(super) fn listed(tarball: &Path) -> Vec<String> {
    ask("tar", &["--list", "--file", text(tarball)]).lines().map(str::to_owned).collect()
}

/// Lists the binary packages in the store that a builder made for images.
fn packages(stand: &Stand) -> Vec<String> {
    let found = ask("find", &[text(&stand.store().join("cache")), "-name", "*.gpkg.tar", "-printf", "%f %T@\n"]);
    let mut found: Vec<String> = found.lines().map(str::to_owned).collect();
    found.sort();
    found
}

#[test]
fn root_the_tree_of_zentoo_compiles_each_package_once() {
    let Some(stand) = Stand::alone(Privilege::Root) else { return };
    let mut stand = with_packages(
        stand,
        &[
            ("sys-devel/distcc", &[]),
            ("dev-util/ccache", &[]),
            ("dev-vcs/git", &[]),
            ("www-servers/nginx", &["/etc/init.d/nginx"]),
            ("net-misc/openssh", &["/etc/init.d/sshd"]),
            ("net-misc/chrony", &["/etc/init.d/chronyd"]),
            ("sys-apps/openrc", &["/sbin/openrc-init", "/etc/init.d/hwclock"]),
            ("sys-apps/man-pages", &["/usr/share/man/man1/sh.1"]),
        ],
    );
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    stand.env.set("QUERN_BUILD_OUTDIR", stand.env.outdir());
    let tree = copy(&stand, "zentoo");
    let images = stand.env.run(["tree", text(&tree)]).success().stdout;
    for tuple in ["zen2-server", "zen2-wayland", "core-avx2-server", "core-avx2-wayland"] {
        assert!(images.contains(&format!("{tuple}-hardened-web ")), "{tuple}: {images}");
    }
    // One processor is enough here (e2e::matrix has two), and its packages must run on this machine.
    replace(&tree.join("quern-tree.toml"), "cpu = [\"zen2\", \"core-avx2\"]", "cpu = \"core-avx2\"");
    replace(&tree.join("cpu/core-avx2.toml"), "-march=", "-mtune=");
    // The builder is built first. It merges the packages for both.
    let built = stand.env.run(["build", text(&tree.join("core-avx2-wayland-hardened-web"))]).success();
    let [tarball] = &built.results()[..] else { panic!("{}", built.stdout) };
    assert!(tarball.ends_with("zentoo/core-avx2-wayland-hardened-web-2023-11-14.tar.gz"), "{}", tarball.display());
    let compiled = packages(&stand);
    let count = |name: &str| compiled.iter().filter(|package| package.starts_with(name)).count();
    // One for both configurations, unless it has their flags.
    assert_eq!((count("busybox-"), count("nginx-")), (1, 2), "{compiled:?}");

    assert_eq!(content(tarball, "etc/profile.d/umask.sh"), "umask 027\n");
    assert!(content(tarball, "etc/hosts").ends_with("\n192.0.2.10 buildmaster\n"));
    let left = content(tarball, "etc/packages");
    for package in ["www-servers/nginx-1", "sys-apps/openrc-1", "net-misc/chrony-1", "sys-apps/busybox-"] {
        assert!(left.contains(package), "{package}: {left}");
    }
    assert!(!left.contains("man-pages"), "{left}");
    let files = listed(tarball);
    let has = |path: &str| files.iter().any(|file| file == path);
    for path in ["./etc/runlevels/default/sshd", "./etc/runlevels/default/chronyd", "./var/log/"] {
        assert!(has(path), "{path}: {files:?}");
    }
    assert!(!has("./etc/motd") && !has("./mnt/user-data/hosts") && !has("./mnt/user-data/"), "{files:?}");
    assert!(!files.iter().any(|file| file.starts_with("./usr/share/man/m") || file.contains("/distcc-")), "{files:?}");

    let all = stand.env.run(["build", text(&tree.join("..."))]).success();
    assert_eq!(all.results().len(), 2, "{}", all.stdout);
    assert_eq!(packages(&stand), compiled, "an assembler or another build compiled a package");
}

/// Programs and files of Funtoo that the stand-in lacks, added before the steps of the tree run.
const MACHINE: &str = r#"
[emerge]
packages = []
[[step]]
name = "machine"
run = '''
printf '%s\n' '#!/bin/sh' 'printf "network={\n\tssid=\"%s\"\n\t#psk=\"%s\"\n\tpsk=0123\n}\n" "$1" "$2"' >/usr/bin/wpa_passphrase
printf '%s\n' '#!/bin/sh' 'cat /etc/locale.gen >/etc/locales' >/usr/sbin/locale-gen
chmod 755 /usr/bin/wpa_passphrase /usr/sbin/locale-gen
mkdir -p /etc/wpa_supplicant
printf 's0:x\nc1:x\n' >/etc/inittab
echo kernel >/boot/kernel
grep -q ^wheel: /etc/group || echo 'wheel:x:990:' >>/etc/group
'''
"#;

const PASSWORD: &str = "correct horse";

#[test]
fn userns_the_tree_of_the_raspberry_asks_and_builds() {
    let Some(stand) = Stand::sharing(Privilege::Userns) else { return };
    let mut stand = with_packages(
        stand,
        &[
            ("app-admin/metalog", &["/etc/init.d/metalog"]),
            ("app-admin/sudo", &[]),
            ("app-editors/vim", &[]),
            ("sys-apps/dbus", &["/etc/init.d/dbus"]),
            ("net-dns/avahi", &["/etc/init.d/avahi-daemon"]),
            ("net-misc/chrony", &["/etc/init.d/chronyd"]),
            ("net-misc/networkmanager", &["/etc/init.d/NetworkManager"]),
            ("sys-auth/nss-mdns", &["/etc/init.d/hwclock", "/etc/init.d/swclock", "/sbin/openrc-init"]),
            ("net-wireless/hostapd", &[]),
            ("net-fs/nfs-utils", &[]),
            ("media-sound/mpd", &["/etc/init.d/mpd"]),
        ],
    );
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    stand.env.set("QUERN_BUILD_OUTDIR", stand.env.outdir());
    // The stand-in's stage3 of Funtoo is one for this machine.
    let server = Server::start(&stand.world.path("funtoo"));
    stand.env.set("QUERN_SOURCE_MIRRORS", format!("[{:?}]", server.url()));
    stand.env.set("QUERN_SOURCE_ARCH", "x86-64bit").set("QUERN_SOURCE_SUBARCH", "generic_64");
    stand.env.set("QUERN_SOURCE_MAX_AGE", "3650").set("QUERN_BUILD_PROFILE", "gentoo:default/linux/amd64/23.0");
    let tree = copy(&stand, "raspi");
    let target = tree.join("target/quern.toml");
    fs::write(&target, fs::read_to_string(&target).unwrap() + MACHINE).unwrap();

    // The questions of a recipe that have no answer are in one error, before anything is fetched.
    let player = tree.join("target/raspi3/player");
    let build_of = |image: &Path, answers: &[&str]| {
        let answers = answers.iter().flat_map(|answer| ["--answer", answer]);
        stand.env.run(["build", text(image)].into_iter().chain(answers))
    };
    let build = |answers: &[&str]| build_of(&player, answers);
    let refused = build(&[]).code(2);
    assert!(refused.stderr.contains("no answer to `root-password`"), "{}", refused.stderr);
    let password = format!("root-password={PASSWORD}");
    let mut answers = vec![&*password, "user=ada", "wifi=home:sesame-sesame", "hostname=berry"];
    let refused = build(&answers).code(2);
    for said in ["2 mistakes", "no answer to `room`", "no answer to `music`", "--answer music=…"] {
        assert!(refused.stderr.contains(said) && !refused.stderr.contains("looking for"), "{said}: {}", refused.stderr);
    }
    answers.extend(["music=nfs://192.0.2.1/music", "room=The Attic"]);
    let wrong = build(&answers).code(2);
    assert!(wrong.stderr.contains("the answer to `room` is not valid"), "{}", wrong.stderr);
    answers.pop();
    answers.push("room=attic");
    let built = build_of(&tree.join("..."), &answers).success();
    assert!(!built.stderr.contains(PASSWORD) && !built.stderr.contains("sesame"), "{}", built.stderr);

    let raspi = stand.env.outdir().join("raspi/target/raspi3-2023-11-14.tar.gz");
    assert_eq!((content(&raspi, "etc/hostname"), content(&raspi, "etc/timezone")), ("berry\n".into(), "UTC\n".into()));
    assert_eq!(content(&raspi, "etc/locales"), "en_US.UTF-8 UTF-8\n");
    let accounts = content(&raspi, "etc/passwd");
    assert!(accounts.lines().any(|line| line.starts_with("ada:x:1000:") && line.ends_with(":/bin/bash")), "{accounts}");
    let groups = content(&raspi, "etc/group");
    assert!(groups.lines().any(|line| line.starts_with("video:") && line.ends_with("ada")), "{groups}");
    let shadow = content(&raspi, "etc/shadow");
    assert!(shadow.starts_with("root:$6$rounds=65536$") && !shadow.contains(PASSWORD), "{shadow}");
    let key = fs::read_to_string(tree.join("target/raspi3/keys/me.pub")).unwrap();
    assert_eq!(content(&raspi, "home/ada/.ssh/authorized_keys"), key);
    let wifi = content(&raspi, "etc/wpa_supplicant/wpa_supplicant.conf");
    assert!(wifi.contains("ssid=\"home\"") && !wifi.contains("sesame"), "{wifi}");
    assert!(content(&raspi, "etc/inittab").starts_with("s0:12345:respawn:/sbin/agetty -L 115200 ttyAMA0 vt100\n"));
    let files = listed(&raspi);
    for service in ["dbus", "chronyd", "NetworkManager", "metalog", "avahi-daemon"] {
        assert!(files.contains(&format!("./etc/runlevels/default/{service}")), "{service}: {files:?}");
    }
    assert!(files.contains(&"./etc/runlevels/boot/swclock".to_owned()), "{files:?}");
    assert!(!files.iter().any(|file| file.starts_with("./boot/k") || file.ends_with("/mpd")), "{files:?}");
    let boot = stand.env.outdir().join("raspi/target/raspi3-2023-11-14.boot.tar.gz");
    assert!(listed(&boot).iter().any(|file| file.ends_with("/kernel")));

    // The appliance starts from it, and has the name that its own question gave.
    let player = stand.env.outdir().join("raspi/target/raspi3/player-2023-11-14.tar.gz");
    assert_eq!(content(&player, "etc/hostname"), "player-attic\n");
    assert_eq!(content(&player, "etc/mpd.conf"), "music_directory \"nfs://192.0.2.1/music\"\n");
    assert_eq!(
        (content(&player, "etc/motd"), content(&player, "etc/inittab")),
        ("player, an appliance\n".into(), String::new())
    );
    assert!(listed(&player).contains(&"./etc/runlevels/default/mpd".to_owned()));
    assert_eq!(content(&player, "home/ada/.ssh/authorized_keys"), key);
}
