//! A worker's channel as the broker process holds it: what came is turned into words, what goes waits for room.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde_json::value::RawValue;
use shiftboss_channel::{Heard, Incoming, LONGEST, Message, Outgoing, QueueFull, Reading, Rest, socket};

/// Our end of one.
pub(crate) struct Channel {
    socket: OwnedFd,
    incoming: Incoming,
    outgoing: Outgoing,
    /// The line that tells the worker to leave.
    notice: Box<str>,
    spoke: bool,
    /// Lines that were no messages.
    bad: u32,
    ended: bool,
    /// The worker has shut its end for reading.
    deaf: bool,
    /// A line to the worker was cut by the end of a process before this one: it cannot be spoken to.
    cut: bool,
}

/// One JSON value.
pub(crate) type Letter = Box<RawValue>;

/// Something that a worker said.
#[derive(Debug)]
pub(crate) enum Word {
    /// The first word of all.
    Spoke,
    Ready,
    /// It is fully started, and waits to be promoted.
    Standby,
    Message {
        letter: Letter,
        ops: bool,
    },
    Call {
        id: u64,
        letter: Letter,
    },
    Reply {
        id: u64,
        result: Result<Letter, String>,
    },
    Numbers(Letter),
    /// It has closed the channel.
    HungUp,
    /// So much was said that means nothing that nobody listens any more.
    Garbled,
}

impl Channel {
    /// Our end, and the worker's. With `has_heirs` what is said is not lost with this process.
    pub(crate) fn pair(notice: &str, has_heirs: bool) -> io::Result<(Channel, OwnedFd)> {
        let (socket, theirs) = socket::pair()?;
        let incoming = Incoming::new(socket.as_fd(), LONGEST, has_heirs)?;
        Ok((Channel::of(socket, incoming, notice, false), theirs))
    }

    /// Goes on with that of another process; with what it left of an unfinished line.
    pub(crate) fn adopt(socket: OwnedFd, rest: Option<OwnedFd>, notice: &str) -> io::Result<Channel> {
        let (incoming, cut) = Incoming::adopt(socket.as_fd(), LONGEST, rest)?;
        Ok(Channel::of(socket, incoming, notice, cut))
    }

    fn of(socket: OwnedFd, incoming: Incoming, notice: &str, cut: bool) -> Channel {
        let outgoing = Outgoing::default();
        Channel {
            socket,
            incoming,
            outgoing,
            notice: notice.into(),
            spoke: false,
            bad: 0,
            ended: cut,
            deaf: false,
            cut,
        }
    }

    /// The worker has spoken before, as is recorded.
    pub(crate) fn has_spoken(&mut self) {
        self.spoke = true;
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// One portion of what has come. What is heard is to be recorded before it is read: see [`Channel::was_recorded`].
    pub(crate) fn hear(&mut self, buffer: &mut [u8], words: &mut Vec<Word>) -> Reading {
        if self.ended {
            return Reading::Ended;
        }
        let Channel { socket, incoming, spoke, bad, .. } = self;
        let reading = incoming.hear(socket.as_fd(), buffer, |heard, descriptors| {
            // No message of ours has any.
            descriptors.clear();
            let word = match heard {
                Heard::Line(line) => Message::of(line).ok().and_then(word_of),
                Heard::TooLong => None,
            };
            match word {
                Some(word) => {
                    if !std::mem::replace(spoke, true) {
                        words.push(Word::Spoke);
                    }
                    words.extend(word);
                }
                None => *bad += 1,
            }
        });
        // An error is the end of it as well.
        let reading = reading.unwrap_or(Reading::Ended);
        if self.bad >= MOST_BAD {
            words.push(Word::Garbled);
            self.end();
        } else if reading == Reading::Ended {
            self.ended = true;
            words.push(Word::HungUp);
        }
        reading
    }

    /// What was heard is recorded: an heir need not hear it again.
    pub(crate) fn was_recorded(&mut self, buffer: &mut [u8]) {
        if self.incoming.read_what_was_heard(self.socket.as_fd(), buffer).is_err() {
            self.end();
        }
    }

    /// Memory that an heir must have before anything else is read.
    pub(crate) fn wants_rest(&self) -> bool {
        self.incoming.wants_rest()
    }

    /// Whether there is none yet, and somebody may need it.
    pub(crate) fn has_no_rest(&self) -> bool {
        self.incoming.has_no_rest()
    }

    pub(crate) fn keep_rest(&mut self, rest: Rest) {
        self.incoming.keep_rest(rest);
    }

    /// Tells the worker to leave.
    pub(crate) fn tell_to_leave(&mut self) {
        let notice = self.notice.clone();
        // One whose queue is full is signalled a little later.
        let _ = self.say(notice.as_bytes());
    }

    /// Adds a line, and writes what can be written.
    pub(crate) fn say(&mut self, line: &[u8]) -> Result<(), QueueFull> {
        if self.ended {
            return Ok(());
        }
        self.outgoing.push(line)?;
        self.write();
        Ok(())
    }

    /// Writes as much as there is room for.
    pub(crate) fn write(&mut self) {
        let Channel { socket, incoming, outgoing, .. } = self;
        if outgoing.flush(socket.as_fd(), |in_parts| incoming.notes_writing(in_parts)).is_err() {
            // That it is closed is heard when it is read.
            self.outgoing = Outgoing::default();
            self.deaf = true;
        }
    }

    /// Bytes that wait for room.
    pub(crate) fn waiting(&self) -> usize {
        self.outgoing.len()
    }

    /// Whether something waits for room.
    pub(crate) fn waits(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether nothing reaches the worker any more.
    pub(crate) fn is_deaf(&self) -> bool {
        self.ended || self.deaf
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Nobody listens to it, nor speaks to it, any more: the worker sees its end.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        self.outgoing = Outgoing::default();
        socket::end(&self.socket);
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// None for one that does not concern us; an error would be a bad line.
#[allow(clippy::unnecessary_wraps)]
fn word_of(message: Message<'_>) -> Option<Option<Word>> {
    Some(match message {
        Message::Plain(raw) => Some(Word::Message { letter: raw.to_owned(), ops: false }),
        Message::Ops(raw) => Some(Word::Message { letter: raw.to_owned(), ops: true }),
        Message::Ready => Some(Word::Ready),
        Message::Standby => Some(Word::Standby),
        Message::Call { id, message } => Some(Word::Call { id, letter: message.to_owned() }),
        Message::Reply { id, result } => {
            let result = result.map(ToOwned::to_owned).map_err(|error| error.get().to_owned());
            Some(Word::Reply { id, result })
        }
        Message::Numbers(raw) => Some(Word::Numbers(raw.to_owned())),
        // What only we say.
        Message::Promoted { .. } | Message::Unknown => None,
    })
}

/// So many bad lines, and nobody listens any more.
const MOST_BAD: u32 = 16;
