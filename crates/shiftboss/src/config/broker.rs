//! One `[broker.NAME]` table, read into the options of a broker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use shiftboss_core::spec::{Drained, MAX_WORKERS, Ready};
use toml::de::DeValue;

use super::keys;
use super::listen;
use super::policy;
use super::problem::{Findings, Problem, Reader, word};
use super::table::{Cell, Read, Table, in_order, kind_of};
use super::value::{self, choice, count};
use crate::address::{Address, Balance};
use crate::guess;
use crate::options::check::{NAMES_SLOT, NO_LANE_YET};
use crate::options::{BrokerOptions, Kind, NOTICE, Serialization};
use crate::os::lanes;

pub(super) fn read(table: &Table<'_>, taken: &mut listen::Taken, findings: &mut Findings) -> BrokerOptions {
    let command = match findings.reader {
        Reader::Command => table.require("command", COMMAND_EXAMPLE, findings, command),
        Reader::Program => table.read("command", findings, command).value(),
    };
    let command = command.unwrap_or_default();
    let mut options = BrokerOptions::new(command);
    options.cwd = table
        .read("cwd", findings, |cell, findings| value::plain_text(cell, findings).map(PathBuf::from))
        .value();
    let kind = match table.read("kind", findings, kind) {
        said @ (Read::Absent | Read::Is(Kind::Node)) => {
            Read::Is(take_for(table, &mut options, &said, findings))
        }
        said => said,
    };
    let workers = table.read("workers", findings, workers);
    let standby = table.read("standby", findings, count(0..=MAX_WORKERS));
    let listens = table.read("listen", findings, |cell, findings| listen::read(cell, taken, findings));
    let ready = table.read("ready", findings, policy::ready);
    let count_of = match &workers {
        Read::Absent => Some(1),
        Read::Is(workers) => Some(*workers),
        Read::Wrong => None,
    };
    let recycle = table.read("recycle", findings, |cell, findings| policy::recycle(cell, count_of, findings));
    check_balance(table, &kind, &listens, findings);
    check_ready(table, &kind, &listens, &ready, findings);
    check_lanes(table, &workers, &listens, findings);
    check_door(table, &kind, &standby, &listens, findings);
    check_node_keys(table, &kind, findings);
    options.kind = kind.or(options.kind);
    options.workers = workers.or(options.workers);
    options.standby = standby.or(options.standby);
    options.listen = listens.or(options.listen);
    options.ready = ready.value();
    options.recycle = recycle.or(options.recycle);
    if let Read::Is((stop, notice)) = table.read("stop", findings, policy::stop) {
        options.stop = stop;
        options.notice = notice.map_or(options.notice, Value::from);
        if options.kind == Kind::Worker && options.notice != NOTICE {
            let what = "workers of the library know one message only: \"suicide\"";
            findings.push(table.problem("stop", what));
        }
    }
    options.backoff = table.read("backoff", findings, policy::backoff).or(options.backoff);
    options.drained = table.read("drained", findings, drained).or(options.drained);
    #[cfg(feature = "schedule")]
    {
        options.schedule = table.read("schedule", findings, super::hours::schedule).value();
    }
    #[cfg(feature = "watch")]
    {
        options.watch = table.read("watch", findings, super::watched::watch).value();
    }
    options.serialization = table
        .read("serialization", findings, |cell, findings| {
            let known = [("json", Serialization::Json), ("advanced", Serialization::Advanced)];
            choice(cell, &known, findings)
        })
        .or(options.serialization);
    options.preload = table.read("preload", findings, value::flag).or(options.preload);
    options.hung_after = table.read("hung_after", findings, hung_after).or(options.hung_after);
    options.environment = table.read("environment", findings, environment).or(options.environment);
    options.clean_environment =
        table.read("clean_environment", findings, value::flag).or(options.clean_environment);
    if options.standby > 0 && options.names_slot() {
        findings.push(table.problem("standby", NAMES_SLOT));
    }
    if table.cell("drained").is_some() && table.cell("listen").is_none() && options.kind != Kind::Node {
        let what = "`drained` has no effect without `listen`";
        findings.push(table.problem("drained", what).warning());
    }
    // Nobody waits for connections on UDP, so nobody would ever be seen to accept.
    if options.ready.is_none() && options.effective_ready() == Ready::Accepting && !has_stream(&options) {
        options.ready = (!options.listen.is_empty()).then_some(Ready::After(Duration::from_secs(1)));
    }
    options
}

