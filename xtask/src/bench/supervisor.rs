//! A running supervisor, the bare one or shiftboss, with workers that say when they are there. What it started is
//! stopped when it is dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpgid};
use tempfile::TempDir;

use super::Bench;
use super::events::Events;
use super::first_line::{FirstLine, FirstLines, now};
use super::proc::children;

pub(super) struct Supervisor {
    child: Child,
    pid: Pid,
    kind: Kind,
    folder: TempDir,
    lines: FirstLines,
    started_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Leads a process group, in which its workers are too.
    Bare,
    Shiftboss,
}

/// The one broker of an app.
pub(super) struct Broker<'a> {
    pub(super) command: Vec<String>,
    pub(super) workers: usize,
    /// Further lines of its table.
    pub(super) settings: &'a str,
}

impl Supervisor {
    /// The bare one, with test workers.
    pub(super) fn bare(bench: &Bench, workers: usize) -> Result<Supervisor> {
        let (folder, lines) = place()?;
        let mut command = Command::new(&bench.own);
        command.arg("bare-supervisor").arg(workers.to_string()).arg("--");
        command.args(test_worker(bench, &lines));
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Supervisor::start(Kind::Bare, command, folder, lines)
    }

    /// Shiftboss with test workers that count as ready at once.
    pub(super) fn shiftboss(bench: &Bench, workers: usize, settings: &str) -> Result<Supervisor> {
        let (folder, lines) = place()?;
        let settings = format!("kind = \"plain\"\nready = {{ after = \"0s\" }}\n{settings}");
        let broker = Broker { command: test_worker(bench, &lines), workers, settings: &settings };
        Supervisor::run(bench, &broker, folder, lines)
    }

    /// Shiftboss with other workers; there are no first lines to take.
    pub(super) fn shiftboss_with(bench: &Bench, broker: &Broker<'_>) -> Result<Supervisor> {
        let (folder, lines) = place()?;
        Supervisor::run(bench, broker, folder, lines)
    }

    fn run(bench: &Bench, broker: &Broker<'_>, folder: TempDir, lines: FirstLines) -> Result<Supervisor> {
        let config = folder.path().join("shiftboss.toml");
        // Strings are written in JSON as in TOML.
        let words = serde_json::to_string(&broker.command)?;
        let Broker { workers, settings, .. } = broker;
        let text =
            format!("app = \"bench\"\n[broker.web]\ncommand = {words}\nworkers = {workers}\n{settings}\n");
        std::fs::write(&config, text).context("cannot write the configuration")?;
        let mut command = Command::new(&bench.shiftboss);
        command.arg("--config").arg(config).arg("--socket").arg(socket(folder.path())).arg("run");
        // It would choose an environment that the configuration does not have.
        command.env_remove("env");
        Supervisor::start(Kind::Shiftboss, command, folder, lines)
    }

    fn start(kind: Kind, mut command: Command, folder: TempDir, lines: FirstLines) -> Result<Supervisor> {
        let log = File::create(folder.path().join("log")).context("cannot make a log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started_at = now();
        let child = command.spawn().context("cannot start the supervisor")?;
        Ok(Supervisor { pid: Pid::from_child(&child), child, kind, folder, lines, started_at })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// The child of the keeper that runs with the same arguments.
    pub(super) fn broker(&self) -> Result<Pid> {
        let arguments = |pid: Pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let of_keeper = arguments(self.pid);
        let found = children(self.pid)?.into_iter().find(|pid| arguments(*pid) == of_keeper);
        found.with_context(|| format!("there is no broker process; {}", self.last_words()))
    }

    /// Where it can be asked.
    pub(super) fn socket(&self) -> PathBuf {
        socket(self.folder.path())
    }

    /// The moment before it was started, as in [`FirstLine::at`].
    pub(super) fn started_at(&self) -> u64 {
        self.started_at
    }

    /// The next first lines of its workers.
    pub(super) fn first_lines(&mut self, count: usize, wait: Duration) -> Result<Vec<FirstLine>> {
        self.lines.take(count, wait).with_context(|| self.last_words())
    }

    /// The shiftboss command that speaks to this app, yet without a verb.
    pub(super) fn command(&self, bench: &Bench) -> Command {
        let mut command = Command::new(&bench.shiftboss);
        command.arg("--socket").arg(socket(self.folder.path())).args(["--quiet", "--timeout", "60s"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// What it has told in its log, once it has told of `count` such events or taken long enough: its log may be a
    /// little behind.
    pub(super) fn events(&self, name: &str, count: usize, wait: Duration) -> Result<Events> {
        let until = Instant::now() + wait;
        loop {
            let events = Events::read(&self.log())?;
            if events.count(name) >= count || Instant::now() >= until {
                return Ok(events);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until its app is ready.
    pub(super) fn wait_ready(&self, wait: Duration) -> Result<()> {
        if self.events("app_ready", 1, wait)?.count("app_ready") == 0 {
            bail!("not ready in {wait:?}: {}", self.last_words());
        }
        Ok(())
    }

    /// Waits for its end, which something else has asked for.
    pub(super) fn wait(&mut self, wait: Duration) -> Result<ExitStatus> {
        exit_within(&mut self.child, wait)?
            .with_context(|| format!("no end in {wait:?}: {}", self.last_words()))
    }

    /// Stops it with all its workers, and waits until they are gone.
    pub(super) fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        match self.kind {
            Kind::Bare => {
                // The leader is not yet waited for, so the group is still its own.
                kill_process_group(self.pid, Signal::KILL)?;
                self.child.wait()?;
                // Its workers are now this process's children, as `Bench::prepare` has seen to.
                while waitpgid(self.pid, WaitOptions::empty()).is_ok() {}
                Ok(())
            }
            Kind::Shiftboss => {
                for _asked_and_told in 0..2 {
                    kill_process(self.pid, Signal::TERM)?;
                    if exit_within(&mut self.child, PATIENCE)?.is_some() {
                        return Ok(());
                    }
                }
                self.child.kill()?;
                self.child.wait()?;
                bail!("shiftboss did not stop: {}", self.last_words());
            }
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The end of its log, for an error message.
    fn last_words(&self) -> String {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        format!("its last words: {}", last.join(" | "))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // A row that has failed is told already.
        let _ = self.end();
    }
}

/// The status of a child that ends in time.
pub(super) fn exit_within(child: &mut Child, wait: Duration) -> Result<Option<ExitStatus>> {
    let until = Instant::now() + wait;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn place() -> Result<(TempDir, FirstLines)> {
    let folder = tempfile::Builder::new().prefix("bench-").tempdir().context("cannot make a folder")?;
    let lines = FirstLines::new(folder.path())?;
    Ok((folder, lines))
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("control")
}

fn test_worker(bench: &Bench, lines: &FirstLines) -> Vec<String> {
    let mut words = vec![bench.worker.display().to_string()];
    words.extend(lines.flags());
    words
}

const PATIENCE: Duration = Duration::from_secs(10);
