//! The whole machine on one page: every state of a worker, and every phase of a broker, against everything that can
//! happen. The table is a reviewed text file: a change of behaviour is a change of a line in it.
//!
//! Renew it with `UPDATE_TABLE=1 cargo test -p shiftboss-core --test table`, and read the difference.

use std::fmt::Write;
use std::time::Duration;

use shiftboss_core::id::{BrokerId, LaunchId, Pid, RequestId, Slot, WorkerId};
use shiftboss_core::spec::{BackoffSpec, BrokerSpec, Drained, Ready, RecycleSpec, Rung, Signal, StopLadder};
use shiftboss_core::{App, Command, Effect, Exit, Input, ListenFailure, Outcome, Time, Verb, What};

#[test]
fn the_table_is_as_reviewed() {
    let table = table();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/table.snap.txt");
    #[expect(clippy::disallowed_methods, reason = "the test, unlike core, may look at its environment")]
    let renew = std::env::var_os("UPDATE_TABLE").is_some();
    if renew {
        std::fs::write(path, &table).expect("the table can be written");
    }
    let reviewed = std::fs::read_to_string(path).unwrap_or_default();
    let differs = table.lines().zip(reviewed.lines()).find(|(is, was)| is != was);
    assert!(
        table == reviewed,
        "the machine has changed, first at:\n  was {}\n  is  {}\nrenew with UPDATE_TABLE=1 cargo test -p shiftboss-core --test table, and review the difference",
        differs.map_or("", |(_, was)| was),
        differs.map_or("", |(is, _)| is),
    );
}

fn table() -> String {
    let mut table = String::from(
        "One worker (of one wanted) in each state. `=`: nothing changes and nothing is asked for.\n",
    );
    for (state, reach) in WORKER_STATES {
        let _ = write!(table, "\n{state}\n");
        for (input, happen) in WORKER_INPUTS {
            row(&mut table, input, reach, happen);
        }
    }
    table.push_str("\nA broker with listeners and two workers in each phase.\n");
    for (phase, reach) in PHASES {
        let _ = write!(table, "\n{phase}\n");
        for (input, happen) in PHASE_INPUTS {
            row(&mut table, input, reach, happen);
        }
    }
    table.push_str("\nA broker with listeners, two workers and a schedule, in each phase.\n");
    for (phase, reach) in CLOCK_PHASES {
        let _ = write!(table, "\n{phase}\n");
        for (input, happen) in CLOCK_INPUTS {
            row(&mut table, input, reach, happen);
        }
    }
    table.push_str("\nA broker with one worker, ready, and one standby, in each state of that.\n");
    for (state, reach) in STANDBY_STATES {
        let _ = write!(table, "\n{state}\n");
        for (input, happen) in STANDBY_INPUTS {
            row(&mut table, input, reach, happen);
        }
    }
    table
}

fn row(table: &mut String, input: &str, reach: Act, happen: Act) {
    let mut machine = Machine::new();
    reach(&mut machine);
    let before = machine.seen();
    machine.effects.clear();
    happen(&mut machine);
    let effects: Vec<String> = machine.effects.iter().map(told).collect();
    let (effects, after) = (effects.join(", "), machine.seen());
    let outcome = match (effects.is_empty(), after == before) {
        (true, true) => "=".to_owned(),
        (false, true) => effects,
        (true, false) => format!("-> {after}"),
        (false, false) => format!("{effects} -> {after}"),
    };
    let _ = writeln!(table, "  {input:18} {outcome}");
}

type Act = fn(&mut Machine);

const WORKER_STATES: [(&str, Act); 7] = [
    ("spawning", |machine| machine.begin(plain(1))),
    ("spawning, to be stopped", |machine| {
        machine.begin(plain(1));
        machine.ask(Verb::Drain);
    }),
    ("starting", |machine| {
        machine.begin(plain(1));
        machine.spawned(1);
    }),
    ("ready", |machine| {
        machine.begin(plain(1));
        machine.serving(1);
    }),
    ("stopping, first rung", |machine| {
        machine.begin(plain(1));
        machine.serving(1);
        machine.ask(Verb::Drain);
    }),
    ("stopping, killed", |machine| {
        machine.begin(plain(1));
        machine.serving(1);
        machine.ask(Verb::Drain);
        machine.due();
    }),
    ("gone", |machine| {
        machine.begin(plain(1));
        machine.serving(1);
        machine.feed(Input::Exited { worker: WorkerId(1), exit: Exit::Code(1) });
    }),
];

