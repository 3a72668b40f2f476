//! The acts of the demo. Each says what is promised, does something to the app that would hurt elsewhere, and looks
//! what became of the workers and of the clients' requests.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use shiftboss_api::client::{Call, ClientError, Options};
use shiftboss_api::{
    Broker, Event, EventName, Outcome, Progress, Recycle, Resume, Scale, Upgrade, WorkerState,
};
use tokio::time::sleep;

use super::judge::{self, Counts, Finding, Span};
use super::stage::{BROKER, CAP, PATIENCE, RATE, Seen, Stage, WORKERS};
use crate::exit::{Exit, Trouble};
use crate::text;

/// What came of an act.
#[derive(Debug, Serialize)]
pub(super) struct Act {
    #[serde(rename = "act")]
    pub(super) name: &'static str,
    #[serde(flatten)]
    pub(super) span: Span,
    /// Those failures that a promise excuses.
    pub(super) excused: u64,
    /// In a few words.
    pub(super) note: String,
    pub(super) findings: Vec<Finding>,
}

impl Act {
    pub(super) fn held(&self) -> bool {
        self.findings.iter().all(|finding| finding.held)
    }
}

/// Plays all acts; the clients' last line goes with them.
///
/// # Errors
/// When the app or the clients can no longer be asked: that is no broken promise but the end of the demo.
pub(super) async fn play(stage: &Stage<'_>) -> Result<(Vec<Act>, Counts), Trouble> {
    let mut acts = vec![
        steady(stage).await?,
        kill(stage).await?,
        recycle(stage).await?,
        bad_version(stage).await?,
        drain(stage).await?,
        kill_broker(stage).await?,
        upgrade(stage).await?,
        crash_loop(stage).await?,
    ];
    let (last, counts) = stop(stage).await?;
    acts.push(last);
    Ok((acts, counts))
}

async fn steady(stage: &Stage<'_>) -> Result<Act, Trouble> {
    let play = Play::begin(stage, "steady", "Four workers, one port");
    play.promise("every request is answered");
    play.done(&format!("{RATE} requests a second: a tenth take 0.5 to 3 s, a tenth come in bits"));
    let broker = stage.broker().await?;
    let ready = broker.ready;
    let slowest = broker.workers.iter().filter_map(|worker| worker.ready_ms).fold(0.0, f64::max);
    let text = format!("{ready} workers ready, each within {slowest:.1} ms of its start");
    play.found(Finding::new(ready == WORKERS, text));
    play.end(format!("{ready} workers ready")).await
}

async fn kill(stage: &Stage<'_>) -> Result<Act, Trouble> {
    let mut play = Play::begin(stage, "kill -9", "A worker is killed");
    play.promise("a crash is repaired at once, and the port refuses nobody");
    let ready = ready_pids(&stage.broker().await?);
    let &(slot, pid) = ready.first().ok_or_else(|| Trouble::new(Exit::Failed, "no worker is ready"))?;
    let in_flight = stage.in_flight();
    play.done(&format!("kill -9 {pid}, one of {}, with {in_flight} requests in flight in all", ready.len()));
    let (from, began) = (stage.now(), Instant::now());
    kill_pid(pid)?;
    let ready = |event: &Event| event.event == EventName::WorkerReady && event.slot == Some(slot);
    let note = match stage.happens(from, PATIENCE, ready).await {
        Some(Seen { at, event }) => {
            let after = text::took(at.duration_since(began));
            let successor = event.pid.map(|pid| pid.to_string()).unwrap_or_default();
            play.found(Finding::new(
                true,
                format!("its successor {successor} was ready {after} after the kill"),
            ));
            format!("back in {after}")
        }
        None => {
            play.found(Finding::new(false, "no successor became ready"));
            "no successor".into()
        }
    };
    // What the kernel tells the clients of the dead worker takes moments.
    sleep(MOMENT).await;
    let moment = stage.boundary().await?;
    let (finding, lost) = judge::killed(moment, in_flight);
    play.found(finding);
    play.excuse(moment, lost);
    stage.excused.set((lost, 0));
    play.end(format!("{note}, {lost} lost with it")).await
}

