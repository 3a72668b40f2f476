//! Runs an app in a process of its own: checks everything, claims the app's name, then hands over to the driver.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shiftboss_core::spec::BrokerSpec;
use shiftboss_core::{App, id::LaunchId};
use tokio::sync::{mpsc, oneshot};

use crate::convert::Moment;
use crate::driver::{Driver, Parts, Shell};
use crate::feed::Feed;
use crate::handle::{Handle, Info};
use crate::launch::{Launch, LaunchError};
use crate::log::Log;
use crate::options::{AppOptions, BrokerOptions};
use crate::os::instance::{ClaimError, Instance};
use crate::os::listener::BindError;
use crate::os::rlimit;
use crate::os::signals::SignalFd;
use crate::os::{clock, kernel, signals};
use crate::sockets::Sockets;
use crate::trace::{Trace, TraceError};

/// Where and as what an app runs.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Path of the control socket; who holds it is the app.
    pub socket: PathBuf,
    /// Name of the chosen environment, told to the workers as `env`.
    pub environment: String,
    /// A file to which every call of the rules is appended, for `cargo xtask judge`; none = nothing is written.
    /// One that cannot be written to later, as on a full disk, ends the trace and not the app.
    pub trace: Option<PathBuf>,
}

/// Why an app did not start, or ended other than by a stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel is too old.
    #[error("{0}")]
    Kernel(#[from] kernel::TooOld),
    /// A worker could never be started.
    #[error("{0}")]
    Launch(#[from] LaunchError),
    /// The app runs already, or its socket cannot be made.
    #[error("{0}")]
    Claim(#[from] ClaimError),
    /// An address cannot be listened on.
    #[error("broker `{broker}`: {source}")]
    Listen {
        /// Whose.
        broker: String,
        /// Why.
        source: BindError,
    },
    /// What happens was to be written down, and cannot be.
    #[error("{0}")]
    Trace(#[from] TraceError),
    /// The operating system refused something that running needs.
    #[error("{what}: {source}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
}

/// Checks that every worker could be started and nothing else: programs found, directories there.
///
/// # Errors
/// All that is wrong, a line each.
pub fn check(options: &AppOptions) -> Result<(), Vec<LaunchError>> {
    let wrong: Vec<LaunchError> = options
        .brokers
        .iter()
        .filter_map(|(name, options)| Launch::prepare(name, "default", options, None).err())
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Runs the app until it is stopped by a command or a signal: the first INT or TERM asks, the second kills.
/// HUP recycles every broker, or stops when standard input is a terminal. Must be called on the thread that
/// outlives the workers, before any other thread is started.
///
/// # Errors
/// [`RunError`]; then nothing was started.
pub fn run(options: &AppOptions, setting: &Setting, mut log: Box<dyn Log>) -> Result<(), RunError> {
    let os = |what| move |source| RunError::Os { what, source };
    kernel::check()?;
    signals::restore_child_signal();
    let nofile = rlimit::raise_nofile().map_err(os("cannot read the limit of open files"))?;
    let launches = options
        .brokers
        .iter()
        .map(|(name, broker)| Launch::prepare(name, &setting.environment, broker, Some(nofile)))
        .collect::<Result<Vec<_>, _>>()?;
    let hang_up_stops = hang_up_stops();
    // From here on a signal waits for the driver, and nothing of ours is left behind by one.
    let signals = SignalFd::new(&HEARD).map_err(os("cannot take signals"))?;
    let instance = Instance::claim(&setting.socket)?;
    let shells =
        options.brokers.iter().map(|(name, broker)| shell(name, broker)).collect::<Result<Vec<_>, _>>()?;
    let specs: Vec<BrokerSpec> = (0..)
        .map(LaunchId)
        .zip(&options.brokers)
        .map(|(launch, (name, broker))| spec(name, broker, launch))
        .collect();
    let trace = setting.trace.as_ref().map(|path| Trace::begin(path, &specs)).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(os("cannot start the runtime"))?;
    for ((name, _), launch) in options.brokers.iter().zip(&launches) {
        log.note(&format!("{name} runs {}", launch.program().display()));
        if launch.outlives_us() {
            log.note(&format!("{name}: set-uid or with capabilities, its workers live on if we are killed"));
        }
    }
    let listener = instance.listener().map_err(os("cannot serve the control socket"))?;
    let names: Arc<[String]> = options.brokers.iter().map(|(name, _)| name.clone()).collect();
    let (orders, taken) = mpsc::channel(ORDERS);
    let handle = Handle::new(
        orders,
        Info {
            app: options.app.clone(),
            environment: setting.environment.clone(),
            started_at: Moment::now().wall(clock::now()),
            brokers: Arc::clone(&names),
        },
    );
    let seed = clock::now().0 ^ u64::from(std::process::id());
    let parts = Parts {
        core: App::new(clock::now(), seed, specs),
        trace,
        shells,
        launches,
        feed: Feed::new(names),
        log,
        orders: taken,
        signals: Some(signals),
        hang_up_stops,
        notify_dir: instance.runtime_dir().to_owned(),
    };
    runtime.block_on(drive(parts, listener, handle)).map_err(os("the app cannot go on"))
}

/// A hang-up means "stop" only for somebody who sits at a terminal; for everybody else it means "renew". To be asked
/// before a hang-up is waited for: once it has hung up, a terminal is none any more.
fn hang_up_stops() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdin())
}

async fn drive(
    parts: Parts,
    listener: std::os::unix::net::UnixListener,
    handle: Handle,
) -> std::io::Result<()> {
    let driver = Driver::new(parts)?;
    let (end, ended) = oneshot::channel::<()>();
    let control = tokio::spawn(crate::control::serve(listener, handle, async {
        // Dropping the sender ends the wait as well.
        let _ = ended.await;
    }));
    let result = driver.run().await;
    drop(end);
    within(LAST_ANSWERS, control).await;
    result
}

/// Lets clients read their last answers, but not for ever.
async fn within(wait: Duration, work: impl Future) {
    let _ = tokio::time::timeout(wait, work).await;
}

fn shell(name: &str, options: &BrokerOptions) -> Result<Shell, RunError> {
    let mut sockets = Sockets::new(options.listen.clone());
    match sockets.bind() {
        // An address that is not there yet is waited for; one that is taken is not.
        Err(source) if !source.is_temporary() => Err(RunError::Listen { broker: name.to_owned(), source }),
        Ok(()) | Err(_) => Ok(Shell { name: name.into(), ready: options.effective_ready(), sockets }),
    }
}

fn spec(name: &str, options: &BrokerOptions, launch: LaunchId) -> BrokerSpec {
    BrokerSpec {
        name: name.to_owned(),
        workers: options.workers,
        launch,
        listens: !options.listen.is_empty(),
        ready: options.effective_ready(),
        recycle: options.recycle.clone(),
        stop: options.stop.clone(),
        backoff: options.backoff,
        drained: options.drained,
    }
}

/// Numbers of INT, TERM, HUP and QUIT.
const HEARD: [i32; 4] = [2, 15, 1, 3];
const ORDERS: usize = 64;
const LAST_ANSWERS: Duration = Duration::from_secs(1);
