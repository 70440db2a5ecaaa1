//! Downloads from misbehaving servers, and mirrors with signatures by GnuPG.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use super::download::{NamedBy, Request as Download, download};
use super::obtain::{Received, fetch};
use super::server::{Request, Server, head, honest};
use super::*;
use crate::base::digest::{Algorithm, Blake2b, Sha256, Sha512};
use crate::base::error::{Error, Kind};
use crate::base::progress::{Event, Progress, Silent};
use crate::base::text::printable;
use crate::base::time::now;
use crate::fs::rewound;
use crate::lockfile::{Locked, LockedFile};
use crate::net::http::{Http, Patience};
use crate::recipe::BaseSpec;
use crate::verify::gnupg::{Gpg, gpg};
use crate::verify::verify;

mod attacks;
mod fetched;
mod forms;
mod git;
mod git_server;
mod liars;
mod locked;
mod mirror;
mod signed_file;
mod snapshot;

fn http() -> Http {
    Http::with(Patience {
        // A loaded machine makes honest servers pause, too.
        stall: Duration::from_secs(3),
        connect: Duration::from_secs(2),
        document: Duration::from_secs(10),
        pause: Duration::from_millis(10),
        repeat: 3,
    })
}

fn data() -> Vec<u8> {
    (0..300_000u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn sha512(bytes: &[u8]) -> String {
    Sha512::of(bytes).hex()
}

/// Locates the stage3 of a recipe.
fn locate(job: &Job, at: &Site<'_>) -> Result<SourceFile> {
    Ok(Wanted::base(job)?.locate(at)?.file().unwrap())
}

/// Keeps warnings and notes.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Progress for Heard {
    fn emit(&self, event: Event<'_>) {
        if let Event::Warn(text) | Event::Note(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

struct Case {
    store: Store,
    data: Vec<u8>,
    _home: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { store: Store::open(home.path()).unwrap(), data: data(), _home: home }
    }

    fn get(&self, servers: &[&Server]) -> Result<Received> {
        let urls: Vec<String> = servers.iter().map(|server| format!("{}/f", server.url)).collect();
        let sha = Sha512::of(&self.data);
        let wanted = Download {
            name: "f",
            urls: &urls,
            size: Some(self.data.len() as u64),
            sha512: Some(sha),
            blake2b: None,
            sha256: None,
            named_by: NamedBy::Signer,
            offline: None,
        };
        let got = download(&http(), &wanted, &self.store, &mut |_| Ok(()), &Silent);
        if let Ok(got) = &got {
            let mut bytes = Vec::new();
            rewound(&got.file)?.read_to_end(&mut bytes).unwrap();
            assert!(bytes == self.data);
            assert_eq!(got.sha512, sha);
            assert!(self.left().is_empty(), "{:?}", self.left());
        } else {
            assert!(self.store.blob(&sha)?.is_none());
        }
        got
    }

    /// Returns the names in the directory of partial downloads.
    fn left(&self) -> Vec<String> {
        let dir = self.store.root().join("blobs/partial");
        fs_err::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Returns the content of the partial download.
    fn part(&self) -> Vec<u8> {
        let name = self.left().into_iter().find(|name| name.ends_with(".part")).unwrap();
        fs_err::read(self.store.root().join("blobs/partial").join(name)).unwrap()
    }
}

fn good() -> Server {
    Server::files(HashMap::from([("/f".to_owned(), data())]))
}

#[track_caller]
fn fails(result: Result<Received>, kind: Kind, why: &str) -> Error {
    let error = result.map(|_| ()).unwrap_err();
    let text = format!("{error} {}", error.details().unwrap_or_default());
    assert!(error.kind() == kind && text.contains(why), "{kind:?} {why}: {error:?}");
    assert!(text.contains("http://127.0.0.1") && error.hint().is_some(), "{error:?}");
    error
}

#[test]
fn a_file_is_fetched_once() {
    let (case, server) = (Case::new(), good());
    case.get(&[&server]).unwrap();
    case.get(&[&server]).unwrap();
    assert_eq!(server.seen().len(), 1);
    let request = &server.seen()[0];
    assert!(request.headers["user-agent"].starts_with("quern-builder/"));
    assert_eq!(request.headers["accept-encoding"], "identity");
}

#[test]
fn a_damaged_blob_is_fetched_again() {
    let (case, server) = (Case::new(), good());
    let path = case.store.blob_path(&Sha512::of(&case.data));
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, b"damaged").unwrap();
    case.get(&[&server]).unwrap();
}

#[test]
fn a_broken_download_resumes_without_a_byte_sent_twice() {
    let sent = std::sync::Arc::new(Mutex::new(0));
    let count = sent.clone();
    let server = Server::start(move |request: &Request, stream| {
        let data = data();
        let from = request.from().unwrap_or(0);
        let to = data.len().min(from + 500_000);
        *count.lock().unwrap() += to - from;
        if from == 0 {
            head(stream, "200 OK", &[("ETag", "\"one\""), ("Content-Length", &data.len().to_string())])?;
        } else {
            assert_eq!(request.headers["if-range"], "\"one\"");
            let range = format!("bytes {from}-{}/{}", data.len() - 1, data.len());
            head(
                stream,
                "206 Partial Content",
                &[("Content-Range", &range), ("Content-Length", &(data.len() - from).to_string())],
            )?;
        }
        stream.write_all(&data[from..to])
    });
    let case = Case::new();
    case.get(&[&server]).unwrap();
    assert_eq!(*sent.lock().unwrap(), case.data.len());
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_later_run_resumes_from_another_mirror() {
    let breaks = Server::start(|request: &Request, stream| {
        if request.number > 0 {
            return Ok(());
        }
        head(stream, "200 OK", &[("Content-Length", &data().len().to_string())])?;
        stream.write_all(&data()[..700_000])
    });
    let case = Case::new();
    fails(case.get(&[&breaks]), Kind::Network, "connection closed");
    let kept = case.part().len();
    assert!(kept > 0 && case.part() == case.data[..kept]);
    let server = good();
    case.get(&[&server]).unwrap();
    assert_eq!(server.seen()[0].from(), Some(kept));
    assert!(!server.seen()[0].headers.contains_key("if-range"));
}

/// Writes a partial download of `bytes`, as a killed run leaves it.
fn with_part(bytes: &[u8]) -> Case {
    let case = Case::new();
    let dir = case.store.root().join("blobs/partial");
    fs_err::create_dir_all(&dir).unwrap();
    fs_err::write(dir.join(format!("f-{}.part", &sha512(&case.data)[..16])), bytes).unwrap();
    case
}

#[test]
fn the_partial_download_of_a_killed_run_is_used_or_discarded() {
    let data = data();
    let server = good();
    with_part(&data[..1000]).get(&[&server]).unwrap();
    assert_eq!(server.seen()[0].from(), Some(1000));
    // The partial download is complete: no request is sent.
    with_part(&data).get(&[&server]).unwrap();
    assert_eq!(server.seen().len(), 1);
    // Zeros, as after a power failure, and more bytes than the file has.
    with_part(&vec![0; 1000]).get(&[&server]).unwrap();
    with_part(&vec![0; data.len()]).get(&[&server]).unwrap();
    with_part(&vec![0; data.len() + 1]).get(&[&server]).unwrap();
}

#[test]
fn a_complete_download_without_a_known_digest_is_not_requested_again() {
    let (case, server) = (Case::new(), good());
    let urls = [format!("{}/f", server.url)];
    let wanted = Download {
        name: "f",
        urls: &urls,
        size: None,
        sha512: None,
        blake2b: None,
        sha256: None,
        named_by: NamedBy::Signer,
        offline: None,
    };
    let partial = case.store.root().join("blobs/partial");
    fs_err::create_dir_all(&partial).unwrap();
    let left = |bytes: &[u8]| {
        fs_err::write(partial.join("f.part"), bytes).unwrap();
        let note = format!(r#"{{"url":"{}/f","validator":"\"one\"","size":{}}}"#, server.url, data().len());
        fs_err::write(partial.join("f.json"), note).unwrap();
    };
    let mut judge =
        |file: &File| match hashing::of_file(file, &[Algorithm::Sha512], "f", &Silent)?.0.sha512().unwrap().hex() {
            found if found == sha512(&data()) => Ok(()),
            _ => Err(Error::refused("bad signature")),
        };
    left(&data());
    download(&http(), &wanted, &case.store, &mut judge, &Silent).unwrap();
    assert_eq!(server.seen().len(), 0);
    // Other bytes of that length, as after a power failure: the whole file is fetched.
    left(&vec![0; data().len()]);
    download(&http(), &wanted, &case.store, &mut judge, &Silent).unwrap();
    assert_eq!(server.seen().iter().map(Request::from).collect::<Vec<_>>(), [None]);
    // Half of the file is resumed with the same validator.
    left(&data()[..1000]);
    download(&http(), &wanted, &case.store, &mut judge, &Silent).unwrap();
    assert_eq!(server.seen().last().unwrap().from(), Some(1000));
}

#[test]
fn servers_without_ranges_send_the_whole_file_again() {
    let bad_range = Server::start(|request: &Request, stream| match request.from() {
        Some(_) => {
            let data = data();
            let range = format!("bytes 0-{}/{}", data.len() - 1, data.len());
            head(
                stream,
                "206 Partial Content",
                &[("Content-Range", &range), ("Content-Length", &data.len().to_string())],
            )?;
            stream.write_all(&data)
        }
        None => honest(request, stream, &data()),
    });
    let unsatisfiable = Server::start(|request: &Request, stream| match request.from() {
        Some(_) => head(stream, "416 Range Not Satisfiable", &[("Content-Length", "0")]),
        None => honest(request, stream, &data()),
    });
    let ignores = Server::start(|request: &Request, stream| {
        let plain = Request { headers: HashMap::new(), ..request.clone() };
        honest(&plain, stream, &data())
    });
    for server in [bad_range, unsatisfiable, ignores] {
        with_part(&data()[..1000]).get(&[&server]).unwrap();
    }
}

#[test]
fn a_file_that_changes_during_the_download_is_fetched_again() {
    let server = Server::start(|request: &Request, stream| {
        if request.number == 0 {
            head(stream, "200 OK", &[("Content-Length", &data().len().to_string())])?;
            return stream.write_all(&vec![1; 600_000]);
        }
        honest(request, stream, &data())
    });
    let case = Case::new();
    case.get(&[&server]).unwrap();
    assert_eq!(server.seen().last().unwrap().from(), None);
}

#[test]
fn wrong_bytes_are_refused_and_the_next_mirror_is_used() {
    let mut other = data();
    other[12345] ^= 1;
    let bad = Server::files(HashMap::from([("/f".to_owned(), other)]));
    let case = Case::new();
    fails(case.get(&[&bad]), Kind::Refused, "SHA-512");
    assert!(case.part().is_empty());
    case.get(&[&bad, &good()]).unwrap();
}

#[test]
fn endless_and_oversized_answers_stop_at_the_signed_size() {
    let endless = Server::start(|_, stream| {
        head(stream, "200 OK", &[])?;
        loop {
            stream.write_all(&[0; 65536])?;
        }
    });
    let longer = Server::files(HashMap::from([("/f".to_owned(), [data(), vec![0]].concat())]));
    let case = Case::new();
    fails(case.get(&[&endless]), Kind::Network, "more than 1200000 bytes");
    fails(case.get(&[&longer]), Kind::Refused, "has 1200001 bytes");
    assert!(case.part().len() <= case.data.len());
    case.get(&[&endless, &longer, &good()]).unwrap();
}

#[test]
fn short_stalled_and_slow_answers_are_errors() {
    let short = Server::start(|_, stream| {
        head(stream, "200 OK", &[])?;
        stream.write_all(&[0; 1000])
    });
    let stalled = Server::start(|_, stream| {
        head(stream, "200 OK", &[("Content-Length", "1200000")])?;
        std::thread::sleep(Duration::from_secs(3600));
        Ok(())
    });
    let slow = Server::start(|_, stream| {
        head(stream, "200 OK", &[("Content-Length", "1200000")])?;
        loop {
            stream.write_all(b"x")?;
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let silent = Server::start(|_, _| {
        std::thread::sleep(Duration::from_secs(3600));
        Ok(())
    });
    let case = Case::new();
    fails(case.get(&[&short]), Kind::Network, "ended after 1000 of 1200000");
    fails(case.get(&[&stalled]), Kind::Network, "stalled");
    fails(case.get(&[&slow]), Kind::Network, "too slow");
    fails(case.get(&[&silent]), Kind::Network, "no answer within");
    // The bytes of misbehaving mirrors do not damage the download from the honest one.
    case.get(&[&short, &slow, &good()]).unwrap();
}

#[test]
fn http_statuses_lead_to_errors_or_retries() {
    let busy = Server::start(|request: &Request, stream| match request.number {
        0 | 1 => head(stream, "503 Service Unavailable", &[("Retry-After", "0"), ("Content-Length", "0")]),
        _ => honest(request, stream, &data()),
    });
    Case::new().get(&[&busy]).unwrap();
    let always = Server::start(|_, stream| head(stream, "503 Service Unavailable", &[("Content-Length", "0")]));
    fails(Case::new().get(&[&always]), Kind::Network, "503");
    assert_eq!(always.seen().len(), 3);
    let later = Server::start(|_, stream| {
        head(stream, "503 Service Unavailable", &[("Retry-After", "9999"), ("Content-Length", "0")])
    });
    fails(Case::new().get(&[&later]), Kind::Network, "503");
    assert_eq!(later.seen().len(), 1);
    let empty = Server::files(HashMap::new());
    fails(Case::new().get(&[&empty]), Kind::Network, "404");
    let error = fails(Case::new().get(&[&empty, &always]), Kind::Network, "404");
    assert!(error.details().unwrap().contains("503"));
}

#[test]
fn redirects_web_pages_and_compression_are_handled() {
    let circle = Server::start(|_, stream| head(stream, "302 Found", &[("Location", "/f"), ("Content-Length", "0")]));
    fails(Case::new().get(&[&circle]), Kind::Network, "more than 5 times");
    let moved = Server::start(|request: &Request, stream| match request.path.as_str() {
        "/f" => head(stream, "301 Moved Permanently", &[("Location", "/g"), ("Content-Length", "0")]),
        _ => honest(request, stream, &data()),
    });
    Case::new().get(&[&moved]).unwrap();
    let page = Server::start(|_, stream| {
        head(stream, "200 OK", &[("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "6")])?;
        stream.write_all(b"<html>")
    });
    fails(Case::new().get(&[&page]), Kind::Network, "web page");
    let gzip = Server::start(|_, stream| {
        head(stream, "200 OK", &[("Content-Encoding", "gzip"), ("Content-Length", "1200000")])
    });
    fails(Case::new().get(&[&gzip]), Kind::Network, "compresses");
    Case::new().get(&[&circle, &page, &gzip, &good()]).unwrap();
    let mut escape = Error::network("");
    let rude = Server::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: http://\x1b[31m/\r\nContent-Length: 0\r\n\r\n")
    });
    if let Err(error) = Case::new().get(&[&rude]) {
        escape = error;
    }
    assert!(!format!("{escape}{escape:?}").contains('\u{1b}'));
}

#[test]
fn simultaneous_runs_download_once() {
    let slow = Server::start(|request: &Request, stream| {
        std::thread::sleep(Duration::from_millis(200));
        honest(request, stream, &data())
    });
    let case = Case::new();
    std::thread::scope(|scope| {
        let one = scope.spawn(|| case.get(&[&slow]).unwrap().size);
        let two = scope.spawn(|| case.get(&[&slow]).unwrap().size);
        assert_eq!(one.join().unwrap(), two.join().unwrap());
    });
    assert_eq!(slow.seen().len(), 1);
}

#[test]
fn without_a_digest_the_signature_decides_and_only_the_same_file_is_resumed() {
    let case = Case::new();
    let bad = Server::files(HashMap::from([("/f".to_owned(), b"bad".to_vec())]));
    let server = good();
    let urls = [format!("{}/f", bad.url), format!("{}/f", server.url)];
    let wanted = Download {
        name: "f",
        urls: &urls,
        size: None,
        sha512: None,
        blake2b: None,
        sha256: None,
        named_by: NamedBy::Signer,
        offline: None,
    };
    let mut judge = |file: &File| match file.metadata().unwrap().len() {
        3 => Err(Error::refused("bad signature")),
        _ => Ok(()),
    };
    let heard = Heard::default();
    let got = download(&http(), &wanted, &case.store, &mut judge, &heard).unwrap();
    assert_eq!(got.sha512, Sha512::of(&case.data));
    assert!(heard.0.lock().unwrap().iter().any(|line| line.contains("bad signature") && line.contains("next mirror")));
    // A partial download of unknown origin is not resumed.
    fs_err::write(case.store.root().join("blobs/partial/f.part"), &case.data[..1000]).unwrap();
    download(&http(), &wanted, &case.store, &mut judge, &Silent).unwrap();
    assert_eq!(server.seen().last().unwrap().from(), None);
}

#[test]
fn the_size_of_documents_is_limited() {
    let long = Server::files(HashMap::from([("/d".to_owned(), vec![b'x'; 3000])]));
    let endless = Server::start(|_, stream| {
        head(stream, "200 OK", &[])?;
        loop {
            stream.write_all(&[b'x'; 4096])?;
        }
    });
    assert_eq!(http().document(&format!("{}/d", long.url), 3000).unwrap().len(), 3000);
    for server in [&long, &endless] {
        assert!(http().document(&format!("{}/d", server.url), 2999).unwrap_err().why.contains("larger than"));
    }
    let closed = http().document("http://127.0.0.1:1/d", 1).unwrap_err();
    assert!(closed.why.contains("cannot connect"), "{closed}");
}
