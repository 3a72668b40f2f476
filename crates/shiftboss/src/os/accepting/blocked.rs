//! Whether threads of a process are blocked until a connection comes: in accept(2), poll(2) or select(2) on a listener.
//!
//! Sources: `proc(5)` on `/proc/PID/task/TID/syscall` (the number of the call and its arguments) and `/proc/PID/mem` (what
//! they point to). Both are for whoever may trace the process (`ptrace(2)`, access mode checks): where Yama allows that
//! to ancestors only (`kernel.yama.ptrace_scope` 1, and below a keeper we are none), nothing is seen here without
//! `CAP_SYS_PTRACE`. A thread that was stopped is seen when it has called again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use super::{ListenerKey, MOST_DESCRIPTORS};

/// Removes what a thread of this process is blocked on; `listeners` are its descriptors of them.
pub(super) fn strike_out(
    pid: u32,
    listeners: &[(u32, ListenerKey)],
    missing: &mut Vec<ListenerKey>,
    until: Instant,
) {
    if listeners.is_empty() {
        return;
    }
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
    for thread in threads.flatten().take(MOST_DESCRIPTORS) {
        if missing.is_empty() || Instant::now() > until {
            return;
        }
        let call = fs::read_to_string(thread.path().join("syscall")).unwrap_or_default();
        let Some(wait) = Wait::of(pid, &call) else { continue };
        for (descriptor, key) in listeners {
            if wait.is_for(*descriptor) {
                missing.retain(|listener| listener != key);
            }
        }
    }
}

/// What a thread waits for.
enum Wait {
    /// A connection of this listener.
    Accept(u32),
    /// An array of `struct pollfd`.
    Poll(Vec<u8>),
    /// Descriptors below this one, those to read from as bits.
    Select(u32, Vec<u8>),
}

impl Wait {
    /// Of a call as it is shown, `7 0x7ffd5c… 0x2 0xffffffff …`; a thread that runs is in none.
    fn of(pid: u32, call: &str) -> Option<Wait> {
        let mut words = call.split_ascii_whitespace();
        let number: i64 = words.next()?.parse().ok()?;
        let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        let (first, second) = (argument()?, argument()?);
        // Of a number only its lower half counts.
        let int = |argument: u64| u32::try_from(argument & u64::from(u32::MAX)).ok();
        match number {
            _ if ACCEPT.contains(&number) => Some(Wait::Accept(int(first)?)),
            _ if POLL.contains(&number) => {
                Some(Wait::Poll(memory(pid, first, u64::from(int(second)?) * ENTRY)))
            }
            _ if SELECT.contains(&number) => {
                let end = int(first)?;
                Some(Wait::Select(end, memory(pid, second, u64::from(end) / 8 + 1)))
            }
            _ => None,
        }
    }

    fn is_for(&self, descriptor: u32) -> bool {
        match self {
            Wait::Accept(listener) => *listener == descriptor,
            Wait::Poll(entries) => {
                let entries = entries.chunks_exact(8).filter_map(|entry| entry.first_chunk().copied());
                entries.filter_map(polled).any(|polled| polled == descriptor)
            }
            Wait::Select(end, bits) => {
                let byte = bits.get(descriptor as usize / 8).copied().unwrap_or(0);
                descriptor < *end && byte >> (descriptor % 8) & 1 == 1
            }
        }
    }
}

/// The descriptor of a `struct pollfd`, if it is to be read from.
fn polled([a, b, c, d, low, high, ..]: [u8; 8]) -> Option<u32> {
    let is_to_be_read = u16::from_ne_bytes([low, high]) & (POLLIN | POLLRDNORM) != 0;
    u32::try_from(i32::from_ne_bytes([a, b, c, d])).ok().filter(|_| is_to_be_read)
}

/// So many bytes of its memory, at most [`MOST_BYTES`], as far as they are there.
fn memory(pid: u32, address: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length.min(MOST_BYTES)).unwrap_or(0)];
    let read = File::open(format!("/proc/{pid}/mem")).and_then(|file| file.read_at(&mut bytes, address));
    bytes.truncate(read.unwrap_or(0));
    bytes
}

/// Numbers of the calls; newer machines have only those with a signal mask.
const ACCEPT: [i64; 2] = [libc::SYS_accept, libc::SYS_accept4];
#[cfg(target_arch = "x86_64")]
const POLL: [i64; 2] = [libc::SYS_poll, libc::SYS_ppoll];
#[cfg(target_arch = "x86_64")]
const SELECT: [i64; 2] = [libc::SYS_select, libc::SYS_pselect6];
#[cfg(not(target_arch = "x86_64"))]
const POLL: [i64; 1] = [libc::SYS_ppoll];
#[cfg(not(target_arch = "x86_64"))]
const SELECT: [i64; 1] = [libc::SYS_pselect6];
const POLLIN: u16 = 1;
const POLLRDNORM: u16 = 0x40;
/// Bytes of a `struct pollfd`.
const ENTRY: u64 = 8;
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
        while look(me, &[key]) == Seen::NotYet {
            assert!(Instant::now() < until, "it is not seen");
            thread::yield_now();
        }
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
        let of = |call: &str| Wait::of(std::process::id(), call);
        for call in ["", "running", "-1 0x7ffe 0x7f1e", "0 0x3 0x5 0x1", "43", "43 3", "x 0x3 0x3"] {
            assert!(of(call).is_none(), "{call}");
        }
        let accepts = of(&format!("{} 0x700000003 0x0 0x0", libc::SYS_accept4)).unwrap();
        assert!(accepts.is_for(3) && !accepts.is_for(4));
        // Nothing is there.
        assert!(!of(&format!("{} 0x10 0x2 0x0", libc::SYS_ppoll)).unwrap().is_for(3));
        assert!(!of(&format!("{} 0xffffffffffffffff 0x10 0x0", libc::SYS_pselect6)).unwrap().is_for(3));
    }

    #[test]
    fn a_set_of_bits_is_read_from_memory() {
        let set = [0b0000_1001_u8, 0, 0b1000_0000, 0b1];
        let at = set.as_ptr().addr();
        let selects =
            Wait::of(std::process::id(), &format!("{} 0x18 {at:#x} 0x0", libc::SYS_pselect6)).unwrap();
        let found: Vec<u32> = (0..100).filter(|descriptor| selects.is_for(*descriptor)).collect();
        assert_eq!(found, [0, 3, 23]);
    }
}
