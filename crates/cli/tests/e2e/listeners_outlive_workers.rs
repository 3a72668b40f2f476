//! The listening socket outlives every worker: nobody is refused because workers come and go.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::app::*;
use crate::ready_before_retire::web;

fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: e2e\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn clients_that_come_while_no_worker_lives_are_served_by_the_next_one() {
    let port = free_port();
    let app = App::ready(&web(port));
    std::fs::write(app.path("version"), "broken").unwrap();
    for pid in app.pids() {
        signal_process(pid, Signal::KILL);
    }
    app.until("nobody lives", |log| named(log, "worker_death") >= 8);
    let mut clients: Vec<TcpStream> =
        (0..50).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    std::fs::write(app.path("version"), "good").unwrap();
    for client in &mut clients {
        assert!(ask(client).starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn a_program_that_blocks_for_connections_is_seen_and_answers_at_once() {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    if !["", "0"].contains(&scope.trim()) {
        eprintln!("skipped: who is no ancestor may not trace here");
        return;
    }
    let brokers = [
        ("accept", "pass"),
        ("poll", "p = select.poll(); p.register(3, select.POLLIN); p.poll()"),
        ("select", "select.select([3], [], [])"),
    ];
    let ports = brokers.map(|_| free_port());
    let config = brokers.iter().zip(ports).map(|((name, wait), port)| {
        let script = format!(
            "import select, socket\nlistener = socket.socket(fileno=3)\nwhile True:\n    {wait}\n    \
             client = listener.accept()[0]\n    \
             client.send(b'%d' % client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))"
        );
        let balance = if *name == "select" { "lanes" } else { "shared" };
        format!(
            "[broker.{name}]\ncommand = [\"python3\", \"-c\", {script:?}]\n\
             listen = [{{ address = \"tcp://:{port}\", balance = \"{balance}\" }}]\n"
        )
    });
    let app = App::of(&format!("app = \"e2e\"\n{}", config.collect::<String>()));
    let log = app.until_event("app_ready", 1);
    assert_eq!(named(&log, "worker_started"), 3, "none was given up");
    for port in ports {
        let mut answer = [0];
        TcpStream::connect(("127.0.0.1", port)).unwrap().read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"1", "TCP_NODELAY");
    }
}

#[test]
fn a_drained_broker_refuses_keeps_its_port_and_serves_again_after_resume() {
    let port = free_port();
    let app = App::ready(&web(port));
    let said = app.does(&["drain", "web"]);
    assert!(said.contains("Drained web"), "{said}");
    assert_eq!(app.pids(), Vec::<u32>::new());
    assert_eq!(TcpStream::connect(("127.0.0.1", port)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    // The standard library's listener sets SO_REUSEADDR.
    assert_eq!(std::net::TcpListener::bind(("127.0.0.1", port)).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(app.status().brokers[0].state, shiftboss_api::BrokerState::Drained);
    app.does(&["resume", "web"]);
    assert!(ask(&mut TcpStream::connect(("127.0.0.1", port)).unwrap()).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_held_broker_keeps_its_clients_waiting() {
    let port = free_port();
    let app = App::ready(&web(port).replace("[broker.web]", "[broker.web]\ndrained = \"hold\""));
    app.does(&["drain", "web"]);
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "it waits");
    client.set_read_timeout(None).unwrap();
    app.does(&["resume", "web"]);
    assert!(ask(&mut client).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_unix_path_is_served_drained_and_resumed() {
    let app = App::ready(
        r#"
        app = "e2e"
        [broker.local]
        command = ["WORKER", "--http", "--ready", "notify"]
        kind = "notify"
        listen = ["unix://FOLDER/s.sock"]
        "#,
    );
    let path = app.path("s.sock");
    is_served(&path);
    app.does(&["drain", "local"]);
    assert!(UnixStream::connect(&path).is_err());
    app.does(&["resume", "local"]);
    is_served(&path);
    let (status, _) = app.stop();
    assert!(status.success());
    assert!(!path.exists());
}

fn is_served(path: &Path) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("ok"), "{answer}");
}

fn bound_anew(log: &[Value]) -> usize {
    let is = |event: &&Value| event["text"].as_str().is_some_and(|text| text.contains("bound anew"));
    log.iter().filter(is).count()
}

#[test]
fn a_unix_path_that_somebody_removes_is_there_again_after_resume_and_recycle() {
    let port = free_port();
    let app = App::ready(&format!(
        "app = \"e2e\"\n[broker.local]\ncommand = [\"WORKER\", \"--http\", \"--ready\", \"notify\"]\n\
         kind = \"notify\"\nlisten = [\"unix://FOLDER/s.sock\", \"tcp://127.0.0.1:{port}\"]\n"
    ));
    let path = app.path("s.sock");
    app.does(&["drain", "local"]);
    std::fs::remove_file(app.path(".s.sock.drained")).unwrap();
    app.does(&["resume", "local"]);
    is_served(&path);
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::fs::remove_file(&path).unwrap();
    app.does(&["recycle", "local"]);
    is_served(&path);
    // A successor has what was bound last.
    app.kill_broker();
    app.until_event("broker_adopted", 1);
    is_served(&path);
    app.does(&["recycle", "local"]);
    is_served(&path);
    // Nobody has it at once.
    std::fs::remove_file(&path).unwrap();
    app.does(&["drain", "local"]);
    let stranger = UnixListener::bind(&path).unwrap();
    assert!(!app.ask(&["resume", "local", "--timeout", "1s"]).status.success());
    drop(stranger);
    app.does(&["resume", "local"]);
    is_served(&path);
    assert_eq!(bound_anew(&app.stop().1), 3);
    assert!(!path.exists());
}

/// It takes no connection, and does this when it is asked to leave.
fn idle(leaving: &str) -> App {
    idle_with(leaving, |_| {})
}

fn idle_with(leaving: &str, prepare: impl FnOnce(&mut Command)) -> App {
    let script = format!(
        "import os, select, signal, socket\nlistener = socket.socket(fileno=3)\n\
         def leave(*_):\n    {leaving}\n    os._exit(0)\nsignal.signal(signal.SIGTERM, leave)\n\
         waits = select.epoll()\nwaits.register(3, select.EPOLLIN)\nwhile True: signal.pause()"
    );
    let config = format!(
        "app = \"e2e\"\n[broker.local]\ncommand = [\"python3\", \"-c\", {script:?}]\n\
         listen = [\"unix://FOLDER/s.sock\"]\n"
    );
    let app = App::with(&config, prepare);
    app.until_event("app_ready", 1);
    app
}

#[test]
fn a_unix_socket_that_a_worker_shuts_is_bound_anew() {
    let app = idle("listener.shutdown(socket.SHUT_RDWR)");
    app.does(&["recycle", "local"]);
    eventually("clients are let in", || UnixStream::connect(app.path("s.sock")).is_ok());
    app.until("that is said", |log| bound_anew(log) == 1);
    app.does(&["drain", "local"]);
    app.does(&["resume", "local"]);
    UnixStream::connect(app.path("s.sock")).unwrap();
    assert_eq!(bound_anew(&app.until_event("worker_ready", 3)), 1);
}

#[test]
fn whoever_waits_at_a_unix_path_that_is_drained_is_turned_away_and_counted() {
    let app = idle("pass");
    let mut client = UnixStream::connect(app.path("s.sock")).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    app.does(&["drain", "local"]);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let log = app.until_event("broker_drained", 1);
    assert_eq!(log.iter().find(|event| event["event"] == "broker_drained").unwrap()["refused"], 1);
}

#[test]
fn a_unix_path_that_is_a_strangers_by_now_is_not_taken_by_a_successor() {
    let mut app = idle("pass");
    let path = app.path("s.sock");
    std::fs::remove_file(&path).unwrap();
    let _stranger = UnixListener::bind(&path).unwrap();
    app.kill_broker();
    app.until_event("broker_adopted", 1);
    app.does(&["drain", "local"]);
    UnixStream::connect(&path).unwrap();
    assert!(!app.ask(&["resume", "local", "--timeout", "1s"]).status.success(), "it is in use");
    app.signal(Signal::TERM);
    app.ended();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn whoever_waits_at_a_unix_path_is_turned_away_if_the_broker_process_dies_right_after_it_was_renamed() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("points");
    let app = idle_with("pass", |command| {
        command.env("SHIFTBOSS_KILL_LOG", &log).env("SHIFTBOSS_KILL_AT", "a path was renamed away");
    });
    let mut client = UnixStream::connect(app.path("s.sock")).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    app.does(&["drain", "local"]);
    app.until_event("broker_adopted", 1);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let log = app.until_event("broker_drained", 1);
    assert_eq!(log.iter().find(|event| event["event"] == "broker_drained").unwrap()["refused"], 1);
}
