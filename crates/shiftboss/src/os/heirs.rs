//! Whether somebody goes on with what this process has, should it end now: then closing is all that may happen to it.
//! Files of sockets are the successor's, and so is the lock.

use std::cell::Cell;

thread_local! {
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// From now on whatever this thread drops is left to a successor, or, with false, given back.
pub fn expect(expected: bool) {
    EXPECTED.set(expected);
}

/// Whether what is dropped is somebody else's from now on; so it is after a panic, too.
#[must_use]
pub fn are_expected() -> bool {
    EXPECTED.get() || std::thread::panicking()
}
