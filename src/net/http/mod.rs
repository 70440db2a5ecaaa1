//! The HTTP client. Only this room uses the HTTP crate. Answers are bounded, and nothing in them is trusted.

use crate::base::text::printable;
use crate::base::time::{now, readable};
use std::error::Error as StdError;
use std::fmt;
use std::io::Read;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use reqwest::blocking::{Client, ClientBuilder, Response};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, RETRY_AFTER,
};
use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};

pub(crate) mod address;
pub(crate) mod exchange;

/// Redirects that are followed for one request.
pub(crate) const REDIRECTS: usize = 5;
/// Longest wait that a server may ask for. A server that asks for more counts as down.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Fewest bytes in one stall time. A slower download would take for ever.
const SLOWEST: u64 = 16 * 1024;

/// Timeouts. Tests use short ones.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    /// Longest time without a byte.
    pub(crate) stall: Duration,
    pub(crate) connect: Duration,
    /// Longest time for a small document.
    pub(crate) document: Duration,
    /// Pause before the first repetition. It doubles every time.
    pub(crate) pause: Duration,
    pub(crate) repeat: u32,
}

#[cfg(test)]
impl Default for Patience {
    /// Returns timeouts for tests with mirrors on this machine.
    fn default() -> Self {
        Self {
            stall: Duration::from_millis(1000),
            connect: Duration::from_secs(5),
            document: Duration::from_secs(4),
            pause: Duration::from_millis(10),
            repeat: 3,
        }
    }
}

#[cfg(not(test))]
impl Default for Patience {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(60),
            connect: Duration::from_secs(20),
            document: Duration::from_secs(120),
            pause: Duration::from_millis(500),
            repeat: 3,
        }
    }
}

/// HTTP clients, created on first use.
#[derive(Debug, Default)]
pub(crate) struct Http {
    pub(crate) patience: Patience,
    direct: OnceLock<Client>,
    proxied: OnceLock<Client>,
    /// Follow no redirect: the caller decides what it sends to another server.
    stays: bool,
}

/// A failed request.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) url: String,
    pub(crate) why: String,
    pub(crate) kind: FailureKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The server does not have it.
    Missing,
    /// Another request may help, after this time if the server named one.
    Again(Option<Duration>),
    /// The server has no other version than the one that the client has.
    Unchanged,
    /// The server does not give the range. A request for the whole file may help.
    Range,
    /// The server wants credentials, or others.
    Denied,
    /// The connection failed, or no answer came in time. Another mirror may be up.
    Unreachable,
    /// Another request to this server cannot help.
    Never,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", printable(&self.url), self.why)
    }
}

/// The headers by which a server recognizes the version of a document that a client has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DocumentVersion {
    pub(crate) etag: Option<String>,
    /// `Last-Modified`, as the server wrote it.
    pub(crate) modified: Option<String>,
}

/// The body of an answer.
pub(crate) struct Body {
    response: Response,
    url: String,
    /// Offset of its first byte in the file.
    pub(crate) start: u64,
    /// Size of the whole file, if the server names it.
    pub(crate) total: Option<u64>,
    /// A strong validator for resuming.
    pub(crate) validator: Option<String>,
    /// The version of the document.
    version: DocumentVersion,
    stall: Duration,
    window: (Instant, u64),
}

impl Http {
    #[cfg(test)]
    pub(crate) fn with(patience: Patience) -> Self {
        Self { patience, ..Self::default() }
    }

    /// Downloads a small document of at most `max` bytes. Repeats the request if that may help.
    pub(crate) fn document(&self, url: &str, max: u64) -> Result<Vec<u8>, Failure> {
        self.newer_document(url, max, &DocumentVersion::default()).map(|(bytes, _)| bytes)
    }

    /// Downloads a small document unless the server has the version `known` ([`FailureKind::Unchanged`]).
    pub(crate) fn newer_document(
        &self,
        url: &str,
        max: u64,
        known: &DocumentVersion,
    ) -> Result<(Vec<u8>, DocumentVersion), Failure> {
        let mut tries = 0;
        loop {
            match self.document_once(url, max, known) {
                Ok(document) => return Ok(document),
                Err(failure) => match self.wait(&failure, tries) {
                    Some(pause) => std::thread::sleep(pause),
                    None => return Err(failure),
                },
            }
            tries += 1;
        }
    }

