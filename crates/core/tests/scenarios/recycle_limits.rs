//! The limits of a recycle: surge, unavailable, min_ready, deadline; and recycles by time.

use std::time::Duration;

use crate::world::*;
use shiftboss_core::id::Slot;
use shiftboss_core::spec::RecycleSpec;
use shiftboss_core::{Exit, Input, Outcome, Verb, What};

fn limits(surge: u32, unavailable: u32) -> RecycleSpec {
    RecycleSpec { surge, unavailable, ..RecycleSpec::default() }
}

#[test]
fn no_more_than_surge_processes_exist_beyond_the_wanted() {
    let mut world = World::ready([recycling(6, limits(3, 0))]);
    let request = world.ask(API, Verb::Recycle(None));
    assert_eq!(world.living.len(), 9);
    while world.outcome(request).is_none() {
        assert!(world.living.len() <= 9);
        match world.leaving().first() {
            Some(worker) => drop(world.exit(*worker, Exit::Code(0))),
            None => world.all_ready(),
        }
    }
}

#[test]
fn with_unavailable_alone_the_predecessor_is_gone_before_the_successor_starts() {
    let mut world = World::ready([recycling(2, limits(0, 1))]);
    let old = world.newest(0);
    let request = world.ask(API, Verb::Recycle(None));
    assert_eq!((world.leaving(), world.living.len()), (vec![old], 2));
    assert_eq!(spawns(&world.exit(old, Exit::Code(0))), 1);
    assert_eq!(world.leaving(), []);
    world.everybody_obeys();
    assert!(is_done(&world.outcome(request)));
}

#[test]
fn no_more_than_unavailable_are_missing() {
    let mut world = World::ready([recycling(5, limits(0, 2))]);
    let request = world.ask(API, Verb::Recycle(None));
    while world.outcome(request).is_none() {
        assert!(world.status().ready() >= 3);
        match world.leaving().first() {
            Some(worker) => drop(world.exit(*worker, Exit::Code(0))),
            None => world.all_ready(),
        }
    }
}

#[test]
fn with_unavailable_a_crash_elsewhere_is_counted_first() {
    let mut world = World::ready([recycling(3, limits(0, 1))]);
    let crashed = world.newest(2);
    world.answers = false;
    world.crash(crashed);
    world.answers = true;
    world.ask(API, Verb::Recycle(None));
    assert_eq!(world.leaving(), [], "one is missing already");
    world.spawned(world.newest(2));
    world.all_ready();
    assert_eq!(world.leaving().len(), 1);
}

#[test]
fn with_unavailable_alone_a_recycle_does_not_wait_for_a_slot_elsewhere_that_keeps_failing() {
    for failures_before in [1, 2] {
        let mut world = World::ready([recycling(2, limits(0, 1))]);
        for _ in 0..failures_before {
            world.crash(world.newest(1));
            world.pass(secs(1));
        }
        let request = world.ask(API, Verb::Recycle(Some(Slot(0))));
        assert_eq!(world.outcome(request).is_some(), failures_before == 2);
        world.crash(world.newest(1));
        let outcome = world.outcome(request);
        assert!(
            matches!(&outcome, Some(Outcome::Failed(failed)) if failed.slot == Some(Slot(1))),
            "{outcome:?}"
        );
        assert_eq!(world.leaving(), []);
    }
}

#[test]
fn with_unavailable_alone_a_slot_that_has_failed_and_serves_is_no_obstacle() {
    let mut world = World::ready([recycling(3, limits(0, 1))]);
    for _ in 0..2 {
        world.crash(world.newest(0));
        world.pass(secs(1));
    }
    world.all_ready();
    world.answers = false;
    world.crash(world.newest(2));
    world.answers = true;
    let request = world.ask(API, Verb::Recycle(Some(Slot(1))));
    assert_eq!(world.outcome(request), None, "whoever is missing is about to come");
    world.spawned(world.newest(2));
    world.everybody_obeys();
    assert!(is_done(&world.outcome(request)));
}

