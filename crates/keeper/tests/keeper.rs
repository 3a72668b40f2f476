//! The keeper alone: what it promises to the broker process below it, whatever becomes of that.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process, pidfd_open, prlimit,
};
use shiftboss_keeper::SAME_SIGNAL;
use shiftboss_link::wire::{
    BY_SIGNAL, DEPOSIT, ENDED_EARLY, ENDED_SOON, EXIT, FATE, GO, GO_ADOPT, GO_BEGIN, GO_SALVAGE,
    NOT_EXECUTED, ORDER, ORDER_HANG_UP, ORDER_STOP, ORDER_STOP_NOW, TOOK_OVER, UNDECIDED,
};
use tempfile::TempDir;

#[test]
fn a_successor_is_given_the_very_descriptors_that_were_deposited() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    assert_eq!(broker.told, [said(GO, 0, GO_BEGIN)]);
    broker.does("pipe 7 hello");
    broker.does("pipe 8 dropped");
    broker.does("forget 8");
    broker.does("ready");
    broker.kill();
    let mut broker = keeper.next();
    assert_eq!(broker.told, [Said { descriptors: 2, ..said(DEPOSIT, 7, 0) }, said(GO, 0, GO_ADOPT)]);
    assert_eq!(broker.answers("read 7"), "hello");
    broker.does("ready");
    broker.does_last("end 0");
    assert!(keeper.ended().success());
}

#[test]
fn a_deposit_that_was_a_killed_broker_processs_last_word_is_held() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("ready");
    keeper.while_stopped(|| {
        broker.does("pipe 7 late");
        broker.kill();
    });
    let mut broker = keeper.next();
    assert_eq!(broker.answers("read 7"), "late");
}

#[test]
fn how_a_worker_ended_is_told_to_every_successor_until_it_is_forgotten() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.answers("worker 9");
    broker.does("ready");
    broker.does(&format!("signal 9 1 {}", libc::SIGPROF));
    let exit = said(EXIT, 9, BY_SIGNAL | u64::from(libc::SIGPROF.unsigned_abs()));
    assert_eq!(broker.hears(), exit);
    broker.kill();
    let mut broker = keeper.next();
    assert!(broker.told.contains(&exit), "{:?}", broker.told);
    broker.does("ready");
    broker.does("forget 9");
    broker.kill();
    let broker = keeper.next();
    assert!(broker.told.iter().all(|said| said.key != 9), "{:?}", broker.told);
}

#[test]
fn a_worker_that_ends_while_nobody_has_taken_over_is_told_once_somebody_has() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    let worker = pid(&broker.answers("worker 9"));
    broker.does("ready");
    broker.kill();
    let mut broker = keeper.next();
    let ended = pidfd_open(worker, PidfdFlags::empty()).unwrap();
    kill_process(worker, Signal::KILL).unwrap();
    until_readable(&ended, "the worker does not end");
    keeper.signal(Signal::HUP);
    assert_eq!(broker.hears(), said(ORDER, 1, ORDER_HANG_UP), "its number is still its own");
    broker.does("ready");
    assert_eq!(broker.hears(), said(EXIT, 9, BY_SIGNAL | 9));
}

#[test]
fn an_order_is_given_to_every_successor_until_it_is_done() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("ready");
    keeper.signal(Signal::TERM);
    assert_eq!(broker.hears(), said(ORDER, 1, ORDER_STOP));
    broker.does("pipe 7 app");
    broker.kill();
    let mut broker = keeper.next();
    assert_eq!(broker.hears(), said(ORDER, 1, ORDER_STOP));
    broker.does("ready");
    broker.does("took 1");
    broker.kill();
    let mut broker = keeper.next();
    broker.does("ready");
    keeper.signal(Signal::HUP);
    assert_eq!(broker.hears(), said(ORDER, 2, ORDER_HANG_UP));
}

#[test]
fn the_exit_code_of_the_end_is_the_keepers_and_nobody_is_left() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.answers("worker 9");
    broker.does("ready");
    broker.does_last("end 7");
    assert_eq!(keeper.ended().code(), Some(7));
    broker.leaves_nobody();
}

#[test]
fn a_broker_process_that_cannot_begin_is_not_started_again() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does_last("exit 3");
    assert_eq!(keeper.ended().code(), Some(3));
}

#[test]
fn after_three_early_deaths_in_a_row_the_next_one_is_to_salvage() {
    let keeper = Keeper::start();
    for go in [GO_BEGIN, GO_ADOPT, GO_ADOPT, GO_SALVAGE] {
        let mut broker = keeper.next();
        assert_eq!(broker.told.last(), Some(&said(GO, 0, go)));
        broker.does("pipe 7 app");
        broker.does("ready");
        broker.kill();
    }
}

#[test]
fn a_second_stop_that_nobody_can_take_in_ends_everything() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.answers("worker 9");
    broker.does("ready");
    broker.kill();
    let mut successor = keeper.next();
    keeper.signal(Signal::TERM);
    assert_eq!(successor.hears(), said(ORDER, 1, ORDER_STOP));
    keeper.signal_again(Signal::INT);
    assert_eq!(keeper.ended().code(), Some(1));
    broker.leaves_nobody();
}

