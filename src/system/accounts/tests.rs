use crate::recipe::{GroupSpec, Password, System, UserSpec};
use crate::system::tests::{Memory, gentoo, made, refused};
use crate::system::{Access, Change};

const KEY: &str = "ssh-ed25519 AAAA me";

fn user(name: &str) -> UserSpec {
    UserSpec { name: name.to_owned(), ..UserSpec::default() }
}

fn group(name: &str) -> GroupSpec {
    GroupSpec { name: name.to_owned(), ..GroupSpec::default() }
}

fn of(users: Vec<UserSpec>, groups: Vec<GroupSpec>) -> System {
    System { users, groups, ..System::default() }
}

fn last<'a>(tree: &'a Memory, path: &str) -> &'a str {
    tree.text(path).lines().last().unwrap()
}

#[test]
fn a_new_user_has_a_group_a_home_and_a_lock() {
    let me = UserSpec { groups: vec!["wheel".to_owned()], ssh_keys: vec![KEY.to_owned()], ..user("me") };
    let (after, outcome) = made(&of(vec![me, user("you")], Vec::new()), &gentoo());
    let passwd: Vec<&str> = after.text("/etc/passwd").lines().skip(2).collect();
    assert_eq!(passwd, ["me:x:1000:1000::/home/me:/bin/bash", "you:x:1001:1001::/home/you:/bin/bash"]);
    let group = "root:x:0:root\nwheel:x:10:root,me\nnogroup:x:65533:\nme:x:1000:\nyou:x:1001:\n";
    assert_eq!(after.text("/etc/group"), group);
    assert_eq!(after.text("/etc/gshadow"), "root:::root\nwheel:::root,me\nnogroup:::\nme:!::\nyou:!::\n");
    let shadow: Vec<&str> = after.text("/etc/shadow").lines().skip(2).collect();
    assert_eq!(shadow, ["me:*:20000:0:99999:7:::", "you:!:20000:0:99999:7:::"]);
    let owner = (1000, 1000);
    let home: Vec<&Change> = outcome.changes.iter().skip(4).take(6).collect();
    let file = |path: &str, text: &str, mode| Change::File {
        path: path.to_owned(),
        bytes: text.into(),
        access: Access::Exactly(mode, owner),
    };
    let directory = |path: &str, mode| Change::Directory { path: path.to_owned(), mode, owner };
    let expected = [
        directory("/home/me", 0o700),
        file("/home/me/.bashrc", "skel", 0o644),
        directory("/home/me/.config", 0o755),
        file("/home/me/.config/x", "y", 0o644),
        directory("/home/me/.ssh", 0o700),
        file("/home/me/.ssh/authorized_keys", "ssh-ed25519 AAAA me\n", 0o600),
    ];
    assert_eq!(home, expected.iter().collect::<Vec<_>>());
}

#[test]
fn an_existing_user_is_changed_and_keeps_its_id() {
    let secret = crate::recipe::Secret {
        name: "s".to_owned(),
        rebuild: true,
        value: crate::recipe::SecretValue::new(b"hunter2".to_vec()),
    };
    let root = UserSpec {
        password: Some(Password::Secret(secret)),
        shell: Some("/bin/sh".to_owned()),
        ssh_keys: vec![KEY.to_owned()],
        ..user("root")
    };
    let keys = format!("old\n{KEY}");
    let tree = gentoo().with("/root/.ssh/authorized_keys", &keys);
    let (after, outcome) = made(&of(vec![root.clone()], Vec::new()), &tree);
    assert_eq!(after.text("/etc/passwd").lines().next().unwrap(), "root:x:0:0:root:/root:/bin/sh");
    assert_eq!(after.text("/etc/shadow").lines().next().unwrap(), "root:$6$hash:20000:0:::::");
    assert_eq!(after.text("/root/.ssh/authorized_keys"), format!("{keys}\n"));
    assert!(outcome.warnings[0].contains("no /bin/sh, the shell of the user root"), "{:?}", outcome.warnings);
    let locked = UserSpec { locked: Some(true), ..root };
    let (after, _) = made(&of(vec![locked], Vec::new()), &gentoo());
    assert_eq!(after.text("/etc/shadow").lines().next().unwrap(), "root:!$6$hash:20000:0:::::");
    let other = UserSpec { uid: Some(7), ..user("root") };
    assert!(refused(&of(vec![other], Vec::new()), &gentoo()).contains("`root` of the tree has the id 0, not 7"));
    let open = UserSpec { locked: Some(false), ..user("root") };
    assert!(refused(&of(vec![open], Vec::new()), &gentoo()).contains("no password to unlock"));
    // Nothing to change: the files stay as they are.
    assert_eq!(made(&of(vec![user("root")], Vec::new()), &gentoo()).1.changes, []);
}

