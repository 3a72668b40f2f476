//! Lanes: one address, a listening socket of its own for each slot, and a program that chooses among those attended to.
//!
//! The sockets form a group (`SO_REUSEPORT`, socket(7)). Left alone the kernel spreads new connections over all of them by
//! a hash, also to one at which nobody accepts: those wait there. So the group has a classic BPF program
//! (`SO_ATTACH_REUSEPORT_CBPF`), which draws one of the attended lanes for each new connection. It returns a position in
//! the group, and these are (`net/core/sock_reuseport.c`; tried below):
//!
//! * a socket gets the last position when it begins to listen;
//! * when one stops to listen (shutdown(2), close(2)), the last one takes its position;
//! * a connection belongs to its lane from its SYN on, whatever the program is later;
//! * a position that is not there is one chosen by hash;
//! * a group whose sockets have all stopped is gone, with its program.
//!
//! The kernel does not tell positions, so they are counted here, and noted in memory that outlives us before a socket
//! begins to listen and after it has stopped: whoever goes on sees by the sockets themselves (`SO_ACCEPTCONN`) which of
//! the two has happened. If several stop by themselves, the order is lost and the group is made anew.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{MemfdFlags, memfd_create};

use super::file_id::Noted;
use super::kill_points;
use super::listener::{BindError, Listener};
use crate::address::Address;

/// More lanes than this have no place in a program, whose length the kernel bounds (`BPF_MAXINSNS`, and
/// `net.core.optmem_max` of older kernels). Slots beyond share lanes with the first ones.
pub const MOST: u32 = 1000;

/// The lanes of one address. Each is what a [`Listener`] is, and can be opened, quieted and shut with the others.
#[derive(Debug)]
pub struct Lanes {
    lanes: Vec<Listener>,
    address: Address,
    order: Order,
    /// Lanes that are chosen; none = all.
    attended: Vec<u32>,
    /// They are meant to listen.
    open: bool,
    quiet: bool,
}

/// Which lane has which position.
#[derive(Debug, Default)]
struct Order {
    lanes: Vec<u32>,
    note: Option<File>,
}

impl Lanes {
    /// Binds so many lanes, at least one, and listens. Nobody else may listen there.
    ///
    /// # Errors
    /// [`BindError`]; then nothing is bound.
    pub fn bind(address: &Address, count: u32) -> Result<Lanes, BindError> {
        let first = Listener::lane(address, false)?;
        let address = first.address().clone();
        let order = Order::default();
        let attended = Vec::new();
        let mut lanes = Lanes { lanes: vec![first], address, order, attended, open: false, quiet: false };
        lanes.grow(count)?;
        lanes.reopen().map_err(|source| BindError::Other { address: lanes.address.clone(), source })?;
        Ok(lanes)
    }

    /// Goes on with those of another process, in whatever state it left them.
    ///
    /// # Errors
    /// Those of getsockname(2), and if what it has noted cannot be read.
    pub fn adopt(address: &Address, lanes: Vec<OwnedFd>, note: Option<OwnedFd>) -> io::Result<Lanes> {
        let lanes: Vec<_> = lanes
            .into_iter()
            .map(|socket| Listener::adopt(Noted { socket, file: None }, address))
            .collect::<io::Result<_>>()?;
        let address = lanes.first().map_or_else(|| address.clone(), |lane| lane.address().clone());
        let order = Order::adopt(note.map(File::from))?;
        let open = lanes.iter().any(Listener::is_to_listen);
        let mut lanes = Lanes { lanes, address, order, attended: Vec::new(), open, quiet: false };
        lanes.settle()?;
        Ok(lanes)
    }

    /// Where all of them are bound.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The lane of a slot, if there is one.
    #[must_use]
    pub fn lane(&self, slot: u32) -> Option<&Listener> {
        self.lanes.get(slot as usize % MOST as usize)
    }

    /// All lanes, in order.
    #[must_use]
    pub fn all(&self) -> &[Listener] {
        &self.lanes
    }

