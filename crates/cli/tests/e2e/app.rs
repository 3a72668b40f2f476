//! A real app: the binary, run in a folder of its own, with everything it prints.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead as _, BufReader};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shiftboss_api::{Status, Worker};
use tempfile::TempDir;

use crate::trace;

/// Ended with all its workers when it is dropped; then what it has done is judged.
pub(crate) struct App {
    child: Child,
    judged: bool,
    pub(crate) folder: TempDir,
    said: Arc<Said>,
}

/// What it has said so far: each line of standard output as JSON, standard error as text.
#[derive(Default)]
struct Said {
    heard: Mutex<(Vec<Value>, String)>,
    more: Condvar,
}

impl Said {
    fn until(&self, what: &str, mut is: impl FnMut(&[Value]) -> bool) -> Vec<Value> {
        let end = Instant::now() + PATIENCE;
        let mut heard = self.heard.lock().unwrap();
        while !is(&heard.0) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last = heard.0.iter().rev().take(40).rev().map(Value::to_string).collect::<Vec<_>>();
                panic!("waited in vain for: {what}\n{}\n{}", last.join("\n"), heard.1);
            }
            heard = self.more.wait_timeout(heard, left.min(Duration::from_secs(1))).unwrap().0;
        }
        heard.0.clone()
    }
}

/// `events -f`, with the messages of workers. Ended when it is dropped.
pub(crate) struct Watch {
    child: Child,
    said: Arc<Said>,
}

