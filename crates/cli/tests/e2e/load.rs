//! Real load: the binary's own generator in a process of its own, open loop, without retries.

use std::io::{BufRead as _, BufReader};
use std::ops::RangeInclusive;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::app::BIN;

pub(crate) struct Load {
    child: Child,
    /// It ends when this does.
    stdin: Option<ChildStdin>,
    /// Taken from it as they come: it would wait for whoever does not read.
    lines: Receiver<String>,
    last: Value,
}

impl Load {
    /// 200 requests a second; a tenth are slow to answer, a tenth arrive slowly.
    pub(crate) fn on(port: u16, more: &[&str]) -> Load {
        let mut child = Command::new(BIN)
            .args([
                "demo-load",
                "--json",
                "--timeout-seconds",
                "60",
                "--target",
                &format!("127.0.0.1:{port}"),
            ])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = read(child.stdout.take().unwrap());
        let stdin = child.stdin.take();
        let mut load = Load { child, stdin, lines, last: Value::Null };
        load.until(|count| count["ok"].as_u64() > Some(50));
        load
    }

    /// Reads on until a second's counts fulfil this.
    pub(crate) fn until(&mut self, is: impl Fn(&Value) -> bool) {
        loop {
            let line = self.lines.recv().expect("the load ended by itself");
            self.last = serde_json::from_str(&line).unwrap();
            if is(&self.last) {
                return;
            }
        }
    }

    /// Takes in what has been said so far.
    fn catch_up(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.last = serde_json::from_str(&line).unwrap();
        }
    }

    /// The last second heard of, on the load's own clock.
    pub(crate) fn now(&self) -> f64 {
        self.last["t"].as_f64().unwrap().floor()
    }

    /// A whole second from now on, and up to one at whose end requests are in flight.
    pub(crate) fn a_second(&mut self) {
        self.catch_up();
        let now = self.last["t"].as_f64().unwrap();
        self.until(|count| count["t"].as_f64() >= Some(now + 1.0) && count["in_flight"].as_u64() > Some(0));
    }

    /// Ends it; what became of all requests.
    pub(crate) fn end(mut self) -> Value {
        drop(self.stdin.take());
        self.until(|count| count["final"] == true);
        self.child.wait().unwrap();
        let counts = std::mem::take(&mut self.last);
        assert!(counts["sent"].as_u64() > Some(100), "too little load: {counts}");
        counts
    }
}

fn read(stdout: ChildStdout) -> Receiver<String> {
    let (take, lines) = channel();
    std::thread::spawn(move || {
        // Nobody asks any more once the load is dropped.
        let _ = BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| take.send(line));
    });
    lines
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whatever failed did so in one of these seconds.
#[track_caller]
pub(crate) fn failed_only_in(counts: &Value, seconds: &[RangeInclusive<f64>]) {
    for (second, failed) in counts["failed_by_second"].as_object().unwrap() {
        let second: f64 = second.parse().unwrap();
        assert!(
            seconds.iter().any(|span| span.contains(&second)),
            "{failed} failed in second {second}: {counts}"
        );
    }
}

/// No request was lost, not even one that crossed a close.
pub(crate) fn none_lost(counts: &Value) {
    assert_eq!((&counts["failed"], &counts["crossed"]), (&Value::from(0), &Value::from(0)), "{counts}");
}
