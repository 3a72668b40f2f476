//! Reads the fields that `fields` writes, each kind of record in the same order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::broker::{Broker, LastFailure, Phase};
use crate::budget::{Queue, Ticket};
use crate::drain::Step;
use crate::effect::{Done, Failed, Note, Outcome};
use crate::id::{BrokerId, Generation, Pid, RequestId, Slot, WorkerId};
use crate::recycle::{Limit, Move, Recycle, Scope, Stage};
use crate::requests::{Answered, Open, Waits};
use crate::rng::Rng;
use crate::schedule::Hours;
use crate::slots::{Backoff, Place};
use crate::snapshot::body::{Field, Fields, Version};
use crate::snapshot::fields::NO_SLOT;
use crate::snapshot::restore::{Given, Wrong};
use crate::time::Time;
use crate::watch::Changed;
use crate::worker::{Channel, State, Why, Worker};

/// An app without its brokers, and how many those are.
pub(super) fn app(fields: &mut Fields<'_>) -> Result<(App, u32), Wrong> {
    let brokers = fields.u32()?;
    let mut app = App::new(Time(0), 0, Vec::new());
    app.ready = fields.flag()?;
    app.stopping = fields.flag()?;
    app.exited = fields.flag()?;
    let shared = &mut app.shared;
    shared.now = fields.time()?;
    shared.seq = fields.u64()?;
    shared.next_worker = fields.u64()?;
    shared.requests.next_order = fields.u64()?;
    shared.budget.capacity = fields.u64()?;
    shared.budget.tokens = fields.u64()?;
    shared.budget.counted_at = fields.time()?;
    shared.budget.next_ticket = fields.u64()?;
    Ok((app, brokers))
}

/// A broker without its slots and workers.
pub(super) fn broker(id: BrokerId, fields: &mut Fields<'_>, given: &mut Given<'_>) -> Result<Broker, Wrong> {
    let wanted = fields.u32()?;
    let generation = Generation(fields.u32()?);
    let good = given.spec(id, Generation(fields.u32()?))?;
    let target = Generation(fields.u32()?);
    let spec = given.spec(id, Generation(fields.u32()?))?;
    let mut broker = Broker::with(id, spec, Rng::new(0));
    broker.wanted = wanted;
    (broker.generation, broker.good, broker.target) = (generation, good, target);
    broker.phase = phase(fields)?;
    broker.round = fields.u32()?;
    broker.recycle_at = fields.moment()?;
    broker.back_at = fields.moment()?;
    broker.cut = fields.u32()?;
    broker.closing = fields.flag()?;
    broker.brutal = fields.flag()?;
    broker.crowded = fields.flag()?;
    broker.deaths = fields.u64()?;
    broker.rng = Rng::new(fields.u64()?);
    let addresses = fields.u32()?;
    broker.recycle = recycle(fields)?;
    broker.queued = match fields.u8()? {
        0 => None,
        1 => Some(Scope::All),
        2 => Some(Scope::Some(BTreeSet::new())),
        3.. => return Err(UNKNOWN.into()),
    };
    broker.last_failure = if fields.flag()? { Some(last_failure(fields)?) } else { None };
    if fields.have(Version::CLOCK) {
        broker.hours = hours(fields)?;
        broker.changed = Changed { due: fields.moment()?, latest: fields.time()?, again: fields.flag()? };
    } else {
        // Whoever was sent home by an older version was so by hand.
        broker.hours.by_hand = matches!(broker.phase, Phase::Draining(_) | Phase::Drained);
    }
    let mut digest = None;
    if fields.have(Version::STANDBY) {
        digest = Some(fields.u64()?);
        let [binds, waits, over, asks] = fields.flags()?;
        broker.binds = binds;
        broker.standbys.failures = u32::from(fields.u16()?);
        let (until, number) = (fields.time()?, fields.u64()?);
        broker.standbys.backoff = waits.then_some(Backoff { until, over });
        broker.standbys.waits = asks.then_some(Ticket { number, queue: Queue::Standby });
    }
    broker.listen = given.listen(id, addresses, digest)?;
    Ok(broker)
}

fn hours(fields: &mut Fields<'_>) -> Field<Hours> {
    let (told, open) = (fields.flag()?, fields.flag()?);
    Ok(Hours { window: told.then_some(open), early: fields.flag()?, by_hand: fields.flag()? })
}

fn phase(fields: &mut Fields<'_>) -> Field<Phase> {
    let code = fields.u8()?;
    let (attempts, retry_at, resumed) = (fields.u32()?, fields.moment()?, fields.flag()?);
    Ok(match code {
        0 => Phase::Waiting { attempts, retry_at, resumed },
        1 => Phase::Open,
        2 => Phase::Draining(Step::Quieting),
        3 => Phase::Draining(Step::Leaving),
        4 => Phase::Draining(Step::Shutting),
        5 => Phase::Drained,
        6 => Phase::Closed,
        7.. => return Err(UNKNOWN),
    })
}

