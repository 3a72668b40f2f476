//! The load generator: requests at fixed times (open loop) or by back-to-back clients (closed loop), and an honest
//! count of what became of each. It retries nothing.
//!
//! *Open loop*: request k is due at `k / rate` seconds, whatever became of those before it, and its latency counts
//! from the moment it was due; the runtime's timer, which ticks in ms, adds 1 to 2 ms to it. *Closed loop*: each of N
//! clients sends its next request when the last one ended (10 ms later if it failed). A share of the requests is slow
//! to answer, another share is slow to arrive: written in [`PIECES`] pieces over about 400 ms, and on a new connection
//! only 100 ms after it was made.
//!
//! With `keep_alive`, connections come from a pool, the last used first. One that the server has closed, or that was
//! idle for 4 s, is not used. A close that crosses a request on the wire, that is a reused connection
//! which ends without a byte of response, is counted as `crossed`, apart from failures. A server that is killed with
//! requests in hand looks the same, so whoever promises that none is lost must ask for `crossed` 0 too.
//!
//! # What is printed
//! With `json`, one line a second; all counts are of the whole run so far:
//!
//! ```json
//! {"t":1.0,"sent":200,"ok":180,"failed":0,"refused":0,"crossed":0,"in_flight":20,"p50_ms":0.9,"p99_ms":2950.0}
//! ```
//!
//! and one last line when all has ended:
//!
//! ```json
//! {"final":true,"t":10.0,"sent":2000,"ok":1998,"failed":2,"refused":1,"crossed":0,"in_flight":0,
//!  "p50_ms":0.9,"p99_ms":2950.0,"started_unix_ms":1700000000000,
//!  "latency_ms":{"p50":0.9,"p90":1800.0,"p99":2950.0,"max":3001.2},
//!  "plain_ms":{"p50":0.8,"p90":1.2,"p99":3.1,"max":9.9},
//!  "by_kind":{"refused":1,"timeout":1},
//!  "failures":[{"at":3.21,"begun":3.2,"kind":"refused","detail":"connection refused"}],
//!  "failed_by_second":{"3":1,"9":1},
//!  "by_worker":{"1":990,"2":1008}}
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | `t`, `at`, `begun` | seconds since the start: now; when a request failed; when it was due |
//! | `sent` | requests whose time came, also those that still wait for a connection under the cap |
//! | `ok` | answered with 200-299; latencies are of these only, within 1.6 % |
//! | `failed` | all failures, `refused` among them, `crossed` not |
//! | `plain_ms` | latencies of those that were neither slow to answer nor slow to arrive |
//! | `by_kind` | `refused reset closed_early bad_status timeout malformed other crossed`; those that occurred |
//! | `failures` | the first ten, crossed ones included |
//! | `failed_by_second` | failures by the second (rounded down) in which they ended, crossed ones not included |
//! | `by_worker` | answers by the id in a body `worker ID …` |
//!
//! `p50_ms`, `p99_ms` and the latencies are `null` before the first answer. Without `json` the same is said for people.

mod client;
mod tally;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout_at};

use self::client::{Failure, Kind, Pool, exchange};
use self::tally::Tally;
use super::http::{self, Response};
use crate::exit::last_word;

/// What load to make. Durations and rates are bounded by [`LoadArgs::check`].
#[derive(Clone, Debug)]
pub(crate) struct LoadArgs {
    /// `HOST:PORT`.
    pub(crate) target: String,
    /// Requests a second in open loop.
    pub(crate) rate: f64,
    /// How long new requests are sent; `None`: until standard input ends. SIGTERM ends it in both cases.
    pub(crate) seconds: Option<f64>,
    pub(crate) keep_alive: bool,
    /// Share of the requests, 0 to 1, that use `slow_path` with 500 to 3000 ms.
    pub(crate) slow_share: f64,
    /// Share of the requests, 0 to 1, that arrive slowly.
    pub(crate) trickle_share: f64,
    /// Most connections in use at once.
    pub(crate) connections: usize,
    /// Closed loop with so many clients, instead of open loop.
    pub(crate) closed: Option<usize>,
    /// Decides which requests are slow.
    pub(crate) seed: u64,
    /// Lines for programs instead of people.
    pub(crate) json: bool,
    /// Longest a request may take from the moment it is due.
    pub(crate) timeout: Duration,
    /// Asked for by all but the slow requests; `/` when `None`.
    pub(crate) path: Option<String>,
    /// Asked for by slow requests; `{ms}` is replaced.
    pub(crate) slow_path: String,
}

impl Default for LoadArgs {
    /// 200 requests a second until standard input ends, a tenth slow, a tenth arriving slowly, keep-alive.
    fn default() -> Self {
        LoadArgs {
            target: "127.0.0.1:3000".into(),
            rate: 200.0,
            seconds: None,
            keep_alive: true,
            slow_share: 0.1,
            trickle_share: 0.1,
            connections: 1024,
            closed: None,
            seed: 1,
            json: false,
            timeout: Duration::from_secs(15),
            path: None,
            slow_path: "/slow?ms={ms}".into(),
        }
    }
}

