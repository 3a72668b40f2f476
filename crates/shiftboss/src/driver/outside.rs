//! What moves brokers from outside of the app: the wall clock, for those that have a schedule, and files, for those that
//! watch some. Both become inputs like all others.

use std::collections::VecDeque;

use shiftboss_api as api;
use shiftboss_core::Input;
use shiftboss_core::id::BrokerId;

use super::{Driver, Shell};
#[cfg(feature = "schedule")]
use crate::schedule::Clocks;
#[cfg(feature = "watch")]
use crate::watch::{Files, Subject};
use crate::workers::Workers;

/// What was seen of files.
#[cfg_attr(not(feature = "watch"), expect(dead_code, reason = "nobody looks"))]
pub(crate) enum Seen {
    /// Files of this broker have changed; the first one, as its pattern is written: relative if that is.
    Changed(BrokerId, String),
    /// Words for the log.
    Note(String),
}

pub(super) struct Outside {
    #[cfg(feature = "schedule")]
    clocks: Clocks,
    #[cfg(feature = "watch")]
    files: Option<(Files, tokio::sync::mpsc::UnboundedReceiver<Seen>)>,
}

impl Outside {
    pub(super) fn new(shells: &[Shell], workers: &Workers) -> std::io::Result<Outside> {
        #[cfg(not(feature = "schedule"))]
        let _ = workers;
        #[cfg(not(any(feature = "schedule", feature = "watch")))]
        let _ = shells;
        Ok(Outside {
            #[cfg(feature = "schedule")]
            clocks: {
                let schedules = shells.iter().map(|shell| shell.schedule.clone());
                let clocks = Clocks::new((0..).map(BrokerId).zip(schedules))?;
                if let Some(timer) = clocks.to_wait_for() {
                    workers.also_hear_clock(timer)?;
                }
                clocks
            },
            #[cfg(feature = "watch")]
            files: {
                let subject = |(broker, shell): (BrokerId, &Shell)| {
                    Some(Subject { broker, name: shell.name.to_string(), watch: shell.watch.clone()? })
                };
                let subjects: Vec<Subject> = (0..).map(BrokerId).zip(shells).filter_map(subject).collect();
                let (tell, seen) = tokio::sync::mpsc::unbounded_channel();
                let begin = |subjects| Files::watch(subjects, tell).map(|files| (files, seen));
                (!subjects.is_empty()).then(|| begin(subjects)).transpose()?
            },
        })
    }

    /// The next that is seen of files; never, if nobody looks. Dropping it loses nothing.
    pub(super) async fn seen(&mut self) -> Seen {
        #[cfg(feature = "watch")]
        if let Some((_, seen)) = &mut self.files
            && let Some(seen) = seen.recv().await
        {
            return seen;
        }
        std::future::pending().await
    }

    /// Somebody asks whether a broker is inside of its window.
    pub(super) fn ask_clock(&mut self, broker: BrokerId, inputs: &mut VecDeque<Input>) {
        #[cfg(feature = "schedule")]
        self.clocks.ask(broker, inputs);
        #[cfg(not(feature = "schedule"))]
        let _ = (broker, inputs);
    }

    /// A window begins or ends, or the clock was set.
    pub(super) fn clock_has_come(&mut self, inputs: &mut VecDeque<Input>) {
        #[cfg(feature = "schedule")]
        self.clocks.has_come(inputs);
        #[cfg(not(feature = "schedule"))]
        let _ = inputs;
    }

    /// Tells when the windows of these brokers begin or end.
    pub(super) fn add_changes(&self, brokers: &mut [api::Broker]) {
        #[cfg(feature = "schedule")]
        for (id, broker) in (0..).map(BrokerId).zip(brokers) {
            let works = matches!(broker.state, api::BrokerState::Open | api::BrokerState::Waiting);
            broker.next_change_at = self.clocks.next_change(id, works);
        }
        #[cfg(not(feature = "schedule"))]
        let _ = brokers;
    }
}

impl Driver {
    pub(super) fn take_seen(&mut self, seen: Seen) {
        match seen {
            Seen::Note(words) => self.log.note(&words),
            Seen::Changed(broker, path) => {
                // Of one that is closed or drained the next worker is new anyway.
                if let Some(shell) = self.shells.get(broker.0 as usize)
                    && self.feed.is_open(broker)
                {
                    self.log.note(&format!("{}: {path} has changed", shell.name));
                }
                self.inputs.push_back(Input::Changed { broker });
            }
        }
    }
}
