//! What can go wrong with the two processes of an app: the workers go on and nothing is lost, or all of it ends.
//!
//! `SHIFTBOSS_KILLS` says how often the tests of signals kill the broker process, by default 6 times.

mod deaths;
mod gaps;
pub(crate) mod images;
mod later;
mod limits;
mod output;
mod records;
mod renewal;
mod signals;
mod strangers;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::app::*;

/// Workers that sleep until they are told to leave.
fn sleepers(workers: u32) -> String {
    sleepers_that(workers, "")
}

/// The same, which misbehave as these arguments say.
fn sleepers_that(workers: u32, more: &str) -> String {
    format!(
        r#"
        app = "e2e"
        [broker.web]
        command = ["WORKER", "--ready", "notify"{more}]
        kind = "notify"
        workers = {workers}
        backoff = {{ base = "50ms", cap = "400ms", healthy_after = "1s" }}
        "#
    )
}

/// A folder with this configuration, filled in as by [`App::of`].
pub(crate) fn folder_with(config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("version"), "good").unwrap();
    std::fs::write(folder.path().join("shiftboss.toml"), fill(config, folder.path())).unwrap();
    folder
}

/// Runs this configuration, its command changed, until all its workers are ready.
fn ready_with(config: &str, prepare: impl FnOnce(&mut Command)) -> App {
    let app = App::started(folder_with(config), &["run", "-c", "shiftboss.toml"], prepare);
    app.until_event("app_ready", 1);
    app
}

/// The app as another program, or in another surrounding: the words before its own.
pub(crate) fn run_by(command: &mut Command, words: &[&str], program: &str) {
    let mut other = Command::new(words[0]);
    other.args(&words[1..]).arg(program).args(command.get_args());
    other.current_dir(command.get_current_dir().unwrap());
    other.stdin(std::process::Stdio::null());
    other.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    *command = other;
}

/// The broker process ends while it cannot act, so that nothing that happens before the closure returns is heard by it.
fn killed_while(app: &App, happens: impl FnOnce()) {
    let broker = app.broker_pid();
    signal_process(broker, Signal::STOP);
    eventually("it has stopped", || state(broker) == Some('T'));
    happens();
    signal_process(broker, Signal::KILL);
    eventually("the broker process is gone", || is_gone(broker));
}

/// As `ps` shows it.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Waits for so many adoptions in all.
fn until_adopted(app: &App, times: usize) -> Vec<Value> {
    app.until_event("broker_adopted", times)
}

/// The keeper has its broker process and these workers, and nobody else.
fn nobody_else_is_there(app: &App) {
    let mut pids = BTreeSet::new();
    eventually("the keeper has its workers and nobody else", || {
        pids = app.pids().into_iter().chain([app.broker_pid()]).collect();
        children(app.pid()) == pids
    });
}

/// What was told, each event once. One is told again if whoever told it was killed before it could note that.
fn once(log: &[Value]) -> Vec<Value> {
    let mut told: Vec<Value> = Vec::new();
    for event in log.iter().filter(|event| event["seq"].is_u64()) {
        match told.iter().find(|earlier| earlier["seq"] == event["seq"]) {
            Some(earlier) => assert_eq!(earlier, event),
            None => told.push(event.clone()),
        }
    }
    let seqs: Vec<u64> = told.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    told
}
