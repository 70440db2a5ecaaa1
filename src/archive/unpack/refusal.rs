//! Refusals of archives: the reason, and the entry that it applies to.

use std::error::Error as _;
use std::fmt;
use std::io;

use crate::base::error::{Error, Kind};
use crate::base::refusal::{Code, Reason};

/// The refusal of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// Name of the entry in the archive, as far as it is known.
    pub name: Vec<u8>,
    /// Offset of the entry's first header in the plain archive.
    pub offset: u64,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name.is_empty(), self.offset) {
            // The archive as a whole.
            (true, 0) => {}
            (true, offset) => write!(f, "entry at byte {offset}: ")?,
            (false, offset) => write!(f, "entry {} at byte {offset}: ", self.name.escape_ascii())?,
        }
        self.reason.fmt(f)
    }
}

impl std::error::Error for Refusal {}

/// Returns the code of a refusal, or `None` for any other error.
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

/// Returns the code for an error of a decoder.
pub fn code_of(kind: io::ErrorKind) -> Code {
    match kind {
        io::ErrorKind::UnexpectedEof => Code::Truncated,
        io::ErrorKind::Unsupported => Code::UnsupportedFormat,
        _ => Code::Corrupt,
    }
}

/// Returns true if the system failed to read, and false if the data is wrong.
pub fn is_of_system(error: &io::Error) -> bool {
    let memory =
        error.kind() == io::ErrorKind::OutOfMemory || error.to_string() == zstd::zstd_safe::get_error_name(ZSTD_MEMORY);
    error.raw_os_error().is_some() || memory
}

/// Error code of libzstd for a failed allocation. Its Rust binding returns only the text of the code.
const ZSTD_MEMORY: usize =
    (zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_memory_allocation as usize).wrapping_neg();

/// An error of reading an archive.
#[derive(Debug)]
pub enum ReadError {
    /// The archive is refused.
    Refused(Refusal),
    /// The system failed to read the archive.
    Input(io::Error),
}

impl ReadError {
    /// Converts an error that occurred in the entry `name`, whose header is at `offset`.
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
