//! A file of events: lines of JSON with the fields of
//! [eliot](https://eliot.readthedocs.io/en/stable/reading/fields.html), which `eliot-tree` shows as a tree.
//!
//! An action is a message when it begins, one when it ends, and all messages in between. `task_level` is the place of a message: the
//! numbers of the actions around it, each in the next outer one, and its own number in the innermost.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::base::error::{Context as _, Error, Kind, Result};
use crate::base::text;

/// The events of one build, in a file.
#[derive(Debug)]
pub(super) struct Events {
    path: PathBuf,
    file: File,
    /// The identity of the build.
    task: String,
    /// The actions that have not ended, the outermost first.
    actions: Vec<Action>,
}

#[derive(Debug)]
struct Action {
    kind: &'static str,
    level: Vec<u32>,
    /// The number of its next message.
    next: u32,
}

/// The events of another process, as a part of the innermost action.
#[derive(Debug, Default)]
pub struct Part {
    /// The places of the actions in its outermost one, by their numbers there.
    levels: BTreeMap<u64, Vec<u64>>,
    /// The messages that began the actions that have not ended, with the places of these actions, and the number of the last message of
    /// each. The outermost comes first.
    actions: Vec<(Value, Vec<u64>, u64)>,
}

impl Events {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// [`Kind::Usage`] if that is not possible.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let making = || "making the file for the events";
        if path == Path::new("-") {
            return Err(Error::usage(format!("{}: standard output has the paths of the results", making()))
                .with_hint("name a file, a named pipe or /dev/fd/NUMBER with --events"));
        }
        let file = fs_err::File::create(path).context(Kind::Usage, making)?.into_file();
        let task = fs_err::read_to_string("/proc/sys/kernel/random/uuid").system(|| "making a UUID")?;
        Ok(Self { path: path.to_owned(), file, task: task.trim().to_owned(), actions: Vec::new() })
    }

    /// Returns the number of actions that have not ended.
    pub(super) fn depth(&self) -> usize {
        self.actions.len()
    }

    /// Begins an action in the innermost one.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be written.
    pub(super) fn begin(&mut self, kind: &'static str, fields: &[(&str, Value)]) -> Result<()> {
        let level = self.next_level();
        self.actions.push(Action { kind, level, next: 1 });
        self.write(&[("action_type", json!(kind)), ("action_status", json!("started"))], fields)
    }

    /// Ends the innermost action.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be written.
    pub(super) fn end(&mut self, good: bool, fields: &[(&str, Value)]) -> Result<()> {
        let Some(Action { kind, .. }) = self.actions.last() else { return Ok(()) };
        let status = if good { "succeeded" } else { "failed" };
        let own = [("action_type", json!(kind)), ("action_status", json!(status))];
        let written = self.write(&own, fields);
        self.actions.pop();
        written
    }

    /// Writes a message in the innermost action.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be written.
    pub(super) fn say(&mut self, kind: &str, fields: &[(&str, Value)]) -> Result<()> {
        self.write(&[("message_type", json!(kind))], fields)
    }

    /// Writes the event `line` of the process of `part` at the place of that process. Its outermost action, the build, is left out: this
    /// build is the same one.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be written.
    pub(super) fn adopt(&mut self, part: &mut Part, mut event: Map<String, Value>) -> Result<()> {
        let numbers = |level: &Value| level.as_array().map(|level| level.iter().filter_map(Value::as_u64).collect());
        let level: Vec<u64> = event.get("task_level").and_then(numbers).unwrap_or_default();
        event.insert("task_uuid".to_owned(), json!(self.task));
        let [first, inner @ .., number] = &level[..] else {
            if event.contains_key("action_status") {
                return Ok(());
            }
            event.insert("task_level".to_owned(), json!(self.next_level()));
            return self.line(&event);
        };
        let place = || self.next_level().into_iter().map(u64::from).collect();
        let action = [&part.levels.entry(*first).or_insert_with(place)[..], inner].concat();
        event.insert("task_level".to_owned(), json!([&action[..], &[*number]].concat()));
        let (around, own) = action.split_at(action.len() - 1);
        match (event.get("action_status").and_then(Value::as_str), part.actions.last_mut()) {
            (Some("started"), above) => {
                above.filter(|(_, open, _)| open == around).into_iter().for_each(|(_, _, last)| *last = own[0]);
                part.actions.push((Value::Object(event.clone()), action, *number));
            }
            (Some(_), _) => _ = part.actions.pop(),
            (None, Some((_, _, last))) => *last = *number,
            (None, None) => {}
        }
        self.line(&event)
    }

    /// Ends the actions of `part` that its process has not ended, because of `reason`.
    ///
    /// # Errors
    /// [`Kind::System`] if they cannot be written.
    pub(super) fn end_part(&mut self, part: Part, reason: &str) -> Result<()> {
        for (began, action, last) in part.actions.into_iter().rev() {
            let level = [&action[..], &[last + 1]].concat();
            let fields = json!({
                "action_type": began["action_type"], "action_status": "failed", "reason": reason, "task_level": level,
                "task_uuid": self.task, "timestamp": now(),
            });
            fields.as_object().map_or(Ok(()), |event| self.line(event))?;
        }
        Ok(())
    }

    /// The level of the next message of the innermost action.
    fn next_level(&mut self) -> Vec<u32> {
        let Some(Action { level, next, .. }) = self.actions.last_mut() else { return Vec::new() };
        *next += 1;
        [&level[..], &[*next - 1]].concat()
    }

    /// Writes a line, in one piece, without the fields that are null.
    fn write(&mut self, own: &[(&str, Value)], fields: &[(&str, Value)]) -> Result<()> {
        let level = self.next_level();
        let common = [("task_uuid", json!(self.task)), ("task_level", json!(level)), ("timestamp", json!(now()))];
        let all = common.iter().chain(own).chain(fields).filter(|(_, value)| !value.is_null());
        let message: Map<String, Value> = all.map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.line(&message)
    }

    fn line(&mut self, message: &Map<String, Value>) -> Result<()> {
        let writing = || format!("writing the events to {}", self.path.display());
        let line = text::json(message).context(Kind::System, writing)? + "\n";
        self.file.write_all(line.as_bytes()).system(writing)
    }
}

/// Returns the time in seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
