//! Rows `recycle...`: what clients see while workers are recycled again and again, beside a control in which the same
//! program is replaced by hand at the same moments, under the same load.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Bench;
use super::figure::{Figure, Reach};
use super::hand::Hand;
use super::load::Load;
use super::supervisor::{Broker, Supervisor, exit_within};
use crate::workspace::root;

/// 200 requests a second on kept connections.
pub(super) fn kept_connections(bench: &Bench) -> Result<Vec<Figure>> {
    measure(bench, &built_in(bench), &[], Reach::Exactly(0.0))
}

/// 200 requests a second, each on a connection of its own.
pub(super) fn new_connections(bench: &Bench) -> Result<Vec<Figure>> {
    measure(bench, &built_in(bench), &["--no-keep-alive"], Reach::Exactly(0.0))
}

/// 16 clients, each sending its next request when the last is answered, and none of them slow: the machine is full.
pub(super) fn saturated(bench: &Bench) -> Result<Vec<Figure>> {
    measure(bench, &built_in(bench), &FULL, Reach::Exactly(0.0))
}

/// A server that was not written for us, with kept connections. It closes idle ones when it leaves, which can cross a
/// request on the wire: that is HTTP's own race, counted apart.
pub(super) fn gunicorn(bench: &Bench) -> Result<Vec<Figure>> {
    measure(bench, &gunicorn_command(bench)?, &[], Reach::AtMost(MOST_CROSSED))
}

/// The same with a connection for each request.
pub(super) fn gunicorn_new(bench: &Bench) -> Result<Vec<Figure>> {
    measure(bench, &gunicorn_command(bench)?, &["--no-keep-alive"], Reach::AtMost(MOST_CROSSED))
}

/// The same with the machine full.
pub(super) fn gunicorn_saturated(bench: &Bench) -> Result<Vec<Figure>> {
    measure(bench, &gunicorn_command(bench)?, &FULL, Reach::AtMost(MOST_CROSSED))
}

fn gunicorn_command(bench: &Bench) -> Result<Vec<String>> {
    let program = bench.venv.join("bin/gunicorn");
    if !program.exists() {
        bail!("{} is missing; `cargo xtask test` installs it", program.display());
    }
    let folder = root().join("xtask/bench").display().to_string();
    let words = [
        &program.display().to_string(),
        "--preload",
        "--workers=1",
        "--worker-class=gthread",
        "--threads=64",
        "--keep-alive=5",
        "--no-control-socket",
        "--log-level=warning",
        "--chdir",
        &folder,
        "app:app",
    ];
    Ok(words.map(str::to_owned).to_vec())
}

/// The worker of the demo.
fn built_in(bench: &Bench) -> Vec<String> {
    vec![bench.shiftboss.display().to_string(), "demo-worker".to_owned()]
}

fn measure(bench: &Bench, command: &[String], flags: &[&str], crossed: Reach) -> Result<Vec<Figure>> {
    let port = free_port()?;
    let settings = format!(
        "kind = \"notify\"\nlisten = [\"tcp://127.0.0.1:{port}\"]\nrecycle = {{ surge = {WORKERS} }}"
    );
    let broker = Broker { command: command.to_vec(), workers: WORKERS, settings: &settings };
    let ours = Supervisor::shiftboss_with(bench, &broker)?;
    let mut hand = Hand::start(command, WORKERS)?;
    ours.wait_ready(PATIENCE)?;
    // Both loads share the machine from beginning to end, so that neither has it to itself.
    let mut load = Load::start(bench, port, flags)?;
    let mut hand_load = Load::start(bench, hand.port()?, flags)?;
    load.wait_answered()?;
    hand_load.wait_answered()?;
    let rounds = bench.times(20, 3);
    let until = Instant::now() + LONGEST;
    let mut least_in_flight = f64::MAX;
    for _ in 0..rounds {
        if Instant::now() >= until {
            break;
        }
        thread::sleep(PAUSE);
        least_in_flight = least_in_flight.min(load.in_flight());
        round(bench, &ours, &mut hand)?;
    }
    load.end();
    hand_load.end();
    let (loaded, control) = (load.finish()?, hand_load.finish()?);
    let wanted = rounds * WORKERS;
    let replaced = ours.events("worker_ended", wanted, PATIENCE)?.count("worker_ended");
    ours.stop()?;
    drop(hand);
    for failure in &loaded.failures {
        eprintln!("  not answered by shiftboss's workers: {failure}");
    }
    let beside = |what, unit, base, ours, reach| Figure::beside(what, unit, base, ours, reach);
    let per = |crossed: f64, sent: f64| (5000.0 * crossed / sent.max(1.0) * 100.0).round() / 100.0;
    Ok(vec![
        Figure::alone("workers replaced", "", replaced as f64, Reach::Exactly(wanted as f64)),
        Figure::alone("in flight then, at least", "", least_in_flight, Reach::AtLeast(1.0)),
        beside("requests sent", "", control.sent, loaded.sent, Reach::Shown),
        beside("requests failed", "", control.failed, loaded.failed, Reach::Exactly(0.0)),
        beside("crossed", "", control.crossed, loaded.crossed, Reach::Shown),
        beside(
            "crossed, of 5,000",
            "",
            per(control.crossed, control.sent),
            per(loaded.crossed, loaded.sent),
            crossed,
        ),
        beside("latency, p50", "ms", control.p50_ms, loaded.p50_ms, Reach::Shown),
        beside("latency, p99", "ms", control.p99_ms, loaded.p99_ms, Reach::TimesOrMore(1.5, 5.0)),
        beside(
            "p99 of plain ones",
            "ms",
            control.plain_p99_ms,
            loaded.plain_p99_ms,
            Reach::TimesOrMore(1.5, 5.0),
        ),
    ])
}

/// One recycle on both sides, begun at the same moment.
fn round(bench: &Bench, ours: &Supervisor, hand: &mut Hand) -> Result<()> {
    let mut recycle = ours.command(bench).args(["recycle", "web"]).spawn().context("recycle")?;
    let by_hand = hand.recycle();
    match exit_within(&mut recycle, PATIENCE)? {
        Some(status) if status.success() => by_hand,
        Some(status) => bail!("`shiftboss recycle web`: {status}"),
        None => {
            recycle.kill()?;
            recycle.wait()?;
            bail!("`shiftboss recycle web` did not end in {PATIENCE:?}")
        }
    }
}

/// Free at this moment.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

const WORKERS: usize = 4;
const FULL: [&str; 3] = ["--closed=16", "--slow-share=0", "--trickle-share=0"];
/// Between two recycles.
const PAUSE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(30);
/// No further recycle is begun after this long; the figures then tell that some are missing.
const LONGEST: Duration = Duration::from_secs(240);
/// Of 5,000 requests.
const MOST_CROSSED: f64 = 1.0;
