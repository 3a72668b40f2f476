//! The last page: what was promised and what came of it, at most 24 lines of 80 columns, or one JSON object.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::acts::Act;
use super::judge::{Counts, Span, milliseconds, number};
use crate::exit::Trouble;
use crate::output::{BAD, FAINT, GOOD, Look, Output};
use crate::text;

/// The whole demo.
pub(super) struct Summary<'a> {
    pub(super) acts: &'a [Act],
    pub(super) counts: &'a Counts,
    /// Failures that are excused: inside the killed worker; while drained.
    pub(super) excused: (u64, u64),
    pub(super) took: Duration,
}

impl Summary<'_> {
    /// Every promise was kept.
    pub(super) fn held(&self) -> bool {
        self.acts.iter().all(Act::held) && self.unexpected() == 0
    }

    /// Failures that no promise excuses.
    fn unexpected(&self) -> u64 {
        let (inside, drained) = self.excused;
        self.total().failed.saturating_sub(inside + drained)
    }

    fn total(&self) -> Span {
        let mut total = Span::default();
        self.acts.iter().for_each(|act| total += act.span);
        total
    }

    /// Prints it on standard output.
    pub(super) fn print(&self, output: &Output) -> Result<(), Trouble> {
        if output.json {
            return output.line(&self.json());
        }
        self.lines(output.out).iter().try_for_each(|line| output.line(line))
    }

    fn lines(&self, look: Look) -> Vec<String> {
        let title = format!("   {:15}{:9}{:>9}{:>8}   NOTE", "ACT", "PROMISE", "REQUESTS", "FAILED");
        let mut lines = vec![look.paint(&title, FAINT)];
        for (at, act) in self.acts.iter().enumerate() {
            let (word, style) = if act.held() { ("held", GOOD) } else { ("BROKEN", BAD) };
            let (requests, failed) = (number(act.span.requests), number(act.span.failed));
            let line = format!("{}  {:15}{word:9}{requests:>9}{failed:>8}   {}", at + 1, act.name, act.note);
            lines.push(text::cut(&line, look.width.max(60)).replacen(word, &look.paint(word, style), 1));
        }
        lines.push(String::new());
        lines.push(self.verdict(look));
        lines.extend(self.accounts());
        lines.extend(self.broken());
        lines.truncate(LINES);
        lines
    }

    fn verdict(&self, look: Look) -> String {
        let broken = self.acts.iter().filter(|act| !act.held()).count();
        let (requests, took) = (number(self.total().requests), text::took(self.took));
        if self.held() {
            let verdict = look.paint("All promises held", GOOD);
            return format!("{verdict}: of {requests} requests in {took} none failed but these:");
        }
        let count = text::count(u32::try_from(broken).unwrap_or(u32::MAX), "promise");
        let verdict = look.paint(&format!("{count} broken"), BAD);
        let unexpected = number(self.unexpected());
        format!("{verdict}: {requests} requests in {took}, {unexpected} failed besides these:")
    }

    fn accounts(&self) -> Vec<String> {
        let (inside, drained) = self.excused;
        let ms = |ms: Option<f64>| ms.map_or_else(|| "-".into(), milliseconds);
        vec![
            format!("  {:>7} inside the worker we killed: lost with it", number(inside)),
            format!("  {:>7} refused while the broker was drained, as asked", number(drained)),
            format!(
                "  latency p50 {}, p99 {} (a tenth of the requests ask for 0.5 to 3 s)",
                ms(self.counts.p50_ms),
                ms(self.counts.p99_ms)
            ),
        ]
    }

    /// What broke, and the kinds of failure that there were.
    fn broken(&self) -> Vec<String> {
        if self.held() {
            return Vec::new();
        }
        let mut lines = vec![String::new()];
        for act in self.acts {
            let broken = act.findings.iter().filter(|finding| !finding.held);
            lines.extend(broken.map(|finding| text::cut(&format!("✗ {}: {}", act.name, finding.text), 80)));
        }
        let kinds: Vec<String> =
            self.counts.by_kind.iter().map(|(kind, count)| format!("{} {kind}", number(*count))).collect();
        if !kinds.is_empty() {
            lines.push(text::cut(&format!("failures by kind: {}", kinds.join(", ")), 80));
        }
        lines
    }

    fn json(&self) -> String {
        let (inside, drained) = self.excused;
        let total = self.total();
        let acts: Vec<_> = self.acts.iter().map(|act| Line { held: act.held(), act }).collect();
        json!({
            "held": self.held(),
            "seconds": (self.took.as_secs_f64() * 10.0).round() / 10.0,
            "requests": total.requests,
            "failed": total.failed,
            "unexpected": self.unexpected(),
            "lost_in_killed_worker": inside,
            "refused_while_drained": drained,
            "by_kind": self.counts.by_kind,
            "p50_ms": self.counts.p50_ms,
            "p99_ms": self.counts.p99_ms,
            "acts": acts,
        })
        .to_string()
    }
}

#[derive(Serialize)]
struct Line<'a> {
    held: bool,
    #[serde(flatten)]
    act: &'a Act,
}

/// One screen.
const LINES: usize = 24;

#[cfg(test)]
mod tests {
    use super::super::judge::Finding;
    use super::*;
    use crate::output::capture::PLAIN;

    fn act(name: &'static str, failed: u64, excused: u64, held: bool) -> Act {
        let span = Span { requests: 1200, failed, refused: 0, crossed: 0 };
        let findings = vec![Finding::new(held, "seen ".repeat(30))];
        Act { name, span, excused, note: "a remark".into(), findings }
    }

    fn of(acts: &[Act]) -> Summary<'_> {
        static COUNTS: std::sync::LazyLock<Counts> = std::sync::LazyLock::new(Counts::default);
        let inside = acts.iter().map(|act| act.excused).sum();
        Summary { acts, counts: &COUNTS, excused: (inside, 0), took: Duration::from_secs(60) }
    }

    #[test]
    fn the_page_says_what_held() {
        let acts = [act("steady", 0, 0, true), act("kill -9", 9, 9, true)];
        let summary = of(&acts);
        let expected = "   ACT            PROMISE   REQUESTS  FAILED   NOTE
1  steady         held         1,200       0   a remark
2  kill -9        held         1,200       9   a remark

All promises held: of 2,400 requests in 1m 0s none failed but these:
        9 inside the worker we killed: lost with it
        0 refused while the broker was drained, as asked
  latency p50 -, p99 - (a tenth of the requests ask for 0.5 to 3 s)";
        assert!(summary.held());
        assert_eq!(summary.lines(PLAIN).join("\n"), expected);
    }

    #[test]
    fn a_failure_that_is_not_excused_breaks_the_whole_even_if_every_act_held() {
        let acts = [act("steady", 1, 0, true)];
        assert!(!of(&acts).held());
        assert!(of(&acts).json().contains(r#""held":false"#));
    }

    #[test]
    fn the_page_fits_on_one_screen_also_when_everything_broke() {
        let acts: Vec<Act> = (0..9).map(|_| act("drain, resume", 5000, 0, false)).collect();
        let lines = of(&acts).lines(PLAIN);
        assert!(lines.len() <= 24, "{lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    }

    #[test]
    fn json_is_one_object() {
        let acts = [act("steady", 0, 0, true)];
        let json: serde_json::Value = serde_json::from_str(&of(&acts).json()).unwrap();
        assert_eq!(json["acts"][0]["act"], "steady");
        assert_eq!((json["acts"][0]["held"].as_bool(), json["requests"].as_u64()), (Some(true), Some(1200)));
    }
}
