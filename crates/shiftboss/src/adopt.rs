//! Goes on with what another broker process has left: its app, its sockets, its workers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use shiftboss_api as api;
use shiftboss_core::id::{BrokerId, Generation, LaunchId, Pid, WorkerId};
use shiftboss_core::snapshot::{self, Refused};
use shiftboss_core::spec::Signal;
use shiftboss_core::{Adoption, App, Effect, Input, Present};

use crate::driver::Shell;
use crate::extend::Extensions;
use crate::inheritance::{AppRecord, SpecRecord, missing};
use crate::keeper::{Inherited, Keeper};
use crate::keys::Key;
use crate::launch::Launch;
use crate::os::instance::Instance;
use crate::os::memory::{self, Memory};
use crate::os::parent;
use crate::recorder::{self, Recorder};
use crate::sockets::{FIRST_ASKED, Sockets};
use crate::upgrade::{Estate, Upgrade};
use crate::workers::{Found, Workers};

/// All that was left, taken over.
pub(crate) struct Left {
    pub(crate) app: AppRecord,
    pub(crate) instance: Instance,
    pub(crate) core: App,
    pub(crate) how: Adoption,
    pub(crate) recorder: Recorder,
    pub(crate) shells: Vec<Shell>,
    pub(crate) launches: BTreeMap<LaunchId, Launch>,
    /// The last events, and up to which they were told.
    pub(crate) events: Vec<api::Event>,
    pub(crate) told: u64,
    pub(crate) inherited: Inherited,
    pub(crate) estate: Estate,
    pub(crate) upgrade: Upgrade,
    /// Keys of what is held for a broker that was about to join.
    pub(crate) stale: Vec<u64>,
}

/// Whether this image could go on with what it was given to read.
pub(crate) fn check(mut inherited: Inherited) -> io::Result<()> {
    let mut estate = Estate::new();
    let app = AppRecord::claim(&mut inherited, &mut estate)?;
    let specs = SpecRecord::claim_all(&mut inherited, &mut estate)?;
    let records = inherited.claim_one(Key::Records).ok_or_else(|| missing(Key::Records))?;
    let addresses = |broker: BrokerId| {
        let file = inherited.claim_one(Key::Listener(broker, 0))?;
        serde_json::from_slice(&memory::read(file.as_fd()).ok()?).ok()
    };
    restore(Memory::adopt(records)?.bytes(), &specs, addresses).map_err(|error| refused(&error))?;
    if app.brokers.is_empty() { Err(missing(Key::App)) } else { Ok(()) }
}

fn restore(
    records: &[u8],
    specs: &BTreeMap<(BrokerId, Generation), SpecRecord>,
    mut addresses: impl FnMut(BrokerId) -> Option<Vec<String>>,
) -> Result<App, Refused> {
    let mut untold = BTreeSet::new();
    loop {
        let restored = snapshot::restore(
            records,
            |broker, generation| specs.get(&(broker, generation)).map(|record| record.spec.clone()),
            |broker| if untold.contains(&broker) { None } else { addresses(broker) }.unwrap_or_default(),
        );
        match restored {
            // They are bound before that is told, and recorded.
            Err(Refused::Listeners { broker, recorded: 0, .. }) if untold.insert(broker) => {}
            restored => return restored,
        }
    }
}

fn refused(refused: &Refused) -> io::Error {
    io::Error::other(refused.to_string())
}

/// What [`check`] is given.
pub(crate) fn to_read(estate: &Estate, recorder: &Recorder, shells: &[Shell]) -> io::Result<Estate> {
    let mut all = Estate::new();
    for (key, file) in estate {
        all.push((*key, file.try_clone()?));
    }
    for (broker, shell) in (0..).map(BrokerId).zip(shells) {
        let addresses = serde_json::to_vec(&shell.sockets.addresses())?;
        all.push((Key::Listener(broker, 0), memory::sealed("shiftboss-addresses", &addresses)?));
    }
    all.push((Key::Records, recorder.copy()?));
    Ok(all)
}

