//! The keys of the things that steps use: binds, caches, volumes, downloads, daemons and secrets.

use super::{Entries, Key, Type, key};

/// The keys of an entry of `binds` in a step.
pub(super) const STEP_BINDS: Entries = Entries {
    list: "step.binds",
    of: "a bind",
    expected: "an array of names or tables",
    entry: "a name or a table",
    strings: true,
    keys: &[
        key("", "from", Type::Str, r#"from = "skel""#),
        key("", "file", Type::Str, r#"file = "hello.conf""#),
        key("", "text", Type::Str, r#"text = "hello\n""#),
        key("", "at", Type::Str, r#"at = "/mnt/skel""#),
        key("", "template", Type::Bool, "template = true"),
        key("", "write", Type::Bool, "write = true"),
    ],
};

const BINDS: Entries = named(
    "bind",
    "a bind",
    &[
        key("", "from", Type::Str, r#"from = "skel""#),
        key("", "file", Type::Str, r#"file = "hello.conf""#),
        key("", "text", Type::Str, r#"text = "hello\n""#),
        key("", "sysroot", Type::Str, r#"sysroot = "lib/sysroot""#),
        key("", "at", Type::Str, r#"at = "/mnt/skel""#),
        key("", "template", Type::Bool, "template = true"),
        key("", "write", Type::Bool, "write = true"),
    ],
);

const CACHES: Entries = named(
    "cache",
    "a cache",
    &[
        key("", "at", Type::Str, r#"at = "/var/cache/pip""#),
        key("", "sharing", Type::Str, r#"sharing = "locked""#),
        key("", "mode", Type::Str, r#"mode = "0755""#),
        key("", "uid", Type::Int, "uid = 250"),
        key("", "gid", Type::Int, "gid = 250"),
    ],
);

const VOLUMES: Entries = named(
    "volume",
    "a volume",
    &[key("", "at", Type::Str, r#"at = "/entropy/artifacts""#), key("", "of", Type::Str, r#"of = "../packages""#)],
);

const FETCHES: Entries = named(
    "fetch",
    "a download",
    &[
        key("", "url", Type::Str, r#"url = "https://example.org/a.patch""#),
        key("", "sha256", Type::Str, r#"sha256 = "65c8e11b…""#),
        key("", "sha512", Type::Str, r#"sha512 = "65c8e11b…""#),
        key("", "git", Type::Str, r#"git = "https://example.org/firmware.git""#),
        key("", "commit", Type::Str, r#"commit = "e83c5163316f89bfbde7d9ab23ca2e25604af290""#),
        key("", "branch", Type::Str, r#"branch = "stable""#),
        key("", "keyring", Type::Str, r#"keyring = "signers.asc""#),
        key("", "fingerprints", Type::Strs, r#"fingerprints = ["DCD05B71EAB94199527F44ACDB6B8C1F96D8BF6D"]"#),
        key("", "allow-unsigned", Type::Bool, "allow-unsigned = true"),
        key("", "unpack", Type::Bool, "unpack = true"),
    ],
);

const DAEMONS: Entries = named(
    "daemon",
    "a daemon",
    &[
        key("", "run", Type::Strs, r#"run = ["/usr/sbin/sshd", "-D"]"#),
        key("", "ready", Type::Words, r#"ready = "tcp:127.0.0.1:3632""#),
        key("", "timeout", Type::Str, r#"timeout = "30s""#),
        key("", "network", Type::Bool, "network = true"),
    ],
);

const SECRETS: Entries = named(
    "secret",
    "a secret",
    &[
        key("", "file", Type::Str, r#"file = "token""#),
        key("", "env", Type::Str, r#"env = "TOKEN""#),
        key("", "command", Type::Strs, r#"command = ["pass", "show", "token"]"#),
        key("", "rebuild", Type::Bool, "rebuild = false"),
    ],
);

const ASKS: Entries = named(
    "ask",
    "a question",
    &[
        key("", "question", Type::Str, r#"question = "Name of the machine""#),
        key("", "default", Type::Str, r#"default = "{{image}}""#),
        key("", "choices", Type::Strs, r#"choices = ["openrc", "systemd"]"#),
        key("", "pattern", Type::Str, r#"pattern = "[a-z0-9-]{1,63}""#),
        key("", "secret", Type::Bool, "secret = true"),
        key("", "confirm", Type::Bool, "confirm = true"),
        key("", "when", Type::Str, r#"when = "user""#),
    ],
);

/// The tables by name.
pub(super) const NAMED: [&Entries; 7] = [&BINDS, &CACHES, &VOLUMES, &FETCHES, &DAEMONS, &SECRETS, &ASKS];

/// The keys at the top of a recipe.
pub(super) const TOP: [Key; 7] = [
    key("", "bind", Type::Named(&BINDS), r#"bind = { skel = { from = "skel", at = "/mnt/skel" } }"#),
    key("", "cache", Type::Named(&CACHES), r#"cache = { pip = { at = "/root/.cache/pip" } }"#),
    key("", "volume", Type::Named(&VOLUMES), r#"volume = { entropy = { at = "/entropy/artifacts" } }"#),
    key(
        "",
        "fetch",
        Type::Named(&FETCHES),
        r#"fetch = { patch = { url = "https://example.org/a.patch", sha256 = "65c8…" } }"#,
    ),
    key("", "daemon", Type::Named(&DAEMONS), r#"daemon = { sshd = { run = ["/usr/sbin/sshd", "-D"] } }"#),
    key("", "secret", Type::Named(&SECRETS), r#"secret = { token = { file = "token" } }"#),
    key("", "ask", Type::Named(&ASKS), r#"ask = { hostname = { question = "Name of the machine" } }"#),
];

pub(super) const fn named(list: &'static str, of: &'static str, keys: &'static [Key]) -> Entries {
    Entries { list, of, expected: "a table of tables", entry: "a table", strings: false, keys }
}
