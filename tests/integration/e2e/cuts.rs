//! OCI images of several layers, which end after steps that the recipe names.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{EPOCH, HEAD, Stand, ask, text};
use crate::env::{PROGRAM, Privilege, output, twins};

/// A stage4 of nothing but its steps. Every kind of change crosses a cut.
const CUT: &str = r#"kind = "stage4"
[emerge]
packages = []
[[step]]
name = "one"
run = '''
mkdir /a /a/deep /b /to-file /var/cache/kept && echo a > /a/deep/f && echo b > /b/f && echo x > /to-file/f
echo y > /to-directory && echo old > /gone && echo linked > /linked-1 && ln /linked-1 /linked-2
echo '#!/bin/sh' > /setuid && chmod 4711 /setuid && mkfifo /fifo && echo data > /attribute
python3 -c 'import os; os.setxattr("/attribute", "user.test", b"1")'
mkdir -p /strip-me/deep /usr/share/doc/x && echo hunter2 | tee /strip-me/deep/key /usr/share/doc/x/y > /var/cache/kept/z
mkdir /owned && chown 250:250 /owned && chmod 2770 /owned
'''
[[step]]
name = "group"
[[step.step]]
name = "two"
run = '''
rm -r /a /gone /to-file /to-directory && echo now > /to-file && mkdir /to-directory && echo z > /to-directory/f
echo 'two:x:4321:4321::/:/bin/false' >> /etc/passwd && ln /linked-1 /linked-3 && echo hunter3 > /strip-me/deep/key
python3 -c 'import os; os.setxattr("/attribute", "user.test", b"2")'
'''
[[step]]
name = "three"
run = 'rm /b/f && chmod 700 /b && touch -d @5 /owned && rm -r /strip-me && echo three > /three'
[strip]
doc = true
paths = ["/strip-me"]
empty = ["/var/cache/kept", "/dev"]
[oci]
tag = "v1"
cuts = ["group", "one"]
"#;

/// Returns the JSON document that a descriptor of a layout names.
fn document(layout: &Path, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    serde_json::from_slice(&fs::read(layout.join("blobs/sha256").join(digest)).unwrap()).unwrap()
}

/// Returns the configuration of the image in a layout, and the paths of its layers.
fn image(layout: &Path) -> (Value, Vec<PathBuf>) {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest = document(layout, &index["manifests"][0]);
    let blob = |layer: &Value| {
        let digest = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        layout.join("blobs/sha256").join(digest)
    };
    let layers = manifest["layers"].as_array().unwrap().iter().map(blob).collect();
    (document(layout, &manifest["config"]), layers)
}

fn names(layer: &Path) -> Vec<String> {
    let listing = ask("tar", &["--list", "--file", text(layer)]);
    listing.lines().map(|line| line.trim_start_matches("./").trim_end_matches('/').to_owned()).collect()
}

/// Requires that packing the tree `of` makes exactly the tarball.
#[track_caller]
fn assert_packs_to(stand: &Stand, of: &str, tarball: &Path, program: &str) {
    let script = format!("{of} > packed && cmp packed \"$1\"");
    let mut command = stand.env.command("sh");
    let ended = output(command.args(["-ec", &script, PROGRAM, text(tarball)]));
    assert_eq!(ended.code, 0, "{program}: {ended:#?}");
}

twins!(layers_end_after_steps => root_layers_end_after_steps, userns_layers_end_after_steps);

