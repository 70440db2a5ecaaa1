//! `store`: lists, exports and imports downloads of the store.

use crate::base::time;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::answers::AnswerArgs;
use super::clean::row;
use super::session::Root;
use super::{RecipeArgs, layers, lock, named, session, standard};
use crate::base::digest::Sha512;
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::progress::Progress;
use crate::lockfile::Locked;
use crate::lockfile::Lockfile;
use crate::os::process::Signals;
use crate::os::space;
use crate::recipe::Secrets;
use crate::source::{self, Located, SourceFile, Wanted};
use crate::store::Store;
use crate::ui::Terminal;

/// List the downloads and layers in the store, and copy them to another store
///
/// Mirrors keep a build for about five weeks; a store keeps it until it is cleaned. An export is a tar archive (SHA512SUMS,
/// blobs/sha512/…) that other programs can read and check. Importing does not make anything trusted. A blob is used only if a lock
/// file names its digest or its signature verifies.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder store list
  quern-builder store list --layers
  quern-builder lock demo.toml && quern-builder fetch demo.toml --locked
  quern-builder store export demo.toml -o stage3.tar        export the locked files of demo.toml
  quern-builder store export --layers demo.toml -o layers.tar
  quern-builder store import stage3.tar                     on a machine without a network, followed by:
  quern-builder build demo.toml --locked --offline")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the downloads: size, date, beginning of the SHA-512, and name if it is known
    List {
        /// List the results of steps instead: size of the data, last use, beginning of the key, and the image and step that made it
        #[arg(long)]
        layers: bool,
        /// Print a JSON document
        #[arg(long, requires = "layers")]
        json: bool,
    },
    /// Write downloads to an archive or to standard output
    ///
    /// For a recipe, exports its locked files; without a lock, its newest verified stage3 in the store. Every file is hashed again.
    Export(Export),
    /// Import an export, an unpacked export or another store
    ///
    /// Every file is hashed and named by the computed digest. Nothing is imported unless everything is complete. Prints the paths of
    /// the blobs.
    Import {
        /// An archive, a directory with blobs/sha512, or - for standard input
        #[arg(value_name = "FILE|DIR")]
        from: PathBuf,
        /// Import the results of steps from an archive of `store export --layers`
        ///
        /// The files of a layer are compared with the digest in its record. But nothing proves that they are what the step makes, so import
        /// only layers of somebody whom you trust with your images.
        #[arg(long)]
        layers: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Export {
    /// SHA-512 digests or their first 8 or more digits; or recipe files, of which later ones override earlier ones
    #[arg(value_name = "DIGEST|RECIPE", required_unless_present_any = ["all", "lock_file"])]
    what: Vec<PathBuf>,
    /// Export the results of the steps of recipes instead, as the last build of each used them
    ///
    /// Left out are the steps with secrets, which only this store can look up, and Portage's configuration, which every build makes.
    #[arg(long, conflicts_with_all = ["all", "lock_file", "set"])]
    layers: bool,
    /// Export all downloads
    #[arg(long, conflicts_with_all = ["what", "lock_file"])]
    all: bool,
    /// The lock file of the recipe [default: quern.lock beside the last recipe file]; without a recipe, export all its files
    #[arg(long, value_name = "FILE")]
    lock_file: Option<PathBuf>,
    /// Set a key of the recipe; overrides all recipe files
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Recipe")]
    set: Vec<String>,
    /// Write to this file instead of standard output; it appears when it is complete
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let layers =
            matches!(&self.verb, Verb::Export(Export { layers: true, .. }) | Verb::Import { layers: true, .. });
        let store = if layers {
            // Files of layers belong to many users.
            match session::root()? {
                Root::Here(store) => store,
                Root::Done(code) => return Ok(code),
            }
        } else {
            let store = session::store()?;
            Signals::start()?;
            store
        };
        match self.verb {
            Verb::List { layers: true, json } => layers::list(&store, json, ui),
            Verb::List { .. } => list(&store, ui),
            Verb::Export(Export { layers: true, what, output, .. }) => {
                layers::export(&store, &what, output.as_deref(), ui)
            }
            Verb::Export(export) => export.run(&store, ui),
            Verb::Import { from, layers: true } => layers::import(&store, &from, ui),
            Verb::Import { from, .. } => import(&store, &from, ui).map_err(|error| space::told(error, &[store.root()])),
        }?;
        Ok(0)
    }
}

fn list(store: &Store, ui: &Terminal) -> Result<()> {
    let names: BTreeMap<Sha512, String> = source::names(store)?;
    let mut text = String::new();
    let blobs = store.blobs()?;
    if blobs.is_empty() {
        return Ok(());
    }
    for blob in blobs {
        let day = time::readable(blob.written);
        let day = &day[..10];
        let name = names.get(&blob.sha512).map_or("", String::as_str);
        let _ =
            writeln!(text, "{}", row(blob.size, &format!("{day}  {}  {name}", &blob.sha512.hex()[..16])).trim_end());
    }
    ui.plan(&text);
    Ok(())
}

