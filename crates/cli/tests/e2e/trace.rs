//! What the app's rules were told and what they answered is written down in every test, and judged by an onlooker that
//! shares no rule with them. Here: how, and that it is worth something.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::Signal;
use shiftboss_oracle::trace::{Fault, judge};

use crate::app::*;
use crate::ready_before_retire::web;

/// The app that this starts writes its trace into that folder.
pub(crate) fn record(command: &mut Command, folder: &Path) {
    command.env(VARIABLE, file(folder));
}

/// Whether an app of that folder has begun to run.
pub(crate) fn is_recorded(folder: &Path) -> bool {
    file(folder).exists()
}

/// Every app of that folder has kept its promises; else the test fails with the onlooker's words, and the trace is kept.
#[track_caller]
pub(crate) fn promises_are_kept(folder: &Path) {
    let file = file(folder);
    let text = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    if let Err(fault) = judge(text.as_slice()) {
        let test = std::thread::current().name().unwrap_or("main").replace("::", ".");
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.trace"));
        std::fs::write(&kept, text).unwrap();
        panic!("{}: {fault}", kept.display());
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("trace")
}

const VARIABLE: &str = "SHIFTBOSS_TRACE";

/// The trace of an app in whose life something of everything has happened, a line each.
fn eventful() -> Vec<String> {
    let app = App::ready(&web(free_port()));
    let trace = file(app.folder.path());
    app.does(&["recycle", "web"]);
    signal_process(app.pids()[0], Signal::KILL);
    app.until_event("worker_death", 1);
    app.does(&["wait", "web", "--for", "ready"]);
    app.does(&["drain", "web"]);
    app.does(&["resume", "web"]);
    // Its folder goes with it.
    let kept = tempfile::tempdir().unwrap();
    std::fs::hard_link(&trace, file(kept.path())).unwrap();
    assert!(app.stop().0.success());
    std::fs::read_to_string(file(kept.path())).unwrap().lines().map(str::to_owned).collect()
}

/// The last line whose input is of that kind and says this.
fn heard(lines: &[String], kind: &str, this: &str) -> usize {
    let input = format!("\"input\":{{\"{kind}\":");
    let found = lines.iter().rposition(|line| line.contains(&input) && input_of(line).contains(this));
    found.unwrap_or_else(|| panic!("no {kind} with {this} was heard"))
}

fn input_of(line: &str) -> &str {
    between(line, "\"input\":", ",\"effects\":")
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = line.split_once(before).unwrap();
    rest.rsplit_once(after).unwrap().0
}

/// One part of a line becomes another.
fn change(line: &mut String, from: &str, to: &str) {
    assert!(line.contains(from), "{from} is not in {line}");
    *line = line.replacen(from, to, 1);
}

#[test]
fn a_lie_in_a_trace_is_seen_where_it_stands() {
    let told = eventful();
    let judged = |lines: &[String]| judge(format!("{}\n", lines.join("\n")).as_bytes());
    let truth = judged(&told).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!((truth.runs, truth.ended), (1, 1));
    let catches = |invariant: &str, at: usize, lie: &dyn Fn(&mut Vec<String>)| {
        let mut lines = told.clone();
        lie(&mut lines);
        match judged(&lines) {
            Err(Fault::Broken { number, broken, .. }) => {
                let names: Vec<&str> = broken.iter().map(|broken| broken.invariant).collect();
                assert!(
                    number as usize - 1 == at && names.contains(&invariant),
                    "{invariant} at {at}: {names:?} in line {number}"
                );
            }
            other => panic!("{invariant} at {at} is not seen: {other:?}"),
        }
    };

    let death = heard(&told, "Exited", "{\"Signal\":9}");
    catches("I48b", death, &|lines| {
        let effects = between(&lines[death], "\"effects\":", ",\"deadline\":").to_owned();
        change(&mut lines[death], &effects, "[]");
    });
    catches("I5", death, &|lines| change(&mut lines[death], "{\"Signal\":9}", "{\"Code\":9}"));
    catches("I5", death, &|lines| change(&mut lines[death], "{\"Signal\":9}", "{\"Signal\":15}"));
    catches("C2", death + 1, &|lines| lines.insert(death, lines[death].clone()));
    catches("C1", death, &|lines| {
        lines.remove(death);
    });
    catches("C9", death, &|lines| {
        lines.truncate(death + 1);
        change(&mut lines[death], "],\"deadline\"", ",\"Exit\"],\"deadline\"");
    });

    let started = heard(&told, "Spawned", "");
    let pid = |line: &str| format!("\"pid\":{}}}", between(line, "\"pid\":", "}},\"effects\""));
    catches("I48", started, &|lines| {
        let real = pid(&lines[started]);
        change(&mut lines[started], &real, "\"pid\":1}");
    });
    catches("C6", started, &|lines| {
        let before = heard(&lines[..started], "Spawned", "");
        let (real, others) = (pid(&lines[started]), pid(&lines[before]));
        change(&mut lines[started], &real, &others);
    });
    catches("C1", started + 1, &|lines| lines.insert(started, lines[started].clone()));

    let shut = heard(&told, "Shut", "");
    catches("C3", shut + 1, &|lines| lines.insert(shut, lines[shut].clone()));
    catches("C3", shut, &|lines| change(&mut lines[shut], "\"round\":", "\"round\":1000"));

    let end = told.len() - 1;
    let step = |now: &str, input: &str| {
        format!("{{\"step\":{{\"now\":{now},\"input\":{input},\"effects\":[],\"deadline\":null}}}}")
    };
    let now = told[end].split_once(",\"input\"").unwrap().0.rsplit_once(':').unwrap().1;
    catches("C4", 2, &|lines| lines.insert(2, step(now, "\"Tick\"")));
    catches("C5", end, &|lines| change(&mut lines[end], now, "5"));
    catches("C7", end + 1, &|lines| lines.push(step(now, "{\"Stop\":{\"now\":true}}")));
    let unasked = "{\"Window\":{\"broker\":0,\"open\":true}}";
    catches("C10", end, &|lines| lines.insert(end, step(now, unasked)));
    catches("C8", 2, &|lines| lines.insert(1, lines[1].clone()));
}

#[test]
fn a_trace_ends_where_its_writer_was_killed_and_the_next_one_goes_on_after_it() {
    let app = App::ready(&web(free_port()));
    let mut text = std::fs::read(file(app.folder.path())).unwrap();
    text.truncate(text.len() - 5);
    let torn = judge(text.as_slice()).unwrap();
    assert_eq!((torn.runs, torn.ended), (1, 0));

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(file(folder.path()), text).unwrap();
    std::fs::write(folder.path().join("shiftboss.toml"), SLEEPER).unwrap();
    let next = App::started(folder, &["run"], |_| {});
    next.until_event("app_ready", 1);
    let both = judge(BufReader::new(File::open(file(next.folder.path())).unwrap())).unwrap();
    assert_eq!((both.runs, both.ended), (2, 0));
    assert!(both.steps > torn.steps);
}

#[test]
fn nothing_secret_and_nothing_of_the_trace_reaches_where_it_does_not_belong() {
    let folder = tempfile::tempdir().unwrap();
    let script = "printenv SHIFTBOSS_TRACE; printenv SECRET; echo said; exec sleep 1000";
    let config = format!(
        "app = \"e2e\"\n[broker.web]\ncommand = [\"sh\", \"-c\", {script:?}]\nready = {{ after = \"0s\" }}\n\
         environment = {{ SECRET = \"in the file\" }}\n"
    );
    std::fs::write(folder.path().join("shiftboss.toml"), config).unwrap();
    let app = App::started(folder, &["run"], |command| {
        command.env("OTHER", "on the outside");
    });
    let log = app.until("it has spoken", |log| lines(log).contains(&"said".to_owned()));
    assert_eq!(lines(&log), ["in the file", "said"], "SHIFTBOSS_TRACE is not the worker's");
    app.until_event("app_ready", 1);
    let trace = std::fs::read_to_string(file(app.folder.path())).unwrap();
    assert!(!trace.contains("in the file") && !trace.contains("on the outside"));
}

#[test]
fn an_app_goes_on_when_its_trace_cannot_and_says_so_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let reader = rustix::fs::open(&pipe, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let mut reader = BufReader::new(File::from(reader.unwrap()));
    std::fs::write(folder.path().join("shiftboss.toml"), SLEEPER).unwrap();
    let app = App::unjudged(folder, &["run"], |command| {
        command.env(VARIABLE, &pipe);
    });
    app.until_event("app_ready", 1);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"begin\":"), "{line}");
    drop(reader);
    app.does(&["recycle", "--all"]);
    app.does(&["recycle", "--all"]);
    let (status, log) = app.stop();
    assert!(status.success());
    let said = log.iter().filter_map(|line| line["text"].as_str()).filter(|text| text.contains("trace"));
    let said: Vec<&str> = said.collect();
    assert_eq!(said, ["the trace cannot be written and ends here: Broken pipe (os error 32)"]);
}

const SLEEPER: &str =
    "app = \"e2e\"\n[broker.web]\ncommand = [\"sleep\", \"1000\"]\nready = { after = \"0s\" }\n";
