//! Each system call fails once (strace(1), `inject`): the k-th of its name, with an error that it may have.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::*;
use crate::faults_of_keeper_and_broker::{folder_with, run_by};
use crate::nothing_is_left_behind::descriptors;

fn has_strace() -> bool {
    let has = Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success());
    if !has {
        eprintln!("not tried: strace is not installed");
    }
    has
}

/// Which call, the how many-th, with which error.
#[derive(Clone, Copy)]
struct Failure {
    call: &'static str,
    at: u32,
    error: &'static str,
}

impl Failure {
    fn words(self) -> [String; 2] {
        let Failure { call, at, error } = self;
        [format!("trace={call}"), format!("inject={call}:error={error}:when={at}")]
    }
}

/// All that are tried: as many of each call as were made where this was written down; `SHIFTBOSS_CALL=waitid` chooses one.
fn failures(made: &BTreeMap<String, u32>) -> Vec<Failure> {
    let most = u32::try_from(times(1, 25)).unwrap();
    let of = |(call, errors): &(&'static str, &'static [&'static str])| {
        let (call, made) = (*call, made.get(*call).copied().unwrap_or(0).min(most));
        let one = move |at| errors.iter().map(move |error| Failure { call, at, error });
        (1..=made).flat_map(one).collect::<Vec<_>>()
    };
    let only = std::env::var("SHIFTBOSS_CALL").ok();
    let chosen = CALLS.iter().filter(|(call, _)| only.as_deref().is_none_or(|only| only == *call));
    let all = chosen.flat_map(of).collect::<Vec<_>>();
    all.into_iter().step_by(times(7, 1)).collect()
}

/// How often each call was made by the thread that made it most.
fn made(log: &str) -> BTreeMap<String, u32> {
    let mut by_thread: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        *by_thread.entry((thread, call)).or_default() += 1;
    }
    let mut most = BTreeMap::new();
    for ((_, call), times) in by_thread {
        let seen: &mut u32 = most.entry(call.to_owned()).or_default();
        *seen = times.max(*seen);
    }
    most
}

fn names() -> String {
    let names: Vec<&str> = CALLS.iter().map(|(name, _)| *name).collect();
    format!("trace={}", names.join(","))
}

/// Tries them all, then fails with all that did not go well.
fn each_goes_well(failures: &[Failure], goes: impl Fn(Failure) -> Result<(), String>) {
    let mut bad = Vec::new();
    for failure in failures {
        let Failure { call, at, error } = *failure;
        if let Err(why) = goes(*failure) {
            println!("seen: BAD: {call} number {at} with {error}: {why}");
            bad.push((call, at, error, why));
        }
    }
    println!("seen: {} failures of system calls, {} did not go well", failures.len(), bad.len());
    assert!(bad.is_empty(), "{bad:#?}");
}

