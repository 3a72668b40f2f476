//! Signals to the keeper while it has no broker process, or one that only begins; those of a terminal.

use std::time::{Duration, Instant};

use super::*;
use crate::trace;

fn kills() -> u32 {
    std::env::var("SHIFTBOSS_KILLS").ok().map_or(6, |times| times.parse().unwrap())
}

/// A few milliseconds that nobody can foresee.
fn a_moment(seed: u32) {
    let mixed = u64::from(seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    passes(Duration::from_micros(mixed % 12_000));
}

fn passes(wait: Duration) {
    let end = Instant::now() + wait;
    eventually("a moment passes", || Instant::now() >= end);
}

/// The keeper finds the death of its broker process and these signals at once.
fn heard_with_the_death(app: &App, signals: &[Signal]) {
    let broker = app.broker_pid();
    app.signal(Signal::STOP);
    eventually("the keeper has stopped", || state(app.pid()) == Some('T'));
    signal_process(broker, Signal::KILL);
    signals.iter().for_each(|signal| app.signal(*signal));
    app.signal(Signal::CONT);
}

#[test]
fn a_signal_that_comes_while_there_is_no_broker_process_is_taken_in_by_the_next() {
    let mut app = App::ready(&sleepers(2));
    heard_with_the_death(&app, &[Signal::HUP]);
    app.until_event("recycle_finished", 1);
    heard_with_the_death(&app, &[Signal::TERM]);
    assert!(app.ended().success(), "{}", app.stderr());
    let log = once(&app.log());
    assert_eq!((named(&log, "recycle_started"), named(&log, "worker_ended")), (1, 4));
    assert!(log.iter().all(|event| event["forced"] != true));
}

#[test]
fn a_stop_at_any_moment_of_a_hand_over_is_graceful_and_happens_once() {
    for seed in 0..kills() {
        let mut app = App::ready(&sleepers_that(2, ", \"--stop-delay\", \"20\""));
        signal_process(app.broker_pid(), Signal::KILL);
        a_moment(seed);
        app.signal([Signal::TERM, Signal::INT, Signal::QUIT][seed as usize % 3]);
        assert!(app.ended().success(), "{}", app.stderr());
        let log = once(&app.log());
        assert_eq!((named(&log, "worker_ended"), named(&log, "worker_death")), (2, 0));
        assert!(log.iter().all(|event| event["forced"] != true));
        assert_eq!((named(&log, "app_stopping"), named(&log, "broker_adopted")), (1, 1));
    }
}

#[test]
fn a_hang_up_at_any_moment_of_a_hand_over_renews_the_workers_once() {
    let app = App::ready(&sleepers(2));
    for seed in 0..kills() {
        // After this time a death is none at the start.
        passes(Duration::from_secs(1));
        signal_process(app.broker_pid(), Signal::KILL);
        a_moment(seed);
        app.signal(Signal::HUP);
        app.until_event("recycle_finished", seed as usize + 1);
        until_adopted(&app, seed as usize + 1);
    }
    let (status, log) = app.stop();
    assert!(status.success());
    let log = once(&log);
    let recycles = kills() as usize;
    assert_eq!(named(&log, "recycle_started"), recycles);
    assert_eq!((named(&log, "worker_started"), named(&log, "worker_death")), (2 + 2 * recycles, 0));
    assert_eq!(named(&log, "worker_ended"), 2 + 2 * recycles);
}

#[test]
fn ctrl_c_in_a_terminal_stops_the_app_once_and_gracefully() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
import os, pty, signal, sys
signal.alarm(60)
pid, terminal = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
said = b""
def hear():
    global said
    try: more = os.read(terminal, 4096)
    except OSError: more = b""
    said += more
    return more
while b"ready" not in said and hear(): pass
os.write(terminal, b"\x03")
while hear(): pass
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.count(b"stopping: every worker"), b"forced" in said)
print(said.decode(errors="replace"), file=sys.stderr)
"#;
    let socket = socket(&folder);
    let mut command = Command::new("python3");
    trace::record(&mut command, folder.path());
    let worker = worker();
    let app = ["--socket", socket.to_str().unwrap(), "run", "--with-parent", "-w", "2", "--"];
    let output = command
        .args(["-c", script, BIN])
        .args(app)
        .args([worker.to_str().unwrap(), "--stop-delay", "100"])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "0 1 False\n", "{}", text(&output.stderr));
    assert!(!socket.exists());
    trace::promises_are_kept(folder.path());
}
