//! Files that change replace the workers that were made of them, without a request lost.

use std::fs;

use serde_json::Value;

use crate::app::*;
use crate::load::*;
use crate::ready_before_retire::web;

fn watching(port: u16, debounce: &str) -> String {
    web(port)
        + &format!(
            "        watch = {{ paths = [\"version\", \"src/**/*.js\"], debounce = \"{debounce}\" }}\n"
        )
}

/// An app whose files are being watched.
fn watched(port: u16, debounce: &str) -> App {
    let app = App::ready(&watching(port, debounce));
    app.until("its files are watched", |log| notes(log, "web: watches 1 file") == 1);
    app
}

fn notes(log: &[Value], text: &str) -> usize {
    log.iter().filter(|line| line["event"] == "note" && line["text"] == text).count()
}

fn reasons(log: &[Value]) -> Vec<&str> {
    let started = log.iter().filter(|event| event["event"] == "recycle_started");
    started.filter_map(|event| event["reason"].as_str()).collect()
}

/// A version, all of it at once: a file that is emptied and then written is two changes to whoever is slow in between.
fn put(app: &App, version: &str) {
    fs::write(app.path("next"), version).unwrap();
    fs::rename(app.path("next"), app.path("version")).unwrap();
}

#[test]
fn a_change_replaces_all_workers_under_load_each_ready_before_its_predecessor_leaves() {
    let port = free_port();
    let app = watched(port, "50ms");
    let before = app.pids();
    let mut load = Load::on(port, &[]);
    load.a_second();
    put(&app, "good\n");
    let log = app.until_event("recycle_finished", 1);
    load.a_second();
    none_lost(&load.end());
    assert_eq!(reasons(&log), ["files changed"]);
    assert!(notes(&log, "web: version has changed") >= 1);
    let after = app.pids();
    assert!(after.len() == 4 && after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
    for slot in 0..4 {
        let at = |name: &str| {
            let is = |event: &Value| event["event"] == name && event["slot"] == slot;
            log.iter().enumerate().filter(|(_, event)| is(event)).map(|(at, _)| at).collect::<Vec<_>>()
        };
        let (ready, stopping) = (at("worker_ready"), at("worker_stopping"));
        assert_eq!((ready.len(), stopping.len()), (2, 1));
        assert!(ready[1] < stopping[0], "slot {slot}");
    }
}

#[test]
fn many_changes_are_one_recycle_and_the_next_change_is_another() {
    let app = watched(free_port(), "3s");
    fs::create_dir_all(app.path("src/lib")).unwrap();
    for number in 0..30 {
        fs::write(app.path(&format!("src/lib/{number}.js")), "new").unwrap();
        fs::write(app.path("src/lib/other.css"), "new").unwrap();
    }
    app.until_event("recycle_finished", 1);
    fs::rename(app.path("src/lib/1.js"), app.path("src/lib/0.js")).unwrap();
    let log = app.until_event("recycle_finished", 2);
    assert_eq!(reasons(&log), ["files changed", "files changed"]);
    assert!(notes(&log, "web: src/lib/0.js has changed") >= 1, "{log:?}");
}

#[test]
fn while_drained_nothing_happens_and_a_version_that_fails_is_tried_again_with_the_next_change() {
    // Another one, which is not drained, tells when the change was seen.
    let other = "[broker.other]\ncommand = [\"sleep\", \"1000\"]\nready = { after = \"0s\" }\nwatch = [\"version\"]\n";
    let app = App::ready(&(watching(free_port(), "50ms") + other));
    app.until("its files are watched", |log| notes(log, "web: watches 1 file") == 1);
    app.does(&["drain", "web"]);
    put(&app, "good\n");
    app.until("it is seen", |log| notes(log, "other: version has changed") == 1);
    app.does(&["resume", "web"]);
    put(&app, "broken");
    let of_web =
        |log: Vec<Value>| log.into_iter().filter(|event| event["broker"] == "web").collect::<Vec<_>>();
    let log = of_web(app.until_event("recycle_failed", 1));
    assert_eq!(reasons(&log), ["files changed"]);
    put(&app, "good\n\n");
    let has_finished = |event: &Value| event["event"] == "recycle_finished" && event["broker"] == "web";
    let log = of_web(app.until("it has finished", |log| log.iter().any(has_finished)));
    assert_eq!(reasons(&log), ["files changed", "files changed"]);
}
