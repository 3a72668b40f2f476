//! What this process says about itself, as text, and to its supervisor.

use std::env;
use std::fmt::Write;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// `ready PID NS`, NS = CLOCK_MONOTONIC in ns.
pub(crate) fn first_line() -> String {
    let now = clock_gettime(ClockId::Monotonic);
    format!("ready {} {}\n", std::process::id(), now.tv_sec * 1_000_000_000 + now.tv_nsec)
}

/// The blocked, ignored and caught signals, as in /proc/PID/status (proc_pid_status(5)).
pub(crate) fn signals() -> io::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let sets = status.lines().filter(|line| SETS.iter().any(|set| line.starts_with(set)));
    Ok(sets.flat_map(|line| [&line.replace('\t', " "), "\n"].map(str::to_owned)).collect())
}

/// `NAME=VALUE` lines, sorted by their bytes; what is not UTF-8 is replaced.
pub(crate) fn environment() -> String {
    let mut lines: Vec<_> = env::vars_os()
        .map(|(name, value)| format!("{}={}\n", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    lines.sort();
    lines.concat()
}

/// `NUMBER TARGET` lines in order; without the descriptor the list is read from.
pub(crate) fn descriptors() -> io::Result<String> {
    let mut descriptors: Vec<u32> = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        descriptors.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    descriptors.sort_unstable();
    let mut text = String::new();
    // The directory's own descriptor is closed by now, so its link cannot be read.
    for number in descriptors {
        if let Ok(target) = fs::read_link(format!("/proc/self/fd/{number}")) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{number} {}", target.display());
        }
    }
    Ok(text)
}

/// Sends a state to `NOTIFY_SOCKET` (sd_notify(3)): a path, or an abstract name after `@`.
pub(crate) fn notify(state: &str) -> io::Result<()> {
    let socket = env::var_os("NOTIFY_SOCKET").ok_or_else(|| io::Error::other("NOTIFY_SOCKET is not set"))?;
    let address = match socket.as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

const SETS: [&str; 3] = ["SigBlk:", "SigIgn:", "SigCgt:"];
