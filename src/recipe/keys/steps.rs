//! The keys of `[[step]]` and of the tables in it.

use super::uses::STEP_BINDS;
use super::{Entries, Key, Type, key};

/// The keys of a step.
pub(in crate::recipe) const STEP: &[Key] = &[
    key("", "name", Type::Str, r#"name = "configure""#),
    key("", "run", Type::Str, r#"run = "echo hello > /etc/motd""#),
    key("", "script", Type::Str, r#"script = "configure.sh""#),
    key("", "emerge", Type::Strs, r#"emerge = ["app-misc/hello"]"#),
    key("", "unmerge", Type::Strs, r#"unmerge = ["sys-apps/man-pages"]"#),
    key("", "depclean", Type::Bool, "depclean = true"),
    key("", "rebuild", Type::Strs, r#"rebuild = ["preserved"]"#),
    key("", "copy", Type::Entries(&COPIES), r#"copy = [{ from = "skel", to = "/" }]"#),
    key("", "write", Type::Entries(&WRITES), r#"write = [{ to = "/etc/motd", text = "hello\n" }]"#),
    key("", "delete", Type::Strs, r#"delete = ["/etc/motd"]"#),
    key("", "step", Type::Steps, r#"step = [{ name = "inner", run = "true" }]"#),
    key("", "at", Type::Str, r#"at = "end""#),
    key("", "before", Type::Str, r#"before = "configure""#),
    key("", "after", Type::Str, r#"after = "configure""#),
    key("", "in", Type::Str, r#"in = "builder""#),
    key("", "shell", Type::Strs, r#"shell = ["/bin/sh", "-e"]"#),
    key("", "args", Type::Strs, r#"args = ["--verbose"]"#),
    key("", "template", Type::Bool, "template = true"),
    key("", "vars", Type::Strs, r#"vars = ["HOST_NAME"]"#),
    key("", "env", Type::Map, r#"env = { LANG = "C" }"#),
    key("", "network", Type::Bool, "network = true"),
    key("", "user", Type::Str, r#"user = "portage:portage""#),
    key("", "workdir", Type::Str, r#"workdir = "/srv""#),
    key("", "tty", Type::Bool, "tty = true"),
    key("", "timeout", Type::Str, r#"timeout = "10m""#),
    key("", "creates", Type::Strs, r#"creates = ["/etc/motd"]"#),
    key("", "refresh", Type::Str, r#"refresh = "7d""#),
    key("", "skip", Type::Bool, "skip = true"),
    key("", "binds", Type::Entries(&STEP_BINDS), r#"binds = ["skel", { from = "data", at = "/mnt/data" }]"#),
    key("", "sysroot", Type::Bool, "sysroot = false"),
    key("", "fetch", Type::Strs, r#"fetch = ["patch"]"#),
    key("", "caches", Type::Strs, r#"caches = ["pip"]"#),
    key("", "volumes", Type::Strs, r#"volumes = ["entropy"]"#),
    key("", "daemons", Type::Strs, r#"daemons = ["distccd"]"#),
    key("", "secrets", Type::Strs, r#"secrets = ["token"]"#),
    key("", "leak", Type::Str, r#"leak = "allow""#),
    key("", "tmpfs", Type::Strs, r#"tmpfs = ["/var/tmp/build:1G"]"#),
];

/// The entries of `copy`.
const COPIES: Entries = Entries {
    list: "step.copy",
    of: "a copy",
    expected: "an array of tables",
    entry: "a table",
    strings: false,
    keys: &[
        key("", "from", Type::Str, r#"from = "skel""#),
        key("", "to", Type::Str, r#"to = "/etc""#),
        key("", "mode", Type::Str, r#"mode = "0644""#),
        key("", "owner", Type::Str, r#"owner = "root:wheel""#),
        key("", "exclude", Type::Strs, r#"exclude = ["*.orig"]"#),
    ],
};

/// The entries of `write`.
const WRITES: Entries = Entries {
    list: "step.write",
    of: "a file to write",
    expected: "an array of tables",
    entry: "a table",
    strings: false,
    keys: &[
        key("", "to", Type::Str, r#"to = "/etc/motd""#),
        key("", "text", Type::Str, r#"text = "hello\n""#),
        key("", "mode", Type::Str, r#"mode = "0644""#),
        key("", "owner", Type::Str, r#"owner = "root:wheel""#),
        key("", "template", Type::Bool, "template = true"),
    ],
};

/// The lists of tables in a step.
pub(super) const LISTS: [&Entries; 3] = [&COPIES, &WRITES, &STEP_BINDS];
