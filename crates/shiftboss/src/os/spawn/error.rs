//! Why a process was not started, as a sentence that names the step, the reason and what to do.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Program;

/// A process that was not started. Reads like "cannot start `/srv/x`: execve: Permission denied (EACCES)".
#[derive(Debug, thiserror::Error)]
pub struct SpawnError {
    /// What failed.
    pub step: Step,
    /// Why, as in `errno(3)`.
    pub errno: i32,
    program: String,
    cwd: String,
    advice: Option<&'static str>,
}

/// A step on the way from nothing to a running program, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opening `/dev/null`, for 0 to 2 if they are not given.
    Null,
    /// Memory for the child's first instructions.
    Stack,
    /// Making the process, `clone(2)`.
    Clone,
    /// Its own process group, `setpgid(2)`.
    Group,
    /// Ending with its parent, `prctl(2)`; ESRCH if the parent had ended already.
    DeathSignal,
    /// Giving it a descriptor under this number, `dup3(2)`.
    Descriptor(RawFd),
    /// Its limit of open files, `prlimit(2)`.
    Limit,
    /// Its working directory, `chdir(2)`.
    Directory,
    /// An empty signal mask, `sigprocmask(2)`.
    Mask,
    /// Running the program, `execve(2)`.
    Execute,
}

impl SpawnError {
    pub(super) fn new(step: Step, errno: i32, program: &Program) -> Self {
        let text = |text: &CString| text.to_string_lossy().into_owned();
        SpawnError {
            step,
            errno,
            program: text(&program.path),
            cwd: program.cwd.as_ref().map(text).unwrap_or_default(),
            advice: advice(step, errno, program),
        }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Step::Directory => write!(f, "cannot enter `{}`", self.cwd)?,
            step => write!(f, "cannot start `{}`: {step}", self.program)?,
        }
        write!(f, ": {}", reason(self.errno))?;
        self.advice.map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Null => f.write_str("open `/dev/null`"),
            Step::Stack => f.write_str("memory for its first stack"),
            Step::Clone => f.write_str("clone"),
            Step::Group => f.write_str("setpgid"),
            Step::DeathSignal => f.write_str("ending with its parent"),
            Step::Descriptor(number) => write!(f, "giving it descriptor {number}"),
            Step::Limit => f.write_str("setting its limit of open files"),
            Step::Directory => f.write_str("chdir"),
            Step::Mask => f.write_str("sigprocmask"),
            Step::Execute => f.write_str("execve"),
        }
    }
}

/// What is meant where `errno(3)` says something else.
fn advice(step: Step, errno: i32, program: &Program) -> Option<&'static str> {
    match (step, errno) {
        (Step::Execute, libc::ENOENT) if there(program) => {
            Some("the file is there, the interpreter in its first line or its loader is not")
        }
        (Step::Execute, libc::ENOEXEC) => Some("a script needs a first line like `#!/bin/sh`"),
        (Step::Execute | Step::Clone, libc::EAGAIN) => {
            Some("the limit of processes is reached: RLIMIT_NPROC, pids.max of the cgroup, or kernel.pid_max")
        }
        (Step::Null | Step::Clone | Step::Descriptor(_), libc::EMFILE) => Some(NOFILE),
        _ => None,
    }
}

fn there(program: &Program) -> bool {
    let path = |text: &CString| Path::new(std::ffi::OsStr::from_bytes(text.as_bytes())).to_owned();
    let base = program.cwd.as_ref().map(path).unwrap_or_default();
    base.join(path(&program.path)).exists()
}

/// Why something that a start needs could not be made, with what is meant by it.
#[must_use]
pub fn cannot(what: &str, error: &io::Error) -> String {
    let limit = error.raw_os_error() == Some(libc::EMFILE);
    let advice = if limit { format!("; {NOFILE}") } else { String::new() };
    format!("{what}: {}{advice}", error.raw_os_error().map_or_else(|| error.to_string(), reason))
}

/// "Permission denied (EACCES)".
fn reason(errno: i32) -> String {
    let error = io::Error::from_raw_os_error(errno).to_string();
    let words = error.split(" (os error").next().unwrap_or_default();
    match NAMES.iter().find(|(number, _)| *number == errno) {
        Some((_, name)) => format!("{words} ({name})"),
        None => format!("{words} (errno {errno})"),
    }
}

const NOFILE: &str = "our limit of open files (RLIMIT_NOFILE) is reached";
/// Those that the man pages of the steps name.
const NAMES: [(i32, &str); 22] = [
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::ESRCH, "ESRCH"),
    (libc::EIO, "EIO"),
    (libc::E2BIG, "E2BIG"),
    (libc::ENOEXEC, "ENOEXEC"),
    (libc::EBADF, "EBADF"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EACCES, "EACCES"),
    (libc::EFAULT, "EFAULT"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::EISDIR, "EISDIR"),
    (libc::EINVAL, "EINVAL"),
    (libc::ENFILE, "ENFILE"),
    (libc::EMFILE, "EMFILE"),
    (libc::ETXTBSY, "ETXTBSY"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::ELOOP, "ELOOP"),
    (libc::ELIBBAD, "ELIBBAD"),
    (libc::ESTALE, "ESTALE"),
];
