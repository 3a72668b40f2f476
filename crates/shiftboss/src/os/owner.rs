//! Which process above another holds a socket that is bound to this path, also when the path is gone: `/proc/PID/net/unix`
//! shows the words that it was bound with (proc_pid_net(5), unix(7)).

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::process::getuid;

use super::{leftovers, parent};

/// The nearest one above `pid`.
#[must_use]
pub fn above(pid: u32, bound: &Path) -> Option<u32> {
    std::iter::successors(parent::of(pid), |pid| parent::of(*pid)).find(|pid| holds(*pid, bound))
}

/// The paths with this end that sockets of the process were bound to.
#[must_use]
pub fn bound_by(pid: u32, end: &str) -> Vec<PathBuf> {
    let table = fs::read(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    let lines = table.split(|byte| *byte == b'\n').filter(|line| line.ends_with(end.as_bytes()));
    let held = |(socket, path): (String, PathBuf)| descriptors_hold(pid, &[socket]).ok()?.then_some(path);
    lines.filter_map(line).filter_map(held).collect()
}

/// Its socket as a descriptor shows it, and the path.
fn line(line: &[u8]) -> Option<(String, PathBuf)> {
    // The path may hold anything, and no number before it a slash.
    let path = line.iter().position(|byte| *byte == b'/')?;
    let inode = std::str::from_utf8(&line[..path]).ok()?.split_whitespace().nth(6)?;
    Some((format!("socket:[{inode}]"), PathBuf::from(OsStr::from_bytes(&line[path..]))))
}

fn holds(pid: u32, bound: &Path) -> bool {
    let sockets = bound_in(&fs::read(format!("/proc/{pid}/net/unix")).unwrap_or_default(), bound);
    if sockets.is_empty() {
        return false;
    }
    match descriptors_hold(pid, &sockets) {
        Ok(holds) => holds,
        // Somebody has the socket, and a program with capabilities of its file hides what it holds (ptrace(2)): one of
        // our user's may be it.
        Err(_) => leftovers::real_user(pid) == Some(getuid().as_raw()),
    }
}

fn descriptors_hold(pid: u32, sockets: &[String]) -> std::io::Result<bool> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let mut links = descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(links.any(|link| link.to_str().is_some_and(|link| sockets.iter().any(|socket| socket == link))))
}

/// Lines: `num refs protocol flags type st inode path`; the path may hold anything.
fn bound_in(table: &[u8], bound: &Path) -> Vec<String> {
    let of_path = table.split(|byte| *byte == b'\n').filter_map(|line| {
        let head = line.strip_suffix(bound.as_os_str().as_bytes())?.strip_suffix(b" ")?;
        let head = std::str::from_utf8(head).ok()?.split_whitespace().collect::<Vec<_>>();
        let [_, _, _, _, _, _, inode] = head[..] else { return None };
        Some(format!("socket:[{inode}]"))
    });
    of_path.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::os::spawn::trial;

    #[test]
    fn whoever_holds_it_is_found_above_its_child_also_when_the_path_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a b"), folder.path().join("b"));
        let child = trial::shell("read line");
        assert_eq!(above(child.pid, &path), None);
        let listener = UnixListener::bind(&path).unwrap();
        drop(folder);
        assert_eq!(above(child.pid, &path), Some(std::process::id()));
        assert_eq!(bound_by(std::process::id(), "/a b"), std::slice::from_ref(&path));
        assert_eq!(bound_by(child.pid, "/a b"), Vec::<PathBuf>::new());
        assert_eq!((above(child.pid, &other), above(std::process::id(), &path)), (None, None));
        drop(listener);
        assert_eq!(above(child.pid, &path), None);
    }

    #[test]
    fn a_table_is_read_to_the_end_of_the_path() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01   123 /run/x y/s\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 45678 /run/y/s\n";
        let of = |path: &str| bound_in(table, Path::new(path));
        assert_eq!(
            (of("/run/x y/s"), of("/run/y/s")),
            (vec!["socket:[123]".into()], vec!["socket:[45678]".into()])
        );
        assert_eq!((of("y/s"), of("/run/y")), (vec![], vec![]));
    }
}
