//! A worker's channel as the broker process holds it: what came is turned into words, what goes waits for room.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde_json::value::RawValue;
use shiftboss_channel::node::{self, Said};
use shiftboss_channel::{
    Descriptors, Framing, Heard, Incoming, LONGEST, Message, NotTaken, Outgoing, Reading, Rest, socket,
};

use crate::os::{clock, kill_points};

/// Our end of one.
pub(crate) struct Channel {
    socket: OwnedFd,
    incoming: Incoming,
    outgoing: Outgoing,
    /// The line that tells the worker to leave.
    notice: Box<str>,
    /// As whose worker it speaks.
    tongue: Tongue,
    /// Of Node's primary: the number of the last message, rising over all processes.
    last_number: u64,
    spoke: bool,
    /// Lines that were no messages.
    bad: u32,
    ended: bool,
    /// The worker has shut its end for reading.
    deaf: bool,
    /// A line to the worker was cut by the end of a process before this one: it cannot be spoken to.
    cut: bool,
}

/// Whose worker it is that speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Tongue {
    /// Ours, or none's.
    Ours,
    /// One of Node's `cluster`.
    Node,
    /// The same in its `advanced` serialization.
    NodeAdvanced,
}

impl Tongue {
    pub(crate) fn is_node(self) -> bool {
        match self {
            Tongue::Ours => false,
            Tongue::Node | Tongue::NodeAdvanced => true,
        }
    }

    fn framing(self) -> Framing {
        match self {
            Tongue::Ours | Tongue::Node => Framing::Lines,
            Tongue::NodeAdvanced => Framing::Frames,
        }
    }
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
    /// What is for a primary of Node's `cluster`.
    Node(Said),
    /// It has closed the channel.
    HungUp,
    /// So much was said that means nothing that nobody listens any more.
    Garbled,
}

impl Channel {
    /// Our end, and the worker's. With `has_heirs` what is said is not lost with this process.
    pub(crate) fn pair(notice: &str, tongue: Tongue, has_heirs: bool) -> io::Result<(Channel, OwnedFd)> {
        let (socket, theirs) = socket::pair()?;
        let incoming = Incoming::new(socket.as_fd(), tongue.framing(), LONGEST, has_heirs)?;
        Ok((Channel::of(socket, incoming, notice, tongue, false), theirs))
    }

    /// Goes on with that of another process; with what it left of an unfinished line.
    pub(crate) fn adopt(
        socket: OwnedFd,
        rest: Option<OwnedFd>,
        notice: &str,
        tongue: Tongue,
    ) -> io::Result<Channel> {
        let (incoming, cut) = Incoming::adopt(socket.as_fd(), tongue.framing(), LONGEST, rest)?;
        let mut channel = Channel::of(socket, incoming, notice, tongue, cut);
        channel.answer();
        Ok(channel)
    }

