//! Looks into a build before and after it: the packages that it would merge, and the configuration that it merges them with.

use std::path::Path;
use std::process::Command;

use super::{Stand, text};
use crate::env::{Privilege, output, twins};

/// A recipe with a USE flag of its own for a small package.
const FLAGGED: &str = "[portage]\npackage-use = [\"app-test/tiny bar\"]\n[emerge]\npackages = [\"app-test/tiny\"]\n";

/// An advisory about the first version of a package.
const ADVISORY: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE glsa SYSTEM "http://www.gentoo.org/dtd/glsa.dtd">
<glsa id="202601-01">
<title>tiny: two holes</title><synopsis>Both are large.</synopsis><product type="ebuild">tiny</product>
<announced>2026-01-01</announced><revised count="1">2026-01-01</revised><access>remote</access>
<affected><package name="app-test/tiny" auto="yes" arch="*">
<unaffected range="ge">2</unaffected><vulnerable range="lt">2</vulnerable></package></affected>
<description><p>Holes.</p></description><impact type="high"><p>Great.</p></impact><workaround><p>None.</p></workaround>
<resolution><p>Upgrade.</p></resolution><references/>
</glsa>
"#;

impl Stand {
    /// Uses a copy of the world's repository that has package moves, as ::gentoo has.
    fn with_moves(mut self) -> Self {
        let copy = self.env.path("gentoo");
        let _ = output(Command::new("cp").arg("-r").arg(self.world.repository()).arg(&copy)).success();
        self.env.write("gentoo/metadata/glsa/glsa-202601-01.xml", ADVISORY);
        self.env.write("gentoo/profiles/updates/1Q-2026", "move app-test/small app-test/tiny\n");
        self.env.set("QUERN_PORTAGE_REPOSITORIES", format!("{:?}", [copy]));
        self
    }
}

twins!(emerge_in_a_shell_answers_for_the_image => root_emerge_in_a_shell_answers_for_the_image, userns_emerge_in_a_shell_answers_for_the_image);

fn emerge_in_a_shell_answers_for_the_image(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let stand = stand.with_moves().with_own_packages();
    let recipe = stand.recipe("seen", FLAGGED);
    let pretend = |command: &[&str]| stand.shell(&recipe, &[], command).success().stdout;
    let asked = ["emerge", "--pretend", "--verbose", "app-test/tiny"];
    let before = pretend(&asked);
    assert!(before.contains("[ebuild  N     ] app-test/tiny-1::gentoo to /quern/image/ USE=\"bar foo\""), "{before}");
    let plan = stand.env.run(["plan", text(&recipe), "--json"]).success().stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["totals"]["built"], 2, "{plan}");
    stand.built(&recipe);
    if privilege == Privilege::Root {
        advisories(&stand, &recipe);
    }
    let table = stand.env.run(["plan", text(&recipe)]).success().stdout;
    assert!(table.contains("  binary   app-test/tiny-1-1:0::gentoo\n           USE=\"bar foo\"\n"), "{table}");
    assert!(table.ends_with("2 packages: 0 to build, 2 reused; 0 B to fetch\n"), "{table}");
    let after = pretend(&asked);
    assert!(after.contains("[ebuild   R    ] app-test/tiny-1::gentoo to /quern/image/ USE=\"bar foo\""), "{after}");
    let of_builder = pretend(&[&["env", "-u", "PORTAGE_CONFIGROOT"], &asked[..]].concat());
    assert!(of_builder.contains("app-test/tiny-1::gentoo  USE=\"bar foo\""), "{of_builder}");
    // A changed recipe counts, although the last build knew another one.
    let changed =
        stand.env.write("changed.toml", std::fs::read_to_string(&recipe).unwrap().replace("tiny bar", "tiny -foo"));
    std::fs::rename(changed, &recipe).unwrap();
    let changed = pretend(&asked);
    assert!(changed.contains("USE=\"-bar* -foo*\""), "{changed}");
    let table = stand.env.run(["plan", text(&recipe)]).success().stdout;
    let expected = "  source   app-test/tiny-1:0::gentoo\n           USE=\"-bar -foo\"\n           the binary package differs: USE is bar foo, \
                    wanted is -bar -foo\n";
    assert!(table.contains(expected) && table.lines().all(|line| line.len() <= 80), "{table}");
    binary_packages_alone(&stand, &recipe);
    let refused = stand.env.run(["plan", text(&recipe), "--set", "emerge.packages=[\"app-test/none\"]"]).code(1);
    assert!(
        refused.stderr.contains("error: resolving app-test/none: no repository has an ebuild"),
        "{}",
        refused.stderr
    );
    assert!(pretend(&["cat", "/etc/portage/package.use/zz-quern"]).contains("-foo"));
    let none = stand.env.run([
        "shell",
        text(&recipe),
        "--set",
        "portage.package-use=[]",
        "--",
        "ls",
        "/etc/portage/package.use/zz-quern",
    ]);
    assert_eq!(none.code, 2, "{}{}", none.stdout, none.stderr);
}

