//! The first respawn is immediate; a crash loop backs off, is said, and costs the others nothing.

use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::Value;

use crate::app::*;
use crate::load::*;
use crate::ready_before_retire::web;

fn of_slot<'a>(log: &'a [Value], slot: u64, name: &str) -> Vec<&'a Value> {
    log.iter().filter(|event| event["slot"] == slot && event["event"] == name).collect()
}

fn time(event: &Value, key: &str) -> Timestamp {
    event[key].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_killed_worker_is_replaced_without_a_pause_and_nothing_else_is_lost() {
    let port = free_port();
    let app = App::ready(&web(port));
    let mut load = Load::on(port, &["--no-keep-alive"]);
    load.a_second();
    let victim = app.pids()[2];
    let killed = load.now();
    signal_process(victim, Signal::KILL);
    let log = app.until("the successor is ready", |log| of_slot(log, 2, "worker_ready").len() == 2);
    let death = of_slot(&log, 2, "worker_death")[0];
    assert_eq!((&death["signal"], &death["forced"]), (&Value::from("SIGKILL"), &Value::from(false)));
    assert_eq!(named(&log, "worker_backoff"), 0);
    load.a_second();
    load.a_second();
    let repaired = load.now();
    load.a_second();
    load.a_second();
    let counts = load.end();
    let lost = counts["by_kind"].as_object().unwrap();
    assert!(lost.keys().all(|kind| kind == "reset" || kind == "closed_early"), "{counts}");
    failed_only_in(&counts, &[killed..=repaired]);
}

#[test]
fn a_crash_loop_backs_off_turns_degraded_and_recovers() {
    let port = free_port();
    let app = App::ready(&web(port));
    let mut load = Load::on(port, &[]);
    std::fs::write(app.path("version"), "broken").unwrap();
    load.a_second();
    let victim = app.pids()[1];
    let before = load.now();
    signal_process(victim, Signal::KILL);
    app.until_event("worker_death", 1);
    load.a_second();
    load.a_second();
    let dead = load.now();
    let log = app.until("five deaths", |log| of_slot(log, 1, "worker_death").len() >= 5);
    let waits: Vec<f64> = of_slot(&log, 1, "worker_backoff")
        .iter()
        .map(|event| time(event, "retry_at").duration_since(time(event, "at")).as_secs_f64())
        .collect();
    // base 50 ms, doubled up to 400 ms; jitter of a fifth, times told in ms.
    for (wait, nominal) in waits.iter().zip([0.05, 0.1, 0.2, 0.4]) {
        assert!((nominal * 0.75..nominal * 1.3).contains(wait), "{waits:?}");
    }
    app.until_event("broker_degraded", 1);
    let status = app.status().brokers.remove(0);
    assert!(status.degraded && status.last_failure.is_some());
    assert_eq!(status.ready, 3, "the others serve on");
    assert_eq!(app.ask(&["status", "--check"]).status.code(), Some(3));

    std::fs::write(app.path("version"), "good").unwrap();
    app.until_event("broker_recovered", 1);
    assert_eq!(app.status().brokers[0].ready, 4);
    let counts = load.end();
    // Only what was in the worker that was killed from outside.
    failed_only_in(&counts, &[before..=dead]);
    assert!(!counts["by_kind"].as_object().unwrap().contains_key("refused"), "{counts}");
}

#[test]
fn a_thousand_that_start_keep_neither_whoever_asks_nor_another_broker_waiting() {
    let many = "[broker.many]\ncommand = [\"WORKER\"]\nready = { after = \"0s\" }\n";
    let app = App::ready(&format!("{}{many}", web(free_port())));
    let of = |name: &str| app.status().brokers.into_iter().find(|broker| broker.name == name).unwrap();
    let victim = of("web").workers[0].pid.unwrap();
    app.does(&["scale", "many", "1000", "--no-wait"]);
    signal_process(victim, Signal::KILL);
    assert!(of("many").workers.len() < 1000, "asked amid of it");
    let log = app.until("all have started", |log| started(log, "many").len() == 1000);
    let successor = started(&log, "web").last().copied().unwrap();
    let before = started(&log, "many").iter().filter(|seq| **seq < successor).count();
    assert!(before < 900, "{before} came before it");
    assert!(app.stop().0.success());
}

/// The numbers of the events that tell of a start.
fn started(log: &[Value], broker: &str) -> Vec<u64> {
    let of = log.iter().filter(|event| event["event"] == "worker_started" && event["broker"] == broker);
    of.map(|event| event["seq"].as_u64().unwrap()).collect()
}
