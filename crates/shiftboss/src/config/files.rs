//! Programs and folders that a file names, and where it does: what is not there is shown at its place.

use std::collections::BTreeMap;

use super::problem::{Problem, Span};
use super::render::{Diagnostic, Severity};
use super::source::Source;
use crate::launch::{Launch, LaunchError};
use crate::options::AppOptions;

/// Of each broker where its command and its folder stand, each a finding that still lacks its words.
pub(super) type Places = BTreeMap<String, Place>;

#[derive(Clone, Debug)]
pub(super) struct Place {
    command: Diagnostic,
    cwd: Diagnostic,
}

pub(super) fn places(
    options: &AppOptions,
    set: &BTreeMap<(String, String), Span>,
    source: &Source<'_>,
) -> Places {
    let at = |broker: &String, key: &str| {
        let span = set.get(&(broker.clone(), key.to_owned())).cloned();
        source.diagnose(Problem { span, ..Problem::of_file(String::new()) })
    };
    let brokers = options.brokers.iter().map(|(name, _)| name);
    brokers.map(|name| (name.clone(), Place { command: at(name, "command"), cwd: at(name, "cwd") })).collect()
}

/// What is not there, of the brokers that are asked for.
pub(super) fn missing(
    options: &AppOptions,
    places: &Places,
    is_asked: impl Fn(&str) -> bool,
) -> Vec<Diagnostic> {
    let asked = options.brokers.iter().filter(|(name, _)| is_asked(name));
    asked
        .flat_map(|(name, broker)| {
            let problems = Launch::problems(name, broker);
            problems.into_iter().filter_map(|error| Some(show(&error, places.get(name)?)))
        })
        .collect()
}

/// Adds what is not there in another environment and has not been said.
pub(super) fn add_warnings(
    environment: &str,
    options: &AppOptions,
    places: &Places,
    said: &mut Vec<Diagnostic>,
) {
    for mut diagnostic in missing(options, places, |_| true) {
        let is_known = |known: &Diagnostic| {
            known.place == diagnostic.place && known.message.ends_with(&diagnostic.message)
        };
        if !said.iter().any(is_known) {
            diagnostic.severity = Severity::Warning;
            diagnostic.message = format!("environment `{environment}`: {}", diagnostic.message);
            said.push(diagnostic);
        }
    }
}

fn show(error: &LaunchError, place: &Place) -> Diagnostic {
    let (at, message) = match error {
        LaunchError::Directory { broker, cwd, source } if source.kind() == std::io::ErrorKind::NotFound => {
            (&place.cwd, format!("broker `{broker}`: there is no directory `{}`", cwd.display()))
        }
        LaunchError::Directory { .. } => (&place.cwd, error.to_string()),
        LaunchError::Empty { .. }
        | LaunchError::Program { .. }
        | LaunchError::OldNode { .. }
        | LaunchError::Nul { .. } => (&place.command, error.to_string()),
    };
    Diagnostic { message, help: error.help(), ..at.clone() }
}
