//! The typed recipe.

mod axis;
mod build;
mod oci;
mod other;
mod steps;
mod system;
mod uses;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use axis::AxisValue;
pub use build::{Build, Compression, SbomFormat};
pub use oci::Oci;
pub use other::OtherImage;
pub use steps::{Action, CopySpec, Phase, Rebuild, Refresh, Script, Step, StepRoot, StepTmpfs, WriteSpec};
pub use system::{FileSpec, GroupSpec, Init, Password, Switch, System, Units, UserSpec};
pub use uses::{
    Bind, BindContent, Daemon, EMERGE_MOUNTS, Fetch, FetchFrom, Ready, Secret, SecretValue, Sharing, StepCache, Volume,
};

/// One image to build. Every path is absolute and every value is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Job {
    /// The base name of results and the name of the work directory; `[A-Za-z0-9][A-Za-z0-9._+-]*`.
    pub name: String,
    /// The image that this one starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Box<OtherImage>>,
    /// The images that are built before this one, apart from the one that it starts from.
    #[serde(skip)]
    pub needs: Vec<OtherImage>,
    /// The name of the image in its tree of recipes, in the form `hello/p/c`; without a tree, `name`.
    #[serde(skip)]
    pub path: String,
    /// The values of a tuple, by the name of the axis.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub axes: BTreeMap<String, AxisValue>,
    /// With `tuples = "all"`: an image for each configuration of Portage in the tuples of the tree, whose packages a build merges.
    #[serde(skip)]
    pub configurations: Vec<OtherImage>,
    /// True if the image is built only for its binary packages. Not a part of the provenance.
    #[serde(skip)]
    pub for_packages: bool,
    /// False if a build writes no results, because other images start from this one.
    #[serde(skip_serializing_if = "Clone::clone")]
    pub publish: bool,
    /// The base of the builder tree.
    pub source: Source,
    /// Portage's configuration, repositories and caches.
    pub portage: Portage,
    /// The kind, the profile and the place of the results.
    pub build: Build,
    /// The packages.
    pub emerge: Emerge,
    /// The helpers of compilers. They change no result, so they are not a part of the provenance.
    #[serde(skip)]
    pub accelerate: Accelerate,
    /// The greatest number of images that a build makes at the same time, if the tree gives one. Not a part of the provenance.
    #[serde(skip)]
    pub jobs_images: Option<u32>,
    /// The size in bytes of the layers that the store keeps after a build; `None`: all. No part of the provenance.
    #[serde(skip)]
    pub keep_layers: Option<u64>,
    /// The steps, in the order in which they run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The names of steps that are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// Files to leave out of the image.
    pub strip: Strip,
    /// Directories of the image whose content goes to an archive of its own, by the name of the archive.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub split: BTreeMap<String, Vec<String>>,
    /// The OCI image, if the recipe has a table `[oci]`.
    pub oci: Option<Oci>,
}

impl Job {
    /// Returns the names of the program's own steps before those of the phase `packages`, in the order in which they run.
    pub fn own_steps(&self) -> Vec<&'static str> {
        let Build { unblocker_profile, baselayout_atoms, include_system, .. } = &self.build;
        let all = [
            ("@configure", true),
            ("@unblocker", unblocker_profile.is_some()),
            ("@world", self.emerge.update_world),
            ("@baselayout", !baselayout_atoms.is_empty()),
            ("@system", *include_system),
            ("@packages", !self.emerge.packages.is_empty()),
        ];
        all.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect()
    }
}

/// Returns true if `name` names the step `step`, or a group that it belongs to.
pub fn names_step(name: &str, step: &str) -> bool {
    step.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `[source]`: the stage3 and its trusted signers, or this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The base of the builder tree, and its origin.
    pub base: BaseSpec,
    /// Roots of mirrors without a trailing slash, tried in order. Gentoo's are also Portage's `GENTOO_MIRRORS`.
    pub mirrors: Vec<String>,
    /// OpenPGP certificates that replace the built-in and the imported ones.
    pub keyring: Option<PathBuf>,
    /// Primary fingerprints (40 or 64 upper-case hex digits) of trusted signers. Empty: Gentoo's release key, or every
    /// certificate of `keyring`.
    pub fingerprints: Vec<String>,
    /// The greatest age of a signed list, in seconds.
    pub max_age: u64,
    /// Limits on unpacking the stage3.
    #[serde(flatten)]
    pub bounds: Bounds,
}

