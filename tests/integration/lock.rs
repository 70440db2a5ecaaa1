//! `lock` and `store`, without a build.

use std::fs;

use crate::env::{Output, Privilege, Server, TestEnv, World, is_root, output, require_world};

const RECIPE: &str = "[source]\nstage3 = \"amd64-musl\"\n[build]\nprofile = \"gentoo:default/linux/amd64/23.0/musl\"\n\
                      [emerge]\npackages = [\"app-test/tiny\"]\n";

fn world() -> Option<(World, Server, TestEnv)> {
    // A fetched repository must be unpacked.
    let world = require_world().filter(|_| is_root() || Privilege::Userns.available())?;
    let server = world.serve();
    let mut env = TestEnv::new();
    env.use_world(&world, &server);
    env.write("demo.toml", RECIPE);
    Some((world, server, env))
}

#[test]
fn recipes_in_a_directory_share_a_lock_file_and_entries_stay_unchanged() {
    let Some((_world, server, env)) = world() else { return };
    env.write("other.toml", RECIPE.replace("amd64-musl", "amd64-openrc"));
    let path = env.path("quern.lock");
    let _ = env.run(["lock", "demo.toml", "--check"]).code(2);
    assert_eq!(env.run(["lock", "demo.toml"]).success().stdout.trim_end(), path.to_str().unwrap());
    let one = fs::read_to_string(&path).unwrap();
    let _ = env.run(["lock", "other.toml"]).success();
    let both = fs::read_to_string(&path).unwrap();
    assert!(both.starts_with(&one) && both.contains("[recipe.other.stage3]"), "{both}");
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    assert!(env.run(["lock", "demo.toml"]).success().stderr.contains("nothing changed"));
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
    let _ = env.run(["lock", "demo.toml", "--check"]).success();
    // The lists contain everything that is locked: no tarball was requested.
    assert!(server.requests().iter().all(|request| !request.ends_with(".tar.xz")), "{:?}", server.requests());

    // The lock file records the recipe's request.
    let changed = env.run(["lock", "demo.toml", "--check", "--set", "source.stage3=amd64-openrc"]).code(1);
    assert!(changed.stdout.starts_with("demo: asked for stage3 amd64-musl (latest) → "), "{}", changed.stdout);
    let refused = env.run(["build", "demo.toml", "--locked", "--set", "source.stage3=amd64-openrc"]).code(2);
    assert!(refused.stderr.contains("the recipe changed since it was locked"), "{}", refused.stderr);
    // It also records the trusted key.
    let distrust = ["fetch", "demo.toml", "--locked", "--set", "source.keyring=keys/other.asc"];
    let other = fs::read(_world.path("keys/other.asc")).unwrap();
    env.write("keys/other.asc", other);
    assert!(env.run(distrust).code(3).stderr.contains("which is not trusted here"));
}

#[test]
fn a_lock_file_may_be_elsewhere_and_must_be_valid() {
    let Some((_world, _server, env)) = world() else { return };
    let stdin = |arguments: &[&str]| -> Output {
        let mut program = env.program([&["lock", "-", "--set", "name=demo"], arguments].concat());
        output(program.stdin(fs::File::open(env.path("demo.toml")).unwrap()))
    };
    assert!(stdin(&[]).code(2).stderr.contains("--file"));
    let _ = stdin(&["--file", "x.lock"]).success();
    assert!(!env.path("quern.lock").exists());
    let _ = env.run(["lock", "demo.toml", "--check", "--file", "x.lock"]).success();
    let plan = env.run(["build", "demo.toml", "--locked", "--lock-file", "x.lock", "--dry-run"]).success();
    assert!(!plan.stdout.contains("latest-stage3"), "{}", plan.stdout);
    assert!(env.run(["build", "demo.toml", "--lock-file", "x.lock"]).code(2).stderr.contains("--locked"));

    let text = fs::read_to_string(env.path("x.lock")).unwrap();
    env.write("x.lock", text.replace("[recipe", "<<<<<<< \x1b[2Jours\n[recipe"));
    let broken = env.run(["fetch", "demo.toml", "--locked", "--lock-file", "x.lock"]).code(2);
    assert!(broken.stderr.contains("line 4") && !broken.stderr.contains('\x1b'), "{:?}", broken.stderr);
    // A file that cannot be read is not overwritten.
    let _ = env.run(["lock", "demo.toml", "--file", "x.lock"]).code(2);
}

