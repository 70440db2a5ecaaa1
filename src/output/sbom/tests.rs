use super::*;
use crate::archive::pack::Format;
use crate::base::digest::Sha512;
use crate::source::RepositoryVersion;

fn package(category: &str, pf: &str, files: &[(&str, &str)]) -> Installed {
    let text = |name: &str| files.iter().find(|(file, _)| *file == name).map_or("", |(_, text)| text).to_owned();
    Installed::new(category, pf, |name| Ok(text(name))).unwrap().unwrap()
}

/// Passes both documents about two packages, one of which has hostile texts, to `judge`.
fn documents(judge: impl Fn(SbomFormat, Value)) {
    let packages = [
        package(
            "dev-libs",
            "openssl-3.0.13-r2",
            &[
                ("SLOT", "0/3"),
                ("LICENSE", "Apache-2.0"),
                ("USE", "asm"),
                ("IUSE", "+asm doc"),
                ("repository", "gentoo"),
            ],
        ),
        package(
            "net-misc",
            "cu+rl_x-8.4.0",
            &[
                ("RDEPEND", ">=dev-libs/openssl-3:0/3="),
                ("BDEPEND", "dev-libs/openssl"),
                ("LICENSE", "curl <script>"),
                ("DESCRIPTION", "<b>\u{1b}[31m\"quoted\"\n"),
                ("HOMEPAGE", "javascript:x https://curl.se/"),
            ],
        ),
    ];
    let version = RepositoryVersion::Directory { commit: Some("c0ffee".to_owned()), content: Some(Sha256::of(b"r")) };
    let repositories = [RepositoryOrigin { name: "gentoo", location: None, version: &version }];
    let base = BaseOrigin::Stage3 { name: "stage3.tar.xz", sha512: Sha512::of(b"s"), signer: None, verification: "x" };
    let digest = Sha256::of(b"tarball");
    let packed = Packed { sha256: digest, diff_id: digest, size: 7, tar_size: 7, entries: 1, format: Format::Gzip };
    let materials = Materials {
        title: "my image",
        date: SourceDate::new(1_700_000_000),
        tarball: ("my.tar.gz", &packed),
        kind: TreeKind::Image,
        base: &base,
        repositories: &repositories,
        packages: &packages,
    };
    for format in [SbomFormat::Spdx, SbomFormat::CycloneDx] {
        let bytes = materials.document(format).unwrap();
        assert_eq!(bytes, materials.document(format).unwrap());
        judge(format, serde_json::from_slice(&bytes).unwrap());
    }
}

#[test]
fn documents_name_packages_licences_and_dependencies() {
    documents(|format, document| match format {
        SbomFormat::Spdx => {
            let curl = &document["packages"][4];
            assert_eq!(curl["SPDXID"], "SPDXRef-package-net-misc-cu-rl-x-8.4.0");
            assert_eq!(curl["licenseDeclared"], "curl AND LicenseRef-gentoo--script-");
            assert_eq!(curl["homepage"], "https://curl.se/");
            assert_eq!(document["hasExtractedLicensingInfos"][0]["licenseId"], "LicenseRef-gentoo--script-");
            let relations: Vec<_> = document["relationships"].as_array().unwrap().iter().map(relation).collect();
            let (openssl, curl) = ("package-dev-libs-openssl-3.0.13-r2", "package-net-misc-cu-rl-x-8.4.0");
            assert_eq!(
                relations,
                [
                    "DOCUMENT DESCRIBES image".to_owned(),
                    "base BUILD_TOOL_OF image".to_owned(),
                    "image GENERATED_FROM repository-0".to_owned(),
                    format!("image CONTAINS {openssl}"),
                    format!("image CONTAINS {curl}"),
                    format!("{curl} DEPENDS_ON {openssl}"),
                    format!("{openssl} BUILD_DEPENDENCY_OF {curl}"),
                ]
            );
        }
        SbomFormat::CycloneDx => {
            let openssl = &document["components"][2];
            assert_eq!(openssl["purl"], "pkg:ebuild/dev-libs/openssl@3.0.13-r2?repository=gentoo&slot=0%2F3");
            assert_eq!(openssl["licenses"][0]["expression"], "Apache-2.0");
            let flags = json!({ "name": "gentoo:use", "value": "asm -doc" });
            assert!(openssl["properties"].as_array().unwrap().contains(&flags), "{openssl}");
            assert_eq!(document["components"][3]["purl"], "pkg:ebuild/net-misc/cu%2Brl_x@8.4.0");
            assert_eq!(document["dependencies"][2]["dependsOn"], json!(["dev-libs/openssl-3.0.13-r2"]));
        }
    });
}

fn relation(value: &Value) -> String {
    let id = |field: &str| value[field].as_str().unwrap().trim_start_matches("SPDXRef-").to_owned();
    format!("{} {} {}", id("spdxElementId"), value["relationshipType"].as_str().unwrap(), id("relatedSpdxElement"))
}

#[test]
fn an_identifier_is_a_uuid_of_the_tarball() {
    documents(|format, document| {
        let text = match format {
            SbomFormat::Spdx => {
                document["documentNamespace"].as_str().unwrap().rsplit_once("image-").unwrap().1.to_owned()
            }
            SbomFormat::CycloneDx => document["serialNumber"].as_str().unwrap().replace("urn:uuid:", ""),
        };
        let parts: Vec<&str> = text.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(parts[2].starts_with('8') && parts[3].starts_with(['8', '9', 'a', 'b']), "{text}");
    });
}
