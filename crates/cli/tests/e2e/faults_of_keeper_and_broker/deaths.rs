//! The broker process hangs, panics again and again, or its keeper dies.

use super::*;

#[test]
fn one_that_was_stopped_and_then_killed_is_replaced() {
    let app = App::ready(&sleepers(2));
    let pids = app.pids();
    killed_while(&app, || {});
    until_adopted(&app, 1);
    assert_eq!(app.pids(), pids);
    app.does(&["recycle", "web"]);
    let (status, log) = app.stop();
    assert!(status.success());
    let log = once(&log);
    assert_eq!((named(&log, "worker_started"), named(&log, "worker_death")), (4, 0));
}

/// Nobody who is told 202 asks again.
#[test]
fn a_command_that_is_accepted_is_carried_out_though_the_broker_process_is_killed_at_once() {
    use std::io::{Read as _, Write as _};
    if !cfg!(debug_assertions) {
        return;
    }
    let points = tempfile::tempdir().unwrap();
    let app = ready_with(&sleepers(1), |command| {
        command.env("SHIFTBOSS_KILL_LOG", points.path().join("log"));
        command.env("SHIFTBOSS_KILL_AT", "a command is about to be accepted");
    });
    let mut stream = std::os::unix::net::UnixStream::connect(app.socket()).unwrap();
    let (body, head) =
        ("{\"workers\":3}", "POST /v1/brokers/web/scale HTTP/1.1\r\nHost: x\r\nConnection: close");
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    // It is killed just before it answers.
    let _ = stream.read_to_string(&mut answer);
    assert_eq!(answer, "");
    app.until_event("worker_ready", 3);
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!((named(&log, "broker_scaled"), named(&log, "broker_adopted")), (1, 1));
}

#[test]
fn one_that_hangs_is_replaced_once_it_has_owed_something_for_long() {
    if !cfg!(debug_assertions) {
        return;
    }
    let app = ready_with(&sleepers(2), |command| {
        command.env("SHIFTBOSS_HUNG_MS", "3000");
    });
    let (pids, broker) = (app.pids(), app.broker_pid());
    signal_process(broker, Signal::STOP);
    signal_process(pids[0], Signal::KILL);
    let log = app.until_event("worker_ready", 3);
    app.until_said("keeper: the broker process hangs: replacing it");
    assert!(is_gone(broker));
    assert_eq!((named(&log, "worker_death"), named(&log, "broker_adopted")), (1, 1));
    assert!(app.pids().contains(&pids[1]));
    nobody_else_is_there(&app);
    app.stop();
}

#[test]
fn a_second_stop_ends_everything_though_the_first_was_not_heard() {
    let mut app = App::ready(&sleepers(2));
    let pids = app.pids();
    signal_process(app.broker_pid(), Signal::STOP);
    app.signal(Signal::TERM);
    app.signal_again(Signal::TERM);
    assert!(app.ended().success());
    assert!(pids.iter().all(|pid| is_gone(*pid)) && !app.socket().exists());
    assert_eq!(named(&once(&app.log()), "worker_death"), 0);
}

#[test]
fn signals_that_mean_nothing_end_nothing() {
    let app = App::ready(&sleepers(2));
    let (pids, broker) = (app.pids(), app.broker_pid());
    for signal in [Signal::USR1, Signal::ALARM] {
        app.signal(signal);
    }
    eventually("it is said", || app.stderr().contains("keeper: signal 10 does nothing"));
    assert_eq!((app.pids(), app.broker_pid()), (pids, broker));
    app.stop();
}

#[test]
fn one_that_panics_again_and_again_drops_what_was_under_way_and_keeps_all_workers() {
    if !cfg!(debug_assertions) {
        return;
    }
    let app = ready_with(&sleepers(2), |command| {
        command.env("SHIFTBOSS_PANIC_ON", "recycle_started");
    });
    let pids = app.pids();
    let before = files(&app);
    let answer = app.ask(&["recycle", "web"]);
    let said = text(&answer.stdout) + &text(&answer.stderr);
    assert!(!answer.status.success(), "{said}");
    assert!(said.contains("given up: the broker process died again and again"), "{said}");
    let log = until_adopted(&app, 1);
    let adopted = log.iter().find(|event| event["event"] == "broker_adopted").unwrap();
    assert_eq!((&adopted["salvaged"], &adopted["workers"]), (&true.into(), &2.into()));
    for words in ["panicked", "asked to panic on recycle_started", "the broker process exited with 101"] {
        app.until_said(words);
    }
    eventually("its successors are gone, the workers are not", || {
        app.pids().len() == 2 && pids.iter().all(|pid| app.pids().contains(pid))
    });
    assert_eq!(files(&app), before);
    nobody_else_is_there(&app);
    signal_process(pids[0], Signal::KILL);
    app.does(&["wait", "web", "--for", "ready"]);
    let (status, log) = app.stop();
    assert!(status.success());
    let log = once(&log);
    assert_eq!(named(&log, "recycle_failed"), 1);
}

/// Its sockets, and those of its workers.
fn files(app: &App) -> BTreeSet<String> {
    let names = |folder| {
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let mut all: BTreeSet<String> = names(app.path("app.sock.d")).into_iter().collect();
    all.extend(names(app.path(".")).into_iter().filter(|name| name.ends_with(".sock")));
    all
}

#[test]
fn a_keeper_that_is_killed_takes_everything_with_it() {
    for both in [false, true] {
        let mut app = App::ready(&sleepers_that(2, ", \"--fork-child\""));
        let mut all = children(app.pid());
        let said = app.until("each says its child", |log| lines(log).len() >= 2);
        assert_eq!(all.len(), 3);
        if both {
            app.signal_both(Signal::KILL);
        } else {
            app.signal(Signal::KILL);
        }
        app.ended();
        let grandchildren: Vec<u32> =
            lines(&said).iter().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        for pid in std::mem::take(&mut all) {
            eventually("it is gone", || is_gone(pid));
        }
        // They are nobody's any more, and the next run would end them.
        grandchildren
            .into_iter()
            .filter(|pid| !is_gone(*pid))
            .for_each(|pid| signal_process(pid, Signal::KILL));
    }
}

#[test]
fn one_that_is_killed_while_it_begins_is_followed_by_one_that_begins() {
    for tries in 0..20 {
        // Whoever begins again begins its trace again.
        let folder = folder_with(&sleepers(2));
        let mut app = App::unjudged(folder, &["run", "-c", "shiftboss.toml"], |_| {});
        let keeper = app.pid();
        // It has given so much away already.
        eventually("it has begun", || {
            std::fs::read_dir(format!("/proc/{keeper}/fd")).map_or(0, Iterator::count) >= 7 + tries % 10
        });
        app.kill_broker();
        eventually("the app is ready, or was never begun", || {
            is_gone(keeper) || named(&app.heard(), "app_ready") > 0
        });
        if is_gone(keeper) {
            assert_eq!(app.ended().code(), Some(137), "{}", app.stderr());
            continue;
        }
        assert_eq!(app.pids().len(), 2);
        nobody_else_is_there(&app);
        assert!(app.stop().0.success());
    }
}
