//! The reading end of a channel.
//!
//! A reader that has heirs looks, lets the caller act, notes what is left of an unfinished line, and only then reads: if
//! it dies in between, whoever goes on finds every line, perhaps one that was acted on already, never half of one. What is
//! owed for descriptors that have come is noted with that, and due once they are read: see [`Incoming::owes`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::framer::{Framer, Framing, Heard};
use crate::offset;
use crate::outgoing::Going;
use crate::rest::Rest;
use crate::socket;

/// Descriptors that came and belong to no line yet, oldest first.
pub type Descriptors = VecDeque<OwnedFd>;

/// What was read of a channel, and is not yet a line.
#[derive(Debug)]
pub struct Incoming {
    framer: Framer,
    descriptors: Descriptors,
    /// Owed for what was looked at, and for what was read: whether each descriptor came.
    receipts: Vec<bool>,
    due: Vec<bool>,
    heirs: Option<Heirs>,
}

/// For whom it is read so.
#[derive(Debug, Default)]
struct Heirs {
    rest: Option<Rest>,
    /// Bytes that were looked at and acted on.
    acted_on: usize,
}

/// How a portion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// There may be more.
    More,
    /// Nothing more is there now.
    Empty,
    /// The other side has closed it; an unfinished line is no line.
    Ended,
}

impl Incoming {
    /// Nothing was read yet. With `has_heirs` everything outlives this reader: see [`Incoming::read_what_was_heard`].
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn new(
        socket: BorrowedFd<'_>,
        framing: Framing,
        longest: usize,
        has_heirs: bool,
    ) -> io::Result<Incoming> {
        if has_heirs {
            offset::set(socket, 0)?;
        }
        Ok(Incoming::of(Framer::new(framing, longest), Vec::new(), has_heirs.then(Heirs::default)))
    }

    /// Goes on where another reader ended; with what it has left, if it has left anything. Tells whether that one was in
    /// the middle of a line to the other side, which can then not be spoken to any more.
    ///
    /// # Errors
    /// If what it has left cannot be read.
    pub fn adopt(
        socket: BorrowedFd<'_>,
        framing: Framing,
        longest: usize,
        rest: Option<OwnedFd>,
    ) -> io::Result<(Incoming, bool)> {
        let adopted = rest.map(|rest| Rest::adopt(rest, socket)).transpose()?;
        offset::set(socket, 0)?;
        let (rest, partial, writing) = match adopted {
            Some((rest, partial, writing)) => (Some(rest), partial, writing),
            None => (None, Vec::new(), false),
        };
        let framer = Framer::resume(framing, longest, partial);
        let due = rest.as_ref().map_or_else(Vec::new, Rest::owed);
        Ok((Incoming::of(framer, due, Some(Heirs { rest, acted_on: 0 })), writing))
    }

    fn of(framer: Framer, due: Vec<bool>, heirs: Option<Heirs>) -> Incoming {
        Incoming { framer, descriptors: Descriptors::new(), receipts: Vec::new(), due, heirs }
    }

