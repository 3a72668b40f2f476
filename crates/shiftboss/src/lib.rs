//! Keeps groups of worker processes on shift: replaces the dead at once, changes the whole shift without dropping a
//! request, drains and resumes.
//!
//! A *broker* keeps the workers of one type; an *app* is all brokers of one configuration. [`run`] runs an app in
//! the calling process, as the `shiftboss` command does:
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
mod children;
#[cfg(feature = "config")]
pub mod config;
mod control;
mod convert;
mod driver;
mod embedded;
mod feed;
mod handle;
mod inheritance;
mod keeper;
mod keys;
mod launch;
pub mod log;
pub mod options;
pub mod os;
mod output;
mod readiness;
mod recorder;
mod ring;
mod run;
#[cfg(feature = "schedule")]
mod schedule;
mod sockets;
mod trace;
mod upgrade;
mod usages;
#[cfg(feature = "watch")]
mod watch;
mod workers;

pub use embedded::{Embedded, embed};
pub use keeper::{OwnProcess, keep_if_asked, own_process, own_process_anew};
pub use launch::LaunchError;
pub use options::{AppOptions, BrokerOptions};
pub use run::{RunError, Setting, begin, check, go_on, run};
#[cfg(feature = "schedule")]
pub use schedule::{Schedule, ScheduleError, When};
pub use trace::TraceError;
#[cfg(feature = "watch")]
pub use watch::{Watch, WatchError};
