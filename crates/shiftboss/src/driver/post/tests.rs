use shiftboss_core::id::WorkerId;

use super::*;

fn event() -> Happening {
    let event = r#"{"seq":1,"at":"2026-01-01T00:00:00Z","event":"worker_started","forced":false}"#;
    Happening::Event(Arc::new(serde_json::from_str(event).unwrap()))
}

fn subscriber(room: usize) -> (Post, mpsc::Receiver<Happening>) {
    let (queue, happenings) = mpsc::channel(room);
    let mut post = Post::default();
    post.subscribe(Subscriber { broker: BrokerId(0), queue, answers: false });
    (post, happenings)
}

#[test]
fn a_subscriber_that_does_not_read_costs_so_much_and_is_told_how_many_it_missed() {
    let (mut post, mut happenings) = subscriber(2);
    let count = 2 * MOST / event().size();
    (0..count).for_each(|_| post.put(BrokerId(0), &event()));
    let waits = post.subscribers[0].backlog.len();
    assert!(waits * event().size() <= MOST && waits < count - 2);
    let mut read = |post: &mut Post| {
        let next = happenings.try_recv().ok();
        post.look_at_clock(Time(0));
        next
    };
    for _ in 0..waits + 2 {
        assert!(matches!(read(&mut post), Some(Happening::Event(_))));
    }
    let missed = u64::try_from(count - waits - 2).unwrap();
    assert!(matches!(read(&mut post), Some(Happening::Missed(count)) if count == missed));
    assert!(read(&mut post).is_none() && !post.subscribers[0].is_full());
    post.put(BrokerId(0), &event());
    assert!(matches!(read(&mut post), Some(Happening::Event(_))));
}

#[test]
fn questions_that_nobody_waits_for_any_more_do_not_pile_up() {
    let mut post = Post::default();
    let mut ask = |id| {
        let (reply, answer) = oneshot::channel();
        let within = Duration::from_secs(24 * 3600);
        post.ask(WorkerId(1), id, Call { reply, within, until: Time(0) + within });
        (answer, post.calls.len())
    };
    let waits: Vec<_> = (0..100).map(|id| ask(id).0).collect();
    for id in 100..10_000 {
        assert!(ask(id).1 <= 3 * waits.len());
    }
    assert!((0..100).all(|id| post.calls.contains_key(&(WorkerId(1), id))));
}

#[test]
fn only_a_node_program_that_says_many_short_messages_while_nobody_waits_is_left_alone_for_a_moment() {
    let said = |(count, bytes, is_node): (usize, usize, bool)| {
        let text = serde_json::to_string(&"x".repeat(bytes)).unwrap();
        let letter = || serde_json::value::RawValue::from_string(text.clone()).unwrap();
        let message = || Message { letter: letter(), kind: Kind::Message };
        (std::iter::repeat_with(message).take(count).collect::<Vec<_>>(), is_node)
    };
    let is_left_alone = |all: &[(usize, usize, bool)]| {
        let mut handed_on = HandedOn::default();
        for (messages, is_node) in all.iter().copied().map(said) {
            handed_on.add(&messages, is_node);
        }
        handed_on.leaves_time && !handed_on.hurries
    };
    let [short, few] = [(100, 100, true), (2, 100, true)];
    assert!(is_left_alone(&[short]) && is_left_alone(&[short, few]));
    for other in [(30, 2000, true), (1, 100, false)] {
        assert!(!is_left_alone(&[other]) && !is_left_alone(&[short, other]));
    }
    assert!(!is_left_alone(&[few]) && !is_left_alone(&[]));
}