fn import(store: &Store, from: &Path, ui: &Terminal) -> Result<()> {
    let imported = if from == Path::new("-") {
        store.import(standard::input()?, "standard input", None, ui)?
    } else if from.is_dir() {
        store.import_directory(from, ui)?
    } else {
        let file = fs_err::File::open(from).context(Kind::Usage, || "opening the export")?;
        let size = file.metadata().system(|| "reading the export")?.len();
        store.import(file, &from.display().to_string(), Some(size), ui)?
    };
    if imported.iter().all(|blob| blob.known) {
        ui.note("the store already has all of these blobs");
    }
    imported.iter().for_each(|blob| ui.result(store.blob_path(&blob.sha512)));
    Ok(())
}

impl Export {
    fn run(self, store: &Store, ui: &Terminal) -> Result<()> {
        let chosen = self.chosen(store, ui)?;
        let sizes = store.blobs()?.into_iter().filter(|blob| chosen.contains(&blob.sha512)).map(|blob| blob.size);
        let needed = sizes.sum();
        named::write_archive(self.output.as_deref(), needed, ui, |to| store.export(&chosen, to, ui))
    }

    /// Returns the requested digests, each once.
    fn chosen(&self, store: &Store, ui: &Terminal) -> Result<Vec<Sha512>> {
        let stored: Vec<Sha512> = store.blobs()?.into_iter().map(|blob| blob.sha512).collect();
        if self.all {
            return Ok(stored);
        }
        let mut chosen = BTreeSet::new();
        let (digests, files): (Vec<&PathBuf>, Vec<&PathBuf>) = self.what.iter().partition(|what| is_digest(what));
        for digest in digests.into_iter().filter_map(|digest| digest.to_str()) {
            let mut found = stored.iter().filter(|sha512| sha512.hex().starts_with(digest));
            match (found.next(), found.next()) {
                (Some(one), None) => _ = chosen.insert(*one),
                (Some(_), Some(_)) => return Err(Error::usage(format!("several digests begin with {digest}"))),
                (None, _) => {
                    return Err(Error::usage(format!(
                        "the store does not have a blob whose SHA-512 begins with {digest}"
                    ))
                    .with_hint("list the blobs with `quern-builder store list`"));
                }
            }
        }
        let recipe = RecipeArgs {
            files: files.into_iter().cloned().collect(),
            set: self.set.clone(),
            answers: AnswerArgs::default(),
            secrets: Secrets::Leave,
            shared: false,
        };
        let wanted = match (&self.lock_file, recipe.files.is_empty()) {
            (_, false) => self.of_recipe(&recipe, store, ui)?,
            (Some(path), true) => {
                let lockfile = Lockfile::read(path)?;
                let lockfile = lockfile.ok_or_else(|| Error::usage(format!("{} not found", path.display())))?;
                lockfile.entries().flat_map(stored_files).collect()
            }
            (None, true) => Vec::new(),
        };
        for (name, sha512) in wanted {
            if !stored.contains(&sha512) {
                return Err(Error::usage(format!("the store does not have {name}"))
                    .with_hint("fetch it with `quern-builder fetch`, and locked files with --locked"));
            }
            chosen.insert(sha512);
        }
        Ok(chosen.into_iter().collect())
    }

    /// Returns names and digests of the files that a recipe needs.
    fn of_recipe(&self, recipe: &RecipeArgs, store: &Store, ui: &Terminal) -> Result<Vec<(String, Sha512)>> {
        let job = session::load(recipe, &[], ui)?.job;
        let path = lock::path(self.lock_file.as_deref(), recipe, "--lock-file")?;
        let locked = match &self.lock_file {
            Some(path) => Some(Lockfile::entry(path, &job.name)?),
            None => Lockfile::read(&path)?.and_then(|lockfile| lockfile.get(&job.name).cloned()),
        };
        if let Some(locked) = locked {
            return Ok(stored_files(&locked));
        }
        let mut found = vec![source::known(&job, store)?];
        for (index, repository) in job.portage.repositories.iter().enumerate() {
            if let Some(wanted @ Wanted::Snapshot { .. }) = Wanted::repository(repository, index) {
                found.push(wanted.known(store)?.and_then(Located::file));
            }
        }
        let named =
            |one: &Option<SourceFile>| one.as_ref().and_then(|known| Some((known.name().to_owned(), known.sha512()?)));
        match found.iter().map(named).collect::<Option<Vec<_>>>() {
            Some(found) => Ok(found),
            None => Err(Error::usage(format!("the store does not have all files that {} is built from", job.name))
                .with_hint("fetch them with `quern-builder fetch`")),
        }
    }
}

fn stored_files(locked: &Locked) -> Vec<(String, Sha512)> {
    locked.files().map(|(name, sha512)| (name.to_owned(), sha512)).collect()
}

/// Returns true if an argument is at least 8 digits of a digest and not a file.
fn is_digest(what: &Path) -> bool {
    let hex =
        |text: &str| (8..=128).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    what.to_str().is_some_and(hex) && !what.exists()
}
