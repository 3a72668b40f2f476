//! Who holds a port or a socket path, for the message that it is taken. Best effort: what may not be read is left out.
//!
//! Sources: proc(5) on `/proc/net/tcp` and its siblings, `/proc/PID/fd`, `cmdline`, `stat`; passwd(5).

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::address::Address;

/// A process that holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its name, as `ps` shows it.
    pub name: String,
    /// Its pid.
    pub pid: u32,
    /// Its user's name, or number.
    pub user: String,
    /// Program and arguments, cut at 60 characters.
    pub command: String,
    /// How long it has been running.
    pub age: Option<Duration>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}, user {})", self.name, self.pid, self.user)?;
        if let Some(age) = self.age {
            write!(f, ", started {} ago", rough(age))?;
        }
        if !self.command.is_empty() {
            write!(f, ": `{}`", self.command)?;
        }
        Ok(())
    }
}

/// The first process found that listens there. Looks for at most 200 ms: on a host with millions of descriptors it may
/// find nobody.
#[must_use]
pub fn of(address: &Address) -> Option<Holder> {
    let inodes = match address {
        Address::Tcp(host) => listening_at(&["/proc/net/tcp", "/proc/net/tcp6"], "0A", host.port()),
        Address::Udp(host) => listening_at(&["/proc/net/udp", "/proc/net/udp6"], "07", host.port()),
        Address::Unix(path) => bound_to(path),
    };
    if inodes.is_empty() {
        return None;
    }
    let wanted: BTreeSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let until = Instant::now() + LONGEST;
    pids.into_iter()
        .take_while(|_| Instant::now() < until)
        .find(|pid| holds(*pid, &wanted, until))
        .and_then(describe)
}

/// Inodes of the sockets in that state at that port. Lines: `sl local rem st … inode`, addresses in hexadecimal.
fn listening_at(tables: &[&str], state: &str, port: u16) -> Vec<u64> {
    let end = format!(":{port:04X}");
    let mut found = Vec::new();
    for table in tables {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [_, local, _, st, _, _, _, _, _, inode, ..] = fields[..]
                && local.ends_with(&end)
                && st == state
            {
                found.extend(inode.parse::<u64>());
            }
        }
    }
    found
}

/// Lines of `/proc/net/unix`: `num refs protocol flags type st inode path`.
fn bound_to(path: &Path) -> Vec<u64> {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let at_path =
        table.lines().filter(|line| line.split_whitespace().nth(7).is_some_and(|at| Path::new(at) == path));
    at_path.filter_map(|line| line.split_whitespace().nth(6)?.parse().ok()).collect()
}

fn holds(pid: u32, wanted: &BTreeSet<String>, until: Instant) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let in_time = descriptors.flatten().take_while(|_| Instant::now() < until);
    let mut links = in_time.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.any(|link| link.to_str().is_some_and(|link| wanted.contains(link)))
}

fn describe(pid: u32) -> Option<Holder> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned();
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = command.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    let command = String::from_utf8_lossy(&words.join(&b' ')).replace(char::is_control, "?");
    let command = match command.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &command[..at]),
        None => command,
    };
    let uid = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    Some(Holder { name, pid, user: user_name(uid), command, age: age(pid) })
}

fn user_name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut users = users.lines().map(|line| line.split(':'));
    let ours = users.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    ours.unwrap_or_else(|| uid.to_string())
}

/// How long the process has been running, to 10 ms.
pub(super) fn age(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 22 of all; the name (field 2) may hold anything, so counted from behind it.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    let started = Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
    Some(Duration::try_from_secs_f64(uptime).ok()?.saturating_sub(started))
}

/// To one unit.
pub(super) fn rough(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..86_400 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

const LONGEST: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    /// One search may end before it has come to all processes.
    fn holder(address: &Address) -> Holder {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match of(address) {
                Some(found) => return found,
                None => assert!(Instant::now() < until, "not found"),
            }
        }
    }

    #[test]
    fn the_holder_of_a_port_and_of_a_path_is_found() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let found = holder(&format!("tcp://:{port}").parse().unwrap());
        assert_eq!(found.pid, std::process::id());
        assert!(found.to_string().contains(&format!("(pid {}, user ", found.pid)), "{found}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(holder(&Address::Unix(path.clone())).pid, std::process::id());
        drop((tcp, unix));
        assert_eq!(of(&Address::Unix(path)), None);
    }

    #[test]
    fn ages_are_rough() {
        let text = |seconds| rough(Duration::from_secs(seconds));
        assert_eq!([text(0), text(61), text(7300), text(200_000)], ["0 s", "1 min", "2 h", "2 d"]);
    }
}
