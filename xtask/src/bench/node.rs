//! Rows `node`: programs for Node's `cluster` under shiftboss, beside Node's own primary in the same minutes.

pub(super) mod messages;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::Bench;
use super::figure::{Figure, Reach};
use super::load::Load;
use super::proc::{children, pss_kb};
use super::stats::median;
use super::supervisor::{Broker, Supervisor};
use crate::workspace::root;

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = crash(bench)?;
    figures.extend(messages::measure(bench)?);
    figures.extend(requests(bench)?);
    figures.push(memory(bench)?);
    Ok(figures)
}

/// Row `node-recycle`: four workers of a plain server are replaced every 3 s under 200 requests a second.
pub(super) fn recycles(bench: &Bench) -> Result<Vec<Figure>> {
    let [new, kept] = [&["--no-keep-alive"][..], &[]].map(|flags| recycled(bench, flags));
    let ([new, _, replaced_new], [kept, crossed, replaced_kept]) = (new?, kept?);
    let wanted = 4.0 * bench.times(10, 2) as f64;
    Ok(vec![
        Figure::alone("failed, new connections", "", new, Reach::Exactly(0.0)),
        Figure::alone("failed, kept ones", "", kept, Reach::Exactly(0.0)),
        Figure::alone("crossed a close, kept ones", "", crossed, Reach::AtMost(1.0)),
        Figure::alone("replaced, new connections", "", replaced_new, Reach::Exactly(wanted)),
        Figure::alone("replaced, kept ones", "", replaced_kept, Reach::Exactly(wanted)),
    ])
}

/// Failed and crossed requests, and how many workers were replaced.
fn recycled(bench: &Bench, flags: &[&str]) -> Result<[f64; 3]> {
    let at = port()?;
    let ours = Ours::start(bench, at, 4, "recycle = { surge = 4 }")?;
    let flags = [flags, &["--slow-share", "0", "--trickle-share", "0"]].concat();
    let load = Load::start(bench, at, &flags)?;
    load.wait_answered()?;
    let times = bench.times(10, 2);
    for _ in 0..times {
        let begun = Instant::now();
        let done = ours.app.command(bench).args(["recycle", "web"]).status()?;
        if !done.success() {
            bail!("a recycle failed: {done}");
        }
        thread::sleep(Duration::from_secs(3).saturating_sub(begun.elapsed()));
    }
    let counted = load.finish()?;
    let replaced = ours.app.events("worker_ended", 4 * times, Duration::from_secs(10))?.count("worker_ended");
    Ok([counted.failed, counted.crossed, replaced as f64])
}

/// From the death of the only worker until its place answers, with and without somebody at the door; a bare start of the
/// program until it answers is the baseline.
fn crash(bench: &Bench) -> Result<Vec<Figure>> {
    let (alone, waited) = (port()?, port()?);
    // One that is killed again and again is not to be a crash loop.
    let healthy = "backoff = { healthy_after = \"100ms\" }";
    let plain = Ours::start(bench, alone, 1, healthy)?;
    let ready = Ours::start(bench, waited, 1, &format!("standby = 1\n{healthy}"))?;
    let (mut bare, mut ours, mut promoted) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.times(15, 3) {
        let at = port()?;
        let begun = Instant::now();
        let child = Ended(program("server.js").env("PORT", at.to_string()).spawn()?);
        until_answered(at)?;
        bare.push(ms(begun));
        drop(child);
        ours.push(plain.killed_until_answered(alone)?);
        promoted.push(ready.killed_until_answered(waited)?);
        // Another one has to be at the door, and this one to have proved itself.
        thread::sleep(Duration::from_millis(1500));
    }
    let bare = median(&bare);
    Ok(vec![
        Figure::beside("crash until it answers", "ms", bare, median(&ours), Reach::TimesOrMore(1.15, 5.0)),
        Figure::beside("the same with a standby", "ms", bare, median(&promoted), Reach::AtMost(10.0)),
    ])
}

/// Requests a second of two workers, a connection each, as many as eight clients get answered.
fn requests(bench: &Bench) -> Result<Vec<Figure>> {
    let ports: Vec<u16> = (0..5).map(|_| port()).collect::<Result<_>>()?;
    let ours: Vec<Ours> = ["shared", "lanes", "round-robin"]
        .iter()
        .zip(&ports)
        .map(|(balance, port)| {
            let listen = format!("listen = [{{ address = \"tcp://:{port}\", balance = \"{balance}\" }}]");
            Ours::start(bench, *port, 2, &listen)
        })
        .collect::<Result<_>>()?;
    let theirs: Vec<Ended> = ["rr", "none"]
        .iter()
        .zip(&ports[3..])
        .map(|(policy, port)| primary(2, *port, policy))
        .collect::<Result<_>>()?;
    let mut samples = vec![Vec::new(); ports.len()];
    for _ in 0..bench.times(5, 1) {
        for (port, samples) in ports.iter().zip(&mut samples) {
            samples.push(rate(bench, *port)?);
        }
    }
    drop((ours, theirs));
    let rates: Vec<f64> = samples.iter().map(|samples| median(samples)).collect();
    let node = rates[3].max(rates[4]);
    let best = rates[..3].iter().copied().fold(0.0, f64::max);
    let shown = |what, rate| Figure::beside(what, "/s", node, rate, Reach::Shown);
    Ok(vec![
        Figure::beside("requests, best mode", "/s", node, best, Reach::AtLeastTimes(0.95)),
        shown("  shared", rates[0]),
        shown("  lanes", rates[1]),
        shown("  round-robin", rates[2]),
        shown("  Node's round-robin", rates[3]),
        shown("  Node's shared socket", rates[4]),
    ])
}