/// Builds the recipe, whose USE flags no binary package has, of binary packages only.
fn binary_packages_alone(stand: &Stand, recipe: &Path) {
    let before = listing(&stand.packages());
    let refused = stand.env.run(["build", text(recipe), "--binary-only"]).code(1);
    for expected in [
        "error: merging app-test/tiny: ",
        "app-test/tiny-1:0::gentoo\n  wanted:   USE=\"-bar -foo\" CFLAGS=\"-O2 -pipe\"",
        "  present:  USE=\"bar foo\" CFLAGS=\"-O2 -pipe\" CHOST=",
        "  differs:  USE is bar foo, wanted is -bar -foo\n",
    ] {
        assert!(refused.stderr.contains(expected), "{expected}\n{}", refused.stderr);
    }
    let explained = stand.env.run(["explain", text(recipe), "app-test/tiny"]).success().stdout;
    assert!(explained.contains("  differs:  USE is bar foo, wanted is -bar -foo\n"), "{explained}");
    let wrong = stand.env.run(["explain", text(recipe), "app-test/tiny;ls"]);
    assert_ne!(wrong.code, 0, "{}", wrong.stdout);
    let flags = "portage.package-use=[\"app-test/tiny bar\"]";
    let built = stand.env.run(["build", text(recipe), "--binary-only", "--set", flags]).success();
    assert!(built.stderr.contains("2 packages (2 reused)"), "{}", built.stderr);
    assert_eq!(listing(&stand.packages()), before, "a build without sources changed the cache");
}

/// Lists the files below a directory with sizes, times and modes.
fn listing(directory: &Path) -> String {
    output(Command::new("find").arg(directory).args(["-printf", "%P %s %T@ %m %l\\n"])).success().stdout
}

/// Audits the image of the last build, and packages that a build would merge.
fn advisories(stand: &Stand, recipe: &Path) {
    let audit = |options: &[&str]| stand.env.run([&["audit", text(recipe)], options].concat()).success().stdout;
    let affected = "GLSA 202601-01 (high): tiny: two holes\n  app-test/tiny-1, fixed in >=app-test/tiny-2\n\
                    1 of 2 packages are affected\n";
    assert_eq!(audit(&[]), affected);
    let other = ["--planned", "--set", "emerge.packages=[\"app-misc/mime-types\"]"];
    assert!(audit(&other).ends_with("0 of 2 packages are affected\n"));
    // The packages of the image that another one starts from are in that one, too.
    let child = "from = \"seen.toml\"\n[emerge]\npackages = [\"app-misc/mime-types\"]\n";
    let child = stand.env.write("child.toml", child);
    let planned = stand.env.run(["audit", text(&child), "--planned"]).success();
    assert!(!planned.stderr.contains("left out of account"), "{}", planned.stderr);
    assert!(planned.stdout.ends_with("1 of 3 packages are affected\n"), "{}", planned.stdout);
    let denied = stand.env.run(["build", text(recipe), "--deny", "glsa"]).code(1);
    assert!(denied.stderr.contains("error: security advisories affect packages of seen\n"), "{}", denied.stderr);
    assert!(denied.stderr.contains("GLSA 202601-01") && !denied.stderr.contains("merging"), "{}", denied.stderr);
}
