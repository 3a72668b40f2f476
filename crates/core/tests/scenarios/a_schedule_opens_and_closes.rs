//! A part-time broker works inside of its windows; what hands ask for and what the clock says meet.

use crate::world::*;
use shiftboss_core::spec::{BrokerSpec, Drained};
use shiftboss_core::status::BrokerState;
use shiftboss_core::{Adoption, Effect, Input, Outcome, Verb, What};

fn part_time(workers: u32) -> BrokerSpec {
    BrokerSpec { scheduled: true, ..spec(workers) }
}

/// A broker that has been told whether it is inside of its window.
fn told(spec: BrokerSpec, open: bool) -> World {
    let mut world = World::of([spec]);
    world.feed(Input::Window { broker: API, open });
    world.all_ready();
    world
}

fn note(outcome: Option<Outcome>) -> String {
    match outcome {
        Some(Outcome::Done(done)) => done.note.expect("a note").to_string(),
        other => panic!("{other:?}"),
    }
}

fn window(world: &mut World, open: bool) -> Vec<Effect> {
    world.feed(Input::Window { broker: API, open })
}

#[test]
fn nobody_is_started_before_the_clock_was_read() {
    let mut world = World::of([part_time(2)]);
    assert_eq!((world.status().state, spawns(&world.log)), (BrokerState::Closed, 0));
    assert_eq!(world.said(|what| *what == What::AppReady), 0);
    window(&mut world, true);
    assert_eq!((world.status().state, spawns(&world.log)), (BrokerState::Open, 2));
    assert_eq!(world.said(|what| *what == What::BrokerOpened), 1);
}

#[test]
fn outside_of_its_window_it_starts_closed_and_the_app_is_ready_without_it() {
    let world = told(part_time(2), false);
    assert_eq!((world.status().state, spawns(&world.log)), (BrokerState::Closed, 0));
    assert_eq!(world.said(|what| *what == What::BrokerClosed), 1);
    assert_eq!(world.said(|what| *what == What::AppReady), 1);
}

#[test]
fn it_is_drained_by_the_clock_in_the_same_way_as_by_hand() {
    let mut world = told(BrokerSpec { listens: true, ..part_time(2) }, true);
    let effects = window(&mut world, false);
    assert_eq!(doors(&effects), ["quiet"]);
    assert_eq!(signals(&world.log).len(), 2);
    assert_eq!(world.status().state, BrokerState::Draining);
    world.everybody_obeys();
    assert_eq!(world.status().state, BrokerState::Closed);
    assert_eq!(doors(&world.log).last(), Some(&"shut"));
    assert_eq!(world.said(|what| matches!(what, What::BrokerDrained { .. })), 1);
    assert_eq!(world.said(|what| *what == What::BrokerClosed), 1);
    assert_eq!(world.app.deadline(), None);
    window(&mut world, true);
    world.all_ready();
    assert_eq!((world.status().state, world.living.len()), (BrokerState::Open, 2));
    assert_eq!(world.said(|what| *what == What::BrokerOpened), 2);
}

#[test]
fn a_window_told_again_changes_nothing() {
    let mut world = told(part_time(1), true);
    assert!(window(&mut world, true).is_empty());
    window(&mut world, false);
    world.everybody_obeys();
    assert!(window(&mut world, false).is_empty());
}

#[test]
fn a_window_that_begins_while_its_workers_leave_starts_new_ones_at_once() {
    let mut world = told(part_time(2), true);
    window(&mut world, false);
    let effects = window(&mut world, true);
    assert_eq!(spawns(&effects), 2);
    world.everybody_obeys();
    assert_eq!((world.status().state, world.living.len()), (BrokerState::Open, 2));
}

#[test]
fn a_drain_by_hand_outlasts_the_schedule() {
    let mut world = told(part_time(1), true);
    world.ask(API, Verb::Drain);
    world.everybody_obeys();
    for open in [false, true, false, true] {
        assert!(window(&mut world, open).is_empty());
        assert_eq!(world.status().state, BrokerState::Drained);
    }
    let resume = world.ask(API, Verb::Resume);
    world.all_ready();
    assert!(is_done(&world.outcome(resume)));
}

#[test]
fn a_drain_by_hand_of_one_that_closes_or_is_closed_holds_it() {
    for closes in [true, false] {
        let mut world = told(part_time(1), true);
        window(&mut world, false);
        if !closes {
            world.everybody_obeys();
        }
        let drain = world.ask(API, Verb::Drain);
        world.everybody_obeys();
        assert!(is_done(&world.outcome(drain)));
        assert_eq!(world.status().state, BrokerState::Drained);
        assert!(window(&mut world, true).is_empty());
    }
}