async fn recycle(stage: &Stage<'_>) -> Result<Act, Trouble> {
    let play = Play::begin(stage, "recycle", "The whole shift is replaced");
    play.promise("a successor is ready before its predecessor leaves: nothing is lost");
    play.done(&format!("shiftboss recycle {BROKER}"));
    let (before, began) = (ready_pids(&stage.broker().await?), Instant::now());
    let outcome = outcome(stage.client.recycle(BROKER, &Recycle::default(), &Options::default())).await?;
    let took = text::took(began.elapsed());
    let after = ready_pids(&stage.broker().await?);
    let new = after.iter().filter(|worker| !before.contains(worker)).count();
    let note = match &outcome {
        Outcome::Done { total, replaced, cut, .. } => {
            let whole = replaced == total && *cut == 0 && new == after.len();
            let text = format!("{replaced} of {total} replaced in {took}; each old one finished what it had");
            play.found(Finding::new(
                whole,
                if *cut == 0 { text } else { format!("{cut} workers were cut off") },
            ));
            format!("{replaced} of {total} in {took}")
        }
        other => play.unexpected(other),
    };
    play.end(note).await
}

async fn bad_version(stage: &Stage<'_>) -> Result<Act, Trouble> {
    let play = Play::begin(stage, "bad version", "A bad version is rolled out");
    play.promise("a bad version never replaces a good one");
    play.done(&format!("the version on disk now fails at start; shiftboss recycle {BROKER}"));
    let (before, began) = (ready_pids(&stage.broker().await?), Instant::now());
    stage.put_version("broken")?;
    let outcome = outcome(stage.client.recycle(BROKER, &Recycle::default(), &Options::default())).await?;
    let took = text::took(began.elapsed());
    stage.put_version("good")?;
    let note = match &outcome {
        Outcome::Failed { reason, total, replaced, last_lines, .. } => {
            let why = text::clean(reason);
            let text = format!("given up after {took}, {replaced} of {total} replaced: {why}");
            play.found(Finding::new(*replaced == 0, text));
            for line in last_lines.iter().rev().take(LINES).rev() {
                stage.screen.borrow().quote(line);
            }
            format!("given up in {took}, old ones serve")
        }
        other => play.unexpected(other),
    };
    play.found(the_same_workers(&before, &ready_pids(&stage.broker().await?)));
    play.end(note).await
}

fn the_same_workers(before: &[(u32, u32)], after: &[(u32, u32)]) -> Finding {
    let same = before == after && after.len() == WORKERS as usize;
    let text =
        if same { "the same four workers serve on".into() } else { format!("{before:?} became {after:?}") };
    Finding::new(same, text)
}

fn kill_pid(pid: u32) -> Result<(), Trouble> {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    kill_process(process, Signal::KILL)
        .map_err(|error| Trouble::new(Exit::Failed, format!("cannot kill process {pid}: {error}")))
}

