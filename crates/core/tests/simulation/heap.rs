//! How much memory a value holds: what its drop gives back. Counts each thread apart.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

pub(crate) struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

/// Bytes on the heap that this value alone keeps alive.
pub(crate) fn held_by<T>(value: T) -> usize {
    let before = HELD.get();
    drop(value);
    usize::try_from(before - HELD.get()).unwrap_or(0)
}

fn count(bytes: usize, sign: isize) {
    // A thread that ends may free memory after its counter is gone; nobody asks for that one any more.
    let _ = HELD.try_with(|held| held.set(held.get() + sign * isize::try_from(bytes).unwrap_or(0)));
}

// SAFETY: every call is handed on to the system's allocator as it came; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: `at` came from `System.alloc` with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}
