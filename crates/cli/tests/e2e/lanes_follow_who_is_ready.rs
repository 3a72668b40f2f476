//! `balance = "lanes"`: each slot has a queue of its own, and new connections come only to those whose worker is ready.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::app::*;
use crate::load::*;
use crate::nothing_is_left_behind::descriptors;
use crate::ready_before_retire::web;

fn lanes(port: u16) -> String {
    let shared = format!("[\"tcp://127.0.0.1:{port}\"]");
    let lanes = format!(
        "[{{ name = \"web\", address = \"tcp://127.0.0.1:{port}\", balance = \"lanes\" }}]\ndrained = \"refuse\""
    );
    let config = web(port);
    assert!(config.contains(&shared));
    config.replace(&shared, &lanes)
}

/// A client that has asked, and has no answer yet.
fn client(port: u16) -> TcpStream {
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: e2e\r\nConnection: close\r\n\r\n").unwrap();
    client
}

fn is_served(client: &mut TcpStream, within: Duration) -> bool {
    client.set_read_timeout(Some(within)).unwrap();
    let mut answer = [0; 15];
    match client.read_exact(&mut answer) {
        Ok(()) => answer.starts_with(b"HTTP/1.1 200"),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

/// Stops a process; returns once it does nothing more.
fn stop(worker: u32) {
    signal_process(worker, Signal::STOP);
    eventually("each of its threads has stopped", || {
        let mut threads = std::fs::read_dir(format!("/proc/{worker}/task")).unwrap().flatten();
        threads.all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    });
}

/// How many wait in this worker's lane, its first listener (sd_listen_fds(3), proc_net_tcp); nobody once it has left.
fn queued(worker: u32) -> usize {
    let Ok(lane) = std::fs::read_link(format!("/proc/{worker}/fd/3")) else { return 0 };
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| lane.as_os_str() == format!("socket:[{}]", row[9]).as_str());
    row.map_or(0, |row| usize::from_str_radix(row[4].split_once(':').unwrap().1, 16).unwrap())
}

fn all_are_served(port: u16) {
    let mut clients: Vec<TcpStream> = (0..60).map(|_| client(port)).collect();
    assert!(clients.iter_mut().all(|client| is_served(client, Duration::from_secs(30))));
}

/// Kills whoever is in this slot, when it cannot be replaced: what waited for it waits, whoever comes is served.
fn kill_one(app: &App, port: u16, slot: u32, before: impl FnOnce()) {
    let deaths = named(&app.log(), "worker_death");
    let worker = app.workers().into_iter().find(|worker| worker.slot == Some(slot)).unwrap().pid.unwrap();
    stop(worker);
    let mut waiting: Vec<TcpStream> = (0..60).map(|_| client(port)).collect();
    eventually("all are served but those in its lane", || {
        waiting.retain_mut(|client| !is_served(client, Duration::from_millis(1)));
        waiting.len() == queued(worker)
    });
    assert!(waiting.len() > 2 && waiting.len() < 40, "{} of 60 are in the lane of one of 4", waiting.len());
    std::fs::write(app.path("version"), "broken").unwrap();
    signal_process(worker, Signal::KILL);
    app.until_event("worker_death", deaths + 1);
    before();
    all_are_served(port);
    assert!(waiting.iter_mut().all(|client| !is_served(client, Duration::from_millis(1))));
    std::fs::write(app.path("version"), "good").unwrap();
    assert!(waiting.iter_mut().all(|client| is_served(client, Duration::from_secs(30))));
    app.does(&["wait", "web", "--for", "ready"]);
}

#[test]
fn who_waits_for_a_worker_that_dies_is_served_by_its_successor_and_others_go_elsewhere_at_once() {
    let port = free_port();
    let app = App::ready(&lanes(port));
    kill_one(&app, port, 2, || {});
    kill_one(&app, port, 0, || {});
    // The same across the death of the broker process.
    kill_one(&app, port, 1, || app.kill_broker());
    kill_one(&app, port, 3, || {});
    let (status, _) = app.stop();
    assert!(status.success());
}

#[test]
fn lanes_are_recycled_scaled_and_adopted_under_load_and_no_request_is_lost() {
    let port = free_port();
    let app = App::ready(&lanes(port));
    let mut load = Load::on(port, &["--rate", "400"]);
    for wanted in ["2", "4", "1", "5", "4"] {
        app.does(&["recycle", "web"]);
        load.a_second();
        app.does(&["scale", "web", wanted]);
        load.a_second();
        app.kill_broker();
        app.does(&["wait", "web", "--for", "ready"]);
        load.a_second();
    }
    let before = [descriptors(app.pid()), descriptors(app.broker_pid())];
    app.does(&["recycle", "web"]);
    none_lost(&load.end());
    until_it_is(&before, || [descriptors(app.pid()), descriptors(app.broker_pid())]);
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!(named(&log, "worker_death"), 0);
}

fn slow_to_leave(port: u16) -> App {
    App::ready(
        &lanes(port)
            .replace("[\"BIN\", \"demo-worker\"]", "[\"WORKER\", \"--http\", \"--ready\", \"notify\"]"),
    )
}

#[test]
fn whoever_is_scaled_away_takes_what_waits_in_its_lane_first() {
    // It has two seconds for that, which a busy machine may take for something else.
    let in_time = (0..10).any(|_| {
        let port = free_port();
        let app = slow_to_leave(port);
        let worker = app.workers().into_iter().find(|worker| worker.slot == Some(3)).unwrap().pid.unwrap();
        stop(worker);
        let mut clients: Vec<TcpStream> = (0..60).map(|_| client(port)).collect();
        let scaled = Instant::now();
        app.does(&["scale", "web", "3", "--no-wait"]);
        app.until_event("worker_stopping", 1);
        // Whoever comes from now on goes elsewhere.
        let mut others: Vec<TcpStream> = (0..20).map(|_| client(port)).collect();
        assert!(others.iter_mut().all(|client| is_served(client, Duration::from_secs(30))));
        signal_process(worker, Signal::CONT);
        eventually("its lane is empty", || queued(worker) == 0);
        if scaled.elapsed() > Duration::from_millis(1900) {
            return false;
        }
        assert!(clients.iter_mut().all(|client| is_served(client, Duration::from_secs(30))));
        app.until_event("worker_ended", 1);
        true
    });
    assert!(in_time, "never within two seconds");
}

#[test]
fn what_waits_in_the_lane_of_one_that_never_takes_it_is_reset_and_that_is_said() {
    let port = free_port();
    let app = slow_to_leave(port);
    let worker = app.workers().into_iter().find(|worker| worker.slot == Some(3)).unwrap().pid.unwrap();
    stop(worker);
    let mut clients: Vec<TcpStream> = (0..60).map(|_| client(port)).collect();
    app.does(&["scale", "web", "3", "--no-wait"]);
    app.until_event("worker_stopping", 1);
    // It may be gone by now: what tells it to leave wakes it.
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_raw(worker.cast_signed()).unwrap(),
        Signal::KILL,
    );
    let outcomes: Vec<_> = clients.iter_mut().map(|client| client.read_exact(&mut [0; 15])).collect();
    let reset = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert!(reset > 2 && reset < 40, "{reset} of 60 were in the lane of one of 4");
    app.until_event("worker_ended", 1);
    let said = format!("{reset} connections were reset");
    app.until(&said, |log| log.iter().any(|line| line.to_string().contains(&said)));
}