async fn drain(stage: &Stage<'_>) -> Result<Act, Trouble> {
    let mut play = Play::begin(stage, "drain, resume", "Everybody goes home, and comes back");
    play.promise("work in hand is finished; newcomers are refused, nobody is cut off");
    play.done(&format!("shiftboss drain {BROKER}"));
    let (from, began) = (stage.now(), Instant::now());
    let drained = outcome(stage.client.drain(BROKER, &Options::default())).await?;
    let took = text::took(began.elapsed());
    let reset = match &drained {
        Outcome::Done { cut, refused, .. } => {
            let left = stage.seen_from(from).iter().filter(|seen| is_exit(&seen.event)).count();
            let text =
                format!("{left} workers left after their last answer, in {took}; the port stays taken");
            play.found(Finding::new(*cut == 0, if *cut == 0 { text } else { format!("{cut} were cut off") }));
            *refused
        }
        other => {
            play.unexpected(other);
            0
        }
    };
    sleep(DRAINED).await;
    // Just before the clients' next line, so that what it tells is from before the resume.
    stage.line().await?;
    sleep(BEFORE_LINE).await;
    play.done(&format!("shiftboss resume {BROKER}"));
    let began = Instant::now();
    let resumed = outcome(stage.client.resume(BROKER, &Resume::default(), &Options::default())).await?;
    let after = text::took(began.elapsed());
    sleep(TELLING).await;
    let window = stage.boundary().await?;
    match &resumed {
        Outcome::Done { .. } => {
            let ready = stage.broker().await?.ready;
            play.found(Finding::new(ready == WORKERS, format!("{ready} workers ready again after {after}")));
        }
        other => drop(play.unexpected(other)),
    }
    let (finding, excused) = judge::drained(window, reset);
    play.found(finding);
    play.excuse(window, excused);
    stage.excused.set((stage.excused.get().0, excused));
    // Clients whose SYN was dropped in the drain try again a second later (tcp(7)).
    sleep(RETRANSMIT).await;
    play.end(format!("{} refused, back in {after}", judge::number(excused))).await
}

async fn kill_broker(stage: &Stage<'_>) -> Result<Act, Trouble> {
    let play = Play::begin(stage, "broker killed", "The broker process itself is killed");
    play.promise("its successor goes on with the same workers, and nothing is lost");
    let (before, old) = (ready_pids(&stage.broker().await?), stage.client.status().await?);
    play.done(&format!("kill -9 {}, the broker process; its keeper is {}", old.broker_pid, old.pid));
    let began = Instant::now();
    kill_pid(old.broker_pid)?;
    // Asked again by itself until somebody answers.
    let new = stage.client.status().await?;
    let after = text::took(began.elapsed());
    let replaced = new.broker_pid != old.broker_pid && new.pid == old.pid;
    let text = format!("its successor {} answered after {after}", new.broker_pid);
    play.found(Finding::new(replaced, text));
    play.found(the_same_workers(&before, &ready_pids(&stage.broker().await?)));
    play.end(format!("back in {after}")).await
}

async fn upgrade(stage: &Stage<'_>) -> Result<Act, Trouble> {
    let play = Play::begin(stage, "upgrade", "Shiftboss itself is upgraded");
    play.promise("the program on disk takes over; workers, port and clients stay");
    play.done("shiftboss upgrade (to the same version, which is all that is here)");
    let (before, old) = (ready_pids(&stage.broker().await?), stage.client.status().await?);
    let began = Instant::now();
    let outcome = outcome(stage.client.upgrade(&Upgrade::default(), &Options::default())).await?;
    let took = text::took(began.elapsed());
    let new = stage.client.status().await?;
    let note = match &outcome {
        Outcome::Done { .. } => {
            let text =
                format!("broker process {} became {}, on trial for 2 s", old.broker_pid, new.broker_pid);
            play.found(Finding::new(new.broker_pid != old.broker_pid, text));
            format!("taken over and proved in {took}")
        }
        other => play.unexpected(other),
    };
    play.found(the_same_workers(&before, &ready_pids(&stage.broker().await?)));
    play.end(note).await
}

