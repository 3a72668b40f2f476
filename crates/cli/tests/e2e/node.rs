//! Programs written for Node's `cluster`, unmodified: what each of the protocol's 50 checks asks for, with every Node that
//! is there: those of `SHIFTBOSS_TEST_NODES` (paths, a colon between; `cargo xtask test` gets them), else the one in `PATH`;
//! shared and in round-robin where that makes a difference.
//!
//! | check | where |
//! |---|---|
//! | 1, 16 to 20, 46, 48 to 50 | `talks` |
//! | 2 to 6, 9 to 15, 44, 45, 47 | `listens` |
//! | 7, 8 | `paths` |
//! | 21 to 30 | `leaves`; those that are not intentional (22) end all the same: a worker that leaves with 0 has done its work |
//! | 31, 35 | `handles` |
//! | 32 | `hung`: a real worker refuses each transmission, and hears what comes later; the numbers are `shiftboss-channel`'s (`outgoing`) |
//! | 33, 34 | not offered: nothing sends a descriptor to a worker but what answers its own questions, and connections |
//! | 36, 37 | `turns` |
//! | 38 | `tls` |
//! | 39 | 2 in `listens`, 16 and 19 in `talks`, 24 in `leaves`; all values in `crates/channel/tests/node.rs` |
//! | 40, 41 | `okanjo` |
//! | 42, 43 | `standby` |
//!
//! What differs from Node's own primary on purpose: a listener stays open when nobody holds it (7, 15), and workers outlive
//! the broker process, not its keeper (30). Beyond the checks: `adoption` (the broker process is killed in the midst of it),
//! `kill_points` (at each point of its own), `expected` (of whom what is), `recycles` (under load), `hung` (event loops that do not turn), `hostile` (what
//! cannot be said), `starts` (programs that cannot start, and what a command is taken for).

mod adoption;
mod expected;
mod handles;
mod hostile;
mod hung;
mod kill_points;
mod leaves;
mod listens;
mod okanjo;
mod paths;
mod recycles;
mod standby;
mod starts;
mod talks;
mod tls;
mod turns;

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::app::*;

/// A Node that is there.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    path: String,
    version: String,
}

impl Node {
    fn at(path: &str) -> Option<Node> {
        let said = Command::new(path).arg("--version").output().ok()?;
        let version = text(&said.stdout).trim().trim_start_matches('v').to_owned();
        Some(Node { path: path.to_owned(), version })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// 18, 20, 22, 24.
    pub(crate) fn line(&self) -> u32 {
        self.version.split('.').next().unwrap().parse().unwrap()
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.version)
    }
}

fn nodes() -> Vec<Node> {
    let given = std::env::var("SHIFTBOSS_TEST_NODES").unwrap_or_default();
    let given = given.split(':').filter(|path| !path.is_empty()).filter_map(Node::at);
    let mut nodes: Vec<Node> = given.collect();
    if nodes.is_empty() {
        nodes.extend(Node::at("node"));
    }
    if nodes.is_empty() {
        println!("no node is there: nothing was tried");
    }
    nodes
}

/// Tries it with each Node, one after the other: for what takes all there is of the machine.
pub(crate) fn each_alone(test: impl Fn(&Node)) {
    for node in nodes() {
        println!("with {node}");
        test(&node);
    }
}

/// Tries it with each Node, side by side.
pub(crate) fn each(test: impl Fn(&Node) + Sync) {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let nodes = nodes();
    std::thread::scope(|scope| {
        let running: Vec<_> = nodes
            .iter()
            .map(|node| {
                let of = std::thread::Builder::new().name(format!("{name}::node{}", node.line()));
                of.spawn_scoped(scope, || test(node)).unwrap()
            })
            .collect();
        let failed: Vec<_> = running
            .into_iter()
            .zip(&nodes)
            .filter_map(|(one, node)| Some((one.join().err()?, node)))
            .collect();
        let names: Vec<_> = failed.iter().map(|(_, node)| node.to_string()).collect();
        assert!(failed.is_empty(), "with {}", names.join(", "));
    });
}

/// The same in each way to spread connections.
pub(crate) fn each_way(test: impl Fn(&Node, Balance) + Sync) {
    each(|node| BALANCES.iter().for_each(|balance| test(node, *balance)));
}

/// How connections are spread over workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Balance(&'static str);

/// All ways that a Node program can be given.
const BALANCES: &[Balance] = &[SHARED, ROUND_ROBIN, LANES];
/// One queue for all.
pub(crate) const SHARED: Balance = Balance("shared");
/// One after the other.
pub(crate) const ROUND_ROBIN: Balance = Balance("round-robin");
/// A queue for each slot.
pub(crate) const LANES: Balance = Balance("lanes");

impl Balance {
    /// What a broker is to be told so that a port is listened on so.
    pub(crate) fn of(self, port: u16) -> String {
        match self {
            // Nobody has to declare it.
            SHARED => String::new(),
            Balance(how) => format!("listen = [{{ address = \"tcp://:{port}\", balance = \"{how}\" }}]\n"),
        }
    }
}

