//! Standbys of a program.

use super::*;

#[test]
fn a_standby_waits_at_the_door_and_takes_over_at_once() {
    let stage = Stage::new();
    let listen = vec![Listen::new("web", "tcp://127.0.0.1:0").unwrap()];
    let options = BrokerOptions { standby: 1, listen, ..workers_that("opens", 2) };
    let broker = Broker::start(&stage.app, "api", options).unwrap();
    let mut events = broker.subscribe();
    let standby = next(&mut events, told(EventName::WorkerStandby));
    assert_eq!((standby.slot, standby.worker.is_some()), (None, true));
    broker.resume_workers().wait().unwrap();
    let members = broker.workers().wait().unwrap();
    assert_eq!(members.len(), 2, "a standby serves nobody");
    assert!(members.iter().all(|member| Some(member.id()) != standby.worker), "{members:?}");

    let second = members.into_iter().find(|member| member.slot() == Some(1)).unwrap();
    second.kill(Signal::KILL);
    let promoted = next(&mut events, told(EventName::WorkerPromoted));
    assert_eq!((&promoted.worker, promoted.slot), (&standby.worker, Some(1)));
    // Only now it has its listener, and knows its slot; another one may be at the door before it has said so.
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(next(&mut events, |event| match event {
            BrokerEvent::Other(event) if event.event == EventName::WorkerReady => Some("ready".to_owned()),
            BrokerEvent::Other(event) if event.event == EventName::WorkerStandby => {
                assert_ne!(event.worker, standby.worker);
                Some("another".to_owned())
            }
            event => {
                said(event).filter(|(_, member)| Some(member.id()) == standby.worker).map(|(text, _)| text)
            }
        }));
    }
    seen.retain(|what| what != "another");
    assert_eq!(seen, [r#"{"open":1}"#, "ready"]);

    // Whoever waits at the door leaves it when told to, without the ladder.
    let drained = broker.drain_workers().wait().unwrap();
    assert_eq!(drained.cut, 0);
    for _ in 0..3 {
        next(&mut events, ended);
    }
}

#[test]
fn a_worker_without_listeners_is_a_standby_at_the_end_of_its_beginning() {
    let stage = Stage::new();
    let options = BrokerOptions { standby: 1, ..workers_that("quiet", 1) };
    let broker = Broker::start(&stage.app, "jobs", options).unwrap();
    let mut events = broker.subscribe();
    next(&mut events, told(EventName::WorkerStandby));
    broker.resume_workers().wait().unwrap();
    // A recycle begins with a fresh one.
    let done = broker.recycle_workers().wait().unwrap();
    assert_eq!((done.replaced, done.cut), (1, 0));
    let fresh = next(&mut events, told(EventName::WorkerStandby));
    the_worker(&broker).kill(Signal::KILL);
    let promoted = next(&mut events, told(EventName::WorkerPromoted));
    assert_eq!(promoted.worker, fresh.worker);
    next(&mut events, told(EventName::WorkerReady));
    let worker = the_worker(&broker);
    worker.send("slot").wait().unwrap();
    assert_eq!(next(&mut events, said), ("0".to_owned(), worker));
}

#[test]
fn workers_that_cannot_wait_at_the_door_are_refused_as_standbys() {
    let stage = Stage::new();
    let plain = BrokerOptions { standby: 1, ..BrokerOptions::new(["sleep", "60"]) };
    let error = Broker::start(&stage.app, "plain", plain).unwrap_err();
    assert!(error.to_string().contains("plain workers cannot be standbys"), "{error}");
    let mut slotted = BrokerOptions { standby: 1, ..workers_that("quiet", 1) };
    slotted.command.push("{slot}".to_owned());
    let error = Broker::start(&stage.app, "slotted", slotted).unwrap_err();
    assert!(error.to_string().contains("started without a slot"), "{error}");
}
