//! What a record of each kind says of the state, field by field. The way back is in `restore`.

use crate::app::App;
use crate::broker::{Broker, Phase};
use crate::budget::Queue;
use crate::drain::Step;
use crate::effect::{Note, Outcome};
use crate::id::{BrokerId, RequestId, Slot, WorkerId};
use crate::recycle::{Limit, Scope, Stage};
use crate::requests::Waits;
use crate::snapshot::body::{Body, Kind, Version};
use crate::snapshot::image::Tail;
use crate::standby::Standbys;
use crate::time::Time;
use crate::worker::{Channel, State, Why, Worker};

/// What one record, other than the app's, is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Broker(BrokerId),
    Slot(BrokerId, Slot),
    Worker(BrokerId, WorkerId),
    Command(RequestId),
}

impl Name {
    pub(super) fn kind(self) -> Kind {
        match self {
            Name::Broker(_) => Kind::Broker,
            Name::Slot(..) => Kind::Slot,
            Name::Worker(..) => Kind::Worker,
            Name::Command(_) => Kind::Command,
        }
    }

    pub(super) fn key(self) -> u128 {
        match self {
            Name::Broker(broker) => u128::from(broker.0),
            Name::Slot(broker, slot) => u128::from(broker.0) << 32 | u128::from(slot.0),
            Name::Worker(_, worker) => u128::from(worker.0),
            Name::Command(request) => request.0,
        }
    }

    pub(super) fn exists(self, app: &App) -> bool {
        let broker = |id: BrokerId| app.brokers.get(id.0 as usize);
        match self {
            Name::Broker(id) => broker(id).is_some(),
            Name::Slot(id, slot) => broker(id).is_some_and(|broker| (slot.0 as usize) < broker.places.len()),
            Name::Worker(id, worker) => broker(id).is_some_and(|broker| broker.workers.contains_key(&worker)),
            Name::Command(request) => {
                let requests = &app.shared.requests;
                requests.open.contains_key(&request) || requests.answer_to(request).is_some()
            }
        }
    }

    /// Its record as it should be; none if there is no such thing any longer.
    pub(super) fn encode(self, app: &App, version: Version) -> Option<Body> {
        let mut body = Body::new(self.kind(), self.key(), version);
        let found = match self {
            Name::Broker(id) => app.brokers.get(id.0 as usize).map(|broker| encode_broker(broker, &mut body)),
            Name::Slot(id, slot) => {
                app.brokers.get(id.0 as usize).and_then(|broker| encode_slot(broker, slot, &mut body))
            }
            Name::Worker(id, worker) => app
                .brokers
                .get(id.0 as usize)
                .and_then(|broker| broker.workers.get(&worker))
                .map(|worker| encode_worker(id, worker, &mut body)),
            Name::Command(request) => encode_command(app, request, &mut body),
        };
        found.map(|()| body.finish())
    }
}

/// The names of all records of an app, in order of kind and key.
pub(super) fn names(app: &App) -> Vec<Name> {
    let mut names: Vec<Name> = app.brokers.iter().map(|broker| Name::Broker(broker.id)).collect();
    for broker in &app.brokers {
        names.extend(broker.slots().map(|slot| Name::Slot(broker.id, slot)));
    }
    names.extend(app.shared.owners.iter().map(|(worker, broker)| Name::Worker(*broker, *worker)));
    let requests = &app.shared.requests;
    let mut commands: Vec<RequestId> = requests.open.keys().copied().collect();
    commands.extend(requests.answered.iter().map(|answered| answered.request));
    commands.sort_unstable();
    names.extend(commands.into_iter().map(Name::Command));
    names
}

/// The app's own record, with what the image notes in it.
pub(super) fn encode_app(app: &App, tail: Tail, version: Version) -> Body {
    let mut body = Body::new(Kind::App, 0, version);
    tail.write(&mut body);
    let App { brokers, shared, ready, stopping, exited } = app;
    body.u32(u32::try_from(brokers.len()).unwrap_or(u32::MAX));
    body.flag(*ready);
    body.flag(*stopping);
    body.flag(*exited);
    body.time(shared.now);
    body.u64(shared.seq);
    body.u64(shared.next_worker);
    body.u64(shared.requests.next_order);
    body.u64(shared.budget.capacity);
    body.u64(shared.budget.tokens);
    body.time(shared.budget.counted_at);
    body.u64(shared.budget.next_ticket);
    body.finish()
}

