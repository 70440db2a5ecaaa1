use super::*;

#[test]
fn addresses() {
    assert_eq!(url("http://127.0.0.1:8080/gentoo//"), Ok("http://127.0.0.1:8080/gentoo".to_owned()));
    assert_eq!(url("https://[::1]:443/x"), Ok("https://[::1]:443/x".to_owned()));
    let bad = [
        "ftp://x",
        "file:///x",
        "https://",
        "https:///x",
        "https://u:p@x",
        "https://x y",
        "https://x/$(id)",
        "https://x/?a",
        "https://x:99999",
        "https://x\n",
        "x",
    ];
    for text in bad {
        assert!(url(text).is_err(), "{text}");
    }
    assert!(server_path("{release}/{arch}/a-{subarch}.tar.xz").is_ok());
    for text in ["", "/a", "a//b", "a/../b", "{what}/a", "a b", "a?b", "a/"] {
        assert!(server_path(text).is_err(), "{text}");
    }
    assert!(ending("").is_ok() && ending(".gpg").is_ok() && ending("gpg").is_err() && ending("./x").is_err());
}

#[test]
fn profiles() {
    let name = profile("quern:musl-python3").unwrap();
    assert_eq!((name.repo.as_deref(), name.path.as_str()), (Some("quern"), "musl-python3"));
    assert_eq!(profile("default/linux/amd64/23.0/musl").unwrap().repo, None);
    for text in ["", ":", "a:", ":b", "a:../b", "a:b//c", "a:/b", "a:b/.", "a b:c", "a:b c"] {
        assert!(profile(text).is_err(), "{text}");
    }
}

#[test]
fn timestamps_and_ages() {
    assert!(timestamp("20260719T170103Z").is_ok());
    assert!(timestamp("20261319T170103Z").is_err());
    assert!(timestamp("latets").is_err());
    assert_eq!((age("14"), age("36h"), age("2w")), (Ok(14 * 86_400), Ok(36 * 3600), Ok(14 * 86_400)));
    for text in ["0", "", "d", "-1", "1y", "99999999999999999999", "9999999999w", "1é"] {
        assert!(age(text).is_err(), "{text}");
    }
}

#[test]
fn sizes() {
    for (text, size) in [("7", 7), ("7k", 7 << 10), ("20GiB", 20 << 30), ("20 GiB", 20 << 30), ("2 T", 2 << 40)] {
        assert_eq!((bytes(text), max_bytes(text)), (Some(size), Ok(size)), "{text}");
    }
    for text in ["", "G", "iB", "7iB", "7 ", " 7", "7GB", "7B", "7  G", "-7", "1.5G", "99999999999T", "é", "7 éiB"] {
        assert!(max_bytes(text).is_err() && bytes(text).is_none(), "{text}");
    }
    assert!(max_bytes("0").is_err() && max_entries("0").is_err());
    assert!(max_entries("-1").is_err() && max_entries("9k").is_err());
    assert_eq!(max_entries("1000"), Ok(1000));
    assert_eq!(storage("tmpfs:4G"), Ok(Some(4 << 30)));
    assert_eq!(storage("disk"), Ok(None));
    for text in ["tmpfs:", "tmpfs:0", "tmpfs:4X", "tmpfs:99999999999T", "tmpfs:-1G", "file:/x", "tmpfs:é"] {
        assert!(storage(text).is_err(), "{text}");
    }
}

#[test]
fn tags_and_ports() {
    assert!(tag("{date}").is_ok() && tag("v1-$$DATE$$").is_ok());
    for text in ["", "{day}", "-x", "a/b", "a b"] {
        assert!(tag(text).is_err(), "{text}");
    }
    assert!(port("80").is_ok() && port("53/udp").is_ok());
    for text in ["0", "65536", "80/icmp", "+80", "", "80-90"] {
        assert!(port(text).is_err(), "{text}");
    }
}

#[test]
fn paths_to_strip() {
    assert_eq!(strip_path("/usr//share/./doc/"), Ok("/usr/share/doc".to_owned()));
    for text in ["usr", "/usr/../etc", "/", "/*", "/a*/b", "/a\u{1b}", "/.."] {
        assert!(strip_path(text).is_err(), "{text}");
    }
}

#[test]
fn fingerprints_and_digests() {
    assert_eq!(fingerprint(&"ab ".repeat(20)), Ok("AB".repeat(20)));
    assert!(fingerprint("BB572E0E2D182910").is_err());
    assert!(sha512(&"a".repeat(127)).is_err());
}

#[test]
fn options_of_emerge() {
    for text in ["-a", "--ask", "--ask=y", "-va", "--root=/x", "", "-j4", "a\nb"] {
        assert!(option(text).is_err(), "{text}");
    }
    assert!(option("--with-bdeps=y").is_ok() && option("-v").is_ok());
}

#[test]
fn base_names_of_results() {
    for suffix in [".tar.gz", ".tar.xz", ".tar.zst", ".tar"] {
        assert_eq!(image_name(&format!("rootfs{suffix}"), suffix), Ok("rootfs".to_owned()));
        assert_eq!(image_name("root.fs", suffix), Ok("root.fs".to_owned()));
        for other in ["rootfs.tar.bz2", "rootfs.tar.gz.tar", "rootfs.tgz", "a/b", suffix] {
            assert!(image_name(other, suffix).is_err(), "{other}");
        }
    }
    assert!(image_name("rootfs.tar", ".tar.gz").is_err() && image_name("rootfs.tar.gz", ".tar").is_err());
}