/// A ladder for workers that leave when they are told, however long they are not run between closing their channel and their
/// end: after a second of that the next rung comes, which is nothing to them.
pub(crate) const PATIENT: &str =
    "stop = [{ message = \"suicide\", wait = \"30s\" }, { signal = \"CONT\", wait = \"30s\" }]\n";

/// Workers of one type, `web`, that run one program.
pub(crate) struct Cluster {
    pub(crate) app: App,
}

impl Cluster {
    /// Workers that do what they are told; ready.
    pub(crate) fn asked(node: &Node, workers: u32, more: &str) -> Cluster {
        Cluster::ready(node, &["asked.js"], workers, &format!("ready = \"notify\"\n{more}"))
    }

    /// Workers that run this program, ready.
    pub(crate) fn ready(node: &Node, program: &[&str], workers: u32, more: &str) -> Cluster {
        let cluster = Cluster::of(node, program, workers, more);
        cluster.app.until_event("app_ready", 1);
        cluster
    }

    pub(crate) fn of(node: &Node, program: &[&str], workers: u32, more: &str) -> Cluster {
        let script = programs().join(program[0]);
        let words = [&node.path, script.to_str().unwrap()].into_iter().chain(program[1..].iter().copied());
        let command: Vec<&str> = words.collect();
        Cluster {
            app: App::of(&format!(
                "app = \"node\"\n[broker.web]\ncommand = {command:?}\nkind = \"node\"\nworkers = {workers}\n\
                 backoff = {{ base = \"50ms\", cap = \"400ms\" }}\n{more}\n"
            )),
        }
    }

    /// What comes of this in the worker of that slot: what it returns, or the members of what it throws.
    pub(crate) fn told(&self, slot: u32, script: &str) -> Result<Value, Value> {
        self.told_by(&format!("web/{slot}"), script)
    }

    /// The same in any worker.
    pub(crate) fn told_by(&self, worker: &str, script: &str) -> Result<Value, Value> {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let message = json!({"number": number, "told": script}).to_string();
        let sent = self.app.ask(&["send", worker, &message]);
        // Whoever kills the broker process was told, though nobody is left to say so.
        let said = text(&sent.stderr);
        assert!(sent.status.success() || said.contains("was lost before it said whom it has told"), "{said}");
        self.answer(script, number)
    }

    fn answer(&self, script: &str, number: u64) -> Result<Value, Value> {
        let mut answer = Value::Null;
        self.app.until(script, |log| {
            let found = lines(log)
                .iter()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| line["number"] == number);
            answer = found.unwrap_or_default();
            !answer.is_null()
        });
        match answer.get("threw") {
            Some(threw) => Err(threw.clone()),
            None => Ok(answer["done"].clone()),
        }
    }

    /// The same, which must not throw.
    #[track_caller]
    pub(crate) fn tell(&self, slot: u32, script: &str) -> Value {
        self.told(slot, script).unwrap_or_else(|threw| panic!("{script}: {threw}"))
    }

    /// What the first `workers` slots answer.
    #[track_caller]
    pub(crate) fn tell_all(&self, workers: u32, script: &str) -> Vec<Value> {
        (0..workers).map(|slot| self.tell(slot, script)).collect()
    }

    /// The last event of that name, as soon as there are so many.
    pub(crate) fn event(&self, name: &str, times: usize) -> Value {
        let log = self.app.until_event(name, times);
        log.into_iter().rfind(|event| event["event"] == name).unwrap()
    }
}

/// For tests under load: one at a time, whichever process runs it, or the machine is all that they try.
pub(crate) fn alone() -> File {
    let file = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("one-load-at-a-time")).unwrap();
    file.lock().unwrap();
    file
}

/// `GET` on a connection of its own; the body.
pub(crate) fn get(at: impl ToSocketAddrs, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    body(&mut stream)
}

/// A client that has asked but for the last line.
pub(crate) fn half_asked(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n").unwrap();
    stream
}

/// Whether a connection from that port is more than one in a queue: then it has an inode (proc_net_tcp).
pub(crate) fn is_accepted(port: u16, from: u16) -> bool {
    let ends = (format!(":{port:04X}"), format!(":{from:04X}"));
    ["tcp", "tcp6"].into_iter().any(|table| {
        let table = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        table.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.len() > 9 && words[1].ends_with(&ends.0) && words[2].ends_with(&ends.1) && words[9] != "0"
        })
    })
}

/// The body of an answer, up to the end of the connection.
pub(crate) fn body(stream: &mut impl io::Read) -> io::Result<String> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    // Node sends it in chunks unless it knows the length.
    Ok(body.lines().find(|line| line.starts_with("worker")).unwrap_or(body).to_owned())
}

pub(crate) fn programs() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/programs/node")
}

static NUMBERS: AtomicU64 = AtomicU64::new(1);
