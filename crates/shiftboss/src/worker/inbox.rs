//! Messages on their way from the hearing thread to the program: in a queue and, while that is full, behind it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Waker};

use tokio::sync::mpsc::{self, error::TrySendError};

use super::WAITING;
use crate::subscription::Message;

pub(super) struct Inbox {
    queue: mpsc::Sender<Message>,
    behind: VecDeque<Message>,
    /// About as many as those behind take.
    bytes: usize,
    /// Told when half of the queue is free: being told of each place would cost more than the message.
    waker: Waker,
    /// Waits for that.
    room: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Inbox {
    pub(super) fn new(queue: mpsc::Sender<Message>, waker: Waker) -> Inbox {
        Inbox { queue, behind: VecDeque::new(), bytes: 0, waker, room: None }
    }

    pub(super) fn put(&mut self, message: Message) {
        self.bytes += size(&message);
        self.behind.push_back(message);
        if self.room.is_none() {
            self.move_up();
        }
    }

    /// Puts as many into the queue as there is room for.
    pub(super) fn move_up(&mut self) {
        self.room = None;
        while let Some(message) = self.behind.pop_front() {
            let bytes = size(&message);
            match self.queue.try_send(message) {
                Ok(()) => self.bytes -= bytes,
                Err(TrySendError::Full(message)) => {
                    self.behind.push_front(message);
                    if self.is_waiting() {
                        return;
                    }
                }
                // Nobody takes them any more.
                Err(TrySendError::Closed(_)) => (self.behind, self.bytes) = (VecDeque::new(), 0),
            }
        }
        self.behind.shrink_to(USUAL);
    }

    /// Whether there is no room yet; the waker is told once there is.
    fn is_waiting(&mut self) -> bool {
        let queue = self.queue.clone();
        let mut room: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let _ = queue.reserve_many(WAITING / 2).await;
        });
        let is_waiting = room.as_mut().poll(&mut Context::from_waker(&self.waker)).is_pending();
        self.room = is_waiting.then_some(room);
        is_waiting
    }

    /// No more is to be taken, whatever it is.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MOST
    }

    /// Waits until all that came is in the queue, or nobody takes it any more.
    pub(super) fn finish(mut self) {
        self.room = None;
        for message in self.behind {
            if self.queue.blocking_send(message).is_err() {
                return;
            }
        }
    }
}

fn size(message: &Message) -> usize {
    message.get().len() + 64
}

/// Bytes behind the queue.
pub(super) const MOST: usize = 16 * 1024 * 1024;
/// Messages behind it that there is always memory for.
const USUAL: usize = 64;
