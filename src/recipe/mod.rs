//! The recipe as a typed, already valid [`Job`]. Nothing here knows TOML (`parse`), where values come from (`merge`) or how
//! a mistake is shown (`diagnostic`); `keys` lists what may be written, `shape` and `check` hold a recipe to it, in this
//! order: every file, variable and option is parsed and its keys and types are checked, the layers are merged, and only then
//! is the result given a meaning. All mistakes are reported, with a caret where they stand.

mod atom;
mod check;
mod diagnostic;
mod keys;
mod merge;
mod parse;
mod shape;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::base::error::{Error, Result};

/// An example recipe that explains every key.
pub const TEMPLATE: &str = include_str!("template.toml");

/// Returns every key with its table (`build.kind`) and its environment variable.
pub fn key_names() -> Vec<(String, String)> {
    keys::names()
}

/// The mirror of recipes that name none: Gentoo's own.
pub(crate) const DEFAULT_MIRROR: &str = "https://distfiles.gentoo.org";

/// The age in seconds of a signed list that recipes accept which say nothing of it: whoever can keep the truth from us could
/// keep us on old, known-vulnerable builds.
pub(crate) const DEFAULT_MAX_AGE: u64 = 30 * 86_400;

/// Gentoo's ebuild repository with its metadata, whose commits Gentoo signs.
pub(crate) const GENTOO_GIT: &str = "https://anongit.gentoo.org/git/repo/sync/gentoo.git";

/// The server of recipes for Funtoo that name none.
pub(crate) const FUNTOO_MIRROR: &str = "https://build.funtoo.org";

/// Funtoo's layout: where a tarball is, and what the names beside it end with. A recipe's `source.layout` replaces what it names.
pub(crate) const FUNTOO_LAYOUT: [(&str, &str); 4] = [
    ("latest", "{release}/{arch}/{subarch}/stage3-latest.tar.xz"),
    ("dated", "{release}/{arch}/{subarch}/{version}/stage3-{subarch}-{release}-{version}.tar.xz"),
    ("signature", ".gpg"),
    ("digest", ".hash.txt"),
];

/// Primary fingerprints of the servers that sign Funtoo's stage3s: Intel and generic, AMD, Jaguar, ARM 32, ARM 64, Ryzen.
pub(crate) const FUNTOO_SIGNERS: [&str; 6] = [
    "70ACBB6BFEE7BC572A8941D19266C4FA11FD00FD",
    "E8C574815DC174AF5A9E83853AA5CA5E683A2F8A",
    "6DDAE85727888A7CA50E2122A9021CE4BEA87CD2",
    "38E84AD53B01590BA6785E882A7B0B2EEEE54A43",
    "A9B7AB056485D1B0671AC9364BE69BAE62DD6D47",
    "D5D7EDE338F8D48746902DB928CE446E6B365A89",
];

impl Source {
    /// Servers of Gentoo's distfiles: the mirrors, where they are Gentoo's.
    pub fn distfiles(&self) -> &[String] {
        if matches!(self.base, BaseSpec::SignedFile(_)) { &[] } else { &self.mirrors }
    }
}

/// A number of bytes: alone, or with the unit `K`, `M`, `G` or `T` (powers of 1024), which may be written `GiB` and behind a blank.
pub fn size(text: &str) -> Option<u64> {
    words::bytes(text)
}

/// Returns a value as the value of a `--set` that means exactly it.
pub fn set_value(value: &str) -> String {
    parse::spelled(value)
}

/// Where a recipe comes from. Nothing else is read: neither the process's environment nor its working directory.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Recipe files; a later one wins. `-` is standard input.
    pub files: Vec<PathBuf>,
    /// `section.key=value`, as given to `--set`; a later one wins over an earlier one, and all of them over the rest.
    pub sets: Vec<String>,
    /// The environment; of it `QUERN_<SECTION>_<KEY>`, `QUERN_NAME`, and `HOME` for `~/` in paths are used.
    pub env: BTreeMap<OsString, OsString>,
    /// Files with defaults, used where they exist; a later one wins.
    pub defaults: Vec<PathBuf>,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// Colour the snippets of mistakes.
    pub colour: bool,
}

