//! The stage of the demo: a real app, run by this very binary in a temporary folder, clients that ask it for answers all
//! the time, and eyes on both. What is done to the app is left to `acts`.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use shiftboss_api::client::{Client, EventStream, Item};
use shiftboss_api::{Broker, Event, EventName};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Plan;
use super::judge::{Counts, Span};
use super::picture;
use super::process::Process;
use super::screen::Screen;
use crate::exit::{Exit, Trouble};
use crate::output::{Look, Output};
use crate::{event_line, text};

/// Everything that runs; all of it is ended when this is dropped, the clients first.
pub(super) struct Stage<'a> {
    load: RefCell<Process>,
    app: RefCell<Process>,
    pub(super) client: Client,
    pub(super) port: u16,
    /// The app's configuration.
    pub(super) config: String,
    pub(super) plan: Plan,
    pub(super) screen: RefCell<Screen<'a>>,
    output: &'a Output,
    counts: watch::Receiver<Counts>,
    events: watch::Receiver<Vec<Seen>>,
    /// The last line of the clients that an act ended with.
    boundary: RefCell<Counts>,
    /// Which act it is, from 1.
    pub(super) act: Cell<usize>,
    /// Failures so far that a promise excuses: inside the killed worker; while drained.
    pub(super) excused: Cell<(u64, u64)>,
    folder: TempDir,
}

/// An event, and when it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) event: Event,
}

