//! The result of a recipe in a registry.

use std::fs;

use super::{Stand, TINY, text};
use crate::env::Privilege;
use crate::registry::Registry;

#[test]
fn userns_the_newest_result_of_a_recipe_is_pushed() {
    let Some(stand) = Stand::sharing(Privilege::Userns) else { return };
    let Some(registry) = Registry::start(&stand.env, false) else { return };
    let recipe = stand.recipe("pushed", &format!("{TINY}[oci]\n"));
    let to = registry.reference("pushed:1");
    let refused = stand.env.run(["push", text(&recipe), &to]).code(2);
    assert!(refused.stderr.contains("has no image to push"), "{refused:#?}");
    let results = stand.built(&recipe);
    let pushed = stand.env.run(["push", text(&recipe), &to]).success();
    let index = fs::read_to_string(results[1].join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    assert_eq!(pushed.stdout, format!("{}@{digest}\n", registry.reference("pushed")));
    let _ = stand.env.run(["pull", &to, "back.oci"]).success();
    let _ = crate::env::output(stand.env.command("diff").arg("-r").arg(results[1].join("blobs")).arg("back.oci/blobs"))
        .success();
    let _ = stand.env.run(["oci", "unpack", "back.oci", "1", "tree"]).success();
    assert!(stand.env.path("tree/usr").exists());
}
