//! Tuples: images of a tree that are made of fragments.

use std::path::{Path, PathBuf};

use super::{EPOCH, HEAD, Stand, ask, text};
use crate::env::{Privilege, twins};

fn content(tarball: &Path, path: &str) -> String {
    ask("tar", &["--extract", "--to-stdout", "--file", text(tarball), &format!("./{path}")])
}

/// Writes a tree of four tuples and the image `base`. Returns its directory.
fn write(stand: &Stand, name: &str) -> PathBuf {
    let axes = "[axis.colour]\nfrom = \"colours\"\n[axis.size]\nfrom = \"sizes\"\n";
    let tuple = "[[tuple]]\ncolour = [\"red\", \"blue\"]\nsize = [\"s\", \"xl\"]\n";
    let tree = format!("{HEAD}kind = \"stage4\"\n[tree]\nname = \"{name}\"\n{axes}{tuple}");
    stand.env.write(format!("{name}/quern-tree.toml"), tree);
    stand.env.write(format!("{name}/base/quern.toml"), "publish = false\n");
    for colour in ["red", "blue"] {
        let step = format!("[[step]]\nname = \"colour\"\nrun = 'echo {colour} $size > /colour'\nvars = [\"size\"]\n");
        stand.env.write(format!("{name}/colours/{colour}.toml"), step);
    }
    for size in ["s", "xl"] {
        stand.env.write(format!("{name}/sizes/{size}"), size);
        let copy = format!("[[step]]\nname = \"size\"\ncopy = [{{ from = \"{size}\", to = \"/size\" }}]\n");
        stand.env.write(format!("{name}/sizes/{size}.toml"), copy);
    }
    stand.env.path(name)
}

twins!(tuples_are_built_by_their_names => root_tuples_are_built_by_their_names, userns_tuples_are_built_by_their_names);

fn tuples_are_built_by_their_names(privilege: Privilege) {
    let Some(mut stand) = Stand::sharing(privilege) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    stand.env.set("QUERN_BUILD_OUTDIR", stand.env.outdir());
    let name = format!("tuples-{privilege:?}").to_lowercase();
    let tree = write(&stand, &name);
    let listed = stand.env.run(["tree", text(&tree)]).success().stdout;
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let all = ["base", "red-s", "red-xl", "blue-s", "blue-xl"];
    assert_eq!(names, all.map(|image| format!("{name}/{image}")));

    let built = stand.env.run(["build", text(&tree.join("blue-xl"))]).success();
    let tarball = built.results()[0].clone();
    assert!(tarball.ends_with(format!("{name}/blue-xl-2023-11-14.tar.gz")), "{}", tarball.display());
    assert_eq!((content(&tarball, "colour").as_str(), content(&tarball, "size").as_str()), ("blue xl\n", "xl"));
    let provenance = std::fs::read_to_string(tarball.with_file_name("blue-xl-2023-11-14.json")).unwrap();
    let provenance: serde_json::Value = serde_json::from_str(&provenance).unwrap();
    assert!(provenance.to_string().contains(r#""axes":{"colour":"blue","size":"xl"}"#), "{provenance}");
    let log = stand.env.run(["log", text(&tree.join("blue-xl")), "colour"]).success();
    assert!(log.stderr.is_empty() || !log.stderr.contains("error"), "{}", log.stderr);

    let built = stand.env.run(["build", text(&tree.join("..."))]).success();
    assert_eq!(built.results().len(), 4, "{}", built.stdout);
    assert!(built.stderr.contains(&format!("{name}/blue-xl  cached")), "{}", built.stderr);
    let unknown = stand.env.run(["build", text(&tree.join("blue-xs"))]).code(2);
    assert!(unknown.stderr.contains("did you mean blue-s?"), "{}", unknown.stderr);
    // Two images of one name would replace each other's results.
    let other = stand.env.write(format!("{name}/other/quern.toml"), "name = \"base\"\n");
    let refused = stand.env.run(["tree", text(&tree)]).code(2);
    assert!(refused.stderr.contains(&format!("two images have the name {name}/base: ")), "{}", refused.stderr);
    std::fs::remove_file(other).unwrap();
    // A tuple is not built in place of a directory.
    stand.env.write(format!("{name}/red-s/quern.toml"), "");
    let refused = stand.env.run(["tree", text(&tree)]).code(2);
    assert!(refused.stderr.contains("the tuple `red-s` has the name of a file or directory"), "{}", refused.stderr);
}

/// Runs a script in the git repository `config` of the tree.
fn git(tree: &Path, script: &str) {
    let config = tree.join("config");
    std::fs::create_dir_all(&config).unwrap();
    let identity = "export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=a@b GIT_CONFIG_GLOBAL=/dev/null";
    ask("bash", &["-ec", &format!("cd '{}'; {identity}; {script}", text(&config))]);
}

#[test]
fn userns_branches_are_configurations_of_tuples() {
    let Some(mut stand) = Stand::sharing(Privilege::Userns) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    stand.env.set("QUERN_BUILD_OUTDIR", stand.env.outdir());
    let axis = "[axis.portage]\nfrom = { git = \"config\" }\n[[tuple]]\nportage = [\"server\", \"desktop\"]\n";
    stand.env.write("branches/quern-tree.toml", format!("{HEAD}kind = \"stage4\"\n{axis}"));
    let tree = stand.env.path("branches");
    let commit = |flag: &str| {
        format!("mkdir -p package.use; echo app-test/tiny {flag} > package.use/one; git add .; git commit -qm {flag}")
    };
    let branch = |name: &str, flag: &str| format!("git checkout -qb {name}; {}", commit(flag));
    git(
        &tree,
        &format!(
            "git init -q -b main .; {}; {}; git checkout -q server",
            branch("server", "foo"),
            branch("desktop", "bar")
        ),
    );
    let built = stand.env.run(["build", text(&tree.join("desktop"))]).success();
    let tarball = built.results()[0].clone();
    assert_eq!(content(&tarball, "etc/portage/package.use/one"), "app-test/tiny bar\n");
    let head = std::fs::read_to_string(tree.join("config/.git/refs/heads/desktop")).unwrap();
    let provenance = std::fs::read_to_string(tarball.with_file_name("desktop-2023-11-14.json")).unwrap();
    let provenance: serde_json::Value = serde_json::from_str(&provenance).unwrap();
    let named = format!(r#"{{"branch":"desktop","commit":"{}"}}"#, head.trim());
    assert!(provenance.to_string().contains(&named), "{provenance}");
    // The work tree stays on its branch, and a new commit of the other one is used.
    assert_eq!(std::fs::read_to_string(tree.join("config/package.use/one")).unwrap(), "app-test/tiny foo\n");
    git(&tree, &format!("git checkout -q desktop; {}; git checkout -q server", commit("-bar")));
    let built = stand.env.run(["build", text(&tree.join("desktop"))]).success();
    assert_eq!(content(&built.results()[0], "etc/portage/package.use/one"), "app-test/tiny -bar\n");
    let refused = stand.env.run(["build", text(&tree.join("sever"))]).code(2);
    assert!(refused.stderr.contains("did you mean server?"), "{}", refused.stderr);
}
