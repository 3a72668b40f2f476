//! The end of a worker's process: what it said last is heard, and what was held of it is let go.

use std::collections::VecDeque;
use std::os::fd::AsFd as _;

use shiftboss_core::Input;
use shiftboss_core::id::WorkerId;
use shiftboss_core::input::Exit;
use shiftboss_core::spec::Signal;

use super::{LOOKS, TRY_AGAIN, Workers, say};
use crate::log::Log;
use crate::os::lines::Reading;
use crate::os::{clock, kill_points, reaper};

impl Workers {
    /// A worker's process has ended.
    pub(super) fn collect(&mut self, worker: WorkerId, log: &mut dyn Log, inputs: &mut VecDeque<Input>) {
        let exit = self.children.reap(worker).unwrap_or_else(|| self.hold(worker));
        self.ended(worker, exit, log, inputs);
    }

    /// A worker's process has ended; the keeper reaps it and says how.
    pub(super) fn has_ended(&mut self, worker: WorkerId) {
        if let Some(pidfd) = self.children.pidfd(worker) {
            self.leave_poller(pidfd);
            self.awaited.insert(worker, (clock::now() + TRY_AGAIN, LOOKS));
        }
    }

    /// A worker's process is gone, and reaped: what it said last comes before the news.
    pub(crate) fn ended(
        &mut self,
        worker: WorkerId,
        exit: reaper::Exit,
        log: &mut dyn Log,
        inputs: &mut VecDeque<Input>,
    ) {
        self.hear(worker, inputs);
        self.awaited.remove(&worker);
        if let Some(pidfd) = self.children.pidfd(worker).filter(|_| self.children.are_kept()) {
            self.leave_poller(pidfd);
        }
        self.children.is_gone(worker);
        self.hear_last_words(worker, log, inputs);
        for stream in 0..2 {
            for _ in 0..LAST_PORTIONS {
                if self.read_portion(worker, stream, log) != Reading::More {
                    break;
                }
            }
        }
        self.forget(worker, log);
        let exit = match exit {
            reaper::Exit::Code(code) => Exit::Code(code),
            reaper::Exit::Signal(number) => Exit::Signal(Signal(number)),
        };
        inputs.push_back(Input::Exited { worker, exit });
        kill_points::point("an exit was heard");
    }

    /// It has ended and cannot be reaped: somebody traces it (ptrace(2)). The pid stays taken until that one lets go, so
    /// it is reaped later; how it ended is not waited for.
    fn hold(&mut self, worker: WorkerId) -> reaper::Exit {
        self.children.kill_tree(worker);
        if let Some(pidfd) = self.children.pidfd(worker) {
            self.leave_poller(pidfd);
        }
        self.held.insert(worker);
        self.next_try = Some(clock::now() + TRY_AGAIN);
        reaper::Exit::Code(reaper::LOST)
    }

    pub(super) fn forget(&mut self, worker: WorkerId, log: &mut dyn Log) {
        self.probes.forget(worker);
        self.end_stream(worker, 0, log);
        self.end_stream(worker, 1, log);
        let Some(process) = self.processes.remove(&worker) else { return };
        self.remains.keep(worker, &process.output);
        if let Some(notify) = &process.notify {
            self.leave_poller(notify.as_fd());
        }
        if let Some(mut channel) = process.channel {
            self.leave_poller(channel.as_fd());
            channel.end();
        }
        self.forget_post(worker);
        self.forget_peer(worker, process.of, process.peer.as_ref());
        if let (Some(slot), Some(peer)) = (process.slot, process.peer) {
            self.has_left(worker, process.of, slot, &peer);
        }
    }

    /// Gives a pipe up; what was not yet a whole line is said as it is.
    pub(super) fn end_stream(&mut self, worker: WorkerId, stream: usize, log: &mut dyn Log) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        let say = say(worker, &process.broker, process.slot, stream, log, &mut self.in_flight);
        if let Some(lines) = process.output.end(stream, say) {
            self.leave_poller(lines.as_fd());
        }
    }
}

/// Portions read from a dead worker's pipe: more than a pipe holds, unless somebody made it larger.
const LAST_PORTIONS: usize = 17;
