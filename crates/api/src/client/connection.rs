//! One connection, one question, one answer: HTTP/1.1 over a UNIX stream.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::ClientError;
use crate::Failure;

/// A question.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
    /// `Idempotency-Key`, of commands.
    pub(super) key: Option<String>,
    /// `Last-Event-ID`, of an event stream.
    pub(super) last_event_id: Option<u64>,
}

/// An answer whose head says success, and whose body is still to come. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    socket: PathBuf,
    content_type: String,
    body: Incoming,
    unread: Vec<u8>,
    /// Up to here `unread` holds no line end.
    searched: usize,
    _connection: Connection,
}

/// The task that moves the bytes; ends with its owner.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Ask {
    pub(super) fn get(path: &str) -> Self {
        Ask { method: Method::GET, path: path.to_owned(), body: Vec::new(), key: None, last_event_id: None }
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request =
            Request::builder().method(self.method.clone()).uri(&self.path).header(header::HOST, "shiftboss");
        if let Some(key) = &self.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(id) = self.last_event_id {
            request = request.header("last-event-id", id);
        }
        if !self.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(Bytes::from(self.body.clone())))
    }
}

/// Asks, and waits for the head of the answer. An answer that says failure is an error.
pub(super) async fn open(socket: &Path, ask: &Ask) -> Result<Answer, ClientError> {
    let protocol = |why: String| ClientError::Protocol { socket: socket.to_owned(), why };
    let request = ask.request().map_err(|error| protocol(format!("cannot be asked: {error}")))?;
    let stream = connect(socket).await?;
    let broken = |error| ClientError::of_hyper(socket, error);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // An error of the connection is also the error of the answer that it carries.
    let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
    let response = sender.send_request(request).await.map_err(broken)?;
    let answer = Answer::new(socket, response, connection);
    if answer.status.is_success() { Ok(answer) } else { Err(answer.into_failure().await) }
}

/// A full queue (`EAGAIN`, unix(7)) is waited out: the caller sets the limit.
async fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                tokio::time::sleep(QUEUE_PAUSE).await;
            }
            Err(error) => return Err(ClientError::of_connect(socket, error)),
        }
    }
}

impl Answer {
    fn new(socket: &Path, response: Response<Incoming>, connection: Connection) -> Self {
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        Answer {
            status: response.status(),
            socket: socket.to_owned(),
            content_type: content_type.unwrap_or_default().to_owned(),
            body: response.into_body(),
            unread: Vec::new(),
            searched: 0,
            _connection: connection,
        }
    }

    /// The whole body.
    pub(super) async fn text(mut self) -> Result<String, ClientError> {
        while self.fill().await? {
            if self.unread.len() > LONGEST_BODY {
                return Err(self.protocol(format!("longer than {LONGEST_BODY} bytes")));
            }
        }
        let bytes = std::mem::take(&mut self.unread);
        String::from_utf8(bytes).map_err(|_| self.protocol("not UTF-8".to_owned()))
    }

    /// The next line without its end; none at the end of the answer. May be given up and called again.
    pub(super) async fn line(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(at) = self.unread[self.searched..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.unread.drain(..=self.searched + at).collect();
                self.searched = 0;
                line.pop_if(|byte| *byte == b'\n');
                line.pop_if(|byte| *byte == b'\r');
                return String::from_utf8(line).map(Some).map_err(|_| self.protocol("not UTF-8".to_owned()));
            }
            self.searched = self.unread.len();
            if self.searched > LONGEST_LINE {
                return Err(self.protocol(format!("a line of more than {LONGEST_LINE} bytes")));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Itself, if its body is of this media type.
    pub(super) async fn expect_type(self, wanted: &str) -> Result<Self, ClientError> {
        let media_type = self.content_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case(wanted) {
            return Ok(self);
        }
        Err(self
            .protocol(format!("expected {wanted}, got `{media_type}` with status {}", self.status.as_u16())))
    }

    pub(super) fn protocol(&self, why: String) -> ClientError {
        ClientError::Protocol { socket: self.socket.clone(), why }
    }

    /// Takes in what has come; false at the end of the body.
    async fn fill(&mut self) -> Result<bool, ClientError> {
        let Some(frame) = self.body.frame().await else { return Ok(false) };
        let frame = frame.map_err(|error| ClientError::of_hyper(&self.socket, error))?;
        if let Some(data) = frame.data_ref() {
            self.unread.extend_from_slice(data);
        }
        Ok(true)
    }

    async fn into_failure(self) -> ClientError {
        let (socket, status) = (self.socket.clone(), self.status.as_u16());
        let text = match self.text().await {
            Ok(text) => text,
            Err(error) => return error,
        };
        match serde_json::from_str::<Failure>(&text) {
            Ok(failure) => ClientError::Server { status, failure },
            Err(_) => ClientError::Protocol { socket, why: format!("status {status} without a reason") },
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const QUEUE_PAUSE: Duration = Duration::from_millis(20);
/// 10,000 workers make a status of about 3 MB.
const LONGEST_BODY: usize = 64 << 20;
/// A message of a worker has up to 16 MiB.
const LONGEST_LINE: usize = 17 << 20;
