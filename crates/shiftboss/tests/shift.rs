//! What okanjo-app-broker does, row by row, from Rust. The broker is embedded in the test; its workers are `fixture`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use shiftboss::options::{Kind, Ready, Signal};
use shiftboss::{
    App, AskError, Broker, BrokerEvent, BrokerOptions, CallError, EventName, Extensions, Hooks, Listen,
    Member, Subscription, WorkerExit, WorkerInfo,
};

#[path = "shift/door.rs"]
mod door;
#[path = "shift/talk.rs"]
mod talk;

fn example(name: &str) -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples").join(name)
}

fn workers_that(role: &str, workers: u32) -> BrokerOptions {
    let command = vec![example("fixture").to_str().unwrap().to_owned(), role.to_owned()];
    BrokerOptions { command, kind: Kind::Worker, workers, ..BrokerOptions::default() }
}

/// An app with a socket of its own, in a folder that goes with it.
struct Stage {
    app: App,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let app = App::builder("test").control_socket(folder.path().join("app.sock")).build().unwrap();
        Stage { app, folder }
    }

    fn start(&self, worker_type: &str, options: BrokerOptions) -> (Broker, Subscription) {
        let broker = Broker::start(&self.app, worker_type, options).unwrap();
        let events = broker.subscribe();
        broker.resume_workers().wait().unwrap();
        (broker, events)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.app.stop(true);
        let _ = self.app.wait();
    }
}

fn next<T>(events: &mut Subscription, mut wanted: impl FnMut(BrokerEvent) -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match events.try_recv() {
            Some(event) => {
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
            None if Instant::now() > until => panic!("it did not happen"),
            None => std::thread::yield_now(),
        }
    }
}

fn ended(event: BrokerEvent) -> Option<WorkerExit> {
    match event {
        BrokerEvent::WorkerEnded(exit) => Some(exit),
        BrokerEvent::WorkerDeath(exit) => panic!("a death: {exit:?}"),
        _ => None,
    }
}

fn death(event: BrokerEvent) -> Option<WorkerExit> {
    match event {
        BrokerEvent::WorkerDeath(exit) => Some(exit),
        BrokerEvent::WorkerEnded(exit) => panic!("no death: {exit:?}"),
        _ => None,
    }
}

fn said(event: BrokerEvent) -> Option<(String, Member)> {
    match event {
        BrokerEvent::WorkerMessage { message, worker } => Some((message.get().to_owned(), worker)),
        _ => None,
    }
}

fn the_worker(broker: &Broker) -> Member {
    let mut workers = broker.workers().wait().unwrap();
    assert_eq!(workers.len(), 1);
    workers.remove(0)
}

#[test]
fn a_broker_starts_at_once_with_the_workers_asked_for_and_none_are_allowed() {
    let stage = Stage::new();
    let defaults = BrokerOptions::default();
    assert_eq!((defaults.workers, defaults.recycle.every), (1, None));
    let (broker, _) = stage.start("api", workers_that("quiet", 2));
    assert_eq!((broker.worker_type(), broker.worker_count(), broker.recycle_rate()), ("api", 2, None));
    assert!(!broker.drain_open() && !broker.debug() && broker.app().name() == "test");
    assert_eq!(broker.workers().wait().unwrap().len(), 2);
    let (none, _) = stage.start("none", workers_that("quiet", 0));
    assert_eq!(none.workers().wait().unwrap(), []);
    broker.set_debug(true);
    assert!(broker.debug());
}