impl Source {
    /// Returns the servers of Gentoo's distfiles: the mirrors, if they are Gentoo's.
    pub fn distfiles(&self) -> &[String] {
        if matches!(self.base, BaseSpec::SignedFile(_)) { &[] } else { &self.mirrors }
    }
}

/// Limits on unpacking an archive. `None` derives a limit from the compressed size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Bounds {
    /// Bytes, holes and headers included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unpacked: Option<u64>,
    /// Entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_entries: Option<u64>,
}

/// The base of the builder tree, and its origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaseSpec {
    /// A release of Gentoo, from a mirror.
    Gentoo {
        /// The variant exactly as in `latest-stage3-<variant>.txt`, for example `amd64-musl`.
        stage3: String,
        /// The build of the variant.
        version: Version,
    },
    /// A file on a server with a signature beside it, but no signed list.
    #[serde(rename = "direct")]
    SignedFile(SignedFile),
    /// A file on this machine.
    File {
        /// The tarball; `-` is standard input.
        path: PathBuf,
        /// Its detached signature or signed digests; by default a file beside it.
        signature: Option<PathBuf>,
        /// Its SHA-512 (128 lower-case hex digits), in place of a signature.
        sha512: Option<String>,
        /// True to accept it with neither.
        allow_unsigned: bool,
    },
    /// The running system, which must be a Gentoo system.
    Host {
        /// Absolute paths to hide, in addition to those that are always hidden.
        hide: Vec<PathBuf>,
        /// Absolute paths to show although they are hidden by default.
        show: Vec<PathBuf>,
    },
}

/// A tarball on a server, and the files beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignedFile {
    /// The path below the root of a mirror.
    pub path: String,
    /// The suffix of its detached signature.
    pub signature: String,
    /// The suffix of its digest; empty for a file without a digest.
    pub digest: String,
    /// True if the path always names the latest build.
    pub latest: bool,
    /// The server's name of the architecture.
    pub arch: String,
}

/// A build of a variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Version {
    /// The build that the signed pointer names.
    Latest,
    /// The build with this timestamp, `YYYYMMDDTHHMMSSZ`.
    Timestamp(String),
}

/// `[portage]`: repositories, caches and configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Portage {
    /// Ebuild repositories; the first is the main one. Never empty.
    pub repositories: Vec<RepositorySpec>,
    /// The directory of the image's binary packages; by default one in the store for each key.
    pub binpkg: Option<PathBuf>,
    /// True to mix packages of different settings in `binpkg`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub binpkg_shared: bool,
    /// False if later builds must not take the packages that this one makes.
    #[serde(skip_serializing_if = "Clone::clone")]
    pub binpkg_write: bool,
    /// DISTDIR, shared by all builds; by default in the store.
    pub distfiles: Option<PathBuf>,
    /// Hosts of binary packages. Empty means `--getbinpkg=n`.
    pub binhost: Vec<Binhost>,
    /// Variables of make.conf, for the target and for the builder.
    pub make_conf: BTreeMap<String, String>,
    /// Lines of `package.use`, `package.accept_keywords`, …, by the name of the file.
    pub package_files: BTreeMap<String, Vec<String>>,
    /// The packages of sets, by the name of the set.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sets: BTreeMap<String, Vec<String>>,
    /// Variables of files in `env`, by the name of the file. Lines of `package.env` name such files.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, BTreeMap<String, String>>,
    /// A directory laid over the generated `/etc/portage` of the target. Its package files also apply to the builder.
    pub config: Option<PathBuf>,
    /// A directory of patches for the packages of the target: `etc/portage/patches`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patches: Option<PathBuf>,
    /// Lines of the package files in `config`, by the name of the file.
    #[serde(skip)]
    pub config_files: BTreeMap<String, Vec<String>>,
}

