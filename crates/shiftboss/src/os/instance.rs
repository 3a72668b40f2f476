//! One process for each app: who holds the lock beside the control socket is the app, and only it touches the socket.
//!
//! Beside `shop.sock` lie `shop.sock.lock`, which stays (its lock does not), and `shop.d`, a folder of the app's own
//! while it runs. What is said over the socket is left to `control`.

#[cfg(test)]
mod tests;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::geteuid;

use super::file_id::{FileId, Noted};
use super::notify::{LONGEST_PATH, longest_path};
use super::{heirs, leftovers, owner, parent};

/// The claim to be the app; given back when dropped, or by the kernel when the process ends.
#[derive(Debug)]
pub struct Instance {
    socket: PathBuf,
    /// The socket's file; none of one that was gone.
    file: Option<FileId>,
    listener: UnixListener,
    runtime_dir: PathBuf,
    lock: Lock,
}

/// Why an app could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process is the app.
    #[error("`{app}` runs already ({}socket {})", other(*pid, *up), socket.display())]
    AlreadyRunning {
        /// The app, as its socket is called.
        app: String,
        /// Its control socket.
        socket: PathBuf,
        /// Its pid as it wrote it down; none while it is just starting.
        pid: Option<u32>,
        /// For how long, by the wall clock.
        up: Option<Duration>,
    },
    /// Another process is the app, and can be asked by signals only.
    #[error("`{app}` runs already as pid {pid}, but its socket was removed: `kill -TERM {pid}` ends it")]
    SocketRemoved {
        /// The app, as its socket is called.
        app: String,
        /// Its process.
        pid: u32,
    },
    /// A program that does not use the lock answers at the path.
    #[error("another program answers at {}", .0.display())]
    Answered(PathBuf),
    /// The path is there and is something else; it is left alone.
    #[error("cannot put the control socket at {}: something else is there", .0.display())]
    NotASocket(PathBuf),
    /// Its path, or one that is made from it, has more bytes than the path of a socket may have (`unix(7)`).
    #[error("the path of the control socket is {shorten_by} bytes too long: {}", socket.display())]
    TooLong {
        /// The control socket.
        socket: PathBuf,
        /// How much too long.
        shorten_by: usize,
    },
    /// The folder for our sockets is open to others, or belongs to them.
    #[error("cannot use the folder {}: it must be ours and closed to others (`chmod 700`)", .0.display())]
    NotPrivate(PathBuf),
    /// The operating system refused a step.
    #[error("{what} {}: {source}", path.display())]
    Os {
        /// The step, as "cannot lock".
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

impl Instance {
    /// Becomes the app of this socket: makes its folder (0700) if it is missing, takes the lock, replaces a socket
    /// that nobody serves any more. The socket listens from the moment it can be seen, for our own user only (0600)
    /// whatever the umask.
    ///
    /// # Errors
    /// [`ClaimError`]; nothing that is somebody else's was touched.
    pub fn claim(socket: &Path) -> Result<Instance, ClaimError> {
        Self::claim_for(socket, std::process::id())
    }

    /// The same, for the process of this number: whoever asks who is the app is told that one.
    ///
    /// # Errors
    /// As for [`Instance::claim`].
    pub fn claim_for(socket: &Path, pid: u32) -> Result<Instance, ClaimError> {
        Self::claim_in(socket, &temporary_folder(&env::temp_dir()), pid)
    }

    fn claim_in(socket: &Path, temporary: &Path, pid: u32) -> Result<Instance, ClaimError> {
        let socket = std::path::absolute(socket).map_err(os("cannot use the path", socket))?;
        let (Some(name), Some(folder)) = (socket.file_name(), socket.parent()) else {
            return Err(ClaimError::NotASocket(socket));
        };
        let runtime_dir = folder.join(beside(name, ".d"));
        let new = runtime_dir.join(NEW);
        // What is made later has to fit, too: the sockets that workers notify on.
        let paths = [&socket, &new, &longest_path(&runtime_dir)];
        if let Some(most) =
            paths.map(|path| path.as_os_str().len()).into_iter().max().filter(|most| *most > LONGEST_PATH)
        {
            return Err(ClaimError::TooLong { shorten_by: most - LONGEST_PATH, socket });
        }
        make_folder(folder).map_err(os("cannot make the folder", folder))?;
        if folder == temporary && !is_private(folder) {
            return Err(ClaimError::NotPrivate(folder.to_owned()));
        }
        let lock = lock(&socket, name, pid)?;
        replaceable(&socket)?;
        // Its lock may have gone with the folder, and ours is another file then.
        if let Some(pid) = leftovers::living(&socket) {
            return Err(ClaimError::SocketRemoved { app: app_of(name).to_string_lossy().into_owned(), pid });
        }
        empty_folder(&runtime_dir)?;
        let (listener, file) = listen_at(&socket, &new).map_err(os("cannot listen at", &socket))?;
        Ok(Instance { file: Some(file), listener, runtime_dir, lock, socket })
    }

    /// Goes on as the app of this socket with what another process has left.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn adopt(socket: &Path, listener: Noted, lock: OwnedFd) -> io::Result<Instance> {
        let name = socket.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Instance {
            socket: socket.to_owned(),
            // An older version has noted none. One that was removed is nobody's any more.
            file: listener.file.or_else(|| FileId::at(socket).ok()),
            listener: listener.socket.into(),
            runtime_dir: socket.with_file_name(beside(name, ".d")),
            lock: Lock(lock.into()),
        })
    }

    /// What a successor needs: the listening socket, and the lock.
    #[must_use]
    pub fn descriptors(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.listener.as_fd(), self.lock.0.as_fd())
    }

    /// And which file the socket's is, since another may be at its path by then.
    #[must_use]
    pub fn file(&self) -> Option<FileId> {
        self.file
    }

    /// The control socket to serve; blocking until the caller changes that, for all duplicates at once.
    ///
    /// # Errors
    /// EMFILE or ENFILE at the limit of open files.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// The control socket's path, absolute.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A folder (0700) for what belongs to this run, such as the sockets workers notify on; empty at the claim and
    /// gone after the run.
    #[must_use]
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Whoever goes on is the app still.
        if heirs::are_expected() {
            return;
        }
        // Still locked, so no other instance puts its own there between look and removal. What cannot be removed is
        // replaced at the next claim.
        if self.file.is_some() && FileId::at(&self.socket).ok() == self.file {
            let _ = fs::remove_file(&self.socket);
        }
        empty(&self.runtime_dir);
        let _ = fs::remove_dir(&self.runtime_dir);
    }
}

