//! Those who ask: too many of them, too slow ones, again and again; and what earlier runs have left.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::process::Signal;

use super::*;
use crate::faults_of_keeper_and_broker::folder_with;

#[test]
fn after_every_kill_the_next_run_starts_in_the_same_place() {
    let folder = folder_with(&sleepers(2, ", \"--fork-child\""));
    let (file, socket) = (folder.path().join("shiftboss.toml"), folder.path().join("app.sock"));
    let words = ["run", "-c", file.to_str().unwrap(), "--socket", socket.to_str().unwrap()];
    let started = || {
        let app = App::started(tempfile::tempdir().unwrap(), &words, |_| {});
        app.until_event("app_ready", 1);
        app
    };
    let runs = times(4, 200);
    for _ in 0..runs {
        let mut app = started();
        // A second one is refused while this one lives.
        let other = std::process::Command::new(BIN).args(words).output().unwrap();
        assert!(!other.status.success() && text(&other.stderr).contains(&app.pid().to_string()));
        app.signal(Signal::KILL);
        app.ended();
    }
    // Nor is anything of its workers left.
    assert!(started().stop().0.success());
    println!("seen: {runs} runs, each killed, each next one started");
}

#[test]
fn clients_that_say_nothing_or_little_keep_nobody_from_asking() {
    let app = App::ready(&sleepers(2, ""));
    let mut clients: Vec<UnixStream> = Vec::new();
    for number in 0..600 {
        let Ok(mut client) = UnixStream::connect(app.socket()) else { break };
        if number % 2 == 0 {
            let _ = client.write_all(b"GET /v1/st");
        }
        clients.push(client);
        if number % 50 == 0 {
            app.does(&["status"]);
        }
    }
    let mut waits = Vec::new();
    for _ in 0..times(3, 100) {
        let asked = Instant::now();
        app.does(&["status"]);
        waits.push(i128::try_from(asked.elapsed().as_millis()).unwrap());
        for client in clients.iter_mut().step_by(2) {
            let _ = client.write_all(b"a");
        }
    }
    waits.sort_unstable();
    seen("status with 600 silent and slow clients", &waits);
    app.does(&["recycle", "web"]);
    // Those who ask much and never read.
    let mut readers: Vec<UnixStream> = Vec::new();
    for _ in 0..100 {
        let mut reader = UnixStream::connect(app.socket()).unwrap();
        let _ = reader.write_all(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n");
        readers.push(reader);
    }
    app.does(&["recycle", "web"]);
    app.does(&["status"]);
    let mut some = [0; 10];
    assert!(readers[0].read(&mut some).unwrap() > 0);
}

#[test]
fn recycles_of_workers_that_never_leave_do_not_heap_up() {
    let config = sleepers(2, ", \"--ignore-term\"")
        + "stop = [{ signal = \"TERM\", wait = \"10m\" }, { signal = \"KILL\" }]\n";
    let mut app = App::ready(&config);
    let recycles = times(20, 200);
    let mut most = 0;
    for _ in 0..recycles {
        app.ask(&["recycle", "web", "--no-wait"]);
        most = most.max(children(app.pid()).len());
    }
    eventually("its processes are all shown", || {
        let shown: BTreeSet<u32> = all_pids(&app).into_iter().chain([app.broker_pid()]).collect();
        most = most.max(shown.len());
        children(app.pid()) == shown
    });
    println!("seen: at most {most} processes in {recycles} recycles of two workers that never leave");
    assert!(most <= 64, "{most}");
    app.signal(Signal::TERM);
    app.until("they are told", |log| named(log, "app_stopping") > 0);
    app.signal_again(Signal::TERM);
    assert!(app.ended().success());
}