#[test]
fn ids_are_the_next_free_ones() {
    let tree = gentoo().with("/etc/group", "root:x:0:root\nusers:x:100:\ntaken:x:1000:\nold:x:999:\n");
    let daemon = UserSpec { system: true, ..user("daemon") };
    let given = UserSpec { uid: Some(1500), gid: Some("users".to_owned()), ..user("given") };
    let groups = vec![GroupSpec { system: true, ..group("own") }, GroupSpec { gid: Some(77), ..group("web") }];
    let (after, _) = made(&of(vec![user("me"), daemon, given], groups), &tree);
    let passwd: Vec<&str> = after.text("/etc/passwd").lines().skip(2).collect();
    let expected = [
        "me:x:1001:1001::/home/me:/bin/bash",
        "daemon:x:997:997::/dev/null:/sbin/nologin",
        "given:x:1500:100::/home/given:/bin/bash",
    ];
    assert_eq!(passwd, expected);
    assert!(after.text("/etc/group").contains("own:x:998:\nweb:x:77:\nme:x:1001:\ndaemon:x:997:\n"));
    let taken = UserSpec { uid: Some(0), ..user("toor") };
    assert!(refused(&of(vec![taken], Vec::new()), &gentoo()).contains("the id 0 of the user `toor` belongs to `root`"));
    let taken = GroupSpec { gid: Some(10), ..group("web") };
    assert!(refused(&of(Vec::new(), vec![taken]), &gentoo()).contains("belongs to `wheel`"));
    let other = GroupSpec { gid: Some(11), ..group("wheel") };
    assert!(refused(&of(Vec::new(), vec![other]), &gentoo()).contains("has the id 10, not 11"));
}

#[test]
fn unknown_users_and_groups_are_refused_with_those_there_are() {
    let me = UserSpec { groups: vec!["whel".to_owned()], ..user("me") };
    let said = refused(&of(vec![me], Vec::new()), &gentoo());
    assert!(said.contains("no group `whel`; did you mean wheel? it has me, nogroup, root, wheel"), "{said}");
    let web = GroupSpec { members: vec!["you".to_owned()], ..group("web") };
    let said = refused(&of(Vec::new(), vec![web.clone()]), &gentoo());
    assert!(said.contains("no user `you`; it has nobody, root"), "{said}");
    let (after, _) = made(&of(vec![user("you")], vec![web]), &gentoo());
    assert_eq!(last(&after, "/etc/group"), "you:x:1001:");
    assert!(after.text("/etc/group").contains("web:x:1000:you\n"));
    let me = UserSpec { gid: Some("nope".to_owned()), ..user("me") };
    assert!(refused(&of(vec![me], Vec::new()), &gentoo()).contains("no group `nope`"));
}

#[test]
fn a_tree_without_account_files_gets_them() {
    let root = UserSpec { password: Some(Password::Hash("$6$x$y".to_owned())), ..user("root") };
    let (after, _) = made(&of(vec![root, user("me")], Vec::new()), &Memory::default());
    assert_eq!(after.text("/etc/passwd"), "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n");
    assert_eq!(after.text("/etc/group"), "root:x:0:\nme:x:1000:\n");
    assert_eq!(after.text("/etc/shadow"), "root:$6$x$y:20000:0:99999:7:::\nme:!:20000:0:99999:7:::\n");
}

#[test]
fn a_file_in_the_way_of_a_home_is_refused() {
    let me = UserSpec { ssh_keys: vec![KEY.to_owned()], ..user("me") };
    let said = refused(&of(vec![me.clone()], Vec::new()), &gentoo().with("/home/me", "x"));
    assert!(said.contains("the home /home/me is not a directory"), "{said}");
    let said = refused(&of(vec![me], Vec::new()), &gentoo().with("/home/me/.ssh", "->/etc"));
    assert!(said.contains("/home/me/.ssh is not a directory"), "{said}");
}
