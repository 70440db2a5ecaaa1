//! `[ask.NAME]`: values that are asked for. An answer is a variable of the recipe, or a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use regex::{Regex, RegexBuilder};
use zeroize::Zeroizing;

use super::diagnostic::{Finding, Place, Problem, Texts};
use super::parse::{Is, Table};
use super::variables::Variables;
use super::{Request, SecretValue, Secrets, keys, words};
use crate::base::error::Result;
use crate::base::text::{nearest, quoted};

/// The limit on attempts to answer one question.
const ATTEMPTS: usize = 5;
/// The size limit of a compiled pattern, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// A question for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name of the answer.
    pub name: String,
    /// The text of the question.
    pub text: String,
    /// The answer to an empty line.
    pub default: Option<String>,
    /// The possible answers; empty: any.
    pub choices: Vec<String>,
    /// True if the answer must not be shown.
    pub secret: bool,
    /// True to ask twice.
    pub confirm: bool,
}

/// The user, who answers questions.
pub trait User {
    /// Asks a question. `None` if nobody can answer. `wrong` says why the previous answer was refused.
    ///
    /// # Errors
    /// Those of the terminal.
    fn ask(&mut self, question: &Question, wrong: Option<&str>) -> Result<Option<Zeroizing<String>>>;
}

/// No user.
#[derive(Debug)]
pub(super) struct Nobody;

impl User for Nobody {
    fn ask(&mut self, _: &Question, _: Option<&str>) -> Result<Option<Zeroizing<String>>> {
        Ok(None)
    }
}

/// Answers that are given in advance, by name. They are not shown.
#[derive(Clone, Default)]
pub struct Answers(pub BTreeMap<String, Zeroizing<String>>);

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// An entry of `[ask]`.
struct Ask {
    at: Place,
    question: Question,
    default_at: Option<Place>,
    pattern: Option<Regex>,
    when: Option<(String, Place)>,
}

impl Ask {
    /// Returns the reason why an answer is not valid.
    fn refuses(&self, answer: &str) -> Option<String> {
        if answer.contains('\0') {
            return Some("an answer must not contain a NUL byte".to_owned());
        }
        if !self.question.choices.is_empty() && !self.question.choices.iter().any(|choice| choice == answer) {
            return Some(format!("the choices are {}", self.question.choices.join(", ")));
        }
        let pattern = self.pattern.as_ref().filter(|pattern| !pattern.is_match(answer));
        pattern.map(|_| "the answer does not match the pattern of the recipe".to_owned())
    }
}

/// The answers of a recipe while they are collected.
struct Asker<'a> {
    texts: &'a mut Texts,
    asks: BTreeMap<String, Ask>,
    given: BTreeMap<String, Zeroizing<String>>,
    /// `None`: being answered, or without an answer.
    answers: BTreeMap<String, Option<Zeroizing<String>>>,
    /// The treatment of questions whose answers are secrets.
    secrets: Secrets,
    user: &'a mut dyn User,
}

/// Adds the answers to the questions of a recipe to its variables and secrets. Notes mistakes and missing answers in `texts`. `others`
/// are the questions of the recipes that the image starts from.
///
/// # Errors
/// Those of the user.
pub(super) fn ask(
    texts: &mut Texts,
    tree: &Table,
    (request, others): (&Request, &BTreeSet<String>),
    variables: &mut Variables,
    user: &mut dyn User,
) -> Result<()> {
    let (order, asks) = declared(texts, tree, variables);
    let given = given(texts, &asks, request, others);
    if texts.is_wrong() {
        // Nobody is asked for a recipe that must be corrected first, and nothing is missing from it yet.
        asks.into_iter().for_each(|(name, ask)| variables.assume(name, ask.question));
        return Ok(());
    }
    let mut asker = Asker { texts, asks, given, answers: BTreeMap::new(), secrets: request.secrets, user };
    for name in &order {
        asker.answer(name)?;
    }
    let Asker { asks, mut answers, .. } = asker;
    for (name, ask) in asks {
        let Some(answer) = answers.remove(&name).flatten() else {
            variables.assume(name, ask.question);
            continue;
        };
        if ask.question.secret {
            variables.secrets.insert(name, SecretValue::new(answer.as_bytes().to_vec()));
        } else {
            variables.answer(name, &answer);
        }
    }
    Ok(())
}

impl Variables {
    /// Adds a variable for a question without an answer, so that its uses are not mistakes as well.
    fn assume(&mut self, name: String, question: Question) {
        if question.secret {
            self.secrets.insert(name, SecretValue::absent());
        } else {
            self.answer(name, &question.default.unwrap_or_else(|| "answer".to_owned()));
        }
    }
}

