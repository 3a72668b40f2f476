//! What tests need of processes: short shell programs, and a process of their own for what is process-wide.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{Child, Program, Start, spawn};

/// Runs the calling test again in a process of its own; false inside that one. `module` is `module_path!()`.
pub(crate) fn elsewhere(module: &str, test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let (_, module) = module.split_once("::").unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([&format!("{module}::{test}"), "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    true
}

/// `/bin/sh -c SCRIPT`.
pub(crate) fn sh(script: &str) -> Program {
    program(&["/bin/sh", "-c", script])
}

pub(crate) fn program(words: &[&str]) -> Program {
    let words: Vec<CString> = words.iter().map(|word| CString::new(*word).unwrap()).collect();
    Program { path: words[0].clone(), argv: words, cwd: None }
}

/// A start of the program with nothing but it.
pub(crate) fn start(program: &Program) -> Start<'_> {
    Start {
        program,
        environment: &[],
        descriptors: &[],
        listen_pid: false,
        nofile: None,
        death_signal: false,
        keeper: None,
    }
}

/// Starts a shell script without output.
pub(crate) fn shell(script: &str) -> Child {
    spawn(&start(&sh(script))).unwrap()
}

/// Runs to its end; what it wrote to its standard output.
pub(crate) fn output(start: &Start<'_>) -> String {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut descriptors: Vec<(BorrowedFd<'_>, RawFd)> = vec![(writer.as_fd(), 1)];
    descriptors.extend(start.descriptors);
    let child = spawn(&Start { descriptors: &descriptors, ..*start }).unwrap();
    drop(descriptors);
    drop(writer);
    let text = read(reader);
    waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
    text
}

pub(crate) fn read(from: OwnedFd) -> String {
    let mut text = String::new();
    std::fs::File::from(from).read_to_string(&mut text).unwrap();
    text
}

pub(crate) fn wait_until_stopped(pidfd: BorrowedFd<'_>) {
    waitid(WaitId::PidFd(pidfd), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
}

/// Waits until the descriptor can be read, or its other side is gone; false after ten seconds.
pub(crate) fn readable(fd: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap() == 1
}

/// Numbers of our open descriptors.
pub(crate) fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Whether this process has a child, dead or alive.
pub(crate) fn has_children() -> bool {
    waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT).is_ok()
}

const INSIDE: &str = "SHIFTBOSS_TEST_INSIDE";
