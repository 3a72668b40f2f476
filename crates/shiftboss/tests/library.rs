//! The library as a program uses it that is not `shiftboss`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use shiftboss::log::{Line, Log};
use shiftboss::options::Ready;
use shiftboss::{AppOptions, BrokerOptions, Setting};
use shiftboss_api::{Event, EventName};

struct Send(Sender<Event>);

impl Log for Send {
    fn event(&mut self, event: &Event) {
        let _ = self.0.send(event.clone());
    }
    fn line(&mut self, _: &Line<'_>) {}
    fn note(&mut self, _: &str) {}
}

fn sleepers(folder: &Path) -> (AppOptions, Setting) {
    let mut sleepers = BrokerOptions::new(["sleep", "1000"]);
    (sleepers.workers, sleepers.ready) = (2, Some(Ready::After(std::time::Duration::ZERO)));
    let brokers = vec![("sleepers".to_owned(), sleepers)];
    let options = AppOptions { app: "embedded".to_owned(), brokers, upgrade: Default::default() };
    let socket = folder.join("app.sock");
    (options, Setting { socket, environment: "default".to_owned(), trace: None })
}

#[test]
fn an_embedded_app_repairs_ends_and_touches_nothing_of_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let (options, setting) = sleepers(folder.path());
    let (events, heard) = channel();
    // Of this thread: the first one blocks all signals while it starts another, which is this one (pthread_create(3)).
    let status = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let signals = |status: &str| -> Vec<String> {
        // `SigQ` counts what waits for whoever runs the tests.
        let is_own = |line: &&str| line.starts_with("Sig") && !line.starts_with("SigQ");
        status.lines().filter(is_own).map(str::to_owned).collect()
    };
    let before = (signals(&status()), rustix::process::getrlimit(rustix::process::Resource::Nofile));
    let mut host = Command::new("sleep").arg("1000").spawn().unwrap();
    let app = shiftboss::embed(options, setting, Box::new(Send(events))).unwrap();
    let mut started = heard.iter().filter(|event| event.event == EventName::WorkerStarted);
    let pid = started.next().unwrap().pid.unwrap();
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    assert!(heard.iter().any(|event| event.event == EventName::WorkerDeath && event.pid == Some(pid)));
    assert!(heard.iter().any(|event| event.event == EventName::WorkerStarted));
    assert_eq!((signals(&status()), rustix::process::getrlimit(rustix::process::Resource::Nofile)), before);
    app.stop(false);
    app.wait().unwrap();
    assert_eq!(heard.iter().filter(|event| event.event == EventName::WorkerEnded).count(), 2);
    // The host's own child is the host's.
    host.kill().unwrap();
    assert!(!host.wait().unwrap().success());
}

#[test]
fn a_host_is_told_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (mut options, setting) = sleepers(folder.path());
    options.brokers[0].1.command = vec!["/nowhere/program".to_owned()];
    let app = shiftboss::embed(options, setting, Box::new(Send(channel().0))).unwrap();
    assert!(app.wait().unwrap_err().to_string().contains("/nowhere/program"));
}

