//! `binhost clean`: removes packages that no build needs.

use std::path::{Path, PathBuf};

use super::super::clean::row;
use super::super::session::{self, Root};
use crate::base::error::Result;
use crate::pipeline::{self, Change, Rules};
use crate::ui::Terminal;

/// Remove binary packages that a newer one replaces
///
/// Of packages with the same version, USE flags and dependencies, only the newest stays, and those that the last build of a recipe
/// installed, if its work directory is still in the store. The others leave the index at once. Their files stay for a time of grace, for
/// readers that have the older index; a later `binhost clean` removes them. The file retired.json beside the index lists them until then.
/// `clean --packages` removes all packages.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder binhost clean --dry-run
  quern-builder binhost clean /srv/packages --keep 90 --repository /var/db/repos/gentoo")]
pub(super) struct Args {
    /// Directories with a file Packages [default: all directories of packages in the store]
    #[arg(value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Keep packages that are younger than this
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    keep: u32,
    /// Keep the files of packages that left the index for this time
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    grace: u32,
    /// Also remove packages whose ebuild is in none of these repositories
    #[arg(long, value_name = "DIR")]
    repository: Vec<PathBuf>,
    /// Only list the packages that would be removed, with their sizes
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let store = match session::root()? {
            Root::Here(store) => store,
            Root::Done(code) => return Ok(code),
        };
        let (younger, grace) = (u64::from(self.keep) * 86_400, u64::from(self.grace) * 3600);
        let rules = Rules { younger, grace, repositories: &self.repository };
        let mut lines = Vec::new();
        let mut report = |path: &Path, size: u64, change: Change| {
            let note = match change {
                Change::Retired => " (no longer in the index)",
                Change::Removed => "",
            };
            lines.push(row(size, &format!("{}{note}", path.display())));
        };
        let done = pipeline::tidy(&self.directories, &rules, &store, self.dry_run, &mut report);
        if !lines.is_empty() {
            ui.plan(&lines.join("\n"));
        }
        done.map(|()| 0)
    }
}
