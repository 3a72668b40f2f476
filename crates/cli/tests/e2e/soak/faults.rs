//! What can happen in one second.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use shiftboss_api::WorkerState;

use super::Soak;
use crate::app::*;
use crate::faults_of_keeper_and_broker::images::replace;

pub(super) type Fault = (&'static str, fn(&mut Soak));

/// While the broker process lives.
pub(super) fn alive() -> &'static [Fault] {
    &FAULTS[..FAULTS.len() - OF_THE_BROKER_PROCESS]
}

/// All of them.
pub(super) fn after_death() -> &'static [Fault] {
    FAULTS
}

const FAULTS: &[Fault] = &[
    ("a worker is killed", |soak| soak.kill("rough", 1)),
    ("all workers of a broker are killed", |soak| soak.kill("rough", usize::MAX)),
    ("a worker that speaks is killed", |soak| soak.kill("talk", 1)),
    ("a worker is killed that has one behind it", |soak| soak.kill("door", 1)),
    ("who waits at the door is killed", |soak| {
        let pids = soak.pids_of("door", WorkerState::Standby);
        soak.kill_those("door", &pids);
    }),
    ("recycle what has one at the door", |soak| soak.asks(&["recycle", "door", "--no-wait"])),
    ("a worker is stopped", |soak| soak.signal_some("loud", Signal::STOP)),
    ("a worker is stopped for a while", |soak| {
        soak.signal_some("rough", Signal::STOP);
        pause(300);
        soak.signal_some("rough", Signal::CONT);
    }),
    ("recycle", |soak| soak.asks(&["recycle", "calm", "--no-wait"])),
    ("recycle", |soak| soak.asks(&["recycle", "rough", "--no-wait"])),
    ("recycle a slot", |soak| soak.asks(&["recycle", "talk/1", "--no-wait"])),
    ("recycle what never stops", |soak| soak.asks(&["recycle", "loud", "--no-wait"])),
    ("scale up", |soak| soak.asks(&["scale", "calm", "6", "--no-wait"])),
    ("scale down", |soak| soak.asks(&["scale", "calm", "2", "--no-wait"])),
    ("scale to none", |soak| {
        soak.asks(&["scale", "part", "0", "--no-wait"]);
        soak.asks(&["scale", "part", "4", "--no-wait"]);
    }),
    ("drain and resume", |soak| {
        soak.asks(&["drain", "calm", "--no-wait"]);
        pause(400);
        soak.asks(&["resume", "calm", "--no-wait"]);
    }),
    ("drain and resume what is part-time", |soak| {
        soak.asks(&["drain", "part", "--no-wait"]);
        soak.asks(&["resume", "part", "--now", "--no-wait"]);
    }),
    ("a file changes", |soak| {
        let text = soak.random.to_string();
        std::fs::write(soak.app.path("changes"), text).unwrap();
    }),
    ("hang up", |soak| soak.app.signal(Signal::HUP)),
    ("send", |soak| soak.tries(&["send", "talk", "{\"a\": [1, 2]}"])),
    ("call", |soak| soak.tries(&["call", "talk", "\"x\"", "--timeout", "5s"])),
    ("status", |soak| soak.asks(&["status"])),
    ("status for programs", |soak| drop(soak.app.status())),
    ("events", |soak| soak.asks(&["events"])),
    ("a check", |soak| soak.tries(&["status", "--check"])),
    ("an unknown name", |soak| {
        let answer = soak.app.ask(&["recycle", "nobody"]);
        assert_eq!(answer.status.code(), Some(2), "{}", text(&answer.stderr));
    }),
    ("nonsense to the control socket", |soak| {
        let bytes: Vec<u8> = (0..500).map(|_| u8::try_from(soak.below(256)).unwrap()).collect();
        for bytes in [&bytes, &b"POST /v1/commands HTTP/1.1\r\nContent-Length: 9\r\n\r\n{\"recycle"[..]] {
            // It may be sent away before all is said.
            let _ = UnixStream::connect(soak.app.socket()).and_then(|mut stream| stream.write_all(bytes));
        }
    }),
    ("clients that say nothing", |soak| {
        let clients: Vec<_> = (0..100).map(|_| UnixStream::connect(soak.app.socket())).collect();
        soak.asks(&["status"]);
        drop(clients);
    }),
    ("whoever asks is killed", |soak| {
        let mut command = Command::new(BIN);
        command.args(["recycle", "rough", "--socket"]).arg(soak.app.socket());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        pause(30);
        child.kill().unwrap();
        child.wait().unwrap();
    }),
    ("whoever watches does not read", |soak| {
        let mut command = Command::new(BIN);
        command.args(["events", "-f", "--json", "--socket"]).arg(soak.app.socket());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        soak.asks(&["recycle", "talk", "--no-wait"]);
        pause(500);
        child.kill().unwrap();
        child.wait().unwrap();
    }),
    ("the keeper is stopped for a while", |soak| {
        soak.app.signal(Signal::STOP);
        pause(200);
        soak.app.signal(Signal::CONT);
    }),
    ("the broker process is stopped for a while", |soak| {
        let broker = soak.app.broker_pid();
        signal_process(broker, Signal::STOP);
        pause(300);
        signal_process(broker, Signal::CONT);
    }),
    ("signals in a storm", |soak| {
        for _ in 0..1000 {
            soak.app.signal(Signal::CHILD);
            soak.app.signal(Signal::WINCH);
        }
    }),
    // From here on the broker process is replaced.
    ("the broker process is killed", |soak| soak.app.kill_broker()),
    ("the broker process is killed during a recycle", |soak| {
        soak.asks(&["recycle", "calm", "--no-wait"]);
        pause(20);
        soak.app.kill_broker();
    }),
    ("the broker process is stopped and killed", |soak| {
        // Asked for before: one that is stopped answers nobody.
        let (broker, workers) = (soak.app.broker_pid(), soak.pids("rough"));
        signal_process(broker, Signal::STOP);
        soak.kill_those("rough", &workers[..workers.len().min(1)]);
        signal_process(broker, Signal::KILL);
        eventually("the broker process is gone", || is_gone(broker));
    }),
    ("upgrade", |soak| soak.upgrade()),
];
const OF_THE_BROKER_PROCESS: usize = 4;