const WORKER_INPUTS: [(&str, Act); 13] = [
    ("spawned", |machine| machine.spawned(1)),
    ("spawn failed", |machine| {
        machine.feed(Input::SpawnFailed { worker: WorkerId(1), reason: "why".to_owned() });
    }),
    ("ready", |machine| machine.feed(Input::Ready { worker: WorkerId(1) })),
    ("may not be looked at", |machine| machine.feed(Input::Unseen { worker: WorkerId(1) })),
    ("hangs", |machine| machine.feed(Input::Hung { worker: WorkerId(1) })),
    ("exits with 0", |machine| machine.feed(Input::Exited { worker: WorkerId(1), exit: Exit::Code(0) })),
    ("killed by SEGV", |machine| {
        machine.feed(Input::Exited { worker: WorkerId(1), exit: Exit::Signal(Signal(11)) });
    }),
    ("deadline", Machine::due),
    ("recycle", |machine| machine.ask(Verb::Recycle(None))),
    ("drain", |machine| machine.ask(Verb::Drain)),
    ("scale 0", |machine| machine.ask(Verb::Scale(0))),
    ("stop", |machine| machine.feed(Input::Stop { now: false })),
    ("stop now", |machine| machine.feed(Input::Stop { now: true })),
];

const PHASES: [(&str, Act); 10] = [
    ("waiting, asked", |machine| machine.begin(listening())),
    ("waiting, to retry", |machine| {
        machine.begin(listening());
        machine.opened(false);
    }),
    ("open, starting", |machine| {
        machine.begin(listening());
        machine.opened(true);
    }),
    ("open, full", Machine::full),
    ("open, recycling", |machine| {
        machine.full();
        machine.ask(Verb::Recycle(None));
    }),
    ("draining, quieting", |machine| {
        machine.full();
        machine.ask(Verb::Drain);
    }),
    ("draining, leaving", |machine| {
        machine.full();
        machine.ask(Verb::Drain);
        machine.quiet();
    }),
    ("draining, shutting", |machine| {
        machine.full();
        machine.ask(Verb::Drain);
        machine.quiet();
        machine.all_leave();
    }),
    ("drained", |machine| {
        machine.full();
        machine.ask(Verb::Drain);
        machine.quiet();
        machine.all_leave();
        machine.shut();
    }),
    ("the app is stopping", |machine| {
        machine.full();
        machine.feed(Input::Stop { now: false });
    }),
];

const PHASE_INPUTS: [(&str, Act); 18] = [
    ("listeners open", |machine| machine.opened(true)),
    ("listeners fail", |machine| machine.opened(false)),
    ("one more is bound", |machine| machine.feed(bound(":81"))),
    ("one is closed", |machine| {
        machine.feed(Input::Unbound { broker: API, address: ":80".to_owned() });
    }),
    ("quiet", Machine::quiet),
    ("shut", Machine::shut),
    ("deadline", Machine::due),
    ("recycle", |machine| machine.ask(Verb::Recycle(None))),
    ("recycle slot 1", |machine| machine.ask(Verb::Recycle(Some(Slot(1))))),
    ("recycle slot 9", |machine| machine.ask(Verb::Recycle(Some(Slot(9))))),
    ("drain", |machine| machine.ask(Verb::Drain)),
    ("resume", |machine| machine.ask(Verb::Resume)),
    ("scale 3", |machine| machine.ask(Verb::Scale(3))),
    ("scale 1", |machine| machine.ask(Verb::Scale(1))),
    ("respecify", |machine| {
        machine.ask(Verb::Respecify(Box::new(BrokerSpec { launch: LaunchId(2), ..listening() })));
    }),
    ("stop command", |machine| {
        let request = machine.request();
        machine.feed(Input::Command { request, command: Command::Stop });
    }),
    ("stop", |machine| machine.feed(Input::Stop { now: false })),
    ("stop now", |machine| machine.feed(Input::Stop { now: true })),
];

const CLOCK_PHASES: [(&str, Act); 7] = [
    ("the clock was not read", |machine| machine.begin(part_time())),
    ("closed", |machine| machine.scheduled(false)),
    ("open, inside", |machine| machine.scheduled(true)),
    ("open, outside", |machine| {
        machine.scheduled(false);
        machine.ask(Verb::ResumeNow);
        machine.opened(true);
    }),
    ("closing", |machine| {
        machine.scheduled(true);
        machine.window(false);
        machine.quiet();
    }),
    ("drained, inside", |machine| {
        machine.scheduled(true);
        machine.ask(Verb::Drain);
        machine.quiet();
        machine.all_leave();
        machine.shut();
    }),
    ("drained, outside", |machine| {
        machine.scheduled(false);
        machine.ask(Verb::Drain);
    }),
];

