//! Runs an app in a process of its own: checks everything, claims the app's name, then hands over to the driver.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shiftboss_core::App;
use shiftboss_core::id::{BrokerId, Generation, LaunchId};
use shiftboss_core::spec::BrokerSpec;
use tokio::sync::oneshot;

use crate::address::Balance;
use crate::adopt::{self, Left};
use crate::convert::Moment;
use crate::driver::{Beginning, Chief, Driver, Parts, Succession};
use crate::feed::Feed;
use crate::handle::{Handle, Info, Names};
use crate::inheritance::AppRecord;
use crate::join::{Founded, Founder};
use crate::keeper::{Keeper, OwnProcess};
use crate::keys::Key;
use crate::launch::{Launch, LaunchError};
use crate::log::Log;
use crate::options::check::{NAME_RULE, OptionsError};
use crate::options::{AppOptions, BrokerOptions, UpgradeWhen};
use crate::orders::Orders;
use crate::os::image::{Identity, ImageWatch};
use crate::os::instance::{ClaimError, Instance};
use crate::os::leftovers::{self, Haste};
use crate::os::listener::BindError;
use crate::os::parent;
use crate::os::random::random;
use crate::os::rlimit::{self, Nofile};
use crate::os::signals::{self, Signals};
use crate::os::{clock, heirs, kernel, kill_points};
use crate::recorder::Recorder;
use crate::trace::{Trace, TraceError};
use crate::upgrade::{Estate, Upgrade};

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
#[non_exhaustive]
pub enum RunError {
    /// The kernel is too old.
    #[error(transparent)]
    Kernel(#[from] kernel::TooOld),
    /// A broker's options could never work.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// No app can be called so.
    #[error("`{0}` is no name of an app: {rule}", rule = NAME_RULE)]
    Name(String),
    /// A worker could never be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The app runs already, or its socket cannot be made.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// An address cannot be listened on.
    #[error("broker `{broker}`: {source}")]
    Listen {
        /// Whose.
        broker: String,
        /// Why.
        source: BindError,
    },
    /// How children end is thrown away: SIGCHLD is ignored, or has SA_NOCLDWAIT.
    #[error("this process ignores SIGCHLD, so nobody could be told how a worker ended (wait(2))")]
    ChildSignal,
    /// This process is a worker, and has not begun to be one: its workers would be just like it.
    #[error(
        "this process is a worker of type `{worker_type}`: `shiftboss::work` is to be called in it, and no broker started"
    )]
    Worker {
        /// Its type.
        worker_type: String,
    },
    /// The app's thread has panicked.
    #[error("the app has panicked")]
    Panicked,
    /// The workers need more descriptors than this process may have open.
    #[error("{needs} descriptors are needed for all workers, and no more than {may} files may be open")]
    OpenFiles {
        /// At least.
        needs: u64,
        /// The hard limit (`RLIMIT_NOFILE`, getrlimit(2)); the soft one of a program that runs an app without a keeper.
        may: u64,
    },
    /// What happens was to be written down, and cannot be.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// It ends, so nothing joins it.
    #[error("the app is ending")]
    Ending,
    /// An app has room for 256 brokers.
    #[error("there is no room for another broker: an app has at most {0}")]
    TooMany(usize),
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
    let wrong: Vec<LaunchError> =
        options.brokers.iter().flat_map(|(name, options)| Launch::problems(name, options)).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Runs the app until it is stopped by a command or a signal: the first INT or TERM asks, the second kills.
/// HUP recycles every broker, or stops when standard input is a terminal. Must be called on the thread that
/// outlives the workers, before any other thread is started. The workers end with this process: see [`begin`].
///
/// # Errors
/// [`RunError`]; then nothing was started.
pub fn run(options: &AppOptions, setting: &Setting, log: Box<dyn Log>) -> Result<(), RunError> {
    kernel::check()?;
    signals::restore_child_signal();
    shiftboss_link::signals::writes_fail();
    let nofile = rlimit::raise_nofile().map_err(os("cannot read the limit of open files"))?;
    let hang_up_stops = hang_up_stops();
    // From here on a signal waits for the driver, and nothing of ours is left behind by one.
    let signals = Signals::new(&HEARD).map_err(os("cannot take signals"))?;
    start(options, setting, Some(nofile), hang_up_stops, Chief::Signals(signals), log, Orders::new().1)
}

