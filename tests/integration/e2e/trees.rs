//! Trees of images: each starts from the result of the one above.

use std::path::{Path, PathBuf};

use super::{EPOCH, HEAD, Stand, ask, text};
use crate::env::{Output, Privilege, twins};

/// Writes the tree of the test: `p`, and `c` and `d` that start from it. Returns its directory.
fn write(stand: &Stand, name: &str) -> PathBuf {
    let tree = format!("{HEAD}kind = \"stage4\"\n[vars]\nV = \"root\"\n[bind.sysroot]\nsysroot = \"lib/sysroot\"\n");
    stand.env.write(format!("{name}/quern-tree.toml"), tree);
    stand.env.write(format!("{name}/lib/sysroot/opt/name"), name);
    let parent = "publish = false\n[[step]]\nname = \"p\"\nrun = 'cp /opt/name /name; echo p1 > /p'\n";
    stand.env.write(format!("{name}/p/quern.toml"), parent);
    let child = "[vars]\nC = \"child\"\n[[step]]\nname = \"c\"\nvars = [\"V\", \"C\"]\nrun = 'cat /p > /c; echo $V $C >> /c'\n\
                 [portage.make-conf]\nMINE = \"1\"\n";
    stand.env.write(format!("{name}/p/c/quern.toml"), child);
    stand.env.write(format!("{name}/p/d/quern.toml"), "[[step]]\nname = \"d\"\nrun = 'env > /d'\n");
    stand.env.path(name)
}

fn content(tarball: &Path, path: &str) -> String {
    ask("tar", &["--extract", "--to-stdout", "--file", text(tarball), &format!("./{path}")])
}

