//! OCI image layouts, read: every document and layer is believed only after its digest was.
//!
//! [`validate`] looks at a whole layout and says everything that is wrong with it; [`unpack`] makes a tree of one image.
//! [`crate::output::oci`] writes them.

pub mod layer;
pub mod layout;
mod marks;
mod reference;
pub mod shape;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "umoci and skopeo judge, and make what is judged")]
mod tests;
pub mod unpack;
pub mod validate;
pub mod whiteout;

use crate::base::error::Error;
use crate::base::refusal::Reason;

fn refused(about: &str, reason: &Reason) -> Error {
    Error::refused(format!("{about} [{}]", reason.code)).with_source(reason.text.to_string())
}
