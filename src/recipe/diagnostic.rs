//! Shows the mistakes of a recipe: each line with a caret under the wrong bytes.
//!
//! Everything in a recipe is untrusted. Whatever is shown passes through [`escaped`], [`quoted`](crate::base::text::quoted) or
//! the renderer's own normalization, so that no terminal escape leaves this module.

use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Padding, Renderer, Snippet};

use crate::base::error::Error;
use crate::base::text::{counted, escaped, is_unsafe};

/// The number of mistakes that are shown.
const SHOWN: usize = 20;
/// The longest line that is rendered in full, in bytes. Of a longer line, only the bytes around the caret are rendered.
const LINE: usize = 4096;

/// The kind of a [`Text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextKind {
    /// A recipe or defaults file, or standard input.
    File,
    /// One environment variable, as `NAME=value`.
    Variable,
    /// One `--set section.key=value`.
    Option,
}

/// A text with values of the recipe.
#[derive(Debug, Clone)]
pub(super) struct Text {
    /// The name of the file; empty for a variable and an option.
    pub(super) label: String,
    pub(super) text: String,
    /// The base of relative paths in the text.
    pub(super) dir: PathBuf,
    pub(super) kind: TextKind,
    /// The greater rank wins. All variables have the same rank, and so have all options.
    pub(super) rank: usize,
}

/// A range of bytes in a [`Text`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Index into [`Texts`].
    pub(super) text: usize,
    /// The bytes.
    pub(super) span: Range<usize>,
}

/// All texts of a recipe, and the mistakes in them.
#[derive(Debug, Default)]
pub(super) struct Texts {
    texts: Vec<Text>,
    findings: Vec<Finding>,
    /// Answers that are missing or not valid.
    unanswered: Vec<Finding>,
    warnings: Vec<String>,
    /// The last recipe file. Its name is the default name of the image.
    main: Option<usize>,
}

/// A mistake in a value: the caption under its bytes and, if known, what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The caption beside the caret.
    pub(super) label: String,
    /// The line below the snippet.
    pub(super) help: Option<String>,
}

impl Problem {
    /// Makes a problem with a caption alone.
    pub(super) fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), help: None }
    }

    /// Adds what to write instead.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A mistake.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    title: String,
    /// The wrong bytes; `None` if something is missing.
    at: Option<Place>,
    label: String,
    /// A second place, with its caption.
    also: Option<(Place, String)>,
    help: Vec<String>,
}

impl Finding {
    /// Makes a mistake at a place.
    pub(super) fn at(place: &Place, title: impl Into<String>, label: impl Into<String>) -> Self {
        Self { title: title.into(), at: Some(place.clone()), label: label.into(), also: None, help: Vec::new() }
    }

    /// Makes a mistake without a place: something is missing.
    pub(super) fn missing(title: impl Into<String>) -> Self {
        Self { title: title.into(), at: None, label: String::new(), also: None, help: Vec::new() }
    }

    /// Adds a second place.
    pub(super) fn also(mut self, place: &Place, label: impl Into<String>) -> Self {
        self.also = Some((place.clone(), label.into()));
        self
    }

    /// Adds a line of advice.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Adds a line of advice, if there is one.
    pub(super) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help.extend(help);
        self
    }
}

impl Texts {
    /// Adds a text and returns its index.
    pub(super) fn add(&mut self, text: Text) -> usize {
        self.texts.push(text);
        self.texts.len() - 1
    }

    /// Returns the text with this index.
    pub(super) fn get(&self, index: usize) -> &Text {
        &self.texts[index]
    }

    /// Sets the rank of the text with this index.
    pub(super) fn set_rank(&mut self, index: usize, rank: usize) {
        self.texts[index].rank = rank;
    }

    /// Returns the rank of the text that contains a place.
    pub(super) fn rank(&self, place: &Place) -> usize {
        self.get(place.text).rank
    }

    /// Returns the number of texts.
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Marks a text as the last recipe file.
    pub(super) fn set_main(&mut self, text: Option<usize>) {
        self.main = text.or(self.main);
    }

