//! Whether a process has begun to wait for connections, seen from outside: a socket it was given is in an epoll set
//! (`epoll(7)`) held by it or a descendant, or a thread of theirs is blocked on it.
//!
//! Sources: `proc(5)` on `/proc/PID/fd`, `/proc/PID/fdinfo` (lines `tfd:`), `/proc/PID/task/TID/children`. Programs
//! that wait by io_uring are never seen. How often to look is the caller's.

mod blocked;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::fs::{fstat, major, minor};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

/// What a listener is to the kernel, in whichever process and under whichever number it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerKey {
    /// As the kernel prints it: the major number above 20 bits of minor.
    device: u64,
    inode: u64,
}

/// What a look at a process told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Every listener is waited on.
    Accepting,
    /// One is not, or the process is gone.
    NotYet,
    /// It cannot be told: the process runs as somebody else or hides itself (`ptrace(2)`, access mode checks).
    NotPermitted,
}

impl ListenerKey {
    /// The key of a stream socket.
    ///
    /// # Errors
    /// `InvalidInput` for a socket of another type, on which there are no connections to wait for; ENOTSOCK.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<ListenerKey> {
        if socket_type(socket)? != SocketType::STREAM {
            let why = "not a stream socket: nobody waits for connections on it";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let stat = fstat(socket)?;
        let device = u64::from(major(stat.st_dev)) << 20 | u64::from(minor(stat.st_dev));
        Ok(ListenerKey { device, inode: stat.st_ino })
    }
}

/// Looks once whether all listeners are waited on by the process and its descendants together; of no listeners that
/// is never so. Gives up after 256 processes, 4096 descriptors or threads of one, or 20 ms: what is larger is not seen.
#[must_use]
pub fn look(pid: u32, listeners: &[ListenerKey]) -> Seen {
    let mut missing = listeners.to_vec();
    if missing.is_empty() {
        return Seen::NotYet;
    }
    let until = Instant::now() + LONGEST;
    let mut tree = vec![pid];
    let mut at = 0;
    while let Some(process) = tree.get(at).copied() {
        match strike_out(process, &mut missing, until) {
            Ok(()) if missing.is_empty() => return Seen::Accepting,
            // A descendant that hides may not be the one that matters.
            Err(error) if at == 0 && is_refusal(&error) && !has_ended(pid) => return Seen::NotPermitted,
            Ok(()) | Err(_) => {}
        }
        if Instant::now() > until {
            break;
        }
        at += 1;
        let room = MOST_PROCESSES.saturating_sub(tree.len());
        tree.extend(children(process).into_iter().take(room));
    }
    Seen::NotYet
}

/// Removes what one process waits on.
fn strike_out(pid: u32, missing: &mut Vec<ListenerKey>, until: Instant) -> io::Result<()> {
    let mut listeners = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.take(MOST_DESCRIPTORS) {
        if missing.is_empty() || Instant::now() > until {
            return Ok(());
        }
        let entry = entry?;
        // One that was closed meanwhile is none any more.
        let Ok(kind) = fs::read_link(entry.path()) else { continue };
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let (Some(kind), Some(number)) = (kind.to_str(), number) else { continue };
        if kind == "anon_inode:[eventpoll]" {
            strike_out_members(pid, number, missing);
        } else if let Some(key) = missing.iter().find(|key| kind == format!("socket:[{}]", key.inode)) {
            listeners.push((number, *key));
        }
    }
    blocked::strike_out(pid, &listeners, missing, until);
    Ok(())
}

/// Removes what an epoll set waits on.
fn strike_out_members(pid: u32, number: u32, missing: &mut Vec<ListenerKey>) {
    let mut set = String::new();
    let read = File::open(format!("/proc/{pid}/fdinfo/{number}"))
        .and_then(|file| file.take(LARGEST_SET).read_to_string(&mut set));
    if read.is_ok() {
        for waited_on in set.lines().filter_map(member) {
            missing.retain(|key| *key != waited_on);
        }
    }
}

