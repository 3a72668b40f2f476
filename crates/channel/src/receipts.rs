//! What is owed to the other side for each descriptor that it has sent: whether it came. It waits for that with all else that
//! it has to say, and cannot bear one that it does not wait for (Node's `child_process`).
//!
//! In memory they are a list, for an heir a word: a 1, then a bit for each, the last one lowest.

/// These are owed as well. More than a word holds are not noted.
pub(crate) fn noted(note: u64, more: &[bool]) -> u64 {
    let is_full = |note: u64| note.leading_zeros() == 0;
    more.iter()
        .fold(note, |note, came| if is_full(note) { note } else { note.max(1) << 1 | u64::from(*came) })
}

/// Those that are.
pub(crate) fn read(note: u64) -> Vec<bool> {
    let count = note.max(1).ilog2();
    (0..count).rev().map(|at| note >> at & 1 == 1).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read as _};
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::{Framing, Going, Heard, Incoming, LONGEST, Outgoing, Reading, Rest, fuse, node, socket};

    /// Whoever reads, and what is held for an heir.
    struct Readers {
        socket: OwnedFd,
        rest: Option<OwnedFd>,
        living: Option<(Incoming, Outgoing)>,
        /// Killed after a receipt has gone, before that was noted.
        answers_again: bool,
        deaths: u32,
    }

    impl Readers {
        /// Reads until nothing is there. One that is killed has an heir.
        fn read(&mut self) {
            while !matches!(self.portion(), Ok(Reading::Empty)) {
                fuse::burn_after(None);
                self.deaths += u32::from(self.living.is_none());
                self.living.get_or_insert_with(|| {
                    let rest = self.rest.as_ref().map(|rest| rest.try_clone().unwrap());
                    let adopted = Incoming::adopt(self.socket.as_fd(), Framing::Lines, LONGEST, rest);
                    (adopted.unwrap().0, Outgoing::default())
                });
            }
        }

        fn portion(&mut self) -> io::Result<Reading> {
            let (mut incoming, mut outgoing) = self.living.take().ok_or(io::ErrorKind::NotFound)?;
            self.answer(&mut incoming, &mut outgoing)?;
            let (mut buffer, mut receipts) = ([0; 256], Vec::new());
            let reading = incoming.hear(self.socket.as_fd(), &mut buffer, |heard, descriptors| {
                if heard == Heard::Line(b"\"with\"") {
                    receipts.push(descriptors.pop_front().is_some());
                }
            })?;
            incoming.owes(receipts);
            if incoming.wants_rest() {
                let rest = Rest::new()?;
                self.rest = Some(rest.as_fd().try_clone_to_owned()?);
                incoming.keep_rest(rest);
            }
            incoming.read_what_was_heard(self.socket.as_fd(), &mut buffer)?;
            self.answer(&mut incoming, &mut outgoing)?;
            self.living = Some((incoming, outgoing));
            Ok(reading)
        }

        fn answer(&mut self, incoming: &mut Incoming, outgoing: &mut Outgoing) -> io::Result<()> {
            for came in incoming.take_due() {
                let receipt = if came { node::HANDLE_ACK } else { node::HANDLE_NACK };
                outgoing.push_at_once(receipt.as_bytes()).unwrap();
            }
            outgoing.flush(self.socket.as_fd(), |going| {
                let noted = incoming.notes(going);
                self.answers_again |= going == Going::Answered && noted.is_err();
                noted
            })
        }
    }

    /// All that is there. It is not killed for that.
    fn take(mut theirs: &UnixStream) -> Vec<u8> {
        let mut all = Vec::new();
        assert!(theirs.read_to_end(&mut all).unwrap_err().kind() == io::ErrorKind::WouldBlock);
        all
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such socket")]
    fn each_descriptor_has_its_receipt_wherever_its_reader_is_killed() {
        let (mut deaths, mut twice) = (0, 0);
        for kill_after in 0..200_u32 {
            let (socket, theirs) = socket::pair().unwrap();
            let theirs = UnixStream::from(theirs);
            theirs.set_nonblocking(true).unwrap();
            let incoming = Incoming::new(socket.as_fd(), Framing::Lines, LONGEST, true).unwrap();
            let living = Some((incoming, Outgoing::default()));
            let mut readers = Readers { socket, rest: None, living, answers_again: false, deaths: 0 };
            fuse::burn_after(Some(kill_after));
            for round in 0..8_u32 {
                let came = round % 3 != 2;
                // In the middle of another line, and in a full socket, too.
                socket::write(theirs.as_fd(), b"\"before\"\n\"half", true).unwrap();
                if round % 2 == 1 {
                    readers.read();
                }
                let is_full = round % 4 >= 2;
                while is_full && socket::write(readers.socket.as_fd(), b"\"full\"\n", false).is_ok() {}
                socket::write(theirs.as_fd(), b"\"\n", true).unwrap();
                if came {
                    let sent = readers.socket.as_fd();
                    socket::write_with(theirs.as_fd(), b"\"with\"\n\"ha", &[sent], true).unwrap();
                } else {
                    socket::write(theirs.as_fd(), b"\"with\"\n\"ha", true).unwrap();
                }
                readers.read();
                socket::write(theirs.as_fd(), b"lf\"\n", true).unwrap();
                let mut got = take(&theirs);
                readers.read();
                got.extend(take(&theirs));
                let got = String::from_utf8(got).unwrap().replace("\"full\"\n", "");
                let once = format!("{}\n", if came { node::HANDLE_ACK } else { node::HANDLE_NACK });
                let again = std::mem::take(&mut readers.answers_again);
                assert_eq!(got, once.repeat(1 + usize::from(again)), "{round}, killed after {kill_after}");
                twice += u32::from(again);
            }
            fuse::burn_after(None);
            deaths += readers.deaths;
        }
        assert!(deaths > 100 && twice * 5 < deaths, "{twice} of {deaths}");
    }

    #[test]
    fn they_are_in_order_and_many_are_not_all_noted() {
        let list = [true, false, false, true];
        assert_eq!(read(noted(noted(0, &list[..1]), &list[1..])), list);
        assert_eq!((read(0), read(noted(0, &[]))), (vec![], vec![]));
        assert_eq!(read(noted(0, &[false; 100])), [false; 63]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such socket")]
    fn a_rest_of_a_version_without_them_is_read() {
        let (socket, _theirs) = socket::pair().unwrap();
        let rest = Rest::new().unwrap();
        let file = std::fs::File::from(rest.as_fd().try_clone_to_owned().unwrap());
        file.set_len(48).unwrap();
        let (mut heir, partial, _) = Rest::adopt(file.into(), socket.as_fd()).unwrap();
        assert!(partial.is_empty() && heir.owed().is_empty());
        heir.owes_nothing().unwrap();
    }
}
