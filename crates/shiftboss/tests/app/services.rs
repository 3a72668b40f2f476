//! Services that an app connects to.

use std::future::{Future, pending, poll_fn, ready};
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Wake, Waker};

use super::*;

/// Awaits on this thread, with no runtime at all.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return result;
        }
        std::thread::yield_now();
    }
}

#[test]
fn services_are_connected_to_at_the_same_time_and_once() {
    let app = App::new("shop");
    let (count, counted) = counter();
    let both = Arc::new(AtomicU32::new(0));
    for name in ["database", "queue"] {
        let (count, both) = (Arc::clone(&count), Arc::clone(&both));
        app.register_service_connector(name, move || {
            count.fetch_add(1, Ordering::SeqCst);
            let both = Arc::clone(&both);
            let mut arrived = false;
            // Neither is done before the other has begun.
            poll_fn(move |_| {
                if !std::mem::replace(&mut arrived, true) {
                    both.fetch_add(1, Ordering::SeqCst);
                }
                if calls(&both) == 2 { Poll::Ready(Ok::<(), std::io::Error>(())) } else { Poll::Pending }
            })
        });
    }
    let (told, heard) = counter();
    app.on_ready(move || {
        told.fetch_add(1, Ordering::SeqCst);
    });
    assert!(!app.is_ready());
    wait(app.connect_to_services()).unwrap();
    assert!(app.is_ready());
    wait(app.connect_to_services()).unwrap();
    assert_eq!((calls(&counted), calls(&heard)), (2, 1));
    // Too late to wait for it.
    let (told, heard) = counter();
    app.on_ready(move || {
        told.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(calls(&heard), 1);
}

#[test]
fn whoever_asks_while_services_are_being_connected_waits_for_the_same_result() {
    let app = App::new("shop");
    let (count, counted) = counter();
    let gate = Arc::new(AtomicU32::new(0));
    let opened = Arc::clone(&gate);
    app.register_service_connector("database", move || {
        count.fetch_add(1, Ordering::SeqCst);
        let opened = Arc::clone(&opened);
        poll_fn(move |_| if calls(&opened) == 1 { Poll::Ready(Err("closed")) } else { Poll::Pending })
    });
    let mut context = Context::from_waker(Waker::noop());
    let mut impatient = Box::pin(app.connect_to_services());
    let (mut first, mut second) = (pin!(app.connect_to_services()), pin!(app.connect_to_services()));
    assert!(impatient.as_mut().poll(&mut context).is_pending());
    assert!(first.as_mut().poll(&mut context).is_pending());
    // One who asks first and gives up takes nobody along.
    drop(impatient);
    let woken = Arc::new(Woken(AtomicU32::new(0)));
    let waker = Arc::clone(&woken).into();
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    gate.store(1, Ordering::SeqCst);
    assert_eq!(wait(first).unwrap_err().service(), "database");
    assert_eq!(calls(&woken.0), 1);
    assert_eq!(wait(second).unwrap_err().service(), "database");
    assert_eq!(calls(&counted), 1);
}

/// Counts how often it is woken.
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_failure_names_the_service_and_the_next_call_tries_what_is_left_again() {
    let app = App::new("shop");
    let (count, counted) = counter();
    app.register_service_connector("cache", move || {
        count.fetch_add(1, Ordering::SeqCst);
        ready(Ok::<(), std::io::Error>(()))
    });
    let (tried, tries) = counter();
    app.register_service_connector("database", move || {
        let first = tried.fetch_add(1, Ordering::SeqCst) == 0;
        ready(if first { Err(std::io::Error::other("refused")) } else { Ok(()) })
    });
    let failures = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&failures);
    app.on_error(|_| panic!("an observer of no use"));
    app.on_error(move |error| heard.lock().unwrap().push(error.service().to_owned()));
    let error = wait(app.connect_to_services()).unwrap_err();
    assert_eq!(error.to_string(), "cannot connect to the service `database`");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "refused");
    assert!(!app.is_ready());
    assert_eq!(*failures.lock().unwrap(), ["database"]);
    wait(app.connect_to_services()).unwrap();
    assert!(app.is_ready());
    assert_eq!((calls(&counted), calls(&tries)), (1, 2));
}

#[test]
fn a_service_that_fails_waits_for_no_other_and_one_that_panics_has_failed() {
    let app = App::new("shop");
    app.register_service_connector("slow", pending::<Result<(), std::io::Error>>);
    app.register_service_connector("broken", || async {
        if true {
            panic!("no {}", "plug");
        }
        Ok::<(), std::io::Error>(())
    });
    let error = wait(app.connect_to_services()).unwrap_err();
    assert_eq!(error.service(), "broken");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "its connector has panicked: no plug");
}

#[test]
fn a_service_that_is_registered_late_is_connected_to_by_the_next_call() {
    let app = App::new("shop");
    wait(app.connect_to_services()).unwrap();
    let (count, counted) = counter();
    app.register_service_connector("late", move || {
        count.fetch_add(1, Ordering::SeqCst);
        ready(Ok::<(), std::io::Error>(()))
    });
    wait(app.connect_to_services()).unwrap();
    wait(app.connect_to_services()).unwrap();
    assert_eq!(calls(&counted), 1);
}

#[test]
fn an_attempt_that_nobody_awaits_any_more_is_over_and_the_next_one_begins_anew() {
    let app = App::new("shop");
    let (count, counted) = counter();
    app.register_service_connector("database", move || {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if first { pending().await } else { Ok::<(), std::io::Error>(()) } }
    });
    {
        let mut attempt = pin!(app.connect_to_services());
        assert!(attempt.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    wait(app.connect_to_services()).unwrap();
    assert_eq!(calls(&counted), 2);
}
