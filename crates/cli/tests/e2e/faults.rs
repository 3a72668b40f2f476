//! Faults, each done to the real binary with its outcome; `cargo xtask faults` runs them all, as often and as heavily as
//! it takes to believe them (`SHIFTBOSS_FAULTS=full`), with those that stand beside the promises that they are about.

mod asking;
mod calls;
mod descendants;
mod machine;
mod signals;
mod workers;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use crate::app::*;

/// So many times, or so many where it is to be believed.
fn times(few: usize, many: usize) -> usize {
    if std::env::var("SHIFTBOSS_FAULTS").is_ok_and(|how| how == "full") { many } else { few }
}

/// A broker `bad` of one worker that runs this; it is ready at once.
fn bad(command: &str) -> String {
    format!(
        "\n[broker.bad]\ncommand = {command}\nready = {{ after = \"0s\" }}\n\
         stop = [{{ signal = \"TERM\", wait = \"200ms\" }}, {{ signal = \"KILL\" }}]\n\
         backoff = {{ base = \"50ms\", cap = \"400ms\", healthy_after = \"1s\" }}\n"
    )
}

/// A Python program that begins with its channel, as a command.
fn python(script: &str) -> String {
    let begin = "import os, signal, socket, sys, time\n\
                 channel = socket.socket(fileno=int(os.environ['SHIFTBOSS_CHANNEL_FD']))\n";
    format!("[\"python3\", \"-c\", {:?}]", begin.to_owned() + script)
}

/// Sleepers that say that they are ready.
fn sleepers(workers: usize, more: &str) -> String {
    format!(
        "app = \"e2e\"\n[broker.web]\ncommand = [\"WORKER\", \"--ready\", \"notify\"{more}]\nkind = \"notify\"\n\
         workers = {workers}\nbackoff = {{ base = \"50ms\", cap = \"400ms\", healthy_after = \"1s\" }}\n"
    )
}

fn of<'a>(log: &'a [Value], broker: &'a str, name: &'a str) -> impl Iterator<Item = &'a Value> {
    log.iter().filter(move |event| event["broker"] == broker && event["event"] == name)
}

fn at(event: &Value) -> Timestamp {
    event["at"].as_str().unwrap().parse().unwrap()
}

/// From each of the first to the first of the second kind that follows it in the same slot, in ms, sorted.
fn from_to(log: &[Value], first: &str, second: &str) -> Vec<i128> {
    let mut waits: Vec<i128> = Vec::new();
    for (index, event) in log.iter().enumerate().filter(|(_, event)| event["event"] == first) {
        let same = |other: &&Value| {
            other["event"] == second && other["slot"] == event["slot"] && other["broker"] == event["broker"]
        };
        waits.extend(
            log[index..].iter().find(same).map(|next| at(next).duration_since(at(event)).as_millis()),
        );
    }
    waits.sort_unstable();
    waits
}

/// What was seen, for the table.
fn seen(what: &str, waits: &[i128]) {
    let of = |part: usize| waits.get((waits.len() * part / 100).min(waits.len().saturating_sub(1)));
    if let (Some(half), Some(most)) = (of(50), of(99)) {
        println!("seen: {what}: {} times, median {half} ms, p99 {most} ms", waits.len());
    }
}

/// The keeper has its broker process and the workers, no zombie and nobody else.
fn nobody_else_is_there(app: &App) {
    eventually("the keeper has its workers and nobody else", || {
        let pids: BTreeSet<u32> = all_pids(app).into_iter().chain([app.broker_pid()]).collect();
        children(app.pid()) == pids
    });
}

fn all_pids(app: &App) -> Vec<u32> {
    let brokers = app.status().brokers;
    brokers.iter().flat_map(|broker| broker.workers.iter().filter_map(|worker| worker.pid)).collect()
}
