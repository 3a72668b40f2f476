//! Cases that the simulation has found and made small, as it prints them: every call is judged by the oracle.

use std::time::Duration;

use shiftboss_core::id::{BrokerId, LaunchId, Pid, RequestId, WorkerId};
use shiftboss_core::spec::{BackoffSpec, BrokerSpec, Drained, Ready, RecycleSpec, Rung, Signal, StopLadder};
use shiftboss_core::{App, Command, Exit, Input, Time, Verb};
use shiftboss_oracle::{Oracle, Step};

/// I29b: a command was answered as if the broker were full while a successor on trial was counted beside its
/// predecessor and another slot was empty.
#[test]
fn full_means_every_slot() {
    let mut replay = Replay::of(
        Time(911360386673),
        9382862243272964925,
        vec![
            BrokerSpec {
                name: "b0".to_owned(),
                workers: 1,
                launch: LaunchId(0),
                listens: true,
                ready: Ready::Notify,
                recycle: RecycleSpec {
                    every: Some(Duration::from_nanos(50451000000)),
                    jitter: 0.1,
                    surge: 1,
                    unavailable: 0,
                    min_ready: Duration::from_nanos(1260000000),
                    deadline: Duration::from_nanos(1082000000),
                },
                stop: StopLadder(vec![Rung::signal(Signal(2), Duration::from_nanos(429000000))]),
                backoff: BackoffSpec {
                    base: Duration::from_nanos(73000000),
                    cap: Duration::from_nanos(566000000),
                    healthy_after: Duration::from_nanos(764000000),
                },
                drained: Drained::Hold,
                scheduled: false,
                watch: None,
                standby: 0,
            },
            BrokerSpec {
                name: "b1".to_owned(),
                workers: 1,
                launch: LaunchId(1),
                listens: false,
                ready: Ready::Notify,
                recycle: RecycleSpec {
                    every: Some(Duration::from_nanos(32635000000)),
                    jitter: 0.1,
                    surge: 2,
                    unavailable: 1,
                    min_ready: Duration::from_nanos(368000000),
                    deadline: Duration::from_nanos(4680000000),
                },
                stop: StopLadder(vec![
                    Rung::signal(Signal(2), Duration::from_nanos(285000000)),
                    Rung::signal(Signal(15), Duration::from_nanos(837000000)),
                ]),
                backoff: BackoffSpec {
                    base: Duration::from_nanos(64000000),
                    cap: Duration::from_nanos(2150000000),
                    healthy_after: Duration::from_nanos(1457000000),
                },
                drained: Drained::Refuse,
                scheduled: false,
                watch: None,
                standby: 0,
            },
        ],
    );
    replay.feed(
        Time(911360386673),
        Input::Opened { broker: BrokerId(0), round: 1, result: Ok(strings(&["tcp://:80"])) },
    );
    replay.feed(Time(911360386673), Input::Spawned { worker: WorkerId(1), pid: Pid(101) });
    replay.feed(Time(911360386673), Input::Spawned { worker: WorkerId(2), pid: Pid(102) });
    replay.feed(Time(941102186099), Input::Tick);
    replay.feed(Time(941102186099), Input::Spawned { worker: WorkerId(3), pid: Pid(103) });
    replay.feed(
        Time(941375186099),
        Input::Command {
            request: RequestId(2),
            command: Command::Broker(
                BrokerId(0),
                Verb::Respecify(Box::new(BrokerSpec {
                    name: "b0".to_owned(),
                    workers: 1,
                    launch: LaunchId(3),
                    listens: true,
                    ready: Ready::Notify,
                    recycle: RecycleSpec {
                        every: Some(Duration::from_nanos(13054000000)),
                        jitter: 0.1,
                        surge: 2,
                        unavailable: 1,
                        min_ready: Duration::from_nanos(915000000),
                        deadline: Duration::from_nanos(4546000000),
                    },
                    stop: StopLadder(vec![Rung::signal(Signal(2), Duration::from_nanos(949000000))]),
                    backoff: BackoffSpec {
                        base: Duration::from_nanos(138000000),
                        cap: Duration::from_nanos(746000000),
                        healthy_after: Duration::from_nanos(1515000000),
                    },
                    drained: Drained::Hold,
                    scheduled: false,
                    watch: None,
                    standby: 0,
                })),
            ),
        },
    );
    replay.feed(Time(941375186099), Input::Spawned { worker: WorkerId(4), pid: Pid(104) });
    replay.feed(
        Time(941375186099),
        Input::Command { request: RequestId(3), command: Command::Broker(BrokerId(0), Verb::Recycle(None)) },
    );
    replay.feed(Time(941420186099), Input::Ready { worker: WorkerId(4) });
    replay.feed(Time(942769186099), Input::Exited { worker: WorkerId(2), exit: Exit::Signal(Signal(9)) });
    replay.feed(Time(942769186099), Input::Spawned { worker: WorkerId(5), pid: Pid(102) });
    replay.feed(Time(944830186099), Input::Exited { worker: WorkerId(4), exit: Exit::Signal(Signal(9)) });
    replay.feed(Time(953916351375), Input::Tick);
    replay.feed(Time(953916351375), Input::Spawned { worker: WorkerId(6), pid: Pid(104) });
    replay.feed(Time(966805578808), Input::Tick);
    replay.feed(Time(966805578808), Input::Spawned { worker: WorkerId(7), pid: Pid(102) });
    replay.feed(Time(980494092917), Input::Tick);
    replay.feed(Time(980494092917), Input::Spawned { worker: WorkerId(9), pid: Pid(104) });
    replay.feed(Time(980669092917), Input::Ready { worker: WorkerId(9) });
    replay.feed(Time(993025250773), Input::Tick);
    replay.feed(Time(993025250773), Input::Spawned { worker: WorkerId(10), pid: Pid(102) });
    replay.feed(
        Time(993025250773),
        Input::Command { request: RequestId(7), command: Command::Broker(BrokerId(0), Verb::Scale(7)) },
    );
    replay.feed(Time(993025250773), Input::Spawned { worker: WorkerId(11), pid: Pid(103) });
    replay.feed(Time(993025250773), Input::Spawned { worker: WorkerId(12), pid: Pid(101) });
    replay.feed(Time(993025250773), Input::Spawned { worker: WorkerId(14), pid: Pid(106) });
    replay.feed(Time(993025250773), Input::Spawned { worker: WorkerId(15), pid: Pid(107) });
    replay.feed(Time(993025250773), Input::Spawned { worker: WorkerId(16), pid: Pid(108) });
    replay.feed(Time(993133250773), Input::Ready { worker: WorkerId(10) });
    replay.feed(Time(993158250773), Input::Ready { worker: WorkerId(11) });
    replay.feed(Time(993170250773), Input::Ready { worker: WorkerId(12) });
    replay.feed(Time(993182250773), Input::Ready { worker: WorkerId(14) });
    replay.feed(Time(993190250773), Input::Ready { worker: WorkerId(16) });
    replay.feed(Time(993198250773), Input::Ready { worker: WorkerId(15) });
}

struct Replay {
    app: App,
    oracle: Oracle,
}

impl Replay {
    fn of(begun: Time, seed: u64, specs: Vec<BrokerSpec>) -> Replay {
        let oracle = Oracle::new(&specs);
        let mut replay = Replay { app: App::new(begun, seed, specs), oracle };
        let effects = replay.app.start(begun);
        replay.judge(&Step {
            now: begun,
            input: None,
            adopted: None,
            effects,
            deadline: replay.app.deadline(),
        });
        replay
    }

    fn feed(&mut self, now: Time, input: Input) {
        let effects = self.app.handle(now, input.clone());
        self.judge(&Step { now, input: Some(input), adopted: None, effects, deadline: self.app.deadline() });
    }

    #[track_caller]
    fn judge(&mut self, step: &Step) {
        if let Err(broken) = self.oracle.judge(step) {
            panic!("{step}breaks {}", broken.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        }
        assert_eq!(*self.oracle.claimed(), self.app.status());
        assert!(self.app.is_consistent());
    }
}

fn strings(from: &[&str]) -> Vec<String> {
    from.iter().map(|text| (*text).to_owned()).collect()
}
