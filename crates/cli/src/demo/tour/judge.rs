//! Whether the promises were kept: what the counts of a while say, and which failures a promise excuses.
//!
//! The load generator tells its counts once a second; an act ends with such a line, so every failure belongs to
//! exactly one act. Two kinds are excused, and only there: requests inside a worker that is killed are lost with it, and
//! clients that come while a broker is drained are refused.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text;

/// A line of the load generator: everything since it started.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    /// It is the last line.
    pub(super) r#final: bool,
    pub(super) sent: u64,
    pub(super) ok: u64,
    /// All failures but crossed ones.
    pub(super) failed: u64,
    pub(super) refused: u64,
    /// Ended without an answer on a reused connection.
    pub(super) crossed: u64,
    pub(super) in_flight: u64,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    /// Failures by kind; in the last line only.
    pub(super) by_kind: BTreeMap<String, u64>,
}

/// What happened between two lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Span {
    /// Requests that began.
    pub(super) requests: u64,
    /// Requests that failed, crossed ones among them.
    pub(super) failed: u64,
    pub(super) refused: u64,
    pub(super) crossed: u64,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) held: bool,
    #[serde(rename = "seen")]
    pub(super) text: String,
}

impl Counts {
    pub(super) fn since(&self, earlier: &Counts) -> Span {
        let failed = |counts: &Counts| counts.failed + counts.crossed;
        Span {
            requests: self.sent.saturating_sub(earlier.sent),
            failed: failed(self).saturating_sub(failed(earlier)),
            refused: self.refused.saturating_sub(earlier.refused),
            crossed: self.crossed.saturating_sub(earlier.crossed),
        }
    }
}

impl AddAssign for Span {
    fn add_assign(&mut self, other: Span) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.refused += other.refused;
        self.crossed += other.crossed;
    }
}

impl Finding {
    pub(super) fn new(held: bool, text: impl Into<String>) -> Finding {
        Finding { held, text: text.into() }
    }
}

/// A while in which nothing may fail; which one, in words before the number.
pub(super) fn calm(which: &str, span: Span) -> Finding {
    let requests =
        format!("{which}{} request{}", number(span.requests), if span.requests == 1 { "" } else { "s" });
    let text = match span.failed {
        0 => format!("{requests}, 0 failed"),
        failed => {
            let (refused, crossed) = (number(span.refused), number(span.crossed));
            format!("{requests}, {} failed ({refused} refused, {crossed} cut unanswered)", number(failed))
        }
    };
    Finding::new(span.failed == 0, text)
}

/// The second in which a worker was killed, when so many requests were in flight in all workers: nobody is refused, and
/// only what was in flight can be lost. The number is that of the excused failures.
pub(super) fn killed(span: Span, in_flight: u64) -> (Finding, u64) {
    let lost = span.failed.saturating_sub(span.refused);
    let lost_with_it = lost.min(in_flight);
    let requests = if lost_with_it == 1 { "1 request".into() } else { format!("{lost_with_it} requests") };
    let finding = if span.refused > 0 {
        Finding::new(false, format!("{} requests were refused", number(span.refused)))
    } else if lost > in_flight {
        Finding::new(false, format!("{lost} requests were lost, of {in_flight} in flight"))
    } else {
        Finding::new(true, format!("0 refused; {requests} inside the killed worker went with it"))
    };
    (finding, lost_with_it)
}

/// The while of a drain, in which the broker says it reset so many connections: later clients are refused, and nothing
/// else fails. The number is that of the excused failures.
pub(super) fn drained(span: Span, reset: u64) -> (Finding, u64) {
    let others = span.failed.saturating_sub(span.refused);
    let excused = span.refused + others.min(reset);
    let finding = match others.saturating_sub(reset) {
        0 => Finding::new(true, format!("{} refused while drained, 0 lost", number(excused))),
        lost => {
            let refused = number(excused);
            Finding::new(false, format!("{refused} refused while drained, {} lost", number(lost)))
        }
    };
    (finding, excused)
}

/// The end of the load, when so many requests were in flight: each has had its answer.
pub(super) fn all_ended(span: Span, in_flight: u64, last: &Counts) -> Finding {
    let all = number(last.sent);
    match (span.failed, last.in_flight) {
        (0, 0) => {
            Finding::new(true, format!("the last {in_flight} of {all} requests are answered, 0 failed"))
        }
        (failed, 0) => Finding::new(false, format!("of the last {in_flight} requests {failed} failed")),
        (_, open) => Finding::new(false, format!("{open} of {all} requests have not ended")),
    }
}

/// In ms, as figures of latency are read: "2.3 ms", "42 ms", "2.7 s".
pub(super) fn milliseconds(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.1} ms") } else { text::took(Duration::from_secs_f64((ms / 1e3).min(1e9))) }
}

