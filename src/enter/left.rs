//! Processes that outlive the program that started them. PID 1 inherits them. If one of them holds the terminal or the pipe that the
//! command reads, the command waits for it, perhaps forever.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::fs::rootfs;

/// The time that a process must be idle before it is ended, and that the command waits for a busy one before it is reported.
const IDLE: Duration = Duration::from_secs(5);

/// The time that the command waits for a busy process before it is ended. Packages start short jobs and do not wait for them.
const BUSY: Duration = Duration::from_secs(60);

/// Processor time, in ticks between two looks, up to which a process counts as idle.
const IDLE_TICKS: u64 = 1;

/// The time that a new process has to start its program before it is reported, so that the report names that program.
const STARTS: Duration = Duration::from_millis(100);

/// The time between two looks at a new process.
const LOOK: Duration = Duration::from_millis(5);

/// `PF_FORKNOEXEC` of the kernel: the process has not started a program since its parent made it (proc_pid_stat(5), field `flags`).
const NOT_STARTED: u64 = 0x40;

/// Most bytes of a command line or a variable in a report.
const MAX_TEXT: usize = 500;

/// Most bytes that are read of a file in `/proc`.
const MAX_FILE: u64 = 256 << 10;

/// Most reports about one command. They fit into the buffer of a socket that nobody reads.
const MAX_REPORTS: usize = 32;

/// A process that was left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Its command line, with blanks between the words.
    pub command: String,
    /// Those of the [wanted](super::Plan::left) variables that its environment has.
    pub variables: BTreeMap<String, String>,
    pub fate: Fate,
}

/// The end of a process that was left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// None yet: it is busy, and the command waits for it.
    Awaited,
    /// The command waited for it, so it is ended.
    Ended,
    /// It still ran when the command ended.
    Outlived,
}

/// A look at one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: i32,
    session: i32,
    /// True if it runs or waits for a disk.
    busy: bool,
    /// True if it still runs the program of its parent.
    new: bool,
    /// Processor time so far.
    ticks: u64,
}

/// A process that the command waits for.
#[derive(Debug)]
struct Wait {
    /// Its processor time at the last look, with that of its descendants.
    ticks: u64,
    /// The time of the first look at it.
    since: Instant,
    /// The time of the last look at which it was not idle.
    busy: Instant,
    /// True if it was reported as busy.
    reported: bool,
}

/// The end of a pipe or of a terminal, by the name that `/proc` gives it.
type Name = String;

/// The processes that PID 1 inherited.
#[derive(Debug)]
pub(super) struct Orphans<'a> {
    proc: OwnedFd,
    /// The process that inherits orphans.
    reaper: i32,
    command: i32,
    /// The processes that are to run beside the command, each with a session of its own.
    daemons: Vec<i32>,
    wanted: &'a [String],
    waited: BTreeMap<i32, Wait>,
    /// Processes that got SIGTERM.
    asked: BTreeSet<i32>,
    reports: usize,
}

impl<'a> Orphans<'a> {
    /// Looks for processes that the child `command` of this process leaves behind. This process inherits them, and `proc` shows them.
    /// Those in the sessions of `daemons` are not among them.
    pub(super) fn new(proc: OwnedFd, command: Pid, wanted: &'a [String], daemons: Vec<i32>) -> Self {
        let reaper = nix::unistd::getpid().as_raw();
        let command = command.as_raw();
        Self { proc, reaper, command, daemons, wanted, waited: BTreeMap::new(), asked: BTreeSet::new(), reports: 0 }
    }

    /// Ends processes that the command waits for: idle ones soon, and busy ones after a time. Their parent, such as the shell of an
    /// ebuild's phase, has ended. Returns those that were asked to end now, and those that are busy, once.
    pub(super) fn end_waited_for(&mut self, now: Instant) -> Vec<Left> {
        let stats = self.stats();
        let waited_for = self.waited_for(&stats);
        self.waited.retain(|pid, _| waited_for.contains_key(pid));
        let mut reports = Vec::new();
        for (root, tree) in waited_for {
            let ticks = tree.iter().map(|pid| stats[pid].ticks).sum();
            let new = Wait { ticks, since: now, busy: now, reported: false };
            let wait = self.waited.entry(root).or_insert(new);
            if tree.iter().any(|pid| stats[pid].busy) || ticks > wait.ticks + IDLE_TICKS {
                wait.busy = now;
            }
            wait.ticks = ticks;
            if now - wait.busy < IDLE && now - wait.since < BUSY {
                if now - wait.since >= IDLE && !std::mem::replace(&mut wait.reported, true) {
                    reports.extend(self.report(root, Fate::Awaited));
                }
                continue;
            }
            let signal = if self.asked.insert(root) {
                reports.extend(self.report(root, Fate::Ended));
                Signal::SIGTERM
            } else {
                Signal::SIGKILL
            };
            tree.iter().for_each(|pid| _ = kill(Pid::from_raw(*pid), signal));
        }
        reports
    }

