//! Registries of images: [`push()`] and [`pull()`] of layouts. Nothing from a registry is trusted, and credentials go only to the registry's
//! own origin and to the token server that it names.
//!
//! The client is written here, on [`crate::net::http`], and not taken from the crate `oci-client`. That crate holds a whole layer in
//! memory or takes it as a stream that it cannot resume, knows no files of credentials and no layouts, follows redirects by the rules of
//! its HTTP client, and is asynchronous. It needs some 160 crates. Everything around its nine requests would be ours anyway: credentials,
//! retries, resumed transfers, limits, layouts. The HTTP client, TLS, JSON and digests are used already.
//!
//! [`client`] sends requests: credentials ([`access`], [`challenge`], [`credentials`]), redirects, repetitions. [`upload`] and
//! [`download`] transfer one blob, [`parallel`] several at a time. [`docker`] changes manifests of Docker's form.

mod access;
pub(crate) mod challenge;
mod client;
pub mod credentials;
mod docker;
mod download;
mod parallel;
mod pull;
mod push;
pub mod reference;
#[cfg(test)]
mod tests;
mod upload;

pub use client::Connection;
pub use pull::pull;
#[cfg(test)]
pub use push::Pushed;
pub use push::{PushOptions, push};
pub use reference::Reference;
