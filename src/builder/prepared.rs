//! Builder trees without a build: mounted and configured as for a build, for shells and questions. All changes are thrown away.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::base::Base;
use super::chain::Chain;
use super::failed::Failed;
use super::overlays::{OverlayMount, Tree, like};
use super::packages::{self, Packages};
use super::query::{self, Answer, Query};
use super::{binhost, prepare, refused, resolve, trees};
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::text::plain;
use crate::enter::overlay::{self, Mounted, Overlay};
use crate::enter::{self, Io, Terminal};
use crate::fs::rootfs::Rootfs;
use crate::os::process::Exit;
use crate::plan::misses::Miss;
use crate::plan::view::{Caches, View};
use crate::portage::emerge::Step;
use crate::portage::failure::{Failure, PackageFiles};
use crate::portage::query::audit::{self, Audit};
use crate::portage::query::plan::{self, Package};
use crate::portage::{BuilderInfo, Resolved, failure};
use crate::recipe::{Job, TreeKind};
use crate::source::binhost::BinhostInput;
use crate::store::trees::remove_tree;
use crate::store::work::{Scratch, WorkPaths};

/// The parts of a builder tree.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    pub job: &'a Job,
    pub resolved: &'a Resolved,
    pub base: &'a Base,
    pub info: &'a BuilderInfo,
    pub caches: &'a Caches,
    /// A build whose changes the tree shows; `None` for a builder in which nothing was merged yet.
    pub after: Option<After<'a>>,
    /// The package whose work directory the tree shows and commands start in.
    pub failed: Option<&'a Failed<'a>>,
}

/// A build that has ended, or its state after one of its steps.
#[derive(Debug, Clone, Copy)]
pub struct After<'a> {
    pub chain: &'a Chain,
    /// The work directory with changes that are not a layer, if they count.
    pub work: Option<&'a WorkPaths>,
}

impl After<'_> {
    /// Returns `overlay` with the changes over the layers: those of the step that failed, or those of the build itself.
    fn over(&self, overlay: OverlayMount) -> OverlayMount {
        let changes = |work: &WorkPaths| {
            let failed = work.on(&work.failed());
            overlay.changes(&failed).or_else(|| overlay.changes(work))
        };
        let top = self.work.and_then(changes);
        overlay.below(top)
    }

    /// Returns the overlays of the builder tree on `base`. Directories for them are created in `paths`.
    ///
    /// # Errors
    /// Those of [`Chain::builder`].
    pub fn builder(&self, base: &Base, paths: &WorkPaths) -> Result<Vec<OverlayMount>> {
        Ok(self.chain.builder(base, paths)?.into_iter().map(|overlay| self.over(overlay)).collect())
    }

    /// Returns the overlay of a volume. A directory for it is created in `paths`.
    ///
    /// # Errors
    /// Those of [`Chain::volume`].
    pub fn volume(&self, name: &str, paths: &WorkPaths) -> Result<OverlayMount> {
        Ok(self.over(self.chain.volume(name, paths)?))
    }

    /// Returns the overlay of the image. A directory for it is created in `paths`.
    ///
    /// # Errors
    /// Those of [`Chain::image`].
    pub fn image(&self, paths: &WorkPaths) -> Result<OverlayMount> {
        Ok(self.over(self.chain.image(paths)?))
    }
}

/// A builder tree, mounted and configured in a scratch directory. Dropping it unmounts it.
#[derive(Debug)]
pub struct Prepared {
    view: View,
    root: PathBuf,
    logs: PathBuf,
    offline: bool,
    /// The recipe's lines for package files.
    package_files: PackageFiles,
    tree: Tree,
    /// The image and the temporary files of the last build.
    more: Vec<Mounted>,
    /// The directory in which a shell starts.
    directory: PathBuf,
    /// The identity of Portage's configuration.
    configuration: String,
    /// The reason why Portage has no configuration in the tree.
    unconfigured: Option<Error>,
}