/// Whether that comes true soon enough.
fn soon(mut is: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        if is() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

fn no_panic(app: &App) -> Result<(), String> {
    let said = app.stderr();
    if said.contains("panicked") { Err(said) } else { Ok(()) }
}

/// An app whose calls fail from its beginning on, those of its workers too.
fn started_with(words: &[String]) -> App {
    let folder =
        folder_with(&(sleepers(2, "") + &format!("listen = [\"tcp://127.0.0.1:{}\"]\n", free_port())));
    let mut all = vec!["strace", "-f", "-qq", "--seccomp-bpf", "-e", "signal=none"];
    words.iter().for_each(|word| all.extend(["-e", word]));
    let log = folder.path().join("calls");
    all.extend(["-o", log.to_str().unwrap()]);
    App::unjudged(folder, &["run", "-c", "shiftboss.toml"], |command| run_by(command, &all, BIN))
}

#[test]
fn a_start_of_which_a_call_fails_succeeds_or_says_why_not_and_ends() {
    if !has_strace() {
        return;
    }
    let app = started_with(&[names()]);
    app.until_event("app_ready", 1);
    app.does(&["stop", "--all"]);
    let strace = app.pid();
    eventually("it has ended", || is_gone(strace));
    let failures = failures(&made(&std::fs::read_to_string(app.path("calls")).unwrap()));
    each_goes_well(&failures, |failure| {
        let mut keeper = 0;
        let went = starts_and_ends(started_with(&failure.words()), &mut keeper);
        // What is no longer traced lives on: nobody is to be left of one that did not go well.
        if went.is_err() && keeper > 0 && !is_gone(keeper) {
            signal_process(keeper, Signal::KILL);
        }
        went
    });
}

fn starts_and_ends(mut app: App, keeper: &mut u32) -> Result<(), String> {
    let strace = app.pid();
    let done = soon(|| {
        *keeper = children_if_any(strace).first().copied().unwrap_or(*keeper);
        let log = app.heard();
        is_gone(strace) || named(&log, "app_ready") > 0 || named(&log, "worker_death") > 2
    });
    no_panic(&app)?;
    if !done {
        return Err(format!("neither ready nor refused:\n{}", app.stderr()));
    }
    let keeper = *keeper;
    if !is_gone(strace) {
        // Twice: a worker may be deaf by the same failure.
        for _ in 0..2 {
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_raw(keeper.cast_signed()).unwrap(),
                Signal::TERM,
            );
            if soon(|| is_gone(keeper)) {
                break;
            }
        }
        if !soon(|| is_gone(strace)) {
            return Err(format!("it does not end:\n{}", app.stderr()));
        }
    }
    let status = app.ended();
    let said = app.stderr();
    // The last is what the dynamic loader says, before the program has begun (ld.so(8)).
    let words = ["error:", "keeper:", "error while loading shared libraries:"];
    if !status.success() && !words.iter().any(|word| said.contains(word)) {
        return Err(format!("{status}, and nothing is said:\n{said}"));
    }
    no_panic(&app)
}

fn children_if_any(pid: u32) -> BTreeSet<u32> {
    let read = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    read.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Lets both processes have that failure, while the closure runs.
fn with_failure(app: &App, words: &[String], happens: impl FnOnce()) {
    let log = app.path("calls");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "--detach-on=execve", "-e", "signal=none", "-o", log.to_str().unwrap()]);
    for word in words {
        command.args(["-e", word]);
    }
    for pid in [app.pid(), app.broker_pid()] {
        command.args(["-p", &pid.to_string()]);
    }
    let mut strace = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("both are traced", || {
        [app.pid(), app.broker_pid()].iter().all(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            !status.contains("TracerPid:\t0")
        })
    });
    happens();
    signal_process(strace.id(), Signal::INT);
    strace.wait().unwrap();
}

fn much_happens(app: &App) {
    let ask = |words: &[&str]| drop(app.ask(&[words, &["--timeout", "5s"]].concat()));
    ask(&["recycle", "web"]);
    if let Some(pid) = app
        .ask(&["status", "--json"])
        .status
        .success()
        .then(|| app.pids())
        .and_then(|pids| pids.first().copied())
    {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
            Signal::KILL,
        );
    }
    ask(&["wait", "web", "--for", "ready"]);
    ask(&["scale", "web", "3"]);
    ask(&["scale", "web", "2"]);
    ask(&["drain", "web"]);
    ask(&["resume", "web"]);
    ask(&["events"]);
    if let Some(broker) = children(app.pid()).into_iter().find(|pid| *pid == app.broker_pid()) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_raw(broker.cast_signed()).unwrap(),
            Signal::KILL,
        );
    }
    ask(&["status"]);
}

