//! Whatever is told to core, in whatever order: also what no shell of ours would say.

use std::time::Duration;

use shiftboss_core::id::{BrokerId, Generation, LaunchId, Pid, RequestId, Slot, WorkerId};
use shiftboss_core::snapshot::{self, Layout, Records, Store};
use shiftboss_core::spec::{BackoffSpec, BrokerSpec, Drained, Ready, RecycleSpec, Rung, Signal, StopLadder};
use shiftboss_core::{App, Command, Effect, Exit, Input, ListenFailure, Status, Time, Verb};

use crate::bytes::Bytes;

/// What is kept beside the states agrees with them, the status is the fold of the events, and, every few steps, an app
/// made of the records is the one that was recorded.
pub fn try_out(bytes: &[u8]) {
    let mut life = Life::new(Bytes(bytes));
    life.begin();
    while !life.bytes.is_empty() {
        life.step();
    }
    life.is_recorded();
}

/// An app, and what was told to it.
pub struct Life<'a> {
    pub(crate) bytes: Bytes<'a>,
    pub(crate) app: App,
    pub(crate) records: Records<Memory>,
    pub(crate) specs: Vec<BrokerSpec>,
    accepted: Vec<((BrokerId, Generation), BrokerSpec)>,
    now: Time,
    claimed: Status,
    /// The number of the last event.
    seq: u64,
    steps: u32,
}

impl<'a> Life<'a> {
    pub(crate) fn new(mut bytes: Bytes<'a>) -> Life<'a> {
        let specs: Vec<BrokerSpec> = (0..1 + bytes.below(2)).map(|_| spec(&mut bytes)).collect();
        let now = Time(1_000_000_000);
        let app = App::new(now, 7, specs.clone());
        let first = |(id, spec): (u32, &BrokerSpec)| ((BrokerId(id), Generation(1)), spec.clone());
        Life {
            bytes,
            app,
            records: Records::new(Memory(vec![0; LAYOUT.size()]), LAYOUT),
            accepted: (0..).zip(&specs).map(first).collect(),
            specs,
            now,
            claimed: Status::default(),
            seq: 0,
            steps: 0,
        }
    }

    pub(crate) fn begin(&mut self) {
        let effects = self.app.start(self.now);
        self.take(&effects);
    }

    pub(crate) fn step(&mut self) {
        let input = self.input();
        let before = self.app.status();
        if let Input::Command { command: Command::Broker(broker, Verb::Respecify(spec)), .. } = &input
            && let Some(status) = before.brokers.get(broker.0 as usize)
        {
            let since = Generation(status.target.0 + 1);
            self.accepted.push(((*broker, since), (**spec).clone()));
        }
        let effects = self.app.handle(self.now, input);
        self.take(&effects);
    }

    fn take(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Emit(event) = effect {
                assert!(event.seq > self.seq, "numbers of events rise");
                self.seq = event.seq;
                self.claimed.apply(event);
            }
        }
        assert!(self.app.is_consistent());
        assert!(self.claimed == self.app.status(), "the status is the fold of the events");
        // Those who left and came in numbers are more than there is room for: the shell would end itself.
        let _ = self.records.record(&mut self.app);
        self.steps += 1;
        if self.steps.is_multiple_of(16) {
            self.is_recorded();
        }
    }

    fn is_recorded(&self) {
        if snapshot::committed(self.records.store().bytes()) != Ok(snapshot::written(&self.app)) {
            return;
        }
        let twin = self.restored(self.records.store().bytes()).expect("what was recorded is read");
        assert!(twin.is_consistent());
        assert!(twin.status() == self.app.status() && twin.deadline() == self.app.deadline());
    }

    pub(crate) fn restored(&self, image: &[u8]) -> Result<App, snapshot::Refused> {
        let status = self.app.status();
        // The last one that came with that number is the one that was taken.
        let spec = |broker: BrokerId, since: Generation| {
            let mut known = self.accepted.iter().rev();
            known.find(|(key, _)| *key == (broker, since)).map(|(_, spec)| spec.clone())
        };
        let listens = |broker: BrokerId| {
            status.brokers.get(broker.0 as usize).map(|broker| broker.listen.clone()).unwrap_or_default()
        };
        snapshot::restore(image, spec, listens)
    }