impl Prepared {
    /// Mounts and configures a builder tree in `scratch`. If `offline`, its commands have no network.
    ///
    /// # Errors
    /// [`Kind::System`] if the kernel refuses a mount, or a file cannot be written.
    pub fn new(parts: &Parts<'_>, scratch: &Scratch, offline: bool) -> Result<Self> {
        let Parts { job, resolved, base, info, caches, after, failed } = *parts;
        let paths = scratch.paths();
        for path in [paths.config(), paths.image(), paths.binhosts(), paths.gnupg()] {
            fs_err::create_dir_all(path).system(|| "making a scratch directory")?;
        }
        let mut view = View::scratch(job, resolved, caches, paths).offline(offline);
        if let Some(failed) = failed {
            view = view.of_failed(paths.tmp(), failed.work());
        }
        let servers = if offline { Vec::new() } else { vec![trees::name_servers()] };
        let mut tree = Tree::mount(&base.overlays(paths)?, paths, &trees::shown(&view, &servers))?;
        // The base's own files: a build has changed those of its tree.
        let (texts, unconfigured) = match prepare::Texts::new(job, resolved, tree.root(), paths, info) {
            Ok(texts) => (Some(texts), None),
            Err(error) if error.kind() == Kind::Usage => (None, Some(error)),
            Err(error) => return Err(error),
        };
        let mut more = Vec::new();
        if let Some(after) = after {
            tree.unmount()?;
            // The kernel refuses the work directory of another overlay, and other lower layers lack other mount points.
            [paths.overlay_work(), paths.mount_points()].iter().try_for_each(|path| remove_tree(path))?;
            tree = Tree::mount(&after.builder(base, paths)?, paths, &trees::shown(&view, &servers))?;
            texts.as_ref().map_or(Ok(()), |texts| texts.replace(job, tree.root()))?;
            if job.build.kind == TreeKind::Image {
                let at = paths.image();
                let open = fs_err::File::open(&at).system(|| "opening the image")?;
                more.push(after.image(paths)?.mount_at(open.as_fd(), paths, &at)?);
            }
        }
        if let Some(failed) = failed {
            more.push(mount_over(&failed.work().tmp(), &paths.tmp(), paths)?);
        }
        texts.as_ref().map_or(Ok(()), |texts| texts.write(tree.root(), paths))?;
        let configuration = texts.map(|texts| texts.identity).unwrap_or_default();
        let directory = failed.map_or_else(|| "/".into(), |failed| failed.directory().to_owned());
        let package_files = job.portage.package_files.clone();
        let (root, logs) = (paths.tree(), paths.logs());
        Ok(Self { view, root, logs, offline, package_files, tree, more, directory, configuration, unconfigured })
    }

    /// Checks that the tree has a configuration for Portage. A shell is useful without one.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the base and the recipe do not give one, for example because the base has no profile.
    pub fn configured(&mut self) -> Result<()> {
        self.unconfigured.take().map_or(Ok(()), Err)
    }

    /// Offers the packages of earlier builds with the same key, read-only.
    ///
    /// # Errors
    /// Those of [`Packages::new`] and [`Packages::offer`].
    pub fn offer_packages(&mut self, parts: &Parts<'_>, scratch: &Scratch) -> Result<()> {
        let Parts { job, resolved, base, info, caches, after, .. } = *parts;
        let (root, work) = (self.tree.root(), scratch.paths());
        let (configuration, fresh) = (self.configuration.as_str(), after.is_none());
        let ask = &|query: &Query| self.ask(query);
        let place = packages::Place { job, resolved, base, info, caches, root, work, configuration, fresh, ask };
        Packages::new(&place)?.read_only().offer(work, &mut self.view)
    }

    /// Returns the packages that emerge would merge with the options and atoms `arguments`, which it may refuse. `step` names the
    /// packages in an error, and the configuration.
    ///
    /// # Errors
    /// [`Kind::Build`] as in a build if emerge refuses, and those of [`query::ask`].
    pub fn resolve(&self, arguments: Vec<String>, step: &Step) -> Result<Vec<Package>> {
        if let Some(target) = &step.profile {
            prepare::set_profile(self.tree.root(), target)?;
        }
        let began = SystemTime::now();
        let answer = self.ask(&resolve::query(arguments, step))?;
        if answer.exit.success() {
            return plan::read(&answer.stdout);
        }
        let mut failure = failure::find(&self.logs, began, &answer.stderr).offline(self.offline).on(step.root);
        refused::look_closer(|query| self.ask(query), &self.view, step, true, &mut failure);
        let error = failure.into_error(&step.resolving(), &self.package_files);
        match error.hint() {
            Some(_) => Err(error),
            None => Err(error.with_hint(format!(
                "to try changes by hand, run `emerge --pretend --verbose {}` in `quern-builder shell`",
                step.atoms.join(" ")
            ))),
        }
    }

    /// Explains each of `packages` that is built; if `run`, only those needed at run time.
    pub fn misses(&self, packages: &[Package], run: bool) -> Vec<Miss> {
        resolve::misses(packages, run, &self.view)
    }

