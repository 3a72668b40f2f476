//! Single values: durations, counts, percentages, signals, words of a choice.

use std::ops::RangeInclusive;
use std::time::Duration;

use shiftboss_core::spec::Signal;
use toml::de::DeValue;

use super::keys;
use super::problem::{Findings, word};
use super::table::Cell;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing but spaces.
    #[error("it is empty; write one like \"30s\"")]
    Empty,
    /// No digit where one has to be.
    #[error("expected a number at `{0}`")]
    NoNumber(String),
    /// A bare number.
    #[error("a unit has to follow {0}: ms, s, m, h or d, as in \"{0}s\"")]
    NoUnit(String),
    /// A number and its unit with a space between.
    #[error("no spaces; write \"{0}\"")]
    Space(String),
    /// A point or comma.
    #[error("only whole numbers, which may be summed: \"1h30m\", \"1s500ms\"")]
    Fraction,
    /// Letters that are none of ours.
    #[error("unknown unit `{0}`; expected ms, s, m, h or d")]
    UnknownUnit(String),
    /// A unit written out.
    #[error("write \"{0}\"")]
    Word(String),
    /// "5m1h", "1s1s".
    #[error("units go from the largest to the smallest, each once")]
    Order,
    /// More than ten years.
    #[error("longer than 3650d")]
    TooLong,
}

/// Reads a duration as the configuration has it: whole numbers with the units `ms`, `s`, `m`, `h` and `d`, also
/// summed: "200ms", "1h30m". At most 3650 days.
///
/// # Errors
/// What is wrong, fit to stand after the text.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    let mut total = 0;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let (number, after) = split(rest, |character| !character.is_ascii_digit());
        if number.is_empty() {
            return Err(DurationError::NoNumber(word(rest)));
        }
        let (unit, after) = split(after, |character| !character.is_alphabetic());
        let factor = match unit {
            "" if after.starts_with(['.', ',']) => return Err(DurationError::Fraction),
            "" => return Err(spaced(number, after)),
            unit => *UNITS.iter().find_map(|(name, factor)| (*name == unit).then_some(factor)).ok_or_else(
                || match meant(unit) {
                    Some(short) => DurationError::Word(format!("{}{short}", word(number))),
                    None => DurationError::UnknownUnit(word(unit)),
                },
            )?,
        };
        if factor >= smallest {
            return Err(DurationError::Order);
        }
        smallest = factor;
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        total = part.and_then(|part| part.checked_add(total)).ok_or(DurationError::TooLong)?;
        rest = after.trim_start();
    }
    if total > LONGEST { Err(DurationError::TooLong) } else { Ok(Duration::from_millis(total)) }
}

/// Writes a duration as [`parse_duration`] reads it, to the millisecond.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    let mut shown = String::new();
    for (name, factor) in UNITS.iter().map(|(name, factor)| (name, u128::from(*factor))) {
        if rest >= factor {
            shown.push_str(&format!("{}{name}", rest / factor));
            rest %= factor;
        }
    }
    if shown.is_empty() { "0s".to_owned() } else { shown }
}

/// "6 hours", "5 s", or a number and nothing.
fn spaced(number: &str, after: &str) -> DurationError {
    match meant(after.trim()) {
        Some(short) => DurationError::Space(format!("{}{short}", word(number))),
        None => DurationError::NoUnit(word(number)),
    }
}

/// The unit that somebody wrote out.
fn meant(unit: &str) -> Option<&'static str> {
    let whole = unit.to_lowercase();
    let words: [(&str, &[&str]); 5] = [
        ("ms", &["ms", "msec", "msecs", "millis", "millisecond", "milliseconds"]),
        ("s", &["s", "sec", "secs", "second", "seconds"]),
        ("m", &["min", "mins", "minute", "minutes"]),
        ("h", &["h", "hr", "hrs", "hour", "hours"]),
        ("d", &["d", "day", "days"]),
    ];
    words.iter().find(|(_, words)| words.contains(&whole.as_str())).map(|(short, _)| *short)
}

