//! Which file is at a path (stat(2)): that of a socket is known again by it, since its number is not given to another one
//! as long as the socket lives. Paths are anybody's.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FileType, fstat};
use serde::{Deserialize, Serialize};

use super::memory;

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId(u64, u64);

impl FileId {
    /// Of the file there; a link is a file.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn at(path: &Path) -> io::Result<FileId> {
        fs::symlink_metadata(path).map(|file| FileId(file.dev(), file.ino()))
    }

    /// For whoever goes on with the socket.
    ///
    /// # Errors
    /// Those of memfd_create(2).
    pub fn note(self) -> io::Result<OwnedFd> {
        memory::sealed("shiftboss-file", &serde_json::to_vec(&self)?)
    }

    /// What another process has noted so.
    ///
    /// # Errors
    /// Those of pread(2); `InvalidData` if it is no such note.
    pub fn noted(note: BorrowedFd<'_>) -> io::Result<FileId> {
        Ok(serde_json::from_slice(&memory::read(note)?)?)
    }
}

/// A socket that another process has left, with the note of its file.
#[derive(Debug)]
pub struct Noted {
    /// The socket.
    pub socket: OwnedFd,
    /// Its file; none if that was not noted yet, or by an older version.
    pub file: Option<FileId>,
}

impl Noted {
    /// Of what was held: the note before the socket, since older versions take the last one. None if there is no socket.
    ///
    /// # Errors
    /// As for [`FileId::noted`].
    pub fn of(mut held: Vec<OwnedFd>) -> io::Result<Option<Noted>> {
        let Some(socket) = held.pop() else { return Ok(None) };
        // Alone a note is what is left of both at the limit of open files.
        if !FileType::from_raw_mode(fstat(&socket)?.st_mode).is_socket() {
            return Ok(None);
        }
        let file = held.pop().map(|note| FileId::noted(note.as_fd())).transpose()?;
        Ok(Some(Noted { socket, file }))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_was_noted_of_a_socket_is_known_again_with_it_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = || OwnedFd::from(UnixListener::bind(&path).unwrap());
        let listener = socket();
        let file = FileId::at(&path).unwrap();
        let held = Noted::of(vec![file.note().unwrap(), listener]).unwrap().unwrap();
        assert_eq!(held.file, Some(file));
        fs::remove_file(&path).unwrap();
        let other = Noted::of(vec![socket()]).unwrap().unwrap();
        assert_eq!(other.file, None);
        assert_ne!(FileId::at(&path).unwrap(), file, "its number is taken");
        assert!(
            Noted::of(vec![file.note().unwrap()]).unwrap().is_none() && Noted::of(vec![]).unwrap().is_none()
        );
    }
}