/// A recipe that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What is to be built.
    pub job: Job,
    /// What works still, but should be changed in the recipe; a line each.
    pub warnings: Vec<String>,
}

/// Reads and checks a recipe. An error is a [`Kind::Usage`](crate::base::error::Kind::Usage) whose details show every mistake.
pub fn load(request: &Request) -> Result<Loaded> {
    let mut texts = diagnostic::Texts::default();
    let tree = merge::tree(request, &mut texts)?;
    let misspelt = texts.is_wrong();
    let job = tree.and_then(|tree| check::job(&mut texts, &tree, request));
    if misspelt {
        texts.forgive_missing();
    }
    match job {
        Some(job) if !texts.is_wrong() => Ok(Loaded { job, warnings: texts.take_warnings() }),
        _ => Err(texts.error(request.colour)),
    }
}

/// Reads and checks `[source]` alone: a recipe that says nothing else will do, and none at all if the defaults, variables or
/// options say enough.
pub fn load_source(request: &Request) -> Result<Source> {
    let mut texts = diagnostic::Texts::default();
    let source = merge::tree(request, &mut texts)?.and_then(|tree| check::source_alone(&mut texts, &tree, request));
    match source {
        Some(source) if !texts.is_wrong() => Ok(source),
        _ => Err(texts.error(request.colour)),
    }
}

impl Job {
    /// The job as JSON with a fixed order of keys: equal for equal jobs, on every machine and in every run.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::system("writing the recipe as JSON").with_source(error))
    }
}

impl Oci {
    /// The tag of an image made on a date (`YYYYMMDD`).
    pub fn tag_on(&self, date: &str) -> String {
        dated(&self.tag, date)
    }
}

/// A text with its placeholders replaced by a date (`YYYYMMDD`): `{date}`, or `$$DATE$$` as Quern spelled it.
pub(crate) fn dated(text: &str, date: &str) -> String {
    text.replace("{date}", date).replace("$$DATE$$", date)
}

/// One image to build. Every path is absolute, every value checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Job {
    /// Names the results and the work directory; `[A-Za-z0-9][A-Za-z0-9._+-]*`.
    pub name: String,
    /// What the builder tree is made of.
    pub source: Source,
    /// Portage's configuration, repositories and caches.
    pub portage: Portage,
    /// What is made, and where.
    pub build: Build,
    /// What emerge is asked for.
    pub emerge: Emerge,
    /// What is left out of the image.
    pub strip: Strip,
    /// The OCI image, when the recipe has an `[oci]` table.
    pub oci: Option<Oci>,
}

/// `[source]`: the stage3 and whom to trust, or this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Where the stage3 comes from.
    pub base: BaseSpec,
    /// Roots of mirrors without a trailing slash, tried in order; Gentoo's are also Portage's `GENTOO_MIRRORS`.
    pub mirrors: Vec<String>,
    /// OpenPGP certificates that replace those that are built in and imported.
    pub keyring: Option<PathBuf>,
    /// Primary fingerprints (40 or 64 upper-case hex digits) that may sign; empty: that of Gentoo's release key, or all
    /// certificates' of a `keyring`.
    pub fingerprints: Vec<String>,
    /// A signed list older than this, in seconds, is refused.
    pub max_age: u64,
    /// What the stage3 may be unpacked.
    #[serde(flatten)]
    pub bounds: Bounds,
}

/// What an archive may be unpacked at most; none: what is proportionate to its size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Bounds {
    /// Bytes, holes and headers included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unpacked: Option<u64>,
    /// Entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_entries: Option<u64>,
}

