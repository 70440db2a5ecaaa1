//! The terminal: progress bars, colours, verbosity, the log, and the layout of errors. Only this room and [`crate::cli`] print.
//!
//! Output goes to stderr, except for [`Terminal::result`] and [`Terminal::plan`], which write to stdout. A closed stream is not an
//! error. [`Terminal::written`] reports any other error of writing to stdout.

use crate::base::text;
use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::EnvFilter;

use crate::base::error::{Context as _, Error, Result};
use crate::base::progress::{Event, Progress};

mod bytes;
mod packages;
mod question;
pub mod record;
pub mod report;
pub mod summary;

/// A stage shows a bar after this time.
const FIRST_DRAW: Duration = Duration::from_millis(250);
const REDRAW: Duration = Duration::from_millis(120);

/// The `--color` option.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set or the terminal is dumb.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The options of the terminal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The number of `-v` options: one shows the output of commands, two also the log.
    pub verbose: u8,
    /// Show only warnings and errors.
    pub quiet: bool,
    /// Use of colours.
    pub color: Color,
}

/// Shows [`Progress`] on a terminal or in a log file.
#[derive(Debug)]
pub struct Terminal {
    options: Options,
    color: bool,
    bars: bool,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stage: Option<Stage>,
    drawing: bool,
    closed: bool,
    tally: summary::Tally,
    /// The first error of writing to stdout.
    unwritten: Option<io::Error>,
}

#[derive(Debug)]
struct Stage {
    what: String,
    since: Instant,
    bytes: Option<bytes::Counter>,
    packages: packages::Tracker,
    bar: Option<ProgressBar>,
}

