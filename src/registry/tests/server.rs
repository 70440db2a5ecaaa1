//! A registry in memory for tests. Any of its answers can be replaced by a lie.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::base::digest::Sha256;
use crate::oci::Digest;
use crate::oci::layout::{CONFIG, MANIFEST};

/// The content of the registry, and the requests so far.
#[derive(Default)]
pub(super) struct State {
    pub(super) blobs: HashMap<String, Vec<u8>>,
    /// Media type and bytes by tag and by digest.
    pub(super) documents: HashMap<String, (String, Vec<u8>)>,
    pub(super) uploads: HashMap<String, Vec<u8>>,
    /// Method and path of each request.
    pub(super) seen: Vec<(String, String)>,
    /// Values of `Authorization`, and the path.
    pub(super) authorizations: Vec<(String, String)>,
    /// Bytes of blobs that arrived.
    pub(super) received: usize,
    /// Sessions of uploads that were begun.
    begun: usize,
}

/// A request and its connection.
pub(super) struct Exchange<'a> {
    pub(super) method: String,
    /// The path without the query.
    pub(super) path: String,
    pub(super) query: String,
    /// Names in lower case.
    pub(super) headers: HashMap<String, String>,
    pub(super) stream: TcpStream,
    reader: BufReader<TcpStream>,
    pub(super) state: &'a Mutex<State>,
    /// Number of earlier requests with this method and path.
    pub(super) earlier: usize,
    /// Number of earlier requests with this method.
    pub(super) of_method: usize,
}

pub(super) struct Registry {
    /// `127.0.0.1:PORT`
    pub(super) host: String,
    pub(super) state: Arc<Mutex<State>>,
}

pub(super) fn digest(bytes: &[u8]) -> String {
    Digest::Sha256(Sha256::of(bytes)).to_string()
}

impl Registry {
    /// Starts a registry. `lie` returns true if it answered; otherwise the answer is honest.
    pub(super) fn start(lie: impl Fn(&mut Exchange<'_>) -> io::Result<bool> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, lie) = (state.clone(), Arc::new(lie));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, lie) = (shared.clone(), lie.clone());
                std::thread::spawn(move || {
                    let Some(mut exchange) = Exchange::read(stream, &state) else { return };
                    // The client hangs up on liars.
                    if matches!(lie(&mut exchange), Ok(false)) {
                        let _ = exchange.honest();
                    }
                });
            }
        });
        Self { host, state }
    }

    pub(super) fn honest() -> Self {
        Self::start(|_| Ok(false))
    }

    /// Puts an image with one layer into the repository, with the tag `1`. Returns the digest.
    pub(super) fn add_image(&self, layer: &[u8]) -> String {
        let mut state = self.state.lock().unwrap();
        let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [digest(layer)] } });
        let mut add = |bytes: &[u8], media_type: &str| {
            state.blobs.insert(digest(bytes), bytes.to_vec());
            json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
        };
        let config = add(config.to_string().as_bytes(), CONFIG);
        let layer = add(layer, "application/vnd.oci.image.layer.v1.tar");
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] }).to_string();
        let name = digest(manifest.as_bytes());
        for key in [name.clone(), "1".to_owned()] {
            state.documents.insert(key, (MANIFEST.to_owned(), manifest.clone().into_bytes()));
        }
        name
    }

    /// Returns the number of requests with this method whose path contains `part`.
    pub(super) fn count(&self, method: &str, part: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.seen.iter().filter(|(known, path)| known == method && path.contains(part)).count()
    }
}