#[test]
fn what_cannot_run_is_told_at_once() {
    let stage = Stage::new();
    let error = Broker::start(&stage.app, "api", BrokerOptions::new(["/nowhere/program"])).unwrap_err();
    assert!(error.to_string().contains("/nowhere/program"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", taken.local_addr().unwrap()).parse().unwrap();
    let listen = vec![shiftboss::address::Listen {
        name: "web".into(),
        address,
        balance: shiftboss::address::Balance::Shared,
    }];
    let error = Broker::start(&stage.app, "web", BrokerOptions { listen, ..workers_that("quiet", 1) });
    assert!(error.unwrap_err().to_string().contains("in use"));
    let senseless = Broker::start(&stage.app, "a/b", workers_that("quiet", 1)).unwrap_err();
    assert!(senseless.to_string().contains("a name is"), "{senseless}");
    // Nobody is waited for, nothing of them is left, and the next one runs.
    stage.app.wait().unwrap();
    stage.start("api", workers_that("quiet", 1));
}

#[test]
fn an_app_that_could_not_begin_can_later() {
    let stage = Stage::new();
    let socket = stage.folder.path().join("app.sock");
    let other = App::builder("test").control_socket(socket).build().unwrap();
    Broker::start(&other, "api", workers_that("quiet", 1)).unwrap();
    let error = Broker::start(&stage.app, "api", workers_that("quiet", 1)).unwrap_err();
    assert!(error.to_string().contains("runs already"), "{error}");
    other.stop(true);
    other.wait().unwrap();
    stage.start("api", workers_that("quiet", 1));
}

#[test]
fn a_recycle_rolls_and_resolves_when_it_is_done() {
    let stage = Stage::new();
    let (broker, mut events) = stage.start("api", workers_that("quiet", 1));
    let old = the_worker(&broker);
    let done = broker.recycle_workers().wait().unwrap();
    assert_eq!((done.replaced, done.cut), (1, 0));
    assert_ne!(the_worker(&broker), old);
    // The successor was ready before its predecessor was asked to leave.
    let order: Vec<String> = std::iter::from_fn(|| events.try_recv())
        .filter_map(|event| match event {
            BrokerEvent::Other(event) => Some(event.event.as_str().to_owned()),
            BrokerEvent::WorkerEnded(_) => Some("worker_ended".to_owned()),
            _ => None,
        })
        .skip_while(|name| name != "recycle_started")
        .collect();
    let last = ["recycle_started", "worker_started", "worker_ready", "worker_stopping", "worker_ended"];
    assert_eq!(order[..5], last);
}

#[test]
fn drained_workers_are_sent_home_and_resumed_ones_come_back() {
    let stage = Stage::new();
    let (broker, mut events) = stage.start("api", workers_that("quiet", 2));
    broker.drain_workers().wait().unwrap();
    assert!(broker.drain_open() && broker.workers().wait().unwrap().is_empty());
    assert_eq!(next(&mut events, ended).code, Some(0));
    broker.resume_workers().wait().unwrap();
    assert!(!broker.drain_open() && broker.workers().wait().unwrap().len() == 2);
}

#[test]
fn a_death_is_told_with_id_code_signal_and_worker_and_is_replaced() {
    let stage = Stage::new();
    let (broker, mut events) = stage.start("api", workers_that("quiet", 1));
    let worker = the_worker(&broker);
    worker.kill(Signal::KILL);
    let exit = next(&mut events, death);
    assert_eq!((exit.id, exit.code, exit.signal.as_deref()), (worker.id(), None, Some("SIGKILL")));
    assert_eq!(exit.worker, worker);
    broker.resume_workers().wait().unwrap();
    the_worker(&broker).send("exit 3").wait().unwrap();
    assert_eq!(next(&mut events, death).code, Some(3));
}

#[test]
fn one_that_leaves_by_itself_with_0_has_ended_and_is_replaced() {
    let stage = Stage::new();
    let (broker, mut events) = stage.start("api", workers_that("quiet", 1));
    let worker = the_worker(&broker);
    worker.send("exit 0").wait().unwrap();
    assert_eq!(next(&mut events, ended).id, worker.id());
    broker.resume_workers().wait().unwrap();
    assert_ne!(the_worker(&broker), worker);
}

#[test]
fn while_the_program_is_about_to_end_every_exit_is_an_end_and_nobody_is_replaced() {
    let stage = Stage::new();
    let (broker, mut events) = stage.start("api", workers_that("quiet", 1));
    stage.app.set_graceful_shutdown(true);
    the_worker(&broker).kill(Signal::KILL);
    assert_eq!(next(&mut events, ended).signal.as_deref(), Some("SIGKILL"));
    assert_eq!(broker.workers().wait().unwrap(), []);
    stage.app.set_graceful_shutdown(false);
    broker.resume_workers().wait().unwrap();
    the_worker(&broker);
}

#[test]
fn an_app_ends_while_its_program_is_about_to_end() {
    let stage = Stage::new();
    let (broker, mut events) = stage.start("api", workers_that("quiet", 1));
    stage.app.set_graceful_shutdown(true);
    the_worker(&broker).kill(Signal::KILL);
    next(&mut events, ended);
    stage.app.stop(false);
    stage.app.wait().unwrap();
    assert!(events.blocking_recv().is_some() || events.blocking_recv().is_none());
}

#[test]
fn a_broker_is_drained_or_scaled_to_none_while_its_program_is_about_to_end() {
    let stage = Stage::new();
    let ends: [fn(&Broker); 2] = [
        |broker| drop(broker.drain_workers().wait().unwrap()),
        |broker| drop(broker.scale(0).wait().unwrap()),
    ];
    for (name, end) in ["drained", "scaled"].into_iter().zip(ends) {
        let (broker, mut events) = stage.start(name, workers_that("quiet", 2));
        stage.app.set_graceful_shutdown(true);
        for worker in broker.workers().wait().unwrap() {
            worker.kill(Signal::KILL);
            next(&mut events, ended);
        }
        end(&broker);
        stage.app.set_graceful_shutdown(false);
    }
}

#[test]
fn signals_lead_a_worker_to_its_shutdown_and_the_second_ends_it() {
    let stage = Stage::new();
    let (broker, mut events) = stage.start("api", workers_that("quiet", 1));
    the_worker(&broker).kill(Signal::TERM);
    assert_eq!(next(&mut events, said).0, "\"preparing\"");
    assert_eq!(next(&mut events, ended).code, Some(0));
    let (broker, mut events) = stage.start("slow", workers_that("stays", 1));
    let worker = the_worker(&broker);
    worker.kill(Signal::INT);
    assert_eq!(next(&mut events, said).0, "\"preparing\"");
    worker.kill(Signal::INT);
    assert_eq!(next(&mut events, death).code, Some(130));
}

#[test]
fn the_seeds_ladder_tells_signals_and_ends_in_a_kill() {
    let stage = Stage::new();
    let options = BrokerOptions { stop: BrokerOptions::seed().stop, ..workers_that("stays", 1) };
    let (broker, mut events) = stage.start("api", options);
    // A worker that was not run for all that time says nothing.
    let is_told = (0..3).any(|_| {
        broker.resume_workers().wait().unwrap();
        let began = Instant::now();
        let done = broker.drain_workers().wait().unwrap();
        assert_eq!(done.cut, 1);
        assert!(began.elapsed() >= Duration::from_secs(3), "2 s after the message, 1 s after TERM");
        let mut words = Vec::new();
        let exit = next(&mut events, |event| match event {
            BrokerEvent::WorkerMessage { message, .. } => {
                words.push(message.get().to_owned());
                None
            }
            event => ended(event),
        });
        assert_eq!(exit.signal.as_deref(), Some("SIGKILL"));
        words == ["\"preparing\""]
    });
    assert!(is_told);
}

#[test]
fn a_worker_is_called_by_its_type_and_environment() {
    let stage = Stage::new();
    let (broker, mut events) = stage.start("api", workers_that("quiet", 1));
    the_worker(&broker).send("name").wait().unwrap();
    assert_eq!(next(&mut events, said).0, "\"api-default\"");
}

#[test]
fn one_that_cannot_begin_counts_as_dead_and_one_that_garbles_is_replaced() {
    let stage = Stage::new();
    let broker = Broker::start(&stage.app, "api", workers_that("fails", 1)).unwrap();
    assert_eq!(next(&mut broker.subscribe(), death).code, Some(1));
    let broker = Broker::start(&stage.app, "odd", workers_that("garbles", 1)).unwrap();
    let reason = next(&mut broker.subscribe(), death).reason.unwrap();
    assert!(reason.contains("wrote too much on its channel"), "{reason}");
}

#[test]
fn several_types_are_in_one_app_and_the_same_type_is_the_same_broker() {
    let stage = Stage::new();
    let (api, _) = stage.start("api", workers_that("quiet", 1));
    let (jobs, _) = stage.start("jobs", workers_that("quiet", 2));
    let (again, _) = stage.start("api", workers_that("quiet", 5));
    assert_eq!(the_worker(&again), the_worker(&api));
    api.drain_workers().wait().unwrap();
    assert_eq!(jobs.workers().wait().unwrap().len(), 2);
    assert!(again.drain_open() && !jobs.drain_open());
}

#[test]
fn answers_can_be_awaited_in_any_runtime() {
    let stage = Stage::new();
    let broker = Broker::start(&stage.app, "api", workers_that("talks", 1)).unwrap();
    let work = async {
        broker.resume_workers().await.unwrap();
        let worker = broker.workers().await.unwrap().remove(0);
        let square: i64 = worker.call(&5).await.unwrap();
        worker.send("hi").await.unwrap();
        let mut events = broker.subscribe();
        broker.broadcast("x").await.unwrap();
        while !matches!(events.recv().await, Some(BrokerEvent::WorkerMessage { .. })) {}
        square
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(work), 25);
}

#[test]
fn however_many_wait_for_the_end_of_an_app_none_returns_before() {
    let stage = Stage::new();
    let (broker, _) = stage.start("api", workers_that("quiet", 1));
    let socket = stage.folder.path().join("app.sock");
    assert!(socket.exists());
    let (begun, waits) = std::sync::mpsc::channel();
    let waiters = [(); 3].map(|()| {
        let (app, socket, begun) = (stage.app.clone(), socket.clone(), begun.clone());
        std::thread::spawn(move || {
            begun.send(()).unwrap();
            app.wait().unwrap();
            // It is removed at the end.
            assert!(!socket.exists());
        })
    });
    waits.iter().take(waiters.len()).for_each(drop);
    assert_eq!(broker.workers().wait().unwrap().len(), 1);
    stage.app.stop(false);
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
}

#[test]
fn a_host_finds_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let host = || {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        // `SigQ` counts what waits for whoever runs the tests.
        let own = |line: &&str| {
            ["SigB", "SigC", "SigI", "SigP", "Umask", "Shd"].iter().any(|name| line.starts_with(name))
        };
        let status: Vec<String> = status.lines().filter(own).map(str::to_owned).collect();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let variables: Vec<_> = std::env::vars_os().collect();
        let subreaper = rustix::process::child_subreaper().unwrap();
        (status, limits, variables, subreaper, std::env::current_dir().unwrap())
    };
    let (go, waits) = std::sync::mpsc::channel::<()>();
    let waits = std::sync::Arc::new(std::sync::Mutex::new(waits));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let waits = std::sync::Arc::clone(&waits);
            std::thread::spawn(move || waits.lock().unwrap().recv().is_err())
        })
        .collect();
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let before = host();
    let app = App::builder("host").control_socket(folder.path().join("app.sock")).build().unwrap();
    let broker = Broker::start(&app, "api", workers_that("talks", 2)).unwrap();
    broker.resume_workers().wait().unwrap();
    assert_eq!(host(), before);
    the_first(&broker).kill(Signal::KILL);
    broker.recycle_workers().wait().unwrap();
    assert!(child.try_wait().unwrap().is_none(), "the host's own child is the host's");
    assert_eq!(host(), before);
    app.stop(false);
    app.wait().unwrap();
    assert_eq!(host(), before);
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    drop(go);
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    let left = std::fs::read_to_string("/proc/thread-self/children").unwrap();
    assert_eq!(left.trim(), "", "nobody is left behind");
}

