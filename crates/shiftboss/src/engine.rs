//! What runs an [`App`]'s brokers: a thread of its own, begun with the first broker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use shiftboss_api::{Event, EventName};
use tokio::sync::{mpsc, oneshot};

use crate::app::{App, Inner};
use crate::driver::Chief;
use crate::handle::Order;
use crate::keeper::OwnProcess;
use crate::log::Log;
use crate::mail::Errand;
use crate::options::check::is_name;
use crate::options::{AppOptions, UpgradeWhen};
use crate::orders::Orders;
use crate::os::{instance, kernel, signals};
use crate::print::Printer;
use crate::run::{self, RunError, Setting};

/// How the app of a program is run.
pub(crate) struct Engines {
    /// The control socket; none = where the `shiftboss` command looks for an app of this name.
    socket: Option<PathBuf>,
    is_own: bool,
    /// The right to run in a process of its own, until it is used.
    own: Mutex<Option<OwnProcess>>,
    running: Mutex<Option<Arc<Engine>>>,
}

impl Engines {
    pub(crate) fn new(socket: Option<PathBuf>, own: Option<OwnProcess>) -> Engines {
        Engines { socket, is_own: own.is_some(), own: Mutex::new(own), running: Mutex::default() }
    }
}

/// An app without any broker ends with the last that knows it, as when its first broker could not be started: nobody else
/// could end it, and a keeper would try again for ever.
impl Drop for Engines {
    fn drop(&mut self) {
        if let Some(engine) = lock(&self.running).take()
            && !engine.has_brokers.load(Ordering::Acquire)
        {
            engine.give(Order::Stop { now: true });
            let _ = engine.wait();
        }
    }
}

/// The thread, and the way to it.
pub(crate) struct Engine {
    /// One has been started, or may be there from before.
    pub(crate) has_brokers: AtomicBool,
    orders: mpsc::UnboundedSender<Order>,
    thread: Mutex<Option<JoinHandle<Result<(), RunError>>>>,
    shifts: Arc<Shifts>,
}

/// What is known of each broker without being asked for.
#[derive(Default)]
pub(crate) struct Shifts(Mutex<BTreeMap<String, Arc<Shift>>>);

/// Of one broker.
#[derive(Default)]
pub(crate) struct Shift {
    /// It is being drained, or is.
    pub(crate) drained: AtomicBool,
    /// What it does is told on standard error.
    pub(crate) debug: AtomicBool,
}

impl Shifts {
    pub(crate) fn of(&self, broker: &str) -> Arc<Shift> {
        let mut shifts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(shifts.entry(broker.to_owned()).or_default())
    }
}

impl App {
    /// What runs this app, from now on.
    pub(crate) fn engine(&self) -> Result<Arc<Engine>, RunError> {
        let engines = &self.inner.engines;
        let mut running = lock(&engines.running);
        // One that could not begin is no obstacle to another; a keeper has one app only.
        if let Some(engine) = running.as_ref().filter(|engine| engines.is_own || !engine.came_to_nothing()) {
            return Ok(Arc::clone(engine));
        }
        if !is_name(self.name()) {
            return Err(RunError::Name(self.name().to_owned()));
        }
        kernel::check()?;
        let own = lock(&engines.own).take();
        if own.is_none() && signals::child_signal_is_ignored() {
            return Err(RunError::ChildSignal);
        }
        let socket = engines.socket.clone().unwrap_or_else(|| instance::default_socket(self.name()));
        let setting = Setting { socket, environment: self.environment().to_owned(), trace: None };
        let options =
            AppOptions { app: self.name().to_owned(), brokers: Vec::new(), upgrade: UpgradeWhen::Asked };
        let shifts = Arc::new(Shifts::default());
        let log = Box::new(AppLog {
            app: Arc::downgrade(&self.inner),
            shifts: Arc::clone(&shifts),
            printer: Printer::new().map_err(run::os("cannot start a thread"))?,
        });
        let has_brokers = AtomicBool::new(own.as_ref().is_some_and(OwnProcess::goes_on));
        let (orders, taken) = Orders::new();
        // Before any other.
        let _ = orders.send(Order::Errand(Errand::Expect));
        let run = move || match own {
            Some(own) if own.goes_on() => run::go_on_with(own, log, taken),
            Some(OwnProcess { keeper, nofile, .. }) => {
                let (chief, hang_up) = (Chief::Keeper(keeper), run::hang_up_stops());
                run::start(&options, &setting, Some(nofile), hang_up, chief, log, taken)
            }
            None => run::start(&options, &setting, None, false, Chief::Host, log, taken),
        };
        let builder = std::thread::Builder::new().name("shiftboss".to_owned());
        let thread = builder.spawn(run).map_err(run::os("cannot start a thread"))?;
        let engine = Arc::new(Engine { has_brokers, orders, thread: Mutex::new(Some(thread)), shifts });
        *running = Some(Arc::clone(&engine));
        Ok(engine)
    }

