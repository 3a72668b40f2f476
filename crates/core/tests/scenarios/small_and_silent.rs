//! No wake-up at rest, however many workers there are.

use crate::world::*;
use shiftboss_core::Verb;

#[test]
fn at_rest_nothing_is_waited_for() {
    let mut world = World::ready([spec(3), listening(2)]);
    world.ask(API, Verb::Recycle(None));
    world.everybody_obeys();
    assert_eq!(world.app.deadline(), None);
}

#[test]
fn rest_returns_after_every_kind_of_work() {
    let mut world = World::ready([spec(3)]);
    world.ask(API, Verb::Recycle(None));
    world.everybody_obeys();
    world.crash(world.newest(1));
    world.all_ready();
    // Until the successor has proved itself there is something to wait for, and nothing else.
    world.pass(secs(11));
    assert_eq!(world.app.deadline(), None);
    world.ask(API, Verb::Scale(1));
    world.everybody_obeys();
    world.ask(API, Verb::Drain);
    world.everybody_obeys();
    assert_eq!((world.living.len(), world.app.deadline()), (0, None));
}
