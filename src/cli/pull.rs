//! `pull`: an image of a registry into a layout.

use std::path::PathBuf;

use super::registry::RegistryArgs;
use super::session;
use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::base::text::quoted;
use crate::fs::directory_of;
use crate::oci::layout::Platform;
use crate::os::space;
use crate::registry::{self, Reference};
use crate::ui::Terminal;

/// Pull an OCI image from a registry into a layout
///
/// Pulls the image, or all images of an index, up to four layers at the same time. Sizes and digests are verified. The directory appears
/// when it is complete. Prints its path. `oci unpack` makes a tree of it. Manifests in Docker's form become those of OCI, with another
/// digest. The credentials are those that `push` uses.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder pull registry.example.org/demo:1 demo.oci
  quern-builder oci unpack demo.oci 1 tree")]
pub struct Args {
    /// The image: HOST[:PORT]/NAME[:TAG] or HOST[:PORT]/NAME@DIGEST. Without a tag or a digest, the tag is latest
    #[arg(value_name = "REF")]
    from: String,
    /// The layout to create: a directory that does not exist, or an empty one
    dir: PathBuf,
    /// Pull only the image of an index for this platform, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// The credentials, and the kind of connection.
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let from = Reference::parse(&self.from)?;
        let platform = self.platform.as_deref().map(|text| {
            let wrong = || {
                Error::usage(format!("{} is not a platform", quoted(text)))
                    .with_hint("write OS/ARCH, such as linux/arm64")
            };
            Platform::parse(text).ok_or_else(wrong)
        });
        let platform = platform.transpose()?;
        session::signals()?;
        let connection = self.registry.connection(&from)?;
        let digest = registry::pull(&from, &self.dir, platform.as_ref(), &connection, ui);
        let digest = digest.map_err(|error| space::told(error, &[directory_of(&self.dir)]))?;
        ui.note(&format!("the digest of the image is {digest}"));
        ui.result(&self.dir);
        Ok(0)
    }
}