async fn crash_loop(stage: &Stage<'_>) -> Result<Act, Trouble> {
    let play = Play::begin(stage, "crash loop", "A worker that dies at every start");
    play.promise("retried for ever, ever more slowly; the others serve on");
    play.done(&format!("the version on disk fails at start; shiftboss scale {BROKER} {}", WORKERS + 1));
    let from = stage.now();
    stage.put_version("broken")?;
    stage.client.scale(BROKER, &Scale { workers: WORKERS + 1 }, &Options::default())?.send().await?;
    stage.plan.rest(play.number, LOOP, RECOVERY).await;
    // A busy machine may need longer for two waits.
    let began = Instant::now();
    while waits(&stage.seen_from(from)).len() < 2 && began.elapsed() < PATIENCE {
        sleep(MOMENT).await;
    }
    let seen = stage.seen_from(from);
    let starts = count(&seen, EventName::WorkerStarted);
    let degraded = count(&seen, EventName::BrokerDegraded) > 0;
    let broker = stage.broker().await?;
    play.found(Finding::new(
        degraded && broker.ready == WORKERS,
        format!("{starts} starts failed, {BROKER} {}, {} others serve on", said(degraded), broker.ready),
    ));
    play.found(judge::backs_off(&waits(&seen), CAP));
    stage.put_version("good")?;
    play.done("the version is mended");
    let (from, began) = (stage.now(), Instant::now());
    let recovered = |event: &Event| event.event == EventName::BrokerRecovered;
    let recovered = stage.happens(from, PATIENCE, recovered).await;
    let ready = stage.broker().await?.ready;
    let after = text::took(began.elapsed());
    let text = match recovered {
        Some(_) => format!("{ready} workers ready, {BROKER} said to have recovered after {after}"),
        None => format!("{BROKER} has not recovered"),
    };
    play.found(Finding::new(recovered.is_some() && ready == WORKERS + 1, text));
    play.end(format!("{starts} failed starts, then recovered")).await
}

async fn stop(stage: &Stage<'_>) -> Result<(Act, Counts), Trouble> {
    let mut play = Play::begin(stage, "stop", "The end");
    play.promise("nothing is left behind");
    play.done("the clients leave; shiftboss stop --all");
    let in_flight = stage.in_flight();
    let (span, counts) = stage.end_load().await?;
    play.span += span;
    play.found(judge::all_ended(span, in_flight, &counts));
    let began = Instant::now();
    let done = outcome(stage.client.stop(&Options::default())).await;
    let clean = stage.app_ended(PATIENCE).await;
    let took = text::took(began.elapsed());
    let text =
        if clean { format!("all gone in {took}, exit code 0") } else { "the app did not end well".into() };
    // An app that is gone before it could say so has stopped too.
    let told = matches!(done, Ok(Outcome::Done { .. })) || done.is_err();
    play.found(Finding::new(clean && told, text));
    let left: Vec<u32> = worker_pids(stage).into_iter().filter(|pid| is_our_worker(*pid)).collect();
    let port = std::net::TcpListener::bind(("127.0.0.1", stage.port)).is_ok();
    let socket = !stage.socket().exists();
    let nothing = left.is_empty() && port && socket;
    let text = match (left.as_slice(), port) {
        ([], true) if socket => format!("no process, no socket, port {} free", stage.port),
        ([], true) => "the control socket is left".into(),
        ([], false) => format!("port {} is still taken", stage.port),
        (left, _) => format!("processes are left: {left:?}"),
    };
    play.found(Finding::new(nothing, text));
    let note = if nothing { "nothing left behind" } else { "something is left" };
    Ok((play.close(note.into()), counts))
}

/// An act that is being played.
struct Play<'s, 'a> {
    stage: &'s Stage<'a>,
    number: usize,
    name: &'static str,
    span: Span,
    excused: u64,
    findings: std::cell::RefCell<Vec<Finding>>,
}

impl<'s, 'a> Play<'s, 'a> {
    fn begin(stage: &'s Stage<'a>, name: &'static str, title: &str) -> Self {
        let number = stage.act.get() + 1;
        stage.act.set(number);
        stage.screen.borrow().headline(number, title);
        Play { stage, number, name, span: Span::default(), excused: 0, findings: Vec::new().into() }
    }

    fn promise(&self, text: &str) {
        self.stage.screen.borrow().fact("promise", text);
    }

    fn done(&self, text: &str) {
        self.stage.screen.borrow().fact("done", text);
    }

    fn found(&self, finding: Finding) {
        self.stage.screen.borrow().finding(&finding);
        self.findings.borrow_mut().push(finding);
    }

