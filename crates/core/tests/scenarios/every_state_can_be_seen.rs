//! One event for each change; the status is their fold. The stage checks that after every single step.

use crate::world::*;
use shiftboss_core::id::Slot;
use shiftboss_core::status::{BrokerState, WorkerState};
use shiftboss_core::{Exit, Input, Verb, What};

#[test]
fn a_long_mixed_day_is_told_by_its_events() {
    let mut world = World::of([spec(3), listening(2)]);
    let verbs = [
        Verb::Recycle(None),
        Verb::Scale(5),
        Verb::Recycle(Some(Slot(1))),
        version(4, 2),
        Verb::Drain,
        Verb::Scale(2),
        Verb::Resume,
        version(3, 3),
        Verb::Scale(0),
        Verb::Resume,
        Verb::Scale(4),
        Verb::Drain,
        Verb::Drain,
        Verb::Resume,
    ];
    for (day, verb) in (0..).zip(verbs.iter().cycle().take(200)) {
        world.answers = day % 5 != 0;
        world.ask(if day % 3 == 0 { JOBS } else { API }, verb.clone());
        world.answers = true;
        match day % 7 {
            0 => world.everybody_obeys(),
            1 | 2 => drop(world.pass(secs(day))),
            _ => {
                if let Some(worker) = world.living.keys().next().copied() {
                    world.spawned(worker);
                    world.exit(worker, if day % 2 == 0 { CRASH } else { Exit::Code(0) });
                }
            }
        }
    }
    world.feed(Input::Stop { now: true });
    assert!(world.said(|what| matches!(what, What::RecycleFinished { .. })) > 10);
}

#[test]
fn a_worker_is_seen_from_start_to_end() {
    let mut world = World::of([spec(1)]);
    let worker = world.newest(0);
    let state = |world: &World| world.status().workers.get(&worker).map(|worker| worker.state);
    assert_eq!(state(&world), Some(WorkerState::Starting));
    world.say_ready(worker);
    assert_eq!(state(&world), Some(WorkerState::Ready));
    world.ask(API, Verb::Drain);
    assert_eq!(state(&world), Some(WorkerState::Stopping));
    world.exit(worker, Exit::Code(0));
    assert_eq!((state(&world), world.status().state), (None, BrokerState::Drained));
}

#[test]
fn ready_is_said_once_when_every_broker_has_all_its_workers() {
    let mut world = World::of([spec(1), listening(1)]);
    world.say_ready(world.newest(0));
    assert_eq!(world.said(|what| matches!(what, What::AppReady)), 0);
    world.all_ready();
    world.crash(world.newest(0));
    world.all_ready();
    assert_eq!(world.said(|what| matches!(what, What::AppReady)), 1);
}

#[test]
fn an_event_names_the_command_that_caused_it() {
    let mut world = World::ready([spec(1)]);
    let request = world.ask(API, Verb::Recycle(None));
    world.everybody_obeys();
    let named: Vec<_> = world.events().filter(|event| event.request == Some(request)).collect();
    assert!(matches!(named[0].what, What::RecycleStarted { .. }));
    assert!(matches!(named[1].what, What::RecycleFinished { .. }));
}

#[test]
fn the_last_failure_says_who_and_why() {
    let mut world = World::ready([spec(1)]);
    let worker = world.newest(0);
    world.crash(worker);
    let told = format!("worker {worker} (slot 0) ended by SIGSEGV");
    assert_eq!((world.status().deaths, world.status().last_failure), (1, Some(told)));
}

/// As a program that puts itself into the background: no death, and nothing that serves either.
#[test]
fn who_leaves_before_it_was_ready_is_the_last_failure_without_a_death() {
    let mut world = World::of([spec(1)]);
    let worker = world.newest(0);
    world.exit(worker, Exit::Code(0));
    let told = format!("worker {worker} (slot 0) exited with 0 before it was ready");
    assert_eq!((world.status().deaths, world.status().last_failure), (0, Some(told)));
}
