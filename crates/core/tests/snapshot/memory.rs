//! A store in memory that remembers what was written, so that a test can end the writer anywhere in between.

use shiftboss_core::snapshot::{Layout, Store};

#[derive(Clone)]
pub(crate) struct Memory {
    pub(crate) bytes: Vec<u8>,
    /// Since the test last took them.
    pub(crate) writes: Vec<Write>,
}

#[derive(Clone)]
pub(crate) struct Write {
    at: usize,
    bytes: Vec<u8>,
}

impl Memory {
    pub(crate) fn new() -> Memory {
        Memory { bytes: vec![0; LAYOUT.size()], writes: Vec::new() }
    }
}

impl Store for Memory {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.writes.push(Write { at, bytes: bytes.to_vec() });
    }
}

impl Write {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where its bytes lie.
    pub(crate) fn places(&self) -> std::ops::Range<usize> {
        self.at..self.at + self.bytes.len()
    }

    pub(crate) fn apply(&self, image: &mut [u8]) {
        image[self.at..self.at + self.bytes.len()].copy_from_slice(&self.bytes);
    }

    /// Only the first half of it, in whole words.
    pub(crate) fn apply_half(&self, image: &mut [u8]) {
        let half = self.bytes.len() / 16 * 8;
        image[self.at..self.at + half].copy_from_slice(&self.bytes[..half]);
    }
}

pub(crate) const LAYOUT: Layout = Layout { brokers: 4, slots: 32, workers: 128, commands: 128 };
