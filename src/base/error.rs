//! The error type of the crate: kind, operation and object, cause, and the next step for the user.
//!
//! A message is lower case, has no full stop, and names the operation and the object (`opening /x/y`). The terminal renders it once;
//! a function that returns an error neither prints nor logs it.

use std::error::Error as StdError;
use std::fmt;

/// The result type of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of a failure. It decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The build itself failed: emerge, an ebuild, a strip rule. Exit 1.
    Build,
    /// The command line or the recipe is wrong. Exit 2.
    Usage,
    /// A downloaded or given file could not be verified. Exit 3.
    Refused,
    /// The kernel or the system refuses: namespaces, space, permission. Exit 4.
    System,
    /// No server delivered the file. Exit 5.
    Network,
    /// Killed by this signal. Exit 128 + n.
    Killed(i32),
}

/// An error with its [`Kind`], its cause, an optional block of details and an optional next step.
#[derive(Debug)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    details: Option<String>,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error of `kind`. The message names the operation and the object.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { inner: Box::new(Inner { kind, message: message.into(), details: None, hint: None, source: None }) }
    }

    /// Makes a [`Kind::Build`] error.
    pub fn build(message: impl Into<String>) -> Self {
        Self::new(Kind::Build, message)
    }

    /// Makes a [`Kind::Usage`] error.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Makes a [`Kind::Refused`] error.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// Makes a [`Kind::System`] error.
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(Kind::System, message)
    }

    /// Makes a [`Kind::Network`] error.
    pub fn network(message: impl Into<String>) -> Self {
        Self::new(Kind::Network, message)
    }

    /// Puts the object that the operation is a part of before the message.
    #[must_use]
    pub fn within(mut self, object: &str) -> Self {
        self.inner.message = format!("{object}: {}", self.inner.message);
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// Adds the next step for the user, a sentence or a few lines.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// Adds a block that is shown unchanged below the message: a source snippet, the tail of a log.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.inner.details = Some(details.into());
        self
    }

    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// The next step, if one is known.
    pub fn hint(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// The block of details, if there is one.
    pub fn details(&self) -> Option<&str> {
        self.inner.details.as_deref()
    }

    /// The process's exit code for this error.
    pub fn exit_code(&self) -> i32 {
        match self.kind() {
            Kind::Build => 1,
            Kind::Usage => 2,
            Kind::Refused => 3,
            Kind::System => 4,
            Kind::Network => 5,
            Kind::Killed(signal) => 128 + signal,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

/// Adds the operation and the object to a foreign error.
pub trait Context<T> {
    /// Wraps the error as `kind`, with a message that names the operation and the object.
    fn context<M: Into<String>>(self, kind: Kind, message: impl FnOnce() -> M) -> Result<T>;

    /// [`Context::context`] with [`Kind::System`], the most common case.
    fn system<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>
    where
        Self: Sized,
    {
        self.context(Kind::System, message)
    }
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context<M: Into<String>>(self, kind: Kind, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|source| Error::new(kind, message()).with_source(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes: Vec<i32> = [Kind::Build, Kind::Usage, Kind::Refused, Kind::System, Kind::Network, Kind::Killed(2)]
            .into_iter()
            .map(|kind| Error::new(kind, "x").exit_code())
            .collect();
        assert_eq!(codes, [1, 2, 3, 4, 5, 130]);
    }

    #[test]
    fn context_keeps_the_cause() {
        let error = Err::<(), _>(std::io::Error::other("cause")).system(|| "opening /x").unwrap_err();
        assert_eq!(error.to_string(), "opening /x");
        assert_eq!(StdError::source(&error).unwrap().to_string(), "cause");
    }
}
