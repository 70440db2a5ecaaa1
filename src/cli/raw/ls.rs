//! `raw ls`: what is in an archive.

use super::stream::{INPUT, Lines};
use crate::archive::pack::listing::Listing;
use crate::archive::pack::walk::Item;
use crate::archive::unpack::{self, Limits, RaisedBy};
use crate::base::error::Result;
use crate::cli::limits::LimitArgs;
use crate::cli::standard;
use crate::ui::Terminal;

/// List the entries of an archive from standard input
///
/// Prints what `tar --numeric-owner -tv` does in the C locale and in UTC, with names as they are unpacked (`./etc/passwd` for
/// `/etc/passwd`), after the same checks as `raw unpack`, except for those that take a tree.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Lines of JSON:
  An object for each entry: \"path\" (relative to the root, \"\" for the root itself), \"type\" (file, hardlink, symlink, dir, char, block,
  fifo), \"mode\", \"uid\", \"gid\", \"size\", \"mtime\", \"mtime_nsec\", \"offset\" (of its header), and where there are such: \"link\",
  \"device\" (major, minor), \"xattrs\" (values in hex), \"sparse\" (offset and length of each piece of data). Names that are not UTF-8
  are arrays of bytes. When the archive is refused the last object has \"refused\" (a stable code), \"reason\", and \"path\" and \"offset\"
  of the entry.")]
pub(super) struct Args {
    /// Print every entry as a line of JSON
    #[arg(long)]
    json: bool,
    /// What it may demand.
    #[command(flatten)]
    limits: LimitArgs,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let mut lines = Lines::new()?;
        let mut listing = Listing::default();
        let LimitArgs { max_bytes, max_entries } = self.limits;
        let limits = Limits::default().set(max_bytes, max_entries, RaisedBy::Options);
        let listed = unpack::list(standard::input()?, INPUT, &limits, ui, &mut |entry| {
            if self.json {
                return lines.entry(entry);
            }
            let (path, kind, meta) = (entry.path.clone(), entry.kind.clone(), entry.meta.clone());
            lines.text(&listing.line(&Item {
                path,
                kind,
                meta,
                size: entry.size,
                file: None,
                holes: false,
                linked: false,
            }))
        });
        if let (true, Err(error)) = (self.json, &listed) {
            lines.refused(error)?;
        }
        lines.finish()?;
        listed.map(|()| 0)
    }
}
