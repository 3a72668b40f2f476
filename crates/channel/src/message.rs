//! What a line says: the program's own words, or ours.

use std::fmt;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::LONGEST;

/// One line.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// The program's own: any JSON value.
    Plain(&'a RawValue),
    /// The same, an object whose `type` is `"ops"`: how the program does, for whoever collects such.
    Ops(&'a RawValue),
    /// The worker is ready.
    Ready,
    /// The worker, a standby, is fully started and waits to be promoted.
    Standby,
    /// The standby has this slot from now on, and is to serve.
    Promoted {
        /// Its slot.
        slot: u32,
    },
    /// A question: to be answered under its number.
    Call {
        /// The asking side's number for it.
        id: u64,
        /// What is asked.
        message: &'a RawValue,
    },
    /// An answer to a question.
    Reply {
        /// The question's number.
        id: u64,
        /// What is answered, or why there is no answer.
        result: Result<&'a RawValue, &'a RawValue>,
    },
    /// Work in hand and numbers of the worker's own choice.
    Numbers(&'a RawValue),
    /// For a primary of Node's `cluster`: see [`crate::node::Said`].
    Node(&'a RawValue),
    /// Meant for us, and not known: to be passed over.
    Unknown,
}

/// A line that is no JSON, or says in our words what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLine;

/// The members that matter.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    cmd: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "also_null")]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    slot: Option<&'a RawValue>,
}

/// `null` can be asked and answered.
fn also_null<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

impl Message<'_> {
    /// What this line, without its end, says.
    ///
    /// # Errors
    /// [`BadLine`].
    pub fn of(line: &[u8]) -> Result<Message<'_>, BadLine> {
        let raw: &RawValue = serde_json::from_slice(line).map_err(|_| BadLine)?;
        if !raw.get().starts_with('{') || !may_have_members(line) {
            return Ok(Message::Plain(raw));
        }
        // An object that names a member twice is the program's own.
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(raw.get()) else {
            return Ok(Message::Plain(raw));
        };
        match envelope.cmd.and_then(text) {
            Some(cmd) if is_of(cmd, NODE) => Ok(Message::Node(raw)),
            Some(cmd) if is_of(cmd, OURS) => internal(cmd, &envelope),
            _ if envelope.kind.and_then(text) == Some("ops") => Ok(Message::Ops(raw)),
            _ => Ok(Message::Plain(raw)),
        }
    }
}

/// Whether a member that matters can be in it. Most messages have none, which is seen in less time than it takes to read
/// an object; a name may be written with escapes.
fn may_have_members(line: &[u8]) -> bool {
    static MEMBERS: LazyLock<[Finder<'_>; 2]> =
        LazyLock::new(|| [Finder::new(b"\"cmd\""), Finder::new(b"\"type\"")]);
    MEMBERS.iter().any(|name| name.find(line).is_some()) || memchr::memchr(b'\\', line).is_some()
}

fn internal<'a>(cmd: &str, envelope: &Envelope<'a>) -> Result<Message<'a>, BadLine> {
    let id = || envelope.id.and_then(|id| id.get().parse().ok()).ok_or(BadLine);
    match cmd {
        READY => Ok(Message::Ready),
        STANDBY => Ok(Message::Standby),
        PROMOTED => {
            let slot = envelope.slot.and_then(|slot| slot.get().parse().ok());
            Ok(Message::Promoted { slot: slot.ok_or(BadLine)? })
        }
        CALL => Ok(Message::Call { id: id()?, message: envelope.message.ok_or(BadLine)? }),
        REPLY => {
            let result = match (envelope.message, envelope.error) {
                (_, Some(error)) => Err(error),
                (Some(message), None) => Ok(message),
                (None, None) => return Err(BadLine),
            };
            Ok(Message::Reply { id: id()?, result })
        }
        NUMBERS => Ok(Message::Numbers(envelope.message.ok_or(BadLine)?)),
        _ => Ok(Message::Unknown),
    }
}

/// As Node has it: the prefix and something more.
fn is_of(cmd: &str, prefix: &str) -> bool {
    cmd.len() > prefix.len() && cmd.starts_with(prefix)
}

/// A JSON string without escapes.
fn text(raw: &RawValue) -> Option<&str> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('\\')).then_some(inner)
}

