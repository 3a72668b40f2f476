//! What workers and their program say to each other.

use super::*;

#[test]
fn messages_and_ops_come_in_order_with_their_worker() {
    let stage = Stage::new();
    let (broker, mut events) = stage.start("api", workers_that("talks", 1));
    let (message, worker) = next(&mut events, said);
    assert_eq!((message.as_str(), &worker), (r#"{"here":"is some information"}"#, &the_worker(&broker)));
    let load = next(&mut events, |event| match event {
        BrokerEvent::WorkerOps { message, .. } => {
            let ops: serde_json::Value = message.parse().unwrap();
            ops["load"].as_f64()
        }
        _ => None,
    });
    assert!((load - 0.5).abs() < f64::EPSILON);
    worker.send(&[1, 2]).wait().unwrap();
    assert_eq!(next(&mut events, said).0, r#"{"echo":"[1,2]"}"#);
    assert_eq!(broker.broadcast("all").wait().unwrap(), 1);
    assert_eq!(next(&mut events, said).0, r#"{"echo":"\"all\""}"#);
}

#[test]
fn what_a_program_sends_without_waiting_arrives_in_the_order_in_which_it_was_sent() {
    let stage = Stage::new();
    // As many that each has room for its part, even if it reads none of it.
    let (broker, mut events) = stage.start("api", workers_that("quiet", 3));
    let workers = broker.workers().wait().unwrap();
    for number in 0..10_000 {
        drop(workers[number % 3].send(&number));
    }
    let mut due = [0, 1, 2];
    for _ in 0..10_000 {
        let (message, worker) = next(&mut events, said);
        let due = &mut due[workers.iter().position(|known| *known == worker).unwrap()];
        assert_eq!(message, format!(r#"{{"echo":"{due}"}}"#));
        *due += 3;
    }
}

#[test]
fn what_a_worker_said_comes_before_its_end_however_quickly_it_leaves() {
    let stage = Stage::new();
    let broker = Broker::start(&stage.app, "api", workers_that("leaves", 1)).unwrap();
    let mut events = broker.subscribe();
    for _ in 0..3 {
        let first = next(&mut events, |event| match event {
            BrokerEvent::Other(event) if event.event.as_str() == "worker_started" => event.worker.clone(),
            _ => None,
        });
        for number in 0..100 {
            let (message, worker) = next(&mut events, |event| match event {
                BrokerEvent::WorkerEnded(exit) => panic!("before message {number}: {exit:?}"),
                event => said(event),
            });
            assert_eq!((message, worker.id()), (number.to_string(), first.clone()));
        }
        assert_eq!(next(&mut events, ended).id, first);
    }
}

#[test]
fn questions_are_answered_both_ways_and_a_worker_that_dies_is_an_error() {
    let stage = Stage::new();
    let (broker, mut events) = stage.start("api", workers_that("talks", 2));
    let squares = broker.call_all::<_, i64>(&7).wait();
    assert_eq!(squares.into_iter().map(|(_, square)| square.unwrap()).collect::<Vec<_>>(), [49, 49]);
    let [worker, other] = <[_; 2]>::try_from(broker.workers().wait().unwrap()).unwrap();
    assert_eq!(worker.call::<_, i64>(&-3).wait(), Ok(9));
    assert!(matches!(worker.call::<_, i64>("seven").wait(), Err(CallError::Refused(_))));
    assert!(matches!(worker.call::<_, String>(&2).wait(), Err(CallError::Unreadable(_))));
    // Nobody answers yet.
    worker.send("ask").wait().unwrap();
    let answer = |event| said(event).filter(|(message, _)| !message.contains("here"));
    assert!(next(&mut events, answer).0.contains("nobody answers"));
    let (answers_now, wait) = std::sync::mpsc::channel::<()>();
    broker.on_call(move |question, worker| {
        let question: String = question.parse().map_err(|_| "no question")?;
        if question == "at once?" {
            let _ = wait.recv();
        }
        Ok::<_, &str>(format!("{question} worker {}", worker.id()))
    });
    worker.send("ask").wait().unwrap();
    assert_eq!(next(&mut events, answer).0, format!("\"who are you? worker {}\"", worker.id()));
    other.send("ask briefly").wait().unwrap();
    assert_eq!(next(&mut events, answer).0, "\"no answer within 20 ms\"");
    // What comes too late is passed over.
    drop(answers_now);
    other.send("ask").wait().unwrap();
    assert_eq!(next(&mut events, answer).0, format!("\"who are you? worker {}\"", other.id()));
    worker.kill(Signal(19));
    until_stopped(worker.pid());
    let asked = worker.call::<_, i64>(&1).within(Duration::from_millis(50)).wait();
    assert_eq!(asked, Err(CallError::TimedOut(Duration::from_millis(50))));
    let dying = std::thread::spawn({
        let worker = worker.clone();
        move || worker.call::<_, i64>(&1).wait()
    });
    worker.kill(Signal::KILL);
    assert!(matches!(dying.join().unwrap(), Err(CallError::Ended | CallError::Untold(_))));
}

/// Each of its threads does nothing more.
fn until_stopped(pid: u32) {
    let until = Instant::now() + Duration::from_secs(30);
    let is_stopped = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    while !std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().all(is_stopped) {
        assert!(Instant::now() < until, "it runs on");
        std::thread::yield_now();
    }
}

#[test]
fn what_no_line_can_hold_is_refused_and_the_worker_is_told_what_comes_after_it() {
    let stage = Stage::new();
    let (broker, mut events) = stage.start("api", workers_that("talks", 1));
    let worker = the_worker(&broker);
    let long = "x".repeat(16 << 20);
    let refused = |error| matches!(&error, AskError::Refused(why) if why.contains("longer than 16 MiB"));
    assert!(refused(worker.send(&long).wait().unwrap_err()));
    assert!(refused(broker.broadcast(&long).wait().unwrap_err()));
    // As a message it would do, and not with what is around a question.
    let (_, long) = long.split_at(2);
    assert!(matches!(worker.call::<_, i64>(long).wait(), Err(CallError::Unspeakable(_))));
    let all = broker.call_all::<_, i64>(long).wait();
    assert!(matches!(&all[..], [(_, Err(CallError::Unspeakable(_)))]));
    broker.on_call(|_, _| Ok::<_, &str>("x".repeat(16 << 20)));
    worker.send("ask").wait().unwrap();
    let answer = |event| said(event).filter(|(message, _)| !message.contains("here"));
    assert!(next(&mut events, answer).0.contains("the answer cannot be sent: it is longer than 16 MiB"));
}

#[test]
fn a_panic_of_whoever_answers_or_hears_costs_that_one_question_and_event() {
    let stage = Stage::new();
    let (broker, mut events) = stage.start("api", workers_that("talks", 1));
    let worker = the_worker(&broker);
    let mut is_first = true;
    broker.on_call(move |_, _| {
        assert!(!std::mem::take(&mut is_first), "the first question");
        Ok::<_, &str>("answered")
    });
    let (heard, hears) = std::sync::mpsc::channel();
    broker.on_event(move |event| {
        let Some((message, _)) = said(event) else { return };
        heard.send(message.clone()).unwrap();
        assert!(!message.contains("panicked"), "the first answer");
    });
    let answer = |event| said(event).filter(|(message, _)| !message.contains("here"));
    for expected in ["panicked over this question", "answered"] {
        worker.send("ask").wait().unwrap();
        assert!(next(&mut events, answer).0.contains(expected));
    }
    let within = Duration::from_secs(30);
    while hears.recv_timeout(within).expect("it hears nothing any more") != "\"answered\"" {}
}

#[test]
fn one_whose_channel_is_closed_leaves() {
    let stage = Stage::new();
    let (broker, mut events) = stage.start("api", workers_that("quiet", 1));
    the_worker(&broker).disconnect();
    assert_eq!(next(&mut events, ended).code, Some(0));
}

#[test]
fn what_a_worker_has_said_before_its_channel_is_closed_is_heard() {
    let stage = Stage::new();
    let (broker, mut events) = stage.start("api", workers_that("marks", 1));
    let worker = the_worker(&broker);
    // So many that they are not all taken while nobody takes them from the subscription.
    for number in 0..120 {
        let mark = stage.folder.path().join(number.to_string());
        worker.send(&mark).wait().unwrap();
        while !mark.exists() {
            std::thread::yield_now();
        }
    }
    worker.disconnect();
    let mut heard = 0;
    let exit = next(&mut events, |event| match event {
        BrokerEvent::WorkerMessage { message, .. } => {
            heard += u32::from(message.get() == "0");
            None
        }
        event => ended(event),
    });
    assert_eq!((exit.code, heard), (Some(0), 120));
}

/// It is we who do not listen.
#[test]
fn a_worker_whose_words_nobody_takes_does_not_hang() {
    if std::process::Command::new("node").arg("--version").output().is_err() {
        return println!("no node is there: nothing was tried");
    }
    let stage = Stage::new();
    let talks = "const say = () => { while (process.send(0, undefined, {}, () => {})); setTimeout(say, 5) }; process.on('message', say)";
    let script = stage.folder.path().join("talks.js");
    std::fs::write(&script, talks).unwrap();
    let mut options = BrokerOptions::new(["node", script.to_str().unwrap()]);
    (options.kind, options.hung_after) = (Kind::Node, Some(Duration::from_secs(3)));
    let (broker, mut events) = stage.start("talks", options);
    let workers = broker.workers().wait().unwrap();
    workers[0].send("go").wait().unwrap();
    let before: Vec<_> = workers.iter().map(Member::id).collect();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        let now: Vec<_> = broker.workers().wait().unwrap().iter().map(Member::id).collect();
        assert_eq!(now, before, "none was replaced");
        std::thread::sleep(Duration::from_millis(10));
    }
    next(&mut events, said);
}
