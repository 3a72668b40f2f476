//! The state stays small enough to be recorded, whatever is asked: queues, texts, commands.

use std::time::Duration;

use shiftboss_core::id::{BrokerId, LaunchId, Pid, RequestId, WorkerId};
use shiftboss_core::snapshot::{self, Layout, Records, Store};
use shiftboss_core::spec::{BackoffSpec, BrokerSpec, Drained, Ready, RecycleSpec, Rung, Signal, StopLadder};
use shiftboss_core::{App, Command, Effect, Input, Outcome, Time, Verb, What};

use crate::memory::{LAYOUT, Memory};

#[test]
fn a_slot_waits_for_the_spawn_budget_once_however_often_it_comes_and_goes() {
    // Room for all that are left behind.
    let recycle = RecycleSpec { surge: 1000, ..RecycleSpec::default() };
    let mut app = App::new(Time(5), 1, vec![BrokerSpec { recycle, ..spec(40) }]);
    drop(app.start(Time(5)));
    let mut spawned = 0;
    for round in 0..20 {
        ask(&mut app, 2 * round, Verb::Scale(0));
        // Sixteen in each step: the others wait for the next one, which does not come.
        spawned = spawns(&ask(&mut app, 2 * round + 1, Verb::Scale(40)));
        assert!(spawned == 16 && app.is_consistent());
    }
    while let Some(at) = app.deadline() {
        spawned += spawns(&app.handle(at, Input::Tick));
    }
    assert_eq!(spawned, 40);
}

#[test]
fn whoever_waits_for_the_spawn_budget_when_scaled_away_waits_no_longer() {
    let mut app = starved();
    assert!(app.deadline().is_some());
    ask(&mut app, 1000, Verb::Scale(0));
    assert_eq!(app.deadline(), None);
}

#[test]
fn a_long_reason_is_cut_the_same_way_everywhere_and_survives() {
    let mut app = App::new(Time(5), 1, vec![spec(1)]);
    let mut records = Records::new(Memory::new(), LAYOUT);
    drop(app.start(Time(5)));
    ask(&mut app, 1, Verb::Recycle(None));
    let reason = "🙂".repeat(1000);
    let effects = app.handle(Time(6), Input::SpawnFailed { worker: WorkerId(1), reason });
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Emit(event) => match &event.what {
            What::WorkerDeath { reason, .. } => Some(reason.clone()),
            _ => None,
        },
        _ => None,
    });
    let told = told.expect("a death");
    assert!(told.len() <= 300 && told.ends_with('…'), "{told}");
    let last = app.status().brokers[0].last_failure.clone();
    assert_eq!(last, Some(format!("worker 1 (slot 0) {told}")));
    records.record(&mut app).unwrap();
    let twin = snapshot::restore(records.store().bytes(), |_, _| Some(spec(1)), |_| Vec::new()).unwrap();
    assert_eq!(twin.status().brokers[0].last_failure, last);
}

#[test]
fn only_so_many_commands_wait_and_the_next_is_refused() {
    let mut app = App::new(Time(5), 1, vec![spec(1)]);
    drop(app.start(Time(5)));
    for request in 0..512 {
        assert!(answer(&ask(&mut app, request, Verb::Recycle(None))).is_none(), "{request} waits");
    }
    let refused = answer(&ask(&mut app, 512, Verb::Recycle(None)));
    let why = "too many commands wait (512): try again when some are answered".to_owned();
    assert_eq!(refused, Some(Outcome::Refused(why)));
    assert_eq!(answer(&ask(&mut app, 512, Verb::Recycle(None))), refused, "the same again");
    let stop = app.handle(Time(5), Input::Command { request: RequestId(513), command: Command::Stop });
    let superseded =
        |effect: &&Effect| matches!(effect, Effect::Reply { outcome: Outcome::Superseded(_), .. });
    assert_eq!(stop.iter().filter(superseded).count(), 512, "the end of the app is never one too many");
    assert!(!stop.iter().any(|effect| matches!(effect, Effect::Reply { request: RequestId(513), .. })));
}

