//! `raw unpack`: an archive on standard input → a directory.

use std::path::PathBuf;

use super::stream::{self, INPUT, Lines};
use crate::cli::record::RecordFile;
use crate::cli::session;
use crate::error::Result;
use crate::rootfs::Rootfs;
use crate::ui::Terminal;
use crate::unpack::{self, Limits};

/// Unpack an archive from standard input into a directory
///
/// A tar archive, plain or compressed, whatever its format. Nothing outside the directory is touched, whatever the archive says.
/// What is malformed or ambiguous is refused with a stable code (exit code 3). As an ordinary user, owners are those of the user's range
/// of subordinate ids.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Lines of JSON:
  An object for each entry: \"path\" (relative to the root, \"\" for the root itself), \"type\" (file, hardlink, symlink, dir, char, block,
  fifo), \"mode\", \"uid\", \"gid\", \"size\", \"mtime\", \"mtime_nsec\", \"offset\" (of its header), and where there are such: \"link\",
  \"device\" (major, minor), \"xattrs\" (values in hex), \"sparse\" (offset and length of each piece of data). Names that are not UTF-8
  are arrays of bytes. When the archive is refused the last object has \"refused\" (a stable code), \"reason\", and \"path\" and \"offset\"
  of the entry.

Examples:
  quern-builder raw unpack --root tree < stage3.tar.xz
  quern-builder raw unpack --root tree --record tree.json < stage3.tar.xz")]
pub(super) struct Args {
    /// The directory, which exists and is best empty
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
    /// Print every entry as a line of JSON
    #[arg(long)]
    json: bool,
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
        let root = Rootfs::open(&self.root)?;
        let input = stream::input()?;
        unpack::check_space(&input, &root, INPUT)?;
        let mut lines = Lines::new();
        let unpacked = unpack::extract_some(input, None, INPUT, &root, &Limits::default(), ui, &mut |entry| {
            if self.json {
                lines.entry(entry)?;
            }
            Ok(true)
        });
        if let (true, Err(error)) = (self.json, &unpacked) {
            lines.refused(error)?;
        }
        lines.finish()?;
        let missing = unpacked?;
        RecordFile::keep(record, &missing, ui).map(|()| 0)
    }
}
