//! CycloneDX 1.6 (ECMA-424) as JSON.

use serde_json::{Value, json};

use super::{Materials, TOOL, addresses, base, facts, purl, without_empty};
use crate::output::provenance::RepositoryOrigin;
use crate::portage::installed::Installed;
use crate::source::RepositoryVersion;

/// The identifier of the image in the document.
const IMAGE: &str = "image";

/// Composes the document.
pub(super) fn document(materials: &Materials<'_>) -> Value {
    let (licences, _) = materials.licences();
    let (name, packed) = materials.tarball;
    let mut components = vec![base_component(materials)];
    components.extend(materials.repositories.iter().map(repository));
    let installed = materials.packages.iter().zip(&licences);
    components.extend(installed.map(|(package, licence)| component(package, licence.as_deref())));
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", materials.uuid("cyclonedx")),
        "version": 1,
        "metadata": {
            "timestamp": materials.date.rfc3339(),
            "tools": { "components": [{ "type": "application", "name": TOOL.0, "version": TOOL.1 }] },
            "component": {
                "type": "operating-system",
                "bom-ref": IMAGE,
                "name": materials.title,
                "version": materials.date.dashed(),
                "hashes": [{ "alg": "SHA-256", "content": packed.sha256.hex() }],
                "properties": [property("quern-builder:file", name)],
            },
        },
        "components": components,
        "dependencies": dependencies(materials),
    })
}

fn base_component(materials: &Materials<'_>) -> Value {
    let (name, digests) = base(materials.base);
    let hashes: Vec<_> = digests.into_iter().map(|(_, value)| json!({ "alg": "SHA-512", "content": value })).collect();
    without_empty(json!({ "type": "operating-system", "bom-ref": "base", "name": name, "hashes": hashes }))
}

fn repository(origin: &RepositoryOrigin<'_>) -> Value {
    let (version, hash) = match origin.version {
        RepositoryVersion::Directory { commit, content } => {
            (commit.clone(), content.as_ref().map(|content| ("SHA-256", content.hex())))
        }
        RepositoryVersion::Snapshot { name, sha512, .. } => (Some(name.clone()), Some(("SHA-512", sha512.hex()))),
        RepositoryVersion::Git { commit, .. } => (Some(commit.clone()), None),
    };
    without_empty(json!({
        "type": "data",
        "bom-ref": format!("repository {}", origin.name),
        "name": origin.name,
        "description": "ebuild repository",
        "version": version,
        "hashes": hash.map(|(algorithm, value)| json!([{ "alg": algorithm, "content": value }])),
    }))
}

fn component(package: &Installed, licence: Option<&str>) -> Value {
    let (category, name) = package.name.split_once('/').unwrap_or(("", &package.name));
    let website = |address: &str| json!({ "type": "website", "url": address });
    let properties = facts(package).into_iter().map(|(name, value)| property(&format!("gentoo:{name}"), &value));
    without_empty(json!({
        "type": "library",
        "bom-ref": reference(package),
        "group": category,
        "name": name,
        "version": package.version,
        "description": package.description,
        "purl": purl(package),
        "licenses": licence.map(|licence| json!([{ "expression": licence, "acknowledgement": "declared" }])),
        "externalReferences": addresses(package).map(website).collect::<Vec<_>>(),
        "properties": properties.collect::<Vec<_>>(),
    }))
}

/// Returns the packages that the image has, and those that each package needs at run time.
fn dependencies(materials: &Materials<'_>) -> Vec<Value> {
    let entry = |of: &str, on: Vec<String>| json!({ "ref": of, "dependsOn": on });
    let mut all = vec![entry(IMAGE, materials.packages.iter().map(reference).collect())];
    all.extend(materials.packages.iter().map(|package| {
        let needs = package.needs(materials.packages);
        entry(&reference(package), needs.into_iter().map(|other| reference(&materials.packages[other])).collect())
    }));
    all
}

fn property(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

/// Returns the identifier of a package in the document.
fn reference(package: &Installed) -> String {
    format!("{}-{}", package.name, package.version)
}
