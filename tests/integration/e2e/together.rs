//! Simultaneous builds with the same store.

use super::{Stand, TINY, text};
use crate::env::{Output, Privilege, output, twins};

const BOTH: &str = "[emerge]\npackages = [\"app-test/odd\", \"app-test/tiny\"]\n";

twins!(builds_share_an_empty_store => root_builds_share_an_empty_store, userns_builds_share_an_empty_store);

fn builds_share_an_empty_store(privilege: Privilege) {
    let Some(stand) = Stand::alone(privilege) else { return };
    let (one, other) = (stand.recipe("one", TINY), stand.recipe("other", BOTH));
    let ran = at_once(&stand, &[&["build", text(&one)], &["build", text(&other)]]);
    for output in &ran {
        assert_eq!(output.results().len(), 1);
        assert!(output.results()[0].is_file());
    }
    // The stage3 is fetched once and unpacked once.
    let requests = stand.server.requests();
    let fetched = requests.iter().filter(|request| request.starts_with("GET") && request.ends_with(".tar.xz")).count();
    assert_eq!(fetched, 1, "{requests:#?}");
    let unpacked = ran.iter().filter(|output| output.stderr.contains("unpacking stage3-")).count();
    assert_eq!(unpacked, 1, "{ran:#?}");
    // The next builds fetch nothing and build no package.
    let before = stand.server.requests().len();
    let ran =
        at_once(&stand, &[&["build", text(&one)], &["build", text(&other)], &["shell", text(&one), "--", "true"]]);
    let after = &stand.server.requests()[before..];
    assert!(after.iter().all(|request| request.contains("latest-stage3-")), "{after:#?}");
    drop(ran);
}

#[test]
fn userns_a_build_waits_for_another_build_of_its_recipe() {
    let Some(stand) = Stand::sharing(Privilege::Userns) else { return };
    let recipe = stand.recipe("twin", TINY);
    let ran = at_once(&stand, &[&["build", text(&recipe)], &["build", text(&recipe)]]);
    let waited = ran.iter().filter(|output| output.stderr.contains("waiting for another build of this recipe")).count();
    assert_eq!(waited, 1, "{ran:#?}");
    assert_eq!(ran[0].results(), ran[1].results());
}

/// Runs the program several times at once. All runs must succeed.
#[track_caller]
fn at_once(stand: &Stand, arguments: &[&[&str]]) -> Vec<Output> {
    std::thread::scope(|scope| {
        let running: Vec<_> = arguments
            .iter()
            .map(|arguments| {
                let mut command = stand.env.program(*arguments);
                scope.spawn(move || output(&mut command))
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("a thread").success()).collect()
    })
}
