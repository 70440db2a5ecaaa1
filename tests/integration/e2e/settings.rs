//! Settings of images, judged by the programs that read the files.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Stand, ask, text};
use crate::env::{Output, Privilege, output, twins};

/// The password of root.
const PASSWORD: &str = "hunter2/hunter2?s1";

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDi5KhFRKJIC8RBkUOsaX9ePuk+iV/bqygVAPBV69Nk3 me@example.org";

/// The settings of most tests.
fn settings() -> String {
    format!(
        "[secret.s]\nfile = \"s\"\n[system]\nhostname = \"box\"\ntimezone = \"Europe/Paris\"\nservices = [\"sshd\"]\n\
         runlevels = {{ boot = [\"cron\"] }}\nusers.me = {{ groups = [\"portage\"], ssh-keys = [\"{KEY}\"] }}\n\
         users.root = {{ password = {{ secret = \"s\" }} }}\nmodules = [\"loop\"]\n\
         files = [{{ to = \"/etc/own\", text = \"own\", mode = \"0640\", owner = \"me:portage\" }}]\n"
    )
}

/// A stage4 with scripts of OpenRC and time zones. `name` keeps its layers from those of other tests.
fn head(name: &str) -> String {
    format!(
        "kind = \"stage4\"\n[emerge]\npackages = []\n[[step]]\nname = \"files\"\nrun = '''\n: {name}\n\
         mkdir -p /etc/init.d /etc/runlevels/boot /usr/share/zoneinfo/Europe\n\
         touch /etc/init.d/sshd /etc/init.d/cron /usr/share/zoneinfo/Europe/Paris\n'''\n"
    )
}

/// Unpacks a tarball.
fn unpacked(stand: &Stand, tarball: &Path) -> PathBuf {
    let to = stand.env.path("unpacked");
    if to.exists() {
        fs::remove_dir_all(&to).unwrap();
    }
    fs::create_dir(&to).unwrap();
    let _ = ask("tar", &["--extract", "--numeric-owner", "--same-owner", "-p", "-f", text(tarball), "-C", text(&to)]);
    to
}

/// Runs a judge of account files in a tree, and returns its complaints about the accounts that the settings made.
fn judged(program: &str, tree: &Path) -> String {
    let found = output(Command::new(program).args(["-r", "-R", text(tree)]));
    let said = format!("{}{}", found.stdout, found.stderr);
    // Debian's own accounts have homes that do not exist, and an image without a shell has none.
    let others = |line: &&str| {
        line.ends_with("does not exist")
            && (line.contains("program '/bin/sh'") || !line.contains("'me'") && !line.contains("'root'"))
    };
    let rest = |line: &&str| !others(line) && !line.ends_with("no changes");
    said.lines().filter(rest).collect::<Vec<_>>().join("\n")
}

