//! The spawn budget: a whole shift at once, a storm never, and failing slots behind healthy ones.

use crate::world::*;
use shiftboss_core::spec::{BackoffSpec, BrokerSpec};
use shiftboss_core::{Input, Verb};

#[test]
fn a_large_shift_starts_without_waiting_a_few_in_each_step() {
    let mut world = World::unanswered([spec(500)]);
    assert_eq!(spawns(&world.log), 16);
    assert_eq!(world.app.deadline(), Some(world.now), "the next step is due now");
    while world.living.len() < 500 {
        assert!(world.app.deadline() == Some(world.now) || world.app.deadline() <= Some(world.now));
        world.feed(Input::Tick);
    }
    assert_eq!(world.app.deadline(), None);
}

#[test]
fn a_whole_shift_lost_at_once_is_replaced_at_once() {
    let mut world = World::ready([spec(10)]);
    let all: Vec<_> = world.living.keys().copied().collect();
    let spawned: usize = all.into_iter().map(|worker| spawns(&world.crash(worker))).sum();
    assert_eq!(spawned, 10);
}

#[test]
fn a_storm_is_slowed_down_to_what_the_bucket_earns() {
    let backoff = BackoffSpec { base: secs(0), cap: secs(0), healthy_after: secs(10) };
    let mut world = World::ready([BrokerSpec { backoff, ..spec(1) }]);
    let begin = world.now;
    let mut starts = 0;
    while world.now.since(begin) < secs(100) {
        match world.in_slot(0).first().copied() {
            Some(worker) => starts += spawns(&world.crash(worker)),
            None => starts += spawns(&world.pass(millis(100))),
        }
    }
    // 68 tokens (64 and four a worker), and as many again each 10 s.
    assert!((68 * 10..=68 * 11 + 1).contains(&starts), "{starts} starts in 100 s");
}

#[test]
fn a_failing_slot_never_delays_the_replacement_of_a_healthy_one() {
    let backoff = BackoffSpec { base: millis(1), cap: millis(1), healthy_after: secs(10) };
    let mut world = World::ready([BrokerSpec { backoff, ..spec(1) }, spec(1)]);
    for _ in 0..1000 {
        match world.in_slot(0).first().copied() {
            Some(worker) => drop(world.crash(worker)),
            None => drop(world.pass(millis(1))),
        }
    }
    let healthy = world.first_of(JOBS).expect("the other broker's worker");
    assert_eq!(spawns(&world.crash(healthy)), 1);
}

#[test]
fn who_was_overtaken_while_waiting_for_the_budget_is_not_started_by_it() {
    let mut world = World::unanswered([spec(40)]);
    world.ask(API, Verb::Drain);
    assert_eq!(spawns(&world.pass(secs(100))), 0);
    world.ask(API, Verb::Resume);
    while world.app.deadline() <= Some(world.now) && world.app.deadline().is_some() {
        world.feed(Input::Tick);
    }
    let slots = world.of_broker(API).filter(|(worker, _)| worker.0 > 16).count();
    assert_eq!(slots, 40, "one for each slot");
}

#[test]
fn a_drain_forgets_who_waits_for_the_budget() {
    let backoff = BackoffSpec { base: secs(0), cap: secs(0), healthy_after: secs(10) };
    let mut world = World::ready([BrokerSpec { backoff, ..spec(1) }]);
    while let Some(worker) = world.in_slot(0).first().copied() {
        world.crash(worker);
    }
    assert!(world.app.deadline().is_some(), "the bucket is empty and the slot waits for it");
    world.ask(API, Verb::Drain);
    assert_eq!(world.app.deadline(), None);
}
