//! A [`Broker`]: keeps the workers of one type on shift, for the program that it is in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use shiftboss_core::id::{BrokerId, RequestId, Slot};
use shiftboss_core::{Command, Verb};
use tokio::sync::{mpsc, oneshot};

use crate::answer::{Answer, CallAll, Done};
use crate::app::App;
use crate::engine::{Engine, Shift};
use crate::extend::Extensions;
use crate::handle::Order;
use crate::mail::{Errand, Subscriber};
use crate::members::{Member, Members};
use crate::options::BrokerOptions;
use crate::os::random::random;
use crate::run::RunError;
use crate::subscription::{BrokerEvent, Message, Subscription};
use crate::worker::is_idle_worker;

/// Keeps the workers of one type alive, replaces the dead at once, and the whole shift without dropping a request.
///
/// A clone is the same broker. It runs until the app ends, whether or not anybody has a handle of it.
#[derive(Clone)]
pub struct Broker {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    app: App,
    worker_type: String,
    pub(crate) id: BrokerId,
    workers: u32,
    recycle_rate: Option<Duration>,
    shift: Arc<Shift>,
    pub(crate) engine: Arc<Engine>,
}

impl Broker {
    /// Starts a broker, and with it its workers. They are this very program, started again with the same arguments,
    /// unless the options name a command: see [`BrokerOptions::default`].
    ///
    /// In a process of its own that goes on after another (see [`AppBuilder::own_process`](crate::AppBuilder)) the broker
    /// is there already, with its workers: then this is the way to it, and the options are not looked at. The same where this
    /// process has started one of the type before, for a type has one broker.
    ///
    /// # Errors
    /// [`RunError`] if the options could never work, no worker could ever be started, an address cannot be listened on,
    /// or the app cannot run. In a process of its own whose other brokers have begun, a program that ends with it is
    /// started again by the keeper, unless it [stops](App::stop) the app and waits.
    pub fn start(
        app: &App,
        worker_type: impl Into<String>,
        options: BrokerOptions,
    ) -> Result<Broker, RunError> {
        Broker::start_with(app, worker_type, options, Extensions::new())
    }

    /// The same with extensions: hooks that a worker has to pass, a launcher of the program's own.
    ///
    /// # Errors
    /// Those of [`Broker::start`].
    pub fn start_with(
        app: &App,
        worker_type: impl Into<String>,
        options: BrokerOptions,
        extensions: Extensions,
    ) -> Result<Broker, RunError> {
        let worker_type = worker_type.into();
        if options.command.is_empty() && is_idle_worker() {
            return Err(RunError::Worker { worker_type: app.worker_type().to_owned() });
        }
        let engine = app.engine()?;
        let options = options.of_this_program().map_err(crate::run::os("cannot find this program"))?;
        let (workers, recycle_rate) = (options.workers, options.recycle.every);
        let join =
            |reply| Order::Join { name: worker_type.clone(), options: Box::new(options), extensions, reply };
        let id = engine.ask(join)??;
        engine.has_brokers.store(true, Ordering::Release);
        let shift = engine.shift(&worker_type);
        let app = app.clone();
        let shared = Shared { app, worker_type, id, workers, recycle_rate, shift, engine };
        Ok(Broker { shared: Arc::new(shared) })
    }

