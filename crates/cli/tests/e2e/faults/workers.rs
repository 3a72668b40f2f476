//! Workers die, hang, lie.

use rustix::process::Signal;

use super::*;
use crate::load::*;
use crate::ready_before_retire::web;

/// Only what was in workers that were killed is lost, and nobody is refused.
#[track_caller]
fn only_theirs(counts: &Value, killed: usize) {
    let kinds = counts["by_kind"].as_object().unwrap();
    assert!(kinds.keys().all(|kind| ["reset", "closed_early"].contains(&kind.as_str())), "{counts}");
    assert!(counts["failed"].as_u64().unwrap() <= 100 * killed as u64, "{counts}");
    println!(
        "seen: {} requests, {} inside of {killed} killed workers failed",
        counts["sent"], counts["failed"]
    );
}

#[test]
fn workers_killed_one_by_one_under_load_are_replaced_at_once() {
    let port = free_port();
    let app = App::ready(&web(port));
    let load = Load::on(port, &["--no-keep-alive"]);
    let kills = times(2, 100);
    for kill in 1..=kills {
        let pids = app.pids();
        signal_process(pids[kill % pids.len()], Signal::KILL);
        app.until_event("worker_death", kill);
        app.until_event("worker_ready", 4 + kill);
    }
    let log = app.log();
    assert_eq!(named(&log, "worker_death"), kills);
    seen("from a death to the successor's start", &from_to(&log, "worker_death", "worker_started"));
    only_theirs(&load.end(), kills);
}

#[test]
fn clients_wait_while_all_workers_are_killed_at_once() {
    let port = free_port();
    // Else they would wait between deaths that follow each other.
    let app = App::ready(&web(port).replace("healthy_after = \"1s\"", "healthy_after = \"0s\""));
    let mut load = Load::on(port, &["--no-keep-alive"]);
    let rounds = times(1, 20);
    for round in 1..=rounds {
        load.a_second();
        for pid in app.pids() {
            signal_process(pid, Signal::KILL);
        }
        app.until_event("worker_ready", 4 + 4 * round);
    }
    let log = app.log();
    assert_eq!(named(&log, "worker_death"), 4 * rounds);
    seen("from a death to readiness", &from_to(&log, "worker_death", "worker_ready"));
    only_theirs(&load.end(), 4 * rounds);
}

#[test]
fn a_thousand_workers_killed_at_once_are_all_told_once_and_all_replaced() {
    let workers = times(50, 1000);
    let app = App::ready(&sleepers(workers, ""));
    let pids = app.pids();
    for pid in &pids {
        signal_process(*pid, Signal::KILL);
    }
    let log = app.until("all are back", |log| named(log, "worker_ready") == 2 * workers);
    let deaths: Vec<&Value> = of(&log, "web", "worker_death").collect();
    let told: BTreeSet<u64> = deaths.iter().filter_map(|death| death["pid"].as_u64()).collect();
    assert_eq!((deaths.len(), told.len()), (workers, workers));
    let span = |events: Vec<&Value>| at(events.last().unwrap()).duration_since(at(deaths[0])).as_millis();
    let back: Vec<&Value> = of(&log, "web", "worker_ready").collect();
    println!(
        "seen: {workers} deaths told within {} ms, all ready after {} ms",
        span(deaths.clone()),
        span(back)
    );
    nobody_else_is_there(&app);
}

