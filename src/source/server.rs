//! A small HTTP server for tests. Its answers are written byte by byte, so that it can lie in any way.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    /// Number of earlier requests, over all paths.
    pub(crate) number: usize,
}

impl Request {
    /// Returns the first byte of a Range.
    pub(crate) fn from(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request with `answer`, one request per connection.
    pub(crate) fn start(
        answer: impl Fn(&Request, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (seen.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || {
                    let Some(request) = read(&stream, &log) else { return };
                    let mut stream = stream;
                    // The client hangs up on liars.
                    if answer(&request, &mut stream).is_ok() {
                        let _ = stream.shutdown(std::net::Shutdown::Both);
                    }
                });
            }
        });
        Self { url, seen }
    }

    /// Serves files honestly, with ranges.
    pub(crate) fn files(files: HashMap<String, Vec<u8>>) -> Self {
        Self::start(move |request, stream| match files.get(&request.path) {
            Some(bytes) => honest(request, stream, bytes),
            None => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        })
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

/// Writes an honest answer, with the ETag `"one"`. Honours a Range.
pub(super) fn honest(request: &Request, stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let same = request.headers.get("if-range").is_none_or(|tag| tag == "\"one\"");
    match request.from().filter(|from| *from < bytes.len() && same) {
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            head(
                stream,
                "206 Partial Content",
                &[("Content-Range", &range), ("Content-Length", &(bytes.len() - from).to_string())],
            )?;
            stream.write_all(&bytes[from..])
        }
        None => {
            head(stream, "200 OK", &[("ETag", "\"one\""), ("Content-Length", &bytes.len().to_string())])?;
            stream.write_all(bytes)
        }
    }
}

pub(super) fn head(stream: &mut TcpStream, status: &str, headers: &[(&str, &str)]) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{text}\r\n").as_bytes())
}

fn read(stream: &TcpStream, log: &Mutex<Vec<Request>>) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut log = log.lock().unwrap();
    let request = Request { path, headers, number: log.len() };
    log.push(request.clone());
    Some(request)
}
