//! The beginning of a line that is not complete, in memory that outlives the reader, so that another one goes on with it.
//!
//! ```text
//! 0   where the rest begins, its length | what is about to be read from the socket, and the rest after that |
//!     whether a line to the other side is cut | receipts that are owed, and after the reading
//! 64  data
//! ```
//!
//! What is about to be read is noted before it is. Whether it was the kernel tells: see `offset`. A version that did not know
//! of receipts has written 48 bytes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::{offset, receipts};

/// Such memory.
#[derive(Debug)]
pub struct Rest {
    file: File,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    at: u64,
    len: u64,
    /// Bytes about to be read; 0 = none.
    reading: u64,
    next_at: u64,
    next_len: u64,
    /// A line that goes out in parts is not complete.
    writing: u64,
    /// See `receipts`.
    owed: u64,
    next_owed: u64,
}

impl Rest {
    /// Empty.
    ///
    /// # Errors
    /// EMFILE or ENFILE at the limit of open files.
    pub fn new() -> io::Result<Rest> {
        let file = File::from(memfd_create("shiftboss-rest", MemfdFlags::CLOEXEC)?);
        let rest = Rest { file, state: State::default() };
        rest.write_state()?;
        Ok(rest)
    }

    /// What another reader of this socket has left: its rest, and whether it was in the middle of a line to the other
    /// side.
    ///
    /// # Errors
    /// If that cannot be read: nothing is known then of where in the stream the reader was.
    pub fn adopt(file: OwnedFd, socket: BorrowedFd<'_>) -> io::Result<(Rest, Vec<u8>, bool)> {
        let file = File::from(file);
        let mut words = [0; DATA as usize];
        if file.read_at(&mut words, 0)? < OLD_STATE {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut state = State::decode(&words);
        let ahead = u64::try_from(offset::get(socket)?).unwrap_or(0);
        if state.reading > 0 && ahead < state.reading {
            (state.at, state.len, state.owed) = (state.next_at, state.next_len, state.next_owed);
        }
        state.reading = 0;
        let mut rest = vec![0; usize::try_from(state.len).unwrap_or(0)];
        file.read_exact_at(&mut rest, DATA + state.at)?;
        let writing = state.writing > 0;
        let rest_file = Rest { file, state };
        rest_file.write_state()?;
        Ok((rest_file, rest, writing))
    }

    /// Notes, before `count` bytes are read, what the rest is after that, and what is owed for them.
    pub(crate) fn is_to_be(&mut self, rest: &[u8], count: usize, owed: &[bool]) -> io::Result<()> {
        let state = &mut self.state;
        let len = rest.len() as u64;
        let grows = len >= state.len && state.len > 0 && len == state.len + count as u64;
        if grows {
            // The same line goes on.
            let known = usize::try_from(state.len).unwrap_or(0);
            crate::step()?;
            self.file.write_all_at(&rest[known..], DATA + state.at + state.len)?;
            (state.next_at, state.next_len) = (state.at, len);
        } else {
            // Beside what is there: that counts until it is read.
            state.next_at = if len <= state.at { 0 } else { state.at + state.len };
            state.next_len = len;
            crate::step()?;
            self.file.write_all_at(rest, DATA + state.next_at)?;
        }
        self.state.reading = count as u64;
        self.state.next_owed = receipts::noted(self.state.owed, owed);
        self.write_state()
    }

    /// They were read.
    pub(crate) fn is(&mut self) -> io::Result<()> {
        let state = &mut self.state;
        (state.at, state.len, state.reading) = (state.next_at, state.next_len, 0);
        state.owed = state.next_owed;
        if state.len == 0 {
            state.at = 0;
        }
        self.write_state()?;
        if self.is_empty() && self.file.metadata()?.len() > KEPT {
            crate::step()?;
            // Memory that only a long line has needed.
            ftruncate(&self.file, DATA)?;
        }
        Ok(())
    }

    /// Whether a line to the other side is on its way in parts.
    pub(crate) fn writes(&mut self, writing: bool) -> io::Result<()> {
        self.state.writing = u64::from(writing);
        self.write_state()
    }

    /// The receipts that are owed.
    pub(crate) fn owed(&self) -> Vec<bool> {
        receipts::read(self.state.owed)
    }

    /// All of them have gone.
    pub(crate) fn owes_nothing(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.state.owed) == 0 {
            return Ok(());
        }
        self.write_state()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.len == 0
    }

    pub(crate) fn is_reading(&self) -> bool {
        self.state.reading > 0
    }

    fn write_state(&self) -> io::Result<()> {
        crate::step()?;
        self.file.write_all_at(&self.state.encode(), 0)
    }
}

impl AsFd for Rest {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl State {
    fn encode(self) -> [u8; DATA as usize] {
        let State { at, len, reading, next_at, next_len, writing, owed, next_owed } = self;
        let words = [at, len, reading, next_at, next_len, writing, owed, next_owed];
        let mut bytes = [0; DATA as usize];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; DATA as usize]) -> State {
        let mut words = bytes.chunks_exact(8).map(|word| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            u64::from_le_bytes(bytes)
        });
        let mut next = || words.next().unwrap_or(0);
        State {
            at: next(),
            len: next(),
            reading: next(),
            next_at: next(),
            next_len: next(),
            writing: next(),
            owed: next(),
            next_owed: next(),
        }
    }
}

const DATA: u64 = 64;
/// Bytes of a state without receipts.
const OLD_STATE: usize = 48;
/// A file that has grown beyond this is cut when its line is complete.
const KEPT: u64 = 256 * 1024;
