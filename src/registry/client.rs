//! Requests to one repository of a registry: with credentials for its own origin only, repeated where that may help.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;

use super::access::{Access, Value};
use super::credentials::Credentials;
use super::reference::Reference;
use super::upload::Stop;
use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::base::text::printable;
use crate::net::http::address::Address;
use crate::net::http::exchange::{Answer, Content, Method, Request};
use crate::net::http::{Failure, FailureKind, Http, Patience, REDIRECTS};
use crate::oci::Digest;

/// Largest part of an error's body that is read.
const COMPLAINT: u64 = 16 << 10;

/// A registry that is busy gets more tries than a mirror: there is only one.
const TRIES: u32 = 5;

/// Returns the timeouts for registries.
pub(super) fn patience() -> Patience {
    let patience = Patience::default();
    // Tests run on busy machines.
    let stall = if cfg!(test) { 2 * patience.stall } else { patience.stall };
    Patience { repeat: TRIES, stall, ..patience }
}

/// The purpose of a connection, which decides the rights to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Pull,
    Push,
}

/// A client for one repository.
pub(super) struct Client<'a> {
    pub(super) http: Http,
    /// `https://HOST/v2/`
    base: Address,
    reference: &'a Reference,
    access: Access,
    /// An answer came. Later, a missing one may be a gap in the network.
    reached: AtomicBool,
    ui: &'a dyn Progress,
}

/// The user's choices for a connection.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// Credentials of the user for the registry.
    pub credentials: Option<Credentials>,
    /// Use http without TLS, although the registry is on another machine.
    pub plain_http: bool,
}

/// A request that can be repeated.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) address: Address,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Makes the body.
    pub(super) content: Option<&'a dyn Fn() -> Content>,
    pub(super) grace: Duration,
}

impl<'a> Call<'a> {
    /// Makes a request without a body.
    pub(super) fn new(method: Method, address: Address) -> Self {
        Self { method, address, headers: Vec::new(), content: None, grace: Duration::ZERO }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn content(mut self, content: &'a dyn Fn() -> Content) -> Self {
        self.content = Some(content);
        self
    }

    pub(super) fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

/// The body of an error.
#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    errors: Vec<OneComplaint>,
}

#[derive(Deserialize)]
struct OneComplaint {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl<'a> Client<'a> {
    /// Makes a client. Asks a registry on this machine whether it speaks TLS. `sources` are other repositories of the registry to take blobs from.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if the host cannot be one.
    pub(super) fn new(
        reference: &'a Reference,
        connection: &Connection,
        purpose: Purpose,
        sources: &[String],
        ui: &'a dyn Progress,
    ) -> Result<Self> {
        let address = |scheme| Address::parse(&format!("{scheme}://{}/v2/", reference.server()));
        let wrong = |why| Error::usage(format!("{} cannot be reached: {why}", reference.host));
        let secure = address("https").map_err(wrong)?;
        let http = Http::that_stays(patience());
        let plain = connection.plain_http || secure.is_loopback() && !speaks_tls(&http, &secure);
        let base = if plain { address("http").map_err(wrong)? } else { secure };
        let rights = if purpose == Purpose::Push { "pull,push" } else { "pull" };
        let mut scopes = vec![format!("repository:{}:{rights}", reference.repository)];
        scopes.extend(sources.iter().map(|source| format!("repository:{source}:pull")));
        let access = Access::new(connection.credentials.clone(), scopes);
        Ok(Self { http, base, reference, access, reached: AtomicBool::new(false), ui })
    }

    /// Returns the address of a path in the repository, such as `blobs/DIGEST`.
    pub(super) fn at(&self, path: &str) -> Result<Address, Failure> {
        let path = format!("{}/{path}", self.reference.repository);
        self.base.join(&path).map_err(|why| Failure { url: path, why, kind: FailureKind::Never })
    }