#[test]
fn an_order_that_comes_while_another_is_under_way_is_told_as_well() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("ready");
    keeper.signal(Signal::TERM);
    assert_eq!(broker.hears(), said(ORDER, 1, ORDER_STOP));
    broker.does("took 1");
    keeper.signal_again(Signal::TERM);
    assert_eq!(broker.hears(), said(ORDER, 2, ORDER_STOP_NOW));
}

#[test]
fn a_broker_process_that_has_not_heard_the_first_stop_makes_way_at_the_second() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("pipe 7 app");
    broker.does("ready");
    kill_process(broker.pid, Signal::STOP).unwrap();
    keeper.signal(Signal::TERM);
    keeper.signal_again(Signal::TERM);
    let mut broker = keeper.next();
    assert_eq!(
        (broker.hears(), broker.hears()),
        (said(ORDER, 1, ORDER_STOP), said(ORDER, 2, ORDER_STOP_NOW))
    );
    broker.does_last("end 0");
    assert!(keeper.ended().success());
}

#[test]
fn a_signal_that_means_nothing_ends_nothing() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("ready");
    for signal in [Signal::USR1, Signal::ALARM] {
        keeper.signal(signal);
    }
    broker.takes_order(&keeper, 1);
}

#[test]
fn an_image_that_cannot_be_executed_gives_way_to_the_old_one() {
    let keeper = Keeper::start();
    let image = keeper.folder.path().join("image");
    fs::write(&image, "no program").unwrap();
    is_given_up(&keeper, &image, NOT_EXECUTED | u64::from(libc::EACCES.unsigned_abs()) << 8);
}

#[test]
fn an_image_that_ends_before_it_is_ready_gives_way_to_the_old_one() {
    is_given_up(&Keeper::start(), Path::new("/bin/false"), ENDED_EARLY | 1 << 8);
}

fn is_given_up(keeper: &Keeper, image: &Path, fate: u64) {
    let mut broker = keeper.next();
    broker.does("pipe 7 app");
    broker.does("ready");
    broker.does_last(&format!("upgrade 5 {}", image.display()));
    let mut broker = keeper.next();
    let note = Said { descriptors: 1, ..said(DEPOSIT, 5, 0) };
    let app = Said { descriptors: 2, ..said(DEPOSIT, 7, 0) };
    assert_eq!(broker.told, [said(FATE, 5, fate), note, app, said(GO, 0, GO_ADOPT)]);
    broker.does("ready");
    broker.does("forget 5");
    broker.kill();
    assert_eq!(keeper.next().told, [app, said(GO, 0, GO_ADOPT)]);
}

#[test]
fn an_image_that_dies_once_it_is_ready_gives_way_to_the_old_one() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("pipe 7 app");
    broker.does("ready");
    broker.does_last(&format!("upgrade 5 {PROGRAM}"));
    let mut broker = keeper.next();
    assert!(broker.told.contains(&said(FATE, 5, UNDECIDED)), "{:?}", broker.told);
    broker.does("ready");
    broker.kill();
    let told = keeper.next().told;
    let fate = ENDED_SOON | (BY_SIGNAL | 9) << 8;
    assert!(told.contains(&said(FATE, 5, fate)), "{told:?}");
}

#[test]
fn a_keeper_of_another_image_goes_on_in_the_same_process_with_all_that_was_held() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("pipe 7 hello");
    broker.answers("worker 9");
    broker.does("ready");
    broker.does(&format!("signal 9 1 {}", libc::SIGURG));
    keeper.signal(Signal::HUP);
    assert_eq!(broker.hears(), said(ORDER, 1, ORDER_HANG_UP));
    broker.does_last(&format!("upgrade 5 {PROGRAM}"));
    let mut broker = keeper.next();
    assert_eq!(broker.hears(), said(ORDER, 1, ORDER_HANG_UP));
    broker.does("ready other");
    assert_eq!(broker.hears(), said(FATE, 5, TOOK_OVER));
    broker.does(&format!("signal 9 1 {}", libc::SIGKILL));
    broker.does(&format!("signal 9 2 {}", libc::SIGPROF));
    let exit = said(EXIT, 9, BY_SIGNAL | u64::from(libc::SIGPROF.unsigned_abs()));
    assert_eq!(broker.hears(), exit, "a signal is sent once");
    assert!(keeper.has_executed_another(), "the first keeper did all of this");
    keeper.signal(Signal::TERM);
    assert_eq!(broker.hears(), said(ORDER, 2, ORDER_STOP));
    broker.kill();
    let mut broker = keeper.next();
    for expected in [exit, said(FATE, 5, TOOK_OVER), said(GO, 0, GO_ADOPT)] {
        assert!(broker.told.contains(&expected), "{:?}", broker.told);
    }
    assert_eq!((broker.hears(), broker.hears()), (said(ORDER, 1, ORDER_HANG_UP), said(ORDER, 2, ORDER_STOP)));
    assert_eq!(broker.answers("read 7"), "hello");
    broker.does("ready");
    broker.does_last("end 0");
    assert!(keeper.ended().success());
}

