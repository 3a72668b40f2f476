//! The picture below the lines: the app's own table, and how the clients fare.

use jiff::Timestamp;
use shiftboss_api::{Broker, Status};

use super::acts::ACTS;
use super::judge::{Counts, number};
use super::stage::Stage;
use crate::output::{BAD, FAINT, GOOD, Look};
use crate::{table, text};

/// The picture as it is now.
pub(super) fn of(
    stage: &Stage<'_>,
    status: &Status,
    counts: &Counts,
    look: Look,
    now: Timestamp,
) -> Vec<String> {
    // Not to the last column, where some terminals wrap.
    let look = Look { width: look.width.saturating_sub(1), ..look };
    let brokers: Vec<&Broker> = status.brokers.iter().collect();
    let mut table = table::render(status, &brokers, look, now);
    // The last two lines are about the app, which is the same all the time.
    table.truncate(table.len().saturating_sub(2));
    // What may be too much for a low terminal comes last.
    let mut lines = vec![rule(stage, look), requests(counts, stage.excused.get(), look), String::new()];
    lines.extend(table);
    lines
}

/// "── act 3 of 7 ─────────── 21 s of 60 s ──".
fn rule(stage: &Stage<'_>, look: Look) -> String {
    let act = format!("── act {} of {ACTS} ", stage.act.get().max(1));
    let (gone, all) = (stage.plan.elapsed().as_secs(), stage.plan.seconds());
    let time = format!(" {gone} s of about {all} s ──");
    let used = act.chars().count() + time.chars().count();
    let line = format!("{act}{}{time}", "─".repeat(look.width.saturating_sub(used)));
    look.paint(&text::cut(&line, look.width), FAINT)
}

/// "12,204 requests   0 failed   9 in the killed worker   512 refused while drained".
fn requests(counts: &Counts, (inside, drained): (u64, u64), look: Look) -> String {
    let drained = drained.max(counts.refused);
    let failed = (counts.failed + counts.crossed).saturating_sub(inside + drained);
    let mut parts = vec![
        (format!("{} requests", number(counts.sent)), None),
        (format!("{} failed", number(failed)), Some(if failed == 0 { GOOD } else { BAD })),
    ];
    if inside > 0 {
        parts.push((format!("{inside} in the killed worker"), None));
    }
    if drained > 0 {
        parts.push((format!("{} refused while drained", number(drained)), None));
    }
    let mut line = String::new();
    let mut used = 0;
    for (part, style) in parts {
        used += 2 + part.chars().count();
        if used > look.width {
            break;
        }
        line.push_str("  ");
        line.push_str(&style.map_or_else(|| part.clone(), |style| look.paint(&part, style)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::capture::PLAIN;

    #[test]
    fn what_is_excused_is_not_shown_as_failed() {
        let mut counts = Counts { sent: 12_204, failed: 515, refused: 510, crossed: 6, ..Counts::default() };
        let expected = "  12,204 requests  0 failed  9 in the killed worker  512 refused while drained";
        assert_eq!(requests(&counts, (9, 512), PLAIN), expected);
        assert!(expected.chars().count() < 80);
        counts.failed += 2;
        assert!(requests(&counts, (9, 512), PLAIN).contains(" 2 failed"));
    }
}
