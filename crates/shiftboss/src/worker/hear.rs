//! The thread that hears the channel.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shiftboss_channel::{self as channel, Framer, Framing, Heard, LONGEST, socket};
use tokio::sync::mpsc;

use super::{WorkerContext, lock};
use crate::mail::CallError;
use crate::os::signals;
use crate::subscription::Message;

pub(super) fn begin(context: &WorkerContext, messages: mpsc::Sender<Message>) -> io::Result<()> {
    let context = context.clone();
    signals::undisturbed("shiftboss-hear", move || hear_all(&context, messages))
}

fn hear_all(context: &WorkerContext, messages: mpsc::Sender<Message>) {
    let mut framer = Framer::new(Framing::Lines, LONGEST);
    let mut buffer = vec![0; AT_ONCE];
    let mut descriptors = VecDeque::new();
    while let Ok(count @ 1..) = take(context, &mut buffer, &mut descriptors) {
        // No message of ours has any.
        descriptors.clear();
        framer.feed(&buffer[..count], |heard| {
            if let Heard::Line(line) = heard {
                hear(context, &messages, line);
            }
        });
    }
    // Nobody answers any more, and nobody is there to work for.
    lock(&context.shared.calls).clear();
    drop(messages);
    context.leave();
}

/// Waits by poll(2): a thread that waits in recvmsg(2) is also woken for each message of this process that the broker
/// takes, since there is room to write again (`unix_write_space` in `net/unix/af_unix.c`).
fn take(
    context: &WorkerContext,
    buffer: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let socket = context.shared.socket.as_fd();
    let wake = &context.shared.wake;
    loop {
        let at_most = lock(&context.shared.calls).look(Instant::now());
        let at_most = at_most.and_then(|wait| Timespec::try_from(wait).ok());
        // One that is interrupted looks too early.
        let _ = poll(
            &mut [PollFd::new(&socket, PollFlags::IN), PollFd::new(wake, PollFlags::IN)],
            at_most.as_ref(),
        );
        let _ = rustix::io::read(wake, &mut [0_u8; 8]);
        match socket::take(socket, buffer, descriptors, false) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            taken => return taken,
        }
    }
}

fn hear(context: &WorkerContext, messages: &mpsc::Sender<Message>, line: &[u8]) {
    let shared = &context.shared;
    // Words of a later version, and what is no JSON, are passed over.
    match channel::Message::of(line) {
        Ok(channel::Message::Plain(raw)) if raw.get() == NOTICE => context.leave(),
        Ok(channel::Message::Plain(raw) | channel::Message::Ops(raw)) => {
            if shared.is_heard.load(Ordering::Acquire) {
                // One that does not take them makes us, and so the broker, wait.
                let _ = messages.blocking_send(Message::alone(raw.to_owned()));
            }
        }
        Ok(channel::Message::Call { id, message }) => {
            let mut answers = lock(&shared.answers);
            let line = match &mut *answers {
                Some(answer) => answer(id, Message::alone(message.to_owned())),
                None => channel::error_reply(id, "this worker answers no questions"),
            };
            drop(answers);
            let _ = context.write(&line);
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

const AT_ONCE: usize = 64 * 1024;
/// The message that tells a worker to leave, as okanjo-app-broker has it.
const NOTICE: &str = "\"suicide\"";
