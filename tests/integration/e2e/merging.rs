//! Steps of emerge: what they see besides the mounts of the build, the daemons beside them, and the packages that scripts see.

use std::time::Duration;

use super::daemons::sleeping;
use super::{Stand, ask, text};
use crate::env::{Privilege, Server, twins, wait_for};

/// A step of emerge that uses everything.
const USES: &str = r#"kind = "stage4"
[emerge]
packages = []
[bind.text]
at = "/mnt/none/text"
text = "of the bind\n"
[bind.sysroot]
sysroot = "used/sysroot"
[cache.kept-NAME]
at = "/var/kept"
[volume.shared]
at = "/srv/shared"
[fetch.patch]
url = "URL/patch"
sha256 = "SHA256"
[[step]]
name = "merge"
emerge = ["app-own/NAME"]
binds = ["text"]
caches = ["kept-NAME", "distfiles", "binpkgs"]
tmpfs = ["/big:1M"]
fetch = ["patch"]
volumes = ["shared"]
env = { OWN_WORD = "hello" }
creates = ["/found", "/srv/shared/file"]
timeout = "10m"
[[step]]
name = "read"
volumes = ["shared"]
run = 'cat /srv/shared/file /found > /read'
[[step]]
name = "gone"
unmerge = ["app-own/NAME"]
"#;

/// The ebuild of that step.
const LOOKS: &str = r#"pkg_setup() {
	OWN_SEEN=${OWN_WORD}
}
pkg_postinst() {
	cat /mnt/none/text /opt/own/x.conf /quern/fetch/patch > "${EROOT}/found" || die
	echo "${OWN_SEEN}" >> "${EROOT}/found" || die
	for place in /mnt/none/text /opt/own/x.conf /quern/fetch/patch; do
		if ( echo x >> "${place}" ) 2> /dev/null; then die "wrote ${place}"; fi
	done
	if head -c 2000000 /dev/zero 2> /dev/null > /big/file; then die "no limit"; fi
	echo line >> /var/kept/lines || die
	echo volume > /srv/shared/file || die
}
"#;

twins!(a_step_of_emerge_sees_what_it_names => root_a_step_of_emerge_sees_what_it_names,
       userns_a_step_of_emerge_sees_what_it_names);

fn a_step_of_emerge_sees_what_it_names(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege).map(Stand::with_overlay) else { return };
    let name = format!("sees-{privilege:?}").to_lowercase();
    stand.ebuild("app-own", &name, LOOKS);
    stand.env.write("www/patch", "a patch\n");
    stand.env.write("used/sysroot/opt/own/x.conf", "of the sysroot\n");
    let www = stand.env.path("www");
    let server = Server::start(&www);
    let sha256 = ask("sha256sum", &[text(&www.join("patch"))])[..64].to_owned();
    let written = USES.replace("NAME", &name).replace("URL", &server.url()).replace("SHA256", &sha256);
    let recipe = stand.recipe(&name, &written);
    let tarball = stand.build_changed(&recipe).success().results().remove(0);
    let content = |path: &str| ask("tar", &["--extract", "--to-stdout", "--file", text(&tarball), path]);
    assert_eq!(content("./read"), "volume\nof the bind\nof the sysroot\na patch\nhello\n");
    let listing = ask("tar", &["--list", "--file", text(&tarball)]);
    for path in ["./mnt/none", "./opt/own", "./big", "./var/kept", "./srv/shared", "./quern"] {
        assert!(!listing.lines().any(|line| line.starts_with(path)), "{path}");
    }
    assert!(!listing.contains(&format!("./var/db/pkg/app-own/{name}-1")), "it was unmerged");
    let look = "cat /mnt/none/text /srv/shared/file; wc -l < /var/kept/lines";
    let shell = stand.shell(&recipe, &["--at", "merge"], &["sh", "-c", look]).success();
    assert_eq!(shell.stdout, "of the bind\nvolume\n1\n", "{}", shell.stderr);

    // What it uses is in its key, and what it uses not is not.
    let built = stand.build_changed(&recipe).success().stderr;
    assert!(!built.contains("merging app-own"), "{built}");
    stand.recipe(&name, &written.replace("of the bind", "of another bind"));
    let built = stand.build_changed(&recipe).success().stderr;
    assert!(built.contains("bind /mnt/none/text changed"), "{built}");
    stand.recipe(&name, &written.replace("hello", "again"));
    let built = stand.build_changed(&recipe).success().stderr;
    assert!(built.contains("variable OWN_WORD changed"), "{built}");
    let shell = stand.shell(&recipe, &["--at", "merge"], &["sh", "-c", look]).success();
    assert_eq!(shell.stdout, "of the bind\nvolume\n3\n", "{}", shell.stderr);

    // A limit on the time, and a path that must be made.
    stand.recipe(&name, &written.replace("creates = [", "creates = [\"/nothing\", "));
    let failed = stand.build_changed(&recipe).code(1).stderr;
    assert!(failed.contains("the step merge did not make /nothing"), "{failed}");
    let timeout = written.replace("10m", "1s").replace("hello", "in a second");
    stand.recipe(&name, &timeout);
    let failed = stand.build_changed(&recipe).code(1).stderr;
    assert!(failed.contains("the step merge timed out after 1 s"), "{failed}");
}

