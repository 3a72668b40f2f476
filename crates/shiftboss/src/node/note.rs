//! What a successor has to know of a Node program, in memory that outlives us.
//!
//! ```text
//! 0   where the note begins, its length
//! 64  one note, 1 MiB further the other: the next one is written where the last one is not
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Serialize, de::DeserializeOwned};

/// Such memory.
#[derive(Debug)]
pub(super) struct Note {
    file: File,
    next: u64,
}

impl Note {
    pub(super) fn new() -> io::Result<Note> {
        Ok(Note { file: File::from(memfd_create("shiftboss-node", MemfdFlags::CLOEXEC)?), next: PLACES[0] })
    }

    /// What another process has noted; none if it had not begun to.
    pub(super) fn adopt<T: DeserializeOwned>(file: OwnedFd) -> io::Result<(Note, Option<T>)> {
        let file = File::from(file);
        let mut head = [0; 16];
        if file.read_at(&mut head, 0)? < head.len() {
            return Ok((Note { file, next: PLACES[0] }, None));
        }
        let (at, length) = (word(&head, 0), word(&head, 8));
        let mut text = vec![0; usize::try_from(length.min(LONGEST)).unwrap_or(0)];
        file.read_exact_at(&mut text, at)?;
        let next = if at == PLACES[0] { PLACES[1] } else { PLACES[0] };
        Ok((Note { file, next }, Some(serde_json::from_slice(&text)?)))
    }

    /// Notes this instead of what was there: wholly, or not at all.
    pub(super) fn write(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(value)?;
        if text.len() as u64 > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.file.write_all_at(&text, self.next)?;
        let mut head = [0; 16];
        head[..8].copy_from_slice(&self.next.to_le_bytes());
        head[8..].copy_from_slice(&(text.len() as u64).to_le_bytes());
        // Within one page: a process that is killed has written all of it or nothing.
        self.file.write_all_at(&head, 0)?;
        self.next = if self.next == PLACES[0] { PLACES[1] } else { PLACES[0] };
        Ok(())
    }
}

impl AsFd for Note {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn word(bytes: &[u8; 16], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

const PLACES: [u64; 2] = [64, LONGEST + 64];
const LONGEST: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_note_is_found_by_whoever_comes_after() {
        let mut note = Note::new().unwrap();
        let heir = |note: &Note| {
            let file = note.as_fd().try_clone_to_owned().unwrap();
            Note::adopt::<Vec<u32>>(file).unwrap()
        };
        assert_eq!(heir(&note).1, None);
        for round in 0..5 {
            let value: Vec<u32> = (0..round * 100).collect();
            note.write(&value).unwrap();
            let (other, found) = heir(&note);
            assert_eq!(found, Some(value));
            note = other;
        }
    }
}
