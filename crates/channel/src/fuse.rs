//! For tests: everything fails from the k-th step on, as if the process had been killed there.

use std::cell::Cell;
use std::io;

thread_local! {
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// So many steps are taken; none = all.
pub(crate) fn burn_after(steps: Option<u32>) {
    LEFT.set(steps);
}

pub(crate) fn step() -> io::Result<()> {
    match LEFT.get() {
        None => Ok(()),
        Some(0) => Err(io::Error::other("killed")),
        Some(left) => {
            LEFT.set(Some(left - 1));
            Ok(())
        }
    }
}
