//! Ends: of workers, of the broker process, and of everything.

use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::children;
use crate::fate::{Ended, Fate};
use crate::keeper::{AT_MOST, BRIEFLY, Broker, FAILED, Keeper, LastWord, Trial, say};
use crate::start::SALVAGE_AFTER;
use crate::wire::{BY_SIGNAL, EXIT, Item};

impl Keeper {
    pub(crate) fn look_at_broker(&mut self) {
        let ended = |broker: &Broker| !matches!(children::has_ended(broker.pid), Ok(false));
        if self.broker.as_ref().is_some_and(ended) {
            // What it said last counts; then it is gone.
            self.listen();
            if let Some(broker) = self.broker.take() {
                let status = children::reap(broker.pid);
                self.broker_ended(broker, status);
            }
        }
    }

    fn broker_ended(&mut self, broker: Broker, status: u64) {
        self.outbox.clear();
        let now = Instant::now();
        match broker.last_word {
            Some(LastWord::End(code)) => {
                // It may have had more to do than its app, and failed at that.
                let failed = (1..BY_SIGNAL).contains(&status);
                self.code = Some(if failed { code_of(status) } else { code });
                return;
            }
            Some(LastWord::Upgrade(key, image)) => {
                let old = std::mem::replace(&mut self.program.image, image);
                self.trial = Some(Trial { key, old, until: now + AT_MOST });
                self.start_at = Some(now);
                return;
            }
            None => {}
        }
        if let Some(trial) = self.trial.take() {
            let early = broker.ready.is_none();
            let fate = if early { Fate::EndedEarly(status) } else { Fate::EndedSoon(status) };
            return self.give_up(trial, fate);
        }
        let never_began = broker.ready.is_none() && self.table.entries.is_empty();
        if !self.begun && status < BY_SIGNAL || never_began && self.failures + 1 >= SALVAGE_AFTER {
            // What it said of the reason is all there is to say.
            self.code = Some(code_of(status));
            return;
        }
        say(&format!("the broker process {}: another one goes on", Ended(status)));
        let proved = broker.ready.is_some_and(|ready| now - ready >= PROVED);
        self.failures = if proved { 0 } else { self.failures + 1 };
        let shift = self.failures.saturating_sub(2).min(16);
        let wait = if self.failures < 2 { Duration::ZERO } else { (BACKOFF * (1 << shift)).min(LONGEST) };
        self.start_at = Some(now + wait);
    }

    /// The new image failed: the old one goes on.
    pub(crate) fn give_up(&mut self, trial: Trial, fate: Fate) {
        // What it was killed for is the reason, not that it then died.
        let fate = self.fate.map_or(fate, |(_, fate)| fate);
        say(&format!("the new image is given up: {fate}"));
        self.program.image = trial.old;
        self.fate = Some((trial.key, fate));
        self.start_at = Some(Instant::now());
    }

    /// Reaps all who have ended, workers with what is left of their group; but nobody as long as a broker process takes
    /// over.
    pub(crate) fn reap(&mut self) {
        if self.is_alone() {
            return;
        }
        while let Some(pid) = children::ended() {
            if self.broker.as_ref().is_some_and(|broker| broker.pid == pid) {
                return self.look_at_broker();
            }
            let worker = self.table.worker(pid);
            if worker.is_some() {
                children::kill_group(pid);
            }
            let status = children::reap(pid);
            if let Some((key, entry)) = worker {
                entry.exit = Some(status);
                self.outbox.push_back(Item::new(EXIT, key, status));
            }
        }
    }

    pub(crate) fn kill_broker(&mut self) {
        self.owed = Duration::ZERO;
        if let Some(broker) = &mut self.broker {
            broker.gone_by = None;
            children::kill(broker.pid);
        }
    }

    /// Nothing is left behind: workers, and whoever has lost its parent below us.
    pub(crate) fn end_all(&mut self) {
        if let Some(broker) = self.broker.take() {
            // Reaped below, if it can be.
            children::kill(broker.pid);
        }
        for pid in self.table.living() {
            children::kill_group(pid);
            children::kill(pid);
        }
        let until = Instant::now() + LAST_WAIT;
        loop {
            while let Some(pid) = children::ended() {
                children::reap(pid);
            }
            let left: Vec<Pid> =
                children::all().into_iter().filter(|pid| !self.before.contains(pid)).collect();
            if left.is_empty() || Instant::now() > until {
                return;
            }
            left.into_iter().for_each(children::kill);
            std::thread::sleep(BRIEFLY);
        }
    }
}

fn code_of(status: u64) -> u8 {
    let signal = status.checked_sub(BY_SIGNAL);
    let code = signal.map_or(status, |signal| (128 + signal).min(255));
    u8::try_from(code).unwrap_or(FAILED)
}

/// A broker process that was ready for so long has not failed at its start.
const PROVED: Duration = Duration::from_secs(1);
const BACKOFF: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
const LAST_WAIT: Duration = Duration::from_secs(2);
