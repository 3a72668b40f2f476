//! Where records are kept, with a memory for what the last writes replaced: a writer may end within a step.

use shiftboss_core::snapshot::Store;

pub(crate) struct Memory {
    bytes: Vec<u8>,
    /// What was written over since somebody asked for it to be remembered, the oldest first.
    replaced: Option<Vec<(usize, Vec<u8>)>>,
}

impl Memory {
    pub(crate) fn of(size: usize) -> Memory {
        Memory { bytes: vec![0; size], replaced: None }
    }

    pub(crate) fn image(&self) -> &[u8] {
        &self.bytes
    }

    /// From now on until some are taken back.
    pub(crate) fn remember(&mut self) {
        self.replaced = Some(Vec::new());
    }

    /// How many writes are remembered.
    pub(crate) fn writes(&self) -> usize {
        self.replaced.as_ref().map_or(0, Vec::len)
    }

    /// Takes back all writes but the first ones; of the next one `half` is left, in whole words.
    pub(crate) fn take_back(&mut self, kept: usize, half: bool) {
        let replaced = self.replaced.take().unwrap_or_default();
        for (number, (at, bytes)) in replaced.into_iter().enumerate().skip(kept).rev() {
            let left = if half && number == kept { bytes.len() / 16 * 8 } else { 0 };
            self.bytes[at + left..at + bytes.len()].copy_from_slice(&bytes[left..]);
        }
    }
}

impl Store for Memory {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let place = &mut self.bytes[at..at + bytes.len()];
        if let Some(replaced) = &mut self.replaced {
            replaced.push((at, place.to_vec()));
        }
        place.copy_from_slice(bytes);
    }
}
