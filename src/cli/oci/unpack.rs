//! `oci unpack`: unpacks an image of a layout into a tree.

use std::path::PathBuf;

use crate::base::error::Result;
use crate::cli::limits::LimitArgs;
use crate::cli::record::RecordFile;
use crate::cli::session;
use crate::oci;
use crate::ui::Terminal;

/// Unpack an image of a layout into a directory
///
/// Unpacks layer over layer. Size, digest and diff ID of a layer are verified before any of its files is created. Whiteouts and
/// opaque directories remove files of lower layers. The directory appears when it is complete. A malformed image is refused (exit
/// code 3). The next run removes the leftovers of a killed one.
///
/// By default, all layers together may have ten million entries, and unpacked 1100 times their compressed size (the maximum of gzip):
/// at least 32 GiB are always allowed, and never more than 256 GiB. A layer that is listed several times counts several times.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder oci unpack demo-20260101.oci 20260101 tree")]
pub(super) struct Args {
    /// The layout: the directory with index.json
    dir: PathBuf,
    /// The image: its tag, or the digest of its manifest. In an index: the only image, or the one for this machine
    #[arg(value_name = "REF")]
    name: String,
    /// The tree to create: a directory that does not exist, or an empty one that is not a mount point
    tree: PathBuf,
    /// Write the device nodes and attributes that the kernel refused to create to this file, for `raw pack`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Limits of the image.
    #[command(flatten)]
    limits: LimitArgs,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        if let Some(code) = session::user_namespace()? {
            return Ok(code);
        }
        // Opened before the tree: afterwards paths are resolved only inside the tree.
        let record = self.record.as_deref().map(RecordFile::create).transpose()?;
        let demand = oci::unpack::Demand { bytes: self.limits.max_bytes, entries: self.limits.max_entries };
        let missing = oci::unpack::unpack(&self.dir, &self.name, &self.tree, &demand, ui)?;
        RecordFile::keep(record, &missing, ui).map(|()| 0)
    }
}
