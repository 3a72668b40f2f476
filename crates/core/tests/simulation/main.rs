//! Seeded simulation: core against a hostile world, judged by the oracle, which shares no rule with it.
//!
//! `SIM_SEED=n` runs one seed, `SIM_SECONDS=n` runs until that time is over, `SIM_STEPS=n` until so many steps are done,
//! `SIM_FIRST=n` starts elsewhere than at seed 1.

mod heap;
mod memory;
mod operators;
mod options;
mod os;
mod rng;
mod shrink;
mod source;
mod takeover;
mod twins;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use world::{Failure, World};

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

#[test]
fn no_seed_breaks_a_promise() {
    let seed = number("SIM_SEED");
    let first = seed.or(number("SIM_FIRST")).unwrap_or(1);
    let most = match (seed, number("SIM_STEPS"), number("SIM_SECONDS")) {
        (Some(_), _, _) => 1,
        (None, Some(steps), _) => steps,
        (None, None, Some(_)) => u64::MAX,
        (None, None, None) => STEPS,
    };
    let limit = number("SIM_SECONDS").map_or(Duration::MAX, Duration::from_secs);
    let (begun, mut steps, mut premises) = (now(), 0, BTreeMap::new());
    let mut next = first;
    while steps < most && begun.elapsed() < limit {
        steps += run(next, &mut premises);
        next += 1;
    }
    println!("{} seeds, {steps} steps; how often each promise was put to the test:", next - first);
    for (name, times) in &premises {
        println!("  {name:5} {times}");
    }
    let names = shiftboss_oracle::names().chain(world::NAMES);
    let never: Vec<_> = names.filter(|name| premises.get(name).is_none_or(|times| *times == 0)).collect();
    assert!(never.is_empty() || seed.is_some(), "never put to the test: {never:?}");
}

/// Runs a seed; each sixteenth twice, which must give the same trace (I39).
fn run(seed: u64, premises: &mut BTreeMap<&'static str, u64>) -> u64 {
    let twice = seed % 16 == 1;
    let mut world = World::new(seed, twice);
    let mut done = world.run();
    if done.is_ok() && twice {
        let mut again = World::new(seed, true);
        let same = again.run().is_ok() && world.trace_hash() == again.trace_hash();
        done = world.require("I39", same, || "two runs, two traces".to_owned());
    }
    if let Err(failure) = done {
        fail(seed, &world, &failure);
    }
    for (name, times) in world.premises() {
        *premises.entry(name).or_insert(0) += times;
    }
    world.steps
}

/// Shows the end of the run, then the shortest way found to the same broken promise.
fn fail(seed: u64, world: &World, failure: &Failure) -> ! {
    for step in &world.tail {
        println!("{step}");
    }
    let broken: Vec<String> = failure.iter().map(ToString::to_string).collect();
    let broken = broken.join("\n");
    println!("seed {seed}, step {}: {broken}\n{:#?}", world.steps, world.options().faults);
    let names: BTreeSet<&str> = failure.iter().map(|broken| broken.invariant).collect();
    println!("broken: {}", names.into_iter().collect::<Vec<_>>().join(" "));
    if number("SIM_SHRINK") != Some(0) {
        println!("{}", shrink::scenario(seed, failure));
    }
    panic!("seed {seed} breaks {broken}");
}

fn number(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "the test, unlike core, may look at its environment")]
    std::env::var(name).ok()?.parse().ok()
}

pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the test, unlike core, may look at the clock")]
    Instant::now()
}

/// Steps of a run without any wish: enough to put every promise to the test, little enough for every build.
const STEPS: u64 = 1_000_000;
