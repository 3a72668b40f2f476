//! A planned replacement starts the successor, waits until it is ready, then retires the predecessor.

use rustix::process::Signal;
use serde_json::Value;

use crate::app::*;
use crate::load::*;

pub(crate) fn web(port: u16) -> String {
    format!(
        r#"
        app = "e2e"
        [broker.web]
        command = ["BIN", "demo-worker"]
        kind = "notify"
        workers = 4
        listen = ["tcp://127.0.0.1:{port}"]
        recycle = {{ surge = 2 }}
        backoff = {{ base = "50ms", cap = "400ms", healthy_after = "1s" }}
        environment = {{ DEMO_VERSION_FILE = "FOLDER/version" }}
        "#
    )
}

fn recycled_under_load(more: &[&str]) {
    let port = free_port();
    let app = App::ready(&web(port));
    let mut load = Load::on(port, more);
    for _ in 0..2 {
        load.a_second();
        let said = app.does(&["recycle", "web"]);
        assert!(
            said.contains("4 of 4") && said.contains("none was stopped before it had finished"),
            "{said}"
        );
    }
    let counts = load.end();
    none_lost(&counts);
    let served: Vec<usize> =
        counts["by_worker"].as_object().unwrap().keys().map(|id| id.parse().unwrap()).collect();
    for shift in [1..=4, 5..=8, 9..=12] {
        assert!(served.iter().any(|id| shift.contains(id)), "nobody of {shift:?} has served: {counts}");
    }
    let log = app.log();
    assert_eq!(named(&log, "recycle_finished"), 2);
    each_was_ready_before_its_predecessor_was_asked_to_leave(&log);
}

fn each_was_ready_before_its_predecessor_was_asked_to_leave(log: &[Value]) {
    let at = |event: &str, slot: u64| -> Vec<usize> {
        let all = log.iter().enumerate();
        all.filter(|(_, line)| line["event"] == event && line["slot"] == slot).map(|(at, _)| at).collect()
    };
    for slot in 0..4 {
        let (ready, stopping) = (at("worker_ready", slot), at("worker_stopping", slot));
        assert_eq!((ready.len(), stopping.len()), (3, 2));
        assert!(ready[1..].iter().zip(&stopping).all(|(ready, stopping)| ready < stopping), "slot {slot}");
    }
}

#[test]
fn a_recycle_under_load_loses_no_request_with_keep_alive() {
    recycled_under_load(&[]);
}

#[test]
fn a_recycle_under_load_loses_no_request_with_a_connection_for_each() {
    recycled_under_load(&["--no-keep-alive"]);
}

#[test]
fn a_recycle_under_saturation_loses_no_request() {
    recycled_under_load(&["--closed", "16"]);
}

#[test]
fn a_hang_up_recycles_every_broker() {
    let app = App::ready(&web(free_port()));
    let before = app.pids();
    app.signal(Signal::HUP);
    app.until_event("recycle_finished", 1);
    assert!(app.pids().iter().all(|pid| !before.contains(pid)));
}

#[test]
fn an_app_runs_straight_from_the_line_and_recycles_a_program_that_says_nothing() {
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let address = format!("127.0.0.1:{port}");
    let worker = worker();
    let line = ["run", "-w", "2", "-p", &address, "--socket", socket(&folder).to_str().unwrap(), "--"]
        .map(str::to_owned);
    let line: Vec<String> =
        line.into_iter().chain([worker.to_str().unwrap().to_owned(), "--http".to_owned()]).collect();
    let app = App::started(folder, &line.iter().map(String::as_str).collect::<Vec<_>>(), |_| {});
    app.until_event("app_ready", 1);
    app.until_said("kind = plain, guessed");
    let said = app.does(&["recycle", "test-worker"]);
    assert!(said.contains("2 of 2"), "{said}");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
}

#[test]
fn a_recycle_by_time_comes_by_itself_and_takes_the_same_path() {
    let config = web(free_port()).replace("surge = 2", "surge = 4, every = \"1s\", jitter = \"20%\"");
    let app = App::of(&config);
    let log = app.until_event("recycle_finished", 1);
    let place = |name: &str| log.iter().position(|event| event["event"] == name).unwrap();
    let (started, finished) = (place("recycle_started"), place("recycle_finished"));
    assert_eq!((&log[started]["reason"], &log[started]["request"]), (&"by time".into(), &Value::Null));
    let workers = |events: &[Value], name: &str| {
        let named = events.iter().filter(|event| event["event"] == name);
        named.map(|event| event["worker"].clone()).collect::<Vec<_>>()
    };
    let (before, ended) =
        (workers(&log[..started], "worker_started"), workers(&log[..finished], "worker_ended"));
    assert!(before.len() == 4 && before.iter().all(|worker| ended.contains(worker)), "{before:?} {ended:?}");
}
