//! The words of Node's `cluster` and `child_process`, as a worker of either speaks them to its primary.
//!
//! ```text
//!   worker ── online ─────────────────▶ primary
//!          ── queryServer seq=1 ──────▶          may I listen there?
//!          ◀─ NODE_HANDLE{ack=1 key} ──          yes: this socket (a descriptor comes with the line)
//!          ── NODE_HANDLE_ACK ────────▶
//!          ── listening ──────────────▶
//!          ◀─ disconnect ──────────────          finish and leave
//! ```
//!
//! The protocol is private to Node and has not changed from version 18 to 24. Members that came or went between versions
//! (`fd`, `flags`) may be absent; a key is ours to choose.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Something internal that a Node program said.
#[derive(Clone, Debug)]
pub enum Said {
    /// It runs, and none of the program's own code has yet.
    Online,
    /// It wants to listen; waits for the answer as long as it takes.
    Query(Query),
    /// It listens where it has asked to; the port is the real one.
    Listening(Query),
    /// It has closed the server that was given to it under this key.
    Close(String),
    /// It leaves by itself, and waits for an [`acknowledge`].
    Leaves {
        /// To be repeated in the answer.
        seq: u64,
    },
    /// An answer to [`new_connection`].
    Answer {
        /// The number of what it answers.
        ack: u64,
        /// Whether it has taken the connection.
        accepted: bool,
    },
    /// A message that comes with a descriptor; to be answered by [`HANDLE_ACK`], or [`HANDLE_NACK`] if none came.
    Handle {
        /// The message.
        message: Box<RawValue>,
    },
    /// The descriptor that was sent last has arrived.
    Ack,
    /// It has not: once more, please.
    Nack,
    /// It asks to be told when all sockets of this server are closed that it has sent.
    AllClosed(String),
    /// It asks how many sockets of this server are open that it has sent.
    Count(String),
}

/// Where a worker wants to listen: Node's `queryServer`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Query {
    /// Its number, to be repeated in the answer.
    #[serde(default)]
    pub seq: u64,
    /// A numeric address, an absolute path, or none for every address of the host.
    #[serde(default)]
    pub address: Option<String>,
    /// The port; 0 = any; -1 or none where there is none.
    #[serde(default)]
    pub port: Option<i64>,
    /// What kind of an address it is.
    #[serde(default, deserialize_with = "kind", serialize_with = "kind_as_said")]
    pub address_type: Kind,
    /// A descriptor of the primary, -1 = none.
    #[serde(default)]
    pub fd: Option<i64>,
    /// Bit 0: IPv6 only.
    #[serde(default)]
    pub flags: Option<i64>,
    /// Which of several servers at the same address in this worker.
    #[serde(default)]
    pub index: u64,
    /// What all workers shall have of the first that has any: the keys of TLS tickets.
    #[serde(default)]
    pub data: Option<Box<SameRaw>>,
    /// A path that everybody may read.
    #[serde(default)]
    pub readable_all: bool,
    /// A path that everybody may write.
    #[serde(default)]
    pub writable_all: bool,
}

/// JSON that is passed on as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SameRaw(pub Box<RawValue>);

impl PartialEq for SameRaw {
    fn eq(&self, other: &SameRaw) -> bool {
        self.0.get() == other.0.get()
    }
}

/// Kinds of addresses, Node's `addressType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// TCP over IPv4, or both families if there is no address.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
    /// A path.
    Path,
    /// None of these: a descriptor.
    #[default]
    Other,
}

fn kind<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Kind, D::Error> {
    Ok(match serde_json::Value::deserialize(value)? {
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(4) => Kind::Tcp4,
            Some(6) => Kind::Tcp6,
            Some(-1) => Kind::Path,
            _ => Kind::Other,
        },
        serde_json::Value::String(text) if text == "udp4" => Kind::Udp4,
        serde_json::Value::String(text) if text == "udp6" => Kind::Udp6,
        _ => Kind::Other,
    })
}

