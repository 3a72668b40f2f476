//! The writing end of a channel: lines that wait for room, a bounded amount, some with a descriptor.
//!
//! A line with a descriptor goes out whole, in one piece with it, and nothing follows until the other side has said that
//! it came: whoever reads remembers one descriptor only (Node's `child_process` on both sides).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use crate::Framing;
use crate::advanced::{self, Unsendable};
use crate::socket::{self, WHOLE};

/// Lines that are to go out.
#[derive(Debug, Default)]
pub struct Outgoing {
    framing: Framing,
    bytes: VecDeque<u8>,
    lines: VecDeque<Line>,
    /// How many of them have a descriptor.
    descriptors: usize,
    /// Of the first line so much has gone.
    gone: usize,
    /// Short lines that wait for nothing but the end of the line that is on its way.
    at_once: VecDeque<u8>,
    /// Gone with a descriptor, and nobody has said whether that came.
    unsure: Option<Sent>,
}

#[derive(Debug)]
struct Line {
    /// Its end included.
    length: usize,
    descriptor: Option<OwnedFd>,
    /// How often it has gone before, in vain.
    tries: u32,
}

#[derive(Debug)]
struct Sent {
    line: Vec<u8>,
    descriptor: OwnedFd,
    tries: u32,
}

/// What an heir has to know of what goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Going {
    /// A line does so in parts from now on.
    InParts,
    /// No line is cut any more.
    Whole,
    /// All that was to go at once has gone.
    Answered,
}

/// Why a line was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The other side does not read: no more is held for it.
    QueueFull,
    /// It cannot be said as a frame.
    Unsendable(Unsendable),
}

impl Outgoing {
    /// Nothing yet; what comes is lines of JSON in any case, and goes out as this.
    #[must_use]
    pub fn new(framing: Framing) -> Outgoing {
        Outgoing { framing, ..Outgoing::default() }
    }

    /// Adds a line, which must not hold a line feed; its end is put to it. Whatever is to go first has to be added first.
    ///
    /// # Errors
    /// [`NotTaken`]: nothing was added. One line of any length always has room in an empty queue.
    pub fn push(&mut self, line: &[u8]) -> Result<(), NotTaken> {
        self.push_if(line, || true)
    }

    /// The same, but of one that will go in parts it is asked whether it may.
    ///
    /// # Errors
    /// [`NotTaken`], also if it may not.
    pub fn push_if(&mut self, line: &[u8], may_be_long: impl FnOnce() -> bool) -> Result<(), NotTaken> {
        let framed = self.framed(line)?;
        if framed.len() > WHOLE && !may_be_long() {
            return Err(NotTaken::QueueFull);
        }
        self.add(&framed, None)
    }

    /// The same with a descriptor, of which a duplicate goes. The line is shorter than [`WHOLE`].
    ///
    /// # Errors
    /// [`NotTaken`], also for a longer one, and if too many descriptors wait.
    pub fn push_with(&mut self, line: &[u8], descriptor: OwnedFd) -> Result<(), NotTaken> {
        let framed = self.framed(line)?;
        if framed.len() > WHOLE || self.descriptors >= MOST_DESCRIPTORS {
            return Err(NotTaken::QueueFull);
        }
        self.add(&framed, Some(descriptor))?;
        self.descriptors += 1;
        Ok(())
    }

