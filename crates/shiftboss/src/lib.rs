//! Keeps groups of worker processes on shift: replaces the dead at once, changes the whole shift without dropping a
//! request, drains and resumes.
//!
//! A *broker* keeps the workers of one type; an *app* is all brokers of one configuration. A program that is a service
//! of its own begins with an [`App`]. [`run`] runs an app's brokers in the calling process, as the `shiftboss` command
//! does:
//!
//! ```no_run
//! use shiftboss::{AppOptions, BrokerOptions, Setting};
//!
//! # struct Quiet;
//! # impl shiftboss::log::Log for Quiet {
//! #     fn event(&mut self, _: &shiftboss_api::Event) {}
//! #     fn line(&mut self, _: &shiftboss::log::Line<'_>) {}
//! #     fn note(&mut self, _: &str) {}
//! # }
//! let mut api = BrokerOptions::new(["./server", "--verbose"]);
//! api.workers = 4;
//! let options =
//!     AppOptions { app: "shop".into(), brokers: vec![("api".into(), api)], upgrade: Default::default() };
//! let socket = "/run/shiftboss/shop.sock".into();
//! let setting = Setting { socket, environment: "default".into(), trace: None };
//! shiftboss::run(&options, &setting, Box::new(Quiet))?;
//! # Ok::<(), shiftboss::RunError>(())
//! ```
//!
//! The rules are in `shiftboss-core`, which knows no operating system; here they meet one, in [`os`].
#![deny(unsafe_code)]

pub mod address;
mod adopt;
mod answer;
pub mod app;
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
pub mod options;
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
mod upgrade;
mod usages;
#[cfg(feature = "watch")]
mod watch;
mod worker;
mod workers;

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
pub use options::{AppOptions, BrokerOptions};
pub use run::{RunError, Setting, begin, check, go_on, run};
#[cfg(feature = "schedule")]
pub use schedule::{Schedule, ScheduleError, When};
pub use subscription::{BrokerEvent, Message, Subscription, WorkerExit};
pub use trace::TraceError;
#[cfg(feature = "watch")]
pub use watch::{Watch, WatchError};
pub use worker::{Busy, Listener, Messages, Worker, WorkerContext, WorkerError, work, worker_type};
