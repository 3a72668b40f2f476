//! `kill -9` of the broker process drops no request, restarts no worker, forgets no command.
//!
//! `SHIFTBOSS_KILLS` says how often the tests under load kill it, by default 10 times each, and `SHIFTBOSS_UPGRADES` how
//! often it is upgraded, by default twice; to and fro with the program that `SHIFTBOSS_OTHER` names, if it does. One that dies more than twice
//! within a second of its beginning is slowed down by its keeper, so they wait between kills.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::app::*;
use crate::load::*;
use crate::nothing_is_left_behind::descriptors;
use crate::ready_before_retire::web;

fn kills() -> u32 {
    std::env::var("SHIFTBOSS_KILLS").ok().map_or(10, |times| times.parse().unwrap())
}

/// A few milliseconds that nobody can foresee.
fn a_moment(seed: u32) -> Duration {
    let mixed = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    Duration::from_micros(mixed % 30_000)
}

fn pause(wait: Duration) {
    let end = Instant::now() + wait;
    eventually("a moment passes", || Instant::now() >= end);
}

/// Kills the broker process at some moment, and every third time its successor while that takes over.
fn kill(app: &App, seed: u32) {
    // It is ready when it answers.
    app.status();
    pause(PROVED + a_moment(seed));
    app.kill_broker();
    if seed.is_multiple_of(3) {
        pause(a_moment(seed + 7) / 2);
        app.kill_broker();
    }
}

/// One that was written, and not noted as written when the broker process was killed, may come again as it was.
fn each_event_came_once(log: &[Value]) {
    let mut events: Vec<&Value> = log.iter().filter(|event| event["seq"].is_u64()).collect();
    let mut known = BTreeSet::new();
    events.retain(|event| known.insert(event.to_string()));
    let seqs: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
}

type State = (Vec<u32>, [Vec<String>; 2]);

/// Its workers, and what both processes have open.
fn state(app: &App) -> State {
    (app.pids(), [descriptors(app.pid()), descriptors(app.broker_pid())])
}

/// No request was lost, nobody was restarted, nothing is left open.
fn nothing_has_changed(app: App, mut load: Load, before: &State) {
    load.a_second();
    none_lost(&load.end());
    until_it_is(before, || state(&app));
    let (status, log) = app.stop();
    assert!(status.success());
    each_event_came_once(&log);
    assert_eq!((named(&log, "worker_started"), named(&log, "worker_death")), (4, 0));
}

#[test]
fn killed_again_and_again_under_load_it_loses_nothing_and_restarts_nobody() {
    let port = free_port();
    let app = App::ready(&web(port));
    let before = state(&app);
    let load = Load::on(port, &["--rate", "1000"]);
    for seed in 0..kills() {
        kill(&app, seed);
    }
    app.does(&["wait", "web", "--for", "ready"]);
    nothing_has_changed(app, load, &before);
}

#[test]
fn killed_while_workers_are_replaced_scaled_and_crash_it_goes_on_with_all_of_it() {
    let port = free_port();
    let app = App::ready(&web(port));
    let before = [descriptors(app.pid()), descriptors(app.broker_pid())];
    let mut load = Load::on(port, &["--rate", "200"]);
    let mut crashes = 0;
    for seed in 0..kills() {
        match seed % 5 {
            0 => drop(app.does(&["recycle", "web", "--no-wait"])),
            2 => drop(app.does(&["scale", "web", "6", "--no-wait"])),
            3 if seed % 10 == 3 => {
                app.does(&["wait", "web", "--for", "ready"]);
                let worker = app.workers().into_iter().find(|worker| worker.state == READY);
                signal_process(worker.unwrap().pid.unwrap(), Signal::KILL);
                crashes += 1;
            }
            4 => drop(app.does(&["scale", "web", "4", "--no-wait"])),
            _ => {}
        }
        kill(&app, seed);
    }
    app.does(&["scale", "web", "4"]);
    app.does(&["recycle", "web"]);
    load.a_second();
    let counts = load.end();
    let kinds: BTreeSet<&str> = counts["by_kind"].as_object().unwrap().keys().map(String::as_str).collect();
    assert!(kinds.is_subset(&BTreeSet::from(["reset", "closed_early", "crossed"])), "{counts}");
    assert!(counts["failed"].as_u64().unwrap() <= 20 * crashes, "{counts}");
    let pids: BTreeSet<u32> = app.pids().into_iter().chain([app.broker_pid()]).collect();
    assert_eq!(children(app.pid()), pids);
    until_it_is(&before, || [descriptors(app.pid()), descriptors(app.broker_pid())]);
    let (status, log) = app.stop();
    assert!(status.success());
    each_event_came_once(&log);
    assert_eq!(named(&log, "worker_death") as u64, crashes);
    assert_eq!(named(&log, "worker_started"), named(&log, "worker_death") + named(&log, "worker_ended"));
}

