//! Keeps workers on shift: a [`Broker`] keeps N worker processes of one type alive, replaces the dead at once and the whole
//! shift without dropping a request, and passes messages. The program that has the broker and its workers are one binary, as
//! with Node's `cluster`; or the workers are any other command. Linux 5.10 or newer.
//!
//! # A whole program
//!
//! ```toml
//! [dependencies]
//! shiftboss = { path = "../shiftboss/crates/shiftboss" }   # not published yet; edition 2024, Rust 1.89
//! ```
//!
//! ```no_run
//! use std::error::Error;
//! use std::io::{Read as _, Write as _};
//! use std::process::ExitCode;
//! use std::thread::{self, JoinHandle};
//!
//! use shiftboss::{App, BoxError, Broker, BrokerOptions, Listen, Worker, WorkerContext};
//!
//! #[derive(Default)]
//! struct Web {
//!     server: Option<JoinHandle<()>>,
//! }
//!
//! impl Worker for Web {
//!     async fn init(&mut self, context: &WorkerContext) -> Result<(), BoxError> {
//!         let listener = context.listener("web").await?.ok_or("there is no listener `web`")?;
//!         let context = context.clone();
//!         self.server = Some(thread::spawn(move || {
//!             while let Ok(Some(mut client)) = listener.accept(&context) {
//!                 let _ = client.read(&mut [0; 4096]);
//!                 let _ = write!(client, "HTTP/1.0 200 OK\r\n\r\nhello from worker {}\n", context.id());
//!             }
//!         }));
//!         Ok(())
//!     }
//!
//!     async fn prepare_for_shutdown(&mut self, _: &WorkerContext) {
//!         let _ = self.server.take().map(JoinHandle::join);
//!     }
//! }
//!
//! fn main() -> Result<ExitCode, Box<dyn Error>> {
//!     // First of all, in every process of the program.
//!     let app = App::builder("hello").own_process().build()?;
//!     if shiftboss::worker_type().is_some() {
//!         return Ok(shiftboss::work(&app, Web::default()));
//!     }
//!     let options = BrokerOptions {
//!         workers: 2,
//!         listen: vec![Listen::new("web", "tcp://127.0.0.1:3000")?],
//!         ..BrokerOptions::default()
//!     };
//!     let web = Broker::start(&app, "web", options)?;
//!     web.resume_workers().wait()?; // all of them are ready
//!     println!("broker process {}: try curl http://127.0.0.1:3000", std::process::id());
//!     app.wait()?;
//!     Ok(ExitCode::SUCCESS)
//! }
//! ```
//!
//! Ctrl-C ends it, twice at once. Every process of the program runs the same `main`: [`worker_type`] tells a worker apart, and
//! which one it is. `async` needs no runtime of yours: [`work`] brings one, tokio's on one thread, and only a program that
//! itself names `tokio`, as to spawn tasks or for its sockets, has it in its dependencies (with the features that it uses).
//! Everything that can be awaited can be waited for without a runtime, too: `.await` in asynchronous code, else `.wait()`
//! ([`Answer`], [`Call`], [`CallAll`]) or a method with `blocking` in its name.
//!
//! # Workers
//!
//! A [`Worker`] has four moments: [`init`](Worker::init), after which it is *ready* and its predecessor is asked to leave;
//! [`message`](Worker::message); [`leaving`](WorkerContext::leaving), which tasks and threads of its own may wait for; and
//! [`prepare_for_shutdown`](Worker::prepare_for_shutdown), in which it finishes what it has. It has 30 s for that, then
//! TERM and 5 s more, then it is killed with all that it has started ([`BrokerOptions::stop`]). INT and TERM to a worker ask it
//! to leave as its broker does; a second one ends it at once. A worker whose broker is gone leaves.
//!
//! What a program is made of besides: [`Broker::start`] for each type. Workers that are another program are
//! [`BrokerOptions::new`]`(["./server", "--verbose"])`; they are ready as [`options::Ready`] says. A program with a runtime of
//! its own, or without the trait, uses [`WorkerContext::from_environment`] and [`WorkerContext::run`], or calls
//! [`ready`](WorkerContext::ready) itself.
//!
//! In tests the program is the test: name the binary there, with `command: vec![env!("CARGO_BIN_EXE_hello").into()]`.
//!
//! # Messages and calls
//!
//! A message is any value that serialises to JSON, up to 16 MiB; a [`Message`] that has come can be
//! [parsed](Message::parse) or passed on.
//!
//! | | to a worker | to the broker |
//! |---|---|---|
//! | says | [`Member::send`], [`Broker::broadcast`] → [`Worker::message`] | [`WorkerContext::send`] → [`BrokerEvent::WorkerMessage`] |
//! | asks | [`Member::call`], [`Broker::call_all`] → [`WorkerContext::on_call`] | [`WorkerContext::call`] → [`Broker::on_call`] |
//!
//! ```no_run
//! # fn talk(web: shiftboss::Broker) -> Result<(), Box<dyn std::error::Error>> {
//! web.on_call(|question, worker| Ok::<_, String>(format!("{question}, worker {}?", worker.id())));
//! web.broadcast("good morning").wait()?;
//! for worker in web.workers().wait()? {
//!     let load: f64 = worker.call("load").wait()?; // Err if it is gone, or does not answer within 30 s
//!     println!("worker {} of pid {}: {load}", worker.id(), worker.pid());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A message whose `type` is `"ops"` is [`BrokerEvent::WorkerOps`]. How busy a worker is, and numbers of its own, are told by
//! [`WorkerContext::busy`] and [`count`](WorkerContext::count) and shown by `shiftboss status`.
//!
//! # Listeners
//!
//! [`BrokerOptions::listen`] is bound once and outlives every worker. A worker gets a socket by its name
//! ([`WorkerContext::listener`]) and accepts from it: blocking, as above, or by
//! `tokio::net::TcpListener::from_std(listener.into_tcp()?)`. All workers share one queue, or have a lane each:
//! [`Balance`](address::Balance).
//!
//! # Recycle, drain, resume, scale
//!
//! [`Broker::recycle_workers`] replaces all workers, each successor ready before its predecessor is asked to leave; if one does
//! not become ready in time the others stay ([`AskError::Failed`]). [`BrokerOptions::recycle`] has its limits, and with
//! `every` does it from time to time. [`drain_workers`](Broker::drain_workers) sends all home,
//! [`resume_workers`](Broker::resume_workers) calls them back, [`scale`](Broker::scale) wants another number. Each is asked for
//! at once and returns an [`Answer`], which resolves when it is done. The `shiftboss` command can ask the same of a running
//! program: `shiftboss --app hello recycle --all`.
//!
//! # Events
//!
//! [`Broker::subscribe`] gives what happens and what workers say, in order, as [`BrokerEvent`]s; [`Broker::on_event`] calls a
//! closure with them, on a thread. Deaths are reported by themselves ([`App::report`]); what workers write comes out where the
//! program writes.
//!
//! # A process of its own
//!
//! With [`AppBuilder::own_process`] the process that was started is the *keeper*: small, the parent of all workers, holder of
//! their sockets. Its child is the *broker process*, where `main` goes on. If that is killed, or panics to its end, the keeper
//! starts it again: `main` runs anew, [`Broker::start`] finds the workers that are there and does not look at its options, and
//! nobody is refused meanwhile. What survives: workers, their ids, sockets, messages that were not read yet, drains, recycles
//! and commands under way. What does not: all that was in the memory of the broker process, such as subscriptions, messages
//! read and not yet dealt with, and questions that nobody has answered. A keeper that is killed takes everything with it.
//!
//! # Embedded
//!
//! Without it, as with [`App::new`], brokers run on a thread of the program, and nothing that belongs to the whole process is
//! touched: no signal handler, mask, limit or variable is set, and no child but its own workers is waited for. What a signal
//! means is the program's to say, by [`App::stop`]. Workers end with the process, however it ends; a program that returns from
//! `main` without [`App::wait`] has killed them. `SIGCHLD` must not be ignored ([`RunError::ChildSignal`]). A program may have
//! several apps, each of another name.
//!
//! # Configuration
//!
//! [`App::from_file`] (feature `config`) reads the file that the `shiftboss` command reads: brokers for
//! [`App::broker_options`], the program's own part in `[settings]` for [`App::config_at`], and `[env.NAME]` laid over both if
//! the variable `env` says so. [`App::with_config`] takes any value instead, with environments as keys of it. Reports, services
//! to connect to, Sentry: see [`App`] and [the module](app).
//!
//! # Extensions
//!
//! [`Broker::start_with`] takes [`Extensions`]: [`Hooks`] that each new worker has to pass before it serves, such as a smoke
//! test, and a [`Launcher`] that has the last word on what is executed.
//!
//! # What is not promised
//!
//! * A request inside a worker that is killed from outside is lost with it.
//! * Messages are not kept for a worker that is gone, nor for its successor; [`Member::send`] says when one is on its way, not
//!   that it was read. After the death of a broker process a message of a worker may come twice.
//! * What workers say waits for the first [`subscribe`](Broker::subscribe) of a process, up to a megabyte; what they ask waits
//!   5 s for the first [`on_call`](Broker::on_call). Both belong right after [`Broker::start`].
//! * A worker that asks while the broker process dies may get no answer before its time limit ([`Call::within`]).
//! * One that does not read holds the others up: workers wait for a [`Subscription`] that is full; [`Untold::Full`] is what a
//!   worker that does not read gets.
//! * An app is of one host, and of one user.
//! * Versions before 1.0 may change what is here; [`os`] may change at any time.
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `config` | yes | the TOML file: [`App::from_file`], `config` |
//! | `schedule` | | brokers that work part-time: `Schedule` |
//! | `watch` | | recycles when files change: `Watch` |
//! | `sentry` | | reports go to Sentry, too: `SentryOptions` |
//!
//! # Beneath
//!
//! [`run`], [`begin`], [`go_on`] and [`embed`] run brokers that are described by [`AppOptions`] at once, and tell everything to
//! a [`Log`](log::Log) of the caller's: for hosts that are more than a service, such as the `shiftboss` command. The rules are
//! in `shiftboss-core`, which knows no operating system; here they meet one, in [`os`].
#![deny(unsafe_code)]
#![warn(missing_debug_implementations)]

