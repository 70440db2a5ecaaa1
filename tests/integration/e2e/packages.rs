//! The caches of binary packages: keyed by what Portage does not compare, written only by the program, offered only while current.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::listing::content;
use super::traces::names;
use super::{Stand, ask, text};
use crate::env::{Output, Privilege, twins, wait_for};

/// An ebuild whose package tells how it was built.
const FLAGS: &str = "IUSE=\"foo\"\n\
    src_install() {\n\
    \tinsinto /etc\n\
    \techo \"${CFLAGS} $(usex foo) $(<\"${FILESDIR}\"/word)\" > flags || die\n\
    \tdoins flags\n\
    }\n";

/// Returns a recipe for `packages` that sets `portage` keys. The variable gives the test directories of its own in a shared store.
fn recipe(packages: &str, mark: &str, flags: &str, portage: &str) -> String {
    format!(
        "baselayout-atoms = []\n[emerge]\npackages = [{packages}]\n[strip]\npaths = [\"/var/db/pkg\"]\n[portage]\n\
         make-conf = {{ CFLAGS = \"{flags}\", EXTRA_ECONF = \"--{mark}\" }}\n{portage}\n"
    )
}

/// Returns the directories of the store's packages that were built with the variable `mark`.
fn shelves(stand: &Stand, mark: &str) -> Vec<PathBuf> {
    let all = stand.store().join("cache/packages");
    let own = |path: &PathBuf| {
        fs::read_to_string(path.join("key.json")).is_ok_and(|key| key.contains(&format!("--{mark}\"")))
    };
    names(&all).iter().map(|name| all.join(name)).filter(own).collect()
}

/// Lists the files of a directory of packages with their contents' digests.
fn state(shelf: &Path) -> String {
    ask("sh", &["-c", "cd \"$1\" && find . -type f -o -type l | sort | xargs sha256sum; ls -lR .", "sh", text(shelf)])
}

#[track_caller]
fn compiled(output: &Output) -> bool {
    let line = output.stderr.lines().find(|line| line.starts_with("built ")).expect("a summary");
    match (line.contains("(1 built)"), line.contains("(1 reused)")) {
        (true, false) => true,
        (false, true) => false,
        _ => panic!("{line}"),
    }
}

twins!(packages_are_kept_by_their_key => root_packages_are_kept_by_their_key, userns_packages_are_kept_by_their_key);