impl Asker<'_> {
    /// Finds the answer to a question, after those that it depends on.
    fn answer(&mut self, name: &str) -> Result<()> {
        if self.answers.contains_key(name) {
            return Ok(());
        }
        self.answers.insert(name.to_owned(), None);
        let Some(ask) = self.asks.get(name) else { return Ok(()) };
        let is_secret = ask.question.secret;
        if is_secret && self.secrets == Secrets::Leave {
            return Ok(());
        }
        let default = ask.question.default.clone();
        if let Some((other, _)) = ask.when.clone() {
            self.answer(&other)?;
            if self.answers.get(&other).is_some_and(|answer| answer.as_ref().is_some_and(|answer| answer.is_empty())) {
                let answer = Zeroizing::new(default.unwrap_or_default());
                self.answers.insert(name.to_owned(), Some(answer));
                return Ok(());
            }
        }
        let answer = match self.given.remove(name) {
            Some(answer) => Some(answer),
            None if is_secret && matches!(self.secrets, Secrets::Known { .. }) => return Ok(()),
            None => self.ask_user(name)?,
        };
        let Some(ask) = self.asks.get(name) else { return Ok(()) };
        match (&answer, ask.refuses(answer.as_deref().map_or("", String::as_str))) {
            (Some(_), None) => {}
            (Some(_), Some(why)) => {
                let title = format!("the answer to {} is not valid", quoted(name));
                self.texts.lack(Finding::at(&ask.at, title, why));
            }
            (None, _) => {
                let title = format!("no answer to {}", quoted(name));
                let finding = Finding::at(&ask.at, title, "nobody can be asked");
                self.texts.lack(finding.help(format!("{}: --answer {name}=…", ask.question.text)));
            }
        }
        self.answers.insert(name.to_owned(), answer);
        Ok(())
    }

    /// Asks the user until the answer is valid. Without a user, the default is the answer.
    fn ask_user(&mut self, name: &str) -> Result<Option<Zeroizing<String>>> {
        let Some(ask) = self.asks.get(name) else { return Ok(None) };
        let mut wrong = None;
        for _ in 0..ATTEMPTS {
            let Some(answer) = self.user.ask(&ask.question, wrong.as_deref())? else { break };
            let answer = match &ask.question.default {
                Some(default) if answer.is_empty() => Zeroizing::new(default.clone()),
                None if answer.is_empty() => {
                    wrong = Some("an answer is needed".to_owned());
                    continue;
                }
                _ => answer,
            };
            match ask.refuses(&answer) {
                None => return Ok(Some(answer)),
                why => wrong = why,
            }
        }
        Ok(ask.question.default.clone().map(Zeroizing::new))
    }
}

/// Returns the questions of a recipe and their names in the order of the file.
fn declared(texts: &mut Texts, tree: &Table, variables: &Variables) -> (Vec<String>, BTreeMap<String, Ask>) {
    let Some(Is::Table(tables)) = tree.get("ask").map(|item| &item.value.is) else { return Default::default() };
    let mut asks: BTreeMap<String, Ask> = BTreeMap::new();
    for (name, item) in tables {
        let Is::Table(table) = &item.value.is else { continue };
        asks.extend(declare(texts, name, &item.key_at, table, variables).map(|ask| (name.clone(), ask)));
    }
    for (name, ask) in &asks {
        let secret = Is::Table(Table::new());
        let named = |key: &str| match &tree.get(key).map_or(&secret, |item| &item.value.is) {
            Is::Table(table) => table.get(name).map(|item| item.key_at.clone()),
            _ => None,
        };
        if let Some(other) = named("vars").or_else(|| named("secret")) {
            let finding = Finding::at(&ask.at, format!("{} has a value already", quoted(name)), "asked for here");
            texts.find(finding.also(&other, "declared here"));
        }
        if let Some((other, at)) = &ask.when
            && (asks.contains_key(other) || !tables.contains_key(other))
            && (!asks.contains_key(other) || circle(name, &asks))
        {
            let meant = nearest(other, asks.keys().filter(|known| *known != name).map(String::as_str));
            let meant = meant.filter(|meant| meant != other).map(|meant| format!("did you mean {}?", quoted(meant)));
            let title = format!("the question {} cannot wait for {}", quoted(name), quoted(other));
            let why = if asks.contains_key(other) { "they wait for each other" } else { "not a question" };
            texts.find(Finding::at(at, title, why).maybe_help(meant));
        }
    }
    let mut order: Vec<(&Place, &String)> = asks.iter().map(|(name, ask)| (&ask.at, name)).collect();
    order.sort_by_key(|(at, _)| (texts.rank(at), at.text, at.span.start));
    (order.into_iter().map(|(_, name)| name.clone()).collect(), asks)
}