/// A recycle without its slots.
fn recycle(fields: &mut Fields<'_>) -> Field<Option<Recycle>> {
    let runs = fields.flag()?;
    let (total, replaced, cut, back) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.flag()?);
    let (pending, under_way) = (BTreeSet::new(), BTreeMap::new());
    Ok(runs.then_some(Recycle { pending, under_way, total, replaced, cut, back }))
}

fn last_failure(fields: &mut Fields<'_>) -> Field<LastFailure> {
    Ok(LastFailure {
        worker: WorkerId(fields.u64()?),
        slot: slot_or_none(fields.u32()?),
        reason: fields.text()?,
    })
}

fn slot_or_none(number: u32) -> Option<Slot> {
    (number != NO_SLOT).then_some(Slot(number))
}

/// The next slot of a broker.
pub(super) fn slot(app: &mut App, key: u128, fields: &mut Fields<'_>) -> Result<(), Wrong> {
    let id = usize::try_from(key >> 32).unwrap_or(usize::MAX);
    let broker = app.brokers.get_mut(id).ok_or(NO_BROKER)?;
    let slot = Slot(u32::try_from(key & u128::from(u32::MAX)).unwrap_or(u32::MAX));
    if slot.0 as usize != broker.places.len() {
        return Err("a slot before it is missing".into());
    }
    let (worker, failures) = (fields.worker()?, fields.u32()?);
    let (until, over) = (fields.moment()?, fields.flag()?);
    let (number, failing) = (fields.maybe()?, fields.flag()?);
    let backoff = until.map(|until| Backoff { until, over });
    let queue = if failing { Queue::Failing } else { Queue::Urgent };
    let waits = number.map(|number| Ticket { number, queue });
    broker.places.push(Place { worker, failures, backoff, waits });
    let (pending, queued) = (fields.flag()?, fields.flag()?);
    let moved = moved(fields)?;
    if let Some(recycle) = &mut broker.recycle {
        recycle.pending.extend(pending.then_some(slot));
        recycle.under_way.extend(moved.map(|moved| (slot, moved)));
    }
    if let Some(Scope::Some(slots)) = &mut broker.queued {
        slots.extend(queued.then_some(slot));
    }
    Ok(())
}

fn moved(fields: &mut Fields<'_>) -> Field<Option<Move>> {
    let limit = match fields.u8()? {
        0 => None,
        1 => Some(Limit::Surge),
        2 => Some(Limit::Unavailable),
        3 => Some(Limit::Free),
        4.. => return Err(UNKNOWN),
    };
    let (code, worker, until) = (fields.u8()?, fields.worker()?, fields.moment()?);
    let stage = match (code, worker, until) {
        (0, None, None) => None,
        (1, Some(worker), None) => Some(Stage::Retiring(worker)),
        (2, None, None) => Some(Stage::Queued),
        (3, Some(worker), None) => Some(Stage::Starting(worker)),
        (4, Some(worker), Some(until)) => Some(Stage::Proving(worker, until)),
        (5, Some(worker), None) => Some(Stage::Leaving(worker)),
        (0.., _, _) => return Err(UNKNOWN),
    };
    Ok(limit.zip(stage).map(|(limit, stage)| Move { limit, stage }))
}