/// Checks the files that [`settings`] describes in a tree.
#[track_caller]
fn check(tree: &Path) {
    let read = |path: &str| fs::read_to_string(tree.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let link = |path: &str| fs::read_link(tree.join(path)).unwrap().display().to_string();
    assert_eq!(link("etc/runlevels/default/sshd"), "/etc/init.d/sshd");
    assert_eq!(link("etc/runlevels/boot/cron"), "/etc/init.d/cron");
    assert_eq!(link("etc/localtime"), "../usr/share/zoneinfo/Europe/Paris");
    assert_eq!((read("etc/hostname"), read("etc/timezone")), ("box\n".to_owned(), "Europe/Paris\n".to_owned()));
    assert_eq!((read("etc/conf.d/hostname"), read("etc/own")), ("hostname=\"box\"\n".to_owned(), "own".to_owned()));
    assert_eq!(read("etc/modules-load.d/quern.conf"), "loop\n");
    assert_eq!(read("home/me/.ssh/authorized_keys"), format!("{KEY}\n"));
    let access = |path: &str| {
        let found = fs::symlink_metadata(tree.join(path)).unwrap();
        (found.permissions().mode() & 0o7777, found.uid(), found.gid())
    };
    assert_eq!(access("home/me"), (0o700, 1000, 1000));
    assert_eq!(access("home/me/.ssh"), (0o700, 1000, 1000));
    assert_eq!(access("home/me/.ssh/authorized_keys"), (0o600, 1000, 1000));
    assert_eq!(access("etc/own").0, 0o640);
    assert_eq!(access("etc/own").1, 1000);
    assert_eq!((judged("pwck", tree), judged("grpck", tree)), (String::new(), String::new()));
    assert!(read("etc/passwd").contains("me:x:1000:1000::/home/me:/bin/"), "{}", read("etc/passwd"));
    let listed = read("etc/group").lines().any(|line| line.starts_with("portage:") && line.ends_with("me"));
    assert!(listed && read("etc/group").contains("\nme:x:1000:\n"), "{}", read("etc/group"));
    let shadow = read("etc/shadow");
    let root = shadow.lines().find(|line| line.starts_with("root:")).unwrap();
    let hash = root.split(':').nth(1).unwrap();
    let salt = hash.strip_prefix("$6$rounds=65536$").and_then(|rest| rest.split_once('$')).unwrap().0;
    assert_eq!(salt.len(), 16, "{hash}");
    let made = ask("openssl", &["passwd", "-6", "-salt", &format!("rounds=65536${salt}"), PASSWORD]);
    assert_eq!(made.trim(), hash);
    let key = output(Command::new("ssh-keygen").args(["-lf", text(&tree.join("home/me/.ssh/authorized_keys"))]));
    assert!(key.success().stdout.contains("(ED25519)"));
}

twins!(settings_are_written => root_settings_are_written, userns_settings_are_written);

fn settings_are_written(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("settings-{privilege:?}").to_lowercase();
    stand.env.write("s", format!("{PASSWORD}\n"));
    let recipe = stand.recipe(&name, &(head(&name) + &settings()));
    let plan = stand.env.run(["build", "--dry-run", "-v", text(&recipe)]).success();
    assert!(plan.stdout.contains("@settings   unknown until files has run"), "{}", plan.stdout);
    let built = stand.env.run(["build", "-v", text(&recipe)]).success();
    assert!(built.stderr.contains("writing the settings"), "{}", built.stderr);
    let result = built.results().remove(0);
    check(&unpacked(&stand, &result));
    let nowhere = |value: &str| {
        let found = Command::new("grep").args(["-rlaF", "-e", value]).arg(stand.env.outdir()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    };
    nowhere(PASSWORD);
    for said in [&plan.stdout, &plan.stderr, &built.stderr] {
        assert!(!said.contains(PASSWORD), "{said}");
    }

    // The same again: cached, and the same hash when it runs once more.
    let digest = ask("sha256sum", &[text(&result)]);
    let runs = |built: Output| built.success().stderr.contains("writing the settings");
    assert!(!runs(stand.build_changed(&recipe)));
    assert!(runs(stand.env.run(["build", "--again=@settings", text(&recipe)])));
    assert_eq!(ask("sha256sum", &[text(&result)]), digest);
    let explained = stand.env.run(["explain", text(&recipe), "@settings"]).success().stdout;
    for part in ["@settings  cached", "hostname", "box", "secret s", "    users "] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    assert!(!explained.contains("$6$") && !explained.contains(PASSWORD), "{explained}");
    stand.env.write("s", "hunter3/hunter3?s1\n");
    let changed = stand.build_changed(&recipe).success();
    assert!(changed.stderr.contains("writing the settings (secret s changed)"), "{}", changed.stderr);
    let other = stand.env.run(["build", text(&recipe), "--set", "system.hostname=other"]).success();
    assert!(other.stderr.contains("writing the settings (hostname changed)"), "{}", other.stderr);

    let wrong = (head(&name) + &settings()).replace("\"sshd\"", "\"nope\"");
    let failed = stand.build_changed(&stand.recipe(&name, &wrong)).code(1);
    for part in ["writing the settings: the tree has no service `nope`", "cron", "sshd"] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    let looked = stand.shell(&stand.recipe(&name, &wrong), &["--failed"], &["cat", "/etc/hostname"]);
    assert!(!looked.stdout.contains("box"), "{}", looked.stdout);
}

twins!(an_image_without_a_shell_has_settings => root_an_image_without_a_shell_has_settings, userns_an_image_without_a_shell_has_settings);

fn an_image_without_a_shell_has_settings(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("settings-image-{privilege:?}").to_lowercase();
    stand.env.write("s", PASSWORD);
    let files = format!(
        "kind = \"image\"\nbaselayout-atoms = []\n[emerge]\npackages = []\n[[step]]\nname = \"files\"\nin = \"builder\"\n\
         run = '''\n: {name}\ncd $ROOT\nmkdir -p etc/init.d etc/runlevels/boot usr/share/zoneinfo/Europe\n\
         touch etc/init.d/sshd etc/init.d/cron usr/share/zoneinfo/Europe/Paris\n\
         echo root:x:0:0:root:/root:/bin/sh > etc/passwd\nprintf 'root:x:0:\\nportage:x:250:\\n' > etc/group\n\
         echo root:*:19000:0::::: > etc/shadow\nchmod 600 etc/shadow\nmkdir root\n'''\n"
    );
    let built = stand.build(&stand.recipe(&name, &(files + &settings()))).success();
    let tree = unpacked(&stand, &built.results()[0]);
    check(&tree);
    assert_eq!(fs::metadata(tree.join("etc/shadow")).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Units with every kind of link, and the commands that enable them.
const UNITS: [(&str, &str); 10] = [
    ("foo.service", "[Install]\nWantedBy=multi-user.target\nAlias=bar.service\nAlso=foo.socket\n"),
    ("foo.socket", "[Socket]\nListenStream=1\n[Install]\nWantedBy=sockets.target\n"),
    ("getty@.service", "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n"),
    (
        "t@.service",
        "[Install]\nRequiredBy=a-%i.service \\\n  %p-%j.target\n# WantedBy=no.target\nWantedBy=x@%i.target\n",
    ),
    ("fstrim.timer", "[Timer]\nOnCalendar=weekly\n[Install]\nWantedBy=timers.target\n"),
    ("off.service", "[Install]\nWantedBy=multi-user.target\nAlias=off2.service\n"),
    ("on.service", "[Install]\nWantedBy=multi-user.target\n"),
    ("nothing.service", "[Service]\nExecStart=/bin/true\n"),
    ("multi-user.target", "[Unit]\n"),
    ("tmp.mount", "[Mount]\nWhat=tmpfs\nWhere=/tmp\n"),
];

#[test]
fn root_units_are_enabled_as_systemctl_does() {
    let Some(stand) = Stand::sharing(Privilege::Root) else { return };
    let units: String = UNITS
        .iter()
        .map(|(name, text)| format!("{{ to = \"/usr/lib/systemd/system/{name}\", text = {text:?} }}, "))
        .collect();
    let drop_in =
        "{ to = \"/etc/systemd/system/on.service.d/x.conf\", text = \"[Install]\\nWantedBy=more.target\\n\" }";
    let link = "ln -s fstrim.timer /usr/lib/systemd/system/trim.timer\nln -s foo.service /usr/lib/systemd/system/alias.service\n\
                mkdir -p /etc/systemd/system/multi-user.target.wants\n\
                ln -s /usr/lib/systemd/system/off.service /etc/systemd/system/multi-user.target.wants/off.service\n\
                ln -s /usr/lib/systemd/system/off.service /etc/systemd/system/off2.service";
    let rest = format!(
        "kind = \"stage4\"\n[emerge]\npackages = []\n[[step]]\nname = \"units\"\nwrite = [{units}{drop_in}]\n\
         [[step]]\nname = \"links\"\nrun = '''\n{link}\n'''\n"
    );
    let settings = "[system]\ninit = \"systemd\"\nservices = [\"alias\", \"getty@\", \"getty@tty7\", \"t@a-b\", \"-off\"]\n\
                    units = { enable = [\"trim.timer\", \"on.service\", \"nothing.service\"], mask = [\"tmp.mount\"], \
                    default-target = \"multi-user\" }\n";
    let before = stand.build(&stand.recipe("units-before", &rest)).success().results().remove(0);
    let before = unpacked(&stand, &before);
    let theirs = stand.env.path("theirs");
    fs::rename(&before, &theirs).unwrap();
    for command in [
        &["disable", "off.service"][..],
        &["enable", "alias.service", "getty@.service", "getty@tty7.service", "t@a-b.service"],
        &["enable", "trim.timer", "on.service"],
        &["mask", "tmp.mount"],
        &["set-default", "multi-user.target"],
    ] {
        let _ = output(Command::new("systemctl").arg("--root").arg(&theirs).args(command)).success();
    }
    let built = stand.build(&stand.recipe("units", &(rest + settings))).success();
    assert!(built.stderr.contains("nothing.service has nothing to enable"), "{}", built.stderr);
    let ours = unpacked(&stand, &built.results()[0]);
    // Debian's systemctl knows /usr/lib by the link to it.
    let listing = |tree: &Path| {
        ask(
            "sh",
            &[
                "-c",
                "cd \"$0\" && find . -printf '%P %y %l\\n' | sed 's:l /lib/:l /usr/lib/:' | sort",
                text(&tree.join("etc/systemd/system")),
            ],
        )
    };
    let (ours, theirs) = (listing(&ours), listing(&theirs));
    assert_eq!(ours, theirs);
    for part in
        ["multi-user.target.wants/foo.service l", "sockets.target.wants/foo.socket l", "more.target.wants/on.service l"]
    {
        assert!(ours.contains(part), "{part}: {ours}");
    }
}

#[test]
fn root_settings_stay_in_the_tree() {
    let Some(stand) = Stand::sharing(Privilege::Root) else { return };
    let outside = stand.env.path("outside");
    fs::create_dir(&outside).unwrap();
    let links = "mkdir -p /srv/quern-test\nrm -rf /home\nln -s /../../../srv/quern-test /home\nrm -rf /etc/sysctl.d\n";
    let recipe = |more: &str, sysctl: &str| {
        let step = format!("[[step]]\nname = \"links\"\nrun = '''\n{links}{more}\n'''\n");
        let settings = format!("[system]\nusers.me = {{ ssh-keys = [\"{KEY}\"] }}\n{sysctl}\n");
        stand.recipe("settings-links", &format!("kind = \"stage4\"\n[emerge]\npackages = []\n{step}{settings}"))
    };
    let script =
        "printf '#!/bin/sh\\ncp /etc/locale.gen /made\\n' > /usr/sbin/locale-gen\nchmod +x /usr/sbin/locale-gen";
    let locale = "locale = { lang = \"en_US.UTF-8\", generate = [\"en_US.UTF-8 UTF-8\"] }";
    let built = stand.build(&recipe(script, locale)).success();
    let tree = unpacked(&stand, &built.results()[0]);
    let keys = fs::read_to_string(tree.join("srv/quern-test/me/.ssh/authorized_keys"));
    assert_eq!(keys.unwrap(), format!("{KEY}\n"));
    assert!(!Path::new("/srv/quern-test").exists());
    // The program of the tree made the locales.
    assert_eq!(fs::read_to_string(tree.join("made")).unwrap(), "en_US.UTF-8 UTF-8\n");
    // A place that only this machine has.
    let nowhere = format!("ln -s /../../..{} /etc/sysctl.d", text(&outside));
    let failed = stand.build(&recipe(&nowhere, "sysctl = { \"vm.swappiness\" = 1 }"));
    assert_ne!(failed.code, 0, "{}", failed.stderr);
    assert!(failed.stderr.contains("sysctl.d/quern.conf"), "{}", failed.stderr);
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}
