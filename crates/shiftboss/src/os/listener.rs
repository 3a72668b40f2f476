//! A listening socket that outlives every worker: bound once, then opened, quieted and shut as often as asked.
//!
//! | state | TCP | UDP | UNIX stream |
//! |---|---|---|---|
//! | open | listens | receives | its path is there |
//! | quiet | SYNs are dropped, clients try again | datagrams are dropped | as open |
//! | shut | refuses; the port stays ours | datagrams are dropped | its path is renamed away |
//!
//! Every operation may be repeated. Which of them when is decided by core.

mod path;

use std::fmt;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use super::filter;
use super::heirs;
use super::holder::{self, Holder};
use crate::address::{Address, Host};

pub(crate) use path::allow;

/// A bound socket and what it is for.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Address,
    state: State,
    /// The file of a UNIX socket, to know it again.
    file: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Quiet,
    Shut,
}

/// Why an address could not be bound.
#[derive(Debug)]
pub enum BindError {
    /// Somebody else listens there.
    InUse {
        /// Where.
        address: Address,
        /// Who, if that could be seen.
        holder: Option<Box<Holder>>,
    },
    /// A port below `net.ipv4.ip_unprivileged_port_start` needs CAP_NET_BIND_SERVICE (ip(7)); a path needs the right
    /// to write to its folder.
    NotPermitted {
        /// Where.
        address: Address,
        /// The lowest port that anybody may bind.
        unprivileged: u16,
    },
    /// The host has no such address, or not yet.
    NotAvailable {
        /// Where.
        address: Address,
    },
    /// There is a file that is no socket; it is left alone.
    NotASocket {
        /// Where.
        address: Address,
    },
    /// Any other answer of the kernel.
    Other {
        /// Where.
        address: Address,
        /// The answer.
        source: io::Error,
    },
}

impl BindError {
    /// Whether trying again later makes sense without anybody doing anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            BindError::NotAvailable { .. } => true,
            BindError::InUse { .. }
            | BindError::NotPermitted { .. }
            | BindError::NotASocket { .. }
            | BindError::Other { .. } => false,
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::InUse { address, holder: Some(holder) } => {
                write!(f, "{address} is in use: held by {holder}")
            }
            BindError::InUse { address, holder: None } => {
                write!(f, "{address} is in use; who holds it could not be seen")
            }
            BindError::NotPermitted { address: address @ Address::Unix(_), .. } => {
                write!(f, "{address} may not be bound: we may not write to its folder")
            }
            BindError::NotPermitted { address, unprivileged } => write!(
                f,
                "{address} may not be bound: ports below {unprivileged} need the capability CAP_NET_BIND_SERVICE"
            ),
            BindError::NotAvailable { address } => write!(f, "{address} is no address of this host"),
            BindError::NotASocket { address } => {
                write!(f, "{address} cannot be bound: the file there is no socket")
            }
            BindError::Other { address, source } => write!(f, "{address} cannot be bound: {source}"),
        }
    }
}

impl std::error::Error for BindError {}

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
        Ok(Listener { socket, address: Address::Tcp(host), state: State::Shut, file: None })
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
    pub fn adopt(socket: OwnedFd, address: &Address) -> io::Result<Self> {
        let socket = Socket::from(socket);
        let port = || io::Result::Ok(socket.local_addr()?.as_socket().map_or(0, |address| address.port()));
        let (bound, file) = match address {
            Address::Tcp(host) => (Address::Tcp(host.with_port(port()?)), None),
            Address::Udp(host) => (Address::Udp(host.with_port(port()?)), None),
            Address::Unix(path) => (address.clone(), file_of(path).or_else(|_| file_of(&away(path))).ok()),
        };
        let is_shut = match address {
            Address::Tcp(_) => !socket.is_listener()?,
            // Opened or shut again, whichever it was.
            Address::Udp(_) => false,
            Address::Unix(path) => fs::symlink_metadata(path).is_err() && away(path).exists(),
        };
        let state = if is_shut { State::Shut } else { State::Open };
        Ok(Listener { socket, address: bound, state, file })
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
            (_, State::Shut) => {}
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

/// Whether several sockets share an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    None,
    /// Alone there, and others may come.
    Begins,
    Joins,
}

