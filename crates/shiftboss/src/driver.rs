//! The one loop that calls core: waits, turns what happened into an input, performs the effects.
//!
//! It decides nothing. Here: the loop and the calls; what it hears and does is in the files below. The workers' processes
//! are in `workers`, what can be done to them in `os`.

mod checks;
mod chief;
mod hear;
mod join;
mod lanes;
mod listeners;
mod node;
mod outside;
mod perform;
mod post;
mod starts;
mod succession;
mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shiftboss_api as api;
use shiftboss_core::id::{BrokerId, LaunchId, RequestId};
use shiftboss_core::spec::Ready;
use shiftboss_core::time::Time;
use shiftboss_core::{Adoption, App, Effect, Input};
use tokio::sync::{mpsc, oneshot};

use crate::extend::{Checks, Extensions};
use crate::feed::Feed;
use crate::handle::{Names, Order};
use crate::join::Founder;
use crate::keeper::Inherited;
use crate::launch::Launch;
use crate::log::{Log, Told};
use crate::orders::Orders;
use crate::os::{clock, heirs, kill_points};
use crate::recorder::Recorder;
use crate::sockets::Sockets;
use crate::trace::Trace;
use crate::upgrade::Checked;
use crate::workers::Workers;

pub(crate) use chief::Chief;
use hear::Taken;
use outside::Outside;
#[cfg(feature = "watch")]
pub(crate) use outside::Seen;
pub(crate) use succession::Succession;

pub(crate) struct Driver {
    core: App,
    trace: Option<Trace>,
    recorder: Option<Recorder>,
    shells: Vec<Shell>,
    launches: BTreeMap<LaunchId, Launch>,
    workers: Workers,
    outside: Outside,
    chief: Chief,
    quieting: BTreeMap<BrokerId, listeners::Drain>,
    /// Of whom it was said that one of their listeners cannot be mended.
    unmended: BTreeSet<BrokerId>,
    feed: Feed,
    names: Names,
    /// Makes the brokers that join.
    founder: Founder,
    log: Box<dyn Log>,
    /// If the log does not note it itself.
    told: Option<Told>,
    orders: Orders,
    waiting: BTreeMap<RequestId, Vec<oneshot::Sender<api::Outcome>>>,
    inputs: VecDeque<Input>,
    /// What the keeper has told, and is not recorded yet.
    taken: Vec<Taken>,
    own_requests: u64,
    /// What hooks are asked.
    checks: Checks,
    starts: starts::Starts,
    /// The program around is about to end: nobody is started.
    is_ending: bool,
    /// Words to workers whose lanes are to be empty first.
    held_back: Vec<lanes::HeldBack>,
    own_orders: mpsc::Sender<Order>,
    /// Who hears what workers say, and what they are asked.
    post: post::Post,
    succession: Succession,
    /// By a signal.
    stop_asked: Option<Time>,
    hang_up_stops: bool,
    /// A keeper starts another process if this one fails.
    is_followed: bool,
    ended: bool,
}

/// What the driver keeps of a broker.
pub(crate) struct Shell {
    pub(crate) name: Arc<str>,
    pub(crate) ready: Ready,
    pub(crate) sockets: Sockets,
    /// Those of the program that it is in.
    pub(crate) extensions: Extensions,
    /// The process before this one had some: ours come with the broker's join.
    pub(crate) awaits_extensions: bool,
    /// Whether this program has started it, or has taken it up.
    pub(crate) is_joined: bool,
    #[cfg(feature = "schedule")]
    pub(crate) schedule: Option<crate::schedule::Schedule>,
    #[cfg(feature = "watch")]
    pub(crate) watch: Option<crate::watch::Watch>,
}

/// How the driver begins.
pub(crate) enum Beginning {
    /// The app is new.
    Start,
    /// Another process has begun it.
    Adopt { how: Adoption, inherited: Inherited, told: u64, events: Vec<api::Event> },
}

/// All that a driver starts with.
pub(crate) struct Parts {
    pub(crate) core: App,
    pub(crate) trace: Option<Trace>,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) shells: Vec<Shell>,
    pub(crate) launches: BTreeMap<LaunchId, Launch>,
    pub(crate) feed: Feed,
    pub(crate) names: Names,
    pub(crate) founder: Founder,
    pub(crate) own_orders: mpsc::Sender<Order>,
    pub(crate) log: Box<dyn Log>,
    pub(crate) chief: Chief,
    pub(crate) succession: Succession,
    /// What a hang-up means: an end, or as for most, new workers.
    pub(crate) hang_up_stops: bool,
}