/// What the builder tree is made of, and where that comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaseSpec {
    /// A release of Gentoo, from a mirror.
    Gentoo {
        /// The variant exactly as in `latest-stage3-<variant>.txt`, e.g. `amd64-musl`.
        stage3: String,
        /// Which build of it.
        version: Version,
    },
    /// A file of a server that has a signature beside it and no signed list.
    #[serde(rename = "direct")]
    SignedFile(SignedFile),
    /// A file on this machine.
    File {
        /// The tarball; `-` is standard input.
        path: PathBuf,
        /// Its detached signature, or signed digests; by default what lies beside it.
        signature: Option<PathBuf>,
        /// Its SHA-512 (128 lower-case hex digits), which stands in for a signature.
        sha512: Option<String>,
        /// Accept it with neither.
        allow_unsigned: bool,
    },
    /// No stage3: the running system, which must be a Gentoo.
    Host {
        /// Absolute paths that are not seen, beside those that never are.
        hide: Vec<PathBuf>,
        /// Absolute paths that are seen though they usually are not.
        show: Vec<PathBuf>,
    },
}

/// A tarball on a server, with what lies beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignedFile {
    /// Below the root of a mirror.
    pub path: String,
    /// What the name of its detached signature ends with.
    pub signature: String,
    /// What the name of its digest ends with; empty: there is none.
    pub digest: String,
    /// Whether the path is that of the latest build, whichever it is.
    pub latest: bool,
    /// The architecture, as the server calls it.
    pub arch: String,
}

/// Which build of a variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Version {
    /// What the signed pointer names.
    Latest,
    /// A timestamp, `YYYYMMDDTHHMMSSZ`.
    Timestamp(String),
}

/// `[portage]`: repositories, caches and configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Portage {
    /// Ebuild repositories; the first is the main one. Never empty.
    pub repositories: Vec<RepositorySpec>,
    /// PKGDIR shared by all builds; default in the store.
    pub binpkg: Option<PathBuf>,
    /// DISTDIR shared by all builds; default in the store.
    pub distfiles: Option<PathBuf>,
    /// Remote binary package hosts; none means `--getbinpkg=n`.
    pub binhost: Vec<String>,
    /// Variables of make.conf, in the target's and the builder's configuration.
    pub make_conf: BTreeMap<String, String>,
    /// Lines of `package.use`, `package.accept_keywords`, …, by the file's name.
    pub package_files: BTreeMap<String, Vec<String>>,
    /// A directory laid over the generated `/etc/portage` of the target.
    pub config: Option<PathBuf>,
}

/// An ebuild repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepositorySpec {
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// `priority` in repos.conf.
    pub priority: Option<i32>,
    /// `masters` in repos.conf, overriding the repository's own.
    pub masters: Option<Vec<String>>,
    /// `eclass-overrides` in repos.conf.
    pub eclass_overrides: Option<Vec<String>>,
}

impl RepositorySpec {
    /// Its directory, when it is on this machine.
    pub fn location(&self) -> Option<&Path> {
        match &self.origin {
            Origin::Location(path) => Some(path),
            Origin::Snapshot(_) | Origin::Git(_) => None,
        }
    }
}

/// Where an ebuild repository comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A directory of this machine, with `profiles/repo_name` in it.
    Location(PathBuf),
    /// A signed snapshot from a mirror.
    Snapshot(Snapshot),
    /// A commit of a git repository.
    Git(Git),
}

/// How a mirror packs a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotFormat {
    /// `snapshots/gentoo-….tar.xz`, with a detached signature.
    #[default]
    Tar,
    /// `snapshots/squashfs/gentoo-….xz.sqfs`, with a signed list of digests.
    Squashfs,
}

/// A signed snapshot of Gentoo's repository from a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Which day's, `YYYYMMDD`; none: the latest.
    pub date: Option<String>,
    /// How it is packed.
    pub format: SnapshotFormat,
    /// Roots of mirrors without a trailing slash, tried in order.
    pub mirrors: Vec<String>,
    /// OpenPGP certificates that replace those that are built in and imported.
    pub keyring: Option<PathBuf>,
    /// Primary fingerprints that may sign; empty: that of Gentoo's snapshots, or all certificates' of a `keyring`.
    pub fingerprints: Vec<String>,
    /// A latest snapshot signed longer ago than this, in seconds, is refused.
    pub max_age: u64,
    /// What it may be unpacked.
    #[serde(flatten)]
    pub bounds: Bounds,
}