    /// Returns the pause before try number `tries`; `None` if another try cannot help.
    pub(crate) fn wait(&self, failure: &Failure, tries: u32) -> Option<Duration> {
        match failure.kind {
            FailureKind::Again(after) if tries + 1 < self.patience.repeat => match after {
                Some(after) if after > LONGEST_WAIT => None,
                Some(after) => Some(after),
                None => Some(self.patience.pause * 2u32.saturating_pow(tries)),
            },
            _ => None,
        }
    }

    fn document_once(
        &self,
        url: &str,
        max: u64,
        known: &DocumentVersion,
    ) -> Result<(Vec<u8>, DocumentVersion), Failure> {
        let begun = Instant::now();
        let conditions = [(IF_NONE_MATCH, known.etag.as_deref()), (IF_MODIFIED_SINCE, known.modified.as_deref())];
        let mut body = self.ask(url, 0, &conditions)?;
        let bytes = body.document(max, begun + self.patience.document)?;
        Ok((bytes, body.version))
    }

    /// Requests a file from byte `from` on; with a validator, only if it is still the same file. The answer may still begin at 0: see
    /// [`Body::start`].
    pub(crate) fn open(&self, url: &str, from: u64, validator: Option<&str>) -> Result<Body, Failure> {
        self.ask(url, from, &[(IF_RANGE, validator.filter(|_| from > 0))])
    }

    fn ask(&self, url: &str, from: u64, conditions: &[(HeaderName, Option<&str>)]) -> Result<Body, Failure> {
        let never = |why: String| failure(url, why, FailureKind::Never);
        let parsed = Url::parse(url).map_err(|error| never(format!("not a URL: {error}")))?;
        // With a content encoding, sizes and ranges would not be those of the file.
        let mut request = self.client(&parsed).map_err(never)?.get(parsed).header(ACCEPT_ENCODING, "identity");
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        for (name, value) in conditions {
            if let Some(value) = value {
                request = request.header(name, *value);
            }
        }
        let response = request.send().map_err(|error| self.explain(url, &error))?;
        if response.status() == StatusCode::NOT_MODIFIED && conditions.iter().any(|(_, value)| value.is_some()) {
            return Err(failure(url, "the server has nothing newer".to_owned(), FailureKind::Unchanged));
        }
        Body::new(response, url.to_owned(), from, self.patience.stall)
    }

    /// Returns the client for a URL. Servers of this machine are never asked through a proxy, which would look on its own machine.
    fn client(&self, url: &Url) -> Result<&Client, String> {
        let local = address::is_loopback(url);
        let cell = if local { &self.direct } else { &self.proxied };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let builder = || if local { self.builder().no_proxy() } else { self.builder() };
        let client = builder().build().or_else(|error| {
            // Plain HTTP works without CA certificates on this machine: the files are signed.
            if url.scheme() == "http" { builder().tls_certs_only([]).build() } else { Err(error) }
        });
        let client = client.map_err(|error| {
            format!("cannot set up TLS: {} (is the package ca-certificates installed?)", deepest(&error))
        })?;
        Ok(cell.get_or_init(|| client))
    }

