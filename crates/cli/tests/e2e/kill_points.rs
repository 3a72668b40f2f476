//! The broker process is killed at each of its enumerated points, one run a point: what was asked for comes true all the
//! same, and nothing is lost, doubled or left behind.
//!
//! `SHIFTBOSS_KILL_POINTS` says at which: `all`, or a number N for each N-th; by default so few that it takes half a
//! minute. One of each name is always among them. `SHIFTBOSS_KILL_BALANCE=lanes`: of a broker with lanes.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::app::*;
use crate::nothing_is_left_behind::descriptors;
use crate::trace;

/// Where the broker process that begins is killed, and the first one that goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kills {
    first: Option<u64>,
    adopter: Option<u64>,
}

/// What keeper and broker process have open.
type Descriptors = [Vec<String>; 2];
type Span = std::ops::Range<Instant>;

#[test]
fn killed_at_each_point_of_its_life_it_goes_on_as_if_nothing_had_been() {
    let whole = Run::whole();
    let mut points: BTreeSet<usize> =
        (0..whole.points.len()).step_by(every().unwrap_or(whole.points.len() / BY_DEFAULT + 1)).collect();
    points.extend(one_of_each(&whole.points));
    let kills = points.into_iter().map(|at| Kills { first: Some(at as u64 + 1), adopter: None });
    judge(&kills.collect::<Vec<_>>(), &whole);
}

#[test]
fn killed_at_each_point_of_taking_over_it_goes_on_as_if_nothing_had_been() {
    let whole = Run::whole();
    let firsts = if every() == Some(1) { FIRSTS } else { FIRSTS_BY_DEFAULT };
    let mut kills = Vec::new();
    for place in 1..=firsts {
        let first = Some((whole.points.len() * place / (firsts + 1)) as u64);
        let points = Run::of(Kills { first, adopter: None }, None).adopter_points;
        let ready = points.iter().position(|point| point == "READY was said").unwrap_or(points.len());
        let until = points.len().min(ready + AFTER_READY) as u64;
        let every = every().unwrap_or(until as usize * firsts / BY_DEFAULT + 1);
        kills.extend((1..=until).step_by(every).map(|at| Kills { first, adopter: Some(at) }));
    }
    judge(&kills, &whole);
}

/// Of all points with one name the one in the middle.
fn one_of_each(points: &[String]) -> Vec<usize> {
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, name) in points.iter().enumerate() {
        places.entry(name).or_default().push(at);
    }
    places.into_values().map(|all| all[all.len() / 2]).collect()
}

fn every() -> Option<usize> {
    let asked = std::env::var("SHIFTBOSS_KILL_POINTS").ok()?;
    Some(if asked == "all" { 1 } else { asked.parse().unwrap() })
}

/// Runs all of them, a few at once, and tells of all that were not as they should be.
fn judge(kills: &[Kills], whole: &Run) {
    let (next, reached) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(kill) = kills.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match catch_unwind(AssertUnwindSafe(|| Run::of(*kill, Some(whole)))) {
                        Ok(run) => _ = reached.fetch_add(run.reached(*kill).into(), Ordering::Relaxed),
                        Err(panic) => {
                            let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                            wrong.lock().unwrap().insert(format!("{kill:?}"), said);
                        }
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    let told: Vec<String> = wrong.iter().map(|(kill, said)| format!("{kill}: {said}")).collect();
    assert!(told.is_empty(), "{} of {} went wrong\n{}", told.len(), kills.len(), told.join("\n"));
    // One run has a few points more than another, and on a busy machine fewer: more comes at once.
    let reached = reached.into_inner();
    assert!(reached * 4 >= kills.len() * 3, "only {reached} of {} were killed", kills.len());
}

/// What is known of a run after its end.
struct Run {
    points: Vec<String>,
    adopter_points: Vec<String>,
    descriptors: Descriptors,
    /// How often each was told.
    events: BTreeMap<String, usize>,
}

impl Run {
    fn whole() -> Run {
        Run::of(Kills::default(), None)
    }

    /// Whether there were as many points.
    fn reached(&self, kills: Kills) -> bool {
        let at = |kill: Option<u64>, points: &[String]| kill.is_none_or(|at| points.len() as u64 == at);
        at(kills.first, &self.points) && at(kills.adopter, &self.adopter_points)
    }

    /// Runs through it; panics if anything is not as it should be.
    fn of(kills: Kills, whole: Option<&Run>) -> Run {
        let scene = Scene::new(kills);
        let told = catch_unwind(AssertUnwindSafe(|| scene.play(whole)));
        told.unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
            panic!("killed at {}: {}", scene.killed_at(), said.unwrap_or_default())
        })
    }
}

/// An app and its surroundings.
struct Scene {
    folder: PathBuf,
    port: u16,
    app: Mutex<App>,
}

