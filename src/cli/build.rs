//! `build`: makes an image from a recipe.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;

use super::images::{self, State};
use super::lock::LockArgs;
use super::parallel::Processes;
use super::session::{self, Privilege, Session};
use super::{RecipeArgs, SecretArgs, answers};
use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::base::time::SourceDate;
use crate::os::userns;
use crate::output::{Published, Role};
use crate::pipeline::{self, ALL_STEPS, BuildOptions, Finished, PlanOptions, StepOptions};
use crate::recipe::{Answers, Job, Secrets};
use crate::source::{ResolveOptions, Site};
use crate::store::Store;
use crate::ui::Terminal;
use crate::ui::record::{self, Recorder};
use crate::ui::summary::{self, Summary};

/// Build the image of a recipe
///
/// Downloads and verifies the stage3 and the ebuild repositories if the store lacks them, merges the packages of the recipe with emerge,
/// strips the image and writes the results to the outdir. The results are NAME-YYYY-MM-DD.tar.gz (or .tar.xz, .tar.zst, .tar; see
/// build.compression), its .sha256, .CONTENTS.gz and .mtree.gz, the provenance as .json, bills of materials as .spdx.json and .cdx.json
/// if build.sbom asks for them, and an OCI layout NAME-YYYY-MM-DD.oci if the recipe has an [oci] table. A result appears in the outdir only when it is complete. Packages that were built before come from the
/// cache. DIR builds the image of the recipe DIR/quern.toml, after the one that it starts from; DIR/... builds all images in and below
/// the directory DIR.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder build musl-python3.toml
  quern-builder build musl-python3.toml --outdir /srv/images --set emerge.jobs=4
  quern-builder build musl-python3.toml --dry-run
  quern-builder build musl-python3.toml --locked
  quern-builder build machines/web
  quern-builder build machines/...
  SOURCE_DATE_EPOCH=1700000000 quern-builder build musl-python3.toml

A failed build prints the package, the phase, and the path and the end of the log. The packages built before stay in the cache.")]
pub struct Args {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Directory for the results [recipe: build.outdir]
    #[arg(short, long, value_name = "DIR")]
    pub outdir: Option<PathBuf>,
    /// Print the plan: URLs, mounts, steps and their states, emerge commands, removals
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Use only files that the store has, and give emerge no network
    #[arg(long)]
    pub offline: bool,
    /// Use binary packages only, and build nothing [recipe: emerge.binary-only]
    #[arg(long)]
    pub binary_only: bool,
    /// Fail before anything is merged if security advisories affect packages of the image
    #[arg(long, value_enum, value_name = "WHAT")]
    pub deny: Option<Deny>,
    /// Stop after this step and publish nothing
    #[arg(long, value_name = "STEP")]
    pub until: Option<String>,
    /// Run this step and all later ones although the store has their results; `all` runs every step
    #[arg(long, value_name = "STEP")]
    pub again: Option<String>,
    /// Open a shell after each step, in its trees, and throw its changes away
    #[arg(long, conflicts_with = "dry_run")]
    pub interactive: bool,
    /// If a step fails, open the shell of `shell --failed` first; without a terminal, only fail
    #[arg(long, conflicts_with = "dry_run")]
    pub shell_on_failure: bool,
    /// Show the output of steps as it comes
    #[arg(long)]
    pub watch: bool,
    /// Directory for the output of each step that runs, in files IMAGE/NN-STEP-TIME.log
    ///
    /// NN is the place of the step in the build, and TIME is in UTC. A slash in the name of a step is written as a hyphen.
    #[arg(long, value_name = "DIR", conflicts_with = "dry_run")]
    pub log_dir: Option<PathBuf>,
    /// File for the events of the build, as lines of JSON that eliot-tree reads
    ///
    /// The actions are build, in it image (keychain: its name), and in that configure, each step (name, key, state, why, log) and publish.
    /// The state is cached, run, waited, skipped or failed. Messages in a step are run (why, variables, log), package and warning. The
    /// events contain the values of variables, and no secrets. FILE may be a named pipe or /dev/fd/NUMBER. If it or a log cannot be
    /// written, a warning says so, the build goes on, and its exit code is 4 in the end.
    /// Images that are built at the same time are actions of one build, with the lines of each in their order.
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub events: Option<PathBuf>,
    /// Build up to N images at the same time, each in a process [quern-tree.toml: tree.jobs]
    ///
    /// The images are those of DIR/..., or one and those that it needs. An image waits for those that it starts from or needs. Lines on standard error begin with the name of the image.
    #[arg(
        long,
        value_name = "N",
        conflicts_with_all = ["dry_run", "interactive", "shell_on_failure"]
    )]
    pub jobs_images: Option<NonZeroU8>,
    /// Build one of several images, and print its state after the results; for processes of --jobs-images
    #[arg(long, hide = true)]
    pub part: bool,
    /// Accept a signed list that is older than a previously seen one, this once
    #[arg(long)]
    pub allow_rollback: bool,
    /// The secrets.
    #[command(flatten)]
    pub secrets: SecretArgs,
    /// The lock file.
    #[command(flatten)]
    pub lock: LockArgs,
}