    fn builder(&self) -> ClientBuilder {
        // This fails if a provider was installed before, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let policy = reqwest::redirect::Policy::custom(|attempt| match forbidden(attempt.previous(), attempt.url()) {
            Some(why) => attempt.error(why),
            None => attempt.follow(),
        });
        let policy = if self.stays { reqwest::redirect::Policy::none() } else { policy };
        Client::builder()
            .user_agent(concat!("quern-builder/", env!("CARGO_PKG_VERSION")))
            .redirect(policy)
            .referer(false)
            .connect_timeout(self.patience.connect)
            // For a blocking client this bounds the wait for the headers, and then each read.
            .timeout(self.patience.stall)
    }

    fn explain(&self, url: &str, error: &reqwest::Error) -> Failure {
        let (why, kind) = if error.is_redirect() {
            (deepest(error), FailureKind::Never)
        } else if error.is_connect() {
            // An unknown name or a closed port does not change within seconds, and the next mirror may be up.
            (format!("cannot connect: {}{}", deepest(error), clock(&deepest(error))), FailureKind::Unreachable)
        } else if error.is_timeout() {
            (format!("no answer within {} s", self.patience.stall.as_secs_f32()), FailureKind::Unreachable)
        } else if error.is_builder() {
            (deepest(error), FailureKind::Never)
        } else {
            (deepest(error), FailureKind::Again(None))
        };
        failure(url, why, kind)
    }
}

impl Body {
    /// Checks the head of an answer to a request for a file from byte `from` on.
    fn new(response: Response, url: String, from: u64, stall: Duration) -> Result<Self, Failure> {
        let never = |why: &str| Err(failure(&url, why.to_owned(), FailureKind::Never));
        let (status, headers) = (response.status(), response.headers());
        let start = match status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if from > 0 => from,
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
                return Err(failure(&url, "the server cannot continue there".to_owned(), FailureKind::Range));
            }
            _ => return Err(refusal(&url, status, headers)),
        };
        if text(headers, &CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
            return never("the server compresses the file although it was asked not to");
        }
        if text(headers, &CONTENT_TYPE).is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html")) {
            return never("the server answers with a web page (a login page, or a mirror that moved?)");
        }
        let total = if status == StatusCode::PARTIAL_CONTENT {
            match text(headers, &CONTENT_RANGE).and_then(content_range) {
                Some((first, total)) if first == from => total,
                _ => {
                    let why = "the server continues at another offset than the requested one";
                    return Err(failure(&url, why.to_owned(), FailureKind::Range));
                }
            }
        } else {
            text(headers, &CONTENT_LENGTH).and_then(|length| length.parse().ok())
        };
        let validator = validator_of(headers);
        let kept = |name| text(headers, name).filter(|value| value.len() <= 200).map(str::to_owned);
        let version = DocumentVersion { etag: kept(&ETAG), modified: kept(&LAST_MODIFIED) };
        Ok(Self { start, total, validator, version, stall, window: (Instant::now(), 0), response, url })
    }

    /// Reads a document of at most `max` bytes, until `deadline`.
    fn document(&mut self, max: u64, deadline: Instant) -> Result<Vec<u8>, Failure> {
        let too_large = || format!("the document is larger than {} KiB", max >> 10);
        if self.total.is_some_and(|total| total > max) {
            return Err(failure(&self.url, too_large(), FailureKind::Never));
        }
        let mut bytes = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            let count = self.read(&mut buffer)?;
            if count == 0 {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&buffer[..count]);
            if bytes.len() as u64 > max {
                return Err(failure(&self.url, too_large(), FailureKind::Never));
            }
            if Instant::now() > deadline {
                return Err(failure(&self.url, "the answer takes too long".to_owned(), FailureKind::Never));
            }
        }
    }

    /// Reads like [`Read::read`], with an explained failure.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let count = self.response.read(buffer).map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<reqwest::Error>());
            if error.kind() == std::io::ErrorKind::TimedOut || inner.is_some_and(reqwest::Error::is_timeout) {
                let why = format!("stalled: no byte for {} s", self.stall.as_secs_f32());
                return failure(&self.url, why, FailureKind::Again(None));
            }
            failure(&self.url, format!("broke off: {}", deepest(&error)), FailureKind::Again(None))
        })?;
        self.window.1 += count as u64;
        if self.window.0.elapsed() > self.stall {
            if count > 0 && self.window.1 < SLOWEST {
                let why = format!("too slow: {} bytes in {} s", self.window.1, self.stall.as_secs_f32());
                return Err(failure(&self.url, why, FailureKind::Never));
            }
            self.window = (Instant::now(), 0);
        }
        Ok(count)
    }
}

