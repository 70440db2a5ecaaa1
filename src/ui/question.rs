//! Questions on the terminal.

use std::io::{self, BufRead as _, IsTerminal as _};

use zeroize::Zeroizing;

use super::Terminal;
use crate::base::error::{Context as _, Result};
use crate::base::text::escaped;

impl Terminal {
    /// Asks a question and returns the line that the user writes; for a secret, without showing it. `None` if standard input or
    /// standard error is not a terminal, or at the end of the input.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the terminal cannot be read.
    pub fn question(&self, prompt: &str, secret: bool) -> Result<Option<Zeroizing<String>>> {
        let doing = || "asking on the terminal";
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Ok(None);
        }
        let terminal = console::Term::stderr();
        terminal.write_str(&format!("{}: ", escaped(prompt))).system(doing)?;
        if secret {
            return terminal.read_secure_line().map(|line| Some(Zeroizing::new(line))).system(doing);
        }
        let mut line = Zeroizing::new(String::new());
        let read = io::stdin().lock().read_line(&mut line).system(doing)?;
        let length = line.trim_end_matches(['\r', '\n']).len();
        line.truncate(length);
        Ok((read > 0).then_some(line))
    }
}
