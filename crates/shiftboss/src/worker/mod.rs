//! The worker's side: what a process that a broker has started can say, ask and be told.

mod calls;
mod door;
mod hear;
mod inbox;
mod listener;
mod numbers;
mod run;

use std::env;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Wake;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use serde::Serialize;
use serde_json::value::RawValue;
use shiftboss_channel::{self as channel, socket};
use tokio::sync::{mpsc, oneshot, watch};

use crate::answer::Call;
use crate::broker::{json, question};
use crate::engine::block_on;
use crate::mail::CallError;
use crate::os::activation;
use crate::subscription::Message;

pub use listener::Listener;
pub use numbers::Busy;
pub use run::{BoxError, Worker, work};

/// The type of worker that this process is; none if it is no worker: that takes `worker_type` *and* an open channel.
#[must_use]
pub fn worker_type() -> Option<String> {
    if is_worker() { env::var("worker_type").ok() } else { None }
}

pub(crate) fn is_worker() -> bool {
    env::var_os("worker_type").is_some() && env::var_os(channel::VARIABLE).is_some()
}

/// A worker that has not taken over what its broker has passed.
pub(crate) fn is_idle_worker() -> bool {
    is_worker() && !IS_TAKEN.load(Ordering::Relaxed)
}

/// A worker's way to its broker. A clone is the same one.
#[derive(Clone)]
pub struct WorkerContext {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    worker_type: String,
    environment: String,
    socket: OwnedFd,
    /// One line at a time.
    writing: Mutex<()>,
    is_ready: AtomicBool,
    calls: Mutex<calls::Calls>,
    /// Wakes the hearing thread.
    wake: OwnedFd,
    hearing: OnceLock<ThreadId>,
    answers: Mutex<Option<Answerer>>,
    /// It has been told to leave, or nobody is there any more.
    leaving: watch::Sender<bool>,
    messages: Mutex<Option<mpsc::Receiver<Message>>>,
    /// Somebody takes them.
    is_heard: AtomicBool,
    listeners: Mutex<Vec<(String, OwnedFd)>>,
    door: door::Door,
    numbers: numbers::Numbers,
}

/// Wakes the hearing thread.
impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // One that is full wakes as well.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// Answers a question with a line.
type Answerer = Box<dyn FnMut(u64, Message) -> String + Send>;

/// Why this process cannot be a worker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// It was not started by a broker.
    #[error("this process is no worker: it has no `worker_type`, or no channel")]
    NoWorker,
    /// The channel or a listener was passed wrongly, or is taken already: a process has one context.
    #[error("what a broker passes cannot be taken over: {0}")]
    Inherit(#[from] activation::InheritError),
    /// A thread, or a descriptor to wake it by, cannot be had.
    #[error("cannot start the thread that hears the broker: {0}")]
    Thread(io::Error),
}

/// What the broker sends, in order; taken by [`WorkerContext::messages`].
#[derive(Debug)]
pub struct Messages(mpsc::Receiver<Message>);

impl WorkerContext {
    /// Takes over what the broker has passed to this process. Once in a process, before anything else in it may take the
    /// descriptors.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn from_environment() -> Result<WorkerContext, WorkerError> {
        let text = |name: &str| env::var(name).ok();
        let (Some(worker_type), Some(number)) = (worker_type(), text(channel::VARIABLE)) else {
            return Err(WorkerError::NoWorker);
        };
        let number = number.parse().map_err(|_| WorkerError::NoWorker)?;
        let socket = activation::passed(number)?;
        let listeners = activation::inherited()?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = wake.map_err(|error| WorkerError::Thread(error.into()))?;
        IS_TAKEN.store(true, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(WAITING);
        let shared = Shared {
            worker_type,
            environment: text("env").unwrap_or_else(|| "default".to_owned()),
            socket,
            writing: Mutex::new(()),
            is_ready: AtomicBool::new(false),
            calls: Mutex::default(),
            wake,
            hearing: OnceLock::new(),
            answers: Mutex::default(),
            leaving: watch::Sender::new(false),
            messages: Mutex::new(Some(receiver)),
            is_heard: AtomicBool::new(false),
            listeners: Mutex::new(listeners),
            door: door::Door::from_environment(),
            numbers: numbers::Numbers::default(),
        };
        let context = WorkerContext { shared: Arc::new(shared) };
        hear::begin(&context, sender).map_err(WorkerError::Thread)?;
        Ok(context)
    }

    /// Its type: the broker's.
    #[must_use]
    pub fn worker_type(&self) -> &str {
        &self.shared.worker_type
    }

    /// Its id, unique in the app's life.
    #[must_use]
    pub fn id(&self) -> String {
        env::var("SHIFTBOSS_WORKER_ID").unwrap_or_default()
    }

