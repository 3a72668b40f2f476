//! The socket between keeper and broker process (`SOCK_SEQPACKET`, unix(7)): whole packets in order, with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::wire::{Item, MOST_DESCRIPTORS, MOST_ITEMS, SIZE};

/// One end.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
}

/// What one packet held.
#[derive(Debug, Default)]
pub struct Packet {
    /// Its words.
    pub items: Vec<Item>,
    /// Their descriptors, in order.
    pub descriptors: Vec<OwnedFd>,
    /// Descriptors were lost on the way, for want of room in our table.
    pub cut: bool,
}

/// What comes of listening.
#[derive(Debug)]
pub enum Heard {
    /// Something was said.
    Packet(Packet),
    /// Nothing at this moment.
    Nothing,
    /// The other side is gone.
    End,
}

impl Link {
    /// Both ends.
    ///
    /// # Errors
    /// EMFILE or ENFILE at the limit of open files.
    pub fn pair() -> io::Result<(Link, Link)> {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (one, other) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
        Ok((Link { socket: one }, Link { socket: other }))
    }

    /// The end that was inherited.
    #[must_use]
    pub fn from_descriptor(socket: OwnedFd) -> Link {
        Link { socket }
    }

    /// Says these words, with these descriptors, in one packet.
    ///
    /// # Errors
    /// EAGAIN if there is no room and `wait` is not set; EPIPE if the other side is gone; ETOOMANYREFS if too many
    /// descriptors are on their way (unix(7)).
    pub fn say(&self, items: &[Item], descriptors: &[BorrowedFd<'_>], wait: bool) -> io::Result<()> {
        let bytes: Vec<u8> = items.iter().flat_map(|item| item.encode()).collect();
        let said = [IoSlice::new(&bytes)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::TOOMANYREFS.into());
        }
        let flags = SendFlags::NOSIGNAL | if wait { SendFlags::empty() } else { SendFlags::DONTWAIT };
        loop {
            match sendmsg(&self.socket, &said, &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// The next packet.
    ///
    /// # Errors
    /// ENOMEM; an end of the other side is none.
    pub fn hear(&self, wait: bool) -> io::Result<Heard> {
        let mut bytes = [0; SIZE * MOST_ITEMS];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let got = loop {
            let mut room = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.socket, &mut room, &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Heard::Nothing),
                Err(Errno::CONNRESET) => return Ok(Heard::End),
                Err(error) => return Err(error.into()),
                Ok(got) => break got,
            }
        };
        let rights = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        let descriptors = rights.flatten().collect();
        if got.bytes == 0 {
            return Ok(Heard::End);
        }
        let items = bytes[..got.bytes].chunks_exact(SIZE).filter_map(Item::decode).collect();
        Ok(Heard::Packet(Packet { items, descriptors, cut: got.flags.contains(ReturnFlags::CTRUNC) }))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Packet {
    /// Each word with its descriptors; what is left over is closed.
    pub fn words(self) -> impl Iterator<Item = (Item, Vec<OwnedFd>)> {
        let mut descriptors = self.descriptors.into_iter();
        self.items.into_iter().map(move |item| {
            let own = descriptors.by_ref().take(item.descriptors as usize).collect();
            (item, own)
        })
    }
}
