//! A worker cannot hurt the broker or another worker, whatever it does and says.

use crate::world::*;
use shiftboss_core::id::{Pid, WorkerId};
use shiftboss_core::{Effect, Exit, Input, Verb};

#[test]
fn news_of_the_dead_are_dropped() {
    let mut world = World::ready([spec(1)]);
    let dead = world.newest(0);
    world.crash(dead);
    world.all_ready();
    for input in [
        Input::Exited { worker: dead, exit: CRASH },
        Input::Ready { worker: dead },
        Input::Spawned { worker: dead, pid: Pid(1) },
        Input::SpawnFailed { worker: dead, reason: String::new() },
    ] {
        assert_eq!(world.feed(input), []);
    }
    assert_eq!(world.status().deaths, 1);
}

#[test]
fn a_worker_that_cries_ready_again_and_again_is_heard_once() {
    let mut world = World::ready([spec(2)]);
    let loud = world.newest(0);
    for _ in 0..3 {
        assert_eq!(world.say_ready(loud), []);
    }
    world.ask(API, Verb::Drain);
    assert_eq!(world.say_ready(loud), [], "nor while it leaves");
    for unknown in [0, 999, u64::MAX] {
        assert_eq!(world.feed(Input::Ready { worker: WorkerId(unknown) }), []);
    }
}

#[test]
fn a_worker_that_never_leaves_holds_nobody_else_up() {
    let mut world = World::ready([spec(2)]);
    let (deaf, other) = (world.newest(0), world.newest(1));
    world.ask(API, Verb::Recycle(None));
    world.all_ready();
    let effects = world.pass(secs(30));
    assert!(effects.contains(&Effect::KillTree { worker: deaf }));
    world.exit(deaf, Exit::Signal(shiftboss_core::spec::Signal::KILL));
    world.all_ready();
    assert!(world.leaving().contains(&other), "the recycle goes on");
}