#[test]
fn a_successor_on_probation_makes_nobody_dispensable() {
    let recycle = RecycleSpec { min_ready: secs(10), ..limits(1, 1) };
    let mut world = World::ready([recycling(3, recycle)]);
    world.answers = false;
    world.crash(world.newest(2));
    world.answers = true;
    world.ask(API, Verb::Recycle(None));
    world.say_ready(world.newest(0));
    assert_eq!(world.leaving(), [], "two serve for good and one is missing");
}

#[test]
fn a_predecessor_stays_until_its_successor_has_been_ready_for_min_ready() {
    let recycle = RecycleSpec { min_ready: secs(10), ..limits(1, 0) };
    let mut world = World::ready([recycling(1, recycle)]);
    let old = world.newest(0);
    world.ask(API, Verb::Recycle(None));
    world.all_ready();
    assert_eq!(signals(&world.pass(millis(9_999))), []);
    assert_eq!(signals(&world.pass(millis(1))), [(old, shiftboss_core::spec::Signal::TERM)]);
}

#[test]
fn a_successor_that_dies_within_min_ready_fails_the_recycle() {
    let recycle = RecycleSpec { min_ready: secs(10), ..limits(1, 0) };
    let mut world = World::ready([recycling(1, recycle)]);
    let old = world.newest(0);
    world.ask(API, Verb::Recycle(None));
    world.all_ready();
    world.crash(world.newest(0));
    assert_eq!(world.said(|what| matches!(what, What::RecycleFailed { .. })), 1);
    assert_eq!((world.in_slot(0), world.app.deadline()), (vec![old], None));
}

#[test]
fn the_deadline_is_kept_to_the_moment() {
    let recycle = RecycleSpec { deadline: secs(5), ..limits(1, 0) };
    let mut world = World::ready([recycling(1, recycle)]);
    world.ask(API, Verb::Recycle(None));
    world.pass(millis(4_999));
    assert!(world.status().recycling);
    world.pass(millis(1));
    assert!(!world.status().recycling);
}

#[test]
fn a_recycle_by_time_comes_each_period_give_or_take_the_jitter() {
    let recycle = RecycleSpec { every: Some(secs(1000)), jitter: 0.1, ..limits(1, 0) };
    let mut world = World::ready([recycling(2, recycle)]);
    let mut waits = Vec::new();
    for _ in 0..20 {
        let wait = world.app.deadline().expect("the next recycle").since(world.now);
        waits.push(wait);
        world.pass(wait);
        assert!(world.status().recycling);
        world.everybody_obeys();
    }
    assert!(waits.iter().all(|wait| (secs(900)..=secs(1100)).contains(wait)), "{waits:?}");
    assert!(waits.windows(2).any(|pair| pair[0] != pair[1]), "no jitter: {waits:?}");
}

#[test]
fn recycles_by_time_stop_with_a_drain_and_come_back_with_the_resume() {
    let recycle = RecycleSpec { every: Some(secs(1000)), ..limits(1, 0) };
    let mut world = World::ready([recycling(1, recycle)]);
    world.ask(API, Verb::Drain);
    world.everybody_obeys();
    assert_eq!(world.app.deadline(), None);
    world.ask(API, Verb::Resume);
    world.all_ready();
    assert!(world.app.deadline().is_some());
}

#[test]
fn odd_periods_do_no_harm() {
    for (every, jitter) in [(Duration::ZERO, 0.1), (Duration::MAX, 1.0), (secs(1), f64::NAN), (secs(1), -3.0)]
    {
        let recycle = RecycleSpec { every: Some(every), jitter, ..limits(1, 0) };
        let mut world = World::ready([recycling(1, recycle)]);
        world.feed(Input::Tick);
        world.feed(Input::Stop { now: true });
    }
}
