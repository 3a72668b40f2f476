//! One broker, as far as commands, listeners and its own claims show it.

use std::collections::{BTreeMap, BTreeSet};

use shiftboss_core::event::RecycleReason;
use shiftboss_core::id::{Generation, LaunchId, Slot, WorkerId};
use shiftboss_core::spec::BrokerSpec;
use shiftboss_core::{Command, Input, Time, Verb, What};

use crate::facts::WINDOW;

#[derive(Clone)]
pub(crate) struct Broker {
    pub(crate) wanted: u32,
    /// With standbys.
    pub(crate) most_wanted: u32,
    pub(crate) standby: u32,
    /// By how many more workers were wanted lately.
    pub(crate) grown: Vec<(Time, u64)>,
    /// It has listeners, or a worker has asked for one.
    pub(crate) listens: bool,
    /// Addresses that are bound.
    pub(crate) bound: BTreeSet<String>,
    pub(crate) scheduled: bool,
    /// Whether it is inside of its window, as the clock last said.
    pub(crate) window: Option<bool>,
    /// Opened by hand outside of it.
    pub(crate) early: bool,
    /// Changes of its files that no recycle has answered.
    pub(crate) changes: Option<Changes>,
    /// The request to the listeners that is not answered yet.
    pub(crate) asked: Option<u32>,
    /// The last answer of the listeners was "open", and no drain has come since.
    pub(crate) listening: bool,
    /// Sent home by command and not called back by one.
    pub(crate) sent_home: bool,
    /// As events tell it: sent home, by hand, by its schedule or because the app ends, and not called back.
    pub(crate) held: bool,
    /// The request by which its queues are being emptied: workers are not asked to leave yet.
    pub(crate) quieting: Option<u32>,
    /// The request by which what is left in its queues is being reset.
    pub(crate) shutting: Option<u32>,
    /// Failures in a row to open its listeners.
    pub(crate) unopened: u32,
    /// Connections reset by the last one.
    pub(crate) refused: u64,
    pub(crate) recycling: bool,
    /// Recycles begun so far.
    pub(crate) recycles: u64,
    /// The newest worker when the last one began.
    pub(crate) newest_before: WorkerId,
    /// Who lived when the recycle began and is to be replaced by it, if that is everybody.
    pub(crate) to_go: BTreeSet<WorkerId>,
    /// Recycles that were asked for while one ran.
    pub(crate) queued: bool,
    /// The only slot that the recycle may touch, if it was asked for one.
    pub(crate) only: Option<Slot>,
    /// Workers killed because they did not leave in time: retired by this recycle, of any kind during it, in this drain.
    pub(crate) cut_by_recycle: u32,
    pub(crate) cut_during_recycle: u32,
    pub(crate) cut_by_drain: u32,
    /// Since when the next recycle by time is waited for.
    pub(crate) timed_since: Time,
    pub(crate) generation: Generation,
    pub(crate) target: Generation,
    pub(crate) launches: BTreeMap<Generation, LaunchId>,
    /// What a worker has run that became ready.
    pub(crate) worked: BTreeSet<LaunchId>,
    /// Generations that a failed recycle has given up.
    pub(crate) failed: BTreeSet<Generation>,
    pub(crate) streaks: BTreeMap<Slot, Streak>,
    /// Of standbys, since one was at the door.
    pub(crate) standby_streak: Option<Streak>,
    /// Ends that nobody asked for, of each slot, since somebody mended something.
    pub(crate) failures: BTreeMap<Slot, u32>,
    pub(crate) deaths: u64,
    /// Slots in back-off, and until when.
    pub(crate) waits: BTreeMap<Slot, Time>,
}

/// Changes of files while a broker was open.
#[derive(Clone, Copy)]
pub(crate) struct Changes {
    pub(crate) first: Time,
    pub(crate) last: Time,
    /// Nothing else has replaced the workers since.
    pub(crate) owed: bool,
}

/// Deaths of a slot without a worker that was ready, or a command, in between.
#[derive(Clone, Copy)]
pub(crate) struct Streak {
    pub(crate) deaths: u32,
    pub(crate) last: Time,
}

impl Broker {
    pub(super) fn new(spec: &BrokerSpec) -> Broker {
        Broker {
            wanted: spec.workers,
            most_wanted: spec.workers + spec.standby,
            standby: spec.standby,
            grown: Vec::new(),
            listens: spec.listens,
            bound: BTreeSet::new(),
            scheduled: spec.scheduled,
            window: None,
            early: false,
            changes: None,
            asked: None,
            listening: false,
            sent_home: false,
            held: false,
            quieting: None,
            shutting: None,
            unopened: 0,
            refused: 0,
            recycling: false,
            recycles: 0,
            newest_before: WorkerId(0),
            to_go: BTreeSet::new(),
            queued: false,
            only: None,
            cut_by_recycle: 0,
            cut_during_recycle: 0,
            cut_by_drain: 0,
            timed_since: Time(0),
            generation: Generation(1),
            target: Generation(1),
            launches: BTreeMap::from([(Generation(1), spec.launch)]),
            worked: BTreeSet::new(),
            failed: BTreeSet::new(),
            streaks: BTreeMap::new(),
            standby_streak: None,
            failures: BTreeMap::new(),
            deaths: 0,
            waits: BTreeMap::new(),
        }
    }

