use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, OnceLock};
use std::task::{Context, Wake};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::super::inbox::MOST;
use super::super::{Messages, Shared, WAITING, door, numbers};
use super::*;

/// A worker that is heard for, and its broker's end.
fn worker() -> (WorkerContext, UnixStream) {
    let (broker, socket) = UnixStream::pair().unwrap();
    let (sender, receiver) = mpsc::channel(WAITING);
    let shared = Shared {
        worker_type: "test".to_owned(),
        environment: "default".to_owned(),
        socket: socket.into(),
        writing: Mutex::new(()),
        is_ready: AtomicBool::new(false),
        calls: Mutex::default(),
        wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap(),
        hearing: OnceLock::new(),
        answers: Mutex::default(),
        leaving: watch::Sender::new(false),
        messages: Mutex::new(Some(receiver)),
        is_heard: AtomicBool::new(false),
        listeners: Mutex::default(),
        door: door::Door::from_environment(),
        numbers: numbers::Numbers::default(),
    };
    let context = WorkerContext { shared: Arc::new(shared) };
    begin(&context, sender).unwrap();
    broker.set_read_timeout(Some(LONG)).unwrap();
    broker.set_write_timeout(Some(LONG)).unwrap();
    (context, broker)
}

/// What the worker says to a question.
fn asked(broker: &mut UnixStream, id: u64) -> String {
    writeln!(broker, "{}", channel::call(id, RawValue::NULL)).unwrap();
    let mut line = String::new();
    BufReader::new(broker).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Drives what must not take for ever.
fn soon<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LONG, work).await.expect("it takes for ever") })
}

#[test]
fn a_question_that_makes_the_worker_panic_is_refused_and_the_next_is_answered() {
    let (context, mut broker) = worker();
    let mut is_first = true;
    context.on_call(move |_| {
        assert!(!std::mem::take(&mut is_first), "the first question");
        Ok::<_, &str>(2)
    });
    assert_eq!(asked(&mut broker, 1), channel::error_reply(1, "the worker panicked over this question"));
    assert_eq!(asked(&mut broker, 2), channel::reply(2, &json(&2)));
    assert!(!context.is_leaving());
}

#[test]
fn an_answer_may_name_another_one_to_answer_from_then_on() {
    let (context, mut broker) = worker();
    let same = context.clone();
    context.on_call(move |_| {
        same.on_call(|_| Ok::<_, &str>("later"));
        Ok::<_, &str>("first")
    });
    for (id, answer) in [(1, "first"), (2, "later"), (3, "later")] {
        assert_eq!(asked(&mut broker, id), channel::reply(id, &json(answer)));
    }
}

#[test]
fn whoever_answers_cannot_wait_for_an_answer_itself_but_another_thread_can() {
    let (context, mut broker) = worker();
    let same = context.clone();
    context.on_call(move |_| {
        let own = same.call::<_, u8>(&1).wait();
        let same = same.clone();
        std::thread::spawn(move || same.call::<_, u8>(&2).wait());
        Ok::<_, &str>(own.unwrap_err().to_string())
    });
    let why = CallError::WouldHang.to_string();
    let mut expected = vec![channel::call(1, &json(&2)), channel::reply(1, &json(&why))];
    writeln!(broker, "{}", channel::call(1, RawValue::NULL)).unwrap();
    let mut lines: Vec<_> = BufReader::new(&broker).lines().take(2).map(Result::unwrap).collect();
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);
}

#[test]
fn what_is_too_long_for_a_line_is_an_error_of_whoever_says_it() {
    let (context, mut broker) = worker();
    let long = "x".repeat(channel::LONGEST - 1);
    for error in [context.send(&long), context.send_all([&long])] {
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    // With what is around a question it is too long as well.
    let error = context.call::<_, u8>(&long[2..]).wait().unwrap_err();
    assert!(matches!(error, CallError::Unspeakable(_)), "{error}");
    // The second would do as a message.
    let mut lengths = [1, 3].map(|less| channel::LONGEST - less).into_iter();
    context.on_call(move |_| lengths.next().map(|length| "x".repeat(length)).ok_or("no more"));
    for id in 0..2 {
        let answer = asked(&mut broker, id);
        assert!(answer.contains("error") && answer.contains("longer than 16 MiB"), "{answer:.100}");
    }
}

#[test]
fn whatever_ends_the_hearing_every_call_ends_and_the_worker_is_to_leave() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("whoever waits for an answer panics");
        }
    }
    let (context, mut broker) = worker();
    let (null, never) = (RawValue::NULL, Duration::MAX);
    let mut first = pin!(context.ask(null, never));
    let waker = Waker::from(Arc::new(Panics));
    assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut second = pin!(context.ask(null, never));
    assert!(second.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    writeln!(broker, "{}", channel::reply(1, null)).unwrap();
    soon(async {
        assert_eq!(second.await.unwrap_err(), CallError::AppEnded);
        context.leaving().await;
        assert_eq!(context.ask(null, never).await.unwrap_err(), CallError::AppEnded);
    });
}