    /// Waits until the brokers of this app have ended: by [`App::stop`], by a command, or in a process of its own by a
    /// signal. Returns at once if none was ever started. It blocks: not to be called from asynchronous code.
    ///
    /// # Errors
    /// Why they could not be run any longer. Told once.
    pub fn wait(&self) -> Result<(), RunError> {
        let engine = lock(&self.inner.engines.running).clone();
        let engine = engine.filter(|engine| engine.has_brokers.load(Ordering::Acquire));
        engine.map_or(Ok(()), |engine| engine.wait())
    }

    /// Whoever exits from now on is not replaced, or is again.
    pub(crate) fn tell_ending(&self, ending: bool) {
        if let Some(engine) = &*lock(&self.inner.engines.running) {
            engine.give(Order::Ending(ending));
        }
    }

    /// Asks all brokers to end: every worker finishes what it has, or with `now` is killed. Returns at once: see
    /// [`App::wait`].
    pub fn stop(&self, now: bool) {
        if let Some(engine) = &*lock(&self.inner.engines.running) {
            engine.give(Order::Stop { now });
        }
    }
}

impl Engine {
    /// Whether it has ended without any broker.
    fn came_to_nothing(&self) -> bool {
        // Where somebody waits for its end it has not ended.
        let thread = self.thread.try_lock();
        thread.is_ok_and(|thread| thread.as_ref().is_none_or(JoinHandle::is_finished))
            && !self.has_brokers.load(Ordering::Acquire)
    }

    /// Gives an order, however busy the thread is. One that has ended drops it.
    pub(crate) fn give(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Asks something of the thread, and waits for the answer.
    ///
    /// # Errors
    /// Why the thread has ended instead.
    pub(crate) fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, RunError>
    where
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.give(order(reply));
        match wait_for(answer) {
            Some(answer) => Ok(answer),
            None => Err(self.wait().err().unwrap_or(RunError::Ending)),
        }
    }

    pub(crate) fn shift(&self, broker: &str) -> Arc<Shift> {
        self.shifts.of(broker)
    }

    fn wait(&self) -> Result<(), RunError> {
        // Held until it has ended: whoever else waits does so here.
        let mut thread = lock(&self.thread);
        thread.take().map_or(Ok(()), |thread| thread.join().unwrap_or(Err(RunError::Panicked)))
    }
}

/// Waits in any kind of thread, asynchronous ones included.
pub(crate) fn wait_for<T: Send + 'static>(answer: oneshot::Receiver<T>) -> Option<T> {
    block_on(answer).ok()
}

/// Drives a future that waits for another thread of ours.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Where an app of a program tells what happens: workers' output is the program's own, deaths are reported.
struct AppLog {
    app: Weak<Inner>,
    shifts: Arc<Shifts>,
    printer: Printer,
}

impl AppLog {
    fn debug(&self, event: &Event) {
        let Some(broker) = &event.broker else { return };
        if self.shifts.of(broker).debug.load(Ordering::Relaxed) {
            let worker = event.worker.as_ref().map(|id| format!(" worker id={id}")).unwrap_or_default();
            let reason = event.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            self.printer.line(true, &format!("{broker}: {}{worker}{reason}", event.event));
        }
    }
}

impl Log for AppLog {
    fn event(&mut self, event: &Event) {
        self.debug(event);
        let Some(broker) = &event.broker else { return };
        match event.event {
            EventName::BrokerDraining | EventName::BrokerClosed => {
                self.shifts.of(broker).drained.store(true, Ordering::Release);
            }
            EventName::BrokerResumed | EventName::BrokerOpened => {
                self.shifts.of(broker).drained.store(false, Ordering::Release);
            }
            EventName::BrokerAdopted => {
                self.shifts.of(broker).drained.store(event.drained == Some(true), Ordering::Release);
            }
            EventName::WorkerDeath => {
                let Some(inner) = self.app.upgrade() else { return };
                let app = App { inner };
                if !app.graceful_shutdown() {
                    self.printer.death(app, event);
                }
            }
            _ => {}
        }
    }

    fn line(&mut self, line: &crate::log::Line<'_>) {
        self.printer.line(line.stderr, line.text);
    }

    fn note(&mut self, text: &str) {
        let shifts = self.shifts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shifts.values().any(|shift| shift.debug.load(Ordering::Relaxed)) {
            self.printer.line(true, text);
        }
    }

    fn channel_error(&mut self, broker: &str, worker: u64, error: &str) {
        if let Some(inner) = self.app.upgrade() {
            self.printer.channel_error(App { inner }, broker, worker, error);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
