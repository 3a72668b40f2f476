//! A broker is made of its options: looked up, bound, written down. At the start of an app, and when one joins later.

use std::ffi::OsString;

use shiftboss_core::id::LaunchId;
use shiftboss_core::spec::BrokerSpec;

use crate::driver::Shell;
use crate::extend::Extensions;
use crate::inheritance::{AppRecord, SpecRecord};
use crate::launch::Launch;
use crate::log::Log;
use crate::options::{BrokerOptions, Kind};
use crate::os::rlimit::Nofile;
use crate::run::RunError;
use crate::sockets::Sockets;

/// What all brokers of an app have in common.
pub(crate) struct Founder {
    pub(crate) nofile: Option<Nofile>,
    /// By which its processes are known.
    pub(crate) mark: OsString,
    pub(crate) record: AppRecord,
}

/// A broker, before it begins.
pub(crate) struct Founded {
    pub(crate) launch: Launch,
    pub(crate) shell: Shell,
    pub(crate) spec: BrokerSpec,
}

impl Founder {
    /// Looks up what is to be launched, and binds what is to be listened on.
    pub(crate) fn found(
        &self,
        name: &str,
        options: &BrokerOptions,
        id: LaunchId,
    ) -> Result<Founded, RunError> {
        let mut launch = Launch::prepare(name, &self.record.environment, options, self.nofile)?;
        launch.mark(&self.mark);
        Ok(Founded { launch, shell: shell(name, options)?, spec: spec(name, options, id) })
    }
}

impl Founded {
    /// Says what is run.
    pub(crate) fn tell(&self, log: &mut dyn Log) {
        let name = &self.shell.name;
        log.note(&format!("{name} runs {}", self.launch.program().display()));
        if self.launch.outlives_us() {
            log.note(&format!("{name}: set-uid or with capabilities, its workers live on if we are killed"));
        }
    }

    /// For successors.
    pub(crate) fn record(&self, options: &BrokerOptions) -> SpecRecord {
        SpecRecord {
            spec: self.spec.clone(),
            listen: options.listen.clone(),
            launch: self.launch.clone(),
            extended: self.shell.extensions.are_some(),
            #[cfg(feature = "schedule")]
            schedule: options.schedule.clone(),
            #[cfg(feature = "watch")]
            watch: options.settled_watch(),
        }
    }
}

fn shell(name: &str, options: &BrokerOptions) -> Result<Shell, RunError> {
    let nonblocking = options.kind == Kind::Node;
    let mut sockets = Sockets::new(options.listen.clone(), options.workers, nonblocking);
    match sockets.bind() {
        // An address that is not there yet is waited for; one that is taken is not.
        Err(source) if !source.is_temporary() => Err(RunError::Listen { broker: name.to_owned(), source }),
        Ok(()) | Err(_) => Ok(Shell {
            name: name.into(),
            ready: options.effective_ready(),
            sockets,
            extensions: Extensions::default(),
            awaits_extensions: false,
            is_joined: false,
            #[cfg(feature = "schedule")]
            schedule: options.schedule.clone(),
            #[cfg(feature = "watch")]
            watch: options.settled_watch(),
        }),
    }
}

fn spec(name: &str, options: &BrokerOptions, launch: LaunchId) -> BrokerSpec {
    BrokerSpec {
        name: name.to_owned(),
        workers: options.workers,
        launch,
        // A Node program asks for more.
        listens: !options.listen.is_empty() || options.kind == Kind::Node,
        ready: options.effective_ready(),
        recycle: options.recycle.clone(),
        stop: options.stop.clone(),
        backoff: options.backoff,
        drained: options.drained,
        scheduled: options.is_scheduled(),
        watch: options.debounce(),
        standby: options.standby,
    }
}
