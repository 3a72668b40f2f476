//! Images that pass the check and fail when they are really started: the old one goes on.

use super::images::*;
use super::*;

/// It failed as a broker process: another one of the old image is there, with the same workers.
fn is_given_up(app: &App, image: &str, says: &str) {
    let broker = app.broker_pid();
    replace(app, &that(image));
    fails(app, says);
    assert_ne!(app.broker_pid(), broker);
    let answer = app.ask(&["upgrade", "--check"]);
    assert!(answer.status.success(), "it is only in earnest that it fails: {}", text(&answer.stderr));
}

#[test]
fn an_image_that_dies_when_it_is_started_gives_way_to_the_old_one() {
    let app = replaceable(&sleepers(2));
    let given_up = "the image on disk was given up, and the old one goes on";
    is_given_up(
        &app,
        "dies before it is ready",
        &format!("{given_up}: it exited with 4 before it was ready"),
    );
    is_given_up(&app, "dies once it is ready", &format!("{given_up}: it was ready, then exited with 5"));
    app.kill_broker();
    until_adopted(&app, 3);
    replace(&app, &std::fs::read(BIN).unwrap());
    app.does(&["upgrade"]);
    let (status, log) = app.stop();
    assert!(status.success());
    let (log, all) = (once(&log), log);
    assert_eq!((named(&log, "worker_started"), named(&log, "worker_death")), (2, 0));
    assert_eq!(named(&log, "broker_adopted"), 4, "thrice the old one, once the new one");
    let texts: Vec<&str> = all.iter().filter_map(|line| line["text"].as_str()).collect();
    for why in ["exited with 4 before it was ready", "was ready, then exited with 5"] {
        let note = format!("upgrade: {given_up}: it {why}");
        assert_eq!(texts.iter().filter(|text| **text == note).count(), 1, "{note}: {texts:?}");
    }
}

#[test]
fn an_image_that_is_never_ready_gives_way_to_the_old_one() {
    let app = replaceable(&sleepers(2));
    let pids = app.pids();
    is_given_up(&app, "is never ready", "it was not ready in time");
    signal_process(pids[0], Signal::KILL);
    app.until_event("worker_death", 1);
    app.does(&["wait", "web", "--for", "ready"]);
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!(named(&log, "worker_death"), 1);
}

#[test]
fn a_worker_that_dies_while_a_bad_image_is_tried_is_told_by_the_old_one() {
    let app = replaceable(&sleepers(2));
    let pids = app.pids();
    replace(&app, &that("is never ready"));
    let broker = app.broker_pid();
    let said = std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| app.ask(&["upgrade"]));
        eventually("it is started", || app.broker_pid() != broker);
        signal_process(pids[0], Signal::KILL);
        upgrade.join().unwrap()
    });
    assert!(!said.status.success());
    app.until_event("worker_ready", 3);
    let log = once(&app.log());
    assert_eq!((named(&log, "worker_death"), named(&log, "worker_started")), (1, 3));
    assert!(app.pids().contains(&pids[1]));
    app.stop();
}
