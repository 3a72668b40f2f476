//! The wall clock, read for all brokers of an app that have a schedule: whether each is inside of its window, and one
//! timer for the next change. A clock that was set is read anew; what is told twice, core takes once.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd as _, BorrowedFd};

use jiff::Timestamp;
use shiftboss_core::Input;
use shiftboss_core::id::BrokerId;

use super::Schedule;
use crate::os::wall_timer::WallTimer;

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
    pub(crate) fn new(
        schedules: impl Iterator<Item = (BrokerId, Option<Schedule>)>,
    ) -> std::io::Result<Clocks> {
        let window = |(broker, schedule): (BrokerId, Option<Schedule>)| {
            Some((broker, Window { schedule: schedule?, told: None, next: None }))
        };
        let windows: BTreeMap<BrokerId, Window> = schedules.filter_map(window).collect();
        let timer = (!windows.is_empty()).then(WallTimer::new).transpose()?;
        Ok(Clocks { timer, windows })
    }

    pub(crate) fn to_wait_for(&self) -> Option<BorrowedFd<'_>> {
        self.timer.as_ref().map(|timer| timer.as_fd())
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

    #[test]
    fn a_window_is_told_when_asked_for_and_when_it_changes_and_once() {
        let hours = Schedule::new("*/2 * * * * *", "1-59/2 * * * * *", None).unwrap();
        let all = [(BrokerId(0), None), (BrokerId(1), Some(hours))];
        let mut clocks = Clocks::new(all.into_iter()).unwrap();
        let mut inputs = VecDeque::new();
        clocks.ask(BrokerId(1), &mut inputs);
        let mut told = Vec::new();
        while told.len() < 4 {
            assert!(readable(clocks.to_wait_for().unwrap()));
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
    fn without_a_schedule_there_is_no_timer() {
        let clocks = Clocks::new([(BrokerId(0), None)].into_iter()).unwrap();
        assert!(clocks.to_wait_for().is_none());
    }
}
