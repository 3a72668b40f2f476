//! Watching starting workers for their readiness: by their own word, or by seeing them wait for connections.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shiftboss_core::Input;
use shiftboss_core::id::WorkerId;
use shiftboss_core::time::Time;

use crate::os::accepting::{self, ListenerKey, Seen};
use crate::os::clock;

/// Workers that are looked at from outside until they are seen waiting for connections.
#[derive(Default)]
pub(crate) struct Probes {
    due: BTreeSet<(Time, WorkerId)>,
    probes: BTreeMap<WorkerId, Probe>,
}

struct Probe {
    pid: u32,
    listeners: Vec<ListenerKey>,
    next: Time,
    wait: Duration,
}

impl Probes {
    pub(crate) fn watch(&mut self, now: Time, worker: WorkerId, pid: u32, listeners: Vec<ListenerKey>) {
        let next = now + FIRST;
        self.due.insert((next, worker));
        self.probes.insert(worker, Probe { pid, listeners, next, wait: FIRST });
    }

    pub(crate) fn forget(&mut self, worker: WorkerId) {
        if let Some(probe) = self.probes.remove(&worker) {
            self.due.remove(&(probe.next, worker));
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.due.first().map(|(time, _)| *time)
    }

    /// Looks at those whose time has come, a few at once; returns who is seen accepting, or may not be looked at.
    pub(crate) fn look(&mut self, now: Time) -> Vec<Input> {
        // Many at once are looked at less often, so that looking never costs more than about a tenth of a core.
        let crowd = COST * u32::try_from(self.probes.len()).unwrap_or(u32::MAX);
        let mut seen = Vec::new();
        for _ in 0..AT_ONCE {
            let Some((time, worker)) = self.due.first().copied() else { break };
            if time > now {
                break;
            }
            self.due.pop_first();
            let Some(probe) = self.probes.get_mut(&worker) else { continue };
            let begun = clock::now();
            let input = match accepting::look(probe.pid, &probe.listeners) {
                Seen::Accepting => Input::Ready { worker },
                Seen::NotPermitted => Input::Unseen { worker },
                Seen::NotYet => {
                    // A tree that takes long to look at is looked at less often.
                    let took = clock::now().since(begun);
                    probe.wait = (probe.wait * 2).min(LAST).max(crowd).max(took * SHARE);
                    probe.next = now + took + probe.wait;
                    self.due.insert((probe.next, worker));
                    continue;
                }
            };
            self.probes.remove(&worker);
            seen.push(input);
        }
        seen
    }
}

/// Time from one look to the next: short at first, then doubled up to `LAST`.
const FIRST: Duration = Duration::from_millis(5);
const LAST: Duration = Duration::from_millis(50);
const COST: Duration = Duration::from_millis(1);
/// Of the time between two looks a look takes at most one part in so many.
const SHARE: u32 = 20;
const AT_ONCE: usize = 16;
