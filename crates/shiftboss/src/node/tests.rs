//! What is known of a worker of Node's, and handed to a successor.

use super::*;

const AT: Place = Place { broker: 0, place: 0 };
const ALSO: Place = Place { broker: 0, place: 1 };

fn at() -> Address {
    "tcp://:1".parse().unwrap()
}

fn query(seq: u64) -> Query {
    serde_json::from_str(&format!(r#"{{"seq":{seq},"port":1,"addressType":4}}"#)).unwrap()
}

#[test]
fn a_query_that_is_said_again_has_the_same_answer_and_another_for_the_same_place_none() {
    let mut peer = Peer::new(false).unwrap();
    let Grant::Key(key) = peer.grant(&query(1), AT, &at()) else { panic!() };
    assert_eq!(peer.grant(&query(1), AT, &at()), Grant::Key(key.clone()));
    assert_eq!(peer.grant(&query(2), AT, &at()), Grant::Twice);
    peer.closes(&key);
    assert!(matches!(peer.grant(&query(3), AT, &at()), Grant::Key(other) if other != key));
}

#[test]
fn nobody_waits_at_the_door_for_more_answers_than_there_is_room_for() {
    let mut peer = Peer::new(false).unwrap();
    let held = (0..1000).filter(|seq| peer.hold(&query(*seq))).count();
    assert_eq!((held, peer.held().len(), peer.hold(&query(7))), (MOST_OWED, MOST_OWED, true));
}

const SOON: Duration = Duration::from_secs(10);

fn none() -> BTreeSet<Place> {
    BTreeSet::new()
}

#[test]
fn a_worker_is_ready_when_it_listens_wherever_its_predecessor_did() {
    let mut peer = Peer::new(false).unwrap();
    let now = Time(0);
    assert!(!peer.counts_as_ready(&none(), SOON, now));
    peer.grant(&query(1), AT, &at());
    peer.grant(&query(2), ALSO, &at());
    peer.listens(|place| place == AT);
    let both = BTreeSet::from([AT, ALSO]);
    assert!(peer.counts_as_ready(&none(), SOON, now) && !peer.counts_as_ready(&both, SOON, now));
    peer.listens(|place| place == ALSO);
    assert!(peer.counts_as_ready(&both, SOON, now));
}

#[test]
fn a_worker_that_listens_otherwise_is_ready_once_it_has_settled() {
    let mut peer = Peer::new(false).unwrap();
    let before = BTreeSet::from([AT]);
    peer.grant(&query(1), ALSO, &at());
    peer.changes(Time(0));
    let turned = peer.turns(Time(0));
    assert!(
        turned < Time(0) + SOON && !peer.counts_as_ready(&before, SOON, Time(0) + SOON),
        "it is about to"
    );
    peer.listens(|place| place == ALSO);
    peer.changes(turned);
    assert!(!peer.counts_as_ready(&before, SOON, Time(0) + SOON));
    assert_eq!(peer.settles_at(SOON), Some(turned + SOON));
    assert!(peer.counts_as_ready(&before, SOON, turned + SOON));
}

#[test]
fn a_worker_that_never_listens_is_ready_a_second_after_its_event_loop_turns() {
    let mut peer = Peer::new(false).unwrap();
    let silent_at = peer.turns(Time(0));
    assert!(!peer.counts_as_ready(&none(), SOON, Time(0)) && peer.counts_as_ready(&none(), SOON, silent_at));
    assert!(!peer.counts_as_ready(&BTreeSet::from([AT]), SOON, silent_at + SOON));
    peer.grant(&query(1), AT, &at());
    assert!(!peer.counts_as_ready(&none(), SOON, silent_at), "it is about to listen");
}

#[test]
fn what_is_expected_of_a_slot_is_what_its_last_worker_did_at_its_start() {
    let (mut habits, broker, slot) = (Habits::default(), BrokerId(0), Slot(0));
    let mut peer = Peer::new(false).unwrap();
    let mut listens = |peer: &mut Peer, place, at_time| {
        peer.changes(Time(0) + Duration::from_secs(at_time));
        peer.grant(&query(at_time), place, &at());
        peer.listens(|other| other == place);
        peer.is_ready = true;
        habits.are(broker, slot, peer);
        habits.of(broker, slot)
    };
    assert_eq!(listens(&mut peer, AT, 1), BTreeSet::from([AT]));
    assert_eq!(listens(&mut peer, ALSO, 5), BTreeSet::from([AT, ALSO]));
    let later = Place { broker: 0, place: 2 };
    assert_eq!(listens(&mut peer, later, 30), BTreeSet::from([AT, ALSO]), "as long as it lives");
    assert_eq!(listens(&mut peer, Place { broker: 0, place: 3 }, 31), BTreeSet::from([AT, ALSO]));
    peer.closes(&peer.key_of(ALSO).unwrap());
    habits.are(broker, slot, &peer);
    assert_eq!(habits.of(broker, slot), BTreeSet::from([AT]));
    assert_eq!((habits.of(broker, Slot(1)), habits.of(BrokerId(1), slot)), (none(), none()));
}

#[test]
fn all_that_a_worker_does_until_it_is_ready_belongs_to_its_start_however_long_it_takes() {
    let mut peer = Peer::new(false).unwrap();
    for (place, at_time) in [(AT, 1), (ALSO, 30)] {
        peer.changes(Time(0) + Duration::from_secs(at_time));
        peer.grant(&query(at_time), place, &at());
        peer.listens(|other| other == place);
    }
    assert_eq!(peer.habit(), BTreeSet::from([AT, ALSO]));
}

#[test]
fn a_successor_knows_what_belongs_to_the_start_of_a_worker() {
    let listens = |peer: &mut Peer, place, at_time| {
        peer.changes(Time(0) + Duration::from_secs(at_time));
        peer.grant(&query(at_time), place, &at());
        peer.listens(|other| other == place);
    };
    let heir = |peer: &Peer| Peer::adopt(peer.note().unwrap().try_clone_to_owned().ok(), true).unwrap();
    let mut peer = Peer::new(true).unwrap();
    listens(&mut peer, AT, 1);
    peer.is_ready = true;
    let (mut earlier, place) = (heir(&peer), |place| Place { broker: 0, place });
    listens(&mut earlier, ALSO, 5);
    assert_eq!(earlier.habit(), BTreeSet::from([AT, ALSO]));
    let mut later = heir(&earlier);
    listens(&mut later, place(2), 30);
    let mut last = heir(&later);
    assert_eq!(last.habit(), BTreeSet::from([AT, ALSO]));
    listens(&mut last, place(3), 31);
    assert_eq!(last.habit(), BTreeSet::from([AT, ALSO]));
}

#[test]
fn a_note_of_an_older_version_is_read() {
    let servers = r#"{"0.0.1":{"place":{"broker":0,"place":0},"query":1,"listens":true}}"#;
    let known = format!(r#"{{"servers":{servers},"keys_given":1,"disconnected":false}}"#);
    let mut note = Note::new().unwrap();
    note.write(&serde_json::from_str::<serde_json::Value>(&known).unwrap()).unwrap();
    let peer = Peer::adopt(note.as_fd().try_clone_to_owned().ok(), true).unwrap();
    assert_eq!(peer.habit(), BTreeSet::from([AT]));
}
