//! A trace as a file: a JSON line for the app's beginning, then one for each step. A file may hold several runs.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::BufRead;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shiftboss_core::spec::BrokerSpec;
use shiftboss_core::{Adoption, Effect, Input, Time};

use crate::oracle::{Broken, Oracle, Step};
use crate::shell::{self, Shell};

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The app begins.
    Begin {
        /// Which format the following lines have: [`FORMAT`].
        trace: u32,
        /// The program that wrote it.
        version: String,
        /// Its brokers.
        brokers: Vec<BrokerSpec>,
    },
    /// Another process goes on with the app.
    Adopt {
        /// When.
        now: Time,
        /// Without what was under way.
        salvaged: bool,
        /// What core asked for.
        effects: Vec<Effect>,
        /// When core wants to be called again at the latest.
        deadline: Option<Time>,
    },
    /// Core was called.
    Step {
        /// When.
        now: Time,
        /// What happened; none at the start.
        input: Option<Input>,
        /// What core asked for.
        effects: Vec<Effect>,
        /// When core wants to be called again at the latest.
        deadline: Option<Time>,
    },
}

/// The format written and read here.
pub const FORMAT: u32 = 2;

/// What a file held.
#[derive(Debug, Default)]
pub struct Judged {
    /// Apps that began.
    pub runs: u64,
    /// Apps that came to their end; the others were cut short.
    pub ended: u64,
    /// Calls of core.
    pub steps: u64,
    /// Those by which another process went on.
    pub adoptions: u64,
    /// By how much core was called later than it had asked for, at most.
    pub latest: Duration,
    /// How often each promise was put to the test.
    pub premises: BTreeMap<&'static str, u64>,
}

/// Why a file is not a faultless trace.
#[derive(Debug)]
pub enum Fault {
    /// It cannot be read.
    Io(std::io::Error),
    /// A line of it is no line of a trace.
    Line {
        /// From 1.
        number: u64,
        /// Why.
        reason: String,
    },
    /// What it tells breaks a promise.
    Broken {
        /// The line, from 1; the last one for what is missing at the end.
        number: u64,
        /// Which promises, and how.
        broken: Vec<Broken>,
        /// The last steps with their lines, this one at the end.
        steps: Vec<(u64, Step)>,
    },
}

/// Every promise that can be judged from a trace: those of the app and those of the shell that runs it.
pub fn names() -> impl Iterator<Item = &'static str> {
    crate::oracle::names().chain(shell::names())
}

/// Reads a trace and judges every run in it, a line at a time. A line that was cut off (the writer was killed) at the end
/// of a run is no fault.
///
/// # Errors
/// The first [`Fault`].
pub fn judge(mut lines: impl BufRead) -> Result<Judged, Fault> {
    let mut judged = Judged::default();
    let mut run: Option<Run> = None;
    let (mut text, mut number) = (Vec::new(), 0);
    let mut cut_off: Option<Fault> = None;
    loop {
        text.clear();
        if lines.read_until(b'\n', &mut text).map_err(Fault::Io)? == 0 || !text.ends_with(b"\n") {
            break;
        }
        number += 1;
        if text == b"\n" {
            continue;
        }
        let of = |reason: String| Fault::Line { number, reason };
        match (serde_json::from_slice(&text), cut_off.take()) {
            (Ok(Line::Begin { trace, .. }), _) if trace != FORMAT => {
                return Err(of(format!("format {trace}; this program reads {FORMAT}")));
            }
            (Ok(Line::Begin { brokers, .. }), _) => {
                judged.end(run.replace(Run::new(&brokers)))?;
                judged.runs += 1;
            }
            (Ok(Line::Step { .. } | Line::Adopt { .. }) | Err(_), Some(fault)) => return Err(fault),
            (Err(error), None) => cut_off = Some(of(error.to_string())),
            (Ok(Line::Step { now, input, effects, deadline }), None) => {
                let run = run.as_mut().ok_or_else(|| of(NO_BEGINNING.to_owned()))?;
                judged.steps += 1;
                run.take(number, Step { now, input, adopted: None, effects, deadline })?;
            }
            (Ok(Line::Adopt { now, salvaged, effects, deadline }), None) => {
                let run = run.as_mut().ok_or_else(|| of(NO_BEGINNING.to_owned()))?;
                (judged.steps, judged.adoptions) = (judged.steps + 1, judged.adoptions + 1);
                let adopted = Some(if salvaged { Adoption::Salvage } else { Adoption::Whole });
                run.take(number, Step { now, input: None, adopted, effects, deadline })?;
            }
        }
    }
    judged.end(run)?;
    cut_off.map_or(Ok(judged), Err)
}

/// One app, from its beginning on.
struct Run {
    oracle: Oracle,
    shell: Shell,
    /// The last steps with their lines.
    last: VecDeque<(u64, Step)>,
}

impl Run {
    fn new(brokers: &[BrokerSpec]) -> Run {
        Run { oracle: Oracle::new(brokers), shell: Shell::default(), last: VecDeque::new() }
    }

    fn take(&mut self, number: u64, step: Step) -> Result<(), Fault> {
        if let Some(reason) = self.oracle.does_not_know(&step) {
            return Err(Fault::Line { number, reason });
        }
        let mut broken = self.shell.judge(&step);
        // What the oracle would make of a broken bargain is not worth telling.
        if broken.is_empty() {
            broken = self.oracle.judge(&step).err().unwrap_or_default();
        }
        if self.last.len() == SHOWN {
            self.last.pop_front();
        }
        self.last.push_back((number, step));
        if broken.is_empty() { Ok(()) } else { Err(self.fault(broken)) }
    }

    /// One that was cut short is judged as far as it went.
    fn end(&mut self) -> Result<(), Fault> {
        if !self.oracle.has_ended() {
            return Ok(());
        }
        let broken: Vec<Broken> =
            self.shell.is_over().into_iter().chain(self.oracle.is_over().err()).collect();
        if broken.is_empty() { Ok(()) } else { Err(self.fault(broken)) }
    }

    fn fault(&mut self, broken: Vec<Broken>) -> Fault {
        let steps: Vec<_> = std::mem::take(&mut self.last).into();
        Fault::Broken { number: steps.last().map_or(0, |(number, _)| *number), broken, steps }
    }
}

impl Judged {
    fn end(&mut self, run: Option<Run>) -> Result<(), Fault> {
        let Some(mut run) = run else { return Ok(()) };
        run.end()?;
        self.ended += u64::from(run.oracle.has_ended());
        self.latest = self.latest.max(run.shell.latest);
        for (name, times) in run.oracle.premises.into_iter().chain(run.shell.premises) {
            *self.premises.entry(name).or_insert(0) += times;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io(error) => write!(f, "cannot read the trace: {error}"),
            Fault::Line { number, reason } => write!(f, "line {number} is no line of a trace: {reason}"),
            Fault::Broken { number, broken, steps } => {
                write!(f, "line {number} breaks")?;
                for broken in broken {
                    write!(f, "\n  {broken}")?;
                }
                f.write_str("\nafter")?;
                for (number, step) in steps {
                    write!(f, "\n  line {number}: {}", step.to_string().trim_end())?;
                }
                Ok(())
            }
        }
    }
}

const NO_BEGINNING: &str = "a step before any beginning";
/// How many steps are shown when one breaks a promise.
const SHOWN: usize = 8;
