//! Between workers and those who subscribe: messages in order, questions and answers. None of it passes core.

mod early;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use shiftboss_api as api;
use shiftboss_channel as channel;
use shiftboss_core::Input;
use shiftboss_core::id::{BrokerId, WorkerId};
use shiftboss_core::time::Time;
use shiftboss_core::{Event, What};
use tokio::sync::{mpsc, oneshot};

use self::early::Early;
use super::Driver;
use crate::channel::Word;
use crate::mail::{Answer, CallError, Errand, Happening, Kind, Message, Said, Subscriber, Untold};
use crate::os::clock;
use crate::os::random::random;
use crate::workers::Mail;

/// Subscribers, and questions that are not answered yet.
#[derive(Default)]
pub(super) struct Post {
    subscribers: Vec<Queue>,
    calls: BTreeMap<(WorkerId, u64), Call>,
    handed_on: HandedOn,
    /// With so many questions those are dropped that nobody waits for any more.
    tidies_at: usize,
    /// The number of the last question; begins where no other process has begun.
    last_call: Option<u64>,
    early: Early,
}

/// What was handed on since [`Driver::give_way`].
#[derive(Default)]
struct HandedOn {
    anything: bool,
    /// One has more to say, and nobody waits for us.
    leaves_time: bool,
    /// Somebody does.
    hurries: bool,
}

impl HandedOn {
    /// A Node program that speaks on and on writes each message by itself. In a breather it cannot fill its channel, unless
    /// the messages are large.
    fn add(&mut self, messages: &[Message], is_node: bool) {
        self.anything = true;
        let bytes: usize = messages.iter().map(|message| message.letter.get().len()).sum();
        if is_node && messages.len() >= SPEAKS_ON && bytes <= LITTLE {
            self.leaves_time = true;
        } else {
            self.hurries |= !is_node || bytes > LITTLE;
        }
    }
}

/// A subscriber, and what it had no room for: of workers that are gone, and events.
struct Queue {
    subscriber: Subscriber,
    backlog: VecDeque<Happening>,
    /// About as many as it takes.
    bytes: usize,
    /// What there was no room for behind it; until that is told, nothing else is.
    missed: u64,
}

struct Call {
    reply: oneshot::Sender<Answer>,
    within: Duration,
    until: Time,
}

impl Post {
    pub(super) fn deadline(&self) -> Option<Time> {
        let backlog = self.subscribers.iter().any(|queue| !queue.backlog.is_empty());
        let soon = backlog.then(|| clock::now() + SOON);
        self.calls.values().map(|call| call.until).chain(soon).chain(self.early.deadline()).min()
    }

    pub(super) fn look_at_clock(&mut self, now: Time) {
        let late: Vec<(WorkerId, u64)> =
            self.calls.iter().filter(|(_, call)| call.until <= now).map(|(key, _)| *key).collect();
        for key in late {
            if let Some(call) = self.calls.remove(&key) {
                let _ = call.reply.send(Err(CallError::TimedOut(call.within)));
            }
        }
        self.subscribers.iter_mut().for_each(Queue::go_on);
    }

    /// Whose workers are not to be listened to for now.
    fn full(&mut self) -> BTreeSet<BrokerId> {
        self.subscribers.retain(|queue| !queue.subscriber.queue.is_closed());
        let full = self.subscribers.iter().filter(|queue| queue.is_full());
        full.map(|queue| queue.subscriber.broker).collect()
    }

    fn subscribe(&mut self, subscriber: Subscriber) {
        let early = self.early.take(subscriber.broker, subscriber.answers);
        let mut queue = Queue { subscriber, backlog: VecDeque::new(), bytes: 0, missed: 0 };
        early.into_iter().for_each(|happening| queue.put(happening));
        self.subscribers.push(queue);
    }

    fn put(&mut self, broker: BrokerId, happening: &Happening) {
        self.early.keep(broker, happening);
        for queue in self.subscribers.iter_mut().filter(|queue| queue.subscriber.broker == broker) {
            // Whoever answers need not know of anything else.
            if !queue.subscriber.answers || happening.asks() {
                queue.put(happening.clone());
            }
        }
    }

