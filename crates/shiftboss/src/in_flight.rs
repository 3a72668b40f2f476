//! What workers wrote and only this process has: bytes on their way from the output pipes to whoever reads the log,
//! counted in memory that outlives us. Whoever goes on after us tells how many were lost.
//!
//! Three positions, in bytes over all workers, each stored by one thread: what is taken from the pipes, as far as it is
//! not passed over, what of it is said to the log, as whole lines, and what of that the log has put out. Where they stand
//! is the ring's.

use crate::os::memory::Memory;
use crate::ring::{SAID_AT, TAKEN_AT, WAITING_AT};

/// The first two positions; the third is [`crate::log::Told`]'s.
#[derive(Default)]
pub(crate) struct InFlight {
    /// None if nobody goes on after us.
    memory: Option<Memory>,
    taken: u64,
    said: u64,
    /// Bytes of messages that wait until workers read what came before.
    waiting: u64,
    /// Connections that were accepted for workers and are with none of them.
    connections: u64,
}

/// What was in flight when another process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Bytes of lines that had no end yet.
    unfinished: u64,
    /// Bytes of whole lines; some of them may have been written.
    on_the_way: u64,
    /// Bytes of messages to workers.
    messages: u64,
    /// Connections that no worker had yet.
    connections: u64,
}

impl InFlight {
    /// Goes on from this position. What was lost before it is left as it stands there until there is another line: should
    /// we end before we have told it, our successor does.
    pub(crate) fn from(taken: u64, memory: Memory) -> Self {
        InFlight { memory: Some(memory), taken, said: taken, waiting: 0, connections: 0 }
    }

    /// So many bytes were read from a pipe.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.taken = self.taken.wrapping_add(bytes as u64);
        self.store(TAKEN_AT, self.taken);
    }

    /// So many of them are nothing that anybody will be told.
    pub(crate) fn pass_over(&mut self, bytes: usize) {
        self.taken = self.taken.wrapping_sub(bytes as u64);
        self.store(TAKEN_AT, self.taken);
    }

    /// So many of them are a line that is said to the log: up to which position all is said then.
    pub(crate) fn say(&mut self, bytes: usize) -> u64 {
        self.said = self.said.wrapping_add(bytes as u64);
        self.store(SAID_AT, self.said);
        self.said
    }

    /// Up to which position all is said.
    pub(crate) fn said(&self) -> u64 {
        self.said
    }

    /// So many bytes of messages wait for workers to read. From the first change on, what another process has left of its own
    /// counts as told.
    pub(crate) fn waits(&mut self, bytes: u64) {
        if std::mem::replace(&mut self.waiting, bytes) != bytes {
            self.store(WAITING_AT, self.on_its_way());
        }
    }

    /// So many connections are accepted, or about to be, and with no worker.
    pub(crate) fn holds(&mut self, connections: usize) {
        if std::mem::replace(&mut self.connections, connections as u64) != connections as u64 {
            self.store(WAITING_AT, self.on_its_way());
        }
    }

    /// Both in one word.
    fn on_its_way(&self) -> u64 {
        self.connections << BYTES | self.waiting & MOST_BYTES
    }

    /// What another process has left is told.
    pub(crate) fn is_told(&mut self) {
        self.store(WAITING_AT, self.on_its_way());
    }

    fn store(&mut self, at: usize, position: u64) {
        if let Some(memory) = &mut self.memory {
            memory.write(at, &position.to_le_bytes());
        }
    }
}

impl Lost {
    /// What has come so far and no further. Once a loss is told, more is put out than is said.
    pub(crate) fn between(taken: u64, said: u64, put_out: u64) -> Lost {
        match taken.checked_sub(said.max(put_out)) {
            Some(unfinished) => {
                Lost { unfinished, on_the_way: said.saturating_sub(put_out), ..Lost::default() }
            }
            // Nobody stores such positions.
            None => Lost::default(),
        }
    }

    pub(crate) fn and_on_its_way(self, word: u64) -> Lost {
        Lost { messages: word & MOST_BYTES, connections: word >> BYTES, ..self }
    }

    /// In words, if there is anything to tell: of output, and of messages.
    pub(crate) fn words(self) -> impl Iterator<Item = String> {
        let messages = (self.messages > 0).then(|| {
            format!(
                "lost with the broker process: {} bytes of messages that workers had no room for",
                self.messages
            )
        });
        let connections = (self.connections > 0).then(|| {
            let (count, s) = (self.connections, if self.connections == 1 { "" } else { "s" });
            format!("lost with the broker process: at most {count} connection{s} that no worker had yet")
        });
        self.output().into_iter().chain(messages).chain(connections)
    }

    fn output(self) -> Option<String> {
        let Lost { unfinished, on_the_way, .. } = self;
        let what = match (unfinished, on_the_way) {
            (0, 0) => return None,
            (_, 0) => format!("{unfinished} bytes of unfinished lines"),
            (0, _) => format!("at most {on_the_way} bytes of lines on their way to the log"),
            _ => format!(
                "{unfinished} bytes of unfinished lines, at most {on_the_way} bytes of lines on their way to the log"
            ),
        };
        Some(format!("lost with the broker process of what workers wrote: {what}"))
    }
}

