//! A script as a step: its interpreter, its sandbox, its output.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::super::Builder;
use super::super::daemons::{self, Daemons, SHOWN, WIDTH};
use super::super::layer::open_log;
use super::super::trees::Trees;
use super::place::SCRIPT;
use super::secrets;
use crate::archive::leak::Mask;
use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Progress};
use crate::base::text::plain;
use crate::enter::{self, DaemonFailure, Io, Left, Observer, Terminal};
use crate::os::process::Exit;
use crate::plan::view::View;
use crate::recipe::{Script, Step};
use crate::source::Site;
use crate::store::work::WorkPaths;

/// The interpreter of a script without a first line that names one.
const SHELL: [&str; 5] = ["/bin/bash", "--noprofile", "--norc", "-eo", "pipefail"];

/// The surroundings of a command of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Command<'a> {
    pub(super) trees: &'a Trees,
    /// The directory of the step's changes and of its log.
    pub(super) paths: &'a WorkPaths,
    pub(super) view: &'a View,
}

impl Builder<'_> {
    /// Runs the script of a step in its trees.
    pub(super) fn run_script(&self, step: &Step, script: &Script, command: &Command<'_>, at: &Site<'_>) -> Result<()> {
        let argv = command_of(step, script);
        let interpreter = interpreter(step, script);
        if command.trees.root().stat(&interpreter)?.is_none() {
            let error =
                Error::build(format!("running the step {}: the tree has no {}", step.name, interpreter.display()));
            return Err(error.with_hint(
                "name another interpreter in the first line of the script or in `shell`, or run the step with in = \"builder\"",
            ));
        }
        self.run_command(step, argv, command, at)
    }

    /// Runs a command as the work of a step.
    pub(super) fn run_command(
        &self,
        step: &Step,
        argv: Vec<OsString>,
        command: &Command<'_>,
        at: &Site<'_>,
    ) -> Result<()> {
        let Command { trees, paths, view } = *command;
        let mut plan =
            self.step_place(at).plan(step, view, trees, argv, if step.tty { Terminal::Own } else { Terminal::None })?;
        plan.limit = step.timeout;
        plan.left = Some(Vec::new());
        plan.daemons = daemons::plans(&step.daemons, true);
        let log = paths.log();
        let mask = Mask::new(secrets::of(step))?;
        let daemons = Daemons::new(&step.name, &step.daemons, &step.secrets, paths)?;
        let (log, tail, left) = (open_log(&log)?, VecDeque::new(), Vec::new());
        let mut observer = Output { ui: at.ui, log, tail, left, mask, daemons, timed_out: false };
        let exit = enter::run(&plan, Io::Observe(&mut observer))?;
        for left in &observer.left {
            // The command may have a part of a secret.
            let left = if step.secrets.is_empty() { format!(": {left}") } else { String::new() };
            at.ui.warn(&format!("the step {} left a process behind, which was ended{left}", step.name));
        }
        if let Some(error) = observer.daemons.error() {
            return Err(error);
        }
        let limit = step.timeout.filter(|_| observer.timed_out);
        if exit.success() && limit.is_none() {
            return Ok(());
        }
        Err(failed(step, exit, limit, &observer.tail))
    }
}

/// Returns the error of a step that ended with `exit`. `limit` is the time that it exceeded.
fn failed(step: &Step, exit: Exit, limit: Option<u64>, tail: &VecDeque<String>) -> Error {
    let how = match (limit, exit) {
        (Some(seconds), _) => format!("timed out after {seconds} s"),
        (None, Exit::Code(code)) if code > 128 => {
            format!("exited with code {code}, which usually means that signal {} ended a command", code - 128)
        }
        (None, Exit::Code(code)) => format!("exited with code {code}"),
        (None, Exit::Signal(signal)) => {
            let name = Signal::try_from(signal).map(|signal| format!(" ({signal})")).unwrap_or_default();
            format!("was killed by signal {signal}{name}")
        }
    };
    let lines: Vec<String> = tail.iter().map(|line| plain(line, WIDTH)).collect();
    let error = Error::build(format!("the step {} {how}", step.name)).with_details(lines.join("\n"));
    let said = |words: &[&str]| tail.iter().any(|line| words.iter().any(|word| line.contains(word)));
    let network = [
        "Network is unreachable",
        "Temporary failure in name resolution",
        "Could not resolve host",
        "unable to resolve host",
        "Name or service not known",
        "Connection refused",
    ];
    if !step.network && said(&network) {
        return error.with_hint("a step has no network unless it says network = true");
    }
    if said(&["Invalid cross-device link"]) {
        return error.with_hint("a directory of a lower layer cannot be renamed: `mv` copies it, rename(2) does not");
    }
    error
}

/// Returns the path of the program that runs the script.
fn interpreter(step: &Step, script: &Script) -> PathBuf {
    let first = step.shell.as_ref().and_then(|shell| shell.first()).map(PathBuf::from);
    first.or_else(|| shebang(&script.bytes)).unwrap_or_else(|| SHELL[0].into())
}

/// Returns the program that the first line of a script names (execve(2)).
fn shebang(bytes: &[u8]) -> Option<PathBuf> {
    let line = bytes.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let text = std::str::from_utf8(line).ok()?;
    text.split_ascii_whitespace().next().map(PathBuf::from)
}

/// Returns the command of a script: the file itself if its first line names an interpreter, or else the shell with the file.
fn command_of(step: &Step, script: &Script) -> Vec<OsString> {
    let shell: Vec<OsString> = match &step.shell {
        Some(shell) => shell.iter().map(Into::into).collect(),
        None if script.bytes.starts_with(b"#!") => Vec::new(),
        None => SHELL.iter().map(Into::into).collect(),
    };
    shell.into_iter().chain([SCRIPT.into()]).chain(step.args.iter().map(Into::into)).collect()
}

/// The observer of a script.
struct Output<'a> {
    ui: &'a dyn Progress,
    log: File,
    tail: VecDeque<String>,
    /// Command lines of the processes that it left behind.
    left: Vec<String>,
    mask: Mask,
    daemons: Daemons<'a>,
    /// True if it did not end in time.
    timed_out: bool,
}

impl Observer for Output<'_> {
    fn bytes(&mut self, read: &[u8], shown: &mut Vec<u8>) {
        match read.is_empty() {
            false => self.mask.push(read, shown),
            true => self.mask.end(shown),
        }
    }

    fn line(&mut self, line: &[u8]) {
        // On a full disk the lines in memory still tell why the step failed.
        self.log.write_all(line).and_then(|()| self.log.write_all(b"\n")).ok();
        let text = String::from_utf8_lossy(line);
        self.ui.emit(Event::Output(&text));
        if self.tail.len() == SHOWN {
            self.tail.pop_front();
        }
        self.tail.push_back(text.into_owned());
    }

    fn tick(&mut self) {}

    fn left(&mut self, process: &Left) {
        self.left.push(plain(&process.command, WIDTH));
    }

    fn timed_out(&mut self) {
        self.timed_out = true;
    }

    fn daemon(&mut self, index: usize, bytes: &[u8]) {
        self.daemons.take(index, bytes);
    }

    fn daemon_failed(&mut self, failure: DaemonFailure) {
        self.daemons.fail(failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_script_names_its_interpreter() {
        assert_eq!(shebang(b"#!/bin/sh -e\nx"), Some("/bin/sh".into()));
        assert_eq!(shebang(b"#! /usr/bin/env python3"), Some("/usr/bin/env".into()));
        assert_eq!(shebang(b"#!\n/bin/sh"), None);
        assert_eq!(shebang(b"echo"), None);
    }
}
