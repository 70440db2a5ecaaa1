//! SPDX 2.3 (<https://spdx.github.io/spdx-spec/v2.3/>) as JSON.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::licence::reference;
use super::{Materials, TOOL, addresses, base, facts, purl, without_empty};
use crate::output::provenance::RepositoryOrigin;
use crate::portage::installed::Installed;
use crate::recipe::TreeKind;
use crate::source::RepositoryVersion;

const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-image";
const BASE: &str = "SPDXRef-base";
const NONE: &str = "NOASSERTION";

/// Composes the document.
pub(super) fn document(materials: &Materials<'_>) -> Value {
    let (licences, references) = materials.licences();
    let ids = ids(materials.packages);
    let mut packages = vec![image(materials), base_package(materials)];
    packages.extend(
        materials.repositories.iter().enumerate().map(|(place, repository)| self::repository(place, repository)),
    );
    let installed = materials.packages.iter().zip(&ids).zip(&licences);
    packages.extend(installed.map(|((package, id), licence)| self::package(package, id, licence.as_deref())));
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": materials.title,
        "documentNamespace": format!("https://spdx.org/spdxdocs/{}-{}", path(materials.title), materials.uuid("spdx")),
        "creationInfo": {
            "created": materials.date.rfc3339(),
            "creators": [format!("Tool: {}-{}", TOOL.0, TOOL.1)],
        },
        "packages": packages,
        "hasExtractedLicensingInfos": references.iter().map(|name| extracted(name)).collect::<Vec<_>>(),
        "relationships": relationships(materials, &ids),
    });
    without_empty(document)
}

fn image(materials: &Materials<'_>) -> Value {
    let (name, packed) = materials.tarball;
    json!({
        "SPDXID": IMAGE,
        "name": materials.title,
        "versionInfo": materials.date.dashed(),
        "packageFileName": name,
        "checksums": [{ "algorithm": "SHA256", "checksumValue": packed.sha256.hex() }],
        "primaryPackagePurpose": "OPERATING_SYSTEM",
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
    })
}

fn base_package(materials: &Materials<'_>) -> Value {
    let (name, digests) = base(materials.base);
    let checksum = |(algorithm, value)| json!({ "algorithm": algorithm, "checksumValue": value });
    without_empty(json!({
        "SPDXID": BASE,
        "name": name,
        "checksums": digests.into_iter().map(checksum).collect::<Vec<_>>(),
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
    }))
}

fn repository(place: usize, origin: &RepositoryOrigin<'_>) -> Value {
    let (version, checksum, location) = match origin.version {
        RepositoryVersion::Directory { commit, content } => {
            (commit.clone(), content.as_ref().map(|content| ("SHA256", content.hex())), None)
        }
        RepositoryVersion::Snapshot { name, sha512, .. } => (Some(name.clone()), Some(("SHA512", sha512.hex())), None),
        RepositoryVersion::Git { url, commit, .. } => (Some(commit.clone()), None, Some(format!("git+{url}@{commit}"))),
    };
    let checksum = checksum.map(|(algorithm, value)| json!([{ "algorithm": algorithm, "checksumValue": value }]));
    without_empty(json!({
        "SPDXID": repository_id(place),
        "name": format!("ebuild repository {}", origin.name),
        "versionInfo": version,
        "checksums": checksum,
        "downloadLocation": location.unwrap_or_else(|| NONE.to_owned()),
        "filesAnalyzed": false,
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
    }))
}

fn package(package: &Installed, id: &str, licence: Option<&str>) -> Value {
    let facts: Vec<_> = facts(package).into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
    without_empty(json!({
        "SPDXID": id,
        "name": package.name,
        "versionInfo": package.version,
        "summary": package.description,
        "homepage": addresses(package).next(),
        "comment": facts.join("\n"),
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl(package),
        }],
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "licenseConcluded": NONE,
        "licenseDeclared": licence.unwrap_or(NONE),
        "copyrightText": NONE,
    }))
}

/// Describes a licence that SPDX does not list.
fn extracted(name: &str) -> Value {
    json!({
        "licenseId": reference(name),
        "name": name,
        "extractedText": format!("The licence {name} of Gentoo: the file licenses/{name} of its ebuild repository"),
    })
}

fn relationships(materials: &Materials<'_>, ids: &[String]) -> Vec<Value> {
    let relation = |from: &str, kind: &str, to: &str| json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to });
    let mut all = vec![relation(DOCUMENT, "DESCRIBES", IMAGE)];
    all.push(match materials.kind {
        TreeKind::Image => relation(BASE, "BUILD_TOOL_OF", IMAGE),
        TreeKind::Stage4 => relation(IMAGE, "DESCENDANT_OF", BASE),
    });
    let repositories = 0..materials.repositories.len();
    all.extend(repositories.map(|place| relation(IMAGE, "GENERATED_FROM", &repository_id(place))));
    all.extend(ids.iter().map(|id| relation(IMAGE, "CONTAINS", id)));
    for (package, id) in materials.packages.iter().zip(ids) {
        let needs = package.needs(materials.packages);
        all.extend(needs.into_iter().map(|other| relation(id, "DEPENDS_ON", &ids[other])));
        let tools = package.was_built_with(materials.packages);
        all.extend(tools.into_iter().map(|tool| relation(&ids[tool], "BUILD_DEPENDENCY_OF", id)));
    }
    all
}

fn repository_id(place: usize) -> String {
    format!("SPDXRef-repository-{place}")
}

/// Returns identifiers for the packages. They may have letters, digits, points and hyphens only.
fn ids(packages: &[Installed]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let id = |(place, package): (usize, &Installed)| {
        let mut id = format!("SPDXRef-package-{}-{}", path(&package.name), path(&package.version));
        if !taken.insert(id.clone()) {
            id = format!("{id}-{place}");
            taken.insert(id.clone());
        }
        id
    };
    packages.iter().enumerate().map(id).collect()
}

/// Replaces the characters that an identifier cannot have.
fn path(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}