/// Returns the states that `tree` prints: names, states and reasons.
fn states(stand: &Stand, tree: &Path) -> Vec<String> {
    let printed = stand.env.run(["tree", text(tree)]).success().stdout;
    printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Returns the table at the end of a build of several images.
fn table(built: &Output) -> Vec<String> {
    let words = ["built", "cached", "failed", "skipped"];
    let line = |line: &&str| line.split_whitespace().count() == 2 && words.iter().any(|word| line.ends_with(word));
    built.stderr.lines().filter(line).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

twins!(a_changed_parent_reaches_its_children => root_a_changed_parent_reaches_its_children, userns_a_changed_parent_reaches_its_children);

fn a_changed_parent_reaches_its_children(privilege: Privilege) {
    let Some(mut stand) = Stand::sharing(privilege) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let name = format!("tree-{privilege:?}").to_lowercase();
    let tree = write(&stand, &name);
    stand.env.set("QUERN_BUILD_OUTDIR", stand.env.outdir());
    let all = tree.join("...");
    let built = stand.env.run(["build", text(&all)]).success();
    let of = |path: &str, state: &str| format!("{name}/{path} {state}");
    assert_eq!(table(&built), [of("p", "built"), of("p/c", "built"), of("p/d", "built")], "{}", built.stderr);
    let [first, second] = &built.results()[..] else { panic!("{}", built.stdout) };
    assert!(first.ends_with(format!("{name}/p/c-2023-11-14.tar.gz")), "{}", first.display());
    assert!(second.ends_with(format!("{name}/p/d-2023-11-14.tar.gz")), "{}", second.display());
    assert_eq!((content(first, "c").as_str(), content(first, "name")), ("p1\nroot child\n", name.clone()));
    assert!(!content(second, "d").contains("child"));
    // The configuration of the child is that of one recipe, not two of them.
    let configuration = content(first, "etc/portage/make.conf");
    assert_eq!(configuration.matches("MINE=").count(), 1, "{configuration}");
    assert!(!configuration.contains("PKGDIR=\"/quern"), "{configuration}");
    let listed = ask("tar", &["--list", "--file", text(first)]);
    assert!(!listed.contains("./opt/name"), "the bind of the parent is in the child");
    let digests = ask("sha256sum", &[text(first), text(second)]);

    let current = [format!("{name}/p current 1 cached step, not published"), "c current 1 cached step".to_owned()];
    assert_eq!(states(&stand, &tree)[..2], current);
    let again = stand.env.run(["build", text(&all)]).success();
    assert_eq!(table(&again), [of("p", "cached"), of("p/c", "cached"), of("p/d", "cached")], "{}", again.stderr);
    assert_eq!(ask("sha256sum", &[text(first), text(second)]), digests);

    // Nobody tells the child that its parent has changed.
    let parent = tree.join("p/quern.toml");
    let changed = std::fs::read_to_string(&parent).unwrap().replace("p1", "p2");
    std::fs::write(&parent, changed).unwrap();
    let stale = states(&stand, &tree);
    assert_eq!(stale[0], format!("{name}/p stale p run: script changed, not published"));
    assert_eq!(stale[1], format!("c stale unknown until the image {name}/p is built"));
    let child = stand.env.run(["build", text(&tree.join("p/c"))]).success();
    assert!(child.stderr.contains("running the step c (follows the image"), "{}", child.stderr);
    assert_eq!(content(first, "c"), "p2\nroot child\n");
    let shown = stand.env.run(["shell", text(&tree.join("p/c")), "--before", "c", "--", "cat", "/p"]).success();
    assert_eq!(shown.stdout, "p2\n");

    // A change of one child is none of the other one's.
    let recipe = tree.join("p/c/quern.toml");
    let before = states(&stand, &tree)[2].clone();
    std::fs::write(&recipe, std::fs::read_to_string(&recipe).unwrap().replace("\"child\"", "\"other\"")).unwrap();
    assert_eq!(states(&stand, &tree)[2], before);

    // A failure stops only the images that need the failed one.
    std::fs::write(&recipe, std::fs::read_to_string(&recipe).unwrap().replace("cat /p", "exit 7; cat /p")).unwrap();
    stand.env.write(format!("{name}/p/c/e/quern.toml"), "[[step]]\nname = \"e\"\nrun = 'true'\n");
    let failed = stand.env.run(["build", text(&all)]).code(1);
    let expected = [of("p", "cached"), of("p/c", "failed"), of("p/c/e", "skipped"), of("p/d", "built")];
    assert_eq!(table(&failed), expected, "{}", failed.stderr);
    assert!(failed.stderr.contains("the step c"), "{}", failed.stderr);
}

#[test]
fn root_an_image_starts_from_the_merged_packages_of_another() {
    let Some(mut stand) = Stand::sharing(Privilege::Root) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let base = format!("{HEAD}[emerge]\npackages = [\"app-test/tiny\"]\n");
    stand.env.write("base.toml", base);
    let recipe = stand.env.write("one.toml", "from = \"base.toml\"\n[emerge]\npackages = [\"app-misc/mime-types\"]\n");
    let built = stand.build_changed(&recipe).success();
    let tarball = &built.results()[0];
    let listed = ask("tar", &["--list", "--file", text(tarball)]);
    for package in ["app-test/tiny", "app-misc/mime-types", "sys-apps/baselayout"] {
        assert!(listed.contains(&format!("var/db/pkg/{package}")), "{package}: {listed}");
    }
    let provenance = std::fs::read_to_string(tarball.with_file_name("one-2023-11-14.json")).unwrap();
    let provenance: serde_json::Value = serde_json::from_str(&provenance).unwrap();
    assert!(provenance.to_string().contains("\"from\""), "{provenance}");
    // The image of the base is as good as if the child did not exist.
    let again = stand.build_changed(&recipe).success();
    assert!(again.stderr.contains("the image base is cached"), "{}", again.stderr);
}

#[test]
fn userns_the_tree_of_the_profiles_says_hello() {
    let Some(mut stand) = Stand::sharing(Privilege::Userns) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/hello");
    stand.env.set("QUERN_BUILD_OUTDIR", stand.env.outdir());
    let image = profiles.join("hello_world");
    let built = stand.env.run(["build", text(&image), "--watch", "--again", "all"]).success();
    for line in [
        "TREE_CONFIG_VAR is set to hello from the tree",
        "STALK_CONFIG_VAR is set to hello from the image",
        "hello from substitution in a file",
        "hello from python via environment variables",
        "hello from python via arguments",
    ] {
        assert!(built.stderr.contains(line), "{line}: {}", built.stderr);
    }
    let tarball = &built.results()[0];
    assert!(tarball.ends_with("hello/hello_world-2023-11-14.tar.gz"), "{}", tarball.display());
    assert!(!ask("tar", &["--list", "--file", text(tarball)]).contains("etc/hello.conf"));
}
