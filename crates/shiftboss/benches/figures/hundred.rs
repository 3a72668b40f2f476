//! Messages of a hundred bytes, numbered, and who counts them.

use std::time::Instant;

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(crate) struct Hundred<'a> {
    number: u64,
    text: &'a str,
}

impl Hundred<'_> {
    pub(crate) fn new(number: u64) -> Hundred<'static> {
        Hundred { number: FIRST + number, text: TEXT }
    }
}

/// Sees that all come, in order, and how quickly.
pub(crate) struct Count {
    expected: u64,
    seen: u64,
    begun: Option<Instant>,
}

impl Count {
    pub(crate) fn to(expected: u64) -> Count {
        Count { expected, seen: 0, begun: None }
    }

    /// The next; the rate, in messages per second, with the last one.
    pub(crate) fn take(&mut self, message: &Hundred<'_>) -> Option<f64> {
        assert_eq!((message.number, message.text.len()), (FIRST + self.seen, TEXT.len()));
        self.seen += 1;
        let begun = *self.begun.get_or_insert_with(Instant::now);
        (self.seen == self.expected).then(|| (self.seen - 1) as f64 / begun.elapsed().as_secs_f64())
    }
}

/// So all numbers are equally long.
const FIRST: u64 = 1_000_000;
const TEXT: &str = "........................................................................";
