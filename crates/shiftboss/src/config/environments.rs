//! Environments of a file: `[env.NAME]` laid over what stands outside of it. What the merged file means is `app`'s.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::problem::{Findings, Problem, Span, word};
use super::table::kind_of;
use crate::options::check::{NAME_RULE, is_name};

/// The environment that is there without being declared: all that stands outside of `[env]`.
pub(super) const DEFAULT: &str = "default";

/// Takes `[env]` out of the file: each environment with its own tables, in order of declaration.
pub(super) fn take<'t>(root: &mut DeTable<'t>, findings: &mut Findings) -> Vec<(String, DeTable<'t>)> {
    let Some((key, value)) = root.remove_entry("env") else { return Vec::new() };
    let span = value.span();
    let table = match value.into_inner() {
        DeValue::Table(table) => table,
        other => {
            findings.push(no_table(span, "env", &other));
            return Vec::new();
        }
    };
    if table.len() > MOST {
        findings.push(Problem::at(key.span(), format!("more than {MOST} environments")));
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut entries: Vec<_> = table.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let (span, of_value) = (key.span(), value.span());
        let name = key.get_ref().as_ref();
        match value.into_inner() {
            _ if name == DEFAULT => findings.push(
                Problem::at(span, "the environment `default` is what stands outside of [env]")
                    .help("write its keys without `env.default.`"),
            ),
            _ if !is_name(name) => findings.push(
                Problem::at(span, format!("`{}` is no name of an environment", word(name))).label(NAME_RULE),
            ),
            DeValue::Table(overlay) => found.push((name.to_owned(), known(name, overlay, findings))),
            other => findings.push(no_table(of_value, &format!("env.{name}"), &other)),
        }
    }
    found
}

/// What the file means in an environment: tables merge, everything else is replaced, `false` removes what is there.
/// In the program's own part `false` is a value like any other.
pub(super) fn overlaid<'t>(root: &DeTable<'t>, overlay: &DeTable<'t>) -> DeTable<'t> {
    let mut whole = root.clone();
    for (key, value) in overlay {
        let removes = key.get_ref() != keys::SETTINGS;
        lay(&mut whole, key, value, removes);
    }
    whole
}

type Key<'t> = Spanned<std::borrow::Cow<'t, str>>;

fn lay<'t>(below: &mut DeTable<'t>, key: &Key<'t>, value: &Spanned<DeValue<'t>>, removes: bool) {
    if let DeValue::Table(table) = value.get_ref()
        && let Some(under) = below.get_mut(key.get_ref().as_ref())
        && let DeValue::Table(merged) = under.as_mut()
    {
        table.iter().for_each(|(key, value)| lay(merged, key, value, removes));
        // What is wrong with it as a whole came with the overlay.
        *under = Spanned::new(value.span(), DeValue::Table(std::mem::take(merged)));
        return;
    }
    let removed = below.remove(key.get_ref().as_ref()).is_some();
    if !(removes && removed && matches!(value.get_ref(), DeValue::Boolean(false))) {
        // Inserted with its own key: where the value is from is where the key stands.
        below.insert(key.clone(), value.clone());
    }
}

/// The keys that an environment may set.
fn known<'t>(name: &str, overlay: DeTable<'t>, findings: &mut Findings) -> DeTable<'t> {
    let mut known = DeTable::new();
    for (key, value) in overlay {
        if keys::ENVIRONMENT.known.contains(&key.get_ref().as_ref()) {
            known.insert(key, value);
            continue;
        }
        let what = format!("unknown key `{}` in environment `{}`", word(key.get_ref()), word(name));
        let problem = Problem::at(key.span(), what);
        findings.push(match keys::nearest(key.get_ref(), keys::ENVIRONMENT.known.iter().copied()) {
            Some(meant) => problem.label(format!("did you mean `{meant}`?")),
            None if key.get_ref() == "app" => problem.label("an app has one name, in all environments"),
            None => problem.label(format!("expected one of: {}", keys::ENVIRONMENT.known.join(", "))),
        });
    }
    known
}

fn no_table(span: Span, key: &str, value: &DeValue<'_>) -> Problem {
    let message = format!("`{}`: expected a table, found {}", word(key), kind_of(value));
    Problem::at(span, message).help("[env.production.broker.api] changes the broker `api` in production")
}

/// Each is read and checked with the whole file below it.
const MOST: usize = 32;
