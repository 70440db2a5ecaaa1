//! Questions to a builder tree: short commands whose output is the answer, such as `portageq` or a pretending emerge.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::error::Result;
use crate::base::text::plain;
use crate::enter::{self, Captured, Io, Terminal};
use crate::os::process::Exit;
use crate::plan::view::View;
use crate::portage;

/// Most bytes of an answer, for each stream.
const MAX: usize = 64 << 20;

/// A command whose output is the answer.
#[derive(Debug, Clone)]
pub struct Query {
    /// The command. The first word is looked up in PATH.
    pub argv: Vec<String>,
    /// Additions to the environment.
    pub env: BTreeMap<String, String>,
    /// Longest run.
    pub time: Duration,
}

impl Query {
    /// A command that reads the builder's own configuration and may run for a minute.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { argv, env: BTreeMap::new(), time: Duration::from_secs(60) }
    }

    /// Makes Portage read the image's configuration.
    #[allow(dead_code, reason = "a question to the builder alone comes with the next change")]
    #[must_use]
    pub fn of_target(mut self) -> Self {
        self.env.insert("PORTAGE_CONFIGROOT".into(), portage::CONFIGROOT.into());
        self
    }
}

/// The output of a command. It is untrusted.
#[derive(Debug)]
pub struct Answer {
    /// The end of the command.
    pub exit: Exit,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Answer {
    /// Returns the last lines of both streams, printable.
    pub fn complaint(&self) -> String {
        let said = [self.stdout.as_slice(), &self.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<String> = said.lines().rev().take(30).map(|line| plain(line, 200)).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// Runs a query in the tree mounted at `root`.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if the sandbox cannot be made,
/// [`Kind::Build`](crate::base::error::Kind::Build) if the command runs or writes too long. A command that fails is not an error: look at
/// [`Answer::exit`].
pub fn ask(view: &View, root: PathBuf, query: &Query) -> Result<Answer> {
    let mut plan = view.plan(root, query.argv.iter().map(Into::into).collect(), Terminal::None);
    plan.env.extend(query.env.clone());
    let mut captured = Captured::new(MAX, query.time);
    let exit = enter::run(&plan, Io::Capture(&mut captured))?;
    Ok(Answer { exit, stdout: captured.stdout, stderr: captured.stderr })
}
