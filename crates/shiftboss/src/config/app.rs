//! The top of the file: the app's name and its brokers.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::broker;
use super::keys::SETTINGS;
use super::listen::Taken;
use super::problem::{Findings, Problem, Reader, Span, word};
use super::settings;
use super::table::{Cell, Table, in_order};
use super::value::choice;
use crate::options::check::{NAME_RULE, is_name};
use crate::options::{AppOptions, UpgradeWhen};

/// What one environment of a file asks for.
pub(super) struct Asked {
    pub(super) options: AppOptions,
    pub(super) settings: Map<String, Value>,
    /// Where each of the settings stands, by its dotted path.
    pub(super) spans: BTreeMap<String, Span>,
}

/// Reads the whole file, without its environments. The default name is that of its directory.
pub(super) fn read<'t>(
    root: &'t Spanned<DeTable<'t>>,
    default_name: Option<&str>,
    findings: &mut Findings,
) -> Asked {
    let table = Table::root(root, findings);
    let misspelt = !findings.problems.is_empty();
    let app = match table.cell("app") {
        Some(cell) => cell.text(findings).map(|name| check_name(name, cell, findings).to_owned()),
        None => default_app(default_name, findings),
    };
    let upgrade = table.cell("upgrade").and_then(|cell| {
        choice(cell, &[("asked", UpgradeWhen::Asked), ("auto", UpgradeWhen::Auto)], findings)
    });
    let brokers = match table.cell("broker") {
        Some(cell) => brokers(cell, findings),
        // What was meant to be a broker is named already.
        None if misspelt || findings.reader == Reader::Program => Vec::new(),
        None => {
            findings.push(no_broker(Problem::of_file("there is no broker, so nothing would run")));
            Vec::new()
        }
    };
    let settings = table.cell(SETTINGS).and_then(|cell| settings::read(cell, findings));
    let (settings, spans) = settings.unwrap_or_default();
    let options = AppOptions { app: app.unwrap_or_default(), brokers, upgrade: upgrade.unwrap_or_default() };
    Asked { options, settings, spans }
}

fn check_name<'t>(name: &'t str, cell: &Cell<'_>, findings: &mut Findings) -> &'t str {
    if !is_name(name) {
        findings.push(cell.problem(format_args!("`{}` is no name of an app", word(name))).label(NAME_RULE));
    }
    name
}

fn default_app(directory: Option<&str>, findings: &mut Findings) -> Option<String> {
    let why = match directory {
        Some(name) if is_name(name) => return Some(name.to_owned()),
        Some(name) => {
            format!("`app` is missing, and the directory's name `{}` is no name of an app", word(name))
        }
        None => "`app` is missing, and the file's directory has no name".to_owned(),
    };
    findings.push(Problem::of_file(why).help("begin the file with a name, like app = \"shop\""));
    None
}

fn brokers(cell: &Cell<'_>, findings: &mut Findings) -> Vec<(String, crate::options::BrokerOptions)> {
    let DeValue::Table(table) = cell.value.get_ref() else {
        findings.push(no_broker(cell.expected("tables like [broker.api]")));
        return Vec::new();
    };
    if table.is_empty() {
        let span = cell.key_span.clone();
        findings.push(no_broker(Problem::at(span, "there is no broker, so nothing would run")));
    }
    let mut taken = Taken::new();
    let mut brokers = Vec::new();
    for (name, span, value) in in_order(table) {
        if !is_name(name) {
            let what = format!("`{}` is no name of a broker", word(name));
            findings.push(Problem::at(span.clone(), what).label(NAME_RULE));
        }
        if let Some(table) = Table::broker(name, span, value, findings) {
            brokers.push((name.to_owned(), broker::read(&table, &mut taken, findings)));
        }
    }
    brokers
}

fn no_broker(problem: Problem) -> Problem {
    problem.help("[broker.api] and below it command = [\"program\", \"argument\"]")
}
