//! `store`: what is kept of downloads, and taking it elsewhere.

use crate::base::time;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::clean::row;
use super::{RecipeArgs, lock, session, standard};
use crate::base::digest::Sha512;
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::progress::Progress;
use crate::fs::staging::Directory;
use crate::lockfile::Lockfile;
use crate::os::process::Signals;
use crate::os::space;
use crate::recipe::Origin;
use crate::source::repository::snapshot;
use crate::source::{self, Located, Locked};
use crate::store::Store;
use crate::ui::Terminal;

/// Show what the store keeps of downloads, and take it to another store
///
/// Mirrors keep a build for about five weeks; a store keeps it until it is cleaned. An export is a tar archive (SHA512SUMS,
/// blobs/sha512/…) that other programs can read and check. An import makes nothing trusted: what is wanted of it says a lock file, by
/// its digest, or the signature that is checked anyway.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder store list
  quern-builder lock demo.toml && quern-builder fetch demo.toml --locked
  quern-builder store export demo.toml -o stage3.tar        what demo.toml is locked to
  quern-builder store import stage3.tar                     on the other machine, which needs no network then:
  quern-builder build demo.toml --locked --offline")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List what is kept: size, day, beginning of the SHA-512, name where it is known
    List,
    /// Write what is kept to an archive, or to standard output
    ///
    /// Of a recipe: what it is locked to, or else the newest verified stage3 of it that the store has. Everything is hashed again on
    /// its way.
    Export(Export),
    /// Take in an export, an unpacked one, or another store
    ///
    /// Everything is hashed, and gets the name of what was computed; nothing is kept unless all of it is whole. Prints the paths
    /// of the blobs.
    Import {
        /// An archive, a directory that holds blobs/sha512, or - for standard input
        #[arg(value_name = "FILE|DIR")]
        from: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Export {
    /// SHA-512 digests or beginnings of them; recipes, of which later ones win, key by key
    #[arg(value_name = "DIGEST|RECIPE", required_unless_present_any = ["all", "lock_file"])]
    what: Vec<PathBuf>,
    /// Everything that the store has
    #[arg(long, conflicts_with_all = ["what", "lock_file"])]
    all: bool,
    /// The lock file of the recipe [default: quern.lock in the directory of the last recipe]; without a recipe, everything in it
    #[arg(long, value_name = "FILE")]
    lock_file: Option<PathBuf>,
    /// Set a key of the recipe, over all files
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Recipe")]
    set: Vec<String>,
    /// Write to this file, which appears when it is whole, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let store = session::store()?;
        Signals::start()?;
        match self.verb {
            Verb::List => list(&store, ui),
            Verb::Export(export) => export.run(&store, ui),
            Verb::Import { from } => import(&store, &from, ui).map_err(|error| space::told(error, &[store.root()])),
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
        let file = fs_err::File::open(from).context(Kind::Usage, || "opening what to import")?;
        let size = file.metadata().system(|| "reading what to import")?.len();
        store.import(file, &from.display().to_string(), Some(size), ui)?
    };
    if imported.iter().all(|blob| blob.known) {
        ui.note("the store has all of it already");
    }
    imported.iter().for_each(|blob| ui.result(store.blob_path(&blob.sha512)));
    Ok(())
}

impl Export {
    fn run(self, store: &Store, ui: &Terminal) -> Result<()> {
        let chosen = self.chosen(store, ui)?;
        let sizes = store.blobs()?.into_iter().filter(|blob| chosen.contains(&blob.sha512)).map(|blob| blob.size);
        let needed = sizes.sum();
        let Some(output) = &self.output else {
            let mut out = standard::archive()?;
            if out.metadata().is_ok_and(|metadata| metadata.is_file()) {
                space::check(&out, Path::new("the file system of standard output"), "exporting", needed)?;
            }
            return store.export(&chosen, &mut out, ui);
        };
        let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let doing = || format!("writing {}", output.display());
        if output.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(Error::usage(format!("{}: something else than a file is there", doing())));
        }
        let above = fs_err::File::open(directory).system(doing)?;
        let staging = Directory::create(above.file().as_fd(), directory, ui)?;
        let path = directory.join(staging.name()).join("export");
        let mut file = fs_err::File::create(&path).system(doing)?;
        space::check(file.file(), directory, doing(), needed)?;
        store.export(&chosen, &mut file, ui).map_err(|error| space::told(error, &[directory]))?;
        file.sync_all().system(doing)?;
        staging.undisturbed(|| fs_err::rename(&path, output)).system(doing)?;
        ui.result(output);
        Ok(())
    }

    /// The digests that were asked for, each once.
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
                    return Err(Error::usage(format!("the store has nothing whose SHA-512 begins with {digest}"))
                        .with_hint("`quern-builder store list` shows what it has"));
                }
            }
        }
        let recipe = RecipeArgs { files: files.into_iter().cloned().collect(), set: self.set.clone() };
        let wanted = match (&self.lock_file, recipe.files.is_empty()) {
            (_, false) => self.of_recipe(&recipe, store, ui)?,
            (Some(path), true) => {
                let lockfile = Lockfile::read(path)?;
                let lockfile = lockfile.ok_or_else(|| Error::usage(format!("there is no {}", path.display())))?;
                lockfile.entries().flat_map(stored_files).collect()
            }
            (None, true) => Vec::new(),
        };
        for (name, sha512) in wanted {
            if !stored.contains(&sha512) {
                return Err(Error::usage(format!("the store has no {name}"))
                    .with_hint("`quern-builder fetch` brings it, with --locked what is locked"));
            }
            chosen.insert(sha512);
        }
        Ok(chosen.into_iter().collect())
    }

    /// Names and digests of what a recipe needs.
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
        let known = source::known(&job, store)?;
        let mut found = vec![known];
        for repository in &job.portage.repositories {
            if let Origin::Snapshot(snapshot) = &repository.origin {
                found.push(snapshot::known(snapshot, store)?);
            }
        }
        let named =
            |one: &Option<Located>| one.as_ref().and_then(|known| Some((known.name().to_owned(), known.sha512()?)));
        match found.iter().map(named).collect::<Option<Vec<_>>>() {
            Some(found) => Ok(found),
            None => Err(Error::usage(format!("the store has not all that {} is built from", job.name))
                .with_hint("`quern-builder fetch` brings it")),
        }
    }
}

fn stored_files(locked: &Locked) -> Vec<(String, Sha512)> {
    locked.files().map(|(name, sha512)| (name.to_owned(), sha512)).collect()
}

/// Whether an argument is a digest, or enough of one, and no file.
fn is_digest(what: &Path) -> bool {
    let hex =
        |text: &str| (8..=128).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    what.to_str().is_some_and(hex) && !what.exists()
}
