//! A step of a build: found in the store, or run and kept there.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::chain::Chain;
use super::{Builder, packages, second, steps, volumes};
use crate::archive::changes::{self, Changes};
use crate::base::digest::Sha256;
use crate::base::error::{Context, Error, Result};
use crate::base::progress::{self, Event, Outcome, Warnings};
use crate::base::time;
use crate::fs::rootfs::Rootfs;
use crate::os::space;
use crate::plan::Plan;
use crate::plan::nodes::{self, Action, Inputs, Node};
use crate::plan::status::Why;
use crate::portage;
use crate::recipe::{Job, Refresh, TreeKind};
use crate::source::Site;
use crate::store::Store;
use crate::store::layers::{self, Found, Layer, LayerRecord, MAX_CHAIN, Partial};
use crate::store::trees::remove_tree;
use crate::store::work::WorkPaths;

/// Returns true for a file of a tree in which emerge writes times or the order of parallel work. The data of such files are not a part of
/// a result.
fn varies(path: &Path) -> bool {
    let in_package = |name: &str| {
        let parts: Vec<_> = path.strip_prefix("var/db/pkg").map(|rest| rest.iter().collect()).unwrap_or_default();
        parts.len() == 3 && parts[2] == name
    };
    ["COUNTER", "BUILD_TIME", "environment.bz2", "metadata"].into_iter().any(in_package)
        || ["var/cache/edb/counter", "var/cache/edb/mtimedb"].into_iter().any(|file| path == Path::new(file))
        || path.starts_with("var/log")
}

/// The word for all steps.
pub const ALL_STEPS: &str = "all";

/// The outcome of the steps of a build.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Names of the steps that the store had.
    pub cached: Vec<String>,
    /// Names of the steps that another build ran while this one waited.
    pub waited: Vec<String>,
    /// Names of the steps that ran.
    pub run: Vec<String>,
}

impl Tally {
    /// Returns a sentence about the steps, of which `skipped` were left out; `None` if all of them ran.
    pub fn sentence(&self, skipped: usize) -> Option<String> {
        let (cached, waited) = (self.cached.len(), self.waited.len());
        let all = cached + waited + self.run.len();
        let mut sentence = format!("{cached} of {all} steps are cached");
        if waited > 0 {
            sentence += &format!(", {waited} made by another build");
        }
        if skipped > 0 {
            sentence += &format!(", {skipped} skipped");
        }
        (cached + waited + skipped > 0).then_some(sentence)
    }
}

