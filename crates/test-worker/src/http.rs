//! A tiny server on the sockets of `LISTEN_FDS`: an epoll loop that accepts, a thread a connection that answers once.

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{Shutdown, SocketFlags, accept_with, shutdown};

use crate::process::{Termination, until};

/// Accepts until SIGTERM or `end`, then finishes what was accepted; true when ended by SIGTERM.
pub(crate) fn serve(termination: &Termination, end: Option<Instant>) -> io::Result<bool> {
    let listeners = inherited_sockets()?;
    let (told, connections) = accept(termination, end, &listeners)?;
    drop(listeners);
    for connection in connections {
        // A connection that failed concerns its client only, who sees it too.
        let _ = connection.join();
    }
    Ok(told)
}

fn accept(
    termination: &Termination,
    end: Option<Instant>,
    listeners: &[OwnedFd],
) -> io::Result<(bool, Vec<JoinHandle<()>>)> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (at, listener) in listeners.iter().enumerate() {
        epoll::add(&set, listener, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)?;
    }
    if let Some(descriptor) = termination.descriptor() {
        epoll::add(&set, descriptor, epoll::EventData::new_u64(TOLD), epoll::EventFlags::IN)?;
    }
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    loop {
        let mut events = Vec::with_capacity(16);
        match epoll::wait(&set, spare_capacity(&mut events), until(end).as_ref()) {
            Ok(0) if end.is_some_and(|end| Instant::now() >= end) => return Ok((false, connections)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if events.iter().any(|event| event.data.u64() == TOLD) {
            return Ok((true, connections));
        }
        connections.retain(|connection| !connection.is_finished());
        let ready = events.iter().filter_map(|event| listeners.get(usize::try_from(event.data.u64()).ok()?));
        for listener in ready {
            match accept_with(listener, SocketFlags::CLOEXEC) {
                Ok(connection) => connections.push(thread::Builder::new().spawn(move || {
                    let _ = answer(connection);
                })?),
                // A sibling was faster, or the client has given up.
                Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Reads the head of one request, without a body, and answers it.
fn answer(connection: OwnedFd) -> io::Result<()> {
    set_socket_timeout(&connection, Timeout::Recv, Some(SILENCE))?;
    let mut connection = File::from(connection);
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_LIMIT {
        match connection.read(&mut part)? {
            0 => return Ok(()),
            size => head.extend_from_slice(&part[..size]),
        }
    }
    let body = format!("ok {}\n", std::process::id());
    let length = body.len();
    write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")?;
    shutdown(connection.as_fd(), Shutdown::Write)?;
    Ok(())
}

/// The sockets passed by sd_listen_fds(3): descriptors from 3 on, as many as `LISTEN_FDS` says. They become
/// non-blocking, in all processes that share them.
fn inherited_sockets() -> io::Result<Vec<OwnedFd>> {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let count = match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count @ 1..=MOST_SOCKETS)) if pid == std::process::id() => count,
        _ => return Err(io::Error::other("no sockets were passed in LISTEN_FDS and LISTEN_PID")),
    };
    let adopt = |at| {
        // SAFETY: LISTEN_PID says that this descriptor was passed to this process, and it is taken only here, once.
        let socket = unsafe { OwnedFd::from_raw_fd(3 + at as i32) };
        ioctl_fionbio(&socket, true)?;
        Ok(socket)
    };
    (0..count).map(adopt).collect()
}

/// Marks the event of SIGTERM; listeners are marked by their place.
const TOLD: u64 = u64::MAX;
/// Longest silence of a client before its connection is closed.
const SILENCE: Duration = Duration::from_secs(10);
/// Largest head, in bytes.
const HEAD_LIMIT: usize = 16 << 10;
const MOST_SOCKETS: u32 = 1024;
