//! `clean`: removes files from the store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::layers;
use super::limits::size;
use super::session::{self, Root};
use crate::base::error::{Error, Result};
use crate::base::text;
use crate::recipe;
use crate::store::Store;
use crate::store::clean::Category;
use crate::store::layers::{Chosen, Limits};
use crate::ui::Terminal;

/// Remove files from the store that can be built or downloaded again
///
/// Without options, removes the work directories of builds. Only `shell --image` needs them. Files that a running build uses stay.
/// Results in outdirs are never removed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder clean --dry-run --all    list everything with its size
  quern-builder clean --builds --trees
  quern-builder clean --layers --keep 20GiB --unused 30d
  quern-builder clean --of machines/base --below")]
pub struct Args {
    /// All of the following
    #[arg(long)]
    pub all: bool,
    /// Work directories: overlays, image trees, logs (default)
    #[arg(long)]
    pub builds: bool,
    /// Results of steps (layers). A layer goes after those that were made on top of it
    #[arg(long)]
    pub layers: bool,
    /// Keep the most recently used layers, up to this size: a number of bytes, or 20GiB
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "layers")]
    pub keep: Option<u64>,
    /// Keep layers that were used during this time: days, or 36h, 14d, 4w. With --keep, layers must meet both conditions to stay
    #[arg(long, value_name = "AGE", value_parser = age, requires = "layers")]
    pub unused: Option<u64>,
    /// The layers of this recipe, or of the directory of an image in a tree
    #[arg(long, value_name = "RECIPE", value_parser = super::recipe_path())]
    pub of: Option<PathBuf>,
    /// With --of, remove also the layers that were made on top of them, as those of the images that start from it; with a name, only
    /// the layers from this step on
    #[arg(long, value_name = "STEP", num_args = 0..=1, requires = "of")]
    pub below: Option<Option<String>>,
    /// Unpacked stage3s, ebuild repositories and downloads of steps
    #[arg(long)]
    pub trees: bool,
    /// Downloaded stage3s, snapshots, files of steps and git repositories
    #[arg(long)]
    pub blobs: bool,
    /// Binary packages built here, and compiler caches
    #[arg(long)]
    pub packages: bool,
    /// Sources of packages (distfiles)
    #[arg(long)]
    pub distfiles: bool,
    /// Compressed chunks of archives
    #[arg(long)]
    pub pieces: bool,
    /// Directories that steps keep ([cache.NAME]): those of these caches or, without a name, all
    #[arg(long, value_name = "NAME", num_args = 0.., value_delimiter = ',')]
    pub caches: Option<Vec<String>>,
    /// Only list the files that would be removed, with their sizes
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

impl Args {
    /// Returns the selected categories; without options, the work directories. `of` are the layers of the recipe.
    pub fn selection(&self, of: Option<Chosen>) -> Vec<Category> {
        let layers = self.layers || of.is_some();
        let limits = Limits { keep: self.keep, unused: self.unused.map(Duration::from_secs), of };
        let chosen = [
            (Category::Builds, self.builds),
            (Category::Layers(limits), layers),
            (Category::Trees, self.trees),
            (Category::Blobs, self.blobs),
            (Category::Packages, self.packages),
            (Category::Distfiles, self.distfiles),
            (Category::Pieces, self.pieces),
            (Category::Caches(self.caches.clone().unwrap_or_default()), self.caches.is_some()),
        ];
        let selected: Vec<_> = chosen.into_iter().filter(|(_, on)| self.all || *on).map(|(one, _)| one).collect();
        if selected.is_empty() { vec![Category::Builds] } else { selected }
    }

    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let store = match session::root()? {
            Root::Here(store) => store,
            Root::Done(code) => return Ok(code),
        };
        let mut lines = Vec::new();
        let of = self.of.as_deref().map(|recipe| self.layers_of(recipe, &store)).transpose()?;
        let cleaned = store.clean(&self.selection(of), self.dry_run, |item| {
            let name = item.path.strip_prefix(store.root()).unwrap_or(&item.path).display().to_string();
            lines.push(row(item.bytes, &if item.busy { format!("{name} (in use, not removed)") } else { name }));
        });
        ui.plan(&lines.join("\n"));
        cleaned.map(|()| 0)
    }
}

impl Args {
    /// Returns the layers that the last build of a recipe made or used, without those of the image that it starts from.
    fn layers_of(&self, recipe: &Path, store: &Store) -> Result<Chosen> {
        let built = layers::last_build(store, recipe)?;
        let mut own: Vec<_> = built.layers.into_iter().filter(|(name, _)| !name.contains(':')).collect();
        if let Some(Some(step)) = &self.below {
            let names: Vec<&str> = own.iter().map(|(name, _)| name.as_str()).collect();
            let Some(at) = names.iter().position(|name| name == step) else {
                return Err(Error::usage(format!("the last build has no step {}", text::quoted(step)))
                    .with_hint(format!("its steps are {}", names.join(", "))));
            };
            own.drain(..at);
        }
        let keys = own.into_iter().map(|(_, key)| key).collect();
        Ok(Chosen { keys, above: self.below.is_some() })
    }
}

fn age(text: &str) -> Result<u64, String> {
    recipe::age(text).ok_or_else(|| "not an age: write days, for example 14, or 36h, 14d, 4w".to_owned())
}

/// Formats a line of a list: size and name.
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
    fn the_default_selection_is_builds() {
        let of = |arguments: &[&str]| Cli::parse_from([&["clean"], arguments].concat()).args.selection(None);
        assert_eq!(of(&[]), [Category::Builds]);
        assert_eq!(of(&["--trees"]), [Category::Trees]);
        let limits = Limits { keep: Some(20 << 30), unused: Some(Duration::from_secs(14 * 86_400)), of: None };
        assert_eq!(of(&["--layers", "--keep", "20G", "--unused", "14"]), [Category::Layers(limits)]);
        for refused in [&["--keep", "20G"][..], &["--layers", "--keep", "x"], &["--layers", "--unused", "1y"]] {
            assert!(Cli::try_parse_from([&["clean"], refused].concat()).is_err(), "{refused:?}");
        }
        let all = [
            Category::Builds,
            Category::Layers(Limits::default()),
            Category::Trees,
            Category::Blobs,
            Category::Packages,
            Category::Distfiles,
            Category::Pieces,
            Category::Caches(Vec::new()),
        ];
        assert_eq!(of(&["--caches", "a,b"]), [Category::Caches(vec!["a".to_owned(), "b".to_owned()])]);
        assert_eq!(of(&["--all", "-n"]), all);
        assert_eq!(row(3 << 20, "trees/\x1bx"), "  3.00 MiB  trees/\\x1bx");
    }
}
