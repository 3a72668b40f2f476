//! Memory and CPU of the workers, looked up when somebody asks and never in between.

use std::collections::BTreeMap;
use std::time::Duration;

use shiftboss_core::time::Time;

use crate::os::{clock, usage};

/// CPU time per process at the last look.
#[derive(Default)]
pub(crate) struct Usages {
    before: BTreeMap<u32, Sample>,
    now: BTreeMap<u32, Sample>,
    begun: Option<Time>,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Time,
    cpu_ns: u64,
}

impl Usages {
    /// A new look at all processes begins. What was seen at the last one is what CPU time is measured from, unless that
    /// is so short ago that nothing can be measured.
    pub(crate) fn begin(&mut self) {
        let now = clock::now();
        if self.begun.is_none_or(|begun| now.since(begun) >= SHORTEST) {
            self.begun = Some(now);
            self.before = std::mem::take(&mut self.now);
        } else {
            self.now.clear();
        }
    }

    /// Resident bytes, and CPU in percent of a core since the last look (since its start at the first).
    pub(crate) fn look(&mut self, pid: u32, started_at: Time) -> (Option<u64>, Option<f64>) {
        let now = clock::now();
        let before = self.before.get(&pid).copied().unwrap_or(Sample { at: started_at, cpu_ns: 0 });
        let cpu = usage::cpu_ns(pid).map(|cpu_ns| {
            self.now.insert(pid, Sample { at: now, cpu_ns });
            let passed = now.since(before.at).as_nanos().max(1);
            let used = u128::from(cpu_ns.saturating_sub(before.cpu_ns));
            ((used * 1000 / passed) as f64) / 10.0
        });
        (usage::rss_bytes(pid), cpu)
    }
}

/// CPU time is counted in ticks of 10 ms.
const SHORTEST: Duration = Duration::from_secs(1);