/// The same in a process of its own under a keeper: should this process be killed, its successor goes on with the same
/// workers by [`go_on`]. Signals are the keeper's, with the same meaning.
///
/// # Errors
/// [`RunError`]; then nothing was started.
pub fn begin(
    own: OwnProcess,
    options: &AppOptions,
    setting: &Setting,
    log: Box<dyn Log>,
) -> Result<(), RunError> {
    kernel::check()?;
    let chief = Chief::Keeper(own.keeper);
    start(options, setting, Some(own.nofile), hang_up_stops(), chief, log, Orders::new().1)
}

/// Goes on with an app that another process has begun: see [`OwnProcess::goes_on`].
///
/// # Errors
/// [`RunError`] if what was left cannot be taken over; it stays as it is then, with the keeper.
pub fn go_on(own: OwnProcess, log: Box<dyn Log>) -> Result<(), RunError> {
    go_on_with(own, log, Orders::new().1)
}

pub(crate) fn go_on_with(own: OwnProcess, mut log: Box<dyn Log>, orders: Orders) -> Result<(), RunError> {
    let (keeper, nofile) = (own.keeper, own.nofile);
    heirs::expect(true);
    let left = Left::claim(own.inherited).map_err(os("cannot go on with the app"))?;
    let trace = left.app.trace.as_ref().map(|path| Trace::go_on(Path::new(path), left.recorder.steps()));
    let trace = match trace.transpose() {
        Ok(trace) => trace,
        Err(error) => {
            log.note(&error.to_string());
            None
        }
    };
    left.stale.iter().for_each(|key| keeper.forget_value(*key));
    let names = Names::of(adopt::names(&left.shells));
    let image = PathBuf::from(&left.app.image);
    let watch = watch(left.app.upgrades_itself, &image, left.upgrade.failed_image(), &mut *log);
    let parts = Parts {
        core: left.core,
        trace,
        recorder: Some(left.recorder),
        shells: left.shells,
        launches: left.launches,
        feed: Feed::new(names.clone()),
        names: names.clone(),
        founder: Founder { nofile: Some(nofile), mark: mark(&left.instance), record: left.app.clone() },
        own_orders: orders.requests(),
        log,
        chief: Chief::Keeper(keeper),
        succession: Succession { image, order: None, watch, estate: left.estate, upgrade: left.upgrade },
        hang_up_stops: left.app.hang_up_stops,
    };
    let info = Info {
        pid: parts.chief.pid(),
        app: left.app.app,
        environment: left.app.environment,
        started_at: left.app.started_at,
        brokers: names.clone(),
    };
    let beginning =
        Beginning::Adopt { how: left.how, inherited: left.inherited, told: left.told, events: left.events };
    drive(parts, left.instance, info, beginning, orders)
}

