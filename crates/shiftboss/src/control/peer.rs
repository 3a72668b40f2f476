//! Who may connect: processes of our own user and root, by the credentials that the kernel took at connect
//! (`SO_PEERCRED`, unix(7)); at most so many at once, each of which has to ask something soon. When all places are taken,
//! who has been there longest without having asked makes room. All others are told why not.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Sleep;

pub(super) struct Peers {
    listener: UnixListener,
    places: Arc<Semaphore>,
    /// A word to each that has not been answered yet, the first come first; closed for the others.
    silent: VecDeque<oneshot::Sender<()>>,
    refusals: Arc<Semaphore>,
    uid: u32,
}

/// A connection that holds its place.
pub(super) struct Peer {
    stream: UnixStream,
    /// None once the first answer has begun.
    silence: Option<Silence>,
    asker: Asker,
    _place: OwnedSemaphorePermit,
}

/// Who asks, as the kernel says: who has connected, whoever holds the connection now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) uid: u32,
    /// None if that process is not in our PID namespace.
    pub(super) pid: Option<i32>,
}

impl Connected<IncomingStream<'_, Peers>> for Asker {
    fn connect_info(stream: IncomingStream<'_, Peers>) -> Asker {
        stream.io().asker
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.uid)?;
        self.pid.map_or(Ok(()), |pid| write!(f, ", process {pid}"))
    }
}

/// Ends with the connection, at this time or by that word.
struct Silence {
    until: Pin<Box<Sleep>>,
    word: oneshot::Receiver<()>,
}

impl Silence {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        Pin::new(&mut self.word).poll(cx).is_ready() || self.until.as_mut().poll(cx).is_ready()
    }
}

impl Peers {
    pub(super) fn new(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let uid = rustix::process::geteuid().as_raw();
        let listener = UnixListener::from_std(listener)?;
        let (places, refusals) = (Arc::new(Semaphore::new(MOST)), Arc::new(Semaphore::new(REFUSALS)));
        Ok(Peers { listener, places, silent: VecDeque::new(), refusals, uid })
    }

    /// A place for one more, if need be that of who has said nothing for longest; none if all have asked.
    async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        self.silent.retain(|word| !word.is_closed());
        while self.places.available_permits() == 0 {
            let told = self.silent.pop_front()?.send(());
            if told.is_ok() {
                break;
            }
        }
        let place = Arc::clone(&self.places).acquire_owned();
        tokio::time::timeout(REFUSED_WITHIN, place).await.ok()?.ok()
    }

    /// None: it may not ask.
    fn asker(&self, stream: &UnixStream) -> Option<Asker> {
        let peer = stream.peer_cred().ok()?;
        let may = peer.uid() == self.uid || peer.uid() == 0;
        may.then(|| Asker { uid: peer.uid(), pid: peer.pid().filter(|pid| *pid > 0) })
    }

    fn refuse(&self, stream: UnixStream, answer: &'static [u8]) {
        // One of too many is told nothing.
        if let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned() {
            tokio::spawn(async move {
                // Whoever does not wait for the answer needs none.
                let _ = tokio::time::timeout(REFUSED_WITHIN, refuse(stream, answer)).await;
                drop(place);
            });
        }
    }
}

impl Listener for Peers {
    type Io = Peer;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Peer, SocketAddr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else {
                // Out of descriptors, most likely: trying again at once would only burn a core.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Some(asker) = self.asker(&stream) else {
                self.refuse(stream, NOT_ALLOWED);
                continue;
            };
            let Some(place) = self.place().await else {
                self.refuse(stream, BUSY);
                continue;
            };
            let (sender, word) = oneshot::channel();
            self.silent.push_back(sender);
            let until = Box::pin(tokio::time::sleep(PATIENCE));
            return (Peer { stream, silence: Some(Silence { until, word }), asker, _place: place }, address);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Hears the question first, since an answer before it confuses clients, and to its end, since closing on unread words
/// takes the answer back (a reset).
async fn refuse(mut stream: UnixStream, answer: &[u8]) -> io::Result<()> {
    let mut heard = [0; 1024];
    let mut end = Vec::new();
    while !end.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut heard).await?;
        if length == 0 {
            return Ok(());
        }
        end.extend_from_slice(&heard[..length]);
        end.drain(..end.len().saturating_sub(4));
    }
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    while stream.read(&mut heard).await? > 0 {}
    Ok(())
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.silence.as_mut().is_some_and(|silence| silence.is_over(cx)) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.silence = None;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.silence = None;
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    /// Otherwise long answers would be copied into one piece.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Connections at once: each costs some tens of KB and a descriptor.
const MOST: usize = 256;
/// A connection without an answer by then has asked nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// Refusals under way, and how long each may take.
const REFUSALS: usize = 16;
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);
const BUSY: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: 57\r\n\
    Connection: close\r\n\r\n{\"error\":\"busy: 256 clients ask this app at the moment\"}\n";
const NOT_ALLOWED: &[u8] =
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 59\r\n\
    Connection: close\r\n\r\n{\"error\":\"this app belongs to another user than yourself\"}\n";