/// A host of binary packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Binhost {
    /// Its address without a trailing slash: `https:`, `http:`, or `file://` and the absolute path of a directory on this machine.
    pub url: String,
    /// OpenPGP certificates that replace the built-in and the imported ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyring: Option<PathBuf>,
    /// Primary fingerprints of trusted signers. Empty: Gentoo's release key, or every certificate of `keyring`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fingerprints: Vec<String>,
    /// True to accept packages without a signature.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_unsigned: bool,
    /// `priority` in binrepos.conf. `None`: earlier hosts come first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Packages that are never taken from it: names with `*` and, optionally, a slot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// The only packages that are taken from it. Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
}

impl Binhost {
    /// Returns its directory, if it is on this machine.
    pub fn directory(&self) -> Option<&Path> {
        self.url.strip_prefix("file://").map(Path::new)
    }
}

impl Portage {
    /// Returns true if a repository is the kits of a meta-repo.
    pub fn with_kits(&self) -> bool {
        self.repositories.iter().any(|repository| matches!(repository.origin, Origin::MetaRepo(_)))
    }
}

/// An ebuild repository, as the recipe describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepositorySpec {
    /// Its origin.
    #[serde(flatten)]
    pub origin: Origin,
    /// `priority` in repos.conf.
    pub priority: Option<i32>,
    /// `masters` in repos.conf, which override the repository's own.
    pub masters: Option<Vec<String>>,
    /// `eclass-overrides` in repos.conf.
    pub eclass_overrides: Option<Vec<String>>,
    /// The name of the kit, for a repository that a meta-repo lists.
    #[serde(skip)]
    pub kit: Option<String>,
}

impl RepositorySpec {
    /// Returns its directory, if it is on this machine.
    pub fn location(&self) -> Option<&Path> {
        match &self.origin {
            Origin::Location(path) => Some(path),
            Origin::Snapshot(_) | Origin::Git(_) | Origin::MetaRepo(_) => None,
        }
    }
}

/// The origin of an ebuild repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A directory on this machine that contains `profiles/repo_name`.
    Location(PathBuf),
    /// A signed snapshot from a mirror.
    Snapshot(Snapshot),
    /// A commit of a git repository.
    Git(Git),
    /// The kits of a Funtoo meta-repo. Each kit is a repository of its own.
    MetaRepo(MetaRepo),
}

/// The kits that a Funtoo meta-repo lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MetaRepo {
    /// Its place.
    pub at: MetaRepoPlace,
    /// The release of Funtoo, such as `1.4`.
    pub release: String,
    /// The names of the wanted kits. Empty: every kit of the release.
    pub kits: Vec<String>,
}

impl MetaRepo {
    /// Returns the branch of a release, as `ego` names it.
    pub fn branch_of(release: &str) -> String {
        match release {
            "1.0" | "1.2" => "master".to_owned(),
            "1.4" => "1.4-release".to_owned(),
            other => other.to_owned(),
        }
    }
}

/// The place of a meta-repo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetaRepoPlace {
    /// A directory on this machine, with the kits in `kits/` as `ego sync` writes them.
    Directory(PathBuf),
    /// A commit of a git repository. Each kit is a repository beside it.
    Git(Git),
}

/// The format of a mirror's snapshot.
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
    /// The day, `YYYYMMDD`; `None` for the latest snapshot.
    pub date: Option<String>,
    /// The format.
    pub format: SnapshotFormat,
    /// Roots of mirrors without a trailing slash, tried in order.
    pub mirrors: Vec<String>,
    /// OpenPGP certificates that replace the built-in and the imported ones.
    pub keyring: Option<PathBuf>,
    /// Primary fingerprints of trusted signers. Empty: the key of Gentoo's snapshots, or every certificate of `keyring`.
    pub fingerprints: Vec<String>,
    /// The greatest age of the latest snapshot's signature, in seconds.
    pub max_age: u64,
    /// Limits on unpacking it.
    #[serde(flatten)]
    pub bounds: Bounds,
}

