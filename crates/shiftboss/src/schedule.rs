//! When a part-time broker works: from each time that one cron pattern names to the next that another does.
//!
//! Here is the arithmetic of wall time, by croner (the patterns) and jiff (zones, `tzfile(5)`); `schedule/clocks` waits
//! for the ends of windows. What a window means is core's.

mod clocks;

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};

pub(crate) use clocks::Clocks;

/// The hours of a part-time broker: outside of them it is closed.
///
/// Patterns are those of `crontab(5)` with five fields (minute, hour, day of the month, month, day of the week), or six
/// with seconds in front; names (`mon-fri`), `@daily`, `L`, `W` and `#` are understood. A time that a change to summer
/// time leaves out comes at the end of the gap; one that comes twice counts once. Of minutes that are a list or have a step
/// (`0,30 2 * * *`) those in the gap are left out, and those of the hour that comes twice come twice.
///
/// ```
/// # #[cfg(feature = "schedule")] {
/// let hours = shiftboss::Schedule::new("0 8 * * mon-fri", "0 18 * * mon-fri", Some("Europe/Paris"))?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Words", into = "Words")]
pub struct Schedule {
    words: Words,
    open: Cron,
    close: Cron,
    zone: TimeZone,
}

/// A schedule as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Words {
    open: String,
    close: String,
    timezone: Option<String>,
}

/// Why there is no such schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// A pattern cannot be read, or names no time.
    #[error("{0}: {1}")]
    Pattern(When, String),
    /// No zone has this name.
    #[error("timezone: there is no time zone `{0}`")]
    Zone(String),
    /// The ends of a window are its beginnings.
    #[error("open and close are the same times, so it would never be closed, or never open")]
    Same,
}

/// One end of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Its beginning.
    Open,
    /// Its end.
    Close,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            When::Open => "open",
            When::Close => "close",
        })
    }
}

impl Schedule {
    /// Open from each time of the first pattern to the next of the second, in this zone of the IANA database ("Europe/
    /// Paris"); none = the system's.
    ///
    /// # Errors
    /// A pattern that cannot be read, whose step is larger than its field, that names no date that ever comes; a zone
    /// that is unknown; two patterns of the same times.
    pub fn new(open: &str, close: &str, timezone: Option<&str>) -> Result<Schedule, ScheduleError> {
        let zone = match timezone {
            Some(name) => TimeZone::get(name).map_err(|_| ScheduleError::Zone(name.to_owned()))?,
            None => TimeZone::system(),
        };
        let now = Timestamp::now().to_zoned(zone.clone());
        let read = |when, text| pattern(text, &now).map_err(|why| ScheduleError::Pattern(when, why));
        let (opens, closes) = (read(When::Open, open)?, read(When::Close, close)?);
        if opens.1 == closes.1 {
            return Err(ScheduleError::Same);
        }
        let words =
            Words { open: open.to_owned(), close: close.to_owned(), timezone: timezone.map(str::to_owned) };
        Ok(Schedule { words, open: opens.0, close: closes.0, zone })
    }

    /// The pattern of the beginnings.
    #[must_use]
    pub fn open(&self) -> &str {
        &self.words.open
    }

    /// The pattern of the ends.
    #[must_use]
    pub fn close(&self) -> &str {
        &self.words.close
    }

    /// The zone, if one was named.
    #[must_use]
    pub fn timezone(&self) -> Option<&str> {
        self.words.timezone.as_deref()
    }

