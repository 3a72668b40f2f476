//! The limit of open files is reached while the app runs, in either process.

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::*;
use crate::nothing_is_left_behind::descriptors;

/// So many more files may be opened by a process than it has open, once it has taken all that it was sent.
fn leave_room_for(pid: u32, files: u64) {
    descriptors(pid);
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let open: BTreeSet<u64> = links.filter_map(|link| link.file_name().to_str()?.parse().ok()).collect();
    let free = (0..).filter(|number| !open.contains(number));
    limit(pid, free.take(files as usize + 1).last());
}

fn limit(pid: u32, files: Option<u64>) {
    let pid = Pid::from_raw(pid.cast_signed());
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current: files.or(maximum), maximum }).unwrap();
}

fn said(app: &App, words: &str) {
    eventually(words, || app.stderr().contains(words));
}

fn both(app: &App) -> [Vec<String>; 2] {
    [descriptors(app.pid()), descriptors(app.broker_pid())]
}

fn all_is_as_it_was(app: &App, before: &[Vec<String>; 2]) {
    app.does(&["scale", "web", "2"]);
    until_it_is(before, || both(app));
    nobody_else_is_there(app);
}

#[test]
fn a_broker_process_without_files_to_open_says_so_and_tries_again_until_it_can() {
    let app = App::ready(&sleepers(2));
    let (pids, before, broker) = (app.pids(), both(&app), app.broker_pid());
    leave_room_for(broker, 6);
    app.does(&["scale", "web", "6", "--no-wait"]);
    let log = app.until("it is said", |log| failed(log).len() >= 8);
    assert!(failed(&log).iter().all(|reason| reason.contains("Too many open files")), "{:?}", failed(&log));
    limit(broker, None);
    app.does(&["wait", "web", "--for", "ready"]);
    assert_eq!(app.pids().len(), 6);
    assert!(app.broker_pid() == broker && pids.iter().all(|pid| app.pids().contains(pid)));
    all_is_as_it_was(&app, &before);
    app.stop();
}

/// Why workers could not be started.
fn failed(log: &[Value]) -> Vec<String> {
    let deaths = log.iter().filter(|event| event["event"] == "worker_death");
    deaths.filter_map(|event| Some(event["reason"].as_str()?.to_owned())).collect()
}

#[test]
fn a_keeper_without_files_to_open_has_the_workers_that_it_cannot_hold_replaced_until_it_can() {
    let app = App::ready(&sleepers(2));
    let (pids, before) = (app.pids(), both(&app));
    leave_room_for(app.pid(), 4);
    app.does(&["scale", "web", "4", "--no-wait"]);
    app.until("it is said", |log| {
        let notes = log.iter().filter_map(|line| line["text"].as_str());
        notes.filter(|text| text.contains("the keeper cannot hold what belongs to worker ")).count() >= 3
    });
    limit(app.pid(), None);
    eventually("all are ready, and stay", || {
        let of_now = app.pids();
        app.status().brokers[0].ready == 4 && of_now.len() == 4 && of_now == app.pids()
    });
    let now = app.pids();
    assert!(pids.iter().all(|pid| now.contains(pid)));
    killed_while(&app, || {});
    until_adopted(&app, 1);
    assert_eq!(app.pids(), now);
    all_is_as_it_was(&app, &before);
    app.stop();
}

#[test]
fn a_worker_whose_descriptors_were_not_held_in_time_is_adopted_all_the_same() {
    let app = App::ready(&sleepers(2));
    let pids = app.pids();
    leave_room_for(app.pid(), 1);
    let broker = app.broker_pid();
    app.signal(Signal::STOP);
    app.does(&["scale", "web", "3", "--no-wait"]);
    app.until_event("worker_ready", 3);
    // It has not heard yet what could not be held.
    signal_process(broker, Signal::STOP);
    app.signal(Signal::CONT);
    said(&app, "cannot hold all descriptors");
    limit(app.pid(), None);
    signal_process(broker, Signal::KILL);
    until_adopted(&app, 1);
    assert!(pids.iter().all(|pid| app.pids().contains(pid)));
    app.does(&["recycle", "web"]);
    nobody_else_is_there(&app);
    app.stop();
}

#[test]
fn a_keeper_that_cannot_start_a_broker_process_tries_again_until_it_can() {
    let app = App::ready(&sleepers(2));
    let pids = app.pids();
    leave_room_for(app.pid(), 0);
    app.kill_broker();
    // The link to the old one makes room for one end of a new one.
    said(&app, "the broker process cannot be started: Too many open files");
    assert!(pids.iter().all(|pid| !is_gone(*pid)));
    limit(app.pid(), None);
    until_adopted(&app, 1);
    assert_eq!(app.pids(), pids);
    app.stop();
}

#[test]
fn an_app_that_cannot_begin_for_want_of_files_says_so_and_ends() {
    for files in 6..18 {
        let limit = format!("--nofile={files}:{files}");
        let mut app = App::unjudged(folder_with(&sleepers(1)), &["run", "-c", "shiftboss.toml"], |command| {
            run_by(command, &["prlimit", &limit, "--"], BIN);
        });
        assert!(!app.ended().success());
        let said = app.stderr();
        assert!(
            said.contains("Too many open files") || said.contains("32 descriptors are"),
            "{files}: {said}"
        );
        assert!(!app.socket().exists() || said.contains("panicked"), "{files}: {said}");
    }
}
