//! The load generator of the shiftboss command while it runs, and what it has counted.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Bench;
use super::supervisor::exit_within;

/// Stopped when dropped.
pub(super) struct Load {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    reader: Option<JoinHandle<()>>,
}

/// What it has counted in the end.
pub(super) struct Counted {
    pub(super) sent: f64,
    pub(super) failed: f64,
    pub(super) crossed: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Of requests that were neither slow nor slowly sent.
    pub(super) plain_p99_ms: f64,
    /// The first failures, as it told them.
    pub(super) failures: Vec<Value>,
}

impl Load {
    /// On 127.0.0.1. Lasts until it is finished.
    pub(super) fn start(bench: &Bench, port: u16, flags: &[&str]) -> Result<Load> {
        let mut command = Command::new(&bench.shiftboss);
        command.args(["--json", "demo-load", "--target", &format!("127.0.0.1:{port}")]).args(flags);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("demo-load")?;
        let output = child.stdout.take().context("demo-load has no output")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for line in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Ok(Load { child, lines, reader: Some(reader) })
    }

    /// Waits until it has told of the first answers.
    pub(super) fn wait_answered(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.latest("ok") == 0.0 {
            if Instant::now() >= until {
                bail!("the load got no answer in {PATIENCE:?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Sends no more requests.
    pub(super) fn end(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Requests under way, as told within the last second.
    pub(super) fn in_flight(&self) -> f64 {
        self.latest("in_flight")
    }

    /// Sends no more requests and waits for the last one.
    pub(super) fn finish(mut self) -> Result<Counted> {
        self.end();
        if exit_within(&mut self.child, PATIENCE)?.is_none() {
            bail!("the load did not end in {PATIENCE:?}");
        }
        if let Some(reader) = self.reader.take() {
            // It cannot panic, and what it has read is there in any case.
            let _ = reader.join();
        }
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let last =
            lines.last().filter(|line| line["final"] == true).context("the load did not tell its end")?;
        let number = |name: &str| last[name].as_f64().with_context(|| format!("the load told no {name}"));
        Ok(Counted {
            sent: number("sent")?,
            failed: number("failed")?,
            crossed: number("crossed")?,
            p50_ms: number("p50_ms")?,
            p99_ms: number("p99_ms")?,
            plain_p99_ms: last["plain_ms"]["p99"].as_f64().context("the load told no plain_ms")?,
            failures: last["failures"].as_array().cloned().unwrap_or_default(),
        })
    }

    fn latest(&self, name: &str) -> f64 {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.last().and_then(|line| line[name].as_f64()).unwrap_or(0.0)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Both fail when it has ended already, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