    /// Whether a moment is inside of a window: the last thing that happened was a beginning. Where one window ends and
    /// another begins at the same moment, it goes on. One that lies in a gap of summer time does not come.
    #[must_use]
    pub fn is_open(&self, at: Timestamp) -> bool {
        let at = at.to_zoned(self.zone.clone());
        let last = |cron: &Cron| cron.find_previous_occurrence(&at, true).ok();
        match (last(&self.open), last(&self.close)) {
            (Some(open), Some(close)) if open == close => self.begins_last(&open),
            (Some(open), Some(close)) => open > close,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// Of a beginning and an end that come at this moment, whether the end is not the later one by the clock on the
    /// wall: a gap may have brought both to where it is over.
    fn begins_last(&self, at: &Zoned) -> bool {
        // In UTC there is no gap.
        let Ok(wall) = at.datetime().to_zoned(TimeZone::UTC) else { return true };
        let last = |cron: &Cron| cron.find_previous_occurrence(&wall, true).ok();
        last(&self.open) >= last(&self.close)
    }

    /// When that will be otherwise; none = never.
    #[must_use]
    pub fn next_change(&self, after: Timestamp) -> Option<Timestamp> {
        let is_open = self.is_open(after);
        let ends = if is_open { &self.close } else { &self.open };
        let mut at = after.to_zoned(self.zone.clone());
        for _ in 0..TRIES {
            at = ends.find_next_occurrence(&at, false).ok()?;
            if self.is_open(at.timestamp()) != is_open {
                return Some(at.timestamp());
            }
        }
        None
    }
}

impl fmt::Debug for Schedule {
    /// A pattern that was read is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words.fmt(f)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl TryFrom<Words> for Schedule {
    type Error = ScheduleError;

    fn try_from(words: Words) -> Result<Self, Self::Error> {
        Schedule::new(&words.open, &words.close, words.timezone.as_deref())
    }
}

impl From<Schedule> for Words {
    fn from(schedule: Schedule) -> Self {
        schedule.words
    }
}

/// What is wrong with a pattern by itself.
#[cfg(feature = "config")]
pub(crate) fn wrong_pattern(text: &str) -> Option<String> {
    pattern(text, &Timestamp::now().to_zoned(TimeZone::UTC)).err()
}

/// Whether a zone of the IANA database has this name.
#[cfg(feature = "config")]
pub(crate) fn is_zone(name: &str) -> bool {
    TimeZone::get(name).is_ok()
}

/// A pattern, and the first times that it names.
fn pattern(text: &str, now: &Zoned) -> Result<(Cron, Vec<Zoned>), String> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let cron = parser.parse(text).map_err(|error| said(&error))?;
    check_steps(text)?;
    let times: Result<Vec<Zoned>, CronError> = (0..LOOKED_AT)
        .scan(now.clone(), |at, _| {
            let next = cron.find_next_occurrence(at, false);
            if let Ok(next) = &next {
                *at = next.clone();
            }
            Some(next)
        })
        .collect();
    match times {
        Ok(times) => Ok((cron, times)),
        Err(_) => Err("it names no date that ever comes".to_owned()),
    }
}

/// A step that is larger than its field would never be made.
fn check_steps(text: &str) -> Result<(), String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let named = FIELDS.iter().skip(FIELDS.len().saturating_sub(fields.len()));
    for (field, (name, most)) in fields.iter().zip(named) {
        for part in field.split(',') {
            let step = part.split_once('/').and_then(|(_, step)| u64::from_str(step).ok());
            if let Some(step) = step.filter(|step| step > most) {
                return Err(format!("`{part}` makes steps of {step}; a {name} is at most {most}"));
            }
        }
    }
    Ok(())
}

/// The reason alone, beginning small, as it stands after "open: ".
fn said(error: &CronError) -> String {
    match error {
        CronError::EmptyPattern => "it is empty".to_owned(),
        CronError::InvalidPattern(why)
        | CronError::IllegalCharacters(why)
        | CronError::ComponentError(why) => {
            format!("it is no cron pattern: {}", why.trim_end_matches('.'))
        }
        CronError::InvalidDate | CronError::InvalidTime | CronError::TimeSearchLimitExceeded => {
            "it names no date that ever comes".to_owned()
        }
    }
}

