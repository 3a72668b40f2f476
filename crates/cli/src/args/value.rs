//! Values of the command line, and why one is none.

use std::time::Duration;

use shiftboss::config::{DurationError, parse_duration, show_duration};
use shiftboss::options::MAX_WORKERS;

/// A number of workers that one broker may keep.
pub(super) fn read_workers(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number <= MAX_WORKERS);
    number.ok_or_else(|| format!("`{text}` is no number of workers: expected 0 to {MAX_WORKERS}"))
}

/// The same of `run`. That it would keep nobody is said there.
pub(super) fn read_workers_to_run(text: &str) -> Result<u32, String> {
    read_workers(text).map_err(|why| why.replace("expected 0", "expected 1"))
}

/// A duration as in the file, "500ms" or "1h30m", also one with a fraction, "1.5h"; a number alone is seconds.
pub(super) fn read_time(text: &str) -> Result<Duration, String> {
    let too_long = || format!("`{text}` is too long: at most {}", show_duration(LONGEST_WAIT));
    let time = match (number_with_unit(text), parse_duration(text)) {
        (Some(time), _) | (None, Ok(time)) => time,
        (None, Err(DurationError::TooLong)) => return Err(too_long()),
        (None, Err(_)) => {
            let expected = "expected a number with a unit, as 500ms, 30s, 2m, 1h30m or 1d";
            return Err(format!("`{text}` is no duration: {expected}"));
        }
    };
    if time > LONGEST_WAIT { Err(too_long()) } else { Ok(time) }
}

fn number_with_unit(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return None,
    };
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// More than any command takes, and within what clocks can tell.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_seconds() {
        let read = ["500ms", "30s", "2m", "1h", "1.5", "0"].map(|text| read_time(text).unwrap().as_millis());
        assert_eq!(read, [500, 30_000, 120_000, 3_600_000, 1500, 0]);
        let read = ["1h30m", "1d", "0.5d"].map(|text| read_time(text).unwrap().as_secs());
        assert_eq!(read, [5400, 86_400, 43_200]);
        for wrong in ["", "s", "-1s", "1e9", "inf", "1.2.3", "30m1h"] {
            assert!(read_time(wrong).unwrap_err().contains("is no duration"), "{wrong}");
        }
    }

    #[test]
    fn a_time_that_is_too_long_is_said_to_be() {
        for long in ["48h", "1d1ms", "99999h", "99999999999999999999s", "9999d"] {
            assert_eq!(read_time(long), Err(format!("`{long}` is too long: at most 1d")));
        }
    }

    #[test]
    fn a_run_expects_a_worker_and_a_scale_may_have_none() {
        assert!(read_workers_to_run("x").unwrap_err().ends_with("expected 1 to 100000"));
        assert!(read_workers("x").unwrap_err().ends_with("expected 0 to 100000"));
    }
}