fn the_first(broker: &Broker) -> Member {
    broker.workers().wait().unwrap().remove(0)
}

fn told(name: EventName) -> impl Fn(BrokerEvent) -> Option<std::sync::Arc<shiftboss::Event>> {
    move |event| match event {
        BrokerEvent::Other(event) if event.event == name => Some(event),
        _ => None,
    }
}

#[cfg(feature = "schedule")]
#[test]
fn a_broker_that_joins_leaves_the_hours_of_another_as_they_are() {
    let stage = Stage::new();
    let part_time = || {
        let hours = shiftboss::Schedule::new("*/2 * * * * *", "1-59/2 * * * * *", None).unwrap();
        BrokerOptions { schedule: Some(hours), ..workers_that("quiet", 1) }
    };
    let first = Broker::start(&stage.app, "first", part_time()).unwrap();
    let mut events = first.subscribe();
    Broker::start(&stage.app, "second", part_time()).unwrap();
    let closed = |event| matches!(event, BrokerEvent::Other(event) if event.event == EventName::BrokerClosed);
    for _ in 0..3 {
        next(&mut events, |event| closed(event).then_some(()));
    }
}

struct Told(std::sync::mpsc::Sender<String>);

impl Hooks for Told {
    fn after_ready(&self, worker: &WorkerInfo) -> Result<(), String> {
        self.0.send(worker.id.clone()).map_err(|error| error.to_string())
    }
}

#[test]
fn hooks_are_asked_once_about_a_worker_that_says_again_that_it_is_ready() {
    let stage = Stage::new();
    let (asked, told) = std::sync::mpsc::channel();
    let notifies =
        BrokerOptions { kind: Kind::Plain, ready: Some(Ready::Notify), ..workers_that("notifies", 1) };
    let extensions = Extensions::new().hooks(Told(asked));
    let broker = Broker::start_with(&stage.app, "api", notifies, extensions).unwrap();
    broker.resume_workers().wait().unwrap();
    let first = the_worker(&broker);
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", first.pid())).unwrap();
    let path = environment.split('\0').find_map(|entry| entry.strip_prefix("NOTIFY_SOCKET=")).unwrap();
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    socket.send_to(b"READY=1", path).unwrap();
    // Whoever asks for the broker without hooks takes away none.
    Broker::start(&stage.app, "api", BrokerOptions::default()).unwrap();
    broker.recycle_workers().wait().unwrap();
    let second = the_worker(&broker);
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [first.id(), second.id()]);
}
