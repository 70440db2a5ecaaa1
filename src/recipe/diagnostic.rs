//! Mistakes in a recipe, shown as the line they stand in with a caret under the bytes.
//!
//! Everything a recipe holds is untrusted: its text is shown only through [`quoted`](crate::base::text::quoted), [`escaped`] or the renderer's own
//! normalization, so that no terminal escape leaves this module raw.

use crate::base::text::{escaped, is_unsafe};
use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Padding, Renderer, Snippet};

use crate::base::error::Error;

/// How many mistakes are shown; a file of junk has more than anybody reads.
const SHOWN: usize = 20;
/// Longest line that is rendered whole; of a longer one only the surroundings of the caret are.
const LINE: usize = 4096;

/// Where a text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextKind {
    /// A recipe or defaults file, or standard input.
    File,
    /// One environment variable, as `NAME=value`.
    Variable,
    /// One `--set section.key=value`.
    Option,
}

/// One text that values came from.
#[derive(Debug, Clone)]
pub(super) struct Text {
    /// The file's name; a variable and an option show what they are themselves.
    pub(super) label: String,
    /// The text itself.
    pub(super) text: String,
    /// What relative paths in it are relative to.
    pub(super) dir: PathBuf,
    /// What it is.
    pub(super) kind: TextKind,
    /// Later wins; equal for all variables and for all options.
    pub(super) rank: usize,
}

/// Some bytes of a [`Text`], by its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Index into [`Texts`].
    pub(super) text: usize,
    /// Bytes of it.
    pub(super) span: Range<usize>,
}

/// Every text that was read, and every mistake found in them.
#[derive(Debug, Default)]
pub(super) struct Texts {
    texts: Vec<Text>,
    findings: Vec<Finding>,
    warnings: Vec<String>,
    /// The last recipe file, which names the image.
    main: Option<usize>,
}

/// What is wrong with a value: the caption under its bytes and, where known, what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Beside the caret.
    pub(super) label: String,
    /// Below the snippet.
    pub(super) help: Option<String>,
}

impl Problem {
    /// A problem with a caption alone.
    pub(super) fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), help: None }
    }

    /// Adds what to write instead.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// One mistake.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    title: String,
    /// The bytes at fault; none when something is missing everywhere.
    at: Option<Place>,
    label: String,
    /// A second place that matters.
    also: Option<(Place, String)>,
    help: Vec<String>,
}

impl Finding {
    /// A mistake at some bytes.
    pub(super) fn at(place: &Place, title: impl Into<String>, label: impl Into<String>) -> Self {
        Self { title: title.into(), at: Some(place.clone()), label: label.into(), also: None, help: Vec::new() }
    }

    /// A mistake that no bytes show: something is missing.
    pub(super) fn missing(title: impl Into<String>) -> Self {
        Self { title: title.into(), at: None, label: String::new(), also: None, help: Vec::new() }
    }

    /// Points at a second place too.
    pub(super) fn also(mut self, place: &Place, label: impl Into<String>) -> Self {
        self.also = Some((place.clone(), label.into()));
        self
    }

    /// Adds a line of advice.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Adds a line of advice where there is one.
    pub(super) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help.extend(help);
        self
    }
}

impl Texts {
    /// Adds a text and gives its index.
    pub(super) fn add(&mut self, text: Text) -> usize {
        self.texts.push(text);
        self.texts.len() - 1
    }

    /// The text of that index.
    pub(super) fn get(&self, index: usize) -> &Text {
        &self.texts[index]
    }

    /// Gives the text of that index its rank.
    pub(super) fn set_rank(&mut self, index: usize, rank: usize) {
        self.texts[index].rank = rank;
    }

    /// The rank of the text a place is in.
    pub(super) fn rank(&self, place: &Place) -> usize {
        self.get(place.text).rank
    }

    /// How many texts there are.
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Says which text is the last recipe file.
    pub(super) fn set_main(&mut self, text: Option<usize>) {
        self.main = text.or(self.main);
    }

    /// The last recipe file: the one that names the image.
    pub(super) fn main(&self) -> Option<&Text> {
        self.main.map(|main| self.get(main))
    }

    /// Notes a mistake.
    pub(super) fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Notes a mistake of a value: `title`, and at its bytes what `problem` says.
    pub(super) fn problem(&mut self, place: &Place, title: impl Into<String>, problem: Problem) {
        self.find(Finding::at(place, title, problem.label).maybe_help(problem.help));
    }

    /// Notes something that works still, but should be changed.
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

    /// The warnings, leaving none.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Whether any mistake was found.
    pub(super) fn is_wrong(&self) -> bool {
        !self.findings.is_empty()
    }

    /// Forgets what is missing: it may be there, under the name that was found to be unknown.
    pub(super) fn forgive_missing(&mut self) {
        if self.findings.iter().any(|finding| finding.at.is_some()) {
            self.findings.retain(|finding| finding.at.is_some());
        }
    }

    /// All mistakes as one error.
    pub(super) fn error(&self, colour: bool) -> Error {
        let count = self.findings.len();
        let what = match self.main() {
            Some(file) => format!("recipe {}", escaped(&file.label)),
            None => "recipe".to_owned(),
        };
        let mistakes = if count == 1 { "1 mistake".to_owned() } else { format!("{count} mistakes") };
        Error::usage(format!("reading the {what}: {mistakes}")).with_details(self.render(colour))
    }

    /// All mistakes as text, in the order in which they stand in the texts.
    fn render(&self, colour: bool) -> String {
        let mut findings: Vec<&Finding> = self.findings.iter().collect();
        findings.sort_by_key(|finding| match &finding.at {
            Some(place) => (self.rank(place), place.text, place.span.start),
            None => (usize::MAX, usize::MAX, 0),
        });
        let mut rendered: Vec<String> =
            findings.iter().take(SHOWN).map(|finding| self.render_one(finding, colour)).collect();
        if findings.len() > SHOWN {
            rendered.push(format!("… and {} more", findings.len() - SHOWN));
        }
        rendered.join("\n\n")
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
        // Labels may be wider than a line; what must not be there is white space at the ends of lines.
        rendered.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }

    fn same_line(&self, one: &Place, other: &Place) -> bool {
        one.text == other.text && {
            let part = self.part(one);
            (part.start..=part.start + part.line.len()).contains(&other.span.start)
        }
    }

    /// The line that a place begins in, or what of it fits.
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

/// One line of a text, ready to be shown.
struct Part<'a> {
    text: &'a Text,
    /// Offset of the line in the text.
    start: usize,
    line: String,
    number: usize,
}

impl<'a> Part<'a> {
    /// A place as bytes of this line.
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

/// The nearest character boundary at or before `index`.
fn floor(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// A line of source with the same length in bytes and without unsafe characters. The C0 controls stay: the renderer replaces
/// them by their pictures.
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