/// A step of emerge that holds a cache until another process writes to it, and that writes to a directory of this machine.
const HOLDS: &str = r#"kind = "stage4"
[emerge]
packages = []
[cache.NAME]
at = "/var/kept"
sharing = "locked"
[[step]]
name = "hold"
emerge = ["app-own/NAME"]
caches = ["NAME"]
binds = [{ from = "written", at = "/out", write = true }]
network = false
"#;

twins!(a_step_of_emerge_holds_its_caches_and_may_write => root_a_step_of_emerge_holds_its_caches_and_may_write,
       userns_a_step_of_emerge_holds_its_caches_and_may_write);

fn a_step_of_emerge_holds_its_caches_and_may_write(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege).map(Stand::with_overlay) else { return };
    let name = format!("holds-{privilege:?}").to_lowercase();
    let body = "pkg_postinst() {\n\techo line >> /out/lines || die\n\t[[ $(grep -c : /proc/net/dev) == 1 ]] || die network\n\t\
                touch /var/kept/in || die\n\tuntil [[ -e /var/kept/go ]]; do sleep 0.2; done\n}\n";
    stand.ebuild("app-own", &name, body);
    let out = stand.env.path("written");
    fs_err::create_dir(&out).unwrap();
    fs_err::set_permissions(&out, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let written = HOLDS.replace("NAME", &name);
    let holds = stand.recipe(&name, &written);
    let script = written.replace(&format!("emerge = [\"app-own/{name}\"]"), "run = 'test -e /var/kept/go'");
    let waits = stand.recipe(&format!("{name}-waits"), &script);
    let (mut holding, _) = stand.env.start(["build", text(&holds), "--until", "hold"]);
    let kept = stand.store().join("cache/mounts").join(&name).join("0");
    wait_for("the step of emerge", || kept.join("in").exists());
    let (mut waiting, _) = stand.env.start(["build", text(&waits), "--until", "hold"]);
    std::thread::sleep(Duration::from_secs(8));
    assert!(waiting.try_wait().unwrap().is_none(), "it waits for the cache");
    fs_err::write(kept.join("go"), "").unwrap();
    assert!(holding.wait().unwrap().success() && waiting.wait().unwrap().success());
    // It always runs.
    let again = stand.env.run(["build", text(&holds), "--until", "hold"]).success();
    assert!(again.stderr.contains("merging app-own"), "{}", again.stderr);
    assert_eq!(fs_err::read_to_string(out.join("lines")).unwrap(), "line\nline\n");
}

/// Commands of emerge, the program's own and one of the recipe, with a daemon.
const DAEMONS: &str = r#"baselayout-atoms = []
[emerge]
packages = ["app-own/NAME"]
daemons = ["d"]
[daemon.d]
run = ["/bin/sh", "-c", "echo NAME up; echo > /tmp/up; exec sleep SECONDS"]
ready = "path:/tmp/up"
[[step]]
name = "more"
emerge = ["app-own/NAME-more"]
daemons = ["d"]
"#;

twins!(emerge_has_daemons => root_emerge_has_daemons, userns_emerge_has_daemons);

