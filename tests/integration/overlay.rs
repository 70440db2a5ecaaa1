//! Overlays of many layers, through each of the kernel's interfaces, as root and as an ordinary user.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use quern_builder::testing::overlay::{Interface, Mounted, Overlay, mount, mount_through};

use crate::env::{Privilege, TestEnv, output, twins};

/// Names the directory to work in to a child of the test program.
pub(crate) const PLACE: &str = "QUERN_TEST_OVERLAYS";

twins!(overlays_of_many_layers_are_mounted => root_overlays_of_many_layers_are_mounted, userns_overlays_of_many_layers_are_mounted);

fn overlays_of_many_layers_are_mounted(privilege: Privilege) {
    in_namespaces(privilege, "overlay::in_a_child");
}

/// Runs a test in a child of the test program that may mount, and that finds its directory in [`PLACE`]. The test creates the file
/// `done` there at its end.
pub(crate) fn in_namespaces(privilege: Privilege, test: &str) {
    let Some(env) = TestEnv::with(privilege) else { return };
    let program = std::env::current_exe().unwrap();
    let mut command: Command = env.command("unshare");
    if privilege == Privilege::Userns {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--propagation", "private"]).arg(program).args(["--exact", test, "--nocapture"]);
    let ran = output(command.env(PLACE, env.path("home")));
    assert!(ran.code == 0 && env.path("home/done").exists(), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn in_a_child() {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cwd = std::env::current_dir().unwrap();
    for count in [1, 15, 16, 40, 150, 500] {
        works(&place, count, |overlay, at| mount(overlay, fs::File::open(at).unwrap().as_fd(), at).unwrap());
    }
    for (interface, counts) in
        [(Interface::Appended, [1, 40, 150]), (Interface::Joined, [1, 16, 60]), (Interface::Classic, [1, 40, 150])]
    {
        for count in counts {
            works(&place, count, |overlay, at| {
                let mounted = mount_through(interface, overlay, fs::File::open(at).unwrap().as_fd(), at).unwrap();
                mounted.unwrap_or_else(|| panic!("{interface:?} takes no {count} layers"))
            });
        }
    }
    refuses(&place);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    assert_eq!(std::env::current_dir().unwrap(), cwd);
    fs::write(place.join("done"), "").unwrap();
}

/// Makes `count` layers, mounts them and looks at the result.
fn works(place: &Path, count: usize, mount: impl FnOnce(Overlay<'_>, &Path) -> Mounted) {
    let (lowers, upper, work, at) = layers(place, count);
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let mounted = mount(Overlay { lowers: &lowers, upper: Some((&upper, &work)) }, &at);
    assert_eq!(fs::read_to_string(at.join("all")).unwrap(), "0", "the first layer is the uppermost");
    for layer in 0..count {
        assert!(at.join(layer.to_string()).exists(), "layer {layer} of {count}");
    }
    fs::write(at.join("new"), "x").unwrap();
    fs::remove_file(at.join("0")).unwrap();
    assert!(upper.join("new").exists() && !at.join("0").exists() && lowers[0].join("0").exists());
    if count.is_multiple_of(2) {
        mounted.unmount().unwrap();
    } else {
        drop(mounted);
    }
    assert_eq!(mounts(), before);
    assert!(!at.join("new").exists());
    fs::remove_dir_all(place.join("layers")).unwrap();
}

/// Overlays that cannot be mounted are refused with a reason.
fn refuses(place: &Path) {
    let (lowers, upper, work, at) = layers(place, 501);
    let directory = fs::File::open(&at).unwrap();
    let error = mount(Overlay { lowers: &lowers, upper: Some((&upper, &work)) }, directory.as_fd(), &at).unwrap_err();
    assert!(error.to_string().contains("501 lower layers"), "{error}");
    let joined = Overlay { lowers: &lowers[..150], upper: Some((&upper, &work)) };
    assert!(mount_through(Interface::Joined, joined, directory.as_fd(), &at).unwrap().is_none());
    // An upper directory on another file system than the work directory.
    let proc = Path::new("/proc/self");
    for interface in Interface::ALL {
        let wrong = Overlay { lowers: &lowers[..2], upper: Some((proc, &work)) };
        let error = mount_through(interface, wrong, directory.as_fd(), &at).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("QUERN_HOME")), "{error}");
    }
}

/// Makes layers that each have a file of their own and a file that all have, and directories for changes and for the mount.
fn layers(place: &Path, count: usize) -> (Vec<PathBuf>, PathBuf, PathBuf, PathBuf) {
    let root = place.join("layers");
    let directory = |name: &str| {
        fs::create_dir_all(root.join(name)).unwrap();
        root.join(name)
    };
    // A separator of options and one of layers: no path may be taken apart.
    let lower = |index: usize| {
        let path = directory(&format!("lower,a:{index}"));
        fs::write(path.join(index.to_string()), "").unwrap();
        fs::write(path.join("all"), index.to_string()).unwrap();
        path
    };
    ((0..count).map(lower).collect(), directory("upper"), directory("work"), directory("at"))
}
