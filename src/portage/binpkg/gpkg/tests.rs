use super::*;
use crate::portage::binpkg::fixture::{Make, tar};

fn open(bytes: Vec<u8>) -> Result<Gpkg<Vec<u8>>> {
    Gpkg::open(bytes)
}

fn fault(bytes: Vec<u8>) -> String {
    let all = || {
        let gpkg = open(bytes)?;
        gpkg.verify()?;
        gpkg.metadata()?.cpv()?;
        gpkg.image()
    };
    all().unwrap_err().to_string()
}

#[test]
fn a_package_is_read() {
    let gpkg = open(Make::new("app-misc", "demo-1.0-r1").key("CFLAGS", "-O2\n  -pipe\n").bytes()).unwrap();
    gpkg.verify().unwrap();
    assert_eq!(gpkg.prefix(), "demo-1.0-r1-1");
    let metadata = gpkg.metadata().unwrap();
    assert_eq!(metadata.cpv().unwrap(), "app-misc/demo-1.0-r1");
    assert_eq!(metadata.value("CFLAGS"), "-O2 -pipe");
    assert_eq!((metadata.value("LDFLAGS").as_str(), metadata.bytes("LDFLAGS")), ("", None));
}

#[test]
fn the_digest_of_an_image_depends_on_everything_but_times_and_order() {
    let digest = |make: Make| open(make.bytes()).unwrap().image().unwrap();
    let file = |mode, mtime, text| tar(&[("image/a", mode, mtime, text), ("image/b", 0o644, 1, "b")]);
    let own = digest(Make::new("a", "b-1").image(file(0o755, 1, "x")));
    assert_eq!(digest(Make::new("a", "b-1").image(file(0o755, 2, "x"))), own);
    let turned = tar(&[("image/b", 0o644, 3, "b"), ("image/a", 0o755, 4, "x")]);
    assert_eq!(digest(Make::new("c", "d-1").image(turned).compressed()), own);
    assert_ne!(digest(Make::new("a", "b-1").image(file(0o4755, 1, "x"))), own);
    assert_ne!(digest(Make::new("a", "b-1").image(file(0o755, 1, "y"))), own);
}

#[test]
fn a_package_that_disagrees_with_its_manifest_is_refused() {
    let make = || Make::new("app-misc", "demo-1");
    let text = |from: &str, to: &str| {
        let bytes = make().bytes();
        let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
    };
    assert_eq!(fault(text("app-misc", "app-mist")), "metadata.tar does not match the Manifest");
    assert_eq!(fault(text("content of a file", "content of a fill")), "image.tar does not match the Manifest");
    assert_eq!(fault(text("DATA gpkg-1", "DATA gpkg-2")), "gpkg-1 does not match the Manifest");
    assert_eq!(fault(text("DATA gpkg-1", "DASA gpkg-1")), "its Manifest has a line that cannot be read");
    assert!(fault(make().member("more", b"x", false).bytes()).starts_with("more does not match"));
    assert!(fault(make().member("image.tar", b"x", false).bytes()).starts_with("two members are called"));
    assert!(fault(make().member("../up", b"x", true).bytes()).contains("its name contains `..`"));
    assert_eq!(
        fault(make().member("sub/up", b"x", true).bytes()),
        "the member demo-1-1/sub/up is not in the directory demo-1-1"
    );
}

#[test]
fn other_shapes_are_refused() {
    assert!(fault(Vec::new()).starts_with("it is not a"));
    assert!(fault(vec![b'x'; 4096]).starts_with("it is not a"));
    assert!(fault(vec![0; 1 << 20]).starts_with("it is not a"));
    for more in [vec![0; 100_000], b"x".to_vec()] {
        let long = [Make::new("a", "b-1").bytes(), more].concat();
        assert_eq!(fault(long), "other data follow the package");
    }
    assert_eq!(
        fault(Make::new("a", "b-1").metadata(tar(&[("metadata/a/b", 0o644, 0, "x")])).bytes()),
        "its metadata contain metadata/a/b"
    );
    assert_eq!(
        fault(Make::new("a", "b-1").metadata(tar(&[("other", 0o644, 0, "x")])).bytes()),
        "its metadata contain other"
    );
    assert_eq!(fault(Make::new("a/../b", "b-1").bytes()), "the metadata has no valid CATEGORY");
    assert_eq!(fault(Make::new("a", "..").bytes()), "the metadata has no valid PF");
    let lz4 = Make::new("a", "b-1").suffix(".lz4").bytes();
    assert!(fault(lz4).starts_with("metadata.tar.lz4 has a compression that is not supported"));
}

#[test]
fn every_truncation_is_refused() {
    let bytes = Make::new("app-misc", "demo-1").bytes();
    let whole = bytes.len() - 1024;
    for end in (0..whole).step_by(97) {
        fault(bytes[..end].to_vec());
    }
}
