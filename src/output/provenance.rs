//! Composes the provenance of an image: an in-toto statement with a SLSA provenance predicate. Pure.
//!
//! The statement depends on the inputs alone. It contains neither the time of the build, except its [`SourceDate`], nor a path of this
//! machine, nor anything that differs between builds as root and as an ordinary user.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::oci;
use crate::archive::leak::Mask;
use crate::archive::pack::Packed;
use crate::base::digest::Sha512;
use crate::base::error::{Context, Kind, Result};
use crate::base::time::SourceDate;
use crate::recipe::{BaseSpec, FetchFrom, Git, Job, MetaRepo, MetaRepoPlace, Origin, Snapshot};
use crate::source::RepositoryVersion;
use crate::source::fetched::FetchVersion;

/// The type that defines the meaning of `externalParameters` and `internalParameters`.
const BUILD_TYPE: &str = "urn:quern-builder:build:v1";

/// The base of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseOrigin<'a> {
    /// A verified stage3.
    Stage3 {
        /// The file name.
        name: &'a str,
        /// The SHA-512 of the file.
        sha512: Sha512,
        /// The primary fingerprint of the certificate that signed it.
        signer: Option<&'a str>,
        /// A description of how it was verified.
        verification: &'a str,
    },
    /// The system of the machine that built the image.
    Host {
        /// The name of the system.
        name: &'a str,
    },
}

impl BaseOrigin<'_> {
    /// Returns the in-toto resource descriptor.
    fn resource(&self) -> Value {
        match self {
            Self::Stage3 { name, sha512, signer, verification } => json!({
                "name": name,
                "digest": { "sha512": sha512 },
                "annotations": { "signer": signer, "verification": verification },
            }),
            Self::Host { name } => json!({
                "name": "host",
                "annotations": {
                    "system": name,
                    "signer": null,
                    "verification": "none: the running system of the machine that built it",
                },
            }),
        }
    }
}

/// Meaning of the SHA-256 of a directory, for readers of the statement.
const CONTENT: &str =
    "sha256: the files that emerge can read (quern-builder repository 1), which may differ from the commit";

/// An ebuild repository that the build used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryOrigin<'a> {
    /// The `repo_name`.
    pub name: &'a str,
    /// Its directory, if the recipe names it.
    pub location: Option<&'a Path>,
    /// The version that the build used.
    pub version: &'a RepositoryVersion,
}

impl RepositoryOrigin<'_> {
    /// Returns the in-toto resource descriptor.
    fn resource(&self) -> Value {
        let name = self.name;
        match self.version {
            RepositoryVersion::Directory { commit, content } => {
                let mut digest = Map::new();
                digest.extend(commit.iter().map(|commit| ("gitCommit".to_owned(), json!(commit))));
                digest.extend(content.iter().map(|content| ("sha256".to_owned(), json!(content))));
                json!({ "name": name, "digest": digest, "annotations": { "digest-of": CONTENT } })
            }
            RepositoryVersion::Snapshot { name: snapshot, sha512, signer, trust_basis, .. } => json!({
                "name": name,
                "digest": { "sha512": sha512 },
                "annotations": { "snapshot": snapshot, "signer": signer, "verification": trust_basis },
            }),
            RepositoryVersion::Git { url, commit, signer, trust_basis } => json!({
                "name": name,
                "uri": format!("git+{url}"),
                "digest": { "gitCommit": commit },
                "annotations": { "signer": signer, "verification": trust_basis },
            }),
        }
    }
}

/// A host of binary packages that the build asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinhostOrigin<'a> {
    /// The address.
    pub url: &'a str,
    /// The SHA-512 of its index, unpacked.
    pub sha512: Sha512,
    /// The time at which the host wrote the index, in seconds since 1970.
    pub timestamp: Option<&'a str>,
    /// The packages that the build took from it, each with the primary fingerprint of its signer.
    pub packages: Vec<(&'a str, Option<&'a str>)>,
}

impl BinhostOrigin<'_> {
    /// Returns the in-toto resource descriptor. Of a directory of this machine, it has only the name.
    fn resource(&self) -> Value {
        let uri = match self.url.strip_prefix("file://") {
            Some(path) => format!("file:{}", file_name(Path::new(path)).display()),
            None => self.url.to_owned(),
        };
        let packages: Map<_, _> =
            self.packages.iter().map(|(cpv, signer)| ((*cpv).to_owned(), json!({ "signer": signer }))).collect();
        json!({
            "name": "binary packages",
            "uri": uri,
            "digest": { "sha512": self.sha512 },
            "annotations": { "digest-of": "sha512: the index Packages", "timestamp": self.timestamp, "packages": packages },
        })
    }
}

/// Returns the in-toto resource descriptor of a download that steps saw.
fn download((name, version): &(&str, &FetchVersion)) -> Value {
    match version {
        FetchVersion::File { url, sha256, sha512, .. } => {
            let mut digest = Map::new();
            digest.extend(sha256.iter().map(|sha256| ("sha256".to_owned(), json!(sha256))));
            digest.extend(sha512.iter().map(|sha512| ("sha512".to_owned(), json!(sha512))));
            json!({ "name": name, "uri": url, "digest": digest, "annotations": { "verification": "digest in the recipe" } })
        }
        FetchVersion::Git { url, commit, signer, trust_basis } => json!({
            "name": name,
            "uri": format!("git+{url}"),
            "digest": { "gitCommit": commit },
            "annotations": { "signer": signer, "verification": trust_basis },
        }),
    }
}

