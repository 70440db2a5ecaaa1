//! The typed steps of a recipe.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::{Bind, Daemon, Fetch, Secret, StepCache, System, Volume};
use crate::base::digest::Sha256;

/// `[[step]]`: a named change of the tree, with everything that it uses. The names of the program's own steps begin with `@`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The name, unique in the recipe. A step of a group is `group/name`.
    pub name: String,
    /// The part of the build in which it runs.
    pub at: Phase,
    /// The change.
    pub action: Action,
    /// The tree that is `/`.
    #[serde(rename = "in", skip_serializing_if = "StepRoot::is_image")]
    pub root: StepRoot,
    /// The interpreter and its options. `None`: the first line of the script, or bash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// The arguments of the script.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// True to use the host's network.
    pub network: bool,
    /// `user[:group]`, names or numbers; `None` means root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The working directory, absolute.
    pub workdir: PathBuf,
    /// True to run on a pseudo-terminal.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tty: bool,
    /// The longest time that it may take, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// Absolute paths that must exist afterwards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub creates: Vec<PathBuf>,
    /// The age at which its result is made again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
    /// File systems in memory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<StepTmpfs>,
    /// Files of this machine, sorted by mount point.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<Bind>,
    /// Downloads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fetch: Vec<Fetch>,
    /// Directories that are kept from build to build.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<StepCache>,
    /// Directories that are kept with the layers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Processes that live while the step runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub daemons: Vec<Daemon>,
    /// Values that must not be in the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secret>,
    /// True if the values of `secrets` may be in the image.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leak_allowed: bool,
}

impl Step {
    /// Makes a step that uses nothing.
    pub fn new(name: &str, at: Phase, action: Action) -> Self {
        Self {
            name: name.to_owned(),
            at,
            action,
            root: StepRoot::Image,
            shell: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            network: false,
            user: None,
            workdir: PathBuf::from("/"),
            tty: false,
            timeout: None,
            creates: Vec::new(),
            refresh: None,
            tmpfs: Vec::new(),
            binds: Vec::new(),
            fetch: Vec::new(),
            caches: Vec::new(),
            volumes: Vec::new(),
            daemons: Vec::new(),
            secrets: Vec::new(),
            leak_allowed: false,
        }
    }
}

/// The part of a build in which a step runs. The order is that of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Before Portage is configured.
    Start,
    /// After Portage is configured.
    BeforePackages,
    /// After the packages are merged.
    Packages,
    /// Before packages are unmerged.
    BeforeUnmerge,
    /// After packages are unmerged.
    AfterUnmerge,
    /// After everything else.
    End,
}

impl Phase {
    /// All phases, in the order of a build.
    pub const ALL: [Self; 6] =
        [Self::Start, Self::BeforePackages, Self::Packages, Self::BeforeUnmerge, Self::AfterUnmerge, Self::End];

    /// Returns its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::BeforePackages => "before-packages",
            Self::Packages => "packages",
            Self::BeforeUnmerge => "before-unmerge",
            Self::AfterUnmerge => "after-unmerge",
            Self::End => "end",
        }
    }
}

/// The tree that a step sees as `/`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepRoot {
    /// The image tree.
    #[default]
    Image,
    /// The builder tree, with the image at `$ROOT`. For a stage4 both are one.
    Builder,
}

impl StepRoot {
    fn is_image(&self) -> bool {
        *self == Self::Image
    }
}

/// The change that a step makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Runs a script.
    Run(Script),
    /// Merges packages and sets.
    Emerge(Vec<String>),
    /// Unmerges packages, whether others need them or not.
    Unmerge(Vec<String>),
    /// Unmerges packages that nothing needs.
    Depclean,
    /// Merges packages again.
    Rebuild(Vec<Rebuild>),
    /// Copies files of the host into the tree.
    Copy(Vec<CopySpec>),
    /// Writes text files.
    Write(Vec<WriteSpec>),
    /// Removes absolute paths; the last component may be a glob.
    Delete(Vec<String>),
    /// Writes the settings of the image.
    Settings(Box<System>),
}

impl Action {
    /// Returns true if emerge makes the change.
    pub fn is_emerge(&self) -> bool {
        matches!(self, Self::Emerge(_) | Self::Unmerge(_) | Self::Depclean | Self::Rebuild(_))
    }
}

/// A script, with its exact bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The content.
    pub bytes: Vec<u8>,
    /// Its file; `None` if it is written in the recipe.
    pub file: Option<PathBuf>,
}

impl Serialize for Script {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        enum Shown<'a> {
            Text(&'a str),
            File { path: &'a PathBuf, sha256: Sha256 },
        }
        match (&self.file, std::str::from_utf8(&self.bytes)) {
            (None, Ok(text)) => Shown::Text(text).serialize(serializer),
            (file, _) => {
                let path = file.clone().unwrap_or_default();
                Shown::File { path: &path, sha256: Sha256::of(&self.bytes) }.serialize(serializer)
            }
        }
    }
}

/// A kind of packages to merge again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rebuild {
    /// Packages that use preserved libraries.
    Preserved,
    /// Modules of the kernel.
    Modules,
    /// Packages with broken links to libraries.
    Links,
}

impl Rebuild {
    /// Returns its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preserved => "preserved",
            Self::Modules => "modules",
            Self::Links => "links",
        }
    }
}

/// Files of the host to copy into the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopySpec {
    /// A file, or a directory whose content is copied.
    pub from: PathBuf,
    /// The absolute path in the tree.
    pub to: PathBuf,
    /// The permission bits of files; by default those of the host's files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// `user[:group]`, names or numbers; `None` means 0:0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Files to leave out: a path relative to `from` whose last component may be a glob, or a name or glob without `/` that applies
    /// in every directory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// A text file to write into the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WriteSpec {
    /// The absolute path in the tree.
    pub to: PathBuf,
    /// The content.
    pub text: String,
    /// The permission bits; `None` means 0644.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// `user[:group]`, names or numbers; `None` means 0:0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// The age at which the result of a step is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refresh {
    /// Every build runs the step.
    Always,
    /// Seconds.
    After(u64),
}

/// A file system in memory that a step sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepTmpfs {
    /// The absolute mount point.
    pub at: PathBuf,
    /// The size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}
