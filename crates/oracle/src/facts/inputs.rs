//! What happened.

use shiftboss_core::id::{RequestId, WorkerId};
use shiftboss_core::{Command, Exit, Input, Verb};

use crate::facts::{Broker, Changes, End, Facts, MOST_OPEN, Process, is_fault, says_ready};
use crate::oracle::{Specs, target};

impl Facts {
    pub(crate) fn take_input(&mut self, specs: &Specs, input: &Input) {
        self.forget_the_last_to_go();
        match input {
            Input::Spawned { worker, pid } => {
                let (now, lateness) = (self.now, self.lateness);
                if let Some(process) = self.living.get_mut(worker).filter(|process| process.started.is_none())
                {
                    process.started = Some(now);
                    process.pid = Some(*pid);
                    process.lateness = lateness;
                }
            }
            Input::SpawnFailed { worker, .. } => {
                if self.living.get(worker).is_some_and(|process| process.started.is_none()) {
                    self.leaves(specs, *worker, None);
                    self.spawn_failures += 1;
                }
            }
            Input::Exited { worker, exit } => {
                if self.living.contains_key(worker) {
                    self.leaves(specs, *worker, Some(*exit));
                    self.exits += 1;
                }
            }
            Input::Ready { worker } => {
                let now = self.now;
                if let Some(process) = self.living.get_mut(worker)
                    && process.is_starting()
                    && process.slot.is_some()
                    && says_ready(&specs[&process.launch])
                {
                    process.ready = Some(now);
                }
            }
            Input::Standby { worker } => {
                if let Some(process) = self.living.get_mut(worker)
                    && process.is_starting()
                    && process.slot.is_none()
                {
                    self.brokers[process.broker.0 as usize].standby_streak = None;
                    // It runs, and nobody has stopped it.
                    (process.at_door, process.doubtful) = (true, false);
                    process.stood = Some(self.now);
                }
            }
            Input::Opened { broker, round, result } => {
                if let Some(broker) = self.brokers.get_mut(broker.0 as usize)
                    && broker.asked == Some(*round)
                {
                    broker.asked = None;
                    broker.listening = result.is_ok();
                    broker.bound.extend(result.iter().flatten().cloned());
                    broker.unopened = if result.is_ok() { 0 } else { broker.unopened + 1 };
                }
            }
            Input::Quiet { broker, round } => {
                if let Some(broker) = self.brokers.get_mut(broker.0 as usize) {
                    broker.quieting.take_if(|asked| asked == round);
                }
            }
            Input::Shut { broker, round, refused } => {
                if let Some(broker) = self.brokers.get_mut(broker.0 as usize)
                    && broker.shutting.take_if(|asked| asked == round).is_some()
                {
                    broker.refused = *refused;
                }
            }
            Input::Window { broker, open } => {
                if let Some(broker) = self.brokers.get_mut(broker.0 as usize).filter(|of| of.scheduled) {
                    broker.window = Some(*open);
                    broker.early &= !open;
                }
            }
            Input::Changed { broker } => {
                let (now, any) = (self.now, self.of(*broker).next().is_some());
                if let Some(broker) = self.brokers.get_mut(broker.0 as usize)
                    && (any || broker.is_open())
                    && target(broker, specs).watch.is_some()
                {
                    let first = broker.changes.map_or(now, |changes| changes.first);
                    broker.changes = Some(Changes { first, last: now, owed: broker.is_open() });
                }
            }
            Input::Command { request, command } => self.take_command(*request, command),
            Input::Stop { now } => {
                self.stopping = true;
                self.brutal |= now;
            }
            Input::Spoke { worker } => {
                if let Some(process) = self.living.get_mut(worker) {
                    process.spoke = true;
                }
            }
            Input::HungUp { worker } => {
                let now = self.now;
                if let Some(process) = self.living.get_mut(worker).filter(|process| process.hears()) {
                    process.hung_up = Some(now);
                }
            }
            Input::Garbled { worker } | Input::Refused { worker } => {
                if let Some(process) = self.living.get_mut(worker) {
                    process.garbled = true;
                }
            }
            Input::Hung { worker } => {
                if let Some(process) = self.living.get_mut(worker) {
                    (process.garbled, process.hung) = (true, true);
                }
            }
            Input::Bound { broker, address } => {
                if let Some(broker) = self.brokers.get_mut(broker.0 as usize) {
                    broker.bound.insert(address.clone());
                    // Its listeners that were asked for before were not answered, or will be.
                    broker.listening |= !broker.listens && !broker.held;
                    broker.listens = true;
                }
            }
            Input::Unbound { broker, address } => {
                if let Some(broker) = self.brokers.get_mut(broker.0 as usize) {
                    broker.bound.remove(address);
                }
            }
            Input::Begun { spec, .. } => {
                if !self.stopping {
                    self.brokers.push(Broker::new(spec));
                }
            }
            Input::Tick | Input::Unseen { .. } => {}
        }
    }