fn packages_are_kept_by_their_key(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    let stand = stand.with_repositories(&[&overlay]);
    stand.ebuild("app-own", "flags", FLAGS);
    stand.env.write("overlay/app-own/flags/files/word", "one\n");
    let build = |name: &str, flags: &str, portage: &str| {
        let recipe = stand.recipe(name, &recipe("\"app-own/flags\"", "kept", flags, portage));
        let output = stand.build(&recipe).success();
        let told = content(&output.results()[0], "etc/flags");
        (compiled(&output), told.trim_end().to_owned())
    };
    let said = |text: &str| text.to_owned();
    assert_eq!(build("slow", "-O2", ""), (true, said("-O2 no one")));
    // Other flags are other packages; each has its own.
    assert_eq!(build("fast", "-O3", ""), (true, said("-O3 no one")));
    assert_eq!(build("slow", "-O2 -pipe", ""), (false, said("-O2 no one")));
    assert_eq!(build("fast", "-O3", ""), (false, said("-O3 no one")));
    let found = shelves(&stand, "kept");
    assert_eq!(found.len(), 2, "{found:?}");
    let slow = found
        .iter()
        .find(|path| fs::read_to_string(path.join("key.json")).unwrap().contains("\"CFLAGS\": \"-O2\""))
        .unwrap();
    // Portage compares USE flags: both instances are in one directory.
    assert_eq!(build("slow", "-O2", "package-use = [\"app-own/flags foo\"]"), (true, said("-O2 yes one")));
    assert_eq!(build("other", "-O2", ""), (false, said("-O2 no one")));
    assert_eq!(names(&slow.join("app-own/flags")), ["flags-1-1.gpkg.tar", "flags-1-2.gpkg.tar"]);

    // A build that must not write reads, and leaves everything as it is.
    let before = state(slow);
    assert_eq!(build("reader", "-O2", "binpkg-write = false"), (false, said("-O2 no one")));
    // The files of an ebuild are edited without a new revision.
    stand.env.write("overlay/app-own/flags/files/word", "two\n");
    assert_eq!(build("reader", "-O2", "binpkg-write = false"), (true, said("-O2 no two")));
    assert_eq!(state(slow), before);
    assert_eq!(build("slow", "-O2", ""), (true, said("-O2 no two")));
    assert_eq!(build("other", "-O2", ""), (false, said("-O2 no two")));
    accepted_by_portage(&stand, &stand.env.path("slow.toml"));
    // The packages of the last build can be exported without naming their directory.
    let exported = stand.env.path("exported");
    let export = |recipe: &Path| stand.env.run(["binhost", "export", text(recipe), "--to", text(&exported)]);
    let _ = export(&stand.env.path("slow.toml")).success();
    assert_eq!(names(&exported.join("app-own/flags")), names(&slow.join("app-own/flags")));
    let told = export(&stand.recipe("never", &recipe("\"app-own/flags\"", "kept", "-O2", ""))).code(2);
    assert!(told.stderr.contains("no build of the recipe has made packages"), "{}", told.stderr);
    the_packages_are_a_result(&stand);
    for file in ["Packages", "Packages.gz", "key.json", "app-own/flags/flags-1-1.gpkg.tar"] {
        assert_eq!(fs::metadata(slow.join(file)).unwrap().permissions().mode() & 0o7777, 0o644, "{file}");
    }
}

/// An ebuild that installs a file, to which Portage applies the user's patches.
const PATCHED: &str = "src_unpack() {\n\techo plain > word || die\n}\n\
    src_install() {\n\tinsinto /etc\n\tdoins word\n}\n";

twins!(patches_change_packages => root_patches_change_packages, userns_patches_change_packages);

fn patches_change_packages(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    let stand = stand.with_repositories(&[&overlay]);
    stand.ebuild("app-own", "patched", PATCHED);
    let patch = |word: &str| {
        let text = format!("--- a/word\n+++ b/word\n@@ -1 +1 @@\n-plain\n+{word}\n");
        stand.env.write("own/app-own/patched/word.patch", text);
    };
    let build = |portage: &str| {
        let recipe = stand.recipe("patched", &recipe("\"app-own/patched\"", "patched", "-O2", portage));
        let output = stand.build_changed(&recipe).success();
        let built = output.stderr.contains("(1 built)");
        (built, content(&output.results()[0], "etc/word").trim_end().to_owned(), output.stderr)
    };
    patch("one");
    let (built, word, said) = build("patches = \"own\"");
    assert!(built && word == "one", "{word}: {said}");
    // The same patch: nothing is merged. Another one: the package is built again.
    let (_, word, said) = build("patches = \"own\"");
    assert!(word == "one" && !said.contains("merging"), "{said}");
    patch("two");
    let (built, word, said) = build("patches = \"own\"");
    assert!(built && word == "two", "{word}: {said}");
    // A package without the patch is another package.
    let (built, word, said) = build("");
    assert!(built && word == "plain", "{word}: {said}");
    let (_, word, said) = build("patches = \"own\"");
    assert_eq!(word, "two", "{said}");
}

