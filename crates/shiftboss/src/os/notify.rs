//! What a worker says of itself: the receiving side of `sd_notify(3)`, one socket for each worker.
//!
//! Who speaks is known by the socket, which only our own user can reach (its folder is 0700), so senders are not
//! checked and a helper of the worker may speak for it. What a message means is for core to say; descriptors sent
//! along (`FDSTORE=1`, `BARRIER=1`) are not wanted and closed by the kernel as the message is read.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind, recv, socket_with,
};

use super::heirs;

/// The socket of one worker. Its file goes when this is dropped.
#[derive(Debug)]
pub struct NotifySocket {
    socket: OwnedFd,
    path: PathBuf,
    /// Datagrams read since there was last nothing more.
    in_a_row: u32,
}

impl NotifySocket {
    /// Makes `notify-N.sock` in a folder that is ours alone; a file left there by a dead supervisor is replaced.
    ///
    /// # Errors
    /// `InvalidFilename` for a path of more than 107 bytes, which `unix(7)` cannot name; else that of `bind(2)`.
    pub fn bind(dir: &Path, worker: u64) -> io::Result<Self> {
        let path = path_in(dir, worker);
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(too_long(&path));
        }
        let address = SocketAddrUnix::new(&path).map_err(|_| too_long(&path))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        bind(&socket, &address)?;
        Ok(NotifySocket { socket, path, in_a_row: 0 })
    }

    /// Goes on with the socket of this worker that another process has made in this folder.
    #[must_use]
    pub fn adopt(socket: OwnedFd, dir: &Path, worker: u64) -> Self {
        NotifySocket { socket, path: path_in(dir, worker), in_a_row: 0 }
    }

    /// What `NOTIFY_SOCKET` is set to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the next datagram says `READY=1`, all else of sd_notify(3) being passed over. One that does stays there
    /// until [`NotifySocket::take`], so that it is not lost if we end before it is recorded. None if there is no more,
    /// and after 64 datagrams in a row, so that a worker that never stops talking keeps nobody else waiting.
    pub fn receive(&mut self) -> Option<bool> {
        if self.in_a_row == MOST_IN_A_ROW {
            self.in_a_row = 0;
            return None;
        }
        let mut buffer = [0; LONGEST_DATAGRAM];
        // Without room for descriptors the kernel closes those that came along, see recvmsg(2) on MSG_CTRUNC.
        let Some(sent) = self.read(&mut buffer, RecvFlags::TRUNC | RecvFlags::PEEK) else {
            self.in_a_row = 0;
            return None;
        };
        self.in_a_row += 1;
        let text = buffer.get(..sent).unwrap_or_else(|| whole_lines(&buffer));
        let ready = text.split(|byte| *byte == b'\n').any(|line| line == b"READY=1");
        if !ready {
            self.take();
        }
        Some(ready)
    }

    /// Drops the next datagram.
    pub fn take(&mut self) {
        let _ = self.read(&mut [0; 1], RecvFlags::empty());
    }

    fn read(&self, buffer: &mut [u8], flags: RecvFlags) -> Option<usize> {
        loop {
            match recv(&self.socket, &mut *buffer, flags) {
                Err(Errno::INTR) => {}
                received => return received.ok().map(|(_, sent)| sent),
            }
        }
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        // Whoever goes on has the socket still. One that stays behind is removed with its folder, or replaced.
        if !heirs::are_expected() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What remains of a datagram whose end was cut off.
fn whole_lines(cut: &[u8]) -> &[u8] {
    let end = cut.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    &cut[..end]
}

/// The path of the worker with the longest id: whoever makes the folder sees to it that it fits.
pub(super) fn longest_path(dir: &Path) -> PathBuf {
    path_in(dir, u64::MAX)
}

fn path_in(dir: &Path, worker: u64) -> PathBuf {
    dir.join(format!("notify-{worker}.sock"))
}

fn too_long(path: &Path) -> io::Error {
    let why = format!(
        "the path of a socket has at most {LONGEST_PATH} bytes, `{}` has {}",
        path.display(),
        path.as_os_str().len()
    );
    io::Error::new(io::ErrorKind::InvalidFilename, why)
}

/// `sun_path` without its final NUL, see `unix(7)`.
pub(super) const LONGEST_PATH: usize = 107;
const LONGEST_DATAGRAM: usize = 4096;
const MOST_IN_A_ROW: u32 = 64;

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;
    use std::os::unix::net::UnixDatagram;

    use rustix::io::IoSlice;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;
    use crate::os::spawn::trial::readable;

    fn pair() -> (tempfile::TempDir, NotifySocket, UnixDatagram) {
        let folder = tempfile::tempdir().unwrap();
        let socket = NotifySocket::bind(folder.path(), 7).unwrap();
        let worker = UnixDatagram::unbound().unwrap();
        worker.connect(socket.path()).unwrap();
        worker.set_nonblocking(true).unwrap();
        (folder, socket, worker)
    }

    #[test]
    fn readiness_is_heard_among_other_words() {
        let (_folder, mut socket, worker) = pair();
        assert_eq!(socket.receive(), None);
        worker.send(b"STATUS=loading\n").unwrap();
        worker.send(b"STATUS=serving\nREADY=1\nMAINPID=1\n").unwrap();
        assert!(readable(socket.as_fd()));
        assert_eq!([(); 3].map(|()| socket.receive()), [Some(false), Some(true), Some(true)]);
        socket.take();
        assert_eq!(socket.receive(), None);
    }

    #[test]
    fn nonsense_is_passed_over_and_does_not_end_the_reading() {
        let (_folder, mut socket, worker) = pair();
        for nonsense in [&b""[..], b"\n\n", b"READY", b"READY=10", b" READY=1", b"=", b"\xff\0\xfe"] {
            worker.send(nonsense).unwrap();
            assert_eq!(socket.receive(), Some(false), "{nonsense:?}");
        }
        worker.send(b"\xff\nREADY=1").unwrap();
        assert_eq!(socket.receive(), Some(true));
    }

    #[test]
    fn of_a_datagram_that_is_too_long_only_whole_lines_at_its_beginning_count() {
        let (_folder, mut socket, worker) = pair();
        let mut long = vec![b'x'; LONGEST_DATAGRAM - b"\nREADY=1".len()];
        long.extend(b"\nREADY=1");
        worker.send(&long).unwrap();
        assert_eq!(socket.receive(), Some(true));
        socket.take();
        // Nobody knows how the cut line goes on.
        long.extend(b"0\nREADY=1");
        worker.send(&long).unwrap();
        assert_eq!(socket.receive(), Some(false));
    }

    #[test]
    fn a_barrier_is_lifted_by_reading_it() {
        let (_folder, mut socket, worker) = pair();
        let (waiting, barrier) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let sent = [barrier.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&sent)));
        sendmsg(&worker, &[IoSlice::new(b"BARRIER=1")], &mut ancillary, SendFlags::empty()).unwrap();
        drop(barrier);
        assert_eq!(socket.receive(), Some(false));
        // The end of the pipe: nobody holds its other side any more.
        assert!(readable(waiting.as_fd()));
        assert_eq!(rustix::io::read(&waiting, &mut [0; 1]), Ok(0));
    }

    #[test]
    fn a_worker_that_never_stops_talking_is_interrupted() {
        let (_folder, mut socket, worker) = pair();
        for _ in 0..2 {
            for _ in 0..MOST_IN_A_ROW {
                worker.send(b"STATUS=").unwrap();
                assert!(socket.receive().is_some());
            }
            worker.send(b"STATUS=").unwrap();
            assert_eq!(socket.receive(), None);
            assert!(readable(socket.as_fd()));
            assert!(socket.receive().is_some());
            assert_eq!(socket.receive(), None);
        }
    }

    #[test]
    fn the_file_of_a_dead_supervisor_is_replaced_and_ours_goes_with_us() {
        let folder = tempfile::tempdir().unwrap();
        let left_behind = UnixDatagram::bind(folder.path().join("notify-1.sock")).unwrap();
        drop(left_behind);
        let socket = NotifySocket::bind(folder.path(), 1).unwrap();
        let path = socket.path().to_owned();
        assert!(path.exists());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(100));
        fs::create_dir(&long).unwrap();
        let error = NotifySocket::bind(&long, 1).unwrap_err();
        assert!(
            error.to_string().contains(&format!("at most 107 bytes, `{}/notify-1.sock`", long.display()))
        );
        let room = LONGEST_PATH - folder.path().as_os_str().len() - "//notify-1.sock".len();
        let longest = folder.path().join("x".repeat(room));
        fs::create_dir(&longest).unwrap();
        let mut socket = NotifySocket::bind(&longest, 1).unwrap();
        UnixDatagram::unbound().unwrap().send_to(b"READY=1", socket.path()).unwrap();
        assert_eq!(socket.receive(), Some(true));
    }
}
