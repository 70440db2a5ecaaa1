//! Records of a build beside the terminal: files with the output of its steps, and a file of events.
//!
//! A record that cannot be written does not stop a build: a warning says so at once, and [`Recorder::finish`] returns the error.

mod events;
mod logs;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use self::events::Events;
pub use self::events::Part;
use self::logs::{Log, Logs};
use super::Terminal;
use crate::base::error::{Error, Result};
use crate::base::progress::{Action, Event, Outcome, Packages, Progress};
use crate::os::process::Leftover;

/// The records that a user wants.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Directory for the output of each step that runs.
    pub log_dir: Option<PathBuf>,
    /// File for the events.
    pub events: Option<PathBuf>,
    /// Show the output of steps on the terminal.
    pub watch: bool,
}

/// Passes the events of a build to a terminal, and records them.
#[derive(Debug)]
pub struct Recorder<'a> {
    terminal: &'a Terminal,
    watch: bool,
    state: Arc<Mutex<State>>,
    /// Ends the actions in the file of events if a signal ends the program.
    _ending: Leftover,
}

#[derive(Debug, Default)]
struct State {
    events: Option<Events>,
    logs: Option<Logs>,
    step: Step,
    /// Errors of writing that the user has not seen.
    unseen: Vec<Error>,
    /// The first error of writing.
    unwritten: Option<Error>,
}

/// The step that began last.
#[derive(Debug, Default)]
struct Step {
    /// Its number, from 1 on.
    number: usize,
    name: String,
    /// The reason why it runs; `None` unless it runs.
    why: Option<String>,
    /// The file with its output.
    log: Option<Log>,
    /// The number of packages that its emerge has merged.
    packages: usize,
}

impl<'a> Recorder<'a> {
    /// Opens the file of events and records that a build begins. Warnings of later errors go to `terminal`.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if a file or a directory cannot be made.
    pub fn new(terminal: &'a Terminal, options: &Options) -> Result<Self> {
        let events = options.events.as_deref().map(Events::create).transpose()?;
        let logs = options.log_dir.as_deref().map(Logs::create).transpose()?;
        let state = Arc::new(Mutex::new(State { events, logs, ..State::default() }));
        let shared = Arc::clone(&state);
        let ending = Leftover::new(move || {
            let Ok(mut state) = shared.try_lock() else { return false };
            state.close(0, false, &[("reason", json!("stopped by a signal"))]);
            true
        });
        let recorder = Self { terminal, watch: options.watch, state, _ending: ending };
        recorder.change(|state| state.begin("build", &[]));
        Ok(recorder)
    }

    /// Records that the build of the image `keychain` begins: its name, after those of the images that it is based on.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if the directory for its logs cannot be made.
    pub fn image(&self, keychain: &str) -> Result<()> {
        let mut state = self.state();
        state.step = Step::default();
        state.logs.as_mut().map_or(Ok(()), |logs| logs.image(keychain))?;
        drop(state);
        self.change(|state| state.begin("image", &[("keychain", json!(keychain))]));
        Ok(())
    }

    /// Records the end of the image that began last, and its error if it failed.
    pub fn image_ended(&self, error: Option<&Error>) {
        self.change(|state| state.close(1, error.is_none(), &error.map(failure).unwrap_or_default()));
    }