    /// The name of the environment that the app runs in.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.shared.environment
    }

    /// Says that this worker serves from now on: only then its predecessor is asked to leave. Once is enough. Of a standby it
    /// is said when it is promoted.
    ///
    /// # Errors
    /// Those of [`WorkerContext::send`].
    pub fn ready(&self) -> io::Result<()> {
        if self.shared.is_ready.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        if self.may_be_ready()? { self.write(&channel::ready()) } else { Ok(()) }
    }

    /// Sends the broker a message: any value that serialises to JSON. When it returns the message is the operating system's,
    /// and the broker gets it even if this process ends at once. It waits while the broker does not take what was sent
    /// before.
    ///
    /// # Errors
    /// `InvalidData` if the value cannot be JSON or is longer than 16 MiB, `BrokenPipe` if the channel is closed.
    pub fn send<T: Serialize + ?Sized>(&self, message: &T) -> io::Result<()> {
        let mut line = Vec::with_capacity(USUAL);
        channel::add_line(&mut line, message)?;
        self.write_lines(&line)
    }

    /// Sends several messages, in order. It costs a fraction of sending them one by one: many go to the operating system at
    /// once. After an error nobody knows how many of them the broker gets.
    ///
    /// # Errors
    /// Those of [`WorkerContext::send`].
    pub fn send_all<T: Serialize>(&self, messages: impl IntoIterator<Item = T>) -> io::Result<()> {
        let mut lines = Vec::new();
        for message in messages {
            channel::add_line(&mut lines, &message)?;
            if lines.len() >= AT_ONCE {
                self.write_lines(&lines)?;
                lines.clear();
            }
        }
        self.write_lines(&lines)
    }

    /// Asks the broker something: see [`Broker::on_call`](crate::Broker::on_call) for its side. What a broker process was
    /// asked and has not answered when it dies stays unanswered, and ends with [`CallError::TimedOut`].
    pub fn call<T: Serialize + ?Sized, R>(&self, message: &T) -> Call<R> {
        Call::to_broker(self.clone(), question(message))
    }

    pub(crate) async fn ask(&self, message: &RawValue, within: Duration) -> Result<Box<RawValue>, CallError> {
        // Whoever waits there waits for itself, and nothing is heard any more.
        if self.shared.hearing.get() == Some(&std::thread::current().id()) {
            return Err(CallError::WouldHang);
        }
        let (reply, answer) = oneshot::channel();
        let (id, is_news) = lock(&self.shared.calls).begin(reply, within, Instant::now());
        if is_news {
            self.shared.wake_by_ref();
        }
        if self.write(&channel::call(id, message)).is_err() {
            lock(&self.shared.calls).answer(id, Err(CallError::AppEnded));
        }
        answer.await.unwrap_or(Err(CallError::AppEnded))
    }

    /// Answers what the broker asks ([`Member::call`](crate::Member::call)), on the thread that hears the channel: it
    /// must not take long. One that panics has refused. Nothing is heard meanwhile, so it cannot wait for messages, nor
    /// ask: what it asks itself ends with [`CallError::WouldHang`] at once. A task or a thread that it starts may ask.
    pub fn on_call<R: Serialize, E: std::fmt::Display>(
        &self,
        mut answer: impl FnMut(Message) -> Result<R, E> + Send + 'static,
    ) {
        let line = move |id: u64, message: Message| match answer(message).map(|answer| json(&answer)) {
            Ok(Ok(answer)) => channel::reply(id, &answer),
            Ok(Err(error)) => channel::error_reply(id, &format!("the answer cannot be sent: {error}")),
            Err(error) => channel::error_reply(id, &error.to_string()),
        };
        // Dropped once the lock is free: it is the program's.
        let _before = lock(&self.shared.answers).replace(Box::new(line));
    }

    /// What the broker sends from now on; what was sent before anybody took it is lost, as with Node's `cluster`. A program
    /// that does not take it is told to leave, asked and answered all the same. Up to 16 MiB are kept for it; then it makes the
    /// broker wait, whose other words wait as well: such a worker is ended by the signals of its stop ladder.
    /// None if it was taken before.
    #[must_use]
    pub fn messages(&self) -> Option<Messages> {
        let messages = lock(&self.shared.messages).take()?;
        self.shared.is_heard.store(true, Ordering::Release);
        Some(Messages(messages))
    }

    /// Resolves when this worker is to leave: the broker has told it, a signal has, or the broker is gone.
    pub async fn leaving(&self) {
        let mut leaving = self.shared.leaving.subscribe();
        // The sender is in this very context.
        let _ = leaving.wait_for(|leaving| *leaving).await;
    }

    /// The same, blocking: not to be called from asynchronous code.
    pub fn wait_until_leaving(&self) {
        block_on(self.leaving());
    }

    /// Whether it is to leave.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        *self.shared.leaving.borrow()
    }

    fn leave(&self) {
        self.shared.leaving.send_replace(true);
    }

    /// One line, whole, before any other.
    pub(crate) fn write(&self, line: &str) -> io::Result<()> {
        self.write_lines(&[line.as_bytes(), b"\n"].concat())
    }

    /// Whole ones, with their ends.
    fn write_lines(&self, lines: &[u8]) -> io::Result<()> {
        let _one_at_a_time = lock(&self.shared.writing);
        let mut left = lines;
        while !left.is_empty() {
            let written = socket::write(self.shared.socket.as_fd(), left, true)?;
            left = &left[written..];
        }
        Ok(())
    }
}

impl std::fmt::Debug for WorkerContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerContext").field("worker_type", &self.worker_type()).finish_non_exhaustive()
    }
}

impl Messages {
    /// The next message; none once the broker has closed the channel.
    pub async fn recv(&mut self) -> Option<Message> {
        self.0.recv().await
    }

    /// The same, blocking: not to be called from asynchronous code.
    pub fn blocking_recv(&mut self) -> Option<Message> {
        block_on(self.0.recv())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This process has a context.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);
/// So many messages may wait for a program that takes them.
const WAITING: usize = 1024;
/// Bytes of a line, mostly.
const USUAL: usize = 256;
/// Bytes of lines that go out together.
const AT_ONCE: usize = 32 * 1024;