impl Soak {
    /// A command that must be taken.
    fn asks(&self, words: &[&str]) {
        self.app.does(words);
    }

    /// One that may have nobody to reach at the moment, or find not all as wanted.
    fn tries(&self, words: &[&str]) {
        let answer = self.app.ask(words);
        let code = answer.status.code();
        assert!(matches!(code, Some(0 | 1 | 3 | 75)), "{words:?}: {code:?} {}", text(&answer.stderr));
    }

    fn pids(&self, broker: &str) -> Vec<u32> {
        self.pids_of(broker, WorkerState::Ready)
    }

    fn pids_of(&self, broker: &str, state: WorkerState) -> Vec<u32> {
        let status = self.app.status();
        let broker = status.brokers.into_iter().find(|other| other.name == broker).unwrap();
        let those = broker.workers.into_iter().filter(|worker| worker.state == state);
        those.filter_map(|worker| worker.pid).collect()
    }

    fn kill(&mut self, broker: &str, most: usize) {
        let pids = self.pids(broker);
        self.kill_those(broker, &pids[..pids.len().min(most)]);
    }

    fn kill_those(&mut self, broker: &str, pids: &[u32]) {
        for pid in pids {
            // It may have left meanwhile.
            signal_if_there(*pid, Signal::KILL);
            self.killed += u64::from(broker == "rough");
        }
    }

    fn signal_some(&mut self, broker: &str, signal: Signal) {
        self.pids(broker).into_iter().for_each(|pid| signal_if_there(pid, signal));
    }

    fn upgrade(&mut self) {
        replace(&self.app, &std::fs::read(BIN).unwrap());
        self.asks(&["upgrade"]);
    }
}

/// Ours it is only while it is below the keeper; numbers are not used again that soon.
fn signal_if_there(pid: u32, signal: Signal) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(), signal);
}

fn pause(milliseconds: u64) {
    let end = Instant::now() + Duration::from_millis(milliseconds);
    eventually("a moment passes", || Instant::now() >= end);
}
