//! A few MB, no wake-up at rest.

use std::time::{Duration, Instant};

use crate::app::*;
use crate::ready_before_retire::web;

/// How often any thread of the process has begun to run.
fn wake_ups(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status =
        threads.flatten().map(|thread| std::fs::read_to_string(thread.path().join("status")).unwrap());
    let count = |status: String| {
        let switches = status.lines().filter(|line| line.contains("ctxt_switches"));
        switches.map(|line| line.split_whitespace().last().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    status.map(count).sum()
}

#[test]
fn nothing_wakes_up_while_nothing_happens() {
    let app = App::ready(&web(free_port()));
    // Timers that began with the start (proof of health, 1 s here) run out first.
    let quiet = || {
        let before = wake_ups(app.pid());
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
        }
        wake_ups(app.pid()) == before
    };
    eventually("two seconds without a wake-up", quiet);
}
