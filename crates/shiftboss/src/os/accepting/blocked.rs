//! Whether threads of a process are blocked until a connection comes: in accept(2), poll(2) or select(2) on a listener.
//!
//! Sources: `proc(5)` on `/proc/PID/task/TID/syscall` (the number of the call and its arguments) and `/proc/PID/mem` (what
//! they point to). Both are for whoever may trace the process (`ptrace(2)`, access mode checks): where Yama allows that
//! to parents only (`kernel.yama.ptrace_scope` 1 and more), nothing is seen here, unless by root.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::time::Instant;

use super::{ListenerKey, MOST_PROCESSES};

/// Removes what a thread of this process is blocked on.
pub(super) fn strike_out(pid: u32, missing: &mut Vec<ListenerKey>, until: Instant) {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
    for thread in threads.flatten().take(MOST_PROCESSES) {
        if missing.is_empty() || Instant::now() > until {
            return;
        }
        let call = fs::read_to_string(thread.path().join("syscall")).unwrap_or_default();
        for descriptor in waited_on(pid, &call) {
            if let Some(key) = key(pid, descriptor) {
                missing.retain(|listener| *listener != key);
            }
        }
    }
}

/// The descriptors from which a call waits to read: `7 0x7ffd5c… 0x2 0xffffffff …`; a thread that runs has none.
fn waited_on(pid: u32, call: &str) -> Vec<u64> {
    let mut words = call.split_ascii_whitespace();
    let Some(number) = words.next().and_then(|word| word.parse().ok()) else { return Vec::new() };
    let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (Some(first), Some(second)) = (argument(), argument()) else { return Vec::new() };
    match Wait::of(number) {
        Some(Wait::Accept) => vec![first],
        Some(Wait::Poll) => {
            let entries = memory(pid, first, second.saturating_mul(8));
            let entries = entries.chunks_exact(8).filter_map(|entry| entry.first_chunk().copied());
            entries.filter_map(polled).collect()
        }
        Some(Wait::Select) => {
            let set = memory(pid, second, first.div_ceil(8));
            let bits = (0..first).zip(set.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1)));
            bits.filter(|(_, bit)| *bit == 1).map(|(descriptor, _)| descriptor).collect()
        }
        None => Vec::new(),
    }
}

/// The descriptor of a `struct pollfd`, if it is to be read from.
fn polled([a, b, c, d, low, high, ..]: [u8; 8]) -> Option<u64> {
    let is_to_be_read = u16::from_ne_bytes([low, high]) & (POLLIN | POLLRDNORM) != 0;
    u64::try_from(i32::from_ne_bytes([a, b, c, d])).ok().filter(|_| is_to_be_read)
}

/// What a call waits for, and so how its arguments are read.
enum Wait {
    /// A descriptor.
    Accept,
    /// An array of descriptors, and its length.
    Poll,
    /// How many descriptors, and those of them to read from as bits.
    Select,
}

impl Wait {
    fn of(number: i64) -> Option<Wait> {
        match number {
            libc::SYS_accept | libc::SYS_accept4 => Some(Wait::Accept),
            libc::SYS_ppoll => Some(Wait::Poll),
            libc::SYS_pselect6 => Some(Wait::Select),
            // Newer machines have but the ones above.
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll => Some(Wait::Poll),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_select => Some(Wait::Select),
            _ => None,
        }
    }
}

/// So many bytes of its memory; none if that cannot be read, or is more than such a call has.
fn memory(pid: u32, address: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length.min(MOST_BYTES)).unwrap_or(0)];
    let read =
        File::open(format!("/proc/{pid}/mem")).and_then(|file| file.read_exact_at(&mut bytes, address));
    if read.is_ok() { bytes } else { Vec::new() }
}

fn key(pid: u32, descriptor: u64) -> Option<ListenerKey> {
    let file = fs::metadata(format!("/proc/{pid}/fd/{descriptor}")).ok()?;
    Some(ListenerKey::new(file.dev(), file.ino()))
}

const POLLIN: u16 = 1;
const POLLRDNORM: u16 = 0x40;
/// Of an array or a set of descriptors: 2,048 and 131,072 of them.
const MOST_BYTES: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;
    use std::thread;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::super::{Seen, look};
    use super::*;

    /// Looks until a thread that waits is seen, and lets it go on.
    fn is_seen(wait: fn(&TcpListener)) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let key = ListenerKey::of(listener.as_fd()).unwrap();
        let address = listener.local_addr().unwrap();
        let me = std::process::id();
        assert_eq!(look(me, &[key]), Seen::NotYet);
        let waiting = thread::spawn(move || {
            wait(&listener);
            listener
        });
        let until = Instant::now() + Duration::from_secs(60);
        while look(me, &[key]) == Seen::NotYet && Instant::now() < until {
            thread::yield_now();
        }
        assert_eq!(look(me, &[key]), Seen::Accepting);
        let _client = TcpStream::connect(address).unwrap();
        let _listener = waiting.join().unwrap();
        assert_eq!(look(me, &[key]), Seen::NotYet);
    }

    #[test]
    fn a_thread_in_accept_is_seen() {
        is_seen(|listener| drop(listener.accept().unwrap()));
    }

    #[test]
    fn a_thread_in_poll_is_seen() {
        is_seen(|listener| {
            let other = rustix::pipe::pipe().unwrap();
            let on = |events| PollFd::new(listener, events);
            let mut polled = [PollFd::new(&other.0, PollFlags::IN), on(PollFlags::IN)];
            assert_eq!(poll(&mut polled, None), Ok(1));
        });
    }

    #[test]
    fn who_waits_for_something_else_is_not_waiting_for_connections() {
        let to_read = |events| polled([7, 0, 0, 0, events, 0, 0, 0]);
        assert_eq!((to_read(1), to_read(0x40), to_read(4)), (Some(7), Some(7), None));
        assert_eq!(polled([255, 255, 255, 255, 1, 0, 0, 0]), None, "one that is left out");
        let me = std::process::id();
        for call in ["", "running", "-1 0x7ffe 0x7f1e", "0 0x3 0x5 0x1", "43", "43 3", "x 0x3 0x3"] {
            assert!(waited_on(me, call).is_empty(), "{call}");
        }
        assert_eq!(waited_on(me, &format!("{} 0x3 0x0 0x0", libc::SYS_accept4)), [3]);
        // Nothing is there.
        assert!(waited_on(me, &format!("{} 0x10 0x2 0x0", libc::SYS_ppoll)).is_empty());
        assert!(waited_on(me, &format!("{} 0xffffffffffffffff 0x10 0x0", libc::SYS_pselect6)).is_empty());
    }

    #[test]
    fn a_set_of_bits_is_read_from_memory() {
        let set = [0b0000_1001_u8, 0, 0b1000_0000];
        let at = set.as_ptr().addr();
        let call = format!("{} 0x18 {at:#x} 0x0", libc::SYS_pselect6);
        assert_eq!(waited_on(std::process::id(), &call), [0, 3, 23]);
    }
}
