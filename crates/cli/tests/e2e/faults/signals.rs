//! Signals in a strange state, in a storm, at stopped processes; and numbers of processes that come again.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::*;
use crate::faults_of_keeper_and_broker::{folder_with, run_by};
use crate::load::*;
use crate::ready_before_retire::web;

#[test]
fn whatever_signals_it_was_started_with_its_workers_start_with_none() {
    let script = "import os, signal, sys\nfor number in range(1, 32):\n    if number not in (9, 19): signal.signal(number, signal.SIG_IGN)\n\
                  signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\nos.execvp(sys.argv[1], sys.argv[1:])";
    let folder = folder_with(&sleepers(2, ", \"--sigmask\""));
    let app = App::started(folder, &["run", "-c", "shiftboss.toml"], |command| {
        run_by(command, &["nohup", "python3", "-c", script], BIN);
    });
    app.until_event("app_ready", 1);
    let log = app.until("they say their signals", |log| lines(log).len() >= 6);
    let said = lines(&log);
    for line in said.iter().filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn")) {
        let set = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        // SIGPIPE is ignored by Rust's own start.
        assert_eq!(set & !(1 << 12), 0, "{line}");
    }
    signal_process(app.pids()[0], Signal::KILL);
    app.until_event("worker_ready", 3);
    // Whoever ignores it wants it ignored (nohup(1)); nobody can mean that of TERM.
    app.signal(Signal::HUP);
    app.does(&["recycle", "web/0"]);
    assert_eq!(named(&app.log(), "recycle_started"), 1);
    assert!(app.stop().0.success());
}

#[test]
fn a_storm_of_signals_is_taken_in_and_hang_ups_become_few_recycles() {
    // Whoever started the tests may ignore it (nohup(1)), and what is ignored at the start stays ignored.
    let app = App::started(folder_with(&sleepers(2, "")), &["run", "-c", "shiftboss.toml"], |command| {
        run_by(command, &["env", "--default-signal=HUP"], BIN);
    });
    app.until_event("app_ready", 1);
    let storm = times(1000, 100_000);
    let begun = Instant::now();
    for number in 0..storm {
        for signal in [Signal::CHILD, Signal::WINCH, Signal::HUP] {
            app.signal(signal);
        }
        if number % (storm / 10) == 0 {
            app.does(&["status"]);
        }
    }
    println!("seen: 3 x {storm} signals in {} ms", begun.elapsed().as_millis());
    eventually("all is quiet again", || app.status().brokers[0].state == shiftboss_api::BrokerState::Open);
    app.does(&["recycle", "web"]);
    let log = app.log();
    let recycles = named(&log, "recycle_started");
    println!("seen: {recycles} recycles");
    assert!((2..storm / 2).contains(&recycles), "{recycles}");
    nobody_else_is_there(&app);
    assert!(app.stop().0.success());
}

#[test]
fn an_app_that_was_stopped_for_long_goes_on_where_it_was() {
    let port = free_port();
    let app = App::ready(&web(port));
    let before = app.pids();
    let mut load = Load::on(port, &["--no-keep-alive"]);
    app.does(&["recycle", "web", "--no-wait"]);
    app.signal_both(Signal::STOP);
    let end = Instant::now() + Duration::from_secs(times(2, 30) as u64);
    eventually("it was stopped for long", || Instant::now() >= end);
    app.signal_both(Signal::CONT);
    let log = app.until_event("recycle_finished", 1);
    assert!(log.iter().all(|event| event["forced"] != true));
    assert_eq!(named(&log, "worker_death"), 0);
    assert!(app.pids().iter().all(|pid| !before.contains(pid)));
    load.a_second();
    none_lost(&load.end());
}

/// By system calls: each is signalled by who alone reaps it, and never after that, so a number that came again is not hit.
#[test]
fn no_number_is_signalled_once_its_process_was_reaped() {
    if !Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success()) {
        eprintln!("not tried: strace is not installed");
        return;
    }
    let folder = folder_with(&sleepers(4, ", \"--fork-child\", \"--setsid-child\""));
    let calls = folder.path().join("calls");
    let words =
        ["strace", "-f", "-qq", "-e", "trace=kill,tkill,tgkill,waitid,wait4,clone3,clone,vfork", "-e"];
    let words = [&words[..], &["signal=none", "-o", calls.to_str().unwrap()]].concat();
    let app = App::started(folder, &["run", "-c", "shiftboss.toml"], |command| run_by(command, &words, BIN));
    app.until_event("app_ready", 1);
    for _ in 0..times(2, 25) {
        app.does(&["recycle", "web"]);
        signal_process(app.pids()[0], Signal::KILL);
        app.does(&["wait", "web", "--for", "ready"]);
    }
    app.does(&["stop", "--all"]);
    let strace = app.pid();
    eventually("all has ended", || is_gone(strace));
    let text = std::fs::read_to_string(calls).unwrap();
    let (mut reaped, mut signals) = (BTreeSet::new(), 0);
    for line in text.lines() {
        let number = |before: &str| {
            let rest = line.split_once(before)?.1.trim_start_matches('-');
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()
        };
        if line.contains("kill(") {
            signals += 1;
            assert!(!reaped.contains(&number("kill(").unwrap()), "signalled when it was reaped: {line}");
        } else if line.contains("wait") && !line.contains("WNOWAIT") {
            reaped.extend(number("si_pid="));
        } else if let Some((_, made)) = line.rsplit_once(" = ") {
            made.parse().ok().map(|made: u32| reaped.remove(&made));
        }
    }
    println!(
        "seen: {signals} signals, {} processes reaped before, none of them signalled after",
        reaped.len()
    );
    assert!(signals > 10 && reaped.len() > 10, "{signals} {reaped:?}");
}