fn network(host: Host, kind: Type, group: Group) -> io::Result<(Socket, Host)> {
    let mut at = host.to_bind();
    let mut tries = 0;
    loop {
        let socket = match bind_network(at, host, kind, group) {
            Err(error) if at.is_ipv6() && host == Host::Any(host.port()) && lacks_ipv6(&error) => {
                at = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), at.port());
                bind_network(at, host, kind, group)?
            }
            // A port that the kernel chose may be taken between being told and being asked for.
            Err(error) if host.port() == 0 && at.port() != 0 && tries < 16 && in_use(&error) => {
                tries += 1;
                at.set_port(0);
                continue;
            }
            result => result?,
        };
        let port = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
        if at.port() == 0 {
            // Only a port that was asked for stays bound while a TCP socket is shut.
            at.set_port(port);
            drop(socket);
            continue;
        }
        return Ok((socket, host.with_port(port)));
    }
}

fn bind_network(at: SocketAddr, host: Host, kind: Type, group: Group) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    if at.is_ipv6() {
        socket.set_only_v6(matches!(host, Host::One(_)))?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    if group == Group::Joins {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&at.into())?;
    match group {
        // One that could be bound without it is alone.
        Group::Begins => socket.set_reuse_port(true)?,
        Group::None if kind == Type::STREAM && at.port() != 0 => socket.listen(BACKLOG)?,
        Group::None | Group::Joins => {}
    }
    Ok(socket)
}

fn unix(path: &Path, address: &Address) -> Result<(Socket, (u64, u64)), BindError> {
    let failed = |error| explain(address, error);
    make_way(path, address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    at(path, |at| socket.bind(at)).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    Ok((socket, file_of(path).map_err(failed)?))
}

/// Removes a socket at which nobody answers.
fn make_way(path: &Path, address: &Address) -> Result<(), BindError> {
    let failed = |error| explain(address, error);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(BindError::NotASocket { address: address.clone() });
        }
        Ok(_) => match connect_at_once(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(_) | Err(_) => {
                return Err(BindError::InUse {
                    address: address.clone(),
                    holder: holder::of(address).map(Box::new),
                });
            }
        },
    }
    Ok(())
}

/// Whether somebody answers, without waiting for one who is frozen with a full queue (`EAGAIN`: somebody is there).
fn connect_at_once(path: &Path) -> io::Result<()> {
    let client = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    client.set_nonblocking(true)?;
    at(path, |at| client.connect(at))
}

/// Uses a path as an address; one that is longer than an address can be (unix(7)) by its folder's descriptor.
fn at(path: &Path, used: impl FnOnce(&SockAddr) -> io::Result<()>) -> io::Result<()> {
    if path.as_os_str().len() <= LONGEST_PATH {
        return used(&SockAddr::unix(path)?);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::NAMETOOLONG.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    if short.as_os_str().len() > LONGEST_PATH {
        return Err(Errno::NAMETOOLONG.into());
    }
    used(&SockAddr::unix(short)?)
}

fn explain(address: &Address, error: io::Error) -> BindError {
    let address = address.clone();
    match Errno::from_io_error(&error) {
        Some(Errno::ADDRINUSE) => BindError::InUse { holder: holder::of(&address).map(Box::new), address },
        Some(Errno::ACCESS | Errno::PERM) => {
            BindError::NotPermitted { address, unprivileged: first_unprivileged_port() }
        }
        Some(Errno::ADDRNOTAVAIL | Errno::NODEV | Errno::NETUNREACH) => BindError::NotAvailable { address },
        _ => BindError::Other { address, source: error },
    }
}

/// The kernel was built without IPv6, or it is switched off.
fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn first_unprivileged_port() -> u16 {
    let read = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    read.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

/// Where the file of a UNIX socket is while it is shut.
fn away(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".drained");
    path.with_file_name(name)
}

fn file_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
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

/// `sun_path` has 108 bytes, its end included (unix(7)).
const LONGEST_PATH: usize = 107;
/// As long as the kernel allows: it takes the lesser of this and `net.core.somaxconn` (listen(2)).
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests;
