//! A listening socket that outlives every worker: bound once, then opened, quieted and shut as often as asked.
//!
//! | state | TCP | UDP | UNIX stream |
//! |---|---|---|---|
//! | open | listens | receives | its path is there |
//! | quiet | SYNs are dropped, clients try again | datagrams are dropped | as open |
//! | shut | refuses; the port stays ours | datagrams are dropped | its path is renamed away |
//!
//! Every operation may be repeated. Which of them when is decided by core.

mod bind;
mod error;
mod path;

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use socket2::{Socket, Type};

use super::file_id::{FileId, Noted};
use super::filter;
use super::heirs;
use super::kill_points;
use crate::address::Address;

use bind::{Group, network, unix};
pub use error::BindError;
use error::explain;
pub(crate) use path::allow;

/// A bound socket and what it is for.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Address,
    state: State,
    /// The file of a UNIX socket, to know it again.
    file: Option<FileId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Quiet,
    Shut,
}

impl Listener {
    /// Binds and listens. A host of "any" is one IPv6 socket for both families, or IPv4 where the kernel has no IPv6.
    /// A UNIX path at which nobody answers is replaced; its mode follows the umask.
    ///
    /// # Errors
    /// [`BindError`]; then nothing is bound and no file was touched.
    pub fn bind(address: &Address, nonblocking: bool) -> Result<Self, BindError> {
        let (socket, bound, file) = match address {
            Address::Tcp(host) => {
                let (socket, host) =
                    network(*host, Type::STREAM, Group::None).map_err(|error| explain(address, error))?;
                (socket, Address::Tcp(host), None)
            }
            Address::Udp(host) => {
                let (socket, host) =
                    network(*host, Type::DGRAM, Group::None).map_err(|error| explain(address, error))?;
                (socket, Address::Udp(host), None)
            }
            Address::Unix(path) => {
                let (socket, file) = unix(path, address)?;
                (socket, address.clone(), Some(file))
            }
        };
        socket.set_nonblocking(nonblocking).map_err(|error| explain(address, error))?;
        Ok(Listener { socket, address: bound, state: State::Open, file })
    }

    /// One of several at a TCP address, each with a queue of its own; shut as yet. The first has to be alone there, the
    /// others are `beside` it.
    ///
    /// # Errors
    /// As for [`Listener::bind`]; `Other` if it is no TCP address.
    pub(super) fn lane(address: &Address, beside: bool) -> Result<Self, BindError> {
        let Address::Tcp(host) = address else {
            return Err(explain(address, io::ErrorKind::Unsupported.into()));
        };
        let group = if beside { Group::Joins } else { Group::Begins };
        let (socket, host) = network(*host, Type::STREAM, group).map_err(|error| explain(address, error))?;
        let lane = Listener { socket, address: Address::Tcp(host), state: State::Shut, file: None };
        lane.answers_at_once()?;
        Ok(lane)
    }

