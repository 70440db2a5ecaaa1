//! `clean`: remove what the store need not keep.

use super::session::{self, Root};
use crate::base::error::Result;
use crate::base::text;
use crate::store::clean::Category;
use crate::ui::Terminal;

/// Remove from the store what can be made again
///
/// Without an option: the work directories of builds, which `shell --image` needs and no build. What a running build uses is left
/// alone. Results in outdirs are never touched.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder clean --dry-run --all    what there is, and its size
  quern-builder clean --builds --trees")]
pub struct Args {
    /// Everything below
    #[arg(long)]
    pub all: bool,
    /// Work directories: overlays, image trees, logs (default)
    #[arg(long)]
    pub builds: bool,
    /// Unpacked stage3s and ebuild repositories
    #[arg(long)]
    pub trees: bool,
    /// Downloaded stage3s, snapshots and git repositories
    #[arg(long)]
    pub blobs: bool,
    /// Binary packages built here
    #[arg(long)]
    pub packages: bool,
    /// Sources of packages
    #[arg(long)]
    pub distfiles: bool,
    /// Compressed pieces of archives
    #[arg(long)]
    pub pieces: bool,
    /// Print what would be removed, with sizes
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

impl Args {
    /// What the options select; without any, work directories.
    pub fn selection(&self) -> Vec<Category> {
        let chosen = [
            (Category::Builds, self.builds),
            (Category::Trees, self.trees),
            (Category::Blobs, self.blobs),
            (Category::Packages, self.packages),
            (Category::Distfiles, self.distfiles),
            (Category::Pieces, self.pieces),
        ];
        let parts: Vec<_> = chosen.into_iter().filter(|(_, on)| self.all || *on).map(|(part, _)| part).collect();
        if parts.is_empty() { vec![Category::Builds] } else { parts }
    }

    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let store = match session::root()? {
            Root::Here(store) => store,
            Root::Done(code) => return Ok(code),
        };
        let mut lines = Vec::new();
        let cleaned = store.clean(&self.selection(), self.dry_run, |item| {
            let name = item.path.strip_prefix(store.root()).unwrap_or(&item.path).display().to_string();
            lines.push(row(item.bytes, &if item.busy { format!("{name} (in use: left alone)") } else { name }));
        });
        ui.plan(&lines.join("\n"));
        cleaned.map(|()| 0)
    }
}

/// A line about something in the store: its size and its name.
pub fn row(bytes: u64, name: &str) -> String {
    format!("{:>10}  {}", indicatif::BinaryBytes(bytes).to_string(), text::line(name))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn options_select_and_nothing_means_builds() {
        let of = |arguments: &[&str]| Cli::parse_from([&["clean"], arguments].concat()).args.selection();
        assert_eq!(of(&[]), [Category::Builds]);
        assert_eq!(of(&["--trees"]), [Category::Trees]);
        let all = [
            Category::Builds,
            Category::Trees,
            Category::Blobs,
            Category::Packages,
            Category::Distfiles,
            Category::Pieces,
        ];
        assert_eq!(of(&["--all", "-n"]), all);
        assert_eq!(row(3 << 20, "trees/\x1bx"), "  3.00 MiB  trees/\\x1bx");
    }
}
