//! Writes down each step for a successor, before the step's effects are performed: core's records and the step's events.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::ptr::NonNull;

use shiftboss_api as api;
use shiftboss_core::App;
use shiftboss_core::id::WorkerId;
use shiftboss_core::snapshot::{Full, Layout, Records, Store};

use crate::in_flight::{InFlight, Lost};
use crate::keeper::Keeper;
use crate::keys::Key;
use crate::log::Told;
use crate::os::kill_points;
use crate::os::memory::Memory;
use crate::ring::Ring;

pub(crate) struct Recorder {
    records: Records<Memory>,
    ring: Ring,
}

impl Store for Memory {
    fn bytes(&self) -> &[u8] {
        Memory::bytes(self)
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        kill_points::in_parts("a record is written", bytes, |place, part| {
            Memory::write(self, at + place, part);
        });
    }
}

impl Recorder {
    /// Begins, and has the keeper hold what is written.
    pub(crate) fn new(keeper: &Keeper) -> io::Result<Recorder> {
        let layout = Layout::default();
        let memory = Memory::new("shiftboss-records", layout.size())?;
        // Whoever finds them finds at least that nothing was recorded yet.
        let records = Records::new(memory, layout);
        let ring = Ring::new()?;
        keeper.deposit(Key::Records, &[records.store().as_fd()], 0)?;
        keeper.deposit(Key::Ring, &[ring.as_fd()], 0)?;
        Ok(Recorder { records, ring })
    }

    /// Goes on with the records of another process.
    pub(crate) fn adopt(memory: Memory, ring: Ring) -> io::Result<Recorder> {
        let records = Records::adopt(memory).map_err(|refused| io::Error::other(refused.to_string()))?;
        Ok(Recorder { records, ring })
    }

    /// Records what the last step has changed, and what it has to tell.
    pub(crate) fn step(&mut self, app: &mut App, events: &[api::Event]) -> Result<(), Full> {
        events.iter().for_each(|event| self.ring.push(event));
        let recorded = self.records.record(app);
        kill_points::point("a step is recorded");
        recorded
    }

    /// Where it is noted which events were told.
    pub(crate) fn told(&self) -> io::Result<Told> {
        self.ring.told()
    }

    /// Where it is counted what output is in flight.
    pub(crate) fn in_flight(&self) -> io::Result<InFlight> {
        self.ring.in_flight()
    }

    /// What output was lost with the process whose records these are, as long as we have said none.
    pub(crate) fn lost(&self) -> Lost {
        self.ring.lost()
    }

    /// Where the pid of a worker is to stand: in bytes from the beginning, and in memory. Whatever stood there is that of
    /// nobody any more.
    pub(crate) fn word(&mut self, worker: WorkerId) -> Option<(usize, NonNull<u32>)> {
        let at = self.records.pid_word(worker)?;
        Store::write(self.records.store_mut(), at, &[0; 4]);
        Some((at, self.records.store().address(at)?))
    }

    /// The pid that stands there; none if its process was never started.
    pub(crate) fn pid(&self, worker: WorkerId) -> Option<u32> {
        let pid = self.records.store().word(self.records.pid_word(worker)?);
        (pid > 0).then_some(pid)
    }

    /// Up to which rung a worker was asked to leave, from 1, since its ladder began.
    pub(crate) fn rungs(&self, worker: WorkerId) -> u32 {
        let word = self.beside(worker);
        (word & LOW).saturating_sub(word >> HALF)
    }

    /// The number of the last signal, over all its ladders.
    pub(crate) fn last_signal(&self, worker: WorkerId) -> u32 {
        self.beside(worker) & LOW
    }

    fn beside(&self, worker: WorkerId) -> u32 {
        self.records.pid_word(worker).map_or(0, |at| self.records.store().word(at + BESIDE))
    }

    fn put_beside(&mut self, worker: WorkerId, word: u32) {
        if let Some(at) = self.records.pid_word(worker) {
            Store::write(self.records.store_mut(), at + BESIDE, &word.to_ne_bytes());
        }
    }

    /// The records as they are now.
    pub(crate) fn copy(&self) -> io::Result<OwnedFd> {
        self.records.store().copy("shiftboss-records-copy")
    }

    /// How many steps are recorded.
    pub(crate) fn steps(&self) -> u64 {
        self.records.step()
    }

    /// A worker's ladder begins anew.
    pub(crate) fn begin_ladder(&mut self, worker: WorkerId) {
        let last = self.last_signal(worker);
        self.put_beside(worker, last << HALF | last);
    }

    /// A worker is asked by this rung of its ladder; the signal's number.
    pub(crate) fn asks(&mut self, worker: WorkerId, rung: u32) -> u32 {
        let word = self.beside(worker);
        let next = (word >> HALF).saturating_add(rung).saturating_add(1).max(word & LOW).min(LOW);
        self.put_beside(worker, word & !LOW | next);
        next
    }
}

/// Opens what another process has written: the records' bytes, the ring, its events, and up to which they are told.
pub(crate) fn open(records: OwnedFd, ring: OwnedFd) -> io::Result<(Memory, Ring, Vec<api::Event>, u64)> {
    let memory = Memory::adopt(records)?;
    let (ring, events, told) = Ring::adopt(ring)?;
    Ok((memory, ring, events, told))
}

/// The second half of the word of 8 bytes that begins with the pid.
///
/// In its low half stands the number of the last signal, in its high half that of the last one before the present ladder.
const BESIDE: usize = 4;
const HALF: u32 = 16;
const LOW: u32 = (1 << HALF) - 1;
