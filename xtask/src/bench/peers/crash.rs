//! Managers at rest, and then what happens when a worker is killed: all of them run at the same time and have their
//! turns, so that none has a better moment than another.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};

use super::super::first_line::{ms_between, now};
use super::super::stats::{median, quantile};
use super::plan::{Peer, Worker};
use super::running::Running;
use super::table::{Better, Cell, Line, Table, column};
use super::{Peers, all};

pub(super) fn measure(peers: &Peers) -> Result<Vec<Table>> {
    let compared = all().into_iter().filter(|peer| !peer.only_serves);
    let mut trials: Vec<Trial> = compared.map(|peer| Trial::begin(peers, peer)).collect();
    thread::sleep(SETTLE);
    let quiet = if peers.bench.quick { QUIET / 10 } else { QUIET };
    trials.iter_mut().for_each(|trial| trial.attempt(Subject::look));
    thread::sleep(quiet);
    trials.iter_mut().for_each(|trial| trial.attempt(Subject::look_again));
    for _ in 0..peers.times(12, 3) {
        for trial in &mut trials {
            trial.attempt(Subject::kill_one);
            thread::sleep(PAUSE);
        }
    }
    for trial in &mut trials {
        trial.attempt(Subject::stop);
    }
    let mut tables = Vec::new();
    for worker in Worker::ALL {
        let mut crash = Table {
            title: format!("Crash to successor: {}", worker.name()),
            columns: vec![
                column("kill -9 to the successor's first line, median, ms", 1, Better::Less),
                column("slowest, ms", 1, Better::Neither),
            ],
            lines: lines(&trials, worker, |subject| {
                let samples = &subject.samples;
                vec![Cell::Number(median(samples)), Cell::Number(quantile(samples, 1.0))]
            }),
            why: "A death goes to the keeper, which tells the broker process, which writes it down before it starts the \
                  successor: the price of being killable.".to_owned() + worker.why_it_starts_slowly(),
        };
        crash.beside_bare();
        tables.push(crash);
    }
    for worker in Worker::ALL {
        tables.push(Table {
            title: format!("At rest, four workers: {}", worker.name()),
            columns: vec![
                column("memory of the manager's own processes (PSS), KB", 0, Better::Less),
                column("its processes", 0, Better::Neither),
                column("wake-ups in 20 s", 0, Better::Less),
            ],
            lines: lines(&trials, worker, |subject| {
                let wake_ups = (subject.wake_ups.1 - subject.wake_ups.0) * (QUIET.as_secs_f64() / quiet.as_secs_f64());
                let processes = subject.processes as f64;
                vec![Cell::Number(subject.pss_kb), Cell::Number(processes), Cell::Number(wake_ups)]
            }),
            why: "Those that are smaller have no control API, no messages, no records for a successor and no events.".to_owned(),
        });
    }
    Ok(tables)
}

fn lines(trials: &[Trial], worker: Worker, cells: impl Fn(&Subject) -> Vec<Cell>) -> Vec<Line> {
    let of_worker = trials.iter().filter(|trial| trial.peer.worker == worker);
    let line = |trial: &Trial| Line {
        peer: trial.peer.name,
        cells: trial.subject.as_ref().map(&cells).map_err(Clone::clone),
    };
    of_worker.map(line).collect()
}

/// A peer and how far it has come; whoever fails is out.
struct Trial {
    peer: Peer,
    subject: Result<Subject, String>,
}

struct Subject {
    running: Running,
    /// The next victim first.
    workers: VecDeque<Pid>,
    pss_kb: f64,
    processes: usize,
    /// Before and after the quiet time.
    wake_ups: (f64, f64),
    /// In ms.
    samples: Vec<f64>,
}

impl Trial {
    fn begin(peers: &Peers, peer: Peer) -> Trial {
        let subject = Subject::begin(peers, peer).map_err(|error| format!("{error:#}"));
        Trial { peer, subject }
    }

    fn attempt(&mut self, step: fn(&mut Subject) -> Result<()>) {
        if let Ok(subject) = &mut self.subject
            && let Err(error) = step(subject)
        {
            self.subject = Err(format!("{error:#}"));
        }
    }
}

impl Subject {
    fn begin(peers: &Peers, peer: Peer) -> Result<Subject> {
        let mut running = Running::start(peers, peer, WORKERS, false)?;
        let workers = running.first_lines(WORKERS, PATIENCE)?.iter().map(|line| line.pid).collect();
        Ok(Subject { running, workers, pss_kb: 0.0, processes: 0, wake_ups: (0.0, 0.0), samples: Vec::new() })
    }

    fn look(&mut self) -> Result<()> {
        self.processes = self.running.own()?.len();
        self.pss_kb = self.running.pss_kb()?;
        self.wake_ups.0 = self.running.wake_ups()?;
        Ok(())
    }

    fn look_again(&mut self) -> Result<()> {
        self.wake_ups.1 = self.running.wake_ups()?;
        Ok(())
    }

    fn kill_one(&mut self) -> Result<()> {
        let Some(victim) = self.workers.pop_front() else { return Ok(()) };
        let killed_at = now();
        kill_process(victim, Signal::KILL)?;
        for line in self.running.first_lines(1, PATIENCE)? {
            self.samples.push(ms_between(killed_at, line.at));
            self.workers.push_back(line.pid);
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.running.stop().map(drop)
    }
}

const WORKERS: usize = 4;
/// Until a manager has done what it does in its first seconds.
const SETTLE: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_secs(20);
/// Between two kills, of different managers. With all of them in between, a worker is many seconds old when it is killed.
const PAUSE: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(20);
