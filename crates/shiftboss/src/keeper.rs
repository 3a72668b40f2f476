//! Our side of the keeper: becoming one, what it has left us, and what is said to it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{getppid, set_parent_process_death_signal};
use shiftboss_core::id::WorkerId;
use shiftboss_core::spec::Signal;
use shiftboss_keeper::{CODE, STATE, STATE_FORMAT};
use shiftboss_link::signals::UNMEANT;
use shiftboss_link::wire::{
    DEPOSIT, DONE, END, EXIT, FATE, FORGET, GO, GO_BEGIN, GO_CHECK, GO_SALVAGE, Item, LACKS, MOST_ITEMS,
    ORDER, READY, SIGNAL, UPGRADE,
};
use shiftboss_link::{LINK, Link, Packet, command, inherited};

use crate::adopt;
use crate::keys::Key;
use crate::os::code;
use crate::os::file_id::{FileId, Noted};
use crate::os::kill_points::{self, Part};
use crate::os::rlimit::{self, Nofile};
use crate::os::signals;

/// The right to run an app in this process, under a keeper: see [`own_process`].
#[derive(Debug)]
pub struct OwnProcess {
    pub(crate) keeper: Keeper,
    pub(crate) inherited: Inherited,
    /// The limits of open files from before the keeper raised them.
    pub(crate) nofile: Nofile,
}

/// What the keeper has left us.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    deposits: BTreeMap<u64, Vec<OwnedFd>>,
    /// Workers that have ended, and how.
    pub(crate) exits: Vec<(u64, u64)>,
    /// How the last upgrade went, in the keeper's words.
    pub(crate) fate: Option<u64>,
    go: u64,
}

/// The keeper, to be spoken to.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    link: Arc<Link>,
    pid: i32,
    /// What can be said together with more.
    later: Arc<Mutex<Vec<Item>>>,
}

/// What the keeper says while the app runs.
pub(crate) enum Said {
    /// This worker is gone.
    Exit { key: u64, status: u64 },
    /// Do this.
    Order { number: u64, what: u64 },
    /// An upgrade went so.
    Fate(u64),
    /// Not all that a successor needs of this could be held.
    Lacks { key: u64 },
}

/// Makes this program one whose workers outlive it: the process that calls it becomes the *keeper*, runs the same
/// program again as its child, and ends when that one has ended its app, with the same exit code. In the child it
/// returns. If the child is killed, the keeper starts it again, and what the child then does with what is returned goes
/// on with the same workers, sockets and commands.
///
/// To be called first thing in `main`, before any thread is started: signals, limits and children of the process are
/// the keeper's from then on.
///
/// # Errors
/// Those of the operating system; nothing was started then.
pub fn own_process() -> io::Result<OwnProcess> {
    match inherited()? {
        Some(link) => Ok(OwnProcess::take_over(link)?.checked()),
        None => become_keeper().map(|never| match never {}),
    }
}

/// For a program that does other things before [`own_process`], such as reading its arguments: what they have left in
/// memory is not the keeper's to carry. Executes the program anew, which has to call [`keep_if_asked`] before anything
/// else. Does nothing in the keeper's child.
///
/// # Errors
/// Those of execve(2).
pub fn own_process_anew() -> io::Result<OwnProcess> {
    if std::env::var_os(LINK).is_some() {
        return own_process();
    }
    let image = File::open("/proc/self/exe")?;
    Err(command(&image).env(ANEW, "1").exec())
}

/// In a program that [`own_process_anew`] has executed this is the keeper, and does not return; in any other it does
/// nothing.
pub fn keep_if_asked() {
    let is_asked = std::env::var_os(ANEW).is_some() || std::env::var_os(STATE).is_some();
    if is_asked && std::env::var_os(LINK).is_none() {
        let Err(error) = become_keeper();
        let _ = writeln!(io::stderr(), "error: cannot run under a keeper: {error}");
        std::process::exit(1);
    }
}

fn become_keeper() -> io::Result<Infallible> {
    take_name();
    signals::restore_child_signal();
    let nofile = rlimit::raise_nofile()?;
    let soft = std::env::var_os(NOFILE).unwrap_or_else(|| nofile.soft.to_string().into());
    // What has led here is not needed again, nor what starts a broker process.
    code::let_go();
    let with_limit = move |image: &OwnedFd| {
        let mut command = command(image);
        command.env(NOFILE, &soft);
        command
    };
    let code = shiftboss_keeper::keep(Box::new(with_limit), code::let_go)?;
    std::process::exit(i32::from(code))
}