    /// Returns the last recipe file.
    pub(super) fn main(&self) -> Option<&Text> {
        self.main.map(|main| self.get(main))
    }

    /// Notes a mistake.
    pub(super) fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Notes an answer that is missing or not valid. The recipe itself may be right.
    pub(super) fn lack(&mut self, finding: Finding) {
        self.unanswered.push(finding);
    }

    /// Notes a mistake in a value.
    pub(super) fn problem(&mut self, place: &Place, title: impl Into<String>, problem: Problem) {
        self.find(Finding::at(place, title, problem.label).maybe_help(problem.help));
    }

    /// Notes a warning about a place.
    pub(super) fn warn(&mut self, place: &Place, message: &str) {
        let text = self.get(place.text);
        let warning = match text.kind {
            TextKind::File => {
                let start = place.span.start.min(text.text.len());
                let line = text.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
                format!("{}:{line}: {message}", escaped(&text.label))
            }
            TextKind::Variable | TextKind::Option => {
                let bytes = text.text.get(place.span.clone()).unwrap_or_default();
                format!("{}: {message}", escaped(bytes))
            }
        };
        self.warnings.push(warning);
    }

    /// Takes all warnings.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Returns the number of mistakes and warnings.
    pub(super) fn notes(&self) -> usize {
        self.findings.len() + self.warnings.len()
    }

    /// Returns true if there is a mistake, apart from answers.
    pub(super) fn is_wrong(&self) -> bool {
        !self.findings.is_empty()
    }

    /// Forgets missing keys if there are other mistakes: a key may be there under a misspelt name.
    pub(super) fn forgive_missing(&mut self) {
        if self.findings.iter().any(|finding| finding.at.is_some()) {
            self.findings.retain(|finding| finding.at.is_some());
        }
    }

    /// Returns all mistakes as one error, after the answers `of_others` that other recipes lack.
    pub(super) fn error(&self, mut of_others: Shown, colour: bool) -> Error {
        of_others.extend(self.render(self.findings.iter().chain(&self.unanswered), colour));
        of_others.error(&match self.main() {
            Some(file) => format!("recipe {}", escaped(&file.label)),
            None => "recipe".to_owned(),
        })
    }

    /// Returns the answers that are missing or not valid.
    pub(super) fn unanswered(&self, colour: bool) -> Shown {
        self.render(self.unanswered.iter(), colour)
    }

