//! A trace as a file: a JSON line for the app's beginning, then one for each step. A file may hold several runs.

use std::fmt;
use std::io::BufRead;

use serde::{Deserialize, Serialize};
use shiftboss_core::spec::BrokerSpec;
use shiftboss_core::{Effect, Input, Time};

use crate::oracle::{Broken, Oracle, Step};

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
pub const FORMAT: u32 = 1;

/// What a file held.
#[derive(Debug, Default)]
pub struct Judged {
    /// Apps that began.
    pub runs: u64,
    /// Calls of core.
    pub steps: u64,
    /// How often each promise was put to the test.
    pub premises: std::collections::BTreeMap<&'static str, u64>,
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
        /// Which promise, and how.
        broken: Vec<Broken>,
    },
}

/// Reads a trace and judges every run in it. A last line without an end (the writer was killed) is no fault.
pub fn judge(mut lines: impl BufRead) -> Result<Judged, Fault> {
    let mut judged = Judged::default();
    let mut oracle: Option<Oracle> = None;
    let (mut text, mut number) = (String::new(), 0);
    loop {
        text.clear();
        if lines.read_line(&mut text).map_err(Fault::Io)? == 0 || !text.ends_with('\n') {
            break;
        }
        number += 1;
        let of = |reason: String| Fault::Line { number, reason };
        match serde_json::from_str(&text).map_err(|error| of(error.to_string()))? {
            Line::Begin { trace, .. } if trace != FORMAT => {
                return Err(of(format!("format {trace}; this program reads {FORMAT}")));
            }
            Line::Begin { brokers, .. } => {
                let before = oracle.replace(Oracle::new(&brokers));
                judged.end(before, number)?;
                judged.runs += 1;
            }
            Line::Step { now, input, effects, deadline } => {
                let oracle = oracle.as_mut().ok_or_else(|| of("a step before any beginning".to_owned()))?;
                judged.steps += 1;
                let step = Step { now, input, effects, deadline };
                oracle.judge(&step).map_err(|broken| Fault::Broken { number, broken })?;
            }
        }
    }
    judged.end(oracle, number)?;
    Ok(judged)
}

impl Judged {
    /// A run is over; one that was cut short is judged as far as it went.
    fn end(&mut self, oracle: Option<Oracle>, number: u64) -> Result<(), Fault> {
        let Some(mut oracle) = oracle else { return Ok(()) };
        if oracle.has_ended() {
            oracle.is_over().map_err(|broken| Fault::Broken { number, broken: vec![broken] })?;
        }
        for (name, times) in oracle.premises {
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
            Fault::Broken { number, broken } => {
                write!(f, "line {number} breaks ")?;
                for (at, broken) in broken.iter().enumerate() {
                    write!(f, "{}{broken}", if at == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
        }
    }
}