/// What kind of a worker it is, where that is not said; a launcher of Node programs is looked through.
fn take_for(
    table: &Table<'_>,
    options: &mut BrokerOptions,
    said: &Read<Kind>,
    findings: &mut Findings,
) -> Kind {
    match guess::guess(&options.command, options.cwd.as_deref()) {
        Ok(guess) => {
            options.command = guess.command;
            if matches!(said, Read::Is(_)) { Kind::Node } else { guess.kind }
        }
        Err(launcher) => {
            findings.push(table.problem("command", &launcher.to_string()));
            Kind::Node
        }
    }
}

/// A duration, or "never".
fn hung_after(cell: &Cell<'_>, findings: &mut Findings) -> Option<Option<Duration>> {
    if matches!(cell.value.get_ref(), DeValue::String(text) if text == "never") {
        return Some(None);
    }
    value::duration_from(Duration::from_secs(1))(cell, findings).map(Some)
}

fn has_stream(options: &BrokerOptions) -> bool {
    options.listen.iter().any(|listen| is_stream(&listen.address))
}

fn is_stream(address: &Address) -> bool {
    match address {
        Address::Tcp(_) | Address::Unix(_) => true,
        Address::Udp(_) => false,
    }
}

/// Keys that only workers of Node's cluster have a use for. What a program's own broker is, its code says.
fn check_node_keys(table: &Table<'_>, kind: &Read<Kind>, findings: &mut Findings) {
    let Read::Is(Kind::Plain | Kind::Notify) = kind else { return };
    if findings.reader == Reader::Program {
        return;
    }
    for key in ["serialization", "preload", "hung_after"] {
        if table.cell(key).is_some() {
            let what = format!("`{key}` has no effect without kind = \"node\"");
            findings.push(table.problem(key, &what).warning());
        }
    }
}

/// Only programs that are handed connections can take turns.
fn check_balance(
    table: &Table<'_>,
    kind: &Read<Kind>,
    listens: &Read<Vec<crate::address::Listen>>,
    findings: &mut Findings,
) {
    let by_turns = |listen: &crate::address::Listen| listen.balance == Balance::RoundRobin;
    if let (Read::Is(Kind::Plain | Kind::Notify | Kind::Worker), Read::Is(all)) = (kind, listens)
        && all.iter().any(by_turns)
    {
        let what = "balance = \"round-robin\" needs kind = \"node\"";
        findings.push(
            table.problem("listen", what).help("all others take their connections themselves: \"shared\""),
        );
    }
}

/// Refuses a way to become ready that could never be seen. Says nothing where what it depends on is wrong itself.
fn check_ready(
    table: &Table<'_>,
    kind: &Read<Kind>,
    listens: &Read<Vec<crate::address::Listen>>,
    ready: &Read<Ready>,
    findings: &mut Findings,
) {
    let problem = match (ready, kind, listens) {
        (Read::Is(Ready::Notify), Read::Absent | Read::Is(Kind::Plain), _) => table
            .problem("ready", "ready = \"notify\" needs kind = \"notify\"")
            .help("kind = \"notify\" gives the workers a NOTIFY_SOCKET to say READY=1 on"),
        (Read::Is(Ready::Listening), Read::Is(Kind::Plain | Kind::Notify | Kind::Worker), _) => table
            .problem("ready", "ready = \"listening\" needs kind = \"node\"")
            .help("any other program is seen to wait for connections: ready = \"accepting\""),
        (Read::Is(Ready::Accepting), _, Read::Absent) => no_stream(table),
        (Read::Is(Ready::Accepting), _, Read::Is(all)) if !all.iter().any(|one| is_stream(&one.address)) => {
            no_stream(table)
        }
        (
            Read::Is(Ready::Notify | Ready::Accepting | Ready::Listening | Ready::After(_))
            | Read::Absent
            | Read::Wrong,
            _,
            _,
        ) => {
            return;
        }
    };
    findings.push(problem);
}

