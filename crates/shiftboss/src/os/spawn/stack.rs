//! The stack a child uses until its program runs: mapped once, then kept for the next child.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

/// Memory with an inaccessible guard below. There are as many as children were ever started at the same moment.
pub(super) struct Stack {
    base: NonNull<c_void>,
}

// SAFETY: plain memory without an owner thread.
unsafe impl Send for Stack {}

impl Stack {
    pub(super) fn take() -> io::Result<Stack> {
        let kept = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.map_or_else(Stack::map, Ok)
    }

    pub(super) fn give_back(self) {
        IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(self);
    }

    /// Where it begins: stacks grow down, and a mapping's end is aligned for every architecture.
    pub(super) fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping.
        unsafe { self.base.as_ptr().byte_add(GUARD + SIZE) }
    }

    fn map() -> io::Result<Stack> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address the kernel chooses touches nothing that exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), GUARD + SIZE, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Stack { base: NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)? };
        // SAFETY: the upper part of the mapping just made.
        let opened =
            unsafe { libc::mprotect(base.byte_add(GUARD), SIZE, libc::PROT_READ | libc::PROT_WRITE) };
        if opened == 0 { Ok(stack) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which no child uses any more: `spawn` has it only while its thread is suspended.
        unsafe { libc::munmap(self.base.as_ptr(), GUARD + SIZE) };
    }
}

static IDLE: Mutex<Vec<Stack>> = Mutex::new(Vec::new());
/// Bytes; the child needs about 1 KiB. Both are multiples of every page size.
const SIZE: usize = 64 * 1024;
const GUARD: usize = 64 * 1024;