/// Builds packages in place of an image, and installs them from the result.
fn the_packages_are_a_result(stand: &Stand) {
    let rest =
        recipe("\"app-own/flags\"", "kept", "-O2", "").replacen("baselayout", "kind = \"packages\"\nbaselayout", 1);
    let results = stand.build(&stand.recipe("alone", &rest)).success().results();
    let [directory] = &results[..] else { panic!("{results:?}") };
    assert!(directory.to_str().unwrap().ends_with(".packages"), "{directory:?}");
    assert_eq!(names(directory), ["Packages", "Packages.gz", "app-own", "key.json"]);
    assert_eq!(names(&directory.join("app-own/flags")).len(), 1, "only the package that the image consists of");
    let index = fs::read_to_string(directory.join("Packages")).unwrap();
    assert!(index.contains("\nPACKAGES: 1\n") && !index.contains("QUERN_"), "{index}");
    let both = format!("{rest}[oci]\n");
    assert!(stand.build(&stand.recipe("both", &both)).code(2).stderr.contains("makes no image"));
}

/// Lets Portage compare the index with the packages.
#[track_caller]
fn accepted_by_portage(stand: &Stand, recipe: &Path) {
    let check =
        stand.shell(recipe, &[], &["env", "PKGDIR=/quern/shared/image", "emaint", "--check", "binhost"]).success();
    assert!(!check.stdout.contains("is not in"), "{}{}", check.stdout, check.stderr);
}

#[test]
fn root_a_directory_of_the_user_has_one_key() {
    let Some(stand) = Stand::sharing(Privilege::Root) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    let stand = stand.with_repositories(&[&overlay]).with_own_packages();
    stand.ebuild("app-own", "flags", FLAGS);
    stand.env.write("overlay/app-own/flags/files/word", "one\n");
    let build = |flags: &str, portage: &str| {
        stand.build(&stand.recipe("own", &recipe("\"app-own/flags\"", "own", flags, portage)))
    };
    // The meaning of `native` is that of the compiler on this machine.
    assert!(compiled(&build("-O2 -march=native", "").success()));
    assert!(!compiled(&build("-O2 -march=native", "").success()));
    let key = fs::read_to_string(stand.packages().join("key.json")).unwrap();
    assert!(key.contains("\"native\": \"sha256:"), "{key}");
    let refused = build("-O3", "").code(2);
    for said in
        ["CFLAGS: -O2 -march=native, not -O3", "portage.binpkg-shared = true mixes them", text(&stand.packages())]
    {
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }
    assert!(!compiled(&build("-O3", "binpkg-shared = true").success()), "the user asked for a mixture");
    // A configuration file that decides the content is a part of the key.
    let config = stand.env.write("config/bashrc", ": nothing\n");
    let config = format!("config = {:?}", config.parent().unwrap());
    let refused = build("-O2 -march=native", &config).code(2);
    assert!(refused.stderr.contains("bashrc: nothing, not sha256:"), "{}", refused.stderr);
}

/// An ebuild that writes to the PKGDIR of the build. Its package phases run as root.
const HOSTILE: &str = "\
pkg_postinst() {\n\
\tcd /var/cache/binpkgs || die\n\
\techo x > garbage; chmod 4755 garbage\n\
\tmkdir -p app-own/other app-own/link app-own/huge app-own/lie sys-apps/evil\n\
\tln -s /etc/passwd app-own/link/link-1-1.gpkg.tar\n\
\ttruncate -s 100G app-own/huge/huge-1-1.gpkg.tar\n\
\tcp app-own/flags/flags-1-1.gpkg.tar app-own/other/other-1-1.gpkg.tar\n\
\tcp app-own/flags/flags-1-1.gpkg.tar app-own/lie/lie-1-7.gpkg.tar\n\
\techo x >> app-own/flags/flags-1-1.gpkg.tar; chmod 6777 app-own/flags/flags-1-1.gpkg.tar\n\
\tcp app-own/flags/flags-1-1.gpkg.tar sys-apps/evil/evil-1-1.gpkg.tar\n\
\tsed -i 's/^USE: /USE: foo /' Packages\n\
}\n";