    /// A command did not end as it should; its words.
    fn unexpected(&self, outcome: &Outcome) -> String {
        let text = match outcome {
            Outcome::Done { note, .. } => format!("done: {}", note.as_deref().unwrap_or("without a remark")),
            Outcome::Failed { reason, .. } => format!("failed: {reason}"),
            Outcome::Superseded { reason } => format!("superseded: {reason}"),
            Outcome::Refused { reason, .. } => format!("refused: {reason}"),
        };
        self.found(Finding::new(false, text::clean(&text)));
        "not as promised".into()
    }

    /// That much of the act has been judged, and so many of its failures are excused.
    fn excuse(&mut self, span: Span, excused: u64) {
        self.span += span;
        self.excused += excused;
    }

    /// Lets the act last as long as it should. Nothing may fail in what was not judged yet.
    async fn end(mut self, note: String) -> Result<Act, Trouble> {
        self.stage.plan.rest(self.number, Duration::ZERO, LINE).await;
        let rest = self.stage.boundary().await?;
        let whole = self.span == Span::default();
        self.span += rest;
        self.found(judge::calm(if whole { "" } else { "from then on " }, rest));
        Ok(self.close(note))
    }

    fn close(self, note: String) -> Act {
        let Play { name, span, excused, findings, .. } = self;
        Act { name, span, excused, note, findings: findings.into_inner() }
    }
}

/// Gives the command and waits for its end.
async fn outcome(call: Result<Call, ClientError>) -> Result<Outcome, Trouble> {
    let mut stream = call?.wait();
    while let Some(line) = stream.next().await? {
        if let Progress::Outcome(outcome) = line {
            return Ok(outcome);
        }
    }
    Err(Trouble::new(Exit::Failed, "a command ended without an outcome"))
}

/// Slots and pids of the workers that serve.
fn ready_pids(broker: &Broker) -> Vec<(u32, u32)> {
    let ready = broker.workers.iter().filter(|worker| worker.state == WorkerState::Ready);
    ready.filter_map(|worker| worker.slot.zip(worker.pid)).collect()
}

fn is_exit(event: &Event) -> bool {
    matches!(event.event, EventName::WorkerEnded | EventName::WorkerDeath)
}

fn count(seen: &[Seen], name: EventName) -> usize {
    seen.iter().filter(|seen| seen.event.event == name).count()
}

fn said(degraded: bool) -> &'static str {
    if degraded { "is said to be degraded" } else { "is not said to be degraded" }
}

/// From each failure to the next start of its slot, as announced.
fn waits(seen: &[Seen]) -> Vec<Duration> {
    let announced = seen.iter().filter_map(|Seen { event, .. }| {
        let at = event.at.parse().ok()?;
        text::until(event.retry_at.as_deref()?, at)
    });
    announced.collect()
}

/// Every worker there ever was.
fn worker_pids(stage: &Stage<'_>) -> Vec<u32> {
    stage.seen_from(0).iter().filter_map(|seen| seen.event.pid).collect()
}

/// A process of this pid is a worker of a demo; one that was given the same pid later is not.
fn is_our_worker(pid: u32) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.ends_with(b"\0demo-worker\0")
}

pub(super) const ACTS: usize = 9;
/// A killed worker's clients have been told by then.
const MOMENT: Duration = Duration::from_millis(300);
/// How long the broker stays drained.
const DRAINED: Duration = Duration::from_secs(1);
/// How long a worker crashes at least, and how long the recovery takes.
const LOOP: Duration = Duration::from_secs(2);
const RECOVERY: Duration = Duration::from_secs(3);
/// Between two lines of the clients, on average.
const LINE: Duration = Duration::from_millis(500);
/// After a line of the clients, almost until the next.
const BEFORE_LINE: Duration = Duration::from_millis(800);
/// Clients that were refused have counted it by then.
const TELLING: Duration = Duration::from_millis(100);
/// A SYN that was dropped has been sent again by then.
const RETRANSMIT: Duration = Duration::from_millis(1200);
/// Lines of a failed worker that are shown.
const LINES: usize = 3;
