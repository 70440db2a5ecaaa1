//! Where a stage3 comes from, as a user meets it.

use std::path::Path;

use crate::env::{TestEnv, is_root, output, require_userns};

/// A recipe that needs nothing but a stage3; none where the tests can neither be root nor become it.
fn recipe(source: &str) -> Option<(TestEnv, std::path::PathBuf)> {
    if !is_root() && !require_userns() {
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
fn userns_a_stage3_on_standard_input() {
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
    assert!(both.stderr.contains("the recipe is read from it already"), "{}", both.stderr);
}