impl Left {
    pub(crate) fn claim(mut inherited: Inherited) -> io::Result<Left> {
        let mut estate = Estate::new();
        let held: Vec<u64> = inherited.keys().collect();
        let mut app = AppRecord::claim(&mut inherited, &mut estate)?;
        let specs = SpecRecord::claim_all(&mut inherited, &mut estate)?;
        let control = inherited.claim_socket(Key::Control)?.ok_or_else(|| missing(Key::Control))?;
        let mut one = |key| inherited.claim_one(key).ok_or_else(|| missing(key));
        let instance = Instance::adopt(&app.socket(), control, one(Key::Lock)?)?;
        let (memory, mut ring, mut events, told) = recorder::open(one(Key::Records)?, one(Key::Ring)?)?;
        let mut shells = shells(&app, &specs, &mut inherited)?;
        let addresses =
            |broker: BrokerId| shells.get(broker.0 as usize).map(|shell| shell.sockets.addresses());
        let core = restore(memory.bytes(), &specs, addresses).map_err(|error| refused(&error))?;
        // One that was about to join has not.
        let joined = core.status().brokers.len();
        shells.truncate(joined);
        app.brokers.truncate(joined);
        let is_stale = |key: &u64| match Key::of(*key) {
            Some(
                Key::Listener(broker, _)
                | Key::Lane(broker, ..)
                | Key::LaneOrder(broker, _)
                | Key::Spec(broker, _),
            ) => broker.0 as usize >= joined,
            _ => false,
        };
        let stale = held.into_iter().filter(is_stale).collect();
        ring.cut_after(core.last_event());
        events.retain(|event| event.seq <= core.last_event());
        let recorder = Recorder::adopt(memory, ring)?;
        let upgrade = match inherited.claim_one(Key::Upgrade) {
            Some(note) => upgrade_of(&memory::read(note.as_fd())?),
            None => Upgrade::default(),
        };
        let how = if inherited.is_salvage() { Adoption::Salvage } else { Adoption::Whole };
        let launches = specs.into_values().map(|record| (record.spec.launch, record.launch)).collect();
        Ok(Left {
            app,
            instance,
            core,
            how,
            recorder,
            shells,
            launches,
            events,
            told,
            inherited,
            estate,
            upgrade,
            stale,
        })
    }
}

/// The upgrade that is noted there.
fn upgrade_of(note: &[u8]) -> Upgrade {
    serde_json::from_slice(note).map_or_else(|_| Upgrade::default(), |note| Upgrade::go_on(&note))
}

fn shells(
    app: &AppRecord,
    specs: &BTreeMap<(BrokerId, Generation), SpecRecord>,
    inherited: &mut Inherited,
) -> io::Result<Vec<Shell>> {
    let mut shells = Vec::new();
    for (broker, name) in (0..).map(BrokerId).zip(&app.brokers) {
        let mut of_broker = specs.range((broker, Generation(0))..=(broker, Generation(u32::MAX)));
        // One that was about to join: its name comes last, and may outlast the rest of it.
        let Some((_, record)) = of_broker.next_back() else { break };
        let nonblocking = record.launch.tongue().is_node();
        let mut sockets = Sockets::adopt(record.listen.clone(), nonblocking, broker, inherited)?;
        take_asked(&mut sockets, broker, inherited)?;
        shells.push(Shell {
            name: name.as_str().into(),
            ready: record.spec.ready,
            sockets,
            extensions: Extensions::default(),
            awaits_extensions: record.extended,
            is_joined: false,
            #[cfg(feature = "schedule")]
            schedule: record.schedule.clone(),
            #[cfg(feature = "watch")]
            watch: record.watch.clone(),
        });
    }
    Ok(shells)
}

