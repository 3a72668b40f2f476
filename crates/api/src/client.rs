//! The client: asks a running app over its UNIX socket, one connection a call.
//!
//! It needs a tokio runtime with I/O and time enabled. Every question but a message to workers survives a lost connection, as when the app's
//! broker process is replaced: it is asked again, a command under the same `Idempotency-Key`, so that it acts once, an
//! event stream from the last event on. Which socket is whose is left to the caller.
//!
//! ```no_run
//! # async fn example() -> Result<(), shiftboss_api::client::ClientError> {
//! use shiftboss_api::client::{Client, Options};
//! use shiftboss_api::{Progress, Recycle};
//!
//! let client = Client::new("/run/shiftboss/shop.sock");
//! let mut progress = client.recycle("api", &Recycle::default(), &Options::default())?.wait();
//! while let Some(line) = progress.next().await? {
//!     if let Progress::Outcome(outcome) = line {
//!         println!("{outcome:?}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod away;
mod call;
mod connection;
mod error;
mod events;
#[cfg(test)]
mod fake;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

pub use call::{Call, CommandStream};
pub use error::ClientError;
pub use events::{EventStream, Item};

use crate::{ANSWER_MS, Answers, Message, Question, Recycle, Resume, Scale, Status, Told, Upgrade};
use away::{ANSWER_WITHIN, Away, Owner};
use connection::{Answer, Ask};

/// Asks one app. Holds no connection, so it stays good while the app is replaced.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    owner: Owner,
}

/// How a command is given. The default waits without limit, under a key of its own.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Longest wait for the outcome; none = without limit. An app that does not even begin to answer is given up
    /// after 10 s in any case, one whose connection was lost in between after 60 s without an answer.
    pub timeout: Option<Duration>,
    /// The command's `Idempotency-Key`, 1 to 128 visible ASCII characters; none = 128 random bits.
    pub key: Option<String>,
}

