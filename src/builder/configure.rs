//! The step that writes Portage's configuration. It always runs: that takes no time, and the configuration depends on the machine, on
//! which no later step does.

use std::path::{Path, PathBuf};

use super::base::Base;
use super::chain::Chain;
use super::trees::Trees;
use super::{Builder, accelerate, prepare, second, warnings};
use crate::archive::changes;
use crate::base::digest::Sha256;
use crate::base::error::{Context, Result};
use crate::fs::contents;
use crate::fs::rootfs::Rootfs;
use crate::plan::nodes::{self, CONFIGURE, Inputs};
use crate::plan::view::View;
use crate::portage::{self, BuilderInfo, Resolved};
use crate::recipe::{Job, TreeKind};
use crate::source::Site;
use crate::source::binhost::BinhostInput;
use crate::source::inputs::RepositoryInput;
use crate::store::layers::{Found, LayerRecord};
use crate::store::trees::remove_tree;
use crate::store::work::WorkPaths;

impl Builder<'_> {
    /// Writes Portage's configuration, for the builder as a layer, and that of the image into the work directory.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if something cannot be written, and those of the configuration itself.
    pub(super) fn configure(&mut self, at: &Site<'_>) -> Result<()> {
        let parts = self.parts;
        let work = parts.work.paths();
        let paths = work.on(&work.questions());
        fs_err::create_dir_all(work.questions()).system(|| "making a directory for the configuration")?;
        let now = changes::now(&work.questions())?;
        let trees = self.builder_trees(&paths, &self.view)?;
        let helpers = accelerate::Helpers::prepare(parts.job, &self.view, work, parts.plan.info.cpus)?;
        if let Some(chost) =
            parts.job.portage.make_conf.get("CHOST").map(String::as_str).or(parts.resolved.profile.chost())
            && let Some(warning) = warnings::compiler(trees.root(), chost)?
        {
            at.ui.warn(&warning);
        }
        let info = BuilderInfo { tools: helpers.tools.clone(), ..parts.plan.info.clone() };
        let texts = match self.chain.unconfigured(at.store)? {
            // The tree has the configuration of the image that this one starts from.
            Some(below) => {
                let texts = texts_on(&below, (parts.job, parts.resolved, parts.base, &info), (work, &self.view))?;
                prepare::Texts::copy_own_files(parts.job, trees.root())?;
                texts
            }
            None => prepare::Texts::new(parts.job, parts.resolved, trees.root(), work, &info)?,
        };
        let identity = identity(parts.job, &texts.identity)?;
        texts.write(trees.root(), work)?;
        prepare::no_name_servers(trees.root())?;
        trees.unmount()?;
        self.texts = Some(texts);
        self.helpers = Some(helpers);
        self.portage = portage_inputs(parts.resolved, parts.repositories, parts.binhosts, &identity);

        let upper = Rootfs::open(&paths.upper())?;
        let written = changes::read(&upper, self.chain.began(now), &|_| false, at.ui)?;
        let inputs =
            Inputs::from([("configuration".to_owned(), identity.hex()), ("files".to_owned(), written.digest().hex())]);
        let key = nodes::key(self.chain.state(), &inputs);
        let layer = match at.store.find_layer(&key, |_| true, || {})? {
            Found::There(layer) => *layer,
            Found::Missing(partial) => {
                let to = partial.upper("/");
                fs_err::rename(paths.upper(), &to).system(|| "keeping the configuration")?;
                // The host's /etc is an overlay of its own.
                remove_tree(&paths.upper_of(Path::new(portage::ROOT)))?;
                if paths.uppers().exists() {
                    fs_err::rename(paths.uppers(), partial.directory().join("uppers"))
                        .system(|| "keeping the configuration")?;
                }
                let record = LayerRecord {
                    result: identity,
                    bytes: written.bytes(),
                    ..self.layer_record(CONFIGURE, key, inputs, (now, std::time::Duration::ZERO))
                };
                partial.keep(record, &[("/", written)])?
            }
        };
        remove_tree(&work.questions())?;
        second::alias(&plain_key(&self.chain, &identity), layer.record().key, at.store)?;
        self.reasons.see(CONFIGURE, self.chain.state(), &own_inputs(&identity));
        self.chain.push(CONFIGURE, layer);
        Ok(())
    }
}

/// Makes the configuration on the layers `below`, which have none yet. The trees are mounted for it, and the changes thrown away.
///
/// # Errors
/// Those of [`prepare::Texts::new`], and [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses a mount.
pub(super) fn texts_on(
    below: &Chain,
    (job, resolved, base, info): (&Job, &Resolved, &Base, &BuilderInfo),
    (work, view): (&WorkPaths, &View),
) -> Result<prepare::Texts> {
    on_trees(below, base, (work, view), |root| prepare::Texts::new(job, resolved, root, work, info))
}

/// Mounts the layers `chain` on `base`, calls `look` with the root of the tree, and throws the changes away.
///
/// # Errors
/// Those of `look`, and [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses a mount.
fn on_trees<T>(
    chain: &Chain,
    base: &Base,
    (work, view): (&WorkPaths, &View),
    look: impl FnOnce(&Rootfs) -> Result<T>,
) -> Result<T> {
    let place = work.questions().join("below");
    fs_err::create_dir_all(&place).system(|| "making a directory for the configuration")?;
    let paths = WorkPaths::new(&place).on(&place);
    fs_err::create_dir_all(paths.tree()).system(|| "making a directory for the configuration")?;
    let trees = Trees::builder(base, chain, None, false, &paths, view, &[])?;
    let seen = look(trees.root())?;
    trees.unmount()?;
    remove_tree(&place)?;
    Ok(seen)
}

