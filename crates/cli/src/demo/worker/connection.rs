//! One accepted connection of the built-in worker, to its end: no request that comes on it is lost, also when the worker
//! is told to leave. Accepting, and the worker's own end, are left to the parent.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::told;
use crate::demo::http::{self, Request};

/// A client's connection.
pub(super) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    leaving: watch::Receiver<bool>,
    greeting: Rc<str>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, leaving: watch::Receiver<bool>, greeting: Rc<str>) -> Connection {
        Connection { stream, received: Vec::new(), leaving, greeting }
    }

    /// Answers its requests until the client closes, asks to close or falls silent, or the worker leaves.
    pub(super) async fn serve(mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        loop {
            if self.received.is_empty() && !self.receive_first().await? {
                return Ok(());
            }
            let (kept, answer) = match self.request().await? {
                Received::Request(request) => self.answer(&request).await?,
                Received::Bad(status, why) => (false, http::respond(status, &format!("{why}\n"), false)),
                Received::Closed => return Ok(()),
            };
            self.stream.write_all(&answer).await?;
            if !kept {
                return self.close().await;
            }
        }
    }

    /// Waits for the first byte of the next request; false when none comes any more.
    async fn receive_first(&mut self) -> io::Result<bool> {
        let mut leaving = self.leaving.clone();
        let last_chance = async {
            told(&mut leaving).await;
            sleep(LAST_CHANCE).await;
        };
        tokio::select! {
            biased;
            read = self.stream.read_buf(&mut self.received) => Ok(read? > 0),
            () = last_chance => Ok(false),
            () = sleep(IDLE_LIMIT) => Ok(false),
        }
    }

    /// Reads one request's head, however slowly it comes.
    async fn request(&mut self) -> io::Result<Received> {
        loop {
            match http::parse_request(&self.received) {
                Ok(Some((_, length))) if length > HEAD_LIMIT => return Ok(Received::too_large()),
                Ok(Some((request, length))) => {
                    self.received.drain(..length);
                    return Ok(Received::Request(request));
                }
                Ok(None) if self.received.len() >= HEAD_LIMIT => return Ok(Received::too_large()),
                Ok(None) => {}
                Err(http::Malformed(why)) => return Ok(Received::Bad(400, why)),
            }
            if !self.receive().await? {
                return Ok(Received::Closed);
            }
        }
    }

    /// The bytes that answer a request, and whether the connection is kept.
    async fn answer(&mut self, request: &Request) -> io::Result<(bool, Vec<u8>)> {
        if request.expects_continue && request.body_length > 0 {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        self.discard(request.body_length).await?;
        let (status, body) = match Route::of(request) {
            Route::Greet { after } => {
                if !after.is_zero() {
                    sleep(after).await;
                }
                (200, self.greeting.to_string())
            }
            Route::Measure => (200, format!("{}\n", request.body_length)),
            Route::Refuse(status) => (status, format!("{status}\n")),
        };
        // Requests already received behind this one are answered before the connection is given up.
        let last = *self.leaving.borrow() && self.received.is_empty();
        let kept = request.keep_alive && !last;
        Ok((kept, http::respond(status, &body, kept)))
    }

    async fn discard(&mut self, mut length: u64) -> io::Result<()> {
        loop {
            let held = self.received.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            self.received.drain(..held);
            length -= held as u64;
            if length == 0 {
                return Ok(());
            }
            if !self.receive().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads more of a request that has begun; false at the end of the stream.
    async fn receive(&mut self) -> io::Result<bool> {
        let read = timeout(RECEIVE_LIMIT, self.stream.read_buf(&mut self.received)).await;
        Ok(read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? > 0)
    }

    /// Closes so that the answer arrives even if the client has sent more: closing with bytes unread would reset.
    async fn close(mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let until_end = async {
            loop {
                self.received.clear();
                if self.stream.read_buf(&mut self.received).await? == 0 {
                    return io::Result::Ok(());
                }
            }
        };
        timeout(LINGER, until_end).await.unwrap_or(Ok(()))
    }
}

enum Received {
    Request(Request),
    /// Not a request; the status and the reason to answer with.
    Bad(u16, &'static str),
    Closed,
}

impl Received {
    fn too_large() -> Received {
        Received::Bad(431, "the head is larger than 16 KiB")
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Route {
    Greet { after: Duration },
    Measure,
    Refuse(u16),
}

impl Route {
    fn of(request: &Request) -> Route {
        match (request.method.as_str(), request.target.split_once('?')) {
            ("POST", _) => Route::Measure,
            ("GET", None) if request.target == "/" => Route::Greet { after: Duration::ZERO },
            ("GET", Some(("/", _))) => Route::Greet { after: Duration::ZERO },
            ("GET", Some(("/slow", query))) => {
                let wait =
                    query.split('&').find_map(|part| part.strip_prefix("ms=")).and_then(|ms| ms.parse().ok());
                match wait.map(Duration::from_millis) {
                    Some(after) if after <= SLOWEST => Route::Greet { after },
                    Some(_) | None => Route::Refuse(400),
                }
            }
            ("GET", _) => Route::Refuse(404),
            _ => Route::Refuse(405),
        }
    }
}

/// How long an accepted connection without a request is kept once the worker is told to leave.
const LAST_CHANCE: Duration = Duration::from_secs(5);
/// How long one is kept otherwise.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Longest silence within a request.
const RECEIVE_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for the client's end of a connection that was given up.
const LINGER: Duration = Duration::from_secs(1);
/// Longest `/slow`.
const SLOWEST: Duration = Duration::from_secs(60);
/// Largest head of a request, in bytes.
const HEAD_LIMIT: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::task::{LocalSet, spawn_local};

    /// Serves one client of a worker, told to leave or not, and gives the client's end.
    async fn client() -> (TcpStream, watch::Sender<bool>, tokio::task::JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (leave, leaving) = watch::channel(false);
        let stream = listener.accept().await.unwrap().0;
        let connection = Connection::new(stream, leaving, "hello\n".into());
        (client, leave, spawn_local(connection.serve()))
    }

    async fn response(client: &mut TcpStream) -> http::Response {
        let mut bytes = Vec::new();
        loop {
            let closed = client.read_buf(&mut bytes).await.unwrap() == 0;
            if let Some((response, _)) = http::parse_response(&bytes, closed).unwrap() {
                return response;
            }
            assert!(!closed, "closed after {:?}", String::from_utf8_lossy(&bytes));
        }
    }

    fn local(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(LocalSet::new().run_until(test));
    }

    #[test]
    fn a_connection_without_a_request_is_still_served_when_leaving() {
        local(async {
            let (mut client, leave, served) = client().await;
            leave.send_replace(true);
            tokio::task::yield_now().await;
            client.write_all(&http::get("/", "x", true)).await.unwrap();
            let response = response(&mut client).await;
            assert_eq!((response.body.as_slice(), response.keep_alive), (b"hello\n".as_slice(), false));
            drop(client);
            served.await.unwrap().unwrap();
        });
    }

    #[test]
    fn an_idle_connection_is_kept_for_one_more_request_when_leaving() {
        local(async {
            let (mut client, leave, served) = client().await;
            client.write_all(&http::get("/", "x", true)).await.unwrap();
            assert!(response(&mut client).await.keep_alive);
            leave.send_replace(true);
            tokio::task::yield_now().await;
            client.write_all(&http::get("/", "x", true)).await.unwrap();
            assert!(!response(&mut client).await.keep_alive);
            drop(client);
            served.await.unwrap().unwrap();
        });
    }

    #[test]
    fn a_request_being_received_when_leaving_is_read_to_its_end() {
        local(async {
            let (mut client, leave, served) = client().await;
            client.write_all(b"POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc").await.unwrap();
            tokio::task::yield_now().await;
            leave.send_replace(true);
            tokio::task::yield_now().await;
            client.write_all(b"def").await.unwrap();
            assert_eq!(response(&mut client).await.body, b"6\n");
            drop(client);
            served.await.unwrap().unwrap();
        });
    }

    #[test]
    fn requests_received_together_are_all_answered_when_leaving() {
        local(async {
            let (mut client, leave, served) = client().await;
            leave.send_replace(true);
            let both = [http::get("/", "x", true), http::get("/", "x", true)].concat();
            client.write_all(&both).await.unwrap();
            client.shutdown().await.unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            assert_eq!(text.matches("hello").count(), 2, "{text}");
            served.await.unwrap().unwrap();
        });
    }

    #[test]
    fn a_bad_or_oversized_request_is_answered_and_the_connection_closed() {
        local(async {
            for (request, status) in [("nonsense\r\n\r\n".to_owned(), 400), ("x".repeat(HEAD_LIMIT), 431)] {
                let (mut client, _leave, served) = client().await;
                client.write_all(request.as_bytes()).await.unwrap();
                assert_eq!(response(&mut client).await.status, status);
                drop(client);
                served.await.unwrap().unwrap();
            }
        });
    }

    #[test]
    fn only_known_requests_are_routed() {
        let route = |line: &str| Route::of(&http::parse_request(line.as_bytes()).unwrap().unwrap().0);
        assert_eq!(route("GET / HTTP/1.1\r\n\r\n"), Route::Greet { after: Duration::ZERO });
        let slow = Route::Greet { after: Duration::from_millis(70) };
        assert_eq!(route("GET /slow?a=b&ms=70 HTTP/1.1\r\n\r\n"), slow);
        assert_eq!(route("GET /slow?ms=999999 HTTP/1.1\r\n\r\n"), Route::Refuse(400));
        assert_eq!(route("GET /slow?ms=x HTTP/1.1\r\n\r\n"), Route::Refuse(400));
        assert_eq!(route("GET /other HTTP/1.1\r\n\r\n"), Route::Refuse(404));
        assert_eq!(route("PUT / HTTP/1.1\r\n\r\n"), Route::Refuse(405));
    }
}
