//! Where an image came from: an in-toto statement with a SLSA provenance predicate. Pure.
//!
//! It depends on the inputs alone: no clock but the build's [`SourceDate`], no path of this machine, nothing that differs between a
//! build as root and one without.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::oci;
use crate::archive::pack::Packed;
use crate::base::error::{Context, Kind, Result};
use crate::base::time::SourceDate;
use crate::recipe::{BaseSpec, Git, Job, Origin, Snapshot};
use crate::source::repository::Fact;

/// Names the meaning of `externalParameters` and `internalParameters`.
const BUILD_TYPE: &str = "urn:quern-builder:build:v1";

/// What the build started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseFact<'a> {
    /// The stage3 as it was verified.
    Stage3 {
        /// File name.
        name: &'a str,
        /// SHA-512, in hex.
        sha512: &'a str,
        /// Primary fingerprint of the certificate that signed it.
        signer: Option<&'a str>,
        /// How it was verified, in words.
        how: &'a str,
    },
    /// The system of the machine that built it.
    Host {
        /// What it calls itself.
        name: &'a str,
    },
}

impl BaseFact<'_> {
    /// As an in-toto resource.
    fn resource(&self) -> Value {
        match self {
            Self::Stage3 { name, sha512, signer, how } => json!({
                "name": name,
                "digest": { "sha512": sha512 },
                "annotations": { "signer": signer, "verification": how },
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

/// An ebuild repository that the build read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryFact<'a> {
    /// Its `repo_name`.
    pub name: &'a str,
    /// Where it came from.
    pub origin: &'a Fact,
}

/// A command that was run inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFact {
    /// What it was for.
    pub what: String,
    /// The command.
    pub argv: Vec<String>,
}

/// Everything a statement says beside the recipe and the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    /// What the build started from.
    pub base: BaseFact<'a>,
    /// The repositories, in the recipe's order.
    pub repositories: &'a [RepositoryFact<'a>],
    /// The commands, in order.
    pub steps: &'a [StepFact],
}

/// The statement about the tarball `file`, as indented JSON with sorted keys.
pub fn document(job: &Job, facts: &Facts<'_>, file: &str, packed: &Packed, moment: SourceDate) -> Result<Vec<u8>> {
    let writing = || format!("writing the provenance of {file}");
    let mut dependencies = vec![facts.base.resource()];
    for repository in facts.repositories {
        let name = repository.name;
        dependencies.push(match repository.origin {
            Fact::Directory { commit: None } => json!({ "name": name }),
            Fact::Directory { commit: Some(commit) } => {
                json!({ "name": name, "digest": { "gitCommit": commit } })
            }
            Fact::Snapshot { name: snapshot, sha512, signer, how, .. } => json!({
                "name": name,
                "digest": { "sha512": sha512 },
                "annotations": { "snapshot": snapshot, "signer": signer, "verification": how },
            }),
            Fact::Git { url, commit, signer, how } => json!({
                "name": name,
                "uri": format!("git+{url}"),
                "digest": { "gitCommit": commit },
                "annotations": { "signer": signer, "verification": how },
            }),
        });
    }
    let steps: Vec<_> = facts.steps.iter().map(|step| json!({ "what": step.what, "argv": step.argv })).collect();
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{
            "name": file,
            "digest": { "sha256": packed.sha256 },
            "annotations": { "diff-id": format!("sha256:{}", packed.diff_id), "size": packed.size },
        }],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "recipe": recipe(job, facts.repositories).context(Kind::Build, writing)? },
                "internalParameters": { "emerge": steps, "source-date-epoch": moment.epoch() },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {
                    "id": "urn:quern-builder",
                    "version": { "quern-builder": env!("CARGO_PKG_VERSION") },
                },
                "metadata": { "finishedOn": moment.rfc3339() },
            },
        },
    });
    let mut bytes = serde_json::to_vec_pretty(&oci::sorted(statement)).context(Kind::Build, writing)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The recipe without this machine's paths: of files their names, of repositories theirs.
fn recipe(job: &Job, repositories: &[RepositoryFact<'_>]) -> serde_json::Result<Value> {
    let mut job = job.clone();
    if let BaseSpec::File { path, signature, .. } = &mut job.source.base {
        *path = file_name(path);
        *signature = signature.as_deref().map(file_name);
    }
    job.source.keyring = job.source.keyring.as_deref().map(file_name);
    for (index, repository) in job.portage.repositories.iter_mut().enumerate() {
        match &mut repository.origin {
            Origin::Location(path) => {
                *path = match repositories.get(index) {
                    Some(fact) => PathBuf::from(fact.name),
                    None => file_name(path),
                }
            }
            Origin::Snapshot(Snapshot { keyring, .. }) | Origin::Git(Git { keyring, .. }) => {
                *keyring = keyring.as_deref().map(file_name);
            }
        }
    }
    job.portage.config = job.portage.config.as_deref().map(file_name);
    let mut value = serde_json::to_value(&job)?;
    // Where caches and results lie says nothing of the image.
    for (table, key) in [("portage", "binpkg"), ("portage", "distfiles"), ("build", "outdir"), ("build", "keep_failed")]
    {
        if let Some(table) = value.get_mut(table).and_then(Value::as_object_mut) {
            table.remove(key);
        }
    }
    Ok(value)
}

fn file_name(path: &Path) -> PathBuf {
    path.file_name().map(PathBuf::from).unwrap_or_default()
}
