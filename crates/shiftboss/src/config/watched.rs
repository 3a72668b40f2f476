//! `watch`: files that recycle a broker when they change.

use toml::de::DeValue;

use super::keys;
use super::problem::Findings;
use super::table::{Cell, Read, Table};
use super::value::{self, duration_from};
use crate::options::check::SHORTEST;
use crate::watch::Watch;

/// A list of patterns, or a table that has one.
pub(super) fn watch(cell: &Cell<'_>, findings: &mut Findings) -> Option<Watch> {
    if !matches!(cell.value.get_ref(), DeValue::Table(_)) {
        return paths(cell, findings);
    }
    let table = Table::open(cell, &keys::WATCH, findings)?;
    let watch = table.require("paths", "[\"src/**/*.js\"]", findings, paths);
    match table.read("debounce", findings, duration_from(SHORTEST)) {
        Read::Absent => watch,
        Read::Is(debounce) => watch.map(|watch| watch.debounce(debounce)),
        Read::Wrong => None,
    }
}

fn paths(cell: &Cell<'_>, findings: &mut Findings) -> Option<Watch> {
    let Some(items) = cell.items() else {
        findings.push(cell.expected("an array of patterns").help(EXAMPLE));
        return None;
    };
    let known = findings.problems.len();
    let mut patterns = Vec::new();
    for item in items {
        let Some(pattern) = value::plain_text(&item, findings) else { continue };
        match Watch::new([pattern]) {
            Ok(_) => patterns.push(pattern),
            Err(error) => findings.push(item.problem(error)),
        }
    }
    if findings.problems.len() > known {
        return None;
    }
    let watch = Watch::new(patterns);
    if let Err(error) = &watch {
        findings.push(cell.problem(error).help(EXAMPLE));
    }
    watch.ok()
}

const EXAMPLE: &str = "watch = [\"src/**/*.js\"]";
