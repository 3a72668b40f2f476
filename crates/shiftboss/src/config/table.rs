//! Walks the tables of a parsed file: each value with the words that say where it is, each key checked.
//!
//! What the values mean is `value`'s and `broker`'s.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Level};
use super::problem::{Findings, Problem, Span, word};

/// One table, its keys checked against its level.
pub(super) struct Table<'t> {
    pub(super) broker: Option<&'t str>,
    /// What its keys start with in messages: "recycle." or "".
    prefix: String,
    /// The word that opens it; pointed at when something is missing in it.
    pub(super) opened: Span,
    cells: BTreeMap<&'t str, Cell<'t>>,
}

/// One value and where it stands.
#[derive(Clone)]
pub(super) struct Cell<'t> {
    /// The broker it belongs to.
    pub(super) broker: Option<&'t str>,
    /// Dotted key within the broker: "recycle.every".
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: &'t Spanned<DeValue<'t>>,
}

/// What reading a key came to.
pub(super) enum Read<T> {
    /// It is not in the file.
    Absent,
    /// It is there, and a problem says what is wrong with it.
    Wrong,
    Is(T),
}

impl<'t> Table<'t> {
    /// The whole file.
    pub(super) fn root(root: &'t Spanned<DeTable<'t>>, findings: &mut Findings) -> Self {
        Table::check(root.get_ref(), None, "", 0..0, &keys::TOP, findings)
    }

    /// The table of one broker.
    pub(super) fn broker(
        name: &'t str,
        key_span: Span,
        value: &'t Spanned<DeValue<'t>>,
        findings: &mut Findings,
    ) -> Option<Self> {
        let cell = Cell { broker: Some(name), key: String::new(), key_span, value };
        Table::open(&cell, &keys::BROKER, findings)
    }

    /// A value that has to be a table.
    pub(super) fn open(cell: &Cell<'t>, level: &Level, findings: &mut Findings) -> Option<Self> {
        let DeValue::Table(table) = cell.value.get_ref() else {
            findings.push(cell.expected("a table"));
            return None;
        };
        Some(Table::check(table, cell.broker, &cell.key, cell.key_span.clone(), level, findings))
    }

    fn check(
        table: &'t DeTable<'t>,
        broker: Option<&'t str>,
        key: &str,
        opened: Span,
        level: &Level,
        findings: &mut Findings,
    ) -> Self {
        let prefix = if key.is_empty() { String::new() } else { format!("{key}.") };
        let mut cells = BTreeMap::new();
        for (name, value) in table {
            let (name, key_span): (&str, _) = (name.get_ref(), name.span());
            if level.known.contains(&name) {
                let full = format!("{prefix}{name}");
                findings.set.insert((broker.unwrap_or_default().to_owned(), full.clone()), key_span.clone());
                cells.insert(name, Cell { broker, key: full, key_span, value });
            } else if level.later.contains(&name) {
                findings.push(later(key_span, broker, &format!("`{prefix}{name}`")));
            } else {
                findings.push(unknown(name, key_span, broker, key, level));
            }
        }
        Table { broker, prefix, opened, cells }
    }

