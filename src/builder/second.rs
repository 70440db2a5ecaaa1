//! The second key of an emerge command: what it merges, instead of the state of all repositories. A new state of a repository makes the
//! first key miss. The second one still finds the layer if no package of the image changed, at the cost of one dependency calculation.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Builder;
use super::merge::Command;
use super::query::Query;
use super::resolve::MAX_TIME;
use super::steps::{self, Use};
use super::trees::Trees;
use crate::base::digest::Sha256;
use crate::base::error::Result;
use crate::fs::rootfs::Rootfs;
use crate::plan::nodes::{self, Inputs};
use crate::portage::emerge::{Root, Step};
use crate::portage::query::content;
use crate::portage::{self, PKGDB};
use crate::source::Site;
use crate::store::Store;
use crate::store::layers::{KeptPackages, Layer};
use crate::store::trees::remove_tree;
use crate::store::work::WorkPaths;

/// Kind of the refs that lead to the first key of a layer: from its second key, and from first keys that a second one found.
const REFS: &str = "layers";

/// The key of a layer.
#[derive(Debug, Serialize, Deserialize)]
struct Target {
    key: Sha256,
}

/// Returns the key of the layer that answers to `key`: itself, or another one that a second key found before.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if the store cannot be read.
pub(super) fn known_key(key: Sha256, store: &Store) -> Result<Sha256> {
    let target = store.read_ref::<Target>(REFS, &key.hex())?;
    Ok(match target {
        Some(Target { key: other }) if store.layer(&other)?.is_some() => other,
        _ => key,
    })
}

/// Makes the layer `key` known under the key `other`, too.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if the store cannot be written.
pub(super) fn alias(other: &Sha256, key: Sha256, store: &Store) -> Result<()> {
    store.write_ref(REFS, &other.hex(), &Target { key })
}

