//! What is found while a file is read: problems, and which keys were set. Where a span is on the page is `source`'s.

use std::collections::BTreeMap;
use std::ops::Range;

use super::render::Severity;

/// Bytes of the file's text.
pub(super) type Span = Range<usize>;

/// Everything that reading finds beside the options.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    /// Where each key was set, by broker ("" at the top) and dotted key.
    pub(super) set: BTreeMap<(String, String), Span>,
    /// For whom the file is read.
    pub(super) reader: Reader,
}

/// For whom a file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reader {
    /// The `shiftboss` command: without a broker and its command there is nothing to run.
    #[default]
    Command,
    /// A program with brokers of its own: the file says what it wants to change.
    Program,
}

impl Findings {
    pub(super) fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }
}

/// One mistake, or something that deserves a warning.
pub(super) struct Problem {
    pub(super) severity: Severity,
    /// What the carets point at; none = the file as a whole.
    pub(super) span: Option<Span>,
    pub(super) message: String,
    /// Stands beside the carets.
    pub(super) label: Option<String>,
    /// What to do.
    pub(super) help: Option<String>,
}

impl Problem {
    pub(super) fn at(span: Span, message: impl Into<String>) -> Self {
        Problem { span: Some(span), ..Problem::of_file(message) }
    }

    pub(super) fn of_file(message: impl Into<String>) -> Self {
        Problem { severity: Severity::Error, span: None, message: message.into(), label: None, help: None }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }
}

/// A word of the file for use in a message: short, without control characters.
pub(super) fn word(text: &str) -> String {
    let mut shown: String = text.chars().take(LONGEST_WORD).map(super::render::printable).collect();
    if text.chars().nth(LONGEST_WORD).is_some() {
        shown.push('…');
    }
    shown
}

const LONGEST_WORD: usize = 40;