    pub(super) fn cell(&self, key: &str) -> Option<&Cell<'t>> {
        self.cells.get(key)
    }

    /// Reads a key that may be absent.
    pub(super) fn read<T>(
        &self,
        key: &str,
        findings: &mut Findings,
        read: impl FnOnce(&Cell<'t>, &mut Findings) -> Option<T>,
    ) -> Read<T> {
        match self.cells.get(key) {
            None => Read::Absent,
            Some(cell) => read(cell, findings).map_or(Read::Wrong, Read::Is),
        }
    }

    /// Reads a key that has to be there.
    pub(super) fn require<T>(
        &self,
        key: &str,
        example: &str,
        findings: &mut Findings,
        read: impl FnOnce(&Cell<'t>, &mut Findings) -> Option<T>,
    ) -> Option<T> {
        if !self.cells.contains_key(key) {
            let message = format!("{}`{}{key}` is missing", of(self.broker), self.prefix);
            findings
                .push(Problem::at(self.opened.clone(), message).label(format!("write {key} = {example}")));
        }
        self.read(key, findings, read).value()
    }

    /// A problem of the table as a whole, pointing at this key or, without it, at the table's start.
    pub(super) fn problem(&self, key: &str, what: &str) -> Problem {
        let span = self.cells.get(key).map_or(self.opened.clone(), |cell| cell.value.span());
        Problem::at(span, format!("{}{what}", of(self.broker)))
    }
}

impl<'t> Cell<'t> {
    /// "broker `api`: `workers`: what is wrong", pointing at the value.
    pub(super) fn problem(&self, what: impl std::fmt::Display) -> Problem {
        let key = if self.key.is_empty() { String::new() } else { format!("`{}`: ", self.key) };
        Problem::at(self.value.span(), format!("{}{key}{what}", of(self.broker)))
    }

    pub(super) fn expected(&self, what: &str) -> Problem {
        self.problem(format_args!("expected {what}, found {}", kind_of(self.value.get_ref())))
    }

    /// A problem of one entry of this free-form table, pointing at a part of it.
    pub(super) fn named(&self, span: Span, name: &str, what: &str) -> Problem {
        Problem::at(span, format!("{}`{}.{name}`: {what}", of(self.broker), self.key))
    }

    /// A value that a later version understands.
    pub(super) fn later(&self, shown: &str) -> Problem {
        later(self.value.span(), self.broker, &format!("`{} = {shown}`", self.key))
    }

    pub(super) fn text(&self, findings: &mut Findings) -> Option<&'t str> {
        let DeValue::String(text) = self.value.get_ref() else {
            findings.push(self.expected("a string"));
            return None;
        };
        Some(text)
    }

    /// The values of an array, each a cell of the same key; none if this is none.
    pub(super) fn items(&self) -> Option<impl Iterator<Item = Cell<'t>> + use<'t, '_>> {
        let DeValue::Array(array) = self.value.get_ref() else { return None };
        Some(array.iter().map(|value| Cell { value, ..self.clone() }))
    }
}

impl<T> Read<T> {
    pub(super) fn value(self) -> Option<T> {
        match self {
            Read::Absent | Read::Wrong => None,
            Read::Is(value) => Some(value),
        }
    }

    /// The value, or the default where it is not said; none where what is said is wrong.
    pub(super) fn known(self, default: T) -> Option<T> {
        match self {
            Read::Absent => Some(default),
            Read::Wrong => None,
            Read::Is(value) => Some(value),
        }
    }

    pub(super) fn or(self, default: T) -> T {
        self.value().unwrap_or(default)
    }
}

/// The entries of a table in order of declaration.
pub(super) fn in_order<'t>(table: &'t DeTable<'t>) -> Vec<(&'t str, Span, &'t Spanned<DeValue<'t>>)> {
    let mut entries: Vec<_> =
        table.iter().map(|(key, value)| (key.get_ref().as_ref(), key.span(), value)).collect();
    entries.sort_by_key(|(_, span, _)| span.start);
    entries
}

/// "an integer", of a value that is not what was expected.
pub(super) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn later(span: Span, broker: Option<&str>, what: &str) -> Problem {
    let message = format!("{}{} is known, but not in this version of shiftboss", of(broker), word(what));
    Problem::at(span, message)
}

fn unknown(name: &str, span: Span, broker: Option<&str>, table: &str, level: &Level) -> Problem {
    let place = match (broker, table) {
        (None, _) => "at the top level".to_owned(),
        (Some(broker), "") => format!("in broker `{}`", word(broker)),
        (Some(broker), table) => format!("in `{table}` of broker `{}`", word(broker)),
    };
    let problem = Problem::at(span, format!("unknown key `{}` {place}", word(name)));
    if let Some(meant) = keys::nearest(name, level.known.iter().copied()) {
        return problem.label(format!("did you mean `{meant}`?"));
    }
    if broker.is_none() && keys::BROKER.known.contains(&name) {
        return problem.label("belongs in a broker's table, below [broker.NAME]");
    }
    problem.label(format!("expected one of: {}", level.known.join(", ")))
}

/// "broker `api`: ", or nothing at the top.
fn of(broker: Option<&str>) -> String {
    broker.map_or(String::new(), |broker| format!("broker `{}`: ", word(broker)))
}
