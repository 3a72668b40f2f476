//! How an address is bound.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use super::super::file_id::FileId;
use super::super::holder;
use super::{BACKLOG, BindError, explain};
use crate::address::{Address, Host};

/// Whether several sockets share an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    None,
    /// Alone there, and others may come.
    Begins,
    Joins,
}

pub(super) fn network(host: Host, kind: Type, group: Group) -> io::Result<(Socket, Host)> {
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

pub(super) fn unix(path: &Path, address: &Address) -> Result<(Socket, FileId), BindError> {
    let failed = |error| explain(address, error);
    make_way(path, address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    at(path, |at| socket.bind(at)).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    Ok((socket, FileId::at(path).map_err(failed)?))
}

/// Removes a socket at which nobody answers.
pub(super) fn make_way(path: &Path, address: &Address) -> Result<(), BindError> {
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
pub(super) fn at(path: &Path, used: impl FnOnce(&SockAddr) -> io::Result<()>) -> io::Result<()> {
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

/// The kernel was built without IPv6, or it is switched off.
fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

pub(super) fn in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// `sun_path` has 108 bytes, its end included (unix(7)).
const LONGEST_PATH: usize = 107;
