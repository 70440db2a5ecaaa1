//! Answers to the questions of a recipe: options, a file, and the terminal.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::named::OutputFile;
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::progress::Progress;
use crate::recipe::{Answers, Question, User, toml_string};
use crate::ui::Terminal;

/// The options with answers.
#[derive(Clone, Default, clap::Args)]
#[command(next_help_heading = "Recipe")]
pub struct AnswerArgs {
    /// Answer a question of the recipe
    #[arg(long = "answer", value_name = "NAME=VALUE")]
    answer: Vec<String>,
    /// File with answers, NAME = "VALUE" in TOML
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
    /// Write the answers that are not secret to a file
    #[arg(long, value_name = "FILE")]
    save_answers: Option<PathBuf>,
}

/// An answer may be secret.
impl fmt::Debug for AnswerArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerArgs").field("answers", &self.answers).finish_non_exhaustive()
    }
}

impl AnswerArgs {
    /// Returns the answers of `--answer`.
    pub(super) fn given(&self) -> Result<Answers> {
        let mut answers = BTreeMap::new();
        for answer in &self.answer {
            let (name, value) = answer.split_once('=').ok_or_else(|| {
                Error::usage("--answer takes NAME=VALUE").with_hint("for example: --answer hostname=box")
            })?;
            answers.insert(name.to_owned(), Zeroizing::new(value.to_owned()));
        }
        Ok(Answers(answers))
    }

    /// Returns the answers of the file of `--answers`.
    pub(super) fn saved(&self) -> Result<Answers> {
        let Some(path) = &self.answers else { return Ok(Answers::default()) };
        let text = fs_err::read_to_string(path).context(Kind::Usage, || "reading the file of answers")?;
        let text = Zeroizing::new(text);
        // The error of TOML would show the line, which may be a secret.
        let answers: BTreeMap<String, String> = toml::from_str(&text).map_err(|_| {
            Error::usage(format!("the file of answers {} is not valid", path.display()))
                .with_hint("each line is NAME = \"VALUE\" in TOML")
        })?;
        Ok(Answers(answers.into_iter().map(|(name, value)| (name, Zeroizing::new(value))).collect()))
    }

    /// Writes answers to the file of `--save-answers`.
    pub(super) fn save(&self, answers: &BTreeMap<String, String>) -> Result<()> {
        let Some(path) = &self.save_answers else { return Ok(()) };
        OutputFile::find(path, "file of answers")?.write(&mut text(answers).as_bytes(), "file of answers")
    }
}

/// Returns answers as a file for `--answers`.
pub(super) fn file(answers: &Answers) -> Zeroizing<String> {
    let line = |(name, value): (&String, &Zeroizing<String>)| format!("{name} = {}\n", toml_string(value));
    Zeroizing::new(answers.0.iter().map(line).collect())
}

fn text(answers: &BTreeMap<String, String>) -> String {
    answers.iter().map(|(name, value)| format!("{name} = {}\n", toml_string(value))).collect()
}

/// Asks on the terminal. A question that several recipes have in common is asked once.
pub(super) struct Asker<'a> {
    ui: &'a Terminal,
    answered: Vec<(Question, Zeroizing<String>)>,
}

impl<'a> Asker<'a> {
    pub(super) fn new(ui: &'a Terminal) -> Self {
        Self { ui, answered: Vec::new() }
    }

    /// Returns the answers so far.
    pub(super) fn answers(&self) -> Answers {
        let pair = |(question, answer): &(Question, Zeroizing<String>)| (question.name.clone(), answer.clone());
        Answers(self.answered.iter().map(pair).collect())
    }
}

impl User for Asker<'_> {
    fn ask(&mut self, question: &Question, wrong: Option<&str>) -> Result<Option<Zeroizing<String>>> {
        if let Some(wrong) = wrong {
            self.ui.warn(wrong);
            self.answered.retain(|(answered, _)| answered != question);
        }
        if let Some((_, answer)) = self.answered.iter().find(|(answered, _)| answered == question) {
            return Ok(Some(answer.clone()));
        }
        let mut prompt = question.text.clone();
        if !question.choices.is_empty() {
            prompt.push_str(&format!(" ({})", question.choices.join(", ")));
        }
        if let Some(default) = question.default.as_ref().filter(|default| !question.secret && !default.is_empty()) {
            prompt.push_str(&format!(" [{default}]"));
        }
        let Some(answer) = self.ui.question(&prompt, question.secret)? else { return Ok(None) };
        if question.confirm && !answer.is_empty() {
            let Some(again) = self.ui.question(&format!("{} (again)", question.text), question.secret)? else {
                return Ok(None);
            };
            if again != answer {
                return self.ask(question, Some("the two answers differ"));
            }
        }
        self.answered.push((question.clone(), answer.clone()));
        Ok(Some(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_answers_are_read_again_and_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("answers");
        let args = AnswerArgs {
            answer: vec!["a=x=y".to_owned()],
            answers: Some(path.clone()),
            save_answers: Some(path.clone()),
        };
        args.save(&BTreeMap::from([("b".to_owned(), "two \"words\"\n".to_owned())])).unwrap();
        assert_eq!(args.given().unwrap().0["a"].as_str(), "x=y");
        assert_eq!(args.saved().unwrap().0["b"].as_str(), "two \"words\"\n");
        assert!(!format!("{args:?} {:?}", args.given().unwrap()).contains("x=y"));
        fs_err::write(&path, "b = hunter2").unwrap();
        let error = args.saved().unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        assert!(AnswerArgs { answer: vec!["a".to_owned()], ..AnswerArgs::default() }.given().is_err());
    }
}