    /// A line with its end.
    fn framed<'l>(&self, line: &'l [u8]) -> Result<Framed<'l>, NotTaken> {
        Ok(match self.framing {
            Framing::Lines => Framed { bytes: Cow::Borrowed(line), has_line_feed: true },
            Framing::Frames => {
                let json = std::str::from_utf8(line).map_err(|_| NotTaken::Unsendable(Unsendable::NoJson))?;
                let frame = advanced::encode(json).map_err(NotTaken::Unsendable)?;
                Framed { bytes: Cow::Owned(frame), has_line_feed: false }
            }
        })
    }

    fn add(&mut self, line: &Framed<'_>, descriptor: Option<OwnedFd>) -> Result<(), NotTaken> {
        let is_full = self.lines.len() >= MOST_LINES || self.bytes.len() + line.len() > MOST_BYTES;
        if is_full && !self.lines.is_empty() {
            return Err(NotTaken::QueueFull);
        }
        line.add_to(&mut self.bytes);
        self.lines.push_back(Line { length: line.len(), descriptor, tries: 0 });
        Ok(())
    }

    /// Adds a short line that does not wait for its turn: an answer to a descriptor that came.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn push_at_once(&mut self, line: &[u8]) -> Result<(), NotTaken> {
        let line = self.framed(line)?;
        if self.at_once.len() + line.len() > WHOLE {
            return Err(NotTaken::QueueFull);
        }
        line.add_to(&mut self.at_once);
        Ok(())
    }

    /// The other side has the descriptor that went last: what waited for that may go.
    pub fn arrived(&mut self) {
        self.unsure = None;
    }

    /// It has not: the line goes again, three times at most. Whether it does.
    pub fn went_astray(&mut self) -> bool {
        let Some(Sent { line, descriptor, tries }) = self.unsure.take() else { return true };
        if tries + 1 >= MOST_TRIES {
            return false;
        }
        for byte in line.iter().rev() {
            self.bytes.push_front(*byte);
        }
        let again = Line { length: line.len(), descriptor: Some(descriptor), tries: tries + 1 };
        self.lines.push_front(again);
        self.descriptors += 1;
        true
    }

    /// Whether there is nothing to write for now: what waits for a descriptor's arrival is not written before.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at_once.is_empty() && (self.lines.is_empty() || self.unsure.is_some())
    }

    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.at_once.len()
    }

    /// Writes as much as there is room for, many lines at once, each of up to [`WHOLE`] bytes whole or not at all. A longer
    /// one goes in parts: that is noted before the first and after the last one.
    ///
    /// # Errors
    /// EPIPE if the other side is gone, and those of `note`. No room is none.
    pub fn flush(
        &mut self,
        socket: BorrowedFd<'_>,
        note: impl FnMut(Going) -> io::Result<()>,
    ) -> io::Result<()> {
        match self.write(socket, note) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            written => written,
        }
    }

    fn write(
        &mut self,
        socket: BorrowedFd<'_>,
        mut note: impl FnMut(Going) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            if self.gone == 0 && !self.at_once.is_empty() {
                crate::step()?;
                let sent = socket::write(socket, self.at_once.make_contiguous(), false)?;
                // Whoever is killed between these two calls has an heir that answers twice: nothing tells whether it has gone.
                note(Going::Answered)?;
                self.at_once.drain(..sent);
                continue;
            }
            let Some(first) = self.lines.front() else { break };
            if self.unsure.is_some() {
                break;
            }
            if let Some(descriptor) = &first.descriptor {
                let bytes = &self.bytes.make_contiguous()[..first.length];
                socket::write_with(socket, bytes, &[descriptor.as_fd()], false)?;
                self.has_gone_with_descriptor();
                continue;
            }
            let length = first.length;
            let is_long = length > WHOLE;
            let count = if is_long { (length - self.gone).min(WHOLE) } else { self.whole_lines() };
            if is_long && self.gone == 0 {
                note(Going::InParts)?;
            }
            let sent = match socket::write(socket, &self.bytes.make_contiguous()[..count], false) {
                // Nothing of it has gone: it is not cut.
                Err(error) if is_long && self.gone == 0 => return note(Going::Whole).and(Err(error)),
                sent => sent?,
            };
            self.bytes.drain(..sent);
            self.gone += sent;
            while self.lines.front().is_some_and(|line| line.descriptor.is_none() && line.length <= self.gone)
            {
                self.gone -= self.lines.pop_front().map_or(0, |line| line.length);
            }
            if is_long && self.gone == 0 {
                note(Going::Whole)?;
            }
        }
        if self.bytes.capacity() > KEPT && self.bytes.is_empty() {
            self.bytes = VecDeque::new();
        }
        Ok(())
    }

    /// A line of this length goes whole or not at all, so all of it has gone.
    fn has_gone_with_descriptor(&mut self) {
        let Some(Line { length, descriptor: Some(descriptor), tries }) = self.lines.pop_front() else {
            return;
        };
        self.descriptors -= 1;
        let line = self.bytes.drain(..length).collect();
        self.unsure = Some(Sent { line, descriptor, tries });
    }

    /// Bytes of the first lines that go out as one piece.
    fn whole_lines(&self) -> usize {
        let mut sum = 0;
        for line in self.lines.iter().take_while(|line| line.descriptor.is_none()) {
            if sum + line.length > WHOLE {
                break;
            }
            sum += line.length;
        }
        sum - self.gone
    }
}

/// A line as it goes out.
struct Framed<'l> {
    bytes: Cow<'l, [u8]>,
    has_line_feed: bool,
}

impl Framed<'_> {
    fn len(&self) -> usize {
        self.bytes.len() + usize::from(self.has_line_feed)
    }

    fn add_to(&self, queue: &mut VecDeque<u8>) {
        queue.extend(&*self.bytes);
        queue.extend(self.has_line_feed.then_some(b'\n'));
    }
}

