//! A shift that nobody would like to have: every second a fault or a command by chance, under load, for as long as
//! `SHIFTBOSS_SOAK_MINUTES` says (without it for a few seconds). No request may be lost but those inside a worker that
//! was killed on purpose, the onlooker judges all of it, and memory and descriptors must be those of the beginning.
//!
//! Seeded by `SHIFTBOSS_SOAK_SEED`. The broker process is killed and replaced only in the last two fifths: before, its
//! memory could show a leak.

mod faults;
mod memory;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use self::faults::{Fault, after_death, alive};
use self::memory::Memory;
use crate::app::*;
use crate::faults_of_keeper_and_broker::images::replaceable_begun;
use crate::load::*;
use crate::nothing_is_left_behind::descriptors;

/// `calm`: nothing that is served by it may fail. `rough`: its workers are killed. `talk`: is told and asked. `part`:
/// comes and goes. `sick`: never starts. `loud`: misbehaves. `door`: programs of Node's cluster, and one at the door.
fn config(calm: u16, rough: u16) -> String {
    let talk = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python/worker.py");
    format!(
        r#"
        app = "e2e"
        [broker.calm]
        command = ["BIN", "demo-worker"]
        kind = "notify"
        workers = 3
        listen = ["tcp://127.0.0.1:{calm}"]
        drained = "hold"
        watch = {{ paths = ["changes"], debounce = "50ms" }}
        [broker.rough]
        command = ["BIN", "demo-worker"]
        kind = "notify"
        workers = 3
        listen = ["tcp://127.0.0.1:{rough}"]
        recycle = {{ every = "45s", surge = 3 }}
        backoff = {{ base = "50ms", cap = "400ms", healthy_after = "1s" }}
        [broker.talk]
        command = ["python3", {talk:?}]
        kind = "notify"
        workers = 2
        backoff = {{ base = "50ms", cap = "400ms", healthy_after = "1s" }}
        [broker.part]
        command = ["WORKER", "--ready", "notify"]
        kind = "notify"
        workers = 4
        schedule = {{ open = "0,20,40 * * * * *", close = "10,30,50 * * * * *" }}
        [broker.sick]
        command = ["WORKER", "--exit", "3"]
        kind = "notify"
        backoff = {{ base = "100ms", cap = "5s" }}
        [broker.loud]
        command = ["WORKER", "--print", "200", "--fork-child", "--ready", "notify", "--exit-after", "7000"]
        kind = "notify"
        backoff = {{ base = "1s", cap = "5s" }}
        stop = [{{ signal = "TERM", wait = "1s" }}, {{ signal = "KILL" }}]
        [broker.door]
        {door}
        workers = 2
        backoff = {{ base = "50ms", cap = "400ms", healthy_after = "1s" }}
        "#,
        door = door()
    )
}

/// Without Node, any worker will do.
fn door() -> String {
    if Command::new("node").arg("--version").output().is_err() {
        return "command = [\"WORKER\", \"--ready\", \"notify\"]\nkind = \"notify\"".to_owned();
    }
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/programs/node/web.js");
    format!("command = [\"node\", {program:?}, \"{}\"]\nkind = \"node\"\nstandby = 1", free_port())
}

/// The app under fire, and what has been done to it.
struct Soak {
    app: App,
    random: u64,
    done: BTreeMap<&'static str, u32>,
    /// Workers of `rough` that were killed.
    killed: u64,
}

impl Soak {
    /// A number below this one (xorshift64).
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % bound as u64).unwrap()
    }

    fn strike(&mut self, faults: &[Fault]) {
        let (name, act) = faults[self.below(faults.len())];
        *self.done.entry(name).or_default() += 1;
        act(self);
        let said = self.app.stderr();
        assert!(!said.contains("panicked"), "{name}: {said}");
    }

    /// What is kept of the past fills first, with faults as quickly as they go: what grows then is a leak. By hand it was
    /// flat after 2,678.
    fn warms_up(&mut self, faults: u32) {
        for number in 1..=faults {
            self.strike(alive());
            if number % 50 == 0 {
                self.settles();
            }
        }
        self.settles();
        (self.done, self.killed) = (BTreeMap::new(), 0);
    }

    /// Whatever has been done: soon all that should serve does.
    fn settles(&self) {
        for broker in ["calm", "rough", "talk", "door"] {
            self.app.does(&["wait", broker, "--for", "ready", "--timeout", "60s"]);
        }
    }
}

