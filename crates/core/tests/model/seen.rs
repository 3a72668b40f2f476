//! Fingerprints of states, and the states seen so far.

use std::hash::{DefaultHasher, Hasher};

/// 128 bits of a state.
pub(crate) type Key = [u32; 4];

/// Two hashes with different beginnings.
pub(crate) struct Print {
    bytes: Vec<u8>,
}

impl Default for Print {
    fn default() -> Self {
        Print { bytes: Vec::with_capacity(2048) }
    }
}

impl Hasher for Print {
    fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        self.hash(0)
    }
}

impl Print {
    fn hash(&self, begin: u8) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(begin);
        hasher.write(&self.bytes);
        hasher.finish()
    }

    pub(crate) fn key(&self) -> Key {
        let (first, second) = (self.hash(1), self.hash(2));
        [first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32]
    }
}

/// For each state seen a number: see [`OPEN`].
#[expect(clippy::disallowed_types, reason = "only looked up, never iterated; a state is 20 bytes here")]
pub(crate) type Seen = std::collections::HashMap<Key, u32, std::hash::BuildHasherDefault<Folded>>;

/// Added to the place of a state that is still being explored, or leads back to one that is; without it, it is the
/// longest way on.
pub(crate) const OPEN: u32 = 1 << 31;

/// A key is a hash already.
#[derive(Default)]
pub(crate) struct Folded(u64);

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = self.0.rotate_left(5) ^ u64::from_le_bytes(word);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