/// The waits before the starts of a slot whose workers keep failing: each about twice the one before, up to the cap.
/// A tenth of jitter on both sides of a wait is allowed for.
pub(super) fn backs_off(waits: &[Duration], cap: Duration) -> Finding {
    let grows = waits.windows(2).all(|pair| {
        let doubled = pair[0].mul_f64(2.0 * 0.9 / 1.1);
        pair[1] >= doubled.min(cap.mul_f64(0.9)).mul_f64(0.98) && pair[1] <= cap.mul_f64(1.12)
    });
    let shown: Vec<String> = waits.iter().take(5).map(|wait| format!("{:.1}", wait.as_secs_f64())).collect();
    let more = if waits.len() > shown.len() { ", …" } else { "" };
    let text = format!("waits between its starts: {}{more} s (cap {} s)", shown.join(", "), cap.as_secs());
    Finding::new(grows && waits.len() >= 2, text)
}

/// "12,345".
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(failed: u64, refused: u64, crossed: u64) -> Span {
        Span { requests: 1200, failed, refused, crossed }
    }

    fn waits(seconds: &[f64]) -> bool {
        let waits: Vec<Duration> = seconds.iter().map(|wait| Duration::from_secs_f64(*wait)).collect();
        backs_off(&waits, Duration::from_secs(2)).held
    }

    #[test]
    fn lines_of_the_load_generator_are_read() {
        let line = r#"{"t":1.0,"sent":200,"ok":180,"failed":3,"refused":1,"crossed":2,"in_flight":15,
            "p50_ms":0.9,"p99_ms":null}"#;
        let early: Counts = serde_json::from_str(line).unwrap();
        assert_eq!((early.sent, early.in_flight, early.p99_ms, early.r#final), (200, 15, None, false));
        let last = r#"{"final":true,"t":2.0,"sent":400,"ok":390,"failed":6,"refused":2,"crossed":4,"in_flight":0,
            "p50_ms":0.9,"p99_ms":9.0,"latency_ms":{},"by_kind":{"refused":2},
            "failures":[{"at":3.21,"begun":3.2,"kind":"refused","detail":"connection refused"}]}"#;
        let last: Counts = serde_json::from_str(last).unwrap();
        assert_eq!((last.r#final, last.by_kind["refused"]), (true, 2));
        assert_eq!(last.since(&early), Span { requests: 200, failed: 5, refused: 1, crossed: 2 });
    }

    #[test]
    fn a_failure_in_a_calm_while_breaks_the_promise_whatever_its_kind() {
        assert_eq!(calm("", span(0, 0, 0)), Finding::new(true, "1,200 requests, 0 failed"));
        assert!(!calm("", span(1, 0, 0)).held);
        assert!(!calm("", span(1, 1, 0)).held);
        assert!(!calm("", span(1, 0, 1)).held, "crossed counts too");
    }

    #[test]
    fn requests_inside_a_killed_worker_are_excused_and_a_refused_connect_never() {
        let (finding, excused) = killed(span(9, 0, 4), 40);
        assert_eq!((finding.held, excused), (true, 9));
        assert_eq!(killed(span(9, 1, 0), 40), (Finding::new(false, "1 requests were refused"), 8));
    }

    #[test]
    fn more_losses_than_were_in_flight_are_not_excused() {
        let (finding, excused) = killed(span(41, 0, 0), 40);
        assert_eq!((finding.held, excused), (false, 40));
    }

    #[test]
    fn refusals_of_a_drain_are_excused_and_losses_not() {
        assert_eq!(
            drained(span(500, 500, 0), 0),
            (Finding::new(true, "500 refused while drained, 0 lost"), 500)
        );
        let (finding, excused) = drained(span(500, 498, 1), 0);
        assert_eq!((finding.held, excused), (false, 498));
    }

    #[test]
    fn resets_of_a_drain_are_excused_as_far_as_the_broker_owns_to_them() {
        assert_eq!(drained(span(502, 500, 0), 2).1, 502);
        let (finding, excused) = drained(span(503, 500, 0), 2);
        assert_eq!((finding.held, excused), (false, 502));
    }

    #[test]
    fn waits_that_double_up_to_the_cap_are_a_back_off() {
        assert!(waits(&[0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 1.9]));
        assert!(waits(&[0.11, 0.18, 0.44, 0.72, 1.76]));
        assert!(!waits(&[0.1, 0.1, 0.1]), "a fire");
        assert!(!waits(&[0.1, 0.2, 0.4, 0.8, 1.6, 3.2]), "above the cap");
        assert!(!waits(&[0.1]), "too few to tell");
    }

    #[test]
    fn a_request_without_an_end_breaks_the_promise() {
        let mut last = Counts { sent: 5000, ..Counts::default() };
        assert!(all_ended(span(0, 0, 0), 40, &last).held);
        assert!(!all_ended(span(1, 0, 0), 40, &last).held);
        last.in_flight = 1;
        assert!(!all_ended(span(0, 0, 0), 40, &last).held);
    }

    #[test]
    fn latencies_are_told_as_finely_as_they_matter() {
        assert_eq!([0.94, 42.4, 2750.0].map(milliseconds), ["0.9 ms", "42 ms", "2.7 s"]);
    }

    #[test]
    fn numbers_have_separators() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
    }
}
