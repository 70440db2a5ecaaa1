//! Bytes from servers. Nothing that comes from here is trusted.

pub mod http;