    /// Sends a request. Repeats it after an answer or a failure that may be different next time.
    pub(super) fn call(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let mut tries = 0;
        loop {
            let failure = match self.once(call) {
                Ok(answer) if answer.status() >= 400 && matches!(answer.failure().kind, FailureKind::Again(_)) => {
                    self.refused(answer)
                }
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let Some(pause) = self.http.wait(&failure, tries) else { return Err(failure) };
            self.pause(&failure, pause);
            tries += 1;
        }
    }

    /// Waits before another try, and says why.
    pub(super) fn pause(&self, failure: &Failure, pause: Duration) {
        self.ui.note(&format!("{failure}; trying again"));
        std::thread::sleep(pause);
    }

    /// Sends a request once, and again if the registry wants other credentials. Follows redirects of requests without a body.
    pub(super) fn once(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let mut address = call.address.clone();
        let (mut redirects, mut renewed) = (0, false);
        loop {
            let own = address.has_origin_of(&self.base);
            let value = if own { self.access.value() } else { None };
            let answer = self.send(call, &address, value.as_ref())?;
            match answer.status() {
                401 if own && !renewed => {
                    self.access.renew(&self.http, &self.base, &answer, value.as_ref())?;
                    renewed = true;
                }
                301 | 302 | 303 | 307 | 308 if matches!(call.method, Method::Get | Method::Head) => {
                    redirects += 1;
                    if redirects > REDIRECTS {
                        return Err(answer.wrong(format!("it redirects more than {REDIRECTS} times")));
                    }
                    address = self.location(&answer, &address)?;
                }
                _ => return Ok(answer),
            }
        }
    }

    fn send(&self, call: &Call<'_>, address: &Address, value: Option<&Value>) -> Result<Answer, Failure> {
        let sent = self.http.send(Request {
            method: call.method,
            address,
            headers: &call.headers,
            authorization: value.map(|value| value.as_str()),
            content: call.content.map_or(Content::Nothing, |content| content()),
            grace: call.grace,
        });
        match sent {
            Ok(answer) => {
                self.reached.store(true, Ordering::Relaxed);
                Ok(answer)
            }
            Err(failure) if failure.kind == FailureKind::Unreachable && self.reached.load(Ordering::Relaxed) => {
                Err(Failure { kind: FailureKind::Again(None), ..failure })
            }
            Err(failure) => Err(failure),
        }
    }

    /// Returns the address that an answer names, relative to the address of the request.
    pub(super) fn location(&self, answer: &Answer, from: &Address) -> Result<Address, Failure> {
        let location =
            answer.header("location").ok_or_else(|| answer.wrong("the registry does not say where to go on"))?;
        let next = from
            .join(location)
            .map_err(|why| answer.wrong(format!("the registry goes on at an address that is {why}")))?;
        if self.base.is_protected() && !next.is_protected() {
            return Err(answer.wrong("the registry goes on at an address whose connection is not protected"));
        }
        Ok(next)
    }

    /// Returns the failure of an unexpected answer, with the words of the registry.
    pub(super) fn refused(&self, answer: Answer) -> Failure {
        let mut failure = answer.failure();
        let status = answer.status();
        let bytes = answer.complaint(COMPLAINT);
        let said: Option<Complaint> = serde_json::from_slice(&bytes).ok();
        let said = said.iter().flat_map(|said| &said.errors).map(|one| format!("{}: {}", one.code, one.message));
        let said = said.collect::<Vec<_>>().join(", ");
        if !said.is_empty() {
            failure.why = format!("{} ({})", failure.why, printable(&said));
        }
        if status == 413 {
            failure.why.push_str("; it, or a proxy before it, limits the size of uploads");
        }
        failure
    }

    /// Turns a failure into an error. `doing` names the operation and the object.
    fn error(&self, doing: &str, failure: &Failure) -> Error {
        let error = Error::network(doing).with_source(failure.to_string());
        let host = &self.reference.host;
        let denied = failure.kind == FailureKind::Denied;
        if denied && self.access.has_credentials() {
            error.with_hint(format!(
                "the registry refuses these credentials or this repository; `podman login {host}` renews them"
            ))
        } else if denied {
            error.with_hint(format!(
                "no credentials for {host} were found; `podman login {host}` or `docker login {host}` stores some"
            ))
        } else if failure.kind == FailureKind::Missing {
            error.with_hint("check the name and the tag; some registries need a new repository to be created first")
        } else if !self.base.is_protected() || !failure.why.contains("corrupt message") {
            error
        } else {
            error.with_hint("the server does not speak TLS; --plain-http connects without it")
        }
    }

    /// Turns the reason why a transfer stopped into an error.
    pub(super) fn stopped(&self, doing: &str, stop: Stop) -> Error {
        match stop {
            Stop::Remote(failure) => self.error(doing, &failure),
            Stop::Local(error) => error.within(doing),
        }
    }

    /// Tests whether the repository has a blob.
    pub(super) fn has_blob(&self, digest: &Digest) -> Result<bool, Failure> {
        let answer = self.call(&Call::new(Method::Head, self.at(&format!("blobs/{digest}"))?))?;
        match answer.status() {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refused(answer)),
        }
    }

    /// Stores a manifest or an index under a tag or its digest.
    pub(super) fn put_document(&self, name: &str, media_type: &str, bytes: &[u8]) -> Result<(), Failure> {
        let content = || Content::Bytes(bytes.to_vec());
        let call = Call::new(Method::Put, self.at(&format!("manifests/{name}"))?);
        let answer = self.call(&call.header("content-type", media_type).content(&content))?;
        match answer.status() {
            200..=202 => Ok(()),
            _ => Err(self.refused(answer)),
        }
    }
}

/// Tests whether a server speaks TLS, with any certificate.
fn speaks_tls(http: &Http, address: &Address) -> bool {
    let (authorization, content, grace) = (None, Content::Nothing, Duration::ZERO);
    match http.send(Request { method: Method::Get, address, headers: &[], authorization, content, grace }) {
        Ok(_) => true,
        Err(failure) => failure.why.contains("peer certificate"),
    }
}
