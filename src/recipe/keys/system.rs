//! The keys of `[system]`.

use super::{Entries, Key, Type, key};

const USERS: Entries = named(
    "system.users",
    "a user",
    &[
        key("", "uid", Type::Int, "uid = 1000"),
        key("", "gid", Type::Id, r#"gid = "users""#),
        key("", "groups", Type::Strs, r#"groups = ["wheel", "video"]"#),
        key("", "shell", Type::Str, r#"shell = "/bin/bash""#),
        key("", "home", Type::Str, r#"home = "/home/me""#),
        key("", "comment", Type::Str, r#"comment = "Ada Lovelace""#),
        key("", "system", Type::Bool, "system = true"),
        key("", "password", Type::Keys(PASSWORD), r#"password = { secret = "root-password" }"#),
        key("", "password-hash", Type::Str, r#"password-hash = "$6$…""#),
        key("", "locked", Type::Bool, "locked = true"),
        key("", "ssh-keys", Type::Strs, r#"ssh-keys = ["keys/me.pub"]"#),
        key("", "home-files", Type::Str, r#"home-files = "skel""#),
    ],
);

const PASSWORD: &[Key] = &[key("", "secret", Type::Str, r#"secret = "root-password""#)];

const GROUPS: Entries = named(
    "system.groups",
    "a group",
    &[
        key("", "gid", Type::Int, "gid = 1000"),
        key("", "system", Type::Bool, "system = true"),
        key("", "members", Type::Strs, r#"members = ["me"]"#),
    ],
);

const FILES: Entries = Entries {
    list: "system.files",
    of: "a file",
    expected: "an array of tables",
    entry: "a table",
    strings: false,
    keys: &[
        key("", "to", Type::Str, r#"to = "/etc/exports""#),
        key("", "text", Type::Str, r#"text = "hello\n""#),
        key("", "from", Type::Str, r#"from = "skel""#),
        key("", "mode", Type::Str, r#"mode = "0644""#),
        key("", "owner", Type::Str, r#"owner = "root:wheel""#),
        key("", "template", Type::Bool, "template = true"),
    ],
};

const LOCALE: &[Key] = &[
    key("", "lang", Type::Str, r#"lang = "en_US.UTF-8""#),
    key("", "generate", Type::Strs, r#"generate = ["en_US.UTF-8 UTF-8"]"#),
];

const UNITS: &[Key] = &[
    key("", "enable", Type::Strs, r#"enable = ["fstrim.timer"]"#),
    key("", "disable", Type::Strs, r#"disable = ["sshd.socket"]"#),
    key("", "mask", Type::Strs, r#"mask = ["tmp.mount"]"#),
    key("", "default-target", Type::Str, r#"default-target = "multi-user.target""#),
];

/// The tables by name, and the lists of tables.
pub(super) const ENTRIES: [&Entries; 3] = [&USERS, &GROUPS, &FILES];

/// The tables of their own.
pub(super) const TABLES: [(&str, &[Key]); 3] =
    [("system.locale", LOCALE), ("system.units", UNITS), ("system.users.password", PASSWORD)];

/// The keys.
pub(super) const KEYS: [Key; 17] = [
    key("system", "init", Type::Str, r#"init = "openrc""#),
    key("system", "hostname", Type::Str, r#"hostname = "box""#),
    key("system", "users", Type::Named(&USERS), r#"users = { me = { groups = ["wheel"] } }"#),
    key("system", "groups", Type::Named(&GROUPS), r#"groups = { web = { members = ["me"] } }"#),
    key("system", "services", Type::Strs, r#"services = ["sshd", "-hwclock"]"#),
    key("system", "runlevels", Type::Lists, r#"runlevels = { boot = ["-hwclock", "swclock"] }"#),
    key("system", "units", Type::Keys(UNITS), r#"units = { enable = ["fstrim.timer"] }"#),
    key("system", "files", Type::Entries(&FILES), r#"files = [{ to = "/etc/exports", text = "/srv *(ro)\n" }]"#),
    key("system", "locale", Type::Keys(LOCALE), r#"locale = { lang = "en_US.UTF-8" }"#),
    key("system", "timezone", Type::Str, r#"timezone = "Europe/Berlin""#),
    key("system", "keymap", Type::Str, r#"keymap = "de""#),
    key("system", "modules", Type::Strs, r#"modules = ["loop"]"#),
    key("system", "modules-blacklist", Type::Strs, r#"modules-blacklist = ["pcspkr"]"#),
    key("system", "sysctl", Type::Variables, r#"sysctl = { "net.ipv4.ip_forward" = 1 }"#),
    key("system", "fstab", Type::Strs, r#"fstab = ["/dev/vda1 / ext4 defaults 0 1"]"#),
    key("system", "motd", Type::Str, r#"motd = "hello\n""#),
    key("system", "issue", Type::Str, r#"issue = "box \\l\n""#),
];

const fn named(list: &'static str, of: &'static str, keys: &'static [Key]) -> Entries {
    Entries { list, of, expected: "a table of tables", entry: "a table", strings: false, keys }
}
