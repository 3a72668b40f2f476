//! A worker that speaks on its channel is told to leave before it is signalled; one that closes it, or talks nonsense, is
//! of no use. A broker may join a running app.

use crate::world::*;
use shiftboss_core::id::{BrokerId, WorkerId};
use shiftboss_core::spec::{BrokerSpec, Ready, RecycleSpec, Signal, StopLadder};
use shiftboss_core::{Effect, Exit, Input, Verb, What};

fn told() -> BrokerSpec {
    BrokerSpec { stop: StopLadder::default(), ..spec(1) }
}

/// How the worker was asked: by a message, or by which signal.
fn asked(effects: &[Effect]) -> Vec<Option<Signal>> {
    let ask = |effect: &Effect| match effect {
        Effect::Notice { .. } => Some(None),
        Effect::Signal { signal, .. } => Some(Some(*signal)),
        Effect::KillTree { .. } => Some(Some(Signal::KILL)),
        _ => None,
    };
    effects.iter().filter_map(ask).collect()
}

fn speaking(spec: BrokerSpec) -> (World, WorkerId) {
    let mut world = World::ready([spec]);
    let worker = world.newest(0);
    world.feed(Input::Spoke { worker });
    (world, worker)
}

#[test]
fn one_that_speaks_is_told_then_signalled_then_killed() {
    let (mut world, _) = speaking(told());
    assert_eq!(asked(&world.feed(Input::Stop { now: false })), [None]);
    assert_eq!(asked(&world.pass(millis(29_999))), []);
    assert_eq!(asked(&world.pass(millis(1))), [Some(Signal::TERM)]);
    assert_eq!(asked(&world.pass(millis(4_999))), []);
    assert_eq!(asked(&world.pass(millis(1))), [Some(Signal::KILL)]);
}

#[test]
fn one_that_never_spoke_is_signalled_at_once_and_has_the_same_time() {
    let mut world = World::ready([told()]);
    assert_eq!(asked(&world.feed(Input::Stop { now: false })), [Some(Signal::TERM)]);
    assert_eq!(asked(&world.pass(millis(29_999))), []);
    assert_eq!(asked(&world.pass(millis(1))), [Some(Signal::KILL)]);
}

#[test]
fn one_that_closes_its_channel_when_told_has_a_second_more() {
    let (mut world, worker) = speaking(told());
    world.feed(Input::Stop { now: false });
    world.pass(secs(3));
    world.feed(Input::HungUp { worker });
    assert_eq!(asked(&world.pass(millis(999))), []);
    assert_eq!(asked(&world.pass(millis(1))), [Some(Signal::TERM)]);
}

#[test]
fn one_that_closes_its_channel_and_leaves_is_judged_by_its_exit() {
    let (mut world, worker) = speaking(told());
    assert_eq!(asked(&world.feed(Input::HungUp { worker })), []);
    let effects = world.exit(worker, Exit::Code(0));
    assert!(events(&effects).any(|event| matches!(event.what, What::WorkerEnded { .. })));
}

#[test]
fn one_that_closes_its_channel_and_stays_is_replaced_and_that_is_a_death() {
    let (mut world, worker) = speaking(told());
    world.feed(Input::HungUp { worker });
    assert_eq!(asked(&world.pass(millis(999))), []);
    assert_eq!(asked(&world.pass(millis(1))), [Some(Signal::TERM)]);
    let effects = world.exit(worker, Exit::Code(0));
    let reason = events(&effects).find_map(|event| match &event.what {
        What::WorkerDeath { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason.as_deref(), Some("closed its channel and did not leave"));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Spawn { .. })));
}

#[test]
fn a_channel_that_never_spoke_may_be_closed() {
    let mut world = World::ready([told()]);
    let worker = world.newest(0);
    world.feed(Input::HungUp { worker });
    assert_eq!(asked(&world.pass(secs(100))), []);
}

#[test]
fn one_that_talks_nonsense_is_replaced_by_its_ladder() {
    let (mut world, worker) = speaking(told());
    assert_eq!(asked(&world.feed(Input::Garbled { worker })), [None]);
    let effects = world.exit(worker, Exit::Code(0));
    assert!(events(&effects).any(|event| matches!(event.what, What::WorkerDeath { .. })));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Spawn { .. })));
}

#[test]
fn one_that_hangs_is_not_told_and_not_waited_for() {
    let (mut world, worker) = speaking(told());
    assert_eq!(asked(&world.feed(Input::Hung { worker })), [Some(Signal::TERM)]);
    assert!(world.pass(secs(5)).contains(&Effect::KillTree { worker }), "after the wait of its signal only");
    let effects = world.exit(worker, Exit::Signal(Signal::KILL));
    let reason = events(&effects).find_map(|event| match &event.what {
        What::WorkerDeath { reason, forced: true, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason.as_deref(), Some("hung: its event loop has not turned for too long"));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Spawn { .. })));
}

#[test]
fn one_that_hangs_while_it_leaves_keeps_its_time() {
    let (mut world, worker) = speaking(told());
    world.ask(API, Verb::Scale(0));
    assert_eq!(asked(&world.feed(Input::Hung { worker })), []);
    let effects = world.exit(worker, Exit::Code(0));
    assert!(events(&effects).any(|event| matches!(event.what, What::WorkerEnded { .. })));
}

#[test]
fn a_successor_that_closes_its_channel_replaces_nobody() {
    let recycle = RecycleSpec { min_ready: secs(5), ..RecycleSpec::default() };
    let mut world = World::ready([BrokerSpec { recycle, ready: Ready::Notify, ..told() }]);
    let old = world.newest(0);
    world.ask(API, Verb::Recycle(None));
    let successor = world.newest(0);
    world.feed(Input::Ready { worker: successor });
    world.feed(Input::Spoke { worker: successor });
    assert_eq!(asked(&world.feed(Input::HungUp { worker: successor })), []);
    let effects = world.pass(secs(1));
    assert!(events(&effects).any(|event| matches!(event.what, What::RecycleFailed { .. })));
    world.pass(secs(100));
    assert!(world.living.contains_key(&old));
}

#[test]
fn a_broker_that_joins_runs_like_any_other() {
    let mut world = World::ready([spec(1)]);
    let spec = Box::new(BrokerSpec { name: "late".to_owned(), ..spec(2) });
    let effects = world.feed(Input::Begun { spec: spec.clone(), seed: 3 });
    let begun = events(&effects).find(|event| matches!(event.what, What::BrokerStarted { .. }));
    assert_eq!(begun.and_then(|event| event.broker), Some(BrokerId(1)));
    assert_eq!(world.living.values().filter(|place| place.broker == BrokerId(1)).count(), 2);
    world.feed(Input::Stop { now: false });
    assert_eq!(world.feed(Input::Begun { spec, seed: 4 }), []);
}