impl Driver {
    /// Must be called inside the runtime that will run it.
    pub(crate) fn new(mut parts: Parts, orders: Orders, notify_dir: PathBuf) -> std::io::Result<Self> {
        let in_flight = parts.recorder.as_ref().map(Recorder::in_flight).transpose()?.unwrap_or_default();
        let workers = Workers::new(notify_dir, parts.chief.keeper().cloned(), in_flight)?;
        if let Some(chief) = parts.chief.to_wait_for() {
            workers.also_wait_for(chief)?;
        }
        if let Some(watch) = &parts.succession.watch {
            workers.also_watch(watch.as_fd())?;
        }
        let outside = Outside::new(&parts.shells, &workers)?;
        let told = parts.recorder.as_ref().map(Recorder::told).transpose()?;
        let told = told.and_then(|told| parts.log.takes_note(told));
        Ok(Driver {
            core: parts.core,
            trace: parts.trace,
            recorder: parts.recorder,
            shells: parts.shells,
            launches: parts.launches,
            workers,
            outside,
            chief: parts.chief,
            quieting: BTreeMap::new(),
            unmended: BTreeSet::new(),
            feed: parts.feed,
            names: parts.names,
            founder: parts.founder,
            log: parts.log,
            told,
            orders,
            waiting: BTreeMap::new(),
            inputs: VecDeque::new(),
            taken: Vec::new(),
            own_requests: 0,
            checks: Checks::default(),
            is_ending: false,
            starts: starts::Starts::default(),
            held_back: Vec::new(),
            own_orders: parts.own_orders,
            post: post::Post::default(),
            succession: parts.succession,
            stop_asked: None,
            hang_up_stops: parts.hang_up_stops,
            is_followed: false,
            ended: false,
        })
    }

    /// Runs the app until it has ended: all workers gone, all commands answered. That it has is for the caller to tell
    /// the keeper; if it cannot run, whoever the keeper starts next goes on. Subscriptions end when what is returned is
    /// dropped.
    pub(crate) async fn run(mut self, beginning: Beginning) -> std::io::Result<impl Sized + use<>> {
        let result = self.go(beginning).await;
        heirs::expect(result.is_err() && self.is_followed);
        result.map(|()| self.post)
    }

    async fn go(&mut self, beginning: Beginning) -> std::io::Result<()> {
        match beginning {
            Beginning::Start => self.start(),
            Beginning::Adopt { how, inherited, told, events } => {
                self.is_followed = true;
                self.adopt(how, inherited, told, events)?;
            }
        }
        self.begin_round();
        self.feed_core()?;
        if let Some(keeper) = self.chief.keeper() {
            keeper.ready()?;
            self.is_followed = true;
        }
        // What was asked before the workers could be heard comes before them.
        self.take_orders();
        loop {
            self.begin_round();
            self.feed_core()?;
            // After the effects: a successor is started before its predecessor's death is written down.
            self.flush_log();
            kill_points::point("the log was handed over");
            if self.ended {
                return Ok(());
            }
            // Whoever asks gets an answer, however much the workers have to say.
            tokio::task::yield_now().await;
            self.give_way();
            let now = clock::now();
            let due = if self.has_starts() { Some(now) } else { self.deadline() };
            match due {
                Some(at) if at <= now => {
                    // What has happened meanwhile comes first.
                    let events = self.workers.events()?;
                    self.take_events(&events)?;
                    self.take_orders();
                    self.tick()?;
                }
                deadline => self.wait(deadline.map(|at| at.since(now))).await?,
            }
        }
    }

    /// Those that are there.
    fn take_orders(&mut self) {
        for _ in 0..self.orders.len() {
            if let Some(order) = self.orders.try_next() {
                self.take_order(order);
            }
        }
    }

    fn flush_log(&mut self) {
        self.log.flush();
        if let Some(told) = &mut self.told {
            told.output_up_to(self.workers.said());
        }
    }

