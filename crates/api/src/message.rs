//! Messages to workers: `POST /v1/brokers/{type}/send` and `POST /v1/brokers/{type}/call`.
//!
//! A message goes to every worker of the type, or to the one of a slot; where a recycle has two workers in a slot, to the
//! one that is ready. It goes also to a worker that has never spoken on its channel and may not know of it: the end that
//! such a worker has inherited is open all the same. These are no commands: they have no `Idempotency-Key`, and act again
//! when they are given again.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Body of a send.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Any JSON value of up to 16 MiB, passed on as it is written; line ends between its words become spaces.
    pub message: Box<RawValue>,
    /// Only the worker of this slot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<u32>,
}

/// Answer to a send, status 200: somebody was told. Status 409 if nobody could be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// How many workers have it in their channel or in the queue towards it; whether they read it, they would have to say.
    pub told: u32,
    /// Those who could not be told.
    pub untold: Vec<Untold>,
}

/// A worker that was not told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untold {
    /// Its id.
    pub worker: String,
    /// Its slot.
    pub slot: u32,
    /// Why.
    pub reason: String,
}

/// Body of a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Any JSON value of up to 16 MiB, as in [`Message`].
    pub message: Box<RawValue>,
    /// Only the worker of this slot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<u32>,
    /// How long each worker has for its answer, at most a day; none = 5,000.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_ms: Option<u64>,
}

/// Answer to a call, status 200; 409 if there is no worker to be asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answers {
    /// One of each worker, in the order of their slots.
    pub answers: Vec<Answer>,
}

/// What one worker has answered, or why it has not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Its id.
    pub worker: String,
    /// Its slot.
    pub slot: u32,
    /// The JSON as the worker wrote it; none = see `error`.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "also_null")]
    pub answer: Option<Box<RawValue>>,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// There is none since the time was up.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub timed_out: bool,
}

/// `null` is an answer.
fn also_null<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(value).map(Some)
}

/// How long a worker has for its answer where nothing else is said.
pub const ANSWER_MS: u64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_passes_as_it_is_written() {
        for written in ["null", "{\"a\" : 1.50}", "\"\\u0041\"", "[1e400]"] {
            let body = format!("{{\"message\":{written}}}");
            let read: Message = serde_json::from_str(&body).unwrap();
            assert_eq!(read.message.get(), written);
            assert_eq!(serde_json::to_string(&read).unwrap(), body);
        }
        for wrong in ["{}", "{\"message\":1,\"solt\":1}", "[]", "{\"message\":1,\"slot\":-1}"] {
            assert!(serde_json::from_str::<Message>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn null_is_an_answer_and_no_answer_is_none() {
        let text = r#"{"answers":[{"worker":"1","slot":0,"answer":null},{"worker":"2","slot":1,"error":"no","timed_out":true}]}"#;
        let read: Answers = serde_json::from_str(text).unwrap();
        assert_eq!(read.answers[0].answer.as_ref().map(|raw| raw.get()), Some("null"));
        assert!(read.answers[1].answer.is_none() && read.answers[1].timed_out);
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}
