//! Cuts at every step, and between any two writes of a step.

use std::collections::BTreeMap;

use shiftboss_core::snapshot::{self, Records, Store};
use shiftboss_core::{App, Input, Time};

use crate::memory::Memory;
use crate::trace::{Step, Trace, perform};

#[test]
fn an_app_restored_after_any_step_is_the_same_and_does_the_same_later() {
    cut_traces(0);
}

#[test]
fn an_app_restored_after_any_step_is_the_same_and_does_the_same_later_second_half() {
    cut_traces(1);
}

/// Half of the traces, so that two threads share them.
fn cut_traces(half: u64) {
    let mut shapes = BTreeMap::new();
    for seed in (0..TRACES).filter(|seed| seed / 2 % 2 == half) {
        let trace = Trace::draw(seed, LENGTH);
        cut_at_every_step(&trace, &mut shapes);
    }
    println!("{shapes:#?}");
    assert_eq!(shapes.len(), SHAPES, "every state has been cut: {:?}", shapes.keys());
}

/// In every second trace, what goes on is the restored app each time.
fn cut_at_every_step(trace: &Trace, shapes: &mut BTreeMap<&'static str, u64>) {
    let mut app = trace.app();
    let mut records = Records::new(Memory::new(), crate::memory::LAYOUT);
    for (at, step) in trace.steps.iter().enumerate() {
        let told = || format!("seed {}, step {at}: {:?}", trace.seed, step.input);
        let effects = perform(&mut app, step.input.as_ref());
        assert!(effects == step.effects, "{}: other effects:\n{effects:#?}\n{:#?}", told(), step.effects);
        records.record(&mut app).unwrap();
        records.store_mut().writes.clear();
        let image = records.store().bytes();
        let twin = step.restore(trace, image).unwrap_or_else(|why| panic!("{}: {why}", told()));
        assert!(snapshot::committed(image).as_ref() == Ok(&step.after), "{}: another state", told());
        assert!(twin.is_consistent(), "{}: inconsistent", told());
        assert_eq!(twin.status(), step.status, "{}", told());
        assert_eq!(twin.deadline(), step.deadline, "{}", told());
        for shape in twin.shapes() {
            *shapes.entry(shape).or_insert(0) += 1;
        }
        if trace.seed.is_multiple_of(2) {
            app = twin;
            if at.is_multiple_of(7) {
                records = Records::adopt(records.store().clone()).unwrap();
            }
        } else if at.is_multiple_of(30) {
            goes_on(trace, twin, &trace.steps[at + 1..]);
        }
    }
}

/// The same inputs have the same effects.
fn goes_on(trace: &Trace, mut app: App, next: &[Step]) {
    for step in next.iter().take(20) {
        let effects = perform(&mut app, step.input.as_ref());
        assert_eq!(effects, step.effects, "seed {}: {:?}", trace.seed, step.input);
    }
}

#[test]
fn a_step_that_is_cut_between_any_two_writes_has_not_happened_yet() {
    let mut cuts = 0;
    for seed in 0..TORN {
        let trace = Trace::draw(TRACES + seed, LENGTH);
        let mut app = trace.app();
        let mut records = Records::new(Memory::new(), crate::memory::LAYOUT);
        for at in 0..trace.steps.len() {
            let before = records.store().clone();
            records.store_mut().writes.clear();
            perform(&mut app, trace.steps[at].input.as_ref());
            records.record(&mut app).unwrap();
            if at > 0 {
                cuts += cut_between_writes(&trace, at, before, records.store());
            }
        }
    }
    println!("{cuts} cuts");
}

/// Ends the writer before each write and in the middle of it; some of its successors too.
fn cut_between_writes(trace: &Trace, at: usize, before: Memory, after: &Memory) -> usize {
    let mut torn = before;
    let mut cuts = 0;
    for (number, write) in after.writes.iter().enumerate() {
        let again = (number + at).is_multiple_of(SECOND_CUT);
        cuts += cut_here(trace, at, &torn, again);
        if write.len() > 8 {
            write.apply_half(&mut torn.bytes);
            cuts += cut_here(trace, at, &torn, false);
        }
        write.apply(&mut torn.bytes);
    }
    assert!(torn.bytes == after.bytes);
    cuts
}

/// The app is as it was before the step; the step, taken again by the successor, is as it would have been.
fn cut_here(trace: &Trace, at: usize, torn: &Memory, again: bool) -> usize {
    let (before, step) = (&trace.steps[at - 1], &trace.steps[at]);
    let told = || format!("seed {}, step {at}: {:?}", trace.seed, step.input);
    let mut app = before.restore(trace, &torn.bytes).unwrap_or_else(|why| panic!("{}: {why}", told()));
    assert!(snapshot::committed(&torn.bytes).as_ref() == Ok(&before.after), "{}: another state", told());
    if !again {
        return 1;
    }
    let mut adopted = Memory { writes: Vec::new(), ..torn.clone() };
    let mut records = Records::adopt(adopted.clone()).unwrap();
    // Every second successor does something else, so that what it finds and does not overwrite would show.
    let other = (Time(0), Input::Tick);
    let same = at.is_multiple_of(2);
    let effects = perform(&mut app, if same { step.input.as_ref() } else { Some(&other) });
    assert!(!same || effects == step.effects, "{}: {effects:?}", told());
    records.record(&mut app).unwrap();
    let mut cuts = 1;
    for write in &records.store().writes {
        cuts += cut_here(trace, at, &adopted, false);
        write.apply(&mut adopted.bytes);
    }
    let after = snapshot::written(&app);
    assert!(!same || after == step.after, "{}: another state afterwards", told());
    assert!(snapshot::committed(&adopted.bytes) == Ok(after), "{}: not what was recorded", told());
    cuts
}

const TRACES: u64 = 1000;
const LENGTH: usize = 100;
const TORN: u64 = 16;
/// Words for the states of workers, brokers and moves: 7 of each of the first two, 5 of the last.
const SHAPES: usize = 21;
const SECOND_CUT: usize = 5;
