//! Packages that misbehave: one that leaves a process running, and one that fails and is looked at afterwards.

use super::{Stand, text};
use crate::env::{Privilege, twins, wait_for};

/// Leaves a process running that holds the terminal of its phase, so that emerge waits for it.
const DAEMON: &str = "pkg_postinst() {\n\t( exec setsid sleep 98765 ) &\n}\n";

/// Leaves a process running that is busy until a file exists.
const BUSY: &str =
    "pkg_postinst() {\n\t( exec setsid bash -c 'until [[ -e /var/db/repos/own/go-on ]]; do :; done' ) &\n}\n";

#[test]
fn userns_a_busy_process_that_emerge_waits_for_is_named() {
    let Some(stand) = Stand::sharing(Privilege::Userns).map(Stand::with_own_packages) else { return };
    let stand = stand.with_overlay();
    stand.ebuild("app-own", "busy", BUSY);
    let recipe = stand.recipe("busy", "baselayout-atoms = []\n[emerge]\npackages = [\"app-own/busy\"]\n");
    let (mut child, log) = stand.env.start(["build", "--again=all", text(&recipe)]);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let named = || {
        said().contains("app-own/busy-1 left the process ‘bash -c until") && said().contains("; emerge waits for it\n")
    };
    wait_for("the name of the process", || named() || child.try_wait().unwrap().is_some());
    stand.env.write("overlay/go-on", "");
    assert!(child.wait().unwrap().success() && named(), "{}", said());
}

/// Fails after it has written a file to its sources.
const BROKEN: &str = "S=\"${WORKDIR}/sources\"\nsrc_unpack() {\n\tmkdir sources || die\n}\n\
                      src_compile() {\n\techo done >half || die\n\tdie 'out of luck'\n}\n";

twins!(a_package_that_leaves_a_process_or_fails => root_a_package_that_leaves_a_process_or_fails, userns_a_package_that_leaves_a_process_or_fails);

fn a_package_that_leaves_a_process_or_fails(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege).map(Stand::with_own_packages) else { return };
    let stand = stand.with_overlay();
    stand.ebuild("app-own", "daemon", DAEMON);
    stand.ebuild("app-own", "broken", BROKEN);
    let recipe = stand.recipe("failed", "[emerge]\npackages = [\"app-own/daemon\", \"app-own/broken\"]\njobs = 1\n");
    let early = stand.shell(&recipe, &["--failed"], &["true"]).code(2);
    assert!(early.stderr.contains("failed has no failed build"), "{}", early.stderr);

    let failed = stand.build(&recipe).code(1);
    let warning = "app-own/daemon-1 left the process ‘sleep 98765’ running in its postinst phase";
    assert!(failed.stderr.contains(warning), "{}", failed.stderr);
    assert!(failed.stderr.contains("app-own/broken-1"), "{}", failed.stderr);

    let inside = |command: &str| stand.shell(&recipe, &["--failed"], &["bash", "-c", command]).success();
    let looked = inside("pwd; cat half; rm half; grep -m1 -o 'out of luck' ../../temp/build.log");
    assert_eq!(
        looked.stdout, "/var/tmp/portage/app-own/broken-1/work/sources\ndone\nout of luck\n",
        "{}",
        looked.stderr
    );
    let environment = "/var/tmp/portage/app-own/broken-1/temp/environment";
    assert!(looked.stderr.contains(&format!("app-own/broken-1 failed; its environment: source {environment}")));
    // Changes are discarded, and the functions of the ebuild can be called.
    let again = inside(&format!("cat half; source {environment} 2>/dev/null; declare -F src_compile; echo $CATEGORY"));
    assert_eq!(again.stdout, "done\nsrc_compile\n\n");

    let good = ["build", "--again=all", text(&recipe), "--set", "emerge.packages=app-own/daemon"];
    let _ = stand.env.run(good).success();
    let late = stand.shell(&recipe, &["--failed"], &["true"]).code(2);
    assert!(late.stderr.contains("the last build of failed did not fail"), "{}", late.stderr);
}