impl Builder<'_> {
    /// Brings the trees into the state after all of `nodes`, or after the step that the user wants to be the last one.
    ///
    /// # Errors
    /// Those of a step, and [`Kind::Usage`](crate::base::error::Kind::Usage) if the build has no step of that name.
    pub fn advance_all(&mut self, nodes: &[Node], at: &Site<'_>) -> Result<()> {
        let until = self.options.until.clone();
        let last = until.as_ref().map(|name| nodes.iter().position(|node| node.name == *name));
        let nodes = match last {
            None => nodes,
            Some(Some(last)) => &nodes[..=last],
            Some(None) => {
                let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
                return Err(Error::usage(format!("the build has no step {}", until.unwrap_or_default()))
                    .with_hint(format!("its steps are {}", names.join(", "))));
            }
        };
        nodes.iter().try_for_each(|node| self.advance(node, at))
    }

    /// Brings the trees into the state after the step `node`: takes its layer from the store, or runs it.
    ///
    /// # Errors
    /// [`Kind::Build`](crate::base::error::Kind::Build) if the step fails; nothing of it is kept as a layer.
    /// [`Kind::System`](crate::base::error::Kind::System) if a layer cannot be read or written.
    fn advance(&mut self, node: &Node, at: &Site<'_>) -> Result<()> {
        if node.action == Action::Configure {
            at.ui.emit(Event::Begin(progress::Action::Configure));
            self.configure(at)?;
            at.ui.end(Outcome::Done, None);
            return Ok(());
        }
        let inputs = inputs(node, &self.portage, self.parts.plan, &self.chain, at.store)?;
        let key = nodes::key(self.chain.state(), &inputs);
        if self.options.again.as_ref().is_some_and(|again| *again == node.name || again == ALL_STEPS) {
            self.again = true;
        }
        let why = self.reasons.see(&node.name, self.chain.state(), &inputs);
        let waited = Cell::new(false);
        let waiting = || {
            waited.set(true);
            at.ui.note(&format!("waiting for another build that runs the step {}", node.name));
        };
        let known = if self.again { key } else { second::known_key(key, at.store)? };
        at.ui.emit(Event::Begin(progress::Action::Step { name: &node.name, key: Some(&known.hex()) }));
        match at.store.find_layer(
            &known,
            |record| !self.again && is_good(self.parts.job, node, record, at.store),
            waiting,
        )? {
            Found::There(layer) => {
                self.reuse(node, *layer, waited.get(), at);
            }
            Found::Missing(partial) => {
                if let Action::Emerge(command, step) = &node.action
                    && let Some(layer) = self.find_by_content((command, step.as_deref()), &known, at)?
                    && is_good(self.parts.job, node, layer.record(), at.store)
                {
                    self.reuse(node, layer, false, at);
                } else {
                    self.make(node, (known, inputs), why, partial, at)?;
                }
            }
        }
        self.chain.shorten(MAX_CHAIN, at.store)?;
        if self.options.interactive { self.shell_after(&node.name, at) } else { Ok(()) }
    }

    /// Takes the layer of a step from the store, and repeats the warnings of the step.
    fn reuse(&mut self, node: &Node, layer: Layer, waited: bool, at: &Site<'_>) {
        layer.record().notes.iter().for_each(|note| at.ui.warn(note));
        let kind = if waited { &mut self.tally.waited } else { &mut self.tally.cached };
        kind.push(node.name.clone());
        let outcome = if waited { Outcome::Waited } else { Outcome::Cached };
        at.ui.end(outcome, layer.log_path().as_deref());
        self.chain.push(&node.name, layer);
    }

    /// Runs the step and keeps its result.
    fn make(
        &mut self,
        node: &Node,
        (key, inputs): (Sha256, Inputs),
        why: Why,
        partial: Partial,
        at: &Site<'_>,
    ) -> Result<()> {
        let (start, now) = (Instant::now(), changes::now(partial.directory())?);
        let began = self.chain.began(now);
        let paths = self.parts.work.paths().on(partial.directory());
        let why = if self.again { Why::Again } else { why };
        tracing::debug!("the step {} runs: {why}", node.name);
        let warnings = Warnings::of(at.ui);
        let own = Site { ui: &warnings, ..*at };
        let none = BTreeMap::new();
        let variables = node.step().map_or(&none, |step| &step.env);
        at.ui.emit(Event::Runs { why: &why.to_string(), variables });
        let done = match &node.action {
            Action::Emerge(command, step) => self.merge((command, step.as_deref()), &why, &paths, &own),
            Action::Step(step) => self.run_step(step, &why, &paths, &own),
            Action::Configure => Ok(()),
        };
        let done = done.and_then(|()| self.check_secrets(node, &paths));
        if let Err(error) = done {
            return Err(self.fail(node, error, partial, at));
        }
        clear(&paths)?;
        let emerge = matches!(node.action, Action::Emerge(..));
        let read = |place: &str| -> Result<Option<Changes>> {
            let upper = partial.upper(place);
            let varies = |path: &Path| emerge && varies(path);
            upper.exists().then(|| changes::read(&Rootfs::open(&upper)?, began, &varies, own.ui)).transpose()
        };
        let mut changed = Vec::new();
        for place in self.places() {
            changed.extend(read(place)?.map(|changes| (place, changes)));
        }
        let result = layers::result(&changed);
        let mut of_volumes = BTreeMap::new();
        let kept: Vec<_> = node.volumes().iter().map(|volume| (&volume.name, volumes::place(&volume.name))).collect();
        for (name, place) in &kept {
            if let Some(changes) = read(place)? {
                of_volumes.insert((*name).clone(), changes.digest());
                changed.push((place, changes));
            }
        }
        let bytes = changed.iter().map(|(_, changes)| changes.bytes()).sum();
        let record = self.layer_record(&node.name, key, inputs, (now, start.elapsed()));
        let record =
            LayerRecord { result, volumes: of_volumes, bytes, why: why.to_string(), notes: warnings.kept(), ..record };
        let record = LayerRecord { packages: self.kept.take(), ..record };
        let layer = partial.keep(record, &changed)?;
        if let (Action::Emerge(command, step), Some(content)) = (&node.action, self.merged.take()) {
            self.remember((command, step.as_deref()), &content, &key, at)?;
        }
        self.tally.run.push(node.name.clone());
        at.ui.end(Outcome::Run, layer.log_path().as_deref());
        self.chain.push(&node.name, layer);
        Ok(())
    }

    /// Ends a step that failed with `error`, which it returns. Its changes are moved to the place where a shell finds them.
    fn fail(&mut self, node: &Node, error: Error, partial: Partial, at: &Site<'_>) -> Error {
        at.ui.emit(Event::Failed);
        let failed = |error: Error, log: Option<&Path>| {
            at.ui.end(Outcome::Failed(&error.to_string()), log);
            error
        };
        // The changes of a step that filled the disk would keep the next build from starting.
        if space::is_crowded(partial.directory()) {
            return failed(space::crowded(error, &[partial.directory()]), None);
        }
        if !self.parts.job.build.keep_failed && !self.options.shell_on_failure {
            return failed(error, None);
        }
        let work = self.parts.work.paths();
        let paths = work.on(partial.directory());
        let moved = clear(&paths).and_then(|()| self.remove_secrets(node, &paths, at));
        let moved = moved.and_then(|()| partial.move_to(&work.failed()));
        if let Err(other) = moved {
            at.ui.warn(&format!("the trees of the step {} are lost: {other}", node.name));
            return failed(error, None);
        }
        self.failed_step = Some(node.name.clone());
        let log = work.on(&work.failed()).log();
        failed(error, Some(&log).filter(|log| log.exists()).map(PathBuf::as_path))
    }

    /// The paths of the builder tree that steps may change.
    fn places(&self) -> Vec<&'static str> {
        match self.parts.job.build.kind {
            TreeKind::Image => vec!["/", portage::ROOT],
            TreeKind::Stage4 => vec!["/"],
        }
    }

    /// Returns the record of the layer of the step `name`, without its result. The step began at `began`, in the time of the layer's file
    /// system.
    pub(super) fn layer_record(
        &self,
        name: &str,
        key: Sha256,
        inputs: Inputs,
        (began, took): (SystemTime, Duration),
    ) -> LayerRecord {
        LayerRecord {
            format: layers::FORMAT,
            key,
            parent: *self.chain.state(),
            result: Sha256::of(b""),
            volumes: BTreeMap::new(),
            image: self.parts.job.path.clone(),
            step: name.to_owned(),
            inputs,
            why: String::new(),
            started: began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            bytes: 0,
            notes: Vec::new(),
            packages: None,
        }
    }
}