    /// The app that it belongs to.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.shared.app
    }

    /// The type of its workers: its name.
    #[must_use]
    pub fn worker_type(&self) -> &str {
        &self.shared.worker_type
    }

    /// How many workers the options name that it was started with here. [`Broker::scale`] changes that no more;
    /// [`Broker::workers`] tells who is there.
    #[must_use]
    pub fn worker_count(&self) -> u32 {
        self.shared.workers
    }

    /// After which time all workers are recycled, by the same options; none = only when asked.
    #[must_use]
    pub fn recycle_rate(&self) -> Option<Duration> {
        self.shared.recycle_rate
    }

    /// Whether it is drained or being drained: by [`Broker::drain_workers`], a command, or its schedule.
    #[must_use]
    pub fn drain_open(&self) -> bool {
        self.shared.shift.drained.load(Ordering::Acquire)
    }

    /// Whether what it does is told on standard error.
    #[must_use]
    pub fn debug(&self) -> bool {
        self.shared.shift.debug.load(Ordering::Relaxed)
    }

    /// Tells on standard error what it does, or no more.
    pub fn set_debug(&self, debug: bool) {
        self.shared.shift.debug.store(debug, Ordering::Relaxed);
    }

    /// Replaces all workers by new ones, each ready before the one before it is asked to leave.
    pub fn recycle_workers(&self) -> Answer<Done> {
        self.command(Verb::Recycle(None))
    }

    /// Replaces the worker of one slot, in the same way.
    pub fn recycle_slot(&self, slot: u32) -> Answer<Done> {
        self.command(Verb::Recycle(Some(Slot(slot))))
    }

    /// Sends all workers home and starts none: resolves when the last one has gone.
    pub fn drain_workers(&self) -> Answer<Done> {
        self.command(Verb::Drain)
    }

    /// Starts workers again: resolves when all of them are ready. Of a broker that is not drained it resolves then, too, a
    /// way to wait for the first workers; those that wait for another try are started at once.
    pub fn resume_workers(&self) -> Answer<Done> {
        self.command(Verb::Resume)
    }

    /// Keeps so many workers from now on: resolves when they are ready, or the surplus has gone.
    pub fn scale(&self, workers: u32) -> Answer<Done> {
        self.command(Verb::Scale(workers))
    }

    /// Its workers at this moment, in order of their slots.
    pub fn workers(&self) -> Answer<Vec<Member>> {
        Members::of(self.clone())
    }

    /// Tells all workers that have an open channel; resolves to how many were told. A message that cannot be JSON, or is
    /// longer than 16 MiB, is told to nobody, and is the answer's error.
    pub fn broadcast<T: Serialize + ?Sized>(&self, message: &T) -> Answer<u32> {
        let message = match json(message) {
            Ok(message) => message,
            Err(error) => return Answer::unspeakable(&error),
        };
        let (reply, answer) = oneshot::channel();
        let broker = self.shared.id;
        self.run(Errand::Broadcast { broker, line: message.get().as_bytes().to_vec(), reply });
        Answer::of(answer, Ok)
    }

    /// Asks all workers that have an open channel; resolves to their answers, in order of their ids.
    pub fn call_all<T: Serialize + ?Sized, R>(&self, message: &T) -> CallAll<R> {
        CallAll::new(self.clone(), question(message))
    }

    /// From now on, everything that its workers say and that happens to them, in order. The first who subscribes also gets what
    /// has happened since the broker was started, or its process has gone on, up to a megabyte. A subscriber that does not keep up
    /// slows its workers down: what they say waits in their channels. Events, and what workers said last, do not wait there: up
    /// to 16 MiB of them are kept, then it is only counted how many are dropped ([`BrokerEvent::Missed`]).
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.subscription(false)
    }

    /// Calls `act` with everything that [`Broker::subscribe`] gives, on a thread of its own, until the app ends. A
    /// panic of `act` costs the event, not those after it.
    pub fn on_event(&self, mut act: impl FnMut(BrokerEvent) + Send + 'static) {
        let mut subscription = self.subscribe();
        let act = move || {
            while let Some(event) = subscription.blocking_recv() {
                // The panic has been told by the hook; the next event is another one.
                let _ = catch_unwind(AssertUnwindSafe(|| act(event)));
            }
        };
        // Without a thread there is nobody to act; the channels are then not held up either.
        drop(std::thread::Builder::new().name("shiftboss-events".to_owned()).spawn(act));
    }

    /// Answers what workers ask ([`WorkerContext::call`](crate::WorkerContext::call)), on a thread of its own. A question that
    /// came before waits for it, for 5 s at most. One answerer a broker: with several, each question goes to all, and the
    /// first answer counts. One that panics has refused.
    pub fn on_call<R: Serialize, E: std::fmt::Display>(
        &self,
        mut answer: impl FnMut(Message, Member) -> Result<R, E> + Send + 'static,
    ) {
        let mut subscription = self.subscription(true);
        let broker = self.clone();
        let act = move || {
            while let Some(event) = subscription.blocking_recv() {
                let BrokerEvent::Call { id, message, worker } = event else { continue };
                let number = worker.number();
                let line = || match answer(message, worker).map(|answer| json(&answer)) {
                    Ok(Ok(answer)) => shiftboss_channel::reply(id, &answer),
                    Ok(Err(error)) => {
                        shiftboss_channel::error_reply(id, &format!("the answer cannot be sent: {error}"))
                    }
                    Err(error) => shiftboss_channel::error_reply(id, &error.to_string()),
                };
                // The panic has been told by the hook.
                let line = catch_unwind(AssertUnwindSafe(line)).unwrap_or_else(|_| {
                    shiftboss_channel::error_reply(id, "the app panicked over this question")
                });
                broker.run(Errand::Tell { worker: number, line: line.into_bytes(), reply: None });
            }
        };
        drop(std::thread::Builder::new().name("shiftboss-calls".to_owned()).spawn(act));
    }

    fn subscription(&self, answers: bool) -> Subscription {
        let (queue, happenings) = mpsc::channel(QUEUE);
        self.run(Errand::Subscribe(Subscriber { broker: self.shared.id, queue, answers }));
        Subscription::new(self.clone(), happenings, answers)
    }

    pub(crate) fn run(&self, errand: Errand) {
        self.shared.engine.give(Order::Errand(errand));
    }

    fn command(&self, verb: Verb) -> Answer<Done> {
        let (reply, outcome) = oneshot::channel();
        let request = RequestId(random());
        let command = Command::Broker(self.shared.id, verb);
        self.shared.engine.give(Order::Command { request, command, reply });
        Answer::of(outcome, Done::of)
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("worker_type", &self.worker_type()).finish_non_exhaustive()
    }
}

/// As one line of JSON, which is not longer than one may be.
pub(crate) fn json<T: Serialize + ?Sized>(message: &T) -> serde_json::Result<Box<RawValue>> {
    let raw = serde_json::value::to_raw_value(message)?;
    if raw.get().len() > shiftboss_channel::LONGEST {
        return Err(shiftboss_channel::too_long());
    }
    match shiftboss_channel::one_line(&raw) {
        std::borrow::Cow::Borrowed(_) => Ok(raw),
        std::borrow::Cow::Owned(line) => RawValue::from_string(line),
    }
}

/// The same of a question: other words are around it.
pub(crate) fn question<T: Serialize + ?Sized>(message: &T) -> serde_json::Result<Box<RawValue>> {
    let raw = json(message)?;
    if shiftboss_channel::is_too_long_to_ask(&raw) { Err(shiftboss_channel::too_long()) } else { Ok(raw) }
}

/// Portions that a subscriber may lag behind.
const QUEUE: usize = 64;