// As serde wants it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn kind_as_said<S: serde::Serializer>(kind: &Kind, out: S) -> Result<S::Ok, S::Error> {
    match kind {
        Kind::Tcp4 => out.serialize_i32(4),
        Kind::Tcp6 => out.serialize_i32(6),
        Kind::Udp4 => out.serialize_str("udp4"),
        Kind::Udp6 => out.serialize_str("udp6"),
        Kind::Path => out.serialize_i32(-1),
        Kind::Other => out.serialize_none(),
    }
}

/// What the members of an internal line may be; those of another form are as good as absent.
#[derive(Deserialize)]
struct Members<'a> {
    cmd: &'a str,
    #[serde(default, borrow)]
    act: Option<&'a RawValue>,
    #[serde(default)]
    seq: Option<serde_json::Number>,
    #[serde(default)]
    ack: Option<serde_json::Number>,
    #[serde(default)]
    accepted: Option<serde_json::Value>,
    #[serde(default)]
    key: Option<serde_json::Value>,
    #[serde(default)]
    msg: Option<&'a RawValue>,
}

impl Said {
    /// What an internal line of Node means: an object whose `cmd` begins with `NODE_`. None for what a primary ignores, as
    /// Node's does.
    #[must_use]
    pub fn of(raw: &RawValue) -> Option<Said> {
        let members: Members<'_> = serde_json::from_str(raw.get()).ok()?;
        let key = || match &members.key {
            Some(serde_json::Value::String(key)) => Some(key.clone()),
            _ => None,
        };
        let number =
            |number: &Option<serde_json::Number>| number.as_ref().and_then(serde_json::Number::as_u64);
        Some(match members.cmd {
            "NODE_CLUSTER" => match members.act.map(RawValue::get) {
                Some("\"online\"") => Said::Online,
                Some("\"queryServer\"") => Said::Query(serde_json::from_str(raw.get()).ok()?),
                Some("\"listening\"") => Said::Listening(serde_json::from_str(raw.get()).ok()?),
                Some("\"close\"") => Said::Close(key()?),
                Some("\"exitedAfterDisconnect\"") => Said::Leaves { seq: number(&members.seq)? },
                Some(_) => return None,
                None => {
                    let accepted = members.accepted == Some(serde_json::Value::Bool(true));
                    Said::Answer { ack: number(&members.ack)?, accepted }
                }
            },
            "NODE_HANDLE" => Said::Handle { message: members.msg?.to_owned() },
            "NODE_HANDLE_ACK" => Said::Ack,
            "NODE_HANDLE_NACK" => Said::Nack,
            "NODE_SOCKET_NOTIFY_CLOSE" => Said::AllClosed(key()?),
            "NODE_SOCKET_GET_COUNT" => Said::Count(key()?),
            _ => return None,
        })
    }
}

/// The answer to a query that comes with its socket, which worker and primary share.
#[must_use]
pub fn shared(query: &Query, key: &str, data: Option<&RawValue>, seq: u64) -> String {
    let kind = match query.address_type {
        Kind::Udp4 | Kind::Udp6 => "dgram.Native",
        Kind::Tcp4 | Kind::Tcp6 | Kind::Path | Kind::Other => "net.Native",
    };
    let (key, data) = (text(key), data_or_null(data));
    let ack = query.seq;
    format!(
        r#"{{"cmd":"NODE_HANDLE","type":"{kind}","msg":{{"cmd":"NODE_CLUSTER","errno":0,"key":{key},"ack":{ack},"data":{data},"seq":{seq}}}}}"#
    )
}