/// Returns the inputs of a step of `plan` on the volumes of `chain`. `portage` are those of every emerge command; `store` seals values of
/// secrets.
///
/// # Errors
/// Those of [`steps::inputs`].
pub(super) fn inputs(node: &Node, portage: &Inputs, plan: &Plan, chain: &Chain, store: &Store) -> Result<Inputs> {
    match &node.action {
        Action::Configure => Ok(Inputs::new()),
        Action::Emerge(command, step) => {
            let uses = step.as_deref().map(|step| steps::uses(step, plan, chain, store));
            let mut inputs = uses.transpose()?.unwrap_or_default();
            inputs.extend(nodes::of_command(command));
            inputs.extend(portage.clone());
            Ok(inputs)
        }
        Action::Step(step) => steps::inputs(step, plan, chain, store),
    }
}

/// Returns true if a layer may be used.
pub(super) fn is_good(job: &Job, node: &Node, layer: &LayerRecord, store: &Store) -> bool {
    refusal(job, node, layer, store).is_none()
}

/// Returns the reason why a layer may not be used: it is too old, its packages themselves are wanted, or the image is there for binary
/// packages that were removed.
pub(super) fn refusal(job: &Job, node: &Node, layer: &LayerRecord, store: &Store) -> Option<Why> {
    if matches!(node.action, Action::Emerge(..)) && job.build.packages_only {
        return Some(Why::Refused);
    }
    // Packages that cannot be looked for count as removed.
    let are_there = |kept| packages::are_there(kept, store).unwrap_or(false);
    if job.for_packages && !layer.packages.as_ref().is_none_or(are_there) {
        return Some(Why::Packages);
    }
    let step = node.step()?;
    let fresh = match step.refresh {
        None => true,
        Some(Refresh::Always) => false,
        Some(Refresh::After(seconds)) => time::now().saturating_sub(layer.started) < seconds,
    };
    let good = fresh && !step.binds.iter().any(|bind| bind.write);
    (!good).then_some(Why::Refused)
}

/// Removes the directories of the overlay mounts, apart from the changes.
fn clear(paths: &WorkPaths) -> Result<()> {
    [paths.overlay_work(), paths.mount_points()].iter().try_for_each(|path| remove_tree(path))
}

/// Opens the log of a step whose changes are in `paths`.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if it cannot be made.
pub(super) fn open_log(path: &Path) -> Result<std::fs::File> {
    let log = fs_err::OpenOptions::new().append(true).create(true).open(path);
    Ok(log.system(|| "making the log of a step")?.into_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_counts_the_steps_that_did_not_run() {
        let names = |count| vec![String::new(); count];
        let tally = |cached, waited, run| Tally { cached: names(cached), waited: names(waited), run: names(run) };
        assert_eq!(tally(0, 0, 2).sentence(0), None);
        assert_eq!(tally(3, 0, 4).sentence(0).unwrap(), "3 of 7 steps are cached");
        let all = "1 of 4 steps are cached, 2 made by another build, 1 skipped";
        assert_eq!(tally(1, 2, 1).sentence(1).unwrap(), all);
    }
}