impl Builder<'_> {
    /// Looks for a layer of a command by what emerge would merge. `key` is the first key, under which the layer is then known, too. Asks
    /// emerge only if the same command has run in this state before.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the trees cannot be mounted. A refusal of emerge is not an error here.
    pub(super) fn find_by_content(
        &mut self,
        command: Command<'_>,
        key: &Sha256,
        at: &Site<'_>,
    ) -> Result<Option<Layer>> {
        let (step, own) = command;
        if !step.merges() || self.again || self.parts.job.build.packages_only {
            return Ok(None);
        }
        let ran = self.second_key(command, None, at)?;
        if at.store.read_ref::<Target>(REFS, &ran.hex())?.is_none() {
            return Ok(None);
        }
        self.begin_merging(at)?;
        let work = self.parts.work.paths();
        let content = self.in_trees_of((own, Use::Look), &work.on(&work.questions()), at, |builder, trees| {
            if let Some(profile) = &step.profile {
                super::prepare::set_profile(trees.root(), profile)?;
            }
            let metadata = builder.merging.as_ref().and_then(|merging| merging.metadata.as_ref());
            metadata.map_or(Ok(()), |metadata| metadata.restore(trees.root()))?;
            at.ui.stage(&step.resolving());
            let arguments = step.argv.iter().skip(1).cloned().chain(["--package-moves=n".to_owned()]);
            let content = builder.content(step, arguments);
            metadata.iter().for_each(|metadata| metadata.keep(trees.root(), at.ui));
            content
        });
        remove_tree(&work.questions())?;
        at.ui.done();
        let Some(content) = content? else { return Ok(None) };
        let second = self.second_key(command, Some(&content), at)?;
        let Some(Target { key: other }) = at.store.read_ref(REFS, &second.hex())? else { return Ok(None) };
        let Some(layer) = at.store.layer(&other)? else { return Ok(None) };
        at.store.write_ref(REFS, &key.hex(), &Target { key: other })?;
        Ok(Some(layer))
    }

    /// Returns the content of what a command has merged into its trees, with its changes in `paths`.
    pub(super) fn merged_content(&self, step: &Step, trees: &Trees, paths: &WorkPaths) -> Result<Option<Sha256>> {
        if !step.merges() {
            return Ok(None);
        }
        let arguments = ["--installed".to_owned()].into_iter().chain(changed(step, trees, paths)?);
        self.content(step, arguments)
    }

    /// Returns the packages that a command has merged into its trees, with its changes in `paths`, and that the store has as binary
    /// packages.
    pub(super) fn kept_packages(&self, step: &Step, trees: &Trees, paths: &WorkPaths) -> Result<Option<KeptPackages>> {
        let Some(merging) = self.merging.as_ref().filter(|_| step.merges()) else { return Ok(None) };
        let tree = trees.image().unwrap_or(trees.root());
        merging.packages.kept(changed(step, trees, paths)?, tree, &self.parts.caches.packages)
    }

    /// Remembers the layer `key` of a command that merged `content`, before the chain has it.
    pub(super) fn remember(&self, command: Command<'_>, content: &Sha256, key: &Sha256, at: &Site<'_>) -> Result<()> {
        for content in [None, Some(content)] {
            let second = self.second_key(command, content, at)?;
            at.store.write_ref(REFS, &second.hex(), &Target { key: *key })?;
        }
        Ok(())
    }

    /// Returns the second key of a command that merges `content`; without it, the key of the fact that the command has run.
    fn second_key(&self, (step, own): Command<'_>, content: Option<&Sha256>, at: &Site<'_>) -> Result<Sha256> {
        let uses = own.map(|own| steps::uses(own, self.parts.plan, &self.chain, at.store));
        let mut inputs: Inputs = uses.transpose()?.unwrap_or_default();
        inputs.extend(nodes::of_command(step));
        inputs.extend(self.portage.get("configuration").map(|digest| ("configuration".to_owned(), digest.clone())));
        let settings = self.merging.as_ref().filter(|_| content.is_some()).map(|merging| merging.packages.settings());
        inputs.extend(settings.map(|settings| ("settings".to_owned(), settings)));
        inputs.insert("packages".to_owned(), content.map_or_else(|| "any".to_owned(), Sha256::hex));
        Ok(nodes::key(self.chain.state(), &inputs))
    }

    /// Asks for the content of packages in the mounted trees.
    fn content(&self, step: &Step, arguments: impl Iterator<Item = String>) -> Result<Option<Sha256>> {
        let words = ["python3", "-c", content::PROGRAM].map(str::to_owned);
        let mut query = Query::new(words.into_iter().chain(arguments));
        query.env.extend(step.env.clone());
        // Compiled files of Python would be a part of the layer.
        query.env.insert("PYTHONDONTWRITEBYTECODE".into(), "1".into());
        query.time = MAX_TIME;
        let answer = self.ask(&query)?;
        if !answer.exit.success() {
            tracing::debug!("emerge does not tell what {} merges: {}", step.what, answer.complaint());
            return Ok(None);
        }
        Ok(content::digest(&answer.stdout))
    }
}

/// Lists the packages that a command has merged into its trees, with its changes in `paths`.
fn changed(step: &Step, trees: &Trees, paths: &WorkPaths) -> Result<Vec<String>> {
    let upper = match step.root {
        Root::Target => paths.upper_of(Path::new(portage::ROOT)),
        Root::Builder => paths.upper(),
    };
    changed_packages(&Rootfs::open(&upper)?, trees.image().unwrap_or(trees.root()))
}

/// Lists the packages of `tree` whose records the upper directory `upper` has, as `category/package-version`.
fn changed_packages(upper: &Rootfs, tree: &Rootfs) -> Result<Vec<String>> {
    let database = Path::new(PKGDB);
    let mut packages = Vec::new();
    if upper.stat(database)?.is_none() {
        return Ok(packages);
    }
    for (category, kind) in upper.read_dir(database)? {
        if !kind.is_dir() {
            continue;
        }
        for (package, kind) in upper.read_dir(&database.join(&category))? {
            let path = database.join(&category).join(&package);
            // emerge keeps unfinished merges under a name with a prefix.
            let named = package.to_str().filter(|name| !name.starts_with('-'));
            if let (true, Some(category), Some(package)) = (kind.is_dir(), category.to_str(), named)
                && tree.stat(&path.join("SLOT"))?.is_some()
            {
                packages.push(format!("{category}/{package}"));
            }
        }
    }
    Ok(packages)
}
