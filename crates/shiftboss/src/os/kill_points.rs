//! Places at which a broker process may be killed, one after the other, so that a test can kill it at each: there is
//! none in a release build. Where they are is said by whoever calls [`point`]; what must hold afterwards is the test's.
//!
//! | variable | meaning |
//! |---|---|
//! | `SHIFTBOSS_KILL_LOG=FILE` | there are points: `number name` is written to FILE at each, by an adopter to `FILE.adopter`; neither may be there before |
//! | `SHIFTBOSS_KILL_AT=K` | the first process that begins the app kills itself at its K-th point, from 1, or at the first of the name K |
//! | `SHIFTBOSS_KILL_ADOPTER_AT=K` | so does the first one that goes on with it |

#[cfg(debug_assertions)]
use armed as how;
#[cfg(not(debug_assertions))]
use unarmed as how;

/// Who this process is to its app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It begins it.
    Begins,
    /// It goes on with it.
    GoesOn,
}

/// Does as the variables say from now on.
pub(crate) fn arm(part: Part) {
    how::arm(part);
}

/// A place to be killed at.
pub(crate) fn point(name: &'static str) {
    how::point(name);
}

/// Has bytes written, with a place to be killed at before them and in their middle: what is written at once otherwise
/// is written in two parts then, aligned to words of 8 bytes.
pub(crate) fn in_parts(name: &'static str, bytes: &[u8], write: impl FnMut(usize, &[u8])) {
    how::in_parts(name, bytes, write);
}

#[cfg(not(debug_assertions))]
mod unarmed {
    use super::Part;

    #[inline(always)]
    pub(super) fn arm(_: Part) {}

    #[inline(always)]
    pub(super) fn point(_: &'static str) {}

    #[inline(always)]
    pub(super) fn in_parts(_: &'static str, bytes: &[u8], mut write: impl FnMut(usize, &[u8])) {
        write(0, bytes);
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::fs::{File, OpenOptions};
    use std::io::Write as _;
    use std::sync::{Mutex, OnceLock, PoisonError};

    use rustix::process::{Signal, getpid, kill_process};

    use super::Part;

    struct Plan {
        kill_at: Option<String>,
        log: File,
        passed: u64,
    }

    static PLAN: OnceLock<Mutex<Plan>> = OnceLock::new();

    pub(super) fn arm(part: Part) {
        if let Some(plan) = Plan::of(part) {
            // Once in a process.
            let _ = PLAN.set(Mutex::new(plan));
        }
    }

    pub(super) fn point(name: &'static str) {
        if let Some(plan) = PLAN.get() {
            plan.lock().unwrap_or_else(PoisonError::into_inner).pass(name);
        }
    }

    pub(super) fn in_parts(name: &'static str, bytes: &[u8], mut write: impl FnMut(usize, &[u8])) {
        point(name);
        let half = bytes.len() / 2 / WORD * WORD;
        if half == 0 || PLAN.get().is_none() {
            return write(0, bytes);
        }
        let (first, rest) = bytes.split_at(half);
        write(0, first);
        point("in its middle");
        write(half, rest);
    }

    impl Plan {
        fn of(part: Part) -> Option<Plan> {
            let mut file = std::env::var_os("SHIFTBOSS_KILL_LOG")?;
            let kill_at = match part {
                Part::Begins => "SHIFTBOSS_KILL_AT",
                Part::GoesOn => {
                    file.push(".adopter");
                    "SHIFTBOSS_KILL_ADOPTER_AT"
                }
            };
            // Whoever finds it there is not the first.
            let log = OpenOptions::new().append(true).create_new(true).open(file).ok()?;
            Some(Plan { kill_at: std::env::var(kill_at).ok(), log, passed: 0 })
        }

        fn pass(&mut self, name: &'static str) {
            self.passed += 1;
            // A point that is not in the log is still a point.
            let _ = self.log.write_all(format!("{} {name}\n", self.passed).as_bytes());
            if self.kill_at.as_ref().is_some_and(|at| at == name || *at == self.passed.to_string()) {
                // Nothing of this process runs after the call.
                let _ = kill_process(getpid(), Signal::KILL);
            }
        }
    }

    const WORD: usize = 8;
}
