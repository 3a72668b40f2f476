//! The guided run: the promises, one after the other, on an app of built-in workers under load, with what came of it.

mod acts;
mod judge;
mod picture;
mod process;
mod screen;
mod stage;
mod summary;

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use self::acts::ACTS;
use self::stage::{RATE, Stage, WORKERS};
use self::summary::Summary;
use crate::exit::{Exit, Trouble};
use crate::output::Output;

/// Plays the whole demo in about so many seconds. Nothing of it outlives the call, whatever happens.
///
/// # Errors
/// When it cannot be played to its end. A broken promise is no error but [`Exit::Failed`].
pub(crate) fn run(seconds: Option<u64>, output: &Output) -> Result<Exit, Trouble> {
    let cannot = |error: io::Error| Trouble::new(Exit::Failed, format!("the demo cannot start: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
    runtime.block_on(async {
        let mut interrupts = Interrupts::new().map_err(cannot)?;
        let mut tour = Box::pin(tour(Plan::of(seconds, output), output));
        tokio::select! {
            exit = &mut tour => return exit,
            () = interrupts.next() => {}
        }
        output.say("\nstopping: the clients are cut off, the workers finish what they have");
        drop(tour);
        output.say("nothing is left of the demo");
        Ok(Exit::Interrupted)
    })
}

async fn tour(plan: Plan, output: &Output) -> Result<Exit, Trouble> {
    let stage = Stage::set(plan, output).await?;
    welcome(&stage);
    let played = tokio::select! {
        played = acts::play(&stage) => played,
        never = stage.show() => match never {},
    };
    stage.screen.borrow_mut().clear();
    let (acts, counts) = played.map_err(|trouble| stage.with_log(trouble))?;
    let summary =
        Summary { acts: &acts, counts: &counts, excused: stage.excused.get(), took: stage.plan.elapsed() };
    output.say("");
    summary.print(output)?;
    Ok(if summary.held() { Exit::Done } else { Exit::Failed })
}

fn welcome(stage: &Stage<'_>) {
    let screen = stage.screen.borrow();
    screen.print(&format!(
        "{WORKERS} workers share a port and {RATE} requests a second, and are treated badly."
    ));
    screen.print("It is a real app, and this is its whole configuration:");
    screen.print("");
    for line in stage.config.lines().filter(|line| !line.is_empty()) {
        screen.quote(line);
    }
    let binary = std::env::args().next().unwrap_or_else(|| "shiftboss".into());
    screen.print("");
    screen.print("Look at it from another terminal:");
    screen.print(&format!("  {binary} status --socket {}", stage.socket().display()));
}

/// How long each act lasts.
#[derive(Clone, Copy, Debug)]
struct Plan {
    began: Instant,
    seconds: u64,
}

impl Plan {
    fn of(asked: Option<u64>, output: &Output) -> Plan {
        let seconds = asked.unwrap_or(SECONDS).clamp(LEAST, MOST);
        if asked.is_some_and(|asked| asked < LEAST) {
            output.say(&format!("the acts take {LEAST} s at least"));
        }
        Plan { began: Instant::now(), seconds }
    }

    fn seconds(self) -> u64 {
        self.seconds
    }

    fn elapsed(self) -> Duration {
        self.began.elapsed()
    }

    /// How many workers a recycle replaces at once: as few as there is time for.
    fn surge(self) -> u32 {
        if self.seconds < 45 { 2 } else { 1 }
    }

    /// Waits until that act has only so much of its time left, but no less than that long.
    async fn rest(self, act: usize, least: Duration, left: Duration) {
        let until = self.end_of(act).saturating_sub(left);
        sleep(until.saturating_sub(self.elapsed()).max(least)).await;
    }

    /// When that act ends, from the beginning.
    fn end_of(self, act: usize) -> Duration {
        let ends = ENDS.get(act.saturating_sub(1)).copied().unwrap_or(1.0);
        Duration::from_secs(self.seconds).mul_f64(ends)
    }
}

/// Ctrl-C, and the other ways to ask for an end.
struct Interrupts(Signal, Signal, Signal);

impl Interrupts {
    fn new() -> io::Result<Interrupts> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Interrupts(interrupt?, terminate?, hangup?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
            _ = self.2.recv() => {}
        }
    }
}

/// When each act ends, as shares of the whole.
const ENDS: [f64; ACTS] = [0.06, 0.14, 0.34, 0.41, 0.61, 0.68, 0.80, 0.95, 1.0];
/// How long it takes when nobody says.
const SECONDS: u64 = 70;
/// How long it takes at least, and at most.
const LEAST: u64 = 34;
const MOST: u64 = 24 * 3600;
