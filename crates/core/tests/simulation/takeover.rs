//! The broker process dies, at any point of a step, and another goes on with the app that it restores from the records.
//! What must be so then: it is the same app (I40) and does the same later (I41), the operating system and it know of
//! the same workers, and no signal was sent twice or never (I42b), a successor that fails first does no harm (I43), and
//! one of another build, earlier or later, does as well (I44).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use shiftboss_core::event::RecycleReason;
use shiftboss_core::id::{BrokerId, Generation};
use shiftboss_core::snapshot::{Layout, Records, Refused, Version, restore_in, versions, written};
use shiftboss_core::{Adoption, App, Command, Effect, Input, Time, Verb, What};
use shiftboss_oracle::{Broken, Step};

use crate::memory::Memory;
use crate::options::millis;
use crate::world::{Failure, Plan, Told, World};

/// The records that each step is written to, if this seed has takeovers.
pub(crate) fn records(takeovers: f64) -> Option<Records<Memory>> {
    (takeovers > 0.0).then(|| Records::new_in(Version(3), Memory::of(SMALL.size()), SMALL))
}

/// The app that was not interrupted, for as long as the two are compared.
pub(crate) struct Twin {
    app: App,
    steps: u32,
}

/// How far a step came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing of it was recorded.
    Before,
    /// The writer ended within its writes.
    Within,
    /// It was recorded, and a part of its effects performed.
    After,
}

impl World {
    /// Whether the broker process ends in this step.
    pub(crate) fn dies(&mut self) -> bool {
        self.records.as_ref().is_some_and(|records| records.step() > 0)
            && self.rng.chance(self.faults.takeovers)
    }

    /// Records a step.
    pub(crate) fn record(&mut self) -> Result<(), Failure> {
        let Some(records) = &mut self.records else { return Ok(()) };
        let recorded = records.record(&mut self.app);
        self.require("I40", recorded.is_ok(), || format!("there is no room: {recorded:?}"))
    }

    /// A step in which the broker process ends, and what its successors make of it.
    pub(crate) fn die(&mut self, now: Time, input: Input) -> Result<(), Failure> {
        self.twin = None;
        let before = self.app.clone();
        let end = self.rng.pick(&[End::Before, End::Within, End::After, End::After]);
        let (app, told) = (&mut self.app, input.clone());
        let effects = catch_unwind(AssertUnwindSafe(|| app.handle(now, told)))
            .map_err(|_| vec![Broken { invariant: "I27", what: format!("core panicked at {input:?}") }])?;
        match end {
            End::Before => self.app = before,
            End::Within => {
                self.record_a_part()?;
                self.app = before;
            }
            End::After => {
                self.record()?;
                let done = self.rng.below(effects.len() as u64 + 1) as usize;
                self.took_in_at(now, Told { input: Some(input.clone()), adopted: None }, effects, done)?;
            }
        }
        self.shell_is_gone();
        if end != End::After {
            self.comes_again(input);
        }
        let away = if self.rng.chance(0.5) { Duration::ZERO } else { millis(&mut self.rng, 0, 2000) };
        self.now = self.now + away;
        self.succeed()
    }

    /// The writes of a step up to any of them, or into it.
    fn record_a_part(&mut self) -> Result<(), Failure> {
        let (Some(records), rng) = (&mut self.records, &mut self.rng) else { return Ok(()) };
        records.store_mut().remember();
        let recorded = records.record(&mut self.app);
        let writes = records.store().writes();
        let kept = rng.below(writes.max(1) as u64) as usize;
        let half = rng.chance(0.5);
        records.store_mut().take_back(kept, half);
        self.require("I40", recorded.is_ok(), || format!("there is no room: {recorded:?}"))
    }

    /// What was told to a process that did not record it: most of it is told again.
    fn comes_again(&mut self, input: Input) {
        let soon = millis(&mut self.rng, 0, 50);
        match &input {
            // The keeper tells again what was not acknowledged; the shell looks again.
            Input::Exited { worker, exit } if self.processes.contains_key(worker) => {
                self.plan(Duration::ZERO, Plan::Leave(*worker, *exit));
            }
            Input::Stop { .. } => self.plan(Duration::ZERO, Plan::Now(input)),
            Input::Unseen { worker } if self.processes.contains_key(worker) => {
                self.plan(soon, Plan::Now(input));
            }
            // What was not recorded was not read: it is there again. Of nonsense nobody keeps count.
            Input::Spoke { worker } | Input::HungUp { worker } if self.processes.contains_key(worker) => {
                self.plan(Duration::ZERO, Plan::Now(input));
            }
            // A message may have been read and lost.
            Input::Ready { worker } | Input::Standby { worker } if self.processes.contains_key(worker) => {
                if self.rng.chance(0.7) {
                    self.plan(Duration::ZERO, Plan::Ready(*worker));
                }
            }
            // A client that has lost its connection repeats its command, if it is still there.
            Input::Command { command, .. } => {
                if *command == Command::Stop || self.rng.chance(0.7) {
                    self.plan(soon, Plan::Now(input));
                }
            }
            // The effects that are asked for again have answers again; the clock stays.
            Input::Tick
            | Input::Opened { .. }
            | Input::Quiet { .. }
            | Input::Shut { .. }
            | Input::Window { .. }
            | Input::Changed { .. }
            | Input::Spawned { .. }
            | Input::SpawnFailed { .. }
            | Input::Bound { .. }
            | Input::Unbound { .. }
            | Input::Garbled { .. }
            | Input::Hung { .. }
            | Input::Refused { .. } => {}
            // Whoever wanted it sees that it is not there.
            Input::Begun { .. } => {}
            // Nobody it speaks of is there.
            Input::Exited { .. }
            | Input::Unseen { .. }
            | Input::Ready { .. }
            | Input::Standby { .. }
            | Input::Spoke { .. }
            | Input::HungUp { .. } => {}
        }
    }

