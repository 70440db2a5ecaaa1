//! Tests of the parsers and of the unpacked files.

mod bombs;
mod ends;
mod extract;
mod foreign;
mod hostile;
mod over;
mod parse;
mod sparse;

use std::path::Path;

use tar::{EntryType, Header};

use super::refusal::Refusal;
use super::*;
use crate::base::error::Error;
use crate::base::progress::Silent;

/// Returns true for root. Otherwise prints that the test is skipped, or fails if QUERN_TEST_STRICT is set.
#[allow(clippy::print_stderr)]
pub(crate) fn is_root(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("QUERN_TEST_STRICT").is_none(), "{test} needs root");
    eprintln!("{test}: skipped, it needs root");
    false
}

/// Writes archives byte by byte, valid or not.
#[derive(Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn header(name: &[u8], kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(1_000_000_000);
        header.set_size(size);
        header
    }

    pub(crate) fn raw(mut self, mut header: Header, data: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn entry(self, name: &str, kind: EntryType, link: &str, data: &[u8]) -> Self {
        let mut header = Self::header(name.as_bytes(), kind, data.len() as u64);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        self.raw(header, data)
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(name, EntryType::Regular, "", data)
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.entry(name, EntryType::Directory, "", b"")
    }

    pub(crate) fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(name, EntryType::Symlink, to, b"")
    }

    pub(crate) fn hardlink(self, name: &str, to: &str) -> Self {
        self.entry(name, EntryType::Link, to, b"")
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|length| length.to_string().len() + rest == *length).unwrap();
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry("PaxHeaders/x", EntryType::XHeader, "", &data)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// Unpacks an archive held in memory into the directory `into`.
pub(crate) fn unpack(archive: &[u8], into: &Path) -> Result<Deferred> {
    let root = Rootfs::open(into)?;
    let input = io::Cursor::new(archive.to_vec());
    let limits = Limits::default();
    Unpacker { name: "test.tar", into: &root, limits: &limits, ui: &Silent }.stream(input, None, &mut |_| Ok(true))
}

/// Returns the code of a refusal.
pub(crate) fn code(error: &Error) -> &'static str {
    let source = std::error::Error::source(error).expect("a refusal has a cause");
    source.downcast_ref::<Refusal>().unwrap_or_else(|| panic!("{source} is not a refusal")).reason.code.as_str()
}
