//! Who may connect: processes of our own user and root, by the credentials that the kernel took at connect
//! (`SO_PEERCRED`, unix(7)); at most so many at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) struct Peers {
    listener: UnixListener,
    places: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    uid: u32,
}

/// A connection that holds its place.
pub(super) struct Peer {
    stream: UnixStream,
    _place: OwnedSemaphorePermit,
}

impl Peers {
    pub(super) fn new(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let uid = rustix::process::geteuid().as_raw();
        let listener = UnixListener::from_std(listener)?;
        let (places, strangers) = (Arc::new(Semaphore::new(MOST)), Arc::new(Semaphore::new(STRANGERS)));
        Ok(Peers { listener, places, strangers, uid })
    }

    fn allows(&self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| peer.uid() == self.uid || peer.uid() == 0)
    }
}

impl Listener for Peers {
    type Io = Peer;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Peer, SocketAddr) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                // The semaphore is never closed; if it were, nobody could be let in.
                return std::future::pending().await;
            };
            match self.listener.accept().await {
                Ok((stream, address)) if self.allows(&stream) => {
                    return (Peer { stream, _place: place }, address);
                }
                Ok((stream, _)) => {
                    // One of many strangers is told nothing.
                    if let Ok(door) = Arc::clone(&self.strangers).try_acquire_owned() {
                        tokio::spawn(async move {
                            // A stranger that does not wait for the answer needs none.
                            let _ = tokio::time::timeout(PATIENCE, refuse(stream)).await;
                            drop(door);
                        });
                    }
                }
                // Out of descriptors, most likely: trying again at once would only burn a core.
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Hears the question first, since an answer before it confuses clients, and to its end, since closing on unread words
/// takes the answer back (a reset).
async fn refuse(mut stream: UnixStream) -> io::Result<()> {
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
    stream.write_all(NOT_ALLOWED).await?;
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
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

const MOST: usize = 64;
/// Strangers that are answered at once, and how long each may take.
const STRANGERS: usize = 16;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
const NOT_ALLOWED: &[u8] =
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 59\r\n\
    Connection: close\r\n\r\n{\"error\":\"this app belongs to another user than yourself\"}\n";