/// Each wait is the one of the rule: none, then `base` doubled up to `cap`, a fifth more or less.
fn backs_off(app: &App, name: &str, most: usize) {
    let tried = |times| {
        app.until("it has tried again and again", |log| of(log, "bad", "worker_backoff").count() >= times)
    };
    // Each part of the wait has its own patience.
    (50..most).step_by(50).for_each(|times| drop(tried(times)));
    let log = tried(most);
    let starts = of(&log, "bad", "worker_started").count();
    let most = of(&log, "bad", "worker_backoff").count();
    let waits = of(&log, "bad", "worker_backoff").map(|event| {
        let retry: Timestamp = event["retry_at"].as_str().unwrap().parse().unwrap();
        retry.duration_since(at(event)).as_millis()
    });
    let nominal = (0..).map(|power| (50_i128 << power.min(9)).min(400));
    for (number, (wait, nominal)) in waits.zip(nominal).enumerate() {
        assert!(
            (nominal * 3 / 4..=nominal * 13 / 10).contains(&wait),
            "wait {number}: {wait}, not {nominal}"
        );
    }
    // The first one is followed at once by one more.
    assert!((most..=most + 3).contains(&starts), "{starts} starts for {most} waits");
    let of_exit = of(&log, "bad", name).count();
    assert!((starts - 1..=starts).contains(&of_exit), "{of_exit} {name} of {starts}");
    println!("seen: {starts} starts, each wait as the rule says");
}