#[test]
fn drained_lanes_refuse_and_serve_again_after_resume() {
    let port = free_port();
    let app = App::ready(&lanes(port));
    for _ in 0..2 {
        app.does(&["drain", "web"]);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_err());
        app.kill_broker();
        app.does(&["resume", "web"]);
        all_are_served(port);
    }
    kill_one(&app, port, 1, || {});
}

#[test]
fn a_plain_program_is_seen_to_accept_from_its_lane() {
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/programs/plain.py");
    std::fs::copy(program, folder.path().join("plain.py")).unwrap();
    let file = folder.path().join("shiftboss.toml");
    let config = format!(
        r#"
        app = "e2e"
        [broker.web]
        command = ["python3", "plain.py"]
        kind = "plain"
        workers = 3
        listen = [{{ address = "tcp://:{port}", balance = "lanes" }}]
        cwd = "{}"
        "#,
        folder.path().display()
    );
    std::fs::write(&file, config).unwrap();
    let app = App::started(folder, &["run", "-c", file.to_str().unwrap()], |_| {});
    app.until_event("app_ready", 1);
    let mut load = Load::on(port, &[]);
    app.does(&["recycle", "web"]);
    app.does(&["scale", "web", "2"]);
    load.a_second();
    none_lost(&load.end());
    let (status, _) = app.stop();
    assert!(status.success());
}
