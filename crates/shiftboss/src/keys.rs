//! Under which keys the keeper holds what.

use shiftboss_core::id::{BrokerId, Generation, WorkerId};
use shiftboss_link::wire::RECORDS;

/// One deposit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Core's records.
    Records,
    /// The last events.
    Ring,
    /// What is said of the app once: see `inheritance`.
    App,
    /// The control socket, listening.
    Control,
    /// The lock beside it.
    Lock,
    /// The upgrade that is under way.
    Upgrade,
    /// A worker's output pipes, its channel, and its notify socket if it has one.
    Worker(WorkerId),
    /// What has come on a worker's channel of a message that is not complete.
    Rest(WorkerId),
    /// What a Node program was given: see `node`.
    Node(WorkerId),
    /// A worker has said that it is ready, and is not believed yet.
    Ready(WorkerId),
    /// A broker's listener, by its place in the specification; or one that a worker has asked for, with what it asked.
    Listener(BrokerId, u32),
    /// What all workers at a listener of this place shall have of the first that has it.
    Shared(BrokerId, u32),
    /// One lane of such a listener.
    Lane(BrokerId, u16, u16),
    /// In which order its lanes are for the kernel.
    LaneOrder(BrokerId, u16),
    /// A specification, by the generation it came with.
    Spec(BrokerId, Generation),
}

impl Key {
    pub(crate) fn value(self) -> u64 {
        let pair = |class: u64, broker: BrokerId, number: u32| {
            class << CLASS | u64::from(broker.0 & MOST_BROKERS) << 32 | u64::from(number)
        };
        match self {
            Key::Records => RECORDS,
            Key::Ring => 2,
            Key::App => 3,
            Key::Control => 4,
            Key::Lock => 5,
            Key::Upgrade => 6,
            Key::Worker(id) => 1 << CLASS | id.0,
            Key::Rest(worker) => 4 << CLASS | worker.0 & ((1 << CLASS) - 1),
            Key::Node(worker) => 5 << CLASS | worker.0 & ((1 << CLASS) - 1),
            Key::Ready(worker) => 7 << CLASS | worker.0 & ((1 << CLASS) - 1),
            Key::Shared(broker, place) => pair(6, broker, place),
            Key::Listener(broker, place) => pair(2, broker, place),
            Key::Lane(broker, place, lane) => pair(16, broker, u32::from(place) << 16 | u32::from(lane)),
            Key::LaneOrder(broker, place) => pair(17, broker, place.into()),
            Key::Spec(broker, generation) => pair(3, broker, generation.0),
        }
    }

    /// None for a key of a version that knows more.
    #[allow(clippy::cast_possible_truncation, reason = "halves of a number")]
    pub(crate) fn of(value: u64) -> Option<Key> {
        let low = value & ((1 << CLASS) - 1);
        let broker = BrokerId(u32::try_from(low >> 32).unwrap_or(u32::MAX));
        let number = u32::try_from(low & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        match (value >> CLASS, low) {
            (0, RECORDS) => Some(Key::Records),
            (0, 2) => Some(Key::Ring),
            (0, 3) => Some(Key::App),
            (0, 4) => Some(Key::Control),
            (0, 5) => Some(Key::Lock),
            (0, 6) => Some(Key::Upgrade),
            (1, id) => Some(Key::Worker(WorkerId(id))),
            (4, id) => Some(Key::Rest(WorkerId(id))),
            (5, id) => Some(Key::Node(WorkerId(id))),
            (7, id) => Some(Key::Ready(WorkerId(id))),
            (6, _) => Some(Key::Shared(broker, number)),
            (2, _) => Some(Key::Listener(broker, number)),
            (3, _) => Some(Key::Spec(broker, Generation(number))),
            (16, _) => Some(Key::Lane(broker, (number >> 16) as u16, number as u16)),
            (17, _) => Some(Key::LaneOrder(broker, number as u16)),
            (0.., _) => None,
        }
    }
}

/// The class of a key stands above this bit.
const CLASS: u32 = 56;
const MOST_BROKERS: u32 = 0x00ff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_known_again() {
        let keys = [
            Key::Records,
            Key::Ring,
            Key::App,
            Key::Control,
            Key::Lock,
            Key::Upgrade,
            Key::Worker(WorkerId(123_456_789_012)),
            Key::Rest(WorkerId(7)),
            Key::Node(WorkerId(1 << 40)),
            Key::Ready(WorkerId(9)),
            Key::Shared(BrokerId(1), 0),
            Key::Listener(BrokerId(255), 7),
            Key::Lane(BrokerId(255), 3, 999),
            Key::LaneOrder(BrokerId(255), 3),
            Key::Spec(BrokerId(3), Generation(u32::MAX)),
        ];
        for key in keys {
            assert_eq!(Key::of(key.value()), Some(key));
        }
        assert_eq!((Key::of(0), Key::of(99), Key::of(9 << CLASS)), (None, None, None));
    }
}