    async fn wait(&mut self, at_most: Option<Duration>) -> std::io::Result<()> {
        let due = async {
            match at_most {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let events = tokio::select! {
            events = self.workers.wait() => events?,
            Some(order) = self.orders.next() => {
                self.take_order(order);
                return Ok(());
            }
            checked = self.succession.upgrade.checked() => match checked {
                Checked::TakesOver(request, image) => {
                    // What was accepted goes along.
                    self.take_orders();
                    self.feed_core()?;
                    return self.hand_over(request, &image);
                }
                Checked::Over(words) => {
                    self.log.note(&words);
                    self.taken.extend(self.succession.order.take().map(Taken::Order));
                    self.look_at_image();
                    return Ok(());
                }
            },
            seen = self.outside.seen() => {
                self.take_seen(seen);
                return Ok(());
            }
            // The loop sees to it: what has happened meanwhile comes first.
            () = due => return Ok(()),
        };
        self.take_events(&events)?;
        // Whoever asks is heard in each round.
        self.take_orders();
        Ok(())
    }

    fn deadline(&self) -> Option<Time> {
        let quieting = self.quieting.values().map(listeners::Drain::deadline).min();
        let core = self.core.deadline().filter(|_| !self.workers.is_news_due());
        let lanes = self.lanes_deadline();
        let others = [self.workers.deadline(), self.post.deadline(), self.starts_deadline()];
        [core, quieting, lanes].into_iter().chain(others).flatten().min()
    }

    fn tick(&mut self) -> std::io::Result<()> {
        let now = clock::now();
        self.post.look_at_clock(now);
        self.end_early_mail(now);
        // The keeper says so once it has reaped them, and is told then.
        self.workers.wait_no_longer(now, &mut *self.log, &mut self.inputs);
        self.workers.look(now, &mut self.inputs);
        self.look_at_turns(now);
        self.look_at_queues(now);
        self.look_at_lanes(now);
        // What has happened may have changed what is due.
        self.feed_core()?;
        if self.core.deadline().is_some_and(|at| at <= now) && !self.workers.is_news_due() {
            self.inputs.push_back(Input::Tick);
        }
        Ok(())
    }

    fn start(&mut self) {
        let now = clock::now();
        let effects = self.core.start(now);
        let deadline = self.core.deadline();
        self.trace(|trace| trace.step(now, None, &effects, deadline));
        let events = self.record(&effects);
        self.perform(effects, events);
    }

    /// Gives core what has happened, with what its own effects bring about, until nothing is left.
    fn feed_core(&mut self) -> std::io::Result<()> {
        self.hand_on_mail();
        self.play_primary();
        while let Some(input) = self.next_input() {
            // An app that has ended only answers.
            if self.ended && !matches!(input, Input::Command { .. }) {
                continue;
            }
            if self.is_checked_first(&input) || self.is_wanted_again(&input) {
                continue;
            }
            let now = clock::now();
            let heard = self.trace.is_some().then(|| Trace::hear(&input));
            let effects = self.core.handle(now, input);
            let deadline = self.core.deadline();
            self.trace(|trace| trace.step(now, heard, &effects, deadline));
            let events = self.record(&effects);
            self.perform(effects, events);
        }
        self.all_is_recorded()
    }

    fn next_input(&mut self) -> Option<Input> {
        if self.inputs.is_empty() {
            self.start_next();
        }
        self.inputs.pop_front()
    }

    /// Writes a call of core down, if that is asked for and as long as it can be done.
    fn trace(&mut self, write: impl FnOnce(&mut Trace) -> std::io::Result<()>) {
        kill_points::point("a line of the trace is written");
        if let Some(Err(error)) = self.trace.as_mut().map(write) {
            self.trace = None;
            self.log.note(&format!("the trace cannot be written and ends here: {error}"));
        }
        kill_points::point("a line of the trace was written");
    }

    /// Records a step before its effects are performed, and returns the events among them.
    fn record(&mut self, effects: &[Effect]) -> VecDeque<api::Event> {
        let events = effects.iter().filter_map(|effect| match effect {
            Effect::Emit(event) => Some(self.feed.convert(event)),
            _ => None,
        });
        let mut events: VecDeque<api::Event> = events.collect();
        if let Some(recorder) = &mut self.recorder
            && let Err(full) = recorder.step(&mut self.core, events.make_contiguous())
        {
            self.log.note(&format!("cannot record what happens, so a successor would not know it: {full}"));
        }
        events
    }

    /// Nothing that was told needs to be told again.
    fn all_is_recorded(&mut self) -> std::io::Result<()> {
        self.workers.heard_is_recorded();
        self.checks.told.drain(..).for_each(|worker| self.workers.is_believed(worker));
        let Some(keeper) = self.chief.keeper() else { return Ok(()) };
        for taken in self.taken.drain(..) {
            match taken {
                Taken::Order(number) => keeper.done(number),
                Taken::End(worker) => self.workers.is_recorded_gone(worker),
            }
        }
        keeper.flush()
    }
}
