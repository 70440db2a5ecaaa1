//! The kits of a Funtoo meta-repo as repositories, and a profile made of parts beside the one that `ego` writes.

use std::path::Path;
use std::process::Command;

use super::{Stand, ask, text};
use crate::env::{Privilege, output};

#[path = "../../../src/source/tests/git_server.rs"]
pub(super) mod git_server;

const PROFILE: &str = "{ arch = \"x86-64bit\", build = \"current\", subarch = \"generic_64\", flavor = \"core\", \
                       mix-ins = [\"no-systemd\"], kits = { python-kit = \"3.7-release\" } }";

/// Compares the settings of a profile with those of the directory that `ego` writes, both without a make.conf.
const COMPARE: &str = r#"
set -e
cut -d' ' -f5,6 /proc/self/mountinfo | grep ^/var/git
settings() { PORTAGE_CONFIGROOT=$1 portageq envvar -v USE CFLAGS ACCEPT_KEYWORDS CHOST PYTHON_TARGETS INSTALL_MASK; }
mkdir -p /tmp/ours/etc/portage /tmp/ego/etc/portage/make.profile /tmp/ego/etc/portage/repos.conf
cp -r /etc/portage/make.profile /etc/portage/repos.conf /tmp/ours/etc/portage
cd /tmp/ego/etc/portage
printf 'core-kit:funtoo/1.0/linux-gnu/%s\n' arch/x86-64bit build/current arch/x86-64bit/subarch/generic_64 flavor/core \
    mix-ins/no-systemd >make.profile/parent
printf 'core-kit:funtoo/kits/python-kit/3.7-release\n' >>make.profile/parent
printf '[DEFAULT]\nmain-repo = core-kit\n\n' >repos.conf/ego-core-kit
for kit in core-kit python-kit; do
    printf '[%s]\nlocation = /var/git/meta-repo/kits/%s\nauto-sync = no\npriority = 1\n' $kit $kit >>repos.conf/ego-$kit
done
settings /tmp/ours
[ "$(settings /tmp/ours)" = "$(settings /tmp/ego)" ]
! touch /var/git/meta-repo/kits/core-kit/x 2>/dev/null
"#;

/// Makes a commit of everything in a directory. Returns its ID.
pub(super) fn commit(directory: &Path) -> String {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@example.org"]).args(arguments).current_dir(directory);
        output(command.env("GIT_CONFIG_GLOBAL", "/dev/null")).success().stdout
    };
    git(&["init", "--quiet", "--initial-branch=1.4-release"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message=m"]);
    git(&["rev-parse", "HEAD"]).trim().to_owned()
}

#[test]
fn userns_kits_are_repositories_and_the_profile_is_the_one_of_ego() {
    let Some(mut stand) = Stand::sharing(Privilege::Userns) else { return };
    let forge = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = forge.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let imitation = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/profiles/repos/core-kit");
    ask("cp", &["-r", text(&imitation), text(forge.path())]);
    write("python-kit/profiles/repo_name", "python-kit\n");
    write("python-kit/metadata/layout.conf", "masters = core-kit\nprofile-formats = portage-2\n");
    let kits = ["core-kit", "python-kit"].map(|kit| commit(&forge.path().join(kit)));
    let info = r#"{"kit_order": ["python-kit", "core-kit"],
        "release_defs": {"core-kit": ["1.4-release"], "python-kit": ["3.7-release"]}}"#;
    write("meta-repo/metadata/kit-info.json", info);
    let commits = format!(
        r#"{{"core-kit": {{"1.4-release": "{}"}}, "python-kit": {{"3.7-release": {{"sha1": "{}", "depth": 1}}}}}}"#,
        kits[0], kits[1]
    );
    write("meta-repo/metadata/kit-sha1.json", &commits);
    let meta = commit(&forge.path().join("meta-repo"));
    let url = git_server::serve(forge.path().to_owned(), std::sync::Arc::default());
    let repositories = |more: &str| {
        format!(
            "[{{ meta-repo = \"{url}/meta-repo\", release = \"1.4\", commit = \"{meta}\", allow-unsigned = true{more} }}]"
        )
    };
    let recipe = format!(
        "[source]\nstage3 = \"amd64-musl\"\n[build]\nkind = \"stage4\"\nprofile = {PROFILE}\n\
         [emerge]\npackages = [\"app-test/tiny\"]\n"
    );
    let recipe = stand.env.write("kits.toml", recipe);
    stand.env.set("QUERN_PORTAGE_REPOSITORIES", repositories(", kits = [\"core-kat\"]"));
    let refused = stand.env.run(["fetch", text(&recipe)]).code(2);
    assert!(refused.stderr.contains("did you mean core-kit?"), "{}", refused.stderr);

    stand.env.set("QUERN_PORTAGE_REPOSITORIES", repositories(""));
    let shown = stand.shell(&recipe, &[], &["bash", "-c", COMPARE]).success().stdout;
    for line in [
        "/var/git/meta-repo/kits/core-kit ro,",
        "/var/git/meta-repo/kits/python-kit ro,",
        "CFLAGS='-mtune=generic -O2 -pipe'",
        "ACCEPT_KEYWORDS='amd64 ~amd64'",
        "PYTHON_TARGETS=python3_7",
        "USE='amd64 arch base python_targets_python3_7'",
        "INSTALL_MASK=/lib/systemd",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }

    let lock = stand.env.run(["lock", text(&recipe)]).success().results().remove(0);
    let locked = std::fs::read_to_string(&lock).unwrap();
    assert!(locked.contains("[[recipe.kits.meta-repo]]"), "{locked}");
    for commit in kits.iter().chain([&meta]) {
        assert!(locked.contains(&format!("commit = \"{commit}\"")), "{commit}: {locked}");
    }
    let _ = stand.env.run(["fetch", "--locked", text(&recipe)]).success();
    write("meta-repo/metadata/kit-info.json", "{");
    let other = commit(&forge.path().join("meta-repo"));
    stand.env.set("QUERN_PORTAGE_REPOSITORIES", repositories("").replace(&meta, &other));
    let refused = stand.env.run(["fetch", "--locked", text(&recipe)]).code(2);
    assert!(refused.stderr.contains("was locked"), "{}", refused.stderr);
    let refused = stand.env.run(["fetch", text(&recipe)]).code(2);
    assert!(refused.stderr.contains("kit-info.json of the meta-repo is not what"), "{}", refused.stderr);
    let verified = stand.env.run(["verify", text(&recipe)]).code(2);
    assert!(verified.stderr.contains("kit-info.json"), "{}", verified.stderr);
}