#[test]
fn upgraded_again_and_again_under_load_it_loses_nothing_and_restarts_nobody() {
    let number = |name| std::env::var(name).ok().map(|times| times.parse().unwrap());
    let images = [BIN.to_owned(), std::env::var("SHIFTBOSS_OTHER").unwrap_or_else(|_| BIN.to_owned())];
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let (file, program) = (folder.path().join("shiftboss.toml"), folder.path().join("program"));
    std::fs::write(folder.path().join("version"), "good").unwrap();
    std::fs::write(&file, fill(&web(port), folder.path())).unwrap();
    copy(&images[0], &program);
    let app = App::started(folder, &["run", "-c", file.to_str().unwrap()], |command| {
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut other = std::process::Command::new(&program);
        other.args(arguments).current_dir(program.parent().unwrap());
        other.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        *command = other;
    });
    app.until_event("app_ready", 1);
    // How the last one went is kept from the first one on.
    app.does(&["upgrade"]);
    let before = state(&app);
    let load = Load::on(port, &["--rate", "1000"]);
    let mut brokers = BTreeSet::from([app.broker_pid()]);
    for time in 1..=number("SHIFTBOSS_UPGRADES").unwrap_or(2) {
        let new = app.path("new");
        copy(&images[time % 2], &new);
        std::fs::rename(&new, &program).unwrap();
        app.does(&["upgrade"]);
        assert!(brokers.insert(app.broker_pid()), "upgrade {time}");
    }
    nothing_has_changed(app, load, &before);
}

#[test]
fn a_command_that_waits_is_answered_by_the_successor() {
    let app = App::ready(&web(free_port()));
    let asked = std::thread::scope(|scope| {
        let recycle = scope.spawn(|| app.does(&["recycle", "web"]));
        app.until_event("recycle_started", 1);
        app.kill_broker();
        recycle.join().unwrap()
    });
    assert!(asked.contains("4 of 4"), "{asked}");
    let (status, log) = app.stop();
    assert!(status.success());
    // One whose writing was not noted yet when the process was killed is written again, under its number.
    let numbers = |name| {
        let of = log.iter().filter(|event| event["event"] == name);
        of.map(|event| event["seq"].as_u64()).collect::<BTreeSet<_>>().len()
    };
    assert_eq!((numbers("recycle_started"), numbers("recycle_finished")), (1, 1));
}

#[test]
fn how_a_worker_ended_is_told_however_late_the_keeper_says_it() {
    let app = App::ready(&web(free_port()));
    app.signal(Signal::STOP);
    signal_process(app.pids()[0], Signal::KILL);
    let late = Instant::now() + Duration::from_millis(2500);
    eventually("a moment passes", || Instant::now() >= late);
    app.signal(Signal::CONT);
    let log = app.until_event("worker_death", 1);
    let death = log.iter().find(|event| event["event"] == "worker_death").unwrap();
    assert_eq!((&death["signal"], &death["code"]), (&"SIGKILL".into(), &Value::Null));
    app.until_event("worker_ready", 5);
    app.stop();
}

#[test]
fn a_worker_that_dies_while_the_keeper_does_not_run_for_long_is_replaced_all_the_same() {
    let app = App::ready(&web(free_port()));
    let victim = app.pids()[0];
    app.signal(Signal::STOP);
    signal_process(victim, Signal::KILL);
    let log = app.until_event("worker_ready", 5);
    let death = log.iter().find(|event| event["event"] == "worker_death").unwrap();
    assert_eq!((&death["pid"], &death["code"]), (&victim.into(), &(-1).into()), "nobody knows how");
    app.signal(Signal::CONT);
    eventually("it is reaped", || !std::path::Path::new(&format!("/proc/{victim}")).exists());
    app.kill_broker();
    app.until_event("broker_adopted", 1);
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!((named(&log, "worker_death"), named(&log, "worker_ended")), (1, 4));
}

#[test]
fn a_worker_that_dies_while_nobody_is_there_is_told_once_and_replaced() {
    let app = App::ready(&web(free_port()));
    let (victim, broker) = (app.pids()[0], app.broker_pid());
    signal_process(broker, Signal::STOP);
    signal_process(victim, Signal::KILL);
    signal_process(broker, Signal::KILL);
    let log = app.until_event("worker_ready", 5);
    assert_eq!(named(&log, "worker_death"), 1);
    let death = log.iter().find(|event| event["event"] == "worker_death").unwrap();
    assert_eq!((&death["pid"], &death["signal"]), (&victim.into(), &"SIGKILL".into()));
    app.stop();
}

/// After this time a broker process has not failed at its start.
const PROVED: Duration = Duration::from_secs(1);
const READY: shiftboss_api::WorkerState = shiftboss_api::WorkerState::Ready;
