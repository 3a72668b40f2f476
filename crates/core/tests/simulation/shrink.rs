//! A failing seed made small: first whole kinds of fault, brokers and time are left out of the world, then single
//! inputs out of what core was told, as long as the same promise is still broken.

use std::time::Duration;

use shiftboss_core::spec::BrokerSpec;
use shiftboss_core::{App, Input, Time};
use shiftboss_oracle::{Broken, Oracle, Step};

use crate::options::{Faults, Options};
use crate::source;
use crate::world::{Failure, World};

/// Something left out of a world.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    Steps(u32),
    Brokers(usize),
    Workers(u32),
    /// The fault of this number.
    Fault(usize),
}

impl Cut {
    pub(crate) fn apply(self, options: &mut Options) {
        match self {
            Cut::Steps(most) => options.steps = options.steps.min(most),
            Cut::Brokers(most) => options.specs.truncate(most),
            Cut::Workers(most) => {
                for spec in &mut options.specs {
                    spec.workers = spec.workers.min(most);
                }
            }
            Cut::Fault(number) => {
                if let Some(fault) = options.faults.all().into_iter().nth(number) {
                    *fault = 0.0;
                }
            }
        }
    }
}

/// The test that shows the broken promise, ready to be pasted among the scenarios.
pub(crate) fn scenario(seed: u64, failure: &Failure) -> String {
    let Some(first) = failure.first() else { return String::new() };
    let cuts = cuts(seed, first);
    let mut world = World::cut(seed, false, &cuts);
    let broken = world.run().err().unwrap_or_default();
    let case = Case { begun: world.begun, seed: world.app_seed, specs: &world.options().specs };
    let inputs = shorten(&case, world.inputs.clone(), first);
    let Some(note) = broken.iter().find(|broken| broken.invariant == first.invariant) else {
        return String::new();
    };
    if case.breaks(&inputs, first) {
        let name = format!("seed_{seed}_breaks_{}", first.invariant.to_lowercase());
        source::test(&name, &note.to_string(), &case, &inputs)
    } else {
        let steps = world.steps;
        format!("no single call shows it; the shortest run found has {steps} steps, with {cuts:?}:\n{note}")
    }
}

/// Leaves out as much as can be, greedily.
fn cuts(seed: u64, broken: &Broken) -> Vec<Cut> {
    let until = crate::now() + PATIENCE;
    let fails = |cuts: &[Cut]| {
        if crate::now() > until {
            return false;
        }
        let failure = World::cut(seed, false, cuts).run().err().unwrap_or_default();
        failure.iter().any(|other| other.invariant == broken.invariant)
    };
    let mut cuts = Vec::new();
    let faults = (0..Faults::default().all().len()).map(Cut::Fault);
    let steps = [0, 10, 30, 100, 200, 400, 800].map(Cut::Steps);
    let brokers = [1, 2].map(Cut::Brokers);
    let workers = [1, 2, 4].map(Cut::Workers);
    for cut in brokers.into_iter().chain(workers).chain(steps).chain(faults).chain(steps) {
        cuts.push(cut);
        if !fails(&cuts) {
            cuts.pop();
        }
    }
    cuts
}

/// What core is made of and told.
pub(crate) struct Case<'a> {
    pub(crate) begun: Time,
    pub(crate) seed: u64,
    pub(crate) specs: &'a [BrokerSpec],
}

impl Case<'_> {
    /// Whether this promise is broken by these inputs.
    fn breaks(&self, inputs: &[(Time, Input)], broken: &Broken) -> bool {
        let mut app = App::new(self.begun, self.seed, self.specs.to_vec());
        let mut oracle = Oracle::new(self.specs);
        let effects = app.start(self.begun);
        let mut step =
            Step { now: self.begun, input: None, adopted: None, effects, deadline: app.deadline() };
        for (now, input) in inputs {
            if let Err(failure) = oracle.judge(&step) {
                return failure.iter().any(|other| other.invariant == broken.invariant);
            }
            let told = input.clone();
            let called = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| app.handle(*now, told)));
            let Ok(effects) = called else { return broken.invariant == "I27" };
            step = Step {
                now: *now,
                input: Some(input.clone()),
                adopted: None,
                effects,
                deadline: app.deadline(),
            };
        }
        oracle
            .judge(&step)
            .is_err_and(|failure| failure.iter().any(|other| other.invariant == broken.invariant))
    }
}

/// Drops runs of inputs, shorter and shorter ones.
fn shorten(case: &Case<'_>, mut inputs: Vec<(Time, Input)>, broken: &Broken) -> Vec<(Time, Input)> {
    if !case.breaks(&inputs, broken) {
        return inputs;
    }
    let until = crate::now() + PATIENCE;
    let mut length = inputs.len().div_ceil(2);
    loop {
        let mut at = 0;
        while at < inputs.len() && crate::now() < until {
            let mut fewer = inputs.clone();
            fewer.drain(at..(at + length).min(inputs.len()));
            if case.breaks(&fewer, broken) {
                inputs = fewer;
            } else {
                at += length;
            }
        }
        if length == 1 || crate::now() > until {
            return inputs;
        }
        length = length.div_ceil(2);
    }
}

/// For each of the two ways to make a case smaller.
const PATIENCE: Duration = Duration::from_secs(10);