fn split(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

pub(super) fn duration(cell: &Cell<'_>, findings: &mut Findings) -> Option<Duration> {
    let DeValue::String(text) = cell.value.get_ref() else {
        let problem = cell.expected("a duration");
        findings.push(match integer(cell) {
            Some(number @ 0..) => problem.label(format!("write \"{number}s\"")),
            Some(_) | None => problem.label("write one like \"30s\""),
        });
        return None;
    };
    parse_duration(text)
        .map_err(|error| {
            let what = format!("expected a duration, found \"{}\"", word(text));
            findings.push(cell.problem(what).label(error.to_string()));
        })
        .ok()
}

/// A duration of at least this.
pub(super) fn duration_from(least: Duration) -> impl Fn(&Cell<'_>, &mut Findings) -> Option<Duration> {
    move |cell, findings| {
        let asked = duration(cell, findings)?;
        if asked < least {
            findings.push(cell.problem(format_args!(
                "expected at least {}, found {}",
                show_duration(least),
                show_duration(asked)
            )));
        }
        (asked >= least).then_some(asked)
    }
}

/// A whole number within a range.
pub(super) fn count(range: RangeInclusive<u32>) -> impl Fn(&Cell<'_>, &mut Findings) -> Option<u32> {
    move |cell, findings| {
        let DeValue::Integer(_) = cell.value.get_ref() else {
            findings.push(cell.expected("an integer"));
            return None;
        };
        let asked = integer(cell).and_then(|number| u32::try_from(number).ok());
        let fitting = asked.filter(|number| range.contains(number));
        if fitting.is_none() {
            let what = format!("expected a number from {} to {}", range.start(), range.end());
            findings.push(cell.problem(what));
        }
        fitting
    }
}

/// The value as an integer; none if it is none or has more than 64 bits.
pub(super) fn integer(cell: &Cell<'_>) -> Option<i64> {
    let DeValue::Integer(number) = cell.value.get_ref() else { return None };
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// "10%" as 0.1; from "0%" to "100%".
pub(super) fn percent(cell: &Cell<'_>, findings: &mut Findings) -> Option<f64> {
    let DeValue::String(text) = cell.value.get_ref() else {
        findings.push(cell.expected("a percentage").label("write one like \"10%\""));
        return None;
    };
    let number = text.trim().strip_suffix('%').and_then(|number| number.trim_end().parse::<u8>().ok());
    let share = number.filter(|number| *number <= 100).map(|number| f64::from(number) / 100.0);
    if share.is_none() {
        let what = format!("expected \"0%\" to \"100%\" in whole numbers, found \"{}\"", word(text));
        findings.push(cell.problem(what));
    }
    share
}

/// A signal by its name.
pub(super) fn signal(cell: &Cell<'_>, findings: &mut Findings) -> Option<Signal> {
    let DeValue::String(text) = cell.value.get_ref() else {
        findings.push(cell.expected("a signal's name").label("write one like \"TERM\""));
        return None;
    };
    let signal = Signal::named(text);
    if signal.is_none() {
        let problem = cell.problem(format_args!("unknown signal `{}`", word(text)));
        let upper = if text.len() > LONGEST_SIGNAL { String::new() } else { text.to_ascii_uppercase() };
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        findings.push(match keys::nearest(bare, Signal::names()) {
            Some(meant) => problem.label(format!("did you mean \"{meant}\"?")),
            None => problem.label("expected one like \"TERM\", \"INT\", \"QUIT\" or \"USR1\""),
        });
    }
    signal
}

pub(super) fn flag(cell: &Cell<'_>, findings: &mut Findings) -> Option<bool> {
    let DeValue::Boolean(flag) = cell.value.get_ref() else {
        findings.push(cell.expected("true or false"));
        return None;
    };
    Some(*flag)
}

/// One of a few words.
pub(super) fn choice<T: Copy>(cell: &Cell<'_>, words: &[(&str, T)], findings: &mut Findings) -> Option<T> {
    let text = cell.text(findings)?;
    let chosen = words.iter().find_map(|(word, value)| (*word == text).then_some(*value));
    if chosen.is_none() {
        findings.push(not_among(cell, text, words.iter().map(|(word, _)| *word)));
    }
    chosen
}

/// The problem with a word that is none of a few.
pub(super) fn not_among<'w>(
    cell: &Cell<'_>,
    text: &str,
    words: impl Iterator<Item = &'w str> + Clone,
) -> super::problem::Problem {
    let all: Vec<String> = words.clone().map(|word| format!("\"{word}\"")).collect();
    let problem = cell.problem(format_args!("expected {}, found \"{}\"", all.join(" or "), word(text)));
    match keys::nearest(text, words) {
        Some(meant) => problem.label(format!("did you mean \"{meant}\"?")),
        None => problem,
    }
}

/// A text that a system call can take: not empty, no NUL byte.
pub(super) fn plain_text<'t>(cell: &Cell<'t>, findings: &mut Findings) -> Option<&'t str> {
    let text = cell.text(findings)?;
    let wrong = match text {
        "" => "it is empty",
        text if text.contains('\0') => "it holds a NUL byte, which no system call takes",
        _ => return Some(text),
    };
    findings.push(cell.problem(wrong));
    None
}

/// Milliseconds of each unit, largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// 3650 days in milliseconds: sums of a few of these fit every clock.
const LONGEST: u64 = 3650 * 86_400_000;
/// No signal's name is longer.
const LONGEST_SIGNAL: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_written() {
        for (text, milliseconds) in [
            ("200ms", 200),
            ("0s", 0),
            ("1s", 1000),
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("1h30m", 5_400_000),
            ("1d 2h 3m 4s 5ms", 93_784_005),
            ("3650d", LONGEST),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_reason() {
        for (text, why) in [
            (" ", DurationError::Empty),
            ("30", DurationError::NoUnit("30".into())),
            ("1h30", DurationError::NoUnit("30".into())),
            ("-5s", DurationError::NoNumber("-5s".into())),
            ("s", DurationError::NoNumber("s".into())),
            ("1.5s", DurationError::Fraction),
            ("5 s", DurationError::Space("5s".into())),
            ("6 hours", DurationError::Space("6h".into())),
            ("10 minutes", DurationError::Space("10m".into())),
            ("5 x", DurationError::NoUnit("5".into())),
            ("5sec", DurationError::Word("5s".into())),
            ("1day", DurationError::Word("1d".into())),
            ("5M", DurationError::UnknownUnit("M".into())),
            ("30m1h", DurationError::Order),
            ("1s1s", DurationError::Order),
            ("3651d", DurationError::TooLong),
            ("99999999999999999999s", DurationError::TooLong),
            ("18446744073709551615d", DurationError::TooLong),
        ] {
            assert_eq!(parse_duration(text), Err(why), "{text}");
        }
    }

    #[test]
    fn every_duration_survives_a_round_trip() {
        let mut milliseconds = 1;
        while milliseconds < LONGEST {
            for near in [milliseconds - 1, milliseconds, milliseconds + 1] {
                let duration = Duration::from_millis(near);
                assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
            }
            milliseconds = milliseconds * 3 / 2 + 1;
        }
    }
}