fn emerge_has_daemons(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege).map(Stand::with_overlay) else { return };
    let seconds = if privilege == Privilege::Root { "1020" } else { "1021" };
    let name = format!("serves-{privilege:?}").to_lowercase();
    for package in [name.clone(), format!("{name}-more")] {
        stand.ebuild("app-own", &package, "pkg_setup() {\n\t[[ -e /tmp/up ]] || die 'no daemon'\n}\n");
    }
    let written = DAEMONS.replace("NAME", &name).replace("SECONDS", seconds);
    let recipe = stand.recipe(&name, &written);
    let built = stand.build_changed(&recipe).success().stderr;
    assert!(!built.contains("left") && sleeping(seconds) == 0, "{built}");
    for step in ["@packages", "more"] {
        let log = stand.env.run(["log", text(&recipe), step, "--daemon", "d"]).success().stdout;
        assert_eq!(log, format!("{name} up\n"), "{step}");
    }
    stand.recipe(&name, &written.replace("exec sleep", "exec  sleep"));
    let plan = stand.env.run(["build", text(&recipe), "--dry-run"]).success().stdout;
    assert!(plan.contains("daemon 1 changed"), "{plan}");
    stand.recipe(&name, &written.replace("exec sleep", "exit 3; sleep"));
    let failed = stand.build_changed(&recipe).code(1).stderr;
    assert!(failed.contains("the step @packages failed: its daemon d exited with code 3"), "{failed}");
    stand.recipe(&name, &written.replace("daemons = [\"d\"]\n[daemon.d]", "[daemon.d]"));
    let failed = stand.build(&recipe).code(1).stderr;
    assert!(failed.contains("no daemon"), "{failed}");
}

/// A script that lists the packages of the build.
const LISTS: &str = r#"kind = "stage4"
[emerge]
packages = ["app-own/NAME"]
[[step]]
name = "list"
caches = ["binpkgs"]
run = '''
cd /var/cache/binpkgs
find . -name 'NAME*.gpkg.tar' | sed 's/-[0-9.-]*gpkg.tar$//' | sort -u > /list
if touch /var/cache/binpkgs/new 2> /dev/null; then exit 1; fi
'''
"#;

twins!(a_script_sees_the_packages_of_the_build => root_a_script_sees_the_packages_of_the_build,
       userns_a_script_sees_the_packages_of_the_build);

fn a_script_sees_the_packages_of_the_build(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege).map(Stand::with_overlay) else { return };
    let name = format!("lists-{privilege:?}").to_lowercase();
    for package in [name.clone(), format!("{name}-late")] {
        stand.ebuild("app-own", &package, "src_install() {\n\tinsinto /usr/share\n\tnewins - ${PN} <<<\"${PN}\"\n}\n");
    }
    let written = LISTS.replace("NAME", &name);
    let recipe = stand.recipe(&name, &written);
    let list = |output: crate::env::Output| {
        let tarball = output.success().results().remove(0);
        ask("tar", &["--extract", "--to-stdout", "--file", text(&tarball), "./list"])
    };
    let one = format!("./app-own/{name}/{name}\n");
    assert_eq!(list(stand.build_changed(&recipe)), one);
    let shell = stand.shell(&recipe, &["--at", "list"], &["ls", "/var/cache/binpkgs/app-own"]).success();
    assert!(shell.stdout.contains(&name), "{}", shell.stdout);

    // Also in a build that merges nothing.
    stand.recipe(&name, &written.replace("cd /var", "# again\ncd /var"));
    let again = stand.build_changed(&recipe);
    assert!(!again.stderr.contains("merging app-own") && again.stderr.contains("script changed"), "{}", again.stderr);
    assert_eq!(list(again), one);

    // A build that keeps no packages has those of earlier builds and its own.
    stand.recipe(&name, &written.replace("\"]\n[[step]]", &format!("\", \"app-own/{name}-late\"]\n[[step]]")));
    let late = stand.env.run(["build", text(&recipe), "--set", "portage.binpkg-write=false"]);
    assert_eq!(list(late), format!("./app-own/{name}-late/{name}-late\n{one}"));
    let kept = ask("find", &[text(&stand.store()), "-name", &format!("{name}-late*.gpkg.tar")]);
    assert_eq!(kept, "", "it is in the work directory alone, which is gone");
}
