//! Settings of whole trees, which exist in memory only.

use std::collections::BTreeMap;

use super::*;
use crate::recipe::{GroupSpec, Init, Password, Switch, Units, UserSpec, WriteSpec};

/// A tree in memory: files with their text, and symlinks, whose text begins with `->`. Symlinks are not followed.
#[derive(Debug, Default, Clone)]
pub(super) struct Memory(BTreeMap<String, String>);

impl Memory {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }

    pub(super) fn with(mut self, path: &str, text: &str) -> Self {
        self.0.insert(path.to_owned(), text.to_owned());
        self
    }

    /// Makes the changes of an outcome.
    pub(super) fn apply(&mut self, outcome: &Outcome) {
        for change in &outcome.changes {
            match change {
                Change::File { path, bytes, .. } => {
                    _ = self.0.insert(path.clone(), String::from_utf8(bytes.clone()).unwrap());
                }
                Change::Link { path, target, .. } => _ = self.0.insert(path.clone(), format!("->{target}")),
                Change::Remove(path) => _ = self.0.remove(path),
                Change::Directory { .. } | Change::Copy(_) | Change::RemoveEmpty(_) => {}
            }
        }
    }

    pub(super) fn text(&self, path: &str) -> &str {
        self.0.get(path).map(String::as_str).unwrap_or_else(|| panic!("no {path} in {:?}", self.0.keys()))
    }
}

impl Tree for Memory {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(path).map(|text| text.clone().into_bytes()))
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        let below = self.0.keys().filter_map(|file| file.strip_prefix(path)?.strip_prefix('/'));
        let mut names: Vec<String> = below.map(|rest| rest.split('/').next().unwrap_or_default().to_owned()).collect();
        names.dedup();
        Ok((!names.is_empty()).then_some(names))
    }

    fn look(&self, path: &str) -> Result<Option<Node>> {
        Ok(match self.0.get(path) {
            Some(text) => Some(text.strip_prefix("->").map_or(Node::File(0o644), |to| Node::Link(to.to_owned()))),
            None => self.list(path)?.map(|_| Node::Directory(0o755)),
        })
    }
}

/// A small tree with OpenRC.
pub(super) fn gentoo() -> Memory {
    Memory::new(&[
        ("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n"),
        ("/etc/group", "root:x:0:root\nwheel:x:10:root\nnogroup:x:65533:\n"),
        ("/etc/shadow", "root:*:10770:0:::::\nnobody:*:9797:0:::::\n"),
        ("/etc/gshadow", "root:::root\nwheel:::root\nnogroup:::\n"),
        ("/etc/init.d/sshd", "#!/sbin/openrc-run\n"),
        ("/etc/init.d/cron", "#!/sbin/openrc-run\n"),
        ("/etc/init.d/functions.sh", ""),
        ("/etc/runlevels/boot/hwclock", "->/etc/init.d/hwclock"),
        ("/etc/init.d/hwclock", ""),
        ("/etc/conf.d/hostname", "# Set to the hostname of this machine\nhostname=\"localhost\"\n"),
        ("/etc/skel/.bashrc", "skel"),
        ("/etc/skel/.config/x", "y"),
        ("/bin/bash", ""),
        ("/sbin/openrc", ""),
        ("/usr/share/zoneinfo/Europe/Paris", ""),
        ("/usr/share/zoneinfo/Europe/Berlin", ""),
        ("/usr/share/zoneinfo/UTC", ""),
    ])
}

#[track_caller]
pub(super) fn made(system: &System, tree: &Memory) -> (Memory, Outcome) {
    let facts = Facts { day: 20_000, hashes: BTreeMap::from([("root".to_owned(), "$6$hash".to_owned())]) };
    let outcome = settings(system, tree, &facts).unwrap_or_else(|error| panic!("{error} {:?}", error.hint()));
    let mut after = tree.clone();
    after.apply(&outcome);
    (after, outcome)
}

#[track_caller]
pub(super) fn refused(system: &System, tree: &Memory) -> String {
    let error = settings(system, tree, &Facts::default()).unwrap_err();
    assert_eq!(error.kind(), crate::base::error::Kind::Build);
    format!("{error}; {}", error.hint().unwrap_or_default())
}

