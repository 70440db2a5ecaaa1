//! OCI images of several layers, which end after steps that the recipe names.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{EPOCH, Stand, ask, text};
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
