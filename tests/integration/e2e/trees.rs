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
fn root_each_image_of_a_tree_is_looked_at_once() {
    let Some(mut stand) = Stand::sharing(Privilege::Root) else { return };
    stand.env.write("looks/quern-tree.toml", format!("{HEAD}kind = \"stage4\"\n"));
    let images = ["p", "p/a", "p/a/b", "p/a/b/c", "p/a/b/d", "p/e"];
    for image in images {
        let step =
            format!("publish = false\n[[step]]\nname = \"s\"\nrun = 'echo {image} > /{}'\n", image.replace('/', "-"));
        stand.env.write(format!("looks/{image}/quern.toml"), step);
    }
    let tree = stand.env.path("looks");
    let _ = stand.env.run(["build", text(&tree.join("..."))]).success();
    stand.env.set("QUERN_LOG", "quern_builder=debug");
    let listed = stand.env.run(["tree", text(&tree)]).success();
    assert_eq!(listed.stdout.matches("current").count(), images.len(), "{}", listed.stdout);
    for (line, count) in [("looking at the steps of", images.len()), ("reading the configuration in a tree", 1)] {
        assert_eq!(listed.stderr.matches(line).count(), count, "{line}: {}", listed.stderr);
    }
}

#[test]
fn root_an_image_starts_from_the_merged_packages_of_another() {
    let Some(mut stand) = Stand::sharing(Privilege::Root) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let sets = "[sets]\n\"site/more\" = [\"app-misc/mime-types\"]\n";
    stand.env.write("base.toml", format!("{HEAD}[emerge]\npackages = [\"app-test/tiny\"]\n{sets}"));
    let recipe = stand.env.write("one.toml", "from = \"base.toml\"\n[emerge]\npackages = [\"@site/more\"]\n");
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
fn root_packages_are_resolved_on_the_layers_of_the_parent() {
    let Some(mut stand) = Stand::sharing(Privilege::Root) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    stand.ebuild("app-own", "above", "RDEPEND=\"app-test/tiny\"\n");
    let repositories = format!("portage.repositories={:?}", [stand.world.repository(), overlay]);
    stand.env.write("below.toml", format!("{HEAD}[emerge]\npackages = [\"app-test/tiny\"]\n"));
    let recipe = stand.env.write("above.toml", "from = \"below.toml\"\n[emerge]\npackages = [\"app-own/above\"]\n");
    let run = |words: &[&str]| stand.env.run([words, &["--set", &repositories]].concat()).success();
    let plan = || run(&["plan", text(&recipe)]);
    let before = plan();
    let said =
        "the packages of the image below are left out of account: they are unknown until the image below is built";
    assert!(
        before.stderr.contains(said) && before.stdout.contains("app-test/tiny"),
        "{}{}",
        before.stdout,
        before.stderr
    );
    let _ = run(&["build", text(&stand.env.path("below.toml"))]);
    for looked in [plan(), run(&["explain", text(&recipe), "app-own/above"])] {
        assert!(!looked.stderr.contains("left out of account"), "{}", looked.stderr);
        assert!(
            looked.stdout.contains("app-own/above") && !looked.stdout.contains("app-test/tiny"),
            "{}",
            looked.stdout
        );
    }
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

/// Steps that leave everything that an upper directory can hold.
const ODD: &str = r#"kind = "stage4"
[emerge]
packages = []
[[step]]
name = "odd"
run = '''
mkdir -p /odd/set /odd/gone && chown 250:250 /odd && chmod 2770 /odd/set && echo a > /odd/a && chmod 4755 /odd/a
ln /odd/a /odd/b && ln -s ../x /odd/link && mkfifo /odd/fifo && truncate -s 3M /odd/sparse && echo end >> /odd/sparse
printf x > "$(printf '/odd/caf\351')" && touch -d 2001-02-03 /odd/a && rm /etc/issue && rm -r /etc/skel && mkdir /etc/skel
echo new > /etc/skel/.profile
'''
[[step]]
name = "more"
run = 'rm -r /odd/gone && mv /odd/set /odd/moved && rm /odd/b'
"#;

#[test]
fn root_layers_of_root_serve_an_ordinary_user() {
    let Some(mut root) = Stand::alone(Privilege::Root) else { return };
    let Some(mut user) = Stand::alone(Privilege::Userns) else { return };
    let (archive, mut results) = (root.env.path("layers.tar"), Vec::new());
    for stand in [&mut root, &mut user] {
        stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    }
    let recipe = root.recipe("odd", ODD);
    results.push(ask("sha256sum", &[text(&root.build_changed(&recipe).success().results()[0])]));
    let exported = root.env.run(["store", "export", "--layers", text(&recipe), "-o", text(&archive)]).success();
    assert!(exported.stderr.contains("exported 2 layers; 1 are of this store alone"), "{}", exported.stderr);
    let bytes = std::fs::read(&archive).unwrap();

    let recipe = user.recipe("odd", ODD);
    let given = user.env.write("layers.tar", &bytes);
    let refused = |at: usize, said: &str| {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let file = user.env.write("damaged.tar", damaged);
        let refused = user.env.run(["store", "import", "--layers", text(&file)]).code(3);
        assert!(refused.stderr.contains(said), "{at}: {}", refused.stderr);
    };
    let inner = bytes.windows(4).position(|bytes| bytes == b"end\n").unwrap();
    refused(inner, "its files are not those of its list of changes");
    let cut = user.env.write("cut.tar", &bytes[..bytes.len() / 2 / 512 * 512]);
    let _ = user.env.run(["store", "import", "--layers", text(&cut)]).code(3);
    let imported = user.env.run(["store", "import", "--layers", text(&given)]).success();
    assert!(imported.stderr.contains("imported 2 layers"), "{}", imported.stderr);
    let built = user.build_changed(&recipe).success();
    assert!(built.stderr.contains("2 of 2 steps are cached"), "{}", built.stderr);
    results.push(ask("sha256sum", &[text(&built.results()[0])]));
    let digest = |line: &String| line.split(' ').next().unwrap().to_owned();
    assert_eq!(digest(&results[0]), digest(&results[1]));
    let again = user.env.run(["store", "import", "--layers", text(&given)]).success();
    assert!(again.stderr.contains("imported 0 layers; 2 are in the store already"), "{}", again.stderr);
}

twins!(images_are_built_at_the_same_time => root_images_are_built_at_the_same_time, userns_images_are_built_at_the_same_time);

fn images_are_built_at_the_same_time(privilege: Privilege) {
    let Some(mut stand) = Stand::sharing(privilege) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    stand.env.set("QUERN_BUILD_OUTDIR", stand.env.outdir());
    let name = format!("parallel-{privilege:?}").to_lowercase();
    stand.env.write(format!("{name}/quern-tree.toml"), format!("{HEAD}kind = \"stage4\"\n[cache.c]\nat = \"/c\"\n"));
    // Each child waits for the other one, so both must run at once. They share a step.
    let base = format!("publish = false\n[[step]]\nname = \"base\"\nrun = 'echo {name} > /base'\n");
    stand.env.write(format!("{name}/p/quern.toml"), base);
    let meet = |own: &str, other: &str| {
        format!(
            "[ask.word]\nquestion = \"Word\"\nsecret = true\n[[step]]\nname = \"shared\"\ncaches = [\"c\"]\n\
             run = 'echo {name} >> /c/{name}-count; sleep 1; cp /c/{name}-count /count'\n[[step]]\nname = \"meet\"\ncaches = [\"c\"]\n\
             timeout = \"60s\"\nsecrets = [\"word\"]\n\
             run = 'touch /c/{name}-{own}; until test -e /c/{name}-{other}; do sleep 0.1; done; wc -c < /run/secrets/word > /{own}'\n"
        )
    };
    stand.env.write(format!("{name}/p/one/quern.toml"), meet("one", "two"));
    stand.env.write(format!("{name}/p/two/quern.toml"), meet("two", "one"));
    stand.env.write(format!("{name}/p/bad/quern.toml"), "[[step]]\nname = \"bad\"\nrun = 'exit 3'\n");
    stand.env.write(format!("{name}/p/bad/below/quern.toml"), "");
    stand.env.write(
        format!("{name}/last/quern.toml"),
        "needs = [\"../p/one\", \"../p/two\"]\n[[step]]\nname = \"last\"\nrun = 'true'\n",
    );
    let all = stand.env.path(&name).join("...");
    let build =
        |jobs: &str| stand.env.run(["build", text(&all), "--jobs-images", jobs, "--answer", "word=hunter2-hunter2"]);
    let built = build("3").code(1);
    let mut states = table(&built);
    states.sort();
    let of = |path: &str, state: &str| format!("{name}/{path} {state}");
    let expected = [
        of("last", "built"),
        of("p", "built"),
        of("p/bad", "failed"),
        of("p/bad/below", "skipped"),
        of("p/one", "built"),
        of("p/two", "built"),
    ];
    assert_eq!(states, expected, "{}", built.stderr);
    assert!(
        built.stderr.contains(&format!("{name}/p/bad: ")) && built.stderr.contains("the step bad exited with code 3"),
        "{}",
        built.stderr
    );
    assert!(!built.stderr.contains("hunter2"));
    let results = built.results();
    let result =
        |image: &str| results.iter().find(|path| text(path).contains(&format!("/{image}-2023"))).expect("a result");
    assert_eq!((content(result("one"), "one"), content(result("two"), "two")), ("15\n".to_owned(), "15\n".to_owned()));
    assert_eq!(content(result("two"), "count"), format!("{name}\n"), "the step that both have ran twice");
    assert!(text(results.last().unwrap()).contains("/last-2023"), "{results:?}");

    let again = build("2").code(1);
    assert_eq!(table(&again).iter().filter(|line| line.ends_with("cached")).count(), 4, "{}", again.stderr);
    // The tree gives the default.
    let shared = stand.env.path(&name).join("quern-tree.toml");
    let tree = std::fs::read_to_string(&shared).unwrap() + "[tree]\njobs = 2\n";
    std::fs::write(&shared, tree).unwrap();
    let by_default = stand.env.run(["build", text(&all), "--answer", "word=hunter2-hunter2"]).code(1);
    assert!(by_default.stderr.contains(&format!("{name}/p/bad: ")), "{}", by_default.stderr);
    let alone = stand.env.run(["build", text(&all), "--answer", "word=hunter2-hunter2", "--jobs-images", "1"]).code(1);
    assert!(!alone.stderr.contains(&format!("{name}/p/bad: ")), "{}", alone.stderr);

    // One image after the many that it needs, and the events of all processes in one file.
    let last = stand.env.path(&name).join("last");
    let words = ["--answer", "word=hunter2-hunter2", "--again", "last", "--events", "events"];
    let built = stand.env.run([&["build", text(&last)][..], &words].concat()).success();
    let expected = [of("last", "built"), of("p/one", "cached"), of("p/two", "cached")];
    let mut states = table(&built);
    states.sort();
    assert_eq!(states, expected, "{}", built.stderr);
    assert!(built.stderr.contains(&format!("{name}/p/one: ")), "{}", built.stderr);
    let events = std::fs::read_to_string(stand.env.path("events")).unwrap();
    let events: Vec<serde_json::Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_kind = |kind: &str, status: &str| {
        let is = |event: &&serde_json::Value| event["action_type"] == kind && event["action_status"] == status;
        events.iter().filter(is).count()
    };
    assert_eq!((of_kind("build", "started"), of_kind("build", "succeeded")), (1, 1));
    assert_eq!((of_kind("image", "started"), of_kind("image", "succeeded")), (3, 3));
    let mut levels: Vec<String> = events.iter().map(|event| event["task_level"].to_string()).collect();
    levels.sort();
    levels.dedup();
    assert_eq!(levels.len(), events.len(), "two events have one place");
    assert!(events.iter().all(|event| event["task_uuid"] == events[0]["task_uuid"]));
}
