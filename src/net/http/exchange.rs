//! Requests with a method, headers and a body, for protocols such as that of registries. No redirect is followed here.

use std::fmt;
use std::io::Read;
use std::time::{Duration, Instant};

use reqwest::Method as HttpMethod;
use reqwest::blocking::{Body as Outgoing, Response};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderValue};

use super::address::Address;
use super::{Body, Failure, FailureKind, Http, Patience, failure, refusal};
use crate::base::text::printable;

/// A slower upload would take for ever: bytes in a second.
const SLOWEST_UPLOAD: u64 = 16 * 1024;

/// A method of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Patch,
    Put,
}

/// The body of a request.
pub(crate) enum Content {
    Nothing,
    Bytes(Vec<u8>),
    /// Exactly this number of bytes of a reader.
    Stream(Box<dyn Read + Send>, u64),
}

/// A request.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) address: &'a Address,
    pub(crate) headers: &'a [(&'static str, String)],
    /// The value of `Authorization`.
    pub(crate) authorization: Option<&'a str>,
    pub(crate) content: Content,
    /// Time that the server may need beyond that for the transfer.
    pub(crate) grace: Duration,
}

/// The head of an answer of any status, with its body to be read.
pub(crate) struct Answer {
    response: Response,
    url: String,
    patience: Patience,
}

impl Http {
    /// Makes clients that follow no redirect.
    pub(crate) fn that_stays(patience: Patience) -> Self {
        Self { patience, stays: true, ..Self::default() }
    }

    /// Sends a request, once. An answer of any status is not a failure.
    pub(crate) fn send(&self, request: Request<'_>) -> Result<Answer, Failure> {
        let url = request.address.to_string();
        let never = |why: String| failure(&url, why, FailureKind::Never);
        let method = match request.method {
            Method::Get => HttpMethod::GET,
            Method::Head => HttpMethod::HEAD,
            Method::Post => HttpMethod::POST,
            Method::Patch => HttpMethod::PATCH,
            Method::Put => HttpMethod::PUT,
        };
        let client = self.client(&request.address.0).map_err(never)?;
        let mut sent = client.request(method, request.address.0.clone()).header(ACCEPT_ENCODING, "identity");
        for (name, value) in request.headers {
            sent = sent.header(*name, value);
        }
        if let Some(authorization) = request.authorization {
            let mut value = HeaderValue::from_str(authorization)
                .map_err(|_| never("the credentials have a character that no header can have".to_owned()))?;
            value.set_sensitive(true);
            sent = sent.header(AUTHORIZATION, value);
        }
        let transfer = match &request.content {
            Content::Nothing => 0,
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Stream(_, size) => *size,
        };
        sent = match request.content {
            Content::Nothing if matches!(request.method, Method::Get | Method::Head) => sent,
            Content::Nothing => sent.body(Vec::new()),
            Content::Bytes(bytes) => sent.body(bytes),
            Content::Stream(reader, size) => sent.body(Outgoing::sized(reader, size)),
        };
        let limit = self.patience.stall + request.grace + Duration::from_secs(transfer / SLOWEST_UPLOAD);
        let response = sent.timeout(limit).send().map_err(|error| match error.is_body() {
            true => failure(&url, "the connection broke off during the upload".to_owned(), FailureKind::Again(None)),
            false => self.explain(&url, &error.without_url()),
        })?;
        Ok(Answer { response, url, patience: self.patience.clone() })
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Returns the value of a header, if it is ASCII.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// Returns the values of a header that may stand several times.
    pub(crate) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.response.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// Returns the failure that the status means.
    pub(crate) fn failure(&self) -> Failure {
        refusal(&self.url, self.response.status(), self.response.headers())
    }

    /// Returns a failure of this request that no other request can mend.
    pub(crate) fn wrong(&self, why: impl Into<String>) -> Failure {
        failure(&self.url, why.into(), FailureKind::Never)
    }

    /// Returns the file, whose first byte is number `from` if the server can.
    pub(crate) fn file(self, from: u64) -> Result<Body, Failure> {
        // The time limit of the request holds for each read, too.
        Body::new(self.response, self.url, from, self.patience.stall)
    }

    /// Reads a document of at most `max` bytes.
    pub(crate) fn document(self, max: u64) -> Result<Vec<u8>, Failure> {
        let deadline = Instant::now() + self.patience.document;
        self.file(0)?.document(max, deadline)
    }

    /// Reads the beginning of the body of an error, of at most `max` bytes; whatever the server gives.
    pub(crate) fn complaint(mut self, max: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let deadline = Instant::now() + self.patience.stall;
        let mut buffer = [0; 4096];
        while (bytes.len() as u64) < max && Instant::now() < deadline {
            match self.response.read(&mut buffer) {
                Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
                _ => break,
            }
        }
        bytes.truncate(usize::try_from(max).unwrap_or(usize::MAX));
        bytes
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status(), printable(&self.url))
    }
}
