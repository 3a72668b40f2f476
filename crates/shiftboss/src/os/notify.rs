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

/// The socket of one worker. Its file goes when this is dropped.
#[derive(Debug)]
pub struct NotifySocket {
    socket: OwnedFd,
    path: PathBuf,
    /// Datagrams read since there was last nothing more.
    in_a_row: u32,
}

/// What supervisors are told; everything else that `sd_notify(3)` lists is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// `READY=1`: started, or done with reloading.
    Ready,
    /// `STOPPING=1`: on its way out.
    Stopping,
    /// `RELOADING=1`: ready again when it says so.
    Reloading,
    /// `STATUS=`: a line for people, at most 256 bytes, without control characters.
    Status(String),
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

    /// What `NOTIFY_SOCKET` is set to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The messages of the next datagram, if it holds any that are known; none if there is no more, and after 64
    /// datagrams in a row, so that a worker that never stops talking keeps nobody else waiting.
    pub fn receive(&mut self) -> Option<Vec<Message>> {
        if self.in_a_row == MOST_IN_A_ROW {
            self.in_a_row = 0;
            return None;
        }
        let mut buffer = [0; LONGEST_DATAGRAM];
        // Without room for descriptors the kernel closes those that came along, see recvmsg(2) on MSG_CTRUNC.
        let received = loop {
            match recv(&self.socket, &mut buffer, RecvFlags::TRUNC) {
                Err(Errno::INTR) => {}
                received => break received,
            }
        };
        let Ok((_, sent)) = received else {
            self.in_a_row = 0;
            return None;
        };
        self.in_a_row += 1;
        let text = buffer.get(..sent).unwrap_or_else(|| whole_lines(&buffer));
        Some(messages(text))
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        // One that stays behind is removed with its folder, or replaced.
        let _ = fs::remove_file(&self.path);
    }
}

/// What remains of a datagram whose end was cut off.
fn whole_lines(cut: &[u8]) -> &[u8] {
    let end = cut.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    &cut[..end]
}

fn messages(datagram: &[u8]) -> Vec<Message> {
    datagram.split(|byte| *byte == b'\n').filter_map(message).collect()
}

fn message(line: &[u8]) -> Option<Message> {
    match line {
        b"READY=1" => Some(Message::Ready),
        b"STOPPING=1" => Some(Message::Stopping),
        b"RELOADING=1" => Some(Message::Reloading),
        _ => line.strip_prefix(b"STATUS=").map(|status| Message::Status(printable(status))),
    }
}

fn printable(text: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(text).replace(char::is_control, " ");
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    text.truncate(ends.take_while(|end| *end <= LONGEST_STATUS).last().unwrap_or(0));
    text
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
const LONGEST_STATUS: usize = 256;
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
    fn a_worker_is_heard_in_its_own_words() {
        let (_folder, mut socket, worker) = pair();
        assert_eq!(socket.receive(), None);
        worker.send(b"READY=1\nSTATUS=serving\nMAINPID=1\n").unwrap();
        worker.send(b"RELOADING=1\nMONOTONIC_USEC=5").unwrap();
        worker.send(b"STOPPING=1").unwrap();
        assert!(readable(socket.as_fd()));
        assert_eq!(socket.receive(), Some(vec![Message::Ready, Message::Status("serving".into())]));
        assert_eq!(socket.receive(), Some(vec![Message::Reloading]));
        assert_eq!(socket.receive(), Some(vec![Message::Stopping]));
        assert_eq!(socket.receive(), None);
    }

    #[test]
    fn nonsense_is_passed_over_and_does_not_end_the_reading() {
        let (_folder, mut socket, worker) = pair();
        for nonsense in [&b""[..], b"\n\n", b"READY", b"READY=10", b" READY=1", b"=", b"\xff\0\xfe"] {
            worker.send(nonsense).unwrap();
            assert_eq!(socket.receive(), Some(Vec::new()), "{nonsense:?}");
        }
        worker.send(b"\xff\nREADY=1").unwrap();
        assert_eq!(socket.receive(), Some(vec![Message::Ready]));
    }

    #[test]
    fn of_a_datagram_that_is_too_long_only_whole_lines_at_its_beginning_count() {
        let (_folder, mut socket, worker) = pair();
        let mut long = b"READY=1\n".to_vec();
        long.resize(LONGEST_DATAGRAM - b"\nSTOPPING=1".len(), b'x');
        long.extend(b"\nSTOPPING=1");
        worker.send(&long).unwrap();
        assert_eq!(socket.receive(), Some(vec![Message::Ready, Message::Stopping]));
        // Nobody knows how the cut line goes on.
        long.extend(b"0\nRELOADING=1");
        worker.send(&long).unwrap();
        assert_eq!(socket.receive(), Some(vec![Message::Ready]));
        worker.send(&[b'x'; 2 * LONGEST_DATAGRAM]).unwrap();
        assert_eq!(socket.receive(), Some(Vec::new()));
    }

    #[test]
    fn a_status_is_short_and_cannot_move_the_cursor() {
        let (_folder, mut socket, worker) = pair();
        let mut said = b"STATUS=\x1b[2J".to_vec();
        said.extend("ä".repeat(200).bytes());
        worker.send(&said).unwrap();
        let expected = format!(" [2J{}", "ä".repeat(126));
        assert_eq!(socket.receive(), Some(vec![Message::Status(expected)]));
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
        assert_eq!(socket.receive(), Some(Vec::new()));
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
        assert_eq!(socket.receive(), Some(vec![Message::Ready]));
    }
}