pub(super) fn switches(names: &[&str]) -> Vec<Switch> {
    let switch = |name: &&str| Switch { name: name.trim_start_matches('-').to_owned(), on: !name.starts_with('-') };
    names.iter().map(switch).collect()
}

#[test]
fn settings_have_the_formats_of_their_files() {
    let system = System {
        hostname: Some("box".to_owned()),
        timezone: Some("Europe/Paris".to_owned()),
        keymap: Some("de".to_owned()),
        lang: Some("en_US.UTF-8".to_owned()),
        modules: vec!["loop".to_owned()],
        modules_blacklist: vec!["pcspkr".to_owned()],
        sysctl: BTreeMap::from([("net.ipv4.ip_forward".to_owned(), "1".to_owned())]),
        fstab: Some(vec!["/dev/vda1 / ext4 defaults 0 1".to_owned()]),
        motd: Some("hello\n".to_owned()),
        ..System::default()
    };
    let profile = "# made\nexport LANG='C'\nexport PATH='/bin'\n";
    let (after, _) = made(&system, &gentoo().with("/etc/profile.env", profile));
    for (path, text) in [
        ("/etc/hostname", "box\n"),
        ("/etc/conf.d/hostname", "# Set to the hostname of this machine\nhostname=\"box\"\n"),
        ("/etc/localtime", "->../usr/share/zoneinfo/Europe/Paris"),
        ("/etc/timezone", "Europe/Paris\n"),
        ("/etc/conf.d/keymaps", "keymap=\"de\"\n"),
        ("/etc/env.d/02locale", "LANG=\"en_US.UTF-8\"\n"),
        ("/etc/profile.env", "# made\nexport LANG='en_US.UTF-8'\nexport PATH='/bin'\n"),
        ("/etc/modules-load.d/quern.conf", "loop\n"),
        ("/etc/modprobe.d/quern.conf", "blacklist pcspkr\n"),
        ("/etc/sysctl.d/quern.conf", "net.ipv4.ip_forward = 1\n"),
        ("/etc/fstab", "/dev/vda1 / ext4 defaults 0 1\n"),
        ("/etc/motd", "hello\n"),
    ] {
        assert_eq!(after.text(path), text, "{path}");
    }
    assert!(after.look("/etc/locale.conf").unwrap().is_none() && after.look("/etc/issue").unwrap().is_none());
    let systemd = Memory::new(&[("/usr/lib/systemd/systemd", ""), ("/usr/share/zoneinfo/Europe/Paris", "")]);
    let (after, _) = made(&system, &systemd);
    assert_eq!(
        (after.text("/etc/locale.conf"), after.text("/etc/vconsole.conf")),
        ("LANG=en_US.UTF-8\n", "KEYMAP=de\n")
    );
    assert!(after.look("/etc/conf.d").unwrap().is_none() && after.look("/etc/env.d").unwrap().is_none());
}

#[test]
fn an_unknown_time_zone_names_those_of_its_region() {
    let zone = |zone: &str| System { timezone: Some(zone.to_owned()), ..System::default() };
    let said = refused(&zone("Europe/Pariss"), &gentoo());
    assert!(said.contains("no time zone `Europe/Pariss`; did you mean Europe/Paris?"), "{said}");
    assert!(refused(&zone("Europe/Rome"), &gentoo()).contains("it has Europe/Berlin, Europe/Paris"));
    assert!(refused(&zone("Mars/Base"), &gentoo()).contains("it has Europe, UTC"));
    assert!(refused(&zone("Europe"), &gentoo()).contains("no time zone"));
    assert!(refused(&zone("UTC"), &Memory::default()).contains("sys-libs/timezone-data"));
}

#[test]
fn locales_are_made_by_glibc_alone() {
    let system = System { locales: vec!["en_US.UTF-8 UTF-8".to_owned()], ..System::default() };
    let (after, outcome) = made(&system, &gentoo().with("/usr/sbin/locale-gen", ""));
    assert_eq!(after.text("/etc/locale.gen"), "en_US.UTF-8 UTF-8\n");
    assert_eq!(outcome.command, Some(vec!["/usr/sbin/locale-gen".to_owned()]));
    let (_, outcome) = made(&system, &gentoo().with("/lib/ld-musl-x86_64.so.1", ""));
    assert!(outcome.command.is_none() && outcome.changes.is_empty() && outcome.warnings[0].contains("musl"));
    assert!(refused(&system, &gentoo()).contains("no locale-gen"));
}

