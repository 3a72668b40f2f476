//! What is promised once faults have stopped: within a bounded time everything is as wanted, and rests.

use shiftboss_core::id::Slot;
use shiftboss_core::{Command, Time, Verb};

use crate::oracle::{Broken, Oracle, target};

impl Oracle {
    /// After a time in which everything worked and nobody asked for anything: every broker is as wanted (L1), or stays
    /// sent home (L6), commands are answered (L3), and nothing is waited for (L4) but recycles by time.
    pub fn is_at_rest(&mut self, deadline: Option<Time>) -> Result<(), Broken> {
        let facts = &self.facts;
        let timed = self.recycles_by_time();
        let (mut held, mut open) = (0, 0);
        for id in facts.ids() {
            let broker = facts.broker(id);
            let workers = facts.of(id).count();
            let claim = &self.claimed.brokers[id.0 as usize];
            if broker.held {
                held += 1;
                if workers > 0 || broker.quieting.is_some() || broker.shutting.is_some() {
                    return at_rest("L6", format!("broker {id} was sent home and has {workers} workers"));
                }
                continue;
            }
            open += 1;
            if broker.listens && !broker.listening {
                return at_rest("L1", format!("broker {id} does not listen"));
            }
            // A recycle by time may be under way.
            if timed {
                continue;
            }
            let whole = (0..broker.wanted)
                .map(Slot)
                .all(|slot| facts.of(id).any(|(_, process)| process.slot == Some(slot) && process.serves()));
            let spares = facts.of(id).filter(|(_, process)| process.is_spare()).count();
            let launch = target(broker, &self.specs).launch;
            let old = facts.of(id).find(|(_, process)| process.launch != launch);
            // A version that nobody was there to run has no standbys.
            let untried = broker.wanted == 0 && broker.generation != broker.target;
            let standby = if untried { spares } else { broker.standby as usize };
            if !whole || workers != broker.wanted as usize + standby || spares != standby {
                let wanted = broker.wanted;
                let what = format!(
                    "broker {id} has {workers} workers, {spares} at the door, not all ready; {wanted} and {standby} are \
                     wanted"
                );
                return at_rest("L1", what);
            }
            if let Some((worker, process)) = old {
                let (runs, target) = (process.generation, broker.target);
                return at_rest("L1", format!("worker {worker} runs generation {runs}; {target} is wanted"));
            }
            if claim.degraded || claim.recycling || (claim.generation != claim.target && broker.wanted > 0) {
                return at_rest("L1", format!("broker {id} has what is wanted and says: {claim:#?}"));
            }
        }
        // Who was resumed outside of its window is answered when that begins.
        let later = |command: &Command| match command {
            Command::Broker(id, Verb::Resume) => facts.broker(*id).is_outside(),
            Command::Broker(..) | Command::Stop => false,
        };
        if let Some(open) = facts.open.iter().find(|(_, command)| !later(command)) {
            return at_rest("L3", format!("not answered: {open:?}"));
        }
        if let Some(at) = deadline.filter(|_| !timed) {
            return at_rest("L4", format!("nothing is left to do, and yet a timer is armed for {at}"));
        }
        for (name, times) in [("L1", open), ("L3", 1), ("L4", u64::from(!timed)), ("L6", held)] {
            *self.premises.entry(name).or_insert(0) += times;
        }
        Ok(())
    }

    /// Whether something is always waited for.
    fn recycles_by_time(&self) -> bool {
        let every = |id| target(self.facts.broker(id), &self.specs).recycle.every;
        self.facts
            .ids()
            .any(|id| !self.facts.broker(id).held && every(id).is_some_and(|every| !every.is_zero()))
    }
}

fn at_rest(invariant: &'static str, what: String) -> Result<(), Broken> {
    Err(Broken { invariant, what })
}