fn encode_broker(broker: &Broker, body: &mut Body) {
    body.u32(broker.wanted);
    body.u32(broker.generation.0);
    body.u32(broker.good.since.0);
    body.u32(broker.target.0);
    body.u32(broker.spec.since.0);
    encode_phase(broker.phase, body);
    body.u32(broker.round);
    body.maybe(broker.recycle_at.map(|at| at.0));
    body.maybe(broker.back_at.map(|at| at.0));
    body.u32(broker.cut);
    body.flag(broker.closing);
    body.flag(broker.brutal);
    body.flag(broker.crowded);
    body.u64(broker.deaths);
    body.u64(broker.rng.state());
    body.u32(u32::try_from(broker.listen.len()).unwrap_or(u32::MAX));
    body.flag(broker.recycle.is_some());
    let numbers = broker.recycle.as_ref().map(|recycle| (recycle.total, recycle.replaced, recycle.cut));
    let (total, replaced, cut) = numbers.unwrap_or_default();
    body.u32(total);
    body.u32(replaced);
    body.u32(cut);
    body.flag(broker.recycle.as_ref().is_some_and(|recycle| recycle.back));
    body.u8(match broker.queued {
        None => 0,
        Some(Scope::All) => 1,
        Some(Scope::Some(_)) => 2,
    });
    body.flag(broker.last_failure.is_some());
    if let Some(last) = &broker.last_failure {
        body.u64(last.worker.0);
        body.u32(number_of(last.slot));
        body.text(&last.reason);
    }
    if body.has(Version::CLOCK) {
        body.flag(broker.hours.window.is_some());
        body.flag(broker.hours.window.unwrap_or_default());
        body.flag(broker.hours.early);
        body.flag(broker.hours.by_hand);
        body.maybe(broker.changed.due.map(|at| at.0));
        body.time(broker.changed.latest);
        body.flag(broker.changed.again);
    }
    if body.has(Version::STANDBY) {
        body.u64(digest(&broker.listen));
        let Standbys { all: _, failures, backoff, waits } = &broker.standbys;
        let over = backoff.is_some_and(|wait| wait.over);
        let flags = [broker.binds, backoff.is_some(), over, waits.is_some()];
        body.flags(flags);
        body.u16(u16::try_from(*failures).unwrap_or(u16::MAX));
        body.time(backoff.map_or(Time(0), |wait| wait.until));
        body.u64(waits.map_or(0, |ticket| ticket.number));
    }
}

