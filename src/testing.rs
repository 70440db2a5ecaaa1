//! The items that `tests/` and `benches/` use beside the program itself. Not a public interface.

pub use crate::archive::changes;
pub use crate::archive::pack::{Format, Options, Outputs, Tree, pack};
pub use crate::archive::unpack::Deferred;
pub use crate::base::arch::Platform;
pub use crate::base::digest::{Algorithm, Hasher};
pub use crate::base::error::{Error, Kind, Result};
pub use crate::base::progress::Silent;
pub use crate::base::refusal::Code;
pub use crate::base::time::SourceDate;
pub use crate::cli::command;
pub use crate::enter::overlay;
pub use crate::fs::rootfs::Rootfs;
pub use crate::output::{Content, Contents, ImageSpec, Published, Role, Staging, publish};
pub use crate::recipe::{Compression, Oci, Request, key_names as recipe_keys, load};
pub use crate::store::Store;
pub use crate::store::layers;
