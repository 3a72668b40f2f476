//! What a child does between `clone` and `execve`, in memory it shares with its suspended parent.
//!
//! Everything was prepared by the parent. Here nothing allocates, takes a lock or panics, and system calls are made
//! without their wrappers, which may do either (glibc's `set*id(2)` wrappers signal all threads, see `nptl(7)`).

use std::ffi::{c_char, c_int, c_long, c_void};
use std::os::fd::RawFd;

use super::error::Step;

/// All that a child reads and writes.
pub(super) struct Plan<'a> {
    pub(super) path: *const c_char,
    pub(super) argv: *const *const c_char,
    pub(super) environment: *const *const c_char,
    pub(super) cwd: Option<*const c_char>,
    /// All sources of `moves` are below.
    pub(super) above: RawFd,
    /// Whether it shares our table of descriptors until it parts from it.
    pub(super) parts: bool,
    /// None above it is open.
    pub(super) last: RawFd,
    /// By rising target, each target once.
    pub(super) moves: &'a mut [Move],
    pub(super) pid_variable: Option<&'a mut PidVariable>,
    /// Soft and hard limit.
    pub(super) nofile: Option<[u64; 2]>,
    /// Whose child it must be, or it ends; none if it may outlive us.
    pub(super) parent: Option<i32>,
    /// Written by the child if its program cannot be run.
    pub(super) failure: Option<Failure>,
}

/// A descriptor of ours and its number in the program.
pub(super) struct Move {
    pub(super) source: RawFd,
    pub(super) target: RawFd,
}

/// The step that failed, with the kernel's number for the reason.
#[derive(Clone, Copy)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) errno: i32,
}

/// Where a child begins; never returns to its caller.
pub(super) extern "C" fn run(plan: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes its plan and is suspended as long as we are here.
    let plan = unsafe { &mut *plan.cast::<Plan<'_>>() };
    plan.failure = plan.become_program().err();
    // SAFETY: ends the child without running anything of the parent's.
    unsafe { libc::_exit(NOT_RUN) }
}

impl Plan<'_> {
    /// Returns only if it failed.
    fn become_program(&mut self) -> Result<(), Failure> {
        if self.parts {
            self.part_descriptors()?;
        }
        default_dispositions();
        call(Step::Group, libc::SYS_setpgid, [0, 0, 0, 0])?;
        self.end_with_parent()?;
        self.place_descriptors()?;
        self.close_others();
        if let Some(limit) = &self.nofile {
            let limit = limit.as_ptr() as usize;
            call(Step::Limit, libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as usize, limit, 0])?;
        }
        if let Some(cwd) = self.cwd {
            call(Step::Directory, libc::SYS_chdir, [cwd as usize, 0, 0, 0])?;
        }
        if let Some(variable) = &mut self.pid_variable {
            variable.set(call(Step::Group, libc::SYS_getpid, [0; 4])?);
        }
        let nothing = 0u64;
        let mask = &raw const nothing as usize;
        call(Step::Mask, libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, mask, 0, size_of::<u64>()])?;
        let [path, argv, environment] = [self.path as usize, self.argv as usize, self.environment as usize];
        call(Step::Execute, libc::SYS_execve, [path, argv, environment, 0]).map(|_| ())
    }

    /// From here on the table of descriptors is the child's own. What is above its needs is not even copied; where that
    /// cannot be asked for, all of it is.
    fn part_descriptors(&self) -> Result<(), Failure> {
        let unshare = libc::CLOSE_RANGE_UNSHARE as usize;
        let above = [self.above as usize, RawFd::MAX as usize, unshare, 0];
        if call(Step::Clone, libc::SYS_close_range, above).is_ok() {
            return Ok(());
        }
        call(Step::Clone, libc::SYS_unshare, [libc::CLONE_FILES as usize, 0, 0, 0]).map(|_| ())
    }

    /// The signal is set first and the parent looked at then: one that ended in between is noticed.
    fn end_with_parent(&self) -> Result<(), Failure> {
        let Some(parent) = self.parent else { return Ok(()) };
        let [option, kill] = [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize];
        call(Step::DeathSignal, libc::SYS_prctl, [option, kill, 0, 0])?;
        let now = call(Step::DeathSignal, libc::SYS_getppid, [0; 4])?;
        if c_int::try_from(now) == Ok(parent) {
            return Ok(());
        }
        Err(Failure { step: Step::DeathSignal, errno: libc::ESRCH })
    }

    /// Sources that lie among the targets are first moved above all of them, so that none is overwritten unread.
    fn place_descriptors(&mut self) -> Result<(), Failure> {
        let highest = self.moves.last().map_or(2, |last| last.target);
        for Move { source, target } in self.moves.iter_mut() {
            if *source <= highest {
                let above = [*source as usize, libc::F_DUPFD_CLOEXEC as usize, highest as usize + 1, 0];
                *source = call(Step::Descriptor(*target), libc::SYS_fcntl, above)? as RawFd;
            }
        }
        for Move { source, target } in self.moves.iter() {
            call(Step::Descriptor(*target), libc::SYS_dup3, [*source as usize, *target as usize, 0, 0])?;
        }
        Ok(())
    }

    fn close_others(&self) {
        let mut first = 0;
        for Move { target, .. } in self.moves.iter() {
            if *target > first {
                close(first, *target - 1);
            }
            first = target.saturating_add(1);
        }
        close(first, self.last.max(first));
    }
}

