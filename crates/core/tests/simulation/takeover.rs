//! Another process takes over: the app is restored from its records. It must be the same (I40), and do the same from
//! then on as the app that was not interrupted (I41).

use shiftboss_core::event::RecycleReason;
use shiftboss_core::snapshot::{Layout, Records, Store, restore, written};
use shiftboss_core::{Adoption, App, Command, Effect, Input, Time, Verb, What};
use shiftboss_oracle::Step;

use crate::world::{Failure, World};

/// The records that each step is written to, if this seed has takeovers.
pub(crate) fn records(takeovers: f64) -> Option<Records<Memory>> {
    (takeovers > 0.0).then(|| Records::new(Memory(vec![0; SMALL.size()]), SMALL))
}

/// The app that was not interrupted, for as long as the two are compared.
pub(crate) struct Twin {
    app: App,
    steps: u32,
}

impl World {
    /// Perhaps the broker process ends here, and another goes on.
    pub(crate) fn take_over(&mut self) -> Result<(), Failure> {
        let Some(mut records) = self.records.take() else { return Ok(()) };
        let recorded = records.record(&mut self.app);
        self.require("I40", recorded.is_ok(), || format!("there is no room: {recorded:?}"))?;
        if !self.rng.chance(self.faults.takeovers) {
            self.records = Some(records);
            return Ok(());
        }
        let specs = |broker, generation| self.accepted.get(&(broker, generation)).cloned();
        let bound = &self.oracle.claimed().brokers;
        let listens = |broker: shiftboss_core::id::BrokerId| bound[broker.0 as usize].listen.clone();
        match restore(&records.store().0, specs, listens) {
            Ok(app) => {
                let Memory(image) = records.store();
                self.records = Records::adopt(Memory(image.clone())).ok();
                let same = written(&app) == written(&self.app) && app.status() == self.app.status();
                let before = std::mem::replace(&mut self.app, app);
                self.twin = Some(Twin { app: before, steps: COMPARED });
                self.require("I40", same, || "the state restored is not the state recorded".to_owned())?;
                self.adopt()
            }
            Err(refused) => self.require("I40", false, || format!("the records are refused: {refused}")),
        }
    }

    /// The successor takes over what is there.
    fn adopt(&mut self) -> Result<(), Failure> {
        let how = if self.rng.chance(SALVAGES) { Adoption::Salvage } else { Adoption::Whole };
        let effects = self.app.adopt(self.now, how);
        match (&mut self.twin, how) {
            (Some(twin), Adoption::Whole) => drop(twin.app.adopt(self.now, how)),
            (_, _) => self.twin = None,
        }
        self.took_in_at(self.now, None, Some(how), effects)
    }

    /// What the app that was not interrupted does with the same input.
    pub(crate) fn compare(&mut self, now: Time, input: &Input, effects: &[Effect]) -> Result<(), Failure> {
        let Some(twin) = &mut self.twin else { return Ok(()) };
        let would = twin.app.handle(now, input.clone());
        let same = would == effects && twin.app.deadline() == self.app.deadline();
        twin.steps -= 1;
        if twin.steps == 0 {
            self.twin = None;
        }
        self.require("I41", same, || {
            format!("after a takeover {input:?} leads to {effects:?}\ninstead of {would:?}")
        })
    }

    /// Each specification, by the generation it came with.
    pub(crate) fn note_specs(&mut self, step: &Step) {
        let Some(Input::Command { command: Command::Broker(id, Verb::Respecify(spec)), .. }) = &step.input
        else {
            return;
        };
        for effect in &step.effects {
            if let Effect::Emit(event) = effect
                && let What::RecycleStarted { target, reason: RecycleReason::NewSpecification, .. } =
                    event.what
                && event.broker == Some(*id)
            {
                self.accepted.insert((*id, target), (**spec).clone());
            }
        }
    }
}

pub(crate) struct Memory(Vec<u8>);

impl Store for Memory {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// Steps for which the two are compared.
const COMPARED: u32 = 30;
/// How many of the adoptions give up what is under way.
const SALVAGES: f64 = 0.2;
/// Room for what a seed may have.
const SMALL: Layout = Layout { brokers: 4, slots: 256, workers: 512, commands: 2560 };
