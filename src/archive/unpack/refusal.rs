//! Refusals of archives: a reason, and the entry that it is about.

use std::error::Error as _;
use std::fmt;
use std::io;

use crate::base::error::{Error, Kind};
use crate::base::refusal::{Code, Reason};

/// An archive that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub reason: Reason,
    /// Name of the entry, as far as it is known, as it stands in the archive.
    pub name: Vec<u8>,
    /// Where the entry's (first) header begins in the plain archive.
    pub offset: u64,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name.is_empty(), self.offset) {
            // Of the archive as a whole.
            (true, 0) => {}
            (true, offset) => write!(f, "entry at byte {offset}: ")?,
            (false, offset) => write!(f, "entry {} at byte {offset}: ", self.name.escape_ascii())?,
        }
        self.reason.fmt(f)
    }
}

impl std::error::Error for Refusal {}

/// The stable code of why something was refused; none when the archive is not to blame.
pub fn code(error: &Error) -> Option<Code> {
    if error.kind() != Kind::Refused {
        return None;
    }
    let cause = error.source();
    if let Some(refusal) = cause.and_then(|cause| cause.downcast_ref::<Refusal>()) {
        return Some(refusal.reason.code);
    }
    Some(cause.and_then(|cause| cause.downcast_ref::<io::Error>()).map_or(Code::Corrupt, |error| code_of(error.kind())))
}

/// The stable code of what a decoder says.
pub fn code_of(kind: io::ErrorKind) -> Code {
    match kind {
        io::ErrorKind::UnexpectedEof => Code::Truncated,
        io::ErrorKind::Unsupported => Code::UnsupportedFormat,
        _ => Code::Corrupt,
    }
}

/// Whether the system is to blame for an error of reading, rather than what was read.
pub fn is_of_system(error: &io::Error) -> bool {
    let memory =
        error.kind() == io::ErrorKind::OutOfMemory || error.to_string() == zstd::zstd_safe::get_error_name(ZSTD_MEMORY);
    error.raw_os_error().is_some() || memory
}

/// What Zstandard's library says of too little memory; its binding makes a text of it.
const ZSTD_MEMORY: usize =
    (zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_memory_allocation as usize).wrapping_neg();

/// Reading an archive went wrong.
#[derive(Debug)]
pub enum ReadError {
    /// The archive says something that is not accepted.
    Refused(Refusal),
    /// The system did not give its bytes.
    Input(io::Error),
}

impl ReadError {
    /// An error of reading in the midst of the entry `name`, whose header is at `offset`.
    pub fn of(error: io::Error, name: &[u8], offset: u64) -> Self {
        if is_of_system(&error) {
            return Self::Input(error);
        }
        let reason = Reason::new(code_of(error.kind()), error.to_string());
        Self::Refused(Refusal { reason, name: name.to_vec(), offset })
    }
}

impl From<Refusal> for ReadError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Input(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}