    fn of(socket: OwnedFd, incoming: Incoming, notice: &str, tongue: Tongue, cut: bool) -> Channel {
        let outgoing = Outgoing::new(tongue.framing());
        Channel {
            socket,
            incoming,
            outgoing,
            notice: notice.into(),
            tongue,
            // Microseconds: no process before this one has counted faster.
            last_number: clock::now().0 / 1000,
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
        self.hear_portion(false, buffer, words)
    }

    /// The same of a dead worker: all of it is left for an heir, who is told of the death as well, unless that is recorded.
    pub(crate) fn hear_last(&mut self, buffer: &mut [u8], words: &mut Vec<Word>) -> Reading {
        self.hear_portion(true, buffer, words)
    }

    fn hear_portion(&mut self, leaves: bool, buffer: &mut [u8], words: &mut Vec<Word>) -> Reading {
        if self.ended {
            return Reading::Ended;
        }
        let Channel { socket, incoming, outgoing, tongue, spoke, bad, .. } = self;
        let mut receipts = Vec::new();
        let hear = |heard: Heard<'_>, descriptors: &mut Descriptors| {
            let word = match heard {
                Heard::Line(line) if tongue.is_node() => Message::of(line)
                    .ok()
                    .and_then(|message| node_word(message, descriptors, outgoing, &mut receipts)),
                Heard::Line(line) => {
                    // No message of ours has any.
                    descriptors.clear();
                    Message::of(line).ok().and_then(word_of)
                }
                Heard::TooLong | Heard::Unreadable(_) => None,
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
        };
        let reading = if leaves {
            incoming.hear_on(socket.as_fd(), buffer, hear)
        } else {
            incoming.hear(socket.as_fd(), buffer, hear)
        };
        // An error is the end of it as well.
        let reading = reading.unwrap_or(Reading::Ended);
        let is_owed = !receipts.is_empty();
        incoming.owes(receipts);
        self.answer();
        if is_owed {
            kill_points::point("a receipt is owed");
        }
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
        self.answer();
    }

    /// Writes what waits, and before it what is due for descriptors that were read: who is killed earlier has an heir that
    /// hears of them again.
    fn answer(&mut self) {
        if self.ended {
            return;
        }
        let due = self.incoming.take_due();
        if !due.is_empty() {
            kill_points::point("a receipt goes out");
        }
        for came in due {
            let receipt = if came { node::HANDLE_ACK } else { node::HANDLE_NACK };
            let _ = self.outgoing.push_at_once(receipt.as_bytes());
        }
        if self.waits() {
            self.write();
        }
    }

    /// Memory that an heir must have before anything else is read.
    pub(crate) fn wants_rest(&self) -> bool {
        self.incoming.wants_rest()
    }

    pub(crate) fn keep_rest(&mut self, rest: Rest) {
        self.incoming.keep_rest(rest);
    }

    /// Tells the worker to leave.
    pub(crate) fn tell_to_leave(&mut self, mut rest: impl FnMut() -> Option<Rest>) {
        let notice = self.notice.clone();
        if self.tongue.is_node() {
            let _ = self.say(node::is_to_leave(self.last_number).as_bytes(), &mut rest);
        }
        // One whose queue is full is signalled a little later.
        let _ = self.say(notice.as_bytes(), rest);
    }

    /// The number of the next message of Node's primary.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Says something with a descriptor.
    pub(crate) fn say_with(&mut self, line: &[u8], descriptor: OwnedFd) -> Result<(), NotTaken> {
        if self.ended {
            return Ok(());
        }
        self.outgoing.push_with(line, descriptor)?;
        self.write();
        Ok(())
    }

    /// Adds a line, and writes what can be written. One that goes in parts asks for `rest` first, if there is none yet: an
    /// heir has to know whether it was cut.
    pub(crate) fn say(&mut self, line: &[u8], rest: impl FnOnce() -> Option<Rest>) -> Result<(), NotTaken> {
        if self.ended {
            return Ok(());
        }
        let Channel { incoming, outgoing, .. } = self;
        outgoing.push_if(line, || {
            if incoming.has_no_rest()
                && let Some(rest) = rest()
            {
                incoming.keep_rest(rest);
            }
            !incoming.has_no_rest()
        })?;
        self.write();
        Ok(())
    }

    /// Writes as much as there is room for.
    pub(crate) fn write(&mut self) {
        let Channel { socket, incoming, outgoing, .. } = self;
        if outgoing.flush(socket.as_fd(), |going| incoming.notes(going)).is_err() {
            // That it is closed is heard when it is read.
            self.outgoing = Outgoing::new(self.tongue.framing());
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
        Message::Node(_) | Message::Promoted { .. } | Message::Unknown => None,
    })
}

/// The same of a worker of Node's `cluster`. What has to be answered whatever waits is noted here.
#[allow(clippy::unnecessary_wraps)]
fn node_word(
    message: Message<'_>,
    descriptors: &mut Descriptors,
    outgoing: &mut Outgoing,
    receipts: &mut Vec<bool>,
) -> Option<Option<Word>> {
    let Message::Node(raw) = message else { return word_of(message) };
    Some(match Said::of(raw) {
        Some(Said::Handle { message }) => {
            // Nobody but the worker knows what it is good for; that it came has to be said, or the worker says no more.
            let came = descriptors.pop_front().is_some();
            receipts.push(came);
            let inner = if came { Message::of(message.get().as_bytes()).ok() } else { None };
            inner.filter(|inner| !matches!(inner, Message::Node(_))).and_then(word_of).flatten()
        }
        Some(Said::Ack) => {
            outgoing.arrived();
            None
        }
        Some(Said::Nack) => (!outgoing.went_astray()).then_some(Word::Node(Said::Nack)),
        // A key as long as that is none of ours.
        Some(Said::AllClosed(key)) => {
            let _ = outgoing.push_if(node::all_closed(&key).as_bytes(), || false);
            None
        }
        Some(Said::Count(key)) => {
            let _ = outgoing.push_if(node::none_open(&key).as_bytes(), || false);
            None
        }
        Some(said) => Some(Word::Node(said)),
        None => None,
    })
}

/// So many bad lines, and nobody listens any more.
const MOST_BAD: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Says something until nothing more fits into the socket.
    fn fill(channel: &mut Channel) {
        while !channel.waits() {
            channel.say(b"1", || None).unwrap();
        }
        channel.outgoing = Outgoing::new(channel.tongue.framing());
    }

