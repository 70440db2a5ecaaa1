//! Reads OCI image layouts. A document or layer is used only after its digest was verified.
//!
//! [`validate`] reports everything that is wrong with a layout; [`unpack`] turns one image into a tree; [`parts`] lists the documents and
//! blobs of an image; [`archive`] and [`index`] make an archive and a layout of several platforms. [`crate::output::oci`] writes the layouts of
//! builds.

pub mod archive;
mod digest;
mod document;
pub mod index;
pub mod layer;
pub mod layout;
pub mod parts;
mod paths;
pub mod reference;
pub mod shape;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "umoci and skopeo make layouts and unpack the same ones")]
mod tests;
pub mod unpack;
pub mod validate;
pub mod whiteout;
mod whiteouts;

use crate::archive::unpack::refusal::ReadError;
use crate::base::error::Error;
use crate::base::refusal::Reason;

pub use self::digest::Digest;
use self::layout::Config;

/// The result of reading a part of a layout.
pub type Checked<T> = std::result::Result<T, Fault>;

/// The cause that prevents reading a part of a layout.
#[derive(Debug)]
pub enum Fault {
    /// The layout is wrong.
    Wrong(Reason),
    /// The system failed.
    System(Error),
}

impl Fault {
    /// Converts an error of reading the layer `name`.
    fn of_layer(error: ReadError, name: &str) -> Self {
        match error {
            ReadError::Refused(refusal) => Self::Wrong(Reason::new(refusal.reason.code, refusal.to_string())),
            ReadError::Input(error) => Self::System(Error::system(format!("reading layer {name}")).with_source(error)),
        }
    }

    /// Converts the fault of `object` into an error.
    pub fn into_error(self, object: &str) -> Error {
        match self {
            Self::Wrong(reason) => refused(object, &reason),
            Self::System(error) => error,
        }
    }
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Self::Wrong(reason)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::System(error)
    }
}

fn refused(object: &str, reason: &Reason) -> Error {
    Error::refused(format!("{object} [{}]", reason.code)).with_source(reason.text.to_string())
}
