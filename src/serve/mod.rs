//! A web server for a directory of binary packages. It only reads. It knows neither TLS nor users: that is the task of a proxy before it.
//!
//! [`files`] decides what a path leads to, [`answer`] decides what a request gets (pure), and this file moves the bytes.

use std::convert::Infallible;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use crate::base::error::{Context, Kind, Result};
use crate::base::text::plain;
use answer::{Answer, Wanted};
use files::Directory;

mod answer;
mod files;

/// Greatest number of clients at once. Others wait.
const CLIENTS: usize = 256;
/// Longest time for the headers of a request.
const HEADERS: Duration = Duration::from_secs(15);
/// Bytes that are read from a file at once.
const CHUNK: u64 = 64 << 10;

/// A running server. It ends with the process.
#[derive(Debug)]
pub struct Server {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// A line for each answered request.
    pub log: Receiver<String>,
}

/// Serves the directory `root` on `address`, in a thread of its own.
///
/// # Errors
/// [`Kind::Usage`] if the directory cannot be opened, [`Kind::System`] if the address cannot be used.
pub fn start(root: &Path, address: SocketAddr) -> Result<Server> {
    let directory = Directory::open(root).context(Kind::Usage, || format!("opening {}", root.display()))?;
    let listening = || format!("listening on {address}");
    let listener = TcpListener::bind(address).system(listening)?;
    listener.set_nonblocking(true).system(listening)?;
    let address = listener.local_addr().system(listening)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().system(listening)?;
    let (log, lines) = channel();
    std::thread::Builder::new()
        .name("serve".to_owned())
        .spawn(move || runtime.block_on(accept(listener, Arc::new(directory), log)))
        .system(listening)?;
    Ok(Server { address, log: lines })
}

async fn accept(listener: TcpListener, directory: Arc<Directory>, log: Sender<String>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return drop(log.send(format!("the server ended: {error}"))),
    };
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptor is free. Some connection will end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (directory, log) = (directory.clone(), log.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = respond(&request, &directory, &log);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADERS);
            // A client that disconnects is not an error of the server.
            server.serve_connection(TokioIo::new(stream), service).await.ok();
            drop(place);
        });
    }
}

/// Answers a request, and logs it.
fn respond(request: &Request<Incoming>, directory: &Directory, log: &Sender<String>) -> Response<Part> {
    let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let wanted = Wanted {
        method: request.method().as_str(),
        if_none_match: header(hyper::header::IF_NONE_MATCH),
        if_modified_since: header(hyper::header::IF_MODIFIED_SINCE),
        if_range: header(hyper::header::IF_RANGE),
        range: header(hyper::header::RANGE),
    };
    let found = directory.find(request.uri().path());
    let answer = answer::answer(&wanted, found.as_ref().map(|found| &found.facts));
    let line = format!("{} {} {}", answer.status, wanted.method, request.uri().path());
    // The server goes on if nobody reads the log.
    log.send(plain(&line, 300)).ok();
    response(answer, found.map(|found| found.file))
}

fn response(answer: Answer, file: Option<File>) -> Response<Part> {
    let part = match (answer.body, file) {
        (Some(range), Some(file)) => Part { file: Some(file), at: range.start, end: range.end },
        _ => Part { file: None, at: 0, end: 0 },
    };
    let mut response = Response::new(part);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// A part of a file as the body of an answer.
#[derive(Debug)]
struct Part {
    file: Option<File>,
    at: u64,
    end: u64,
}

impl Body for Part {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        let left = self.end - self.at;
        let Some(file) = self.file.as_ref().filter(|_| left > 0) else { return Poll::Ready(None) };
        let mut bytes = vec![0; left.min(CHUNK) as usize];
        match file.read_at(&mut bytes, self.at) {
            // The connection breaks off, so that the client sees that the file has become shorter.
            Ok(0) => Poll::Ready(Some(Err(std::io::ErrorKind::UnexpectedEof.into()))),
            Ok(count) => {
                bytes.truncate(count);
                self.at += count as u64;
                Poll::Ready(Some(Ok(Frame::data(bytes.into()))))
            }
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.file.is_none() || self.at == self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}

#[cfg(test)]
mod tests;