/// Refuses standbys of workers that cannot wait at the door.
fn check_door(
    table: &Table<'_>,
    kind: &Read<Kind>,
    standby: &Read<u32>,
    listens: &Read<Vec<crate::address::Listen>>,
    findings: &mut Findings,
) {
    if !matches!(standby, Read::Is(1..)) {
        return;
    }
    let is_plain = match (kind, findings.reader) {
        // Without a command it is the program itself.
        (Read::Is(Kind::Plain), Reader::Program) => table.cell("command").is_some(),
        (Read::Is(Kind::Plain) | Read::Absent, _) => true,
        (Read::Is(Kind::Node | Kind::Notify | Kind::Worker) | Read::Wrong, _) => false,
    };
    if is_plain {
        let what =
            "`standby` needs workers that wait at the door; plain ones serve as soon as they have started";
        findings.push(table.problem("standby", what).help(DOOR));
    }
    let has_lanes = matches!(listens, Read::Is(all) if all.iter().any(|one| one.balance == Balance::Lanes));
    if has_lanes && !is_plain && !matches!(kind, Read::Is(Kind::Node)) {
        findings.push(table.problem("standby", NO_LANE_YET).help("balance = \"shared\", or kind = \"node\""));
    }
}

fn no_stream(table: &Table<'_>) -> Problem {
    table
        .problem("ready", "ready = \"accepting\" needs a tcp:// or unix:// listener")
        .help("without one, say how long a worker has to stay alive: ready = { after = \"1s\" }")
}

/// Each slot has a lane.
fn check_lanes(
    table: &Table<'_>,
    workers: &Read<u32>,
    listens: &Read<Vec<crate::address::Listen>>,
    findings: &mut Findings,
) {
    let (Read::Is(workers), Read::Is(listens)) = (workers, listens) else { return };
    let has_lanes = listens.iter().any(|listen| listen.balance == Balance::Lanes);
    if has_lanes && *workers > lanes::MOST {
        let what = format!("{workers} workers are too many for lanes");
        let label = format!("at most {}", lanes::MOST);
        findings.push(
            table.problem("workers", &what).label(label).help("balance = \"shared\" has no such limit"),
        );
    }
}

fn command(cell: &Cell<'_>, findings: &mut Findings) -> Option<Vec<String>> {
    let Some(items) = cell.items() else {
        let problem = cell.expected("an array of strings");
        findings.push(match cell.value.get_ref() {
            DeValue::String(line) => problem.help(as_array(line)),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => problem.label(format!("write {COMMAND_EXAMPLE}")),
        });
        return None;
    };
    let items: Vec<Cell<'_>> = items.collect();
    let known = findings.problems.len();
    let words: Vec<String> = items
        .iter()
        .enumerate()
        .filter_map(|(at, item)| {
            // An argument may be empty, a program may not.
            if at > 0 && matches!(item.value.get_ref(), DeValue::String(text) if text.is_empty()) {
                return Some(String::new());
            }
            value::plain_text(item, findings).map(str::to_owned)
        })
        .collect();
    if items.is_empty() {
        findings.push(cell.problem("it is empty").label(format!("write {COMMAND_EXAMPLE}")));
    }
    (findings.problems.len() == known).then_some(words)
}

/// The array to write for a command line.
fn as_array(line: &str) -> String {
    let shell = line.contains(['|', '&', ';', '<', '>', '$', '*', '`', '"', '\'', '\\', '~']);
    let words: Vec<String> = if line.len() > 60 || line.trim().is_empty() {
        return format!("no shell is involved: command = {COMMAND_EXAMPLE}");
    } else if shell {
        vec!["sh".into(), "-c".into(), line.into()]
    } else {
        line.split_whitespace().map(str::to_owned).collect()
    };
    format!("no shell is involved: command = {}", toml::Value::from(words))
}

fn kind(cell: &Cell<'_>, findings: &mut Findings) -> Option<Kind> {
    if let DeValue::String(text) = cell.value.get_ref()
        && text == "one_shot"
    {
        findings.push(cell.later(&format!("\"{text}\"")));
        return None;
    }
    choice(cell, &[("node", Kind::Node), ("notify", Kind::Notify), ("plain", Kind::Plain)], findings)
}

