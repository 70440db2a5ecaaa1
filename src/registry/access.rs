//! The value of `Authorization`: a password, or a token of the server that the registry names.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::challenge::{self, Challenge};
use super::credentials::Credentials;
use crate::net::http::address::Address;
use crate::net::http::exchange::{Answer, Content, Method, Request};
use crate::net::http::{Failure, FailureKind, Http};

/// Largest answer of a token server.
const LARGEST: u64 = 256 << 10;

/// A value of `Authorization`.
pub(super) type Value = Arc<Zeroizing<String>>;

/// The access to one registry.
pub(super) struct Access {
    credentials: Option<Credentials>,
    /// The rights to ask for.
    scopes: Vec<String>,
    value: Mutex<Option<Value>>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// The answer of a token server.
#[derive(Deserialize)]
struct Token {
    token: Option<Zeroizing<String>>,
    access_token: Option<Zeroizing<String>>,
}

impl Access {
    pub(super) fn new(credentials: Option<Credentials>, scopes: Vec<String>) -> Self {
        Self { credentials, scopes, value: Mutex::new(None) }
    }

    /// Returns the value to send; `None` until the registry asks for one.
    pub(super) fn value(&self) -> Option<Value> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns true if the user has credentials for the registry.
    pub(super) fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// Makes a new value, after the registry `base` refused the value `used` with this answer.
    pub(super) fn renew(
        &self,
        http: &Http,
        base: &Address,
        answer: &Answer,
        used: Option<&Value>,
    ) -> Result<(), Failure> {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread was faster.
        if let Some(now) = value.as_ref()
            && used.is_none_or(|used| !Arc::ptr_eq(used, now))
        {
            return Ok(());
        }
        let challenges = challenge::parse(answer.headers("www-authenticate"));
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope } => Some((realm, service.as_deref(), scope.as_deref())),
            Challenge::Basic => None,
        });
        let new = match bearer {
            Some((realm, service, scope)) => {
                let realm = self.realm(base, realm).map_err(|why| answer.wrong(why))?;
                self.token(http, &realm, service, scope)?
            }
            None if challenges.contains(&Challenge::Basic) => {
                let Some(credentials) = &self.credentials else {
                    return Err(answer.failure());
                };
                credentials.basic().ok_or_else(|| answer.failure())?
            }
            None => return Err(answer.wrong("the registry answers 401 and does not say which credentials it wants")),
        };
        *value = Some(Arc::new(new));
        Ok(())
    }

    /// Checks the address of a token server, which gets the credentials.
    fn realm(&self, base: &Address, realm: &str) -> Result<Address, String> {
        let realm =
            Address::parse(realm).map_err(|why| format!("the registry names a token server whose address is {why}"))?;
        let plain_too = !base.is_protected() && (realm.has_host_of(base) || realm.is_loopback() && base.is_loopback());
        if realm.is_protected() || plain_too {
            return Ok(realm);
        }
        Err(format!("the registry names a token server whose connection is not protected: {realm}"))
    }

    /// Asks a token server.
    fn token(
        &self,
        http: &Http,
        realm: &Address,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<Zeroizing<String>, Failure> {
        let scopes: Vec<&str> = match (self.scopes.is_empty(), scope) {
            (true, Some(scope)) => vec![scope],
            _ => self.scopes.iter().map(String::as_str).collect(),
        };
        let mut tries = 0;
        loop {
            match self.token_once(http, realm, service, &scopes) {
                Ok(token) => return Ok(token),
                Err(failure) => match http.wait(&failure, tries) {
                    Some(pause) => std::thread::sleep(pause),
                    None => return Err(failure),
                },
            }
            tries += 1;
        }
    }

    fn token_once(
        &self,
        http: &Http,
        realm: &Address,
        service: Option<&str>,
        scopes: &[&str],
    ) -> Result<Zeroizing<String>, Failure> {
        let joined = scopes.join(" ");
        let mut pairs: Vec<(&str, &str)> = service.map(|service| ("service", service)).into_iter().collect();
        let (basic, headers, content, method, address);
        match &self.credentials {
            Some(Credentials::Identity(token)) => {
                let own = [
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token.as_str()),
                    ("client_id", "quern-builder"),
                    ("scope", joined.as_str()),
                ];
                pairs.extend(own);
                let form = "application/x-www-form-urlencoded".to_owned();
                (basic, headers, method, address) = (None, vec![("content-type", form)], Method::Post, realm.clone());
                content = Content::Bytes(Address::form(&pairs));
            }
            other => {
                pairs.extend(scopes.iter().map(|scope| ("scope", *scope)));
                basic = other.as_ref().and_then(Credentials::basic);
                if let Some(Credentials::Password(user, _)) = other {
                    pairs.push(("account", user));
                }
                (headers, method, address, content) =
                    (Vec::new(), Method::Get, realm.with_query(&pairs), Content::Nothing);
            }
        }
        let authorization = basic.as_ref().map(|basic| basic.as_str());
        let request =
            Request { method, address: &address, headers: &headers, authorization, content, grace: Duration::ZERO };
        let answer = http.send(request)?;
        if answer.status() != 200 {
            return Err(answer.failure());
        }
        let bytes = Zeroizing::new(answer.document(LARGEST)?);
        // An error of the parser would show a part of the text.
        let found: Option<Token> = serde_json::from_slice(&bytes).ok();
        let token = found.and_then(|found| found.token.or(found.access_token));
        match token.filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())) {
            Some(token) => Ok(Zeroizing::new(format!("Bearer {}", *token))),
            None => {
                let why = "the token server does not answer with a token".to_owned();
                Err(Failure { url: realm.to_string(), why, kind: FailureKind::Never })
            }
        }
    }
}
