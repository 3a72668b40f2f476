//! The first respawn is immediate, then the slot backs off; the broker says that it is degraded, and never gives up.

use crate::world::*;
use shiftboss_core::spec::{BackoffSpec, BrokerSpec, Ready, RecycleSpec};
use shiftboss_core::{Exit, Input, Verb, What};

/// Crashes whoever is in slot 0 until it has to wait.
fn until_backoff(world: &mut World) {
    while let Some(worker) = world.in_slot(0).first().copied() {
        world.crash(worker);
    }
}

#[test]
fn the_first_respawn_is_immediate_and_the_second_waits() {
    let mut world = World::ready([spec(1)]);
    assert_eq!(spawns(&world.crash(world.newest(0))), 1);
    assert_eq!(spawns(&world.crash(world.newest(0))), 0);
    let wait = world.app.deadline().expect("a retry").since(world.now);
    assert!((millis(90)..=millis(110)).contains(&wait), "{wait:?}");
    assert_eq!(spawns(&world.pass(wait)), 1);
}

#[test]
fn waits_grow_up_to_the_cap_and_never_end() {
    let mut world = World::ready([spec(1)]);
    let mut waits = Vec::new();
    for _ in 0..20 {
        until_backoff(&mut world);
        let wait = world.app.deadline().expect("it never gives up").since(world.now);
        waits.push(wait);
        world.pass(wait);
    }
    assert!(waits[..8].windows(2).all(|pair| pair[1] > pair[0]), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= secs(33)) && waits[19] >= secs(27), "{waits:?}");
}

#[test]
fn failures_in_a_row_degrade_the_broker_once_and_proof_recovers_it() {
    let mut world = World::ready([spec(2)]);
    until_backoff(&mut world);
    assert!(world.status().degraded);
    world.pass(secs(1));
    world.all_ready();
    world.pass(millis(9_999));
    assert!(world.status().degraded);
    world.pass(millis(1));
    assert!(!world.status().degraded);
    let degraded = world.said(|what| matches!(what, What::BrokerDegraded { .. }));
    let recovered = world.said(|what| matches!(what, What::BrokerRecovered));
    assert_eq!((degraded, recovered, world.app.deadline()), (1, 1, None));
}

#[test]
fn one_failing_slot_does_not_delay_another() {
    let mut world = World::ready([spec(2)]);
    until_backoff(&mut world);
    assert_eq!(spawns(&world.crash(world.newest(1))), 1);
}

#[test]
fn a_worker_that_has_proved_itself_is_replaced_at_once_again() {
    let mut world = World::ready([spec(1)]);
    for _ in 0..5 {
        world.pass(secs(10));
        assert_eq!(spawns(&world.crash(world.newest(0))), 1);
        world.all_ready();
    }
    assert!(!world.status().degraded);
}

#[test]
fn a_spawn_that_fails_is_a_death_without_a_process() {
    let mut world = World::unanswered([spec(1)]);
    let worker = world.newest(0);
    let effects = world.feed(Input::SpawnFailed { worker, reason: "no such file".to_owned() });
    assert!(matches!(
        &events(&effects).next().unwrap().what,
        What::WorkerDeath { pid: None, exit: None, .. }
    ));
    assert_eq!(spawns(&effects), 1);
    world.feed(Input::SpawnFailed { worker: world.newest(0), reason: "no such file".to_owned() });
    assert!(world.status().degraded && world.app.deadline().is_some());
}

#[test]
fn code_0_unasked_is_an_end_and_no_death_but_early_it_counts_for_the_back_off() {
    let mut world = World::ready([spec(1)]);
    assert_eq!(spawns(&world.exit(world.newest(0), Exit::Code(0))), 1);
    assert_eq!(spawns(&world.exit(world.newest(0), Exit::Code(0))), 0);
    assert_eq!((world.status().deaths, world.said(|what| matches!(what, What::WorkerDeath { .. }))), (0, 0));
}

#[test]
fn code_0_after_healthy_after_is_work_done_and_replaced_at_once() {
    let mut world = World::ready([spec(1)]);
    for _ in 0..3 {
        world.pass(secs(11));
        assert_eq!(spawns(&world.exit(world.newest(0), Exit::Code(0))), 1);
        world.all_ready();
    }
    assert!(!world.status().degraded);
}

#[test]
fn a_worker_that_is_late_is_stopped_and_its_slot_filled_when_it_is_gone() {
    let mut world = World::of([spec(1)]);
    let late = world.newest(0);
    let effects = world.pass(secs(60));
    assert_eq!((signals(&effects).len(), spawns(&effects)), (1, 0));
    let effects = world.exit(late, Exit::Code(0));
    assert!(
        matches!(&events(&effects).next().unwrap().what, What::WorkerDeath { reason, .. } if reason.contains("READY=1"))
    );
    assert_eq!(spawns(&effects), 1);
}

#[test]
fn readiness_by_time_comes_by_itself_and_cannot_be_said() {
    let mut world = World::of([BrokerSpec { ready: Ready::After(secs(1)), ..spec(1) }]);
    assert_eq!(world.say_ready(world.newest(0)), []);
    world.pass(millis(999));
    assert_eq!(world.status().ready(), 0);
    world.pass(millis(1));
    assert_eq!((world.status().ready(), world.app.deadline()), (1, None));
}

#[test]
fn a_resume_by_hand_does_not_wait_for_the_back_off() {
    let mut world = World::ready([spec(1)]);
    until_backoff(&mut world);
    let begin = world.log.len();
    world.ask(API, Verb::Resume);
    assert_eq!((spawns(&world.log[begin..]), world.status().degraded), (1, false));
}

#[test]
fn a_successor_that_proved_itself_before_it_served_recovers_the_broker() {
    let recycle = RecycleSpec { min_ready: secs(20), ..RecycleSpec::default() };
    let mut world = World::ready([recycling(1, recycle)]);
    until_backoff(&mut world);
    world.pass(secs(1));
    world.all_ready();
    world.ask(API, Verb::Recycle(None));
    world.all_ready();
    world.crash(world.in_slot(0)[0]);
    assert!(world.status().degraded);
    world.pass(secs(20));
    assert!(!world.status().degraded);
}

#[test]
fn a_worker_that_only_runs_to_be_stopped_does_not_end_its_slots_back_off() {
    let mut world = World::unanswered([spec(1)]);
    let late = world.newest(0);
    world.ask(API, Verb::Scale(0));
    world.ask(API, Verb::Scale(1));
    world.feed(Input::SpawnFailed { worker: world.newest(0), reason: String::new() });
    world.feed(Input::SpawnFailed { worker: world.newest(0), reason: String::new() });
    assert_eq!(world.status().backoff.len(), 1);
    world.spawned(late);
    assert_eq!(world.status().backoff.len(), 1);
    assert_eq!(spawns(&world.exit(late, Exit::Code(0))), 0);
    assert_eq!(spawns(&world.pass(secs(1))), 1);
}

#[test]
fn a_base_of_zero_never_waits() {
    let backoff = BackoffSpec { base: secs(0), ..BackoffSpec::default() };
    let mut world = World::ready([BrokerSpec { backoff, ..spec(1) }]);
    for _ in 0..10 {
        assert_eq!(spawns(&world.crash(world.newest(0))), 1);
    }
}
