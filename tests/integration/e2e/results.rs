//! Builds whose results must not be published.

use std::fs;

use super::{EPOCH, Stand, text};
use crate::env::Privilege;

const TINY: &str = "[emerge]\npackages = [\"app-test/tiny\"]\n";

#[test]
fn userns_a_recipe_does_not_overwrite_the_results_of_another() {
    let Some(mut stand) = Stand::sharing(Privilege::Userns) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let first = stand.recipe("twin", TINY);
    let second = stand.recipe("other/twin", TINY);
    let outdir = stand.env.outdir();
    let build = |recipe, options: &[&str]| {
        let command = ["build", "--again=all", text(recipe), "--outdir", text(&outdir)];
        stand.env.run([&command[..], options].concat())
    };
    let tarball = build(&first, &[]).success().results()[0].clone();
    let bytes = fs::read(&tarball).unwrap();
    for options in [&[][..], &["--dry-run"]] {
        let refused = build(&second, options).code(2);
        assert!(refused.stderr.contains(text(&first)), "{refused:#?}");
        assert!(refused.stderr.contains("image-name") && refused.stderr.contains("--outdir"), "{refused:#?}");
        assert!(!refused.stderr.contains("unpacking"), "it must fail before the work: {refused:#?}");
    }
    assert!(fs::read(&tarball).unwrap() == bytes);
    // No path of this machine is published.
    let provenance = fs::read_to_string(tarball.with_file_name("twin-2023-11-14.json")).unwrap();
    assert!(!provenance.contains(text(first.parent().unwrap())), "{provenance}");
    // The first recipe replaces its results, and the second one may use another name.
    let _ = build(&first, &[]).success();
    let renamed = build(&second, &["--set", "build.image-name=twin-of-twin"]).success();
    assert!(renamed.results()[0].ends_with("twin-of-twin.tar.gz"), "{renamed:#?}");
    // A recipe that was moved is not locked out.
    let moved = stand.env.path("moved.toml");
    fs::rename(&first, &moved).unwrap();
    let named = "name=twin";
    assert_eq!(build(&moved, &["--set", named]).success().results()[0], tarball);
}

#[test]
fn userns_an_oci_image_with_the_name_of_a_whiteout_is_refused() {
    let Some(stand) = Stand::sharing(Privilege::Userns) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\nuse-manifests = false\n");
    stand.ebuild(
        "app-own",
        "mark",
        "src_install() {\n\tmkdir -p \"${ED}/usr/share/mark\" || die\n\techo x > \"${ED}/usr/share/mark/.wh.x\" || die\n}\n",
    );
    let stand = stand.with_own_packages().with_repositories(&[&overlay]);
    let with = |rest: &str| stand.recipe("mark", &format!("[emerge]\npackages = [\"app-own/mark\"]\n{rest}"));
    let refused = stand.build(&with("[oci]\n")).code(1);
    assert!(refused.stderr.contains("/usr/share/mark/.wh.x") && refused.stderr.contains("strip.paths"), "{refused:#?}");
    let published = fs::read_dir(stand.env.outdir()).map(Iterator::count).unwrap_or_default();
    assert_eq!(published, 0, "nothing is published");
    let stripped = with("[oci]\n[strip]\npaths = [\"/usr/share/mark/.wh.x\"]\n");
    let results = stand.built(&stripped);
    let _ = stand.env.run(["oci", "validate", text(&results[1])]).success();
    // A tarball may contain the name.
    fs::remove_dir_all(stand.env.outdir()).unwrap();
    assert_eq!(stand.built(&with("")).len(), 1);
}
