//! Volumes: directories that steps share, that are kept with the layers, and that no image contains.

use std::path::Path;

use super::{EPOCH, HEAD, Stand, ask, text};
use crate::env::{Privilege, twins};

/// Steps that fill a volume, pass it by, and read it.
const VOLUMES: &str = r#"kind = "stage4"
[emerge]
packages = []
[volume.kept]
at = "/srv/none/kept"
[[step]]
name = "fill"
volumes = ["kept"]
creates = ["/srv/none/kept/file"]
run = '''
test -z "$(ls -A /srv/none/kept)"
echo NAME > /srv/none/kept/file
mkdir -p /srv/none/kept/deep/er
echo one > /srv/none/kept/deep/one && ln /srv/none/kept/deep/one /srv/none/kept/deep/link
chown 250:250 /srv/none/kept/deep && chmod 2770 /srv/none/kept/deep && chmod 0711 /srv/none/kept
echo gone > /srv/none/kept/gone
'''
[[step]]
name = "without"
run = 'test ! -e /srv/none && echo NAME > /own'
[[step]]
name = "change"
volumes = ["kept"]
run = '''
rm /srv/none/kept/gone
echo more >> /srv/none/kept/file
stat -c "%a %u" /srv/none/kept /srv/none/kept/deep > /seen
'''
[[step]]
name = "read"
volumes = ["kept"]
run = 'cat /srv/none/kept/file >> /seen; ls /srv/none/kept >> /seen'
"#;

/// Returns the results of the steps of an image, with those for volumes.
fn results(stand: &Stand, image: &str) -> Vec<String> {
    let layers = stand.env.run(["store", "list", "--layers", "--json"]).success().stdout;
    let layers: serde_json::Value = serde_json::from_str(&layers).unwrap();
    let own =
        layers.as_array().unwrap().iter().filter(|layer| layer["image"] == image && layer["step"] != "@configure");
    own.map(|layer| format!("{} {} {}", layer["step"], layer["result"], layer["volumes"])).collect()
}

twins!(a_volume_is_kept_with_the_layers => root_a_volume_is_kept_with_the_layers, userns_a_volume_is_kept_with_the_layers);

fn a_volume_is_kept_with_the_layers(privilege: Privilege) {
    let Some(mut stand) = Stand::sharing(privilege) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let name = format!("volumes-{privilege:?}").to_lowercase();
    let write = |text: &str| stand.recipe(&name, text);
    let recipe = write(&VOLUMES.replace("NAME", &name));
    let tarball = stand.build_changed(&recipe).success().results().remove(0);
    let content = |path: &str| ask("tar", &["--extract", "--to-stdout", "--file", text(&tarball), path]);
    assert_eq!(content("./seen"), format!("711 0\n2770 250\n{name}\nmore\ndeep\nfile\n"));
    let listing = ask("tar", &["--list", "--file", text(&tarball)]);
    assert!(!listing.contains("./srv/none"), "{listing}");
    let cached = stand.build_changed(&recipe).success();
    assert!(cached.stderr.contains("4 of 4 steps are cached"), "{}", cached.stderr);

    // A change of the volume concerns the steps that name it, and no others.
    write(&VOLUMES.replace("NAME", &name).replace("echo gone", "echo lost > /srv/none/kept/lost; echo gone"));
    let changed = stand.build_changed(&recipe).success().stderr;
    assert!(changed.contains("running the step change (volume kept changed)"), "{changed}");
    assert!(changed.contains("running the step read") && !changed.contains("running the step without"), "{changed}");
    assert!(content("./seen").ends_with("deep\nfile\nlost\n"));

    // A shell at a step has the volume, before and after it.
    let shell = |options: &[&str]| stand.shell(&recipe, options, &["ls", "/srv/none/kept"]).success().stdout;
    assert_eq!(shell(&["--before", "change"]), "deep\nfile\ngone\nlost\n");
    assert_eq!(shell(&["--at", "change"]), "deep\nfile\nlost\n");

    // The export is whole or absent.
    let out = stand.env.path("out/volume");
    let export = |of: &str, to: &Path| stand.env.run(["volume", "export", text(&recipe), of, text(to)]);
    let wrong = export("keptt", &out).code(2);
    assert!(wrong.stderr.contains("did you mean kept?") && !out.exists(), "{}", wrong.stderr);
    assert_eq!(export("kept", &out).success().results(), std::slice::from_ref(&out));
    assert_eq!(fs_err::read_to_string(out.join("file")).unwrap(), format!("{name}\nmore\n"));
    let meta = |path: &str| fs_err::symlink_metadata(out.join(path)).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!((meta("").mode() & 0o7777, meta("deep").mode() & 0o7777, meta("deep/one").nlink()), (0o711, 0o2770, 2));
    assert!(out.join("lost").exists() && !out.join("gone").exists());
    assert!(export("kept", &out).code(2).stderr.contains("is not an empty directory"));
    // Files of other users can be removed in the program's own user namespace only.
    match privilege {
        Privilege::Root => fs_err::remove_dir_all(&out).unwrap(),
        Privilege::Userns => _ = stand.env.run_in_namespace(&format!("rm -rf {}", text(&out))).success(),
    }

    // A failed step shows its changes to the volume, and keeps none.
    write(&VOLUMES.replace("NAME", &name).replace("rm /srv/none/kept/gone", "touch /srv/none/kept/half; exit 3"));
    let _ = stand.build_changed(&recipe).code(1);
    assert_eq!(shell(&["--failed"]), "deep\nfile\ngone\nhalf\n");
    assert_eq!(shell(&["--at", "fill"]), "deep\nfile\ngone\n");
}