#[test]
fn services_of_openrc_are_links_to_their_scripts() {
    let system = System {
        services: switches(&["sshd"]),
        runlevels: BTreeMap::from([
            ("boot".to_owned(), switches(&["-hwclock", "cron", "-nope"])),
            ("own".to_owned(), switches(&["sshd"])),
        ]),
        ..System::default()
    };
    let (after, outcome) = made(&system, &gentoo());
    assert_eq!(after.text("/etc/runlevels/default/sshd"), "->/etc/init.d/sshd");
    assert_eq!(after.text("/etc/runlevels/boot/cron"), "->/etc/init.d/cron");
    assert_eq!(after.text("/etc/runlevels/own/sshd"), "->/etc/init.d/sshd");
    assert!(after.look("/etc/runlevels/boot/hwclock").unwrap().is_none());
    assert!(outcome.warnings[0].contains("no service nope"), "{:?}", outcome.warnings);
    let (_, again) = made(&system, &after);
    assert_eq!(again.changes, []);
    let wrong = System { services: switches(&["nope"]), ..System::default() };
    let said = refused(&wrong, &gentoo());
    assert!(said.contains("no service `nope`") && said.contains("it has cron, hwclock, sshd"), "{said}");
    let none = refused(&wrong, &Memory::default());
    assert!(none.contains("neither OpenRC nor systemd"), "{none}");
}

#[test]
fn the_init_system_is_that_of_the_tree() {
    let both = gentoo().with("/usr/lib/systemd/systemd", "");
    let init = |tree: &Memory| services::init(None, tree).unwrap();
    assert_eq!(init(&both), Some(Init::OpenRc));
    assert_eq!(init(&both.clone().with("/sbin/init", "->../lib/systemd/systemd")), Some(Init::Systemd));
    assert_eq!(services::init(Some(Init::Systemd), &gentoo()).unwrap(), Some(Init::Systemd));
    assert_eq!(init(&Memory::new(&[("/etc/init.d/x", "")])), Some(Init::OpenRc));
    assert_eq!(init(&Memory::default()), None);
    let units = Units { enable: vec!["x.service".to_owned()], ..Units::default() };
    let said = refused(&System { units, ..System::default() }, &gentoo());
    assert!(said.contains("the init system of the tree is OpenRC"), "{said}");
}

#[test]
fn files_belong_to_users_that_the_settings_make() {
    let spec = |owner: &str| WriteSpec {
        to: "/srv/x".into(),
        text: "x".to_owned(),
        mode: None,
        owner: Some(owner.to_owned()),
    };
    let system = |owner: &str| System {
        users: vec![UserSpec { name: "me".to_owned(), ..UserSpec::default() }],
        files: vec![FileSpec::Write(spec(owner))],
        ..System::default()
    };
    let owner = |text: &str| match made(&system(text), &gentoo()).1.changes.last() {
        Some(Change::File { access: Access::Exactly(0o644, owner), .. }) => *owner,
        other => panic!("{other:?}"),
    };
    assert_eq!((owner("me"), owner("me:wheel"), owner("7:8"), owner("7")), ((1000, 1000), (1000, 10), (7, 8), (7, 7)));
    assert!(refused(&system("you"), &gentoo()).contains("no user `you`"));
    assert!(refused(&system("me:us"), &gentoo()).contains("no group `us`"));
}

#[test]
fn a_malformed_file_changes_nothing() {
    let system = System {
        hostname: Some("box".to_owned()),
        groups: vec![GroupSpec { name: "web".to_owned(), ..GroupSpec::default() }],
        users: vec![UserSpec {
            name: "root".to_owned(),
            password: Some(Password::Hash("$6$x$y".to_owned())),
            ..UserSpec::default()
        }],
        ..System::default()
    };
    let said = refused(&system, &gentoo().with("/etc/shadow", "root:*\n"));
    assert!(said.contains("reading /etc/shadow of the tree: line 1 has 2 fields instead of 9"), "{said}");
}