/// The `--deny` option.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Deny {
    /// Gentoo Linux Security Advisories in metadata/glsa of the repositories
    Glsa,
}

impl Deny {
    fn reason(self) -> pipeline::Deny {
        match self {
            Self::Glsa => pipeline::Deny::Glsa,
        }
    }
}

impl Args {
    pub(super) fn run(mut self, ui: &Terminal) -> Result<i32> {
        self.recipe.secrets = if self.dry_run { self.secrets.known() } else { self.secrets.treatment() };
        self.recipe.shared = self.part;
        let date = session::source_date()?;
        let overrides: Vec<String> = self.overrides()?;
        let images = images::of(&self.recipe, ui)?;
        if images.is_some() && (self.until.is_some() || self.again.as_ref().is_some_and(|again| again != ALL_STEPS)) {
            return Err(Error::usage("--until and --again name a step of one image, and DIR/... means several")
                .with_hint("build the image alone with DIR; --again all runs every step of all images"));
        }
        if self.dry_run {
            return self.print_plans(images.as_deref(), &overrides, ui);
        }
        if self.interactive && !has_terminal() {
            return Err(Error::usage("--interactive needs a terminal for its shells").with_hint(
                "standard input, output and error must be a terminal; `shell --at STEP -- COMMAND` needs none",
            ));
        }
        let recorder = || Recorder::new(ui, &self.records());
        if let Some(images) = images {
            return session::with_each(&self.recipe, &images, &overrides, ui, |sessions, asked| {
                let most = sessions.first().map_or(1, |session| self.processes(&session.job));
                let of = |session: &Session| self.of(&session.origin);
                if most > 1 {
                    return self.build_in_processes(most, (sessions, asked), of, ui);
                }
                let recorder = recorder()?;
                let built = images::build(sessions, ui, |session| of(session).build(session, date, &recorder));
                recorder.finish(built.as_ref().err()).and(built)
            });
        }
        session::with_answers(&self.recipe, &overrides, ui, |session, asked| {
            let all = if self.part { Vec::new() } else { images::with_needed(session) };
            let of = |one: &Session| {
                if one.origin == session.origin { self.clone() } else { self.of(&one.origin).whole() }
            };
            let most = self.processes(&session.job);
            // A process could not read the recipe on standard input again.
            let reads_stdin = self.recipe.files.iter().any(|file| file == Path::new("-"));
            if most > 1 && all.len() > 1 && !reads_stdin {
                return self.build_in_processes(most, (all, asked), of, ui);
            }
            let recorder = recorder()?;
            let built = if all.len() <= 1 {
                let finished = self.build(session, date, &recorder);
                finished.map(|finished| self.tell_state(&finished, ui))
            } else {
                images::build(all, ui, |one| of(one).build(one, date, &recorder))
            };
            let recorded = recorder.finish(built.as_ref().err());
            let code = built?;
            recorded.map(|()| code)
        })
    }

    /// Returns the same command for one image of a tree.
    fn of(&self, image: &Path) -> Self {
        Self { recipe: RecipeArgs { files: vec![image.to_owned()], ..self.recipe.clone() }, ..self.clone() }
    }

    /// Returns the same command without wishes about the steps of one image.
    fn whole(self) -> Self {
        Self { until: None, again: None, interactive: false, ..self }
    }

    /// Returns the number of images that are built at the same time, if `job` is one of them.
    fn processes(&self, job: &Job) -> usize {
        // A shell needs the terminal.
        let is_alone = self.interactive || self.shell_on_failure;
        let of_tree = job.jobs_images.filter(|_| !is_alone).unwrap_or(1);
        self.jobs_images.map_or(of_tree as usize, |jobs| usize::from(jobs.get()))
    }

