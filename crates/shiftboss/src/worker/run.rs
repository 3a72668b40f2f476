//! A worker as a type: what it does at the beginning, with messages, and at the end.

use std::future::Future;
use std::process::ExitCode;

use shiftboss_link::signals::SignalFd;

use super::{WorkerContext, WorkerError};
use crate::app::{App, Report};
use crate::os::signals;
use crate::subscription::Message;

/// Any error: what the methods of a [`Worker`] may fail with. `?` makes one of every other, `.into()` of a text.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a worker does. Everything has a default: a worker that only is there. Methods are written as `async fn`:
///
/// ```
/// use shiftboss::{BoxError, Message, Worker, WorkerContext};
///
/// struct Greeter {
///     greeting: String,
/// }
///
/// impl Worker for Greeter {
///     async fn init(&mut self, context: &WorkerContext) -> Result<(), BoxError> {
///         context.send("here")?;
///         Ok(())
///     }
///
///     async fn message(&mut self, context: &WorkerContext, message: Message) {
///         let name: String = message.parse().unwrap_or_default();
///         let _ = context.send(&format!("{}, {name}", self.greeting));
///     }
/// }
/// ```
pub trait Worker: Send {
    /// Begins: launches the server, say, and returns. Then the worker counts as ready, and its predecessor is asked to
    /// leave. An error is reported and ends it, and counts as a failed start. What is to go on in the background is spawned.
    ///
    /// A standby goes as far as to [`WorkerContext::listener`], or to the end if it asks for none, and waits there until it is
    /// promoted; what comes before is done ahead of time. One that is to leave instead goes no further.
    fn init(&mut self, context: &WorkerContext) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = context;
        std::future::ready(Ok(()))
    }

    /// The broker has sent a message. The next one is not looked at before this has returned.
    fn message(&mut self, context: &WorkerContext, message: Message) -> impl Future<Output = ()> + Send {
        let _ = (context, message);
        std::future::ready(())
    }

    /// It is to leave: stops accepting and finishes what it has, then returns. Whoever takes longer than the stop ladder
    /// allows is signalled, then killed.
    fn prepare_for_shutdown(&mut self, context: &WorkerContext) -> impl Future<Output = ()> + Send {
        let _ = context;
        std::future::ready(())
    }
}

/// Runs a worker until it is to leave, in a process that a broker has started: to be returned from `main`. INT and TERM
/// tell it to leave like the broker does; a second one ends it at once.
///
/// It brings a tokio runtime of one thread. A program that has one calls [`WorkerContext::run`].
pub fn work<W: Worker>(app: &App, worker: W) -> ExitCode {
    let begun = WorkerContext::from_environment().and_then(|context| {
        context.bind_process_signals()?;
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().map_err(WorkerError::Thread)?;
        Ok((context, runtime))
    });
    match begun {
        Ok((context, runtime)) => runtime.block_on(context.run(app, worker)),
        Err(error) => {
            app.report(Report::new("no worker can run here").error(&error));
            ExitCode::FAILURE
        }
    }
}

impl WorkerContext {
    /// Runs a worker until it is to leave, in any tokio runtime. See [`work`].
    pub async fn run<W: Worker>(&self, app: &App, mut worker: W) -> ExitCode {
        self.take_name();
        // From the beginning: whoever has heard of this worker may send it messages.
        let mut messages = self.messages();
        let begun = tokio::select! {
            biased;
            () = self.is_not_needed() => return ExitCode::SUCCESS,
            begun = async {
                worker.init(self).await?;
                // One that never asked for a listener is fully started now.
                self.promoted().await.map_err(BoxError::from)
            } => begun,
        };
        if let Err(error) = begun {
            app.report(Report::new("the worker cannot begin").error(&*error));
            return ExitCode::FAILURE;
        }
        if let Err(error) = self.ready() {
            app.report(Report::new("the broker is gone").error(&error));
            return ExitCode::FAILURE;
        }
        loop {
            let next = async {
                match &mut messages {
                    Some(messages) => messages.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.leaving() => break,
                message = next => match message {
                    Some(message) => worker.message(self, message).await,
                    // The channel is closed: that it is to leave is told at the same moment.
                    None => messages = None,
                },
            }
        }
        worker.prepare_for_shutdown(self).await;
        ExitCode::SUCCESS
    }

    /// INT and TERM tell this worker to leave; a second one ends it at once. To be called before the program has threads.
    ///
    /// # Errors
    /// EMFILE at the limit of open files, or there is no thread.
    pub fn bind_process_signals(&self) -> Result<(), WorkerError> {
        let asked = SignalFd::new(&[libc::SIGINT, libc::SIGTERM]).map_err(WorkerError::Thread)?;
        let context = self.clone();
        let hear = move || hear_signals(&context, &asked);
        signals::undisturbed("shiftboss-signals", hear).map_err(WorkerError::Thread)
    }

    /// As ps(1) shows it.
    fn take_name(&self) {
        let name = format!("{}-{}", self.worker_type(), self.environment());
        if let Ok(name) = std::ffi::CString::new(name) {
            let _ = rustix::thread::set_name(&name);
        }
    }
}

fn hear_signals(context: &WorkerContext, signals: &SignalFd) {
    use std::os::fd::AsFd as _;
    let mut asked = 0;
    loop {
        let mut polled =
            [rustix::event::PollFd::from_borrowed_fd(signals.as_fd(), rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut polled, None);
        while let Some(signal) = signals.read() {
            asked += 1;
            if asked > 1 {
                // As the shell tells of one that a signal has ended.
                std::process::exit(128 + signal);
            }
            context.leave();
        }
    }
}