#[test]
fn root_a_hostile_package_reaches_no_other_build() {
    let Some(stand) = Stand::sharing(Privilege::Root) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    let stand = stand.with_repositories(&[&overlay]);
    stand.ebuild("app-own", "flags", FLAGS);
    stand.env.write("overlay/app-own/flags/files/word", "one\n");
    stand.ebuild("app-own", "lie", &format!("RDEPEND=\"app-own/flags\"\n{HOSTILE}"));
    let hostile = stand.recipe("hostile", &recipe("\"app-own/lie\"", "hostile", "-O2", ""));
    let told = stand.build(&hostile).success().stderr;
    for said in [
        "garbage: it is not a package",
        "app-own/link/link-1-1.gpkg.tar: it is not a regular file",
        "app-own/huge/huge-1-1.gpkg.tar: this build did not make such a package",
        "app-own/flags/flags-1-1.gpkg.tar: other data follow the package",
        "app-own/lie/lie-1-7.gpkg.tar: ",
        "app-own/other/other-1-1.gpkg.tar: this build did not make such a package",
        "sys-apps/evil/evil-1-1.gpkg.tar: this build did not make such a package",
    ] {
        assert!(told.contains(&format!("left out of the package cache: {said}")), "{said}: {told}");
    }
    let [shelf] = &shelves(&stand, "hostile")[..] else { panic!("one directory") };
    let packages = ask("find", &[text(shelf), "-name", "*.gpkg.tar"]);
    assert!(packages.ends_with("/app-own/lie/lie-1-1.gpkg.tar\n") && packages.lines().count() == 1, "{packages}");
    assert!(!names(shelf).contains(&"garbage".to_owned()));
    accepted_by_portage(&stand, &hostile);
    // The next build is not affected.
    let next = stand.recipe("next", &recipe("\"app-own/flags\"", "hostile", "-O2", ""));
    assert!(compiled(&stand.build(&next).success()));
    assert!(!compiled(&stand.build(&next).success()));
}

#[test]
fn root_the_packages_of_a_killed_build_are_kept() {
    let Some(stand) = Stand::sharing(Privilege::Root) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    let stand = stand.with_repositories(&[&overlay]);
    stand.ebuild("app-own", "flags", FLAGS);
    stand.env.write("overlay/app-own/flags/files/word", "one\n");
    let wait = "src_compile() {\n\twhile [[ ! -e /var/db/repos/own/go-on ]]; do sleep 0.1; done\n}\n";
    stand.ebuild("app-own", "waiting", &format!("DEPEND=\"app-own/flags\"\nRDEPEND=\"app-own/flags\"\n{wait}"));
    let killed = stand.recipe("killed", &recipe("\"app-own/waiting\"", "killed", "-O2", ""));
    let (mut child, log) = stand.env.start(["build", "--again=all", text(&killed)]);
    let work = stand.store().join("builds");
    let own = |name: &&String| name.starts_with("killed-");
    let merged =
        |log: String| log.lines().any(|line| line.contains("completed emerge") && line.contains("app-own/flags-1"));
    wait_for("the first package to be merged", || {
        assert!(child.try_wait().unwrap().is_none(), "{}", fs::read_to_string(&log).unwrap_or_default());
        let logs =
            names(&work).iter().filter(own).map(|name| work.join(name).join("logs/emerge.log")).collect::<Vec<_>>();
        logs.iter().any(|log| fs::read_to_string(log).is_ok_and(merged))
    });
    child.kill().unwrap();
    let _ = child.wait().unwrap();
    assert_eq!(shelves(&stand, "killed").len(), 1);

    stand.env.write("overlay/go-on", "");
    let told = stand.build(&killed).success().stderr;
    assert!(told.contains("(1 built, 1 reused)"), "{told}");
    accepted_by_portage(&stand, &killed);
}

