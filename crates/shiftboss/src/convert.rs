//! Core's words into the wire's: the only place that knows both.

use jiff::Timestamp;
use shiftboss_api as api;
use shiftboss_core::id::{RequestId, Slot, WorkerId};
use shiftboss_core::input::Exit;
use shiftboss_core::status::{BrokerState, BrokerStatus, WorkerState, WorkerStatus};
use shiftboss_core::time::Time;
use shiftboss_core::{Event, Outcome, What};

use crate::os::clock;
use crate::usages::Usages;

/// A moment on both clocks, to tell one in terms of the other.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    wall: Timestamp,
    time: Time,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Moment { wall: Timestamp::now(), time: clock::now() }
    }

    /// A point of core's time as people write it: RFC 3339, UTC, milliseconds.
    pub(crate) fn wall(self, time: Time) -> String {
        let (then, now) = (i128::from(time.0), i128::from(self.time.0));
        let wall = Timestamp::from_nanosecond(self.wall.as_nanosecond() + then - now).unwrap_or(self.wall);
        format!("{wall:.3}")
    }
}

/// A request's number as the wire has it.
pub(crate) fn request_text(request: RequestId) -> String {
    format!("{:032x}", request.0)
}

/// A request's number: 32 hexadecimal digits as they are, any other key by its hash (FNV-1a). Numbers of 64 bits are
/// the app's own.
pub(crate) fn request_of(key: &str) -> RequestId {
    if key.len() == 32
        && let Ok(number) = u128::from_str_radix(key, 16)
        && number > u128::from(u64::MAX)
    {
        return RequestId(number);
    }
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    RequestId(key.bytes().fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME)))
}

pub(crate) fn event(event: &Event, broker: Option<&str>, moment: Moment) -> api::Event {
    let mut out = api::Event::new(event.seq, moment.wall(event.at), name(&event.what));
    out.broker = broker.map(str::to_owned);
    out.request = event.request.map(request_text);
    match &event.what {
        What::BrokerStarted { wanted, generation, .. } => {
            out.wanted = Some(*wanted);
            out.generation = Some(generation.0);
        }
        What::ListenerBound { address } | What::ListenerClosed { address } => {
            out.address = Some(address.clone());
        }
        What::ListenerFailed { address, reason } => {
            out.address = Some(address.clone());
            out.reason = Some(reason.clone());
        }
        What::BrokerWaiting { retry_at } => out.retry_at = retry_at.map(|at| moment.wall(at)),
        What::BrokerDrained { refused, cut } => {
            out.refused = Some(*refused);
            out.cut = Some(*cut);
        }
        What::BrokerScaled { wanted } => out.wanted = Some(*wanted),
        What::BrokerAdopted { workers, drained, salvaged } => {
            out.workers = Some(*workers);
            out.drained = Some(*drained);
            out.salvaged = Some(*salvaged);
        }
        What::BrokerDegraded { reason } => out.reason = Some(reason.clone()),
        What::WorkerStarted { worker, slot, pid, generation } => {
            whose(&mut out, *worker, *slot, Some(pid.0));
            out.generation = Some(generation.0);
        }
        What::WorkerReady { worker, slot, pid, after } => {
            whose(&mut out, *worker, Some(*slot), Some(pid.0));
            out.ready_ms = Some(milliseconds(*after));
        }
        What::WorkerStandby { worker, pid, after } => {
            whose(&mut out, *worker, None, Some(pid.0));
            out.ready_ms = Some(milliseconds(*after));
        }
        What::WorkerPromoted { worker, slot, pid } => whose(&mut out, *worker, Some(*slot), Some(pid.0)),
        What::WorkerStopping { worker, slot, pid, reason } => {
            whose(&mut out, *worker, *slot, Some(pid.0));
            out.reason = Some(reason.clone());
        }
        What::WorkerEnded { worker, slot, pid, exit, forced, reason } => {
            whose(&mut out, *worker, *slot, Some(pid.0));
            gone(&mut out, Some(*exit), *forced, reason);
        }
        What::WorkerDeath { worker, slot, pid, exit, forced, reason } => {
            whose(&mut out, *worker, *slot, pid.map(|pid| pid.0));
            gone(&mut out, *exit, *forced, reason);
        }
        What::WorkerBackoff { slot, retry_at, failures } => {
            out.slot = slot.map(|slot| slot.0);
            out.retry_at = Some(moment.wall(*retry_at));
            out.reason = Some(format!("{failures} failures in a row"));
        }
        What::RecycleStarted { target, total, reason } => {
            out.generation = Some(target.0);
            out.total = Some(*total);
            out.reason = Some(reason.to_string());
        }
        What::RecycleFinished { target, total, replaced, cut, .. } => {
            out.generation = Some(target.0);
            out.total = Some(*total);
            out.replaced = Some(*replaced);
            out.cut = Some(*cut);
        }
        What::RecycleFailed { target, total, replaced, worker, slot, reason, .. } => {
            out.generation = Some(target.0);
            out.total = Some(*total);
            out.replaced = Some(*replaced);
            out.worker = worker.map(|id| id.to_string());
            out.slot = slot.map(|slot| slot.0);
            out.reason = Some(reason.clone());
        }
        What::BrokerOpened
        | What::BrokerClosed
        | What::BrokerResumed
        | What::BrokerDraining
        | What::BrokerRecovered
        | What::AppReady
        | What::AppStopping => {}
    }
    out
}