fn workers(cell: &Cell<'_>, findings: &mut Findings) -> Option<u32> {
    match cell.value.get_ref() {
        DeValue::Integer(_) if value::integer(cell) == Some(0) => {
            findings.push(
                cell.problem("a broker without workers serves nobody")
                    .label(format!("write 1 to {MAX_WORKERS}, or \"cpus\""))
                    .help("`shiftboss drain` sends all workers home"),
            );
            None
        }
        DeValue::Integer(_) => count(1..=MAX_WORKERS)(cell, findings),
        DeValue::String(text) if text == "cpus" => Some(cpus()),
        DeValue::String(text) => {
            let problem = cell.problem(format_args!(
                "expected a number from 1 to {MAX_WORKERS}, or \"cpus\", found \"{}\"",
                word(text)
            ));
            findings.push(match text.parse::<u32>() {
                Ok(number) => problem.label(format!("write {number} without quotes")),
                Err(_) => match keys::nearest(text, ["cpus"]) {
                    Some(meant) => problem.label(format!("did you mean \"{meant}\"?")),
                    None => problem,
                },
            });
            None
        }
        DeValue::Table(range) if range.contains_key("min") || range.contains_key("max") => {
            findings.push(cell.later("{ min, max }"));
            None
        }
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => {
            findings.push(cell.expected("an integer or \"cpus\""));
            None
        }
    }
}

/// Processors this process may use, at least 1.
fn cpus() -> u32 {
    let found = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(found).map_or(MAX_WORKERS, |found| found.min(MAX_WORKERS))
}

fn drained(cell: &Cell<'_>, findings: &mut Findings) -> Option<Drained> {
    choice(cell, &[("refuse", Drained::Refuse), ("hold", Drained::Hold)], findings)
}

/// Names and values; no value is ever part of a message.
fn environment(cell: &Cell<'_>, findings: &mut Findings) -> Option<BTreeMap<String, String>> {
    let DeValue::Table(table) = cell.value.get_ref() else {
        let help = "environment = { LOG_LEVEL = \"info\" }";
        findings.push(cell.expected("a table of strings").help(help));
        return None;
    };
    let known = findings.problems.len();
    let mut variables = BTreeMap::new();
    for (name, span, value) in in_order(table) {
        let shown = word(name.split_once('=').map_or(name, |(name, _)| name));
        let key = (cell.broker.unwrap_or_default().to_owned(), format!("{}.{name}", cell.key));
        findings.set.insert(key, span.clone());
        if let Some(why) = wrong_name(name) {
            findings.push(cell.named(span.clone(), &shown, why));
        }
        match value.get_ref() {
            DeValue::String(text) if text.contains('\0') => {
                findings.push(cell.named(value.span(), &shown, "the value holds a NUL byte"));
            }
            DeValue::String(text) => {
                variables.insert(name.to_owned(), text.clone().into_owned());
            }
            other
            @ (DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_)) => {
                let what = format!("expected a string, found {}", kind_of(other));
                findings.push(cell.named(value.span(), &shown, &what).label("write it in quotes"));
            }
            other @ (DeValue::Array(_) | DeValue::Table(_)) => {
                let what = format!("expected a string, found {}", kind_of(other));
                findings.push(cell.named(span, &shown, &what));
            }
        }
    }
    (findings.problems.len() == known).then_some(variables)
}

fn wrong_name(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("a variable needs a name"),
        name if name.contains('=') => Some("the name of a variable holds no `=`"),
        name if name.contains('\0') => Some("the name of a variable holds no NUL byte"),
        name if RESERVED.contains(&name) || name.starts_with("SHIFTBOSS_") => {
            Some("this variable is set by shiftboss itself")
        }
        _ => None,
    }
}

const RESERVED: [&str; 8] = [
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "NODE_CHANNEL_FD",
    "NODE_UNIQUE_ID",
    "worker_type",
    "env",
];
const DOOR: &str = "kind = \"node\", or kind = \"notify\" with a program that says SHIFTBOSS_STANDBY on its channel and waits (docs/channel.md)";
const COMMAND_EXAMPLE: &str = "[\"program\", \"argument\"]";
