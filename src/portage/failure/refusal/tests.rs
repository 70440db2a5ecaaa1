use std::path::Path;

use super::*;
use crate::portage::emerge::Root;
use crate::portage::failure::{Failure, PackageFiles, find, text};

fn read(text: &str) -> Vec<Refusal> {
    parse(&text::lines(text.as_bytes()))
}

/// Returns the sentences of a text.
fn sentences(text: &str) -> Vec<String> {
    read(text).iter().map(Refusal::sentence).collect()
}

/// Returns the recorded outputs with their entries in [`RECORDED`]. A published crate does not contain them.
fn recorded() -> Vec<(&'static Recorded, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refusals/emerge");
    let Ok(names) = fs_err::read_dir(&directory) else { return Vec::new() };
    assert_eq!(names.count(), RECORDED.len());
    RECORDED.iter().map(|entry| (entry, fs_err::read(directory.join(entry.0)).unwrap())).collect()
}

fn failure(output: &[u8]) -> Failure {
    find(Path::new("/nonexistent"), std::time::SystemTime::now(), output)
}

/// Recorded outputs of emerge, the message after "merging x: ", and a part of the hint.
type Recorded = (&'static str, &'static str, &'static str);
const RECORDED: [Recorded; 25] = [
    (
        "bad-eapi.txt",
        "every version of app-bad/badeapi is masked; app-bad/badeapi-1::bad: the Portage of the builder does not know EAPI 99",
        "use a newer stage3 (source.version), or update the builder first with build.unblocker-profile",
    ),
    ("bad-package-use.txt", "emerge failed", ""),
    (
        "blocker.txt",
        "app-bad/blocker-1 blocks app-arch/gzip: they cannot be installed together",
        "leave one of the two packages out",
    ),
    (
        "changed-repository.txt",
        "no repository has an ebuild for app-misc/ca-certificates",
        "also, a repository changed while emerge read it: the ebuild of dev-libs/openssl-4.0.0 is gone",
    ),
    (
        "circular.txt",
        "these packages need each other to be built: app-bad/circ-a-1, app-bad/circ-b-1",
        "no USE flag breaks the cycle",
    ),
    ("compile.txt", "app-bad/compilefail-1::bad failed in its compile phase", ""),
    ("fetch-real.txt", "sys-libs/zlib-1.3.2-r1 failed; sys-libs/ncurses-6.5_p20251220 failed too", ""),
    (
        "fetch-restrict.txt",
        "app-bad/fetchres-1 failed: emerge must not download the source of app-bad/fetchres-1",
        "put it into the directory of portage.distfiles",
    ),
    (
        "hash.txt",
        "app-arch/lzop-1.04-r1 failed: lzop-1.04.tar.gz does not match its Manifest (BLAKE2B)",
        "emerge renamed the wrong file to lzop-1.04.tar.gz._checksum_failure_.xd0jkfzn",
    ),
    ("kw-autounmask.txt", "emerge needs changes of the configuration", "\"=sys-apps/acl-2.4.0-r2 ~amd64\","),
    (
        "kw-testing.txt",
        "every version of =sys-apps/acl-2.4.0-r2 is masked; sys-apps/acl-2.4.0-r2::gentoo: its keyword is ~amd64",
        "package-accept-keywords = [\n  \"=sys-apps/acl-2.4.0-r2 ~amd64\",\n]",
    ),
    (
        "licence-autounmask.txt",
        "emerge needs changes of the configuration",
        "package-license = [\n  # required by sys-firmware/intel-microcode (argument)\n  \
         \">=sys-firmware/intel-microcode-20260512_p20260513 intel-ucode\",\n]",
    ),
    (
        "missing-distfile.txt",
        "sys-apps/sed-4.10-r1 failed: its source could not be downloaded",
        "missing in portage.distfiles: sed-4.10.tar.xz",
    ),
    (
        "no-eclass.txt",
        "every version of app-bad/syntaxerr is masked; app-bad/syntaxerr-1::bad: its metadata cannot be generated: \
         no-such-eclass.eclass could not be found by inherit()",
        "add the repository that has its eclass to portage.repositories",
    ),
    (
        "no-package.txt",
        "no repository has an ebuild for app-misc/helo",
        "similar names: app-misc/jq, app-misc/c_rehash",
    ),
    ("no-set.txt", "the set @nonexistent does not exist", "check the name in emerge.packages"),
    ("patch.txt", "app-bad/patchfail-1::bad failed in its prepare phase", ""),
    ("postinst.txt", "app-bad/postfail-1::bad failed in its postinst phase", ""),
    (
        "required-use.txt",
        "REQUIRED_USE of app-alternatives/awk-4::gentoo is not met: exactly-one-of ( gawk busybox mawk nawk )",
        "  # or in its place: =app-alternatives/awk-4 -busybox\n  \"=app-alternatives/awk-4 -gawk\",",
    ),
    (
        "slot-conflict.txt",
        "two versions of dev-libs/inih:0 are needed, and the slot takes one: app-bad/slot-y-1 needs >=dev-libs/inih-59; \
         app-bad/slot-x-1 needs =dev-libs/inih-58*",
        "backtrack option in emerge.options",
    ),
    ("src-test.txt", "app-bad/testfail-1::bad failed in its test phase", ""),
    ("system.txt", "no repository has an ebuild for net-mail/mailbase", "portage.repositories"),
    ("two-failed.txt", "sys-libs/zlib-1.3.2-r1 failed; sys-libs/ncurses-6.5_p20251220 failed too", ""),
    (
        "use-dep.txt",
        "sys-apps/util-linux[static-libs] needs other USE flags: sys-apps/util-linux-2.42.2 with USE=\"static-libs\"",
        "  # required by app-bad/usedep-1::bad\n  # required by app-bad/usedep (argument)\n  \"=sys-apps/util-linux-2.42.2 static-libs\",",
    ),
    (
        "usedep-autounmask.txt",
        "no repository has an ebuild for app-text/po4a",
        "\">=sys-apps/util-linux-2.42.2 static-libs\",",
    ),
];

#[test]
fn every_recorded_output_has_its_sentence_and_its_next_step() {
    for ((name, message, hint), output) in recorded() {
        let error = failure(&output).into_error("merging x", &PackageFiles::new());
        assert_eq!(error.to_string(), format!("merging x: {message}"), "{name}");
        let said = error.hint().unwrap_or_default();
        assert!(said.contains(hint), "{name}: {said}");
        let shown = error.details().unwrap();
        assert!(
            !shown.contains("Global Updates") && !shown.contains("Q-20") && !shown.contains("Load avg"),
            "{name}: {shown}"
        );
    }
}

#[test]
fn an_output_may_end_anywhere() {
    let present = PackageFiles::from([("package.use".to_owned(), vec!["app-alternatives/awk gawk".to_owned()])]);
    for ((name, ..), whole) in recorded() {
        for end in 0..whole.len() {
            let mut failure = failure(&whole[..end]);
            if end % 16 == 0 {
                failure.learn(&whole[end..]);
            }
            let error = failure.into_error("x", &present);
            assert!(!error.to_string().contains(char::is_control), "{name} cut at {end}");
        }
    }
}

const MASKED: &str = "\
!!! All ebuilds that could satisfy \"app-exp/x\" for /quern/image/ have been masked.
!!! One of the following masked packages is required to complete your request:
- app-exp/x-4::exp (masked by: EAPI 99)
- app-exp/x-3::exp (masked by: package.mask, missing keyword)
/var/db/repos/exp/profiles/package.mask:
# Eng <e@example.org> (2026-11-01)
# Broken beyond repair. Removal in 30 days.

- app-exp/x-2::exp (masked by: || ( EULA-A EULA-B ) license(s), interactive properties, fetch in RESTRICT, ~amd64 keyword)
A copy of the 'EULA-A' license is located at '/var/db/repos/exp/licenses/EULA-A'.

(dependency required by \"app-exp/y-1::exp\" [ebuild])
(dependency required by \"app-exp/y\" [argument])
";

#[test]
fn the_easiest_version_is_proposed_with_all_its_lines() {
    let refusals = read(MASKED);
    assert_eq!(refusals.len(), 1);
    let fixes = refusals[0].fixes(|_| Vec::new());
    let lines: Vec<String> = fixes.iter().map(|fix| format!("{}: {}", fix.file, fix.line)).collect();
    let expected = [
        "package.license: =app-exp/x-2 EULA-A EULA-B",
        "package.properties: =app-exp/x-2 interactive",
        "package.accept_restrict: =app-exp/x-2 fetch",
        "package.accept_keywords: =app-exp/x-2 ~amd64",
    ];
    assert_eq!(lines, expected);
    assert_eq!(fixes[0].comments, ["required by app-exp/y-1::exp", "required by app-exp/y (argument)"]);
    let sentence = refusals[0].sentence();
    assert!(
        sentence.contains(
            "its licence EULA-A and EULA-B is not accepted, and its PROPERTIES are not accepted: interactive"
        ),
        "{sentence}"
    );

    let only_masked = MASKED.replace("- app-exp/x-2::exp", "x");
    let refusal = &read(&only_masked)[0];
    let fixes = refusal.fixes(|_| Vec::new());
    assert_eq!([&fixes[0].line, &fixes[1].line], ["=app-exp/x-3", "=app-exp/x-3 **"]);
    assert!(fixes[0].comments.contains(&"Broken beyond repair. Removal in 30 days.".to_owned()), "{fixes:?}");
    assert!(refusal.sentence().contains("package.mask has it (Broken beyond repair. Removal in 30 days.)"));
}

#[test]
fn masks_without_a_line_have_a_sentence() {
    let cases = [
        ("CHOST: aarch64-unknown-linux-gnu", "it is a binary package for aarch64-unknown-linux-gnu"),
        ("use flag configuration mismatch", "its USE flags differ"),
        ("changed deps", "the dependencies of its ebuild have changed"),
        (
            "invalid: DEPEND: Invalid atom (a, b), token 1",
            "its metadata is invalid: DEPEND: Invalid atom (a, b), token 1",
        ),
        ("-amd64 keyword", "it has no keyword for this architecture"),
        ("backtracking: slot conflict", "emerge says: backtracking: slot conflict"),
    ];
    for (said, expected) in cases {
        for wording in ["ebuilds", "binary packages"] {
            let text = format!(
                "!!! All {wording} that could satisfy \"a/b\" have been masked.\n- a/b-1::x (masked by: {said})\n"
            );
            let sentence = &sentences(&text)[0];
            assert!(sentence.contains(expected), "{sentence}");
        }
    }
}

#[test]
fn other_messages_are_read() {
    let cases = [
        ("emerge: there are no binary packages to satisfy \"a/b\" for /x/.\n", "no binary package satisfies a/b"),
        (
            "emerge: there are no ebuilds to satisfy \"a/b[x]\".\n",
            "no ebuild satisfies a/b[x]: there is none, or the profile fixes",
        ),
        (
            "emerge: there are no ebuilds built with USE flags to satisfy \"a/b[no]\".\n!!! One of the following\n- a/b-1::x (Missing IUSE: no)\n",
            "a/b[no] needs a USE flag that a/b-1::x does not have: no",
        ),
        (
            "!!! The short ebuild name \"b\" is ambiguous. Please specify\n!!! one of the following:\n\n    a/b\n    c/b\n",
            "the name b is ambiguous: a/b or c/b",
        ),
        (
            "[ Results for search key : b ]\n*  a/b\n*  c/b\n!!! The short ebuild name \"b\" is ambiguous. Please specify\n",
            "the name b is ambiguous: a/b or c/b",
        ),
        ("!!! 'a b' is not a valid package atom.\n", "a b is not a valid atom"),
        (
            "--- Invalid atom in /etc/portage/package.use/x: >a\n",
            "Portage ignored a line of /etc/portage/package.use/x: >a",
        ),
        ("!!! Your current profile is invalid. If you have just changed\n", "Portage cannot use the profile"),
        ("emerge: error: unrecognized arguments: --fast\n", "emerge does not know the option --fast"),
        (
            "!!! Fetched file: a.tar VERIFY FAILED!\n!!! Reason: Insufficient data for checksum verification\n",
            "the Manifest has no digest for a.tar",
        ),
        (
            "!!! Digest verification failed:\n!!! /var/db/repos/x/a/b/b-1.ebuild\n!!! Reason: Filesize does not match recorded size\n",
            "b-1.ebuild does not match its Manifest (Filesize does not match recorded size)",
        ),
        (
            "!!! A file is not listed in the Manifest: '/var/db/repos/x/a/b/files/p'\n",
            "the Manifest has no digest for p",
        ),
        (
            " * Binary package is not usable (verification failed):\n *  Summary:\n * \tbinpkg signed with at least one unknown key.\n",
            "a binary package could not be verified: binpkg signed with at least one unknown key.",
        ),
        (
            "groupadd: cannot lock /quern/image//etc/group; try again later.\n",
            "a user or group cannot be added: the tree has no /quern/image//etc/group yet",
        ),
        (
            " * Detected file collision(s):\n * \n * \t/quern/image/usr/share/same\n * \n * Searching all installed packages for file collisions...\n * \n * a/x-1:0::exp\n * \t/quern/image/usr/share/same\n * \n * Package 'a/y-1' NOT merged due to file collisions. If necessary, refer\n",
            "a/y-1 has files that belong to a/x-1:0::exp: /quern/image/usr/share/same",
        ),
        (
            " * Error: circular dependencies:\n\n(a/x-1:0/0::e, ebuild scheduled for merge) depends on\n (a/y-1:0/0::e, ebuild) (buildtime)\n\nby applying the following change:\n- a/x-1 (Change USE: -cyc)\n",
            "these packages need each other to be built: a/x-1, a/y-1",
        ),
    ];
    for (text, expected) in cases {
        let found = sentences(text);
        assert!(found.len() == 1 && found[0].contains(expected), "{text}: {found:?}");
        assert!(!read(text)[0].next().is_empty());
    }
}

#[test]
fn a_change_of_a_parent_is_an_alternative() {
    let text = "emerge: there are no ebuilds built with USE flags to satisfy \"a/b[x?]\".\n!!! One of the following packages is required\n\
                - a/b-1::e (Change USE: +x)\n- a/c-2::e (Change USE: -x, this change violates use flag constraints defined by a/c-2: 'x')\n";
    let fixes = read(text)[0].fixes(|_| Vec::new());
    assert_eq!((fixes[0].line.as_str(), fixes[0].others.as_slice()), ("=a/b-1 x", &["=a/c-2 -x".to_owned()][..]));
}

#[test]
fn a_message_ends_where_the_next_one_begins() {
    let second = MASKED.replace("app-exp/x", "app-exp/z").replace("app-exp/y", "app-exp/w");
    let refusals = read(&format!("{MASKED}{second}"));
    assert_eq!(refusals.len(), 2);
    assert_eq!(refusals[0].chain, ["app-exp/y-1::exp", "app-exp/y (argument)"]);
    assert_eq!(refusals[1].chain, ["app-exp/w-1::exp", "app-exp/w (argument)"]);
}

#[test]
fn a_refusal_for_the_builder_says_so() {
    let masked = MASKED.replace(" for /quern/image/", "");
    let cases = [
        (MASKED, false),
        (masked.as_str(), true),
        ("emerge: there are no ebuilds to satisfy \"a/b\" for /quern/image/.\n", false),
        ("emerge: there are no ebuilds to satisfy \"a/b\".\n", true),
        (
            "!!! Multiple package instances within a single package slot have been pulled\n\
          !!! into the dependency graph, resulting in a slot conflict:\n\na/b:0 for /quern/image/\n",
            false,
        ),
        ("!!! into the dependency graph, resulting in a slot conflict:\n\na/b:0\n", true),
        (
            " * Error: circular dependencies:\n\n(a/x-1:0/0::e, ebuild scheduled for merge to '/quern/image/') depends on\n",
            false,
        ),
        (" * Error: circular dependencies:\n\n(a/x-1:0/0::e, ebuild scheduled for merge) depends on\n", true),
    ];
    for (output, builder) in cases {
        let said =
            |root| failure(output.as_bytes()).on(root).into_error("resolving x", &PackageFiles::new()).to_string();
        let head = "resolving x: for the builder, ";
        assert_eq!(said(Root::Target).starts_with(head), builder, "{output}: {}", said(Root::Target));
        // A stage4 is built in the root `/`.
        assert!(!said(Root::Builder).starts_with(head), "{output}");
    }
    let hint = |output: &str, root| {
        failure(output.as_bytes()).on(root).into_error("x", &PackageFiles::new()).hint().unwrap().to_owned()
    };
    let note = "# for the builder; the line applies to the image too";
    assert!(hint(&masked, Root::Target).contains(note) && !hint(&masked, Root::Builder).contains(note));
    assert!(!hint(MASKED, Root::Target).contains(note));
}
