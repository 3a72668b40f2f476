//! Starting one process: `clone(2)` with a shared address space, then `execve(2)`, with nothing but what was planned.
//!
//! The child gets its own process group, default signal dispositions and an empty mask, exactly the planned
//! descriptors, and is held by a pidfd from its first instruction. The parent's thread sleeps until the program runs
//! or a step failed, so the error is exact and needs no pipe; a failed child is reaped here. What a worker's command,
//! environment and descriptors are is decided by `launch`; a started child is reaped by `reaper`.
#![allow(unsafe_code)]

mod child;
mod error;
mod look_up;
mod low;
mod stack;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod trial;

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use rustix::process::{WaitId, WaitIdOptions, waitid};

use self::child::{Failure, Move, PidVariable, Plan};
use self::low::Low;
use self::stack::Stack;
use super::rlimit::Nofile;

pub use self::error::{SpawnError, Step, cannot};
pub use self::look_up::{LookUpError, look_up};

/// What is run, without a shell in between.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file; never searched for in `PATH`, see [`look_up`]. If relative, then to `cwd`.
    pub path: CString,
    /// All arguments, the program's own name first.
    pub argv: Vec<CString>,
    /// The working directory, by default ours.
    pub cwd: Option<CString>,
}

/// How one process is started.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// What is run.
    pub program: &'a Program,
    /// The whole environment, each entry `NAME=value`; nothing is inherited.
    pub environment: &'a [CString],
    /// Our descriptors and the numbers the child has them under. Of one number named twice the last wins; 0 to 2 are
    /// `/dev/null` unless named; everything else is closed.
    pub descriptors: &'a [(BorrowedFd<'a>, RawFd)],
    /// Whether `LISTEN_PID` is set to the child's pid, see `sd_listen_fds(3)`. It must not be in `environment`.
    pub listen_pid: bool,
    /// Limit of open files of the child, by default ours.
    pub nofile: Option<Nofile>,
    /// Whether the child is killed when the calling *thread* ends (`PR_SET_PDEATHSIG`, see `prctl(2)`). A set-user-id
    /// program or one with file capabilities clears this. Under a keeper it is the keeper's end that counts.
    pub death_signal: bool,
    /// Whose child it becomes, by default ours.
    pub keeper: Option<Keeper>,
}

/// A parent of ours that is to be the child's, too (`CLONE_PARENT`, clone(2)): it reaps it.
#[derive(Clone, Copy, Debug)]
pub struct Keeper {
    /// Its pid.
    pub pid: i32,
    /// A word of 4 bytes in shared memory, into which the kernel writes the child's pid before the child's first
    /// instruction (`CLONE_CHILD_SETTID`): from then on it is known, whatever becomes of us.
    pub word: NonNull<u32>,
}

/// A process that was started and not yet reaped.
#[derive(Debug)]
pub struct Child {
    /// Its number, and that of its process group; belongs to it until it is reaped.
    pub pid: u32,
    /// The process itself; readable when it has ended (`pidfd_open(2)`).
    pub pidfd: OwnedFd,
}

/// Starts a process; returns when its program runs. A program that hangs in `execve` (a dead network file system)
/// keeps the calling thread for that time, and no other.
///
/// # Errors
/// [`SpawnError`] with the step that failed; then there is no process, no zombie and no descriptor left.
pub fn spawn(start: &Start<'_>) -> Result<Child, SpawnError> {
    let fail = |step, errno| SpawnError::new(step, errno, start.program);
    let null = match needs_null(start) {
        true => Some(open_null().map_err(|errno| fail(Step::Null, errno.raw_os_error()))?),
        false => None,
    };
    let mut moves = moves(start, null.as_ref());
    let mut low = None;
    if above(&moves) > FEW {
        let places = low.insert(Low::take().map_err(|errno| fail(Step::Null, errno.raw_os_error()))?);
        places.put(&mut moves).map_err(|errno| fail(Step::Clone, errno.raw_os_error()))?;
    }
    let argv = pointers(&start.program.argv);
    let mut environment = pointers(start.environment);
    let mut pid_variable = PidVariable::new("LISTEN_PID");
    if start.listen_pid {
        environment.insert(0, pid_variable.as_ptr());
    }
    let mut plan = Plan {
        path: start.program.path.as_ptr(),
        argv: argv.as_ptr(),
        environment: environment.as_ptr(),
        cwd: start.program.cwd.as_ref().map(|cwd| cwd.as_ptr()),
        above: above(&moves),
        parts: allowed().unshare,
        last: if allowed().close_range { RawFd::MAX } else { last_open() },
        moves: &mut moves,
        pid_variable: start.listen_pid.then_some(&mut pid_variable),
        nofile: start.nofile.map(|limit| [limit.soft, limit.hard]),
        parent: start.death_signal.then(|| parent_of(start)),
        failure: None,
    };
    let stack = Stack::take().map_err(|error| fail(Step::Stack, errno_of(&error)))?;
    let cloned = clone(&stack, &mut plan, start.keeper);
    let failure = plan.failure.take();
    stack.give_back();
    drop(low);
    let child = cloned.map_err(|error| fail(Step::Clone, errno_of(&error)))?;
    match failure {
        None => Ok(child),
        Some(Failure { step, errno }) => {
            if start.keeper.is_none() {
                bury(&child);
            }
            Err(fail(step, errno))
        }
    }
}