/// Where an app's control socket is unless told otherwise: `/run/shiftboss/APP.sock` for root, else
/// `$XDG_RUNTIME_DIR/shiftboss/APP.sock`, else in `shiftboss-UID` in the folder for temporary files.
#[must_use]
pub fn default_socket(app: &str) -> PathBuf {
    default_folder().join(format!("{app}.sock"))
}

/// The path that an app's control socket is bound to before it is moved into its place.
pub(super) fn listens_at(socket: &Path) -> Option<PathBuf> {
    Some(socket.with_file_name(beside(socket.file_name()?, ".d")).join(NEW))
}

/// All control sockets of this user at their default places, by name; whether anybody serves them is not checked.
#[must_use]
pub fn running_sockets() -> Vec<PathBuf> {
    let folder = default_folder();
    if folder == temporary_folder(&env::temp_dir()) && !is_private(&folder) {
        // A stranger may have put it there, to be taken for our apps.
        return Vec::new();
    }
    sockets_in(&folder)
}

fn sockets_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let sockets = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    let mut paths: Vec<PathBuf> = sockets.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension() == Some(OsStr::new("sock")));
    paths.sort();
    paths
}

fn default_folder() -> PathBuf {
    folder_of(geteuid().is_root(), env::var_os("XDG_RUNTIME_DIR"), &env::temp_dir())
}

fn folder_of(root: bool, runtime: Option<OsString>, temporary: &Path) -> PathBuf {
    match runtime.map(PathBuf::from).filter(|runtime| runtime.is_absolute()) {
        _ if root => PathBuf::from("/run/shiftboss"),
        Some(runtime) => runtime.join("shiftboss"),
        None => temporary_folder(temporary),
    }
}

fn temporary_folder(temporary: &Path) -> PathBuf {
    temporary.join(format!("shiftboss-{}", geteuid().as_raw()))
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// A folder, not a link to one, of our own and closed to everybody else.
fn is_private(folder: &Path) -> bool {
    fs::symlink_metadata(folder)
        .is_ok_and(|met| met.is_dir() && met.uid() == geteuid().as_raw() && met.mode() & 0o077 == 0)
}

/// A locked file (`flock(2)`); it stays when the lock is given up.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        if heirs::are_expected() {
            return;
        }
        // Said, since a child that is just being started shares the descriptor until its program runs.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

fn lock(socket: &Path, name: &OsStr, pid: u32) -> Result<Lock, ClaimError> {
    let path = socket.with_file_name(beside(name, ".lock"));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(&path).map_err(os("cannot open", &path))?;
    // Whoever only asks holds it for a moment: see [`holder_of`].
    let mut looks = 0..LOOKS;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if looks.next().is_some() => std::thread::sleep(BETWEEN),
            Err(Errno::WOULDBLOCK) => return Err(already_running(socket, name, &mut file)),
            Err(error) => return Err(os("cannot lock", &path)(error.into())),
        }
    }
    let mut lock = Lock(file);
    let write = |file: &mut File| file.set_len(0).and_then(|()| writeln!(file, "{pid}"));
    write(&mut lock.0).map_err(os("cannot write", &path))?;
    Ok(lock)
}