    /// Tells of an event, after all that was said before it.
    pub(super) fn tell_of(
        &mut self,
        broker: Option<BrokerId>,
        event: &Arc<api::Event>,
        gone: Option<WorkerId>,
    ) {
        if let Some(broker) = broker
            && (!self.subscribers.is_empty() || self.early.is_on())
        {
            self.put(broker, &Happening::Event(Arc::clone(event)));
        }
        let Some(worker) = gone else { return };
        let of_worker = self.calls.range((worker, 0)..=(worker, u64::MAX)).map(|(key, _)| *key);
        for key in of_worker.collect::<Vec<_>>() {
            if let Some(call) = self.calls.remove(&key) {
                let _ = call.reply.send(Err(CallError::Ended));
            }
        }
    }

    fn is_answered(&self, broker: BrokerId) -> bool {
        let answers = |queue: &Queue| queue.subscriber.broker == broker && queue.subscriber.answers;
        self.subscribers.iter().any(answers)
    }

    /// Keeps a question until it is answered, due, or many more were asked since nobody waits for it any more.
    fn ask(&mut self, worker: WorkerId, id: u64, call: Call) {
        self.calls.insert((worker, id), call);
        if self.calls.len() >= self.tidies_at.max(USUAL) {
            self.calls.retain(|_, call| !call.reply.is_closed());
            self.tidies_at = 2 * self.calls.len();
        }
    }

    fn next_call(&mut self) -> u64 {
        let last = self.last_call.get_or_insert_with(|| u64::try_from(random() & MOST_FIRST).unwrap_or(0));
        *last += 1;
        *last
    }
}

impl Queue {
    fn is_full(&self) -> bool {
        !self.backlog.is_empty() || self.subscriber.queue.capacity() == 0
    }

    fn put(&mut self, happening: Happening) {
        let bytes = happening.size();
        let has_room = self.backlog.is_empty() || self.bytes + bytes <= MOST;
        if self.missed > 0 || !has_room {
            self.missed += happening.count();
        } else {
            self.bytes += bytes;
            self.backlog.push_back(happening);
        }
        self.go_on();
    }

    fn go_on(&mut self) {
        loop {
            let Some(next) = self.backlog.pop_front() else {
                if self.missed == 0 {
                    return;
                }
                let missed = Happening::Missed(std::mem::take(&mut self.missed));
                self.bytes = missed.size();
                self.backlog.push_back(missed);
                continue;
            };
            let bytes = next.size();
            match self.subscriber.queue.try_send(next) {
                Ok(()) => self.bytes -= bytes,
                Err(mpsc::error::TrySendError::Full(next)) => return self.backlog.push_front(next),
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    self.backlog.clear();
                    (self.bytes, self.missed) = (0, 0);
                    return;
                }
            }
        }
    }
}

impl Driver {
    /// What workers have said goes to those who subscribe, before anything that came after it.
    pub(super) fn hand_on_mail(&mut self) {
        for mail in self.workers.take_mail() {
            self.hand_on(mail);
        }
        for worker in self.workers.take_cut() {
            let name = self.workers.broker_of(worker).unwrap_or_default();
            let error = "a message to it was cut off with a broker process: it is replaced";
            self.log.channel_error(&name, worker.0, error);
            self.inputs.push_back(Input::HungUp { worker });
        }
        let full = self.post.full();
        self.workers.are_full(full);
    }

    fn hand_on(&mut self, mail: Mail) {
        let Mail { worker, broker, pid, slot, is_node, words } = mail;
        let mut messages = Vec::new();
        for word in words {
            match word {
                Word::Message { letter, ops } => {
                    let kind = if ops { Kind::Ops } else { Kind::Message };
                    messages.push(Message { letter, kind });
                }
                Word::Call { id, letter }
                    if self.post.is_answered(broker) || self.post.early.may_be_answered(broker) =>
                {
                    messages.push(Message { letter, kind: Kind::Call(id) });
                }
                Word::Call { id, .. } => self.refuse_to_answer(worker, id),
                Word::Reply { id, result } => {
                    // One that comes too late, or was asked for by a process before this one, is of no use.
                    if let Some(call) = self.post.calls.remove(&(worker, id)) {
                        let _ = call.reply.send(result.map_err(|error| CallError::refused(&error)));
                    }
                }
                Word::Spoke
                | Word::Ready
                | Word::Standby
                | Word::Numbers(_)
                | Word::Node(_)
                | Word::HungUp
                | Word::Garbled => {}
            }
        }
        if messages.is_empty() {
            return;
        }
        self.post.handed_on.add(&messages, is_node);
        let said = Arc::new(Said { broker, worker, pid, slot, messages });
        self.feed.publish_said(&said);
        for (worker, call) in self.post.early.keep_questions(&said, clock::now()) {
            self.refuse_to_answer(worker, call);
        }
        self.post.put(broker, &Happening::Said(said));
    }

