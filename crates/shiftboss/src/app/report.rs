//! Reports: what went wrong, why, and with what around it, for people on standard error and for Sentry.

use std::collections::BTreeMap;
use std::error::Error;
use std::panic::Location;
use std::sync::PoisonError;

use serde::Serialize;
use serde_json::Value;

use super::{App, Inner, page};

/// Something that went wrong. [`App::report`] takes it, or only a text, or only an error.
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is reported before `App::report` has it"]
pub struct Report {
    pub(super) message: String,
    pub(super) causes: Vec<Cause>,
    pub(super) context: BTreeMap<String, Value>,
}

/// One error of a chain.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    /// The error's type as `Debug` tells it: "ParseIntError".
    #[cfg_attr(not(feature = "sentry"), allow(dead_code, reason = "only Sentry asks for it"))]
    pub(super) kind: String,
    pub(super) text: String,
}

/// What became of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reported {
    /// Under what the report is found in Sentry: 32 hexadecimal digits. None if nothing is sent. Whether it has arrived
    /// is not known yet: see [`App::flush`].
    pub event_id: Option<String>,
    /// Whether standard error has taken the report: false if reports are silenced, or nobody has read it for a second.
    pub shown: bool,
}

impl Report {
    /// What went wrong, in a sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Report { message: message.into(), ..Report::default() }
    }

    /// An error: its message, and what it has as its sources.
    pub fn of(error: &dyn Error) -> Self {
        Report::default().error(error)
    }

    /// Why it went wrong: the error, and its chain of sources (at most 32). Of several errors each adds its own.
    pub fn error(mut self, error: &dyn Error) -> Self {
        let mut next = Some(error);
        let deepest = self.causes.len() + DEEPEST;
        while let Some(error) = next.filter(|_| self.causes.len() < deepest) {
            self.causes.push(Cause { kind: kind_of(error), text: page::shown(&error) });
            next = error.source();
        }
        self
    }

    /// What was so when it went wrong, under a name. A value that does not serialise says so instead.
    pub fn context(mut self, key: impl Into<String>, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value);
        let value = value.unwrap_or_else(|error| Value::from(format!("(cannot be shown: {error})")));
        self.context.insert(key.into(), value);
        self
    }

    /// The message, else that of the first error.
    pub(super) fn title(&self) -> &str {
        match (self.message.as_str(), self.causes.first()) {
            ("", Some(cause)) => &cause.text,
            (message, _) => message,
        }
    }
}

impl From<&str> for Report {
    fn from(message: &str) -> Self {
        Report::new(message)
    }
}

impl From<String> for Report {
    fn from(message: String) -> Self {
        Report::new(message)
    }
}

impl<E: Error> From<&E> for Report {
    fn from(error: &E) -> Self {
        Report::of(error)
    }
}

/// A report with all that is added to it.
pub(super) struct Told<'r> {
    /// What kind of report it is: "report", "panic".
    pub(super) kind: &'static str,
    pub(super) app: &'r str,
    pub(super) report: Report,
    pub(super) at: jiff::Timestamp,
    /// Where in the program.
    pub(super) place: String,
    pub(super) event_id: Option<String>,
}

impl App {
    /// Reports something: a readable block on standard error, and an event in Sentry if there is one. The context holds
    /// `environment`, `worker_type`, what [`App::set_reporting_context`] has set and what the report says.
    ///
    /// While the variable `SILENCE_REPORTS` is set and not empty nothing is written to standard error; it is looked at
    /// each time. What is sent is sent in the background. Never panics; returns within a second, whoever does not
    /// read standard error.
    #[track_caller]
    pub fn report(&self, report: impl Into<Report>) -> Reported {
        let place = Location::caller();
        let place = format!("{}:{}", place.file(), place.line());
        self.inner.tell("report", report.into(), place, !page::silenced())
    }
}

impl App {
    /// What a broker reports by itself: no line of the program has done so.
    pub(crate) fn report_of_broker(&self, report: Report) -> Reported {
        self.inner.tell("report", report, "a broker".to_owned(), !page::silenced())
    }
}

impl Inner {
    pub(super) fn tell(&self, kind: &'static str, report: Report, place: String, show: bool) -> Reported {
        let mut report = report;
        for (key, value) in self.context.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            report.context.entry(key.clone()).or_insert_with(|| value.clone());
        }
        #[cfg_attr(not(feature = "sentry"), expect(unused_mut, reason = "only an event has an id"))]
        let mut told =
            Told { kind, app: &self.name, report, at: jiff::Timestamp::now(), place, event_id: None };
        #[cfg(feature = "sentry")]
        let event = self.sentry.as_ref().map(|sentry| (sentry, sentry.event(&mut told)));
        let shown = show && page::tell(&page::block(&told));
        #[cfg(feature = "sentry")]
        if let Some((sentry, event)) = event {
            sentry.send(event);
        }
        Reported { event_id: told.event_id, shown }
    }
}

/// The type that `Debug` names first.
fn kind_of(error: &dyn Error) -> String {
    let whole = page::shown(&format_args!("{error:?}"));
    let name = whole.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next().unwrap_or_default();
    if name.is_empty() { "Error".to_owned() } else { name.to_owned() }
}

/// A chain that is longer goes in a circle.
const DEEPEST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the price")]
    struct Price(#[source] std::num::ParseIntError);

    #[derive(Debug)]
    struct Circle;

    impl std::fmt::Display for Circle {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            Err(std::fmt::Error)
        }
    }

    impl Error for Circle {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&Circle)
        }
    }

    #[test]
    fn a_report_has_the_whole_chain_of_an_error() {
        let error = Price("x".parse::<i32>().unwrap_err());
        let report = Report::from(&error);
        let texts: Vec<&str> = report.causes.iter().map(|cause| cause.text.as_str()).collect();
        assert_eq!(texts, ["cannot read the price", "invalid digit found in string"]);
        let kinds: Vec<&str> = report.causes.iter().map(|cause| cause.kind.as_str()).collect();
        assert_eq!(kinds, ["Price", "ParseIntError"]);
        assert_eq!(report.title(), "cannot read the price");
    }

    #[test]
    fn a_chain_in_a_circle_and_an_error_that_cannot_be_shown_end() {
        let report = Report::new("round").error(&Circle);
        assert_eq!(report.causes.len(), DEEPEST);
        assert_eq!(report.causes[0].text, "");
    }

    #[test]
    fn a_value_that_does_not_serialise_says_so() {
        let report = Report::new("x").context("map", std::collections::HashMap::from([((1, 2), 3)]));
        assert!(report.context["map"].as_str().unwrap().starts_with("(cannot be shown: "));
    }
}