/// What a line of an epoll set's fdinfo names, if it is waited on for something to read; all numbers but the first
/// are hexadecimal: `tfd: 5 events: 1d data: ffff pos:0 ino:61af sdev:7`.
fn member(line: &str) -> Option<ListenerKey> {
    let mut words = line.strip_prefix("tfd:")?.split_ascii_whitespace();
    let events = hexadecimal(words.by_ref().skip_while(|word| *word != "events:").nth(1)?)?;
    let mut number = |name| words.find_map(|word| word.strip_prefix(name)).and_then(hexadecimal);
    let inode = number("ino:")?;
    let device = number("sdev:")?;
    (events & EPOLLIN != 0).then_some(ListenerKey { device, inode })
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads
        .flatten()
        .take(MOST_PROCESSES)
        .map(|thread| fs::read_to_string(thread.path().join("children")));
    let mut found = Vec::new();
    for list in lists {
        match list {
            Ok(list) => found.extend(numbers(&list)),
            // A kernel without CONFIG_PROC_CHILDREN; or the thread has ended meanwhile.
            Err(_) if !fs::exists("/proc/thread-self/children").unwrap_or(false) => {
                return whose_parent_is(pid);
            }
            Err(_) => {}
        }
    }
    found
}

fn whose_parent_is(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let processes =
        entries.flatten().flat_map(|entry| entry.file_name().to_str().map(numbers).unwrap_or_default());
    processes.filter(|process| stat(*process).is_some_and(|(_, parent)| parent == pid)).collect()
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// What is left of an ended process belongs to root, whoever it was.
fn has_ended(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}

/// State and parent, fields 3 and 4; the name before them is in parentheses and may hold anything.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

const EPOLLIN: u64 = 1;
const MOST_PROCESSES: usize = 256;
const MOST_DESCRIPTORS: usize = 4096;
/// Bytes of an epoll set's description: some 3,000 members.
const LARGEST_SET: u64 = 256 * 1024;
const LONGEST: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixListener;

    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

    use super::*;
    use crate::os::spawn::{Child, Start, spawn, trial};

    const SOON: Duration = Duration::from_secs(60);

    fn listener() -> (TcpListener, ListenerKey) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let key = ListenerKey::of(listener.as_fd()).unwrap();
        (listener, key)
    }

    fn set_with(listener: &impl AsFd, events: EventFlags) -> OwnedFd {
        let set = epoll::create(CreateFlags::CLOEXEC).unwrap();
        epoll::add(&set, listener, EventData::new_u64(0), events).unwrap();
        set
    }

    /// One look may end before it has seen all: it takes no longer than it may.
    fn is_seen(pid: u32, keys: &[ListenerKey]) -> bool {
        let until = Instant::now() + SOON;
        while look(pid, keys) != Seen::Accepting {
            if Instant::now() > until {
                return false;
            }
        }
        true
    }

    fn end(child: &Child) {
        kill_process_group(Pid::from_raw(child.pid as i32).unwrap(), Signal::KILL).unwrap();
        waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
    }

    #[test]
    fn a_listener_in_an_epoll_set_is_seen_and_one_that_left_it_is_not() {
        let me = std::process::id();
        let (listener, key) = listener();
        assert_eq!(look(me, &[key]), Seen::NotYet);
        let set = set_with(&listener, EventFlags::IN | EventFlags::ET | EventFlags::EXCLUSIVE);
        assert!(is_seen(me, &[key]));
        epoll::delete(&set, &listener).unwrap();
        assert_eq!(look(me, &[key]), Seen::NotYet);
    }

    #[test]
    fn a_duplicate_of_the_listener_and_a_path_are_seen_too() {
        let (listener, key) = listener();
        let _set = set_with(&listener.try_clone().unwrap(), EventFlags::IN);
        let folder = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(folder.path().join("s")).unwrap();
        let path_key = ListenerKey::of(unix.as_fd()).unwrap();
        assert_eq!(look(std::process::id(), &[key, path_key]), Seen::NotYet);
        let _path_set = set_with(&unix, EventFlags::IN);
        assert!(is_seen(std::process::id(), &[key, path_key]));
    }

    #[test]
    fn a_listener_whose_connections_are_not_waited_for_is_not_seen() {
        let (listener, key) = listener();
        let _set = set_with(&listener, EventFlags::HUP);
        assert_eq!(look(std::process::id(), &[key]), Seen::NotYet);
    }

    #[test]
    fn an_epoll_set_of_a_grandchild_counts_and_a_stranger_s_does_not() {
        let (listener, key) = listener();
        let set = set_with(&listener, EventFlags::IN);
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        // The inner shell keeps the set, the outer one lets go of it; each says when that is so.
        let script = "sh -c 'echo; read x <&4' & exec 3<&-; echo; wait";
        let (stay, _keep) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let program = trial::sh(script);
        let descriptors = [(set.as_fd(), 3), (writer.as_fd(), 1), (stay.as_fd(), 4)];
        let child = spawn(&Start { descriptors: &descriptors, ..trial::start(&program) }).unwrap();
        let stranger = trial::shell("kill -STOP $$");
        let mut said = 0;
        while said < 2 {
            assert!(trial::readable(reader.as_fd()));
            said += rustix::io::read(&reader, &mut [0; 2]).unwrap();
        }
        let mut held_by_the_outer = vec![key];
        strike_out(child.pid, &mut held_by_the_outer, Instant::now() + SOON).unwrap();
        assert_eq!(held_by_the_outer, [key]);
        assert!(is_seen(child.pid, &[key]));
        assert_eq!(look(stranger.pid, &[key]), Seen::NotYet);
        end(&child);
        end(&stranger);
    }

    #[test]
    fn children_are_found_without_their_list_as_well() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let program = trial::sh("sh -c 'kill -STOP $$' & echo; wait");
        let child = spawn(&Start { descriptors: &[(writer.as_fd(), 1)], ..trial::start(&program) }).unwrap();
        assert!(trial::readable(reader.as_fd()));
        let listed = children(child.pid);
        assert_eq!((listed.len(), whose_parent_is(child.pid)), (1, listed));
        end(&child);
    }

    #[test]
    fn who_is_gone_or_has_nothing_to_listen_on_is_never_accepting() {
        let (listener, key) = listener();
        let _set = set_with(&listener, EventFlags::IN);
        let child = trial::shell("exit 0");
        assert!(trial::readable(child.pidfd.as_fd()));
        assert_eq!(look(child.pid, &[key]), Seen::NotYet);
        assert!(has_ended(child.pid));
        waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        assert_eq!(look(child.pid, &[key]), Seen::NotYet);
        assert_eq!(look(0, &[key]), Seen::NotYet);
        assert_eq!(look(std::process::id(), &[]), Seen::NotYet);
    }

    /// As root, who may look at everybody, this test becomes somebody else; it is not run where that is forbidden.
    #[test]
    fn a_process_of_somebody_else_is_not_permitted_but_an_ended_one_is_only_gone() {
        use rustix::process::{Uid, geteuid};
        if trial::elsewhere(
            module_path!(),
            "a_process_of_somebody_else_is_not_permitted_but_an_ended_one_is_only_gone",
        ) {
            return;
        }
        let (_listener, key) = listener();
        if !geteuid().is_root() {
            eprintln!("skipped: only root can become somebody else");
            return;
        }
        let ended = trial::shell("exit 0");
        assert!(trial::readable(ended.pidfd.as_fd()));
        let running = trial::shell("kill -STOP $$");
        trial::wait_until_stopped(running.pidfd.as_fd());
        let nobody = Uid::from_raw(65534);
        if rustix::thread::set_thread_res_uid(nobody, nobody, nobody).is_err() {
            eprintln!("skipped: this process may not change its user");
        } else {
            assert_eq!(look(running.pid, &[key]), Seen::NotPermitted);
            assert!(is_refusal(&strike_out(ended.pid, &mut vec![key], Instant::now() + SOON).unwrap_err()));
            assert_eq!(look(ended.pid, &[key]), Seen::NotYet);
        }
    }

    #[test]
    fn only_stream_sockets_have_a_key() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(ListenerKey::of(udp.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let file = fs::File::open("/dev/null").unwrap();
        assert!(ListenerKey::of(file.as_fd()).is_err());
    }

    #[test]
    fn a_line_that_is_not_understood_names_nothing() {
        let key = ListenerKey { device: 9, inode: 0x3570b };
        let line = "tfd:        3 events:       19 data:                3  pos:0 ino:3570b sdev:9";
        assert_eq!(member(line), Some(key));
        let wrong = [
            "",
            "pos:\t0",
            "tfd:",
            "tfd: 3 events:",
            "tfd: 3 events: 19 ino:x sdev:9",
            "tfd: 3 events: 1 ino:3",
        ];
        assert_eq!(wrong.map(member), [None; 6]);
    }
}
