//! `pull`: an image of a registry into a layout.

use std::path::PathBuf;

use super::registry::RegistryArgs;
use super::session;
use crate::base::error::Result;
use crate::base::progress::Progress;
use crate::registry::{self, Reference};
use crate::ui::Terminal;

/// Pull an OCI image from a registry into a layout
///
/// Pulls the image, or all images of an index, up to four layers at the same time. Sizes and digests are verified. The directory appears
/// when it is complete. Prints its path. `oci unpack` makes a tree of it. The credentials are those that `push` uses.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder pull registry.example.org/demo:1 demo.oci
  quern-builder oci unpack demo.oci 1 tree")]
pub struct Args {
    /// The image: HOST[:PORT]/NAME[:TAG] or HOST[:PORT]/NAME@DIGEST. Without both, the tag is latest
    #[arg(value_name = "REF")]
    from: String,
    /// The layout to create: a directory that does not exist, or an empty one
    dir: PathBuf,
    /// The credentials, and the kind of connection.
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let from = Reference::parse(&self.from)?;
        session::signals()?;
        let connection = self.registry.connection(&from)?;
        let digest = registry::pull(&from, &self.dir, &connection, ui)?;
        ui.note(&format!("pulled {}@{digest}", from.name()));
        ui.result(&self.dir);
        Ok(0)
    }
}
