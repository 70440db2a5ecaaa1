//! Addresses of servers that speak a protocol of several requests: a registry, its token server, its storage.

use std::fmt;

use reqwest::Url;

use crate::base::text::printable;

/// An absolute `http` or `https` URL without a user, a password and a fragment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address(pub(super) Url);

impl Address {
    /// Parses a URL. The error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Url::parse(text).map_err(|error| format!("not a URL: {error}")).and_then(Self::of)
    }

    /// Returns the address that a `Location` header means, relative to this address.
    pub(crate) fn join(&self, location: &str) -> Result<Self, String> {
        self.0.join(location).map_err(|error| format!("not a URL: {error}")).and_then(Self::of)
    }

    fn of(mut url: Url) -> Result<Self, String> {
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(format!("neither http nor https: {}:", printable(url.scheme())));
        }
        // The HTTP crate would send them as credentials.
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the URL has a user name or a password".to_owned());
        }
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// Adds pairs to the query.
    pub(crate) fn with_query(&self, pairs: &[(&str, &str)]) -> Self {
        let mut url = self.0.clone();
        url.query_pairs_mut().extend_pairs(pairs);
        Self(url)
    }

    /// Returns pairs in the form of a query, as the body of a form.
    pub(crate) fn form(pairs: &[(&str, &str)]) -> Vec<u8> {
        reqwest::Url::parse("http://form/")
            .map(|mut url| url.query_pairs_mut().extend_pairs(pairs).finish().query().unwrap_or_default().into())
            .unwrap_or_default()
    }

    /// Returns true if scheme, host and port are the same.
    pub(crate) fn has_origin_of(&self, other: &Self) -> bool {
        self.0.origin() == other.0.origin()
    }

    /// Returns true if both have the same host, with any port.
    pub(crate) fn has_host_of(&self, other: &Self) -> bool {
        self.0.host() == other.0.host()
    }

    /// Returns true for `https`.
    pub(crate) fn is_protected(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Returns true for a host that is this machine by its name or number.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }
}

/// Without the query, which may hold a signature or a session.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.0.clone();
        url.set_query(None);
        f.write_str(url.as_str())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn locations_are_relative_or_absolute_and_keep_their_query() {
        let base = at("http://localhost:5000/v2/a/blobs/uploads/");
        for (location, digest) in [
            ("/v2/a/blobs/uploads/1?_state=x", "http://localhost:5000/v2/a/blobs/uploads/1?_state=x&digest=d%3A1"),
            ("2", "http://localhost:5000/v2/a/blobs/uploads/2?digest=d%3A1"),
            ("https://b/c?", "https://b/c?digest=d%3A1"),
        ] {
            assert_eq!(base.join(location).unwrap().with_query(&[("digest", "d:1")]).0.as_str(), digest);
        }
        for bad in ["ftp://a/", "http://user:word@a/", "https://user@a/", "file:///etc/passwd", "http://[x/"] {
            assert!(base.join(bad).is_err() && Address::parse(bad).is_err(), "{bad}");
        }
        assert!(Address::parse("/v2/").is_err());
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        let base = at("https://a.example/v2/");
        assert!(at("https://A.example:443/other?x").has_origin_of(&base));
        for other in ["http://a.example/", "https://a.example:8443/", "https://b.example/", "https://a.example.b/"] {
            assert!(!at(other).has_origin_of(&base), "{other}");
        }
        assert!(at("http://a.example:1/").has_host_of(&base) && !at("http://b.example/").has_host_of(&base));
        assert!(base.is_protected() && !at("http://a/").is_protected());
    }

    #[test]
    fn this_machine_has_several_names() {
        for local in ["http://localhost:1/", "http://127.0.0.1/", "http://127.9.9.9/", "http://[::1]:5/"] {
            assert!(at(local).is_loopback(), "{local}");
        }
        for other in ["http://localhost.example/", "http://128.0.0.1/", "http://10.0.0.1/", "http://[::2]/"] {
            assert!(!at(other).is_loopback(), "{other}");
        }
    }

    #[test]
    fn a_query_and_a_fragment_are_not_shown() {
        let signed = at("https://a/b?X-Signature=secret#frag");
        assert_eq!(signed.to_string(), "https://a/b");
        assert!(!format!("{signed:?}").contains("secret") && signed.0.as_str().ends_with("secret"));
    }
}