#[test]
fn volumes_have_the_same_results_with_root_and_without() {
    let mut all = Vec::new();
    for privilege in [Privilege::Root, Privilege::Userns] {
        let Some(mut stand) = Stand::alone(privilege) else { return };
        stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
        let recipe = stand.recipe("volumes-both", &VOLUMES.replace("NAME", "both"));
        let _ = stand.env.run(["build", text(&recipe), "--until", "read"]).success();
        all.push(results(&stand, "volumes-both"));
        stand.env.clean(&["home/store"]);
    }
    assert!(all[0].len() == 4 && all[0].iter().filter(|line| line.contains("\"kept\"")).count() == 3, "{all:?}");
    all.iter_mut().for_each(|lines| lines.sort());
    assert_eq!(all[0], all[1]);
}

twins!(a_volume_follows_links_inside_the_tree_only => root_a_volume_follows_links_inside_the_tree_only,
       userns_a_volume_follows_links_inside_the_tree_only);

fn a_volume_follows_links_inside_the_tree_only(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("volume-links-{privilege:?}").to_lowercase();
    let outside = stand.env.path("outside");
    fs_err::create_dir(&outside).unwrap();
    fs_err::set_permissions(&outside, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let recipe = |link: &str| {
        stand.recipe(
            &name,
            &format!(
                "kind = \"image\"\n[emerge]\npackages = [\"app-test/tiny\"]\n[volume.v]\nat = \"/link\"\n[[step]]\nname = \"link\"\n\
                 in = \"builder\"\nat = \"start\"\nrun = 'ln -s {link} /link'\n[[step]]\nname = \"write\"\nat = \"start\"\n\
                 in = \"builder\"\nvolumes = [\"v\"]\nrun = 'echo x > /link/file; ls -A {link}'\n"
            ),
        )
    };
    let build = |recipe: &Path| stand.env.run(["build", text(recipe), "--until", "write"]);
    let missing = build(&recipe(text(&outside))).code(4);
    assert!(missing.stderr.contains("making the mount point /link"), "{}", missing.stderr);
    let whole = build(&recipe("/")).code(4);
    assert!(whole.stderr.contains("symlink to the root directory"), "{}", whole.stderr);
    let inside = recipe("/var/opt");
    let _ = build(&inside).success();
    assert_eq!(fs_err::read_dir(&outside).unwrap().count(), 0);
    let shown = |step: &str| stand.shell(&inside, &["--at", step], &["ls", "-A", "/var/opt"]).success().stdout;
    assert_eq!((shown("link").as_str(), shown("write").as_str()), ("", "file\n"));

    let nested = "kind = \"stage4\"\n[emerge]\npackages = []\n[volume.v]\nat = \"/v\"\n[volume.w]\nat = \"/v/w\"\n[[step]]\nname = \"s\"\n\
         volumes = [\"v\", \"w\"]\nrun = 'true'\n";
    let refused = build(&stand.recipe(&format!("{name}-nested"), nested)).code(2);
    assert!(refused.stderr.contains("the mount at `/v/w` lies in the volume `v`"), "{}", refused.stderr);
}

/// Writes a tree: `packages` fills a volume, `site` starts from nothing and reads it, and `site/more` adds to it.
fn write_tree(stand: &Stand, name: &str, text: &str) -> std::path::PathBuf {
    let head = format!("{HEAD}kind = \"stage4\"\n[tree]\nname = \"{name}\"\n");
    stand.env.write(format!("{name}/quern-tree.toml"), head);
    let packages = format!(
        "publish = false\n[volume.repo]\nat = \"/repo\"\n[[step]]\nname = \"fill\"\nvolumes = [\"repo\"]\n\
         run = 'echo {text} > /repo/one; echo gone > /repo/gone'\n[[step]]\nname = \"trim\"\nvolumes = [\"repo\"]\n\
         run = 'rm /repo/gone; touch /mark'\n"
    );
    stand.env.write(format!("{name}/packages/quern.toml"), packages);
    let site = "[volume.repo]\nat = \"/mnt/repo\"\nof = \"../packages\"\n[[step]]\nname = \"plain\"\nrun = 'test ! -e /mark'\n\
                [[step]]\nname = \"read\"\nvolumes = [\"repo\"]\nrun = 'ls /mnt/repo > /seen; cat /mnt/repo/one >> /seen'\n";
    stand.env.write(format!("{name}/site/quern.toml"), site);
    let more = "[[step]]\nname = \"add\"\nvolumes = [\"repo\"]\nrun = 'echo two > /mnt/repo/two; rm /mnt/repo/one; ls /mnt/repo > /more'\n";
    stand.env.write(format!("{name}/site/more/quern.toml"), more);
    stand.env.path(name)
}

twins!(a_volume_of_another_image => root_a_volume_of_another_image, userns_a_volume_of_another_image);

fn a_volume_of_another_image(privilege: Privilege) {
    let Some(mut stand) = Stand::sharing(privilege) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    stand.env.set("QUERN_BUILD_OUTDIR", stand.env.outdir());
    let name = format!("volume-of-{privilege:?}").to_lowercase();
    let tree = write_tree(&stand, &name, &name);
    let build = |path: &str| stand.env.run(["build", text(&tree.join(path))]);
    let content = |tarball: &Path, path: &str| ask("tar", &["--extract", "--to-stdout", "--file", text(tarball), path]);

    // The image that has the volume is built first.
    let built = build("site").success();
    let table: Vec<&str> = built.stderr.lines().filter(|line| line.ends_with("  built")).collect();
    assert_eq!(table, [format!("{name}/packages  built"), format!("{name}/site      built")]);
    let site = built.results().remove(0);
    assert_eq!(content(&site, "./seen"), format!("one\n{name}\n"));
    assert!(!ask("tar", &["--list", "--file", text(&site)]).contains("./mnt/repo"));
    let more = build("site/more").success().results().remove(0);
    assert_eq!(content(&more, "./more"), "two\n");
    let of_site = |path: &str, step: &str| {
        let recipe = tree.join(path);
        stand.env.run(["shell", text(&recipe), "--at", step, "--", "ls", "/mnt/repo"]).success().stdout
    };
    assert_eq!((of_site("site", "read").as_str(), of_site("site/more", "add").as_str()), ("one\n", "two\n"));
    let to = stand.env.path("exported");
    let _ = stand.env.run(["volume", "export", text(&tree.join("site/more")), "repo", text(&to)]).success();
    assert_eq!(ask("ls", &[text(&to)]), "two\n");
    assert!(build("site/more").success().stderr.contains("1 of 1 steps are cached"));

    // A change of the volume reaches only the steps that name it, and one without effect none.
    write_tree(&stand, &name, &format!("{name}-2"));
    let changed = build("site").success();
    assert!(changed.stderr.contains("running the step read (volume repo changed)"), "{}", changed.stderr);
    assert!(!changed.stderr.contains("running the step plain"), "{}", changed.stderr);
    assert_eq!(content(&site, "./seen"), format!("one\n{name}-2\n"));

    // An image whose volume is missing is not built, and others are.
    let alone = format!("[[step]]\nname = \"alone\"\nrun = 'echo {name} > /alone'\n");
    stand.env.write(format!("{name}/alone/quern.toml"), alone);
    let packages = tree.join("packages/quern.toml");
    let broken = std::fs::read_to_string(&packages).unwrap().replace("rm /repo/gone", "exit 3");
    std::fs::write(&packages, broken).unwrap();
    let failed = build("...").code(1);
    let states: Vec<String> = ["packages", "site", "site/more", "alone"]
        .iter()
        .filter_map(|path| {
            let line = failed.stderr.lines().find(|line| line.starts_with(&format!("{name}/{path} ")))?;
            Some(format!("{path} {}", line.split_whitespace().last()?))
        })
        .collect();
    assert_eq!(states, ["packages failed", "site skipped", "site/more skipped", "alone built"], "{}", failed.stderr);
}
