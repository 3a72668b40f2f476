//! Listeners that the broker has bound, and passes to every worker.

use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use rustix::event::{PollFd, PollFlags, poll};

use super::{WorkerContext, lock};

/// A socket that outlives every worker. All workers of the broker share it.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl WorkerContext {
    /// The listener of this name: as in the broker's [`Listen`](crate::Listen), or its address if it has no other. None if there
    /// is none of this name. It stays: who asks again gets another handle of the same socket. A standby waits here until it is
    /// promoted: see [`WorkerContext::promoted`].
    ///
    /// # Errors
    /// EMFILE at the limit of open files, `Interrupted` if it is to leave and was never promoted.
    pub async fn listener(&self, name: &str) -> io::Result<Option<Listener>> {
        self.promoted().await?;
        self.find_listener(name)
    }

    /// The same, blocking: not to be called from asynchronous code.
    ///
    /// # Errors
    /// Those of [`WorkerContext::listener`].
    pub fn blocking_listener(&self, name: &str) -> io::Result<Option<Listener>> {
        self.wait_until_promoted()?;
        self.find_listener(name)
    }

    fn find_listener(&self, name: &str) -> io::Result<Option<Listener>> {
        let listeners = lock(&self.shared.listeners);
        let found = listeners.iter().find(|(known, _)| known == name || *known == name.replace(':', "_"));
        found.map(|(_, socket)| socket.try_clone().map(Listener)).transpose()
    }

    /// The names of all listeners that the broker has passed, in order.
    #[must_use]
    pub fn listener_names(&self) -> Vec<String> {
        lock(&self.shared.listeners).iter().map(|(name, _)| name.clone()).collect()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// For sockets of other kinds.
impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> OwnedFd {
        listener.0
    }
}

impl Listener {
    /// For asynchronous code: never blocks. Give it to `tokio::net::TcpListener::from_std`.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn into_tcp(self) -> io::Result<TcpListener> {
        let listener = TcpListener::from(self.0);
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// The same for a UNIX socket.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn into_unix(self) -> io::Result<UnixListener> {
        let listener = UnixListener::from(self.0);
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// The same for UDP.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn into_udp(self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::from(self.0);
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Waits for the next TCP connection, blocking, whatever the mode of the socket, which all workers share. None once the
    /// worker is to leave.
    ///
    /// # Errors
    /// Those of accept(2); a connection that another worker was quicker to take is none.
    pub fn accept(&self, context: &WorkerContext) -> io::Result<Option<TcpStream>> {
        let listener = TcpListener::from(self.0.try_clone()?);
        listener.set_nonblocking(true)?;
        while !context.is_leaving() {
            let mut polled = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
            match poll(&mut polled, Some(&LOOK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(Some(stream));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// How often a blocked worker looks whether it is to leave.
const LOOK: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