impl Watch {
    /// It misses nothing from now on, unless it is too slow.
    pub(crate) fn of(app: &App) -> Watch {
        let mut command = Command::new(BIN);
        command.args(["events", "-f", "--json", "--socket"]).arg(app.socket());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Said::default());
        listen(child.stdout.take().unwrap(), &said, |heard, line| {
            // What a worker says can be nested deeper than is read here.
            heard.0.push(serde_json::from_str(line).unwrap_or_default());
        });
        let watch = Watch { child, said };
        // What was kept is printed when it has begun to listen.
        watch.until("the events that are kept", |log| !log.is_empty());
        watch
    }

    pub(crate) fn until(&self, what: &str, is: impl FnMut(&[Value]) -> bool) -> Vec<Value> {
        self.said.until(what, is)
    }

    /// Waits until workers have said this so many times in all.
    pub(crate) fn until_said(&self, message: &Value, times: usize) {
        let is = |event: &&Value| event["event"] == "worker_message" && event["message"] == *message;
        self.until(&message.to_string(), |log| log.iter().filter(is).count() >= times);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl App {
    /// Runs this configuration. `BIN` is replaced by the binary, `WORKER` by the misbehaving worker, `FOLDER` by a
    /// folder of the app's own, which holds a file `version` for the built-in worker.
    pub(crate) fn of(config: &str) -> App {
        App::with(config, |_| {})
    }

    /// The same, with something done to its command first.
    pub(crate) fn with(config: &str, prepare: impl FnOnce(&mut Command)) -> App {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shiftboss.toml");
        std::fs::write(folder.path().join("version"), "good").unwrap();
        std::fs::write(&file, fill(config, folder.path())).unwrap();
        App::started(folder, &["run", "-c", file.to_str().unwrap()], prepare)
    }

    /// Runs this configuration and waits until all its workers are ready.
    pub(crate) fn ready(config: &str) -> App {
        let app = App::of(config);
        app.until("app_ready", |log| named(log, "app_ready") > 0);
        app
    }

    /// Runs `shiftboss` with these arguments.
    pub(crate) fn started(folder: TempDir, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> App {
        let path = folder.path().to_owned();
        let mut app = App::unjudged(folder, arguments, |command| {
            prepare(command);
            trace::record(command, &path);
        });
        app.judged = true;
        app
    }

    /// The same, and nobody looks at what it writes down.
    pub(crate) fn unjudged(folder: TempDir, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> App {
        let mut command = Command::new(BIN);
        command.args(arguments).arg_if(!arguments.contains(&"--socket"), &folder);
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Said::default());
        if let Some(out) = child.stdout.take() {
            listen(out, &said, |heard, line| {
                heard.0.push(serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")));
            });
        }
        listen(child.stderr.take().unwrap(), &said, |heard, line| {
            heard.1.push_str(line);
            heard.1.push('\n');
        });
        App { child, judged: false, folder, said }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket(&self.folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until what it has printed fulfils this; panics with the log after a minute.
    pub(crate) fn until(&self, what: &str, is: impl FnMut(&[Value]) -> bool) -> Vec<Value> {
        self.said.until(what, is)
    }

    /// Waits for so many events of that name in all.
    pub(crate) fn until_event(&self, name: &str, times: usize) -> Vec<Value> {
        self.until(name, |log| named(log, name) >= times)
    }

    /// What it has printed and was heard so far.
    pub(crate) fn heard(&self) -> Vec<Value> {
        self.said.heard.lock().unwrap().0.clone()
    }

    /// The same, and at least all that has happened before now: what a command answers can be here before it.
    pub(crate) fn log(&self) -> Vec<Value> {
        if is_gone(self.pid()) {
            return self.heard();
        }
        let last = text(&self.ask(&["events", "-n", "1", "--json"]).stdout);
        let last: Value = serde_json::from_str(&last).unwrap_or_default();
        self.until("the last event", |log| {
            log.iter().any(|event| event["seq"].as_u64() >= last["seq"].as_u64())
        })
    }

    pub(crate) fn stderr(&self) -> String {
        self.said.heard.lock().unwrap().1.clone()
    }

    /// Waits until it has said this on standard error.
    pub(crate) fn until_said(&self, words: &str) {
        eventually(words, || self.stderr().contains(words));
    }

    /// Runs another `shiftboss` that asks this one.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        Command::new(BIN).args(arguments).arg("--socket").arg(self.socket()).output().unwrap()
    }

    /// The same, which must succeed; its standard output.
    pub(crate) fn does(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {:?}\n{out}{err}", output.status);
        out
    }

    pub(crate) fn status(&self) -> Status {
        serde_json::from_str(&self.does(&["status", "--json"])).unwrap()
    }

    /// The workers of the only broker.
    pub(crate) fn workers(&self) -> Vec<Worker> {
        let mut status = self.status();
        assert_eq!(status.brokers.len(), 1);
        status.brokers.remove(0).workers
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.workers().iter().filter_map(|worker| worker.pid).collect()
    }

    /// Asks the app to end and waits for it.
    pub(crate) fn stop(mut self) -> (ExitStatus, Vec<Value>) {
        self.signal(Signal::TERM);
        (self.ended(), self.heard())
    }

    /// Another signal, which is not one with the last.
    pub(crate) fn signal_again(&self, signal: Signal) {
        eventually("the last one is taken in, and the next thing waited for", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
            let is = |name: &str, expected: fn(&str) -> bool| {
                status.lines().filter_map(|line| line.strip_prefix(name)).all(|value| expected(value.trim()))
            };
            is("ShdPnd:", |set| set.bytes().all(|digit| digit == b'0'))
                && is("State:", |state| !state.starts_with('R'))
        });
        let later = Instant::now() + SAME_SIGNAL + Duration::from_millis(50);
        eventually("a moment passes", || Instant::now() >= later);
        self.signal(signal);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_process(self.pid(), signal);
    }

    /// To the keeper and its broker process.
    pub(crate) fn signal_both(&self, signal: Signal) {
        let broker = self.broker_pid();
        self.signal(signal);
        signal_process(broker, signal);
    }

    /// The child of the keeper that runs with the same arguments, as soon as there is one.
    pub(crate) fn broker_pid(&self) -> u32 {
        let keeper = self.pid();
        let arguments = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut found = None;
        eventually("there is a broker process", || {
            // A program that has only just begun may have none yet.
            let of_keeper = arguments(keeper);
            found = children(keeper).into_iter().find(|pid| arguments(*pid) == of_keeper);
            found.is_some() && !of_keeper.is_empty()
        });
        found.unwrap()
    }

    /// Kills the broker process; returns when it is gone.
    pub(crate) fn kill_broker(&self) {
        let broker = self.broker_pid();
        signal_process(broker, Signal::KILL);
        eventually("the broker process is gone", || is_gone(broker));
    }

    /// Waits until the process has ended and all that it said is heard.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // Both listeners let go of it at the end of their stream.
                while Arc::strong_count(&self.said) > 1 && Instant::now() < end {
                    std::thread::yield_now();
                }
                return status;
            }
            assert!(Instant::now() < end, "it does not end:\n{:?}\n{}", self.heard().last(), self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // Its workers die with it (PDEATHSIG).
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if self.judged && !std::thread::panicking() {
            trace::promises_are_kept(self.folder.path());
        }
    }
}

trait ArgIf {
    fn arg_if(&mut self, wanted: bool, folder: &TempDir) -> &mut Self;
}

impl ArgIf for Command {
    fn arg_if(&mut self, wanted: bool, folder: &TempDir) -> &mut Self {
        if wanted { self.arg("--socket").arg(socket(folder)) } else { self }
    }
}

pub(crate) fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("app.sock")
}

fn listen(
    stream: impl std::io::Read + Send + 'static,
    said: &Arc<Said>,
    take: impl Fn(&mut (Vec<Value>, String), &str) + Send + 'static,
) {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            take(&mut said.heard.lock().unwrap(), &line);
            said.more.notify_all();
        }
        said.more.notify_all();
    });
}