/// A commit of a git repository. One of `commit` and `branch` is there, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Git {
    /// An http or https address.
    pub url: String,
    /// The commit, 40 or 64 lower-case hex digits.
    pub commit: Option<String>,
    /// The branch whose newest commit is taken, where `commit` does not say which.
    pub branch: Option<String>,
    /// OpenPGP certificates that replace those that are built in and imported.
    pub keyring: Option<PathBuf>,
    /// Primary fingerprints that may sign; empty: all certificates' of a `keyring`, or those that sign Gentoo's own repository.
    pub fingerprints: Vec<String>,
    /// A branch whose newest commit was signed longer ago than this, in seconds, is refused.
    pub max_age: u64,
    /// Accept the commit by its id alone, whoever signed it or not.
    pub allow_unsigned: bool,
    /// What it may be unpacked.
    #[serde(flatten)]
    pub bounds: Bounds,
}

/// `[build]`: what is made, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Build {
    /// The profile as `repo:path`; the repository is the main one where the recipe names none.
    pub profile: ProfileName,
    /// A profile under which the builder itself is updated first (Quern's `unblocker_profile`).
    pub unblocker_profile: Option<ProfileName>,
    /// Image or stage4.
    pub kind: TreeKind,
    /// Where the results go.
    pub outdir: PathBuf,
    /// Merge `@system` before the packages.
    pub include_system: bool,
    /// Atoms merged first, one by one; default `sys-apps/baselayout` for an image.
    pub baselayout_atoms: Vec<String>,
    /// The results' base name instead of `<name>-<date>`.
    pub image_name: Option<String>,
    /// `workdir-storage`: the size in bytes of a tmpfs for PORTAGE_TMPDIR; `None` keeps it on the disk.
    #[serde(rename = "tmpfs")]
    pub workdir_tmpfs: Option<u64>,
    /// Keep the work directory of a failed build for `shell`.
    pub keep_failed: bool,
    /// How the stage4 is compressed.
    #[serde(skip_serializing_if = "Compression::is_usual")]
    pub compression: Compression,
}

/// A profile: `repo:path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProfileName {
    /// Name of the repository, or none for the main one.
    pub repo: Option<String>,
    /// Path below the repository's `profiles/`.
    pub path: String,
}

/// What is shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TreeKind {
    /// A fresh ROOT filled by emerge.
    Image,
    /// The builder tree itself with packages added.
    Stage4,
}

/// How a stage4, which is the layer of the OCI image too, is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// No larger than `gzip -6` makes it.
    #[default]
    Gzip,
    /// Faster than gzip, and some percent larger; Zstd is both faster and smaller.
    GzipFast,
    /// The smallest, and the slowest by far. OCI knows no such layer.
    Xz,
    /// In half the time of gzip, and some percent smaller.
    Zstd,
    /// Not at all.
    None,
}

impl Compression {
    /// How the name of what it makes ends.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Gzip | Self::GzipFast => ".tar.gz",
            Self::Xz => ".tar.xz",
            Self::Zstd => ".tar.zst",
            Self::None => ".tar",
        }
    }

    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// `[emerge]`: what emerge is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Emerge {
    /// Atoms and sets, in order.
    pub packages: Vec<String>,
    /// Packages built at once; 0 means one per processor.
    pub jobs: u32,
    /// More options for every emerge, as given.
    pub options: Vec<String>,
}

/// `[strip]`: what is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Strip {
    /// Leave out documentation: at merge (`nodoc noman noinfo`) and what remains of it afterwards.
    pub doc: bool,
    /// Absolute paths in the image that are removed; the last component may be a glob.
    pub paths: Vec<String>,
}

/// `[oci]`: the OCI image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Oci {
    /// Tag with `{date}` (or Quern's `$$DATE$$`) still in it.
    pub tag: String,
    /// Entrypoint, exec form.
    pub entrypoint: Vec<String>,
    /// Command, exec form.
    pub cmd: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// `user[:group]`.
    pub user: Option<String>,
    /// Absolute working directory.
    pub workdir: Option<String>,
    /// Ports as `80` or `53/udp`.
    pub ports: Vec<String>,
    /// Absolute paths of volumes.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Author of the image.
    pub maintainer: Option<String>,
}