/// The limit on the trees whose files are remembered.
const MAX_KNOWN: usize = 64;

/// The files of trees that configurations are combined with, by the state of the trees. Images of a tree have them in common, so that one
/// mount serves many images.
#[derive(Debug, Default)]
pub struct Configurations(Vec<(Known, prepare::Before)>);

/// Everything that the files depend on: the state of the tree, and the recipe's own files.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    state: Sha256,
    kind: TreeKind,
    config: Option<PathBuf>,
    patches: Option<PathBuf>,
}

impl Configurations {
    /// Returns the files of the tree with the layers `chain`.
    ///
    /// # Errors
    /// Those of [`on_trees`].
    pub(super) fn before(
        &mut self,
        chain: &Chain,
        (job, base): (&Job, &Base),
        (scratch, view): (&WorkPaths, &View),
    ) -> Result<&prepare::Before> {
        let portage = &job.portage;
        let (state, kind) = (*chain.state(), job.build.kind);
        let known = Known { state, kind, config: portage.config.clone(), patches: portage.patches.clone() };
        let at = match self.0.iter().position(|(other, _)| *other == known) {
            Some(at) => at,
            None => {
                tracing::debug!("reading the configuration in a tree");
                fs_err::create_dir_all(scratch.config()).system(|| "making a scratch directory")?;
                let before =
                    on_trees(chain, base, (scratch, view), |root| prepare::Before::gather(job, root, scratch))?;
                // The directory itself stays, because other processes know by its lock that it is used.
                remove_tree(&scratch.config())?;
                if self.0.len() >= MAX_KNOWN {
                    self.0.remove(0);
                }
                self.0.push((known, before));
                self.0.len() - 1
            }
        };
        Ok(&self.0[at].1)
    }
}

/// Returns the input of the step that writes the configuration, for the reasons of later steps.
pub(super) fn own_inputs(identity: &Sha256) -> Inputs {
    Inputs::from([("configuration".to_owned(), identity.hex())])
}

/// Returns the key of a layer with the configuration of digest `identity`, without the facts about the machine.
pub(super) fn plain_key(chain: &Chain, identity: &Sha256) -> Sha256 {
    nodes::key(chain.state(), &own_inputs(identity))
}

/// Returns the digest of Portage's configuration `texts`, with all files of the recipe's `portage.config` and `portage.patches`.
///
/// # Errors
/// Those of [`contents::digest`].
pub(super) fn identity(job: &Job, texts: &str) -> Result<Sha256> {
    let user = own_files(job)?;
    Ok(Sha256::of(format!("{user}\n{texts}").as_bytes()))
}

/// Describes the directories `portage.config` and `portage.patches` by their digests. Patches and shell scripts in them decide the content
/// of packages, too.
fn own_files(job: &Job) -> Result<String> {
    let digest = |directory: &Option<PathBuf>| {
        directory.as_deref().map(|directory| contents::digest(directory, &|_| false)).transpose()
    };
    let patches = digest(&job.portage.patches)?.map(|patches| format!(", patches {}", patches.hex()));
    Ok(format!("{:?}{}", digest(&job.portage.config)?, patches.unwrap_or_default()))
}

/// Returns the inputs of every emerge command: the configuration with the digest `configuration`, the repositories and the hosts of
/// binary packages.
pub(super) fn portage_inputs(
    resolved: &Resolved,
    repositories: &[RepositoryInput],
    binhosts: &[BinhostInput],
    configuration: &Sha256,
) -> Inputs {
    let mut inputs = Inputs::from([("configuration".to_owned(), configuration.hex())]);
    for (repo, input) in resolved.repos.iter().zip(repositories) {
        let state = input.version.state().unwrap_or_else(|| format!("{:?}", std::time::SystemTime::now()));
        inputs.insert(format!("repository {}", repo.name()), state);
    }
    for host in binhosts {
        let index = host.index.as_deref().map_or_else(|| "none".to_owned(), |bytes| Sha256::of(bytes).hex());
        inputs.insert(format!("packages of {}", host.spec.url), index);
    }
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::fixture;

    #[test]
    fn every_file_of_the_own_configuration_counts() {
        let place = tempfile::tempdir().unwrap();
        let mut job = fixture::job();
        job.portage.config = Some(place.path().to_owned());
        let mut seen = vec![own_files(&job).unwrap()];
        fs_err::create_dir_all(place.path().join("patches/app-misc/hello")).unwrap();
        for file in ["bashrc", "make.conf", "package.use", "patches/app-misc/hello/one.patch"] {
            for text in ["one", "two"] {
                fs_err::write(place.path().join(file), text).unwrap();
                let now = own_files(&job).unwrap();
                assert!(!seen.contains(&now), "{file}");
                seen.push(now);
            }
        }
        job.portage.patches = Some(place.path().join("patches"));
        assert!(!seen.contains(&own_files(&job).unwrap()));
        job.portage.config = None;
        let before = own_files(&job).unwrap();
        fs_err::write(place.path().join("patches/app-misc/hello/one.patch"), "three").unwrap();
        assert_ne!(own_files(&job).unwrap(), before);
    }
}
