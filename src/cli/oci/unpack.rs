//! `oci unpack`: an image of a layout → a tree.

use std::path::PathBuf;

use crate::base::error::Result;
use crate::cli::limits::LimitArgs;
use crate::cli::record::RecordFile;
use crate::cli::session;
use crate::oci;
use crate::ui::Terminal;

/// Unpack an image of a layout into a directory
///
/// Its layers one over the other, each only after size, digest and diff id were found right; whiteouts and opaque directories remove
/// what is below them. The directory appears when it is whole. What is malformed is refused (exit code 3). What an unpacking that
/// was killed left beside it, the next one removes.
///
/// All layers together may have ten million entries and, unpacked, 1100 times the bytes that they have as blobs (gzip makes no more of
/// them), but 32 GiB in any case and never more than 256 GiB, unless the options say otherwise. A layer that is named several times
/// counts several times.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder oci unpack demo-20260101.oci 20260101 tree")]
pub(super) struct Args {
    /// The layout: the directory that holds index.json
    dir: PathBuf,
    /// The image: its tag, or the digest of its manifest. Of an index, the only image or the one for this machine
    #[arg(value_name = "REF")]
    name: String,
    /// The tree to make: a directory that does not exist, or is empty and no mount point
    tree: PathBuf,
    /// Write what the kernel refused to make (device nodes, attributes) to this file, for `raw pack`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// What it may demand.
    #[command(flatten)]
    limits: LimitArgs,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        if let Some(code) = session::user_namespace()? {
            return Ok(code);
        }
        // Opened before the tree: from then on no path is followed but inside it.
        let record = self.record.as_deref().map(RecordFile::create).transpose()?;
        let demand = oci::unpack::Demand { bytes: self.limits.max_bytes, entries: self.limits.max_entries };
        let missing = oci::unpack::unpack(&self.dir, &self.name, &self.tree, &demand, ui)?;
        RecordFile::keep(record, &missing, ui).map(|()| 0)
    }
}