    /// Returns the refusal of emerge to merge the packages of `step`, with the changes that it proposes; `None` if it would merge them.
    ///
    /// # Errors
    /// Those of [`query::ask`].
    pub fn refusal(&self, step: &Step) -> Result<Option<Failure>> {
        if let Some(target) = &step.profile {
            prepare::set_profile(self.tree.root(), target)?;
        }
        let began = SystemTime::now();
        let query = Query { env: step.env.clone(), time: resolve::MAX_TIME, ..Query::new(step.pretending()) };
        let answer = self.ask(&query)?;
        let said = [answer.stdout, answer.stderr].concat();
        Ok((!answer.exit.success())
            .then(|| failure::find(&self.logs, began, &said).offline(self.offline).on(step.root)))
    }

    /// Returns the security advisories that affect the packages of the arguments or, if there are none, those installed in the image.
    ///
    /// # Errors
    /// [`Kind::Build`] if Portage cannot read the advisories, and those of [`audit::read`].
    pub fn audit(&self, arguments: Vec<String>) -> Result<Audit> {
        let words = ["python3", "-c", audit::PROGRAM].map(str::to_owned);
        let mut query = Query::new(words.into_iter().chain(arguments));
        query.env = self.view.target_env();
        query.time = Duration::from_secs(600);
        let answer = self.ask(&query)?;
        if answer.exit.success() {
            return audit::read(&answer.stdout);
        }
        let said = String::from_utf8_lossy(&answer.stderr);
        let lines: Vec<String> = said.lines().map(|line| plain(line, 240)).collect();
        let end = lines[lines.len().saturating_sub(20)..].join("\n");
        Err(Error::build("reading the security advisories").with_details(end))
    }

    /// Asks a question. The command may write to the tree and the image, which are thrown away, and to nothing else.
    ///
    /// # Errors
    /// Those of [`query::ask`].
    pub fn ask(&self, query: &Query) -> Result<Answer> {
        query::ask(&self.view, self.root.clone(), query)
    }

    /// Runs a command with the caller's streams. If the tree has an image, emerge acts on the image.
    ///
    /// # Errors
    /// Those of [`enter::run`].
    pub fn run(&self, argv: Vec<OsString>, terminal: Terminal) -> Result<Exit> {
        let mut plan = self.view.plan(self.root.clone(), argv, terminal);
        plan.env.extend(self.view.target_env());
        plan.directory.clone_from(&self.directory);
        enter::run(&plan, Io::Inherit)
    }

    /// Writes the indexes of the hosts, and the GnuPG home with which Portage verifies their packages.
    ///
    /// # Errors
    /// Those of [`binhost::add`].
    pub fn add_binhosts(&self, scratch: &Scratch, hosts: &[BinhostInput], info: &BuilderInfo) -> Result<()> {
        let place = binhost::Place { view: &self.view, paths: scratch.paths(), root: self.tree.root() };
        binhost::add(place, hosts, info)
    }

    /// Returns the root of the builder tree.
    pub fn root(&self) -> &Rootfs {
        self.tree.root()
    }

    /// Unmounts the tree.
    ///
    /// # Errors
    /// [`Kind::System`] if the kernel refuses.
    pub fn unmount(self) -> Result<()> {
        self.more.into_iter().try_for_each(Mounted::unmount)?;
        self.tree.unmount()
    }
}

/// Mounts an overlay of the directory `lower` of the last build at `at`, a directory of the scratch directory `paths`, which also has its
/// changes.
fn mount_over(lower: &Path, at: &Path, paths: &WorkPaths) -> Result<Mounted> {
    let name = at.file_name().unwrap_or_default();
    let (upper, work) = (paths.uppers().join(name), paths.overlay_work().join(name));
    let preparing = || format!("preparing an overlay of {}", lower.display());
    for path in [at, &upper, &work] {
        fs_err::create_dir_all(path).system(preparing)?;
    }
    let open = |path: &Path| fs_err::File::open(path).system(preparing);
    like(open(lower)?.as_fd(), open(&upper)?.as_fd()).system(preparing)?;
    let layers = Overlay { lowers: &[lower.to_owned()], upper: Some((&upper, &work)) };
    overlay::mount(layers, open(at)?.as_fd(), at)
}

/// Runs a command with the caller's streams in the tree of `overlays`, the root's first. Its changes go to `scratch`.
///
/// # Errors
/// [`Kind::System`] if the sandbox cannot be made, [`Kind::Usage`]
/// if the tree has no such command.
pub fn run_in(
    overlays: &[OverlayMount],
    view: &View,
    scratch: &Scratch,
    argv: Vec<OsString>,
    terminal: Terminal,
) -> Result<Exit> {
    let paths = scratch.paths();
    let servers = if view.has_network() { vec![trees::name_servers()] } else { Vec::new() };
    let tree = Tree::mount(overlays, paths, &trees::shown(view, &servers))?;
    let exit = enter::run(&view.plan(paths.tree(), argv, terminal), Io::Inherit)?;
    tree.unmount()?;
    Ok(exit)
}