#[test]
fn the_most_commands_and_the_longest_texts_fit_the_default_layout() {
    let (long, layout) = ("n".repeat(5000), Layout::default());
    let mut app = App::new(Time(5), 1, vec![BrokerSpec { name: long, ..spec(1) }]);
    let mut records = Records::new(Memory { bytes: vec![0; layout.size()], writes: Vec::new() }, layout);
    drop(app.start(Time(5)));
    for request in 0..2000 {
        // Each second one is refused with the broker's name in the answer.
        let slot = (request % 2 == 1).then_some(shiftboss_core::id::Slot(9));
        ask(&mut app, request, Verb::Recycle(slot));
        records.record(&mut app).unwrap();
        records.store_mut().writes.clear();
    }
    assert_eq!(snapshot::committed(records.store().bytes()), Ok(snapshot::written(&app)));
    let given = |_, _| Some(BrokerSpec { name: "n".repeat(5000), ..spec(1) });
    let mut twin = snapshot::restore(records.store().bytes(), given, |_| Vec::new()).unwrap();
    let (twice, once) = (ask(&mut twin, 1999, Verb::Drain), ask(&mut app, 1999, Verb::Drain));
    assert_eq!(once, twice, "a repeated command is answered as before");
    assert!(answer(&once).is_some());
}

#[test]
fn a_rung_without_a_wait_is_climbed_at_once_also_after_another() {
    let rung = |millis| Rung::signal(Signal::TERM, Duration::from_millis(millis));
    let stop = StopLadder(vec![rung(10), rung(0)]);
    let mut app = App::new(Time(5), 1, vec![BrokerSpec { stop, ..spec(1) }]);
    drop(app.start(Time(5)));
    drop(app.handle(Time(5), Input::Spawned { worker: WorkerId(1), pid: Pid(9) }));
    ask(&mut app, 1, Verb::Drain);
    let at = app.deadline().expect("the first rung waits");
    let effects = app.handle(at, Input::Tick);
    let asked: Vec<bool> = effects.iter().map(|effect| matches!(effect, Effect::KillTree { .. })).collect();
    assert_eq!(asked, [false, true], "{effects:?}");
}

#[test]
fn two_states_that_differ_only_in_what_counts_are_the_same_to_an_explorer() {
    let reached = |seed, scales: u128| {
        let mut app = App::new(Time(5), seed, vec![spec(1)]);
        drop(app.start(Time(5)));
        for _ in 0..scales {
            drop(app.handle(Time(5), Input::Ready { worker: WorkerId(1) }));
            drop(app.handle(Time(5), Input::Spawned { worker: WorkerId(1), pid: Pid(9) }));
        }
        app
    };
    let (app, other) = (reached(1, 1), reached(2, 2));
    assert_ne!(snapshot::written(&app), snapshot::written(&other));
    assert_eq!(reached(1, 1).identity(), reached(3, 1).identity(), "randomness");
    let mut fired = app.clone();
    assert_eq!(app.armed(), 1);
    assert_eq!(fired.fire(1), None);
    let effects = fired.fire(0).expect("its deadline to become ready");
    assert!(!effects.is_empty() && fired.is_consistent());
    assert_eq!(fired.shapes(), ["open", "stopping"]);
    assert_ne!(fired.identity(), app.identity());
}

/// An app of one slot whose failures have used up the spawn budget, so that the slot waits for it.
fn starved() -> App {
    let backoff = BackoffSpec { base: Duration::ZERO, cap: Duration::ZERO, healthy_after: Duration::ZERO };
    let mut app = App::new(Time(5), 1, vec![BrokerSpec { backoff, ..spec(1) }]);
    drop(app.start(Time(5)));
    for worker in 1..=68 {
        drop(app.handle(Time(5), Input::SpawnFailed { worker: WorkerId(worker), reason: String::new() }));
    }
    app
}

fn ask(app: &mut App, request: u128, verb: Verb) -> Vec<Effect> {
    let command = Command::Broker(BrokerId(0), verb);
    app.handle(Time(5), Input::Command { request: RequestId(request), command })
}

fn spawns(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Spawn { .. })).count()
}

fn answer(effects: &[Effect]) -> Option<Outcome> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reply { outcome, .. } => Some(outcome.clone()),
        _ => None,
    })
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
