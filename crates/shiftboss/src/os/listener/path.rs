//! What becomes of a UNIX path while it is ours: others can remove it, and a worker can shut its socket for good
//! (unix(7): unlike one of TCP it never listens again).

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};

use super::super::file_id::FileId;
use super::bind::{at, make_way};
use super::{BACKLOG, BindError, Listener, State, away, explain};
use crate::address::Address;

impl Listener {
    /// Sees to it that clients of a UNIX path come here, or could once it is reopened. If they cannot, a new socket is
    /// bound, with these rights beside the usual ones, and listens; what was there before is returned. `hold` has it
    /// before its path is there: a successor sees by that what is still to be done; and once more, with its file.
    ///
    /// # Errors
    /// [`BindError`]: somebody else may be there by now; `Other` also if it cannot be held.
    pub fn mend(
        &mut self,
        nonblocking: bool,
        mode: u32,
        mut hold: impl FnMut(BorrowedFd<'_>, Option<FileId>) -> io::Result<()>,
    ) -> Result<Option<OwnedFd>, BindError> {
        let Address::Unix(path) = &self.address else { return Ok(None) };
        let failed = |error| explain(&self.address, error);
        let is_shut = self.state == State::Shut;
        let (is_away, is_there) = (self.is_at(&away(path)), self.is_at(path));
        let listens = self.is_listening().map_err(failed)?;
        if listens && is_there {
            return Ok(None);
        }
        make_way(path, &self.address)?;
        if listens && is_shut && is_away {
            return Ok(None);
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
        socket.set_nonblocking(nonblocking).map_err(failed)?;
        hold(socket.as_fd(), None).map_err(failed)?;
        at(path, |at| socket.bind(at)).map_err(failed)?;
        allow(path, mode).map_err(failed)?;
        socket.listen(BACKLOG).map_err(failed)?;
        let file = FileId::at(path).map_err(failed)?;
        // Without it a successor guesses.
        let _ = hold(socket.as_fd(), Some(file));
        if is_away {
            // Left there it harms nobody.
            let _ = fs::remove_file(away(path));
        }
        (self.file, self.state) = (Some(file), State::Open);
        Ok(Some(std::mem::replace(&mut self.socket, socket).into()))
    }

    /// Whether the file there is this socket's: its number is taken as long as the socket lives.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        self.file.is_some() && self.file == FileId::at(path).ok()
    }

    /// Closes what waits in its queue; returns how many that were. Nobody else is to take any of it.
    pub(super) fn turn_away(&self) -> io::Result<u32> {
        if !self.polls(PollFlags::IN)? {
            return Ok(0);
        }
        // Should somebody be there all the same, this must not wait for the next client.
        let nonblocking = self.socket.nonblocking()?;
        self.socket.set_nonblocking(true)?;
        let mut count = 0;
        while count <= BACKLOG.unsigned_abs() && self.accept().is_ok() {
            count += 1;
        }
        self.socket.set_nonblocking(nonblocking)?;
        Ok(count)
    }

    /// Whether nobody has shut it: `SO_ACCEPTCONN` stays as it was.
    pub(super) fn is_whole(&self) -> io::Result<bool> {
        Ok(!self.polls(PollFlags::RDHUP)?)
    }

    fn polls(&self, flags: PollFlags) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.socket, flags)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(fds[0].revents().intersects(flags))
    }
}

/// The file of a socket of which none was noted: what is at its path, if it was ever bound to it, or where it is while it
/// is shut.
pub(super) fn guess(path: &Path, is_bound: bool) -> Option<FileId> {
    let there = if is_bound { FileId::at(path).ok() } else { None };
    there.or_else(|| FileId::at(&away(path)).ok())
}

/// Gives rights beside those that the umask has left.
pub(crate) fn allow(path: &Path, mode: u32) -> io::Result<()> {
    if mode == 0 {
        return Ok(());
    }
    let before = fs::metadata(path)?.permissions().mode();
    fs::set_permissions(path, Permissions::from_mode(before | mode))
}
