//! Records of one build, read by another (I44): people upgrade, and go back.

use shiftboss_core::App;
use shiftboss_core::snapshot::{self, Records, Refused, Version};

use crate::memory::{LAYOUT, Memory};
use crate::trace::{Step, Trace, perform};

#[test]
fn whatever_one_version_has_recorded_the_next_one_and_the_last_one_go_on_with() {
    let mut cuts = 0;
    for (seed, (from, to)) in (0..TRACES).zip(WAYS.into_iter().cycle()) {
        let trace = Trace::draw(seed, LENGTH);
        let mut app = trace.app();
        let mut records = Records::new_in(from, Memory::new(), LAYOUT);
        for at in 0..trace.steps.len() {
            drop(perform(&mut app, trace.steps[at].input.as_ref()));
            records.record(&mut app).unwrap();
            if at % EVERY == 0 && at + 1 < trace.steps.len() {
                let Memory { bytes, .. } = records.store();
                cuts += goes_on(&trace, at, Memory { bytes: bytes.clone(), writes: Vec::new() }, to);
            }
        }
    }
    println!("{cuts} cuts");
}

/// A successor of another version takes the next step, and may die between any two of its writes.
fn goes_on(trace: &Trace, at: usize, before: Memory, to: Version) -> usize {
    let (last, next) = (&trace.steps[at], &trace.steps[at + 1]);
    let told = || format!("seed {}, step {at}, to {to:?}", trace.seed);
    let mut app = restored(last, trace, &before.bytes, to).unwrap_or_else(|why| panic!("{}: {why}", told()));
    assert!(snapshot::written(&app) == last.after && app.is_consistent(), "{}: another state", told());
    let mut records = Records::adopt_in(to, before.clone()).unwrap();
    assert!(perform(&mut app, next.input.as_ref()) == next.effects, "{}: other effects", told());
    records.record(&mut app).unwrap();
    let mut torn = before;
    for write in &records.store().writes {
        for reader in [Version(3), Version::NEXT] {
            let found = restored(last, trace, &torn.bytes, reader).unwrap();
            assert!(snapshot::written(&found) == last.after, "{}: not as before, for {reader:?}", told());
        }
        write.apply(&mut torn.bytes);
    }
    for reader in [Version(3), Version::NEXT] {
        let found = restored(next, trace, &torn.bytes, reader).unwrap();
        assert!(snapshot::written(&found) == next.after, "{}: not as after, for {reader:?}", told());
    }
    assert_eq!(snapshot::versions(&torn.bytes), Ok(vec![to]), "{}: not all is written anew", told());
    records.store().writes.len()
}

#[test]
fn records_that_no_older_version_may_read_are_refused_by_it_and_stay_as_they_are() {
    let trace = Trace::draw(3, LENGTH);
    let (mut app, last) = (trace.app(), trace.steps.last().unwrap());
    let mut records = Records::new_in(Version::STRANGE, Memory::new(), LAYOUT);
    for step in &trace.steps {
        drop(perform(&mut app, step.input.as_ref()));
        records.record(&mut app).unwrap();
    }
    let image = &records.store().bytes;
    for (reader, known) in [(Version(3), 3), (Version::NEXT, 4)] {
        let refused = Refused::Format { found: 5, known };
        assert_eq!(restored(last, &trace, image, reader).err(), Some(refused.clone()));
        let store = Memory { bytes: image.clone(), writes: Vec::new() };
        assert_eq!(Records::adopt_in(reader, store).err(), Some(refused));
    }
    let found = restored(last, &trace, image, Version::STRANGE).unwrap();
    assert!(snapshot::written(&found) == last.after);
    let told = Refused::Format { found: 3, known: 1 }.to_string();
    assert_eq!(told, "the records have format 3, of a newer version than this one, which knows format 1");
}

/// The first version knew of no schedules: what it has recorded is gone on with, and whoever was sent home stays there.
#[test]
fn records_from_before_schedules_are_gone_on_with() {
    let mut tried = 0;
    for seed in 0..TRACES * 4 {
        let trace = Trace::draw(seed, LENGTH);
        let mut all = trace.specs.iter().chain(trace.accepted.values());
        if all.any(|spec| spec.scheduled || spec.watch.is_some() || spec.standby > 0) {
            continue;
        }
        let mut app = trace.app();
        let mut records = Records::new_in(Version(1), Memory::new(), LAYOUT);
        for (step, next) in trace.steps.iter().zip(&trace.steps[1..]) {
            drop(perform(&mut app, step.input.as_ref()));
            records.record(&mut app).unwrap();
            let mut found = restored(step, &trace, &records.store().bytes, Version(3)).unwrap();
            assert!(found.is_consistent() && found.status() == app.status(), "seed {seed}: another state");
            assert!(perform(&mut found, next.input.as_ref()) == next.effects, "seed {seed}: other effects");
            tried += 1;
        }
    }
    assert!(tried > LENGTH, "{tried}");
}

fn restored(step: &Step, trace: &Trace, image: &[u8], reader: Version) -> Result<App, Refused> {
    let listens =
        |broker: shiftboss_core::id::BrokerId| step.status.brokers[broker.0 as usize].listen.clone();
    let specs = |broker, since| trace.accepted.get(&(broker, since)).cloned();
    snapshot::restore_in(reader, image, specs, listens)
}

const WAYS: [(Version, Version); 2] = [(Version(3), Version::NEXT), (Version::NEXT, Version(3))];
const TRACES: u64 = 60;
const LENGTH: usize = 100;
const EVERY: usize = 9;