#[test]
fn exports_are_chosen_by_digest_recipe_or_lock_file() {
    let Some((world, _server, mut env)) = world() else { return };
    assert_eq!(env.run(["store", "list"]).success().stdout, "");
    let _ = env.run(["store", "export"]).code(2);
    assert!(env.run(["store", "export", "demo.toml", "-o", "x.tar"]).code(2).stderr.contains("quern-builder fetch"));
    let blob = env.run(["lock", "demo.toml"]).success();
    drop(blob);
    assert!(env.run(["store", "export", "demo.toml", "-o", "x.tar"]).code(2).stderr.contains("--locked"));
    // The blob is copied by hand: the store hashes its blobs when they are used.
    let blobs = env.path("home/store/blobs/sha512");
    fs::create_dir_all(&blobs).unwrap();
    let lock = fs::read_to_string(env.path("quern.lock")).unwrap();
    let value = |key: &str| lock.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = ")).unwrap();
    let (sha512, name) = (value("sha512").trim_matches('"'), value("name").trim_matches('"'));
    let built = name.rsplit_once('-').unwrap().1.strip_suffix(".tar.xz").unwrap();
    let tarball = world.path(format!("mirror/releases/amd64/autobuilds/{built}/{name}"));
    fs::copy(&tarball, blobs.join(sha512)).unwrap();
    let listed = env.run(["store", "list"]).success().stdout;
    assert!(listed.contains(&sha512[..16]) && listed.contains(name), "{listed}");

    for what in [&["demo.toml"][..], &[&sha512[..16]], &["--all"], &["--lock-file", "quern.lock"]] {
        let exported = env.run([&["store", "export", "-o", "x.tar"], what].concat()).success();
        assert_eq!(exported.results().len(), 1);
        assert_eq!(fs::metadata(env.path("x.tar")).unwrap().len() % 512, 0, "{what:?}");
    }
    let _ = env.run(["store", "export", "00000000", "-o", "x.tar"]).code(2);
    let _ = env.run(["store", "export", "--all", "-o", "/dev/null"]).code(2);
    let check = "tar -xf x.tar && sha512sum --check --strict --quiet SHA512SUMS";
    let _ = output(env.command("sh").args(["-c", check])).success();
    // Export through a pipe into another store.
    let piped = env.path("home/store");
    env.set("QUERN_HOME", env.path("home/other"));
    let pipe = "QUERN_HOME=\"$1\" \"$0\" store export --all | \"$0\" store import -";
    let imported = output(env.command("sh").args(["-c", pipe, crate::env::PROGRAM]).arg(&piped)).success();
    assert!(imported.results()[0].ends_with(format!("other/blobs/sha512/{sha512}")), "{}", imported.stdout);
    assert!(env.run(["store", "import", "."]).success().stderr.contains("already has all of these blobs"));
    // A truncated export is refused, and nothing of it is kept.
    env.set("QUERN_HOME", env.path("home/third"));
    let cut = fs::OpenOptions::new().write(true).open(env.path("x.tar")).unwrap();
    cut.set_len(5_000_000).unwrap();
    let _ = env.run(["store", "import", "x.tar"]).code(3);
    assert_eq!(env.run(["store", "list"]).success().stdout, "");
    let _ = env.run(["store", "import", "none.tar"]).code(2);
}

#[test]
fn userns_a_fetched_repository_is_locked_and_exported() {
    let Some((world, server, mut env)) = world() else { return };
    let snapshot = |which: &str| format!("[{{ snapshot = {which:?}, keyring = {:?} }}]", world.keyring());
    env.set("QUERN_PORTAGE_REPOSITORIES", snapshot("latest"));
    let _ = env.run(["lock", "demo.toml"]).success();
    let lock = fs::read_to_string(env.path("quern.lock")).unwrap();
    let repository = lock.split_once("[[recipe.demo.repository]]").expect("a repository").1;
    assert!(
        repository.contains("[recipe.demo.repository.snapshot]") && repository.contains("name = \"gentoo-2"),
        "{lock}"
    );
    assert!(!repository.contains("gentoo-latest.tar.xz\"\n"), "the address is not that of the dated file: {lock}");
    let _ = env.run(["lock", "demo.toml", "--check"]).success();
    let _ = env.run(["lock", "demo.toml"]).success();
    assert_eq!(fs::read_to_string(env.path("quern.lock")).unwrap(), lock);

    // Another store fetches the locked files from the dated address.
    env.set("QUERN_HOME", env.path("home/other"));
    let before = server.requests().len();
    let _ = env.run(["fetch", "demo.toml", "--locked"]).success();
    let asked = server.requests()[before..].to_vec();
    assert!(asked.len() == 2 && asked.iter().all(|request| !request.contains("latest")), "{asked:?}");
    let _ = env.run(["store", "export", "demo.toml", "-o", "x.tar"]).success();
    // A store without network imports them.
    env.set("QUERN_HOME", env.path("home/third"));
    assert_eq!(env.run(["store", "import", "x.tar"]).success().results().len(), 2);
    let verified = env.run(["verify", "demo.toml", "--locked", "--offline"]).success();
    assert_eq!(verified.stdout.matches("locked: SHA-512 in the lock file").count(), 2, "{}", verified.stdout);
    assert_eq!(server.requests().len(), before + 2);
    let _ = env.run(["verify", "demo.toml", "--offline"]).code(5);

    // Another snapshot, or a directory instead of it, does not match the lock file.
    let day = repository.split_once("name = \"gentoo-2").unwrap().1.split_once(".tar").unwrap().0;
    env.set("QUERN_PORTAGE_REPOSITORIES", snapshot(&format!("2{day}")));
    assert!(env.run(["fetch", "demo.toml", "--locked"]).code(2).stderr.contains("changed since it was locked"));
    env.set("QUERN_PORTAGE_REPOSITORIES", format!("[{:?}]", world.repository()));
    let directory = env.run(["build", "demo.toml", "--locked"]).code(2);
    assert!(directory.stderr.contains("a snapshot → a directory"), "{}", directory.stderr);
    env.clean(&["home/store", "home/other", "home/third"]);
}
