//! `[secret.NAME]`: its origin, and its value.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Access, access};

use super::{Checker, Word};
use crate::archive::leak::SHORTEST;
use crate::base::error::Result;
use crate::base::text::{plain, quoted};
use crate::os::process::helper::{Helper, ask};
use crate::recipe::check::path::Must;
use crate::recipe::check::steps::flag;
use crate::recipe::diagnostic::Problem;
use crate::recipe::parse::{Is, Table};
use crate::recipe::{Secret, SecretValue, Secrets};

/// The size limit of a secret, in bytes.
const MAX: u64 = 1 << 20;

/// The size limit of files that the command of a secret writes, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// The longest line of a command's complaints that an error shows, in characters.
const WIDTH: usize = 200;

/// A declared secret. Its value is read when a step names it.
#[derive(Debug, Clone)]
pub(super) struct SecretSource {
    origin: Origin,
    rebuild: bool,
}

#[derive(Debug, Clone)]
enum Origin {
    File(Word),
    Env(Word),
    Command(Word, Vec<String>),
    Answer(SecretValue),
}

impl SecretSource {
    /// The answer to a question.
    pub(super) fn answer(value: SecretValue) -> Self {
        Self { origin: Origin::Answer(value), rebuild: true }
    }
}

impl Checker<'_> {
    /// Returns a declared secret.
    pub(super) fn secret(&mut self, name: &Word, table: &Table) -> Option<SecretSource> {
        let rebuild = !table.contains_key("rebuild") || flag(table, "rebuild");
        let command = match table.get("command").map(|item| &item.value.is) {
            Some(Is::List(list)) => Some(list.iter().filter_map(Word::of).collect::<Vec<_>>()),
            _ => None,
        };
        let origin = match (Word::in_table(table, "file"), Word::in_table(table, "env"), command.as_deref()) {
            (Some(of), None, None) => Origin::File(of),
            (None, Some(of), None) => Origin::Env(of),
            (None, None, Some([program, arguments @ ..])) => {
                Origin::Command(program.clone(), arguments.iter().map(|word| word.text.clone()).collect())
            }
            _ => {
                let problem = Problem::new("one of `file`, `env` and `command`").help("for example file = \"token\"");
                self.texts.problem(&name.at, "a secret has one origin", problem);
                return None;
            }
        };
        Some(SecretSource { origin, rebuild })
    }

    /// Reads the value of a secret.
    pub(super) fn value_of(&mut self, source: &SecretSource, name: &Word) -> Option<Secret> {
        let value = match &source.origin {
            Origin::Answer(value) => value.clone(),
            origin if self.is_left_out(origin) => SecretValue::absent(),
            Origin::File(word) => {
                let path = self.path(word, Must::File)?;
                SecretValue::new(self.content(&path, &word.at, MAX)?)
            }
            Origin::Env(word) => {
                let Some(value) = self.request.env.get(OsStr::new(&word.text)) else {
                    let problem = Problem::new("not set").help("set it for this command only");
                    let title = format!("the environment has no variable {}", quoted(&word.text));
                    self.texts.problem(&word.at, title, problem);
                    return None;
                };
                SecretValue::new(value.as_bytes().to_vec())
            }
            Origin::Command(program, arguments) => SecretValue::new(self.output_of(program, arguments, name)?),
        };
        if !value.is_absent() && !value.is_searched() {
            let short = format!(
                "the secret {} has fewer than {SHORTEST} bytes: it is masked in output, but not looked for in files",
                quoted(&name.text)
            );
            self.texts.warn(&name.at, &short);
        }
        Some(Secret { name: name.text.clone(), rebuild: source.rebuild, value })
    }

    /// Returns true for a secret that the command needs not read: all of them, or those that are not there.
    fn is_left_out(&self, origin: &Origin) -> bool {
        match (self.request.secrets, origin) {
            (Secrets::Leave, _) => true,
            (Secrets::Read | Secrets::ReadAndRun, _) | (Secrets::Known { .. }, Origin::Answer(_)) => false,
            (Secrets::Known { .. }, Origin::File(word)) => {
                let dir = &self.texts.get(word.at.text).dir;
                let path = self.without_tilde(&word.text).map(|path| dir.join(path));
                path.is_some_and(|path| access(path, Access::READ_OK).is_err())
            }
            (Secrets::Known { .. }, Origin::Env(word)) => !self.request.env.contains_key(OsStr::new(&word.text)),
            (Secrets::Known { run }, Origin::Command(..)) => !run,
        }
    }

    /// Runs a program of this machine and returns its output.
    fn output_of(&mut self, program: &Word, arguments: &[String], name: &Word) -> Option<Vec<u8>> {
        let (at, name) = (&program.at, quoted(&name.text));
        if !matches!(self.request.secrets, Secrets::ReadAndRun | Secrets::Known { run: true }) {
            let problem = Problem::new("not allowed").help("--allow-commands allows it");
            self.texts.problem(at, format!("the secret {name} runs a program of this machine"), problem);
            return None;
        }
        let path = match program.text.contains('/') {
            true => self.path(program, Must::File)?.to_string_lossy().into_owned(),
            false => program.text.clone(),
        };
        let env: Vec<_> = self.request.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let run = || -> Result<_> { ask(Helper::start(&path, arguments, &env, MAX_FILE)?, MAX) };
        let problem = match run() {
            Ok((exit, output, _)) if exit.success() => return Some(output),
            Ok((exit, _, complaints)) => {
                let last = complaints.lines().last().map(|line| plain(line, WIDTH));
                Problem::new(last.unwrap_or_else(|| format!("{exit:?}")))
            }
            Err(error) => Problem::new(error.to_string()),
        };
        self.texts.problem(at, format!("the command of the secret {name} failed"), problem);
        None
    }
}