/// Fields from the last one back: a pattern of five has no seconds.
const FIELDS: [(&str, u64); 6] = [
    ("second", 59),
    ("minute", 59),
    ("hour", 23),
    ("day of the month", 31),
    ("month", 12),
    ("day of the week", 7),
];
/// So many times of each pattern are looked at before it is taken.
const LOOKED_AT: usize = 3;
/// Ends that are beginnings too, one after the other.
const TRIES: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn paris(open: &str, close: &str) -> Schedule {
        Schedule::new(open, close, Some("Europe/Paris")).unwrap()
    }

    #[test]
    fn office_hours_are_open_by_day_and_closed_at_night_and_over_the_weekend() {
        let hours = paris("0 8 * * mon-fri", "0 18 * * mon-fri");
        // Tuesday, 24 November 2026; Paris is an hour ahead.
        assert!(!hours.is_open(at("2026-11-24T06:59:59Z")));
        assert!(hours.is_open(at("2026-11-24T07:00:00Z")));
        assert_eq!(hours.next_change(at("2026-11-24T07:00:00Z")), Some(at("2026-11-24T17:00:00Z")));
        assert!(!hours.is_open(at("2026-11-24T17:00:00Z")));
        assert_eq!(hours.next_change(at("2026-11-27T17:00:00Z")), Some(at("2026-11-30T07:00:00Z")));
        assert!(!hours.is_open(at("2026-11-28T11:00:00Z")));
    }

    #[test]
    fn a_close_that_comes_while_closed_is_nothing() {
        let hours = paris("0 8 * * mon-fri", "0 18 * * *");
        assert!(!hours.is_open(at("2026-11-28T11:00:00Z")));
        assert_eq!(hours.next_change(at("2026-11-28T11:00:00Z")), Some(at("2026-11-30T07:00:00Z")));
    }

    #[test]
    fn a_window_may_go_over_midnight() {
        let night = paris("0 22 * * *", "0 6 * * *");
        assert!(night.is_open(at("2026-11-24T23:30:00Z")) && !night.is_open(at("2026-11-24T05:00:00Z")));
    }

    #[test]
    fn an_hour_that_summer_time_leaves_out_begins_when_the_gap_is_over_and_one_that_comes_twice_begins_once()
    {
        let hours = paris("30 2 * * *", "0 5 * * *");
        // 28 March 2027: from 2:00 straight to 3:00.
        assert!(!hours.is_open(at("2027-03-28T00:59:59Z")) && hours.is_open(at("2027-03-28T01:00:00Z")));
        // 25 October 2026: 3:00 is 2:00 again.
        assert!(hours.is_open(at("2026-10-25T00:30:00Z")) && hours.is_open(at("2026-10-25T01:30:00Z")));
        let next = hours.next_change(at("2026-10-25T00:30:00Z"));
        assert_eq!(next, Some(at("2026-10-25T04:00:00Z")));
    }

    #[test]
    fn a_window_in_an_hour_that_summer_time_leaves_out_does_not_come() {
        // 28 March 2027: from 2:00 straight to 3:00.
        for (open, close) in
            [("10 2 * * *", "40 2 * * *"), ("10 2 * * *", "0 3 * * *"), ("0 2 * * *", "30 2 * * *")]
        {
            let hours = paris(open, close);
            let next = hours.next_change(at("2027-03-27T12:00:00Z")).unwrap();
            assert!(next > at("2027-03-28T12:00:00Z"), "{open}, {close}: {next}");
            assert!(!hours.is_open(at("2027-03-28T01:00:00Z")), "{open}, {close}");
            assert!(hours.is_open(next));
        }
        // What begins there last, and what goes on there, is open.
        for (open, close) in [("40 2 * * *", "10 2 * * *"), ("0 3 * * *", "30 2 * * *")] {
            assert!(paris(open, close).is_open(at("2027-03-28T01:00:00Z")), "{open}, {close}");
        }
        let hours = paris("0 1,3 * * *", "0 3,5 * * *");
        assert!(hours.is_open(at("2027-03-28T01:00:00Z")));
        assert_eq!(hours.next_change(at("2027-03-28T00:30:00Z")), Some(at("2027-03-28T03:00:00Z")));
    }

    #[test]
    fn the_change_that_is_next_is_the_next_time_at_which_it_is_otherwise() {
        let hours = Schedule::new("*/4 * * * * *", "2-59/4 * * * * *", Some("UTC")).unwrap();
        let mut now = at("2026-11-24T12:00:00Z");
        for second in 1..40 {
            let next = hours.next_change(now).unwrap();
            assert_eq!(next.as_second() - now.as_second(), 2, "change {second}");
            assert_ne!(hours.is_open(next), hours.is_open(now));
            now = next;
        }
    }

    #[test]
    fn what_could_not_be_meant_is_refused() {
        let wrong = |open, close, zone| Schedule::new(open, close, zone).unwrap_err().to_string();
        assert_eq!(
            wrong("*/61 * * * *", "0 18 * * *", None),
            "open: `*/61` makes steps of 61; a minute is at most 59"
        );
        assert_eq!(wrong("0 8 * * *", "0 0 30 2 *", None), "close: it names no date that ever comes");
        assert_eq!(
            wrong("0 8 * * *", "0 18 * * *", Some("Europe/Pariss")),
            "timezone: there is no time zone `Europe/Pariss`"
        );
        assert_eq!(
            wrong("0 8 * * *", "00 08 * * *", None),
            "open and close are the same times, so it would never be closed, or never open"
        );
        assert!(wrong("8 o'clock", "0 18 * * *", None).starts_with("open: it is no cron pattern: "));
        assert!(wrong("", "0 18 * * *", None).starts_with("open: it is empty"));
        assert!(wrong("0 8 * * * * 2030", "0 18 * * *", None).starts_with("open: it is no cron pattern: "));
    }

    #[test]
    fn what_is_written_down_is_read_again() {
        let hours = paris("0 8 * * mon-fri", "0 18 * * mon-fri");
        let text = serde_json::to_string(&hours).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), hours);
    }
}
