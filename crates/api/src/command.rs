//! Commands: `POST /v1/brokers/{type}/recycle|drain|resume|scale`, `POST /v1/stop`, `POST /v1/upgrade`.
//!
//! The answer is 202 and a [`CommandReply`]. With `?wait=1` it is a stream of JSON lines instead: [`Progress`],
//! the last of which holds the outcome. `Idempotency-Key: KEY` makes a repeated command act once.

use serde::{Deserialize, Serialize};

use crate::Event;

/// Body of a recycle; may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recycle {
    /// Only the worker of this slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
}

/// Body of a resume; may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resume {
    /// Also outside of its schedule, where it stays open until its next window has ended.
    pub now: bool,
}

/// Body of a scale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// How many workers to keep.
    pub workers: u32,
}

/// Body of an upgrade; may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upgrade {
    /// Only ask the image on disk whether it could take over.
    pub check: bool,
}

/// The command was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReply {
    /// Its id: the given `Idempotency-Key`, or one chosen by the server.
    pub request: String,
}

/// One line of a waited-for command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "built once a line, never stored")]
pub enum Progress {
    /// The command was taken; always the first line.
    Request(String),
    /// Something happened to its broker.
    Event(Event),
    /// How it ended; always the last line.
    Outcome(Outcome),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// What was asked for is so.
    Done {
        /// A remark, such as "already drained".
        note: Option<String>,
        /// Workers that were to be replaced (recycle).
        total: u32,
        /// Workers replaced (recycle).
        replaced: u32,
        /// Workers killed because they did not leave in time (recycle, drain).
        cut: u32,
        /// Connections reset because nobody was left to take them (drain).
        refused: u64,
    },
    /// It ran and did not reach what was asked for.
    Failed {
        /// Why.
        reason: String,
        /// Workers that were to be replaced.
        total: u32,
        /// Workers that were replaced before.
        replaced: u32,
        /// The worker that failed.
        worker: Option<String>,
        /// Its slot.
        slot: Option<u32>,
        /// Its last lines of output.
        last_lines: Vec<String>,
    },
    /// Another command or a stop came in between.
    Superseded {
        /// By what.
        reason: String,
    },
    /// It was not taken, and changed nothing.
    Refused {
        /// Why.
        reason: String,
        /// Something else is under way: it makes sense to try again.
        #[serde(default)]
        busy: bool,
    },
}

/// Body of every answer with status 4xx or 5xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which, what, why.
    pub error: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub help: Option<String>,
}
