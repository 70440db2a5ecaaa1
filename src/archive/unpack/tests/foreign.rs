//! Archives of other programs.

use std::path::Path;
use std::process::Command;

use super::unpack;
use crate::archive::unpack::limits::Limits;
use crate::archive::unpack::reader::entries;

/// Returns the output of a program. If the program is missing, prints that the test is skipped and returns `None`.
#[allow(clippy::print_stderr)]
#[allow(clippy::disallowed_methods, reason = "other programs write and read the archives")]
pub(super) fn output(program: &str, arguments: &[&str], dir: &Path) -> Option<Vec<u8>> {
    match Command::new(program).args(arguments).current_dir(dir).env("LC_ALL", "C.UTF-8").output() {
        Ok(output) => {
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
            Some(output.stdout)
        }
        Err(error) => {
            assert!(std::env::var_os("QUERN_TEST_STRICT").is_none(), "{program}: {error}");
            eprintln!("skipped, {program} cannot be run: {error}");
            None
        }
    }
}

/// Runs a program. Returns its success, or `None` if the program is missing.
#[allow(clippy::disallowed_methods, reason = "GNU tar is the reference")]
pub(super) fn status(program: &str, arguments: &[&str], dir: &Path) -> Option<bool> {
    Command::new(program).args(arguments).current_dir(dir).output().ok().map(|output| output.status.success())
}

fn source() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let long = "l".repeat(180);
    fs_err::create_dir_all(place.path().join(&long).join(&long)).unwrap();
    fs_err::write(place.path().join(&long).join(&long).join("file"), "deep").unwrap();
    fs_err::os::unix::fs::symlink("t".repeat(300), place.path().join("link")).unwrap();
    fs_err::write(place.path().join("ünï"), "text").unwrap();
    fs_err::hard_link(place.path().join("ünï"), place.path().join("second")).unwrap();
    let file = fs_err::File::create(place.path().join("sparse")).unwrap();
    use std::os::unix::fs::FileExt;
    // Twenty segments: more than an old GNU header holds.
    for segment in 0..20u64 {
        file.file().write_all_at(b"data", segment << 20).unwrap();
    }
    file.set_len(30 << 20).unwrap();
    let _ = rustix::fs::setxattr(place.path().join("ünï"), "user.test", b"a\nb", rustix::fs::XattrFlags::empty());
    place
}

fn same_tree(one: &Path, other: &Path) {
    let listing = |dir: &Path| {
        output("find", &[".", "-mindepth", "1", "-printf", "%p %y %m %U %G %s %T@ %n %l\\n"], dir)
            .map(|text| {
                let mut lines: Vec<String> = String::from_utf8(text).unwrap().lines().map(str::to_owned).collect();
                lines.sort();
                lines
            })
            .unwrap()
    };
    assert_eq!(listing(one), listing(other));
    output("diff", &["-r", "--no-dereference", one.to_str().unwrap(), other.to_str().unwrap()], one);
}

#[test]
fn archives_of_gnu_tar_are_unpacked_exactly() {
    let source = source();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix"],
        &["--format=posix", "--xattrs", "--sparse"],
        &["--format=gnu", "--sparse"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
    ] {
        let arguments = [&["-cf", "-"], format, &["."]].concat();
        let Some(archive) = output("tar", &arguments, source.path()) else { return };
        let tree = tempfile::tempdir().unwrap();
        unpack(&archive, tree.path()).unwrap_or_else(|error| {
            panic!("{format:?}: {error}: {:?}", std::error::Error::source(&error).map(ToString::to_string))
        });
        if format[0] == "--format=gnu" {
            // Whole seconds only.
            let diff = ["-r", "--no-dereference", ".", tree.path().to_str().unwrap()];
            output("diff", &diff, source.path());
        } else {
            same_tree(source.path(), tree.path());
        }
        if format.contains(&"--sparse") {
            use std::os::unix::fs::MetadataExt;
            assert!(fs_err::metadata(tree.path().join("sparse")).unwrap().blocks() < 1000, "{format:?}");
        }
    }
}

#[test]
fn archives_of_bsdtar_are_unpacked_exactly() {
    let source = source();
    for format in ["pax", "gnutar"] {
        let Some(archive) = output("bsdtar", &["--format", format, "-cf", "-", "."], source.path()) else { return };
        let tree = tempfile::tempdir().unwrap();
        unpack(&archive, tree.path()).unwrap();
        output("diff", &["-r", "--no-dereference", ".", tree.path().to_str().unwrap()], source.path());
        if format == "pax" {
            same_tree(source.path(), tree.path());
        }
    }
}

#[test]
fn archives_of_python_are_unpacked_exactly() {
    let source = source();
    for format in ["PAX", "GNU"] {
        let script = format!(
            "import sys, tarfile\nwith tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.{format}_FORMAT) as t: t.add('.')"
        );
        let Some(archive) = output("python3", &["-c", &script], source.path()) else { return };
        let tree = tempfile::tempdir().unwrap();
        unpack(&archive, tree.path()).unwrap();
        output("diff", &["-r", "--no-dereference", ".", tree.path().to_str().unwrap()], source.path());
        if format == "PAX" {
            let meta = entries(&archive, Limits::default()).unwrap();
            assert!(meta.iter().any(|entry| entry.meta.mtime.nsec != 0));
        }
    }
}
