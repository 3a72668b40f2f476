//! The thread that hears the channel.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shiftboss_channel::{self as channel, Framer, Framing, Heard, LONGEST, socket};
use tokio::sync::mpsc;

use super::inbox::Inbox;
use super::{WorkerContext, lock};
use crate::mail::CallError;
use crate::os::signals;
use crate::subscription::Message;

pub(super) fn begin(context: &WorkerContext, messages: mpsc::Sender<Message>) -> io::Result<()> {
    let context = context.clone();
    signals::undisturbed("shiftboss-hear", move || hear_all(&context, messages))
}

fn hear_all(context: &WorkerContext, messages: mpsc::Sender<Message>) {
    let _ = context.shared.hearing.set(std::thread::current().id());
    let end = End(context);
    let mut inbox = Inbox::new(messages, Waker::from(Arc::clone(&context.shared)));
    let mut framer = Framer::new(Framing::Lines, LONGEST);
    let mut buffer = vec![0; AT_ONCE];
    let mut descriptors = VecDeque::new();
    while let Ok(count @ 1..) = take(context, &mut inbox, &mut buffer, &mut descriptors) {
        // No message of ours has any.
        descriptors.clear();
        framer.feed(&buffer[..count], |heard| {
            if let Heard::Line(line) = heard {
                hear(context, &mut inbox, line);
            }
        });
    }
    drop(end);
    inbox.finish();
}

/// Whatever ends the thread: nobody answers any more, and nobody is there to work for.
struct End<'a>(&'a WorkerContext);

impl Drop for End<'_> {
    fn drop(&mut self) {
        lock(&self.0.shared.calls).end();
        self.0.leave();
    }
}

/// Waits by poll(2): a thread that waits in recvmsg(2) is also woken for each message of this process that the broker
/// takes, since there is room to write again (`unix_write_space` in `net/unix/af_unix.c`).
///
/// However many messages the program has not taken, more is read: the notice, questions and replies stand behind them. Only
/// at the bound of bytes nothing is read but the last.
fn take(
    context: &WorkerContext,
    inbox: &mut Inbox,
    buffer: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let socket = context.shared.socket.as_fd();
    let wake = &context.shared.wake;
    loop {
        inbox.move_up();
        let listens = !inbox.is_full();
        let at_most = lock(&context.shared.calls).look(Instant::now());
        let at_most = at_most.and_then(|wait| Timespec::try_from(wait).ok());
        let wanted = if listens { PollFlags::IN } else { PollFlags::empty() };
        let mut polled = [PollFd::new(&socket, wanted), PollFd::new(wake, PollFlags::IN)];
        // One that is interrupted looks too early.
        let _ = poll(&mut polled, at_most.as_ref());
        let is_over = polled[0].revents().contains(PollFlags::HUP);
        let _ = rustix::io::read(wake, &mut [0_u8; 8]);
        if !listens && !is_over {
            continue;
        }
        match socket::take(socket, buffer, descriptors, false) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            taken => return taken,
        }
    }
}

fn hear(context: &WorkerContext, inbox: &mut Inbox, line: &[u8]) {
    let shared = &context.shared;
    // Words of a later version, and what is no JSON, are passed over.
    match channel::Message::of(line) {
        Ok(channel::Message::Plain(raw)) if raw.get() == NOTICE => context.leave(),
        Ok(channel::Message::Plain(raw) | channel::Message::Ops(raw)) => {
            if shared.is_heard.load(Ordering::Acquire) {
                inbox.put(Message::alone(raw.to_owned()));
            }
        }
        Ok(channel::Message::Call { id, message }) => {
            let _ = context.write(&answer(context, id, Message::alone(message.to_owned())));
        }
        Ok(channel::Message::Reply { id, result }) => {
            let result = result.map(ToOwned::to_owned).map_err(|error| CallError::refused(error.get()));
            lock(&shared.calls).answer(id, result);
        }
        Ok(channel::Message::Promoted { slot }) => context.take_slot(slot),
        Ok(
            channel::Message::Ready
            | channel::Message::Standby
            | channel::Message::Numbers(_)
            | channel::Message::Node(_)
            | channel::Message::Unknown,
        )
        | Err(_) => {}
    }
}

fn answer(context: &WorkerContext, id: u64, message: Message) -> String {
    let answers = &context.shared.answers;
    // It may name another one while it answers.
    let Some(mut answerer) = lock(answers).take() else {
        return channel::error_reply(id, "this worker answers no questions");
    };
    // The panic has been told by the hook.
    let line = catch_unwind(AssertUnwindSafe(|| answerer(id, message)))
        .unwrap_or_else(|_| channel::error_reply(id, "the worker panicked over this question"));
    let mut answers = lock(answers);
    if answers.is_none() {
        *answers = Some(answerer);
    }
    line
}

const AT_ONCE: usize = 64 * 1024;
/// The message that tells a worker to leave, as okanjo-app-broker has it.
const NOTICE: &str = "\"suicide\"";

#[cfg(test)]
mod tests;
