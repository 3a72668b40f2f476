//! The last events, in memory that outlives us: written before a step is recorded, so that whoever goes on after us
//! tells those that we have recorded and not told; and how much output of workers is with us alone.
//!
//! ```text
//! 0   format, where the oldest entry begins, where the newest ends, up to which event all are told: 8 bytes each
//! 32  positions in the output of workers: taken from the pipes, said, put out: 8 bytes each (`in_flight`); 0 in files of
//!     versions that had none
//! 56  bytes of messages that wait for workers to read, above bit 40 connections that no worker has yet: 8 bytes
//! 64  entries one after the other, round and round: length (4 bytes), event as JSON
//! ```
//! Positions only rise; each is stored after the bytes it speaks of.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use shiftboss_api::Event;

use crate::in_flight::{InFlight, Lost};
use crate::log::Told;
use crate::os::kill_points;
use crate::os::memory::Memory;

pub(crate) struct Ring {
    memory: Memory,
    begin: u64,
    end: u64,
}

impl Ring {
    pub(crate) fn new() -> io::Result<Ring> {
        let mut ring = Ring { memory: Memory::new("shiftboss-events", SIZE)?, begin: 0, end: 0 };
        ring.store(FORMAT_AT, FORMAT);
        Ok(ring)
    }

    /// With all events that it holds, and the number up to which they are told.
    pub(crate) fn adopt(file: OwnedFd) -> io::Result<(Ring, Vec<Event>, u64)> {
        let memory = Memory::adopt(file)?;
        let mut ring = Ring { memory, begin: 0, end: 0 };
        (ring.begin, ring.end) = (ring.load(BEGIN_AT), ring.load(END_AT));
        let told = ring.load(TOLD_AT);
        let is_sound = ring.load(FORMAT_AT) == FORMAT
            && ring.memory.bytes().len() == SIZE
            && ring.end.checked_sub(ring.begin).is_some_and(|held| held <= ROOM);
        if !is_sound {
            // Only what was not told yet is lost with it.
            return Ok((Ring::new()?, Vec::new(), told));
        }
        let events = ring.events();
        Ok((ring, events, told))
    }

    /// Takes in an event; the oldest ones make room.
    pub(crate) fn push(&mut self, event: &Event) {
        if let Ok(text) = serde_json::to_vec(event) {
            self.push_text(&text);
        }
    }

    fn push_text(&mut self, text: &[u8]) {
        let len = LENGTH + text.len() as u64;
        if len > ROOM {
            return;
        }
        while self.end + len - self.begin > ROOM {
            // Were the lengths damaged, all is forgotten and nothing else.
            self.begin = (self.begin + LENGTH + u64::from(self.length_at(self.begin))).min(self.end);
        }
        self.store(BEGIN_AT, self.begin);
        self.write(self.end, &u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
        self.write(self.end + LENGTH, text);
        self.end += len;
        self.store(END_AT, self.end);
    }

    /// Where it is noted which events were told.
    pub(crate) fn told(&self) -> io::Result<Told> {
        Ok(Told { memory: self.again()?, output: self.load(TAKEN_AT) })
    }

    /// Where it is counted what output is in flight, from where another process has left off.
    pub(crate) fn in_flight(&self) -> io::Result<InFlight> {
        Ok(InFlight::from(self.load(TAKEN_AT), self.again()?))
    }

    /// What was in flight when another process ended: to be asked before we count ourselves.
    pub(crate) fn lost(&self) -> Lost {
        let lost = Lost::between(self.load(TAKEN_AT), self.load(SAID_AT), self.load(PUT_OUT_AT));
        lost.and_on_its_way(self.load(WAITING_AT))
    }

    fn again(&self) -> io::Result<Memory> {
        Memory::adopt(self.memory.as_fd().try_clone_to_owned()?)
    }

    /// Forgets events that were never recorded: their step did not happen.
    pub(crate) fn cut_after(&mut self, seq: u64) {
        let mut at = self.begin;
        while at < self.end {
            let len = u64::from(self.length_at(at));
            // Also of one whose name only a newer version knows.
            if self.text_at::<Number>(at, len).is_none_or(|event| event.seq > seq) {
                break;
            }
            at = (at + LENGTH + len).min(self.end);
        }
        self.end = at;
        self.store(END_AT, self.end);
    }

    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut at = self.begin;
        while at < self.end {
            let len = u64::from(self.length_at(at));
            events.extend(self.text_at::<Event>(at, len));
            at += LENGTH + len;
        }
        events
    }

    fn text_at<T: DeserializeOwned>(&self, at: u64, len: u64) -> Option<T> {
        let mut text = vec![0; usize::try_from(len.min(ROOM)).ok()?];
        self.read(at + LENGTH, &mut text);
        serde_json::from_slice(&text).ok()
    }

