use super::*;
use crate::portage::binpkg::fixture::Make;
use crate::portage::binpkg::gpkg::Gpkg;

/// The index that Portage 3.0.83 wrote for one package.
const REAL: &str = "\
ARCH: amd64
CHOST: x86_64-pc-linux-gnu
PACKAGES: 1
TIMESTAMP: 1795824400
VERSION: 0

BUILD_ID: 1
BUILD_TIME: 1795824374
CPV: app-lab/cc-1
DEFINED_PHASES: compile install prepare unpack
EAPI: 8
KEYWORDS: amd64
LICENSE: public-domain
MD5: 85ae3a0a59bd9775578a80ca07a815e8
PATH: app-lab/cc/cc-1-1.gpkg.tar
REPO_REVISIONS: {}
REQUIRES: x86_64: libc.so.6
SHA1: 1156175c1abb9a14efd57881f476c8e65c3b63f8
SIZE: 20480
USE: amd64 elibc_glibc kernel_linux
MTIME: 1795824375
REPO: lab

";

fn metadata(make: Make) -> Metadata {
    Gpkg::open(make.bytes()).unwrap().metadata().unwrap()
}

#[test]
fn the_index_is_that_of_portage() {
    let make = [
        ("BUILD_TIME", "1795824374\n"),
        ("DEFINED_PHASES", "compile install prepare unpack\n"),
        ("EAPI", "8\n"),
        ("KEYWORDS", "amd64"),
        ("LICENSE", "foo? ( GPL-2 ) public-domain"),
        ("REPO_REVISIONS", "{}\n"),
        ("REQUIRES", "x86_64: libc.so.6\n"),
        ("USE", "amd64  elibc_glibc kernel_linux"),
        ("RDEPEND", "foo? ( a/b )"),
        ("repository", "lab\n"),
    ];
    let make = make.iter().fold(Make::new("app-lab", "cc-1"), |make, (key, value)| make.key(key, value));
    let file = FileFacts {
        path: "app-lab/cc/cc-1-1.gpkg.tar".to_owned(),
        size: 20480,
        mtime: 1_795_824_375,
        md5: "85ae3a0a59bd9775578a80ca07a815e8".to_owned(),
        sha1: "1156175c1abb9a14efd57881f476c8e65c3b63f8".to_owned(),
    };
    let mut index = Index::default();
    index.header.insert("ARCH".to_owned(), "amd64".to_owned());
    index.header.insert("CHOST".to_owned(), "x86_64-pc-linux-gnu".to_owned());
    index.packages.push(Stanza::new(&metadata(make), &file).unwrap());
    assert_eq!(index.text(1_795_824_400), REAL);
    let read = Index::read(REAL.as_bytes()).unwrap();
    assert_eq!(read.text(1_795_824_400), REAL);
    let [package] = &read.packages[..] else { panic!("{read:?}") };
    assert_eq!((package.cpv(), package.path()), ("app-lab/cc-1", Some("app-lab/cc/cc-1-1.gpkg.tar")));
    assert_eq!((package.get("CHOST"), package.get("MTIME")), ("x86_64-pc-linux-gnu", "1795824375"));
    assert_eq!(Index::read(&Index::compressed(REAL)).unwrap(), read);
}

#[test]
fn hostile_indexes_are_bounded_and_harmless() {
    assert!(Index::read(&[0x1f, 0x8b, 0, 0]).is_err() && Index::read(&[0xff]).is_err());
    assert!(Index::parse("VERSION: 1\n\n").is_err());
    let read = Index::parse("A: b\nnothing\n\nCPV: a/b-1\nPATH: ../x\nDESC: a\x1b[0m\nUSE:\n\nPATH: a\n\n").unwrap();
    assert_eq!((read.packages.len(), read.packages[0].get("DESC"), read.packages[0].path()), (1, "", None));
    for path in ["", "/a", "a//b", "a/./b", "a/../b"] {
        let mut stanza = Stanza::default();
        stanza.set("PATH", path);
        assert_eq!(stanza.path(), None, "{path}");
    }
}

#[test]
fn the_digests_of_a_file_are_computed() {
    let facts = FileFacts::read("a".to_owned(), 7, &mut &b"abc"[..]).unwrap();
    assert_eq!((facts.size, facts.md5.as_str()), (3, "900150983cd24fb0d6963f7d28e17f72"));
    assert_eq!(facts.sha1, "a9993e364706816aba3e25717850c26c9cd0d89d");
    let control = metadata(Make::new("a", "b-1").key("DEPEND", "a/b \x1b[0m"));
    assert!(Stanza::new(&control, &facts).is_err());
    assert!(Stanza::new(&metadata(Make::new("a", "b-1").key("SLOT", "")), &facts).is_err());
}
