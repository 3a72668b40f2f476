use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::super::{Shared, WAITING, door, numbers};
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

fn json(value: &(impl serde::Serialize + ?Sized)) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

const LONG: Duration = Duration::from_secs(30);
