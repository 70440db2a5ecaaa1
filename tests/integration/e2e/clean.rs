//! `clean` removes what it lists, and nothing that is in use.

use super::traces::names;
use super::{Stand, text};
use crate::env::{Privilege, twins, wait_for};

twins!(clean_leaves_a_running_build_alone => root_clean_leaves_a_running_build_alone, userns_clean_leaves_a_running_build_alone);

fn clean_leaves_a_running_build_alone(privilege: Privilege) {
    let Some(stand) = Stand::alone(privilege) else { return };
    let store = stand.env.store();
    let idle = stand.recipe("idle", "[emerge]\npackages = [\"app-test/tiny\"]\n");
    stand.built(&idle);
    // The build waits until a file appears in the overlay.
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    let wait = "src_compile() {\n\twhile [[ ! -e /var/db/repos/own/go-on ]]; do sleep 0.1; done\n}\n";
    stand.ebuild("app-own", "waiting", wait);
    let busy = stand.recipe("busy", "[emerge]\npackages = [\"app-own/waiting\"]\n");
    let repositories = format!("portage.repositories={:?}", [stand.world.repository(), overlay]);
    let (mut child, log) = stand.env.start(["build", "--again=all", text(&busy), "--set", &repositories]);
    wait_for("the build to emerge", || {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("\nmerging app-own/waiting"))
    });

    let pretended = stand.env.run(["clean", "--all", "--dry-run"]).success();
    let before = names(&store.join("builds"));
    let cleaned = stand.env.run(["clean", "--all"]).success();
    let listed = |output: &str| -> Vec<String> {
        output.lines().filter_map(|line| line.split_once("iB  ").map(|(_, name)| name.to_owned())).collect()
    };
    let said = listed(&cleaned.stdout);
    assert_eq!(listed(&pretended.stdout), said, "{pretended:?} {cleaned:?}");
    let of = |name: &str| said.iter().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {said:#?}"));
    for used in ["builds/busy-", "trees/", "cache/packages"] {
        assert!(of(used).ends_with("(in use, not removed)"), "{used}: {said:#?}");
    }
    assert!(!of("builds/idle-").contains("in use"), "{said:#?}");
    let (used, unused): (Vec<&String>, Vec<&String>) =
        said.iter().filter(|line| line.contains("layers/")).partition(|line| line.ends_with("(in use, not removed)"));
    assert!(!used.is_empty() && !unused.is_empty(), "{said:#?}");
    let listed = stand.env.run(["store", "list", "--layers"]).success().stdout;
    assert!(listed.contains("  busy @") && listed.contains(" (in use)") && !listed.contains("  idle @"), "{listed}");
    assert!(before.iter().any(|name| name.starts_with("idle-") && !name.ends_with(".lock")));
    let work = |names: &[String]| -> Vec<String> {
        names.iter().filter(|name| !name.ends_with(".lock")).map(|name| name[..4].to_owned()).collect()
    };
    assert_eq!(work(&names(&store.join("builds"))), ["busy"]);

    stand.env.write("overlay/go-on", "");
    let status = child.wait().unwrap();
    assert!(status.success(), "{}", std::fs::read_to_string(log).unwrap());

    // Nothing is in use now. Results are not part of the store.
    let _ = stand.env.run(["clean", "--all"]).success();
    for part in ["builds", "layers", "trees", "blobs", "cache"] {
        let left: Vec<_> = names(&store.join(part)).into_iter().filter(|name| !name.ends_with(".lock")).collect();
        assert!(left.is_empty(), "{part}: {left:?}");
    }
    assert_eq!(names(&stand.env.outdir()).len(), 10);
    // The next build makes everything again.
    stand.built(&idle);
}