    /// Renders mistakes in the order of their places.
    fn render<'a>(&'a self, findings: impl Iterator<Item = &'a Finding>, colour: bool) -> Shown {
        let mut findings: Vec<&Finding> = findings.collect();
        findings.sort_by_key(|finding| match &finding.at {
            Some(place) => (self.rank(place), place.text, place.span.start),
            None => (usize::MAX, usize::MAX, 0),
        });
        let texts = findings.iter().take(SHOWN).map(|finding| self.render_one(finding, colour)).collect();
        Shown { texts, more: findings.len().saturating_sub(SHOWN) }
    }

    fn render_one(&self, finding: &Finding, colour: bool) -> String {
        let mut elements: Vec<Element<'_>> = Vec::new();
        match (&finding.at, &finding.also) {
            (Some(place), Some((second, label))) if self.same_line(place, second) => {
                let part = self.part(place);
                let marks = [
                    AnnotationKind::Primary.span(part.span(place)).label(finding.label.as_str()),
                    AnnotationKind::Context.span(part.span(second)).label(label.as_str()),
                ];
                elements.push(part.snippet().annotations(marks).into());
            }
            (Some(place), also) => {
                let part = self.part(place);
                let mark = AnnotationKind::Primary.span(part.span(place)).label(finding.label.as_str());
                elements.push(part.snippet().annotation(mark).into());
                if let Some((second, label)) = also {
                    let part = self.part(second);
                    let mark = AnnotationKind::Context.span(part.span(second)).label(label.as_str());
                    elements.push(part.snippet().annotation(mark).into());
                }
            }
            (None, _) => elements.extend(self.main().map(|file| Origin::path(escaped(&file.label)).into())),
        }
        if !finding.help.is_empty() && !elements.is_empty() {
            elements.push(Padding.into());
        }
        elements.extend(finding.help.iter().map(|help| Level::HELP.message(escaped(help)).into()));
        let group = Group::with_title(Level::ERROR.primary_title(escaped(&finding.title))).elements(elements);
        // File names are untrusted: no hyperlinks.
        let renderer = if colour { Renderer::styled().hyperlink(false) } else { Renderer::plain() };
        let rendered = renderer.render(&[group]);
        // The renderer leaves white space at the ends of lines.
        rendered.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }

    fn same_line(&self, one: &Place, other: &Place) -> bool {
        one.text == other.text && {
            let part = self.part(one);
            (part.start..=part.start + part.line.len()).contains(&other.span.start)
        }
    }

    /// Returns the line in which a place begins, or the part of it around the place.
    fn part(&self, place: &Place) -> Part<'_> {
        let text = self.get(place.text);
        let source = text.text.as_str();
        let at = floor(source, place.span.start);
        let begin = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = source[at..].find('\n').map_or(source.len(), |newline| at + newline);
        let (mut start, mut stop) = (begin, end);
        if stop - start > LINE {
            start = floor(source, at.saturating_sub(LINE / 4).max(begin));
            stop = floor(source, (start + LINE).min(end));
        }
        let number = source.as_bytes()[..begin].iter().filter(|byte| **byte == b'\n').count() + 1;
        let line = source[start..stop].strip_suffix('\r').unwrap_or(&source[start..stop]);
        Part { text, start, line: same_length(line), number }
    }
}

/// Mistakes of one or more recipes as they are shown, each once.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    texts: Vec<String>,
    /// The number of others.
    more: usize,
}

impl Shown {
    /// Returns true if there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Adds those of `other`.
    pub(super) fn extend(&mut self, other: Self) {
        let new: Vec<String> = other.texts.into_iter().filter(|text| !self.texts.contains(text)).collect();
        self.texts.extend(new);
        self.more += other.more;
    }

    /// Returns them as one error. `what` names the recipe or the recipes.
    pub(super) fn error(self, what: &str) -> Error {
        let count = counted(self.texts.len() + self.more, "mistake");
        let mut texts = self.texts;
        let more = self.more + texts.len().saturating_sub(SHOWN);
        texts.truncate(SHOWN);
        texts.extend((more > 0).then(|| format!("… and {more} more")));
        Error::usage(format!("reading the {what}: {count}")).with_details(texts.join("\n\n"))
    }
}

/// A line of a text, ready to be rendered.
struct Part<'a> {
    text: &'a Text,
    /// The offset of the line in the text.
    start: usize,
    line: String,
    number: usize,
}

impl<'a> Part<'a> {
    /// Returns the bytes of this line that a place covers.
    fn span(&self, place: &Place) -> Range<usize> {
        let start = floor(&self.line, place.span.start.saturating_sub(self.start));
        let end = floor(&self.line, place.span.end.saturating_sub(self.start));
        start..end.max(start)
    }

    fn snippet<T: Clone>(&self) -> Snippet<'a, T> {
        let snippet = Snippet::source(self.line.clone());
        match self.text.kind {
            TextKind::File => snippet.path(escaped(&self.text.label)).line_start(self.number),
            TextKind::Variable | TextKind::Option => snippet.line_numbering(false),
        }
    }
}

/// Returns the nearest character boundary at or before `index`.
fn floor(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// Replaces the unsafe characters of a line and keeps its length in bytes. The C0 controls stay, because the renderer replaces
/// them with their symbols.
fn same_length(line: &str) -> String {
    line.chars()
        .map(|c| match c.len_utf8() {
            2 if is_unsafe(c) => '\u{bf}',
            3 if is_unsafe(c) => char::REPLACEMENT_CHARACTER,
            4 if is_unsafe(c) => '\u{1fbc4}',
            _ => c,
        })
        .collect()
}
