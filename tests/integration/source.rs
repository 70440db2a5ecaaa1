//! Sources of a stage3: standard input, mirrors and Funtoo.

use std::path::Path;

use crate::env::{Privilege, Server, TestEnv, is_root, output, require_world};

/// Makes a recipe that needs only a stage3, or returns `None` where the program cannot be root or become it.
pub(crate) fn recipe(source: &str) -> Option<(TestEnv, std::path::PathBuf)> {
    if !is_root() && !Privilege::Userns.available() {
        return None;
    }
    let env = TestEnv::new();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/profiles/repos/gentoo");
    let text = format!(
        "[source]\n{source}\n[portage]\nrepositories = [{repository:?}]\n[build]\nprofile = \"default/linux/amd64/23.0/musl\"\n\
         kind = \"stage4\"\n[emerge]\npackages = [\"app-misc/hello\"]\n"
    );
    let path = env.write("demo.toml", text);
    Some((env, path))
}

#[test]
fn userns_a_stage3_is_read_from_standard_input() {
    let Some((env, recipe)) = recipe("file = \"-\"") else { return };
    let recipe = recipe.to_str().unwrap();
    let data = env.write("data", vec![7; 3_000_000]);
    let run = |arguments: &[&str]| {
        let mut program = env.program([&["verify", recipe], arguments].concat());
        output(program.stdin(std::fs::File::open(&data).unwrap()))
    };
    assert!(run(&[]).code(3).stderr.contains("nothing proves standard input"));
    let unsigned = run(&["--set", "source.allow-unsigned=true"]).success();
    assert!(unsigned.stdout.contains("unsigned, accepted by the recipe"), "{}", unsigned.stdout);
    let sha512 =
        unsigned.stdout.lines().find_map(|line| line.trim().strip_prefix("sha512 ")).unwrap().trim().to_owned();
    let _ = run(&["--set", &format!("source.sha512={sha512}")]).success();
    let wrong = sha512.replace(|digit: char| digit.is_ascii_hexdigit(), "0");
    let _ = run(&["--set", &format!("source.sha512={wrong}")]).code(3);
    let mut both = env.program(["verify", "-", "--set", "name=x"]);
    let both = output(both.stdin(std::fs::File::open(recipe).unwrap())).code(2);
    assert!(both.stderr.contains("the recipe itself is read from standard input"), "{}", both.stderr);
}

#[test]
fn the_stage3s_of_a_mirror_are_listed() {
    let Some(world) = require_world() else { return };
    let server = world.serve();
    let mut env = TestEnv::new();
    env.use_world(&world, &server);
    let listed = env.run(["fetch", "--list", "amd64"]).success().stdout;
    let musl = listed.lines().find(|line| line.starts_with("amd64-musl ")).expect("a line of amd64-musl");
    let fields: Vec<&str> = musl.split_whitespace().collect();
    assert!(fields[1].len() == 16 && fields[1].ends_with('Z') && fields[2].parse::<u64>().is_ok(), "{listed}");
    assert!(listed.contains("amd64-openrc "), "{listed}");
    assert!(env.run(["fetch", "--list", "amd46"]).code(2).stderr.contains("one of alpha, amd64"));
    let _ = env.run(["fetch", "--list", "hppa"]).code(5);
    let _ = env.run(["fetch"]).code(2);
    // The mirror's key is not one of those that are trusted by default.
    let mirror = format!("source.mirrors=[{:?}]", server.url());
    let stranger = TestEnv::new().run(["fetch", "--list", "amd64", "--set", &mirror]).code(3);
    assert!(stranger.stderr.contains("not in the keyring"), "{}", stranger.stderr);
}

#[test]
fn userns_a_funtoo_stage3_is_fetched_and_verified() {
    let Some(world) = require_world() else { return };
    let source = "distro = \"funtoo\"\nrelease = \"1.4-release-std\"\narch = \"x86-64bit\"\nsubarch = \"generic_64\"";
    let Some((mut env, recipe)) = recipe(source) else { return };
    let server = Server::start(&world.path("funtoo"));
    env.set("QUERN_SOURCE_MIRRORS", format!("[{:?}]", server.url()));
    let recipe = recipe.to_str().unwrap();
    assert!(env.run(["fetch", recipe]).code(2).stderr.contains("keys import"));
    env.set("QUERN_SOURCE_KEYRING", world.keyring());
    // The world may be old. A build that is named by its date has no maximum age.
    let day = std::fs::read_dir(world.path("funtoo/1.4-release-std/x86-64bit/generic_64")).unwrap();
    let day = day.filter_map(|entry| entry.unwrap().file_name().into_string().ok()).find(|name| name.starts_with("20"));
    for version in ["latest".to_owned(), day.expect("a build of a day")] {
        let arguments = ["--set", &format!("source.version={version}"), "--set", "source.max-age=3650"];
        let _ = env.run([&["fetch", recipe], &arguments[..]].concat()).success();
        let verified = env.run([&["verify", recipe], &arguments[..]].concat()).success();
        assert!(verified.stdout.contains("detached signature by "), "{}", verified.stdout);
    }
}