/// A command that the build ran in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The purpose of the command.
    pub purpose: String,
    /// The command line.
    pub argv: Vec<String>,
}

/// The inputs of a build beside its recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs<'a> {
    /// The base.
    pub base: BaseOrigin<'a>,
    /// The repositories, in the order of the recipe.
    pub repositories: Vec<RepositoryOrigin<'a>>,
    /// The hosts of binary packages, in the order of the recipe.
    pub binhosts: Vec<BinhostOrigin<'a>>,
    /// The downloads that steps saw, by name.
    pub fetched: Vec<(&'a str, &'a FetchVersion)>,
    /// The commands, in the order in which they ran.
    pub commands: Vec<Command>,
}

/// Composes the statement about the archives `subjects`, the tarball first, as indented JSON with sorted keys.
///
/// # Errors
/// [`Kind::Build`] if the recipe cannot be serialized.
pub fn document(job: &Job, inputs: &Inputs<'_>, subjects: &[(String, &Packed)], date: SourceDate) -> Result<Vec<u8>> {
    let writing = || format!("writing the provenance of {}", job.name);
    let subject = |(name, packed): &(String, &Packed)| {
        json!({
            "name": name,
            "digest": { "sha256": packed.sha256 },
            "annotations": { "diff-id": format!("sha256:{}", packed.diff_id), "size": packed.size },
        })
    };
    let subjects: Vec<_> = subjects.iter().map(subject).collect();
    let repositories = inputs.repositories.iter().map(RepositoryOrigin::resource);
    let binhosts = inputs.binhosts.iter().map(BinhostOrigin::resource);
    let downloads = inputs.fetched.iter().map(download);
    let dependencies = std::iter::once(inputs.base.resource()).chain(repositories).chain(binhosts).chain(downloads);
    let dependencies: Vec<_> = dependencies.collect();
    let commands = inputs.commands.iter().map(|command| json!({ "what": command.purpose, "argv": command.argv }));
    let commands: Vec<_> = commands.collect();
    let secrets =
        job.all_steps().into_iter().flat_map(|step| &step.secrets).filter(|secret| secret.value.is_searched());
    let mut mask = Mask::new(secrets.map(|secret| (secret.name.as_str(), secret.value.expose())))?;
    let recipe = masked(recipe(job, &inputs.repositories).context(Kind::Build, writing)?, &mut mask);
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "recipe": recipe },
                "internalParameters": { "emerge": commands, "source-date-epoch": date.epoch() },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {
                    "id": "urn:quern-builder",
                    "version": { "quern-builder": env!("CARGO_PKG_VERSION") },
                },
                "metadata": { "finishedOn": date.rfc3339() },
            },
        },
    });
    let mut bytes = serde_json::to_vec_pretty(&oci::sorted(statement)).context(Kind::Build, writing)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Masks secrets in texts: a script in the recipe may contain one.
fn masked(value: Value, mask: &mut Mask) -> Value {
    match value {
        Value::String(text) => Value::String(mask.text(&text)),
        Value::Array(values) => values.into_iter().map(|value| masked(value, mask)).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, masked(value, mask))).collect(),
        other => other,
    }
}

/// Serializes the recipe without paths of this machine: files are reduced to their names, repositories to their `repo_name`.
fn recipe(job: &Job, repositories: &[RepositoryOrigin<'_>]) -> serde_json::Result<Value> {
    let mut job = job.clone();
    if let BaseSpec::File { path, signature, .. } = &mut job.source.base {
        *path = file_name(path);
        *signature = signature.as_deref().map(file_name);
    }
    job.source.keyring = job.source.keyring.as_deref().map(file_name);
    for repository in &mut job.portage.repositories {
        match &mut repository.origin {
            Origin::Location(path) => {
                *path = match repositories.iter().find(|origin| origin.location == Some(path)) {
                    Some(origin) => PathBuf::from(origin.name),
                    None => file_name(path),
                }
            }
            Origin::Snapshot(Snapshot { keyring, .. })
            | Origin::Git(Git { keyring, .. })
            | Origin::MetaRepo(MetaRepo { at: MetaRepoPlace::Git(Git { keyring, .. }), .. }) => {
                *keyring = keyring.as_deref().map(file_name);
            }
            Origin::MetaRepo(MetaRepo { at: MetaRepoPlace::Directory(path), .. }) => *path = file_name(path),
        }
    }
    for host in &mut job.portage.binhost {
        host.keyring = host.keyring.as_deref().map(file_name);
        if let Some(directory) = host.directory() {
            host.url = format!("file:{}", file_name(directory).display());
        }
    }
    for fetch in job.steps.iter_mut().flat_map(|step| &mut step.fetch) {
        if let FetchFrom::Git(git) = &mut fetch.from {
            git.keyring = git.keyring.as_deref().map(file_name);
        }
    }
    job.portage.config = job.portage.config.as_deref().map(file_name);
    job.portage.patches = job.portage.patches.as_deref().map(file_name);
    let mut value = serde_json::to_value(&job)?;
    // The places of caches and results do not decide the image.
    for (table, key) in [
        ("portage", "binpkg"),
        ("portage", "binpkg_write"),
        ("portage", "distfiles"),
        ("build", "outdir"),
        ("build", "keep_failed"),
    ] {
        if let Some(table) = value.get_mut(table).and_then(Value::as_object_mut) {
            table.remove(key);
        }
    }
    Ok(value)
}

fn file_name(path: &Path) -> PathBuf {
    path.file_name().map(PathBuf::from).unwrap_or_default()
}
