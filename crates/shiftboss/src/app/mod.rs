//! The [`App`]: what a service creates first. It holds the configuration of the environment it runs in, reports what
//! goes wrong, connects to the services that the program needs, and says whether the program is about to end.
//!
//! ```
//! use serde_json::json;
//! use shiftboss::{App, Report};
//!
//! #[derive(serde::Deserialize)]
//! struct Web {
//!     port: u16,
//! }
//!
//! let app = App::with_config(
//!     "shop",
//!     json!({
//!         "web": { "port": 3000, "title": "Shop" },
//!         "production": { "web": { "port": 80 } },
//!     }),
//! )?;
//! // With `env=production` in the process environment it is 80.
//! let web: Web = app.config_at("web")?;
//!
//! app.register_service_connector("database", move || async move {
//!     // Connects, and keeps the connection where the program finds it.
//!     if web.port == 0 { Err("there is no port") } else { Ok(()) }
//! });
//! # fn main_future(app: App) -> impl Future<Output = ()> {
//! async move {
//!     if let Err(error) = app.connect_to_services().await {
//!         app.report(Report::new("cannot start").error(&error).context("attempt", 1));
//!     }
//! }
//! # }
//! # Ok::<(), shiftboss::AppError>(())
//! ```
//!
//! From a file, which is the one that `shiftboss check` reads: [`App::from_file`].
//!
//! An app touches nothing that belongs to the whole process, with one exception that is asked for:
//! [`App::report_panics`].

mod builder;
mod config;
mod page;
mod panics;
mod report;
#[cfg(feature = "sentry")]
mod sentry;
mod services;

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

pub use self::builder::{AppBuilder, AppError};
pub use self::config::ConfigError;
pub use self::report::{Report, Reported};
#[cfg(feature = "sentry")]
pub use self::sentry::SentryOptions;
pub use self::services::ServiceError;

use self::config::Configuration;
use self::services::Services;
use crate::engine::Engines;
use crate::options::BrokerOptions;

/// A service of one name, in one environment. A clone is the same app.
#[derive(Clone)]
pub struct App {
    pub(crate) inner: Arc<Inner>,
}

/// What all clones of an app share.
pub(crate) struct Inner {
    name: String,
    environment: String,
    worker_type: String,
    /// What runs its brokers.
    pub(crate) engines: Engines,
    brokers: Vec<(String, BrokerOptions)>,
    configuration: Configuration,
    /// Added to every report.
    context: Mutex<BTreeMap<String, Value>>,
    graceful_shutdown: AtomicBool,
    services: Services,
    #[cfg(feature = "sentry")]
    sentry: Option<self::sentry::Sentry>,
}