    /// Nobody has gone in this step yet.
    pub(crate) fn forget_the_last_to_go(&mut self) {
        self.missed = false;
        self.served = false;
        self.standby_failed = false;
        self.end = None;
    }

    fn take_command(&mut self, request: RequestId, command: &Command) {
        if self.answered.contains_key(&request) || self.open.contains_key(&request) {
            return;
        }
        self.open.insert(request, command.clone());
        // It is to be refused.
        if self.open.len() > MOST_OPEN && *command != Command::Stop {
            return;
        }
        match command {
            Command::Stop => self.stopping = true,
            Command::Broker(..) if self.stopping => {}
            Command::Broker(id, verb) => {
                let Some(broker) = self.brokers.get_mut(id.0 as usize) else { return };
                match verb {
                    Verb::Drain => {
                        broker.sent_home = true;
                        broker.early = false;
                    }
                    Verb::Resume | Verb::ResumeNow => {
                        broker.early |= *verb == Verb::ResumeNow && broker.is_outside();
                        broker.sent_home = false;
                        broker.forgive();
                    }
                    Verb::Recycle(slot) => {
                        let slot = *slot;
                        let asked = |process: &Process| {
                            process.broker == *id
                                && process.started.is_some()
                                && process.stays()
                                && slot.is_none_or(|slot| process.slot == Some(slot))
                        };
                        let to_replace = self.living.iter().filter(|(_, process)| asked(process));
                        self.to_replace.insert(request, to_replace.map(|(worker, _)| *worker).collect());
                        broker.queued |= broker.recycling;
                        broker.forgive();
                    }
                    Verb::Respecify(_) => broker.forgive(),
                    Verb::Scale(_) => {}
                }
            }
        }
    }

    /// A worker is gone, or was never there.
    fn leaves(&mut self, specs: &Specs, worker: WorkerId, exit: Option<Exit>) {
        let Some(gone) = self.living.remove(&worker) else { return };
        let reason = gone.leaving.as_ref().map(|(_, reason)| reason.as_str());
        let unready = reason.is_some_and(is_fault);
        let asked = reason.is_some() && !unready;
        let others = |(_, other): (&WorkerId, &Process)| other.slot == gone.slot;
        let alone = gone.slot.is_some() && !self.of(gone.broker).any(others);
        let home = self.broker(gone.broker).held;
        let healthy_after = target(self.broker(gone.broker), specs).backoff.healthy_after;
        let now = self.now;
        let ready_for_long = gone.ready.is_some_and(|since| self.now.since(since) >= healthy_after);
        // Of one that was asked to leave counts what it had done by then.
        self.proved = if gone.leaving.is_some() { gone.proved } else { ready_for_long };
        let clean = exit == Some(Exit::Code(0)) && !unready;
        let failed = !(asked || home || clean && self.proved);
        self.missed = alone && failed && !gone.doubtful && !gone.dropped;
        self.standby_failed = gone.slot.is_none() && failed && !gone.doubtful;
        let death = match exit {
            None => true,
            Some(exit) => unready || (!asked && !home && exit != Exit::Code(0)),
        };
        let broker = &mut self.brokers[gone.broker.0 as usize];
        broker.standby_streak.take_if(|_| gone.has_stood(now, healthy_after));
        broker.deaths += u64::from(death);
        broker.cut_by_drain += u32::from(gone.killed);
        let moved = gone.slot.is_some() && reason == Some("recycled");
        let retired = moved && gone.left_in == broker.recycles && !gone.dropped;
        broker.cut_by_recycle += u32::from(gone.killed && retired);
        broker.cut_during_recycle += u32::from(gone.killed);
        if let Some(slot) = gone.slot {
            *broker.failures.entry(slot).or_insert(0) += u32::from(!asked);
        }
        self.served = alone && gone.serves();
        self.end = Some(End {
            worker,
            broker: gone.broker,
            slot: gone.slot,
            pid: gone.pid,
            death,
            exit,
            forced: gone.killed,
        });
    }
}