impl Client {
    /// A client of the app that answers at this socket. Nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Client { socket: socket.into(), owner: Owner::default() }
    }

    /// Whether the app of a socket lives although nobody listens there, as somebody may know from its lock: then, after
    /// a lost connection, it is asked again for up to 60 s. Default: where nobody listens there is no app.
    #[must_use]
    pub fn lives(mut self, lives: fn(&Path) -> bool) -> Self {
        self.owner.lives = lives;
        self
    }

    /// Who is told (`notify_one`) when an app whose connection was lost is away for more than 1 s, once an absence. It
    /// is asked again all the same.
    #[must_use]
    pub fn tells(mut self, told: Arc<Notify>) -> Self {
        self.owner.told = Some(told);
        self
    }

    /// The socket it asks.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The app as it is now.
    ///
    /// # Errors
    /// When nobody answers within 10 s (60 s after a lost connection), or not with a status.
    pub async fn status(&self) -> Result<Status, ClientError> {
        let text = self.status_json().await?;
        serde_json::from_str(&text).map_err(|error| self.protocol(format!("not a status: {error}")))
    }

    /// The same as the server wrote it, with the fields that this version does not know.
    ///
    /// # Errors
    /// When nobody answers within 10 s (60 s after a lost connection), or not with text.
    pub async fn status_json(&self) -> Result<String, ClientError> {
        self.whole(&Ask::get("/v1/status")).await.map(|(_, text)| text)
    }

    /// Replaces the workers of a broker, or the one of a slot.
    ///
    /// # Errors
    /// When no random key can be had.
    pub fn recycle(&self, broker: &str, body: &Recycle, options: &Options) -> Result<Call, ClientError> {
        self.command(path(broker, "recycle"), Some(body), options)
    }

    /// Sends the workers of a broker home.
    ///
    /// # Errors
    /// When no random key can be had.
    pub fn drain(&self, broker: &str, options: &Options) -> Result<Call, ClientError> {
        self.command(path(broker, "drain"), NOTHING, options)
    }

    /// Starts the workers of a drained broker again; of one that is closed by its schedule, when that opens it, or now.
    ///
    /// # Errors
    /// When no random key can be had.
    pub fn resume(&self, broker: &str, body: &Resume, options: &Options) -> Result<Call, ClientError> {
        self.command(path(broker, "resume"), body.now.then_some(body), options)
    }

    /// Changes how many workers a broker keeps.
    ///
    /// # Errors
    /// When no random key can be had.
    pub fn scale(&self, broker: &str, body: &Scale, options: &Options) -> Result<Call, ClientError> {
        self.command(path(broker, "scale"), Some(body), options)
    }

    /// Ends the whole app.
    ///
    /// # Errors
    /// When no random key can be had.
    pub fn stop(&self, options: &Options) -> Result<Call, ClientError> {
        self.command("/v1/stop".to_owned(), NOTHING, options)
    }

    /// Hands the app over to the program that is now on disk, or only asks that whether it could take over.
    ///
    /// # Errors
    /// When no random key can be had.
    pub fn upgrade(&self, body: &Upgrade, options: &Options) -> Result<Call, ClientError> {
        self.command("/v1/upgrade".to_owned(), Some(body), options)
    }

    /// Tells the workers of a broker something, or the one of a slot. A lost connection is an error
    /// ([`ClientError::Unanswered`]): whoever was told already would be told twice.
    ///
    /// # Errors
    /// When nobody could be told (status 409), or the app does not answer within 10 s.
    pub async fn send(&self, broker: &str, body: &Message) -> Result<Told, ClientError> {
        self.once(path(broker, "send"), body, ANSWER_WITHIN).await
    }

    /// Asks the workers of a broker something, or the one of a slot. It is not asked again either after a lost connection
    /// ([`ClientError::Unanswered`]): what a question does is the workers' affair.
    ///
    /// # Errors
    /// When there is nobody to be asked (status 409), or the app does not answer within 10 s more than the workers have.
    /// That of one worker is in its answer.
    pub async fn call(&self, broker: &str, body: &Question) -> Result<Answers, ClientError> {
        let within = Duration::from_millis(body.timeout_ms.unwrap_or(ANSWER_MS));
        self.once(path(broker, "call"), body, within.saturating_add(ANSWER_WITHIN)).await
    }

    /// The app's events: those after that number which are still kept (none = all that are kept), a mark
    /// ([`Item::Live`]), then those to come.
    ///
    /// # Errors
    /// When nobody answers within 10 s (60 s after a lost connection), or not with events.
    pub async fn events(&self, last_event_id: Option<u64>) -> Result<EventStream, ClientError> {
        EventStream::open(self.clone(), last_event_id).await
    }

    fn command(
        &self,
        path: String,
        body: Option<&impl Serialize>,
        options: &Options,
    ) -> Result<Call, ClientError> {
        let body = match body.map(serde_json::to_vec).transpose() {
            Ok(body) => body.unwrap_or_default(),
            Err(error) => {
                return Err(self.protocol(format!("the command cannot be written as JSON: {error}")));
            }
        };
        let key = match &options.key {
            Some(key) => key.clone(),
            None => random_key().map_err(|source| self.io("cannot read /dev/urandom for", source))?,
        };
        let ask = Ask { method: Method::POST, path, body, key: Some(key), last_event_id: None };
        Ok(Call::new(self.clone(), ask, options.timeout))
    }

    /// The head of an answer of that media type, whose body may still break.
    async fn open(&self, away: &mut Away, ask: &Ask, media_type: &str) -> Result<Answer, ClientError> {
        loop {
            let once = async { connection::open(&self.socket, ask).await?.expect_type(media_type).await };
            match away.attempt(self, once).await {
                Ok(answer) => {
                    away.heard();
                    return Ok(answer);
                }
                Err(error) if away.goes_on_after(self, &error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A whole answer, with its status.
    async fn whole(&self, ask: &Ask) -> Result<(StatusCode, String), ClientError> {
        let mut away = Away::default();
        loop {
            let once = async {
                let answer = connection::open(&self.socket, ask).await?;
                Ok((answer.status, answer.text().await?))
            };
            match away.attempt(self, once).await {
                Ok(answer) => {
                    away.over(self);
                    return Ok(answer);
                }
                Err(error) if away.goes_on_after(self, &error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The whole answer to what must not be asked twice.
    async fn once<A: DeserializeOwned>(
        &self,
        path: String,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<A, ClientError> {
        let body = serde_json::to_vec(body);
        let body = body.map_err(|error| self.protocol(format!("it cannot be written as JSON: {error}")))?;
        let ask = Ask { method: Method::POST, path, body, key: None, last_event_id: None };
        let answer = async { connection::open(&self.socket, &ask).await?.text().await };
        let text = match tokio::time::timeout(within, answer).await {
            Ok(Err(error)) if error.is_a_loss() => {
                return Err(ClientError::Unanswered { socket: self.socket.clone() });
            }
            Ok(answer) => answer?,
            Err(_) => return Err(ClientError::Timeout { socket: self.socket.clone(), after: within }),
        };
        serde_json::from_str(&text).map_err(|error| self.protocol(format!("not such an answer: {error}")))
    }

    fn protocol(&self, why: String) -> ClientError {
        ClientError::Protocol { socket: self.socket.clone(), why }
    }

    fn io(&self, doing: &'static str, source: std::io::Error) -> ClientError {
        ClientError::Io { doing, socket: self.socket.clone(), source }
    }
}

/// Everything but letters, digits and `-_.` is escaped (RFC 3986), so that no type name can be another path.
fn path(broker: &str, verb: &str) -> String {
    let mut path = "/v1/brokers/".to_owned();
    for byte in broker.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || (byte == b'.' && broker.len() > 2) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path.push('/');
    path.push_str(verb);
    path
}

fn random_key() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// The body of a verb that has none.
const NOTHING: Option<&()> = None;

#[cfg(test)]
mod tests {
    use super::fake::{Fake, json};
    use super::*;

    #[tokio::test]
    async fn the_status_is_read_and_also_had_as_it_was_written() {
        let written = r#"{"app":"shop","pid":1,"broker_pid":1,"version":"9","environment":"default",
            "started_at":"2026-11-24T08:00:00Z","brokers":[],"of_a_later_version":7}"#;
        let fake = Fake::serve(vec![json(200, written), json(200, written)]);
        let client = Client::new(fake.socket());
        assert_eq!(client.status().await.unwrap().app, "shop");
        assert_eq!(client.status_json().await.unwrap(), written);
        assert!(fake.asked()[0].starts_with("GET /v1/status HTTP/1.1\r\n"), "{:?}", fake.asked());
    }

    fn message(text: &str) -> Message {
        Message { message: serde_json::value::RawValue::from_string(text.to_owned()).unwrap(), slot: Some(2) }
    }

    #[tokio::test]
    async fn a_message_is_sent_once_and_the_answer_says_who_was_told() {
        let fake = Fake::serve(vec![json(
            200,
            r#"{"told":1,"untold":[{"worker":"3","slot":1,"reason":"gone","later":1}],"later":2}"#,
        )]);
        let told = Client::new(fake.socket()).send("a/b", &message("[1,  2]")).await.unwrap();
        assert_eq!((told.told, told.untold[0].worker.as_str()), (1, "3"));
        let asked = &fake.asked()[0];
        assert!(asked.starts_with("POST /v1/brokers/a%2Fb/send HTTP/1.1\r\n"), "{asked}");
        assert!(asked.ends_with("\r\n\r\n{\"message\":[1,  2],\"slot\":2}"), "{asked}");
    }

    #[tokio::test]
    async fn neither_a_message_nor_a_question_is_repeated_after_a_lost_connection() {
        use super::fake::Turn;
        for half in ["", "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"answers\":["] {
            let turns = || vec![Turn::Answer(half.to_owned()), Turn::Answer(json(200, "{}"))];
            let fake = Fake::turns(turns());
            let error = Client::new(fake.socket()).send("api", &message("1")).await.unwrap_err();
            assert!(matches!(error, ClientError::Unanswered { .. }), "{error}");
            assert_eq!(fake.asked().len(), 1);
            let fake = Fake::turns(turns());
            let question = Question { message: message("1").message, slot: None, timeout_ms: None };
            let error = Client::new(fake.socket()).call("api", &question).await.unwrap_err();
            assert!(matches!(error, ClientError::Unanswered { .. }), "{error}");
            assert_eq!(fake.asked().len(), 1);
        }
    }

    #[tokio::test]
    async fn a_missing_socket_says_that_no_app_answers() {
        let client = Client::new("/nonexistent/shiftboss/shop.sock");
        let error = client.status().await.unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { .. }));
        let text = "no app answers at /nonexistent/shiftboss/shop.sock (no such file)";
        assert_eq!(error.to_string(), text);
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves_says_that_no_app_answers() {
        let fake = Fake::serve(Vec::new());
        let socket = fake.socket().to_owned();
        fake.leave_the_socket_behind();
        let error = Client::new(&socket).status().await.unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { why: "nobody listens there", .. }), "{error}");
    }

    #[tokio::test]
    async fn a_refusal_carries_the_servers_words_and_help() {
        let body = r#"{"error":"`apy` is not a type of this app","help":"its types are: api"}"#;
        for status in [400, 403, 404, 409, 503] {
            let fake = Fake::serve(vec![json(status, body)]);
            let error = Client::new(fake.socket()).status().await.unwrap_err();
            let ClientError::Server { status: got, failure } = &error else { panic!("{error:?}") };
            assert_eq!((*got, failure.help.as_deref()), (status, Some("its types are: api")));
            assert_eq!(error.to_string(), "`apy` is not a type of this app");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_no_status_is_a_protocol_error() {
        for answer in [json(200, "[]"), json(500, "not JSON"), "SSH-2.0-OpenSSH\r\n\r\n".to_owned()] {
            let fake = Fake::serve(vec![answer.clone()]);
            let error = Client::new(fake.socket()).status().await.unwrap_err();
            assert!(matches!(error, ClientError::Protocol { .. }), "{answer}: {error:?}");
        }
    }

    #[test]
    fn a_type_name_cannot_become_another_path() {
        assert_eq!(path("api-2_x", "drain"), "/v1/brokers/api-2_x/drain");
        assert_eq!(path("../stop?x", "drain"), "/v1/brokers/..%2Fstop%3Fx/drain");
        assert_eq!(path("..", "drain"), "/v1/brokers/%2E%2E/drain");
    }

    #[test]
    fn every_key_is_another() {
        let (one, other) = (random_key().unwrap(), random_key().unwrap());
        assert_eq!(one.len(), 32);
        assert_ne!(one, other);
    }
}
