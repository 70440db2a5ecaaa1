//! Pushes.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::{Exchange, Registry, digest};
use super::*;
use crate::registry::upload::PIECE;

type Lie = fn(&mut Exchange<'_>) -> std::io::Result<bool>;

/// Three and a half pieces.
fn large() -> Vec<u8> {
    bytes(PIECE as usize * 7 / 2)
}

#[test]
fn a_push_sends_each_blob_once() {
    let registry = Registry::honest();
    let layout = Layout::with(&large());
    let first = layout.push(&registry, &PushOptions::default()).unwrap();
    assert_eq!(first.blobs, [2, 0, 0]);
    assert_eq!(registry.count("PATCH", "/uploads/"), 4, "the layer in pieces, the configuration in one request");
    let state = registry.state.lock().unwrap();
    assert_eq!(state.blobs[&digest(&large())], large());
    let (_, manifest) = &state.documents["1"];
    assert_eq!(first.reference, format!("{}/r@{}", registry.host, digest(manifest)));
    let received = state.received;
    drop(state);
    let options = PushOptions { tags: vec!["2".to_owned(), "3".to_owned()], ..PushOptions::default() };
    let second = layout.push(&registry, &options).unwrap();
    assert_eq!((second.blobs, second.sent, second.reference), ([0, 0, 2], 0, first.reference));
    let state = registry.state.lock().unwrap();
    assert_eq!(state.received, received);
    assert!(["1", "2", "3"].iter().all(|tag| state.documents[*tag] == state.documents["1"]));
}

#[test]
fn layers_of_another_repository_are_mounted() {
    let registry = Registry::honest();
    let layout = Layout::with(b"layer");
    registry.state.lock().unwrap().blobs.insert(digest(b"layer"), b"layer".to_vec());
    // The registry says that this repository does not have the blob, and that the other one has it.
    let lying = Registry::start(|exchange| match (exchange.method.as_str(), exchange.earlier) {
        ("HEAD", 0) => exchange.answer("404 Not Found", &[], b"").map(|()| true),
        _ => Ok(false),
    });
    lying.state.lock().unwrap().blobs.insert(digest(b"layer"), b"layer".to_vec());
    let options = PushOptions { sources: vec!["other".to_owned(), "base".to_owned()], ..PushOptions::default() };
    let pushed = layout.push(&lying, &options).unwrap();
    assert_eq!(pushed.blobs, [1, 1, 0], "the configuration is not there");
    let bad = PushOptions { sources: vec!["../x".to_owned()], ..PushOptions::default() };
    assert_bad("source", layout.push(&registry, &bad), Kind::Usage, "is not the name of a repository");
}

/// Misbehaviour that a push survives.
const SURVIVED: &[(&str, Lie)] = &[
    ("breaks a piece at 50 % and keeps it", |exchange| {
        if exchange.method != "PATCH" || exchange.earlier != 1 {
            return Ok(false);
        }
        let half = exchange.body(exchange.length() / 2)?;
        let id = exchange.session().unwrap_or_default();
        exchange.state.lock().unwrap().uploads.get_mut(&id).unwrap().extend(half);
        exchange.reset()
    }),
    ("breaks a piece at 50 % and loses it", |exchange| {
        if exchange.method != "PATCH" || exchange.earlier != 1 {
            return Ok(false);
        }
        exchange.body(exchange.length() / 2)?;
        exchange.reset()
    }),
    ("loses the whole session once", |exchange| {
        if exchange.method != "PATCH" || exchange.of_method != 2 {
            return Ok(false);
        }
        let id = exchange.session().unwrap_or_default();
        exchange.state.lock().unwrap().uploads.remove(&id);
        Ok(false)
    }),
    ("keeps half of a piece without a word", |exchange| {
        if exchange.method != "PATCH" || exchange.earlier != 1 {
            return Ok(false);
        }
        let all = exchange.body(exchange.length())?;
        let id = exchange.session().unwrap_or_default();
        let mut state = exchange.state.lock().unwrap();
        let upload = state.uploads.get_mut(&id).unwrap();
        upload.extend(&all[..all.len() / 2]);
        let range = format!("0-{}", upload.len() - 1);
        drop(state);
        exchange.answer("202 Accepted", &[("Range", &range)], b"").map(|()| true)
    }),
    ("is busy for a moment everywhere", |exchange| match exchange.of_method {
        0 => {
            let length = exchange.length();
            exchange.body(length)?;
            exchange.answer("429 Too Many Requests", &[("Retry-After", "0")], b"").map(|()| true)
        }
        _ => Ok(false),
    }),
    ("has the blob, but breaks off before it says so", |exchange| {
        if exchange.method != "PUT" || !exchange.path.contains("/uploads/") {
            return Ok(false);
        }
        let rest = exchange.body(exchange.length())?;
        let id = exchange.session().unwrap_or_default();
        let mut state = exchange.state.lock().unwrap();
        let mut upload = state.uploads.remove(&id).unwrap();
        upload.extend(rest);
        state.blobs.insert(digest(&upload), upload);
        drop(state);
        exchange.reset()
    }),
    ("takes only small pieces", |exchange| {
        if exchange.method != "PATCH" || exchange.length() <= PIECE as usize / 4 {
            return Ok(false);
        }
        let length = exchange.length();
        exchange.body(length)?;
        exchange.answer("413 Payload Too Large", &[], b"").map(|()| true)
    }),
    ("says nothing once", |exchange| {
        let is = exchange.method == "PATCH" && exchange.earlier == 1;
        if is {
            std::thread::sleep(std::time::Duration::from_secs(3));
        }
        Ok(is)
    }),
    ("gives no range", |exchange| {
        if exchange.method != "PATCH" {
            return Ok(false);
        }
        let all = exchange.body(exchange.length())?;
        let id = exchange.session().unwrap_or_default();
        exchange.state.lock().unwrap().uploads.get_mut(&id).unwrap().extend(all);
        exchange.answer("202 Accepted", &[], b"").map(|()| true)
    }),
];

#[test]
fn a_push_survives() {
    for (name, lie) in SURVIVED {
        let registry = Registry::start(lie);
        let pushed = Layout::with(&large()).push(&registry, &PushOptions::default());
        let pushed = pushed.unwrap_or_else(|error| panic!("{name}: {}", told(&error)));
        assert_eq!(pushed.blobs, [2, 0, 0], "{name}");
        let state = registry.state.lock().unwrap();
        assert!(state.blobs[&digest(&large())] == large() && state.documents.contains_key("1"), "{name}");
    }
}

/// Misbehaviour that ends a push with an error.
const FATAL: &[(&str, Lie, &str)] = &[
    ("is busy for ever", |e| e.answer("429 Too Many Requests", &[], b"").map(|()| true), "429"),
    ("is busy for a week", |e| e.answer("503 Down", &[("Retry-After", "604800")], b"").map(|()| true), "503"),
    ("always breaks off", |exchange| exchange.reset(), ""),
    (
        "claims bytes that were not sent",
        |exchange| {
            let is = exchange.method == "PATCH";
            if is {
                exchange.answer("202 Accepted", &[("Range", "0-999999999")], b"")?;
            }
            Ok(is)
        },
        "more bytes than were sent",
    ),
    (
        "never keeps anything",
        |exchange| {
            let is = matches!(exchange.method.as_str(), "PATCH" | "GET");
            if is {
                let length = exchange.length();
                exchange.body(length)?;
                exchange.answer("202 Accepted", &[("Range", "0-0")], b"")?;
            }
            Ok(is)
        },
        "does not keep",
    ),
    (
        "always loses the session",
        |exchange| {
            let is = exchange.method == "PATCH" && exchange.headers["content-range"].split('-').next() != Some("0")
                || exchange.method == "GET";
            if is {
                let length = exchange.length();
                exchange.body(length)?;
                exchange.answer("404 Not Found", &[], b"")?;
            }
            Ok(is)
        },
        "gives the upload up again and again",
    ),
    (
        "has no location",
        |exchange| {
            let is = exchange.method == "POST";
            if is {
                exchange.answer("202 Accepted", &[], b"")?;
            }
            Ok(is)
        },
        "does not say where to go on",
    ),
    (
        "sends the upload to a file",
        |exchange| {
            let is = exchange.method == "POST";
            if is {
                exchange.answer("202 Accepted", &[("Location", "file:///etc/passwd")], b"")?;
            }
            Ok(is)
        },
        "neither http nor https",
    ),
    (
        "finds another digest",
        |exchange| {
            let is = exchange.method == "PUT" && exchange.path.contains("/uploads/");
            if is {
                let body = br#"{"errors":[{"code":"DIGEST_INVALID","message":"no\u001b[2Jmatch"}]}"#;
                exchange.answer("400 Bad Request", &[], body)?;
            }
            Ok(is)
        },
        "DIGEST_INVALID: no\\u{1b}[2Jmatch",
    ),
    (
        "refuses the manifest",
        |exchange| {
            let is = exchange.path.contains("/manifests/");
            if is {
                exchange.answer("403 Forbidden", &[], br#"{"errors":[{"code":"DENIED"}]}"#)?;
            }
            Ok(is)
        },
        "DENIED",
    ),
    (
        "talks without end",
        |exchange| {
            exchange.answer("400 Bad Request", &[("Content-Length", "99999999999")], b"")?;
            while std::io::Write::write_all(&mut exchange.stream, &[b'x'; 4096]).is_ok() {}
            Ok(true)
        },
        "400",
    ),
];

#[test]
fn a_push_ends_with_an_error() {
    for (name, lie, why) in FATAL {
        let registry = Registry::start(lie);
        assert_bad(name, Layout::with(&large()).push(&registry, &PushOptions::default()), Kind::Network, why);
        assert!(!registry.state.lock().unwrap().documents.contains_key("1"), "{name}: there is a tag");
    }
}

#[test]
fn a_damaged_layout_is_not_pushed() {
    for (name, layer) in [("small", bytes(1000)), ("large", large())] {
        let (registry, layout) = (Registry::honest(), Layout::with(&layer));
        let mut damaged = layer.clone();
        *damaged.last_mut().unwrap() ^= 1;
        fs_err::write(layout.blob(&digest(&layer)), &damaged).unwrap();
        let pushed = layout.push(&registry, &PushOptions::default());
        assert_bad(name, pushed, Kind::Refused, "has a different digest");
        let state = registry.state.lock().unwrap();
        assert!(!state.blobs.contains_key(&digest(&layer)) && state.documents.is_empty(), "{name}");
        fs_err::write(layout.blob(&digest(&layer)), &layer[1..]).unwrap();
        drop(state);
        assert_bad(name, layout.push(&registry, &PushOptions::default()), Kind::Refused, "bytes instead of");
    }
}

#[test]
fn the_image_and_the_tags_must_be_clear() {
    let (registry, layout) = (Registry::honest(), Layout::with(b"x"));
    let push = |to: &str, options: PushOptions| {
        let to = Reference::parse(&format!("{}/r{to}", registry.host)).unwrap();
        super::push(&layout.dir(), &to, &options, &Connection::default(), &Silent)
    };
    let image = |name: &str| PushOptions { image: Some(name.to_owned()), ..PushOptions::default() };
    assert_bad("image", push("", image("2")), Kind::Usage, "2 in");
    push(":new", image("1")).unwrap();
    let digest = format!("@sha256:{}", "0".repeat(64));
    assert_bad("digest", push(&digest, PushOptions::default()), Kind::Usage, "names a digest");
    let tags = PushOptions { tags: vec!["a b".to_owned()], ..PushOptions::default() };
    assert_bad("tag", push("", tags), Kind::Usage, "is not a tag");
    let index = layout.dir().join("index.json");
    let text = fs_err::read_to_string(&index).unwrap();
    let entry = &text[text.find('[').unwrap() + 1..text.rfind(']').unwrap()];
    let other = entry.replace("\"1\"", "\"2\"").replace("\"size\":", "\"size\":1");
    fs_err::write(&index, text.replace(entry, &format!("{entry},{other}"))).unwrap();
    assert_bad("several", push("", PushOptions::default()), Kind::Usage, "--image: 1, 2");
    fs_err::write(&index, text.replace("ref.name", "ref.title")).unwrap();
    assert_bad("none", push("", PushOptions::default()), Kind::Usage, "has no tag");
    push("", PushOptions { tags: vec!["x".to_owned()], ..PushOptions::default() }).unwrap();
    fs_err::write(&index, r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    assert_bad("empty", push(":1", PushOptions::default()), Kind::Usage, "has no image");
    let state = registry.state.lock().unwrap();
    assert!(
        state.documents.contains_key("new") && state.documents.contains_key("x") && !state.documents.contains_key("1")
    );
}

#[test]
fn redirected_uploads_get_no_credentials() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    let storage = Registry::start(|exchange| {
        SENT.fetch_add(1, Ordering::Relaxed);
        let length = exchange.length();
        exchange.body(length)?;
        exchange.answer("201 Created", &[], b"").map(|()| true)
    });
    let there = format!("http://{}/store?Signature=secret", storage.host);
    let registry = Registry::start(move |exchange| {
        match exchange.method.as_str() {
            _ if !exchange.headers.contains_key("authorization") => {
                exchange.answer("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"x\"")], b"")?;
            }
            "POST" => exchange.answer("202 Accepted", &[("Location", &there)], b"")?,
            _ => return Ok(false),
        }
        Ok(true)
    });
    let to = Reference::parse(&format!("{}/r:1", registry.host)).unwrap();
    let connection = Connection { credentials: Some(access::password()), plain_http: false };
    push(&Layout::with(b"layer").dir(), &to, &PushOptions::default(), &connection, &Silent).unwrap();
    assert_eq!(SENT.load(Ordering::Relaxed), 2);
    assert!(storage.state.lock().unwrap().authorizations.is_empty());
    assert!(!registry.state.lock().unwrap().authorizations.is_empty());
}