/// Bits for the bytes of messages; above them stand connections.
const BYTES: u32 = 40;
const MOST_BYTES: u64 = (1 << BYTES) - 1;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::os::memory::Memory;
    use crate::ring::Ring;

    /// What another process finds once this one has ended.
    fn successor(ring: &Ring) -> Ring {
        Ring::adopt(ring.as_fd().try_clone_to_owned().unwrap()).unwrap().0
    }

    fn lost(ring: &Ring) -> [u64; 2] {
        let Lost { unfinished, on_the_way, .. } = successor(ring).lost();
        [unfinished, on_the_way]
    }

    #[test]
    fn whatever_was_read_and_not_put_out_is_counted() {
        let ring = Ring::new().unwrap();
        let (mut in_flight, mut told) = (ring.in_flight().unwrap(), ring.told().unwrap());
        assert_eq!(lost(&ring), [0, 0]);
        in_flight.take(100);
        assert_eq!(lost(&ring), [100, 0]);
        let first = in_flight.say(60);
        let second = in_flight.say(30);
        assert_eq!(lost(&ring), [10, 90]);
        told.output_up_to(first);
        assert_eq!(lost(&ring), [10, 30]);
        told.output_up_to(second);
        in_flight.pass_over(3);
        assert_eq!(lost(&ring), [7, 0]);
    }

    #[test]
    fn a_loss_is_told_until_it_was_put_out_and_then_no_more() {
        let ring = Ring::new().unwrap();
        let (mut in_flight, mut told) = (ring.in_flight().unwrap(), ring.told().unwrap());
        in_flight.take(100);
        let up_to = in_flight.say(60);
        told.output_up_to(up_to - 20);

        let (mut in_flight, _) = (ring.in_flight().unwrap(), ring.told().unwrap());
        in_flight.take(5);
        assert_eq!(lost(&ring), [45, 20], "killed before it has told anything");

        let (mut in_flight, mut told) = (ring.in_flight().unwrap(), ring.told().unwrap());
        told.output_up_to(0);
        assert_eq!(lost(&ring), [0, 0], "all that came before the first line is put out");
        in_flight.take(8);
        assert_eq!(lost(&ring), [8, 0]);
        let up_to = in_flight.say(8);
        assert_eq!(lost(&ring), [0, 8]);
        told.output_up_to(up_to);
        assert_eq!(lost(&ring), [0, 0]);
    }

    #[test]
    fn a_file_of_a_version_without_positions_and_one_with_senseless_ones_say_nothing() {
        let ring = Ring::new().unwrap();
        assert_eq!(ring.lost().words().count(), 0);
        let mut memory = Memory::adopt(ring.as_fd().try_clone_to_owned().unwrap()).unwrap();
        memory.write(SAID_AT, &[0xff; 8]);
        let ring = successor(&ring);
        assert_eq!(ring.lost().words().count(), 0);
        // And it counts on.
        let (mut in_flight, mut told) = (ring.in_flight().unwrap(), ring.told().unwrap());
        in_flight.take(9);
        let up_to = in_flight.say(4);
        told.output_up_to(up_to);
        assert_eq!(lost(&ring), [5, 0]);
    }

    #[test]
    fn a_loss_is_told_in_words() {
        let words = |unfinished, on_the_way| {
            Lost { unfinished, on_the_way, ..Lost::default() }.words().next().unwrap()
        };
        assert_eq!(
            words(7, 0),
            "lost with the broker process of what workers wrote: 7 bytes of unfinished lines"
        );
        assert!(words(0, 5).ends_with(": at most 5 bytes of lines on their way to the log"));
        assert!(
            words(7, 5)
                .ends_with(": 7 bytes of unfinished lines, at most 5 bytes of lines on their way to the log")
        );
    }

    #[test]
    fn messages_that_wait_are_counted_until_they_are_written_or_told() {
        let ring = Ring::new().unwrap();
        let mut in_flight = ring.in_flight().unwrap();
        let words = |ring: &Ring| successor(ring).lost().words().collect::<Vec<_>>();
        in_flight.waits(300);
        assert_eq!(
            words(&ring),
            ["lost with the broker process: 300 bytes of messages that workers had no room for"]
        );
        ring.in_flight().unwrap().is_told();
        assert_eq!(words(&ring), [""; 0]);
        in_flight.waits(5);
        in_flight.waits(0);
        assert_eq!(words(&ring), [""; 0]);
        in_flight.holds(1);
        assert_eq!(
            words(&ring),
            ["lost with the broker process: at most 1 connection that no worker had yet"]
        );
        in_flight.waits(5);
        assert_eq!(words(&ring).len(), 2);
        in_flight.holds(0);
        assert_eq!(words(&ring).len(), 1);
    }
}
