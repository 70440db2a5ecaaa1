//! Credentials: their sources, and the servers that get them.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::server::Registry;
use super::*;
use crate::registry::credentials::{Credentials, Places};

const PASSWORD: &str = "pass:word";

pub(super) fn password() -> Credentials {
    Credentials::Password("me".to_owned(), Zeroizing::new(PASSWORD.to_owned()))
}

fn basic() -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("me:{PASSWORD}")))
}

fn pull_with(registry: &Registry, credentials: Option<Credentials>) -> Result<String> {
    let place = tempfile::tempdir().unwrap();
    let from = Reference::parse(&format!("{}/r:1", registry.host)).unwrap();
    let connection = Connection { credentials, plain_http: false };
    pull(&from, &place.path().join("layout"), None, &connection, &Silent).map(|digest| digest.to_string())
}

/// A registry that wants `value`, and else answers with this challenge.
fn guarded(challenge: String, value: String) -> Registry {
    let registry = Registry::start(move |exchange| {
        if exchange.headers.get("authorization") == Some(&value) {
            return Ok(false);
        }
        exchange.answer("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"").map(|()| true)
    });
    registry.add_image(b"layer");
    registry
}

#[test]
fn a_password_is_sent_only_when_it_is_asked_for() {
    let registry = guarded("Basic realm=\"x\"".to_owned(), basic());
    pull_with(&registry, Some(password())).unwrap();
    let seen = registry.state.lock().unwrap().authorizations.clone();
    assert!(!seen.is_empty() && seen.iter().all(|(value, _)| *value == basic()));
    assert_eq!(registry.count("GET", "/manifests/1"), 2, "the first request has no credentials");
    let wrong = Credentials::Password("me".to_owned(), Zeroizing::new("hush".to_owned()));
    let error = pull_with(&registry, Some(wrong)).unwrap_err();
    assert!(error.kind() == Kind::Network && told(&error).contains("refuses these credentials"), "{}", told(&error));
    assert!(!told(&error).contains("hush") && !told(&error).contains(&BASE64_STANDARD.encode("me:hush")));
    let error = pull_with(&registry, None).unwrap_err();
    assert!(told(&error).contains("no credentials for 127.0.0.1"), "{}", told(&error));
    let open = Registry::honest();
    open.add_image(b"layer");
    pull_with(&open, Some(password())).unwrap();
    assert!(open.state.lock().unwrap().authorizations.is_empty());
}

/// A token server that gives `token` for the credentials `value` with the right scope.
fn tokens(value: Option<String>, token: &'static str) -> Registry {
    Registry::start(move |exchange| {
        let length = exchange.length();
        let form = String::from_utf8(exchange.body(length)?).unwrap();
        let given = exchange.headers.get("authorization").cloned().or(Some(form).filter(|form| !form.is_empty()));
        let asked = format!("{}{}", exchange.query, given.clone().unwrap_or_default());
        let right = match &value {
            Some(value) => given.as_ref().is_some_and(|given| given.contains(value.as_str())),
            None => given.is_none(),
        };
        let body = format!(r#"{{"access_token":"{token}"}}"#);
        if right && asked.contains("repository%3Ar%3Apull") && asked.contains("service=the+service") {
            exchange.answer("200 OK", &[], body.as_bytes()).map(|()| true)
        } else {
            exchange.answer("401 Unauthorized", &[], b"").map(|()| true)
        }
    })
}

fn bearer(realm: &str) -> String {
    format!("Bearer realm=\"{realm}\",service=\"the service\",scope=\"repository:r:pull\"")
}

#[test]
fn tokens_are_asked_for_with_a_password_a_token_or_nothing() {
    let identity = Credentials::Identity(Zeroizing::new("long-lived".to_owned()));
    for (credentials, value) in [
        (Some(password()), Some(basic())),
        (Some(identity), Some("grant_type=refresh_token&refresh_token=long-lived".to_owned())),
        (None, None),
    ] {
        let server = tokens(value, "abc");
        let registry = guarded(bearer(&format!("http://{}/token", server.host)), "Bearer abc".to_owned());
        pull_with(&registry, credentials).unwrap_or_else(|error| panic!("{}", told(&error)));
        assert_eq!(server.state.lock().unwrap().seen.len(), 1, "one token for all requests");
        // The registry itself sees no password.
        let seen = registry.state.lock().unwrap().authorizations.clone();
        assert!(seen.iter().all(|(value, _)| value == "Bearer abc"), "{seen:?}");
    }
}

#[test]
fn a_token_that_expires_is_renewed() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let issued = Arc::new(AtomicUsize::new(0));
    let (issuing, used) = (issued.clone(), AtomicUsize::new(0));
    let server = Registry::start(move |exchange| {
        let number = issuing.fetch_add(1, Ordering::SeqCst) + 1;
        exchange.answer("200 OK", &[], format!(r#"{{"token":"t{number}"}}"#).as_bytes()).map(|()| true)
    });
    let challenge = bearer(&format!("http://{}/token", server.host));
    let last = issued.clone();
    // Each token is good for five requests.
    let registry = Registry::start(move |exchange| {
        let newest = last.load(Ordering::SeqCst);
        let good = exchange.headers.get("authorization") == Some(&format!("Bearer t{newest}"));
        if good && used.fetch_add(1, Ordering::SeqCst) < newest * 5 {
            return Ok(false);
        }
        let length = exchange.length();
        exchange.body(length)?;
        exchange.answer("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"").map(|()| true)
    });
    let layer = bytes(crate::registry::upload::PIECE as usize * 8);
    let pushed = Layout::with(&layer).push(&registry, &PushOptions::default()).unwrap();
    assert!(pushed.blobs == [2, 0, 0] && registry.state.lock().unwrap().blobs[&digest(&layer)] == layer);
    assert!(issued.load(Ordering::SeqCst) >= 2);
}

#[test]
fn bad_token_servers_end_with_an_error() {
    let refusing = tokens(Some("never".to_owned()), "abc");
    let page = Registry::start(|exchange| {
        exchange.answer("200 OK", &[("Content-Type", "text/html")], b"<html>").map(|()| true)
    });
    let empty = Registry::start(|exchange| exchange.answer("200 OK", &[], br#"{"token":""}"#).map(|()| true));
    let evil = Registry::start(|exchange| exchange.answer("200 OK", &[], br#"{"token":"a\r\nX: y"}"#).map(|()| true));
    let wrong = tokens(Some(basic()), "other");
    let away = Registry::start(|exchange| {
        exchange.answer("302 Found", &[("Location", "http://127.0.0.1:1/")], b"").map(|()| true)
    });
    for (name, realm, why) in [
        ("refuses", format!("http://{}/t", refusing.host), "refuses these credentials"),
        ("web page", format!("http://{}/t", page.host), "web page"),
        ("empty", format!("http://{}/t", empty.host), "does not answer with a token"),
        ("evil", format!("http://{}/t", evil.host), "does not answer with a token"),
        ("wrong", format!("http://{}/t", wrong.host), "refuses these credentials"),
        ("redirects", format!("http://{}/t", away.host), "302"),
        ("not a URL", "token".to_owned(), "not a URL"),
        ("file", "file:///etc/passwd".to_owned(), "neither http nor https"),
        ("not protected", "http://203.0.113.1/token".to_owned(), "is not protected"),
    ] {
        let registry = guarded(bearer(&realm), "Bearer abc".to_owned());
        assert_bad(name, pull_with(&registry, Some(password())), Kind::Network, why);
    }
    let registry = guarded("Negotiate".to_owned(), String::new());
    assert_bad("unknown", pull_with(&registry, Some(password())), Kind::Network, "does not say which credentials");
}

#[test]
fn another_server_gets_no_credentials() {
    let storage = Registry::honest();
    let there = storage.host.clone();
    let registry = Registry::start(move |exchange| {
        if exchange.headers.get("authorization") != Some(&basic()) {
            return exchange.answer("401 Unauthorized", &[("WWW-Authenticate", "Basic")], b"").map(|()| true);
        }
        if exchange.path.contains("/blobs/") {
            let location = format!("http://{there}{}", exchange.path);
            return exchange.answer("307 Temporary Redirect", &[("Location", &location)], b"").map(|()| true);
        }
        Ok(false)
    });
    registry.add_image(b"layer");
    storage.add_image(b"layer");
    pull_with(&registry, Some(password())).unwrap();
    assert!(storage.count("GET", "/blobs/") == 2 && storage.state.lock().unwrap().authorizations.is_empty());
    // A storage that asks for credentials does not get them either.
    let asking = guarded("Basic".to_owned(), basic());
    let there = asking.host.clone();
    let registry = Registry::start(move |exchange| {
        let location = format!("http://{there}{}", exchange.path);
        exchange.answer("307 Temporary Redirect", &[("Location", &location)], b"").map(|()| true)
    });
    assert_eq!(pull_with(&registry, Some(password())).unwrap_err().kind(), Kind::Network);
    assert!(asking.state.lock().unwrap().authorizations.is_empty());
}

/// The directories of a user, with their files of credentials.
struct Home {
    place: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { place: tempfile::tempdir().unwrap() }
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.place.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }

    /// Makes the helper program `docker-credential-NAME`.
    fn helper(&self, name: &str, script: &str) {
        let path = format!("bin/docker-credential-{name}");
        self.write(&path, &format!("#!/bin/sh\n{script}\n"));
        fs_err::set_permissions(self.place.path().join(path), PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn find_with(&self, reference: &str, more: &[(&str, &str)], given: Option<&str>) -> Result<Option<String>> {
        let path = |name: &str| self.place.path().join(name).into_os_string();
        let mut env: Vec<(OsString, OsString)> =
            vec![("HOME".into(), path("home")), ("XDG_RUNTIME_DIR".into(), path("run"))];
        let search = format!("{}:/usr/bin:/bin", self.place.path().join("bin").display());
        env.push(("PATH".into(), search.into()));
        env.extend(more.iter().map(|(name, value)| (name.into(), path(value))));
        let given = given.map(|given| self.place.path().join(given));
        let found = Places::of(given.as_deref(), env, 1).find(&Reference::parse(reference).unwrap())?;
        Ok(found.map(|found| match found {
            Credentials::Password(user, password) => format!("{user}:{}", *password),
            Credentials::Identity(token) => format!("token {}", *token),
        }))
    }

    fn find(&self, reference: &str) -> Option<String> {
        self.find_with(reference, &[], None).unwrap_or_else(|error| panic!("{}", told(&error)))
    }
}

fn auths(entries: &[(&str, &str)]) -> String {
    let entry = |(name, pair): &(&str, &str)| format!("{name:?}:{{\"auth\":{:?}}}", BASE64_STANDARD.encode(pair));
    format!("{{\"auths\":{{{}}}}}", entries.iter().map(entry).collect::<Vec<_>>().join(","))
}

#[test]
fn files_of_credentials_are_read_in_order() {
    let home = Home::new();
    assert_eq!(home.find("a.example/x"), None);
    for (path, pair) in [
        ("home/.docker/config.json", "docker:1"),
        ("home/.config/containers/auth.json", "config:2"),
        ("run/containers/auth.json", "run:3"),
    ] {
        home.write(path, &auths(&[("a.example", pair)]));
        assert_eq!(home.find("a.example/x").as_deref(), Some(pair), "{path}");
    }
    assert_eq!(home.find("b.example/x"), None);
    home.write("own.json", &auths(&[("a.example", "own:4")]));
    let found = home.find_with("a.example/x", &[("REGISTRY_AUTH_FILE", "own.json")], None).unwrap();
    assert_eq!(found.as_deref(), Some("own:4"));
    home.write("given.json", &auths(&[("b.example", "given:5")]));
    let found = home.find_with("b.example/x", &[("REGISTRY_AUTH_FILE", "own.json")], Some("given.json")).unwrap();
    assert_eq!(found.as_deref(), Some("given:5"));
    assert_bad("missing", home.find_with("a.example/x", &[], Some("none.json")), Kind::System, "none.json");
    home.write("elsewhere/config.json", &auths(&[("c.example", "c:6")]));
    assert_eq!(home.find_with("c.example/x", &[("DOCKER_CONFIG", "elsewhere")], None).unwrap().as_deref(), Some("c:6"));
    for bad in
        ["{", "[]", r#"{"auths":{"a.example":{"auth":"!hush"}}}"#, r#"{"auths":{"a.example":{"auth":"aHVzaA=="}}}"#]
    {
        home.write("run/containers/auth.json", bad);
        let error = home.find_with("a.example/x", &[], None).unwrap_err();
        assert!(error.kind() == Kind::Usage && !told(&error).contains("hush"), "{bad}: {}", told(&error));
        assert!(told(&error).contains("run/containers/auth.json"), "{}", told(&error));
    }
}

#[test]
fn the_most_specific_entry_wins() {
    let home = Home::new();
    let hub = auths(&[
        ("https://index.docker.io/v1/", "hub:1"),
        ("a.example", "host:2"),
        ("a.example/team", "team:3"),
        ("a.example/team/app", "app:4"),
        ("https://b.example/v2/", "b:5"),
        ("localhost:5000", "local:6:7"),
    ]);
    home.write("run/containers/auth.json", &hub);
    for (reference, expected) in [
        ("docker.io/debian", Some("hub:1")),
        ("docker.io/me/x", Some("hub:1")),
        ("a.example/x", Some("host:2")),
        ("a.example/teams", Some("host:2")),
        ("a.example/team/x", Some("team:3")),
        ("a.example/team/app", Some("app:4")),
        ("b.example/x", Some("b:5")),
        ("localhost:5000/x", Some("local:6:7")),
        ("localhost:5001/x", None),
        ("c.example/a.example", None),
    ] {
        assert_eq!(home.find(reference).as_deref(), expected, "{reference}");
    }
    home.write("run/containers/auth.json", r#"{"auths":{"a.example":{"auth":"","identitytoken":"t"}}}"#);
    assert_eq!(home.find("a.example/x").as_deref(), Some("token t"));
}

#[test]
fn helpers_are_asked_with_the_host_on_standard_input() {
    let home = Home::new();
    home.helper("echo", r#"[ "$1" = get ] && printf '{"ServerURL":"x","Username":"me","Secret":"%s"}' "$(cat)""#);
    home.helper("token", r#"echo '{"Username":"<token>","Secret":"long"}'"#);
    home.helper("none", "echo 'credentials not found in native keychain'; exit 1");
    home.helper("broken", "echo no session bus >&2; exit 1");
    home.helper("talks", "echo hush");
    let config = |helpers: &str, store: &str| {
        let auths = r#""auths":{"a.example":{},"d.example":{"auth":"ZDpk"}}"#;
        home.write("home/.docker/config.json", &format!(r#"{{{auths},"credHelpers":{{{helpers}}}{store}}}"#));
    };
    config(r#""a.example":"echo","b.example:5000":"token","d.example":"none""#, "");
    assert_eq!(home.find("a.example/x").as_deref(), Some("me:a.example"));
    assert_eq!(home.find("b.example:5000/x").as_deref(), Some("token long"));
    assert_eq!(home.find("d.example/x").as_deref(), Some("d:d"), "the helper does not have them");
    config("", r#","credsStore":"echo""#);
    assert_eq!(home.find("a.example/x").as_deref(), Some("me:a.example"));
    assert_eq!(home.find("docker.io/x").as_deref(), Some("me:https://index.docker.io/v1/"));
    config("", r#","credsStore":"none""#);
    assert_eq!(home.find("a.example/x"), None);
    for (helper, kind, why) in [
        ("broken", Kind::System, "no session bus"),
        ("talks", Kind::System, "did not answer with credentials"),
        ("missing", Kind::System, "install docker-credential-missing"),
        ("../bin/sh", Kind::Usage, "is not the name of a credential helper"),
        ("a b", Kind::Usage, "is not the name of a credential helper"),
    ] {
        config(&format!(r#""a.example":{helper:?}"#), "");
        let found = home.find_with("a.example/x", &[], None);
        assert!(found.as_ref().is_err_and(|error| !told(error).contains("hush")), "{helper}");
        assert_bad(helper, found, kind, why);
    }
}
