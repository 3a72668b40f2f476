//! This process itself: its signals, its children and its standard output.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

/// SIGTERM, caught in a descriptor (signalfd(2)) so that it can be waited for, or ignored.
pub(crate) struct Termination(Option<OwnedFd>);

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Told,
    Writable,
    Time,
}

impl Termination {
    /// Blocks SIGTERM in this thread and those it starts, and catches it; not when it is ignored.
    pub(crate) fn catch(ignored: bool) -> io::Result<Termination> {
        if ignored {
            return Ok(Termination(None));
        }
        let set = set_of(libc::SIGTERM);
        change_mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: -1 asks for a new descriptor; the set outlives the call.
        let descriptor =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        Ok(Termination(Some(unsafe { OwnedFd::from_raw_fd(descriptor) })))
    }

    /// The descriptor that is readable once SIGTERM came; `None` when it is ignored.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }

    /// Waits for SIGTERM until `end`, or for ever; whether it came. A time in the past only looks.
    pub(crate) fn wait(&self, end: Option<Instant>) -> io::Result<bool> {
        let mut watched: Vec<_> = self.0.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        poll_until(&mut watched, end)
    }

    /// Waits for SIGTERM, for room in `output` or for `end`. An output that nobody reads counts as room, and the write
    /// then fails.
    pub(crate) fn wait_or_writable(&self, output: BorrowedFd<'_>, end: Option<Instant>) -> io::Result<Woken> {
        let mut watched = vec![PollFd::from_borrowed_fd(output, PollFlags::OUT)];
        watched.extend(self.0.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let any = poll_until(&mut watched, end)?;
        let told = watched.get(1).is_some_and(|told| !told.revents().is_empty());
        let over = end.is_some_and(|end| Instant::now() >= end);
        Ok(match (told, any && !over) {
            (true, _) => Woken::Told,
            (false, true) => Woken::Writable,
            (false, false) => Woken::Time,
        })
    }
}

/// Whether any became ready before `end`.
fn poll_until(watched: &mut [PollFd<'_>], end: Option<Instant>) -> io::Result<bool> {
    loop {
        match poll(watched, until(end).as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The time left, as the kernel wants it; `None`: no end.
pub(crate) fn until(end: Option<Instant>) -> Option<Timespec> {
    end.and_then(|end| Timespec::try_from(end.saturating_duration_since(Instant::now())).ok())
}

/// Ignores SIGTERM from now on, also in children.
pub(crate) fn ignore_term() {
    // SAFETY: ignoring a signal runs no code in this process.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
}

/// Sends this process a signal with its default action. Returns if that does not end it.
pub(crate) fn die_by(number: i32) -> io::Result<()> {
    let Some(signal) = Signal::from_named_raw(number) else {
        return Err(io::Error::other(format!("{number} is no signal with a name")));
    };
    // SAFETY: the default action runs no code in this process. It fails for KILL and STOP, which have no other.
    unsafe { libc::signal(number, libc::SIG_DFL) };
    change_mask(libc::SIG_UNBLOCK, &set_of(number))?;
    kill_process(getpid(), signal)?;
    Ok(())
}

/// Makes a child that sleeps and holds every inherited descriptor; returns its pid once it is where it will stay. It
/// ends by itself, late.
pub(crate) fn fork_sleeper(new_session: bool) -> io::Result<i32> {
    let (mut settled, settling) = io::pipe()?;
    // SAFETY: this process has one thread, and the child calls only async-signal-safe functions until it exits.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            if new_session {
                // SAFETY: setsid takes no pointers; it cannot fail in a child that leads no group yet.
                unsafe { libc::setsid() };
            }
            drop((settled, settling));
            // SAFETY: sleep and _exit take no pointers, and _exit runs none of the parent's exit handlers.
            unsafe {
                libc::sleep(SLEEPER_SECONDS);
                libc::_exit(0)
            }
        }
        pid => {
            drop(settling);
            // The end of the pipe says that the child has closed it; nothing is ever written.
            settled.read_to_end(&mut Vec::new())?;
            Ok(pid)
        }
    }
}

/// Closes standard output; what is printed afterwards goes nowhere.
pub(crate) fn close_stdout() -> io::Result<()> {
    // SAFETY: nobody holds descriptor 1 as an owned descriptor, and the standard library takes EBADF on it as success.
    match unsafe { libc::close(libc::STDOUT_FILENO) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_of(signal: i32) -> libc::sigset_t {
    // SAFETY: an all-zero set is valid memory for sigemptyset, which then makes it an empty set.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        set
    }
}

fn change_mask(how: i32, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is valid for the call, and the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(how, set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Longest a child is left behind.
const SLEEPER_SECONDS: u32 = 600;