/// The line by which a worker says that it is ready.
#[must_use]
pub fn ready() -> String {
    format!(r#"{{"cmd":"{READY}"}}"#)
}

/// The line by which a standby says that it is fully started, and waits.
#[must_use]
pub fn standby() -> String {
    format!(r#"{{"cmd":"{STANDBY}"}}"#)
}

/// The line that tells a standby its slot: it is to serve.
#[must_use]
pub fn promoted(slot: u32) -> String {
    format!(r#"{{"cmd":"{PROMOTED}","slot":{slot}}}"#)
}

/// The line that asks something.
#[must_use]
pub fn call(id: u64, message: &RawValue) -> String {
    format!(r#"{{"cmd":"{CALL}","id":{id},"message":{}}}"#, one_line(message))
}

/// Whether a question is longer than a line may be with all that is around it, whatever its number.
#[must_use]
pub fn is_too_long_to_ask(message: &RawValue) -> bool {
    message.get().len() + call(u64::MAX, RawValue::NULL).len() - RawValue::NULL.get().len() > LONGEST
}

/// The line that answers. An answer that no line can hold is an error instead.
#[must_use]
pub fn reply(id: u64, message: &RawValue) -> String {
    let line = format!(r#"{{"cmd":"{REPLY}","id":{id},"message":{}}}"#, one_line(message));
    if line.len() > LONGEST { error_reply(id, &format!("the answer is {TOO_LONG}")) } else { line }
}

/// The line that says why there is no answer; that this is too long, if it is.
#[must_use]
pub fn error_reply(id: u64, error: &str) -> String {
    let line = |error: &str| {
        let error = serde_json::Value::from(error);
        format!(r#"{{"cmd":"{REPLY}","id":{id},"error":{error}}}"#)
    };
    let whole = line(error);
    if whole.len() > LONGEST { line(&format!("why there is no answer is {TOO_LONG}")) } else { whole }
}

/// The line that tells work in hand and numbers.
///
/// # Errors
/// If that cannot be JSON.
pub fn numbers(numbers: &impl Serialize) -> serde_json::Result<String> {
    Ok(format!(r#"{{"cmd":"{NUMBERS}","message":{}}}"#, serde_json::to_string(numbers)?))
}

/// Adds a value to lines, with its end. One that cannot be JSON, or is too long, adds nothing.
///
/// # Errors
/// If it cannot be JSON, or is too long.
pub fn add_line<T: Serialize + ?Sized>(lines: &mut Vec<u8>, message: &T) -> serde_json::Result<()> {
    let begin = lines.len();
    if let Err(error) = serde_json::to_writer(&mut *lines, message) {
        lines.truncate(begin);
        return Err(error);
    }
    if lines.len() - begin > LONGEST {
        lines.truncate(begin);
        return Err(too_long());
    }
    // White space, of JSON that the program has written itself: see `one_line`.
    let mut at = begin;
    while let Some(next) = memchr::memchr2(b'\n', b'\r', &lines[at..]) {
        lines[at + next] = b' ';
        at += next + 1;
    }
    lines.push(b'\n');
    Ok(())
}

/// The error of a value that no line can hold.
#[must_use]
pub fn too_long() -> serde_json::Error {
    serde::ser::Error::custom(format_args!("it is {TOO_LONG}"))
}

/// A value as one line: JSON may be written on several.
#[must_use]
pub fn one_line(message: &RawValue) -> std::borrow::Cow<'_, str> {
    let text = message.get();
    // A line feed is white space: inside a string it is always written `\n`.
    if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ").into() } else { text.into() }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a line on its channel is no JSON value")
    }
}

impl std::error::Error for BadLine {}

const TOO_LONG: &str = "longer than 16 MiB, the most that a channel takes";
const NODE: &str = "NODE_";
const OURS: &str = "SHIFTBOSS_";
const READY: &str = "SHIFTBOSS_READY";
const STANDBY: &str = "SHIFTBOSS_STANDBY";
const PROMOTED: &str = "SHIFTBOSS_PROMOTED";
const CALL: &str = "SHIFTBOSS_CALL";
const REPLY: &str = "SHIFTBOSS_REPLY";
const NUMBERS: &str = "SHIFTBOSS_NUMBERS";

#[cfg(test)]
mod tests {
    use super::*;

    fn name(line: &[u8]) -> &'static str {
        match Message::of(line) {
            Ok(Message::Plain(_)) => "plain",
            Ok(Message::Ops(_)) => "ops",
            Ok(Message::Ready) => "ready",
            Ok(Message::Standby) => "standby",
            Ok(Message::Promoted { .. }) => "promoted",
            Ok(Message::Call { .. }) => "call",
            Ok(Message::Reply { result: Ok(_), .. }) => "reply",
            Ok(Message::Reply { result: Err(_), .. }) => "error",
            Ok(Message::Numbers(_)) => "numbers",
            Ok(Message::Node(_)) => "node",
            Ok(Message::Unknown) => "unknown",
            Err(BadLine) => "bad",
        }
    }

    #[test]
    fn any_json_value_is_a_message_of_the_program() {
        for line in [
            "{}",
            "\"suicide\"",
            "null",
            "12.5",
            "[1,{\"cmd\":\"NODE_X\"}]",
            "{\"cmd\":\"x\"}",
            "{\"cmd\":\"NODE_\"}",
            "{\"cmd\":7,\"type\":null}",
            "{\"a\":1,\"a\":2,\"cmd\":\"y\",\"cmd\":\"z\"}",
            "[\"SHIFTBOSS_READY\",\"cmd\"]",
            " {\"type\":\"other\"} ",
        ] {
            assert_eq!(name(line.as_bytes()), "plain", "{line}");
        }
        assert_eq!(name(br#"{"type":"ops","data":[1]}"#), "ops");
        assert_eq!(name(br#" {"\u0074ype" : "ops"}"#), "ops");
    }

    #[test]
    fn our_words_and_nodes_are_told_from_the_programs() {
        assert_eq!(name(ready().as_bytes()), "ready");
        let raw = RawValue::from_string("{\n\"a\": \"x\\ny\"\r\n}".to_owned()).unwrap();
        for (line, want) in
            [(call(7, &raw), "call"), (reply(7, &raw), "reply"), (error_reply(7, "no\n"), "error")]
        {
            assert_eq!(name(line.as_bytes()), want);
            assert!(!line.contains(['\n', '\r']), "{line}");
        }
        assert_eq!(name(numbers(&[1]).unwrap().as_bytes()), "numbers");
        assert_eq!(name(br#"{"cmd":"NODE_CLUSTER","act":"online"}"#), "node");
        assert_eq!(name(br#"{"cmd":"SHIFTBOSS_LATER"}"#), "unknown");
    }

    #[test]
    fn a_value_is_one_line_however_it_was_written() {
        let raw = RawValue::from_string("{\n\"a\": \"x\\ny\"\r\n}".to_owned()).unwrap();
        let mut lines = Vec::new();
        add_line(&mut lines, &raw).unwrap();
        assert!(add_line(&mut lines, &std::collections::BTreeMap::from([((1, 2), 3)])).is_err());
        add_line(&mut lines, "a\nb").unwrap();
        assert_eq!(lines, b"{ \"a\": \"x\\ny\"  }\n\"a\\nb\"\n");
    }

    #[test]
    #[cfg_attr(miri, ignore = "large on purpose")]
    fn no_line_is_longer_than_is_taken() {
        let text = |length: usize| serde_json::value::to_raw_value(&"x".repeat(length - 2)).unwrap();
        let around = call(u64::MAX, RawValue::NULL).len() - 4;
        assert!(
            !is_too_long_to_ask(&text(LONGEST - around)) && is_too_long_to_ask(&text(LONGEST - around + 1))
        );
        assert_eq!(call(u64::MAX, &text(LONGEST - around)).len(), LONGEST);
        let around = reply(7, RawValue::NULL).len() - 4;
        assert_eq!(reply(7, &text(LONGEST - around)).len(), LONGEST);
        let long = "x".repeat(LONGEST);
        for line in [reply(7, &text(LONGEST - around + 1)), error_reply(7, &long)] {
            assert!(name(line.as_bytes()) == "error" && line.contains(TOO_LONG) && line.len() < 200);
        }
        let mut lines = b"1\n".to_vec();
        add_line(&mut lines, &long[2..]).unwrap();
        let length = lines.len();
        assert!(add_line(&mut lines, &long[1..]).unwrap_err().to_string().contains(TOO_LONG));
        assert_eq!((length, lines.len()), (LONGEST + 3, length));
    }

    #[test]
    fn null_can_be_asked_and_answered() {
        let null = RawValue::from_string("null".to_owned()).unwrap();
        assert_eq!((name(call(1, &null).as_bytes()), name(reply(1, &null).as_bytes())), ("call", "reply"));
        assert_eq!(name(br#"{"cmd":"SHIFTBOSS_REPLY","id":1,"message":null,"error":null}"#), "reply");
        assert_eq!(name(br#"{"cmd":"SHIFTBOSS_REPLY","id":1,"error":null}"#), "bad");
    }

    #[test]
    fn garbage_is_a_bad_line_and_nothing_worse() {
        let depth = if cfg!(miri) { 1000 } else { 1_000_000 };
        let deep = "[".repeat(depth);
        let closed = format!("{deep}{}", "]".repeat(depth));
        let lines: [&[u8]; 9] = [
            b"",
            b"{oops",
            b"\xff\xfe",
            b"{} {}",
            br#"{"cmd":"SHIFTBOSS_CALL"}"#,
            b"nul",
            br#"{"cmd":"SHIFTBOSS_REPLY","id":-1,"message":1}"#,
            deep.as_bytes(),
            b"{\"cmd\":\"SHIFTBOSS_REPLY\",\"id\":1}",
        ];
        for line in lines {
            assert_eq!(name(line), "bad", "{:.40}", String::from_utf8_lossy(line));
        }
        assert!(["plain", "bad"].contains(&name(closed.as_bytes())));
    }
}
