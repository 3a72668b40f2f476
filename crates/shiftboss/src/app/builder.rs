//! Puts an app together: name, environment, configuration, where reports go.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde_json::Value;

#[cfg(feature = "sentry")]
use super::sentry::{Sentry, SentryOptions};
use super::{App, ConfigError, Configuration, Inner, Services};
use crate::engine::Engines;
use crate::keeper::{self, OwnProcess};
use crate::options::BrokerOptions;
use crate::worker::is_worker;

/// Why there is no app.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// The file's mistakes.
    #[cfg(feature = "config")]
    #[error(transparent)]
    File(#[from] crate::config::ConfigErrors),
    /// What is wrong with a configuration that is no file, or with what the program expects in one.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address of Sentry is none. It is not shown: a part of it is secret.
    #[error("the DSN of Sentry is not valid: {0}")]
    Dsn(String),
    /// A keeper cannot be had.
    #[error("cannot run in a process of its own: {0}")]
    Keeper(std::io::Error),
}

/// What an app is made of. [`App::builder`] begins one.
#[must_use = "there is no app before `build`"]
pub struct AppBuilder {
    name: String,
    environment: Option<String>,
    from: From,
    socket: Option<PathBuf>,
    /// Under a keeper.
    is_own: bool,
    #[cfg(feature = "sentry")]
    sentry: SentryOptions,
}

impl std::fmt::Debug for AppBuilder {
    /// Without the configuration, which may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let AppBuilder { name, environment, is_own, .. } = self;
        let mut all = f.debug_struct("AppBuilder");
        all.field("name", name)
            .field("environment", environment)
            .field("own_process", is_own)
            .finish_non_exhaustive()
    }
}

/// Where the configuration is from.
enum From {
    Nowhere,
    Value(Result<Value, ConfigError>),
    #[cfg(feature = "config")]
    File(std::path::PathBuf),
}

impl AppBuilder {
    pub(super) fn new(name: String) -> Self {
        AppBuilder {
            name,
            environment: None,
            from: From::Nowhere,
            socket: None,
            is_own: false,
            #[cfg(feature = "sentry")]
            sentry: SentryOptions::default(),
        }
    }

    /// The environment, whatever `$env` says.
    pub fn environment(mut self, name: impl Into<String>) -> Self {
        self.environment = Some(name.into());
        self
    }

    /// The configuration, as for [`App::with_config`]; instead of a file.
    pub fn config(mut self, config: impl Serialize) -> Self {
        let value = serde_json::to_value(config);
        self.from = From::Value(value.map_err(|error| ConfigError::NoTable { found: error.to_string() }));
        self
    }

    /// The configuration file, as for [`App::from_file`]; the app is called as it says.
    #[cfg(feature = "config")]
    pub fn file(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.from = From::File(path.into());
        self
    }

    /// Where reports are sent; what is left open is taken from the environment of the process.
    #[cfg(feature = "sentry")]
    pub fn sentry(mut self, options: SentryOptions) -> Self {
        self.sentry = options;
        self
    }

    /// Where its control socket is; default where the `shiftboss` command looks for an app of this name. Two apps cannot
    /// have the same.
    pub fn control_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// Gives the brokers a process of their own, whose workers outlive it: [`AppBuilder::build`] makes the calling process
    /// the *keeper*, runs the same program again as its child, and returns there. If that child is killed, the keeper
    /// starts it again, and [`Broker::start`](crate::Broker::start) then finds the same workers. Signals are the keeper's:
    /// the first INT or TERM asks the app to end, the second kills. In a worker of this program it does nothing.
    ///
    /// `build` is then to be called first thing in `main`, before any thread is started.
    pub fn own_process(mut self) -> Self {
        self.is_own = true;
        self
    }

    /// Reads the configuration and makes the app; with [`AppBuilder::own_process`] it becomes the keeper before that, and returns
    /// in its child only. No worker is started before a [`Broker`](crate::Broker) is.
    ///
    /// # Errors
    /// [`AppError`]: what is wrong with its configuration, or why there is no keeper.
    pub fn build(mut self) -> Result<App, AppError> {
        let own = match self.is_own && !is_worker() {
            true => Some(keeper::own_process().map_err(AppError::Keeper)?),
            false => None,
        };
        let environment = self.environment.take().unwrap_or_else(chosen);
        let (configuration, brokers) = match std::mem::replace(&mut self.from, From::Nowhere) {
            From::Nowhere => (Configuration::default(), Vec::new()),
            From::Value(value) => (Configuration::layered(value?, &environment)?, Vec::new()),
            #[cfg(feature = "config")]
            From::File(path) => {
                let read = crate::config::read_for_program(&path)?;
                let loaded = read
                    .choose(&environment)
                    .map_err(|unknown| crate::config::ConfigErrors::of_file(&path, unknown.to_string()))?;
                self.name = loaded.options.app;
                (Configuration::of_file(&path, loaded.settings), loaded.options.brokers)
            }
        };
        #[cfg(feature = "sentry")]
        let sentry = Sentry::new(self.sentry.clone(), &self.name, &environment, &worker_type())?;
        Ok(self.finish(
            environment,
            configuration,
            brokers,
            own,
            #[cfg(feature = "sentry")]
            sentry,
        ))
    }

    /// An app that has nothing which could be wrong but the variable `SENTRY_DSN`, which is then left alone and named.
    pub(super) fn build_bare(self) -> App {
        #[cfg(feature = "sentry")]
        let (sentry, wrong) = match Sentry::new(self.sentry.clone(), &self.name, &chosen(), &worker_type()) {
            Ok(sentry) => (sentry, None),
            Err(error) => (None, Some(error)),
        };
        let app = self.finish(
            chosen(),
            Configuration::default(),
            Vec::new(),
            None,
            #[cfg(feature = "sentry")]
            sentry,
        );
        #[cfg(feature = "sentry")]
        if let Some(error) = wrong {
            app.report(super::Report::new("reports are not sent").error(&error));
        }
        app
    }

    fn finish(
        self,
        environment: String,
        configuration: Configuration,
        brokers: Vec<(String, BrokerOptions)>,
        own: Option<OwnProcess>,
        #[cfg(feature = "sentry")] sentry: Option<Sentry>,
    ) -> App {
        let worker_type = worker_type();
        let context = BTreeMap::from([
            ("environment".to_owned(), Value::from(environment.as_str())),
            ("worker_type".to_owned(), Value::from(worker_type.as_str())),
        ]);
        let inner = Inner {
            name: self.name,
            environment,
            worker_type,
            engines: Engines::new(self.socket, own),
            brokers,
            configuration,
            context: Mutex::new(context),
            graceful_shutdown: AtomicBool::new(false),
            services: Services::default(),
            #[cfg(feature = "sentry")]
            sentry,
        };
        App { inner: Arc::new(inner) }
    }
}

/// `$env`, else "default".
fn chosen() -> String {
    variable("env").unwrap_or_else(|| DEFAULT.to_owned())
}

fn worker_type() -> String {
    variable("worker_type").unwrap_or_else(|| "master".to_owned())
}

/// A variable that is set and not empty.
pub(super) fn variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    value.map(|value| value.to_string_lossy().into_owned())
}

pub(super) const DEFAULT: &str = "default";
