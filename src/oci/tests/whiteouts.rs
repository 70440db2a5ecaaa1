//! Whiteouts whose paths lead through symlinks.

use std::path::Path;
use std::process::Command;

use super::{Made, made, umoci};
use crate::archive::unpack::tests::{Tar, is_root};

fn paths(tree: &Path) -> Vec<String> {
    let find =
        Command::new("find").args([".", "-mindepth", "1", "-printf", "%P\n"]).current_dir(tree).output().unwrap();
    let mut found: Vec<String> = String::from_utf8(find.stdout).unwrap().lines().map(str::to_owned).collect();
    found.sort_unstable();
    found
}

fn unpacked(first: &[u8], second: Tar) -> Made {
    let made = made(&[first.to_vec(), second.end()], |_| {});
    assert_eq!(made.codes(), [""; 0]);
    made.unpack().unwrap();
    made
}

#[test]
fn whiteouts_follow_symlinks_of_lower_layers() {
    let first = Tar::default().dir("./").dir("d/").file("d/old", b"1").symlink("l", "d").symlink("loop", "loop").end();
    let cases = [
        (Tar::default().file("l/.wh..wh..opq", b"").file("l/new", b"2"), &["d", "d/new", "l", "loop"][..]),
        (
            Tar::default().dir("l/").file("l/.wh..wh..opq", b"").file("l/new", b"2"),
            &["d", "d/old", "l", "l/new", "loop"],
        ),
        (Tar::default().file("l/.wh.old", b""), &["d", "l", "loop"]),
        (Tar::default().file("loop/.wh.x", b"").file("loop/.wh..wh..opq", b""), &["d", "d/old", "l", "loop"]),
        (Tar::default().file(".wh.l", b"").file("l/.wh..wh..opq", b""), &["d", "d/old", "loop"]),
    ];
    for (number, (second, expected)) in cases.into_iter().enumerate() {
        assert_eq!(paths(&unpacked(&first, second).tree()), expected, "{number}");
    }
}

/// When an entry replaces a symlink, later whiteouts do not remove files from the old target. umoci does the same.
#[test]
fn whiteouts_do_not_follow_a_replaced_symlink() {
    let first = Tar::default().dir("./").file("f", b"1").dir("real/").file("real/x", b"1").dir("real/sub/");
    let first =
        first.file("real/sub/y", b"1").symlink("d", "real").dir("p/").symlink("p/b", "../real").symlink("a", "/p");
    let first = first.end();
    let (x, y) = (&["real/x"][..], &["real/sub/y"][..]);
    let (all, none) = (&["real/x", "real/sub/y"][..], &[][..]);
    let tar = Tar::default;
    let cases = [
        (tar().dir("d/").file("d/.wh.x", b""), all),
        (tar().dir("d/").dir("d/sub/").file("d/sub/.wh..wh..opq", b""), all),
        (tar().dir("d/").dir("d/sub/").file("d/sub/.wh.y", b""), all),
        (tar().file("d", b"2").file("d/.wh.x", b""), all),
        (tar().hardlink("d", "f").file("d/.wh..wh..opq", b""), all),
        (tar().file("p", b"2").file("p/b/.wh.x", b""), all),
        // The same directory by another path.
        (tar().dir("p/b/").file("a/b/.wh.x", b""), all),
        (tar().dir("a/b/").file("p/b/.wh.x", b""), all),
        // The symlink is still followed: it is replaced later, by an equal one, or its target is reached by another path.
        (tar().file("d/.wh.x", b"").dir("d/"), y),
        (tar().file("d/.wh..wh..opq", b"").dir("d/"), none),
        (tar().symlink("d", "real").file("d/.wh.x", b""), y),
        (tar().file("d/new", b"2").file("d/.wh.x", b""), y),
        (tar().dir("a/").dir("a/b/").file("p/b/.wh.x", b""), y),
        (tar().file(".wh.a", b"").dir("a/b/").file("p/b/.wh.x", b""), y),
        (tar().dir("p/").file("p/b/.wh.x", b""), y),
        (tar().dir("d/").file("real/sub/.wh.y", b""), x),
        (tar().dir("a/b/sub/").file("a/b/sub/.wh.y", b""), x),
        (tar().file(".wh.d", b"").dir("d/").file("d/.wh.x", b""), all),
    ];
    let compared = is_root("the comparison with umoci") && Command::new("umoci").arg("--version").output().is_ok();
    for (number, (second, expected)) in cases.into_iter().enumerate() {
        let made = unpacked(&first, second);
        let left = all.iter().filter(|path| made.tree().join(path).exists()).copied().collect::<Vec<_>>();
        assert_eq!(left, expected, "{number}");
        if compared {
            assert_eq!(paths(&made.tree()), paths(&umoci(&made)), "{number}");
        }
    }
}

/// umoci writes whiteouts for the old content of a directory that became a symlink. The target of the symlink keeps its files.
#[test]
fn whiteouts_do_not_follow_symlinks_of_their_own_layer() {
    let first = Tar::default().dir("./").dir("lib/").file("lib/x", b"1").dir("usr/").file("usr/x", b"1").end();
    let second = Tar::default().symlink("lib", "usr").file("lib/.wh.x", b"");
    let made = unpacked(&first, second);
    assert_eq!(paths(&made.tree()), ["lib", "usr", "usr/x"]);

    let first = Tar::default().dir("./").dir("real/").file("real/x", b"1").dir("other/").file("other/x", b"1");
    let second = Tar::default().symlink("d", "other").file("d/.wh.x", b"");
    let made = unpacked(&first.symlink("d", "real").end(), second);
    assert_eq!(paths(&made.tree()), ["d", "other", "other/x", "real", "real/x"]);
}