    /// A text that is so long as it goes out.
    fn text(tongue: Tongue, length: usize) -> String {
        match tongue {
            // With quotes and a line feed.
            Tongue::Ours | Tongue::Node => format!("\"{}\"", "x".repeat(length - 3)),
            // With the frame's length, the header, the tag and the text's length, of which each character has two bytes.
            Tongue::NodeAdvanced => format!("\"日{}\"", "x".repeat((length - 10) / 2 - 1)),
        }
    }

    #[test]
    fn an_heir_knows_of_a_line_that_was_cut_however_it_is_framed() {
        for tongue in [Tongue::Ours, Tongue::Node, Tongue::NodeAdvanced] {
            for length in [socket::WHOLE, socket::WHOLE + 2 - usize::from(tongue != Tongue::NodeAdvanced)] {
                let (mut channel, theirs) = Channel::pair("", tongue, true).unwrap();
                let mut kept = None;
                channel
                    .say(text(tongue, length).as_bytes(), || {
                        let rest = Rest::new().ok()?;
                        kept = rest.as_fd().try_clone_to_owned().ok();
                        Some(rest)
                    })
                    .unwrap();
                let is_long = length > socket::WHOLE;
                assert_eq!(kept.is_some(), is_long, "{tongue:?}, {length}");
                assert!(!channel.waits());
                // One of which a part has gone.
                fill(&mut channel);
                let (mut buffer, mut none) = (vec![0; socket::WHOLE], Descriptors::new());
                channel.say(text(tongue, length).as_bytes(), || None).unwrap();
                while channel.waiting() >= length {
                    socket::take(theirs.as_fd(), &mut buffer, &mut none, false).unwrap();
                    channel.write();
                }
                let Channel { socket, .. } = channel;
                let heir = Channel::adopt(socket, kept, "", tongue).unwrap();
                assert_eq!(heir.is_cut(), is_long, "{tongue:?}, {length}");
            }
        }
    }

    #[test]
    fn a_line_that_has_not_begun_is_not_cut() {
        let (mut channel, _theirs) = Channel::pair("", Tongue::Ours, true).unwrap();
        fill(&mut channel);
        let rest = Rest::new().unwrap();
        let kept = rest.as_fd().try_clone_to_owned().ok();
        channel.say(text(Tongue::Ours, socket::WHOLE + 1).as_bytes(), || Some(rest)).unwrap();
        assert!(channel.waits());
        assert!(!Channel::adopt(channel.socket, kept, "", Tongue::Ours).unwrap().is_cut());
    }

    #[test]
    fn a_line_that_may_be_cut_is_not_taken_if_nobody_would_know() {
        let (mut channel, _theirs) = Channel::pair("", Tongue::Ours, true).unwrap();
        let long = text(Tongue::Ours, socket::WHOLE + 1);
        assert_eq!(channel.say(long.as_bytes(), || None), Err(NotTaken::QueueFull));
        assert!(channel.say(b"1", || None).is_ok() && !channel.is_deaf());
        let (mut alone, _theirs) = Channel::pair("", Tongue::Ours, false).unwrap();
        assert!(alone.say(long.as_bytes(), || None).is_ok() && !alone.is_deaf());
    }
}
