//! Claims of results by recipes, so that two recipes of one name do not overwrite each other's results in one outdir.
//!
//! The store has a ref for each set of results: the outdir, their common name, and the recipe that made them. A claim ends when the
//! recipe's file or all of its results are gone, so neither a moved recipe nor a cleaned outdir blocks a name.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::digest::Sha256;
use crate::base::error::{Error, Result};
use crate::store::Store;

/// Kind of the refs.
const KIND: &str = "results";

/// Endings of the names of results that exist once a build has published.
const ENDINGS: [&str; 6] = [".tar.gz", ".tar.xz", ".tar.zst", ".tar", ".json", ".oci"];

/// The recipe of a build that reads it from standard input.
const STANDARD_INPUT: &str = "-";

/// A claim as the store keeps it. Paths need not be UTF-8, but JSON is.
#[derive(Debug, Serialize, Deserialize)]
struct StoredClaim {
    outdir: Vec<u8>,
    base: String,
    recipe: Vec<u8>,
}

/// The claim of a recipe to its results in an outdir.
#[derive(Debug)]
pub struct Claim<'a> {
    store: &'a Store,
    outdir: PathBuf,
    base: &'a str,
    recipe: &'a Path,
}

impl<'a> Claim<'a> {
    /// Describes the claim of the file `recipe` to the results `base` in `outdir`.
    pub fn new(store: &'a Store, outdir: &Path, base: &'a str, recipe: &'a Path) -> Self {
        // An outdir that does not exist has no results.
        let outdir = fs_err::canonicalize(outdir).unwrap_or_else(|_| outdir.to_owned());
        Self { store, outdir, base, recipe }
    }

    /// Fails if the results belong to another recipe. Changes nothing.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if they do; [`Kind::System`](crate::base::error::Kind::System) if the store
    /// cannot be read.
    pub fn check(&self) -> Result<()> {
        let Some(stored) = self.store.read_ref::<StoredClaim>(KIND, &self.name())? else { return Ok(()) };
        let recipe = PathBuf::from(OsString::from_vec(stored.recipe));
        // An unreadable recipe still owns its results; only a missing one does not.
        let is_there = || {
            recipe == Path::new(STANDARD_INPUT)
                || !matches!(recipe.metadata(), Err(error) if error.kind() == ErrorKind::NotFound)
        };
        if recipe == self.recipe || !is_there() || !has_results(&self.outdir, self.base) {
            return Ok(());
        }
        let owner = match recipe.to_str() {
            Some(STANDARD_INPUT) => "a recipe from standard input".to_owned(),
            _ => format!("the recipe {}", recipe.display()),
        };
        let (outdir, base) = (self.outdir.display(), self.base);
        Err(Error::usage(format!("publishing {base} in {outdir}: these results belong to {owner}")).with_hint(format!(
            "give one of the recipes another `name` or `build.image-name`, choose another --outdir, or remove {outdir}/{base}.* to let \
             this recipe use the name"
        )))
    }

    /// Records the claim. The caller holds the lock of the outdir, so that no other build publishes at the same time.
    ///
    /// # Errors
    /// Those of [`Claim::check`], and [`Kind::System`](crate::base::error::Kind::System) if the store cannot be written.
    pub fn keep(&self) -> Result<()> {
        self.check()?;
        let recipe = self.recipe.as_os_str().as_bytes().to_vec();
        let outdir = self.outdir.as_os_str().as_bytes().to_vec();
        self.store.write_ref(KIND, &self.name(), &StoredClaim { outdir, base: self.base.to_owned(), recipe })?;
        self.prune()
    }

    /// Returns the name of the ref: a digest, because paths are too long and not UTF-8.
    fn name(&self) -> String {
        let outdir = self.outdir.as_os_str().as_bytes();
        Sha256::of(&[outdir, b"\0", self.base.as_bytes()].concat()).hex()
    }

    /// Removes the refs of results that are gone from this outdir, whose lock the caller holds.
    fn prune(&self) -> Result<()> {
        for name in self.store.ref_names(KIND)? {
            if name != self.name()
                && let Some(StoredClaim { outdir, base, .. }) = self.store.read_ref(KIND, &name)?
                && outdir == self.outdir.as_os_str().as_bytes()
                && !has_results(&self.outdir, &base)
            {
                self.store.remove_ref(KIND, &name)?;
            }
        }
        Ok(())
    }
}

/// Returns the newest OCI layout among the results of the file `recipe`.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if the store cannot be read.
pub fn newest_layout(store: &Store, recipe: &Path) -> Result<Option<PathBuf>> {
    let mut found = Vec::new();
    for name in store.ref_names(KIND)? {
        let Some(claim) = store.read_ref::<StoredClaim>(KIND, &name)? else { continue };
        let layout = PathBuf::from(OsString::from_vec(claim.outdir)).join(format!("{}.oci", claim.base));
        if claim.recipe == recipe.as_os_str().as_bytes()
            && let Ok(written) = layout.join("index.json").metadata().and_then(|index| index.modified())
        {
            found.push((written, layout));
        }
    }
    Ok(found.into_iter().max().map(|(_, layout)| layout))
}

fn has_results(outdir: &Path, base: &str) -> bool {
    ENDINGS.iter().any(|ending| outdir.join(format!("{base}{ending}")).symlink_metadata().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_layout_of_a_recipe_is_found() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("store")).unwrap();
        let (outdir, recipe) = (place.path().join("out"), place.path().join("demo.toml"));
        fs_err::write(&recipe, "").unwrap();
        assert_eq!(newest_layout(&store, &recipe).unwrap(), None);
        let make = |base: &str, recipe: &Path, age: u64| {
            let layout = outdir.join(format!("{base}.oci"));
            fs_err::create_dir_all(&layout).unwrap();
            let index = fs_err::File::create(layout.join("index.json")).unwrap().into_file();
            index.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(age)).unwrap();
            Claim::new(&store, &outdir, base, recipe).keep().unwrap();
            fs_err::canonicalize(layout).unwrap()
        };
        make("demo-2", &recipe, 100);
        let newest = make("demo-1", &recipe, 10);
        make("other", &place.path().join("other.toml"), 0);
        assert_eq!(newest_layout(&store, &recipe).unwrap(), Some(newest));
    }
}
