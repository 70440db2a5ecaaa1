//! Refusals of the real emerge: each has its sentence and its next step, and the lines that the error shows let emerge go on.

use std::path::Path;

use super::{Stand, text};
use crate::env::{Privilege, twins};

/// Packages that emerge refuses, the sentence, and the next step.
const REFUSED: [(&str, &str, &str); 7] = [
    (
        "\"app-bad/badeapi\"",
        "every version of app-bad/badeapi is masked; app-bad/badeapi-1::bad: the Portage of the builder does not know EAPI 99",
        "build.unblocker-profile",
    ),
    (
        "\"app-bad/syntaxerr\"",
        "its metadata cannot be generated: no-such-eclass.eclass could not be found by inherit()",
        "add the repository that has its eclass to portage.repositories",
    ),
    (
        "\"app-exp/slota\", \"app-exp/slotb\"",
        "two versions of app-exp/lib:0 are needed, and the slot takes one: app-exp/slotb-1 needs =app-exp/lib-2; \
         app-exp/slota-1 needs =app-exp/lib-1",
        "backtrack option in emerge.options",
    ),
    (
        "\"app-exp/blocka\", \"app-exp/blockb\"",
        "app-exp/blockb-1 blocks app-exp/blocka: they cannot be installed together",
        "leave one of the two packages out",
    ),
    (
        "\"app-exp/badiuse\"",
        "app-exp/flags[nosuchflag] needs a USE flag that app-exp/flags-1::exp does not have: nosuchflag",
        "portage.package-mask",
    ),
    ("\"@nonexistent\"", "the set @nonexistent does not exist", "emerge.packages"),
    (
        "\"app-field/fetchrestrict\"",
        "app-field/fetchrestrict-1 failed: emerge must not download the source of app-field/fetchrestrict-1: \
         fetchrestrict-1.tar.gz",
        "get fetchrestrict-1.tar.gz as the ebuild says, and put it into the directory of portage.distfiles",
    ),
];

/// The same for recipes with an option.
const REFUSED_WITH: [(&str, &str, &str, &str); 3] = [
    (
        "--set=portage.make-conf={ ACCEPT_RESTRICT = \"* -fetch\" }",
        "\"app-field/fetchrestrict\"",
        "app-field/fetchrestrict-1::field: its RESTRICT is not accepted: fetch",
        "add a line to portage.package-accept-restrict",
    ),
    ("--binary-only", "\"app-exp/flags\"", "no binary package satisfies app-exp/flags", "emerge.binary-only = false"),
    (
        "--set=emerge.jobs=1",
        "\"app-exp/colla\", \"app-exp/collb\"",
        "has files that belong to app-exp/coll",
        "remove the file from one of them with INSTALL_MASK",
    ),
];

/// Packages that a line lets emerge accept, one for each kind of line.
const ACCEPTABLE: &str = "\"app-exp/needsunstable\", \"app-exp/masked\", \"app-exp/armonly\", \"app-exp/requse\", \"app-exp/cyca\", \
                          \"app-field/licensed\", \"app-field/depflag\"";

fn stand(privilege: Privilege) -> Option<Stand> {
    let stand = Stand::sharing(privilege)?.with_own_packages();
    let overlays = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refusals");
    let [exp, field, bad] = ["exp", "field", "bad"].map(|name| overlays.join(name));
    Some(stand.with_repositories(&[&exp, &field, &bad]))
}

/// Writes a recipe for packages without a base layout. `more` are further sections.
fn recipe(stand: &Stand, name: &str, packages: &str, more: &str) -> std::path::PathBuf {
    stand.recipe(name, &format!("baselayout-atoms = []\n{more}[emerge]\npackages = [{packages}]\n"))
}

/// Returns the lines for the recipe in an error, without the indentation of a hint.
fn pasted(said: &str) -> String {
    let lines = said.lines().skip_while(|line| line.trim() != "[portage]");
    let lines = lines.take_while(|line| line.starts_with("      ") && !line.contains("the whole log"));
    lines.map(|line| format!("{}\n", &line[6..])).collect()
}

#[test]
fn root_each_refusal_has_its_sentence() {
    let Some(stand) = stand(Privilege::Root) else { return };
    let plain = REFUSED.map(|(packages, sentence, next)| ("--color=never", packages, sentence, next));
    for (option, packages, sentence, next) in plain.into_iter().chain(REFUSED_WITH) {
        let recipe = recipe(&stand, "refused", packages, "");
        let said = stand.env.run(["build", option, text(&recipe)]).code(1).stderr;
        let head = said.lines().find(|line| line.starts_with("error: ")).expect("an error");
        assert!(head.contains(sentence), "{packages}: {said}");
        let (_, hint) = said.split_once("hint: ").expect("a hint");
        assert!(hint.contains(next), "{packages}: {said}");
        assert!(!said.contains("Global Updates"), "{said}");
    }
}