/// A commit of a git repository. At least one of `commit` and `branch` is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Git {
    /// An http or https address.
    pub url: String,
    /// The commit, 40 or 64 lower-case hex digits.
    pub commit: Option<String>,
    /// The branch whose newest commit is used if `commit` is not set.
    pub branch: Option<String>,
    /// OpenPGP certificates that replace the built-in and the imported ones.
    pub keyring: Option<PathBuf>,
    /// Primary fingerprints of trusted signers. Empty: every certificate of `keyring`, or the keys that sign Gentoo's own
    /// repository.
    pub fingerprints: Vec<String>,
    /// The greatest age of the signature of a branch's newest commit, in seconds.
    pub max_age: u64,
    /// True to accept the commit by its ID alone, without a signature.
    pub allow_unsigned: bool,
    /// Limits on unpacking it.
    #[serde(flatten)]
    pub bounds: Bounds,
    /// The document that names the commit of an unsigned repository, in words, if it is not the recipe.
    #[serde(skip)]
    pub named_by: Option<String>,
}

/// A request for a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ProfileSpec {
    /// A profile of a repository.
    Named(ProfileName),
    /// Parents, in order, of a profile that belongs to no repository.
    Parents(Vec<ProfileName>),
    /// The same, by the names of Funtoo's parts.
    Funtoo(FuntooProfile),
}

/// The parts of a Funtoo profile. A name may begin with a repository, as in `own:server`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FuntooProfile {
    /// The architecture, for example `x86-64bit`.
    pub arch: String,
    /// The build, for example `current`.
    pub build: Option<String>,
    /// The processor, for example `generic_64`.
    pub subarch: Option<String>,
    /// The flavor, for example `core`.
    pub flavor: Option<String>,
    /// Mix-ins, in order.
    pub mix_ins: Vec<String>,
    /// Branches of kits that have a profile, by the name of the kit.
    pub kits: BTreeMap<String, String>,
}

/// A profile, written as `repository:path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProfileName {
    /// The name of its repository; `None` for the main one.
    pub repo: Option<String>,
    /// The path below the repository's `profiles/`.
    pub path: String,
}

/// The kind of tree that is shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TreeKind {
    /// A new ROOT that emerge fills.
    Image,
    /// The builder tree itself, with packages added.
    Stage4,
}

/// `[emerge]`: the packages, and how emerge is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Emerge {
    /// Atoms and sets, in order.
    pub packages: Vec<String>,
    /// The number of packages built at once; 0 means one per processor.
    pub jobs: u32,
    /// The load of the machine above which emerge and make start nothing more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_average: Option<u32>,
    /// More options for every emerge.
    pub options: Vec<String>,
    /// Uses binary packages only, and builds nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub binary_only: bool,
    /// Updates `@world` of a stage4 before the packages.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub update_world: bool,
    /// Builds the other packages if one fails. The build still fails, and no result depends on it.
    #[serde(skip)]
    pub keep_going: bool,
    /// Processes that live while a command of the program's own merges packages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub daemons: Vec<Daemon>,
}

/// `[accelerate]`: the helpers of compilers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accelerate {
    /// The compiler cache.
    pub ccache: Option<Ccache>,
    /// Compilers on other machines, as distcc's list of hosts; empty without distcc.
    pub distcc: Vec<String>,
    /// The jobserver that all packages share.
    pub jobserver: Jobserver,
}

/// The compiler cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ccache {
    /// Its directory; by default one for each recipe in the store.
    pub dir: Option<PathBuf>,
    /// Its greatest size in bytes; by default ccache's own.
    pub max_size: Option<u64>,
}

/// The number of jobs that all packages share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Jobserver {
    /// Not shared: every package starts as many as MAKEOPTS says.
    #[default]
    Off,
    /// One per processor.
    Auto,
    /// This number.
    Jobs(u32),
}

/// `[strip]`: files to leave out of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Strip {
    /// True to leave out documentation, when packages are merged (`nodoc noman noinfo`) and afterwards.
    pub doc: bool,
    /// Absolute paths in the image to remove; the last component may be a glob.
    pub paths: Vec<String>,
    /// Absolute paths of directories in the image whose content is removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub empty: Vec<String>,
}