#[test]
fn a_worker_that_crashes_at_its_start_is_tried_again_by_the_rule_and_serves_when_it_is_mended() {
    let app = App::of(
        &(sleepers(1, "")
            + &bad(r#"["WORKER", "--require-file", "FOLDER/it", "--ready", "notify"]"#)
                .replace("ready = { after = \"0s\" }", "kind = \"notify\"")),
    );
    backs_off(&app, "worker_death", times(8, 300));
    app.until_event("broker_degraded", 1);
    let cpu = cpu_ms(app.pid()) + cpu_ms(app.broker_pid());
    println!("seen: {cpu} ms of CPU for all of it");
    std::fs::write(app.path("it"), "").unwrap();
    app.until_event("broker_recovered", 1);
    assert_eq!(named(&app.until_event("app_ready", 1), "worker_ready"), 2);
}

/// Spent so far by all of its threads (proc(5)).
fn cpu_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

#[test]
fn a_worker_that_exits_with_success_again_and_again_is_no_hot_loop() {
    // It is ready at once, and would have proved itself before it ended if it was not run for a second.
    let bad =
        bad(r#"["WORKER", "--exit", "0"]"#).replace("healthy_after = \"1s\"", "healthy_after = \"10m\"");
    let app = App::of(&(sleepers(1, "") + &bad));
    backs_off(&app, "worker_ended", times(6, 50));
}

#[test]
fn a_worker_that_hangs_costs_its_siblings_nothing_and_is_replaced_on_demand() {
    let port = free_port();
    let app = App::ready(&web(port));
    let mut load = Load::on(port, &["--no-keep-alive"]);
    for _ in 0..times(1, 5) {
        signal_process(app.pids()[1], Signal::STOP);
        load.a_second();
        let said = app.does(&["recycle", "web"]);
        assert!(said.contains("4 of 4"), "{said}");
    }
    none_lost(&load.end());
}

#[test]
fn each_worker_has_one_end_whatever_it_does_when_it_dies() {
    for round in 0..times(1, 20) {
        let app = App::of(&sleepers(2, ", \"--ready-after\", \"300\", \"--stop-delay\", \"5000\""));
        // While it starts.
        app.until_event("worker_started", 2);
        signal_process(app.pids()[0], Signal::KILL);
        app.until_event("worker_ready", 2);
        // While its successor starts.
        app.does(&["recycle", "web", "--no-wait"]);
        app.until_event("worker_started", 4);
        signal_process(app.pids()[0], Signal::KILL);
        app.does(&["wait", "web", "--for", "ready"]);
        // While it leaves.
        app.does(&["drain", "web", "--no-wait"]);
        app.until("it is told", |log| named(log, "worker_stopping") >= 2);
        for pid in app.pids() {
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
                Signal::KILL,
            );
        }
        let log = app.until_event("broker_drained", 1);
        let mut ends: Vec<u64> = log
            .iter()
            .filter(|event| event["event"] == "worker_ended" || event["event"] == "worker_death")
            .filter_map(|event| event["pid"].as_u64())
            .collect();
        ends.sort_unstable();
        let all = ends.len();
        ends.dedup();
        assert_eq!((ends.len(), all), (named(&log, "worker_started"), all), "round {round}");
    }
}

#[test]
fn a_worker_that_dies_with_unread_words_is_an_ordinary_death() {
    let script = "time.sleep(0.3)\nos._exit(7)";
    let app = App::ready(&(sleepers(1, "") + &bad(&python(script))));
    let long = format!("\"{}\"", "x".repeat(30_000));
    for round in 0..times(3, 50) {
        app.until_event("worker_started", 2 + round);
        // It may be gone already.
        let _ = app.ask(&["send", "bad", &long]);
        let log = app.until("it has died", |log| of(log, "bad", "worker_death").count() > round);
        let death = of(&log, "bad", "worker_death").last().unwrap();
        assert_eq!((&death["code"], &death["signal"]), (&7.into(), &Value::Null), "{death}");
    }
    assert!(app.stderr().lines().count() < 5, "{}", app.stderr());
}

#[test]
fn a_worker_that_spoils_the_shared_socket_spoils_it_for_nobody() {
    let port = free_port();
    let spoiled = format!(
        "{}listen = [\"tcp://127.0.0.1:{}\"]\n",
        bad(&python(
            "listener = socket.socket(fileno=3)\nlistener.setblocking(True)\nlistener.listen(1)\ntime.sleep(100)"
        )),
        free_port()
    );
    let app = App::ready(&(web(port) + &spoiled));
    let own = app.status().brokers.into_iter().find(|broker| broker.name == "bad").unwrap();
    let own: u16 = own.listen[0].rsplit(':').next().unwrap().parse().unwrap();
    eventually("its queue is one", || queue(own) == 1);
    app.does(&["status"]);
    // The next one that is ready gets what was configured, and so do clients.
    app.does(&["drain", "bad"]);
    app.does(&["resume", "bad", "--no-wait"]);
    let whole = queue(port);
    assert!(whole > 100);
    app.does(&["recycle", "web"]);
    println!(
        "seen: the queue of a listener is {whole} again and again, that of a spoiled one {}",
        queue(own)
    );
}

/// How many clients may wait (`ss`, Send-Q of a listener).
fn queue(port: u16) -> u32 {
    let output =
        std::process::Command::new("ss").args(["-Hltn", &format!("sport = :{port}")]).output().unwrap();
    let line = text(&output.stdout);
    line.split_whitespace().nth(2).and_then(|queue| queue.parse().ok()).unwrap_or(0)
}

#[test]
fn what_a_worker_says_of_others_has_no_effect() {
    let script = "import json\n\
        for line in [{'cmd': 'SHIFTBOSS_READY', 'worker': 1, 'pid': 1, 'broker': 'web'},\n\
            {'cmd': 'SHIFTBOSS_REPLY', 'id': 1, 'message': 'forged'}, {'cmd': 'SHIFTBOSS_STOP', 'broker': 'web'},\n\
            {'cmd': 'SHIFTBOSS_CALL', 'id': 'web', 'message': 'kill'}, {'cmd': 'NODE_CLUSTER', 'act': 'exit'},\n\
            {'event': 'worker_death', 'broker': 'web', 'pid': int(sys.argv[1])}]:\n\
            \x20   channel.sendall(json.dumps(line).encode() + b'\\n')\ntime.sleep(100)";
    let command = python(script).replace("100)\"]", "100)\", \"1\"]");
    let app = App::ready(&(sleepers(2, "") + &bad(&command)));
    let before = all_pids(&app);
    for _ in 0..times(1, 20) {
        app.does(&["recycle", "bad"]);
    }
    let log = app.log();
    assert_eq!(of(&log, "web", "worker_started").count(), 2);
    assert_eq!(all_pids(&app)[..2], before[..2]);
    assert_eq!(named(&log, "worker_death"), 0);
}
