//! A part-time broker is opened and closed by the clock; hands, and the death of the broker process, change that by rule.

use serde_json::Value;
use shiftboss_api::BrokerState;

use crate::app::*;

/// Two brokers that work for two seconds out of every four.
const SECONDS: &str = r#"
    app = "e2e"
    [broker.jobs]
    command = ["WORKER", "--ready", "notify"]
    kind = "notify"
    workers = 2
    schedule = { open = "*/4 * * * * *", close = "2-59/4 * * * * *" }
    [broker.other]
    command = ["WORKER", "--ready", "notify"]
    kind = "notify"
    schedule = { open = "*/4 * * * * *", close = "2-59/4 * * * * *", timezone = "Asia/Kathmandu" }
"#;

/// One that works on a day half a year away.
fn closed() -> String {
    let month = jiff::Zoned::now().month();
    let month = (month + 5) % 12 + 1;
    format!(
        r#"
        app = "e2e"
        [broker.jobs]
        command = ["WORKER", "--ready", "notify"]
        kind = "notify"
        workers = 2
        schedule = {{ open = "0 0 1 {month} *", close = "0 0 2 {month} *" }}
        "#
    )
}

fn of(log: &[Value], broker: &str, name: &str) -> usize {
    log.iter().filter(|event| event["broker"] == broker && event["event"] == name).count()
}

#[test]
fn windows_open_and_close_a_broker_and_each_does_so_once() {
    let app = App::of(SECONDS);
    let log = app.until("it opens and closes again and again", |log| {
        of(log, "jobs", "broker_opened") >= 3 && of(log, "jobs", "broker_closed") >= 3
    });
    let changes = ["broker_opened", "broker_draining", "broker_closed"];
    let told: Vec<&Value> = log
        .iter()
        .filter(|event| event["broker"] == "jobs" && changes.iter().any(|name| event["event"] == *name))
        .collect();
    assert!(told.windows(2).all(|pair| pair[0]["event"] != pair[1]["event"]), "{told:?}");
    // Whoever is sent home leaves by the same way as from a drain.
    assert!(of(&log, "jobs", "broker_drained") >= 2);
    assert_eq!(of(&log, "jobs", "worker_death"), 0);
    assert!(app.status().brokers[0].next_change_at.is_some());
    assert!(app.stop().0.success());
}

#[test]
fn a_drain_by_hand_outlasts_the_schedule_and_a_resume_answers_when_it_opens() {
    let app = App::of(SECONDS);
    app.until("both are open", |log| of(log, "jobs", "worker_ready") >= 2);
    app.does(&["drain", "jobs"]);
    let started = of(&app.log(), "jobs", "worker_started");
    let windows = of(&app.log(), "other", "broker_opened");
    let log = app.until("windows pass", |log| of(log, "other", "broker_opened") >= windows + 2);
    assert_eq!(of(&log, "jobs", "worker_started"), started);
    assert_eq!(app.status().brokers[0].state, BrokerState::Drained);
    // It has the two seconds of a window to be full again.
    eventually("it is resumed", || {
        let resumed = app.ask(&["resume", "jobs"]);
        let said = text(&resumed.stderr);
        assert!(resumed.status.success() || said.contains("its schedule has closed the broker"), "{said}");
        resumed.status.success()
    });
    assert!(
        of(&app.until("they are back", |log| of(log, "jobs", "worker_ready") >= 4), "jobs", "broker_drained")
            >= 1
    );
}

#[test]
fn closed_it_stays_closed_when_the_broker_process_dies_and_opens_for_who_says_now() {
    let app = App::ready(&closed());
    assert_eq!(app.status().brokers[0].state, BrokerState::Closed);
    assert!(app.does(&["status"]).contains("closed   opens in "));
    app.does(&["status", "--check"]);
    assert!(app.does(&["recycle", "jobs"]).contains("nothing to recycle: closed by its schedule"));
    let resume = app.does(&["resume", "jobs", "--no-wait"]);
    app.kill_broker();
    app.until_event("broker_adopted", 1);
    let broker = app.status().brokers.remove(0);
    assert_eq!((broker.state, broker.workers.len()), (BrokerState::Closed, 0));
    assert!(broker.next_change_at.is_some());
    assert_eq!(named(&app.log(), "worker_started"), 0);
    app.does(&["resume", "jobs", "--now"]);
    let broker = app.status().brokers.remove(0);
    assert_eq!((broker.state, broker.ready), (BrokerState::Open, 2));
    // What was asked for before is a request of its own.
    assert!(!resume.trim().is_empty());
    app.kill_broker();
    app.until_event("broker_adopted", 2);
    assert_eq!((app.status().brokers[0].ready, named(&app.log(), "worker_started")), (2, 2));
    app.does(&["drain", "jobs"]);
    assert!(app.stop().0.success());
}

#[test]
fn a_resume_that_waits_for_the_schedule_says_so_whatever_the_broker_was() {
    let app = App::ready(&closed());
    for drained in [true, false] {
        if drained {
            app.does(&["drain", "jobs"]);
            assert_eq!(app.status().brokers[0].state, BrokerState::Drained);
        }
        let resumed = app.ask(&["resume", "jobs", "--timeout", "5s"]);
        let said = text(&resumed.stderr);
        assert_eq!(resumed.status.code(), Some(75), "{said}");
        let why = "jobs is closed by its schedule, which opens it at ";
        assert_eq!(
            (said.matches(why).count(), said.matches("`--now` opens it at once").count()),
            (1, 1),
            "{said}"
        );
    }
    assert!(app.stop().0.success());
}
