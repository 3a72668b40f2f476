//! A timer on the wall clock, which also tells when that clock was set: `timerfd_create(2)` on CLOCK_REALTIME with
//! TFD_TIMER_CANCEL_ON_SET. A step by NTP or by hand, and waking from suspend, cancel it; summer time does not move this
//! clock. What follows from that is the driver's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A timer that is readable when its time has come or the clock was set.
#[derive(Debug)]
pub struct WallTimer(OwnedFd);

impl WallTimer {
    /// One that is not armed.
    ///
    /// # Errors
    /// EMFILE or ENFILE at the limit of open files.
    pub fn new() -> io::Result<WallTimer> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(WallTimer(timerfd_create(TimerfdClockId::Realtime, flags)?))
    }

    /// Waits for a second of the wall clock, counted from 1970, or for the clock to be set; none = for that alone. A
    /// time that is past comes at once.
    ///
    /// # Errors
    /// ECANCELED if the clock was set since the last [`WallTimer::take`]: whoever has read the clock reads it again.
    pub fn arm(&self, at: Option<i64>) -> io::Result<()> {
        let it_value = Timespec { tv_sec: at.unwrap_or(FAR).clamp(1, FAR), tv_nsec: 0 };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&self.0, flags, &Itimerspec { it_interval, it_value })?;
        Ok(())
    }

    /// Takes in that it has come or was cancelled; true if the clock was set.
    pub fn take(&self) -> bool {
        let mut times = [0; 8];
        rustix::io::read(&self.0, &mut times) == Err(Errno::CANCELED)
    }
}

impl AsFd for WallTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// As far ahead as nobody waits: year 2200.
const FAR: i64 = 7_258_118_400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::spawn::trial::readable;

    #[test]
    fn it_comes_at_its_time_and_once() {
        let timer = WallTimer::new().unwrap();
        timer.arm(Some(1)).unwrap();
        assert!(readable(timer.as_fd()));
        assert!(!timer.take());
        timer.arm(None).unwrap();
        assert!(!timer.take());
    }
}