    /// One portion, of at most the buffer's length (shared by all channels). `hear` gets each line with the descriptors
    /// that have come up to it; takes those that are the line's.
    ///
    /// # Errors
    /// ENOMEM and such; the channel is of no use then.
    pub fn hear(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
        hear: impl FnMut(Heard<'_>, &mut Descriptors),
    ) -> io::Result<Reading> {
        self.read_what_was_heard(socket, buffer)?;
        self.hear_on(socket, buffer, hear)
    }

    /// The same of a channel that nobody writes to any more: what was heard before stays there, and an heir hears all of it
    /// again.
    ///
    /// # Errors
    /// As [`Incoming::hear`].
    pub fn hear_on(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
        mut hear: impl FnMut(Heard<'_>, &mut Descriptors),
    ) -> io::Result<Reading> {
        let got = match &self.heirs {
            Some(_) => socket::look(socket, buffer, &mut self.descriptors),
            None => socket::take(socket, buffer, &mut self.descriptors, false),
        };
        let count = match got {
            Ok(0) => return Ok(Reading::Ended),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Reading::Empty),
            Err(error) => return Err(error),
        };
        let descriptors = &mut self.descriptors;
        self.framer.feed(&buffer[..count], |heard| hear(heard, descriptors));
        if let Some(heirs) = &mut self.heirs {
            heirs.acted_on += count;
        }
        Ok(if count == buffer.len() { Reading::More } else { Reading::Empty })
    }

    /// What was heard is written down wherever it has to be, and need not be heard again by an heir. To be called before
    /// anything else is done with the socket; where [`Incoming::wants_rest`], after [`Incoming::keep_rest`].
    ///
    /// # Errors
    /// ENOMEM and such; the channel is of no use then.
    pub fn read_what_was_heard(&mut self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<()> {
        let Some(heirs) = &mut self.heirs else { return Ok(()) };
        let mut left = std::mem::take(&mut heirs.acted_on);
        if left == 0 {
            return Ok(());
        }
        let partial = self.framer.partial();
        let receipts = &mut self.receipts;
        let is_noted = |rest: &&mut Rest| !(rest.is_empty() && partial.is_empty() && receipts.is_empty());
        if let Some(rest) = heirs.rest.as_mut().filter(is_noted) {
            rest.is_to_be(partial, left, receipts)?;
        }
        // Duplicates of these came with the look.
        let mut duplicates = Descriptors::new();
        while left > 0 {
            let room = left.min(buffer.len());
            left -= socket::take(socket, &mut buffer[..room], &mut duplicates, false)?;
        }
        if let Some(rest) = heirs.rest.as_mut().filter(|rest| rest.is_reading()) {
            rest.is()?;
        }
        self.due.append(receipts);
        Ok(())
    }

    /// These are owed for descriptors of the portion that was heard last, in order: whether each came.
    pub fn owes(&mut self, mut receipts: Vec<bool>) {
        let list = if self.heirs.is_some() { &mut self.receipts } else { &mut self.due };
        list.append(&mut receipts);
    }

    /// Those that are to go out now, of which [`Outgoing`](crate::Outgoing) tells when they have.
    pub fn take_due(&mut self) -> Vec<bool> {
        std::mem::take(&mut self.due)
    }

    /// Whether an heir needs memory of ours that is not there yet: see [`Incoming::keep_rest`].
    #[must_use]
    pub fn wants_rest(&self) -> bool {
        self.heirs.as_ref().is_some_and(|heirs| heirs.rest.is_none())
            && !(self.framer.partial().is_empty() && self.receipts.is_empty())
    }

    /// Keeps unfinished lines, and what is owed, there from now on; an heir has it.
    pub fn keep_rest(&mut self, rest: Rest) {
        if let Some(heirs) = &mut self.heirs {
            heirs.rest = Some(rest);
        }
    }

    /// Notes what goes out, for an heir.
    ///
    /// # Errors
    /// ENOMEM; also if a line goes in parts and there is no place for the note, see [`Incoming::has_no_rest`].
    pub fn notes(&mut self, going: Going) -> io::Result<()> {
        let Some(heirs) = &mut self.heirs else { return Ok(()) };
        match (going, &mut heirs.rest) {
            (Going::InParts, Some(rest)) => rest.writes(true),
            (Going::Whole, Some(rest)) => rest.writes(false),
            (Going::Answered, Some(rest)) => rest.owes_nothing(),
            (Going::InParts, None) => Err(io::ErrorKind::NotFound.into()),
            (Going::Whole | Going::Answered, None) => Ok(()),
        }
    }

    /// Whether such notes are kept, and there is no place for them yet.
    #[must_use]
    pub fn has_no_rest(&self) -> bool {
        self.heirs.as_ref().is_some_and(|heirs| heirs.rest.is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::fuse;

    /// Small random numbers, the same for the same seed.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % sides
        }
    }

    /// A reader, what is held for its heir, and what they have heard.
    struct Readers {
        socket: OwnedFd,
        rest: Option<OwnedFd>,
        incoming: Option<Incoming>,
        heard: Vec<Vec<u8>>,
        deaths: u32,
    }

    impl Readers {
        /// Reads until nothing is there. One that is killed has an heir.
        fn read(&mut self, buffer: &mut [u8]) {
            while !matches!(self.portion(buffer), Ok(Reading::Empty)) {
                if self.incoming.is_none() {
                    fuse::burn_after(None);
                    let rest = self.rest.as_ref().map(|rest| rest.try_clone().unwrap());
                    let (incoming, writing) =
                        Incoming::adopt(self.socket.as_fd(), Framing::Lines, 1 << 20, rest).unwrap();
                    assert!(!writing);
                    self.incoming = Some(incoming);
                    self.deaths += 1;
                }
            }
        }

        fn portion(&mut self, buffer: &mut [u8]) -> io::Result<Reading> {
            let Some(mut incoming) = self.incoming.take() else { return Err(io::ErrorKind::NotFound.into()) };
            let heard = &mut self.heard;
            let reading = incoming.hear(self.socket.as_fd(), buffer, |line, _| match line {
                Heard::Line(line) => heard.push(line.to_vec()),
                other => panic!("{other:?}"),
            })?;
            if incoming.wants_rest() {
                let rest = Rest::new()?;
                self.rest = Some(rest.as_fd().try_clone_to_owned()?);
                incoming.keep_rest(rest);
            }
            incoming.read_what_was_heard(self.socket.as_fd(), buffer)?;
            self.incoming = Some(incoming);
            Ok(reading)
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such socket")]
    fn a_reader_that_is_killed_anywhere_loses_no_line_and_hears_no_half_one() {
        let mut deaths = 0;
        for kill_after in 0..150 {
            let mut dice = Dice(u64::from(kill_after) + 1);
            let (socket, theirs) = socket::pair().unwrap();
            let incoming = Some(Incoming::new(socket.as_fd(), Framing::Lines, 1 << 20, true).unwrap());
            let mut readers = Readers { socket, rest: None, incoming, heard: Vec::new(), deaths: 0 };
            let lines: Vec<Vec<u8>> = (0..40)
                .map(|number| {
                    let long = [0, 3, 50, 700, 3000][dice.roll(5)];
                    [format!("{number} ").into_bytes(), vec![b'a' + (number % 26) as u8; long]].concat()
                })
                .collect();
            let text = lines.join(&b"\n"[..]);
            let mut left = [&text[..], b"\n"].concat();
            let mut buffer = [0; 256];
            fuse::burn_after(Some(kill_after));
            while !left.is_empty() {
                let size = (1 + dice.roll(600)).min(left.len());
                let sent = socket::write(theirs.as_fd(), &left[..size], true).unwrap();
                left.drain(..sent);
                readers.read(&mut buffer);
            }
            fuse::burn_after(None);
            deaths += readers.deaths;
            let mut once = readers.heard.clone();
            once.dedup();
            // Twice is one portion again, which may be several lines: the numbers tell.
            let mut seen = Vec::new();
            for line in once {
                if !seen.contains(&line) {
                    seen.push(line);
                }
            }
            assert!(seen == lines, "killed after {kill_after}");
            assert!(readers.heard.len() - lines.len() <= 256 / 2, "one portion at most comes twice");
        }
        assert!(deaths > 100, "{deaths}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such socket")]
    fn descriptors_come_with_their_lines_and_surplus_ones_are_closed() {
        for has_heirs in [false, true] {
            let (ours, theirs) = socket::pair().unwrap();
            let mut incoming = Incoming::new(ours.as_fd(), Framing::Lines, 100, has_heirs).unwrap();
            let (one, two) = (Rest::new().unwrap(), Rest::new().unwrap());
            socket::write(theirs.as_fd(), b"\"plain\"\n", true).unwrap();
            socket::write_with(theirs.as_fd(), b"\"first\"\n", &[one.as_fd()], true).unwrap();
            socket::write_with(theirs.as_fd(), b"\"second\"\n", &[two.as_fd()], true).unwrap();
            let many = vec![one.as_fd(); 16];
            socket::write_with(theirs.as_fd(), b"\"many\"\n", &many, true).unwrap();
            socket::write_with(theirs.as_fd(), b"\"more\"\n", &many, true).unwrap();
            drop(theirs);
            let (mut got, mut buffer) = (Vec::new(), [0; 64]);
            loop {
                let reading = incoming.hear(ours.as_fd(), &mut buffer, |heard, descriptors| {
                    let Heard::Line(line) = heard else { panic!() };
                    let line = String::from_utf8(line.to_vec()).unwrap();
                    let is_taken = ["\"first\"", "\"second\""].contains(&line.as_str());
                    let taken = is_taken.then(|| descriptors.pop_front().unwrap());
                    got.push((line, taken.is_some(), descriptors.len()));
                });
                incoming.read_what_was_heard(ours.as_fd(), &mut buffer).unwrap();
                if reading.unwrap() == Reading::Ended {
                    break;
                }
            }
            let names: Vec<&str> = got.iter().map(|(line, _, _)| line.as_str()).collect();
            assert_eq!(
                names,
                ["\"plain\"", "\"first\"", "\"second\"", "\"many\"", "\"more\""],
                "{has_heirs}"
            );
            assert_eq!(got.last().unwrap().2, 16);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such socket")]
    fn what_the_dead_have_said_is_left_for_an_heir_who_hears_all_of_it_again() {
        let (socket, theirs) = socket::pair().unwrap();
        let mut incoming = Incoming::new(socket.as_fd(), Framing::Lines, 100, true).unwrap();
        let mut buffer = [0; 8];
        let text = |heard: Heard<'_>| match heard {
            Heard::Line(line) => String::from_utf8(line.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        let mut heard = Vec::new();
        socket::write(theirs.as_fd(), b"1\n", true).unwrap();
        incoming.hear(socket.as_fd(), &mut buffer, |line, _| heard.push(text(line))).unwrap();
        socket::write(theirs.as_fd(), b"\"longer than a portion\"\n2\n\"half", true).unwrap();
        drop(theirs);
        while incoming.hear_on(socket.as_fd(), &mut buffer, |line, _| heard.push(text(line))).unwrap()
            != Reading::Ended
        {}
        assert_eq!(heard, ["1", "\"longer than a portion\"", "2"]);
        drop(incoming);
        socket::end(&socket);
        let (mut heir, _) = Incoming::adopt(socket.as_fd(), Framing::Lines, 100, None).unwrap();
        let mut again = Vec::new();
        while heir.hear_on(socket.as_fd(), &mut buffer, |line, _| again.push(text(line))).unwrap()
            != Reading::Ended
        {}
        assert_eq!(again, heard);
    }
}
