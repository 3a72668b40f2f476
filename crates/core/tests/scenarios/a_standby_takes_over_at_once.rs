//! A standby is fully started and waits at the door; it takes the place of whoever dies, in the same step, and serves as
//! successor in a recycle. It never counts before it serves, is never old, and is not eaten by a crash loop.

use crate::world::*;
use shiftboss_core::id::{LaunchId, Slot, WorkerId};
use shiftboss_core::spec::{BackoffSpec, BrokerSpec, RecycleSpec};
use shiftboss_core::status::{BrokerState, WorkerState};
use shiftboss_core::{Adoption, Effect, Exit, Input, Verb, What};

#[test]
fn a_standby_is_started_beside_the_workers_and_counts_for_nobody() {
    let mut world = World::of([with_standby(2, 1)]);
    let status = world.status();
    assert_eq!((status.wanted, status.workers.len()), (2, 3));
    let standby = standbys(&world)[0];
    for worker in world.of_slots() {
        world.say_ready(worker);
    }
    assert!(world.app.status().ready, "nobody waits for it");
    assert_eq!((world.status().ready(), world.status().standby()), (2, 0));
    assert_eq!(world.say_ready(standby), [], "it has no place to serve");
    world.feed(Input::Standby { worker: standby });
    assert_eq!((world.status().ready(), world.status().standby()), (2, 1));
    let seen = &world.status().workers[&standby];
    assert_eq!((seen.slot, seen.state), (None, WorkerState::Standby));
}

#[test]
fn it_takes_over_in_the_very_step_of_a_death_and_is_replaced() {
    let mut world = World::ready([with_standby(2, 1)]);
    let (dead, standby) = (world.newest(1), standbys(&world)[0]);
    let effects = world.crash(dead);
    assert_eq!(promotions(&effects), [(standby, Slot(1))]);
    assert_eq!(spawns(&effects), 1, "another one for the door, none for the slot");
    let (ready, waiting) = (world.status().ready(), world.status().standby());
    assert_eq!((ready, waiting), (1, 0), "it counts once it serves");
    world.say_ready(standby);
    assert_eq!(world.status().ready(), 2);
    world.all_ready();
    assert_eq!(world.status().standby(), 1);
}

#[test]
fn one_death_promotes_one_standby() {
    let mut world = World::ready([with_standby(2, 2)]);
    let effects = world.crash(world.newest(0));
    assert_eq!((promotions(&effects).len(), world.status().standby()), (1, 1));
    let effects = world.crash(world.newest(1));
    assert_eq!((promotions(&effects).len(), world.status().standby()), (1, 0));
}

#[test]
fn whoever_left_by_itself_is_followed_by_a_standby_too() {
    let mut world = World::ready([with_standby(1, 1)]);
    world.pass(secs(20));
    assert_eq!(promotions(&world.exit(world.newest(0), Exit::Code(0))).len(), 1);
}

#[test]
fn a_crash_loop_eats_no_standbys() {
    let mut world = World::ready([with_standby(1, 1)]);
    let first = standbys(&world)[0];
    assert_eq!(promotions(&world.crash(world.newest(0))).len(), 1);
    world.say_ready(first);
    world.all_ready();
    // The second failure in a row: the slot waits, and then has a worker of its own.
    assert_eq!(promotions(&world.crash(first)), []);
    assert_eq!(world.status().standby(), 1);
    let effects = world.pass(secs(1));
    assert_eq!((promotions(&effects), spawns(&effects)), (Vec::new(), 1));
    assert_eq!(world.status().standby(), 1);
}

#[test]
fn a_promoted_standby_that_does_not_serve_in_time_is_a_failure_of_its_slot() {
    let mut world = World::ready([with_standby(1, 1)]);
    let standby = standbys(&world)[0];
    world.crash(world.newest(0));
    world.pass(secs(59));
    assert_eq!(world.leaving(), []);
    world.pass(secs(1));
    assert!(world.leaving().contains(&standby));
    world.exit(standby, Exit::Code(0));
    assert!(world.status().degraded, "two in a row");
}