    /// Returns the processes that still run after the command has ended.
    pub(super) fn remaining(&mut self) -> Vec<Left> {
        let start = Instant::now();
        let mut roots = self.unasked();
        while start.elapsed() < STARTS && roots.values().any(|stat| stat.new) {
            std::thread::sleep(LOOK);
            roots = self.unasked();
        }
        roots.into_keys().filter_map(|root| self.report(root, Fate::Outlived)).collect()
    }

    /// Returns the orphans that were not asked to end.
    fn unasked(&self) -> BTreeMap<i32, Stat> {
        let mut stats = self.stats();
        stats.retain(|pid, stat| self.is_orphan(stat) && !self.asked.contains(pid));
        stats
    }

    fn is_orphan(&self, stat: &Stat) -> bool {
        stat.parent == self.reaper && !self.daemons.contains(&stat.session)
    }

    fn stats(&self) -> BTreeMap<i32, Stat> {
        let names = rootfs::list(std::os::fd::AsFd::as_fd(&self.proc)).unwrap_or_default();
        let pids = names.iter().filter_map(|(name, _)| name.to_str()?.parse().ok());
        pids.filter_map(|pid| Some((pid, parse_stat(&self.read(pid, "stat")?)?))).collect()
    }

    /// Returns the orphans that the command waits for, each with its descendants and itself.
    fn waited_for(&self, stats: &BTreeMap<i32, Stat>) -> BTreeMap<i32, BTreeSet<i32>> {
        let orphan = |(pid, stat): &(&i32, &Stat)| self.is_orphan(stat) && **pid != self.command;
        let roots: Vec<i32> = stats.iter().filter(orphan).map(|(pid, _)| *pid).collect();
        let mut trees: BTreeMap<i32, BTreeSet<i32>> =
            roots.into_iter().map(|root| (root, descendants(root, stats))).collect();
        if trees.is_empty() {
            return trees;
        }
        let all: BTreeSet<i32> = trees.values().flatten().copied().collect();
        let mut held: BTreeMap<i32, BTreeSet<Name>> = BTreeMap::new();
        for (root, tree) in &trees {
            held.insert(*root, tree.iter().flat_map(|pid| self.ends(*pid).0).collect());
        }
        // An end of a terminal or a pipe that another process also writes to says nothing: that process may still work.
        let (mut written, mut read) = (BTreeSet::new(), BTreeSet::new());
        for pid in stats.keys().filter(|pid| **pid != self.reaper && !all.contains(pid)) {
            let (writes, reads) = self.ends(*pid);
            written.extend(writes);
            if *pid == self.command {
                read = reads;
            }
        }
        let waits = |name: &Name| !written.contains(name) && (name.starts_with("/dev/pts/") || read.contains(name));
        trees.retain(|root, _| held[root].iter().any(waits));
        trees
    }

    /// Returns the terminals and pipes that a process has open for writing, and the pipes that it has open for reading.
    fn ends(&self, pid: i32) -> (BTreeSet<Name>, BTreeSet<Name>) {
        let (mut writes, mut reads) = (BTreeSet::new(), BTreeSet::new());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(fds) = rustix::fs::openat(&self.proc, format!("{pid}/fd"), flags, Mode::empty()) else {
            return (writes, reads);
        };
        for (fd, _) in rootfs::list(std::os::fd::AsFd::as_fd(&fds)).unwrap_or_default() {
            let Ok(link) = rustix::fs::readlinkat(&fds, &fd, Vec::new()) else { continue };
            let Ok(name) = link.into_string() else { continue };
            let number = name.strip_prefix("/dev/pts/").filter(|number| *number != "ptmx");
            if number.is_none() && !name.starts_with("pipe:[") {
                continue;
            }
            // The permissions of the link itself tell how the descriptor was opened.
            let mode =
                rustix::fs::statat(&fds, &fd, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).map_or(0, |stat| stat.st_mode);
            if mode & 0o200 != 0 {
                writes.insert(name);
            } else if mode & 0o400 != 0 {
                reads.insert(name);
            }
        }
        (writes, reads)
    }

    fn report(&mut self, pid: i32, fate: Fate) -> Option<Left> {
        if self.reports == MAX_REPORTS {
            return None;
        }
        self.reports += 1;
        let command = self.read(pid, "cmdline")?;
        let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let environment = self.read(pid, "environ").unwrap_or_default();
        let variables = environment.split(|byte| *byte == 0).filter_map(|variable| {
            let (name, value) = std::str::from_utf8(variable).ok()?.split_once('=')?;
            self.wanted.iter().any(|wanted| wanted == name).then(|| (name.to_owned(), short(value)))
        });
        Some(Left { command: short(words.join(" ").trim_end()), variables: variables.collect(), fate })
    }

