//! Packets on the link between keeper and broker process, which may be of different versions.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::OnceLock;

use rustix::net::SendFlags;
use shiftboss_link::Link;
use shiftboss_link::wire::{Item, MOST_DESCRIPTORS, MOST_ITEMS};

/// Any packet is words and descriptors, none of them lost or made up; what is said in words comes as it was said.
pub fn try_out(bytes: &[u8]) {
    static LINK: OnceLock<(Link, Link)> = OnceLock::new();
    let (ours, theirs) = LINK.get_or_init(|| Link::pair().expect("a socket pair"));
    let Some((how, packet)) = bytes.split_first() else { return };
    if packet.is_empty() {
        return;
    }
    let count = usize::from(how & 7);
    let descriptors = vec![ours.as_fd(); count];
    // A packet as no keeper of ours would send it: of any length.
    if how & 8 == 0 {
        send(theirs.as_fd(), packet);
        let words = hear(ours, packet.len() / ITEM, 0);
        let said: Vec<Item> = words.into_iter().map(|(item, _)| item).collect();
        said_again(theirs, ours, &said, &[]);
    } else {
        let item = |bytes: &[u8]| Item {
            word: u32::from(bytes[0]),
            descriptors: u32::from(bytes[1]),
            key: u64::from(bytes[2]),
            value: u64::from(bytes[3]),
        };
        let items: Vec<Item> = packet.chunks_exact(4).map(item).take(MOST_ITEMS).collect();
        if !items.is_empty() {
            said_again(theirs, ours, &items, &descriptors);
        }
    }
}

fn said_again(from: &Link, to: &Link, items: &[Item], descriptors: &[BorrowedFd<'_>]) {
    let items = &items[..items.len().min(MOST_ITEMS)];
    if items.is_empty() {
        return;
    }
    assert!(descriptors.len() <= MOST_DESCRIPTORS);
    from.say(items, descriptors, false).expect("there is room");
    let words = hear(to, items.len(), descriptors.len());
    assert!(words.iter().map(|(item, _)| *item).eq(items.iter().copied()));
    let mut left = descriptors.len();
    for (item, own) in words {
        assert_eq!(own, left.min(item.descriptors as usize));
        left -= own;
    }
}

/// Each word with the number of its descriptors.
fn hear(link: &Link, items: usize, descriptors: usize) -> Vec<(Item, usize)> {
    let packet = link.hear(false).expect("it can be heard").expect("something was said");
    let words: Vec<(Item, usize)> = packet.words.iter().map(|(item, own)| (*item, own.len())).collect();
    assert_eq!(words.len(), items.min(MOST_ITEMS));
    assert!(words.iter().map(|(_, own)| own).sum::<usize>() <= descriptors);
    assert!(!packet.cut);
    words
}

fn send(socket: BorrowedFd<'_>, packet: &[u8]) {
    let sent = rustix::net::send(socket, packet, SendFlags::DONTWAIT);
    assert_eq!(sent, Ok(packet.len()));
}

/// Bytes of a word.
const ITEM: usize = 24;
