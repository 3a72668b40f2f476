//! One request on one connection, and the pool the connections come from. Counting is left to `tally`.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::demo::http::{self, Response};

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// No connection: ECONNREFUSED.
    Refused,
    /// ECONNRESET or EPIPE.
    Reset,
    /// The connection ended before the response did.
    ClosedEarly,
    /// A status other than 200-299.
    BadStatus,
    Timeout,
    /// What came is not HTTP, or larger than is read.
    Malformed,
    /// Any other error of the system, such as descriptors used up.
    Other,
    /// A reused connection ended without a byte of response.
    Crossed,
}

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) detail: String,
}

/// Idle connections to one address, the last used on top.
pub(crate) struct Pool {
    target: SocketAddr,
    idle: RefCell<Vec<Connection>>,
}

impl Pool {
    pub(crate) fn new(target: SocketAddr) -> Pool {
        Pool { target, idle: RefCell::default() }
    }

    /// The idle connection used last that is still good, or a new one.
    pub(crate) async fn take(&self) -> Result<Connection, Failure> {
        if let Some(connection) = self.take_idle() {
            return Ok(connection);
        }
        let connected = async {
            let stream = TcpStream::connect(self.target).await?;
            stream.set_nodelay(true)?;
            Ok(Connection { stream, received: Vec::new(), reused: false, idle_since: Instant::now() })
        };
        connected
            .await
            .map_err(|error: io::Error| Failure { kind: kind_of(&error), detail: error.to_string() })
    }

    fn take_idle(&self) -> Option<Connection> {
        loop {
            let connection = self.idle.borrow_mut().pop()?;
            if connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next request, unless something unasked came on it.
    pub(crate) fn give_back(&self, mut connection: Connection) {
        if connection.received.is_empty() {
            connection.reused = true;
            connection.idle_since = Instant::now();
            self.idle.borrow_mut().push(connection);
        }
    }

    /// Closes the idle connections that would not be used any more.
    pub(crate) fn sweep(&self) {
        self.idle.borrow_mut().retain(Connection::is_usable);
    }
}

/// A connection and what of a response has come on it.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    reused: bool,
    idle_since: Instant,
}

impl Connection {
    /// Asks the kernel, since the runtime learns of a close only when it next polls.
    fn is_usable(&self) -> bool {
        let peeked = recv(&self.stream, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(peeked, Err(rustix::io::Errno::AGAIN)) && self.idle_since.elapsed() < IDLE_LIMIT
    }

    fn failure(&self, kind: Kind, detail: String) -> Failure {
        let unanswered = self.reused && self.received.is_empty();
        match kind {
            Kind::Reset | Kind::ClosedEarly if unanswered => Failure { kind: Kind::Crossed, detail },
            Kind::Refused
            | Kind::Reset
            | Kind::ClosedEarly
            | Kind::BadStatus
            | Kind::Timeout
            | Kind::Malformed
            | Kind::Other
            | Kind::Crossed => Failure { kind, detail },
        }
    }

    async fn send(&mut self, request: &[u8], pieces: usize) -> io::Result<()> {
        if pieces > 1 && !self.reused {
            sleep(PIECE_PAUSE).await;
        }
        for (at, piece) in request.chunks(request.len().div_ceil(pieces.max(1)).max(1)).enumerate() {
            if at > 0 {
                sleep(PIECE_PAUSE).await;
            }
            self.stream.write_all(piece).await?;
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<Response, Failure> {
        loop {
            let read = self.stream.read_buf(&mut self.received).await;
            let read = read.map_err(|error| self.failure(kind_of(&error), error.to_string()))?;
            match http::parse_response(&self.received, read == 0) {
                Ok(Some((response, length))) => {
                    self.received.drain(..length);
                    return Ok(response);
                }
                Ok(None) if read == 0 => {
                    let detail = format!("closed after {} bytes of response", self.received.len());
                    return Err(self.failure(Kind::ClosedEarly, detail));
                }
                Ok(None) if self.received.len() > http::BODY_LIMIT => {
                    return Err(self.failure(Kind::Malformed, "the response is larger than 16 MiB".into()));
                }
                Ok(None) => {}
                Err(http::Malformed(why)) => return Err(self.failure(Kind::Malformed, why.into())),
            }
        }
    }
}

/// Sends a request in so many pieces and reads the response.
pub(crate) async fn exchange(
    connection: &mut Connection,
    request: &[u8],
    pieces: usize,
) -> Result<Response, Failure> {
    let sent = connection.send(request, pieces).await;
    sent.map_err(|error| connection.failure(kind_of(&error), error.to_string()))?;
    connection.receive().await
}

fn kind_of(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Kind::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            Kind::Reset
        }
        io::ErrorKind::TimedOut => Kind::Timeout,
        _ => Kind::Other,
    }
}

/// Longest a connection lies idle: shorter than servers keep one (5 s with Node and with the built-in worker), so that
/// it is the client who closes and no request crosses a close.
const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// Between the pieces of a request that arrives slowly.
const PIECE_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// What a request becomes when the server's side of its connection behaves as `server` does.
    fn request_to<S: Future<Output = ()>>(
        reused: bool,
        server: impl FnOnce(TcpStream) -> S,
    ) -> Result<Response, Failure> {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let pool = Pool::new(listener.local_addr().unwrap());
            let mut connection = pool.take().await.unwrap();
            connection.reused = reused;
            let stream = listener.accept().await.unwrap().0;
            let request = http::get("/", "x", true);
            tokio::join!(exchange(&mut connection, &request, 1), server(stream)).0
        })
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    async fn read_request(stream: &mut TcpStream) {
        let mut bytes = Vec::new();
        while http::parse_request(&bytes).unwrap().is_none() {
            stream.read_buf(&mut bytes).await.unwrap();
        }
    }