    /// Lets those run who were just handed something, and those who say more: so more is taken at once the next time, which
    /// is less work for all. With a core for everybody it is nothing, so one that speaks on and on is left alone for a
    /// moment, if nobody waits for us.
    pub(super) fn give_way(&mut self) {
        match std::mem::take(&mut self.post.handed_on) {
            HandedOn { leaves_time: true, hurries: false, .. } if !self.workers.has_turns() => {
                std::thread::sleep(BREATHER);
            }
            HandedOn { anything: true, .. } => std::thread::yield_now(),
            HandedOn { .. } => {}
        }
    }

    /// Whoever was not listened to until now is not any more.
    pub(super) fn end_early_mail(&mut self, now: Time) {
        for (worker, call) in self.post.early.end(now) {
            self.refuse_to_answer(worker, call);
        }
    }

    fn refuse_to_answer(&mut self, worker: WorkerId, call: u64) {
        let line = channel::error_reply(call, "nobody answers what workers of this type ask");
        let _ = self.workers.tell(worker, line.as_bytes());
    }

    pub(super) fn run_errand(&mut self, errand: Errand) {
        // Whoever has stopped listening needs no answer.
        match errand {
            Errand::Listeners { broker, reply } => {
                let _ = reply.send(self.workers.listeners(broker));
            }
            Errand::Audience { broker, reply } => {
                let _ = reply.send(self.feed.audience(broker));
            }
            Errand::Tell { worker, line, reply } => {
                let told = self.workers.tell(worker, &line);
                let unheard = reply.is_none_or(|reply| reply.send(told).is_err());
                if let (true, Err(error @ (Untold::Full | Untold::Unsendable(_)))) = (unheard, told) {
                    let name = self.workers.broker_of(worker).unwrap_or_default();
                    self.log.channel_error(&name, worker.0, &error.to_string());
                }
            }
            Errand::Broadcast { broker, line, reply } => {
                let all = self.workers.listeners(broker);
                let told = all.iter().filter(|(worker, ..)| self.workers.tell(*worker, &line).is_ok());
                let _ = reply.send(u32::try_from(told.count()).unwrap_or(u32::MAX));
            }
            Errand::Call { worker, message, within, reply } => {
                let id = self.post.next_call();
                match self.workers.tell(worker, channel::call(id, &message).as_bytes()) {
                    Ok(()) => {
                        let call = Call { reply, within, until: clock::now() + within };
                        self.post.ask(worker, id, call);
                    }
                    Err(untold) => drop(reply.send(Err(untold.into()))),
                }
            }
            Errand::Signal { worker, signal } => {
                self.workers.signal(worker, shiftboss_core::spec::Signal(signal));
            }
            Errand::HangUp { worker } => self.workers.hang_up(worker, &mut *self.log, &mut self.inputs),
            Errand::Expect => self.post.early.begin(),
            Errand::Subscribe(subscriber) => self.post.subscribe(subscriber),
        }
    }
}

/// The worker whose end an event tells.
pub(super) fn gone(event: &Event) -> Option<WorkerId> {
    match event.what {
        What::WorkerEnded { worker, .. } | What::WorkerDeath { worker, .. } => Some(worker),
        _ => None,
    }
}

/// Questions that there may be without a look at who still waits.
const USUAL: usize = 64;
/// Bytes that wait for a subscriber beside its queue. One thing of any size always has room.
const MOST: usize = 16 << 20;
/// Until a subscriber that was too slow is looked at again.
const SOON: Duration = Duration::from_millis(10);
/// Who says so many messages at a time has more to say.
const SPEAKS_ON: usize = 8;
/// Bytes of messages at a time that are far from filling a channel, or what is taken from one at a time.
const LITTLE: usize = 16 * 1024;
/// How long one that speaks on is left alone. The quickest Node program says some 100 messages in it.
const BREATHER: Duration = Duration::from_micros(250);
/// The number of a process's first question is drawn below this; JSON has no whole numbers above 2^53.
const MOST_FIRST: u128 = (1 << 50) - 1;

#[cfg(test)]
mod tests;
