//! `clean`: remove what the store need not keep.

use crate::ui::text;

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
    /// Work directories: overlays, image trees, logs [default]
    #[arg(long)]
    pub builds: bool,
    /// Unpacked stage3s
    #[arg(long)]
    pub trees: bool,
    /// Downloaded stage3s
    #[arg(long)]
    pub blobs: bool,
    /// Binary packages built here
    #[arg(long)]
    pub packages: bool,
    /// Sources of packages
    #[arg(long)]
    pub distfiles: bool,
    /// Print what would be removed, with sizes
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// Which parts of the store are to be removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selection {
    /// Work directories.
    pub builds: bool,
    /// Unpacked stage3s.
    pub trees: bool,
    /// Downloaded stage3s.
    pub blobs: bool,
    /// Binary packages.
    pub packages: bool,
    /// Distfiles.
    pub distfiles: bool,
}

impl Args {
    /// What the options select; without any, work directories.
    pub fn selection(&self) -> Selection {
        let all = self.all;
        let none = !(all || self.builds || self.trees || self.blobs || self.packages || self.distfiles);
        Selection {
            builds: all || self.builds || none,
            trees: all || self.trees,
            blobs: all || self.blobs,
            packages: all || self.packages,
            distfiles: all || self.distfiles,
        }
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
        assert_eq!(of(&[]), Selection { builds: true, ..Selection::default() });
        assert_eq!(of(&["--trees"]), Selection { trees: true, ..Selection::default() });
        let all = Selection { builds: true, trees: true, blobs: true, packages: true, distfiles: true };
        assert_eq!(of(&["--all", "-n"]), all);
        assert_eq!(row(3 << 20, "trees/\x1bx"), "  3.00 MiB  trees/\\x1bx");
    }
}
