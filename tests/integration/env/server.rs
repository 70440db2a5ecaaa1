//! A web server for tests.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A web server on the loopback interface that serves the files of a directory, also in ranges.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: Mutex<Vec<String>>,
    hold: Mutex<Option<u64>>,
    holding: AtomicBool,
}

impl Server {
    /// Serves `root` until the tests end.
    pub(crate) fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let server = Self { address: listener.local_addr().expect("an address"), state: Arc::default() };
        let (root, state) = (root.to_owned(), Arc::clone(&server.state));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, state) = (root.clone(), Arc::clone(&state));
                // A client that disconnects in the middle is a case under test, not a failure.
                std::thread::spawn(move || drop(answer(&stream, &root, &state)));
            }
        });
        server
    }

    /// Returns the address, `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the requests so far: `GET /path` or `GET /path bytes=5-`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().expect("no panic while logging").clone()
    }

    /// Makes every answer pause after `after` bytes, or lets the paused answers continue.
    pub(crate) fn hold(&self, after: Option<u64>) {
        *self.state.hold.lock().expect("no panic while holding") = after;
        self.state.holding.store(false, Ordering::SeqCst);
    }

    /// Returns whether an answer is paused.
    pub(crate) fn is_holding(&self) -> bool {
        self.state.holding.load(Ordering::SeqCst)
    }
}

fn answer(stream: &TcpStream, root: &Path, state: &State) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut lines = BufReader::new(stream.try_clone()?.take(64 << 10)).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut range = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("range")
        {
            range = Some(value.trim().to_owned());
        }
    }
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let logged = [method, target, range.as_deref().unwrap_or_default()].join(" ");
    state.requests.lock().expect("no panic while logging").push(logged.trim_end().to_owned());

    let mut stream = stream;
    let Some(mut file) = open(root, target) else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let size = file.metadata()?.len();
    let (start, end) = match range.as_deref().map(|range| parse_range(range, size)) {
        None => (0, size),
        Some(Some(range)) => range,
        Some(None) => {
            let head = "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n";
            return write!(stream, "{head}Content-Range: bytes */{size}\r\n\r\n");
        }
    };
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nAccept-Ranges: bytes\r\nConnection: close\r\n",
        end - start
    )?;
    if range.is_some() {
        write!(stream, "Content-Range: bytes {start}-{}/{size}\r\n", end - 1)?;
    }
    write!(stream, "\r\n")?;
    if method != "HEAD" {
        file.seek(SeekFrom::Start(start))?;
        let held = || *state.hold.lock().expect("no panic while holding");
        let mut left = file.take(end - start);
        if let Some(first) = held() {
            std::io::copy(&mut left.by_ref().take(first), &mut stream)?;
            while left.limit() > 0 && held().is_some() {
                state.holding.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        std::io::copy(&mut left, &mut stream)?;
    }
    stream.flush()
}

/// Returns the offset of the first byte of `bytes=FIRST-[LAST]` and the offset after the last one.
fn parse_range(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first = first.parse().ok()?;
    let end = if last.is_empty() { size } else { last.parse::<u64>().ok()?.saturating_add(1).min(size) };
    (first < end).then_some((first, end))
}

fn open(root: &Path, target: &str) -> Option<fs::File> {
    let path = target.split('?').next()?.trim_start_matches('/').replace("%2B", "+").replace("%2b", "+");
    let plain = Path::new(&path).components().all(|part| matches!(part, Component::Normal(_)));
    let file = fs::File::open(root.join(&path)).ok()?;
    (plain && file.metadata().ok()?.is_file()).then_some(file)
}

#[test]
fn the_server_serves_only_files_and_ranges() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("mirror")).unwrap();
    fs::write(root.path().join("mirror/file"), "0123456789").unwrap();
    fs::write(root.path().join("secret"), "x").unwrap();
    let server = Server::start(&root.path().join("mirror"));
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), head.contains("Content-Range: bytes 7-9/10"), body.to_owned())
    };
    let is = |status: &str, ranged, body: &str| (format!("HTTP/1.1 {status}"), ranged, body.to_owned());
    assert_eq!(ask("GET /file HTTP/1.1\r\n\r\n"), is("200 OK", false, "0123456789"));
    assert_eq!(ask("GET /file HTTP/1.1\r\nrange: bytes=7-\r\n\r\n"), is("206 Partial Content", true, "789"));
    assert_eq!(ask("GET /file HTTP/1.1\r\nRange: bytes=10-\r\n\r\n").0, "HTTP/1.1 416 Range Not Satisfiable");
    assert_eq!(ask("HEAD /file HTTP/1.1\r\n\r\n"), is("200 OK", false, ""));
    for target in ["/../secret", "/", "/none"] {
        assert_eq!(ask(&format!("GET {target} HTTP/1.1\r\n\r\n")).0, "HTTP/1.1 404 Not Found", "{target}");
    }
    assert_eq!(server.requests()[1], "GET /file bytes=7-");
}
