//! Texts for people: durations, sizes, counts, cut to a width, without control characters.

use std::time::Duration;

use jiff::Timestamp;

/// How long something took: "0.4 ms", "812 ms", "1.9 s", "42 s", "3m 12s", "2h 5m".
pub(crate) fn took(span: Duration) -> String {
    match span.as_secs() {
        0 if span < Duration::from_millis(10) => format!("{:.1} ms", span.as_secs_f64() * 1e3),
        0 => format!("{} ms", span.as_millis()),
        1..=9 => format!("{}.{} s", span.as_secs(), span.subsec_millis() / 100),
        10..=59 => format!("{} s", span.as_secs()),
        60..=3599 => format!("{}m {}s", span.as_secs() / 60, span.as_secs() % 60),
        _ => age(span),
    }
}

/// How long something has been so: "42s", "22m", "3h 5m", "6d 3h".
pub(crate) fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..=59 => format!("{seconds}s"),
        60..=3599 => format!("{minutes}m"),
        3600..=86_399 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// A size in steps of 1024: "512 B", "3.0 MB", "153 MB", "1.5 GB".
pub(crate) fn bytes(size: u64) -> String {
    let mut units = ["B", "KB", "MB", "GB", "TB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    let mut rest = size as f64;
    for larger in units {
        // What would be rounded to 1024 is 1.0 of the larger unit.
        if rest < 1023.5 {
            break;
        }
        rest /= 1024.0;
        unit = larger;
    }
    if unit == "B" || rest >= 9.95 { format!("{rest:.0} {unit}") } else { format!("{rest:.1} {unit}") }
}

/// "1 worker", "4 workers".
pub(crate) fn count(number: impl Into<u64>, one: &str) -> String {
    match number.into() {
        1 => format!("1 {one}"),
        many => format!("{many} {one}s"),
    }
}

/// From then until now; zero if then is yet to come, none if it cannot be read.
pub(crate) fn since(then: &str, now: Timestamp) -> Option<Duration> {
    let then: Timestamp = then.parse().ok()?;
    Some(Duration::try_from(now.duration_since(then)).unwrap_or_default())
}

/// From now until then; zero if then is past, none if it cannot be read.
pub(crate) fn until(then: &str, now: Timestamp) -> Option<Duration> {
    let then: Timestamp = then.parse().ok()?;
    Some(Duration::try_from(then.duration_since(now)).unwrap_or_default())
}

/// At most so many columns; what is cut is marked with "…".
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// In lines of at most so many columns, broken between words where that can be.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is always one");
        let columns = last.chars().count();
        if columns > 0 && columns + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if columns > 0 {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

/// Without control characters, which could redraw a terminal: what workers wrote is not ours.
pub(crate) fn clean(text: &str) -> String {
    let harmless = |c: char| {
        if c == '\t' {
            ' '
        } else if c.is_control() {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().map(harmless).collect()
}

/// The known word that was most likely meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known: &str| strsim::jaro_winkler(&word.to_lowercase(), &known.to_lowercase());
    let scored = known.into_iter().map(|known| (likeness(known), known));
    scored.filter(|(score, _)| *score >= LIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

const LIKE: f64 = 0.75;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn durations_are_short_and_never_rounded_up() {
        let shown = [812, 999, 1_999, 9_999, 42_000, 192_000, 7_500_000].map(|span| took(ms(span)));
        assert_eq!(shown, ["812 ms", "999 ms", "1.9 s", "9.9 s", "42 s", "3m 12s", "2h 5m"]);
        let shown = [0, 42_000, 1_320_000, 11_100_000, 529_380_000].map(|span| age(ms(span)));
        assert_eq!(shown, ["0s", "42s", "22m", "3h 5m", "6d 3h"]);
    }

    #[test]
    fn sizes_have_at_most_four_digits() {
        let sizes = [0, 512, 1023, 1024, 3_145_728, 160_432_128, 1_048_575, 1_610_612_736];
        let shown = sizes.map(bytes);
        assert_eq!(shown, ["0 B", "512 B", "1023 B", "1.0 KB", "3.0 MB", "153 MB", "1.0 MB", "1.5 GB"]);
    }

    #[test]
    fn what_is_cut_is_marked() {
        assert_eq!(cut("tcp://:3000", 11), "tcp://:3000");
        assert_eq!(cut("tcp://:30001", 11), "tcp://:300…");
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a-very-long-word x", 5), ["a-very-long-word", "x"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn a_workers_escape_codes_do_not_reach_the_terminal() {
        assert_eq!(clean("\u{1b}[2Jgone\tnow"), "\u{fffd}[2Jgone now");
    }

    #[test]
    fn the_nearest_word_is_found_and_far_ones_are_not() {
        assert_eq!(nearest("apy", ["jobs", "api"]), Some("api"));
        assert_eq!(nearest("zebra", ["jobs", "api"]), None);
    }

    #[test]
    fn moments_on_the_wrong_side_of_now_count_as_now() {
        let now: Timestamp = "2026-11-24T08:00:00Z".parse().unwrap();
        assert_eq!(since("2026-11-24T07:59:58.5Z", now), Some(ms(1500)));
        assert_eq!(since("2026-11-24T08:00:01Z", now), Some(Duration::ZERO));
        assert_eq!(until("2026-11-24T08:00:02.25Z", now), Some(ms(2250)));
        assert_eq!(until("soon", now), None);
    }
}
