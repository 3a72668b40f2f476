//! Memory and CPU time of a process, from `/proc` (`proc(5)`).
//!
//! The caller knows that the pid is not yet reaped; rates and averages are its own business.

use std::fs;
use std::sync::OnceLock;

/// Resident memory in bytes, shared pages included; none if the process is gone or is a zombie. The kernel's count may
/// lag by some pages per thread.
#[must_use]
pub fn rss_bytes(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    (pages > 0).then(|| pages.saturating_mul(units().page))
}

/// CPU time used so far by all its threads, in user and kernel mode, in nanoseconds; without its children. The
/// kernel counts in steps of 10 ms. None if the process is gone.
#[must_use]
pub fn cpu_ns(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let ticks = cpu_ticks(&String::from_utf8_lossy(&stat))?;
    Some(ticks.saturating_mul(1_000_000_000 / units().ticks_a_second))
}

/// Fields 14 and 15. Field 2 is the program's name in parentheses, with anything in it: what follows its last `)`
/// begins with field 3.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(user.saturating_add(system))
}

/// What the kernel counts in.
#[derive(Clone, Copy)]
struct Units {
    page: u64,
    ticks_a_second: u64,
}

fn units() -> Units {
    static UNITS: OnceLock<Units> = OnceLock::new();
    *UNITS.get_or_init(|| {
        let vector = fs::read("/proc/self/auxv").unwrap_or_default();
        let positive = |key, default| entry(&vector, key).filter(|value| *value > 0).unwrap_or(default);
        Units { page: positive(AT_PAGESZ, 4096), ticks_a_second: positive(AT_CLKTCK, 100) }
    })
}

/// A value of the auxiliary vector: pairs of machine words, see `getauxval(3)`.
fn entry(vector: &[u8], key: usize) -> Option<u64> {
    let (words, _) = vector.as_chunks::<{ size_of::<usize>() }>();
    let (pairs, _) = words.as_chunks::<2>();
    let [_, value] = pairs.iter().find(|[name, _]| usize::from_ne_bytes(*name) == key)?;
    u64::try_from(usize::from_ne_bytes(*value)).ok()
}

const AT_PAGESZ: usize = 6;
const AT_CLKTCK: usize = 17;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::reaper::Reaper;
    use crate::os::spawn::trial;

    #[test]
    fn our_own_memory_and_time_are_seen() {
        let me = std::process::id();
        let memory = vec![1u8; 32 << 20];
        assert!(rss_bytes(me).unwrap() > 32 << 20);
        assert_eq!(memory.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 32 << 20);
        let begun = cpu_ns(me).unwrap();
        // As long as it takes: two of the kernel's steps, or the test does not end.
        while cpu_ns(me).unwrap() < begun + 20_000_000 {}
    }

    #[test]
    fn a_zombie_has_no_memory_and_a_reaped_process_nothing() {
        let mut reaper = Reaper::default();
        let child = trial::shell("exit 0");
        let pid = child.pid;
        reaper.watch(1, child);
        assert!(trial::readable(reaper.pidfd(1).unwrap()));
        assert_eq!(rss_bytes(pid), None);
        assert!(cpu_ns(pid).is_some());
        assert_eq!(rss_bytes(0), None);
        assert_eq!(cpu_ns(0), None);
        reaper.reap(1);
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "5 (a) b) (c) S 1 5 5 0 -1 4194560 100 0 0 0 7 3 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu_ticks(stat), Some(10));
        assert_eq!(cpu_ticks("5 (a) S 1"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn the_machine_tells_its_units() {
        let units = units();
        assert!(units.page.is_power_of_two() && units.page >= 4096);
        assert!((1..=1_000_000_000).contains(&units.ticks_a_second));
    }
}