impl App {
    /// An app without configuration, in the environment that `$env` names, else `default`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> App {
        App::builder(name).build_bare()
    }

    /// An app whose configuration is this value, of anything that serialises to a table: a `serde_json::Value`, a
    /// `toml::Table`, a struct. Its keys `default` and, by name, the environment's are laid over the rest: tables merge,
    /// all else is replaced. The environment is `$env`, else `default`; other environments stay as they are.
    ///
    /// # Errors
    /// The value is no table, or has none for the environment.
    pub fn with_config(name: impl Into<String>, config: impl Serialize) -> Result<App, AppError> {
        App::builder(name).config(config).build()
    }

    /// An app from its configuration file, the one that the `shiftboss` command reads: its name, the options of its
    /// brokers, and in `[settings]` the program's own part, all with `[env.NAME]` laid over them for the environment
    /// that `$env` names, else `default`. Brokers may be left out, and the `command` of a broker, too.
    ///
    /// # Errors
    /// All mistakes of the file at once, each with line and column; or an environment that it does not have.
    #[cfg(feature = "config")]
    pub fn from_file(path: impl Into<std::path::PathBuf>) -> Result<App, AppError> {
        App::builder("").file(path).build()
    }

    /// An app without configuration in a process of its own, under a keeper: see [`AppBuilder::own_process`], which says
    /// the same of an app with one. First thing in `main`.
    ///
    /// # Errors
    /// [`AppError::Keeper`] if the operating system refuses what a keeper needs; nothing was started then.
    pub fn own_process(name: impl Into<String>) -> Result<App, AppError> {
        App::builder(name).own_process().build()
    }

    /// An app with more to be said than a configuration.
    pub fn builder(name: impl Into<String>) -> AppBuilder {
        AppBuilder::new(name.into())
    }

    /// The app's name: of the file, or as it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Name of the environment that was chosen, `default` if none was.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.inner.environment
    }

    /// The type of worker that this process is, from its variable `worker_type`, else `master`: for reports. Whether it is a
    /// worker, [`worker_type`](crate::worker_type) tells.
    #[must_use]
    pub fn worker_type(&self) -> &str {
        &self.inner.worker_type
    }

    /// The options that the file has for a broker of this type; none if it has no such broker, or there is no file.
    /// `command` is empty if the file has none.
    #[must_use]
    pub fn broker_options(&self, broker_type: &str) -> Option<BrokerOptions> {
        let of_type = self.inner.brokers.iter().find(|(name, _)| name == broker_type);
        of_type.map(|(_, options)| options.clone())
    }

    /// The types of brokers that the file describes, in order of declaration.
    pub fn broker_types(&self) -> impl Iterator<Item = &str> {
        self.inner.brokers.iter().map(|(name, _)| name.as_str())
    }

    /// Whether the program is about to end; false until [`App::set_graceful_shutdown`] says so. While it is, no worker
    /// that exits counts as dead.
    #[must_use]
    pub fn graceful_shutdown(&self) -> bool {
        self.inner.graceful_shutdown.load(Ordering::Acquire)
    }

    /// Says that the program is about to end, or is not. Nothing is ended by it; until it is not, whoever exits is not
    /// replaced.
    pub fn set_graceful_shutdown(&self, ending: bool) {
        self.inner.graceful_shutdown.store(ending, Ordering::Release);
        self.tell_ending(ending);
    }

    /// Adds to what every later report says, in place of what was said under the same key. `environment` and
    /// `worker_type` are there from the beginning. What a report says itself comes before it.
    pub fn set_reporting_context<K: Into<String>>(&self, context: impl IntoIterator<Item = (K, Value)>) {
        // The caller's code runs before the lock is taken.
        let context: Vec<(String, Value)> =
            context.into_iter().map(|(key, value)| (key.into(), value)).collect();
        self.inner.context.lock().unwrap_or_else(PoisonError::into_inner).extend(context);
    }

    /// A line on standard error, as it is; nothing while the variable `SILENCE_REPORTS` is set and not empty.
    pub fn log(&self, line: impl Display) {
        if !page::silenced() {
            page::tell(&format!("{}\n", page::shown(&line)));
        }
    }

    /// A value as readable JSON on standard error, to look at while developing. `SILENCE_REPORTS` does not silence it.
    pub fn dump(&self, value: &impl Serialize) {
        let text = serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string());
        page::tell(&format!("{}\n", page::escaped_lines(&text)));
    }

    /// Waits until all reports have been sent to Sentry, at most this long; whether they were. True at once where none
    /// are sent. When the last clone of an app is dropped it waits by itself, at most 2 s.
    #[must_use]
    pub fn flush(&self, at_most: Duration) -> bool {
        #[cfg(feature = "sentry")]
        return self.inner.sentry.as_ref().is_none_or(|sentry| sentry.flush(at_most));
        #[cfg(not(feature = "sentry"))]
        {
            let _ = at_most;
            true
        }
    }
}

impl fmt::Debug for App {
    /// Without the configuration, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { name, environment, .. } = &*self.inner;
        f.debug_struct("App").field("name", name).field("environment", environment).finish_non_exhaustive()
    }
}