fn layers_end_after_steps(privilege: Privilege) {
    let Some(mut stand) = Stand::sharing(privilege) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let name = format!("cut-{privilege:?}").to_lowercase();
    let recipe = stand.recipe(&name, CUT);
    let results = stand.built(&recipe);
    let (tarball, layout) = (&results[0], &results[1]);
    let (config, layers) = image(layout);
    let comments: Vec<_> = config["history"].as_array().unwrap().iter().map(|line| line["comment"].as_str()).collect();
    assert_eq!(comments, [Some("one"), Some("group"), None]);
    assert!(!config.to_string().contains("hunter") && !config.to_string().contains("chmod"), "{config}");
    assert_eq!(layers.len(), 3);

    let all: Vec<_> = layers.iter().map(|layer| names(layer)).collect();
    for name in all.iter().flatten() {
        let stripped = ["strip-me", "usr/share/doc/", "var/cache/kept/", "var/db/repos/", "tmp/"];
        assert!(!stripped.iter().any(|path| name.starts_with(path)), "{name} is in a layer");
    }
    // An overlay separates a file that gets another name from the names that it had.
    let second = "|.wh.a|.wh.gone|attribute|etc|etc/passwd|linked-1|linked-3|to-directory|to-directory/f|to-file";
    assert_eq!(all[1].join("|"), second);
    assert_eq!(all[2], ["", "b", "b/.wh.f", "owned", "three"]);

    // The layers are the tarball, byte for byte, in the eyes of several programs.
    let _ = stand.env.run(["oci", "validate", text(layout)]).success();
    let _ = stand.env.run(["oci", "unpack", text(layout), "v1", "tree", "--record", "record"]).success();
    assert_packs_to(&stand, "\"$0\" raw pack tree --record record", tarball, "oci unpack");
    let reference = format!("oci:{}:v1", text(layout));
    ask("oci-image-tool", &["validate", "--type", "image", "--ref", "name=v1", text(layout)]);
    ask(
        "skopeo",
        &["--insecure-policy", "copy", "--quiet", &reference, &format!("dir:{}", text(&stand.env.path("copy")))],
    );
    if privilege == Privilege::Root {
        ask("umoci", &["raw", "unpack", "--image", &format!("{}:v1", text(layout)), text(&stand.env.path("umoci"))]);
        assert_packs_to(&stand, "\"$0\" raw pack umoci", tarball, "umoci");
        podman_agrees(&stand, tarball, layout);
    }

    // A second build gives the same blobs, and without cuts the layer is the tarball.
    let index = fs::read(layout.join("index.json")).unwrap();
    let _ = stand.built(&recipe);
    assert!(fs::read(layout.join("index.json")).unwrap() == index);
    let bytes = fs::read(tarball).unwrap();
    let uncut = stand.recipe(&name, &CUT.replace("cuts = [\"group\", \"one\"]", "cuts = [\"three\"]"));
    let _ = stand.build_changed(&uncut).success();
    let (_, layers) = image(layout);
    assert_eq!(layers.len(), 1);
    assert!(fs::read(&layers[0]).unwrap() == bytes && fs::read(tarball).unwrap() == bytes);
}

/// Compares the tree that podman mounts with the manifest of the tarball. Podman gives the root a mode and a time of its own.
fn podman_agrees(stand: &Stand, tarball: &Path, layout: &Path) {
    // Podman names the image after the path, which must be in lower case, and leaves its storage mounted.
    let name = format!("quern-test-cuts-{}", std::process::id());
    let place = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir_in(crate::env::scratch()).unwrap();
    let place = text(place.path());
    ask("cp", &["--recursive", text(layout), &format!("{place}/layout")]);
    let script = "podman=\"podman --root $1/store --runroot $1/run\"
        image=$($podman pull --quiet oci:$1/layout:v1); tree=$($podman image mount $image)
        gzip -dc $2.mtree.gz | sed 's/^[.] .*/. type=dir/' > manifest; code=0
        mtree -p $tree -f manifest || code=$?; $podman image unmount $image >/dev/null; exit $code";
    let mut command = stand.env.command("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-ec", script, "sh", place, text(tarball)]);
    let ended = output(&mut command);
    assert_eq!(ended.code, 0, "podman: {ended:#?}");
}