fn whose(out: &mut api::Event, worker: WorkerId, slot: Option<Slot>, pid: Option<u32>) {
    out.worker = Some(worker.to_string());
    out.slot = slot.map(|slot| slot.0);
    out.pid = pid;
}

fn gone(out: &mut api::Event, exit: Option<Exit>, forced: bool, reason: &str) {
    match exit {
        Some(Exit::Code(code)) => out.code = Some(code),
        Some(Exit::Signal(signal)) => out.signal = Some(signal.to_string()),
        None => {}
    }
    out.forced = forced;
    out.reason = Some(reason.to_owned());
}

fn name(what: &What) -> api::EventName {
    use api::EventName as Name;
    match what {
        What::BrokerStarted { .. } => Name::BrokerStarted,
        What::ListenerBound { .. } => Name::ListenerBound,
        What::ListenerClosed { .. } => Name::ListenerClosed,
        What::ListenerFailed { .. } => Name::ListenerFailed,
        What::BrokerWaiting { .. } => Name::BrokerWaiting,
        What::BrokerOpened => Name::BrokerOpened,
        What::BrokerClosed => Name::BrokerClosed,
        What::BrokerResumed => Name::BrokerResumed,
        What::BrokerDraining => Name::BrokerDraining,
        What::BrokerDrained { .. } => Name::BrokerDrained,
        What::BrokerScaled { .. } => Name::BrokerScaled,
        What::BrokerAdopted { .. } => Name::BrokerAdopted,
        What::BrokerDegraded { .. } => Name::BrokerDegraded,
        What::BrokerRecovered => Name::BrokerRecovered,
        What::WorkerStarted { .. } => Name::WorkerStarted,
        What::WorkerReady { .. } => Name::WorkerReady,
        What::WorkerStandby { .. } => Name::WorkerStandby,
        What::WorkerPromoted { .. } => Name::WorkerPromoted,
        What::WorkerStopping { .. } => Name::WorkerStopping,
        What::WorkerEnded { .. } => Name::WorkerEnded,
        What::WorkerDeath { .. } => Name::WorkerDeath,
        What::WorkerBackoff { .. } => Name::WorkerBackoff,
        What::RecycleStarted { .. } => Name::RecycleStarted,
        What::RecycleFinished { .. } => Name::RecycleFinished,
        What::RecycleFailed { .. } => Name::RecycleFailed,
        What::AppReady => Name::AppReady,
        What::AppStopping => Name::AppStopping,
    }
}

fn milliseconds(span: std::time::Duration) -> f64 {
    (span.as_secs_f64() * 1e5).round() / 100.0
}

