//! `fetch`: brings the stage3, the repositories and the downloads of a recipe into the store.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::RecipeArgs;
use super::answers::AnswerArgs;
use super::lock::LockArgs;
use super::session::{self, Session};
use crate::base::error::Result;
use crate::base::progress::Progress;
use crate::pipeline;
use crate::recipe::{self, Secrets};
use crate::source;
use crate::source::{ResolveOptions, Site, Wanted, fetched};
use crate::ui::Terminal;

/// Download and verify the inputs of a recipe, without building
///
/// The inputs are the stage3, the ebuild repositories and the downloads that steps name ([fetch.NAME]). Continues an interrupted
/// download. Prints the path of the tarball in the store, the directory of each fetched repository, and the file or directory of each
/// download.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder fetch musl-python3.toml
  quern-builder fetch --list amd64
  quern-builder fetch --list riscv --set source.mirrors='[\"https://mirror.example.org/gentoo\"]'")]
pub struct Args {
    /// The recipe, or a directory with a quern.toml; of several files later ones win, key by key
    #[arg(required_unless_present = "list", value_name = "RECIPE", value_parser = super::recipe_path())]
    pub files: Vec<PathBuf>,
    /// Set a key of the recipe, over all files
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Recipe")]
    pub set: Vec<String>,
    /// The answers to the questions of the recipe.
    #[command(flatten)]
    pub answers: AnswerArgs,
    /// Download nothing; list the stage3s that the mirrors offer for an architecture, with sizes and dates
    #[arg(long, value_name = "ARCH")]
    pub list: Option<String>,
    /// Accept a signed list older than one seen before, for this run
    #[arg(long)]
    pub allow_rollback: bool,
    /// The lock file.
    #[command(flatten)]
    pub lock: LockArgs,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let recipe = RecipeArgs {
            files: self.files,
            set: self.set,
            answers: self.answers,
            secrets: Secrets::Leave,
            shared: false,
        };
        if let Some(arch) = &self.list {
            return list(&recipe, arch, ui);
        }
        session::with(&recipe, &[], ui, |Session { job, store, .. }| {
            let downloads = fetched::of_family(job);
            if matches!(job.source.base, recipe::BaseSpec::Host { .. }) && downloads.is_empty() {
                ui.note(&format!("{} is built from this host: there is nothing to fetch", job.name));
                return Ok(0);
            }
            let locked = self.lock.entry(&recipe, job)?;
            let options =
                ResolveOptions { offline: false, allow_rollback: self.allow_rollback, locked: locked.as_ref() };
            let site = Site::new(store, options, ui);
            let fetches = job.portage.repositories.iter().any(|one| one.location().is_none());
            let repositories = if fetches { pipeline::repositories(job, &site)?.0 } else { Vec::new() };
            let downloads = fetched::fetches(&downloads, &site)?;
            if !matches!(job.source.base, recipe::BaseSpec::Host { .. }) {
                let (_, verified) = Wanted::base(job)?.bytes(&site)?;
                ui.result(store.blob_path(&verified.sha512()));
            }
            let fetched = repositories.iter().filter(|repository| repository.spec.location().is_none());
            fetched.for_each(|repository| ui.result(repository.directory()));
            downloads.iter().for_each(|download| ui.result(download.path()));
            Ok(0)
        })
    }
}

/// Prints the offers as a table: variant, timestamp, size.
fn list(recipe: &RecipeArgs, arch: &str, ui: &Terminal) -> Result<i32> {
    // The stage3 of the recipe does not matter here, and a recipe need not be given.
    let source = recipe::load_source(&session::request(recipe, &["source.stage3=any".to_owned()], ui)?)?;
    let store = session::store()?;
    let site = Site::new(&store, ResolveOptions::default(), ui);
    let mut offers = source::offers(&source, arch, &site)?.entries;
    offers.sort_by(|a, b| a.variant.cmp(&b.variant));
    let width = offers.iter().map(|offer| offer.variant.len()).max().unwrap_or_default();
    let mut text = String::new();
    for offer in &offers {
        let mib = offer.size.div_ceil(1 << 20);
        let _ = writeln!(text, "{:width$}  {}  {mib:5} MiB", offer.variant, offer.timestamp);
    }
    ui.plan(&text);
    Ok(0)
}
