//! Bills of materials, judged by the validators of other projects.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{EPOCH, Stand, ask, text};
use crate::env::{Privilege, output, require_suites};

const RECIPE: &str =
    "kind = \"stage4\"\nsbom = [\"cyclonedx\", \"spdx\"]\n[emerge]\npackages = [\"app-test/tiny\", \"app-test/odd\"]\n";

/// Validates the document of its first argument, which is of the form of its second one.
const VALIDATE: &str = r#"
import sys
path, form = sys.argv[1:]
if form == "spdx":
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
    wrong = [message.validation_message for message in validate_full_spdx_document(parse_file(path))]
else:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(path).read())
    wrong = [] if found is None else [str(found)]
print("\n".join(wrong))
sys.exit(bool(wrong))
"#;

#[test]
fn userns_bills_of_materials_are_valid_and_complete() {
    let (Some(mut stand), Some(suites)) = (Stand::sharing(Privilege::Userns), require_suites()) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let recipe = stand.recipe("bill", RECIPE);
    assert!(!stand.build_changed(&recipe).success().results().is_empty());
    let result = |suffix: &str| stand.env.outdir().join(format!("bill-2023-11-14.{suffix}"));
    let installed: BTreeSet<String> = ask("tar", &["-tzf", text(&result("tar.gz"))])
        .lines()
        .filter_map(|line| line.strip_prefix("./var/db/pkg/")?.strip_suffix("/SLOT"))
        .map(str::to_owned)
        .collect();
    assert!(installed.iter().any(|package| package.starts_with("app-test/tiny-")), "{installed:?}");
    for (form, suffix, list) in [("spdx", "spdx.json", "packages"), ("cyclonedx", "cdx.json", "components")] {
        let path = result(suffix);
        let validators = suites.join("validators");
        let judged = output(
            std::process::Command::new("python3")
                .args(["-c", VALIDATE, text(&path), form])
                .env("PYTHONPATH", &validators)
                .env("PYTHONDONTWRITEBYTECODE", "1"),
        );
        let _ = judged.success();
        let document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let packages = document[list].as_array().unwrap();
        let named: BTreeSet<String> = packages
            .iter()
            .filter_map(|package| match form {
                "spdx" if package["externalRefs"].is_array() => {
                    Some(format!("{}-{}", field(package, "name"), field(package, "versionInfo")))
                }
                "cyclonedx" if package["purl"].is_string() => Some(field(package, "bom-ref").to_owned()),
                _ => None,
            })
            .collect();
        assert_eq!(named, installed, "{form}");
    }
    // The rules of strip do not change what the documents say.
    let stripped = stand.recipe("bill", &format!("{RECIPE}[strip]\npaths = [\"/var/db/pkg\"]\n"));
    assert!(!stand.build_changed(&stripped).success().results().is_empty());
    let document: Value = serde_json::from_slice(&std::fs::read(result("cdx.json")).unwrap()).unwrap();
    let packages = document["components"].as_array().unwrap().iter().filter(|package| package["purl"].is_string());
    assert_eq!(packages.count(), installed.len());
    let wrong = stand.recipe("bill", &RECIPE.replace("\"spdx\"", "\"spx\""));
    assert!(stand.env.run(["build", text(&wrong)]).code(2).stderr.contains("use spdx and cyclonedx"));
}

fn field<'a>(package: &'a Value, name: &str) -> &'a str {
    package[name].as_str().unwrap()
}
