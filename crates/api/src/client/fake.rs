//! For tests: a server that gives canned answers, or breaks connections, and remembers what it was asked.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What it does with a connection.
pub(crate) enum Turn {
    /// Reads the request, writes this and closes: nothing, half a line, or all there is.
    Answer(String),
    /// Closes before it has read anything.
    Deaf,
    /// Closes when it has read the request's first line.
    FirstLine,
    /// Reads the request, and writes this only when the file beside its socket is there ([`Fake::beside`]).
    Late(String),
}

/// Gives its answers one a connection, in order; then lets further connections wait.
pub(crate) struct Fake {
    folder: PathBuf,
    socket: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    /// Kept while connections shall be taken.
    listener: Option<UnixListener>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// The socket stays when all answers are given.
    pub(crate) fn serve(answers: Vec<String>) -> Self {
        Fake::turns(answers.into_iter().map(Turn::Answer).collect())
    }

    /// The same with connections that break.
    pub(crate) fn turns(turns: Vec<Turn>) -> Self {
        Fake::start(turns, Then::Stay)
    }

    /// The socket goes with the last answer.
    pub(crate) fn serve_and_leave(answers: Vec<String>) -> Self {
        Fake::turns_and_leave(answers.into_iter().map(Turn::Answer).collect())
    }

    /// The same with connections that break.
    pub(crate) fn turns_and_leave(turns: Vec<Turn>) -> Self {
        Fake::start(turns, Then::Leave)
    }

    /// The one answer never ends, until the client closes.
    pub(crate) fn serve_and_hold(answer: String) -> Self {
        Fake::start(vec![Turn::Answer(answer)], Then::Hold)
    }

    fn start(turns: Vec<Turn>, then: Then) -> Self {
        let folder = new_folder();
        let socket = folder.join("fake.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (serving, log, path) = (listener.try_clone().unwrap(), Arc::clone(&asked), socket.clone());
        let kept = (then != Then::Leave).then_some(listener);
        let thread = std::thread::spawn(move || {
            let last = turns.len();
            for (at, turn) in turns.iter().enumerate() {
                let (mut stream, _) = serving.accept().unwrap();
                let asked = match turn {
                    Turn::Deaf => String::new(),
                    Turn::FirstLine => read_line(&mut stream),
                    Turn::Answer(_) | Turn::Late(_) => read_request(&mut stream),
                };
                log.lock().unwrap().push(asked);
                if then == Then::Leave && at + 1 == last {
                    std::fs::remove_file(&path).unwrap();
                }
                let answer = match turn {
                    Turn::Deaf | Turn::FirstLine => continue,
                    Turn::Answer(answer) => answer,
                    Turn::Late(answer) => {
                        while !beside(&path).exists() {
                            std::thread::yield_now();
                        }
                        answer
                    }
                };
                // The client may have gone.
                let _ = stream.write_all(answer.as_bytes());
                if then == Then::Hold {
                    let _ = stream.read(&mut [0; 1]);
                }
            }
        });
        Fake { folder, socket, asked, listener: kept, thread: Some(thread) }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A file that tests make and remove.
    pub(crate) fn beside(&self) -> PathBuf {
        beside(&self.socket)
    }

    /// Heads and bodies of the requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Closes the listener and leaves its file, as a killed server does.
    pub(crate) fn leave_the_socket_behind(mut self) {
        self.listener = None;
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.folder);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Stay,
    Leave,
    Hold,
}

impl Drop for Fake {
    fn drop(&mut self) {
        if !self.folder.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// The file of [`Fake::beside`].
pub(crate) fn beside(socket: &Path) -> PathBuf {
    socket.with_extension("mark")
}

/// One line, byte by byte: what follows is left unread, so that closing resets the connection.
fn read_line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    String::from_utf8(line).unwrap()
}

fn read_request(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text.into_owned();
            }
        }
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the client left in the middle of a request");
        bytes.extend_from_slice(&piece[..read]);
    }
}

/// An answer that ends with the connection.
pub(crate) fn answer(status: u16, content_type: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} Whatever\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n{body}")
}

pub(crate) fn json(status: u16, body: &str) -> String {
    answer(status, "application/json", body)
}

pub(crate) fn lines(lines: &[&str]) -> String {
    answer(200, "application/x-ndjson", &lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

/// One that nobody else has: a process of the same number may run beside us, in another namespace of pids.
fn new_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("shiftboss-api-{}-{number}", std::process::id()));
        if std::fs::create_dir(&folder).is_ok() {
            return folder;
        }
    }
}
