//! Who is compared, and how each of them is run: its command, its own way to reload and to end.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use rustix::process::Signal;

use super::Peers;

/// A manager with one kind of worker.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) worker: Worker,
    /// Writes what it has to read and says how it is run.
    pub(super) plan: fn(&Peers, &Place) -> Result<Plan>,
    /// Starts a worker that crashes again at once, for ever.
    pub(super) spins: bool,
    /// Its reload is measured under load.
    pub(super) reloads: bool,
    /// Not with so many workers that only their places are of interest.
    pub(super) only_serves: bool,
}

impl Peer {
    pub(super) const fn new(
        name: &'static str,
        worker: Worker,
        plan: fn(&Peers, &Place) -> Result<Plan>,
    ) -> Peer {
        Peer { name, worker, plan, spins: false, reloads: false, only_serves: false }
    }

    pub(super) const fn spins(self) -> Peer {
        Peer { spins: true, ..self }
    }

    pub(super) const fn reloads(self) -> Peer {
        Peer { reloads: true, ..self }
    }

    /// In the rows of reloads alone.
    pub(super) const fn only_serves(self) -> Peer {
        Peer { only_serves: true, reloads: true, ..self }
    }
}

/// Only what has the same worker can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worker {
    /// `test-worker`, the smallest.
    Small,
    /// `server.js`, an HTTP server of Node.
    Node,
    /// `app.py` in gunicorn.
    Python,
}

impl Worker {
    pub(super) const ALL: [Worker; 3] = [Worker::Small, Worker::Node, Worker::Python];

    pub(super) fn name(self) -> &'static str {
        match self {
            Worker::Small => "any program",
            Worker::Node => "Node",
            Worker::Python => "Python",
        }
    }

    /// Why a start of one takes less under a manager that is made for it.
    pub(super) fn why_it_starts_slowly(self) -> &'static str {
        match self {
            Worker::Small | Worker::Node => "",
            Worker::Python => {
                " gunicorn's own worker is a fork of a master that has loaded gunicorn already; under any other \
                 manager a worker is a Python that starts anew, with a process of its own below it."
            }
        }
    }
}

/// What a plan is made for.
pub(super) struct Place {
    /// Everything that it writes is in there.
    pub(super) folder: PathBuf,
    /// Where workers say that they are there.
    pub(super) first_lines: PathBuf,
    pub(super) workers: usize,
    /// Free, for workers that serve.
    pub(super) port: u16,
    /// Each worker ends with 1 as soon as it was there.
    pub(super) crash: bool,
}

impl Place {
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        use anyhow::Context as _;
        let path = self.file(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The command of a small worker.
    pub(super) fn test_worker(&self, peers: &Peers) -> Vec<String> {
        let mut words = vec![shown(&peers.bench.worker), "--first-line-to".into(), shown(&self.first_lines)];
        if self.crash {
            words.extend(["--exit".into(), "1".into()]);
        } else {
            // It ends by itself, late, should nobody be left to stop it.
            words.extend(["--exit-after".into(), "600000".into()]);
        }
        words
    }
}

/// How a peer is run.
pub(super) struct Plan {
    /// The manager itself; or what starts it and ends, with the file in which it writes its pid.
    pub(super) command: Command,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) stop: Act,
    pub(super) reload: Option<Act>,
}

/// Something done to a manager.
pub(super) enum Act {
    Signal(Signal),
    Run(Command),
}

impl Plan {
    /// Of a manager in the foreground that ends at TERM.
    pub(super) fn new(command: Command) -> Plan {
        Plan { command, pid_file: None, stop: Act::Signal(Signal::TERM), reload: None }
    }

    pub(super) fn stop(self, stop: Act) -> Plan {
        Plan { stop, ..self }
    }

    pub(super) fn reload(self, reload: Act) -> Plan {
        Plan { reload: Some(reload), ..self }
    }
}

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A program and its words.
pub(super) fn command<S: AsRef<std::ffi::OsStr>>(
    program: impl AsRef<std::ffi::OsStr>,
    words: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    command
}