/// Says so many numbers, then something else, from a thread of its own: it may have to wait.
fn say(broker: &UnixStream, numbers: usize, then: String) -> JoinHandle<io::Result<()>> {
    let mut broker = broker.try_clone().unwrap();
    std::thread::spawn(move || {
        let numbers: String = (0..numbers).map(|number| format!("{number}\n")).collect();
        broker.write_all(format!("{numbers}{then}").as_bytes())
    })
}

async fn fill(messages: &Messages) {
    while messages.0.len() < WAITING {
        tokio::task::yield_now().await;
    }
}

async fn take_numbers(messages: &mut Messages, count: usize) {
    for number in 0..count {
        assert_eq!(messages.recv().await.unwrap().parse::<usize>().unwrap(), number);
    }
}

#[test]
fn a_reply_is_heard_behind_more_messages_than_there_is_room_for_and_so_is_the_notice() {
    let (context, broker) = worker();
    let mut messages = context.messages().unwrap();
    let numbers = say(&broker, MANY, String::new());
    let _broker = std::thread::spawn(move || {
        numbers.join().unwrap().unwrap();
        BufReader::new(&broker).read_line(&mut String::new()).unwrap();
        let reply = channel::reply(1, &json("yes"));
        (&broker).write_all(format!("{NOTICE}\n{reply}\n\"last\"\n").as_bytes()).unwrap();
        broker
    });
    soon(async {
        // There is no room any more when it asks.
        fill(&messages).await;
        assert_eq!(context.ask(RawValue::NULL, Duration::MAX).await.unwrap().get(), "\"yes\"");
        assert!(context.is_leaving());
        take_numbers(&mut messages, MANY).await;
        assert_eq!(messages.recv().await.unwrap().get(), "\"last\"");
    });
}

#[test]
fn the_notice_and_questions_are_heard_behind_more_messages_than_there_is_room_for_without_any_call() {
    let (context, mut broker) = worker();
    context.on_call(|_| Ok::<_, &str>("here"));
    let mut messages = context.messages().unwrap();
    say(&broker, MANY, String::new()).join().unwrap().unwrap();
    assert_eq!(asked(&mut broker, 1), channel::reply(1, &json("here")));
    writeln!(broker, "{NOTICE}").unwrap();
    soon(async {
        context.leaving().await;
        take_numbers(&mut messages, MANY).await;
    });
}

#[test]
fn the_end_is_heard_behind_more_messages_than_there_is_room_for_and_they_still_come() {
    let (context, broker) = worker();
    let mut messages = context.messages().unwrap();
    // So few go into the socket.
    say(&broker, WAITING + 100, String::new()).join().unwrap().unwrap();
    soon(async {
        fill(&messages).await;
        drop(broker);
        context.leaving().await;
        take_numbers(&mut messages, WAITING + 100).await;
        assert!(messages.recv().await.is_none());
    });
}

#[test]
fn calls_end_when_they_are_due_however_much_waits_for_the_program_and_the_broker_waits_then() {
    let (context, broker) = worker();
    let mut messages = context.messages().unwrap();
    let mut asked = broker.try_clone().unwrap();
    std::thread::spawn(move || io::copy(&mut asked, &mut io::sink()));
    let long = format!("\"{}\"\n", "x".repeat(64 * 1024));
    let count = (MOST + MOST / 2) / long.len();
    let said = Arc::new(AtomicUsize::new(0));
    say(&broker, WAITING, String::new()).join().unwrap().unwrap();
    let says = std::thread::spawn({
        let (said, long) = (Arc::clone(&said), long.clone());
        move || {
            for _ in 0..count {
                (&broker).write_all(long.as_bytes()).unwrap();
                said.fetch_add(long.len(), Ordering::Relaxed);
            }
        }
    });
    soon(async {
        let mut never = pin!(context.ask(RawValue::NULL, Duration::MAX));
        assert!(never.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let shortly = Duration::from_millis(5);
        while said.load(Ordering::Relaxed) < MOST {
            assert_eq!(context.ask(RawValue::NULL, shortly).await.unwrap_err(), CallError::TimedOut(shortly));
        }
        assert_eq!(context.ask(RawValue::NULL, shortly).await.unwrap_err(), CallError::TimedOut(shortly));
        assert!(!says.is_finished());
        take_numbers(&mut messages, WAITING).await;
        for _ in 0..count {
            assert_eq!(messages.recv().await.unwrap().get().len() + 1, long.len());
        }
    });
    says.join().unwrap();
}

fn json(value: &(impl serde::Serialize + ?Sized)) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

/// More than fit into queue and socket together.
const MANY: usize = 100_000;
const LONG: Duration = Duration::from_secs(30);
