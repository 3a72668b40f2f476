//! Connections that came to a listener: whether a process is still serving somebody, and an end to one that nobody serves.
//!
//! `/proc/PID/net/tcp`, `tcp6` and `unix` list the sockets of its network namespace with their inodes, `/proc/PID/fd` those that
//! it has (proc(5)). An accepted TCP connection has the listener's port as its own, an accepted UNIX one the listener's path.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::SockRef;

/// Where connections come from.
#[derive(Debug)]
pub struct Doors<'a> {
    /// TCP ports.
    pub ports: &'a BTreeSet<u16>,
    /// UNIX paths.
    pub paths: &'a BTreeSet<String>,
}

/// Whether the process has a connection that came through one of these.
///
/// # Errors
/// EACCES if it may not be looked at, ENOENT if it is gone.
pub fn has_any(pid: u32, doors: &Doors<'_>) -> io::Result<bool> {
    let inodes = inodes(pid)?;
    let mut served = Vec::new();
    for file in ["tcp", "tcp6"].iter().filter(|_| !doors.ports.is_empty()) {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
        served.extend(table.lines().skip(1).filter_map(|line| tcp(line, doors.ports)));
    }
    if !doors.paths.is_empty() {
        let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
        served.extend(table.lines().skip(1).filter_map(|line| unix(line, doors.paths)));
    }
    Ok(served.iter().any(|inode| inodes.contains(inode)))
}

/// Ends a connection so that whoever is at its other end hears of an error, and not of an end (`SO_LINGER`, socket(7)).
pub fn reset(connection: OwnedFd) {
    // Otherwise it is only closed.
    let _ = SockRef::from(&connection).set_linger(Some(Duration::ZERO));
    drop(connection);
}

fn inodes(pid: u32) -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that is closed meanwhile is no concern.
        let Some(link) = entry.ok().and_then(|entry| fs::read_link(entry.path()).ok()) else { continue };
        let link = link.to_string_lossy();
        let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inodes.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
    }
    Ok(inodes)
}

/// The inode of a connection to one of these ports: `sl local remote st queues timer retransmits uid timeout inode`.
fn tcp(line: &str, ports: &BTreeSet<u16>) -> Option<u64> {
    let mut words = line.split_whitespace().skip(1);
    let (local, _, state) = (words.next()?, words.next()?, words.next()?);
    let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
    // Established, or closed by the client alone, who may still wait for an answer.
    let is_served = state == "01" || state == "08";
    if is_served && ports.contains(&port) { words.nth(5)?.parse().ok() } else { None }
}

/// The inode of a connection to one of these paths: `num refs protocol flags type st inode path`.
fn unix(line: &str, paths: &BTreeSet<String>) -> Option<u64> {
    let mut words = line.split_whitespace().skip(5);
    let (state, inode) = (words.next()?, words.next()?);
    let path = line.splitn(8, ' ').nth(7).unwrap_or_default().trim_start();
    let path = path.strip_prefix(inode).map_or(path, str::trim_start);
    // One too long for the kernel was bound through its folder.
    let name =
        path.strip_prefix("/proc/self/fd/").and_then(|rest| rest.split_once('/')).map(|(_, name)| name);
    let is_through_folder =
        name.is_some_and(|name| paths.iter().any(|path| path.rsplit('/').next() == Some(name)));
    let is_door = paths.contains(path) || is_through_folder;
    if state == "03" && is_door { inode.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn own(ports: &BTreeSet<u16>, paths: &BTreeSet<String>) -> bool {
        has_any(std::process::id(), &Doors { ports, paths }).unwrap()
    }

    #[test]
    fn a_connection_is_seen_from_its_acceptance_to_its_end() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let ports = BTreeSet::from([listener.local_addr().unwrap().port()]);
        let none = BTreeSet::new();
        assert!(!own(&ports, &none), "a listener is none");
        for address in ["127.0.0.1", "::1"] {
            let mut client = TcpStream::connect((address, *ports.first().unwrap())).unwrap();
            let mut served = listener.accept().unwrap().0;
            assert!(own(&ports, &none), "{address}");
            client.write_all(b"x").unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            served.read_exact(&mut [0]).unwrap();
            assert!(own(&ports, &none), "it may wait for an answer");
            drop(served);
            assert!(!own(&ports, &none));
        }
    }

    #[test]
    fn a_connection_to_a_path_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a socket");
        let listener = UnixListener::bind(&path).unwrap();
        let (none, paths) = (BTreeSet::new(), BTreeSet::from([path.to_str().unwrap().to_owned()]));
        assert!(!own(&none, &paths));
        let _client = UnixStream::connect(&path).unwrap();
        let served = listener.accept().unwrap().0;
        assert!(own(&none, &paths));
        drop(served);
        assert!(!own(&none, &paths));
    }
}