pub mod address;
mod adopt;
mod answer;
pub mod app;
mod attendance;
mod broker;
mod channel;
mod children;
#[cfg(feature = "config")]
pub mod config;
mod control;
mod convert;
mod driver;
mod embedded;
mod engine;
mod extend;
mod feed;
pub mod guess;
mod handle;
mod in_flight;
mod inheritance;
mod join;
mod keeper;
mod keys;
mod launch;
pub mod log;
mod mail;
mod members;
mod node;
pub mod options;
mod orders;
pub mod os;
mod output;
mod print;
mod readiness;
mod recorder;
mod ring;
mod run;
#[cfg(feature = "schedule")]
mod schedule;
mod sockets;
mod subscription;
mod trace;
mod turns;
mod upgrade;
mod usages;
#[cfg(feature = "watch")]
mod watch;
mod worker;
mod workers;

/// For `cargo xtask fuzz`.
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz {
    pub use crate::control::fuzz::Control;
}

pub use address::Listen;
pub use answer::{Answer, Answers, AskError, Call, CallAll, Done};
#[cfg(feature = "sentry")]
pub use app::SentryOptions;
pub use app::{App, AppBuilder, AppError, ConfigError, Report, Reported, ServiceError};
pub use broker::Broker;
pub use embedded::{Embedded, embed};
pub use extend::{Execution, Extensions, Hooks, Launcher, WorkerInfo};
pub use keeper::{OwnProcess, keep_if_asked, own_process, own_process_anew};
pub use launch::LaunchError;
pub use mail::{CallError, Untold};
pub use members::Member;
pub use options::{AppOptions, BrokerOptions, Signal};
pub use run::{RunError, Setting, begin, check, go_on, run};
#[cfg(feature = "schedule")]
pub use schedule::{Schedule, ScheduleError, When};
pub use shiftboss_api::{Event, EventName};
pub use subscription::{BrokerEvent, Message, Subscription, WorkerExit};
pub use trace::TraceError;
#[cfg(feature = "watch")]
pub use watch::{Watch, WatchError};
pub use worker::{BoxError, Busy, Listener, Messages, Worker, WorkerContext, WorkerError, work, worker_type};

#[cfg(test)]
mod tests {
    use super::*;

    fn sent<T: Send>() {}
    fn sent_and_shared<T: Send + Sync + 'static>() {}

    #[test]
    fn whatever_a_program_has_of_us_can_go_to_other_threads() {
        sent_and_shared::<(App, Report, Reported, AppError, ConfigError, ServiceError)>();
        sent_and_shared::<(Broker, BrokerOptions, Extensions, RunError, LaunchError)>();
        sent_and_shared::<(Member, Call<u8>, CallAll<u8>, CallError, AskError, Untold, Done)>();
        sent_and_shared::<(Subscription, BrokerEvent, WorkerExit, Message, Event)>();
        sent_and_shared::<(WorkerContext, WorkerError, Messages, Listener, Busy, BoxError)>();
        sent_and_shared::<(AppOptions, Setting, Embedded, OwnProcess)>();
        // They are waited for by one.
        sent::<(Answer<Done>, AppBuilder)>();
    }
}