#[test]
fn an_hour_of_everything_at_once_loses_nothing_and_leaves_nothing() {
    let minutes = std::env::var("SHIFTBOSS_SOAK_MINUTES").ok().map(|minutes| minutes.parse::<f64>().unwrap());
    let whole = Duration::from_secs_f64(minutes.unwrap_or(0.2) * 60.0);
    let seed = std::env::var("SHIFTBOSS_SOAK_SEED").ok().map_or(1, |seed| seed.parse().unwrap());
    let ports = [free_port(), free_port()];
    let app = replaceable_begun(&config(ports[0], ports[1]));
    let mut soak = Soak { app, random: seed, done: BTreeMap::new(), killed: 0 };
    soak.settles();
    // How the last upgrade went is kept from the first one on, and so are the outcomes of the last 1,024 commands.
    soak.app.does(&["upgrade"]);
    fill_what_is_remembered(&soak.app);
    let before = open(&soak.app);
    soak.warms_up(if minutes.is_some() { 2700 } else { 10 });
    let loads = ports.map(|port| Load::on(port, &["--no-keep-alive", "--rate", "100"]));

    let begun = Instant::now();
    let mut memory = Memory::default();
    for second in 1.. {
        let now = begun.elapsed();
        if now >= whole {
            break;
        }
        let deaths = now > whole.mul_f64(0.6);
        soak.strike(if deaths { after_death() } else { alive() });
        if second % 30 == 0 {
            soak.settles();
            memory.look(&soak.app, now.div_duration_f64(whole));
            eprintln!("{:>5.1} min: {:?}; {memory}", now.as_secs_f64() / 60.0, soak.done);
        }
        let next = begun + Duration::from_secs(second);
        eventually("a second passes", || Instant::now() >= next);
    }

    soak.settles();
    ends_well(soak, loads, &before);
    memory.is_flat();
}

/// Commands that change nothing, with keys as long as those of the command line.
fn fill_what_is_remembered(app: &App) {
    for number in 0..1100 {
        let mut stream = UnixStream::connect(app.socket()).unwrap();
        let head = "POST /v1/brokers/talk/scale HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n";
        write!(stream, "{head}Idempotency-Key: {number:032x}\r\n\r\n{{\"workers\":2}}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }
}

fn open(app: &App) -> [Vec<String>; 2] {
    [descriptors(app.pid()), descriptors(app.broker_pid())]
}

fn ends_well(soak: Soak, [calm, rough]: [Load; 2], before: &[Vec<String>; 2]) {
    let Soak { app, done, killed, .. } = soak;
    let (calm, rough) = (calm.end(), rough.end());
    println!("seen: {} faults and commands: {done:?}", done.values().sum::<u32>());
    println!("seen: calm: {} sent, {} failed, {} crossed", calm["sent"], calm["failed"], calm["crossed"]);
    println!("seen: rough: {} sent, {} failed, {killed} workers killed", rough["sent"], rough["failed"]);
    none_lost(&calm);
    let kinds = rough["by_kind"].as_object().unwrap();
    assert!(
        kinds.keys().all(|kind| ["reset", "closed_early", "crossed"].contains(&kind.as_str())),
        "{rough}"
    );
    assert!(
        rough["failed"].as_u64().unwrap() <= 100 * killed,
        "more than a worker can have in hand: {rough}"
    );
    // Those that come and go have a few more or less; without them there is one count.
    for broker in ["part", "sick", "loud", "door"] {
        app.does(&["drain", broker]);
    }
    for (broker, workers) in [("calm", "3"), ("rough", "3"), ("talk", "2")] {
        app.does(&["scale", broker, workers]);
    }
    println!("seen: descriptors of keeper and broker process {:?}", open(&app).map(|all| all.len()));
    assert!(open(&app)[0].len() <= before[0].len(), "{:?} {before:?}", open(&app));
    eventually("no descriptor is left", || open(&app)[1].len() <= before[1].len());
    let events = app.log();
    let mut known = std::collections::BTreeSet::new();
    let mut events: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    events.retain(|seq| known.insert(*seq));
    assert!(events.is_sorted(), "each event once, in order");
    println!("seen: {} events", events.len());
    assert!(app.stop().0.success());
}