/// Tells one list of addresses from another (FNV-1a).
pub(super) fn digest<T: AsRef<str>>(addresses: &[T]) -> u64 {
    let bytes = addresses.iter().flat_map(|address| address.as_ref().bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn encode_phase(phase: Phase, body: &mut Body) {
    let (code, attempts, retry_at, resumed) = match phase {
        Phase::Waiting { attempts, retry_at, resumed } => (0, attempts, retry_at, resumed),
        Phase::Open => (1, 0, None, false),
        Phase::Draining(Step::Quieting) => (2, 0, None, false),
        Phase::Draining(Step::Leaving) => (3, 0, None, false),
        Phase::Draining(Step::Shutting) => (4, 0, None, false),
        Phase::Drained => (5, 0, None, false),
        Phase::Closed => (6, 0, None, false),
    };
    body.u8(code);
    body.u32(attempts);
    body.maybe(retry_at.map(|at| at.0));
    body.flag(resumed);
}

fn encode_slot(broker: &Broker, slot: Slot, body: &mut Body) -> Option<()> {
    let place = broker.places.get(slot.0 as usize)?;
    body.worker(place.worker);
    body.u32(place.failures);
    body.maybe(place.backoff.map(|wait| wait.until.0));
    body.flag(place.backoff.is_some_and(|wait| wait.over));
    body.maybe(place.waits.map(|ticket| ticket.number));
    body.flag(place.waits.is_some_and(|ticket| ticket.queue == Queue::Failing));
    let recycle = broker.recycle.as_ref();
    body.flag(recycle.is_some_and(|recycle| recycle.pending.contains(&slot)));
    body.flag(matches!(&broker.queued, Some(Scope::Some(slots)) if slots.contains(&slot)));
    let moved = recycle.and_then(|recycle| recycle.under_way.get(&slot));
    body.u8(match moved.map(|moved| moved.limit) {
        None => 0,
        Some(Limit::Surge) => 1,
        Some(Limit::Unavailable) => 2,
        Some(Limit::Free) => 3,
    });
    let (code, worker, until) = match moved.map(|moved| moved.stage) {
        None => (0, None, None),
        Some(Stage::Retiring(worker)) => (1, Some(worker), None),
        Some(Stage::Queued) => (2, None, None),
        Some(Stage::Starting(worker)) => (3, Some(worker), None),
        Some(Stage::Proving(worker, until)) => (4, Some(worker), Some(until)),
        Some(Stage::Leaving(worker)) => (5, Some(worker), None),
    };
    body.u8(code);
    body.worker(worker);
    body.maybe(until.map(|until| until.0));
    Some(())
}

fn encode_worker(broker: BrokerId, worker: &Worker, body: &mut Body) {
    body.u32(broker.0);
    body.u32(number_of(worker.slot));
    body.u32(worker.generation.0);
    body.u32(worker.spec.since.0);
    body.maybe(worker.pid.map(|pid| u64::from(pid.0)));
    body.time(worker.started_at);
    body.maybe(worker.ready_after.map(|after| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)));
    let (code, why, first, second, rung, forced) = match worker.state {
        State::Spawning { then_stop } => (0, then_stop, None, None, 0, false),
        State::Starting { due } => (1, None, Some(due), None, 0, false),
        State::Standby { since, proven_at } => (6, None, Some(since), proven_at, 0, false),
        State::Ready { since, proven_at } => (2, None, Some(since), proven_at, 0, false),
        State::Stopping { why, rung, escalate_at, forced } => (3, Some(why), None, escalate_at, rung, forced),
    };
    // Codes that a version without standbys refuses.
    let code = match (code, worker.slot, worker.promoted) {
        (0 | 1, None, _) => code + 4,
        (3, None, _) => 7,
        (1, Some(_), true) => 8,
        (_, _, _) => code,
    };
    body.u8(code);
    body.u8(why.map_or(0, code_of));
    body.u64(first.unwrap_or_default().0);
    body.maybe(second.map(|at| at.0));
    body.u32(u32::try_from(rung).unwrap_or(u32::MAX));
    body.flag(forced);
    let (code, leave_by) = match worker.channel {
        Channel::Silent => (0, None),
        Channel::Open => (1, None),
        Channel::Closed { leave_by } => (2, Some(leave_by)),
    };
    body.u8(code);
    body.maybe(leave_by.map(|at| at.0));
}

/// A slot's number; of none one that no slot has.
fn number_of(slot: Option<Slot>) -> u32 {
    slot.map_or(NO_SLOT, |slot| slot.0)
}

/// How long the worker was given, and by which sign it should have been ready, is in its specification.
fn code_of(why: Why) -> u8 {
    match why {
        Why::Recycled => 1,
        Why::Scaled => 2,
        Why::Drained => 3,
        Why::AppStops => 4,
        Why::NotReady { .. } => 5,
        Why::Unseen => 6,
        Why::RecycleFailed => 7,
        Why::HungUp => 8,
        Why::Garbled => 9,
        Why::Refused => 10,
        Why::Hung => 11,
        Why::NotAtTheDoor { .. } => 12,
    }
}

fn encode_command(app: &App, request: RequestId, body: &mut Body) -> Option<()> {
    if let Some(open) = app.shared.requests.open.get(&request) {
        let (code, broker) = match open.waits {
            Waits::Recycle(broker) => (0, broker),
            Waits::NextRecycle(broker) => (1, broker),
            Waits::Full(broker) => (2, broker),
            Waits::Drained(broker) => (3, broker),
            Waits::Exit => (4, BrokerId(0)),
        };
        body.u64(open.order);
        body.u8(code);
        body.u32(broker.0);
        return Some(());
    }
    let answered = app.shared.requests.answer_to(request)?;
    body.u64(answered.order);
    match &answered.outcome {
        Outcome::Done(done) => {
            body.u8(5);
            body.u8(done.note.map_or(0, code_of_note));
            body.u32(done.total);
            body.u32(done.replaced);
            body.u32(done.cut);
            body.u64(done.refused);
        }
        Outcome::Failed(failed) => {
            body.u8(6);
            body.u32(failed.total);
            body.u32(failed.replaced);
            body.worker(failed.worker);
            body.slot(failed.slot);
            body.text(&failed.reason);
        }
        Outcome::Superseded(by) => {
            body.u8(7);
            body.text(by);
        }
        Outcome::Refused(why) => {
            body.u8(8);
            body.text(why);
        }
    }
    Some(())
}

fn code_of_note(note: Note) -> u8 {
    match note {
        Note::NothingToRecycleWaiting => 1,
        Note::NothingToRecycleDrained => 2,
        Note::NothingToRecycleNoWorkers => 3,
        Note::DrainedAlready => 4,
        Note::OpenAlready => 5,
        Note::EffectiveOnceOpen => 6,
        Note::NothingToRecycleClosed => 7,
    }
}

/// What stands where a slot's number would, if there is none.
pub(super) const NO_SLOT: u32 = u32::MAX;