impl Scene {
    fn new(kills: Kills) -> Scene {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let file = folder.path().join("shiftboss.toml");
        std::fs::write(folder.path().join("version"), "good").unwrap();
        std::fs::write(&file, fill(&config(port), folder.path())).unwrap();
        let log = folder.path().join(KILL_LOG);
        let path = folder.path().to_owned();
        let app = App::started(folder, &["run", "-c", file.to_str().unwrap()], |command| {
            command.env("SHIFTBOSS_KILL_LOG", log);
            for (variable, at) in
                [("SHIFTBOSS_KILL_AT", kills.first), ("SHIFTBOSS_KILL_ADOPTER_AT", kills.adopter)]
            {
                if let Some(at) = at {
                    command.env(variable, at.to_string());
                }
            }
        });
        Scene { folder: path, port, app: Mutex::new(app) }
    }

    fn points(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        text.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect()
    }

    /// The last points that were passed.
    fn killed_at(&self) -> String {
        let last = |file| {
            let points = self.points(file);
            let last = points.iter().rev().take(2).rev().map(String::as_str).collect::<Vec<_>>();
            format!("{} ({})", points.len(), last.join(", then "))
        };
        format!("{} and {}", last(KILL_LOG), last(ADOPTER_LOG))
    }

    fn play(&self, whole: Option<&Run>) -> Run {
        let mut app = self.app.lock().unwrap();
        app.until_event("app_ready", 1);
        let load = Load::on(self.port);
        assert_done(&app.does(&["recycle", "web"]), "2 of 2");
        let crashed = self.crash(&app);
        app.does(&["scale", "web", "3"]);
        self.has(&app, 3);
        app.does(&["scale", "web", "2"]);
        let drained = Instant::now();
        app.does(&["drain", "web"]);
        self.has(&app, 0);
        app.does(&["resume", "web"]);
        self.has(&app, 2);
        let resumed = Instant::now();
        let requests = load.end();
        let descriptors = self.settled(&app, whole.map(|whole| &whole.descriptors));
        app.does(&["stop", "--all"]);
        let requests = Load::all(requests);
        for request in &requests {
            request.judge(&crashed, &(drained..resumed));
        }
        self.ended(&mut app, descriptors, whole)
    }

    /// Kills a worker; returns between which moments, once it is replaced.
    fn crash(&self, app: &App) -> Span {
        let victim = app.pids()[0];
        let before = Instant::now();
        signal_process(victim, Signal::KILL);
        app.until_event("worker_death", 1);
        let after = Instant::now();
        app.does(&["wait", "web", "--for", "ready"]);
        before..after
    }

    /// The broker has so many workers that serve, and no others.
    fn has(&self, app: &App, workers: usize) {
        eventually("there are as many workers as wanted", || app.pids().len() == workers);
        let mut processes: BTreeSet<u32> = app.pids().into_iter().collect();
        assert_eq!(processes.len(), workers);
        processes.insert(app.broker_pid());
        eventually("nobody is lost or doubled", || children(app.pid()) == processes);
    }

    /// What keeper and broker process have open at rest, where that is known beforehand.
    fn settled(&self, app: &App, expected: Option<&Descriptors>) -> Descriptors {
        let folder = self.folder.to_str().unwrap();
        let of = |pid| {
            // Half a message has a place once it was seen, which it may not have been.
            let counts = |kind: &String| !kind.contains(KILL_LOG) && !kind.contains("shiftboss-rest");
            let all = descriptors(pid).into_iter().filter(counts);
            all.map(|kind| kind.replace(folder, "")).collect::<Vec<_>>()
        };
        let both = || [of(app.pid()), of(app.broker_pid())];
        let Some(expected) = expected else { return both() };
        // It never is where a descriptor is left behind or missing.
        until_it_is(expected, both);
        expected.clone()
    }

    /// It ends, as it should.
    fn ended(&self, app: &mut App, descriptors: Descriptors, expected: Option<&Run>) -> Run {
        let status = app.ended();
        assert_eq!(status.code(), Some(0), "{}", app.stderr());
        let log = told_once(app.log());
        each_event_came_once(&log);
        let events = events(&log);
        assert_eq!([STARTED, "worker_death", "worker_ended"].map(|name| events[name]), [8, 1, 7]);
        if let Some(expected) = expected {
            assert_eq!(events, expected.events);
        }
        for event in log.iter().filter(|event| event["event"] == STARTED) {
            let pid = event["pid"].as_u64().unwrap() as u32;
            assert!(is_gone(pid), "{event} is still there");
        }
        for event in log.iter().filter(|event| event["event"] == "worker_ended") {
            assert_eq!((&event["code"], &event["forced"]), (&0.into(), &false.into()), "{event}");
        }
        let left = left_in(&self.folder);
        assert!(left.is_empty(), "left behind: {left:?}");
        TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        trace::promises_are_kept(&self.folder);
        Run { points: self.points(KILL_LOG), adopter_points: self.points(ADOPTER_LOG), descriptors, events }
    }
}

