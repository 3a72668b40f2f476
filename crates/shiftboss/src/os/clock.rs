//! The clock all deadlines are measured with: CLOCK_MONOTONIC (`clock_gettime(2)`), which never goes back and does
//! not count suspended time. Wall time is left to those who print it.

use rustix::time::{ClockId, clock_gettime};
use shiftboss_core::time::Time;

/// Now, in nanoseconds of CLOCK_MONOTONIC; comparable between all processes of one boot.
#[must_use]
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    Time(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

/// Which boot that clock counts from (proc_sys_kernel(5) on `random/boot_id`); none where nobody says.
#[must_use]
pub fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back() {
        let mut before = now();
        assert!(before.0 > 0);
        for _ in 0..1000 {
            let after = now();
            assert!(after >= before);
            before = after;
        }
    }
}
