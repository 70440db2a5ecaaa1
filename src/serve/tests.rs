use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;

/// Sends a request and returns the whole answer.
fn ask(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    write!(stream, "{request}\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(server: &Server, path: &str) -> String {
    ask(server, &format!("GET {path} HTTP/1.1"))
}

#[test]
fn files_are_sent_in_whole_and_in_parts() {
    let place = tempfile::tempdir().unwrap();
    fs_err::create_dir(place.path().join("a")).unwrap();
    let content: Vec<u8> = (0..200_000u32).map(|at| b'a' + (at % 23) as u8).collect();
    fs_err::write(place.path().join("a/b-1-1.gpkg.tar"), &content).unwrap();
    let server = start(place.path(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let text = String::from_utf8(content).unwrap();
    let whole = get(&server, "/a/b-1-1.gpkg.tar");
    assert!(whole.starts_with("HTTP/1.1 200 OK\r\n") && whole.ends_with(&format!("\r\n\r\n{text}")));
    let rest = ask(&server, "GET /a/b-1-1.gpkg.tar HTTP/1.1\r\nRange: bytes=199990-");
    assert!(rest.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{rest}");
    assert!(rest.ends_with(&format!("\r\n\r\n{}", &text[199_990..])), "{rest}");
    let head = ask(&server, "HEAD /a/b-1-1.gpkg.tar HTTP/1.1");
    assert!(head.contains("content-length: 200000\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    let again = ask(&server, &format!("GET /a/b-1-1.gpkg.tar HTTP/1.1\r\nIf-None-Match: {etag}"));
    assert!(again.starts_with("HTTP/1.1 304 Not Modified\r\n"), "{again}");
    // A new file under the same name is another version.
    fs_err::write(place.path().join("new"), "new").unwrap();
    fs_err::rename(place.path().join("new"), place.path().join("a/b-1-1.gpkg.tar")).unwrap();
    let newer = ask(&server, &format!("GET /a/b-1-1.gpkg.tar HTTP/1.1\r\nIf-None-Match: {etag}"));
    assert!(newer.ends_with("\r\n\r\nnew"), "{newer}");
    let log: Vec<String> = server.log.try_iter().collect();
    assert_eq!(log[0], "200 GET /a/b-1-1.gpkg.tar");
    assert_eq!(log[3], "304 GET /a/b-1-1.gpkg.tar");
}

#[test]
fn nothing_else_is_reached() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    fs_err::create_dir_all(root.join("dir.asc")).unwrap();
    fs_err::write(place.path().join("secret.asc"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret.asc", root.join("link.asc")).unwrap();
    std::os::unix::fs::symlink("..", root.join("up")).unwrap();
    std::os::unix::fs::symlink("/", root.join("root")).unwrap();
    fs_err::write(root.join(".Packages.portage_lockfile"), "lock").unwrap();
    fs_err::write(root.join("inside.asc"), "inside").unwrap();
    std::os::unix::fs::symlink("inside.asc", root.join("inner.asc")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo.asc"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let server = start(&root, "127.0.0.1:0".parse().unwrap()).unwrap();
    assert!(get(&server, "/inside.asc").ends_with("inside"));
    for path in [
        "/../secret.asc",
        "/%2e%2e/secret.asc",
        "/up/secret.asc",
        "/link.asc",
        "/inner.asc",
        "/root/etc/passwd",
        "/dir.asc",
        "/fifo.asc",
        "/.Packages.portage_lockfile",
        "/missing.asc",
        "/",
        "/?inside.asc",
        "http://x/../secret.asc",
    ] {
        let answer = get(&server, path);
        assert!(answer.starts_with("HTTP/1.1 404 ") && !answer.contains("secret"), "{path}: {answer}");
    }
    let put = ask(&server, "PUT /inside.asc HTTP/1.1\r\nContent-Length: 0");
    assert!(put.starts_with("HTTP/1.1 405 "), "{put}");
    assert!(ask(&server, "nonsense").starts_with("HTTP/1.1 400 "));
    assert!(start(&root.join("missing"), "127.0.0.1:0".parse().unwrap()).is_err());
}
