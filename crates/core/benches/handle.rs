//! What one call of core costs when a worker speaks: it exits, its successor runs, is ready. `cargo bench -p
//! shiftboss-core`, or `cargo xtask bench handle`. A line for each size: workers, whose input, medians in ns of all calls
//! and of those for an exit; then what it costs to record such a step.

use std::time::{Duration, Instant};

use shiftboss_core::id::{LaunchId, Pid, WorkerId};
use shiftboss_core::snapshot::{Layout, Records, Store};
use shiftboss_core::spec::{BackoffSpec, BrokerSpec, Drained, Ready, RecycleSpec, StopLadder};
use shiftboss_core::{App, Effect, Exit, Input, Time};

fn main() {
    // Whoever is measured first pays for cold caches: nobody's figure.
    measure(4, Whose::Any);
    for (workers, whose) in [(4, Whose::Same), (4, Whose::Any), (10_000, Whose::Same), (10_000, Whose::Any)] {
        let (all, exits) = measure(workers, whose);
        println!("handle {workers} {} {} {}", whose.word(), all.as_nanos(), exits.as_nanos());
    }
    for workers in [4, 1000] {
        println!("record {workers} {}", recorded(workers).as_nanos());
    }
}

/// Median of recording one step of a worker's life.
fn recorded(workers: u32) -> Duration {
    let mut stage = Stage::begin(workers);
    let layout = Layout { brokers: 1, slots: workers, workers: 2 * workers, commands: 16 };
    let mut records = Records::new(Memory(vec![0; layout.size()]), layout);
    records.record(&mut stage.app).unwrap();
    let (mut times, mut slot) = (Vec::with_capacity(CALLS), 0);
    while times.len() < CALLS {
        slot = (slot + 7919) % workers as usize;
        stage.now = stage.now + Duration::from_secs(20);
        let (worker, exit) = (stage.slots[slot], Exit::Code(0));
        stage.call(Input::Exited { worker, exit });
        times.push(stage.record(&mut records));
        let worker = stage.newest;
        stage.slots[slot] = worker;
        for input in [Input::Spawned { worker, pid: Pid(2) }, Input::Ready { worker }] {
            stage.call(input);
            times.push(stage.record(&mut records));
        }
    }
    median(times)
}

struct Memory(Vec<u8>);

impl Store for Memory {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

#[derive(Clone, Copy)]
enum Whose {
    /// One worker's, and its successors'.
    Same,
    /// Each time another worker's, far from the last.
    Any,
}

impl Whose {
    fn word(self) -> &'static str {
        match self {
            Whose::Same => "same",
            Whose::Any => "any",
        }
    }
}

fn measure(workers: u32, whose: Whose) -> (Duration, Duration) {
    let mut stage = Stage::begin(workers);
    let (mut times, mut exits) = (Vec::with_capacity(CALLS), Vec::new());
    let mut slot = 0;
    while times.len() < CALLS {
        slot = match whose {
            Whose::Same => 0,
            Whose::Any => (slot + 7919) % workers as usize,
        };
        // Long enough that its end is no failure and the spawn budget is full again.
        stage.now = stage.now + Duration::from_secs(20);
        let (worker, exit) = (stage.slots[slot], Exit::Code(0));
        exits.push(stage.call(Input::Exited { worker, exit }));
        let worker = stage.newest;
        stage.slots[slot] = worker;
        times.push(stage.call(Input::Spawned { worker, pid: Pid(2) }));
        times.push(stage.call(Input::Ready { worker }));
    }
    times.extend(&exits);
    (median(times), median(exits))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

struct Stage {
    app: App,
    now: Time,
    /// Who serves where.
    slots: Vec<WorkerId>,
    newest: WorkerId,
}

impl Stage {
    /// An app whose workers are all ready.
    fn begin(workers: u32) -> Stage {
        let now = Time(1_000_000_000);
        let mut app = App::new(now, 7, vec![spec(workers)]);
        let mut effects = app.start(now);
        let mut slots = Vec::new();
        while let Some(effect) = effects.pop() {
            if let Effect::Spawn { worker, .. } = effect {
                slots.push(worker);
                effects.extend(app.handle(now, Input::Spawned { worker, pid: Pid(1) }));
                effects.extend(app.handle(now, Input::Ready { worker }));
            }
            while app.deadline().is_some_and(|at| at <= now) {
                effects.extend(app.handle(now, Input::Tick));
            }
        }
        assert_eq!(slots.len(), workers as usize);
        Stage { app, now, slots, newest: WorkerId(0) }
    }

    fn record(&mut self, records: &mut Records<Memory>) -> Duration {
        let begun = clock();
        records.record(&mut self.app).unwrap();
        begun.elapsed()
    }

    fn call(&mut self, input: Input) -> Duration {
        let begun = clock();
        let effects = self.app.handle(self.now, input);
        let took = begun.elapsed();
        for effect in effects {
            if let Effect::Spawn { worker, .. } = effect {
                self.newest = worker;
            }
        }
        took
    }
}

fn spec(workers: u32) -> BrokerSpec {
    BrokerSpec {
        name: "api".to_owned(),
        workers,
        launch: LaunchId(0),
        listens: false,
        ready: Ready::Notify,
        recycle: RecycleSpec::default(),
        stop: StopLadder::default(),
        backoff: BackoffSpec::default(),
        drained: Drained::Refuse,
        scheduled: false,
        watch: None,
        standby: 0,
    }
}

fn clock() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a benchmark, unlike core, may look at the clock")]
    Instant::now()
}

const CALLS: usize = 300_000;