/// Returns true if a question waits for itself.
fn circle(name: &str, asks: &BTreeMap<String, Ask>) -> bool {
    let mut next = asks.get(name).and_then(|ask| ask.when.as_ref());
    for _ in 0..asks.len() {
        match next {
            Some((other, _)) if other == name => return true,
            Some((other, _)) => next = asks.get(other).and_then(|ask| ask.when.as_ref()),
            None => return false,
        }
    }
    // A circle of others is noted for each of them.
    false
}

fn declare(texts: &mut Texts, name: &str, at: &Place, table: &Table, variables: &Variables) -> Option<Ask> {
    let text = |key: &str| {
        let value = &table.get(key)?.value;
        Some((value.as_str()?.to_owned(), value.at.clone()))
    };
    let flag = |key: &str| table.get(key).is_some_and(|item| matches!(item.value.is, Is::Bool(true)));
    let secret = flag("secret");
    let checked = if secret { words::item_name(name) } else { words::environment_variable(name) };
    if let Err(problem) = checked {
        texts.problem(at, format!("not a valid name of an answer: {}", quoted(name)), problem);
        return None;
    }
    let Some((question, _)) = text("question") else {
        let problem = Problem::new("no `question`").help("for example question = \"Name of the machine\"");
        texts.problem(at, "a question needs `question`", problem);
        return None;
    };
    let choices: Vec<String> = match table.get("choices").map(|item| &item.value.is) {
        Some(Is::List(list)) => list.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    let pattern = match text("pattern") {
        Some((pattern, at)) => {
            let compiled = RegexBuilder::new(&format!(r"\A(?:{pattern})\z")).size_limit(MAX_PATTERN).build();
            if compiled.is_err() {
                let problem = Problem::new("not a regular expression").help("for example \"[a-z0-9-]{1,63}\"");
                texts.problem(&at, format!("not a valid pattern: {}", quoted(&pattern)), problem);
            }
            Some(compiled.ok()?)
        }
        None => None,
    };
    let default = match text("default") {
        Some((default, at)) => Some((variables.fill(texts, &default, &at, "ask")?, at)),
        None => None,
    };
    let (default, default_at) = default.map_or((None, None), |(default, at)| (Some(default), Some(at)));
    let question =
        Question { name: name.to_owned(), text: question, default, choices, secret, confirm: flag("confirm") };
    let ask = Ask { at: at.clone(), question, default_at, pattern, when: text("when") };
    if let (Some(default), Some(at)) = (&ask.question.default, &ask.default_at)
        && let Some(why) = ask.refuses(default)
        // An empty default means that there may be no answer.
        && !default.is_empty()
    {
        texts.find(Finding::at(at, format!("the default of {} is not a valid answer", quoted(name)), why));
    }
    Some(ask)
}

/// Returns the answers given in advance, and notes those to no question.
fn given(
    texts: &mut Texts,
    asks: &BTreeMap<String, Ask>,
    request: &Request,
    others: &BTreeSet<String>,
) -> BTreeMap<String, Zeroizing<String>> {
    let mut given = request.answers.0.clone();
    let names = || asks.keys().map(String::as_str);
    let unknown = |texts: &mut Texts, name: &str, shown: &str| {
        let of_others = |other: &String| other == name || keys::variable("answer", other) == shown;
        if request.shared || others.iter().any(of_others) {
            return;
        }
        let finding = Finding::missing(format!("the recipe does not ask for {}", quoted(name)));
        let meant = nearest(name, names()).map(|meant| format!("did you mean {}?", quoted(meant)));
        texts.find(finding.maybe_help(meant).help(format!("the answer is given by {shown}")));
    };
    for name in given.keys().filter(|name| !asks.contains_key(*name)) {
        unknown(texts, name, "an option");
    }
    for (name, value) in &request.env {
        let Some(shown) = name.to_str().filter(|name| name.starts_with("QUERN_ANSWER_")) else { continue };
        match asks.keys().find(|name| keys::variable("answer", name) == shown) {
            Some(name) => {
                let Some(value) = value.to_str() else {
                    texts.find(Finding::missing(format!("the value of {shown} is not UTF-8")));
                    continue;
                };
                given.entry(name.clone()).or_insert_with(|| Zeroizing::new(value.to_owned()));
            }
            None => unknown(texts, shown.trim_start_matches("QUERN_ANSWER_"), shown),
        }
    }
    for (name, answer) in &request.saved_answers.0 {
        match asks.contains_key(name) {
            true => _ = given.entry(name.clone()).or_insert_with(|| answer.clone()),
            false => unknown(texts, name, "the file of answers"),
        }
    }
    given
}