/// What the other one wrote into the lock, and when.
fn already_running(socket: &Path, name: &OsStr, lock: &mut File) -> ClaimError {
    let pid = written_pid(lock);
    let written = lock.metadata().and_then(|met| met.modified()).ok();
    ClaimError::AlreadyRunning {
        app: app_of(name).to_string_lossy().into_owned(),
        socket: socket.to_owned(),
        pid,
        up: written.filter(|_| pid.is_some()).and_then(|written| written.elapsed().ok()),
    }
}

/// The process that is the app of this socket, whether or not the socket's file is still there.
#[must_use]
pub fn holder_of(socket: &Path) -> Option<u32> {
    let mut lock = File::open(socket.with_file_name(beside(socket.file_name()?, ".lock"))).ok()?;
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => written_pid(&mut lock),
        // Given back with the descriptor.
        Ok(()) | Err(_) => None,
    }
}

/// An app that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The app, as its socket is called.
    pub app: String,
    /// Its control socket.
    pub socket: PathBuf,
    /// The process to be asked by signals: its keeper, if it has one.
    pub pid: u32,
}

/// The app that this process is a part of, as its keeper, its broker process or one of those below them; none if that
/// cannot be seen.
#[must_use]
pub fn running_above(pid: u32) -> Option<Running> {
    let end = format!(".d/{NEW}");
    let mut chain = std::iter::successors(Some(pid), |pid| parent::of(*pid));
    chain.find_map(|pid| owner::bound_by(pid, &end).iter().find_map(|path| running_at(path.parent()?)))
}

/// The app whose own folder this is.
fn running_at(folder: &Path) -> Option<Running> {
    let name = folder.file_name()?.as_bytes().strip_suffix(b".d")?;
    let socket = folder.with_file_name(OsStr::from_bytes(name));
    let app = app_of(socket.file_name()?).to_string_lossy().into_owned();
    Some(Running { app, pid: holder_of(&socket)?, socket })
}

fn written_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Whether there is nothing at the path, or a socket that nobody serves.
fn replaceable(socket: &Path) -> Result<(), ClaimError> {
    match fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(os("cannot look at", socket)(error)),
        Ok(met) if !met.file_type().is_socket() => return Err(ClaimError::NotASocket(socket.to_owned())),
        Ok(_) => {}
    }
    match try_connect(socket) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        // One who is frozen with a full queue serves, too.
        Ok(()) | Err(Errno::AGAIN) => Err(ClaimError::Answered(socket.to_owned())),
        Err(error) => Err(os("cannot see who serves", socket)(error.into())),
    }
}

/// What a client would be told at once (`unix(7)`, errors).
fn try_connect(socket: &Path) -> rustix::io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&client, &SocketAddrUnix::new(socket)?)
}

/// Listens at a private name first and moves the finished socket into its place (`rename(2)` replaces at once), so
/// that nobody finds it missing, deaf or open to others in between.
fn listen_at(socket: &Path, new: &Path) -> io::Result<(UnixListener, FileId)> {
    let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&listener, &SocketAddrUnix::new(new)?)?;
    fs::set_permissions(new, Permissions::from_mode(0o600))?;
    listen(&listener, QUEUE)?;
    let file = FileId::at(new)?;
    fs::rename(new, socket)?;
    Ok((listener.into(), file))
}

/// Makes the app's own folder, or empties that of a run that was killed.
fn empty_folder(folder: &Path) -> Result<(), ClaimError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(os("cannot make the folder", folder)(error))
        }
        Err(_) if !is_private(folder) => Err(ClaimError::NotPrivate(folder.to_owned())),
        Err(_) => {
            empty(folder);
            Ok(())
        }
    }
}

/// Takes out what we put there: sockets, and the file of [`PRELOAD`].
fn empty(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_socket()) || entry.file_name() == PRELOAD {
            // One that stays is replaced by whoever needs the name.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The name of the file that Node programs load first.
pub const PRELOAD: &str = "leave.cjs";

/// The app's name in that of its socket.
fn app_of(name: &OsStr) -> &OsStr {
    let path = Path::new(name);
    match (path.extension(), path.file_stem()) {
        (Some(extension), Some(app)) if extension == "sock" => app,
        _ => name,
    }
}

fn beside(name: &OsStr, suffix: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(suffix);
    name
}

fn os(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClaimError {
    move |source| ClaimError::Os { what, path: path.to_owned(), source }
}

/// "pid 812, up 6 d, ", as far as known.
fn other(pid: Option<u32>, up: Option<Duration>) -> String {
    let pid = pid.map(|pid| format!("pid {pid}, "));
    let up = up.map(|up| format!("up {}, ", super::holder::rough(up)));
    [pid, up].into_iter().flatten().collect()
}

/// The socket's name in the app's own folder until it is complete.
const NEW: &str = "s";
/// Clients that wait to be accepted.
const QUEUE: i32 = 128;
/// For so often and so long the lock is looked at again.
const LOOKS: u32 = 10;
const BETWEEN: Duration = Duration::from_millis(5);
