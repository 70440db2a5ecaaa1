//! The table of all keys of a recipe: section, type, other spellings, and an example for messages.

mod steps;
mod system;
mod trees;
mod uses;

pub(super) use steps::STEP;
pub(super) use trees::TUPLE;

/// The type of a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// A string.
    Str,
    /// An integer.
    Int,
    /// An integer, or a string with a unit.
    Age,
    /// An integer, or a string with a unit.
    Size,
    /// A boolean.
    Bool,
    /// An array of strings.
    Strs,
    /// An array of strings, or one string of words.
    Words,
    /// An array of strings or integers.
    Ports,
    /// An array of strings or tables.
    Entries(&'static Entries),
    /// A string, an array of strings, or a table.
    Profile,
    /// A table of strings.
    Map,
    /// A table of strings or integers.
    Variables,
    /// A table of such tables.
    Tables,
    /// A table of arrays of strings.
    Lists,
    /// An array of lines or a table of atoms, for this file of Portage.
    Lines(&'static str),
    /// A boolean, or a table with these keys, which means true.
    Tool(&'static [Key]),
    /// A boolean, a word or an integer.
    Choice,
    /// A table of tables with these keys, by name.
    Named(&'static Entries),
    /// A string, or a table with these keys.
    StrOr(&'static [Key]),
    /// A string, or a table of tables with these keys, by name.
    NameOr(&'static Entries),
    /// A table with these keys.
    Keys(&'static [Key]),
    /// A string or an integer.
    Id,
    /// An array of steps, which are merged by name.
    Steps,
    /// An array of tables with the keys of a tuple and of axes.
    Tuples,
}

impl Type {
    /// Names the type for a message ("expected …").
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Str => "a string",
            Self::Int => "an integer",
            Self::Age => "a number of days, or a string with a unit",
            Self::Size => "a number of bytes, or a string with a unit",
            Self::Bool => "true or false",
            Self::Strs => "an array of strings",
            Self::Words => "an array of strings, or one string of words",
            Self::Ports => "an array of strings or integers",
            Self::Entries(entries) => entries.expected,
            Self::Profile => "a string, an array of strings, or a table",
            Self::Map => "a table of strings",
            Self::Variables => "a table of strings or integers",
            Self::Tables => "a table of tables",
            Self::Lists => "a table of arrays of strings",
            Self::Tool(_) => "true, false or a table",
            Self::Choice => "a word, an integer or false",
            Self::Named(_) => "a table of tables",
            Self::Keys(_) => "a table",
            Self::Id => "a name or a number",
            Self::StrOr(_) => "a string or a table",
            Self::NameOr(_) => "a name, or a table of tables",
            Self::Steps | Self::Tuples => "an array of tables",
            Self::Lines(_) => "an array of lines, or a table of package = \"words\"",
        }
    }
}

/// The entries of an array of strings or tables, or of a table of tables.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entries {
    /// The key of the array or table, with its section.
    pub(super) list: &'static str,
    /// The kind of thing that an entry describes, with its article.
    pub(super) of: &'static str,
    /// The type of the array, for a message.
    expected: &'static str,
    /// The type of an entry, for a message.
    pub(super) entry: &'static str,
    /// True if an entry may be a string.
    pub(super) strings: bool,
    /// The keys of a table.
    pub(super) keys: &'static [Key],
}

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// The section; empty for a key at the top of a recipe.
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    /// Other accepted spellings.
    pub(super) aliases: &'static [&'static str],
    pub(super) of: Type,
    /// A valid line with this key.
    pub(super) example: &'static str,
}

/// The sections, in the order of messages.
pub(super) const SECTIONS: [&str; 11] =
    ["source", "portage", "build", "emerge", "steps", "system", "accelerate", "strip", "oci", "store", "tree"];

/// Deprecated spellings, accepted with a warning: section, old, new.
pub(super) const DEPRECATED: &[(&str, &str, &str)] = &[("portage", "disftiles", "distfiles")];

const REPOSITORIES: Entries = Entries {
    list: "portage.repositories",
    of: "a repository",
    expected: "an array of directories or tables",
    entry: "a directory or a table",
    strings: true,
    keys: REPOSITORY,
};

const BINHOSTS: Entries = Entries {
    list: "portage.binhost",
    of: "a host of binary packages",
    expected: "an array of addresses or tables",
    entry: "an address or a table",
    strings: true,
    keys: BINHOST,
};

/// The keys of an entry of `portage.binhost`.
const BINHOST: &[Key] = &[
    key("", "url", Type::Str, r#"url = "https://example.org/binpkgs""#),
    key("", "keyring", Type::Str, r#"keyring = "packages.asc""#),
    key("", "fingerprints", Type::Strs, r#"fingerprints = ["13EBBDBEDE7A12775DFDB1BABB572E0E2D182910"]"#),
    key("", "allow-unsigned", Type::Bool, "allow-unsigned = true"),
    key("", "priority", Type::Int, "priority = 50"),
    key("", "exclude", Type::Words, r#"exclude = ["sys-kernel/*"]"#),
    key("", "only", Type::Words, r#"only = ["dev-lang/rust", "sys-devel/gcc"]"#),
];

/// The keys of an entry of `portage.repositories`.
const REPOSITORY: &[Key] = &[
    key("", "location", Type::Str, r#"location = "../overlays/mine""#),
    key("", "snapshot", Type::Str, r#"snapshot = "latest""#),
    key("", "format", Type::Str, r#"format = "squashfs""#),
    key("", "git", Type::Str, r#"git = "https://anongit.gentoo.org/git/repo/sync/gentoo.git""#),
    key("", "commit", Type::Str, r#"commit = "e83c5163316f89bfbde7d9ab23ca2e25604af290""#),
    key("", "branch", Type::Str, r#"branch = "stable""#),
    key("", "meta-repo", Type::Str, r#"meta-repo = "https://github.com/funtoo/meta-repo""#),
    key("", "release", Type::Str, r#"release = "1.4""#),
    key("", "kits", Type::Words, r#"kits = ["core-kit", "python-kit"]"#),
    key("", "mirrors", Type::Strs, r#"mirrors = ["https://distfiles.gentoo.org"]"#),
    key("", "keyring", Type::Str, r#"keyring = "snapshots.asc""#),
    key("", "fingerprints", Type::Strs, r#"fingerprints = ["DCD05B71EAB94199527F44ACDB6B8C1F96D8BF6D"]"#),
    key("", "max-age", Type::Age, "max-age = 14"),
    key("", "max-unpacked", Type::Size, r#"max-unpacked = "20 GiB""#),
    key("", "max-entries", Type::Int, "max-entries = 2000000"),
    key("", "allow-unsigned", Type::Bool, "allow-unsigned = true"),
    key("", "priority", Type::Int, "priority = 50"),
    key("", "masters", Type::Words, r#"masters = ["gentoo"]"#),
    key("", "eclass-overrides", Type::Words, r#"eclass-overrides = ["mine"]"#),
];

/// The keys of `build.profile` as a table.
pub(super) const PROFILE: &[Key] = &[
    key("", "arch", Type::Str, r#"arch = "x86-64bit""#),
    key("", "build", Type::Str, r#"build = "current""#),
    key("", "subarch", Type::Str, r#"subarch = "generic_64""#),
    key("", "flavor", Type::Str, r#"flavor = "core""#),
    key("", "mix-ins", Type::Words, r#"mix-ins = ["no-systemd"]"#),
    key("", "kits", Type::Map, r#"kits = { python-kit = "3.7-release" }"#),
];

/// The keys of `accelerate.ccache`.
const CCACHE: &[Key] = &[
    key("", "dir", Type::Str, r#"dir = "/var/cache/ccache""#),
    key("", "max-size", Type::Size, r#"max-size = "10 GiB""#),
];

/// The keys of `accelerate.distcc`.
const DISTCC: &[Key] = &[key("", "hosts", Type::Words, r#"hosts = ["192.0.2.7/8"]"#)];

/// All keys.
pub(super) const KEYS: &[Key] = &[
    key("", "name", Type::Str, r#"name = "musl-python3""#),
    key("", "include", Type::Strs, r#"include = ["base.toml"]"#),
    key("", "from", Type::Str, r#"from = "../base.toml""#),
    key("", "needs", Type::Strs, r#"needs = ["../packages"]"#),
    key("", "publish", Type::Bool, "publish = false"),
    key("", "sets", Type::Lists, r#"sets = { web = ["www-servers/nginx", "@base"] }"#),
    key("", "split", Type::Lists, r#"split = { boot = ["/boot"] }"#),
    key("", "vars", Type::Map, r#"vars = { HOST_NAME = "box" }"#),
    uses::TOP[0],
    uses::TOP[1],
    uses::TOP[2],
    uses::TOP[3],
    uses::TOP[4],
    uses::TOP[5],
    uses::TOP[6],
    trees::TOP[0],
    trees::TOP[1],
    trees::TOP[2],
    trees::TOP[3],
    trees::TOP[4],
    key("", "step", Type::Steps, r#"step = [{ name = "hello", run = "echo hello > /etc/motd" }]"#),
    key("source", "distro", Type::Str, r#"distro = "gentoo""#),
    key("source", "stage3", Type::Str, r#"stage3 = "amd64-musl""#),
    key("source", "version", Type::Str, r#"version = "latest""#),
    key("source", "release", Type::Str, r#"release = "1.4-release-std""#),
    key("source", "arch", Type::Str, r#"arch = "x86-64bit""#),
    key("source", "subarch", Type::Str, r#"subarch = "generic_64""#),
    key("source", "layout", Type::Map, r#"layout = { signature = ".asc" }"#),
    key("source", "mirrors", Type::Strs, r#"mirrors = ["https://distfiles.gentoo.org"]"#),
    key("source", "keyring", Type::Str, r#"keyring = "release.asc""#),
    key("source", "fingerprints", Type::Strs, r#"fingerprints = ["13EBBDBEDE7A12775DFDB1BABB572E0E2D182910"]"#),
    key("source", "max-age", Type::Age, "max-age = 14"),
    key("source", "max-unpacked", Type::Size, r#"max-unpacked = "20 GiB""#),
    key("source", "max-entries", Type::Int, "max-entries = 2000000"),
    key("source", "file", Type::Str, r#"file = "./stage3-amd64-musl.tar.xz""#),
    key("source", "signature", Type::Str, r#"signature = "./stage3-amd64-musl.tar.xz.asc""#),
    key("source", "sha512", Type::Str, r#"sha512 = "65c8e11b…""#),
    key("source", "allow-unsigned", Type::Bool, "allow-unsigned = true"),
    key("source", "host", Type::Bool, "host = true"),
    key("source", "hide", Type::Strs, r#"hide = ["/etc/foo.conf"]"#),
    key("source", "show", Type::Strs, r#"show = ["/usr/local/bin"]"#),
    key(
        "portage",
        "repositories",
        Type::Entries(&REPOSITORIES),
        r#"repositories = ["/var/db/repos/gentoo", "../overlays/mine"]"#,
    ),
    key("portage", "binpkg", Type::Str, r#"binpkg = "/var/cache/binpkgs""#),
    key("portage", "binpkg-shared", Type::Bool, "binpkg-shared = true"),
    key("portage", "binpkg-write", Type::Bool, "binpkg-write = false"),
    key("portage", "distfiles", Type::Str, r#"distfiles = "/var/cache/distfiles""#),
    key("portage", "binhost", Type::Entries(&BINHOSTS), r#"binhost = ["gentoo"]"#),
    key("portage", "make-conf", Type::Variables, r#"make-conf = { CFLAGS = "-O2 -pipe" }"#),
    key("portage", "use", Type::Words, r#"use = ["nls", "-doc"]"#),
    key("portage", "config", Type::Str, r#"config = "./portage""#),
    key("portage", "patches", Type::Str, r#"patches = "./patches""#),
    lines("package-use", &["package.use"], "package.use", r#"package-use = { "app-misc/hello" = "nls" }"#),
    lines(
        "package-accept-keywords",
        &["package.accept_keywords", "package.accept-keywords"],
        "package.accept_keywords",
        r#"package-accept-keywords = { "app-misc/hello" = "~amd64" }"#,
    ),
    lines("package-license", &["package.license"], "package.license", r#"package-license = { "*/*" = "@FREE" }"#),
    lines("package-mask", &["package.mask"], "package.mask", r#"package-mask = [">=app-misc/hello-3"]"#),
    lines("package-unmask", &["package.unmask"], "package.unmask", r#"package-unmask = ["app-misc/hello"]"#),
    lines("package-env", &["package.env"], "package.env", r#"package-env = { "app-misc/hello" = "no-lto.conf" }"#),
    lines(
        "package-properties",
        &["package.properties"],
        "package.properties",
        r#"package-properties = { "*/*" = "-interactive" }"#,
    ),
    lines(
        "package-accept-restrict",
        &["package.accept_restrict", "package.accept-restrict"],
        "package.accept_restrict",
        r#"package-accept-restrict = { "*/*" = "-fetch" }"#,
    ),
    lines(
        "package-provided",
        &["package.provided"],
        "package.provided",
        r#"package-provided = ["sys-kernel/gentoo-sources-6.12.8"]"#,
    ),
    key("portage", "env", Type::Tables, r#"env = { "no-lto.conf" = { CFLAGS = "-O2" } }"#),
    key("build", "profile", Type::Profile, r#"profile = "quern:musl-python3""#),
    key("build", "profile-packages", Type::Strs, r#"profile-packages = ["app-misc/hello"]"#),
    key("build", "unblocker-profile", Type::Str, r#"unblocker-profile = "quern:unblocker""#),
    key("build", "kind", Type::Str, r#"kind = "image""#),
    key("build", "outdir", Type::Str, r#"outdir = "./out""#),
    key("build", "include-system", Type::Bool, "include-system = true"),
    key("build", "baselayout-atoms", Type::Strs, r#"baselayout-atoms = ["sys-apps/baselayout"]"#),
    key("build", "image-name", Type::Str, r#"image-name = "rootfs""#),
    key("build", "workdir-storage", Type::Str, r#"workdir-storage = "tmpfs:4G""#),
    key("build", "keep-failed", Type::Bool, "keep-failed = false"),
    key("build", "epoch", Type::Int, "epoch = 1700000000"),
    key("build", "compression", Type::Str, r#"compression = "gzip""#),
    key("build", "sbom", Type::Strs, r#"sbom = ["spdx", "cyclonedx"]"#),
    key("emerge", "packages", Type::Strs, r#"packages = ["@profile", "app-misc/hello"]"#),
    key("emerge", "jobs", Type::Int, "jobs = 6"),
    key("emerge", "options", Type::Strs, r#"options = ["--with-bdeps=y"]"#),
    key("emerge", "binary-only", Type::Bool, "binary-only = true"),
    key("emerge", "update-world", Type::Bool, "update-world = true"),
    key("emerge", "keep-going", Type::Bool, "keep-going = true"),
    key("emerge", "unmerge", Type::Strs, r#"unmerge = ["sys-apps/man-pages"]"#),
    key("emerge", "depclean", Type::Bool, "depclean = true"),
    key("emerge", "rebuild", Type::Strs, r#"rebuild = ["preserved"]"#),
    key("emerge", "daemons", Type::Strs, r#"daemons = ["distccd"]"#),
    key("emerge", "ask", Type::Bool, "ask = false"),
    key("emerge", "load-average", Type::Int, "load-average = 8"),
    key("steps", "env", Type::Map, r#"env = { LANG = "C" }"#),
    key("steps", "shell", Type::Strs, r#"shell = ["/bin/sh", "-e"]"#),
    key("steps", "network", Type::Bool, "network = true"),
    key("steps", "timeout", Type::Str, r#"timeout = "1h""#),
    key("steps", "user", Type::Str, r#"user = "portage:portage""#),
    key("steps", "workdir", Type::Str, r#"workdir = "/srv""#),
    system::KEYS[0],
    system::KEYS[1],
    system::KEYS[2],
    system::KEYS[3],
    system::KEYS[4],
    system::KEYS[5],
    system::KEYS[6],
    system::KEYS[7],
    system::KEYS[8],
    system::KEYS[9],
    system::KEYS[10],
    system::KEYS[11],
    system::KEYS[12],
    system::KEYS[13],
    system::KEYS[14],
    system::KEYS[15],
    system::KEYS[16],
    key("accelerate", "ccache", Type::Tool(CCACHE), "ccache = true"),
    key("accelerate", "distcc", Type::Tool(DISTCC), r#"distcc = { hosts = ["192.0.2.7/8"] }"#),
    key("accelerate", "jobserver", Type::Choice, r#"jobserver = "auto""#),
    key("strip", "doc", Type::Bool, "doc = true"),
    key("strip", "paths", Type::Strs, r#"paths = ["/var/db/pkg"]"#),
    key("strip", "empty", Type::Strs, r#"empty = ["/var/cache"]"#),
    key("oci", "tag", Type::Str, r#"tag = "{date}""#),
    key("oci", "entrypoint", Type::Strs, r#"entrypoint = ["/usr/bin/python3"]"#),
    Key {
        section: "oci",
        name: "cmd",
        aliases: &["command"],
        of: Type::Strs,
        example: r#"cmd = ["-m", "http.server"]"#,
    },
    key("oci", "env", Type::Map, r#"env = { LANG = "C.UTF-8" }"#),
    key("oci", "user", Type::Str, r#"user = "nobody""#),
    key("oci", "workdir", Type::Str, r#"workdir = "/srv""#),
    key("oci", "ports", Type::Ports, r#"ports = ["80", "53/udp"]"#),
    key("oci", "volumes", Type::Strs, r#"volumes = ["/srv"]"#),
    key("oci", "labels", Type::Map, r#"labels = { maintainer = "me@example.org" }"#),
    key("oci", "maintainer", Type::Str, r#"maintainer = "me@example.org""#),
    key("oci", "cuts", Type::Strs, r#"cuts = ["@packages"]"#),
    key("oci", "on-parent", Type::Bool, "on-parent = true"),
    key("store", "keep", Type::Size, r#"keep = "20 GiB""#),
    key("tree", "name", Type::Str, r#"name = "hello""#),
    key("tree", "jobs", Type::Int, "jobs = 4"),
];

/// Keys and sections of Quern that have another name here, or none: `section` or `section.key`, and what to do.
const MOVED: &[(&str, &str)] = &[
    (
        "docker",
        "quern-builder does not use Docker: `workdir_storage` is `workdir-storage` in [build]; leave the rest out",
    ),
    ("dockergen", "Quern's [dockergen] is [oci]; its `name` is `name` at the top of the recipe"),
    ("postbuild", "an [oci] table makes an OCI image; leave [postbuild] out"),
    ("repository", "list repositories in `repositories` in [portage], each as a directory or a table"),
    ("build.driver", "there is only one way to build, without Docker and root; leave it out"),
    ("build.workdir", "work directories are in the store, which the variable QUERN_HOME moves; leave it out"),
    ("portage.autofix", "the build always writes the builder's configuration from the recipe; leave it out"),
    ("portage.debug_workdir", "`keep-failed` in [build] keeps the work directory of a failed build"),
    ("portage.debug-workdir", "`keep-failed` in [build] keeps the work directory of a failed build"),
    ("portage.package", "quote a key that contains a dot: \"package.use\"; or write `package-use`"),
    ("oci.name", "`name` at the top of the recipe names the image"),
];

const fn key(section: &'static str, name: &'static str, of: Type, example: &'static str) -> Key {
    Key { section, name, aliases: &[], of, example }
}

const fn lines(name: &'static str, aliases: &'static [&'static str], file: &'static str, example: &'static str) -> Key {
    Key { section: "portage", name, aliases, of: Type::Lines(file), example }
}

/// Finds a key by its section and any of its spellings.
pub(super) fn find(section: &str, spelling: &str) -> Option<&'static Key> {
    let spelling = deprecated(section, spelling).unwrap_or(spelling);
    of_section(section).find(|key| key.name == spelling || key.aliases.contains(&spelling))
}

/// Returns the new spelling of a deprecated one.
pub(super) fn deprecated(section: &str, spelling: &str) -> Option<&'static str> {
    DEPRECATED.iter().find(|(of, old, _)| *of == section && *old == spelling).map(|(_, _, new)| *new)
}

/// Lists the keys of a section, in the order of messages.
pub(super) fn of_section(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

/// Explains what replaces a key or section of Quern.
pub(super) fn moved(section: &str, name: &str) -> Option<&'static str> {
    let full = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
    let head = name.split(':').next().unwrap_or(name);
    MOVED.iter().find(|(old, _)| *old == full || (section.is_empty() && *old == head)).map(|(_, new)| *new)
}

/// Returns the name of a key's environment variable.
pub(super) fn variable(section: &str, name: &str) -> String {
    let name = name.replace(['-', '.'], "_");
    let whole = if section.is_empty() { format!("quern_{name}") } else { format!("quern_{section}_{name}") };
    whole.to_ascii_uppercase()
}

/// Returns every key with its table (`build.kind`), in each spelling, and its environment variable.
pub(super) fn names() -> Vec<(String, String)> {
    let spellings = |key: &'static Key| key.aliases.iter().chain([&key.name]).copied();
    let full =
        |section: &str, name: &str| if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
    let of_recipe = KEYS
        .iter()
        .flat_map(|key| spellings(key).map(move |name| (full(key.section, name), variable(key.section, key.name))));
    let of_entries = [&REPOSITORIES, &BINHOSTS].into_iter().flat_map(|entries| {
        let name = entries.list.rsplit('.').next().unwrap_or_default();
        entries.keys.iter().map(move |key| (format!("{}.{}", entries.list, key.name), variable("portage", name)))
    });
    let of_profile = PROFILE.iter().map(|key| (format!("build.profile.{}", key.name), variable("build", "profile")));
    let of_tools = KEYS.iter().flat_map(|key| {
        let keys = if let Type::Tool(keys) = key.of { keys } else { &[] };
        let full = move |name: &str| format!("{}.{}.{name}", key.section, key.name);
        keys.iter().map(move |inner| (full(inner.name), variable(key.section, key.name)))
    });
    let of_system = system::ENTRIES.into_iter().map(|entries| (entries.list, entries.keys)).chain(system::TABLES);
    let of_system = of_system.flat_map(|(table, keys)| {
        let name = table.split('.').nth(1).unwrap_or_default();
        keys.iter().map(move |key| (format!("{table}.{}", key.name), variable("system", name)))
    });
    let of_step = STEP.iter().map(|key| (format!("step.{}", key.name), variable("", "step")));
    let of_axis = trees::AXIS_FROM.iter().map(|key| (format!("axis.from.{}", key.name), variable("", "axis")));
    let of_tuple = TUPLE.iter().map(|key| (format!("tuple.{}", key.name), variable("", "tuple")));
    let of_lists = steps::LISTS.into_iter().chain(uses::NAMED).chain(trees::NAMED).flat_map(|entries| {
        entries.keys.iter().map(|key| (format!("{}.{}", entries.list, key.name), variable("", "step")))
    });
    let of_tables = of_entries.chain(of_profile).chain(of_tools).chain(of_system);
    of_recipe.chain(of_tables).chain(of_step).chain(of_lists).chain(of_axis).chain(of_tuple).collect()
}