impl<'a> Exchange<'a> {
    fn read(stream: TcpStream, state: &'a Mutex<State>) -> Option<Self> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            Some(line.trim_end().to_owned())
        };
        let first = line()?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = HashMap::new();
        while let Some((name, value)) = line()?.split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let mut shared = state.lock().unwrap();
        let entry = (method.clone(), path.clone());
        let earlier = shared.seen.iter().filter(|known| **known == entry).count();
        let of_method = shared.seen.iter().filter(|(known, _)| *known == method).count();
        shared.seen.push(entry);
        if let Some(value) = headers.get("authorization") {
            shared.authorizations.push((value.clone(), path.clone()));
        }
        drop(shared);
        Some(Self { method, path, query, headers, stream, reader, state, earlier, of_method })
    }

    pub(super) fn length(&self) -> usize {
        self.headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or_default()
    }

    /// Reads the first `count` bytes of the body.
    pub(super) fn body(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes)?;
        if self.path.contains("/blobs/") {
            self.state.lock().unwrap().received += count;
        }
        Ok(bytes)
    }

    pub(super) fn answer(&mut self, status: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
        let mut has_length = self.method == "HEAD";
        for (name, value) in headers {
            has_length |= name.eq_ignore_ascii_case("content-length");
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !has_length {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.stream.write_all(format!("{text}\r\n").as_bytes())?;
        self.stream.write_all(body)
    }

    /// Closes the connection so that the client gets an error at once.
    pub(super) fn reset(&self) -> io::Result<bool> {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(std::time::Duration::ZERO))?;
        Ok(true)
    }

    pub(super) fn first_byte(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    /// Returns the session of an upload, the last part of the path.
    pub(super) fn session(&self) -> Option<String> {
        let (_, id) = self.path.split_once("/blobs/uploads/")?;
        Some(id.to_owned())
    }

    fn honest(&mut self) -> io::Result<()> {
        let name = self.path.rsplit('/').next().unwrap_or_default().to_owned();
        let is = |part: &str| self.path.contains(part);
        match (self.method.as_str(), is("/blobs/uploads/"), is("/blobs/"), is("/manifests/")) {
            ("POST", true, ..) => self.begin(),
            (_, true, ..) => self.upload(&name),
            ("GET" | "HEAD", _, true, _) => self.blob(&name),
            ("PUT", _, _, true) => self.put_document(name),
            ("GET", _, _, true) => {
                let found = self.state.lock().unwrap().documents.get(&name).cloned();
                match found {
                    Some((kind, bytes)) => self.answer("200 OK", &[("Content-Type", &kind)], &bytes),
                    None => self.answer(
                        "404 Not Found",
                        &[],
                        br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#,
                    ),
                }
            }
            _ => self.answer("404 Not Found", &[], b""),
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let mounted = self.query.contains("from=base")
            && state.blobs.keys().any(|digest| self.query.contains(&digest.replace(':', "%3A")));
        state.begun += 1;
        let id = format!("session-{}", state.begun);
        if !mounted {
            state.uploads.insert(id.clone(), Vec::new());
        }
        drop(state);
        if mounted {
            return self.answer("201 Created", &[("Location", "/v2/r/blobs/x")], b"");
        }
        self.answer("202 Accepted", &[("Location", &format!("/v2/r/blobs/uploads/{id}?_state=secret%3D"))], b"")
    }

    fn upload(&mut self, id: &str) -> io::Result<()> {
        let bytes = self.body(self.length())?;
        let mut state = self.state.lock().unwrap();
        let state = &mut *state;
        let Some(upload) = state.uploads.get_mut(id) else { return self.answer("404 Not Found", &[], b"") };
        let location = format!("/v2/r/blobs/uploads/{id}?_state=secret%3D{}", upload.len());
        let from = self.headers.get("content-range").and_then(|range| range.split('-').next()?.parse::<usize>().ok());
        if from.is_some_and(|from| from != upload.len()) {
            return self.answer("416 Range Not Satisfiable", &[], b"");
        }
        upload.extend(bytes);
        let range = format!("0-{}", upload.len().saturating_sub(1));
        match self.method.as_str() {
            "PATCH" => self.answer("202 Accepted", &[("Location", &location), ("Range", &range)], b""),
            "GET" => self.answer("204 No Content", &[("Location", &location), ("Range", &range)], b""),
            _ if self.query.contains(&digest(upload).replace(':', "%3A"))
                && self.query.contains("_state=secret%3D") =>
            {
                let upload = state.uploads.remove(id).unwrap_or_default();
                state.blobs.insert(digest(&upload), upload);
                self.answer("201 Created", &[], b"")
            }
            _ => self.answer(
                "400 Bad Request",
                &[],
                br#"{"errors":[{"code":"DIGEST_INVALID","message":"no\u001b match"}]}"#,
            ),
        }
    }

    pub(super) fn blob(&mut self, name: &str) -> io::Result<()> {
        let found = self.state.lock().unwrap().blobs.get(name).cloned();
        let Some(bytes) = found else { return self.answer("404 Not Found", &[], b"") };
        let length = bytes.len();
        match (self.method.as_str(), self.first_byte()) {
            ("HEAD", _) => self.answer("200 OK", &[("Content-Length", &length.to_string())], b""),
            (_, Some(from)) => {
                let range = format!("bytes {from}-{}/{length}", length - 1);
                self.answer("206 Partial Content", &[("Content-Range", &range)], &bytes[from..])
            }
            _ => self.answer("200 OK", &[], &bytes),
        }
    }

    fn put_document(&mut self, name: String) -> io::Result<()> {
        let bytes = self.body(self.length())?;
        let kind = self.headers.get("content-type").cloned().unwrap_or_default();
        let mut state = self.state.lock().unwrap();
        state.documents.insert(digest(&bytes), (kind.clone(), bytes.clone()));
        state.documents.insert(name, (kind, bytes));
        drop(state);
        self.answer("201 Created", &[], b"")
    }
}
