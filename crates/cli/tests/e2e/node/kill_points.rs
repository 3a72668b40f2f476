//! The broker process is killed while it plays the primary, at points of its own: nobody notices.
//!
//! `SHIFTBOSS_KILL_POINTS` = `all` or a number N tries all of a run, or each N-th; by default those about queries, and a few.

use std::collections::BTreeSet;

use super::*;

/// One run, killed at this point; the points that it passed.
fn run(node: &Node, balance: Balance, kill_at: Option<usize>) -> Vec<String> {
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let log = folder.path().join("points");
    let config = format!(
        "app = \"node\"\n[broker.web]\ncommand = [{:?}, {:?}, \"{port}\"]\nworkers = 2\n{PATIENT}{}",
        node.path(),
        programs().join("doors.js"),
        balance.of(port)
    );
    std::fs::write(folder.path().join("shiftboss.toml"), config).unwrap();
    let mut app = App::started(folder, &["run"], |command| {
        command.env("SHIFTBOSS_KILL_LOG", &log);
        if let Some(at) = kill_at {
            command.env("SHIFTBOSS_KILL_AT", at.to_string());
        }
    });
    app.until_event("app_ready", 1);
    // It closes one server before it opens the next: one that is not run in between counts as ready.
    eventually("it listens", || get(("127.0.0.1", port), "/").is_ok());
    let said = app.does(&["recycle", "web"]);
    assert!(said.contains("2 of 2"), "{node}, killed at {kill_at:?}: {said}");
    is_served(port, balance);
    app.does(&["stop", "--all"]);
    assert!(app.ended().success());
    let log_of_app = app.log();
    let events: BTreeSet<String> = log_of_app
        .iter()
        .filter(|event| event["seq"].is_u64())
        .map(|event| format!("{} {}", event["event"], event["worker"]))
        .collect();
    let count = |name: &str| events.iter().filter(|event| event.starts_with(&format!("\"{name}\""))).count();
    let counts = ["worker_started", "worker_ended", "worker_death"].map(count);
    assert_eq!(counts, [4, 4, 0], "{node}, {balance:?}, killed at {kill_at:?}\n{log_of_app:#?}");
    let ended = log_of_app.iter().filter(|event| event["event"] == "worker_ended");
    for event in ended {
        assert_eq!(event["code"], 0, "{node}, {balance:?}, killed at {kill_at:?}: {event}");
    }
    let points = std::fs::read_to_string(&log).unwrap();
    points.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect()
}

/// A connection that was accepted and not yet handed over dies with the broker process; shared, none does.
fn is_served(port: u16, balance: Balance) {
    let get = || get(("127.0.0.1", port), "/");
    if balance == ROUND_ROBIN && get().is_ok() {
        return;
    }
    get().unwrap();
}

#[test]
fn a_primary_that_dies_between_question_and_answer_has_a_successor_that_answers() {
    each_way(|node, balance| {
        let points = run(node, balance, None);
        let asked = std::env::var("SHIFTBOSS_KILL_POINTS").ok();
        let every = asked.map_or(points.len() / 4, |every| every.parse().unwrap_or(1));
        let about_queries = points.iter().enumerate().filter(|(_, name)| name.starts_with("a query "));
        let mut kills: BTreeSet<usize> = about_queries.map(|(at, _)| at + 1).step_by(5).collect();
        kills.extend((1..=points.len()).step_by(every));
        kills.into_iter().for_each(|at| drop(run(node, balance, Some(at))));
    });
}
