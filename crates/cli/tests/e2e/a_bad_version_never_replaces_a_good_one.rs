//! When successors do not become ready, no predecessor is stopped, and it is said.

use crate::app::*;
use crate::load::*;
use crate::ready_before_retire::web;

#[test]
fn a_version_that_cannot_start_leaves_the_old_one_serving_and_shows_its_last_words() {
    let port = free_port();
    let app = App::ready(&web(port));
    let mut load = Load::on(port, &[]);
    let before = app.pids();
    std::fs::write(app.path("version"), "broken").unwrap();
    load.a_second();
    let output = app.ask(&["recycle", "web"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot load version") && said.contains("4 old"), "{said}");
    // Those of the bad one may be leaving still.
    until_it_is(&before, || app.pids());
    let log = app.log();
    assert_eq!(named(&log, "recycle_failed"), 1);
    let stopped =
        |pid: &u32| log.iter().any(|event| event["event"] == "worker_stopping" && event["pid"] == *pid);
    assert!(!before.iter().any(stopped), "no predecessor was asked to leave");

    std::fs::write(app.path("version"), "good").unwrap();
    app.does(&["recycle", "web"]);
    assert!(app.pids().iter().all(|pid| !before.contains(pid)));
    none_lost(&load.end());
}

#[test]
fn a_version_that_never_becomes_ready_is_ended_at_the_deadline() {
    let config = format!(
        r#"
        app = "e2e"
        [broker.slow]
        command = ["sh", "-c", "if [ -e FOLDER/silent ]; then exec sleep 1000; fi; exec {} --ready notify"]
        kind = "notify"
        workers = 2
        recycle = {{ deadline = "300ms" }}
        "#,
        worker().display()
    );
    let app = App::ready(&config);
    let old = app.pids();
    std::fs::write(app.path("silent"), "").unwrap();
    let output = app.ask(&["recycle", "slow"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("READY=1"), "it says what it waited for: {said}");
    until_it_is(&old, || app.pids());
}
