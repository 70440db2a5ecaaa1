//! The metadata of ebuilds in a repository without a cache of its own.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Stand, text};
use crate::env::Privilege;

/// Files of the store with the metadata of `app-own/plain`.
fn kept(stand: &Stand) -> Vec<PathBuf> {
    let names = fs::read_dir(stand.env.path("store/cache/metadata")).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        names.map(|entry| entry.path()).filter(|path| entries(path).contains("plain")).collect();
    files.sort();
    files
}

fn entries(path: &Path) -> String {
    String::from_utf8(zstd::decode_all(fs::File::open(path).unwrap()).unwrap()).unwrap()
}

#[test]
fn root_metadata_are_generated_once_for_each_state_of_the_repositories() {
    let Some(mut stand) = Stand::alone(Privilege::Root) else { return };
    stand.env.set("QUERN_HOME", stand.env.path("store"));
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\nprofile-formats = portage-2\n");
    let stand = stand.with_repositories(&[&overlay]);
    stand.ebuild("app-own", "plain", "");
    let recipe = stand.recipe("plain", "baselayout-atoms = []\n[emerge]\npackages = [\"app-own/plain\"]\n");
    let slot = || {
        let plan = stand.env.run(["plan", text(&recipe), "--json"]).success().stdout;
        let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
        plan["packages"][0]["slot"].as_str().expect("a package").to_owned()
    };
    assert_eq!(slot(), "0");
    let files = kept(&stand);
    assert_eq!(files.len(), 1, "{files:?}");
    // Another answer than the ebuild's shows that the kept one is used, by builds too.
    let changed = entries(&files[0]).replace("SLOT=0", "SLOT=7");
    fs::write(&files[0], zstd::encode_all(changed.as_bytes(), 1).unwrap()).unwrap();
    assert_eq!(slot(), "7");
    stand.built(&recipe);
    assert_eq!(kept(&stand), files, "a build has the same repositories");
    settings_are_asked_once(&stand, &recipe);
    // Every other state of a repository has its own file.
    stand.ebuild("app-own", "plain", "# changed\n");
    assert_eq!(slot(), "0");
    assert_eq!(kept(&stand).len(), 2);
}

/// The settings that Portage reports are kept for each state of the configuration and the profiles.
fn settings_are_asked_once(stand: &Stand, recipe: &Path) {
    let offered = || {
        let index = stand.shell(recipe, &[], &["cat", "/quern/index/image/Packages"]).success().stdout;
        index.contains("CPV: app-own/plain-1\n")
    };
    assert!(offered());
    let kept = super::traces::names(&stand.env.path("store/cache/settings"));
    assert_eq!(kept.len(), 1, "a plan, a build and a shell have the same: {kept:?}");
    // Packages that were built with other settings show that the kept answer is used.
    let file = stand.env.path("store/cache/settings").join(&kept[0]);
    let changed = entries(&file).replace("-O2", "-O3");
    fs::write(&file, zstd::encode_all(changed.as_bytes(), 1).unwrap()).unwrap();
    assert!(!offered());
    stand.env.write("overlay/profiles/package.mask", "app-own/other\n");
    assert!(offered(), "another state of a profile");
}
