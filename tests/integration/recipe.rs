//! Every file in `tests/profiles/valid` is a recipe that loads as the JSON file beside it shows. Every file in
//! `tests/profiles/invalid` is refused with the text beside it. Leading comments set the environment of a case:
//! `# set: section.key=value`, `# env: NAME=value`, `# file: other.toml` (loaded before it). A case with `# image: PATH` stands for an
//! image of a tree in `tests/profiles/trees`.
//! `SNAPSHOTS=overwrite cargo test` rewrites the expectations.

use std::path::{Path, PathBuf};

use quern_builder::testing::{Kind, Request, load};
use snapbox::Data;

fn cases(kind: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/profiles").join(kind);
    let entries = std::fs::read_dir(dir).expect("the directory of cases").map(|entry| entry.expect("a case").path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    cases.sort();
    cases
}

/// Returns the request of a case, which runs in its own directory under its own name.
fn request(case: &Path) -> Request {
    let text = String::from_utf8_lossy(&std::fs::read(case).expect("a case")).into_owned();
    let directives = |name: &str| -> Vec<String> {
        let prefix = format!("# {name}: ");
        text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
    };
    let mut files: Vec<PathBuf> = directives("file").into_iter().map(PathBuf::from).collect();
    let image = directives("image").pop().map(PathBuf::from);
    files.push(image.unwrap_or_else(|| PathBuf::from(case.file_name().expect("a name"))));
    let env =
        directives("env").iter().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
    let cwd = case.parent().expect("a directory").to_owned();
    Request { files, sets: directives("set"), env, cwd, ..Request::default() }
}

fn portable(text: &str) -> String {
    text.replace(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/profiles"), "[PROFILES]")
}

#[test]
fn valid_recipes_load() {
    let cases = cases("valid");
    assert!(cases.len() >= 5, "only {} valid cases", cases.len());
    for case in cases {
        let loaded = match load(&request(&case)) {
            Ok(loaded) => loaded,
            Err(error) => panic!("{}: {error}\n{}", case.display(), error.details().unwrap_or_default()),
        };
        let job = serde_json::to_value(&*loaded.job).unwrap();
        let mut found = serde_json::to_string_pretty(&job).unwrap();
        for warning in loaded.warnings {
            found += &format!("\nwarning: {warning}");
        }
        let expected = Data::read_from(&case.with_extension("json"), Some(snapbox::data::DataFormat::Text));
        snapbox::assert_data_eq!(portable(&found) + "\n", expected.raw());
    }
}

#[test]
fn invalid_recipes_are_refused_with_a_caret() {
    let cases = cases("invalid");
    assert!(cases.len() >= 30, "only {} invalid cases", cases.len());
    for case in cases {
        let Err(error) = load(&request(&case)) else { panic!("{} was accepted", case.display()) };
        assert_eq!(error.kind(), Kind::Usage, "{}", case.display());
        let details = error.details().unwrap_or_default();
        assert!(!details.contains('\u{1b}') && !details.contains('\u{9b}'), "{}: a terminal escape", case.display());
        let found = portable(&format!("{error}\n\n{details}\n"));
        let expected = Data::read_from(&case.with_extension("txt"), Some(snapbox::data::DataFormat::Text));
        snapbox::assert_data_eq!(found, expected.raw());
    }
}

#[test]
fn all_profiles_of_this_repository_load() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
    let Ok(entries) = std::fs::read_dir(&dir) else { return };
    let main = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/profiles/repos/gentoo");
    for path in
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "toml"))
    {
        let overlay = Path::new(env!("CARGO_MANIFEST_DIR")).join("overlays/quern");
        // Gentoo's own repository is not present on every machine.
        let sets = vec![format!("portage.repositories={} {}", main.display(), overlay.display())];
        let request = Request { files: vec![path.clone()], sets, cwd: dir.clone(), ..Request::default() };
        if let Err(error) = load(&request) {
            panic!("{}: {error}\n{}", path.display(), error.details().unwrap_or_default());
        }
    }
}