    /// Returns the terminal.
    pub fn terminal(&self) -> &'a Terminal {
        self.terminal
    }

    /// Records a line that the process of `part` wrote. Returns false if it is not an event.
    pub fn adopt(&self, part: &mut Part, line: &str) -> bool {
        let event =
            serde_json::from_str(line).ok().filter(|event: &Map<String, Value>| event.contains_key("task_uuid"));
        let Some(event) = event else { return false };
        self.change(|state| state.write(|events| events.adopt(part, event)));
        true
    }

    /// Records the end of the process of `part`, with the reason if it has not ended its actions itself.
    pub fn part_ended(&self, part: Part, reason: &str) {
        self.change(|state| state.write(|events| events.end_part(part, reason)));
    }

    /// Records the end of the build, and its error if it failed.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if a record could not be written.
    pub fn finish(&self, error: Option<&Error>) -> Result<()> {
        self.change(|state| state.close(0, error.is_none(), &error.map(failure).unwrap_or_default()));
        self.state().unwritten.take().map_or(Ok(()), Err)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and warns of what could not be written.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let unseen = std::mem::take(&mut state.unseen);
        drop(state);
        for error in unseen {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            self.terminal.warn(&format!("{error}{cause}; the build goes on without this record"));
            self.state().unwritten.get_or_insert(error);
        }
    }
}

/// The fields of an action that failed.
fn failure(error: &Error) -> Vec<(&'static str, Value)> {
    vec![("exception", json!(format!("{:?}", error.kind()))), ("reason", json!(error.to_string()))]
}

impl Progress for Recorder<'_> {
    fn emit(&self, event: Event<'_>) {
        match event {
            Event::Begin(action) => self.change(|state| state.begin_action(action)),
            Event::Runs { why, variables } => self.change(|state| state.run(why, &json!(variables))),
            Event::End { outcome, log } => self.change(|state| state.end(outcome, log)),
            Event::Packages(packages) => self.change(|state| state.merged(packages)),
            Event::Warn(warning) => self.change(|state| state.say("warning", &[("text", json!(warning))])),
            Event::Output(line) => {
                let mut shown = false;
                self.change(|state| {
                    shown = self.watch && state.step.why.is_some();
                    let written = state.step.log.as_mut().map_or(Ok(()), |log| log.write(line));
                    if let Err(error) = written {
                        state.step.log = None;
                        state.unseen.push(error);
                    }
                });
                if shown {
                    return self.terminal.output(line);
                }
            }
            _ => {}
        }
        self.terminal.emit(event);
    }
}

impl State {
    /// Writes events. After an error no more are written.
    fn write(&mut self, write: impl FnOnce(&mut Events) -> Result<()>) {
        if let Some(events) = &mut self.events
            && let Err(error) = write(events)
        {
            self.events = None;
            self.unseen.push(error);
        }
    }

    fn begin(&mut self, kind: &'static str, fields: &[(&str, Value)]) {
        self.write(|events| events.begin(kind, fields));
    }

    fn say(&mut self, kind: &str, fields: &[(&str, Value)]) {
        self.write(|events| events.say(kind, fields));
    }

    /// Ends all actions but the outermost `depth` ones.
    fn close(&mut self, depth: usize, good: bool, fields: &[(&str, Value)]) {
        self.write(|events| {
            while events.depth() > depth {
                events.end(good, fields)?;
            }
            Ok(())
        });
    }

    fn begin_action(&mut self, action: Action<'_>) {
        let name = match action {
            Action::Step { name, .. } => name,
            Action::Configure => "",
            Action::Publish => return self.begin("publish", &[]),
        };
        let number = self.step.number + 1;
        self.step = Step { number, name: name.to_owned(), ..Step::default() };
        match action {
            Action::Step { key, .. } => self.begin("step", &[("name", json!(name)), ("key", json!(key))]),
            _ => self.begin("configure", &[]),
        }
    }

    fn run(&mut self, why: &str, variables: &Value) {
        let Step { number, name, .. } = &self.step;
        let log = self.logs.as_ref().map_or(Ok(None), |logs| logs.open(*number, name));
        match log {
            Ok(log) => self.step.log = log,
            Err(error) => self.unseen.push(error),
        }
        self.step.why = Some(why.to_owned());
        let log = self.log();
        let variables =
            if variables.as_object().is_none_or(serde_json::Map::is_empty) { &Value::Null } else { variables };
        self.say("run", &[("why", json!(why)), ("variables", variables.clone()), ("log", log)]);
    }

