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

#[derive(Default)]
pub(super) struct Outside {
    #[cfg(feature = "schedule")]
    clocks: Clocks,
    #[cfg(feature = "watch")]
    files: Option<(Files, tokio::sync::mpsc::UnboundedReceiver<Seen>)>,
}

impl Outside {
    pub(super) fn new(shells: &[Shell], workers: &Workers) -> std::io::Result<Outside> {
        let mut outside = Outside::default();
        for (broker, shell) in (0..).map(BrokerId).zip(shells) {
            outside.prepare(shell, workers)?;
            outside.add(broker, shell);
        }
        Ok(outside)
    }

    /// All that can fail, before a broker is added.
    pub(super) fn prepare(&mut self, shell: &Shell, workers: &Workers) -> std::io::Result<()> {
        #[cfg(feature = "schedule")]
        if shell.schedule.is_some() {
            self.clocks.prepare(|timer| workers.also_hear_clock(timer))?;
        }
        #[cfg(feature = "watch")]
        if shell.watch.is_some() && self.files.as_ref().is_none_or(|(files, _)| files.has_ended()) {
            let (tell, seen) = tokio::sync::mpsc::unbounded_channel();
            self.files = Some((Files::new(tell)?, seen));
        }
        let _ = (shell, workers);
        Ok(())
    }

    /// One more is looked at; the others are as before.
    pub(super) fn add(&mut self, broker: BrokerId, shell: &Shell) {
        #[cfg(feature = "schedule")]
        if let Some(schedule) = &shell.schedule {
            self.clocks.add(broker, schedule.clone());
        }
        #[cfg(feature = "watch")]
        if let (Some(watch), Some((files, _))) = (&shell.watch, &self.files) {
            files.add(Subject { broker, name: shell.name.to_string(), watch: watch.clone() });
        }
        let _ = (broker, shell);
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