    /// What a successor has to have beside the sockets; kept up to date from now on.
    ///
    /// # Errors
    /// EMFILE or ENFILE at the limit of open files.
    pub fn note(&mut self) -> io::Result<BorrowedFd<'_>> {
        if self.order.note.is_none() {
            self.order.note = Some(memfd_create("shiftboss-lanes", MemfdFlags::CLOEXEC)?.into());
            self.order.write()?;
        }
        self.order.note.as_ref().map(File::as_fd).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Sees to it that this slot has a lane, open if the others are; whether there is a new one.
    ///
    /// # Errors
    /// [`BindError`]; those that were there remain, and the next call does the rest.
    pub fn make(&mut self, slot: u32) -> Result<bool, BindError> {
        let known = self.lanes.len();
        self.grow(slot.saturating_add(1))?;
        let is_left = self.open && self.order.lanes.len() < self.lanes.len();
        if is_left {
            self.listen().map_err(|source| BindError::Other { address: self.address.clone(), source })?;
        }
        Ok(is_left || self.lanes.len() > known)
    }

    fn grow(&mut self, count: u32) -> Result<(), BindError> {
        while self.lanes.len() < count.min(MOST) as usize {
            self.lanes.push(Listener::lane(&self.address, true)?);
        }
        Ok(())
    }

    /// Lets new connections in (again).
    ///
    /// # Errors
    /// Those of listen(2) and of `SO_ATTACH_REUSEPORT_CBPF`.
    pub fn reopen(&mut self) -> io::Result<()> {
        (self.open, self.quiet) = (true, false);
        self.listen()
    }

    /// Sees to it that all of them listen; new clients are let in, or kept waiting as before.
    fn listen(&mut self) -> io::Result<()> {
        self.settle()?;
        // Those that are attended come first: nobody is sent to another one before there is a program.
        let mut lanes: Vec<u32> = (0..).take(self.lanes.len()).collect();
        lanes.sort_by_key(|lane| !self.attended.contains(lane));
        let attended = self.attended.len().clamp(1, lanes.len());
        for (at, lane) in lanes.into_iter().enumerate() {
            if !self.order.lanes.contains(&lane) {
                self.order.joins(lane)?;
                kill_points::point("a lane is to listen");
            }
            let listener = &mut self.lanes[lane as usize];
            let listens = if self.quiet { listener.listen_quietly() } else { listener.reopen() };
            if let Err(error) = listens {
                self.settle()?;
                return Err(error);
            }
            if at + 1 == attended {
                self.choose()?;
            }
        }
        self.choose()
    }

    /// Keeps new clients waiting, without refusing them; those in the queues can still be accepted. One that cannot be
    /// filtered stays open.
    pub fn refuse_new(&mut self) {
        self.quiet = true;
        for lane in &mut self.lanes {
            let _ = lane.refuse_new();
        }
    }

    /// Connections that wait to be accepted, in all lanes.
    #[must_use]
    pub fn queued(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.queued().unwrap_or(0)).sum()
    }

    /// Refuses from now on and resets what is queued; returns how many that were.
    pub fn shut(&mut self) -> u32 {
        self.open = false;
        (0..).take(self.lanes.len()).map(|lane| self.shut_one(lane).unwrap_or(0)).sum()
    }

    /// Resets what is queued in this lane, of which nobody takes anything any more; returns how many that were.
    ///
    /// # Errors
    /// As for [`Lanes::reopen`].
    pub fn reset(&mut self, lane: u32) -> io::Result<u32> {
        let queued = self.lanes.get(lane as usize).map_or(Ok(0), Listener::queued)?;
        if queued > 0 {
            self.shut_one(lane)?;
            self.listen()?;
        }
        Ok(queued)
    }

    /// Those that workers have cut short or shut listen again as they should.
    ///
    /// # Errors
    /// As for [`Lanes::reopen`].
    pub fn assert_backlog(&mut self) -> io::Result<()> {
        if !self.open {
            return Ok(());
        }
        let known = self.order.lanes.len();
        self.settle()?;
        if self.order.lanes.len() == known {
            return self.lanes.iter_mut().try_for_each(Listener::assert_backlog);
        }
        self.listen()
    }

    /// From now on new connections come to the lanes of these slots only; to all if these are none.
    ///
    /// # Errors
    /// Those of `SO_ATTACH_REUSEPORT_CBPF`: ENOMEM.
    pub fn attend(&mut self, slots: impl IntoIterator<Item = u32>) -> io::Result<()> {
        let mut attended: Vec<u32> = slots.into_iter().map(|slot| slot % MOST).collect();
        attended.sort_unstable();
        attended.dedup();
        if attended == self.attended {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.attended, attended);
        let chosen = self.choose();
        if chosen.is_err() {
            // It is tried again.
            self.attended = before;
        }
        chosen
    }

    /// Puts the program in place that chooses the attended lanes.
    fn choose(&self) -> io::Result<()> {
        let positions = |chosen: &dyn Fn(&u32) -> bool| {
            let all = (0..).zip(&self.order.lanes);
            all.filter(|(_, lane)| chosen(lane)).map(|(position, _)| position).collect::<Vec<u32>>()
        };
        let mut chosen = positions(&|lane| self.attended.contains(lane));
        if chosen.is_empty() {
            chosen = positions(&|_| true);
        }
        match self.order.lanes.first() {
            Some(any) => {
                kill_points::point("lanes are chosen among");
                attach(self.lanes[*any as usize].as_fd(), &program(&chosen))
            }
            None => Ok(()),
        }
    }

    fn shut_one(&mut self, lane: u32) -> io::Result<u32> {
        let Some(listener) = self.lanes.get_mut(lane as usize) else { return Ok(0) };
        let queued = listener.shut()?;
        kill_points::point("a lane was shut");
        self.order.leaves(lane)?;
        Ok(queued)
    }

    /// Takes out of the order whoever has stopped to listen without us.
    fn settle(&mut self) -> io::Result<()> {
        let mut stopped = Vec::new();
        for lane in &self.order.lanes {
            let listens = self.lanes.get(*lane as usize).map_or(Ok(false), Listener::is_listening)?;
            if !listens {
                stopped.push(*lane);
            }
        }
        match stopped[..] {
            [] => Ok(()),
            [lane] => self.order.leaves(lane),
            // In which order they did is not known, nor who has which position now.
            _ => {
                for lane in &mut self.lanes {
                    lane.shut()?;
                }
                self.order.lanes.clear();
                self.order.write()
            }
        }
    }
}

