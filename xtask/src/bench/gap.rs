//! Row `gap`: from the kill of a broker process until its successor answers, with four workers and with a thousand. The
//! baseline is the time from the start of an app of four to its first answer.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::{Signal, kill_process};

use super::Bench;
use super::figure::{Figure, Reach};
use super::stats::{median, quantile};
use super::supervisor::Supervisor;

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let mut starts = Vec::new();
    for _ in 0..bench.times(10, 2) {
        let begun = Instant::now();
        let app = Supervisor::shiftboss(bench, FEW, "")?;
        answers(&app.socket())?;
        starts.push(ms(begun));
        app.stop()?;
    }
    let base = median(&starts);
    let few = gaps(bench, FEW)?;
    let many = gaps(bench, MANY)?;
    Ok(vec![
        Figure::beside("4 workers, median", "ms", base, median(&few), Reach::AtMost(20.0)),
        Figure::beside("4 workers, p95", "ms", base, quantile(&few, 0.95), Reach::Shown),
        Figure::beside("1,000 workers, median", "ms", base, median(&many), Reach::AtMost(80.0)),
        Figure::beside("1,000 workers, p95", "ms", base, quantile(&many, 0.95), Reach::Shown),
    ])
}

/// In ms, each.
fn gaps(bench: &Bench, workers: usize) -> Result<Vec<f64>> {
    let mut app = Supervisor::shiftboss(bench, workers, "")?;
    app.first_lines(workers, PATIENCE)?;
    app.wait_ready(PATIENCE)?;
    let mut gaps = Vec::new();
    for _ in 0..bench.times(40, 4) {
        // One that ends sooner than this has failed, and its successor would be slowed down.
        thread::sleep(PROVED);
        let broker = app.broker()?;
        let begun = Instant::now();
        kill_process(broker, Signal::KILL)?;
        answers(&app.socket())?;
        gaps.push(ms(begun));
        if app.broker()? == broker {
            bail!("the broker process that was killed answers");
        }
    }
    app.stop()?;
    Ok(gaps)
}

/// Waits until somebody answers there.
fn answers(socket: &Path) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if ask(socket).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            return Ok(());
        }
        thread::sleep(Duration::from_micros(200));
    }
    bail!("nobody answers at {}", socket.display())
}

fn ask(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

const FEW: usize = 4;
const MANY: usize = 1000;
const PROVED: Duration = Duration::from_millis(1100);
const PATIENCE: Duration = Duration::from_secs(60);