    fn log(&self) -> Value {
        json!(self.step.log.as_ref().map(|log| log.path().to_string_lossy()))
    }

    fn end(&mut self, outcome: Outcome<'_>, log: Option<&Path>) {
        let log = match self.log() {
            Value::Null => json!(log.map(Path::to_string_lossy)),
            own => own,
        };
        let reason = if let Outcome::Failed(reason) = outcome { Some(reason) } else { None };
        let fields = [
            ("state", json!(outcome.word())),
            ("why", json!(self.step.why.take())),
            ("log", log),
            ("reason", json!(reason)),
        ];
        self.step.log = None;
        self.write(|events| events.end(reason.is_none(), &fields));
    }

    fn merged(&mut self, packages: &Packages) {
        // Each emerge command begins with an empty list.
        let known = if packages.merged.len() < self.step.packages { 0 } else { self.step.packages };
        self.step.packages = packages.merged.len();
        for merged in &packages.merged[known..] {
            let fields = [
                ("cpv", json!(merged.cpv)),
                ("binary", json!(merged.binary)),
                ("seconds", json!(merged.seconds)),
                ("target", json!(merged.target)),
            ];
            self.say("package", &fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::progress::{Merged, Target};
    use crate::ui::{self, Color};

    fn terminal() -> Terminal {
        Terminal::new(ui::Options { verbose: 0, quiet: true, color: Color::Never })
    }

    fn lines(events: &Path) -> Vec<Value> {
        let text = fs_err::read_to_string(events).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn actions_are_nested_and_output_is_kept() {
        let (place, terminal) = (tempfile::tempdir().unwrap(), terminal());
        let (events, logs) = (place.path().join("events"), place.path().join("logs"));
        let options = Options { log_dir: Some(logs.clone()), events: Some(events.clone()), watch: true };
        let recorder = Recorder::new(&terminal, &options).unwrap();
        recorder.image("demo").unwrap();
        let step = |name| recorder.emit(Event::Begin(Action::Step { name, key: Some("k") }));
        step("a");
        recorder.end(Outcome::Cached, Some(Path::new("/store/log.zst")));
        step("g/b");
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        recorder.emit(Event::Runs { why: "script changed", variables: &variables });
        recorder.emit(Event::Output("hello"));
        let merged = |cpv: &str| Merged { cpv: cpv.to_owned(), binary: true, seconds: 2, target: Target::Image };
        let mut packages = Packages { merged: vec![merged("c/one-1")], ..Packages::default() };
        recorder.emit(Event::Packages(&packages));
        packages.merged.push(merged("c/two-2"));
        recorder.emit(Event::Packages(&packages));
        recorder.warn("careful");
        recorder.end(Outcome::Failed("code 7"), Some(Path::new("/elsewhere")));
        recorder.finish(Some(&Error::build("the step g/b failed"))).unwrap();

        let lines = lines(&events);
        let kind = |line: &Value| match line.get("action_type") {
            Some(kind) => format!("{kind} {}", line["action_status"]),
            None => line["message_type"].to_string(),
        };
        let shown: Vec<String> = lines.iter().map(|line| format!("{} {}", line["task_level"], kind(line))).collect();
        let expected = [
            r#"[1] "build" "started""#,
            r#"[2,1] "image" "started""#,
            r#"[2,2,1] "step" "started""#,
            r#"[2,2,2] "step" "succeeded""#,
            r#"[2,3,1] "step" "started""#,
            r#"[2,3,2] "run""#,
            r#"[2,3,3] "package""#,
            r#"[2,3,4] "package""#,
            r#"[2,3,5] "warning""#,
            r#"[2,3,6] "step" "failed""#,
            r#"[2,4] "image" "failed""#,
            r#"[3] "build" "failed""#,
        ];
        assert_eq!(shown, expected);
        assert_eq!((&lines[3]["state"], &lines[3]["log"]), (&json!("cached"), &json!("/store/log.zst")));
        assert_eq!((&lines[5]["why"], &lines[5]["variables"]["A"]), (&json!("script changed"), &json!("1")));
        assert_eq!(lines[7]["cpv"], json!("c/two-2"));
        assert_eq!((&lines[9]["state"], &lines[9]["reason"]), (&json!("failed"), &json!("code 7")));
        assert_eq!((&lines[11]["exception"], &lines[11]["reason"]), (&json!("Build"), &json!("the step g/b failed")));
        let log = PathBuf::from(lines[9]["log"].as_str().unwrap());
        let name = log.strip_prefix(logs.join("demo")).unwrap().to_str().unwrap();
        assert!(name.starts_with("02-g-b-20") && name.ends_with(".log"), "{log:?}");
        assert_eq!(fs_err::read_to_string(log).unwrap(), "hello\n");
    }

    #[test]
    fn the_events_of_processes_are_parts_of_one_build() {
        let (place, terminal) = (tempfile::tempdir().unwrap(), terminal());
        let path = |name: &str| place.path().join(name);
        let recorder = |name: &str| {
            let options = Options { events: Some(path(name)), ..Options::default() };
            Recorder::new(&terminal, &options).unwrap()
        };
        let text = |name: &str| fs_err::read_to_string(path(name)).unwrap();
        // The processes of two images; the second one is killed in a step.
        for name in ["one", "two"] {
            let process = recorder(name);
            process.image(name).unwrap();
            process.emit(Event::Begin(Action::Step { name: "s", key: None }));
            process.warn("careful");
            if name == "two" {
                std::mem::forget(process);
                continue;
            }
            process.end(Outcome::Cached, None);
            process.image_ended(None);
            process.finish(None).unwrap();
        }
        let all = recorder("all");
        let (mut one, mut two) = (Part::default(), Part::default());
        let (first, second) = (text("one"), text("two"));
        for (number, line) in first.lines().enumerate() {
            assert!(all.adopt(&mut one, line));
            second.lines().nth(number).iter().for_each(|line| assert!(all.adopt(&mut two, line)));
        }
        assert!(!all.adopt(&mut one, "/out/one.tar.gz") && !all.adopt(&mut one, "cached"));
        all.part_ended(one, "it was killed");
        all.part_ended(two, "it was killed");
        all.finish(None).unwrap();
        let lines = lines(&path("all"));
        let kind = |line: &Value| line.get("action_status").or(line.get("message_type")).cloned().unwrap();
        let shown: Vec<String> = lines.iter().map(|line| format!("{} {}", line["task_level"], kind(line))).collect();
        let expected = [
            r#"[1] "started""#,
            r#"[2,1] "started""#,
            r#"[3,1] "started""#,
            r#"[2,2,1] "started""#,
            r#"[3,2,1] "started""#,
            r#"[2,2,2] "warning""#,
            r#"[3,2,2] "warning""#,
            r#"[2,2,3] "succeeded""#,
            r#"[2,3] "succeeded""#,
            r#"[3,2,3] "failed""#,
            r#"[3,3] "failed""#,
            r#"[4] "succeeded""#,
        ];
        assert_eq!(shown, expected);
        assert!(lines.iter().all(|line| line["task_uuid"] == lines[0]["task_uuid"]));
        assert_eq!((&lines[9]["action_type"], &lines[9]["reason"]), (&json!("step"), &json!("it was killed")));
    }

    #[test]
    fn a_record_that_cannot_be_written_is_an_error_at_the_end() {
        let terminal = terminal();
        let events = Some(PathBuf::from("/dev/full"));
        let recorder = Recorder::new(&terminal, &Options { events, ..Options::default() }).unwrap();
        recorder.image("demo").unwrap();
        let error = recorder.finish(None).unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (4, "writing the events to /dev/full"));
        let events = Some(PathBuf::from("-"));
        let error = Recorder::new(&terminal, &Options { events, ..Options::default() }).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}
