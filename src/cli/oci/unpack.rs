//! `oci unpack`: an image of a layout → a tree.

use std::path::PathBuf;

use crate::cli::record::RecordFile;
use crate::cli::session;
use crate::error::Result;
use crate::oci;
use crate::ui::Terminal;

/// Unpack an image of a layout into a directory
///
/// Its layers one over the other, each only after size, digest and diff id were found right; whiteouts and opaque directories remove
/// what is below them. The directory appears when it is whole. What is malformed is refused (exit code 3).
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder oci unpack demo-20260101.oci 20260101 tree")]
pub(super) struct Args {
    /// The layout: the directory that holds index.json
    dir: PathBuf,
    /// The image: its tag, or the digest of its manifest
    #[arg(value_name = "REF")]
    name: String,
    /// The tree to make: a directory that does not exist or is empty
    tree: PathBuf,
    /// Write what the kernel refused to make (device nodes, attributes) to this file, for `raw pack`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        if let Some(code) = session::user_namespace()? {
            return Ok(code);
        }
        // Opened before the tree: from then on no path is followed but inside it.
        let record = self.record.as_deref().map(RecordFile::create).transpose()?;
        let missing = oci::unpack::unpack(&self.dir, &self.name, &self.tree, ui)?;
        RecordFile::keep(record, &missing, ui).map(|()| 0)
    }
}