/// Of the primary's processes with four idle workers.
fn memory(bench: &Bench) -> Result<Figure> {
    let (at, theirs) = (port()?, port()?);
    let node = primary(4, theirs, "rr")?;
    let ours = Ours::start(bench, at, 4, "")?;
    thread::sleep(Duration::from_secs(3));
    let base = pss_kb(node.pid())?;
    let both = pss_kb(ours.app.pid())? + pss_kb(ours.app.broker()?)?;
    Ok(Figure::beside("memory of the primary (PSS)", "KB", base, both, Reach::Times(0.5)))
}

/// The example's server under shiftboss.
struct Ours {
    app: Supervisor,
}

impl Ours {
    fn start(bench: &Bench, port: u16, workers: usize, more: &str) -> Result<Ours> {
        let command = vec!["node".to_owned(), shown(&example())];
        let settings = format!("kind = \"node\"\nenvironment = {{ PORT = \"{port}\" }}\n{more}");
        let app = Supervisor::shiftboss_with(bench, &Broker { command, workers, settings: &settings })?;
        app.events("worker_ready", workers, Duration::from_secs(20))?;
        until_answered(port)?;
        Ok(Ours { app })
    }

    /// Kills the only worker that serves; ms.
    fn killed_until_answered(&self, port: u16) -> Result<f64> {
        let answer = until_answered(port)?;
        let pid = answer.trim().rsplit('\n').next().and_then(|pid| pid.trim().parse().ok());
        let worker = pid.and_then(Pid::from_raw).context("the server does not say its pid")?;
        let begun = Instant::now();
        kill_process(worker, Signal::KILL)?;
        until_answered(port)?;
        Ok(ms(begun))
    }
}

/// Node's own primary, once its workers answer.
fn primary(workers: usize, port: u16, policy: &str) -> Result<Ended> {
    let mut command = Command::new("node");
    command.arg(root().join("xtask/bench/primary.js")).env("PROGRAM", example());
    command.env("WORKERS", workers.to_string()).env("PORT", port.to_string());
    let child = Ended(command.env("NODE_CLUSTER_SCHED_POLICY", policy).stdin(Stdio::null()).spawn()?);
    until_answered(port)?;
    wait_for(Duration::from_secs(20), || {
        children(child.pid()).ok().filter(|all| all.len() >= workers).map(drop)
    })?;
    thread::sleep(Duration::from_millis(500));
    Ok(child)
}

fn rate(bench: &Bench, port: u16) -> Result<f64> {
    let mut load = Command::new(&bench.shiftboss);
    load.args(["demo-load", "--json", "--no-keep-alive", "--slow-share", "0", "--trickle-share", "0"]);
    load.args(["--closed", "8", "--seconds", "3", "--target", &format!("127.0.0.1:{port}")]);
    let said = String::from_utf8(load.stdin(Stdio::null()).output()?.stdout)?;
    let last: serde_json::Value =
        serde_json::from_str(said.lines().last().context("the load said nothing")?)?;
    if last["failed"] != 0 {
        bail!("requests failed: {last}");
    }
    let (ok, seconds) = (last["ok"].as_f64(), last["t"].as_f64());
    ok.zip(seconds).map(|(ok, seconds)| ok / seconds).context("no counts")
}

/// Asks until there is an answer, which it returns.
#[track_caller]
fn until_answered(port: u16) -> Result<String> {
    wait_for(Duration::from_secs(20), || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    })
}

#[track_caller]
fn wait_for<T>(at_most: Duration, mut is: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + at_most;
    while Instant::now() < end {
        if let Some(found) = is() {
            return Ok(found);
        }
        thread::sleep(Duration::from_micros(500));
    }
    bail!("waited in vain for {} s, in {}", at_most.as_secs(), std::panic::Location::caller())
}

/// A child that is killed and waited for when it is dropped, and with it its own.
struct Ended(Child);

impl Ended {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Node's workers end when their channel does.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(name: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(example().with_file_name(name)).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn example() -> std::path::PathBuf {
    root().join("examples/node/http/server.js")
}

fn peers(name: &str) -> std::path::PathBuf {
    root().join("xtask/bench/peers").join(name)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A free one below those that the kernel gives to clients: whoever asks for a server that is not there yet could be
/// connected to itself.
fn port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    for _ in 0..1000 {
        let port = 12_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 18_000;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}

fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}
