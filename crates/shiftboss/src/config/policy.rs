//! The tables of a broker that say when and how workers come and go: ready, recycle, stop, backoff.

use std::time::Duration;

use shiftboss_core::spec::{Ask, BackoffSpec, Ready, RecycleSpec, Rung, Signal, StopLadder};
use toml::de::DeValue;

use super::keys;
use super::problem::Findings;
use super::table::{Cell, Read, Table};
use super::value::{self, count, duration, duration_from, percent};
use crate::options::check::{NO_RECYCLE, SHORTEST};

pub(super) fn ready(cell: &Cell<'_>, findings: &mut Findings) -> Option<Ready> {
    match cell.value.get_ref() {
        DeValue::String(text) => match text.as_ref() {
            "notify" => return Some(Ready::Notify),
            "accepting" => return Some(Ready::Accepting),
            "listening" => return Some(Ready::Listening),
            other => {
                let words = ["listening", "notify", "accepting"];
                findings.push(value::not_among(cell, other, words.into_iter()).help(READY_EXAMPLE));
            }
        },
        DeValue::Table(table) => {
            let opened = Table::open(cell, &keys::READY, findings)?;
            if table.is_empty() {
                findings.push(cell.problem("it says nothing").help(READY_EXAMPLE));
            }
            return opened.read("after", findings, duration).value().map(Ready::After);
        }
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => findings.push(cell.expected("a string or a table").help(READY_EXAMPLE)),
    }
    None
}

/// `workers` is how many there are, if that is known.
pub(super) fn recycle(cell: &Cell<'_>, workers: Option<u32>, findings: &mut Findings) -> Option<RecycleSpec> {
    let table = Table::open(cell, &keys::RECYCLE, findings)?;
    let known = findings.problems.len();
    let default = RecycleSpec::default();
    let every = table.read("every", findings, duration_from(Duration::from_secs(1))).value();
    let jitter = table.read("jitter", findings, percent).or(default.jitter);
    let surge = table.read("surge", findings, count(0..=MOST)).known(default.surge);
    let unavailable = table.read("unavailable", findings, count(0..=MOST)).known(default.unavailable);
    let min_ready = table.read("min_ready", findings, duration).or(default.min_ready);
    let deadline = table.read("deadline", findings, duration_from(SHORTEST)).or(default.deadline);
    if (surge, unavailable) == (Some(0), Some(0)) {
        findings.push(
            table
                .problem("surge", NO_RECYCLE)
                .help("surge = 1 starts a new worker before the old one leaves"),
        );
    }
    if let (Some(unavailable), Some(workers)) = (unavailable, workers)
        && unavailable > workers
    {
        let there = if workers == 1 { "is only 1 worker" } else { &format!("are only {workers} workers") };
        let what = format!("recycle.unavailable is {unavailable}, but there {there}");
        findings.push(table.problem("unavailable", &what));
    }
    let (Some(surge), Some(unavailable)) = (surge, unavailable) else { return None };
    if findings.problems.len() > known {
        return None;
    }
    let spec = RecycleSpec { every, jitter, surge, unavailable, min_ready, deadline };
    if table.cell("jitter").is_some() && table.cell("every").is_none() {
        let what = "`recycle.jitter` has no effect without `recycle.every`";
        findings.push(table.problem("jitter", what).warning());
    }
    Some(spec)
}

pub(super) fn backoff(cell: &Cell<'_>, findings: &mut Findings) -> Option<BackoffSpec> {
    let table = Table::open(cell, &keys::BACKOFF, findings)?;
    let known = findings.problems.len();
    let default = BackoffSpec::default();
    let base = table.read("base", findings, duration_from(SHORTEST)).known(default.base);
    let cap = table.read("cap", findings, duration_from(SHORTEST)).known(default.cap);
    let healthy_after = table.read("healthy_after", findings, duration).or(default.healthy_after);
    let (Some(base), Some(cap)) = (base, cap) else { return None };
    let spec = BackoffSpec { base, cap, healthy_after };
    if base > cap {
        let (base, cap) = (value::show_duration(base), value::show_duration(cap));
        let from = |key| if table.cell(key).is_some() { "" } else { " (the default)" };
        let what = format!("backoff: base {base}{} is longer than cap {cap}{}", from("base"), from("cap"));
        let key = if table.cell("base").is_some() { "base" } else { "cap" };
        findings.push(table.problem(key, &what));
    }
    (findings.problems.len() == known).then_some(spec)
}

/// The ladder, without a last KILL, since that one is always there; and the words of its messages.
pub(super) fn stop(cell: &Cell<'_>, findings: &mut Findings) -> Option<(StopLadder, Option<String>)> {
    let Some(items) = cell.items() else {
        findings.push(cell.expected("an array of rungs").help(STOP_EXAMPLE));
        return None;
    };
    let items: Vec<Cell<'_>> = items.collect();
    if items.is_empty() {
        findings.push(cell.problem("a ladder without rungs stops nobody").help(STOP_EXAMPLE));
        return None;
    }
    let known = findings.problems.len();
    let mut rungs = Vec::new();
    let (mut killed, mut notice) = (false, None);
    for item in &items {
        if killed {
            let what = "a rung after KILL is never reached";
            findings.push(item.problem(what).label("KILL ends the ladder"));
            break;
        }
        match rung(item, findings) {
            Some((Rung { ask: Ask::Signal(Signal::KILL), .. }, _)) => killed = true,
            Some((rung, words)) => {
                if words.is_some() && notice.is_some() && words != notice {
                    findings.push(item.problem("all messages of a ladder are the same").label("another one"));
                }
                notice = notice.or(words);
                rungs.push(rung);
            }
            None => {}
        }
    }
    (findings.problems.len() == known).then_some((StopLadder(rungs), notice))
}

/// One rung, and the words of its message, if it is one.
fn rung(cell: &Cell<'_>, findings: &mut Findings) -> Option<(Rung, Option<String>)> {
    let DeValue::Table(entries) = cell.value.get_ref() else {
        findings.push(cell.expected("a rung").help(STOP_EXAMPLE));
        return None;
    };
    let is_message = entries.contains_key("message");
    // An array's tables have no word of their own to point at.
    let whole = Cell { key_span: cell.value.span(), ..cell.clone() };
    let table = Table::open(&whole, &keys::STOP, findings)?;
    if is_message && entries.contains_key("signal") {
        findings.push(cell.problem("a rung is a message or a signal").help(STOP_EXAMPLE));
        return None;
    }
    if is_message {
        let words = table.require("message", "\"suicide\"", findings, value::plain_text);
        let wait = table.require("wait", "\"30s\"", findings, duration);
        return Some((Rung::notice(wait?), Some(words?.to_owned())));
    }
    let signal = table.require("signal", "\"TERM\"", findings, value::signal);
    let wait = match (table.read("wait", findings, duration), signal) {
        (Read::Is(wait), _) => Some(wait),
        (Read::Wrong, _) => None,
        (Read::Absent, Some(Signal::KILL)) => Some(Duration::ZERO),
        (Read::Absent, _) => table.require("wait", "\"5s\"", findings, duration),
    };
    Some((Rung::signal(signal?, wait?), None))
}

const MOST: u32 = shiftboss_core::spec::MAX_WORKERS;

const READY_EXAMPLE: &str = "write \"notify\", \"accepting\" or { after = \"1s\" }";
const STOP_EXAMPLE: &str = "stop = [{ signal = \"TERM\", wait = \"30s\" }, { signal = \"KILL\" }]";