pub(super) fn worker(
    app: &mut App,
    id: WorkerId,
    fields: &mut Fields<'_>,
    given: &mut Given<'_>,
) -> Result<(), Wrong> {
    let owner = BrokerId(fields.u32()?);
    let broker = app.brokers.get_mut(owner.0 as usize).ok_or(NO_BROKER)?;
    let (slot, generation) = (slot_or_none(fields.u32()?), Generation(fields.u32()?));
    let spec = given.spec(owner, Generation(fields.u32()?))?;
    let pid = fields.maybe()?.map(|pid| u32::try_from(pid).map(Pid)).transpose();
    let pid = pid.map_err(|_| "its pid is too large")?;
    let started_at = fields.time()?;
    let ready_after = fields.maybe()?.map(Duration::from_nanos);
    let code = fields.u8()?;
    let why = match fields.u8()? {
        0 => None,
        1 => Some(Why::Recycled),
        2 => Some(Why::Scaled),
        3 => Some(Why::Drained),
        4 => Some(Why::AppStops),
        5 => Some(Why::NotReady { deadline: spec.recycle.deadline, ready: spec.ready }),
        6 => Some(Why::Unseen),
        7 => Some(Why::RecycleFailed),
        8 => Some(Why::HungUp),
        9 => Some(Why::Garbled),
        10 => Some(Why::Refused),
        11 => Some(Why::Hung),
        12 => Some(Why::NotAtTheDoor { deadline: spec.recycle.deadline }),
        13.. => return Err(UNKNOWN.into()),
    };
    let (first, second) = (fields.time()?, fields.moment()?);
    let (rung, forced) = (fields.u32()? as usize, fields.flag()?);
    let (code, promoted) = match (code, slot) {
        (4 | 5, None) => (code - 4, false),
        (7, None) => (3, false),
        (6, None) => (code, false),
        (8, Some(_)) => (1, true),
        (0..=3, Some(_)) => (code, false),
        (0.., _) => return Err(UNKNOWN.into()),
    };
    let state = match (code, why) {
        (6, None) => State::Standby { since: first, proven_at: second },
        (0, then_stop) => State::Spawning { then_stop },
        (1, None) => State::Starting { due: first },
        (2, None) => State::Ready { since: first, proven_at: second },
        (3, Some(why)) => State::Stopping { why, rung, escalate_at: second, forced },
        (1.., _) => return Err(UNKNOWN.into()),
    };
    let channel = match (fields.u8()?, fields.moment()?) {
        (0, None) => Channel::Silent,
        (1, None) => Channel::Open,
        (2, Some(leave_by)) => Channel::Closed { leave_by },
        (0.., _) => return Err(UNKNOWN.into()),
    };
    broker.workers.insert(
        id,
        Worker {
            slot,
            promoted,
            generation,
            spec: Arc::clone(&spec),
            pid,
            started_at,
            ready_after,
            channel,
            state,
        },
    );
    Ok(())
}

pub(super) fn command(app: &mut App, request: RequestId, fields: &mut Fields<'_>) -> Result<(), Wrong> {
    let order = fields.u64()?;
    let code = fields.u8()?;
    let requests = &mut app.shared.requests;
    if code < ANSWERED {
        let broker = BrokerId(fields.u32()?);
        let waits = match code {
            0 => Waits::Recycle(broker),
            1 => Waits::NextRecycle(broker),
            2 => Waits::Full(broker),
            3 => Waits::Drained(broker),
            4.. => Waits::Exit,
        };
        requests.open.insert(request, Open { order, waits });
        return Ok(());
    }
    let outcome = match code {
        ANSWERED => Outcome::Done(done(fields)?),
        6 => {
            let (total, replaced) = (fields.u32()?, fields.u32()?);
            let (worker, slot) = (fields.worker()?, fields.slot()?);
            Outcome::Failed(Failed { reason: fields.text()?, total, replaced, worker, slot })
        }
        7 => Outcome::Superseded(fields.text()?),
        8 => Outcome::Refused(fields.text()?),
        0.. => return Err(UNKNOWN.into()),
    };
    requests.answered.push_back(Answered { request, order, outcome });
    Ok(())
}

fn done(fields: &mut Fields<'_>) -> Field<Done> {
    let note = match fields.u8()? {
        0 => None,
        1 => Some(Note::NothingToRecycleWaiting),
        2 => Some(Note::NothingToRecycleDrained),
        3 => Some(Note::NothingToRecycleNoWorkers),
        4 => Some(Note::DrainedAlready),
        5 => Some(Note::OpenAlready),
        6 => Some(Note::EffectiveOnceOpen),
        7 => Some(Note::NothingToRecycleClosed),
        8.. => return Err(UNKNOWN),
    };
    let (total, replaced, cut) = (fields.u32()?, fields.u32()?, fields.u32()?);
    Ok(Done { note, total, replaced, cut, refused: fields.u64()? })
}

/// The first code of a command that was answered.
const ANSWERED: u8 = 5;
const UNKNOWN: &str = "a code in it means nothing here";
const NO_BROKER: &str = "there is no such broker";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::body::{Body, Kind};

    /// What a reader makes of these bytes, however late the version is that wrote them.
    fn read<T>(bytes: &[u8], read: impl FnOnce(&mut Fields<'_>) -> Field<T>) -> Field<T> {
        let mut body = Body::new(Kind::Slot, 0, Version::NEXT);
        bytes.iter().for_each(|byte| body.u8(*byte));
        let body = body.finish();
        read(&mut Fields::of(body.as_bytes(), Version(1)))
    }

    #[test]
    fn a_state_that_an_older_version_does_not_know_is_refused_and_never_guessed() {
        let with = |code: u8| [&[code][..], &[0; 31]].concat();
        assert_eq!(read(&with(5), phase), Ok(Phase::Drained));
        assert_eq!(read(&with(7), phase).err(), Some(UNKNOWN));
        assert_eq!(read(&with(8), |fields| done(fields).map(|_| ())), Err(UNKNOWN));
        assert_eq!(read(&with(4), moved).err(), Some(UNKNOWN));
        assert_eq!(read(&[&[1, 6][..], &[0; 30]].concat(), moved).err(), Some(UNKNOWN));
    }
}
