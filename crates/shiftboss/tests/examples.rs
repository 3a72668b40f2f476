//! The examples, run as their users run them.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

fn example(name: &str) -> Command {
    let folder: PathBuf = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples");
    let mut command = Command::new(folder.join(name));
    command.stdout(Stdio::piped());
    command
}

fn output_of(name: &str) -> Vec<String> {
    let output = example(name).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn rest(mut lines: impl BufRead) -> String {
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    rest
}

#[test]
fn seed_prints_what_the_seeds_example_prints() {
    let mut seed = example("seed").spawn().unwrap();
    let mut lines = BufReader::new(seed.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    assert_eq!(first, "Start the server here...\n");
    signal(&seed, Signal::TERM);
    assert_eq!(rest(lines), "Stop the server here...\n");
    assert!(seed.wait().unwrap().success());
}

#[test]
fn two_types_run_in_one_app() {
    let lines = output_of("two_types");
    assert!(lines[0].contains("of jobs: {\"jobs\":1,\"type\":\"ops\"}"), "{lines:?}");
    assert_eq!(lines[1..], ["recycled api: 2 workers", "both brokers have ended"]);
}

#[test]
fn messages_go_both_ways() {
    let mut lines = output_of("messages");
    lines.sort();
    assert_eq!(
        lines,
        [
            "the broker says: \"hello\" to worker 1",
            "the broker says: \"hello\" to worker 2",
            "told 2 workers",
            "worker 1 squares 12: 144",
            "worker 1: is some information",
            "worker 2 squares 12: 144",
            "worker 2: is some information",
        ]
    );
}

#[test]
fn extensions_are_asked() {
    assert_eq!(
        output_of("extend"),
        [
            "worker 1 makes way for worker 2",
            "recycled: 1 worker, all that were asked had a colour",
            "worker 1 has ended",
            "the recycle was stopped: the new worker was refused by a hook",
        ]
    );
}

#[test]
fn keeper_outlives_its_broker_process_with_the_same_workers() {
    let mut keeper = example("keeper").spawn().unwrap();
    let mut lines = BufReader::new(keeper.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let (process, workers) = line.trim().split_once(": ").unwrap();
        (process.rsplit(' ').next().unwrap().parse::<i32>().unwrap(), workers.to_owned())
    };
    let (process, workers) = next();
    kill_process(Pid::from_raw(process).unwrap(), Signal::KILL).unwrap();
    let (successor, same) = next();
    assert_ne!(process, successor);
    assert_eq!(workers, same);
    signal(&keeper, Signal::TERM);
    assert!(keeper.wait().unwrap().success());
}

#[test]
fn http_answers_across_kills_and_ends_gracefully() {
    // None that the kernel gives to clients (ip(7), `ip_local_port_range`), and by its name no other test's.
    let from = 10_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    let is_free = |port: u16| {
        let name = SocketAddr::from_abstract_name(format!("shiftboss-test-port-{port}")).unwrap();
        let ours = UnixListener::bind_addr(&name).ok()?;
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| (port, ours))
    };
    let (port, _ours) = (from..).find_map(is_free).unwrap();
    let mut http = example("http").arg(format!("tcp://127.0.0.1:{port}")).spawn().unwrap();
    let mut lines = BufReader::new(http.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    assert_eq!(first, "ready\n");
    for _ in 0..20 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("hello from worker"), "{answer}");
    }
    signal(&http, Signal::TERM);
    let until = Instant::now() + Duration::from_secs(30);
    while http.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "it does not end");
        std::thread::yield_now();
    }
    assert!(http.wait().unwrap().success());
}