#[test]
fn any_program_can_have_a_keeper() {
    let folder = tempfile::tempdir().unwrap();
    let example = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples/own_process");
    let mut keeper = Command::new(example)
        .arg(folder.path().join("app.sock"))
        .args(["sleep", "1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(keeper.stdout.take().unwrap()).lines().map_while(Result::ok);
    let pids: Vec<String> = lines
        .by_ref()
        .filter_map(|line| {
            line.split_once("WorkerReady Some(").map(|(_, pid)| pid.trim_end_matches(')').to_owned())
        })
        .take(2)
        .collect();
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", keeper.id())).unwrap();
    let broker = children.split_whitespace().find(|pid| !pids.iter().any(|worker| worker == pid)).unwrap();
    kill_process(Pid::from_raw(broker.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    assert!(lines.any(|line| line.contains("BrokerAdopted")));
    assert!(pids.iter().all(|pid| Path::new(&format!("/proc/{pid}")).exists()));
    kill_process(Pid::from_child(&keeper), Signal::TERM).unwrap();
    assert_eq!(lines.filter(|line| line.contains("WorkerEnded")).count(), 2);
    assert!(keeper.wait().unwrap().success());
}

#[test]
fn what_is_said_while_no_broker_process_is_there_is_heard_by_the_next_ones_subscriber() {
    let folder = tempfile::tempdir().unwrap();
    let (mut keeper, mut lines) = fixture(&["keeps".as_ref(), folder.path().join("app.sock").as_os_str()]);
    let mut broker = lines.next().unwrap();
    for _ in 0..2 {
        kill_process(Pid::from_raw(broker.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
        // A successor says who it is, then what it hears.
        broker = lines.next().unwrap();
        assert_eq!(lines.by_ref().take(3).collect::<Vec<_>>(), ["0", "1", "2"]);
    }
    kill_process(Pid::from_child(&keeper), Signal::TERM).unwrap();
    assert!(keeper.wait().unwrap().success());
}

#[test]
fn a_successor_knows_that_its_broker_is_drained() {
    let folder = tempfile::tempdir().unwrap();
    let (mut keeper, mut lines) = fixture(&["drains".as_ref(), folder.path().join("app.sock").as_os_str()]);
    for drained in ["false", "true"] {
        let broker = lines.next().unwrap();
        assert!(broker.ends_with(drained), "{broker}");
        assert_eq!(lines.next().unwrap(), "drained true");
        if drained == "false" {
            kill_process(pid_in(&broker), Signal::KILL).unwrap();
        }
    }
    kill_process(Pid::from_child(&keeper), Signal::TERM).unwrap();
    assert!(keeper.wait().unwrap().success());
}

/// Killed while a broker joins, and its successor as soon as it has taken over.
#[test]
#[cfg(debug_assertions)]
fn a_broker_that_was_about_to_join_is_no_obstacle_to_any_successor() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("app.sock");
    let log = folder.path().join("points");
    let kills = [
        ("SHIFTBOSS_KILL_LOG", log.to_str().unwrap()),
        ("SHIFTBOSS_KILL_AT", "a broker is about to join"),
        ("SHIFTBOSS_KILL_ADOPTER_AT", "READY was said"),
    ];
    let (mut keeper, mut lines) = fixture_with(&["drains".as_ref(), socket.as_os_str()], &kills);
    assert!(lines.next().unwrap().ends_with(" false"));
    assert_eq!(lines.next().unwrap(), "drained true");
    let points = |file: &Path| std::fs::read_to_string(file).unwrap();
    assert!(points(&log).ends_with("a broker is about to join\n"));
    assert!(points(&log.with_extension("adopter")).ends_with("READY was said\n"));
    kill_process(Pid::from_child(&keeper), Signal::TERM).unwrap();
    assert!(keeper.wait().unwrap().success());
}

/// A program whose broker has extensions, under a keeper: the keeper, and what it prints.
fn extends(folder: &Path, gate: &Path) -> (Child, impl Iterator<Item = String> + use<>) {
    fixture(&["extends".as_ref(), folder.join("app.sock").as_os_str(), gate.as_os_str()])
}

fn fixture(arguments: &[&std::ffi::OsStr]) -> (Child, impl Iterator<Item = String> + use<>) {
    fixture_with(arguments, &[])
}

fn fixture_with(
    arguments: &[&std::ffi::OsStr],
    variables: &[(&str, &str)],
) -> (Child, impl Iterator<Item = String> + use<>) {
    let fixture = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples/fixture");
    let mut command = Command::new(fixture);
    command.args(arguments).envs(variables.iter().copied());
    let mut keeper = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(keeper.stdout.take().unwrap()).lines().map_while(Result::ok);
    (keeper, lines)
}

/// The process that a line is about.
fn pid_in(line: &str) -> Pid {
    Pid::from_raw(line.split(' ').nth(1).unwrap().parse().unwrap()).unwrap()
}

#[test]
fn who_dies_with_the_broker_process_has_a_successor_that_is_launched_and_asked_about_as_ever() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    std::fs::write(&gate, "").unwrap();
    let (mut keeper, mut lines) = extends(folder.path(), &gate);
    let [broker, asked, ready] = std::array::from_fn(|_| lines.next().unwrap());
    assert_eq!(ready, "ready");
    // It does not see the worker's end.
    kill_process(pid_in(&broker), Signal::STOP).unwrap();
    kill_process(pid_in(&asked), Signal::KILL).unwrap();
    kill_process(pid_in(&broker), Signal::KILL).unwrap();
    assert!(lines.next().unwrap().starts_with("broker "));
    // All may seem to be ready until it hears of the end.
    let mut both: Vec<String> = lines.by_ref().take(2).collect();
    both.sort();
    let [again, ready] = both.try_into().unwrap();
    assert_eq!(ready, "ready");
    assert!(again.ends_with(" true") && pid_in(&asked) != pid_in(&again), "{again}");
    kill_process(Pid::from_child(&keeper), Signal::TERM).unwrap();
    assert!(keeper.wait().unwrap().success());
}

#[test]
fn a_worker_that_was_asked_about_when_the_broker_process_died_is_asked_about_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let (mut keeper, mut lines) = extends(folder.path(), &gate);
    let [mut broker, asked] = std::array::from_fn(|_| lines.next().unwrap());
    // The second one knows it from the first, the third from the second.
    for _ in 0..2 {
        kill_process(pid_in(&broker), Signal::KILL).unwrap();
        broker = lines.next().unwrap();
        assert_eq!(lines.next().unwrap(), asked);
    }
    std::fs::write(&gate, "").unwrap();
    assert_eq!(lines.next().unwrap(), "ready");
    // What is known to be ready is not asked about.
    kill_process(pid_in(&broker), Signal::KILL).unwrap();
    assert!(lines.next().unwrap().starts_with("broker "));
    assert_eq!(lines.next().unwrap(), "ready");
    kill_process(Pid::from_child(&keeper), Signal::TERM).unwrap();
    assert!(keeper.wait().unwrap().success());
}

/// Whoever has begun nothing owes nothing: it may connect to a database first, which may take its time.
#[test]
fn a_program_that_takes_its_time_to_begin_is_not_taken_for_one_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples/fixture");
    let begin = folder.path().join("begin");
    let mut keeper = Command::new(fixture)
        .args(["keeps".as_ref(), folder.path().join("app.sock").as_os_str(), begin.as_os_str()])
        .env("SHIFTBOSS_HUNG_MS", "3000")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(keeper.stdout.take().unwrap()).lines().map_while(Result::ok);
    let broker = lines.next().unwrap();
    let later = Instant::now() + Duration::from_secs(5);
    while Instant::now() < later {
        assert!(Path::new(&format!("/proc/{broker}")).exists());
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::write(begin, "").unwrap();
    assert_eq!(lines.next().unwrap(), broker);
    kill_process(Pid::from_child(&keeper), Signal::TERM).unwrap();
    assert!(keeper.wait().unwrap().success());
}
