//! Commands that come while others run; each is answered exactly once.

use crate::world::*;
use shiftboss_core::id::{BrokerId, RequestId, Slot};
use shiftboss_core::spec::{BrokerSpec, MAX_WORKERS, RecycleSpec};
use shiftboss_core::{Command, Effect, Exit, Input, Outcome, Verb, What};

fn note(outcome: Option<Outcome>) -> String {
    match outcome {
        Some(Outcome::Done(done)) => done.note.expect("a note").to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_resume_while_draining_starts_new_workers_at_once() {
    let mut world = World::ready([spec(2)]);
    let drain = world.ask(API, Verb::Drain);
    let begin = world.log.len();
    let resume = world.ask(API, Verb::Resume);
    assert_eq!(spawns(&world.log[begin..]), 2);
    assert!(is_superseded(&world.outcome(drain)));
    world.everybody_obeys();
    assert!(is_done(&world.outcome(resume)));
    assert_eq!(world.living.len(), 2);
}

#[test]
fn recycles_asked_for_during_a_recycle_become_one_more() {
    let mut world = World::ready([spec(2)]);
    let first = world.ask(API, Verb::Recycle(None));
    let second = world.ask(API, Verb::Recycle(Some(Slot(1))));
    let third = world.ask(API, Verb::Recycle(None));
    assert!(world.outcome(first).is_none());
    world.everybody_obeys();
    assert_eq!(world.said(|what| matches!(what, What::RecycleStarted { .. })), 2);
    assert!([first, second, third].iter().all(|request| is_done(&world.outcome(*request))));
}

#[test]
fn a_recycle_while_drained_does_nothing_and_says_so() {
    let mut world = World::ready([spec(1)]);
    world.ask(API, Verb::Drain);
    world.everybody_obeys();
    let request = world.ask(API, Verb::Recycle(None));
    assert_eq!(note(world.outcome(request)), "nothing to recycle: drained");
    assert_eq!(world.living.len(), 0);
}

#[test]
fn a_scale_during_a_recycle_changes_the_target() {
    let mut world = World::ready([spec(4)]);
    let recycle = world.ask(API, Verb::Recycle(None));
    world.ask(API, Verb::Scale(2));
    world.everybody_obeys();
    assert!(
        matches!(world.outcome(recycle), Some(Outcome::Done(done)) if done.total == 2 && done.replaced == 2)
    );
    assert_eq!(world.living.len(), 2);
}

#[test]
fn a_drain_ends_recycles_that_run_and_that_wait() {
    let mut world = World::ready([spec(2)]);
    let runs = world.ask(API, Verb::Recycle(None));
    let waits = world.ask(API, Verb::Recycle(None));
    let drain = world.ask(API, Verb::Drain);
    assert!(is_superseded(&world.outcome(runs)) && is_superseded(&world.outcome(waits)));
    world.everybody_obeys();
    assert!(is_done(&world.outcome(drain)));
}

#[test]
fn a_second_drain_waits_for_the_same_end_and_a_third_is_told() {
    let mut world = World::ready([spec(1)]);
    let first = world.ask(API, Verb::Drain);
    let second = world.ask(API, Verb::Drain);
    assert_eq!(signals(&world.log).len(), 1);
    world.everybody_obeys();
    assert!(is_done(&world.outcome(first)) && is_done(&world.outcome(second)));
    let third = world.ask(API, Verb::Drain);
    assert_eq!(note(world.outcome(third)), "was drained already");
}

#[test]
fn a_resume_of_an_open_broker_is_told() {
    let mut world = World::ready([spec(1)]);
    let request = world.ask(API, Verb::Resume);
    assert_eq!(note(world.outcome(request)), "was open already");
}

#[test]
fn a_scale_of_a_drained_broker_takes_effect_with_the_resume() {
    let mut world = World::ready([spec(1)]);
    world.ask(API, Verb::Drain);
    world.everybody_obeys();
    let request = world.ask(API, Verb::Scale(3));
    assert_eq!(note(world.outcome(request)), "takes effect when the broker is open");
    world.ask(API, Verb::Resume);
    assert_eq!(world.living.len(), 3);
}

#[test]
fn a_new_version_is_refused_while_a_recycle_runs() {
    let mut world = World::ready([spec(1)]);
    world.ask(API, Verb::Recycle(None));
    let request = world.ask(API, version(1, 2));
    assert!(matches!(world.outcome(request), Some(Outcome::Refused(_))));
    assert_eq!(world.status().target.0, 1);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut world = World::ready([spec(1)]);
    let renamed = BrokerSpec { name: "other".to_owned(), ..spec(1) };
    let before = world.app.status();
    for (broker, verb) in [
        (API, Verb::Recycle(Some(Slot(1)))),
        (API, Verb::Scale(MAX_WORKERS + 1)),
        (API, Verb::Respecify(Box::new(renamed))),
        (API, Verb::Respecify(Box::new(listening(1)))),
        (BrokerId(7), Verb::Drain),
    ] {
        let request = world.ask(broker, verb);
        assert!(matches!(world.outcome(request), Some(Outcome::Refused(_))));
    }
    assert_eq!(world.app.status(), before);
}

#[test]
fn the_same_request_again_acts_once_and_is_answered_the_same() {
    let mut world = World::ready([spec(1)]);
    let (request, command) = (RequestId(77), Command::Broker(API, Verb::Recycle(None)));
    let again = Input::Command { request, command };
    world.feed(again.clone());
    assert_eq!(world.feed(again.clone()), [], "it is being worked on");
    world.everybody_obeys();
    let first = world.replies(request);
    world.feed(again);
    assert_eq!(world.replies(request), [first.clone(), first].concat());
    assert_eq!(world.said(|what| matches!(what, What::RecycleStarted { .. })), 1);
}

#[test]
fn the_end_of_the_app_answers_everybody() {
    let mut world = World::ready([spec(1), listening(1)]);
    let recycle = world.ask(API, Verb::Recycle(None));
    let drain = world.ask(JOBS, Verb::Drain);
    world.feed(Input::Command { request: RequestId(50), command: Command::Stop });
    world.feed(Input::Command { request: RequestId(51), command: Command::Stop });
    let late = world.ask(API, Verb::Scale(3));
    assert!(is_superseded(&world.outcome(recycle)) && is_superseded(&world.outcome(drain)));
    assert!(matches!(world.outcome(late), Some(Outcome::Refused(_))));
    assert_eq!(world.outcome(RequestId(50)), None);
    for worker in world.leaving() {
        world.exit(worker, Exit::Code(0));
    }
    world.feed(Input::Command { request: RequestId(52), command: Command::Stop });
    assert!((50..=52).all(|request| is_done(&world.outcome(RequestId(request)))));
}

#[test]
fn a_drain_of_a_broker_that_waits_for_its_listeners_ends_the_waiting() {
    let mut world = World::unanswered([listening(1)]);
    world.feed(Input::Opened { broker: API, round: 1, result: refused() });
    world.answers = true;
    let request = world.ask(API, Verb::Drain);
    assert!(is_done(&world.outcome(request)));
    assert_eq!(world.app.deadline(), None);
}

#[test]
fn a_recycle_of_a_waiting_broker_does_nothing_and_says_so() {
    let mut world = World::unanswered([listening(1)]);
    let request = world.ask(API, Verb::Recycle(None));
    assert_eq!(note(world.outcome(request)), "nothing to recycle: waits for its listeners");
}

#[test]
fn full_means_every_slot_whoever_is_on_trial_beside_another() {
    let min_ready = RecycleSpec { min_ready: secs(60), ..RecycleSpec::default() };
    let mut world = World::ready([recycling(2, min_ready)]);
    world.ask(API, Verb::Recycle(None));
    world.say_ready(world.newest(0));
    world.crash(world.newest(1));
    assert_eq!(world.status().ready(), 2);
    let resume = world.ask(API, Verb::Resume);
    assert_eq!(world.outcome(resume), None);
    world.say_ready(world.newest(1));
    assert!(is_done(&world.outcome(resume)));
}

#[test]
fn an_answer_is_still_known_when_all_commands_that_may_wait_were_answered_after_it() {
    let mut world = World::ready([spec(1)]);
    let first = world.ask(API, Verb::Resume);
    world.ask(API, Verb::Recycle(None));
    let waiting: Vec<RequestId> = (0..511).map(|_| world.ask(API, Verb::Recycle(None))).collect();
    let refused = world.ask(API, Verb::Recycle(None));
    assert!(matches!(world.outcome(refused), Some(Outcome::Refused(_))));
    world.everybody_obeys();
    assert!(waiting.iter().all(|request| is_done(&world.outcome(*request))));
    let command = Command::Broker(API, Verb::Drain);
    let effects = world.feed(Input::Command { request: first, command });
    assert!(matches!(effects[..], [Effect::Reply { .. }]), "{effects:?}");
}

#[test]
fn whoever_drains_and_resumes_again_and_again_does_not_fill_the_memory_with_leaving_workers() {
    let mut world = World::ready([spec(2)]);
    for _ in 0..5 {
        world.ask(API, Verb::Drain);
        world.ask(API, Verb::Resume);
    }
    // Twice as many as wanted, and surge.
    assert_eq!(world.living.len(), 5);
    let resume = world.ask(API, Verb::Resume);
    world.everybody_obeys();
    assert!(is_done(&world.outcome(resume)));
    assert_eq!(world.living.len(), 2);
}