#[test]
fn standbys_that_fail_wait_longer_and_longer_and_degrade_nobody() {
    let mut world = World::ready([with_standby(1, 1)]);
    let effects = world.crash(standbys(&world)[0]);
    assert_eq!(spawns(&effects), 1, "the first at once");
    let mut waits = Vec::new();
    for _ in 0..4 {
        world.crash(standbys(&world)[0]);
        let until = world.status().standby_backoff.expect("it waits");
        waits.push(until.since(world.now));
        let effects = world.pass(until.since(world.now));
        assert_eq!(spawns(&effects), 1);
        assert_eq!(world.status().standby_backoff, None, "it runs");
    }
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0]), "{waits:?}");
    let status = world.status();
    assert!(!status.degraded && status.ready() == 1 && status.backoff.is_empty());
    assert_eq!(status.last_failure.as_deref(), Some("worker 6 (standby) ended by SIGSEGV"));
    // Once one has stayed at the door for long enough it is all forgotten.
    world.all_ready();
    world.pass(secs(10));
    assert_eq!(spawns(&world.crash(standbys(&world)[0])), 1);
}

#[test]
fn one_that_never_comes_to_the_door_is_a_death() {
    let mut world = World::of([with_standby(1, 1)]);
    world.say_ready(world.newest(0));
    let standby = standbys(&world)[0];
    world.pass(secs(60));
    assert_eq!(world.leaving(), [standby]);
    let effects = world.exit(standby, Exit::Code(0));
    let reason = events(&effects).find_map(|event| match &event.what {
        What::WorkerDeath { slot: None, reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.expect("a death").starts_with("was not ready within 60s to be a standby"));
}

#[test]
fn a_recycle_begins_with_fresh_standbys_and_uses_them() {
    let mut world = World::ready([with_standby(3, 1)]);
    let stale = standbys(&world)[0];
    world.ask(API, Verb::Recycle(None));
    assert_eq!(world.leaving(), [stale], "files may have changed since it was started");
    // A death meanwhile is not for it.
    assert_eq!(promotions(&world.crash(world.newest(1))), []);
    world.exit(stale, Exit::Code(0));
    let fresh = standbys(&world)[0];
    world.feed(Input::Standby { worker: fresh });
    world.everybody_obeys();
    let promoted: Vec<WorkerId> = promotions(&world.log).into_iter().map(|(worker, _)| worker).collect();
    assert!(!promoted.is_empty() && promoted.iter().all(|worker| *worker >= fresh), "{promoted:?}");
    let status = world.status();
    assert_eq!((status.ready(), status.standby(), status.recycling), (3, 1, false));
}

#[test]
fn a_standby_that_succeeds_in_a_recycle_is_on_trial_like_any_other() {
    let recycle = RecycleSpec { min_ready: secs(5), ..RecycleSpec::default() };
    let mut world = World::ready([BrokerSpec { recycle, ..with_standby(2, 1) }]);
    let stale = standbys(&world)[0];
    let old = [world.newest(0), world.newest(1)];
    world.ask(API, Verb::Recycle(None));
    world.exit(stale, Exit::Code(0));
    let (first, fresh) = (world.newest(0), standbys(&world)[0]);
    world.feed(Input::Standby { worker: fresh });
    world.say_ready(first);
    world.pass(secs(5));
    let effects = world.exit(old[0], Exit::Code(0));
    assert_eq!(promotions(&effects), [(fresh, Slot(1))]);
    world.say_ready(fresh);
    assert!(!world.leaving().contains(&old[1]), "not before `min_ready`");
    world.pass(secs(5));
    assert!(world.leaving().contains(&old[1]));
}

#[test]
fn a_standby_of_an_old_generation_is_promoted_no_more_and_one_of_a_failed_one_neither() {
    let mut world = World::ready([with_standby(2, 1)]);
    let stale = standbys(&world)[0];
    let bad = BrokerSpec { launch: LaunchId(2), ..with_standby(2, 1) };
    world.ask(API, Verb::Respecify(Box::new(bad)));
    world.exit(stale, Exit::Code(0));
    let new = standbys(&world)[0];
    assert_eq!(world.living[&new].launch, LaunchId(2));
    world.feed(Input::Standby { worker: new });
    // A slot that dies meanwhile gets the target generation.
    let effects = world.crash(world.newest(1));
    assert_eq!(promotions(&effects), [(new, Slot(1))]);
    let next = standbys(&world)[0];
    world.feed(Input::Standby { worker: next });
    world.pass(secs(60));
    assert!(world.said(|what| matches!(what, What::RecycleFailed { .. })) == 1);
    assert!(world.leaving().contains(&next), "it is of the generation that has failed");
    world.exit(next, Exit::Code(0));
    assert_eq!(world.living[&standbys(&world)[0]].launch, LaunchId(1));
}

#[test]
fn a_drain_sends_standbys_home_and_a_resume_calls_slots_first() {
    let mut world = World::ready([with_standby(1, 1)]);
    let (worker, standby) = (world.newest(0), standbys(&world)[0]);
    let request = world.ask(API, Verb::Drain);
    assert_eq!(world.leaving(), [worker, standby]);
    world.exit(worker, Exit::Code(0));
    assert_eq!((world.outcome(request), world.status().state), (None, BrokerState::Draining));
    world.exit(standby, Exit::Code(0));
    assert!(is_done(&world.outcome(request)));
    let begin = world.log.len();
    world.ask(API, Verb::Resume);
    let order = world.log[begin..].iter().filter_map(|effect| match effect {
        Effect::Spawn { slot, .. } => Some(*slot),
        _ => None,
    });
    assert_eq!(order.collect::<Vec<_>>(), [Some(Slot(0)), None]);
}

#[test]
fn who_was_given_up_before_a_drain_holds_up_no_standby_after_it() {
    let mut world = World::ready([with_standby(1, 2)]);
    let given_up = standbys(&world);
    for worker in &given_up {
        world.feed(Input::Hung { worker: *worker });
    }
    world.ask(API, Verb::Drain);
    for worker in world.leaving() {
        world.exit(worker, Exit::Code(1));
    }
    assert_eq!(world.status().state, BrokerState::Drained);
    world.ask(API, Verb::Resume);
    assert_eq!(standbys(&world).len(), 2, "nobody has failed since");
    assert_eq!(world.status().standby_backoff, None);
}

#[test]
fn a_scale_changes_no_standby_and_a_new_specification_does() {
    let mut world = World::ready([with_standby(2, 1)]);
    world.ask(API, Verb::Scale(0));
    world.everybody_obeys();
    assert_eq!((world.status().workers.len(), world.status().standby()), (1, 1));
    world.ask(API, Verb::Scale(2));
    world.all_ready();
    world.ask(API, Verb::Respecify(Box::new(with_standby(2, 3))));
    world.everybody_obeys();
    assert_eq!((world.status().ready(), world.status().standby()), (2, 3));
    world.ask(API, Verb::Respecify(Box::new(with_standby(2, 0))));
    world.everybody_obeys();
    assert_eq!((world.status().workers.len(), world.status().standby()), (2, 0));
}

#[test]
fn a_promotion_that_may_not_have_been_told_is_told_again() {
    let mut world = World::ready([with_standby(1, 1)]);
    let standby = standbys(&world)[0];
    world.answers = false;
    world.crash(world.newest(0));
    let effects = world.adopt(Adoption::Whole);
    assert_eq!(promotions(&effects), [(standby, Slot(0))]);
    world.say_ready(standby);
    assert_eq!(promotions(&world.adopt(Adoption::Whole)), []);
    let roll = world.app.roll();
    assert!(roll.iter().any(|one| one.worker == standby && one.slot == Some(Slot(0)) && !one.at_door));
}

#[test]
fn one_that_arrives_at_the_door_serves_whoever_waits_for_the_spawn_budget() {
    let never_waits = BackoffSpec { base: secs(0), ..BackoffSpec::default() };
    let greedy = BrokerSpec { backoff: never_waits, ..spec(1) };
    let mut world = World::ready([with_standby(1, 1), greedy]);
    let standby = standbys(&world)[0];
    world.crash(standby);
    let late = standbys(&world)[0];
    // Somebody else takes all that the budget has.
    while let Some((worker, _)) = world.of_broker(JOBS).last() {
        world.crash(worker);
    }
    let effects = world.crash(world.newest(0));
    assert_eq!((promotions(&effects).len(), spawns(&effects)), (0, 0));
    let effects = world.feed(Input::Standby { worker: late });
    assert_eq!(promotions(&effects), [(late, Slot(0))]);
}

fn with_standby(workers: u32, standby: u32) -> BrokerSpec {
    BrokerSpec { standby, ..spec(workers) }
}

/// Those without a slot.
fn standbys(world: &World) -> Vec<WorkerId> {
    world.of_broker(API).filter(|(_, place)| place.slot.is_none()).map(|(worker, _)| worker).collect()
}

fn promotions(effects: &[Effect]) -> Vec<(WorkerId, Slot)> {
    let promoted = effects.iter().filter_map(|effect| match effect {
        Effect::Promote { worker, slot } => Some((*worker, *slot)),
        _ => None,
    });
    promoted.collect()
}
