//! `binhost export`: copies and signs binary packages.

use std::path::PathBuf;

use super::super::RecipeArgs;
use super::super::session::{self, Session};
use crate::base::error::{Context as _, Error, Kind, Result};
use crate::base::progress::Progress as _;
use crate::base::text::{counted, quoted};
use crate::pipeline::{self, ExportOptions};
use crate::source::{ResolveOptions, Site};
use crate::ui::Terminal;

/// Copy the binary packages of a recipe to a directory that other machines can use
///
/// The directory gets copies of all packages that have the settings of the recipe's last build, or of those in another directory (--from),
/// and then an index. Packages that it has already are left alone, and packages of several recipes may be in one directory. With --sign, the copies are signed with Portage's
/// gpkg-sign in the recipe's builder, in a sandbox without network that sees only the copies and the keys. The certificate is written
/// beside the index, as packages.asc. No build ever sees the keys.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder binhost export demo.toml --to ./packages --sign 2C44695DB9F6043D2C44695DB9F6043D2C44695D

On the way to a server, copy the packages before the index: readers then find every package that an index names.")]
pub(super) struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// The directory for the copies and the index
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Copy the packages of this directory [default: those of the recipe's last build]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Sign the copies with this key
    #[arg(long, value_name = "FINGERPRINT")]
    sign: Option<String>,
    /// The GnuPG home with the key [default: $GNUPGHOME, otherwise ~/.gnupg]
    #[arg(long, value_name = "DIR", requires = "sign")]
    key_home: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let fingerprint = self.sign.as_deref().map(fingerprint).transpose()?;
        let home = match &fingerprint {
            Some(_) => self.home()?,
            None => PathBuf::new(),
        };
        session::with(&self.recipe, &[], ui, |Session { job, origin, store }| {
            let key = fingerprint.as_deref().map(|fingerprint| (fingerprint, home.as_path()));
            let options = ExportOptions { from: self.from.as_deref(), to: &self.to, key };
            let exported = pipeline::export(job, origin, &options, &Site::new(store, ResolveOptions::default(), ui))?;
            let to = self.to.display();
            let copied = counted(exported.added, "package");
            ui.note(&format!("{to}: {copied} copied, {} already there", exported.kept));
            Ok(0)
        })
    }

    /// Returns the GnuPG home with the key.
    fn home(&self) -> Result<PathBuf> {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = self.key_home.clone().or_else(|| var("GNUPGHOME")).or_else(|| Some(var("HOME")?.join(".gnupg")));
        let home =
            home.ok_or_else(|| Error::usage("the GnuPG home is unknown").with_hint("name it with --key-home"))?;
        fs_err::canonicalize(&home).context(Kind::Usage, || "finding the GnuPG home")
    }
}

/// Returns a fingerprint in upper case and without blanks.
fn fingerprint(text: &str) -> Result<String> {
    let digits: String = text.chars().filter(|c| *c != ' ').collect::<String>().to_ascii_uppercase();
    if matches!(digits.len(), 40 | 64) && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(digits);
    }
    Err(Error::usage(format!("--sign: {} is not a fingerprint", quoted(text)))
        .with_hint("`gpg --list-secret-keys` prints fingerprints, of 40 or 64 digits"))
}
