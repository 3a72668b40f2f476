//! Bytes that are not as they were written: refused with a clear sentence, never taken by half.

use shiftboss_core::snapshot::{self, Full, Layout, Records, Refused, Store, pid_word};
use shiftboss_core::{App, Command, Input, Time, Verb, id::*};

use crate::memory::{LAYOUT, Memory, Write};
use crate::rng::Rng;
use crate::trace::{Trace, perform};

#[test]
fn damaged_bytes_are_refused_or_give_an_older_state_that_was_whole() {
    let (mut refused, mut whole) = (0, 0);
    for seed in 0..40 {
        let (trace, image, used) = recorded(seed);
        let mut rng = Rng(seed);
        for _ in 0..150 {
            let mut bytes = image.clone();
            for _ in 0..1 + rng.below(3) {
                let at = used[rng.below(used.len())];
                bytes[at] ^= 1 << rng.below(8);
            }
            let Ok(committed) = snapshot::committed(&bytes) else {
                refused += 1;
                continue;
            };
            let was = trace.steps.iter().find(|step| step.after == committed);
            let step = was.unwrap_or_else(|| panic!("seed {seed}: a state that never was"));
            let app = step.restore(&trace, &bytes).unwrap();
            assert!(snapshot::written(&app) == step.after);
            whole += 1;
        }
    }
    println!("{refused} refused, {whole} whole");
    assert!(refused > 1000 && whole > 100);
}

#[test]
fn bytes_that_are_cut_off_are_refused() {
    let (trace, image, used) = recorded(1);
    let last = trace.steps.last().unwrap();
    for end in used.into_iter().chain([0, 7, 8, 39, 71, 4095, image.len() - 1]) {
        let error = last.restore(&trace, &image[..end]).err().expect("refused");
        assert!(matches!(error, Refused::Truncated { .. } | Refused::NotRecords), "{end}: {error}");
    }
    let error = last.restore(&trace, &image[..5000]).err().expect("refused");
    assert_eq!(
        error.to_string(),
        format!("the records are cut off: 5000 bytes instead of {}", LAYOUT.size())
    );
}

#[test]
fn other_bytes_are_refused() {
    assert_eq!(refusal(&[0; 9000]), "these are not the records of an app");
    assert_eq!(refusal(b""), "these are not the records of an app");
    let records = Records::new(Memory::new(), LAYOUT);
    assert_eq!(refusal(records.store().bytes()), "nothing was recorded yet");
}

#[test]
fn records_of_a_version_to_come_are_refused() {
    let (_, mut image, _) = recorded(2);
    image[8] = 2;
    assert_eq!(
        refusal(&image),
        "the records have format 2, of a newer version than this one, which knows format 1"
    );
}

#[test]
fn a_damaged_committed_record_of_the_app_is_refused() {
    let (trace, image, _) = recorded(3);
    let (mut refused, last) = (0, trace.steps.last().unwrap());
    // The app's cell lies behind those of the workers; one of its copies is the committed one.
    for copy in [0, 512] {
        let mut bytes = image.clone();
        bytes[pid_word(LAYOUT.workers) + copy + 100] ^= 4;
        if let Err(error) = last.restore(&trace, &bytes) {
            assert_eq!(error.to_string(), "the app's record is damaged: its checksum does not fit");
            refused += 1;
        }
    }
    assert_eq!(refused, 1, "the other copy is of no account");
}

#[test]
fn a_missing_specification_is_refused() {
    let (trace, image, _) = recorded(4);
    let error = snapshot::restore(&image, |_, _| None, |_| Vec::new()).err().expect("refused");
    assert_eq!(error.to_string(), "broker 0: the specification of generation 1 is missing");
    let _ = trace;
}

#[test]
fn addresses_that_are_missing_or_others_are_refused_and_more_are_left_out() {
    let mut trace = Trace::draw(0, 1);
    trace.specs.truncate(1);
    let mut app = trace.app();
    let mut records = Records::new(Memory::new(), LAYOUT);
    drop(app.start(Time(5)));
    for port in [3000, 4000] {
        let address = format!("tcp://:{port}");
        drop(app.handle(Time(5), Input::Bound { broker: BrokerId(0), address }));
    }
    records.record(&mut app).unwrap();
    let spec = trace.specs[0].clone();
    let given = |ports: &[u16]| {
        let held: Vec<String> = ports.iter().map(|port| format!("tcp://:{port}")).collect();
        snapshot::restore(records.store().bytes(), |_, _| Some(spec.clone()), |_| held.clone())
    };
    let refused = |ports| given(ports).err().expect("refused").to_string();
    assert_eq!(refused(&[3000]), "broker 0 had 2 bound addresses, and they are not among the 1 given");
    assert_eq!(refused(&[3000, 5000]), "broker 0 had 2 bound addresses, and they are not among the 2 given");
    for more in [&[3000, 4000][..], &[3000, 5000, 4000], &[3000, 4000, 5000], &[1, 3000, 4000]] {
        let found = given(more).expect("taken over");
        assert!(found.status() == app.status() && snapshot::written(&found) == snapshot::written(&app));
    }
}

