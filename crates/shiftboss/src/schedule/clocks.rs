//! The wall clock, read for all brokers of an app that have a schedule: whether each is inside of its window, and one
//! timer for the next change. A clock that was set is read anew; what is told twice, core takes once.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd as _, BorrowedFd};

use jiff::Timestamp;
use shiftboss_core::Input;
use shiftboss_core::id::BrokerId;

use super::Schedule;
use crate::os::wall_timer::WallTimer;

#[derive(Default)]
pub(crate) struct Clocks {
    /// None: nobody has a schedule.
    timer: Option<WallTimer>,
    windows: BTreeMap<BrokerId, Window>,
}

struct Window {
    schedule: Schedule,
    /// As last told; none = nobody has asked yet.
    told: Option<bool>,
    next: Option<Timestamp>,
}

impl Clocks {
    /// Sees to it that there is a timer, which somebody waits for.
    pub(crate) fn prepare(
        &mut self,
        wait_for: impl FnOnce(BorrowedFd<'_>) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        if self.timer.is_none() {
            let timer = WallTimer::new()?;
            wait_for(timer.as_fd())?;
            self.timer = Some(timer);
        }
        Ok(())
    }

    /// One more window; nothing is told of it before somebody asks.
    pub(crate) fn add(&mut self, broker: BrokerId, schedule: Schedule) {
        self.windows.insert(broker, Window { schedule, told: None, next: None });
    }

    /// Watches for this broker from now on.
    pub(crate) fn ask(&mut self, broker: BrokerId, inputs: &mut VecDeque<Input>) {
        if let Some(window) = self.windows.get_mut(&broker) {
            let open = window.schedule.is_open(Timestamp::now());
            window.told = Some(open);
            inputs.push_back(Input::Window { broker, open });
        }
        self.read(inputs);
    }

    /// The timer has come or was cancelled.
    pub(crate) fn has_come(&mut self, inputs: &mut VecDeque<Input>) {
        if let Some(timer) = &self.timer {
            timer.take();
        }
        self.read(inputs);
    }

    /// When its schedule opens or closes this broker next: RFC 3339, UTC. One that works outside of its window goes on
    /// until the next one has ended.
    pub(crate) fn next_change(&self, broker: BrokerId, works: bool) -> Option<String> {
        let window = self.windows.get(&broker)?;
        let mut next = window.next?;
        if works && window.told == Some(false) {
            next = window.schedule.next_change(next)?;
        }
        Some(format!("{next:.0}"))
    }

    /// Tells what has changed, and waits for what changes next.
    fn read(&mut self, inputs: &mut VecDeque<Input>) {
        let Some(timer) = &self.timer else { return };
        // The clock may be set while it is read.
        for _ in 0..READINGS {
            let now = Timestamp::now();
            for (broker, window) in &mut self.windows {
                let open = window.schedule.is_open(now);
                if window.told.is_some_and(|told| told != open) {
                    window.told = Some(open);
                    inputs.push_back(Input::Window { broker: *broker, open });
                }
                window.next = window.schedule.next_change(now);
            }
            let next = self.windows.values().filter_map(|window| window.next).min();
            if timer.arm(next.map(Timestamp::as_second)).is_ok() {
                return;
            }
            timer.take();
        }
    }
}

/// As often as a clock may be set at one moment.
const READINGS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::spawn::trial::readable;

    fn ready(clocks: &mut Clocks) {
        clocks.prepare(|_| Ok(())).unwrap();
    }

    #[test]
    fn a_window_is_told_when_asked_for_and_when_it_changes_and_once() {
        let hours = Schedule::new("*/2 * * * * *", "1-59/2 * * * * *", None).unwrap();
        let mut clocks = Clocks::default();
        ready(&mut clocks);
        clocks.add(BrokerId(1), hours.clone());
        let mut inputs = VecDeque::new();
        clocks.ask(BrokerId(1), &mut inputs);
        // Nobody asks for this one, and that is nothing to the other.
        ready(&mut clocks);
        clocks.add(BrokerId(2), hours);
        let mut told = Vec::new();
        while told.len() < 4 {
            assert!(readable(clocks.timer.as_ref().unwrap().as_fd()));
            clocks.has_come(&mut inputs);
            told.extend(inputs.drain(..).map(|input| match input {
                Input::Window { broker: BrokerId(1), open } => open,
                other => panic!("{other:?}"),
            }));
        }
        assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "{told:?}");
        assert!(clocks.next_change(BrokerId(1), true).unwrap().ends_with('Z'));
        assert_eq!(clocks.next_change(BrokerId(0), true), None);
    }

    #[test]
    fn a_timer_that_nobody_waits_for_is_none() {
        let mut clocks = Clocks::default();
        assert!(clocks.prepare(|_| Err(std::io::Error::other("full"))).is_err() && clocks.timer.is_none());
        ready(&mut clocks);
        clocks.prepare(|_| panic!("there is one")).unwrap();
    }
}
