//! What subscribers of a running app get: what workers say and what happens, in one order; and what they can ask for.

use std::sync::Arc;
use std::time::Duration;

use shiftboss_api as api;
use shiftboss_core::id::{BrokerId, WorkerId};
use tokio::sync::{mpsc, oneshot};

use crate::channel::Letter;

/// One thing that a subscriber gets.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// Something changed.
    Event(Arc<api::Event>),
    /// A worker said these, in order.
    Said(Arc<Said>),
    /// So many events and messages were dropped here.
    Missed(u64),
}

impl Happening {
    /// About as many bytes as it takes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Happening::Event(_) | Happening::Missed(_) => 512,
            Happening::Said(said) => {
                said.messages.iter().map(|message| message.letter.get().len() + 64).sum()
            }
        }
    }

    /// Whether there is a question in it.
    pub(crate) fn asks(&self) -> bool {
        match self {
            Happening::Said(said) => {
                said.messages.iter().any(|message| matches!(message.kind, Kind::Call(_)))
            }
            Happening::Event(_) | Happening::Missed(_) => false,
        }
    }

    /// How many events and messages it is.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Happening::Event(_) => 1,
            Happening::Said(said) => said.messages.len() as u64,
            Happening::Missed(count) => *count,
        }
    }
}

/// Messages of one worker.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) broker: BrokerId,
    pub(crate) worker: WorkerId,
    pub(crate) pid: u32,
    /// None of a standby.
    pub(crate) slot: Option<u32>,
    pub(crate) messages: Vec<Message>,
}

/// One message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) letter: Letter,
    pub(crate) kind: Kind,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Message,
    Ops,
    /// A question, to be answered under this number.
    Call(u64),
}

/// Somebody who hears of a broker.
pub(crate) struct Subscriber {
    pub(crate) broker: BrokerId,
    pub(crate) queue: mpsc::Sender<Happening>,
    /// It answers what workers ask.
    pub(crate) answers: bool,
}

/// What is to be done with workers' channels.
pub(crate) enum Errand {
    /// Who could be spoken to: with process and slot.
    Listeners {
        broker: BrokerId,
        reply: oneshot::Sender<Vec<(WorkerId, u32, u32)>>,
    },
    /// Of each slot the worker that serves it, or is nearest to that, in the order of slots.
    Audience {
        broker: BrokerId,
        reply: oneshot::Sender<Vec<(WorkerId, u32)>>,
    },
    /// One line to one worker.
    Tell {
        worker: WorkerId,
        line: Vec<u8>,
        reply: Option<oneshot::Sender<Result<(), Untold>>>,
    },
    /// One line to all workers of a broker; how many were told.
    Broadcast {
        broker: BrokerId,
        line: Vec<u8>,
        reply: oneshot::Sender<u32>,
    },
    /// A question to one worker.
    Call {
        worker: WorkerId,
        message: Letter,
        within: Duration,
        reply: oneshot::Sender<Answer>,
    },
    /// A signal to one worker.
    Signal {
        worker: WorkerId,
        signal: i32,
    },
    /// The end of a worker's channel.
    HangUp {
        worker: WorkerId,
    },
    Subscribe(Subscriber),
    /// A program is around, which will subscribe at once if at all.
    Expect,
}

/// What comes of a question.
pub(crate) type Answer = Result<Letter, CallError>;

/// Why a worker was not told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Untold {
    /// It is gone, or has closed its channel.
    #[error("the worker is gone, or has closed its channel")]
    Gone,
    /// It does not read, and a megabyte or 4,096 messages wait for it.
    #[error("the worker does not read what it is told")]
    Full,
    /// It cannot be said on its channel, as an object that names a member twice to a Node worker with
    /// `serialization = "advanced"`.
    #[error("it cannot be said on the worker's channel: {0}")]
    Unsendable(&'static str),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// It could not be asked.
    #[error(transparent)]
    Untold(#[from] Untold),
    /// It ended before it answered.
    #[error("the worker ended before it answered")]
    Ended,
    /// What was to be asked cannot be JSON, or is longer than a channel takes: 16 MiB with what is around it.
    #[error("the question cannot be asked: {0}")]
    Unspeakable(String),
    /// It did not answer in time.
    #[error("no answer within {}", span(*.0))]
    TimedOut(Duration),
    /// It answered that it cannot.
    #[error("the worker says: {0}")]
    Refused(String),
    /// The answer is of another form than was asked for.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
    /// A worker asks on the very thread that would hear the answer: within its
    /// [`on_call`](crate::WorkerContext::on_call).
    #[error("who answers a question cannot wait for an answer: it is heard on the same thread")]
    WouldHang,
    /// The app has ended; to a worker: its channel is closed.
    #[error("the app has ended")]
    AppEnded,
}

impl CallError {
    pub(crate) fn unspeakable(why: &serde_json::Error) -> CallError {
        CallError::Unspeakable(why.to_string())
    }

    /// Words are told as such, anything else as the JSON that it is.
    pub(crate) fn refused(why: &str) -> CallError {
        CallError::Refused(serde_json::from_str(why).unwrap_or_else(|_| why.to_owned()))
    }
}

/// "5 s", "1.5 s", "20 ms".
fn span(span: Duration) -> String {
    if span < Duration::from_secs(1) {
        format!("{} ms", span.as_millis())
    } else {
        format!("{} s", span.as_millis() as f64 / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_not_answered_says_for_how_long_it_has_waited() {
        let said = [5_000, 1_500, 20].map(|ms| CallError::TimedOut(Duration::from_millis(ms)).to_string());
        assert_eq!(said, ["no answer within 5 s", "no answer within 1.5 s", "no answer within 20 ms"]);
    }
}