/// A program that is executed by a descriptor would be called by its number in ps(1).
fn take_name() {
    let name = std::env::args_os().next().map(PathBuf::from);
    let name = name.as_deref().and_then(Path::file_name).map(|name| name.as_bytes().to_vec());
    if let Some(name) = name.and_then(|name| CString::new(name).ok()) {
        let _ = rustix::thread::set_name(&name);
    }
}

impl OwnProcess {
    fn take_over(link: Link) -> io::Result<OwnProcess> {
        take_name();
        signals::let_through(&UNMEANT);
        // Should the keeper have ended before, the link says so.
        set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        let pid = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        let keeper = Keeper { link: Arc::new(link), pid, later: Arc::default() };
        let mut inherited = Inherited::default();
        while !inherited.take(keeper.hear_all()?) {}
        match inherited.go {
            GO_BEGIN => kill_points::arm(Part::Begins),
            GO_CHECK => {}
            _ => kill_points::arm(Part::GoesOn),
        }
        kill_points::point("all is heard from the keeper");
        let limits = rlimit::raise_nofile()?;
        let soft = std::env::var(NOFILE).ok().and_then(|soft| soft.parse().ok()).unwrap_or(limits.soft);
        Ok(OwnProcess { keeper, inherited, nofile: Nofile { soft, hard: limits.hard } })
    }

    /// In an image that is only asked whether it could go on: answers, and ends.
    fn checked(self) -> OwnProcess {
        if self.inherited.go != GO_CHECK {
            return self;
        }
        let answer = adopt::check(self.inherited).and_then(|()| self.keeper.ready());
        if let Err(error) = &answer {
            // Whoever asks reads it.
            let _ = writeln!(io::stderr(), "error: {error}");
        }
        std::process::exit(i32::from(answer.is_err()))
    }

    /// Whether another process has begun the app and this one goes on with it: its configuration is not read again.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.inherited.go != GO_BEGIN
    }
}

impl Inherited {
    /// Whether that was all.
    fn take(&mut self, packet: Packet) -> bool {
        let mut all = false;
        for (item, descriptors) in packet.words {
            match item.word {
                DEPOSIT => {
                    self.deposits.insert(item.key, descriptors);
                }
                EXIT => self.exits.push((item.key, item.value)),
                FATE => self.fate = Some(item.value),
                GO => (self.go, all) = (item.value, true),
                _ => {}
            }
        }
        all
    }

    pub(crate) fn is_salvage(&self) -> bool {
        self.go == GO_SALVAGE
    }

    /// What is left under a key; it is ours then.
    pub(crate) fn claim(&mut self, key: Key) -> Option<Vec<OwnedFd>> {
        self.deposits.remove(&key.value())
    }

    /// The only descriptor under a key.
    pub(crate) fn claim_one(&mut self, key: Key) -> Option<OwnedFd> {
        self.claim(key)?.pop()
    }

    /// The only socket under a key, with the note of its file if there is one.
    pub(crate) fn claim_socket(&mut self, key: Key) -> io::Result<Option<Noted>> {
        Noted::of(self.claim(key).unwrap_or_default())
    }

    /// All keys that are left.
    pub(crate) fn keys(&self) -> impl Iterator<Item = u64> {
        self.deposits.keys().copied()
    }
}

