//! Pulls.

use std::io::Write as _;

use super::server::{Exchange, Registry, digest};
use super::*;

type Lie = fn(&mut Exchange<'_>) -> std::io::Result<bool>;

fn layer() -> Vec<u8> {
    bytes(300_000)
}

/// Returns true for a request for the layer.
fn is_layer(exchange: &Exchange<'_>) -> bool {
    exchange.method == "GET" && exchange.path.ends_with(&digest(&layer()))
}

fn is_manifest(exchange: &Exchange<'_>) -> bool {
    exchange.path.contains("/manifests/")
}

fn lying(lie: Lie) -> Registry {
    let registry = Registry::start(lie);
    registry.add_image(&layer());
    registry
}

#[test]
fn a_pulled_layout_is_complete() {
    let registry = Registry::honest();
    let name = registry.add_image(&layer());
    let (place, found) = pulled(&registry).unwrap();
    assert_eq!(found, name);
    let dir = place.path().join("layout");
    assert!(
        is_valid(&dir, &[&layer()])
            && fs_err::read(dir.join("blobs").join(digest(&layer()).replace(':', "/"))).unwrap() == layer()
    );
    let (by_digest, found) = pulled_as(&registry, &format!("@{name}")).unwrap();
    assert_eq!(found, name);
    let index = fs_err::read_to_string(by_digest.path().join("layout/index.json")).unwrap();
    assert!(!index.contains("ref.name") && fs_err::read_to_string(dir.join("index.json")).unwrap().contains("\"1\""));
    // A layout that was pulled can be pushed, and nothing is sent.
    let to = Reference::parse(&format!("{}/r:2", registry.host)).unwrap();
    let pushed = push(&dir, &to, &PushOptions::default(), &Connection::default(), &Silent).unwrap();
    assert_eq!(pushed.blobs, [0, 0, 2]);
    // A directory with content is not replaced.
    let from = Reference::parse(&format!("{}/r:1", registry.host)).unwrap();
    let again = pull(&from, &dir, None, &Connection::default(), &Silent);
    assert_bad("again", again, Kind::Usage, "is not an empty directory");
    assert_bad("missing", pulled_as(&registry, ":none"), Kind::Network, "MANIFEST_UNKNOWN");
}

/// Misbehaviour that a pull survives.
const SURVIVED: &[(&str, Lie)] = &[
    ("breaks off at 50 %", |exchange| {
        if !is_layer(exchange) || exchange.earlier > 0 {
            return Ok(false);
        }
        let half = &layer()[..150_000];
        exchange.answer("200 OK", &[("Content-Length", "300000")], half)?;
        Ok(true)
    }),
    ("resets at 50 % and has no ranges", |exchange| {
        if !is_layer(exchange) {
            return Ok(false);
        }
        if exchange.earlier == 0 {
            exchange.answer("200 OK", &[("Content-Length", "300000")], &layer()[..150_000])?;
            return exchange.reset();
        }
        exchange.answer("200 OK", &[], &layer())?;
        Ok(true)
    }),
    ("goes on with other bytes, once", |exchange| {
        if !is_layer(exchange) {
            return Ok(false);
        }
        match exchange.earlier {
            0 => exchange.answer("200 OK", &[("Content-Length", "300000")], &layer()[..150_000])?,
            1 => {
                let from = exchange.first_byte().unwrap();
                let range = format!("bytes {from}-299999/300000");
                exchange.answer("206 Partial Content", &[("Content-Range", &range)], &vec![0; 300_000 - from])?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }),
    ("is busy for a moment everywhere", |exchange| match exchange.earlier {
        0 => exchange.answer("503 Service Unavailable", &[("Retry-After", "0")], b"").map(|()| true),
        _ => Ok(false),
    }),
    ("redirects a blob", |exchange| {
        if !is_layer(exchange) || exchange.path.starts_with("/elsewhere") {
            return Ok(false);
        }
        let there = format!("/elsewhere/blobs/{}", digest(&layer()));
        exchange.answer("307 Temporary Redirect", &[("Location", &there)], b"").map(|()| true)
    }),
    ("says nothing once", |exchange| {
        let is = is_layer(exchange) && exchange.earlier == 0;
        if is {
            std::thread::sleep(std::time::Duration::from_secs(3));
        }
        Ok(is)
    }),
    ("gives no length", |exchange| {
        if !is_layer(exchange) {
            return Ok(false);
        }
        exchange.stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        exchange.stream.write_all(&layer()).map(|()| true)
    }),
];

#[test]
fn a_pull_survives() {
    for (name, lie) in SURVIVED {
        let registry = lying(*lie);
        let (place, _) = pulled(&registry).unwrap_or_else(|error| panic!("{name}: {}", told(&error)));
        assert!(is_valid(&place.path().join("layout"), &[&layer()]), "{name}");
    }
}

/// Misbehaviour that ends a pull with an error.
const FATAL: &[(&str, Lie, Kind, &str)] = &[
    (
        "sends another layer",
        |exchange| {
            let is = is_layer(exchange);
            if is {
                exchange.answer("200 OK", &[], &vec![0; 300_000])?;
            }
            Ok(is)
        },
        Kind::Refused,
        "other bytes",
    ),
    (
        "sends a shorter layer",
        |exchange| {
            let is = is_layer(exchange);
            if is {
                exchange.answer("200 OK", &[], &layer()[1..])?;
            }
            Ok(is)
        },
        Kind::Refused,
        "299999 bytes",
    ),
    (
        "sends a layer without end",
        |exchange| {
            let is = is_layer(exchange);
            if is {
                exchange.stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                while exchange.stream.write_all(&[0; 65536]).is_ok() {}
            }
            Ok(is)
        },
        Kind::Refused,
        "has more bytes",
    ),
    (
        "sends a web page for a layer",
        |exchange| {
            let is = is_layer(exchange);
            if is {
                exchange.answer("200 OK", &[("Content-Type", "text/html; charset=utf-8")], b"<html>")?;
            }
            Ok(is)
        },
        Kind::Network,
        "web page",
    ),
    (
        "sends a web page for a manifest",
        |exchange| {
            let is = is_manifest(exchange);
            if is {
                exchange.answer("200 OK", &[("Content-Type", "text/html")], b"<html>")?;
            }
            Ok(is)
        },
        Kind::Network,
        "does not answer with the manifest of an image",
    ),
    (
        "sends a web page as a manifest",
        |exchange| {
            let is = is_manifest(exchange);
            if is {
                exchange.answer("200 OK", &[("Content-Type", MANIFEST)], b"<html>")?;
            }
            Ok(is)
        },
        Kind::Refused,
        "bad-json",
    ),
    (
        "sends a manifest without end",
        |exchange| {
            let is = is_manifest(exchange);
            if is {
                exchange.stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Type: {MANIFEST}\r\n\r\n").as_bytes())?;
                while exchange.stream.write_all(&[b' '; 65536]).is_ok() {}
            }
            Ok(is)
        },
        Kind::Network,
        "larger than 4096 KiB",
    ),
    (
        "announces a large manifest",
        |exchange| {
            let is = is_manifest(exchange);
            if is {
                exchange.answer("200 OK", &[("Content-Type", MANIFEST), ("Content-Length", "99999999999")], b"{")?;
            }
            Ok(is)
        },
        Kind::Network,
        "larger than 4096 KiB",
    ),
    (
        "sends Docker's manifest",
        |exchange| {
            let is = is_manifest(exchange);
            let docker = "application/vnd.docker.distribution.manifest.v2+json";
            if is {
                exchange.answer("200 OK", &[("Content-Type", docker)], b"{}")?;
            }
            Ok(is)
        },
        Kind::Refused,
        "no counterpart in OCI",
    ),
    (
        "names another digest",
        |exchange| {
            let is = is_manifest(exchange);
            if is {
                let name = format!("sha256:{}", "0".repeat(64));
                let (_, bytes) = exchange.state.lock().unwrap().documents["1"].clone();
                exchange.answer("200 OK", &[("Content-Type", MANIFEST), ("Docker-Content-Digest", &name)], &bytes)?;
            }
            Ok(is)
        },
        Kind::Refused,
        "another digest",
    ),
    (
        "wants a path outside the layout",
        |exchange| {
            let is = is_manifest(exchange);
            if is {
                let blob = json!({ "mediaType": CONFIG, "digest": "sha256:../../../../tmp/evil", "size": 2 });
                let manifest = json!({ "schemaVersion": 2, "config": blob, "layers": [] });
                exchange.answer("200 OK", &[("Content-Type", MANIFEST)], manifest.to_string().as_bytes())?;
            }
            Ok(is)
        },
        Kind::Refused,
        "bad-digest",
    ),
    (
        "has a layer larger than any disk",
        |exchange| {
            let is = is_manifest(exchange);
            if is {
                let (_, bytes) = exchange.state.lock().unwrap().documents["1"].clone();
                let text = String::from_utf8(bytes).unwrap().replace("300000", "9000000000000000000");
                exchange.answer("200 OK", &[("Content-Type", MANIFEST)], text.as_bytes())?;
            }
            Ok(is)
        },
        Kind::System,
        "bytes are needed",
    ),
    (
        "redirects in a circle",
        |exchange| {
            let is = is_layer(exchange);
            if is {
                let here = exchange.path.clone();
                exchange.answer("302 Found", &[("Location", &here)], b"")?;
            }
            Ok(is)
        },
        Kind::Network,
        "more than 5 times",
    ),
    (
        "redirects to a file",
        |exchange| exchange.answer("302 Found", &[("Location", "file:///etc/passwd")], b"").map(|()| true),
        Kind::Network,
        "neither http nor https",
    ),
    (
        "redirects with credentials",
        |exchange| exchange.answer("302 Found", &[("Location", "http://user:word@127.0.0.1/")], b"").map(|()| true),
        Kind::Network,
        "has a user name or a password",
    ),
    (
        "is busy for ever",
        |exchange| exchange.answer("429 Too Many Requests", &[("Retry-After", "0")], b"").map(|()| true),
        Kind::Network,
        "429",
    ),
    (
        "breaks off at the same byte every time",
        |exchange| {
            if !is_layer(exchange) {
                return Ok(false);
            }
            let from = exchange.first_byte().unwrap_or_default();
            let (size, to) = (300_000 - from, 1000.max(from));
            let range = format!("bytes {from}-299999/300000");
            let headers = [("Content-Range", range.as_str()), ("Content-Length", &size.to_string())];
            let (status, headers) =
                if from == 0 { ("200 OK", &headers[1..]) } else { ("206 Partial Content", &headers[..]) };
            exchange.answer(status, headers, &layer()[from..to])?;
            Ok(true)
        },
        Kind::Network,
        "broke off",
    ),
    (
        "stalls",
        |exchange| {
            let is = is_layer(exchange);
            if is {
                exchange.answer("200 OK", &[("Content-Length", "300000")], b"x")?;
                std::thread::sleep(std::time::Duration::from_secs(3));
            }
            Ok(is)
        },
        Kind::Network,
        "stalled",
    ),
    (
        "compresses",
        |exchange| {
            let is = is_layer(exchange);
            if is {
                exchange.answer("200 OK", &[("Content-Encoding", "gzip")], b"x")?;
            }
            Ok(is)
        },
        Kind::Network,
        "compresses",
    ),
];

#[test]
fn a_pull_ends_with_an_error() {
    std::thread::scope(|scope| {
        for (name, lie, kind, why) in FATAL {
            scope.spawn(move || assert_bad(name, pulled(&lying(*lie)), *kind, why));
        }
    });
}

#[test]
fn an_index_is_pulled_with_all_its_images() {
    use crate::oci::layout::INDEX;
    let registry = Registry::honest();
    let names = [registry.add_image(b"one"), registry.add_image(b"two")];
    let put = |sizes: [usize; 2], kind: &str| {
        let images: Vec<_> = names.iter().zip(sizes).map(|(name, size)| {
            json!({ "mediaType": MANIFEST, "digest": name, "size": size, "platform": { "os": "linux", "architecture": kind } })
        }).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": images }).to_string().into_bytes();
        registry.state.lock().unwrap().documents.insert("1".to_owned(), (INDEX.to_owned(), index.clone()));
        digest(&index)
    };
    let size = |name: &String| registry.state.lock().unwrap().documents[name].1.len();
    let sizes = [size(&names[0]), size(&names[1])];
    let name = put(sizes, "amd64");
    let (place, found) = pulled(&registry).unwrap();
    assert!(found == name && is_valid(&place.path().join("layout"), &[b"one", b"two"]));
    for name in names.iter().chain([&name, &digest(b"one"), &digest(b"two")]) {
        assert!(place.path().join("layout/blobs").join(name.replace(':', "/")).exists(), "{name}");
    }
    // The same index goes back as a whole.
    let other = Registry::honest();
    let to = Reference::parse(&format!("{}/r:x", other.host)).unwrap();
    let pushed =
        push(&place.path().join("layout"), &to, &PushOptions::default(), &Connection::default(), &Silent).unwrap();
    assert!(pushed.reference.ends_with(&name) && other.state.lock().unwrap().documents.contains_key(&names[1]));
    put([sizes[0], sizes[1] + 1], "amd64");
    assert_bad("size", pulled(&registry), Kind::Refused, "another size or media type");
}

/// Puts images of these architectures into the registry, with a list in Docker's form under the tag `1`.
fn docker_list(registry: &Registry, architectures: &[(&str, &[u8])]) -> Vec<String> {
    use crate::registry::docker;
    let mut images = Vec::new();
    for (architecture, layer) in architectures {
        let name = registry.add_image(layer);
        let mut state = registry.state.lock().unwrap();
        let (_, bytes) = state.documents[&name].clone();
        let text = String::from_utf8(bytes).unwrap();
        let text =
            text.replace(MANIFEST, docker::IMAGE).replace(CONFIG, "application/vnd.docker.container.image.v1+json");
        let text =
            text.replace("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar");
        let platform = json!({ "os": "linux", "architecture": architecture });
        let digest = digest(text.as_bytes());
        images.push(json!({ "mediaType": docker::IMAGE, "digest": digest, "size": text.len(), "platform": platform }));
        state.documents.insert(digest, (docker::IMAGE.to_owned(), text.into_bytes()));
    }
    let list = json!({ "schemaVersion": 2, "mediaType": docker::LIST, "manifests": images }).to_string();
    registry.state.lock().unwrap().documents.insert("1".to_owned(), (docker::LIST.to_owned(), list.into_bytes()));
    images.iter().map(|image| image["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn images_in_dockers_form_become_those_of_oci() {
    let registry = Registry::honest();
    let names = docker_list(&registry, &[("amd64", b"one"), ("arm64", b"two")]);
    let (place, found) = pulled(&registry).unwrap();
    let dir = place.path().join("layout");
    assert!(is_valid(&dir, &[b"one", b"two"]) && !registry.state.lock().unwrap().documents.contains_key(&found));
    assert_eq!(
        fs_err::read_dir(dir.join("blobs/sha256")).unwrap().count(),
        7,
        "an index, and two manifests, configurations and layers"
    );
    let (one, _) = pulled_as(&registry, &format!("@{}", names[0])).unwrap();
    assert!(is_valid(&one.path().join("layout"), &[b"one"]));
    // The manifest is compared with the digest in the list before it is changed.
    let other = registry.state.lock().unwrap().documents[&names[1]].clone();
    registry.state.lock().unwrap().documents.insert(names[0].clone(), other);
    assert_bad("other", pulled(&registry), Kind::Refused, "another manifest");
}

#[test]
fn one_platform_of_an_index_can_be_chosen() {
    let registry = Registry::honest();
    docker_list(&registry, &[("amd64", b"one"), ("arm64", b"two")]);
    let (place, _) = pulled_for(&registry, ":1", Some("linux/arm64")).unwrap();
    let layers = place.path().join("layout/blobs").join(digest(b"two").replace(':', "/"));
    assert!(is_valid(&place.path().join("layout"), &[b"two"]) && layers.exists());
    assert_eq!(registry.count("GET", &digest(b"one")), 0);
    let missing = pulled_for(&registry, ":1", Some("linux/s390x"));
    assert_bad(
        "missing",
        missing,
        Kind::Usage,
        "no image for linux/s390x: ; it has images for linux/amd64, linux/arm64",
    );
    docker_list(&registry, &[("amd64", b"one"), ("amd64", b"two")]);
    assert_bad("two", pulled_for(&registry, ":1", Some("linux/amd64")), Kind::Usage, "several images");
    registry.add_image(b"three");
    assert_bad("one", pulled_for(&registry, ":1", Some("linux/amd64")), Kind::Usage, "is one image");
}