impl Terminal {
    /// Makes a terminal for stderr, as the environment asks. Its thread starts with the first stage, because a process that enters a
    /// user namespace must have a single thread.
    pub fn new(options: Options) -> Self {
        let terminal = io::stderr().is_terminal();
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = match options.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !dumb && !set("NO_COLOR"),
        };
        let bars = terminal && !dumb && !options.quiet && options.verbose == 0 && !set("QUERN_LOG");
        Self { options, color, bars, shared: Arc::default() }
    }

    /// Returns the options of the terminal as arguments, for a process of this program whose output this terminal shows.
    pub fn words(&self) -> Vec<String> {
        // Escape sequences in its lines would be shown as such.
        let mut words = vec!["--color=never".to_owned()];
        words.extend((0..self.options.verbose).map(|_| "--verbose".to_owned()));
        words.extend(self.options.quiet.then(|| "--quiet".to_owned()));
        words
    }

    /// Starts the log. `QUERN_LOG` holds a filter of `tracing` (`debug`, `quern_builder::enter=trace`); `-vv` means `debug`.
    pub fn start_log(&self) {
        let filter = match std::env::var("QUERN_LOG") {
            Ok(filter) if !filter.is_empty() => filter,
            _ if self.options.verbose >= 2 => "quern_builder=debug".to_owned(),
            _ => return,
        };
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::builder().parse_lossy(filter))
            .with_writer(io::stderr)
            .with_ansi(self.color)
            .log_internal_errors(false);
        // Fails for a second terminal in the same process, as in a test.
        let _ = subscriber.try_init();
    }

    /// Returns true if the terminal shows colours.
    pub fn colour(&self) -> bool {
        self.color
    }

    /// Shows a line of the output of a command.
    pub fn output(&self, line: &str) {
        self.say(&text::output(line));
    }

    /// Ends the current stage and shows the error.
    pub fn error(&self, error: &Error) {
        self.end_stage(false);
        self.say(report::render(error, self.color).trim_end());
    }

    /// Prints the path of a result to stdout: byte for byte, or escaped if stdout is a terminal.
    pub fn result(&self, path: impl AsRef<OsStr>) {
        self.end_stage(true);
        let bytes = path.as_ref().as_bytes();
        let mut out = io::stdout().lock();
        let written = if out.is_terminal() {
            writeln!(out, "{}", text::line(&String::from_utf8_lossy(bytes)))
        } else {
            out.write_all(bytes).and_then(|()| out.write_all(b"\n"))
        };
        self.note_unwritten(written.and_then(|()| out.flush()));
    }

    /// Prints the answer of a command, such as the plan of `--dry-run`, to stdout.
    pub fn plan(&self, text: &str) {
        self.end_stage(true);
        let mut out = io::stdout().lock();
        let written = writeln!(out, "{}", text::block(text).trim_end_matches('\n'));
        self.note_unwritten(written.and_then(|()| out.flush()));
    }

    /// Shows the summary of a finished build on stderr.
    pub fn summary(&self, summary: &summary::Summary<'_>) {
        self.end_stage(true);
        if !self.options.quiet {
            let tally = self.state().tally;
            self.say(&summary.render(tally));
        }
    }

    /// Returns the first error of writing to stdout. A closed pipe is not an error.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System)
    pub fn written(&self) -> Result<()> {
        self.state().unwritten.take().map_or(Ok(()), Err).system(|| "writing to standard output")
    }

    fn note_unwritten(&self, written: io::Result<()>) {
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => _ = self.state().unwritten.get_or_insert(error),
            _ => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line to stderr, above the bar.
    fn say(&self, line: &str) {
        say(&self.state(), line);
    }

    fn begin_stage(&self, what: &str) {
        self.end_stage(true);
        let what = text::line(what);
        let mut state = self.state();
        if !self.bars && !self.options.quiet {
            say(&state, &what);
        }
        let packages = packages::Tracker::default();
        state.stage = Some(Stage { what, since: Instant::now(), bytes: None, packages, bar: None });
        if self.bars && !state.drawing {
            state.drawing = true;
            let shared = Arc::clone(&self.shared);
            // Without the thread, only the bars are missing.
            let _ = std::thread::Builder::new().name("quern:bars".to_owned()).spawn(move || draw(&shared));
        }
        self.shared.changed.notify_all();
    }

    fn end_stage(&self, good: bool) {
        let mut state = self.state();
        let Some(stage) = state.stage.take() else { return };
        if let Some(bar) = &stage.bar {
            bar.finish_and_clear();
        }
        if self.bars {
            let took = packages::duration(stage.since.elapsed());
            say(
                &state,
                &if good { format!("{} ({took})", stage.what) } else { format!("{} failed after {took}", stage.what) },
            );
        }
    }
}