    fn read(&self, pid: i32, file: &str) -> Option<Vec<u8>> {
        let path = Path::new(&pid.to_string()).join(file);
        let opened = rustix::fs::openat(&self.proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(opened).take(MAX_FILE).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// Returns a process and everything that it started.
fn descendants(root: i32, stats: &BTreeMap<i32, Stat>) -> BTreeSet<i32> {
    let mut tree = BTreeSet::from([root]);
    loop {
        let more: Vec<i32> = stats
            .iter()
            .filter(|(pid, stat)| tree.contains(&stat.parent) && !tree.contains(*pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return tree;
        }
        tree.extend(more);
    }
}

/// Parses `/proc/PID/stat`. The name of the program is between parentheses and may contain anything.
fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let end = bytes.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(&bytes[end + 1..]).ok()?;
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        busy: matches!(*fields.first()?, "R" | "D"),
        new: number(6)? & NOT_STARTED != 0,
        ticks: number(11)?.saturating_add(number(12)?),
    })
}

/// Reads the `stat` of the processes 1, 2, … and returns the number of descendants of the first, for the fuzz body.
#[cfg(any(test, fuzzing))]
pub fn count_descendants<'a>(stats: impl Iterator<Item = &'a [u8]>) -> usize {
    let stats = (1..).zip(stats).filter_map(|(pid, bytes)| Some((pid, parse_stat(bytes)?)));
    descendants(1, &stats.collect()).len()
}

fn short(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the tests start processes")]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_name_of_a_program_does_not_confuse_the_parser() {
        let line = b"17 (a) S 9 (b) S 1 17 17 0 -1 4194560 1 2 3 4 55 66 7 8 20 0 1 0\n";
        assert_eq!(parse_stat(line), Some(Stat { parent: 1, session: 17, busy: false, new: false, ticks: 121 }));
        assert_eq!(parse_stat(b"17 (\xff)) D 4 17 17 0 -1 0 0 0 0 0 1 2\n").map(|stat| stat.busy), Some(true));
        assert_eq!(parse_stat(b"17 (a) R 1 17 17 0 -1 4194368 0 0 0 0 1 2\n").map(|stat| stat.new), Some(true));
        for cut in 0..line.len() {
            parse_stat(&line[..cut]);
        }
        assert_eq!(parse_stat(b"17 S 1"), None);
    }

    #[test]
    fn a_tree_has_all_descendants() {
        let stat = |parent| Stat { parent, session: 0, busy: false, new: false, ticks: 0 };
        let stats = BTreeMap::from([(5, stat(1)), (3, stat(9)), (9, stat(5)), (7, stat(1))]);
        assert_eq!(descendants(5, &stats), BTreeSet::from([3, 5, 9]));
    }

    /// Returns the only child of this process that is not `command`, once it is there.
    fn orphan(orphans: &Orphans<'_>) -> i32 {
        loop {
            let stats = orphans.stats();
            let own = |(pid, stat): &(&i32, &Stat)| stat.parent == orphans.reaper && **pid != orphans.command;
            if let Some((pid, _)) = stats.iter().find(own) {
                return *pid;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    #[ignore = "the child process of the next test: it inherits orphans"]
    fn a_process_with_orphans() {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let (read, write) = std::io::pipe().unwrap();
        let mut command = Command::new("cat").stdin(read).stdout(Stdio::null()).spawn().unwrap();
        let wanted = ["PF".to_owned()];
        let proc = fs_err::File::open("/proc").unwrap().into_file();
        let mut orphans = Orphans::new(proc.into(), Pid::from_raw(command.id() as i32), &wanted, Vec::new());
        // The orphan and nobody else holds the pipe that the command reads.
        let script = "while :; do :; done </dev/null 2>/dev/null &";
        Command::new("sh").args(["-c", script]).env("PF", "busy-1").stdout(write).status().unwrap();
        let busy = orphan(&orphans);
        let began = Instant::now();
        let mut look = |seconds: u64| {
            let left = orphans.end_waited_for(began + Duration::from_secs(seconds));
            left.into_iter().map(|left| (left.fate, left.variables["PF"].clone())).collect::<Vec<_>>()
        };
        for (seconds, said) in [(0, None), (4, None), (5, Some(Fate::Awaited)), (30, None), (59, None)] {
            assert_eq!(look(seconds), Vec::from_iter(said.map(|fate| (fate, "busy-1".to_owned()))), "{seconds}");
        }
        kill(Pid::from_raw(busy), None).expect("it still runs");
        assert_eq!(look(60), [(Fate::Ended, "busy-1".to_owned())]);
        nix::sys::wait::waitpid(Pid::from_raw(busy), None).unwrap();
        command.wait().unwrap();
        assert_eq!(look(61), []);
    }

    #[test]
    fn a_busy_process_is_named_and_ended_later() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--ignored", "--exact", "--test-threads=1", "enter::left::tests::a_process_with_orphans"]);
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(short(&"é".repeat(400)).len(), MAX_TEXT);
        assert!(short(&format!("x{}", "é".repeat(400))).len() < MAX_TEXT);
    }
}