/// How many events of that name there are. One is told again, by its number, if whoever told it was killed before it
/// could note that.
pub(crate) fn named(log: &[Value], name: &str) -> usize {
    let events = log.iter().filter(|event| event["event"] == name);
    let (numbered, others): (Vec<_>, Vec<_>) = events.partition(|event| event["seq"].is_u64());
    let numbers: BTreeSet<u64> = numbered.iter().filter_map(|event| event["seq"].as_u64()).collect();
    numbers.len() + others.len()
}

/// The lines that workers wrote.
pub(crate) fn lines(log: &[Value]) -> Vec<String> {
    let of_workers = log.iter().filter(|event| event["event"] == "worker_output");
    of_workers.map(|event| event["line"].as_str().unwrap().to_owned()).collect()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn fill(config: &str, folder: &Path) -> String {
    config
        .replace("BIN", BIN)
        .replace("WORKER", worker().to_str().unwrap())
        .replace("FOLDER", folder.to_str().unwrap())
}

/// The misbehaving worker, beside the binary.
pub(crate) fn worker() -> PathBuf {
    let path = Path::new(BIN).with_file_name("test-worker");
    assert!(path.exists(), "{} is missing: build it with `cargo build --workspace --bins`", path.display());
    path
}

pub(crate) fn signal_process(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

pub(crate) fn children(pid: u32) -> BTreeSet<u32> {
    let read = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    read.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The process is gone and reaped, or a zombie of somebody else.
pub(crate) fn is_gone(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// Waits for what no event tells.
pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until it is what it was; says what it is instead.
pub(crate) fn until_it_is<T: PartialEq + Debug>(expected: &T, mut now: impl FnMut() -> T) {
    let end = Instant::now() + PATIENCE;
    loop {
        let is = now();
        if is == *expected {
            return;
        }
        assert!(Instant::now() < end, "instead of {expected:?} it stays {is:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port that is free and no other test's, and is none that the kernel gives to clients (ip(7), `ip_local_port_range`): on
/// a machine under load it would be taken by the time it is asked for.
pub(crate) fn free_port() -> u16 {
    let is_free = |port: u16| {
        // By a name that the kernel has once for each network.
        let name = SocketAddr::from_abstract_name(format!("shiftboss-test-port-{port}")).unwrap();
        let ours = UnixListener::bind_addr(&name).ok()?;
        std::net::TcpListener::bind(("0.0.0.0", port)).ok()?;
        let mut held = PORTS.lock().unwrap();
        held.push_back(ours);
        let more = held.len().saturating_sub(PORTS_AT_ONCE);
        held.drain(..more);
        Some(port)
    };
    // The seed of each is another one.
    let any = || BuildHasher::hash_one(&RandomState::new(), 0);
    (0..1000).find_map(|_| is_free(10_000 + u16::try_from(any() % 20_000).unwrap())).unwrap()
}

/// By another process: whatever this one starts at the moment would have the file open for writing, too, and nobody could
/// run it (execve(2), ETXTBSY).
pub(crate) fn copy(from: impl AsRef<Path>, to: &Path) {
    assert!(Command::new("cp").args([from.as_ref(), to]).status().unwrap().success());
}

pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_shiftboss");
/// A machine under load is slow; nothing takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names of the ports that this process has asked for last: more than it uses at a time.
static PORTS: Mutex<VecDeque<UnixListener>> = Mutex::new(VecDeque::new());
const PORTS_AT_ONCE: usize = 100;

/// As the keeper has it.
const SAME_SIGNAL: Duration = Duration::from_millis(200);
