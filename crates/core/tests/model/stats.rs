//! What a search has seen: how much, and whether it has seen everything that it should.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use shiftboss_core::id::WorkerId;
use shiftboss_oracle::{Broken, Oracle, Step};

#[derive(Default)]
pub(crate) struct Stats {
    pub(crate) states: u64,
    pub(crate) transitions: u64,
    pub(crate) at_rest: u64,
    pub(crate) longest: u64,
    /// Sets of states that lead back to each other, and are left because something must happen.
    pub(crate) circles: u64,
    shapes: BTreeMap<&'static str, u64>,
    /// The broker's shape, and what happened to it then.
    met: BTreeMap<(&'static str, &'static str), u64>,
    /// A worker's shape before and after.
    moved: BTreeMap<(&'static str, &'static str), u64>,
    /// How often each promise was put to the test.
    pub(crate) premises: BTreeMap<&'static str, u64>,
}

impl Stats {
    pub(crate) fn state(&mut self, shapes: &[&'static str]) {
        for shape in shapes {
            *self.shapes.entry(shape).or_default() += 1;
        }
    }

    pub(crate) fn meets(&mut self, shapes: &[&'static str], kind: &'static str) {
        for shape in shapes.iter().take(1) {
            *self.met.entry((shape, kind)).or_default() += 1;
        }
    }

    pub(crate) fn moved(&mut self, before: &[(WorkerId, &'static str)], after: &[(WorkerId, &'static str)]) {
        for (id, was) in before {
            let is = after.iter().find(|(other, _)| other == id).map_or(GONE, |(_, is)| is);
            if *was != is {
                *self.moved.entry((was, is)).or_default() += 1;
            }
        }
    }

    /// Lets the oracle judge, and counts what it has judged.
    pub(crate) fn judge(&mut self, oracle: &mut Oracle, step: &Step) -> Result<(), Vec<Broken>> {
        std::mem::swap(&mut oracle.premises, &mut self.premises);
        let judged = oracle.judge(step);
        std::mem::swap(&mut oracle.premises, &mut self.premises);
        judged
    }

    pub(crate) fn add(&mut self, other: Stats) {
        self.states += other.states;
        self.transitions += other.transitions;
        self.at_rest += other.at_rest;
        self.circles += other.circles;
        self.longest = self.longest.max(other.longest);
        other.shapes.into_iter().for_each(|(shape, times)| *self.shapes.entry(shape).or_default() += times);
        other.met.into_iter().for_each(|(pair, times)| *self.met.entry(pair).or_default() += times);
        other.moved.into_iter().for_each(|(pair, times)| *self.moved.entry(pair).or_default() += times);
        other.premises.into_iter().for_each(|(name, times)| *self.premises.entry(name).or_default() += times);
    }

    pub(crate) fn line(&self, name: &str, took: Duration) -> String {
        let Stats { states, transitions, at_rest, longest, circles, .. } = self;
        let seconds = took.as_secs_f64();
        format!("{name:40} {states:10} {transitions:12} {at_rest:10} {longest:13} {circles:8} {seconds:8.1}")
    }

    pub(crate) fn table(&self) -> String {
        let mut text = "shapes:\n".to_owned();
        for (shape, times) in &self.shapes {
            let _ = writeln!(text, "  {shape:26} {times:12}");
        }
        text.push_str("workers:\n");
        for ((was, is), times) in &self.moved {
            let _ = writeln!(text, "  {was:26} -> {is:26} {times:12}");
        }
        text.push_str("broker, and what happened:\n");
        for ((shape, kind), times) in &self.met {
            let _ = writeln!(text, "  {shape:18} {kind:18} {times:12}");
        }
        text.push_str("promises put to the test:\n ");
        for (name, times) in &self.premises {
            let _ = write!(text, " {name}:{times}");
        }
        text
    }

    /// What was expected and never seen.
    pub(crate) fn never(&self) -> Vec<String> {
        let mut never = Vec::new();
        let shapes = PHASES.iter().chain(&LIVES).chain(&STAGES);
        never.extend(
            shapes.filter(|shape| !self.shapes.contains_key(*shape)).map(|shape| format!("state: {shape}")),
        );
        for (phase, kind) in PHASES.iter().flat_map(|phase| KINDS.iter().map(move |kind| (*phase, *kind))) {
            if !cannot_meet(phase, kind) && !self.met.contains_key(&(phase, kind)) {
                never.push(format!("{phase}, and then: {kind}"));
            }
        }
        for (was, is) in CHANGES.iter().filter(|change| !self.moved.contains_key(*change)) {
            never.push(format!("a worker that was {was} and is {is}"));
        }
        let judged = shiftboss_oracle::names().filter(|name| !LEFT_OUT.contains(name));
        never.extend(
            judged.filter(|name| !self.premises.contains_key(name)).map(|name| format!("promise {name}")),
        );
        never
    }
}

/// What no small app comes to: each line says why.
fn cannot_meet(phase: &str, kind: &str) -> bool {
    let of_worker =
        ["spawned", "spawn failed", "ready", "unseen", "dies", "ends by itself", "leaves", "due: worker"];
    match (phase, kind) {
        // All have left.
        ("drained" | "shutting" | "closed", kind) if of_worker.contains(&kind) => true,
        // All are asked to leave: whatever ends one now counts as "leaves".
        ("leaving", "ready" | "unseen" | "dies" | "ends by itself") => true,
        // These deadlines are armed only while it is open, or waits to try again.
        (phase, "due: back-off" | "due: trial" | "due: way back") => phase != "open",
        (phase, "due: listen") => phase != "waiting to retry",
        _ => false,
    }
}

/// What becomes of a worker.
const CHANGES: [(&str, &str); 22] = [
    ("spawning", "starting"),
    ("spawning", "spawning, to be stopped"),
    ("spawning", GONE),
    ("spawning, to be stopped", "stopping"),
    ("spawning, to be stopped", "killed"),
    ("spawning, to be stopped", GONE),
    ("starting", "ready"),
    ("starting", "ready, on trial"),
    ("starting", "stopping"),
    ("starting", "killed"),
    ("starting", GONE),
    ("ready", "ready, on trial"),
    ("ready", "stopping"),
    ("ready", "killed"),
    ("ready", GONE),
    ("ready, on trial", "ready"),
    ("ready, on trial", "stopping"),
    ("ready, on trial", "killed"),
    ("ready, on trial", GONE),
    ("stopping", "killed"),
    ("stopping", GONE),
    ("killed", GONE),
];
const PHASES: [&str; 8] =
    ["waiting", "waiting to retry", "open", "quieting", "leaving", "shutting", "drained", "closed"];
const LIVES: [&str; 7] =
    ["spawning", "spawning, to be stopped", "starting", "ready", "ready, on trial", "stopping", "killed"];
/// Not "move: queued", which lasts longer than a step only when the spawn budget is used up.
const STAGES: [&str; 4] = ["move: retiring", "move: starting", "move: proving", "move: leaving"];
const KINDS: [&str; 27] = [
    "spawned",
    "spawn failed",
    "ready",
    "unseen",
    "dies",
    "ends by itself",
    "leaves",
    "opened",
    "not opened",
    "quiet",
    "shut",
    "due: worker",
    "due: back-off",
    "due: trial",
    "due: way back",
    "due: listen",
    "recycle",
    "drain",
    "resume",
    "scale",
    "respecify",
    "respecify, bad",
    "stop",
    "stop now",
    "resume now",
    "window begins",
    "window ends",
];
/// Promises about channels that end (I11b), the spawn budget (I21), several brokers (I26, L7), and how time passes: whether
/// the clock goes back (I38), recycles by time (P1) and after changes of files (I49).
const LEFT_OUT: [&str; 9] = ["I11b", "I21", "I21b", "I26", "I38", "I49", "I49b", "L7", "P1"];
/// The shape of a worker that has left.
const GONE: &str = "gone";