const CLOCK_INPUTS: [(&str, Act); 10] = [
    ("window begins", |machine| machine.window(true)),
    ("window ends", |machine| machine.window(false)),
    ("files change", |machine| machine.feed(Input::Changed { broker: API })),
    ("deadline", Machine::due),
    ("recycle", |machine| machine.ask(Verb::Recycle(None))),
    ("drain", |machine| machine.ask(Verb::Drain)),
    ("resume", |machine| machine.ask(Verb::Resume)),
    ("resume now", |machine| machine.ask(Verb::ResumeNow)),
    ("scale 3", |machine| machine.ask(Verb::Scale(3))),
    ("stop", |machine| machine.feed(Input::Stop { now: false })),
];

const STANDBY_STATES: [(&str, Act); 6] = [
    ("standby spawning", |machine| {
        machine.begin(plain_with_standby());
        machine.serving(1);
    }),
    ("standby starting", |machine| {
        machine.begin(plain_with_standby());
        machine.serving(1);
        machine.spawned(2);
    }),
    ("standby at the door", Machine::with_standby),
    ("promoted, not ready", |machine| {
        machine.with_standby();
        machine.feed(Input::Exited { worker: WorkerId(1), exit: Exit::Code(1) });
    }),
    ("standby in back-off", |machine| {
        machine.with_standby();
        machine.feed(Input::Exited { worker: WorkerId(2), exit: Exit::Code(1) });
        machine.spawned(3);
        machine.feed(Input::Exited { worker: WorkerId(3), exit: Exit::Code(1) });
    }),
    ("drained", |machine| {
        machine.with_standby();
        machine.ask(Verb::Drain);
        machine.all_leave();
    }),
];

const STANDBY_INPUTS: [(&str, Act); 15] = [
    ("worker dies", |machine| {
        machine.feed(Input::Exited { worker: WorkerId(1), exit: Exit::Code(1) });
    }),
    ("standby runs", |machine| machine.spawned(2)),
    ("standby at the door", |machine| machine.feed(Input::Standby { worker: WorkerId(2) })),
    ("standby says ready", |machine| machine.feed(Input::Ready { worker: WorkerId(2) })),
    ("standby dies", |machine| {
        machine.feed(Input::Exited { worker: WorkerId(2), exit: Exit::Code(1) });
    }),
    ("standby exits with 0", |machine| {
        machine.feed(Input::Exited { worker: WorkerId(2), exit: Exit::Code(0) });
    }),
    ("standby hangs", |machine| machine.feed(Input::Hung { worker: WorkerId(2) })),
    ("worker at the door", |machine| machine.feed(Input::Standby { worker: WorkerId(1) })),
    ("deadline", Machine::due),
    ("recycle", |machine| machine.ask(Verb::Recycle(None))),
    ("respecify", |machine| {
        machine.ask(Verb::Respecify(Box::new(BrokerSpec { launch: LaunchId(2), ..plain_with_standby() })));
    }),
    ("drain", |machine| machine.ask(Verb::Drain)),
    ("resume", |machine| machine.ask(Verb::Resume)),
    ("scale 0", |machine| machine.ask(Verb::Scale(0))),
    ("stop now", |machine| machine.feed(Input::Stop { now: true })),
];

struct Machine {
    app: App,
    now: Time,
    effects: Vec<Effect>,
    round: u32,
    requests: u128,
}

impl Machine {
    fn new() -> Machine {
        let now = Time(0);
        Machine { app: App::new(now, 1, Vec::new()), now, effects: Vec::new(), round: 0, requests: 0 }
    }

    fn begin(&mut self, spec: BrokerSpec) {
        self.app = App::new(self.now, 1, vec![spec]);
        let effects = self.app.start(self.now);
        self.took(effects);
    }

    fn full(&mut self) {
        self.begin(listening());
        self.opened(true);
        self.serving(1);
        self.serving(2);
    }

    fn with_standby(&mut self) {
        self.begin(plain_with_standby());
        self.serving(1);
        self.spawned(2);
        self.feed(Input::Standby { worker: WorkerId(2) });
    }

    /// Told of its window; if it is inside, all serve.
    fn scheduled(&mut self, open: bool) {
        self.begin(part_time());
        self.window(open);
        if open {
            self.opened(true);
            self.serving(1);
            self.serving(2);
        }
    }

    fn window(&mut self, open: bool) {
        self.feed(Input::Window { broker: API, open });
    }

    fn feed(&mut self, input: Input) {
        let effects = self.app.handle(self.now, input);
        self.took(effects);
    }