/// Its workers say something on their channels first, in pieces, and are told to leave before they are signalled.
fn config(port: u16) -> String {
    let balance = std::env::var("SHIFTBOSS_KILL_BALANCE").unwrap_or_else(|_| "shared".to_owned());
    format!(
        r#"
        app = "e2e"
        [broker.web]
        command = ["sh", "-c", '''
            printf '{{"a":1}}\n"ha' >&$SHIFTBOSS_CHANNEL_FD
            printf 'lf"\n' >&$SHIFTBOSS_CHANNEL_FD
            exec BIN demo-worker
        ''']
        kind = "notify"
        stop = [{{ message = "suicide", wait = "50ms" }}, {{ signal = "TERM", wait = "30s" }}, {{ signal = "KILL" }}]
        workers = 2
        listen = [{{ address = "tcp://127.0.0.1:{port}", balance = "{balance}" }}]
        recycle = {{ surge = 2 }}
        backoff = {{ base = "10ms", cap = "50ms", healthy_after = "50ms" }}
        environment = {{ DEMO_VERSION_FILE = "FOLDER/version" }}
        "#
    )
}

fn assert_done(said: &str, words: &str) {
    assert!(said.contains(words), "{said}");
}

/// A line that was written and not yet noted is written again by a successor, as it was: the same event, with the same
/// number.
fn told_once(mut log: Vec<Value>) -> Vec<Value> {
    let mut known = BTreeSet::new();
    log.retain(|event| event["seq"].is_null() || known.insert(event.to_string()));
    log
}

fn each_event_came_once(log: &[Value]) {
    let seqs: Vec<u64> = log.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "each event once");
}

/// How often each is there, but for those that say who goes on.
fn events(log: &[Value]) -> BTreeMap<String, usize> {
    let mut events = BTreeMap::new();
    for event in log.iter().filter(|event| event["seq"].is_u64() && event["event"] != "broker_adopted") {
        *events.entry(event["event"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    events
}

/// Sockets and folders that are still there.
fn left_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.contains(".sock") && !name.ends_with(".lock")).collect()
}

/// Requests at fixed times, each on a connection and a thread of its own; every other one is slow to be answered.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<JoinHandle<Request>>>,
    knocking: Receiver<Infallible>,
}

/// Held until a request was let in or was not.
type Knocking = Sender<Infallible>;

/// What became of one.
struct Request {
    begun: Instant,
    connected: Option<Instant>,
    ended: Instant,
    result: Result<(), String>,
}

impl Load {
    fn on(port: u16) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (knocked, knocking) = channel();
        let thread = std::thread::spawn(move || {
            let mut all = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let path = if all.len() % 2 == 0 { "/" } else { "/slow?ms=40" };
                let knocked = knocked.clone();
                all.push(std::thread::spawn(move || Request::send(port, path, knocked)));
                // The pace of the load, not a wait for anything.
                std::thread::sleep(Duration::from_millis(20));
            }
            all
        });
        Load { stop, thread, knocking }
    }

    /// No more of them; those that are under way, each of which was let in or was not.
    fn end(self) -> Vec<JoinHandle<Request>> {
        self.stop.store(true, Ordering::Relaxed);
        let requests = self.thread.join().unwrap();
        assert!(self.knocking.recv().is_err());
        requests
    }

    fn all(requests: Vec<JoinHandle<Request>>) -> Vec<Request> {
        requests.into_iter().map(|request| request.join().unwrap()).collect()
    }
}

impl Request {
    fn send(port: u16, path: &str, knocking: Knocking) -> Request {
        let begun = Instant::now();
        let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), REQUEST);
        let connected = stream.is_ok().then(Instant::now);
        drop(knocking);
        let result =
            stream.and_then(|stream| Request::answer(stream, path)).map_err(|error| error.to_string());
        Request { begun, connected, ended: Instant::now(), result }
    }

    fn answer(mut stream: TcpStream, path: &str) -> std::io::Result<()> {
        stream.set_read_timeout(Some(REQUEST))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: e2e\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(std::io::Error::other(answer)) }
    }

    /// One may fail inside the worker that was killed, and if it came while nobody was to serve.
    fn judge(&self, crashed: &Span, drained: &Span) {
        let Err(error) = &self.result else { return };
        let was_in_hand = self.begun <= crashed.end && self.ended >= crashed.start;
        // Begun before, it may have knocked only then.
        let before = self.begun < drained.start && self.begun + BRIEFLY >= drained.start;
        let came_late = before && self.connected.unwrap_or(self.ended) > drained.start;
        assert!(
            was_in_hand || came_late || drained.contains(&self.begun),
            "a request failed after {:?}, begun {:?} before the drain and {:?} after the resume: {error}",
            self.ended - self.begun,
            drained.start.saturating_duration_since(self.begun),
            self.begun.saturating_duration_since(drained.end)
        );
    }
}

/// Points of the first, and of taking over, that are tried unless more are asked for.
const BY_DEFAULT: usize = 12;
/// Places of the first one's death after each of which the adopter's points are tried.
const FIRSTS: usize = 8;
const FIRSTS_BY_DEFAULT: usize = 2;
/// Points of an adopter after it has taken over.
const AFTER_READY: usize = 4;
const AT_ONCE: usize = 2;
const REQUEST: Duration = Duration::from_secs(5);
const STARTED: &str = "worker_started";
/// From a request's beginning to its SYN on a busy machine.
const BRIEFLY: Duration = Duration::from_secs(3);
const KILL_LOG: &str = "kill-log";
const ADOPTER_LOG: &str = "kill-log.adopter";