#[test]
fn a_resume_of_a_closed_broker_answers_when_it_has_opened_and_is_full() {
    let mut world = told(part_time(1), false);
    let resume = world.ask(API, Verb::Resume);
    assert_eq!((world.outcome(resume), world.status().state), (None, BrokerState::Closed));
    window(&mut world, true);
    assert_eq!(world.outcome(resume), None);
    world.all_ready();
    assert!(is_done(&world.outcome(resume)));
}

#[test]
fn a_resume_of_one_drained_by_hand_outside_of_its_window_gives_it_back_to_the_clock() {
    let mut world = told(part_time(1), true);
    world.ask(API, Verb::Drain);
    world.everybody_obeys();
    window(&mut world, false);
    let resume = world.ask(API, Verb::Resume);
    assert_eq!((world.outcome(resume), world.status().state), (None, BrokerState::Closed));
    window(&mut world, true);
    world.all_ready();
    assert!(is_done(&world.outcome(resume)));
}

#[test]
fn a_drain_ends_the_wait_of_a_resume() {
    let mut world = told(part_time(1), false);
    let resume = world.ask(API, Verb::Resume);
    world.ask(API, Verb::Drain);
    assert!(is_superseded(&world.outcome(resume)));
}

#[test]
fn resumed_now_it_opens_at_once_and_stays_open_until_the_next_close() {
    let mut world = told(part_time(1), false);
    let resume = world.ask(API, Verb::ResumeNow);
    world.all_ready();
    assert!(is_done(&world.outcome(resume)));
    assert!(window(&mut world, false).is_empty());
    assert!(window(&mut world, true).is_empty());
    assert_eq!(world.status().state, BrokerState::Open);
    window(&mut world, false);
    world.everybody_obeys();
    assert_eq!(world.status().state, BrokerState::Closed);
}

#[test]
fn resumed_now_and_drained_it_is_the_clocks_again() {
    let mut world = told(part_time(1), false);
    world.ask(API, Verb::ResumeNow);
    world.ask(API, Verb::Drain);
    world.everybody_obeys();
    let resume = world.ask(API, Verb::Resume);
    assert_eq!((world.outcome(resume), world.status().state), (None, BrokerState::Closed));
}

#[test]
fn a_recycle_while_closed_does_nothing_and_says_so() {
    let mut world = told(part_time(1), false);
    let request = world.ask(API, Verb::Recycle(None));
    assert_eq!(note(world.outcome(request)), "nothing to recycle: closed by its schedule");
}

#[test]
fn a_scale_while_closed_takes_effect_when_it_opens() {
    let mut world = told(part_time(1), false);
    let request = world.ask(API, Verb::Scale(3));
    assert_eq!(note(world.outcome(request)), "takes effect when the broker is open");
    window(&mut world, true);
    assert_eq!(world.living.len(), 3);
}

#[test]
fn listeners_that_cannot_be_opened_are_left_alone_when_the_window_ends() {
    let mut world = World::unanswered([BrokerSpec { listens: true, ..part_time(1) }]);
    window(&mut world, true);
    world.feed(Input::Opened { broker: API, round: 1, result: refused() });
    assert!(world.app.deadline().is_some());
    window(&mut world, false);
    assert_eq!(world.app.deadline(), None);
    assert_eq!(doors(&world.log), ["open", "shut"]);
}

#[test]
fn an_app_ends_with_a_closed_broker() {
    for drained in [Drained::Refuse, Drained::Hold] {
        let mut world = told(BrokerSpec { listens: true, drained, ..part_time(1) }, false);
        world.feed(Input::Stop { now: false });
        assert_eq!(world.log.last(), Some(&Effect::Exit));
        assert!(window(&mut world, true).is_empty());
    }
}

#[test]
fn whoever_takes_over_reads_the_clock_and_goes_on() {
    for how in [Adoption::Whole, Adoption::Salvage] {
        let mut world = told(part_time(1), false);
        let asks =
            world.adopt(how).iter().filter(|effect| matches!(effect, Effect::WatchClock { .. })).count();
        assert_eq!(asks, 1);
        assert!(window(&mut world, false).is_empty());
        window(&mut world, true);
        assert_eq!(world.living.len(), 1);
    }
}