impl Progress for Terminal {
    fn emit(&self, event: Event<'_>) {
        let shown = !self.options.quiet;
        match event {
            Event::Stage { what } => self.begin_stage(what),
            Event::Done => self.end_stage(true),
            Event::Failed => self.end_stage(false),
            Event::Begin(_) | Event::Runs { .. } | Event::End { .. } => {}
            Event::Bytes { done, total } => {
                if let Some(stage) = &mut self.state().stage {
                    let now = Instant::now();
                    stage.bytes.get_or_insert_with(|| bytes::Counter::new(done, now)).update(done, total);
                }
            }
            Event::Packages(packages) => {
                let mut state = self.state();
                let Some(stage) = &mut state.stage else { return };
                let new = stage.packages.update(packages, Instant::now());
                let lines: Vec<_> = new.iter().map(|(number, merged)| stage.packages.line(*number, merged)).collect();
                new.iter().for_each(|(_, merged)| state.tally.add(merged));
                for line in lines.iter().filter(|_| shown) {
                    say(&state, &format!("  {line}"));
                }
            }
            Event::Note(note) if shown => self.say(&text::block(note)),
            Event::Output(line) if shown && self.options.verbose > 0 => self.output(line),
            Event::Note(_) | Event::Output(_) => {}
            Event::Warn(warning) => {
                self.say(&format!("{} {}", report::paint("warning:", "1;33", self.color), text::block(warning)));
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.end_stage(true);
        self.state().closed = true;
        self.shared.changed.notify_all();
    }
}

fn say(state: &State, line: &str) {
    let write = || {
        let _ = writeln!(io::stderr().lock(), "{line}");
    };
    match state.stage.as_ref().and_then(|stage| stage.bar.as_ref()) {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Draws the bar of the current stage until the terminal is closed. The stages only store numbers, however often they report.
fn draw(shared: &Shared) {
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    while !state.closed {
        let pause = match &mut state.stage {
            None => None,
            Some(stage) => {
                let age = stage.since.elapsed();
                if age >= FIRST_DRAW {
                    stage.redraw();
                }
                Some(if age < FIRST_DRAW { FIRST_DRAW - age } else { REDRAW })
            }
        };
        state = match pause {
            None => shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(pause) => shared.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0,
        };
    }
}

impl Stage {
    fn redraw(&mut self) {
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {wide_msg}");
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        let now = Instant::now();
        // The spinner and a space come first.
        let width = console::Term::stderr()
            .size_checked()
            .map_or(usize::MAX, |(_, columns)| usize::from(columns))
            .saturating_sub(2);
        let text = match (self.packages.summary(now, width), &self.bytes) {
            (Some(packages), _) => packages,
            (None, Some(counter)) => format!("{}  {}", counter.summary(now), self.what),
            (None, None) => format!("{} ({})", self.what, packages::duration(self.since.elapsed())),
        };
        bar.set_message(fit(&text, width));
        bar.tick();
    }
}

/// Shortens a line to `width` columns, after a whole word where there is one.
fn fit(line: &str, width: usize) -> String {
    if console::measure_text_width(line) <= width {
        return line.to_owned();
    }
    let cut = console::truncate_str(line, width.saturating_sub(1), "");
    let end = match line[cut.len()..].starts_with(' ') {
        true => cut.len(),
        false => cut.rfind(' ').filter(|end| *end > 0).unwrap_or(cut.len()),
    };
    format!("{}…", line[..end].trim_end_matches([' ', ',']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_numbers_before_the_stage() {
        let mut stage = Stage {
            what: "unpacking x".to_owned(),
            since: Instant::now(),
            bytes: None,
            packages: packages::Tracker::default(),
            bar: Some(ProgressBar::hidden()),
        };
        let mut shown = |bytes| {
            stage.bytes = bytes;
            stage.redraw();
            stage.bar.as_ref().unwrap().message()
        };
        assert_eq!(shown(None), "unpacking x (0s)");
        let mut counter = bytes::Counter::new(0, Instant::now());
        counter.update(5, Some(10));
        assert!(shown(Some(counter)).starts_with("[#####-----] 50%"), "a bar");
    }

    #[test]
    fn lines_are_cut_between_words() {
        assert_eq!(fit("one two three", 13), "one two three");
        assert_eq!(fit("one two three", 12), "one two…");
        assert_eq!(fit("one two three", 8), "one two…");
        assert_eq!(fit("one, two three", 7), "one…");
        assert_eq!(fit("onetwothree", 5), "onet…");
        assert_eq!(fit("日本語 日本語", 7), "日本語…");
        assert_eq!(fit("x", 0), "…");
    }

    #[test]
    fn a_terminal_takes_events_in_any_order() {
        let terminal = Terminal::new(Options { verbose: 0, quiet: true, color: Color::Never });
        terminal.done();
        terminal.emit(Event::Bytes { done: 1, total: None });
        terminal.stage("one");
        terminal.stage("two");
        terminal.emit(Event::Packages(&crate::base::progress::Packages::default()));
        terminal.emit(Event::Output("line"));
        assert_eq!(terminal.state().stage.as_ref().unwrap().what, "two");
        terminal.done();
        assert!(terminal.state().stage.is_none());
    }
}