    /// Its connections send what is written at once (`TCP_NODELAY`, tcp(7); they inherit it), as gunicorn's: the second part
    /// of an answer does not wait up to 40 ms until its client has acknowledged the first.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn answers_at_once(&self) -> Result<(), BindError> {
        match self.address {
            Address::Tcp(_) => {
                self.socket.set_tcp_nodelay(true).map_err(|error| explain(&self.address, error))
            }
            Address::Udp(_) | Address::Unix(_) => Ok(()),
        }
    }

    /// Whether it listens in fact: a worker may have shut it.
    pub(super) fn is_listening(&self) -> io::Result<bool> {
        let is_whole = !matches!(self.address, Address::Unix(_)) || self.is_whole()?;
        Ok(is_whole && self.socket.is_listener()?)
    }

    /// Whether it is meant to.
    pub(crate) fn is_to_listen(&self) -> bool {
        self.state != State::Shut
    }

    /// Goes on with a socket that another process has bound to this address, in whatever state it left it.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn adopt(Noted { socket, file }: Noted, address: &Address) -> io::Result<Self> {
        let socket = Socket::from(socket);
        let name = socket.local_addr()?;
        let port = name.as_socket().map_or(0, |address| address.port());
        let (bound, file) = match address {
            Address::Tcp(host) => (Address::Tcp(host.with_port(port)), None),
            Address::Udp(host) => (Address::Udp(host.with_port(port)), None),
            Address::Unix(path) => (address.clone(), file.or_else(|| path::guess(path, !name.is_unnamed()))),
        };
        let mut listener = Listener { socket, address: bound, state: State::Open, file };
        let is_shut = match address {
            Address::Tcp(_) => !listener.socket.is_listener()?,
            // Opened or shut again, whichever it was.
            Address::Udp(_) => false,
            Address::Unix(path) => listener.is_at(&away(path)),
        };
        if is_shut {
            listener.state = State::Shut;
        }
        Ok(listener)
    }

    /// The file of a UNIX socket, which whoever goes on with it cannot see.
    #[must_use]
    pub(crate) fn file(&self) -> Option<FileId> {
        self.file
    }

    /// Where it is bound; port 0 has become the port that the kernel chose.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The address and port of the socket itself; none of a path.
    #[must_use]
    pub fn name(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    /// Whether new clients are kept waiting.
    pub(crate) fn is_quiet(&self) -> bool {
        self.state == State::Quiet
    }

    /// Takes a connection out of the queue, without waiting for one. It does not wait in turn (`SOCK_NONBLOCK`).
    ///
    /// # Errors
    /// Those of accept4(2): EAGAIN if there is none.
    pub fn accept(&self) -> io::Result<OwnedFd> {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        Ok(rustix::net::accept_with(&self.socket, flags)?)
    }

    /// Lets accept(2) not wait: whoever has the socket waits for events. The flag is shared by all who have it.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn wait_for_events(&self) -> Result<(), BindError> {
        self.socket.set_nonblocking(true).map_err(|error| explain(&self.address, error))
    }

    /// Lets new connections in again; at a UNIX path once [`Listener::mend`] has seen to it.
    ///
    /// # Errors
    /// EADDRINUSE if a stranger listens there now; ENOENT if the UNIX path's other name has been removed.
    pub fn reopen(&mut self) -> io::Result<()> {
        match (&self.address, self.state) {
            (Address::Unix(_), State::Open | State::Quiet) => {}
            (Address::Tcp(_), State::Open | State::Quiet) => {
                filter::detach(&self.socket)?;
                self.socket.listen(BACKLOG)?;
            }
            (Address::Udp(_), _) => filter::detach(&self.socket)?,
            (Address::Tcp(_), State::Shut) => {
                filter::detach(&self.socket)?;
                self.socket.set_reuse_address(true)?;
                self.socket.listen(BACKLOG)?;
            }
            (Address::Unix(path), State::Shut) => fs::rename(away(path), path)?,
        }
        self.state = State::Open;
        Ok(())
    }

    /// Keeps new clients waiting, without refusing them; those in the queue can still be accepted.
    ///
    /// # Errors
    /// Those of `SO_ATTACH_FILTER` (socket(7)).
    pub fn refuse_new(&mut self) -> io::Result<()> {
        match (&self.address, self.state) {
            (_, State::Shut) => return Ok(()),
            (Address::Tcp(_), State::Open | State::Quiet) => filter::drop_new_connections(&self.socket)?,
            (Address::Udp(_), State::Open | State::Quiet) => filter::drop_everything(&self.socket)?,
            (Address::Unix(_), State::Open | State::Quiet) => {}
        }
        self.state = State::Quiet;
        Ok(())
    }

    /// A TCP socket that listens no more does so again, and keeps new clients waiting all the while.
    pub(super) fn listen_quietly(&mut self) -> io::Result<()> {
        filter::drop_new_connections(&self.socket)?;
        self.socket.set_reuse_address(true)?;
        self.socket.listen(BACKLOG)?;
        self.state = State::Quiet;
        Ok(())
    }

    /// Connections that wait to be accepted. Only known for TCP: `tcpi_unacked` of a listening socket
    /// (`tcp_get_info` in net/ipv4/tcp.c); others 0.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn queued(&self) -> io::Result<u32> {
        match (&self.address, self.state) {
            (Address::Tcp(_), State::Open | State::Quiet) => queue_length(self.socket.as_fd()),
            (Address::Tcp(_), State::Shut) | (Address::Udp(_) | Address::Unix(_), _) => Ok(0),
        }
    }

    /// Refuses from now on and resets what is queued; returns how many that were. An explicit port stays bound
    /// (`tcp_disconnect` keeps it), and without `SO_REUSEADDR` no stranger can listen there meanwhile.
    /// A UNIX path that is somebody else's by now is left alone.
    ///
    /// # Errors
    /// Those of shutdown(2) and rename(2); then it stays open.
    pub fn shut(&mut self) -> io::Result<u32> {
        let mut queued = self.queued()?;
        match (&self.address, self.state) {
            (Address::Tcp(_) | Address::Udp(_), State::Shut) => {}
            // Whoever renamed its path may have been killed before anything else.
            (Address::Unix(_), State::Shut) => queued = self.turn_away()?,
            (Address::Tcp(_), State::Open | State::Quiet) => {
                self.socket.set_reuse_address(false)?;
                match self.socket.shutdown(std::net::Shutdown::Read) {
                    // A worker was faster.
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                    result => result?,
                }
            }
            (Address::Udp(_), State::Open | State::Quiet) => filter::drop_everything(&self.socket)?,
            (Address::Unix(path), State::Open | State::Quiet) => {
                if self.is_at(path) {
                    fs::rename(path, away(path))?;
                    kill_points::point("a path was renamed away");
                }
                queued = self.turn_away()?;
            }
        }
        self.state = State::Shut;
        Ok(queued)
    }

    /// Whether it says by EPOLLHUP that a worker has shut it and it is not meant to be.
    #[must_use]
    pub fn tells_of_its_end(&self) -> bool {
        matches!(self.address, Address::Tcp(_) | Address::Unix(_)) && self.is_to_listen()
    }

    /// A worker may have shortened the queue by its own listen(2), or have shut the socket for everybody by
    /// shutdown(2): both are one property of the shared socket, and both end here; for the latter a UNIX socket needs
    /// [`Listener::mend`].
    ///
    /// # Errors
    /// Those of listen(2).
    pub fn assert_backlog(&mut self) -> io::Result<()> {
        match (&self.address, self.state) {
            (Address::Tcp(_), State::Open | State::Quiet) | (Address::Unix(_), _) => {
                self.socket.listen(BACKLOG)
            }
            (Address::Tcp(_), State::Shut) | (Address::Udp(_), _) => Ok(()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    /// The file of a UNIX socket goes with it, unless it is somebody else's by now.
    fn drop(&mut self) {
        let Address::Unix(path) = &self.address else { return };
        // Whoever goes on has the socket still.
        if heirs::are_expected() {
            return;
        }
        let path = if self.state == State::Shut { away(path) } else { path.clone() };
        if self.is_at(&path) {
            // Gone meanwhile is as good.
            let _ = fs::remove_file(path);
        }
    }
}

/// Where the file of a UNIX socket is while it is shut.
fn away(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".drained");
    path.with_file_name(name)
}

#[allow(unsafe_code)]
fn queue_length(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` has room for `length` bytes; the kernel writes at most that many and no pointer is kept.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a structure of integers, zeroed before the kernel wrote to it.
    Ok(unsafe { info.assume_init() }.tcpi_unacked)
}

/// As long as the kernel allows: it takes the lesser of this and `net.core.somaxconn` (listen(2)).
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests;