    fn took(&mut self, effects: Vec<Effect>) {
        for effect in &effects {
            if let Effect::OpenListeners { round, .. }
            | Effect::QuietListeners { round, .. }
            | Effect::ShutListeners { round, .. } = effect
            {
                self.round = *round;
            }
        }
        self.effects.extend(effects);
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn ask(&mut self, verb: Verb) {
        let request = self.request();
        self.feed(Input::Command { request, command: Command::Broker(API, verb) });
    }

    fn spawned(&mut self, worker: u64) {
        self.feed(Input::Spawned { worker: WorkerId(worker), pid: Pid(100) });
    }

    fn serving(&mut self, worker: u64) {
        self.spawned(worker);
        self.feed(Input::Ready { worker: WorkerId(worker) });
    }

    fn all_leave(&mut self) {
        for worker in [1, 2] {
            self.feed(Input::Exited { worker: WorkerId(worker), exit: Exit::Code(0) });
        }
    }

    fn opened(&mut self, well: bool) {
        let failure = ListenFailure { address: ":80".to_owned(), reason: "in use".to_owned() };
        let result = if well { Ok(vec![":80".to_owned()]) } else { Err(failure) };
        self.feed(Input::Opened { broker: API, round: self.round, result });
    }

    fn quiet(&mut self) {
        self.feed(Input::Quiet { broker: API, round: self.round });
    }

    fn shut(&mut self) {
        self.feed(Input::Shut { broker: API, round: self.round, refused: 3 });
    }

    /// The next deadline comes, if there is one.
    fn due(&mut self) {
        if let Some(at) = self.app.deadline() {
            self.now = self.now.max(at);
            self.feed(Input::Tick);
        }
    }

    fn seen(&self) -> String {
        let status = self.app.status();
        let broker = &status.brokers[0];
        let workers: Vec<String> = broker
            .workers
            .iter()
            .map(|(id, worker)| format!(" {id}:{:?}/{}", worker.state, place(worker.slot)))
            .collect();
        let flags = [(broker.recycling, " recycling"), (broker.degraded, " degraded")];
        let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        format!("{:?} wants {}{flags}{}", broker.state, broker.wanted, workers.concat()).to_lowercase()
    }
}

/// A slot's number, or a dash.
fn place(slot: Option<Slot>) -> String {
    slot.map_or("-".to_owned(), |slot| slot.to_string())
}

fn told(effect: &Effect) -> String {
    match effect {
        Effect::OpenListeners { .. } => "OPEN".to_owned(),
        Effect::QuietListeners { .. } => "QUIET".to_owned(),
        Effect::ShutListeners { .. } => "SHUT".to_owned(),
        Effect::Spawn { worker, slot, generation, .. } => {
            format!("SPAWN {worker}/{} g{generation}", place(*slot))
        }
        Effect::Promote { worker, slot } => format!("PROMOTE {worker}/{slot}"),
        Effect::Notice { worker, .. } => format!("NOTICE {worker}"),
        Effect::Signal { worker, signal, .. } => {
            format!("{} {worker}", signal.to_string().trim_start_matches("SIG"))
        }
        Effect::WatchClock { .. } => "CLOCK".to_owned(),
        Effect::KillTree { worker } => format!("KILL {worker}"),
        Effect::Emit(event) => name(&event.what),
        Effect::Reply { outcome, .. } => match outcome {
            Outcome::Done(done) => {
                format!("reply done{}", done.note.map(|note| format!(" ({note})")).unwrap_or_default())
            }
            Outcome::Failed(failed) => format!("reply failed ({})", failed.reason),
            Outcome::Superseded(by) => format!("reply superseded ({by})"),
            Outcome::Refused(why) => format!("reply refused ({why})"),
        },
        Effect::Exit => "EXIT".to_owned(),
    }
}

/// An event by the name of its variant.
fn name(what: &What) -> String {
    let all = format!("{what:?}");
    all.split([' ', '{']).next().unwrap_or_default().to_owned()
}

fn bound(address: &str) -> Input {
    Input::Bound { broker: API, address: address.to_owned() }
}

fn part_time() -> BrokerSpec {
    BrokerSpec { scheduled: true, watch: Some(Duration::from_millis(200)), ..listening() }
}

fn plain(workers: u32) -> BrokerSpec {
    BrokerSpec {
        name: "api".to_owned(),
        workers,
        launch: LaunchId(1),
        listens: false,
        ready: Ready::Notify,
        recycle: RecycleSpec::default(),
        stop: StopLadder(vec![Rung::signal(Signal::TERM, Duration::from_secs(30))]),
        backoff: BackoffSpec::default(),
        drained: Drained::Refuse,
        scheduled: false,
        watch: None,
        standby: 0,
    }
}

fn plain_with_standby() -> BrokerSpec {
    BrokerSpec { standby: 1, ..plain(1) }
}

fn listening() -> BrokerSpec {
    BrokerSpec { listens: true, ..plain(2) }
}

const API: BrokerId = BrokerId(0);