pub(crate) fn start(
    options: &AppOptions,
    setting: &Setting,
    nofile: Option<Nofile>,
    hang_up_stops: bool,
    chief: Chief,
    mut log: Box<dyn Log>,
    orders: Orders,
) -> Result<(), RunError> {
    // What is wrong with options or a command is told before anything is touched.
    options.brokers.iter().try_for_each(|(name, options)| options.check(name))?;
    check(options).map_err(|mut wrong| wrong.swap_remove(0))?;
    let may = rlimit::most_open_files();
    enough_descriptors(options.brokers.iter().map(|(_, broker)| broker), 0, may)?;
    let instance = Instance::claim_for(&setting.socket, chief.pid())?;
    end_leftovers(instance.socket(), &mut *log);
    let record = AppRecord {
        app: options.app.clone(),
        environment: setting.environment.clone(),
        socket: instance.socket().into(),
        trace: setting.trace.clone().map(PathBuf::into_os_string),
        started_at: Moment::now().wall(clock::now()),
        boot: clock::boot(),
        hang_up_stops,
        brokers: options.brokers.iter().map(|(name, _)| name.clone()).collect(),
        image: std::env::current_exe().unwrap_or_default().into_os_string(),
        upgrades_itself: options.upgrade == UpgradeWhen::Auto && chief.keeper().is_some(),
    };
    let founder = Founder { nofile, mark: mark(&instance), record };
    let brokers = (0..).map(LaunchId).zip(&options.brokers);
    let mut founded = brokers
        .map(|(launch, (name, broker))| founder.found(name, broker, launch))
        .collect::<Result<Vec<_>, _>>()?;
    let specs: Vec<BrokerSpec> = founded.iter().map(|founded| founded.spec.clone()).collect();
    let trace = setting.trace.as_ref().map(|path| Trace::begin(path, &specs)).transpose()?;
    founded.iter().for_each(|founded| founded.tell(&mut *log));
    let record = &founder.record;
    let image = PathBuf::from(&record.image);
    let mut estate = Estate::new();
    let recorder = match chief.keeper() {
        None => None,
        Some(keeper) => {
            let deposited = deposit(keeper, record, options, &mut founded, &instance, &mut estate);
            Some(deposited.map_err(os("the keeper does not take what it has to hold"))?)
        }
    };
    let (mut launches, mut shells) = (BTreeMap::new(), Vec::new());
    for Founded { launch, shell, spec } in founded {
        launches.insert(spec.launch, launch);
        shells.push(shell);
    }
    let watch = watch(record.upgrades_itself, &image, None, &mut *log);
    let names = Names::of(record.brokers.clone().into());
    let info = Info {
        pid: chief.pid(),
        app: record.app.clone(),
        environment: record.environment.clone(),
        started_at: record.started_at.clone(),
        brokers: names.clone(),
    };
    let seed = clock::now().0 ^ u64::from(std::process::id());
    let parts = Parts {
        core: App::new(clock::now(), seed, specs),
        trace,
        recorder,
        shells,
        launches,
        feed: Feed::new(names.clone()),
        names,
        founder,
        own_orders: orders.requests(),
        log,
        chief,
        succession: Succession { image, estate, upgrade: Upgrade::default(), order: None, watch },
        hang_up_stops,
    };
    drive(parts, instance, info, Beginning::Start, orders)
}

/// One that cannot be watched is upgraded on command only.
fn watch(wanted: bool, image: &Path, known: Option<Identity>, log: &mut dyn Log) -> Option<ImageWatch> {
    match wanted.then(|| ImageWatch::new(image, known)).transpose() {
        Ok(watch) => watch,
        Err(error) => {
            log.note(&format!("upgrade: {} cannot be watched: {error}", image.display()));
            None
        }
    }
}

/// Of each worker a pidfd, two pipes and perhaps a notify socket are held; during a recycle also of its successor.
pub(crate) fn enough_descriptors<'a>(
    brokers: impl IntoIterator<Item = &'a BrokerOptions>,
    other_workers: u64,
    may: u64,
) -> Result<(), RunError> {
    let of_broker = |broker: &BrokerOptions| {
        let workers = u64::from(broker.workers) + u64::from(broker.recycle.surge);
        let lanes = broker.listen.iter().filter(|listen| listen.balance == Balance::Lanes).count() as u64;
        workers * OF_A_WORKER + broker.listen.len() as u64 + u64::from(broker.workers) * lanes
    };
    let needs = OURS + other_workers * OF_A_WORKER + brokers.into_iter().map(of_broker).sum::<u64>();
    if needs > may { Err(RunError::OpenFiles { needs, may }) } else { Ok(()) }
}

/// Nobody is the app but us: what a killed run of it has left is ended, and named.
fn end_leftovers(socket: &Path, log: &mut dyn Log) {
    if !parent::proc_is_ours() {
        log.note(
            "/proc is that of another PID namespace: what workers leave outside of their groups is not found",
        );
    }
    // One that was just being started is found at the next look.
    for _ in 0..LOOKS {
        let found = leftovers::find(socket, None);
        if found.is_empty() {
            return;
        }
        let pids: Vec<String> = found.iter().map(|leftover| leftover.pid.to_string()).collect();
        log.note(&format!("ending what a run that was killed has left behind: {}", pids.join(" ")));
        for ended in leftovers::end(found, Haste::Ask) {
            log.note(&format!("left behind by a run that was killed: {ended}"));
        }
    }
}