#[test]
fn when_there_is_no_room_nothing_is_written_and_the_changes_are_recorded_later() {
    let (trace, ..) = recorded(5);
    let mut spec = trace.specs[0].clone();
    (spec.workers, spec.listens, spec.standby) = (8, false, 0);
    let layout = Layout { brokers: 1, slots: 8, workers: 8, commands: 4 };
    let mut app = App::new(Time(5), 1, vec![spec]);
    let mut records = Records::new(Memory::new(), layout);
    drop(app.start(Time(5)));
    records.record(&mut app).unwrap();
    let before = snapshot::committed(records.store().bytes());
    let scale = |workers| Command::Broker(BrokerId(0), Verb::Scale(workers));
    drop(app.handle(Time(6), Input::Command { request: RequestId(1), command: scale(9) }));
    records.store_mut().writes.clear();
    let full: Full = records.record(&mut app).unwrap_err();
    assert_eq!(full.to_string(), "there is room for the records of 8 slots only");
    assert!(records.store().writes.is_empty());
    assert_eq!(snapshot::committed(records.store().bytes()), before);
    drop(app.handle(Time(7), Input::Command { request: RequestId(2), command: scale(8) }));
    drop(app.handle(Time(7), Input::SpawnFailed { worker: WorkerId(9), reason: String::new() }));
    assert_eq!(records.record(&mut app), Ok(()));
    assert_eq!(snapshot::committed(records.store().bytes()), Ok(snapshot::written(&app)));
}

#[test]
fn a_worker_has_its_own_word_for_a_pid_which_is_cleared_before_another_has_it() {
    let (trace, ..) = recorded(6);
    let mut spec = trace.specs[0].clone();
    (spec.workers, spec.listens, spec.standby) = (1, false, 0);
    let mut app = App::new(Time(5), 1, vec![spec]);
    let mut records = Records::new(Memory::new(), LAYOUT);
    drop(app.start(Time(5)));
    records.record(&mut app).unwrap();
    let word = records.pid_word(WorkerId(1)).expect("it has one");
    assert_eq!(word, pid_word(0));
    records.store_mut().bytes[word..word + 4].copy_from_slice(&77u32.to_le_bytes());
    drop(app.handle(Time(6), Input::SpawnFailed { worker: WorkerId(1), reason: String::new() }));
    records.record(&mut app).unwrap();
    assert_eq!(records.pid_word(WorkerId(1)), None);
    assert_ne!(records.pid_word(WorkerId(2)), Some(word), "freed in the same step");
    drop(app.handle(Time(6), Input::Tick));
    records.record(&mut app).unwrap();
    assert_eq!(records.store().bytes[word..word + 4], [0; 4]);
    drop(app.handle(Time(6), Input::SpawnFailed { worker: WorkerId(2), reason: String::new() }));
    drop(app.handle(Time(9_000_000_000), Input::Tick));
    records.record(&mut app).unwrap();
    assert_eq!(records.pid_word(WorkerId(3)), Some(word), "used again");
}

/// A trace, its image after the last step, and the places of the bytes that were ever written.
fn recorded(seed: u64) -> (Trace, Vec<u8>, Vec<usize>) {
    let trace = Trace::draw(seed, 60);
    let mut app = trace.app();
    let mut records = Records::new(Memory::new(), LAYOUT);
    for step in &trace.steps {
        drop(perform(&mut app, step.input.as_ref()));
        records.record(&mut app).unwrap();
    }
    let mut used: Vec<usize> = records.store().writes.iter().flat_map(Write::places).collect();
    used.sort_unstable();
    used.dedup();
    (trace, records.store().bytes.clone(), used)
}

fn refusal(image: &[u8]) -> String {
    snapshot::restore(image, |_, _| None, |_| Vec::new()).err().expect("refused").to_string()
}