#[test]
fn a_renewal_that_failed_is_tried_again_with_the_next_broker_process() {
    let keeper = Keeper::start();
    let mut broker = keeper.next();
    broker.does("pipe 7 hello");
    broker.takes_order(&keeper, 1);
    let before = prlimit(Some(keeper.pid()), Resource::Nofile, no_more_files()).unwrap();
    broker.does("ready other");
    // Between two orders it has tried.
    broker.takes_order(&keeper, 2);
    broker.takes_order(&keeper, 3);
    assert!(!keeper.has_executed_another());
    prlimit(Some(keeper.pid()), Resource::Nofile, before).unwrap();
    broker.kill();
    let mut broker = keeper.next();
    broker.does("ready other");
    broker.takes_order(&keeper, 4);
    broker.takes_order(&keeper, 5);
    assert!(keeper.has_executed_another());
    broker.kill();
    assert_eq!(keeper.next().answers("read 7"), "hello");
}

/// Room for the descriptors that every process has.
fn no_more_files() -> Rlimit {
    Rlimit { current: Some(3), ..getrlimit(Resource::Nofile) }
}

/// A keeper in a process of its own; it ends with the test, and whoever is below it with it.
struct Keeper {
    process: Child,
    listener: UnixListener,
    folder: TempDir,
}

/// A broker process of it, as the test sees it.
struct Broker {
    pid: Pid,
    lines: BufReader<UnixStream>,
    /// All that it was told at its start, "go" included.
    told: Vec<Said>,
}

/// A word that a broker process has heard.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Said {
    word: u32,
    key: u64,
    value: u64,
    descriptors: u32,
}

fn said(word: u32, key: u64, value: u64) -> Said {
    Said { word, key, value, descriptors: 0 }
}

impl Keeper {
    fn start() -> Keeper {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let process = Command::new(PROGRAM).arg(&socket).spawn().unwrap();
        Keeper { process, listener, folder }
    }

    /// The broker process that is started next, once it was told to go.
    fn next(&self) -> Broker {
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

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Another signal, which is not one with the last.
    fn signal_again(&self, signal: Signal) {
        let later = Instant::now() + SAME_SIGNAL + Duration::from_millis(50);
        while Instant::now() < later {
            std::thread::yield_now();
        }
        self.signal(signal);
    }

    /// Does something that the keeper sees when all of it has happened.
    fn while_stopped(&self, does: impl FnOnce()) {
        self.signal(Signal::STOP);
        does();
        self.signal(Signal::CONT);
    }

    fn ended(mut self) -> ExitStatus {
        until_readable(pidfd_open(self.pid(), PidfdFlags::empty()).unwrap(), "the keeper does not end");
        self.process.wait().unwrap()
    }

    fn has_executed_another(&self) -> bool {
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
    fn hears(&mut self) -> Said {
        let line = line(&mut self.lines);
        let numbers: Vec<u64> = line.split(' ').map_while(|word| word.parse().ok()).collect();
        let [word, key, value, descriptors] = numbers[..] else { panic!("{line:?} is no word") };
        let small = |number| u32::try_from(number).unwrap();
        Said { word: small(word), key, value, descriptors: small(descriptors) }
    }

    /// Hears the next order, all that it has said before being heard by then.
    fn takes_order(&mut self, keeper: &Keeper, number: u64) {
        keeper.signal(Signal::HUP);
        assert_eq!(self.hears(), said(ORDER, number, ORDER_HANG_UP));
        self.does(&format!("took {number}"));
    }

    fn does(&mut self, command: &str) {
        self.does_last(command);
        assert_eq!(line(&mut self.lines), "did", "{command}");
    }

    /// The answer to a command.
    fn answers(&mut self, command: &str) -> String {
        self.does_last(command);
        let answer = line(&mut self.lines);
        assert_eq!(line(&mut self.lines), "did", "{command}");
        answer
    }

    /// It ends by this one.
    fn does_last(&mut self, command: &str) {
        writeln!(self.lines.get_mut(), "{command}").unwrap();
    }

    fn kill(&self) {
        kill_process(self.pid, Signal::KILL).unwrap();
    }

    /// Its workers have the connection too.
    fn leaves_nobody(mut self) {
        let mut rest = Vec::new();
        self.lines.read_to_end(&mut rest).expect("somebody is left");
    }
}

fn line(lines: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    assert!(lines.read_line(&mut line).expect("it says nothing") > 0, "it is gone");
    line.trim_end().to_owned()
}

fn pid(line: &str) -> Pid {
    Pid::from_raw(line.parse().unwrap()).unwrap()
}

fn until_readable(descriptor: impl std::os::fd::AsFd, otherwise: &str) {
    let until = Instant::now() + AT_MOST;
    loop {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).unwrap();
        match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            polled => break assert_eq!(polled, Ok(1), "{otherwise}"),
        }
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_keeper-under-test");
/// Longer than anything here takes.
const AT_MOST: Duration = Duration::from_secs(30);