/// The answer to a query whose connections the primary accepts and hands over; with the socket's address and port, if
/// it has any.
#[must_use]
pub fn by_turns(
    query: &Query,
    key: &str,
    data: Option<&RawValue>,
    name: Option<std::net::SocketAddr>,
    seq: u64,
) -> String {
    let (key, data, ack) = (text(key), data_or_null(data), query.seq);
    let name = name.map_or(String::new(), |at| {
        let family = if at.is_ipv4() { "IPv4" } else { "IPv6" };
        format!(r#","sockname":{{"address":"{}","family":"{family}","port":{}}}"#, at.ip(), at.port())
    });
    format!(
        r#"{{"cmd":"NODE_CLUSTER","errno":null,"key":{key},"ack":{ack},"data":{data}{name},"seq":{seq}}}"#
    )
}

/// The answer to a query that cannot be granted, with an errno as errno(3) has it.
#[must_use]
pub fn refused(query: &Query, errno: i32, seq: u64) -> String {
    let (ack, errno) = (query.seq, errno.unsigned_abs());
    let data = data_or_null(query.data.as_ref().map(|data| &*data.0));
    format!(
        r#"{{"cmd":"NODE_CLUSTER","errno":-{errno},"key":"refused","ack":{ack},"data":{data},"seq":{seq}}}"#
    )
}

/// The answer to one who leaves by itself.
#[must_use]
pub fn acknowledge(ack: u64, seq: u64) -> String {
    format!(r#"{{"cmd":"NODE_CLUSTER","ack":{ack},"seq":{seq}}}"#)
}

/// A connection for the server of this key; its descriptor comes with the line.
#[must_use]
pub fn new_connection(key: &str, seq: u64) -> String {
    let key = text(key);
    format!(
        r#"{{"cmd":"NODE_HANDLE","type":"net.Native","msg":{{"cmd":"NODE_CLUSTER","act":"newconn","key":{key},"seq":{seq}}}}}"#
    )
}

/// Close all servers, finish, and leave. At most once: a worker that still drains fails at a second one.
#[must_use]
pub fn disconnect(seq: u64) -> String {
    format!(r#"{{"cmd":"NODE_CLUSTER","act":"disconnect","seq":{seq}}}"#)
}

/// About to be told to leave: for what is loaded before the program, if that is asked for. Node passes it over.
#[must_use]
pub fn is_to_leave(seq: u64) -> String {
    format!(r#"{{"cmd":"NODE_SHIFTBOSS_LEAVE","seq":{seq}}}"#)
}

/// The answer to [`Said::AllClosed`].
#[must_use]
pub fn all_closed(key: &str) -> String {
    format!(r#"{{"cmd":"NODE_SOCKET_ALL_CLOSED","key":{}}}"#, text(key))
}

/// The answer to [`Said::Count`]: none is open.
#[must_use]
pub fn none_open(key: &str) -> String {
    format!(r#"{{"cmd":"NODE_SOCKET_COUNT","key":{},"count":0}}"#, text(key))
}

fn text(text: &str) -> serde_json::Value {
    serde_json::Value::from(text)
}

fn data_or_null(data: Option<&RawValue>) -> &str {
    data.map_or("null", RawValue::get)
}

/// A descriptor has arrived.
pub const HANDLE_ACK: &str = r#"{"cmd":"NODE_HANDLE_ACK"}"#;
/// A line that should have come with a descriptor has come without.
pub const HANDLE_NACK: &str = r#"{"cmd":"NODE_HANDLE_NACK"}"#;
/// The environment variable with the number of the channel's descriptor in a Node program.
pub const CHANNEL_FD: &str = "NODE_CHANNEL_FD";
/// The environment variable that says how what is said on it is written.
pub const SERIALIZATION: &str = "NODE_CHANNEL_SERIALIZATION_MODE";
/// The environment variable that makes a Node program a worker of `cluster`: its number.
pub const UNIQUE_ID: &str = "NODE_UNIQUE_ID";

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Option<Said> {
        let raw = RawValue::from_string(line.to_owned()).unwrap();
        Said::of(&raw)
    }

    #[test]
    fn what_real_workers_write_is_understood() {
        assert!(matches!(said(r#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#), Some(Said::Online)));
        let lines = [
            r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":39100,"addressType":4,"backlog":0,"seq":1}"#,
            r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":"127.0.0.1","port":0,"addressType":4,"flags":0,"backlog":false,"seq":5}"#,
            r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":"/run/app/x.sock","port":-1,"addressType":-1,"backlog":0,"seq":1}"#,
            r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":"::","port":0,"addressType":"udp6","fd":-1,"flags":5,"seq":10}"#,
            r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":null,"addressType":null,"fd":99,"backlog":0,"seq":14}"#,
        ];
        let queries: Vec<Query> = lines
            .iter()
            .map(|line| match said(line) {
                Some(Said::Query(query)) => query,
                other => panic!("{line}: {other:?}"),
            })
            .collect();
        let kinds: Vec<Kind> = queries.iter().map(|query| query.address_type).collect();
        assert_eq!(kinds, [Kind::Tcp4, Kind::Tcp4, Kind::Path, Kind::Udp6, Kind::Other]);
        assert_eq!((queries[0].port, queries[0].seq, &queries[0].address), (Some(39100), 1, &None));
        for query in &queries {
            let line = serde_json::to_string(query).unwrap();
            assert_eq!(serde_json::from_str::<Query>(&line).unwrap(), *query, "{line}");
        }
        assert_eq!((queries[3].flags, queries[4].fd, queries[4].port), (Some(5), Some(99), None));
        let leaves = said(r#"{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":4}"#);
        assert!(matches!(leaves, Some(Said::Leaves { seq: 4 })));
        let answer = said(r#"{"cmd":"NODE_CLUSTER","ack":1,"accepted":true,"seq":3}"#);
        assert!(matches!(answer, Some(Said::Answer { ack: 1, accepted: true })));
        let handle = said(r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"a":1},"key":"4:null:39110"}"#);
        assert!(matches!(handle, Some(Said::Handle { message }) if message.get() == r#"{"a":1}"#));
    }

    #[test]
    fn nonsense_means_nothing() {
        for line in [
            r#"{"cmd":"NODE_CLUSTER"}"#,
            r#"{"cmd":"NODE_CLUSTER","act":7}"#,
            r#"{"cmd":"NODE_CLUSTER","act":"dance","seq":1}"#,
            r#"{"cmd":"NODE_CLUSTER","act":"close","key":{}}"#,
            r#"{"cmd":"NODE_CLUSTER","act":"queryServer","seq":-1}"#,
            r#"{"cmd":"NODE_CLUSTER","act":"queryServer","port":"x","seq":1}"#,
            r#"{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect"}"#,
            r#"{"cmd":"NODE_CLUSTER","ack":1.5}"#,
            r#"{"cmd":"NODE_HANDLE","type":"net.Native"}"#,
            r#"{"cmd":"NODE_SOCKET_GET_COUNT"}"#,
            r#"{"cmd":"NODE_DEBUG_ENABLED"}"#,
        ] {
            assert!(said(line).is_none(), "{line}");
        }
    }

    #[test]
    fn answers_are_what_nodes_own_primary_writes() {
        let query = Query {
            seq: 1,
            address: None,
            port: Some(39100),
            address_type: Kind::Tcp4,
            fd: None,
            flags: None,
            index: 0,
            data: None,
            readable_all: false,
            writable_all: false,
        };
        assert_eq!(
            shared(&query, "k", None, 0),
            r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","errno":0,"key":"k","ack":1,"data":null,"seq":0}}"#
        );
        let name = "[::]:39100".parse().ok();
        assert_eq!(
            by_turns(&query, "k", None, name, 0),
            r#"{"cmd":"NODE_CLUSTER","errno":null,"key":"k","ack":1,"data":null,"sockname":{"address":"::","family":"IPv6","port":39100},"seq":0}"#
        );
        assert_eq!(
            refused(&query, 98, 3),
            r#"{"cmd":"NODE_CLUSTER","errno":-98,"key":"refused","ack":1,"data":null,"seq":3}"#
        );
    }
}