    /// Whether its schedule keeps it closed.
    pub(crate) fn is_outside(&self) -> bool {
        self.scheduled && self.window != Some(true) && !self.early
    }

    /// Whether it keeps workers alive.
    pub(crate) fn is_open(&self) -> bool {
        !self.held && (self.listening || !self.listens)
    }

    /// Counts a failure of a slot; a worker that has proved itself starts the count anew.
    pub(super) fn count(&mut self, slot: Slot, now: Time, proved: bool, failed: bool) {
        if proved {
            self.streaks.remove(&slot);
        }
        if failed {
            let streak = self.streaks.entry(slot).or_insert(Streak { deaths: 0, last: now });
            streak.deaths += 1;
            streak.last = now;
        }
    }

    /// Counts a failure of a standby; another that has proved itself starts the count anew.
    pub(super) fn count_standby(&mut self, now: Time, proved: bool) {
        let deaths = self.standby_streak.filter(|_| !proved).map_or(0, |streak| streak.deaths) + 1;
        self.standby_streak = Some(Streak { deaths, last: now });
    }

    /// Somebody has mended something: failures no longer count.
    pub(super) fn forgive(&mut self) {
        self.streaks.clear();
        self.standby_streak = None;
        self.waits.clear();
    }

    /// So many standbys from now on.
    pub(super) fn wants_standbys(&mut self, now: Time, standby: u32) {
        if standby > self.standby {
            self.grown.push((now, u64::from(standby - self.standby)));
        }
        self.standby = standby;
        self.most_wanted = self.most_wanted.max(self.wanted + standby);
    }

    pub(super) fn take_event(&mut self, now: Time, input: Option<&Input>, what: &What) {
        match what {
            What::BrokerDraining => {
                self.held = true;
                self.unopened = 0;
                self.cut_by_drain = 0;
                self.listening = false;
                self.asked = None;
                // Who was not asked to leave may be called back.
                self.changes.iter_mut().for_each(|changes| changes.owed = false);
                self.forgive();
            }
            What::BrokerDrained { .. } => self.changes = None,
            What::BrokerResumed | What::BrokerOpened => {
                self.held = false;
                self.timed_since = now;
            }
            What::BrokerStarted { scheduled, .. } => {
                self.held = *scheduled;
                self.timed_since = now;
            }
            What::BrokerClosed => self.held = true,
            What::BrokerWaiting { .. } => {
                self.held = false;
                self.listening = false;
            }
            What::BrokerScaled { wanted } => {
                let more = wanted.saturating_sub(self.wanted);
                self.grown.retain(|(at, _)| now.since(*at) < WINDOW);
                self.grown.push((now, u64::from(more)));
                self.wanted = *wanted;
                self.most_wanted = self.most_wanted.max(*wanted + self.standby);
                self.forgive();
            }
            What::WorkerBackoff { slot: Some(slot), retry_at, .. } => {
                self.waits.insert(*slot, *retry_at);
            }
            What::RecycleStarted { target, reason, .. } => {
                self.recycling = true;
                self.recycles += 1;
                (self.cut_by_recycle, self.cut_during_recycle) = (0, 0);
                self.only = match input {
                    Some(Input::Command { command: Command::Broker(_, Verb::Recycle(only)), .. }) => *only,
                    _ => None,
                };
                if *reason == RecycleReason::ByTime || *target > self.target {
                    self.timed_since = now;
                }
                self.queued &= *reason != RecycleReason::Asked;
                match reason {
                    RecycleReason::FilesChanged => self.changes = None,
                    RecycleReason::Asked => self.changes.iter_mut().for_each(|changes| changes.owed = false),
                    RecycleReason::ByTime | RecycleReason::NewSpecification | RecycleReason::GoingBack => {}
                }
                self.target = *target;
                self.forgive();
                let launch = match input {
                    _ if *reason == RecycleReason::GoingBack => self.launches.get(&self.generation).copied(),
                    Some(Input::Command { command: Command::Broker(_, Verb::Respecify(spec)), .. }) => {
                        Some(spec.launch)
                    }
                    _ => None,
                };
                if let Some(launch) = launch {
                    self.launches.entry(*target).or_insert(launch);
                }
            }
            What::RecycleFinished { generation, .. } => {
                self.recycling = false;
                self.generation = *generation;
                self.forgive();
            }
            What::RecycleFailed { target, generation, slot, .. } => {
                self.recycling = false;
                self.generation = *generation;
                self.forgive();
                if slot.is_some() && target != generation {
                    self.failed.insert(*target);
                }
            }
            _ => {}
        }
    }
}
