//! The first recipe of the README, and the summary of its build.

use std::fs;
use std::path::Path;

use super::{EPOCH, Stand};
use crate::env::Privilege;

/// Returns the first recipe of the README.
fn recipe() -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let recipe = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    recipe.expect("the README has a recipe").to_owned()
}

#[test]
fn userns_the_recipe_of_the_readme_builds_and_runs() {
    let Some(stand) = Stand::sharing(Privilege::Userns) else { return };
    // The stand-in mirror signs its snapshots with a key of its own.
    let mut stand = stand.with_snapshot("latest");
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let recipe = stand.env.write("hello.toml", recipe());
    let first = stand.build(&recipe).success();
    let shown = &first.stderr;
    for part in [
        "built hello in ",
        ": 3 packages (",
        " MiB  hello-2023-11-14.tar.gz\n",
        " MiB  hello-2023-11-14.oci\n",
        "run it: ",
        "podman run --rm -it oci:",
        "hello-2023-11-14.oci:20231114\n",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(first.results().len(), 2, "{first:?}");
    let said = stand.shell(&recipe, &["--image"], &["/bin/busybox", "echo", "hello"]).success();
    assert_eq!(said.stdout, "hello\n");

    // The second build reuses every package. Without an OCI image, the command opens a shell.
    let plain = stand.env.write("hello.toml", fs::read_to_string(&recipe).unwrap().split("[oci]").next().unwrap());
    let second = stand.build(&plain).success();
    assert!(second.stderr.contains(": 3 packages (3 reused)\n"), "{}", second.stderr);
    assert!(
        second.stderr.contains(&format!("run it: quern-builder shell {} --image\n", plain.display())),
        "{}",
        second.stderr
    );
    assert!(second.stderr.contains(", binary)"), "{}", second.stderr);
    let quiet = stand.env.run(["build".as_ref(), "--quiet".as_ref(), plain.as_os_str()]).success();
    assert_eq!(quiet.stderr, "");
}
