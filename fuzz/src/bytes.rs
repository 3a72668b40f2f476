//! Choices made by bytes: without any left, the first choice each time.

/// What is left of the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    /// The next one.
    pub fn one(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The next two.
    pub fn wide(&mut self) -> u16 {
        u16::from_le_bytes([self.one(), self.one()])
    }

    /// A number below this one, which is at most 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.one()) % bound
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.one() & 1 == 1
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Whether all are spent.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
