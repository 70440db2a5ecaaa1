//! `binhost clean`: removes packages that no build needs.

use std::path::{Path, PathBuf};

use super::super::clean::row;
use super::super::session::{self, Root};
use crate::base::error::Result;
use crate::pipeline::{self, Rules};
use crate::ui::Terminal;

/// Remove binary packages that a newer one replaces
///
/// Of packages with the same version, USE flags and dependencies, only the newest stays, and those that the last build of a recipe
/// installed, if its work directory is still in the store. The index is written before files are removed, so that readers find every
/// package that an index names. `clean --packages` removes all packages.
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
        let rules = Rules { younger: u64::from(self.keep) * 86_400, repositories: &self.repository };
        let mut lines = Vec::new();
        let mut report = |path: &Path, size: u64| lines.push(row(size, &path.display().to_string()));
        let done = pipeline::tidy(&self.directories, &rules, &store, self.dry_run, &mut report);
        if !lines.is_empty() {
            ui.plan(&lines.join("\n"));
        }
        done.map(|()| 0)
    }
}