    /// Successors, until one lives.
    fn succeed(&mut self) -> Result<(), Failure> {
        self.deaths_cost();
        loop {
            self.some_successors_fail()?;
            let build = self.rng.pick(&[Version(3), Version::NEXT]);
            let app = self.restored(build, "I40")?;
            let same = written(&app) == written(&self.app) && app.status() == self.app.status();
            self.require("I40", same, || "the state restored is not the state recorded".to_owned())?;
            let mut before = std::mem::replace(&mut self.app, app);
            let other = self.is_in_another_version_than(build);
            self.reopen_records(build)?;
            let how = if self.rng.chance(SALVAGES) { Adoption::Salvage } else { Adoption::Whole };
            let effects = self.app.adopt(self.now, how);
            // It may die of it too.
            let (dies, recorded) = (self.rng.chance(0.2), self.rng.chance(0.5));
            if dies && !recorded {
                self.app = before;
                continue;
            }
            if how == Adoption::Whole {
                self.is_unchanged(&before)?;
                let would = before.adopt(self.now, how);
                self.require("I41", would == effects, || "a successor adopts what nobody left".to_owned())?;
            } else {
                self.forget_rungs();
            }
            self.record()?;
            if other {
                let whole = !self.is_in_another_version_than(build);
                self.require("I44", whole, || format!("not all is written anew in {build:?}"))?;
            }
            let most = effects.len();
            let done = if dies { self.rng.below(most as u64 + 1) as usize } else { most };
            self.took_in_at(self.now, Told { input: None, adopted: Some(how) }, effects, done)?;
            if !dies {
                self.all_are_known()?;
                self.twin = (how == Adoption::Whole).then_some(Twin { app: before, steps: COMPARED });
                return Ok(());
            }
            self.shell_is_gone();
        }
    }

    /// An adoption of the whole moves nothing (I42).
    fn is_unchanged(&mut self, before: &App) -> Result<(), Failure> {
        let (is, was) = (&self.app, before);
        let same = is.status() == was.status() && is.roll() == was.roll() && is.deadline() == was.deadline();
        self.require("I42b", same, || "an adoption has changed something".to_owned())
    }

    fn restored(&mut self, build: Version, invariant: &'static str) -> Result<App, Failure> {
        let invariant = if self.is_in_another_version_than(build) { "I44" } else { invariant };
        self.try_restore(build, false).map_err(|refused| {
            vec![Broken { invariant, what: format!("the records are refused: {refused}") }]
        })
    }

    /// What a process makes of the records; one that is given too little is refused.
    fn try_restore(&self, build: Version, forgetful: bool) -> Result<App, Refused> {
        let Some(records) = &self.records else { return Err(Refused::Empty) };
        let specs = |broker, since| self.accepted.get(&(broker, since)).filter(|_| !forgetful).cloned();
        let bound = &self.oracle.claimed().brokers;
        // One may be bound and not told yet, or closed and still there.
        let listens = |broker: BrokerId| {
            let mut held = bound[broker.0 as usize].listen.clone();
            if !self.steps.is_multiple_of(3) {
                let place = (self.steps / 3) as usize % (held.len() + 1);
                held.insert(place, "tcp://:4000".to_owned());
            }
            held
        };
        restore_in(build, records.store().image(), specs, listens)
    }

    /// Whether another build wrote the records, or some of them.
    fn is_in_another_version_than(&self, build: Version) -> bool {
        let Some(records) = &self.records else { return false };
        versions(records.store().image()).is_ok_and(|versions| versions != [build])
    }

    /// A successor writes where its predecessor wrote.
    fn reopen_records(&mut self, build: Version) -> Result<(), Failure> {
        let Some(records) = self.records.take() else { return Ok(()) };
        let adopted = Records::adopt_in(build, records.into_store());
        let why = adopted.as_ref().err().map(ToString::to_string);
        self.records = adopted.ok();
        self.require("I40", why.is_none(), || format!("the records are refused: {why:?}"))
    }

    /// One that is refused, or that fails before it has recorded anything, leaves the records as they were (I43).
    fn some_successors_fail(&mut self) -> Result<(), Failure> {
        if !self.rng.chance(0.3) {
            return Ok(());
        }
        let build = self.rng.pick(&[Version(3), Version::NEXT]);
        let refused = self.try_restore(build, true).is_err();
        self.require("I43", refused, || "a successor does without a specification".to_owned())?;
        let mut failed = self.restored(build, "I40")?;
        drop(failed.adopt(self.now, Adoption::Salvage));
        self.reopen_records(build)?;
        let again = self.restored(build, "I43")?;
        let same = written(&again) == written(&self.app);
        self.require("I43", same, || "a successor that failed has changed the records".to_owned())
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
        if let Some(Input::Begun { spec, .. }) = &step.input {
            let begun = step.effects.iter().find_map(|effect| match effect {
                Effect::Emit(event) if matches!(event.what, What::BrokerStarted { .. }) => event.broker,
                _ => None,
            });
            self.accepted.extend(begun.map(|id| ((id, Generation(1)), (**spec).clone())));
        }
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

/// Steps for which the two are compared.
const COMPARED: u32 = 30;
/// How many of the adoptions give up what is under way.
const SALVAGES: f64 = 0.2;
/// Room for what a seed may have.
const SMALL: Layout = Layout { brokers: 4, slots: 256, workers: 512, commands: 2560 };