    /// Builds images in up to `most` processes at the same time. Each runs the command `of` for one of them.
    fn build_in_processes(
        &self,
        most: usize,
        (sessions, asked): (Vec<Session>, &Answers),
        of: impl Fn(&Session) -> Self,
        ui: &Terminal,
    ) -> Result<i32> {
        let store = sessions.first().map(|session| session.store.root().as_os_str().to_owned());
        let (mut answers, given) = (self.recipe.answers.saved()?, self.recipe.answers.given()?);
        // The answers of options win over those of the environment, and those of a file do not.
        let is_given = |name: &OsStr| {
            let name = name.to_string_lossy();
            given.0.keys().any(|given| name.eq_ignore_ascii_case(&format!("QUERN_ANSWER_{}", given.replace('-', "_"))))
        };
        let env = std::env::vars_os().filter(|(name, _)| !is_given(name) && name != "QUERN_HOME");
        let env = env.chain(store.map(|store| ("QUERN_HOME".into(), store))).collect();
        answers.0.extend(asked.0.clone());
        answers.0.extend(given.0.clone());
        let words = |session: &Session| of(session).words(ui);
        // The processes write the logs themselves.
        let recorder = Recorder::new(ui, &record::Options { log_dir: None, ..self.records() })?;
        let processes =
            Processes { most, arguments: &words, recorder: &recorder, env, answers: answers::file(&answers) };
        let built = processes.build(sessions);
        recorder.finish(built.as_ref().err()).and(built)
    }

    /// Returns the arguments of a process that builds the image of this command alone.
    fn words(&self, ui: &Terminal) -> Vec<OsString> {
        let mut words: Vec<OsString> = ["build", "--part", "--answers=/dev/stdin"].map(Into::into).to_vec();
        let mut option = |name: &str, value: &OsStr| {
            words.extend([format!("--{name}").into(), value.to_owned()]);
        };
        self.recipe.set.iter().for_each(|set| option("set", OsStr::new(set)));
        let paths = [("outdir", &self.outdir), ("log-dir", &self.log_dir), ("lock-file", &self.lock.lock_file)];
        paths.into_iter().for_each(|(name, path)| path.iter().for_each(|path| option(name, path.as_os_str())));
        self.until.iter().for_each(|until| option("until", OsStr::new(until)));
        self.again.iter().for_each(|again| option("again", OsStr::new(again)));
        self.events.iter().for_each(|_| option("events", OsStr::new("/dev/fd/1")));
        self.deny.iter().for_each(|Deny::Glsa| option("deny", OsStr::new("glsa")));
        let set = [
            ("offline", self.offline),
            ("binary-only", self.binary_only),
            ("watch", self.watch),
            ("allow-rollback", self.allow_rollback),
            ("locked", self.lock.locked),
            ("allow-commands", self.secrets.treatment() == Secrets::ReadAndRun),
        ];
        words.extend(set.into_iter().filter(|(_, set)| *set).map(|(name, _)| format!("--{name}").into()));
        words.extend(ui.words().into_iter().map(Into::into));
        words.push("--".into());
        words.extend(self.recipe.files.iter().map(|file| file.as_os_str().to_owned()));
        words
    }

    /// Tells the process that this one is a part of the state of the image. Returns the exit code.
    fn tell_state(&self, finished: &Finished, ui: &Terminal) -> i32 {
        if self.part {
            ui.result(if finished.cached { State::Cached } else { State::Built }.word());
        }
        0
    }

    /// Builds one image, and prints its results.
    fn build(&self, session: &Session, date: SourceDate, recorder: &Recorder<'_>) -> Result<Finished> {
        let began = Instant::now();
        let Session { job, origin, store } = session;
        let locked = self.lock.entry(&self.recipe, job)?;
        let options =
            ResolveOptions { offline: self.offline, allow_rollback: self.allow_rollback, locked: locked.as_ref() };
        recorder.image(&job.path)?;
        let site = Site { date, ..Site::new(store, options, recorder) };
        let wishes = BuildOptions { deny: self.deny.map(Deny::reason), steps: self.steps() };
        let finished = pipeline::build(job, origin, &wishes, &site);
        recorder.image_ended(finished.as_ref().err());
        let finished = finished?;
        let Some(published) = &finished.published else { return Ok(finished) };
        let main = [Role::Tarball, Role::Packages];
        let results = main.iter().filter_map(|role| published.path(role));
        let split =
            published.0.iter().filter(|(role, _)| matches!(role, Role::Split(_))).map(|(_, path)| path.as_path());
        let results: Vec<&Path> = results.chain(split).chain(published.oci().map(|(path, _)| path)).collect();
        let sizes: Vec<(String, u64)> = results.iter().map(|path| (name(path), size(path))).collect();
        let run = self.run_command(published);
        let ui = recorder.terminal();
        ui.summary(&Summary { name: &job.path, took: began.elapsed(), results: &sizes, run: &run });
        results.iter().for_each(|path| ui.result(path));
        Ok(finished)
    }

    fn records(&self) -> record::Options {
        record::Options { log_dir: self.log_dir.clone(), events: self.events.clone(), watch: self.watch }
    }

    fn steps(&self) -> StepOptions {
        StepOptions {
            until: self.until.clone(),
            again: self.again.clone(),
            interactive: self.interactive,
            shell_on_failure: self.shell_on_failure && has_terminal(),
        }
    }

