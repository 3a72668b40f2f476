//! The writing end of a channel: lines that wait for room, a bounded amount.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use crate::socket::{self, WHOLE};

/// Lines that are to go out.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: VecDeque<u8>,
    /// Lengths of the lines, ends included.
    lines: VecDeque<usize>,
    /// Of the first line so much has gone.
    gone: usize,
}

/// The other side does not read: no more is held for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

impl Outgoing {
    /// Adds a line, which must not hold a line feed; its end is put to it. Whatever is to go first has to be added first.
    ///
    /// # Errors
    /// [`QueueFull`]: nothing was added. One line of any length always has room in an empty queue.
    pub fn push(&mut self, line: &[u8]) -> Result<(), QueueFull> {
        self.push_frame(line)?;
        self.bytes.push_back(b'\n');
        if let Some(length) = self.lines.back_mut() {
            *length += 1;
        }
        Ok(())
    }

    /// Adds a whole frame: see [`advanced::encode`](crate::advanced::encode).
    ///
    /// # Errors
    /// As of [`Outgoing::push`].
    pub fn push_frame(&mut self, frame: &[u8]) -> Result<(), QueueFull> {
        let is_full = self.lines.len() >= MOST_LINES || self.bytes.len() + frame.len() > MOST_BYTES;
        if is_full && !self.lines.is_empty() {
            return Err(QueueFull);
        }
        self.bytes.extend(frame);
        self.lines.push_back(frame.len());
        Ok(())
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes as much as there is room for, many lines at once, each of up to [`WHOLE`] bytes whole or not at all. A longer
    /// one goes in parts: `in_parts` is told before the first and after the last one.
    ///
    /// # Errors
    /// EPIPE if the other side is gone, and those of `in_parts`. No room is none.
    pub fn flush(
        &mut self,
        socket: BorrowedFd<'_>,
        mut in_parts: impl FnMut(bool) -> io::Result<()>,
    ) -> io::Result<()> {
        while let Some(first) = self.lines.front().copied() {
            let is_long = first > WHOLE;
            let count = if is_long { (first - self.gone).min(WHOLE) } else { self.whole_lines() };
            if is_long && self.gone == 0 {
                in_parts(true)?;
            }
            let bytes = &self.bytes.make_contiguous()[..count];
            let sent = match socket::write(socket, bytes, false) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.bytes.drain(..sent);
            self.gone += sent;
            while self.lines.front().is_some_and(|line| *line <= self.gone) {
                self.gone -= self.lines.pop_front().unwrap_or(0);
            }
            if is_long && self.gone == 0 {
                in_parts(false)?;
            }
        }
        if self.bytes.capacity() > KEPT {
            self.bytes = VecDeque::new();
        }
        Ok(())
    }

    /// Bytes of the first lines that go out as one piece.
    fn whole_lines(&self) -> usize {
        let mut sum = 0;
        for line in &self.lines {
            if sum + line > WHOLE {
                break;
            }
            sum += line;
        }
        sum - self.gone
    }
}

const MOST_LINES: usize = 4096;
const MOST_BYTES: usize = 1 << 20;
const KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::socket::pair;
    use crate::{Descriptors, Framer, Framing, Heard};

    #[test]
    fn lines_arrive_whole_and_in_order_however_slowly_they_are_read() {
        let (ours, theirs) = pair().unwrap();
        let (mut outgoing, mut framer, mut seen) =
            (Outgoing::default(), Framer::new(Framing::Lines, 1 << 20), Vec::new());
        let lines: Vec<Vec<u8>> =
            (0..500).map(|at| vec![b'a' + (at % 26) as u8; [1, 40, 5_000, 70_000][at % 4]]).collect();
        let (mut parts, mut buffer) = (0, vec![0; 10_000]);
        let mut next = lines.iter().peekable();
        while seen.len() < lines.len() {
            while next.peek().is_some_and(|line| outgoing.push(line).is_ok()) {
                next.next();
            }
            outgoing
                .flush(ours.as_fd(), |_| {
                    parts += 1;
                    Ok(())
                })
                .unwrap();
            let got = socket::take(theirs.as_fd(), &mut buffer, &mut Descriptors::new(), true).unwrap();
            framer.feed(&buffer[..got], |heard| match heard {
                Heard::Line(line) => seen.push(line.to_vec()),
                other => panic!("{other:?}"),
            });
        }
        assert!(seen == lines && outgoing.is_empty());
        assert_eq!(parts, 2 * lines.iter().filter(|line| line.len() >= WHOLE).count());
    }

    #[test]
    fn whoever_does_not_read_is_not_written_for_without_bound() {
        let (ours, _theirs) = pair().unwrap();
        let mut outgoing = Outgoing::default();
        let mut taken = 0;
        while outgoing.push(&[b'x'; 1000]).is_ok() {
            taken += 1;
            outgoing.flush(ours.as_fd(), |_| Ok(())).unwrap();
            assert!(taken < 10_000);
        }
        assert!(outgoing.len() <= MOST_BYTES && outgoing.push(&[b'x'; MOST_BYTES + 1]) == Err(QueueFull));
    }

    #[test]
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
}