fn parent_of(start: &Start<'_>) -> i32 {
    start.keeper.map_or_else(|| rustix::process::getpid().as_raw_nonzero().get(), |keeper| keeper.pid)
}

fn clone(stack: &Stack, plan: &mut Plan<'_>, keeper: Option<Keeper>) -> io::Result<Child> {
    // It parts from our table of descriptors itself, if it may, since it knows how little of it it needs.
    let mut flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    if plan.parts {
        flags |= libc::CLONE_FILES;
    }
    if keeper.is_some() {
        flags |= libc::CLONE_PARENT | libc::CLONE_CHILD_SETTID;
    }
    let word = keeper.map_or(ptr::null_mut(), |keeper| keeper.word.as_ptr());
    let tls: *mut c_void = ptr::null_mut();
    let mut pidfd: c_int = -1;
    let blocked = AllBlocked::new();
    // SAFETY: the child runs on a stack of its own, on which nobody else is; this thread is suspended until it has
    // left our memory (CLONE_VFORK), so the plan outlives it and is not touched meanwhile; no handler can run in it,
    // since all signals are blocked. `pidfd` is where CLONE_PIDFD has the kernel store the descriptor, `word` where
    // CLONE_CHILD_SETTID has it store the pid; it lies in mapped memory for as long as there is a keeper.
    let pid = unsafe {
        let plan = (&raw mut *plan).cast();
        libc::clone(child::run, stack.top(), flags, plan, &raw mut pidfd, tls, word)
    };
    let result = u32::try_from(pid).map_err(|_| io::Error::last_os_error());
    drop(blocked);
    // SAFETY: clone succeeded, so `pidfd` is a new descriptor that only we know.
    result.map(|pid| Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// What a sandbox leaves us (`seccomp(2)`): older container runtimes refuse calls that they do not know, and `unshare(2)`.
struct Allowed {
    close_range: bool,
    /// One of both, by which a child can part from our table of descriptors.
    unshare: bool,
}

fn allowed() -> &'static Allowed {
    static ALLOWED: OnceLock<Allowed> = OnceLock::new();
    ALLOWED.get_or_init(|| {
        // SAFETY: closes nothing: no descriptor has this number.
        let close_range = unsafe { libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, 0) } == 0;
        // SAFETY: parts from nothing.
        let unshare = close_range || unsafe { libc::unshare(0) } == 0;
        Allowed { close_range, unshare }
    })
}

/// The highest descriptor that is open; any if that cannot be told.
fn last_open() -> RawFd {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).max().unwrap_or(RawFd::MAX)
}

/// Reaps a child that ended before its program ran.
fn bury(child: &Child) {
    let wait = || waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
    while matches!(wait(), Err(rustix::io::Errno::INTR)) {}
}

fn needs_null(start: &Start<'_>) -> bool {
    (0..=2).any(|standard| start.descriptors.iter().all(|(_, target)| *target != standard))
}

fn open_null() -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// The whole plan of descriptors, by rising target, each target once.
fn moves(start: &Start<'_>, null: Option<&OwnedFd>) -> Vec<Move> {
    let mut moves = std::collections::BTreeMap::new();
    if let Some(null) = null {
        moves.extend((0..=2).map(|standard| (standard, null.as_raw_fd())));
    }
    moves.extend(start.descriptors.iter().map(|(source, target)| (*target, source.as_raw_fd())));
    moves.into_iter().map(|(target, source)| Move { source, target }).collect()
}

/// A number above all sources.
fn above(moves: &[Move]) -> RawFd {
    moves.iter().map(|planned| planned.source + 1).max().unwrap_or(0)
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// While it lives, this thread receives no signal at all, glibc's internal ones included (which `sigprocmask(3)`
/// would leave open): a handler in the child would run in our memory.
struct AllBlocked {
    before: u64,
}

impl AllBlocked {
    fn new() -> Self {
        let mut before = 0;
        set_mask(&u64::MAX, &raw mut before);
        AllBlocked { before }
    }
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        set_mask(&self.before, ptr::null_mut());
    }
}

/// The kernel's own mask is 64 bits on every architecture we run on; with valid memory the call cannot fail.
fn set_mask(mask: &u64, before: *mut u64) {
    // SAFETY: both pointers are null or point to as many bytes as the last argument says.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const *mask,
            before,
            size_of::<u64>(),
        );
    }
}

/// So many descriptors are copied and closed again for a child in no time worth a thought.
const FEW: RawFd = 256;