/// Closes all descriptors from `first` to `last`. `close_range(2)` exists since Linux 5.9, but a sandbox may refuse
/// what it does not know; then one by one.
fn close(first: RawFd, last: RawFd) {
    if call(Step::Clone, libc::SYS_close_range, [first as usize, last as usize, 0, 0]).is_ok() {
        return;
    }
    let mut limit = [0u64; 2];
    let room = &raw mut limit as usize;
    // Cannot fail with valid memory; if it does, nothing is closed but what CLOEXEC closes.
    let _ = call(Step::Clone, libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as usize, 0, room]);
    let mut descriptor = first as usize;
    while descriptor <= last as usize && (descriptor as u64) < limit[0] {
        let _ = call(Step::Clone, libc::SYS_close, [descriptor, 0, 0, 0]);
        descriptor += 1;
    }
}

/// Sets every signal back to its default. The table is the child's own (no CLONE_SIGHAND). Handlers must go too:
/// until `execve` they would run in the parent's memory. KILL and STOP refuse, and need nothing.
fn default_dispositions() {
    // All zero is SIG_DFL without flags in every architecture's `struct sigaction`, which is at most this long.
    let default = [0u64; 4];
    for signal in 1..=SIGNALS {
        let action = &raw const default as usize;
        let _ = call(Step::Clone, libc::SYS_rt_sigaction, [signal, action, 0, size_of::<u64>()]);
    }
}

/// One system call; on failure the step it belongs to.
fn call(step: Step, number: c_long, arguments: [usize; 4]) -> Result<c_long, Failure> {
    let [a, b, c, d] = arguments;
    // SAFETY: every caller passes numbers, or addresses of memory that lives until this returns.
    let result = unsafe { libc::syscall(number, a, b, c, d) };
    if result >= 0 {
        return Ok(result);
    }
    // SAFETY: the parent's own errno, which this child shares while the parent is suspended.
    Err(Failure { step, errno: unsafe { *libc::__errno_location() } })
}

/// An environment entry `NAME=pid`, filled in by the child, the first who knows.
pub(super) struct PidVariable {
    text: [u8; 32],
    value: usize,
}

impl PidVariable {
    /// `name` has at most 19 characters.
    pub(super) fn new(name: &str) -> Self {
        let mut text = [0; 32];
        for (place, byte) in text.iter_mut().zip(name.bytes().chain([b'='])) {
            *place = byte;
        }
        PidVariable { text, value: name.len() + 1 }
    }

    pub(super) fn as_ptr(&mut self) -> *const c_char {
        self.text.as_mut_ptr().cast_const().cast()
    }

    fn set(&mut self, pid: c_long) {
        let digits = pid.checked_ilog10().map_or(1, |log| log as usize + 1);
        let mut rest = pid;
        for place in self.text.iter_mut().skip(self.value).take(digits).rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}

/// Seen by nobody: the failure is told through the plan.
const NOT_RUN: c_int = 127;
/// Number of signals, `_NSIG` in the kernel.
const SIGNALS: usize = 64;
