//! What may be asked of a small app.

use std::fmt;
use std::time::Duration;

use shiftboss_core::id::{BrokerId, LaunchId, RequestId, Slot};
use shiftboss_core::spec::{BackoffSpec, BrokerSpec, RecycleSpec, Rung, Signal, StopLadder};
use shiftboss_core::{Command, Input, Verb};

use crate::configs::Config;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Recycle,
    RecycleSlot(u32),
    Drain,
    Resume,
    ResumeNow,
    Scale(u32),
    /// Another version, as good as the first.
    Good,
    /// One whose workers never become ready.
    Bad,
    /// A good one that wants another number of workers.
    Fewer,
    Stop,
    StopNow,
    /// Of the clock: its window begins.
    Begins,
    /// And ends.
    Ends,
}

impl Ask {
    pub(crate) fn input(self, config: &Config, number: usize) -> Input {
        let request = RequestId(number as u128);
        let verb = match self {
            Ask::Recycle => Verb::Recycle(None),
            Ask::RecycleSlot(slot) => Verb::Recycle(Some(Slot(slot))),
            Ask::Drain => Verb::Drain,
            Ask::Resume => Verb::Resume,
            Ask::ResumeNow => Verb::ResumeNow,
            Ask::Scale(workers) => Verb::Scale(workers),
            Ask::Good => Verb::Respecify(Box::new(BrokerSpec { launch: GOOD, ..spec(config) })),
            Ask::Bad => Verb::Respecify(Box::new(BrokerSpec { launch: BAD, ..spec(config) })),
            Ask::Fewer => {
                let workers = config.workers.saturating_sub(1);
                Verb::Respecify(Box::new(BrokerSpec { launch: FEWER, workers, ..spec(config) }))
            }
            Ask::Stop => return Input::Command { request, command: Command::Stop },
            Ask::StopNow => return Input::Stop { now: true },
            Ask::Begins => return Input::Window { broker: BrokerId(0), open: true },
            Ask::Ends => return Input::Window { broker: BrokerId(0), open: false },
        };
        let command = Command::Broker(BrokerId(0), verb);
        Input::Command { request, command }
    }

    /// What kind of input it is, for the table of what met what.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Ask::Recycle | Ask::RecycleSlot(_) => "recycle",
            Ask::Drain => "drain",
            Ask::Resume => "resume",
            Ask::ResumeNow => "resume now",
            Ask::Scale(_) => "scale",
            Ask::Good | Ask::Fewer => "respecify",
            Ask::Bad => "respecify, bad",
            Ask::Stop => "stop",
            Ask::StopNow => "stop now",
            Ask::Begins => "window begins",
            Ask::Ends => "window ends",
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::RecycleSlot(slot) => write!(f, "recycle slot {slot}"),
            Ask::Scale(workers) => write!(f, "scale {workers}"),
            Ask::Fewer => f.write_str("respecify, one worker fewer"),
            other => f.write_str(other.kind()),
        }
    }
}

/// Every wait is so short that its jitter vanishes, and there is one wherever a deadline shall be armed.
pub(crate) fn spec(config: &Config) -> BrokerSpec {
    let healthy_after = if config.healthy_at_once { Duration::ZERO } else { 10 * TICK };
    BrokerSpec {
        name: "api".to_owned(),
        workers: config.workers,
        launch: FIRST,
        listens: config.listens,
        ready: config.ready,
        recycle: RecycleSpec {
            every: None,
            jitter: 0.0,
            surge: config.surge,
            unavailable: config.unavailable,
            min_ready: if config.trial { TICK } else { Duration::ZERO },
            deadline: TICK,
        },
        stop: StopLadder(vec![Rung::signal(Signal::TERM, TICK); config.rungs]),
        backoff: BackoffSpec { base: TICK, cap: TICK, healthy_after },
        drained: config.drained,
        scheduled: config.scheduled,
        watch: None,
        standby: config.standby,
    }
}

const TICK: Duration = Duration::from_nanos(1);
const FIRST: LaunchId = LaunchId(0);
const GOOD: LaunchId = LaunchId(1);
/// Workers of this version never become ready.
pub(crate) const BAD: LaunchId = LaunchId(2);
const FEWER: LaunchId = LaunchId(3);
