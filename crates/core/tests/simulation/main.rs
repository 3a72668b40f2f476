//! Seeded simulation: core against a hostile world, judged by an oracle that shares no code with it.
//!
//! `SIM_SEED=n` runs one seed, `SIM_SECONDS=n` runs until that time is over, `SIM_FIRST=n` starts elsewhere than 1.

mod facts;
mod on_effect;
mod on_step;
mod options;
mod oracle;
mod rng;
mod world;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use world::World;

#[test]
fn no_seed_breaks_a_promise() {
    if let Some(seed) = number("SIM_SEED") {
        let (steps, premises) = run(seed);
        return report(1, steps, &premises);
    }
    let (limit, most) = match number("SIM_SECONDS") {
        Some(seconds) => (Duration::from_secs(seconds), u64::MAX),
        None => (Duration::from_secs(20), 400_000),
    };
    let first = number("SIM_FIRST").unwrap_or(1);
    let (begun, mut steps, mut premises) = (now(), 0, BTreeMap::new());
    let mut seed = first;
    while steps < most && begun.elapsed() < limit {
        let (more, held) = run(seed);
        steps += more;
        for (name, times) in held {
            *premises.entry(name).or_insert(0u64) += times;
        }
        seed += 1;
    }
    report(seed - first, steps, &premises);
    let tested = |name: &&&str| premises.get(**name).is_some_and(|times| *times > 0);
    let never: Vec<_> = oracle::NAMES.iter().filter(|name| !tested(name)).collect();
    assert!(never.is_empty(), "never put to the test: {never:?}");
}

/// Runs a seed; each sixteenth twice, which must give the same trace (I39).
fn run(seed: u64) -> (u64, BTreeMap<&'static str, u64>) {
    let twice = seed % 16 == 1;
    let mut world = World::new(seed, twice);
    if let Err(failure) = world.run() {
        for step in &world.tail {
            println!("{step}");
        }
        panic!("seed {seed}, step {}: {failure}\n{:#?}", world.steps, world.options());
    }
    let mut premises = std::mem::take(&mut world.oracle.premises);
    if twice {
        let mut again = World::new(seed, true);
        assert!(again.run().is_ok(), "seed {seed} fails only the second time");
        assert_eq!(world.trace_hash(), again.trace_hash(), "seed {seed}: I39: two runs, two traces");
        premises.insert("I39", 1);
    }
    (world.steps, premises)
}

fn report(seeds: u64, steps: u64, premises: &BTreeMap<&'static str, u64>) {
    println!("{seeds} seeds, {steps} steps; how often each promise was put to the test:");
    for (name, times) in premises {
        println!("  {name:4} {times}");
    }
}

fn number(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "the test, unlike core, may look at its environment")]
    std::env::var(name).ok()?.parse().ok()
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the test, unlike core, may look at the clock")]
    Instant::now()
}