/// Returns the reason not to follow a redirect.
fn forbidden(previous: &[Url], next: &Url) -> Option<&'static str> {
    if previous.len() > REDIRECTS {
        Some("it redirects more than 5 times")
    } else if next.scheme() != "https" && previous.iter().any(|url| url.scheme() == "https") {
        Some("it redirects from https to a connection that is not protected")
    } else {
        None
    }
}

fn failure(url: &str, why: String, kind: FailureKind) -> Failure {
    Failure { url: url.to_owned(), why, kind }
}

fn refusal(url: &str, status: StatusCode, headers: &HeaderMap) -> Failure {
    let kind = match status.as_u16() {
        404 | 410 => FailureKind::Missing,
        401 | 403 => FailureKind::Denied,
        408 | 429 | 500 | 502 | 503 | 504 => {
            FailureKind::Again(text(headers, &RETRY_AFTER).and_then(|after| retry_after(after, SystemTime::now())))
        }
        _ => FailureKind::Never,
    };
    failure(url, format!("the server answers {status}"), kind)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Parses the value of Retry-After: seconds, or a date. A date in the past means at once.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let date = |value| httpdate::parse_http_date(value).ok().map(|date| date.duration_since(now).unwrap_or_default());
    value.trim().parse().ok().map(Duration::from_secs).or_else(|| date(value.trim()))
}

/// Returns the value for If-Range: a strong ETag, otherwise the date of the last change.
fn validator_of(headers: &HeaderMap) -> Option<String> {
    let etag = text(headers, &ETAG).filter(|etag| etag.starts_with('"'));
    etag.or_else(|| text(headers, &LAST_MODIFIED)).filter(|value| value.len() <= 200).map(str::to_owned)
}

/// Parses `bytes 5-9/10` into the first byte and the total.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = if total.trim() == "*" { None } else { Some(total.trim().parse().ok()?) };
    (first <= last && total.is_none_or(|total| last < total)).then_some((first, total))
}

/// Tells the time of this machine, if a server's certificate is not valid at that time.
fn clock(why: &str) -> String {
    if why.contains("certificate not valid yet") || why.contains("certificate expired") {
        format!(" (this machine's clock says {}; if that is wrong, set the clock)", readable(now()))
    } else {
        String::new()
    }
}

/// Returns the innermost cause in one printable line. The outer ones only repeat the URL.
fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    printable(&error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["bytes */10", "bytes 9-5/10", "bytes 5-10/10", "bits 5-9/10", "bytes -1-9/10", ""] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_server_names_the_pause_in_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:40 GMT", now), Some(Duration::from_secs(3)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:30 GMT", now), Some(Duration::ZERO));
        assert_eq!((retry_after("-1", now), retry_after("soon", now)), (None, None));
    }

    #[test]
    fn redirects_never_lead_downwards_nor_on_for_ever() {
        let url = |text: &str| Url::parse(text).unwrap();
        let (plain, safe) = (url("http://a/"), url("https://a/"));
        assert_eq!(forbidden(std::slice::from_ref(&plain), &safe), None);
        assert_eq!(forbidden(&[plain.clone(), safe.clone()], &safe), None);
        assert!(forbidden(&[plain.clone(), safe.clone()], &plain).unwrap().contains("not protected"));
        assert!(forbidden(&vec![plain.clone(); 5], &plain).is_none());
        assert!(forbidden(&vec![plain.clone(); 6], &plain).unwrap().contains("more than 5"));
    }

    #[test]
    fn only_validators_that_promise_the_same_bytes() {
        let mut headers = HeaderMap::new();
        headers.insert(ETAG, "W/\"weak\"".parse().unwrap());
        assert_eq!(validator_of(&headers), None);
        headers.insert(LAST_MODIFIED, "Mon, 10 Aug 2026 23:30:01 GMT".parse().unwrap());
        assert_eq!(validator_of(&headers).as_deref(), Some("Mon, 10 Aug 2026 23:30:01 GMT"));
        headers.insert(ETAG, "\"strong\"".parse().unwrap());
        assert_eq!(validator_of(&headers).as_deref(), Some("\"strong\""));
    }
}
