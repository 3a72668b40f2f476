//! `[settings]`: the program's own part of the file, which is kept as it is. What may stand in it is the program's to
//! say; its values are shown nowhere.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};
use toml::de::{DeFloat, DeInteger, DeTable, DeValue};

use super::problem::{Findings, Problem, Span, word};
use super::table::{Cell, in_order};

/// The program's own part of a configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Dates and times are strings in it.
    pub(crate) value: Map<String, Value>,
    /// Line of each key, by its dotted path: "apiBroker.port"; of the table itself by "".
    pub(crate) lines: BTreeMap<String, usize>,
}

/// Reads the table; with it, where each key stands by its dotted path.
pub(super) fn read(
    cell: &Cell<'_>,
    findings: &mut Findings,
) -> Option<(Map<String, Value>, BTreeMap<String, Span>)> {
    let DeValue::Table(found) = cell.value.get_ref() else {
        findings.push(cell.expected("a table").help("[settings] and below it what the program asks for"));
        return None;
    };
    let mut spans = BTreeMap::from([(String::new(), cell.key_span.clone())]);
    let value = table(found, "", &mut spans, findings);
    Some((value, spans))
}

fn table(
    found: &DeTable<'_>,
    path: &str,
    spans: &mut BTreeMap<String, Span>,
    findings: &mut Findings,
) -> Map<String, Value> {
    let mut kept = Map::new();
    for (name, span, below) in in_order(found) {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        if let Some(below) = value(below.get_ref(), &path, &span, spans, findings) {
            kept.insert(name.to_owned(), below);
        }
        spans.insert(path, span);
    }
    kept
}

fn value(
    found: &DeValue<'_>,
    path: &str,
    span: &Span,
    spans: &mut BTreeMap<String, Span>,
    findings: &mut Findings,
) -> Option<Value> {
    let mut number = |number: Option<Number>, largest: &str| {
        if number.is_none() {
            let what = format!("`settings.{}`: {largest}", word(path));
            findings.push(Problem::at(span.clone(), what));
        }
        number.map(Value::Number)
    };
    Some(match found {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(found) => return number(integer(found), "expected an integer of 64 bits"),
        DeValue::Float(found) => return number(float(found), "expected a finite number"),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(at) => Value::String(at.to_string()),
        DeValue::Array(items) => {
            let items = items.iter().enumerate();
            let kept = items.filter_map(|(at, item)| {
                value(item.get_ref(), &format!("{path}[{at}]"), span, spans, findings)
            });
            Value::Array(kept.collect())
        }
        DeValue::Table(found) => Value::Object(table(found, path, spans, findings)),
    })
}

fn integer(found: &DeInteger<'_>) -> Option<Number> {
    let (digits, radix) = (found.as_str(), found.radix());
    let signed = i64::from_str_radix(digits, radix).ok().map(Number::from);
    signed.or_else(|| u64::from_str_radix(digits, radix).ok().map(Number::from))
}

fn float(found: &DeFloat<'_>) -> Option<Number> {
    found.as_str().parse().ok().and_then(Number::from_f64)
}