/// One broker as the wire has it. Memory and CPU are looked up here, at the moment of asking.
pub(crate) fn broker(name: &str, status: &BrokerStatus, usages: &mut Usages, moment: Moment) -> api::Broker {
    let mut workers: Vec<api::Worker> = status
        .workers
        .iter()
        .map(|(id, worker)| self::worker(*id, worker, usages, moment))
        .chain(status.backoff.iter().map(|(slot, retry_at)| backoff(Some(*slot), *retry_at, status, moment)))
        .chain(status.standby_backoff.map(|retry_at| backoff(None, retry_at, status, moment)))
        .collect();
    // Standbys last.
    workers.sort_by_key(|worker| {
        (worker.slot.is_none(), worker.slot, worker.id.as_ref().and_then(|id| id.parse::<u64>().ok()))
    });
    api::Broker {
        name: name.to_owned(),
        state: match status.state {
            BrokerState::Waiting => api::BrokerState::Waiting,
            BrokerState::Open => api::BrokerState::Open,
            BrokerState::Draining => api::BrokerState::Draining,
            BrokerState::Drained => api::BrokerState::Drained,
            BrokerState::Closed => api::BrokerState::Closed,
        },
        wanted: status.wanted,
        ready: status.ready(),
        standby: status.standby(),
        generation: status.generation.0,
        target_generation: status.target.0,
        degraded: status.degraded,
        recycling: status.recycling,
        deaths: status.deaths,
        last_failure: status.last_failure.clone(),
        listen: status.listen.clone(),
        next_change_at: None,
        workers,
    }
}

fn worker(id: WorkerId, status: &WorkerStatus, usages: &mut Usages, moment: Moment) -> api::Worker {
    let (rss_bytes, cpu_percent) = usages.look(status.pid.0, status.started_at);
    api::Worker {
        id: Some(id.to_string()),
        slot: status.slot.map(|slot| slot.0),
        pid: Some(status.pid.0),
        state: match status.state {
            WorkerState::Starting => api::WorkerState::Starting,
            WorkerState::Standby => api::WorkerState::Standby,
            WorkerState::Ready => api::WorkerState::Ready,
            WorkerState::Stopping => api::WorkerState::Stopping,
        },
        generation: status.generation.0,
        started_at: Some(moment.wall(status.started_at)),
        ready_ms: status.ready_after.map(milliseconds),
        retry_at: None,
        rss_bytes,
        cpu_percent,
        numbers: None,
    }
}

fn backoff(slot: Option<Slot>, retry_at: Time, status: &BrokerStatus, moment: Moment) -> api::Worker {
    api::Worker {
        id: None,
        slot: slot.map(|slot| slot.0),
        pid: None,
        state: api::WorkerState::Backoff,
        generation: status.target.0,
        started_at: None,
        ready_ms: None,
        retry_at: Some(moment.wall(retry_at)),
        rss_bytes: None,
        cpu_percent: None,
        numbers: None,
    }
}

/// How a command ended; `last_lines` are those of the failed worker, if there is one.
pub(crate) fn outcome(outcome: Outcome, last_lines: impl FnOnce(WorkerId) -> Vec<String>) -> api::Outcome {
    let busy = outcome.is_busy();
    match outcome {
        Outcome::Done(done) => api::Outcome::Done {
            note: done.note.map(|note| note.to_string()),
            total: done.total,
            replaced: done.replaced,
            cut: done.cut,
            refused: done.refused,
        },
        Outcome::Failed(failed) => api::Outcome::Failed {
            last_lines: failed.worker.map(last_lines).unwrap_or_default(),
            reason: failed.reason,
            total: failed.total,
            replaced: failed.replaced,
            worker: failed.worker.map(|id| id.to_string()),
            slot: failed.slot.map(|slot| slot.0),
        },
        Outcome::Superseded(reason) => api::Outcome::Superseded { reason },
        Outcome::Refused(reason) => api::Outcome::Refused { reason, busy },
    }
}
