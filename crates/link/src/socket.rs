//! The socket between keeper and broker process (`SOCK_SEQPACKET`, unix(7)): whole packets in order, with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg,
    socketpair,
};

use crate::wire::{Item, MOST_DESCRIPTORS, MOST_ITEMS, SIZE};

/// One end.
#[derive(Debug)]
pub struct Link(pub OwnedFd);

/// What was said at once.
#[derive(Debug)]
pub struct Packet {
    /// Its words, each with its descriptors.
    pub words: Vec<(Item, Vec<OwnedFd>)>,
    /// Descriptors were lost on the way, for want of room in our table.
    pub cut: bool,
}

impl Link {
    /// Both ends.
    ///
    /// # Errors
    /// EMFILE or ENFILE at the limit of open files.
    pub fn pair() -> io::Result<(Link, Link)> {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (one, other) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
        Ok((Link(one), Link(other)))
    }

    /// Says these words, with these descriptors, in one packet.
    ///
    /// # Errors
    /// EAGAIN if there is no room and `wait` is not set; EPIPE if the other side is gone; ETOOMANYREFS if too many
    /// descriptors are on their way (unix(7)).
    pub fn say(&self, items: &[Item], descriptors: &[BorrowedFd<'_>], wait: bool) -> io::Result<()> {
        let bytes: Vec<u8> = items.iter().flat_map(|item| item.encode()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::TOOMANYREFS.into());
        }
        let flags = SendFlags::NOSIGNAL | if wait { SendFlags::empty() } else { SendFlags::DONTWAIT };
        retry_on_intr(|| sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, flags))?;
        Ok(())
    }

    /// The next packet; none if nothing was said, which is waited for if `wait` is set.
    ///
    /// # Errors
    /// EPIPE if the other side is gone; ENOMEM, and nothing is lost.
    pub fn hear(&self, wait: bool) -> io::Result<Option<Packet>> {
        let mut bytes = [0; SIZE * MOST_ITEMS];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let mut hear = || recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags);
        // That the other side has left without reading all is said once, before what it said itself (unix(7)).
        let got = match retry_on_intr(&mut hear).or_else(|error| match error {
            Errno::CONNRESET => retry_on_intr(&mut hear),
            error => Err(error),
        }) {
            Err(Errno::AGAIN) => return Ok(None),
            Ok(RecvMsg { bytes: 0, .. }) => return Err(Errno::PIPE.into()),
            got => got?,
        };
        let rights = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        // What belongs to no word is closed.
        let mut descriptors = rights.flatten().collect::<Vec<OwnedFd>>().into_iter();
        let items = bytes[..got.bytes].chunks_exact(SIZE).filter_map(Item::decode);
        let words = items.map(|item| (item, descriptors.by_ref().take(item.descriptors as usize).collect()));
        Ok(Some(Packet { words: words.collect(), cut: got.flags.contains(ReturnFlags::CTRUNC) }))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{END, EXIT, READY};

    #[test]
    fn the_last_words_of_one_that_left_without_reading_are_heard() {
        let (ours, theirs) = Link::pair().unwrap();
        ours.say(&[Item::new(EXIT, 1, 0)], &[], false).unwrap();
        for word in [READY, END] {
            theirs.say(&[Item::new(word, 0, 0)], &[], false).unwrap();
        }
        drop(theirs);
        for word in [READY, END] {
            let packet = ours.hear(false).unwrap().unwrap();
            assert_eq!(packet.words[0].0.word, word);
        }
        // A process that another test is just starting may have it, too, until it executes its program.
        assert_eq!(ours.hear(true).map(drop).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