#[test]
fn root_and_an_ordinary_user_make_the_same_layers() {
    let Some(root) = Stand::sharing(Privilege::Root) else { return };
    let Some(user) = Stand::sharing(Privilege::Userns) else { return };
    let layers = |mut stand: Stand| {
        stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
        let layout = stand.built(&stand.recipe("cut-same", CUT)).remove(1);
        image(&layout).1.iter().map(|layer| layer.file_name().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(layers(root), layers(user));
}

#[test]
fn userns_an_image_is_cut_after_packages() {
    let Some(stand) = Stand::sharing(Privilege::Userns) else { return };
    let rest = "[emerge]\npackages = [\"app-test/tiny\"]\n[[step]]\nname = \"name\"\nin = \"builder\"\nrun = 'touch $ROOT/.wh.x'\n\
                [[step]]\nname = \"last\"\nat = \"end\"\nin = \"builder\"\nrun = 'rm $ROOT/.wh.x; echo last > $ROOT/last'\n[oci]\ntag = \"v1\"\n";
    let good = rest.replace("touch $ROOT/.wh.x", "true").replace("rm $ROOT/.wh.x; ", "");
    let results = stand.built(&stand.recipe("packages-cut", &format!("{good}cuts = [\"@packages\"]\n")));
    let layers = image(&results[1]).1;
    assert_eq!(layers.len(), 2);
    assert!(names(&layers[0]).iter().any(|name| name == "usr/bin/tiny"));
    assert_eq!(names(&layers[1]), ["", "last"]);
    // A name that is in a lower layer only cannot be packed either.
    let refused = stand.build(&stand.recipe("packages-cut", &format!("{rest}cuts = [\"name\"]\n"))).code(1);
    assert!(refused.stderr.contains("/.wh.x") && refused.stderr.contains("begins with `.wh.`"), "{refused:#?}");
}

/// Writes a tree: `p`, an image of two layers, and `p/c` and `p/c/d`, each of which has the layers of the one above.
fn write_tree(stand: &Stand, name: &str) -> PathBuf {
    stand.env.write(format!("{name}/quern-tree.toml"), format!("{HEAD}kind = \"stage4\"\n"));
    let parent = "[[step]]\nname = \"one\"\nrun = 'mkdir /a /boot/x; echo one | tee /a/one /a/gone /boot/x/one /strip-p > /strip-c'\n\
                  [[step]]\nname = \"two\"\nrun = 'echo two > /a/two; rm /a/gone'\n[portage.make-conf]\nOF = \"parent\"\n\
                  [strip]\npaths = [\"/strip-p\"]\n[split]\nboot = [\"/boot\"]\n[build]\ncompression = \"zstd\"\n\
                  [oci]\ntag = \"v1\"\ncuts = [\"one\"]\nentrypoint = [\"/bin/sh\"]\nuser = \"nobody\"\n";
    stand.env.write(format!("{name}/p/quern.toml"), parent);
    let child = "[[step]]\nname = \"three\"\nrun = 'echo three > /three; rm /a/two'\n[portage.make-conf]\nOF = \"child\"\n\
                 [strip]\npaths = [\"/strip-c\"]\n[oci]\non-parent = true\nuser = \"me\"\n";
    stand.env.write(format!("{name}/p/c/quern.toml"), child);
    let leaf = "[[step]]\nname = \"four\"\nrun = 'mkdir -p /four/five; echo five > /four/five/six'\n[[step]]\nname = \"end\"\n\
                run = 'rm /three'\n[oci]\non-parent = true\ncuts = [\"four\"]\n";
    stand.env.write(format!("{name}/p/c/d/quern.toml"), leaf);
    stand.env.path(name)
}

twins!(layers_stand_on_those_of_the_parent => root_layers_stand_on_those_of_the_parent, userns_layers_stand_on_those_of_the_parent);

fn layers_stand_on_those_of_the_parent(privilege: Privilege) {
    let Some(mut stand) = Stand::sharing(privilege) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let name = format!("on-parent-{privilege:?}").to_lowercase();
    let tree = write_tree(&stand, &name);
    stand.env.set("QUERN_BUILD_OUTDIR", stand.env.outdir());
    // The youngest first: no build of another image has made the layers.
    let result = |path: &str, ending: &str| {
        let built = stand.env.run(["build", text(&tree.join(path))]).success().results();
        built.into_iter().find(|path| text(path).ends_with(ending)).expect("a result")
    };
    let layouts = ["p/c/d", "p/c", "p"].map(|path| result(path, ".oci"));
    let [leaf, child, parent] = layouts.each_ref().map(|layout| image(layout));
    let blobs = |layers: &[PathBuf]| layers.iter().map(|path| path.file_name().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!((parent.1.len(), child.1.len(), leaf.1.len()), (2, 3, 5));
    assert_eq!(blobs(&child.1)[..2], blobs(&parent.1));
    assert_eq!(blobs(&leaf.1)[..3], blobs(&child.1));
    let comments: Vec<_> = leaf.0["history"].as_array().unwrap().iter().map(|line| line["comment"].as_str()).collect();
    let (of_parent, of_child) = (format!("{name}/p"), format!("{name}/p/c"));
    assert_eq!(comments, [Some("one"), Some(&*of_parent), Some(&*of_child), Some("four"), None]);
    assert_eq!((&child.0["config"]["Entrypoint"][0], &child.0["config"]["User"]), (&"/bin/sh".into(), &"me".into()));
    // The rules of the parent hold for its layers, and those of the child for the whole image.
    let of_child = names(&child.1[2]);
    for name in ["three", "a/.wh.two", ".wh.strip-c", "strip-p", "boot/x/one", "etc/portage/make.conf"] {
        assert!(of_child.iter().any(|other| other == name), "{name}: {of_child:?}");
    }
    assert!(!of_child.iter().any(|name| name.starts_with("usr/") || name == "a/one"), "{of_child:?}");
    for (layout, path) in [(&layouts[1], "p/c"), (&layouts[0], "p/c/d")] {
        let _ = stand.env.run(["oci", "validate", text(layout)]).success();
        let _ = stand.env.run(["oci", "unpack", text(layout), "v1", "tree", "--record", "record"]).success();
        assert_packs_to(&stand, "\"$0\" raw pack tree --record record", &result(path, ".tar.gz"), "oci unpack");
        ask("rm", &["-rf", text(&stand.env.path("tree")), text(&stand.env.path("record"))]);
    }
}

/// The second build finds the layers of a build that ran before `SOURCE_DATE_EPOCH`, so their times are not clamped as new ones are.
#[test]
fn userns_the_day_of_a_layer_does_not_show() {
    let steps = "kind = \"stage4\"\n[emerge]\npackages = []\n[[step]]\nname = \"one\"\nrun = 'mkdir /a; echo a > /a/f; touch -d @77 /old'\n\
                 [[step]]\nname = \"two\"\nrun = 'ls / > /list; cp -p /a/f /copy; touch -r /etc/passwd /as-old'\n[oci]\ncuts = [\"one\"]\n";
    let Some(mut early) = Stand::alone(Privilege::Userns) else { return };
    let Some(mut late) = Stand::alone(Privilege::Userns) else { return };
    let _ = early.built(&early.recipe("day", steps));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
    std::thread::sleep(std::time::Duration::from_secs(2));
    let results = [&mut early, &mut late].map(|stand| {
        stand.env.set("SOURCE_DATE_EPOCH", now.to_string());
        let built = stand.build_changed(&stand.recipe("day", steps)).success();
        (built.stderr.contains("2 of 2 steps are cached"), built.results())
    });
    assert_eq!(results.each_ref().map(|(cached, _)| *cached), [true, false]);
    let bytes = results.each_ref().map(|(_, results)| fs::read(&results[0]).unwrap());
    assert!(bytes[0] == bytes[1], "{} and {} differ", results[0].1[0].display(), results[1].1[0].display());
    let index = results.each_ref().map(|(_, results)| fs::read(results[1].join("index.json")).unwrap());
    assert!(index[0] == index[1]);
}
