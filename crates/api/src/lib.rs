//! Wire types of shiftboss' control API, and its client.
//!
//! The API is HTTP/1.1 and JSON on a UNIX socket. It carries no configuration, no program and no path: it names
//! what the server already has. Fields and events may be added, never renamed. Times are RFC 3339 in UTC,
//! durations named in the field (`ready_ms`), sizes in bytes.
#![forbid(unsafe_code)]

pub mod client;
mod command;
mod event;
mod message;
mod status;

pub use command::{CommandReply, Failure, Outcome, Progress, Recycle, Resume, Scale, Upgrade};
pub use event::{Event, EventName, EventsLost, MessageEvent, MessageName};
pub use message::{ANSWER_MS, Answer, Answers, Message, Question, Told, Untold};
pub use status::{Broker, BrokerState, Numbers, Status, Worker, WorkerState};