    #[test]
    fn a_close_without_an_answer_is_crossed_only_on_a_reused_connection() {
        let closes = |mut stream: TcpStream| async move { read_request(&mut stream).await };
        assert_eq!(request_to(true, closes).unwrap_err().kind, Kind::Crossed);
        assert_eq!(request_to(false, closes).unwrap_err().kind, Kind::ClosedEarly);
    }

    #[test]
    fn a_close_within_an_answer_is_never_crossed() {
        let half = |mut stream: TcpStream| async move {
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").await.unwrap();
        };
        assert_eq!(request_to(true, half).unwrap_err().kind, Kind::ClosedEarly);
    }

    #[test]
    fn a_reset_is_told_from_a_close() {
        // Closing with bytes unread resets.
        let resets = |stream: TcpStream| async move {
            stream.readable().await.unwrap();
        };
        assert_eq!(request_to(false, resets).unwrap_err().kind, Kind::Reset);
    }

    #[test]
    fn what_is_not_http_is_malformed() {
        let nonsense = |mut stream: TcpStream| async move {
            read_request(&mut stream).await;
            stream.write_all(b"nonsense\r\n\r\n").await.unwrap();
        };
        assert_eq!(request_to(false, nonsense).unwrap_err().kind, Kind::Malformed);
    }

    #[test]
    fn nobody_listening_is_refused() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = listener.local_addr().unwrap();
            drop(listener);
            assert_eq!(Pool::new(target).take().await.err().map(|failure| failure.kind), Some(Kind::Refused));
        });
    }

    #[test]
    fn a_connection_the_server_closed_while_idle_is_not_used_again() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let pool = Pool::new(listener.local_addr().unwrap());
            let (first, second) = (pool.take().await.unwrap(), pool.take().await.unwrap());
            let kept = first.stream.local_addr().unwrap();
            pool.give_back(first);
            pool.give_back(second);
            let _first = listener.accept().await.unwrap().0;
            drop(listener.accept().await.unwrap());
            let again = pool.take().await.unwrap();
            assert_eq!(again.stream.local_addr().unwrap(), kept);
            assert!(again.reused);
        });
    }

    #[test]
    fn a_request_that_arrives_slowly_arrives_whole() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut connection = Pool::new(listener.local_addr().unwrap()).take().await.unwrap();
            let mut stream = listener.accept().await.unwrap().0;
            let begun = Instant::now();
            let serve = async {
                read_request(&mut stream).await;
                stream.write_all(&http::respond(200, "", true)).await.unwrap();
            };
            let request = http::get("/", "x", true);
            let (response, ()) = tokio::join!(exchange(&mut connection, &request, 5), serve);
            assert_eq!(response.unwrap().status, 200);
            assert!(begun.elapsed() >= PIECE_PAUSE * 5);
        });
    }
}