const MOST_LINES: usize = 4096;
const MOST_BYTES: usize = 1 << 20;
/// As many as a worker may ask to listen at, all at once.
const MOST_DESCRIPTORS: usize = 256;
const KEPT: usize = 64 * 1024;
/// As often as Node tries.
const MOST_TRIES: u32 = 4;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::socket::pair;
    use crate::{Descriptors, Framer, Framing, Heard};

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such socket")]
    fn lines_arrive_whole_and_in_order_however_slowly_they_are_read() {
        let (ours, theirs) = pair().unwrap();
        let (mut outgoing, mut framer, mut seen) =
            (Outgoing::default(), Framer::new(Framing::Lines, 1 << 20), Vec::new());
        let lines: Vec<Vec<u8>> =
            (0..500).map(|at| vec![b'a' + (at % 26) as u8; [1, 40, 5_000, 70_000][at % 4]]).collect();
        let (mut notes, mut buffer) = (Vec::new(), vec![0; 10_000]);
        let mut next = lines.iter().peekable();
        while seen.len() < lines.len() {
            while next.peek().is_some_and(|line| outgoing.push(line).is_ok()) {
                next.next();
            }
            outgoing
                .flush(ours.as_fd(), |going| {
                    notes.push(going);
                    Ok(())
                })
                .unwrap();
            assert_eq!(notes.last() == Some(&Going::InParts), outgoing.gone > 0);
            let got = socket::take(theirs.as_fd(), &mut buffer, &mut Descriptors::new(), true).unwrap();
            framer.feed(&buffer[..got], |heard| match heard {
                Heard::Line(line) => seen.push(line.to_vec()),
                other => panic!("{other:?}"),
            });
        }
        assert!(seen == lines && outgoing.is_empty());
        assert!(notes.chunks(2).all(|pair| pair == [Going::InParts, Going::Whole]));
        assert!(notes.len() >= 2 * lines.iter().filter(|line| line.len() >= WHOLE).count());
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such socket")]
    fn whoever_does_not_read_is_not_written_for_without_bound() {
        let (ours, _theirs) = pair().unwrap();
        let mut outgoing = Outgoing::default();
        let mut taken = 0;
        while outgoing.push(&[b'x'; 1000]).is_ok() {
            taken += 1;
            outgoing.flush(ours.as_fd(), |_| Ok(())).unwrap();
            assert!(taken < 10_000);
        }
        assert!(
            outgoing.len() <= MOST_BYTES
                && outgoing.push(&[b'x'; MOST_BYTES + 1]) == Err(NotTaken::QueueFull)
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such socket")]
    fn descriptors_do_not_wait_without_bound() {
        let (ours, theirs) = pair().unwrap();
        let mut outgoing = Outgoing::default();
        let push = |outgoing: &mut Outgoing| outgoing.push_with(b"x", theirs.try_clone().unwrap());
        assert_eq!((0..10_000).filter(|_| push(&mut outgoing).is_ok()).count(), MOST_DESCRIPTORS);
        assert!(outgoing.push(b"1").is_ok(), "others have room");
        for _ in 0..MOST_DESCRIPTORS {
            outgoing.flush(ours.as_fd(), |_| Ok(())).unwrap();
            outgoing.arrived();
        }
        assert!(push(&mut outgoing).is_ok() && outgoing.descriptors == 1);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such socket")]
    fn a_short_line_is_never_cut_by_a_full_socket() {
        let (ours, theirs) = pair().unwrap();
        let line = vec![b'x'; 20_000];
        let mut outgoing = Outgoing::default();
        while outgoing.push(&line).is_ok() {
            outgoing.flush(ours.as_fd(), |_| Ok(())).unwrap();
        }
        drop((outgoing, ours));
        let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
        loop {
            match socket::take(theirs.as_fd(), &mut buffer, &mut Descriptors::new(), true).unwrap() {
                0 => break,
                got => total += got,
            }
        }
        assert_eq!((total > 0, total % (line.len() + 1)), (true, 0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such socket")]
    fn nothing_follows_a_descriptor_until_it_has_arrived_but_answers_do() {
        let (ours, theirs) = pair().unwrap();
        let mut outgoing = Outgoing::default();
        let descriptor = || theirs.try_clone().unwrap();
        let (mut buffer, mut came) = ([0; 1000], Descriptors::new());
        let mut read = |came: &mut Descriptors| match socket::take(theirs.as_fd(), &mut buffer, came, false) {
            Ok(got) => String::from_utf8(buffer[..got].to_vec()).unwrap(),
            Err(_) => String::new(),
        };
        outgoing.push(b"1").unwrap();
        outgoing.push_with(b"2", descriptor()).unwrap();
        outgoing.push(b"3").unwrap();
        outgoing.flush(ours.as_fd(), |_| Ok(())).unwrap();
        // What was written before may come in one piece with it.
        let mut got = read(&mut came);
        if came.is_empty() {
            got += &read(&mut came);
        }
        assert_eq!((got.as_str(), came.len(), outgoing.is_empty()), ("1\n2\n", 1, true));
        outgoing.push_at_once(b"answer").unwrap();
        outgoing.flush(ours.as_fd(), |_| Ok(())).unwrap();
        assert_eq!((read(&mut came).as_str(), came.len()), ("answer\n", 1));
        for _ in 0..3 {
            assert!(outgoing.went_astray());
            outgoing.flush(ours.as_fd(), |_| Ok(())).unwrap();
            assert_eq!(read(&mut came), "2\n");
        }
        assert!(!outgoing.went_astray(), "four times in all");
        outgoing.flush(ours.as_fd(), |_| Ok(())).unwrap();
        assert_eq!((read(&mut came).as_str(), came.len()), ("3\n", 4));
        outgoing.push_with(b"4", descriptor()).unwrap();
        outgoing.push(b"5").unwrap();
        outgoing.flush(ours.as_fd(), |_| Ok(())).unwrap();
        assert_eq!(read(&mut came), "4\n");
        outgoing.arrived();
        outgoing.flush(ours.as_fd(), |_| Ok(())).unwrap();
        assert_eq!((read(&mut came).as_str(), came.len()), ("5\n", 5));
    }
}
