//! When successors do not become ready, no further predecessor is stopped, and a new generation is taken back.

use crate::world::*;
use shiftboss_core::event::RecycleReason;
use shiftboss_core::id::{Generation, LaunchId};
use shiftboss_core::spec::{BrokerSpec, Ready, RecycleSpec};
use shiftboss_core::{Exit, Input, Outcome, Verb, What};

#[test]
fn the_first_successor_that_is_late_ends_the_recycle_and_no_predecessor_was_stopped() {
    let mut world = World::ready([spec(3)]);
    let before: Vec<_> = world.living.keys().copied().collect();
    let request = world.ask(API, Verb::Recycle(None));
    let successor = world.newest(0);
    world.pass(secs(60));
    assert!(
        matches!(world.outcome(request), Some(Outcome::Failed(failed)) if failed.worker == Some(successor))
    );
    assert_eq!(world.leaving(), [successor]);
    world.exit(successor, CRASH);
    assert_eq!(world.living.keys().copied().collect::<Vec<_>>(), before);
    assert!(!world.status().recycling);
}

#[test]
fn within_a_generation_the_new_stay_and_the_rest_stay_old() {
    let mut world = World::ready([spec(2)]);
    let old = world.newest(1);
    world.ask(API, Verb::Recycle(None));
    let new = world.newest(0);
    world.say_ready(new);
    world.exit(world.in_slot(0)[0], Exit::Code(0));
    world.crash(world.newest(1));
    assert_eq!((world.in_slot(0), world.in_slot(1)), (vec![new], vec![old]));
    assert_eq!(world.status().generation, Generation(1));
}

#[test]
fn a_failed_generation_is_replaced_by_the_last_good_one_under_a_fresh_number() {
    let mut world = World::ready([spec(3)]);
    let request = world.ask(API, version(3, 2));
    world.say_ready(world.newest(0));
    world.exit(world.in_slot(0)[0], Exit::Code(0));
    world.crash(world.newest(1));
    assert!(matches!(world.outcome(request), Some(Outcome::Failed(failed)) if failed.replaced == 1));
    assert_eq!(
        world.said(|what| matches!(
            what,
            What::RecycleStarted { reason: RecycleReason::GoingBack, total: 1, .. }
        )),
        1
    );
    world.everybody_obeys();
    let status = world.status();
    assert_eq!((status.generation, status.target, status.ready()), (Generation(3), Generation(3), 3));
    assert!(world.living.values().all(|place| place.launch == LaunchId(1)));
}

#[test]
fn going_back_is_ready_before_retire_too() {
    let mut world = World::ready([spec(2)]);
    world.ask(API, version(2, 2));
    world.say_ready(world.newest(0));
    world.exit(world.in_slot(0)[0], Exit::Code(0));
    world.crash(world.newest(1));
    assert_eq!((world.status().ready(), world.leaving().len()), (2, 0));
    let effects = world.say_ready(world.newest(0));
    assert_eq!(signals(&effects).len(), 1);
}

#[test]
fn when_going_back_fails_too_it_is_tried_again_after_the_longest_back_off() {
    let mut world = World::ready([spec(2)]);
    world.ask(API, version(2, 2));
    let bad = world.newest(0);
    world.say_ready(bad);
    world.exit(world.in_slot(0)[0], Exit::Code(0));
    world.crash(world.newest(1));
    let effects = world.crash(world.newest(0));
    assert_eq!((spawns(&effects), signals(&effects)), (0, vec![]));
    assert_eq!(world.in_slot(0), [bad]);
    assert_eq!((world.status().recycling, world.status().generation), (false, Generation(3)));
    let cap = spec(2).backoff.cap;
    assert_eq!(spawns(&world.pass(cap - millis(1))), 0);
    assert_eq!(spawns(&world.pass(millis(1))), 1);
    world.everybody_obeys();
    assert!(world.in_slot(0) != [bad]);
    assert!(world.living.values().all(|place| place.launch == LaunchId(1)));
    assert_eq!(world.app.deadline(), None);
}

#[test]
fn a_specification_taken_while_drained_is_on_trial_after_the_resume() {
    let mut world = World::ready([spec(1)]);
    world.ask(API, Verb::Drain);
    world.everybody_obeys();
    let request = world.ask(API, version(1, 2));
    assert!(is_done(&world.outcome(request)));
    assert_eq!((world.status().generation, world.status().target), (Generation(1), Generation(2)));
    world.ask(API, Verb::Resume);
    assert_eq!(world.living[&world.newest(0)].launch, LaunchId(2));
    world.crash(world.newest(0));
    assert_eq!(world.living[&world.newest(0)].launch, LaunchId(1));
}

#[test]
fn going_back_brings_back_the_time_between_recycles() {
    let every = |seconds| Some(secs(seconds));
    let good = recycling(1, RecycleSpec { every: every(1000), jitter: 0.0, ..RecycleSpec::default() });
    let bad = BrokerSpec {
        launch: LaunchId(2),
        recycle: RecycleSpec { every: every(10), ..good.recycle.clone() },
        ..good.clone()
    };
    let mut world = World::ready([good]);
    world.ask(API, Verb::Respecify(Box::new(bad)));
    world.crash(world.newest(0));
    world.pass(secs(900));
    let by_time = |what: &What| matches!(what, What::RecycleStarted { reason: RecycleReason::ByTime, .. });
    assert_eq!(world.said(by_time), 0);
    world.pass(secs(100));
    assert_eq!(world.said(by_time), 1);
}