impl<'a> Stage<'a> {
    /// Starts the app, waits until it is ready, and lets the clients in.
    ///
    /// # Errors
    /// When one of them cannot be started, with what it said.
    pub(super) async fn set(plan: Plan, output: &'a Output) -> Result<Stage<'a>, Trouble> {
        let folder =
            tempfile::Builder::new().prefix("shiftboss-").tempdir().map_err(cannot("make a folder"))?;
        let binary = std::env::current_exe().map_err(cannot("find this binary"))?;
        let port = free_port().map_err(cannot("find a free port"))?;
        std::fs::write(folder.path().join(VERSION), "good\n").map_err(cannot("write a file"))?;
        let config = config(&binary, folder.path(), port, plan)?;
        std::fs::write(folder.path().join(CONFIG), &config).map_err(cannot("write a file"))?;

        let mut app = start_app(&binary, folder.path())?;
        let client = Client::new(folder.path().join(SOCKET));
        let events = await_ready(&client, &mut app, folder.path()).await?;
        let mut load = start_load(&binary, port)?;
        let counts = read_counts(&mut load)?;
        Ok(Stage {
            load: RefCell::new(load),
            app: RefCell::new(app),
            client,
            port,
            config,
            plan,
            screen: RefCell::new(Screen::new(output)),
            output,
            counts,
            events,
            boundary: RefCell::default(),
            act: Cell::default(),
            excused: Cell::default(),
            folder,
        })
    }

    // What is on disk.

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    /// Decides what the next workers are like: `good` or `broken`.
    pub(super) fn put_version(&self, word: &str) -> Result<(), Trouble> {
        std::fs::write(self.folder.path().join(VERSION), word).map_err(cannot("write a file"))
    }

    /// The same trouble with the last lines of the app's log.
    pub(super) fn with_log(&self, trouble: Trouble) -> Trouble {
        with_log(trouble, self.folder.path())
    }

    // The clients.

    /// The next line of the clients, which comes within a second.
    pub(super) async fn line(&self) -> Result<Counts, Trouble> {
        let mut counts = self.counts.clone();
        counts.mark_unchanged();
        let changed = timeout(PATIENCE, counts.changed()).await;
        match changed {
            Ok(Ok(())) => Ok(counts.borrow().clone()),
            Ok(Err(_)) | Err(_) => {
                Err(Trouble::new(Exit::Failed, "the demo's clients have stopped counting"))
            }
        }
    }

    /// Waits for the clients' next line: what happened since the last one that was waited for here.
    pub(super) async fn boundary(&self) -> Result<Span, Trouble> {
        let counts = self.line().await?;
        Ok(self.pass(counts))
    }

    fn pass(&self, counts: Counts) -> Span {
        let span = counts.since(&self.boundary.borrow());
        self.boundary.replace(counts);
        span
    }

    /// Requests in flight at the last boundary.
    pub(super) fn in_flight(&self) -> u64 {
        self.boundary.borrow().in_flight
    }

    /// No new requests; waits until the last one has its answer.
    pub(super) async fn end_load(&self) -> Result<(Span, Counts), Trouble> {
        drop(self.load.borrow_mut().input());
        let mut counts = self.counts.clone();
        let last = timeout(PATIENCE, counts.wait_for(|counts| counts.r#final)).await;
        match last {
            Ok(Ok(last)) => {
                let last = last.clone();
                Ok((self.pass(last.clone()), last))
            }
            Ok(Err(_)) | Err(_) => Err(Trouble::new(Exit::Failed, "the demo's clients did not end")),
        }
    }

    // The app.

    /// Its only broker, as it is now.
    pub(super) async fn broker(&self) -> Result<Broker, Trouble> {
        let status = self.client.status().await?;
        let none = || Trouble::new(Exit::Failed, "the demo's app has no broker");
        status.brokers.into_iter().next().ok_or_else(none)
    }

    /// How many events have come so far: where to look from.
    pub(super) fn now(&self) -> usize {
        self.events.borrow().len()
    }

    /// The events from there on.
    pub(super) fn seen_from(&self, from: usize) -> Vec<Seen> {
        self.events.borrow().get(from..).unwrap_or_default().to_vec()
    }

    /// The first such event from there on; none if it does not come in time.
    pub(super) async fn happens(
        &self,
        from: usize,
        limit: Duration,
        is: impl Fn(&Event) -> bool,
    ) -> Option<Seen> {
        let find = |events: &Vec<Seen>| events.get(from..)?.iter().find(|seen| is(&seen.event)).cloned();
        let mut events = self.events.clone();
        let seen = timeout(limit, events.wait_for(|events| find(events).is_some())).await;
        seen.ok()?.ok().and_then(|events| find(&events))
    }

    /// Waits for the end of its process; whether it was a clean one, in time.
    pub(super) async fn app_ended(&self, limit: Duration) -> bool {
        let began = Instant::now();
        loop {
            let ended = self.app.borrow_mut().ended();
            match ended {
                Some(status) => return status.success(),
                None if began.elapsed() >= limit => return false,
                None => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Redraws the picture for ever, ten times a second; does nothing without a terminal.
    pub(super) async fn show(&self) -> Infallible {
        loop {
            sleep(REDRAW).await;
            if self.screen.borrow().is_drawn()
                && let Ok(status) = self.client.status().await
            {
                let counts = self.counts.borrow().clone();
                let picture = picture::of(self, &status, &counts, self.output.err, Timestamp::now());
                self.screen.borrow_mut().redraw(picture);
            }
        }
    }
}

fn cannot(what: &'static str) -> impl Fn(std::io::Error) -> Trouble {
    move |error| Trouble::new(Exit::Failed, format!("the demo cannot {what}: {error}"))
}

/// A port that is free, and is none that the kernel gives to clients (ip(7), `ip_local_port_range`): one of those could be taken
/// before the app has it.
fn free_port() -> std::io::Result<u16> {
    let from = std::process::id() % 20_000;
    let ports = (from..20_000).chain(0..from).filter_map(|port| u16::try_from(10_000 + port).ok());
    let free = ports.take(1000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.ok_or_else(|| std::io::ErrorKind::AddrInUse.into())
}

/// The app, as anybody would write it.
fn config(binary: &Path, folder: &Path, port: u16, plan: Plan) -> Result<String, Trouble> {
    let version = folder.join(VERSION);
    let quoted = |path: &Path| match path.to_str().map(serde_json::to_string) {
        // What JSON escapes, TOML escapes the same way.
        Some(Ok(text)) => Ok(text),
        Some(Err(_)) | None => {
            Err(Trouble::new(Exit::Failed, format!("{} cannot be written in a file", path.display())))
        }
    };
    Ok(format!(
        r#"app = "demo-{pid}"

[broker.{BROKER}]
command     = [{command}, "demo-worker"]
kind        = "notify"
workers     = {WORKERS}
listen      = ["tcp://127.0.0.1:{port}"]
recycle     = {{ surge = {surge} }}
backoff     = {{ base = "100ms", cap = "{cap}s", healthy_after = "1s" }}
environment = {{ DEMO_VERSION_FILE = {version} }}
"#,
        pid = std::process::id(),
        command = quoted(binary)?,
        version = quoted(&version)?,
        surge = plan.surge(),
        cap = CAP.as_secs(),
    ))
}

fn start_app(binary: &Path, folder: &Path) -> Result<Process, Trouble> {
    let log = File::create(folder.join(LOG)).map_err(cannot("write a log"))?;
    let errors = log.try_clone().map_err(cannot("write a log"))?;
    let mut command = Command::new(binary);
    command
        .args(["run", "--with-parent"])
        .arg("-c")
        .arg(folder.join(CONFIG))
        .arg("--socket")
        .arg(folder.join(SOCKET));
    // What the shell around the demo says of environments and readiness is not meant for this app.
    command.env_remove("env").env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    Process::start(&mut command, LAST_WAIT).map_err(cannot("start the app"))
}

/// Waits until all workers are ready; everything that has happened and will happen.
async fn await_ready(
    client: &Client,
    app: &mut Process,
    folder: &Path,
) -> Result<watch::Receiver<Vec<Seen>>, Trouble> {
    let began = Instant::now();
    let failed = |why: &str| with_log(Trouble::new(Exit::Failed, format!("the demo's app {why}")), folder);
    let stream = loop {
        match client.events(None).await {
            Ok(stream) => break stream,
            Err(_) if app.ended().is_some() => return Err(failed("ended at once")),
            Err(error) if began.elapsed() >= PATIENCE => return Err(with_log(error.into(), folder)),
            Err(_) => sleep(LOOK_AGAIN).await,
        }
    };
    let (sender, mut events) = watch::channel(Vec::new());
    tokio::spawn(forward(stream, sender));
    let ready = |events: &Vec<Seen>| events.iter().any(|seen| seen.event.event == EventName::AppReady);
    match timeout(PATIENCE, events.wait_for(ready)).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => return Err(failed("did not become ready")),
    }
    Ok(events)
}

/// Remembers the events until the app ends them.
async fn forward(mut stream: EventStream, events: watch::Sender<Vec<Seen>>) {
    while let Ok(Some(item)) = stream.next().await {
        if let Item::Event { event, .. } = item {
            events.send_modify(|seen| seen.push(Seen { at: Instant::now(), event: *event }));
        }
    }
}

fn start_load(binary: &Path, port: u16) -> Result<Process, Trouble> {
    let mut command = Command::new(binary);
    command.args(["demo-load", "--json", "--target"]).arg(format!("127.0.0.1:{port}"));
    // Fewer connections than the usual limit of 1024 descriptors, which a drain would reach.
    command.args(["--rate", &RATE.to_string(), "--connections", "900"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    Process::start(&mut command, Duration::ZERO).map_err(cannot("start its clients"))
}

/// Reads its lines in a thread, which ends with them.
fn read_counts(load: &mut Process) -> Result<watch::Receiver<Counts>, Trouble> {
    let (sender, counts) = watch::channel(Counts::default());
    let lines = load.output().map(BufReader::new);
    let read = move || {
        for line in lines.into_iter().flat_map(BufReader::lines).map_while(Result::ok) {
            if let Ok(counts) = serde_json::from_str(&line) {
                sender.send_replace(counts);
            }
        }
    };
    std::thread::Builder::new().name("counts".into()).spawn(read).map_err(cannot("start a thread"))?;
    Ok(counts)
}

fn with_log(mut trouble: Trouble, folder: &Path) -> Trouble {
    // Advice about other apps is of no use here.
    (trouble.exit, trouble.help) = (Exit::Failed, None);
    let log = std::fs::read(folder.join(LOG)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    if !lines.is_empty() {
        trouble.details.push("last lines of the app".into());
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        trouble
            .details
            .extend(last.iter().map(|line| format!(" {}", text::cut(&for_people(line), LOG_WIDTH))));
    }
    trouble
}

/// A line of the log: an event as JSON, or anything else as it is.
fn for_people(line: &str) -> String {
    const PLAIN: Look = Look { redraw: false, color: false, width: LOG_WIDTH, height: 1 };
    match serde_json::from_str::<Event>(line) {
        Ok(event) => event_line::human(&event, BROKER.len(), &TimeZone::system(), PLAIN),
        Err(_) => text::clean(line),
    }
}

/// The type of the demo's workers.
pub(super) const BROKER: &str = "web";
pub(super) const WORKERS: u32 = 4;
/// Requests a second.
pub(super) const RATE: u32 = 200;
/// Longest wait between starts of a slot that keeps failing.
pub(super) const CAP: Duration = Duration::from_secs(2);
/// What should take moments is given up after this.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// What an interrupted app's workers may take to finish: longer than a slow request.
const LAST_WAIT: Duration = Duration::from_secs(5);
const VERSION: &str = "version";
const CONFIG: &str = "shiftboss.toml";
const SOCKET: &str = "demo.sock";
const LOG: &str = "app.log";
/// Lines of the log that are shown, and their width.
const LOG_LINES: usize = 8;
const LOG_WIDTH: usize = 74;
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const REDRAW: Duration = Duration::from_millis(100);