    fn length_at(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn read(&self, at: u64, into: &mut [u8]) {
        let bytes = self.memory.bytes();
        for (place, into) in (at..).zip(into) {
            *into = bytes.get(place_of(place)).copied().unwrap_or(0);
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let first = bytes.len().min(SIZE - place_of(at));
        let (first, rest) = bytes.split_at(first);
        let place = place_of(at);
        let memory = &mut self.memory;
        kill_points::in_parts("an event is written", first, |at, part| memory.write(place + at, part));
        memory.write(DATA_AT, rest);
    }

    fn load(&self, at: usize) -> u64 {
        self.memory
            .bytes()
            .get(at..)
            .and_then(<[u8]>::first_chunk)
            .map_or(0, |word| u64::from_le_bytes(*word))
    }

    fn store(&mut self, at: usize, value: u64) {
        kill_points::point("a position in the events is written");
        self.memory.write(at, &value.to_le_bytes());
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

fn place_of(position: u64) -> usize {
    DATA_AT + usize::try_from(position % ROOM).unwrap_or(0)
}

const SIZE: usize = 256 * 1024;
const DATA_AT: usize = 64;
const ROOM: u64 = (SIZE - DATA_AT) as u64;
const LENGTH: u64 = 4;
const FORMAT: u64 = 0x0001_676e_6972_6273;
const FORMAT_AT: usize = 0;
const BEGIN_AT: usize = 8;
const END_AT: usize = 16;
pub(crate) const TOLD_AT: usize = 24;
pub(crate) const TAKEN_AT: usize = 32;
pub(crate) const SAID_AT: usize = 40;
pub(crate) const PUT_OUT_AT: usize = 48;
pub(crate) const WAITING_AT: usize = 56;

/// All that counts of an event here.
#[derive(Deserialize)]
struct Number {
    seq: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, reason: &str) -> Event {
        let mut event =
            Event::new(seq, "2026-11-24T08:00:00.000Z".to_owned(), shiftboss_api::EventName::WorkerDeath);
        event.reason = Some(reason.to_owned());
        event
    }

    fn reopened(ring: &Ring) -> (Ring, Vec<u64>, u64) {
        let (ring, events, told) = Ring::adopt(ring.as_fd().try_clone_to_owned().unwrap()).unwrap();
        (ring, events.iter().map(|event| event.seq).collect(), told)
    }

    #[test]
    fn the_last_events_are_there_after_many_rounds() {
        let mut ring = Ring::new().unwrap();
        for seq in 1..=5000 {
            ring.push(&event(seq, &"x".repeat((seq % 301) as usize)));
        }
        ring.told().unwrap().up_to(4990);
        let (_, seqs, told) = reopened(&ring);
        assert!(seqs.len() > 500 && seqs.is_sorted() && seqs.last() == Some(&5000), "{seqs:?}");
        assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1));
        assert_eq!(told, 4990);
    }

    #[test]
    fn events_of_a_step_that_was_never_recorded_are_forgotten() {
        let mut ring = Ring::new().unwrap();
        (1..=9).for_each(|seq| ring.push(&event(seq, "")));
        let (mut ring, _, _) = reopened(&ring);
        ring.cut_after(7);
        ring.push(&event(8, "another"));
        assert_eq!(reopened(&ring).1, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn an_event_that_only_a_newer_version_knows_costs_none_of_those_after_it() {
        let mut ring = Ring::new().unwrap();
        ring.push(&event(1, ""));
        let text = serde_json::to_string(&event(2, "")).unwrap().replace("worker_death", "worker_reborn");
        ring.push_text(text.as_bytes());
        ring.push(&event(3, ""));
        let (mut ring, _, _) = reopened(&ring);
        ring.cut_after(3);
        assert_eq!(reopened(&ring).1, [1, 3]);
    }

    #[test]
    fn damaged_lengths_cost_events_and_nothing_else() {
        let mut ring = Ring::new().unwrap();
        (1..=3000).for_each(|seq| ring.push(&event(seq, "some reason")));
        for at in (DATA_AT..SIZE).step_by(7) {
            ring.memory.write(at, &[0xff; 5]);
        }
        let (mut ring, _, _) = reopened(&ring);
        ring.cut_after(2990);
        (2991..=6000).for_each(|seq| ring.push(&event(seq, "some reason")));
        assert_eq!(reopened(&ring).1.last(), Some(&6000));
    }

    #[test]
    fn an_event_larger_than_all_room_is_passed_over() {
        let mut ring = Ring::new().unwrap();
        ring.push(&event(1, ""));
        ring.push(&event(2, &"x".repeat(SIZE)));
        assert_eq!(reopened(&ring).1, [1]);
    }
}