    /// Returns the command that runs the image.
    fn run_command(&self, published: &Published) -> String {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        if let Some(packages) = published.path(&Role::Packages).map(absolute) {
            let (name, value) = ("PORTAGE_BINHOST", format!("file://{}", packages.display()));
            return format!("{name}={} emerge -g …", summary::quoted(&value));
        }
        if let Some((layout, tag)) = published.oci() {
            return summary::run_layout(&absolute(layout), tag);
        }
        if self.recipe.files.iter().any(|file| file == Path::new("-")) {
            let tarball = published.path(&Role::Tarball).map(absolute).unwrap_or_default();
            return format!("mkdir tree && tar -xpf {} -C tree", summary::quoted(&tarball.to_string_lossy()));
        }
        let files = self.recipe.files.iter().map(|file| summary::quoted(&file.to_string_lossy()));
        let sets = self.recipe.set.iter().map(|set| format!("--set {}", summary::quoted(set)));
        let words: Vec<String> = files.chain(sets).collect();
        format!("quern-builder shell {} --image", words.join(" "))
    }

    /// Converts the options that stand for keys of the recipe to `--set` options.
    fn overrides(&self) -> Result<Vec<String>> {
        let mut sets = Vec::new();
        if let Some(outdir) = &self.outdir {
            let outdir = outdir.to_str().ok_or_else(|| Error::usage("--outdir: the path is not UTF-8"))?;
            sets.push(format!("build.outdir={}", crate::recipe::set_value(outdir)));
        }
        if self.binary_only {
            sets.push("emerge.binary-only=true".to_owned());
        }
        Ok(sets)
    }

    /// Prints the plan of the recipe, or of each of `images`. Asks no server. Only the states of the steps need root, and only if there
    /// is a store.
    fn print_plans(&self, images: Option<&[PathBuf]>, overrides: &[String], ui: &Terminal) -> Result<i32> {
        let home = Store::default_home(|name| std::env::var_os(name), userns::is_host_root())?;
        let root = match if home.is_dir() { session::root_if_possible() } else { Privilege::None } {
            Privilege::Done(code) => return Ok(code),
            privilege => privilege == Privilege::Root,
        };
        for image in images.unwrap_or_default() {
            ui.note(&format!("plan of {}", image.display()));
            self.of(image).print_plan((&home, root), overrides, ui)?;
        }
        if images.is_none() { self.print_plan((&home, root), overrides, ui) } else { Ok(0) }
    }

    fn print_plan(&self, (home, root): (&Path, bool), overrides: &[String], ui: &Terminal) -> Result<i32> {
        let loaded = session::load(&self.recipe, overrides, ui)?;
        loaded.warnings.iter().for_each(|warning| ui.warn(warning));
        let locked = self.lock.entry(&self.recipe, &loaded.job)?;
        let options = PlanOptions {
            locked: locked.as_ref(),
            date: session::source_date()?,
            cpus: session::cpus(),
            offline: self.offline,
            steps: &self.steps(),
            root,
        };
        let plan = pipeline::plan(&loaded.job, &session::origin(&self.recipe)?, home, &options)?;
        plan.warnings.iter().for_each(|warning| ui.warn(warning));
        ui.plan(&plan.to_string());
        Ok(0)
    }
}

/// Returns true if a shell of this process can be used.
fn has_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the size in bytes of a file, or of all files in a directory.
fn size(path: &Path) -> u64 {
    let Ok(found) = fs_err::symlink_metadata(path) else { return 0 };
    if !found.is_dir() {
        return found.len();
    }
    let entries = fs_err::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::ui::Options;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        build: Args,
        #[arg(long)]
        color: Option<String>,
    }

    #[test]
    fn the_process_of_an_image_has_the_options_of_the_command() {
        let given = "build --set a.b=c --set d.e=f --outdir /out --offline --binary-only --deny glsa --until s --again all --watch --log-dir logs --events /dev/fd/1 \
                     --allow-rollback --allow-commands --locked --lock-file lock --jobs-images 3 --answer a=b tree/...";
        let args = Command::parse_from(given.split_whitespace()).build;
        let words = args.of(Path::new("/tree/p/quern.toml")).words(&Terminal::new(Options::default()));
        let part = Command::parse_from(words).build;
        assert!(part.part && part.jobs_images.is_none() && part.recipe.files == [Path::new("/tree/p/quern.toml")]);
        let recipe = RecipeArgs {
            files: part.recipe.files.clone(),
            answers: part.recipe.answers.clone(),
            ..args.recipe.clone()
        };
        let expected = Args { recipe, part: true, jobs_images: None, ..args };
        assert_eq!(format!("{part:?}"), format!("{expected:?}"));
    }
}