#[test]
fn root_settings_of_one_package_compile_it_alone() {
    let Some(stand) = Stand::sharing(Privilege::Root) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    let stand = stand.with_repositories(&[&overlay]);
    stand.ebuild("app-own", "flags", FLAGS);
    stand.ebuild("app-own", "other", "RDEPEND=\"app-own/flags\"\n");
    stand.env.write("overlay/app-own/flags/files/word", "one\n");
    let build = |name: &str, portage: &str| {
        let recipe = stand.recipe(name, &recipe("\"app-own/other\"", "single", "-O2", portage));
        let output = stand.build(&recipe).success();
        let built = output.stderr.lines().find(|line| line.starts_with("built ")).expect("a summary").to_owned();
        (built, content(&output.results()[0], "etc/flags"))
    };
    let (built, flags) = build("plain", "");
    assert!(built.contains("(2 built)") && flags == "-O2 no one\n", "{built}: {flags}");
    let [plain] = &shelves(&stand, "single")[..] else { panic!("one key") };
    let before = state(plain);
    // The package with settings of its own is compiled, whatever the version of the line is.
    let own = "package-env = [\">=app-own/flags-0.5 slow.conf\"]\nenv = { \"slow.conf\" = { CFLAGS = \"-O1\" } }";
    let (built, flags) = build("own", own);
    assert!(built.contains("(1 built, 1 reused)") && flags == "-O1 no one\n", "{built}: {flags}");
    assert_eq!(state(plain), before, "the packages without settings are only read");
    let (built, flags) = build("plain", "");
    assert!(built.contains("(2 reused)") && flags == "-O2 no one\n", "{built}: {flags}");
}

#[test]
fn root_simultaneous_builds_lose_no_package_and_double_none() {
    let Some(stand) = Stand::sharing(Privilege::Root) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    let stand = stand.with_repositories(&[&overlay]);
    // Both builds compile it at the same time.
    let same = "src_compile() {\n\twhile [[ ! -e /var/db/repos/own/go-on ]]; do sleep 0.1; done\n}\n\
                src_install() {\n\tinsinto /etc\n\techo same >same || die\n\tdoins same\n}\n";
    stand.ebuild("app-own", "same", same);
    for name in ["left", "right"] {
        stand.ebuild("app-own", name, "RDEPEND=\"app-own/same\"\n");
    }
    let write = |name: &str, packages: &str| stand.recipe(name, &recipe(packages, "twice", "-O2", ""));
    let recipes = [write("first", "\"app-own/left\""), write("second", "\"app-own/right\"")];
    let work = stand.store().join("builds");
    let compiles = |recipe: &Path| {
        let own = format!("{}-", recipe.file_stem().unwrap().display());
        let mut logs = names(&work).into_iter().filter(|name| name.starts_with(&own));
        logs.any(|name| {
            let log = fs::read_to_string(work.join(name).join("logs/emerge.log")).unwrap_or_default();
            log.contains("Compiling/Packaging (app-own/same-1")
        })
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = recipes.iter().map(|recipe| scope.spawn(|| stand.build(recipe))).collect();
        wait_for("both builds to compile", || {
            recipes.iter().all(|recipe| compiles(recipe)) || running.iter().any(|thread| thread.is_finished())
        });
        stand.env.write("overlay/go-on", "");
        for thread in running {
            let told = thread.join().expect("a thread").success().stderr;
            assert!(told.contains("(2 built)"), "{told}");
        }
    });
    let [shelf] = &shelves(&stand, "twice")[..] else { panic!("one directory") };
    for name in ["left", "right", "same"] {
        assert_eq!(names(&shelf.join("app-own").join(name)), [format!("{name}-1-1.gpkg.tar")]);
    }
    let index = fs::read_to_string(shelf.join("Packages")).unwrap();
    assert!(index.contains("\nPACKAGES: 3\n"), "{index}");
    accepted_by_portage(&stand, &recipes[0]);
    let told = stand.build(&write("third", "\"app-own/left\", \"app-own/right\"")).success().stderr;
    assert!(told.contains("(3 reused)"), "{told}");
}
