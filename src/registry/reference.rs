//! References to images of registries: `HOST[:PORT]/NAME[:TAG][@DIGEST]`. Pure.

use std::fmt;
use std::net::Ipv6Addr;

use crate::base::error::{Error, Result};
use crate::base::text::quoted;
use crate::oci::Digest;
use crate::oci::reference::is_tag;

/// The name of Docker Hub, and the host that speaks for it.
pub(super) const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// Longest name of a repository with its host, as in other programs.
const LONGEST: usize = 255;

const FORM: &str =
    "a reference has the form HOST[:PORT]/NAME[:TAG] or HOST[:PORT]/NAME@DIGEST, such as registry.example.org/demo:1";

/// A reference to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The host with its port.
    pub(super) host: String,
    /// The name of the repository on the host.
    pub(super) repository: String,
    /// The tag, unless it is left out.
    pub(super) tag: Option<String>,
    /// The digest of the manifest, if given.
    pub(super) digest: Option<Digest>,
}

impl Reference {
    /// Parses a reference.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) with the wrong part.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::usage(format!("{} is not a reference to an image: {what}", quoted(text)));
        if let Some((scheme, rest)) = text.split_once("://") {
            let hint = format!("leave out {}: {}", quoted(&format!("{scheme}://")), quoted(rest));
            return Err(wrong("it is a URL").with_hint(hint));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::parse(digest).map_err(|reason| wrong(&reason.text))?)),
            None => (text, None),
        };
        let Some((host, path)) = name.split_once('/').filter(|(host, _)| looks_like_host(host)) else {
            let hint = format!("put the host first: {}/library/NAME, localhost:5000/NAME; {FORM}", HUB.0);
            return Err(wrong("it does not name a registry").with_hint(hint));
        };
        check_host(host).map_err(|what| wrong(&what).with_hint(FORM))?;
        let (path, tag) = match path.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        check_name(path).map_err(|what| wrong(&what).with_hint(FORM))?;
        if let Some(tag) = tag {
            check_tag(tag).map_err(|what| wrong(&what).with_hint(FORM))?;
        }
        // Docker Hub keeps the images without an owner in a repository of this name.
        let hub = host == HUB.0;
        let repository = if hub && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        if host.len() + 1 + repository.len() > LONGEST {
            return Err(wrong(&format!("its name has more than {LONGEST} characters")));
        }
        Ok(Self { host: host.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }

    /// Returns the host to connect to.
    pub(super) fn server(&self) -> &str {
        if self.host == HUB.0 { HUB.1 } else { &self.host }
    }

    /// Returns the same repository with another tag and without a digest.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if the tag is malformed.
    pub fn tagged(&self, tag: &str) -> Result<Self> {
        check_tag(tag).map_err(Error::usage)?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// Returns the tag, unless it is left out.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns `HOST/NAME`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

/// Tells a host from the first part of a name.
fn looks_like_host(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':', '['])
}

fn check_host(text: &str) -> Result<(), String> {
    let bad = || Err(format!("{} is not a host with or without a port", quoted(text)));
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => {
                ("", port.strip_prefix(':').or((!port.is_empty()).then_some("")))
            }
            _ => return bad(),
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_number = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let good = (text.starts_with('[') || host.split('.').all(label))
        && port.is_none_or(|port| is_number(port) && port.parse::<u16>().is_ok_and(|port| port > 0));
    if good { Ok(()) } else { bad() }
}

