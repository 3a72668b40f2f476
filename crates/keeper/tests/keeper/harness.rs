//! A keeper and its broker process, as the tests of the keeper see them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use shiftboss_keeper::SAME_SIGNAL;
use shiftboss_link::wire::{GO, ORDER, ORDER_HANG_UP};
use tempfile::TempDir;

/// A keeper in a process of its own; it ends with the test, and whoever is below it with it.
pub(crate) struct Keeper {
    process: Child,
    listener: UnixListener,
    pub(crate) folder: TempDir,
}

/// A broker process of it, as the test sees it.
pub(crate) struct Broker {
    pub(crate) pid: Pid,
    lines: BufReader<UnixStream>,
    /// All that it was told at its start, "go" included.
    pub(crate) told: Vec<Said>,
}

/// A word that a broker process has heard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Said {
    pub(crate) word: u32,
    pub(crate) key: u64,
    pub(crate) value: u64,
    pub(crate) descriptors: u32,
}

pub(crate) fn said(word: u32, key: u64, value: u64) -> Said {
    Said { word, key, value, descriptors: 0 }
}

impl Keeper {
    pub(crate) fn start() -> Keeper {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let process = Command::new(PROGRAM).arg(&socket).spawn().unwrap();
        Keeper { process, listener, folder }
    }

    /// The broker process that is started next, once it was told to go.
    pub(crate) fn next(&self) -> Broker {
        until_readable(&self.listener, "nobody was started");
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(AT_MOST)).unwrap();
        let mut lines = BufReader::new(stream);
        let mut broker = Broker { pid: pid(&line(&mut lines)), lines, told: Vec::new() };
        while broker.told.last().is_none_or(|said| said.word != GO) {
            let said = broker.hears();
            broker.told.push(said);
        }
        broker
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Another signal, which is not one with the last.
    pub(crate) fn signal_again(&self, signal: Signal) {
        let until = Instant::now() + AT_MOST;
        while !self.has_taken_signals_in() {
            assert!(Instant::now() < until, "the last one is not taken in");
            std::thread::yield_now();
        }
        let later = Instant::now() + SAME_SIGNAL + Duration::from_millis(50);
        while Instant::now() < later {
            std::thread::yield_now();
        }
        self.signal(signal);
    }

    /// Whether none waits for it, and it waits for whatever comes next (proc(5), `ShdPnd` and `State`).
    fn has_taken_signals_in(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let is = |name: &str, expected: fn(&str) -> bool| {
            status.lines().filter_map(|line| line.strip_prefix(name)).any(|value| expected(value.trim()))
        };
        is("ShdPnd:", |set| set.bytes().all(|digit| digit == b'0'))
            && is("State:", |state| state.starts_with('S'))
    }

    /// Does something that the keeper sees when all of it has happened.
    pub(crate) fn while_stopped(&self, does: impl FnOnce()) {
        self.signal(Signal::STOP);
        does();
        self.signal(Signal::CONT);
    }

    pub(crate) fn ended(mut self) -> ExitStatus {
        until_readable(pidfd_open(self.pid(), PidfdFlags::empty()).unwrap(), "the keeper does not end");
        self.process.wait().unwrap()
    }

    pub(crate) fn has_executed_another(&self) -> bool {
        let environment = fs::read(format!("/proc/{}/environ", self.process.id())).unwrap();
        String::from_utf8_lossy(&environment).contains(&format!("{}=", shiftboss_keeper::STATE))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It may have ended, and is not reaped before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Broker {
    /// The next word that it hears.
    pub(crate) fn hears(&mut self) -> Said {
        let line = line(&mut self.lines);
        let numbers: Vec<u64> = line.split(' ').map_while(|word| word.parse().ok()).collect();
        let [word, key, value, descriptors] = numbers[..] else { panic!("{line:?} is no word") };
        let small = |number| u32::try_from(number).unwrap();
        Said { word: small(word), key, value, descriptors: small(descriptors) }
    }

    /// Hears the next order, all that it has said before being heard by then.
    pub(crate) fn takes_order(&mut self, keeper: &Keeper, number: u64) {
        keeper.signal(Signal::HUP);
        assert_eq!(self.hears(), said(ORDER, number, ORDER_HANG_UP));
        self.does(&format!("took {number}"));
    }

    pub(crate) fn does(&mut self, command: &str) {
        self.does_last(command);
        assert_eq!(line(&mut self.lines), "did", "{command}");
    }

    /// The answer to a command.
    pub(crate) fn answers(&mut self, command: &str) -> String {
        self.does_last(command);
        let answer = line(&mut self.lines);
        assert_eq!(line(&mut self.lines), "did", "{command}");
        answer
    }

    /// It ends by this one.
    pub(crate) fn does_last(&mut self, command: &str) {
        writeln!(self.lines.get_mut(), "{command}").unwrap();
    }

    pub(crate) fn kill(&self) {
        kill_process(self.pid, Signal::KILL).unwrap();
    }

    /// Its workers have the connection too.
    pub(crate) fn leaves_nobody(mut self) {
        let mut rest = Vec::new();
        self.lines.read_to_end(&mut rest).expect("somebody is left");
    }
}

pub(crate) fn line(lines: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    assert!(lines.read_line(&mut line).expect("it says nothing") > 0, "it is gone");
    line.trim_end().to_owned()
}

pub(crate) fn pid(line: &str) -> Pid {
    Pid::from_raw(line.parse().unwrap()).unwrap()
}

pub(crate) fn until_readable(descriptor: impl std::os::fd::AsFd, otherwise: &str) {
    let until = Instant::now() + AT_MOST;
    loop {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).unwrap();
        match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            polled => break assert_eq!(polled, Ok(1), "{otherwise}"),
        }
    }
}

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_keeper-under-test");
/// Longer than anything here takes.
const AT_MOST: Duration = Duration::from_secs(30);
