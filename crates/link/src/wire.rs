//! The words between keeper and broker process: packets of fixed items, each with the descriptors that belong to it.
//!
//! Both may be of different versions: a word that is not known is passed over, and its descriptors are closed.

/// One word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// What is said: one of the constants below.
    pub word: u32,
    /// How many of the packet's descriptors belong to it, in order.
    pub descriptors: u32,
    /// What it is about.
    pub key: u64,
    /// A number; what it means is said at each word.
    pub value: u64,
}

/// To the keeper, and back to the next broker process: hold these descriptors under this key, instead of what was
/// there. With a value the key is that of a worker: its pid stands at this offset of the first descriptor under
/// [`RECORDS`], in 4 bytes, as soon as it has one.
pub const DEPOSIT: u32 = 1;
/// To the keeper: drop what is held under this key; if a worker's, its end has been taken in.
pub const FORGET: u32 = 2;
/// To the keeper: the broker process acts, and all that it was told has been taken in. Key and value are
/// `STATE_FORMAT` and `CODE` of the keeper in the image that says so.
pub const READY: u32 = 3;
/// To the keeper: the app has ended, or cannot begin; the value is the exit code to pass on.
pub const END: u32 = 4;
/// To the keeper: the order with this number as key has been taken in.
pub const DONE: u32 = 5;
/// To the keeper, as the last word: start this image instead. Two descriptors: the image, and what is to be held under
/// the key until the upgrade is forgotten.
pub const UPGRADE: u32 = 6;

/// To the keeper: send this worker a signal, number of the request above 32 bits and signal below; each number is acted
/// on once, whoever says it again. The keeper does it since it lives on: nobody else knows for certain what was sent.
/// Back to the next broker process it is the last one that was sent.
pub const SIGNAL: u32 = 8;

/// To the broker process: the worker of this key is gone and reaped. The value is its exit code, or above
/// [`BY_SIGNAL`] the signal that ended it. Said to every successor until the key is forgotten.
pub const EXIT: u32 = 16;
/// To the broker process: all that is held has been said. The value is one of `GO_*`.
pub const GO: u32 = 17;
/// To the broker process: do this; the key is the order's number, the value one of `ORDER_*`. Said to every successor
/// until it is done.
pub const ORDER: u32 = 18;
/// To the broker process: how the upgrade went whose note is under this key; the value is one of the six below. Said to
/// every successor until the key is forgotten.
pub const FATE: u32 = 19;
/// To the broker process: not all descriptors under this key could be held; those that could are.
pub const LACKS: u32 = 20;

/// The app begins.
pub const GO_BEGIN: u64 = 0;
/// Go on with what the one before has left.
pub const GO_ADOPT: u64 = 1;
/// The same, but several before could not: drop whatever is under way.
pub const GO_SALVAGE: u64 = 2;

/// Said by whom an upgrade is asked of: say [`READY`] if you could go on with this, and end.
pub const GO_CHECK: u64 = 3;

/// End gracefully.
pub const ORDER_STOP: u64 = 1;
/// End now.
pub const ORDER_STOP_NOW: u64 = 2;
/// A hang-up came.
pub const ORDER_HANG_UP: u64 = 3;
/// Hand over to the image that is now on disk.
pub const ORDER_UPGRADE: u64 = 4;

/// The new image is on trial.
pub const UNDECIDED: u64 = 0;
/// It runs the app now.
pub const TOOK_OVER: u64 = 1;
/// It could not be executed: above 8 bits the kernel's number for the reason.
pub const NOT_EXECUTED: u64 = 2;
/// It ended before it was ready: above 8 bits its status as in [`EXIT`].
pub const ENDED_EARLY: u64 = 3;
/// It was not ready in time.
pub const NOT_READY: u64 = 4;
/// It was ready, and ended before it had proved itself: above 8 bits its status.
pub const ENDED_SOON: u64 = 5;

/// Added to the number of a signal that ended a process.
pub const BY_SIGNAL: u64 = 1 << 32;
/// The value of an [`EXIT`] whose status nobody has.
pub const LOST: u64 = 1 << 33;

/// A status in words.
#[must_use]
pub fn how_it_ended(status: u64) -> String {
    match status {
        LOST => "ended, nobody knows how".to_owned(),
        BY_SIGNAL.. => format!("was ended by signal {}", status - BY_SIGNAL),
        code => format!("exited with {code}"),
    }
}

/// The key of the records.
pub const RECORDS: u64 = 1;

/// The longest packet: this many items, and no more descriptors than the kernel sends at once (`SCM_MAX_FD`, unix(7)).
pub const MOST_ITEMS: usize = 128;
/// Descriptors in one packet.
pub const MOST_DESCRIPTORS: usize = 253;

impl Item {
    /// A word about a key.
    #[must_use]
    pub const fn new(word: u32, key: u64, value: u64) -> Item {
        Item { word, descriptors: 0, key, value }
    }

    pub(crate) fn encode(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let words = [u64::from(self.word) | u64::from(self.descriptors) << 32, self.key, self.value];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Item> {
        let number = |at| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let long = |at| Some(u64::from(number(at)?) | u64::from(number(at + 4)?) << 32);
        Some(Item { word: number(0)?, descriptors: number(4)?, key: long(8)?, value: long(16)? })
    }
}

pub(crate) const SIZE: usize = 24;
