//! What the tests of the keeper start: a keeper, and below it a broker process that does what a test asks of it.
//!
//! The broker process connects to the test's socket. It tells each word that it hears from the keeper, a line each:
//! word, key, value, number of descriptors. It takes commands, a line each, and says "did" after each.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::process::exit;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Signal, set_parent_process_death_signal};
use shiftboss_keeper::{CODE, STATE_FORMAT, keep};
use shiftboss_link::wire::{DEPOSIT, DONE, END, FORGET, Item, READY, RECORDS, SIGNAL, UPGRADE};
use shiftboss_link::{Link, command, inherited};

fn main() -> io::Result<()> {
    match inherited()? {
        Some(link) => Broker::new(link)?.run(),
        None => exit(i32::from(keep(Box::new(command), || ())?)),
    }
}

struct Broker {
    link: Link,
    test: UnixStream,
    held: BTreeMap<u64, Vec<OwnedFd>>,
}

impl Broker {
    fn new(link: Link) -> io::Result<Broker> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let socket = std::env::args_os().nth(1).ok_or(io::ErrorKind::InvalidInput)?;
        let test = UnixStream::connect(socket)?;
        Ok(Broker { link, test, held: BTreeMap::new() })
    }

    fn run(mut self) -> io::Result<()> {
        writeln!(self.test, "{}", std::process::id())?;
        let mut commands = BufReader::new(self.test.try_clone()?);
        loop {
            let mut polled = [PollFd::new(&self.link, PollFlags::IN), PollFd::new(&self.test, PollFlags::IN)];
            poll(&mut polled, None)?;
            let [spoken, asked] = polled.map(|fd| !fd.revents().is_empty());
            if spoken {
                self.hear()?;
            }
            if asked {
                let mut line = String::new();
                if commands.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                let words: Vec<&str> = line.split_whitespace().collect();
                self.act(&words)?;
                writeln!(self.test, "did")?;
            }
        }
    }

    fn hear(&mut self) -> io::Result<()> {
        for (item, descriptors) in self.link.hear(false)?.into_iter().flat_map(|packet| packet.words) {
            writeln!(self.test, "{} {} {} {}", item.word, item.key, item.value, descriptors.len())?;
            if item.word == DEPOSIT {
                self.held.insert(item.key, descriptors);
            }
        }
        Ok(())
    }

    fn act(&mut self, words: &[&str]) -> io::Result<()> {
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
        match words {
            // A pipe with something in it.
            ["pipe", _, text] => {
                let (read, mut write) = io::pipe()?;
                write.write_all(text.as_bytes())?;
                self.deposit(number(1), 0, vec![read.into(), write.into()])?;
            }
            ["read", _] => {
                let Some([read, _]) = self.held.get(&number(1)).map(|held| &held[..]) else { exit(2) };
                let mut text = [0; 100];
                let length = File::from(read.try_clone()?).read(&mut text)?;
                writeln!(self.test, "{}", String::from_utf8_lossy(&text[..length]))?;
            }
            ["worker", _] => self.start_worker(number(1))?,
            ["ready"] => self.say(READY, STATE_FORMAT, CODE, &[])?,
            // As an image that has another keeper.
            ["ready", "other"] => self.say(READY, STATE_FORMAT, CODE ^ 1, &[])?,
            ["forget", _] => self.say(FORGET, number(1), 0, &[])?,
            ["signal", ..] => self.say(SIGNAL, number(1), number(2) << 32 | number(3), &[])?,
            ["took", _] => self.say(DONE, number(1), 0, &[])?,
            ["upgrade", _, path] => {
                let (image, note) = (File::open(path)?, File::open("/dev/null")?);
                self.say(UPGRADE, number(1), 0, &[image.as_fd(), note.as_fd()])?;
                exit(0);
            }
            ["end", _] => {
                self.say(END, 0, number(1), &[])?;
                exit(0);
            }
            ["exit", _] => exit(i32::try_from(number(1)).unwrap_or(1)),
            _ => exit(2),
        }
        Ok(())
    }

    /// Deposits a worker's descriptors, then clones it as a child of the keeper and writes down its number.
    fn start_worker(&mut self, key: u64) -> io::Result<()> {
        let records = File::from(memfd_create("records", MemfdFlags::CLOEXEC)?);
        let (read, write) = io::pipe()?;
        self.deposit(RECORDS, 0, vec![records.try_clone()?.into()])?;
        self.deposit(key, WORD, vec![read.into()])?;
        let flags = libc::CLONE_PARENT | libc::SIGCHLD;
        // SAFETY: without CLONE_VM and a stack this is fork(2), in a process that has one thread.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        match i32::try_from(pid) {
            Ok(0) => work(),
            Ok(pid) if pid > 0 => records.write_all_at(&pid.to_ne_bytes(), WORD)?,
            Ok(_) | Err(_) => return Err(io::Error::last_os_error()),
        }
        drop(write);
        writeln!(self.test, "{pid}")
    }

    fn deposit(&mut self, key: u64, value: u64, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        self.say(DEPOSIT, key, value, &borrowed)?;
        self.held.insert(key, descriptors);
        Ok(())
    }

    fn say(&self, word: u32, key: u64, value: u64, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let count = u32::try_from(descriptors.len()).unwrap_or(u32::MAX);
        self.link.say(&[Item { descriptors: count, ..Item::new(word, key, value) }], descriptors, true)
    }
}

/// A worker: holds the connection to the test as long as it lives, and ends with the keeper.
fn work() -> ! {
    if set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        exit(1);
    }
    loop {
        rustix::event::pause();
    }
}

/// Where the worker's number stands in the records.
const WORD: u64 = 64;