/// Checks the name of a repository: parts of lower-case letters and digits, with separators in between.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("the name {} has upper-case letters", quoted(name)));
    }
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let part = |part: &str| {
        let separators = part.split(|c: char| c.is_ascii() && is_word(c as u8)).filter(|between| !between.is_empty());
        let mut separators =
            separators.map(|between| matches!(between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-'));
        part.bytes().next().is_some_and(is_word)
            && part.bytes().last().is_some_and(is_word)
            && separators.all(|good| good)
    };
    if name.split('/').all(part) { Ok(()) } else { Err(format!("{} is not the name of a repository", quoted(name))) }
}

fn check_tag(tag: &str) -> Result<(), String> {
    if is_tag(tag) { Ok(()) } else { Err(format!("{} is not a tag", quoted(tag))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex() -> String {
        "ab".repeat(32)
    }

    #[test]
    fn references_are_split_into_their_parts() {
        let digest = format!("sha256:{}", hex());
        for (text, server, repository, tag, with) in [
            ("localhost/a", "localhost", "a", None, false),
            ("localhost:5000/a/b:1.0", "localhost:5000", "a/b", Some("1.0"), false),
            ("registry.example.org/a__b/c-d--e.f:_x", "registry.example.org", "a__b/c-d--e.f", Some("_x"), false),
            ("[::1]:5000/a", "[::1]:5000", "a", None, false),
            ("[::1]/a", "[::1]", "a", None, false),
            ("127.0.0.1:1/a", "127.0.0.1:1", "a", None, false),
            ("docker.io/debian:12", "registry-1.docker.io", "library/debian", Some("12"), false),
            ("docker.io/me/debian", "registry-1.docker.io", "me/debian", None, false),
            (&format!("a.example/b@{digest}"), "a.example", "b", None, true),
            (&format!("a.example/b:1@{digest}"), "a.example", "b", Some("1"), true),
        ] {
            let found = Reference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((found.server(), found.repository.as_str(), found.tag()), (server, repository, tag), "{text}");
            assert_eq!(found.digest().is_some(), with, "{text}");
            assert_eq!(Reference::parse(&found.to_string()).unwrap(), found, "{text}");
        }
    }

    #[test]
    fn malformed_references_are_refused_with_the_wrong_part() {
        let long = format!("a.example/{}", "b/".repeat(130) + "b");
        let (short, upper) =
            (format!("a.example/b@sha256:{}", "0".repeat(63)), format!("a.example/b@sha256:{}", "AB".repeat(32)));
        for (text, why) in [
            ("", "does not name a registry"),
            ("debian", "does not name a registry"),
            ("debian:12", "does not name a registry"),
            ("library/debian", "does not name a registry"),
            ("/a", "does not name a registry"),
            ("docker://a.example/b", "it is a URL"),
            ("https://a.example/b", "it is a URL"),
            ("a.example/", "is not the name of a repository"),
            ("a.example/b/", "is not the name of a repository"),
            ("a.example//b", "is not the name of a repository"),
            ("a.example/../b", "is not the name of a repository"),
            ("a.example/b/../../c", "is not the name of a repository"),
            ("a.example/b c", "is not the name of a repository"),
            ("a.example/b?x", "is not the name of a repository"),
            ("a.example/b%2f", "is not the name of a repository"),
            ("a.example/b\n", "is not the name of a repository"),
            ("a.example/é", "is not the name of a repository"),
            ("a.example/a..b", "is not the name of a repository"),
            ("a.example/a___b", "is not the name of a repository"),
            ("a.example/-a", "is not the name of a repository"),
            ("a.example/B", "upper-case letters"),
            ("a.example/b:", "is not a tag"),
            ("a.example/b:-x", "is not a tag"),
            ("a.example/b:x/y", "is not a tag"),
            ("a.example/b:x:y", "is not a tag"),
            (&format!("a.example/b:{}", "x".repeat(129)), "is not a tag"),
            ("a.example:/b", "is not a host"),
            ("a.example:0/b", "is not a host"),
            ("a.example:70000/b", "is not a host"),
            ("a.example:+80/b", "is not a host"),
            ("a..example/b", "is not a host"),
            ("user@a.example/b", "digest"),
            ("user:word@a.example/b", "digest"),
            ("[::1/b", "is not a host"),
            ("[::1]x/b", "is not a host"),
            ("[::g]/b", "is not a host"),
            ("-a.example/b", "is not a host"),
            ("a.example/b@", "digest"),
            ("a.example/b@sha256:x", "digest"),
            (&short, "digest is malformed"),
            (&upper, "digest is malformed"),
            (&long, "more than 255 characters"),
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}");
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
        let good = Reference::parse("a.example/b:1").unwrap();
        assert_eq!(good.tagged("2").unwrap().to_string(), "a.example/b:2");
        assert_eq!(good.tagged("").unwrap_err().exit_code(), 2);
    }
}