#[test]
fn a_running_app_of_which_a_call_fails_goes_on_and_comes_to_rest() {
    if !has_strace() {
        return;
    }
    let begun = || {
        let app =
            App::ready(&(sleepers(2, "") + &format!("listen = [\"tcp://127.0.0.1:{}\"]\n", free_port())));
        app.kill_broker();
        app.until_event("broker_adopted", 1);
        app.does(&["resume", "web"]);
        app
    };
    let app = begun();
    with_failure(&app, &[names()], || much_happens(&app));
    let failures = failures(&made(&std::fs::read_to_string(app.path("calls")).unwrap()));
    drop(app);
    each_goes_well(&failures, |failure| {
        let app = begun();
        let open = || [descriptors(app.pid()), descriptors(app.broker_pid())];
        let before = open();
        let words = failure.words();
        with_failure(&app, &words, || much_happens(&app));
        no_panic(&app)?;
        let says = |what: &str| Err(format!("{what}:\n{}", app.stderr()));
        if !soon(|| app.ask(&["resume", "web", "--timeout", "5s"]).status.success()) {
            return says("it does not come to rest");
        }
        app.ask(&["scale", "web", "2", "--timeout", "5s"]);
        let again = app.ask(&["recycle", "web", "--timeout", "20s"]);
        if !text(&again.stdout).contains("2 of 2") {
            return says(&text(&again.stderr));
        }
        // Fewer are no leak: whoever had asked before may not have been gone yet when they were counted.
        let none_left = || open().iter().zip(&before).all(|(now, before)| now.len() <= before.len());
        if !soon(none_left) {
            return says(&format!("other descriptors: {before:?} {:?}", open()));
        }
        let all: BTreeSet<u32> = app.pids().into_iter().chain([app.broker_pid()]).collect();
        if children(app.pid()) != all {
            return says("other processes");
        }
        no_panic(&app)?;
        if app.stop().0.success() { Ok(()) } else { Err("it ended badly".into()) }
    });
}

/// Errors that each may have on a machine that is full, or has run out of something.
const CALLS: &[(&str, &[&str])] = &[
    ("accept4", &["EMFILE"]),
    ("bind", &["EADDRINUSE", "ENOSPC"]),
    ("chmod", &["EPERM"]),
    ("clone", &["EAGAIN"]),
    ("clone3", &["EAGAIN", "ENOMEM"]),
    ("connect", &["ECONNREFUSED"]),
    ("epoll_create1", &["EMFILE"]),
    ("epoll_ctl", &["ENOMEM", "ENOSPC"]),
    ("epoll_wait", &["EINTR"]),
    ("eventfd2", &["EMFILE"]),
    ("execve", &["ENOMEM"]),
    ("fchmod", &["EPERM"]),
    ("fcntl", &["EMFILE"]),
    ("flock", &["EINTR"]),
    ("ftruncate", &["ENOSPC"]),
    ("getdents64", &["EIO"]),
    ("inotify_add_watch", &["ENOSPC"]),
    ("inotify_init1", &["EMFILE"]),
    ("listen", &["EADDRINUSE"]),
    ("memfd_create", &["ENFILE", "ENOMEM"]),
    ("mkdir", &["ENOSPC"]),
    ("newfstatat", &["EACCES"]),
    ("openat", &["EMFILE", "EACCES"]),
    ("pidfd_open", &["EMFILE", "ENOMEM"]),
    ("pipe2", &["EMFILE", "ENFILE"]),
    ("poll", &["EINTR"]),
    ("ppoll", &["EINTR"]),
    ("prctl", &["EPERM"]),
    ("pwrite64", &["ENOSPC"]),
    ("read", &["EIO", "EINTR"]),
    ("readlink", &["EACCES"]),
    ("recvfrom", &["ECONNRESET"]),
    ("recvmsg", &["ENOMEM", "EINTR"]),
    ("rename", &["ENOSPC"]),
    ("sendmsg", &["ENOBUFS", "ETOOMANYREFS", "EINTR"]),
    ("sendto", &["ENOBUFS"]),
    ("setsockopt", &["ENOMEM"]),
    ("signalfd4", &["EMFILE"]),
    ("socket", &["EMFILE", "ENOBUFS"]),
    ("socketpair", &["EMFILE", "ENFILE"]),
    ("statx", &["EACCES"]),
    ("timerfd_create", &["EMFILE"]),
    ("timerfd_settime", &["ECANCELED"]),
    ("unlink", &["EPERM"]),
    ("waitid", &["EINTR"]),
    // Not write(2): by it the runtime wakes itself through an eventfd that never waits, so the kernel interrupts none
    // (signal(7)); where one fails all the same, it panics. The log uses writev(2).
    ("writev", &["EPIPE", "ENOSPC"]),
];
