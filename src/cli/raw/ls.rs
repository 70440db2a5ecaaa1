//! `raw ls`: lists the entries of an archive.

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
/// Prints the same lines as `tar --numeric-owner -tv` in the C locale and in UTC, with the names that `raw unpack` would create
/// (`./etc/passwd` for `/etc/passwd`). The archive is checked as by `raw unpack`, except for the checks that need a tree.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
JSON output:
  The objects are those of `raw unpack --json`: see quern-builder-raw-unpack(1).")]
pub(super) struct Args {
    /// Print every entry as a line of JSON
    #[arg(long)]
    json: bool,
    /// Limits.
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
            lines.text(&listing.line(&Item { size: entry.size, ..Item::new(path, kind, meta) }))
        });
        if let (true, Err(error)) = (self.json, &listed) {
            lines.refused(error)?;
        }
        lines.finish()?;
        listed.map(|()| 0)
    }
}
