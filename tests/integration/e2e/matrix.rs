//! A builder that compiles the packages of all tuples of a tree, and assemblers that only take them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{EPOCH, HEAD, Stand, ask, text};
use crate::env::Privilege;

const AXES: &str = r#"[tree]
name = "matrix"
[axis.cpu]
from = "cpu"
[axis.portage]
from = "portage"
[axis.hooks]
from = "hooks"
[axis.packages]
from = "packages"
[[tuple]]
cpu = ["old", "new"]
portage = ["foo", "bar"]
hooks = ["plain", "strict"]
packages = "web"
binary-only = true
"#;

const STRICT: &str = r#"[emerge]
unmerge = ["app-misc/mime-types"]
depclean = true
[strip]
empty = ["/usr/share/mime-types"]
[[step]]
name = "data"
at = "end"
write = [{ to = "/usr/share/mime-types/x", text = "x" }]
"#;

/// Writes a tree of two processors, two configurations, two lists of hooks, and their builder. Returns its directory.
fn write(stand: &Stand, at: &str) -> PathBuf {
    let write = |name: &str, content: &str| _ = stand.env.write(format!("{at}/{name}"), content);
    write("quern-tree.toml", &format!("{HEAD}{AXES}"));
    write("builder/quern.toml", "tuples = \"all\"\n[build]\nkind = \"stage4\"\n");
    for (cpu, flags) in [("old", "-O1"), ("new", "-O2 -g0")] {
        write(&format!("cpu/{cpu}.toml"), &format!("[portage.make-conf]\nCFLAGS = \"{flags}\"\n"));
    }
    write("portage/foo.toml", "[portage]\nuse = [\"foo\", \"-bar\"]\n");
    write("portage/bar.toml", "[portage]\nuse = [\"-foo\", \"bar\"]\n");
    write("hooks/plain.toml", "");
    write("hooks/strict.toml", STRICT);
    write("packages/web.toml", "[emerge]\npackages = [\"app-test/tiny\", \"app-misc/mime-types\"]\n");
    stand.env.path(at)
}

fn content(tarball: &Path, path: &str) -> String {
    ask("tar", &["--extract", "--to-stdout", "--file", text(tarball), &format!("./{path}")])
}

/// Lists the binary packages of `tiny` in the store with their digests.
fn packages(stand: &Stand) -> Vec<String> {
    let all = ask("find", &[text(&stand.env.store()), "-name", "tiny-*.gpkg.tar", "-path", "*/cache/*"]);
    let mut digests: Vec<String> = all.lines().map(|path| ask("sha256sum", &[path])).collect();
    digests.sort();
    digests
}

#[test]
fn root_each_package_of_a_matrix_is_compiled_once() {
    let Some(mut stand) = Stand::alone(Privilege::Root) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    stand.env.set("QUERN_BUILD_OUTDIR", stand.env.outdir());
    let tree = write(&stand, "matrix");
    let builder = stand.env.run(["build", text(&tree.join("builder"))]).success();
    assert!(builder.results().is_empty(), "{}", builder.stdout);
    // One for each processor and configuration, and none for hooks.
    let compiled = packages(&stand);
    assert_eq!(compiled.len(), 4, "{compiled:?}\n{}", builder.stderr);

    let built = stand.env.run(["build", text(&tree.join("..."))]).success();
    assert!(built.stderr.contains("matrix/builder  ") && built.stderr.contains("cached"), "{}", built.stderr);
    assert_eq!(packages(&stand), compiled, "an assembler wrote packages");
    let tarballs: BTreeMap<String, PathBuf> = built
        .results()
        .into_iter()
        .map(|path| (path.file_name().unwrap().to_str().unwrap().replace("-2023-11-14.tar.gz", ""), path))
        .collect();
    assert_eq!(tarballs.len(), 8, "{}", built.stdout);
    for (cpu, flags) in [("old", "-O1"), ("new", "-O2 -g0")] {
        for (configuration, wanted) in [("foo", "foo=1 bar=0"), ("bar", "foo=0 bar=1")] {
            for hooks in ["plain", "strict"] {
                let tarball = &tarballs[&format!("{cpu}-{configuration}-{hooks}-web")];
                assert_eq!(content(tarball, "usr/share/tiny/flags").trim(), wanted, "{}", tarball.display());
                assert_eq!(content(tarball, "usr/share/tiny/cflags").trim(), flags, "{}", tarball.display());
                let listed = ask("tar", &["--list", "--file", text(tarball)]);
                assert_eq!(listed.contains("var/db/pkg/app-misc/mime-types"), hooks == "plain", "{listed}");
                assert_eq!(listed.contains("./usr/share/mime-types/\n"), hooks == "strict", "{listed}");
                assert!(!listed.contains("./usr/share/mime-types/x"), "{listed}");
            }
        }
    }

    // Without the packages, the layers that merged them are of no use for the assemblers.
    let _ = stand.env.run(["clean", "--packages"]).success();
    assert!(packages(&stand).is_empty());
    let states = stand.env.run(["tree", text(&tree)]).success().stdout;
    let builder = states.lines().find(|line| line.contains("matrix/builder")).unwrap();
    assert!(builder.contains("stale") && builder.contains("its binary packages are not in the store"), "{states}");
    let again = stand.env.run(["build", text(&tree.join("builder"))]).success();
    assert_eq!(packages(&stand).len(), compiled.len(), "{}", again.stderr);
    let states = stand.env.run(["tree", text(&tree)]).success().stdout;
    assert!(states.lines().any(|line| line.contains("matrix/builder") && line.contains("current")), "{states}");
    let compiled = packages(&stand);

    // A package that the builder did not merge: nothing is compiled, and the error names the difference.
    stand.env.write("matrix/portage/bar.toml", "[portage]\nuse = [\"-foo\", \"-bar\"]\n");
    let missing = stand.env.run(["build", text(&tree.join("new-bar-plain-web"))]).code(1);
    for said in ["no binary package fits", "app-test/tiny", "USE is ", "wanted is -bar"] {
        assert!(missing.stderr.contains(said), "{said}: {}", missing.stderr);
    }
    assert_eq!(packages(&stand), compiled);
    let states = stand.env.run(["tree", text(&tree)]).success().stdout;
    let builder = states.lines().find(|line| line.contains("matrix/builder")).unwrap();
    assert!(builder.contains("stale") && builder.contains("bar-plain-web:@"), "{states}");
    // A contradiction is found before anything is built.
    stand.env.write("matrix/cpu/new.toml", "[portage]\nuse = [\"foo\"]\n");
    let refused = stand.env.run(["build", text(&tree.join("new-bar-plain-web"))]).code(2);
    for said in ["`foo` and `-foo` in portage.use", "cpu/new.toml:2:8", "portage/bar.toml:2:8"] {
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }
}