/// All that a successor needs before there are workers is with the keeper when this returns.
fn deposit(
    keeper: &Keeper,
    app: &AppRecord,
    options: &AppOptions,
    founded: &mut [Founded],
    instance: &Instance,
    estate: &mut Estate,
) -> std::io::Result<Recorder> {
    for ((broker, founded), (_, options)) in (0..).map(BrokerId).zip(founded).zip(&options.brokers) {
        founded.record(options).deposit(keeper, broker, Generation(1), estate)?;
        founded.shell.sockets.deposit(keeper, broker)?;
    }
    let (control, lock) = instance.descriptors();
    keeper.deposit_socket(Key::Control, control, instance.file())?;
    keeper.deposit(Key::Lock, &[lock], 0)?;
    app.deposit(keeper, estate)?;
    Recorder::new(keeper)
}

/// By which processes of this run are known.
fn mark(instance: &Instance) -> OsString {
    leftovers::mark(instance.socket(), &format!("{:016x}", random() & u128::from(u64::MAX)))
}

/// A hang-up means "stop" only for somebody who sits at a terminal; for everybody else it means "renew". To be asked
/// before a hang-up is waited for: once it has hung up, a terminal is none any more.
pub(crate) fn hang_up_stops() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdin())
}

fn drive(
    parts: Parts,
    instance: Instance,
    info: Info,
    beginning: Beginning,
    orders: Orders,
) -> Result<(), RunError> {
    // What was begun by another process is gone on with by another, should this one get no further.
    heirs::expect(matches!(beginning, Beginning::Adopt { .. }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(os("cannot start the runtime"))?;
    let listener = instance.listener().map_err(os("cannot serve the control socket"))?;
    let handle = Handle::new(orders.requests(), info);
    let folder = instance.runtime_dir().to_owned();
    let keeper = parts.chief.keeper().cloned();
    // A program may end as soon as its subscriptions do, and not before the keeper has heard that this is the end.
    let _subscriptions = runtime
        .block_on(serve(parts, orders, folder, listener, handle, beginning))
        .map_err(os("the app cannot go on"))?;
    // With the last word: nobody comes after us who could clear away what we leave.
    kill_points::point("the control socket is removed");
    drop(instance);
    kill_points::point("the control socket was removed");
    keeper.map_or(Ok(()), |keeper| keeper.end(0)).map_err(os("the keeper is not told of the end"))
}

async fn serve(
    parts: Parts,
    orders: Orders,
    notify_dir: PathBuf,
    listener: std::os::unix::net::UnixListener,
    handle: Handle,
    beginning: Beginning,
) -> std::io::Result<impl Sized + use<>> {
    let driver = Driver::new(parts, orders, notify_dir)?;
    let (end, ended) = oneshot::channel::<()>();
    let control = tokio::spawn(crate::control::serve(listener, handle, async {
        // Dropping the sender ends the wait as well.
        let _ = ended.await;
    }));
    let result = driver.run(beginning).await;
    drop(end);
    within(LAST_ANSWERS, control).await;
    result
}

pub(crate) fn os(what: &'static str) -> impl FnOnce(std::io::Error) -> RunError {
    move |source| RunError::Os { what, source }
}

/// Lets clients read their last answers, but not for ever.
async fn within(wait: Duration, work: impl Future) {
    let _ = tokio::time::timeout(wait, work).await;
}

/// Numbers of INT, TERM, HUP and QUIT.
const HEARD: [i32; 4] = [2, 15, 1, 3];
const LOOKS: u32 = 3;
const OF_A_WORKER: u64 = 4;
/// Descriptors of our own, at the least.
const OURS: u64 = 24;
const LAST_ANSWERS: Duration = Duration::from_secs(1);
