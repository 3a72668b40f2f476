//! What workers were just writing when the broker process ended.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use super::images::{replace, replaceable};
use super::*;

/// Writes a line and the beginning of another at once, and the rest of that when it is asked to.
const HALF: &str = r#"
    app = "e2e"
    [broker.web]
    command = ["sh", "-c", "until [ -e FOLDER/go ]; do sleep 0.01; done; printf 'whole\\nhalf'; until [ -e FOLDER/on ]; do sleep 0.01; done; echo ' and the rest'; exec sleep 1000"]
    ready = { after = "0s" }
"#;

fn go(app: &App) {
    std::fs::write(app.path("go"), "").unwrap();
    app.until("the whole line, and half of one is read", |log| lines(log) == ["whole"]);
}

fn go_on(app: &App, said: &[&str]) {
    std::fs::write(app.path("on"), "").unwrap();
    app.until("the rest", |log| lines(log) == said);
}

/// How often a loss of this was told. Of lines that were on their way some may be said to be lost and be there.
fn told(log: &[Value], loss: &str) -> usize {
    let notes = log.iter().filter(|line| line["event"] == "note").filter_map(|line| line["text"].as_str());
    notes.filter(|text| text.starts_with("lost with the broker process") && text.contains(loss)).count()
}

#[test]
fn half_a_line_that_was_read_is_counted_as_lost_by_the_successor_and_told_once() {
    let app = App::ready(HALF);
    go(&app);
    app.kill_broker();
    let log = until_adopted(&app, 1);
    assert_eq!(told(&log, " 4 bytes of unfinished lines"), 1, "{log:?}");
    go_on(&app, &["whole", " and the rest"]);
    app.kill_broker();
    until_adopted(&app, 2);
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!(told(&log, "unfinished"), 1);
}

#[test]
fn half_a_line_that_was_read_before_an_upgrade_is_told_as_one_that_was_cut() {
    let app = replaceable(HALF);
    go(&app);
    replace(&app, &std::fs::read(BIN).unwrap());
    app.does(&["upgrade"]);
    go_on(&app, &["whole", "half…", " and the rest"]);
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!(told(&log, ""), 0);
}

#[test]
fn all_that_a_worker_wrote_is_in_the_log_or_counted_as_lost_when_nobody_reads_the_log() {
    let (reader, writer) = std::io::pipe().unwrap();
    // It is ready once it has written all of it.
    let config = sleepers_that(1, &format!(", \"--print\", \"{LINES}\""));
    let app = App::started(folder_with(&config), &["run", "-c", "shiftboss.toml"], |command| {
        command.stdout(writer);
    });
    app.does(&["wait", "web", "--for", "ready"]);
    app.kill_broker();
    app.does(&["wait", "web", "--for", "ready"]);
    let (said, lines_said) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(reader).lines().map_while(Result::ok).try_for_each(|line| said.send(line))
    });
    let mut log = Vec::new();
    while log.last().is_none_or(|line: &String| bytes_lost(line).is_none()) {
        log.push(lines_said.recv_timeout(Duration::from_secs(60)).expect("the loss is not told"));
    }
    let (status, _) = app.stop();
    assert!(status.success());
    log.extend(lines_said);
    // The line that was being written by the one that was killed goes on with what its successor says.
    let whole: Vec<Value> = log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let there: usize = lines(&whole).iter().map(|line| line.len() + 1).sum();
    let losses: Vec<usize> = log.iter().filter_map(|line| bytes_lost(line)).collect();
    assert_eq!(losses.len(), 1, "{losses:?}");
    let written: usize = (1..=LINES).map(|line| format!("line {line}\n").len()).sum();
    let accounted = there + losses[0];
    assert!(there > 0 && accounted >= written, "{there} and {} of {written}", losses[0]);
    assert!(accounted <= written + AT_ONCE, "{there} and {} of {written}", losses[0]);
}

/// The sum, where a line tells of a loss.
fn bytes_lost(line: &str) -> Option<usize> {
    let (_, loss) = line.split_once("lost with the broker process of what workers wrote: ")?;
    let before = loss.split(" bytes of ").filter_map(|words| words.rsplit(' ').next());
    Some(before.filter_map(|number| number.parse::<usize>().ok()).sum())
}

/// More than may wait for somebody who reads the log.
const LINES: usize = 50_000;
/// The log is written in portions of this size; of one that is written in part all counts as lost.
const AT_ONCE: usize = 32 * 1024;
