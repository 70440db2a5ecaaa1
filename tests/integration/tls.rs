//! Mirrors over TLS: trusted certificates, redirects, and a wrong clock.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::env::{Output, Server, TestEnv};

/// A server on 127.0.0.1 that gives the same answer to every request.
struct Tls {
    url: String,
    /// The self-signed certificate, as PEM.
    certificate: String,
    answered: Arc<AtomicUsize>,
}

impl Tls {
    /// Starts a server whose certificate is valid from the first year to the last.
    fn start(years: (i32, i32), answer: String) -> Self {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let (config, answered) = (Arc::new(config), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let count = Arc::clone(&answered);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = BufReader::new(StreamOwned::new(connection, stream));
                let mut line = String::new();
                // A client that does not trust the certificate disconnects here.
                while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                    line.clear();
                }
                if line == "\r\n" {
                    count.fetch_add(1, Ordering::SeqCst);
                    let stream = stream.get_mut();
                    let _ = stream.write_all(answer.as_bytes());
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        });
        Self { url, certificate: certificate.pem(), answered }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }
}

/// Runs `fetch --list` with a server. `trusted` is the certificate that the system trusts.
fn ask(server: &Tls, trusted: Option<&str>) -> Output {
    let mut env = TestEnv::new();
    let roots: PathBuf = env.write("roots.pem", trusted.unwrap_or_default());
    if trusted.is_some() {
        env.set("SSL_CERT_FILE", roots);
    }
    env.run(["fetch", "--list", "amd64", "--set", &format!("source.mirrors=[{:?}]", server.url)])
}

const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[test]
fn only_servers_with_a_trusted_certificate_get_requests() {
    let server = Tls::start((2000, 2999), NOT_FOUND.to_owned());
    let refused = ask(&server, None).code(5);
    assert!(refused.stderr.contains("invalid peer certificate"), "{}", refused.stderr);
    assert_eq!(server.answered(), 0);
    let other = Tls::start((2000, 2999), NOT_FOUND.to_owned());
    let refused = ask(&server, Some(&other.certificate)).code(5);
    assert!(refused.stderr.contains("invalid peer certificate"), "{}", refused.stderr);
    assert_eq!(server.answered(), 0);
    // A server with a trusted certificate gets the request, and answers that it has no list.
    let missing = ask(&server, Some(&server.certificate)).code(5);
    assert!(missing.stderr.contains("no mirror lists"), "{}", missing.stderr);
    assert_eq!(server.answered(), 1);
}

#[test]
fn redirects_from_https_to_http_are_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let plain = Server::start(directory.path());
    let answer = format!(
        "HTTP/1.1 302 Found\r\nLocation: {}/list\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        plain.url()
    );
    let server = Tls::start((2000, 2999), answer);
    let refused = ask(&server, Some(&server.certificate)).code(5);
    assert!(refused.stderr.contains("to a connection that is not protected"), "{}", refused.stderr);
    assert_eq!((server.answered(), plain.requests().len()), (1, 0));
}

#[test]
fn an_expired_certificate_is_reported_with_the_time_of_the_clock() {
    for years in [(2900, 2999), (2000, 2001)] {
        let server = Tls::start(years, NOT_FOUND.to_owned());
        let refused = ask(&server, Some(&server.certificate)).code(5);
        assert!(refused.stderr.contains("invalid peer certificate"), "{}", refused.stderr);
        assert!(refused.stderr.contains("this machine's clock says 20"), "{}", refused.stderr);
    }
}

/// Runs `pull` with a registry. `trusted` is the certificate that the system trusts.
fn pull(server: &Tls, trusted: &str) -> Output {
    let mut env = TestEnv::new();
    let roots = env.write("roots.pem", trusted);
    env.set("SSL_CERT_FILE", roots);
    let credentials = server.url.replace("https://", "{\"auths\":{\"") + "\":{\"auth\":\"bWU6aHVzaA==\"}}}";
    env.write("home/.docker/config.json", credentials);
    env.run(["pull", &format!("{}/demo:1", server.url.replace("https://", "")), "layout"])
}

#[test]
fn registries_speak_tls_with_a_trusted_certificate_and_stay_there() {
    let directory = tempfile::tempdir().unwrap();
    let plain = Server::start(directory.path());
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: {}/v2/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        plain.url()
    );
    let token = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for (answer, why) in [
        (redirect.as_str(), "at an address whose connection is not protected"),
        (token, "a token server whose connection is not protected"),
    ] {
        let server = Tls::start((2000, 2999), answer.to_owned());
        let other = Tls::start((2000, 2999), answer.to_owned());
        let refused = pull(&server, &other.certificate).code(5);
        assert!(refused.stderr.contains("invalid peer certificate"), "{}", refused.stderr);
        assert_eq!(server.answered(), 0);
        let refused = pull(&server, &server.certificate).code(5);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
        // The first request is the one that finds out whether the server speaks TLS.
        assert_eq!((server.answered(), plain.requests().len()), (2, 0));
    }
}
