//! Whether the two processes hold what they held.

use std::fmt;

use crate::app::*;

/// KB of their own (`Pss_Anon`, proc(5)), with the share of the run after which it was seen.
#[derive(Default)]
pub(super) struct Memory {
    keeper: Vec<(f64, u64)>,
    broker: Vec<(f64, u64)>,
}

impl Memory {
    pub(super) fn look(&mut self, app: &App, part: f64) {
        self.keeper.push((part, own(app.pid())));
        self.broker.push((part, own(app.broker_pid())));
    }

    /// The broker process's while it was one and the same; the keeper's until then, and again from the time on in which
    /// it has replaced some, for which it needs memory that it had not before.
    pub(super) fn is_flat(&self) {
        // With so many KB that the most workers and clients at once may need.
        for (name, seen, part, more) in [
            ("broker process", &self.broker, 0.0..0.6, 128),
            ("keeper", &self.keeper, 0.0..0.6, 16),
            ("keeper, after replacing some", &self.keeper, 0.65..1.0, 16),
        ] {
            let place = |share| part.start + share * (part.end - part.start);
            let between = |from, to| median(seen, place(from), place(to));
            let (Some(early), Some(late)) = (between(0.15, 0.4), between(0.75, 1.0)) else { return };
            println!("seen: {name}: {early} KB of its own early, {late} KB late");
            assert!(late <= early + more, "the {name} grows: {seen:?}");
        }
    }
}

fn median(seen: &[(f64, u64)], from: f64, to: f64) -> Option<u64> {
    let mut some: Vec<u64> =
        seen.iter().filter(|(part, _)| (from..to).contains(part)).map(|(_, kilobytes)| *kilobytes).collect();
    some.sort_unstable();
    some.get(some.len() / 2).copied().filter(|_| some.len() >= 3)
}

fn own(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = |seen: &[(f64, u64)]| seen.last().map_or(0, |(_, kilobytes)| *kilobytes);
        write!(f, "keeper {} KB, broker process {} KB", last(&self.keeper), last(&self.broker))
    }
}
