//! `oci index`: one image for several platforms.

use std::path::PathBuf;

use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::base::text::quoted;
use crate::cli::session;
use crate::fs::directory_of;
use crate::oci;
use crate::os::space;
use crate::ui::Terminal;

/// Join the images of layouts for several platforms
///
/// Makes a layout with an index of all images. Programs choose the image for their machine from it. `push` pushes the whole index under one
/// tag. Each image must be for another platform. Digests are verified. The directory appears when it is complete.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder oci index demo-amd64.oci demo-arm64.oci --tag 1 -o demo.oci
  quern-builder push demo.oci registry.example.org/demo")]
pub(super) struct Args {
    /// The layouts: directories with index.json
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// The tag of the index
    #[arg(long, default_value = "latest")]
    tag: String,
    /// The layout to create: a directory that does not exist, or an empty one
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        if !oci::reference::is_tag(&self.tag) {
            return Err(Error::usage(format!("{} is not a tag", quoted(&self.tag))).with_hint(
                "a tag has at most 128 letters, digits, `_`, `.` and `-`, and does not begin with `.` or `-`",
            ));
        }
        session::signals()?;
        let digest = oci::index::index(&self.dirs, &self.output, &self.tag, ui);
        let digest = digest.map_err(|error| space::told(error, &[directory_of(&self.output)]))?;
        ui.note(&format!("the digest of the index is {digest}"));
        ui.result(&self.output);
        Ok(0)
    }
}