    fn input(&mut self) -> Input {
        let bytes = &mut self.bytes;
        let kind = bytes.below(28);
        let worker = WorkerId(u64::from(bytes.one() % 24));
        let broker = BrokerId(u32::from(worker.0 as u8 & 1));
        let round = u32::from(kind as u8 % 4);
        if kind >= 20 {
            self.now = self.now + Duration::from_millis(u64::from(bytes.one()) * 13);
        }
        match kind {
            0 | 1 => {
                self.now = self.app.deadline().map_or(self.now, |at| self.now.max(at));
                Input::Tick
            }
            2 => {
                let failure = ListenFailure { address: "tcp://:1".to_owned(), reason: "in use".to_owned() };
                let result = if bytes.flag() { Ok(vec!["tcp://:1".to_owned()]) } else { Err(failure) };
                Input::Opened { broker, round: u32::from(bytes.one() % 4), result }
            }
            3 => Input::Quiet { broker, round },
            4 => Input::Shut { broker, round: u32::from(bytes.one() % 4), refused: 2 },
            5 | 6 => Input::Spawned { worker, pid: Pid(100 + worker.0 as u32) },
            7 => Input::SpawnFailed { worker, reason: "é".repeat(usize::from(bytes.one()) * 4) },
            8 | 9 => Input::Ready { worker },
            10 => Input::Unseen { worker },
            11 => Input::Spoke { worker },
            12 => Input::HungUp { worker },
            13 => Input::Garbled { worker },
            14 => Input::Refused { worker },
            15 | 16 => {
                let exit = bytes.pick(&[Exit::Code(0), Exit::Code(1), Exit::Signal(Signal::KILL)]);
                Input::Exited { worker, exit }
            }
            17 => Input::Window { broker, open: bytes.flag() },
            18 => Input::Changed { broker },
            19 if bytes.one() > 240 => Input::Stop { now: bytes.flag() },
            24 | 25 => Input::Standby { worker },
            26 => Input::Hung { worker },
            27 => {
                let address = format!("tcp://:{}", bytes.one() % 4);
                if bytes.flag() {
                    Input::Bound { broker, address }
                } else {
                    Input::Unbound { broker, address }
                }
            }
            _ => self.command(broker),
        }
    }

    fn command(&mut self, broker: BrokerId) -> Input {
        let bytes = &mut self.bytes;
        let request = RequestId(u128::from(bytes.one()));
        let verb = match bytes.below(8) {
            0 => Verb::Recycle(None),
            1 => Verb::Recycle(Some(Slot(u32::from(bytes.one() % 8)))),
            2 => Verb::Drain,
            3 => Verb::Resume,
            4 => Verb::ResumeNow,
            5 => Verb::Scale(u32::from(bytes.one() % 8)),
            6 => {
                let before = self.specs.get(broker.0 as usize).unwrap_or(&self.specs[0]);
                let BrokerSpec { name, listens, scheduled, .. } = before.clone();
                Verb::Respecify(Box::new(BrokerSpec { name, listens, scheduled, ..spec(bytes) }))
            }
            _ if bytes.one() > 250 => return Input::Command { request, command: Command::Stop },
            _ => Verb::Scale(200_000),
        };
        Input::Command { request, command: Command::Broker(broker, verb) }
    }
}

fn spec(bytes: &mut Bytes<'_>) -> BrokerSpec {
    let shape = bytes.one();
    let waits = [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1)];
    let (surge, unavailable) = [(1, 0), (0, 1), (2, 1), (0, 2)][usize::from(shape & 3)];
    let ask =
        [Rung::signal(Signal::TERM, waits[1]), Rung::notice(waits[2]), Rung::signal(Signal::KILL, waits[0])];
    let policy = bytes.one();
    BrokerSpec {
        name: "api".to_owned(),
        workers: u32::from(shape >> 2 & 3),
        launch: LaunchId(0),
        listens: shape & 16 != 0,
        ready: [Ready::Notify, Ready::Accepting, Ready::After(waits[1]), Ready::After(waits[0])]
            [usize::from(shape >> 5 & 3)],
        recycle: RecycleSpec {
            every: (policy & 1 != 0).then_some(Duration::from_secs(5)),
            jitter: 0.1,
            surge,
            unavailable,
            min_ready: waits[usize::from(policy >> 1 & 1)],
            deadline: Duration::from_secs(2),
        },
        stop: StopLadder(ask[..usize::from(policy >> 2 & 3)].to_vec()),
        backoff: BackoffSpec {
            base: waits[usize::from(policy >> 4 & 1)],
            cap: waits[2],
            healthy_after: waits[usize::from(policy >> 5 & 1)],
        },
        drained: if policy & 64 != 0 { Drained::Hold } else { Drained::Refuse },
        scheduled: policy & 128 != 0,
        watch: (shape & 128 != 0).then_some(waits[1]),
        standby: u32::from(bytes.one() % 3),
    }
}

/// Records in memory.
#[derive(Clone)]
pub struct Memory(pub(crate) Vec<u8>);

impl Store for Memory {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

pub(crate) const LAYOUT: Layout = Layout { brokers: 2, slots: 16, workers: 32, commands: 48 };
