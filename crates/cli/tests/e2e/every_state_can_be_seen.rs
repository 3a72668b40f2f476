//! One event for each change of state: whoever folds the events has the status.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::Value;
use shiftboss_api::WorkerState;

use crate::app::*;
use crate::ready_before_retire::web;

/// Id and state of each living worker, from nothing but the log.
fn fold(log: &[Value]) -> BTreeMap<String, WorkerState> {
    let mut workers = BTreeMap::new();
    for event in log {
        let Some(id) = event["worker"].as_str().map(str::to_owned) else { continue };
        match event["event"].as_str().unwrap() {
            "worker_started" => drop(workers.insert(id, WorkerState::Starting)),
            "worker_ready" => drop(workers.insert(id, WorkerState::Ready)),
            "worker_stopping" => drop(workers.insert(id, WorkerState::Stopping)),
            "worker_ended" | "worker_death" => drop(workers.remove(&id)),
            _ => {}
        }
    }
    workers
}

#[test]
fn the_fold_of_the_log_is_the_status() {
    let app = App::ready(&web(free_port()));
    for (deaths, act) in
        [(1, &["recycle", "web"][..]), (2, &["scale", "web", "6"]), (3, &["scale", "web", "3"])]
    {
        app.does(act);
        signal_process(app.pids()[0], Signal::KILL);
        app.until_event("worker_death", deaths);
        app.does(&["wait", "web", "--for", "ready"]);
        let mut told = BTreeMap::new();
        eventually("log and status say the same", || {
            told = app.workers().into_iter().map(|worker| (worker.id.unwrap(), worker.state)).collect();
            told == fold(&app.log())
        });
    }
}

#[test]
fn the_stream_has_every_event_once_and_in_order() {
    let app = App::ready(&web(free_port()));
    app.does(&["recycle", "web"]);
    app.does(&["drain", "web"]);
    let stream = app.does(&["events", "--json"]);
    let stream: Vec<Value> = stream.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seqs: Vec<u64> = stream.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    let log: Vec<Value> = app.log().into_iter().filter(|event| event["seq"].is_u64()).collect();
    assert_eq!(stream, log, "the log has the same lines");
}

#[test]
fn a_command_given_twice_with_one_key_acts_once() {
    let app = App::ready(&web(free_port()));
    let post_to = |verb: &str, key: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::os::unix::net::UnixStream::connect(app.socket()).unwrap();
        let request = format!(
            "POST /v1/{verb}?wait=1 HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {key}\r\n\
             Connection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let post = |key: &str| post_to("brokers/web/recycle", key);
    for _ in 0..2 {
        let answer = post("deploy-77");
        assert!(answer.contains("200 OK") && answer.contains("\"replaced\":4"), "{answer}");
    }
    assert_eq!(named(&app.log(), "recycle_started"), 1);
    post("deploy-78");
    assert_eq!(named(&app.log(), "recycle_started"), 2);
    for other in ["brokers/web/drain", "upgrade"] {
        let answer = post_to(other, "deploy-78");
        assert!(answer.contains("422") && answer.contains("another command"), "{answer}");
    }
    assert_eq!(app.pids().len(), 4, "nobody was sent home");
}

#[test]
fn whoever_waits_for_a_recycle_that_fails_is_told_so() {
    let app = App::ready(
        r#"
        app = "e2e"
        [broker.api]
        command = ["sh", "-c", """
            if [ -e FOLDER/bad ]; then sleep 0.3; exit 3; fi
            exec WORKER --ready notify
        """]
        kind = "notify"
        "#,
    );
    std::fs::write(app.path("bad"), "").unwrap();
    let mut waited = None;
    // On a busy machine it may have failed before anybody waits.
    eventually("somebody waits in time", || {
        app.does(&["recycle", "api", "--no-wait"]);
        let output = app.ask(&["wait", "api", "--for", "recycled"]);
        let in_time = !output.status.success();
        waited = Some(output);
        in_time
    });
    let waited = waited.unwrap();
    assert_eq!(waited.status.code(), Some(1), "{}", text(&waited.stderr));
    assert!(text(&waited.stderr).contains("error: the recycle of api failed: "), "{}", text(&waited.stderr));
    std::fs::remove_file(app.path("bad")).unwrap();
    app.does(&["recycle", "api", "--no-wait"]);
    app.does(&["wait", "api", "--for", "recycled"]);
}

#[test]
fn commands_to_one_broker_tell_an_event_once_and_a_slot_is_part_of_its_broker() {
    let app = App::ready(&web(free_port()));
    let told = app.does(&["recycle", "web/0", "web/1", "--json"]);
    let events: Vec<u64> = told
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["event"]["seq"].as_u64())
        .collect();
    let mut once = events.clone();
    once.sort_unstable();
    once.dedup();
    assert!(!events.is_empty() && events.len() == once.len(), "{told}");
    let before = named(&app.log(), "recycle_started");
    app.does(&["recycle", "web", "web/1"]);
    assert_eq!(named(&app.log(), "recycle_started"), before + 1);
}
