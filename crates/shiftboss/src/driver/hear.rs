//! What the driver hears: events of the poller, the keeper or signals, orders of clients; each becomes an input.

use std::time::Duration;

use shiftboss_core::id::{BrokerId, RequestId, WorkerId};
use shiftboss_core::spec::Signal;
use shiftboss_core::{Command, Input, Verb};
use shiftboss_keeper::SAME_SIGNAL;
use shiftboss_link::wire::{ORDER_HANG_UP, ORDER_STOP, ORDER_STOP_NOW, ORDER_UPGRADE};
use tokio::sync::oneshot;

use super::{Chief, Driver};
use crate::children::exit_of;
use crate::handle::{Order, Pulse};
use crate::keeper::Said;
use crate::keys::Key;
use crate::os::{clock, poll};
use crate::workers::{News, Workers};

/// Something that the keeper says again until it is told that it was recorded.
pub(super) enum Taken {
    Order(u64),
    End(WorkerId),
}

impl Driver {
    /// What workers write waits for the next round once this one has taken long: it is told again.
    pub(super) fn take_events(&mut self, events: &[poll::Ready]) -> std::io::Result<()> {
        let until = clock::now() + ROUND;
        for event in events {
            if Workers::can_wait(*event) && clock::now() > until {
                continue;
            }
            match self.workers.take(*event, &mut *self.log, &mut self.inputs) {
                Some(News::Chief) => self.hear_chief()?,
                Some(News::Image) => self.look_at_image(),
                Some(News::Clock) => self.outside.clock_has_come(&mut self.inputs),
                Some(News::Listener(broker)) if event.readable && !event.hangup => self.pass_on_all(broker),
                Some(News::Listener(broker)) => {
                    let mended = self.mend_open_listeners(broker);
                    if let Some(shell) = self.shells.get_mut(broker.0 as usize)
                        && !(shell.sockets.assert_backlog() && mended)
                    {
                        // It would be told of without end. The next worker that becomes ready is the next try.
                        self.workers.leave_listeners(&shell.sockets);
                        self.log.note(&format!(
                            "{}: a worker has shut a listener that cannot listen again",
                            shell.name
                        ));
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    pub(super) fn hear_chief(&mut self) -> std::io::Result<()> {
        let said = match &self.chief {
            Chief::Signals(signals) => {
                let signals: Vec<Signal> = std::iter::from_fn(|| signals.read()).map(Signal).collect();
                signals.into_iter().for_each(|signal| match signal {
                    Signal::HUP => self.hang_up(None),
                    _ => self.stop(),
                });
                return Ok(());
            }
            Chief::Keeper(keeper) => keeper.hear()?,
            Chief::Host => return Ok(()),
        };
        for said in said {
            match said {
                Said::Exit { key, status } => self.take_exit(key, status),
                Said::Order { number, what } => self.take_keepers_order(number, what),
                Said::Lacks { key } => self.is_not_held(key),
                Said::Fate(fate) => self.hear_fate(fate),
            }
        }
        Ok(())
    }

    /// A worker is gone, and reaped by the keeper.
    pub(super) fn take_exit(&mut self, key: u64, status: u64) {
        if let Some(Key::Worker(worker)) = Key::of(key) {
            if self.workers.has(worker) {
                self.workers.ended(worker, exit_of(status), &mut *self.log, &mut self.inputs);
            }
            self.taken.push(Taken::End(worker));
        }
    }

    /// A worker that nobody could go on with makes way for one that somebody can.
    fn is_not_held(&mut self, key: u64) {
        let full = "its limit of open files is reached";
        if let Some(Key::Worker(worker)) = Key::of(key) {
            self.log.note(&format!("the keeper cannot hold what belongs to worker {}: {full}", worker.0));
            self.workers.kill_tree(worker);
        } else {
            self.log.note(&format!("the keeper cannot hold all that a successor needs: {full}"));
        }
    }

    pub(super) fn take_keepers_order(&mut self, number: u64, what: u64) {
        match what {
            ORDER_STOP => self.stop(),
            ORDER_STOP_NOW => self.inputs.push_back(Input::Stop { now: true }),
            ORDER_HANG_UP => self.hang_up(Some(number)),
            ORDER_UPGRADE => {
                let request = RequestId(u128::from(number << 32 | u64::from(u32::MAX)));
                let is_news = !self.succession.upgrade.is_known(request);
                self.upgrade(request, false, oneshot::channel().0);
                if is_news && self.succession.upgrade.is_known(request) {
                    // Whoever goes on after us asks the image again, until it has been tried.
                    self.succession.order = Some(number);
                    return;
                }
            }
            // One of a newer keeper.
            _ => {}
        }
        self.taken.push(Taken::Order(number));
    }

    /// The same order told twice is one command.
    pub(super) fn hang_up(&mut self, order: Option<u64>) {
        if self.hang_up_stops {
            return self.stop();
        }
        self.own_requests += 1;
        let number = order.unwrap_or(self.own_requests) & MOST_ORDERS;
        for broker in (0..).take(self.shells.len()) {
            let request = RequestId(u128::from(number << 32 | u64::from(broker)));
            let command = Command::Broker(BrokerId(broker), Verb::Recycle(None));
            self.inputs.push_back(Input::Command { request, command });
        }
    }

    /// The first signal asks, whatever commands have asked before; the second does not. At its heels it is the same one: a
    /// terminal that is closed hangs up and may ask as well.
    pub(super) fn stop(&mut self) {
        let at = clock::now();
        if self.stop_asked.is_some_and(|before| at.since(before) < SAME_SIGNAL) {
            return;
        }
        let now = self.stop_asked.replace(at).is_some();
        if !now {
            self.log
                .note("stopping: every worker finishes what it has; the same signal again ends them at once");
        }
        self.inputs.push_back(Input::Stop { now });
    }

    pub(super) fn take_order(&mut self, order: Order) {
        match order {
            Order::Command { request, command, reply } => {
                self.waiting.entry(request).or_default().push(reply);
                self.inputs.push_back(Input::Command { request, command });
            }
            Order::Note(text) => self.log.note(&text),
            Order::Checked { worker, result } => self.is_checked(worker, result),
            Order::Ending(ending) => self.is_ending = ending,
            Order::Join { name, options, extensions, reply } => {
                // Whoever has stopped listening needs no answer.
                let _ = reply.send(self.join(&name, &options, extensions));
            }
            Order::Errand(errand) => self.run_errand(errand),
            Order::Stop { now } => self.inputs.push_back(Input::Stop { now }),
            Order::Upgrade { request, check, reply } => self.upgrade(request, check, reply),
            // Whoever has stopped listening needs no answer.
            Order::Status(reply) => {
                let mut brokers = self.feed.brokers();
                for worker in brokers.iter_mut().flat_map(|broker| &mut broker.workers) {
                    let id = worker.id.as_ref().and_then(|id| id.parse().ok());
                    worker.numbers = id.and_then(|id| self.workers.numbers(WorkerId(id))).cloned();
                }
                self.outside.add_changes(&mut brokers);
                let _ = reply.send(brokers);
            }
            Order::Pulse(reply) => {
                let _ = reply.send(Pulse { ready: self.feed.is_ready() });
            }
            Order::Subscribe { after, reply } => {
                let _ = reply.send(self.feed.subscribe(after));
            }
        }
    }
}

/// Requests of our own have numbers of 64 bits, an order's above the broker's.
const MOST_ORDERS: u64 = u32::MAX as u64;
/// How long output of workers may keep everything else waiting.
const ROUND: Duration = Duration::from_millis(5);