#[test]
fn a_slot_that_dies_gets_the_target_until_the_failure_and_the_last_good_one_after_it() {
    let mut world = World::ready([spec(3)]);
    world.ask(API, version(3, 2));
    world.crash(world.newest(2));
    assert_eq!(world.living[&world.newest(2)].launch, LaunchId(2));
    world.crash(world.newest(0));
    world.everybody_obeys();
    world.crash(world.newest(1));
    assert_eq!(world.living[&world.newest(1)].launch, LaunchId(1));
}

#[test]
fn new_workers_that_crash_in_a_row_fail_the_recycle_that_brought_them() {
    let mut world = World::ready([spec(3)]);
    world.ask(API, version(3, 2));
    world.say_ready(world.newest(0));
    world.crash(world.newest(0));
    world.crash(world.newest(0));
    assert_eq!(world.said(|what| matches!(what, What::RecycleFailed { .. })), 1);
}

#[test]
fn ready_successors_of_empty_slots_stay_when_another_one_fails() {
    let recycle = RecycleSpec { min_ready: secs(5), ..RecycleSpec::default() };
    let mut world = World::of([recycling(2, recycle)]);
    world.ask(API, Verb::Recycle(None));
    world.crash(world.in_slot(0)[0]);
    let only = world.newest(0);
    world.say_ready(only);
    world.crash(world.in_slot(1)[0]);
    world.feed(shiftboss_core::Input::SpawnFailed { worker: world.newest(0), reason: String::new() });
    assert!(!world.leaving().contains(&only));
}

#[test]
fn workers_scaled_by_hand_since_are_not_scaled_back_with_a_failed_generation() {
    let mut world = World::ready([spec(2)]);
    world.ask(API, version(3, 2));
    world.ask(API, Verb::Scale(4));
    world.crash(world.newest(0));
    assert_eq!(world.status().wanted, 4);
}

#[test]
fn a_generation_cut_short_by_a_drain_is_still_on_trial_after_the_resume() {
    let mut world = World::ready([spec(1)]);
    world.ask(API, version(1, 2));
    world.ask(API, Verb::Drain);
    world.everybody_obeys();
    world.ask(API, Verb::Resume);
    assert_eq!(world.living[&world.newest(0)].launch, LaunchId(2));
    world.crash(world.newest(0));
    assert_eq!(world.living[&world.newest(0)].launch, LaunchId(1));
}

#[test]
fn a_successor_that_may_not_be_looked_at_fails_the_recycle_at_once_with_advice() {
    let mut seen = listening(1);
    seen.ready = Ready::Accepting;
    let mut world = World::ready([seen]);
    let old = world.newest(0);
    let request = world.ask(API, Verb::Recycle(None));
    let successor = world.newest(0);
    let effects = world.feed(Input::Unseen { worker: successor });
    assert_eq!(signals(&effects).first().map(|(worker, _)| *worker), Some(successor));
    let Some(Outcome::Failed(failed)) = world.outcome(request) else {
        panic!("{:?}", world.outcome(request))
    };
    assert!(failed.reason.contains("ready = { after = "), "{}", failed.reason);
    assert_eq!(world.feed(Input::Unseen { worker: old }), vec![], "a ready worker is watched no longer");
}

#[test]
fn a_version_that_was_scaled_away_before_it_was_ready_is_still_on_trial_when_workers_are_wanted_again() {
    let mut world = World::ready([spec(1)]);
    world.ask(API, version(1, 2));
    world.ask(API, Verb::Scale(0));
    world.everybody_obeys();
    assert_eq!((world.status().generation, world.status().target), (Generation(1), Generation(2)));
    world.ask(API, Verb::Scale(1));
    assert_eq!(world.living[&world.newest(0)].launch, LaunchId(2));
    world.crash(world.newest(0));
    assert_eq!(world.living[&world.newest(0)].launch, LaunchId(1));
    world.everybody_obeys();
    assert_eq!(world.status().generation, world.status().target);
    world.pass(spec(1).backoff.healthy_after);
    assert_eq!(world.app.deadline(), None);
}

#[test]
fn a_version_that_serves_every_slot_when_a_drain_is_called_back_counts_as_good() {
    let recycle = RecycleSpec { surge: 2, ..RecycleSpec::default() };
    let mut world = World::ready([BrokerSpec { recycle: recycle.clone(), ..listening(2) }]);
    let version = BrokerSpec { launch: LaunchId(2), recycle, ..listening(2) };
    world.ask(API, Verb::Respecify(Box::new(version)));
    world.all_ready();
    assert!(world.status().recycling, "its predecessors are leaving");
    world.answers = false;
    world.ask(API, Verb::Drain);
    world.answers = true;
    world.ask(API, Verb::Resume);
    let status = world.status();
    assert!(!status.recycling && status.generation == status.target, "{status:#?}");
    assert_eq!(status.target, Generation(2));
}