impl LoadArgs {
    /// Refuses what cannot be run; returns the address to connect to.
    fn check(&self) -> Result<SocketAddr, String> {
        let share = |name: &str, share: f64| match share {
            0.0..=1.0 => Ok(()),
            _ => Err(format!("the share of {name} requests is {share}, not from 0 to 1")),
        };
        share("slow", self.slow_share)?;
        share("slowly arriving", self.trickle_share)?;
        if !(self.rate > 0.0 && self.rate <= FASTEST) {
            return Err(format!("the rate is {}, not above 0 and at most {FASTEST} a second", self.rate));
        }
        if self.seconds.is_some_and(|seconds| !(0.0..=LONGEST).contains(&seconds)) {
            return Err(format!("the time is not from 0 to {LONGEST} seconds"));
        }
        if self.connections == 0 || self.connections > Semaphore::MAX_PERMITS || self.closed == Some(0) {
            return Err("no connection or no client is allowed".into());
        }
        let mut found = self.target.to_socket_addrs().map_err(|error| format!("{}: {error}", self.target))?;
        found.next().ok_or_else(|| format!("{}: no address", self.target))
    }
}

/// Makes the load until its time is over and the last request has ended. Exit code 0: nothing failed (crossed closes
/// aside); 1: something did; 2: the arguments make no sense.
pub(crate) fn run(args: LoadArgs) -> ExitCode {
    let target = match args.check() {
        Ok(target) => target,
        Err(error) => {
            last_word(&format!("Error: {error}"));
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ran = runtime.and_then(|runtime| runtime.block_on(LocalSet::new().run_until(load(args, target))));
    match ran {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            last_word(&format!("Error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Returns how many requests failed.
async fn load(args: LoadArgs, target: SocketAddr) -> io::Result<u64> {
    let start = Instant::now();
    let (stop, stopped) = watch::channel(false);
    spawn_local(stop_when_over(args.seconds.map(Duration::from_secs_f64), stop.clone())?);
    let (busy, mut all_done) = mpsc::channel::<Infallible>(1);
    let load = Rc::new(Load::new(args, target, start));
    let reporter = spawn_local(Rc::clone(&load).report(stop));
    match load.args.closed {
        None => load.open_loop(stopped, &busy).await,
        Some(clients) => load.closed_loop(clients, &stopped, &busy),
    }
    drop(busy);
    all_done.recv().await;
    reporter.abort();
    let tally = load.tally.borrow();
    print(&tally.last(start.elapsed(), load.args.json))?;
    Ok(tally.failed())
}

/// Waits for the end of the load's time, which is set up at once and waited for by the returned future.
fn stop_when_over(
    time: Option<Duration>,
    stop: watch::Sender<bool>,
) -> io::Result<impl Future<Output = ()> + use<>> {
    let mut terminations = signal(SignalKind::terminate())?;
    let input_ended = time.is_none().then(input_ended).transpose()?;
    Ok(async move {
        let over = async {
            match (time, input_ended) {
                (Some(time), _) => sleep(time).await,
                (None, Some(ended)) => drop(ended.await),
                (None, None) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => {}
            _ = terminations.recv() => {}
        }
        stop.send_replace(true);
    })
}

/// Resolves when standard input ends. A thread waits for it, because a file or a terminal cannot be polled.
fn input_ended() -> io::Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut ignored = [0; 256];
        while matches!(io::stdin().lock().read(&mut ignored), Ok(1..)) {}
        // Nobody waits any more when the load has ended before.
        let _ = ended.send(());
    })?;
    Ok(end)
}

struct Load {
    args: LoadArgs,
    start: Instant,
    permits: Semaphore,
    pool: Pool,
    random: RefCell<Random>,
    tally: RefCell<Tally>,
}

impl Load {
    fn new(args: LoadArgs, target: SocketAddr, start: Instant) -> Load {
        let permits = Semaphore::new(args.connections);
        let random = RefCell::new(Random(args.seed));
        Load { args, start, permits, pool: Pool::new(target), random, tally: RefCell::default() }
    }

    async fn open_loop(self: &Rc<Self>, mut stopped: watch::Receiver<bool>, busy: &mpsc::Sender<Infallible>) {
        for due in 0_u64.. {
            let due = self.start + Duration::from_secs_f64(due as f64 / self.args.rate);
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return,
                () = sleep_until(due) => {}
            }
            let (load, busy) = (Rc::clone(self), busy.clone());
            spawn_local(async move {
                load.request(due).await;
                drop(busy);
            });
        }
    }

    fn closed_loop(
        self: &Rc<Self>,
        clients: usize,
        stopped: &watch::Receiver<bool>,
        busy: &mpsc::Sender<Infallible>,
    ) {
        for _ in 0..clients {
            let (load, stopped, busy) = (Rc::clone(self), stopped.clone(), busy.clone());
            spawn_local(async move {
                while !*stopped.borrow() {
                    if !load.request(Instant::now()).await {
                        sleep(PAUSE_AFTER_FAILURE).await;
                    }
                }
                drop(busy);
            });
        }
    }

    /// One request from the moment it is due to its end, counted; whether it was answered well.
    async fn request(&self, due: Instant) -> bool {
        self.tally.borrow_mut().sent();
        let shape = self.random.borrow_mut().shape(self.args.slow_share, self.args.trickle_share);
        let outcome = timeout_at(due + self.args.timeout, self.attempt(shape)).await;
        let outcome = outcome.unwrap_or_else(|_| {
            Err(Failure { kind: Kind::Timeout, detail: format!("no answer in {:?}", self.args.timeout) })
        });
        let mut tally = self.tally.borrow_mut();
        match outcome {
            Ok(response) => tally.answered(due.elapsed(), shape == Shape::Plain, &response.body),
            Err(failure) => {
                tally.failure(due - self.start, self.start.elapsed(), failure);
                return false;
            }
        }
        true
    }

    async fn attempt(&self, shape: Shape) -> Result<Response, Failure> {
        let plain = self.args.path.as_deref().unwrap_or("/");
        let path = match shape {
            Shape::Plain | Shape::Trickle => plain.to_owned(),
            Shape::Slow { ms } => self.args.slow_path.replace("{ms}", &ms.to_string()),
        };
        let bytes = http::get(&path, &self.args.target, self.args.keep_alive);
        let pieces = if shape == Shape::Trickle { PIECES } else { 1 };
        // The semaphore is never closed, so this only ever waits.
        let _permit = self.permits.acquire().await;
        let mut connection = self.pool.take().await?;
        let response = exchange(&mut connection, &bytes, pieces).await?;
        if self.args.keep_alive && response.keep_alive {
            self.pool.give_back(connection);
        }
        if !(200..300).contains(&response.status) {
            return Err(Failure { kind: Kind::BadStatus, detail: format!("status {}", response.status) });
        }
        Ok(response)
    }

    /// Prints a line a second and lets go of connections that the server has closed. Stops the load when nobody reads.
    async fn report(self: Rc<Self>, stop: watch::Sender<bool>) {
        let mut ticks = interval_at(self.start + REPORT_EVERY, REPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.pool.sweep();
            let line = self.tally.borrow().line(self.start.elapsed(), self.args.json);
            if print(&line).is_err() {
                stop.send_replace(true);
                return;
            }
        }
    }
}

fn print(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// What a request is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Plain,
    Slow { ms: u64 },
    Trickle,
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed gives the same shapes.
struct Random(u64);

impl Random {
    fn shape(&mut self, slow: f64, trickle: f64) -> Shape {
        let roll = self.fraction();
        if roll < slow {
            let (from, to) = SLOW_MS;
            Shape::Slow { ms: from + self.next() % (to - from + 1) }
        } else if roll < slow + trickle {
            Shape::Trickle
        } else {
            Shape::Plain
        }
    }

    /// From 0, below 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// A slow request asks for a wait between these, in ms.
const SLOW_MS: (u64, u64) = (500, 3000);
/// Pieces of a request that arrives slowly.
const PIECES: usize = 5;
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Most requests a second.
const FASTEST: f64 = 1e6;
/// Longest load, in seconds: a year.
const LONGEST: f64 = 365.0 * 86400.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_come_in_the_shares_asked_for_and_repeat_with_the_seed() {
        let shapes = |seed| {
            let mut random = Random(seed);
            (0..20_000).map(|_| random.shape(0.1, 0.2)).collect::<Vec<_>>()
        };
        let drawn = shapes(7);
        assert_eq!(drawn, shapes(7));
        assert_ne!(drawn, shapes(8));
        let slow = drawn.iter().filter(|shape| matches!(shape, Shape::Slow { ms: 500..=3000 })).count();
        let trickled = drawn.iter().filter(|shape| **shape == Shape::Trickle).count();
        assert!((1800..2200).contains(&slow) && (3700..4300).contains(&trickled), "{slow} {trickled}");
        assert!(drawn.iter().all(|shape| !matches!(shape, Shape::Slow { ms: ..500 | 3001.. })));
    }

    #[test]
    fn arguments_that_cannot_be_run_are_refused() {
        let refused = |change: fn(&mut LoadArgs)| {
            let mut args = LoadArgs::default();
            assert!(args.check().is_ok());
            change(&mut args);
            args.check().is_err()
        };
        assert!(refused(|args| args.rate = 0.0));
        assert!(refused(|args| args.rate = f64::NAN));
        assert!(refused(|args| args.slow_share = 1.1));
        assert!(refused(|args| args.trickle_share = -0.1));
        assert!(refused(|args| args.seconds = Some(f64::INFINITY)));
        assert!(refused(|args| args.connections = 0));
        assert!(refused(|args| args.closed = Some(0)));
        assert!(refused(|args| args.target = "nowhere".into()));
    }
}
