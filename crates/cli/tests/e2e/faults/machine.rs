//! What the machine denies: standard streams, calls of newer kernels.

use std::process::Command;

use rustix::process::Signal;

use super::*;
use crate::faults_of_keeper_and_broker::{folder_with, run_by};

#[test]
fn an_app_started_without_standard_streams_puts_nothing_else_in_their_place() {
    let folder = folder_with(&sleepers(2, ""));
    let app = App::started(folder, &["run", "-c", "shiftboss.toml"], |command| {
        run_by(command, &["sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"], BIN);
    });
    eventually("it answers", || app.ask(&["status"]).status.success());
    app.does(&["wait", "web", "--for", "ready"]);
    for pid in [app.pid(), app.broker_pid()] {
        for number in 0..3 {
            let target = std::fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
            assert_eq!(target.to_str(), Some("/dev/null"), "{number} of {pid}");
        }
    }
    signal_process(app.pids()[0], Signal::KILL);
    app.kill_broker();
    app.does(&["wait", "web", "--for", "ready"]);
    assert!(app.stop().0.success());
}

/// Under a kernel, as it seems, that does not know this call: everything as before, or a refusal that says why.
#[test]
fn an_older_kernel_is_made_do_with_or_refused() {
    if !Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success()) {
        eprintln!("not tried: strace is not installed");
        return;
    }
    for call in ["pidfd_open", "clone3", "close_range", "memfd_create", "epoll_pwait2", "pidfd_send_signal"] {
        let folder = folder_with(&sleepers(2, ""));
        let inject = format!("inject={call}:error=ENOSYS");
        let words = ["strace", "-f", "-qq", "-e", &inject, "-e", "signal=none", "-o", "/dev/null"];
        let mut app =
            App::unjudged(folder, &["run", "-c", "shiftboss.toml"], |command| run_by(command, &words, BIN));
        let strace = app.pid();
        eventually("it is ready, or has given up", || {
            is_gone(strace) || named(&app.heard(), "app_ready") > 0
        });
        if is_gone(strace) {
            assert!(!app.ended().success());
            let said = app.stderr();
            assert!(said.contains("ENOSYS") || said.contains("not implemented"), "{call}: {said}");
            assert!(!said.contains("panicked"), "{call}: {said}");
            println!("seen: without {call}: refused: {}", said.trim().lines().last().unwrap_or_default());
            continue;
        }
        signal_process(app.pids()[0], Signal::KILL);
        app.until_event("worker_ready", 3);
        app.does(&["recycle", "web"]);
        app.does(&["stop", "--all"]);
        eventually("it has ended", || is_gone(strace));
        println!("seen: without {call}: everything as with it");
    }
}