/// Takes over what workers of this broker have asked for.
fn take_asked(sockets: &mut Sockets, of: BrokerId, inherited: &mut Inherited) -> io::Result<()> {
    let keys: Vec<Key> = inherited.keys().filter_map(Key::of).collect();
    for key in keys {
        match key {
            Key::Listener(broker, place) if broker == of && place >= FIRST_ASKED => {
                sockets.adopt_asked(place, inherited.claim(key).unwrap_or_default())?;
            }
            Key::Shared(broker, place) if broker == of => {
                if let Some(file) = inherited.claim_one(key) {
                    sockets.adopt_shared(place, file.as_fd())?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Takes over the processes of these workers, as far as there are any; what was left of others is dropped.
pub(crate) fn take_workers(
    workers: &mut Workers,
    roll: &[Present],
    inherited: &mut Inherited,
    keeper: &Keeper,
    recorder: &Recorder,
    shells: &[Shell],
    launches: &BTreeMap<LaunchId, Launch>,
) -> io::Result<()> {
    for present in roll {
        let Some(descriptors) = inherited.claim(Key::Worker(present.worker)) else { continue };
        let Some(pid) = recorder.pid(present.worker) else {
            keeper.forget(Key::Worker(present.worker));
            continue;
        };
        let Some(shell) = shells.get(present.broker.0 as usize) else { continue };
        let gone = inherited.exits.iter().any(|(key, _)| *key == Key::Worker(present.worker).value());
        let parent = if gone { None } else { parent::of(pid) };
        if let Some(parent) = parent.filter(|parent| i64::from(*parent) != i64::from(keeper.pid())) {
            return Err(io::Error::other(format!(
                "worker {}: process {pid} is no child of the keeper, but of {parent}",
                present.worker.0
            )));
        }
        let found = Found {
            worker: present.worker,
            slot: present.slot,
            of: present.broker,
            broker: &shell.name,
            ready: shell.ready,
            launch: launches.get(&present.launch),
            starting: present.starting || present.at_door || present.pid.is_none(),
            at_door: present.at_door,
            was_ready: present.was_ready,
            leaves: present.leaves,
            note: inherited.claim_one(Key::Node(present.worker)),
            spoke: present.spoke,
            rest: inherited.claim_one(Key::Rest(present.worker)),
            pid: (!gone).then_some(pid),
            sockets: &shell.sockets,
            descriptors,
        };
        workers.adopt(found)?;
        // Of one that is no longer starting it was recorded.
        if inherited.claim(Key::Ready(present.worker)).is_some() {
            if present.starting && !gone {
                workers.has_said_ready(present.worker);
            } else {
                keeper.forget(Key::Ready(present.worker));
            }
        }
    }
    let left: Vec<u64> = inherited.keys().collect();
    left.into_iter().for_each(|key| keeper.forget_value(key));
    Ok(())
}

/// What is to be done of that which the last process may not have done.
pub(crate) struct StillToDo {
    pub(crate) effects: Vec<Effect>,
    /// Signals that were asked for, with their numbers: whether they were sent the keeper knows.
    pub(crate) signals: Vec<(WorkerId, u32, Signal)>,
    /// What is known to have come of some of it.
    pub(crate) known: Vec<Input>,
}

pub(crate) fn still_to_do(
    effects: Vec<Effect>,
    roll: &[Present],
    workers: &Workers,
    recorder: &Recorder,
) -> StillToDo {
    let rungs: BTreeMap<WorkerId, u32> =
        roll.iter().filter_map(|present| Some((present.worker, present.rung?))).collect();
    let (mut signals, mut known) = (Vec::new(), Vec::new());
    let is_to_do = |effect: &Effect| match *effect {
        Effect::Spawn { worker, .. } if workers.has(worker) => {
            let pid = Pid(recorder.pid(worker).unwrap_or_default());
            known.push(Input::Spawned { worker, pid });
            false
        }
        Effect::Notice { worker, .. } => {
            rungs.get(&worker).is_none_or(|rung| recorder.rungs(worker) <= *rung)
        }
        Effect::Signal { worker, signal, .. } => {
            let was_asked = rungs.get(&worker).is_some_and(|rung| recorder.rungs(worker) > *rung);
            signals.extend(was_asked.then(|| (worker, recorder.last_signal(worker), signal)));
            !was_asked
        }
        Effect::Spawn { .. }
        | Effect::Promote { .. }
        | Effect::KillTree { .. }
        | Effect::OpenListeners { .. }
        | Effect::QuietListeners { .. }
        | Effect::ShutListeners { .. }
        | Effect::WatchClock { .. }
        | Effect::Emit(_)
        | Effect::Reply { .. }
        | Effect::Exit => true,
    };
    let effects = effects.into_iter().filter(is_to_do).collect();
    StillToDo { effects, signals, known }
}

/// The workers by their broker's name, for the log.
pub(crate) fn names(shells: &[Shell]) -> Arc<[String]> {
    shells.iter().map(|shell| shell.name.to_string()).collect()
}