impl Keeper {
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Has descriptors held; they are there for a successor once this returns.
    pub(crate) fn deposit(&self, key: Key, descriptors: &[BorrowedFd<'_>], word: u64) -> io::Result<()> {
        let count = u32::try_from(descriptors.len()).unwrap_or(u32::MAX);
        let item = Item { descriptors: count, ..Item::new(DEPOSIT, key.value(), word) };
        // In the order in which it was meant: what is dropped may be under the same key.
        self.flush()?;
        kill_points::point("a deposit is made");
        self.link.say(&[item], descriptors, true)?;
        kill_points::point("a deposit was made");
        Ok(())
    }

    /// Has a listening socket held, with the note of its file if it has one: before it, since older versions take the last.
    pub(crate) fn deposit_socket(
        &self,
        key: Key,
        socket: BorrowedFd<'_>,
        file: Option<FileId>,
    ) -> io::Result<()> {
        let note = file.map(FileId::note).transpose()?;
        let both: Vec<_> = note.iter().map(AsFd::as_fd).chain([socket]).collect();
        self.deposit(key, &both, 0)
    }

    /// Has a worker sent a signal. The same number again does nothing.
    pub(crate) fn signal(&self, worker: WorkerId, number: u32, signal: Signal) -> io::Result<()> {
        let signal = u64::from(signal.0.unsigned_abs());
        let value = u64::from(number) << 32 | signal;
        self.link.say(&[Item::new(SIGNAL, Key::Worker(worker).value(), value)], &[], true)
    }

    /// Has something dropped, and a worker's end taken as taken in; said with the next [`Keeper::flush`].
    pub(crate) fn forget(&self, key: Key) {
        self.forget_value(key.value());
    }

    pub(crate) fn forget_value(&self, key: u64) {
        self.later().push(Item::new(FORGET, key, 0));
    }

    /// An order is taken in; said with the next [`Keeper::flush`].
    pub(crate) fn done(&self, order: u64) {
        self.later().push(Item::new(DONE, order, 0));
    }

    /// All that the keeper has told is taken in, and we act.
    pub(crate) fn ready(&self) -> io::Result<()> {
        self.flush()?;
        kill_points::point("READY is said");
        self.link.say(&[Item::new(READY, STATE_FORMAT, code())], &[], true)?;
        kill_points::point("READY was said");
        Ok(())
    }

    /// The app has ended; the exit code to pass on.
    pub(crate) fn end(&self, code: u8) -> io::Result<()> {
        self.flush()?;
        kill_points::point("END is said");
        self.link.say(&[Item::new(END, 0, u64::from(code))], &[], true)?;
        kill_points::point("END was said");
        Ok(())
    }

    /// The last word of this process: another image shall go on, and find this note.
    pub(crate) fn yield_to(&self, image: BorrowedFd<'_>, note: BorrowedFd<'_>) -> io::Result<()> {
        self.flush()?;
        let item = Item { descriptors: 2, ..Item::new(UPGRADE, Key::Upgrade.value(), 0) };
        self.link.say(&[item], &[image, note], true)
    }

    fn later(&self) -> MutexGuard<'_, Vec<Item>> {
        self.later.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what can be said together.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let mut later = self.later();
        for items in later.chunks(MOST_ITEMS) {
            kill_points::point("FORGET or DONE is said");
            self.link.say(items, &[], true)?;
            kill_points::point("FORGET or DONE was said");
        }
        later.clear();
        Ok(())
    }

    /// What it has said meanwhile.
    pub(crate) fn hear(&self) -> io::Result<Vec<Said>> {
        let mut said = Vec::new();
        while let Some(packet) = self.hear_some(false)? {
            said.extend(packet.words.into_iter().filter_map(|(item, _)| said_by(item)));
        }
        Ok(said)
    }

    fn hear_some(&self, wait: bool) -> io::Result<Option<Packet>> {
        self.link
            .hear(wait)
            .map_err(|error| io::Error::new(error.kind(), format!("the keeper is gone: {error}")))
    }

    fn hear_all(&self) -> io::Result<Packet> {
        match self.hear_some(true)? {
            Some(packet) if !packet.cut => Ok(packet),
            Some(_) | None => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        }
    }
}

impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// The keeper that this image has. In a build for tests it can pass for another, at every start.
fn code() -> u64 {
    let other = cfg!(debug_assertions) && std::env::var_os("SHIFTBOSS_OTHER_KEEPER").is_some();
    CODE ^ u64::from(other)
}

fn said_by(item: Item) -> Option<Said> {
    match item.word {
        EXIT => Some(Said::Exit { key: item.key, status: item.value }),
        ORDER => Some(Said::Order { number: item.key, what: item.value }),
        FATE => Some(Said::Fate(item.value)),
        LACKS => Some(Said::Lacks { key: item.key }),
        _ => None,
    }
}

/// Says that this image is to be the keeper.
const ANEW: &str = "SHIFTBOSS_KEEPER_ANEW";
/// The soft limit of open files that workers get.
const NOFILE: &str = "SHIFTBOSS_NOFILE";
