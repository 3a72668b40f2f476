//! An app inside a program that has other things to do: on a thread of its own, and nothing that belongs to the whole
//! process is touched.

use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::driver::Chief;
use crate::handle::Order;
use crate::log::Log;
use crate::options::AppOptions;
use crate::orders::Orders;
use crate::os::{kernel, signals};
use crate::run::{self, RunError, Setting};

/// An app that runs in this process. Its workers end with the process, and with the thread that it runs on.
#[derive(Debug)]
pub struct Embedded {
    thread: JoinHandle<Result<(), RunError>>,
    orders: mpsc::UnboundedSender<Order>,
}

/// Begins an app on a thread of its own, from any thread, with or without a runtime around. It sets no signal handler,
/// mask, limit or parent of orphans, and reaps its own workers only: what a signal means to the app is for the host to
/// say, by [`Embedded::stop`]. Should the process be killed, its workers end with it.
///
/// What is wrong with the options or the surroundings is told by [`Embedded::wait`].
///
/// # Errors
/// [`RunError::ChildSignal`] if the process throws away how its children end, [`RunError::Os`] if there is no thread.
pub fn embed(options: AppOptions, setting: Setting, log: Box<dyn Log>) -> Result<Embedded, RunError> {
    kernel::check()?;
    if signals::child_signal_is_ignored() {
        return Err(RunError::ChildSignal);
    }
    let (orders, taken) = Orders::new();
    let run = move || run::start(&options, &setting, None, false, Chief::Host, log, taken);
    let builder = std::thread::Builder::new().name("shiftboss".to_owned());
    let thread = builder.spawn(run).map_err(run::os("cannot start a thread"))?;
    Ok(Embedded { thread, orders })
}

impl Embedded {
    /// Asks the app to end: every worker finishes what it has, or with `now` is killed. Returns at once.
    pub fn stop(&self, now: bool) {
        // One that has ended needs none.
        let _ = self.orders.send(Order::Stop { now });
    }

    /// Waits until the app has ended: after a stop, here or by a command.
    ///
    /// # Errors
    /// Why it did not start, or ended by itself.
    pub fn wait(self) -> Result<(), RunError> {
        self.thread.join().unwrap_or(Err(RunError::Panicked))
    }
}