twins!(pasted_lines => root_the_lines_of_an_error_let_the_build_pass, userns_the_lines_of_an_error_let_the_build_pass);

fn pasted_lines(privilege: Privilege) {
    let Some(stand) = stand(privilege) else { return };
    let refused = recipe(&stand, "pasted", "\"app-exp/usedep\"", "");
    let said = stand.build(&refused).code(1).stderr;
    assert!(said.contains("app-exp/flags[foo] needs other USE flags: app-exp/flags-1 with USE=\"foo\""), "{said}");
    let lines = pasted(&said);
    assert!(lines.contains("# required by app-exp/usedep-1::exp"), "{lines}");
    stand.built(&recipe(&stand, "pasted", "\"app-exp/usedep\"", &lines));
    if privilege == Privilege::Userns {
        return;
    }
    let option = "--set=portage.make-conf={ ACCEPT_PROPERTIES = \"* -interactive\" }";
    let build = |lines: &str| {
        let recipe = recipe(&stand, "asking", "\"app-exp/interactive\"", lines);
        stand.env.run(["build", option, text(&recipe)])
    };
    let said = build("").code(1).stderr;
    assert!(said.contains("app-exp/interactive-1::exp: its PROPERTIES are not accepted: interactive"), "{said}");
    let lines = pasted(&said);
    assert!(lines.contains("package-properties"), "{said}");
    let _ = build(&lines).success();
}

#[test]
fn root_a_recipe_is_printed_with_the_lines_that_emerge_asks_for() {
    let Some(stand) = stand(Privilege::Root) else { return };
    let use_flags = "[portage]\n# mine\npackage-use = [\"app-exp/flags bar\"]\n";
    let refused = recipe(&stand, "explained", ACCEPTABLE, use_flags);
    let explained = stand.env.run(["explain", "--fix", text(&refused)]).success().stdout;
    for line in [
        "# mine\n",
        "\"app-exp/flags bar\"",
        "\"=app-exp/unstable-1 ~amd64\"",
        "  # warning: nobody has tested this package on this architecture\n  \"=app-exp/armonly-1 **\"",
        "  # Broken beyond repair. Removal in 30 days.\n  # warning: this package is masked for the reason above\n  \"=app-exp/masked-1\"",
        "  # or in its place: =app-exp/requse-1 bar\n  \"=app-exp/requse-1 foo\"",
        "\"=app-exp/cyca-1 -cyc\"",
        "FIELD-EULA\"",
    ] {
        assert!(explained.contains(line), "{line}: {explained}");
    }
    let fixed = stand.env.write("fixed.toml", &explained);
    let listed = stand.env.run(["plan", text(&fixed)]).success().stdout;
    assert!(["masked", "licensed", "unstable", "opt"].iter().all(|name| listed.contains(name)), "{listed}");

    let for_builder = recipe(&stand, "built", "\"app-exp/needsbuilt\"", "");
    let said = stand.env.run(["plan", text(&for_builder)]).code(1).stderr;
    let head = "error: resolving app-exp/needsbuilt: for the builder, every version of app-exp/unstable is masked; ";
    assert!(said.contains(head), "{said}");
    let lines = pasted(&said);
    assert!(
        lines.contains("# for the builder; the line applies to the image too\n  \"=app-exp/unstable-1 ~amd64\""),
        "{lines}"
    );
    let accepted = recipe(&stand, "built", "\"app-exp/needsbuilt\"", &lines);
    let listed = stand.env.run(["plan", text(&accepted)]).success().stdout;
    assert!(listed.starts_with("for the builder\n  source   app-exp/unstable-1"), "{listed}");

    let hopeless = recipe(&stand, "hopeless", "\"app-exp/unstable\", \"app-exp/missingdep\"", "");
    let explained = stand.env.run(["explain", "--fix", text(&hopeless)]).code(1);
    assert!(explained.stdout.contains("\"=app-exp/unstable-1 ~amd64\""), "{}", explained.stdout);
    assert!(explained.stderr.contains("no repository has an ebuild for app-exp/doesnotexist"), "{}", explained.stderr);
}
