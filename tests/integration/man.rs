//! The man pages are generated from the definition of the command line by `QUERN_UPDATE=1 cargo test --test integration man`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap_mangen::Man;
use quern_builder::testing::Code;

use crate::env::output;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("man")
}

/// Returns the name and text of every generated page.
fn pages() -> Vec<(String, String)> {
    let mut root = quern_builder::testing::command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    let mut pending = vec![root];
    while let Some(command) = pending.pop() {
        pending.extend(command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned());
        pages.push(page(command));
    }
    pages.push(("quern-refusals.7".to_owned(), refusals()));
    pages
}

/// Writes the page of refusal codes from the table of codes.
fn refusals() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        ".\\\" Written by tests/integration/man.rs from src/base/refusal.rs.\n\
         .TH quern-refusals 7 \"\" \"quern-builder {version}\" Quern\n\
         .SH NAME\n\
         quern\\-refusals \\- codes of refused archives and image layouts\n\
         .SH DESCRIPTION\n\
         .PP\n\
         quern\\-builder refuses archives and image layouts that are damaged or malformed, that are larger than a limit, or that \
         other programs would read differently. It then exits with code 3. Every refusal has a code, printed in brackets after the \
         message and in the JSON output of \\fBraw ls\\fR, \\fBraw unpack\\fR and \\fBoci validate\\fR. The codes do not change between \
         versions; the messages may.\n"
    );
    for (heading, codes) in Code::GROUPS {
        text.push_str(&format!(".SH {}\n", heading.to_uppercase()));
        for code in *codes {
            text.push_str(&format!(
                ".TP\n\\fB{}\\fR\n{}\n",
                escape(code.as_str()),
                escape(code.description()).replace('`', "")
            ));
        }
    }
    text.push_str(
        ".SH SEE ALSO\n\\fBquern\\-builder\\-raw\\-ls\\fR(1), \\fBquern\\-builder\\-raw\\-unpack\\fR(1), \
         \\fBquern\\-builder\\-oci\\-validate\\fR(1)\n",
    );
    text
}

fn page(command: clap::Command) -> (String, String) {
    let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let verbs = command.get_subcommands().next().is_some();
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(command).source(format!("quern-builder {version}")).manual("Quern");
    let mut sections: Vec<Vec<u8>> = vec![Vec::new(); 6];
    man.render_title(&mut sections[0]).unwrap();
    man.render_name_section(&mut sections[1]).unwrap();
    man.render_synopsis_section(&mut sections[2]).unwrap();
    man.render_description_section(&mut sections[3]).unwrap();
    man.render_options_section(&mut sections[4]).unwrap();
    if verbs {
        man.render_subcommands_section(&mut sections[5]).unwrap();
    }
    let mut text = String::from(".\\\" Written by tests/integration/man.rs from the definition of the command line.\n");
    for (index, section) in sections.into_iter().enumerate() {
        let section = String::from_utf8(section).unwrap();
        // Each section defines the apostrophe; a page needs the definition once.
        let body = section.lines().filter(|line| index == 0 || !line.contains(".ds Aq"));
        text.extend(body.flat_map(|line| [line, "\n"]));
    }
    text.push_str(&further(&help));
    text.push_str(".SH SEE ALSO\n\\fBquern\\-builder\\fR(1), \\fBquern\\-recipe\\fR(5), \\fBquern\\-refusals\\fR(7)\n");
    (man.get_filename(), text)
}

/// Formats the additional help. An unindented line that ends with a colon is a heading; indented lines stay unchanged.
fn further(help: &str) -> String {
    let mut text = String::new();
    let mut verbatim = false;
    for line in help.lines().filter(|line| !line.trim().is_empty()) {
        let indented = line.starts_with(' ');
        if verbatim != indented {
            text.push_str(if indented { ".nf\n" } else { ".fi\n" });
            verbatim = indented;
        }
        match line.strip_suffix(':').filter(|_| !indented) {
            Some(heading) => text.push_str(&format!(".SH {}\n", heading.to_uppercase())),
            None if indented => text.push_str(&format!("{}\n", escape(&line[2..]))),
            None => text.push_str(&format!(".PP\n{}\n", escape(line))),
        }
    }
    if verbatim {
        text.push_str(".fi\n");
    }
    text
}

fn escape(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if line.starts_with('.') { format!("\\&{line}") } else { line }
}

#[test]
fn man_pages_are_up_to_date() {
    let update = std::env::var_os("QUERN_UPDATE").is_some();
    let mut expected = BTreeSet::from(["quern-recipe.5".to_owned()]);
    for (name, text) in pages() {
        let path = directory().join(&name);
        if update {
            fs::create_dir_all(directory()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            found, text,
            "man/{name} differs from the command line: run QUERN_UPDATE=1 cargo test --test integration man"
        );
        expected.insert(name);
    }
    let found: BTreeSet<_> =
        fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, expected, "man/ has one page for each command");
}

/// Holds for the page on disk, however it was written.
#[test]
fn the_page_of_refusals_names_every_code_and_no_other() {
    let page = fs::read_to_string(directory().join("quern-refusals.7")).unwrap().replace("\\-", "-");
    let named: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("\\fB")?.strip_suffix("\\fR")).collect();
    let known: BTreeSet<&str> =
        Code::GROUPS.iter().flat_map(|(_, codes)| codes.iter().map(|code| code.as_str())).collect();
    assert_eq!(named, known);
    assert!(known.contains("truncated") && known.len() > 50);
}

#[test]
fn groff_accepts_every_page() {
    if output(std::process::Command::new("sh").args(["-c", "command -v groff"])).code != 0 {
        eprintln!("skipped groff_accepts_every_page: groff not found");
        return;
    }
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let mut groff = std::process::Command::new("groff");
        let judged = output(groff.args(["-man", "-ww", "-Kutf8", "-Tutf8", "-z"]).arg(&path));
        assert_eq!((judged.code, judged.stderr.as_str()), (0, ""), "{}", path.display());
    }
}

#[test]
fn every_key_of_a_recipe_is_explained() {
    let page = fs::read_to_string(directory().join("quern-recipe.5")).unwrap();
    let page = page.replace("\\-", "-");
    for (key, _) in quern_builder::testing::recipe_keys() {
        let name = key.rsplit_once('.').map_or(key.as_str(), |(_, name)| name);
        let spelled = [key.split_once('.').map_or(key.as_str(), |(_, name)| name), name];
        let named = |name: &str| page.contains(&format!("\\fB{name}\\fR"));
        assert!(spelled.into_iter().any(named), "man/quern-recipe.5 does not explain `{key}`");
    }
}