impl Order {
    fn adopt(note: Option<File>) -> io::Result<Order> {
        let Some(note) = note else { return Ok(Order::default()) };
        let mut words = vec![0; NOTE];
        let mut filled = 0;
        while filled < words.len() {
            match note.read_at(&mut words[filled..], filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        let mut words = words.as_chunks().0.iter().map(|word| u16::from_le_bytes(*word));
        let count = words.next().unwrap_or(0);
        let lanes = words.take(usize::from(count)).map(u32::from).collect();
        Ok(Order { lanes, note: Some(note) })
    }

    /// To be called before the lane begins to listen.
    fn joins(&mut self, lane: u32) -> io::Result<()> {
        self.lanes.push(lane);
        self.write()
    }

    /// To be called after it has stopped.
    fn leaves(&mut self, lane: u32) -> io::Result<()> {
        if let Some(position) = self.lanes.iter().position(|other| *other == lane) {
            self.lanes.swap_remove(position);
        }
        self.write()
    }

    /// One page, so it is never half of it.
    fn write(&self) -> io::Result<()> {
        let Some(note) = &self.note else { return Ok(()) };
        let words = std::iter::once(self.lanes.len()).chain(self.lanes.iter().map(|lane| *lane as usize));
        let bytes: Vec<u8> =
            words.flat_map(|word| u16::try_from(word).unwrap_or(u16::MAX).to_le_bytes()).collect();
        note.write_all_at(&bytes, 0)
    }
}

/// Draws one of these positions, which are in order. Neighbours are one step.
fn program(positions: &[u32]) -> Vec<libc::sock_filter> {
    let count = u32::try_from(positions.len()).unwrap_or(u32::MAX);
    let mut program = vec![
        statement(LOAD_WORD, RANDOM),
        // The kernel refuses to divide by 0.
        statement(MODULO, count.max(1)),
    ];
    let mut drawn = 0;
    for run in positions.chunk_by(|one, next| one + 1 == *next) {
        let end = drawn + u32::try_from(run.len()).unwrap_or(u32::MAX);
        if end < count {
            program.push(libc::sock_filter { code: JUMP_IF_AT_LEAST, jt: 2, jf: 0, k: end });
        }
        program.push(statement(ADD, run[0] - drawn));
        program.push(statement(RETURN_IT, 0));
        drawn = end;
    }
    program
}

fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// Gives a program to the group in which this socket listens, in place of another.
fn attach(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        // The kernel only reads it.
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the structure, of that size, and as many statements as it says.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A count and as many lanes, two bytes each.
const NOTE: usize = 2 + 2 * MOST as usize;
// linux/filter.h, linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const MODULO: u16 = 0x94;
const ADD: u16 = 0x04;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN_IT: u16 = 0x16;
/// `SKF_AD_OFF + SKF_AD_RANDOM`: a random number in place of a word of the packet.
const RANDOM: u32 = (-0x1000_i32 + 56).cast_unsigned();

#[cfg(test)]
mod tests;
