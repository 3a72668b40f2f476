//! Messages to and from workers, by the worker of `docs/channel.md`; and workers whose messages are none.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::app::*;

/// The worker that the manual shows.
fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python/worker.py");
    format!("[\"python3\", {:?}]", path.canonicalize().unwrap())
}

#[test]
fn the_manual_shows_the_worker_that_is_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    assert!(read("docs/channel.md").contains(&read("examples/python/worker.py")));
}

/// `api`, which answers.
fn api(workers: u32) -> String {
    format!("app = \"e2e\"\n[broker.api]\ncommand = {}\nkind = \"notify\"\nworkers = {workers}\n", example())
}

/// The answers to `call`, by slot.
fn answers(app: &App, target: &str, question: &Value) -> Vec<Value> {
    let said = app.does(&["call", target, &question.to_string(), "--json", "--timeout", "5m"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    let answers = said["answers"].as_array().unwrap().iter();
    answers.map(|answer| answer["answer"].clone()).collect()
}

#[test]
fn workers_are_told_asked_heard_and_sent_home_and_a_killed_broker_process_costs_none_of_it() {
    let app = App::ready(&api(2));
    let watch = Watch::of(&app);
    assert_eq!(app.does(&["send", "api", r#"{"a" : 1}"#]), "Told api: 2 workers.\n");
    watch.until_said(&json!({"heard": {"a": 1}}), 2);
    assert_eq!(app.does(&["send", "api/1", "\"x\""]), "Told api/1: 1 worker.\n");
    watch.until_said(&json!({"heard": "x"}), 1);
    let lines = app.does(&["call", "api", "\"ping\"", "--timeout", "30s"]);
    let expected = "api/0 (id 1)  {\"pong\": 1, \"asked\": \"ping\"}\napi/1 (id 2)  {\"pong\": 1, \"asked\": \"ping\"}\n";
    assert_eq!(lines, expected);

    app.kill_broker();
    app.until_event("broker_adopted", 1);
    let pong = |count: u32| json!({"pong": count, "asked": null});
    assert_eq!(answers(&app, "api", &Value::Null), [pong(2), pong(2)], "the same workers");
    // Its stream goes on by itself, some time after the successor is there.
    watch.until("the stream goes on", |log| named(log, "broker_adopted") > 0);
    app.does(&["send", "api", "[2]"]);
    watch.until_said(&json!({"heard": [2]}), 2);

    let said = app.does(&["recycle", "api/0"]);
    assert!(said.contains("1 of 1") && !said.contains("cut off"), "{said}");
    watch.until_said(&json!("got the notice"), 1);
    watch.until_said(&json!({"here": "is some information"}), 1);
    assert_eq!(answers(&app, "api", &json!(0)), [1, 3].map(|n| json!({"pong": n, "asked": 0})));
    let (status, log) = app.stop();
    assert!(status.success());
    let ended = log.iter().filter(|event| event["event"] == "worker_ended");
    let ended: Vec<_> = ended.map(|event| (event["code"].clone(), event["forced"].clone())).collect();
    assert_eq!(ended, vec![(json!(0), json!(false)); 3], "each left when it was told");
}

#[test]
fn nobody_told_and_nothing_answered_are_said_with_their_exit_codes() {
    let app = App::ready(&format!(
        "{}[broker.deaf]\ncommand = [\"sleep\", \"1000\"]\nready = {{ after = \"0s\" }}\n\
         [broker.none]\ncommand = [\"sleep\", \"1000\"]\nready = {{ after = \"0s\" }}\n",
        api(1)
    ));
    app.does(&["drain", "none"]);
    let fails = |arguments: &[&str], code: i32, words: &str| {
        let output = app.ask(arguments);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(words), "{:?} {said}", output.status);
    };
    fails(&["send", "none", "1"], 1, "`none` has no worker at the moment");
    fails(&["call", "none", "1"], 1, "`none` has no worker at the moment");
    fails(&["call", "deaf", "1", "--timeout", "2s"], 75, "no answer within 2 s");
    fails(&["send", "api", "reload"], 2, "a string needs quotes of its own: '\"reload\"'");
    fails(&["send", "api/1", "1"], 2, "api has no slot 1");
    fails(&["send", "1"], 2, "send needs a TYPE");
    let output = app.ask(&["send", "--all", "1"]);
    // The end of a worker that does not know of it is open all the same.
    assert_eq!(text(&output.stdout), "Told api: 1 worker.\nTold deaf: 1 worker.\n");
    assert_eq!(output.status.code(), Some(1), "nobody of `none` was told");
}

/// Beside `api` a worker that runs this, with `channel` and `say`; ready at once.
fn beside(script: &str) -> App {
    let begin = "import os, socket, sys, time\nchannel = socket.socket(fileno=int(os.environ['SHIFTBOSS_CHANNEL_FD']))\n\
                 say = channel.sendall\n";
    let script = format!("{begin}{script}");
    App::ready(&format!(
        "{}[broker.bad]\ncommand = [\"python3\", \"-c\", {script:?}]\nready = {{ after = \"0s\" }}\n\
         stop = [{{ message = \"suicide\", wait = \"100ms\" }}, {{ signal = \"KILL\" }}]\n\
         backoff = {{ base = \"10ms\", cap = \"10ms\" }}\n",
        api(1)
    ))
}

/// The other broker's worker answers, and nothing much is held for the bad one.
fn is_harmless(app: &App) {
    for _ in 0..20 {
        assert_eq!(answers(app, "api", &json!(1)).len(), 1);
    }
    assert_eq!(app.does(&["recycle", "api"]).matches("1 of 1").count(), 1);
    let of = std::fs::read_to_string(format!("/proc/{}/status", app.broker_pid())).unwrap();
    let peak = of.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 64 << 10, "{kilobytes} kB at the peak");
}

/// It is replaced again and again, and each time it is said why.
fn is_replaced(script: &str) {
    let app = beside(script);
    let reason = "wrote too much on its channel that is no message";
    let death = |event: &&Value| event["event"] == "worker_death" && event["broker"] == "bad";
    let log = app.until("it was replaced", |log| log.iter().filter(death).count() >= 3);
    let told: Vec<_> = log.iter().filter(death).map(|event| event["reason"].as_str().unwrap()).collect();
    assert!(told.iter().all(|told| *told == reason), "{told:?}");
    is_harmless(&app);
}

#[test]
fn a_worker_whose_lines_are_no_json_is_replaced() {
    is_replaced("while True: say(b'{oops\\n' * 1000)");
}

#[test]
fn a_worker_whose_lines_are_no_text_is_replaced() {
    is_replaced("while True: say(b'\"\\xff\\xfe\"\\n' * 1000)");
}

#[test]
fn a_worker_that_is_not_listened_to_any_more_is_signalled_at_once() {
    // With the ladder of the default, whose first rung is a message.
    let script = "import os, time\nto = int(os.environ['SHIFTBOSS_CHANNEL_FD'])\nos.write(to, b'1\\n' + b'nul\\n' * 16)\ntime.sleep(1000)";
    let app = App::of(&format!(
        "app = \"e2e\"\n[broker.bad]\ncommand = [\"python3\", \"-c\", {script:?}]\nready = {{ after = \"0s\" }}\n"
    ));
    let log = app.until_event("worker_death", 1);
    let find = |name: &str| log.iter().find(|event| event["event"] == name).unwrap();
    assert_eq!(find("worker_death")["signal"], "SIGTERM");
    let at = |name: &str| find(name)["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let took = at("worker_death").duration_since(at("worker_stopping"));
    assert!(took.as_secs() < 20, "{took:?}");
}

#[test]
fn numbers_that_are_not_taken_are_told_once() {
    let app = beside(
        "numbers = lambda message: say(b'{\"cmd\":\"SHIFTBOSS_NUMBERS\",\"message\":' + message + b'}\\n')\n\
         numbers(b'{\"busy\":2,\"counters\":{\"requests\":7}}')\n\
         for _ in range(3): numbers(b'{\"busy\":-1}'); numbers(b'{\"counters\":{\"' + b'x' * 5000 + b'\":1}}')\n\
         say(b'\"after\"\\n')\ntime.sleep(1000)",
    );
    let refused = |log: &[Value]| {
        let is_one = |entry: &&Value| {
            entry["text"].as_str().is_some_and(|text| text.contains("numbers are not taken"))
        };
        log.iter().filter(is_one).count()
    };
    app.until("it is told", |log| refused(log) > 0);
    eventually("those of the form stay", || {
        let mut workers = app.status().brokers.into_iter().flat_map(|broker| broker.workers);
        workers.any(|worker| worker.numbers.is_some_and(|numbers| numbers.busy == 2))
    });
    app.does(&["recycle", "bad"]);
    app.until("its successor's are told as well", |log| refused(log) > 1);
    assert_eq!(refused(&app.stop().1), 2, "once of each");
}

#[test]
fn fifteen_bad_lines_are_passed_over() {
    let app = beside("for line in channel.makefile('rb'):\n  say(b'nul\\n' * 15)\n  say(b'\"after\"\\n')");
    let watch = Watch::of(&app);
    app.does(&["send", "bad", "1"]);
    watch.until_said(&json!("after"), 1);
    assert_eq!(named(&app.log(), "worker_death"), 0);
}

#[test]
fn a_line_without_end_costs_no_more_than_the_longest_and_the_next_one_is_heard() {
    let app = beside(
        "for line in channel.makefile('rb'):\n  for _ in range(32): say(b'x' * (1 << 20))\n  say(b'\\n\"after\"\\n')",
    );
    let watch = Watch::of(&app);
    app.does(&["send", "bad", "1"]);
    watch.until_said(&json!("after"), 1);
    is_harmless(&app);
    assert_eq!(named(&app.log(), "worker_death"), 0);
}

#[test]
fn values_within_values_without_end_hurt_nobody() {
    let app = beside(
        "for line in channel.makefile('rb'):\n  say(b'[' * (2 << 20))\n  say(b']' * (2 << 20))\n  say(b'\\n\"after\"\\n')",
    );
    app.does(&["send", "bad", "1"]);
    app.does(&["send", "bad", "1"]);
    let watch = Watch::of(&app);
    app.does(&["send", "bad", "1"]);
    watch.until_said(&json!("after"), 1);
    is_harmless(&app);
}

#[test]
fn a_flood_of_messages_with_and_without_a_watcher_costs_the_others_nothing() {
    let app = beside(
        "text = b'{\"n\":1}\\n' * 4096\nwhile True:\n  say(text)\n  say(b'{\"cmd\":\"SHIFTBOSS_CALL\",\"id\":1,\"message\":1}\\n')",
    );
    is_harmless(&app);
    let watch = Watch::of(&app);
    watch.until_said(&json!({"n": 1}), 1000);
    drop(watch);
    let mut watcher = Command::new(BIN);
    watcher.args(["events", "-f", "--socket"]).arg(app.socket()).stdout(Stdio::null());
    let mut watcher = watcher.spawn().unwrap();
    is_harmless(&app);
    watcher.kill().unwrap();
    watcher.wait().unwrap();
}

#[test]
fn long_messages_are_not_held_for_a_watcher_that_does_not_read() {
    let app = beside(
        "import json\nfor line in channel.makefile('rb'):\n  for _ in range(40): say(b'\"' + b'x' * (4 << 20) + b'\"\\n')\n  \
         say(b'{\"cmd\":\"SHIFTBOSS_REPLY\",\"id\":%d,\"message\":\"done\"}\\n' % json.loads(line)['id'])",
    );
    let mut watcher = UnixStream::connect(app.socket()).unwrap();
    watcher.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    watcher.read_exact(&mut [0; 1]).unwrap();
    for _ in 0..2 {
        assert_eq!(answers(&app, "bad", &json!(1)), ["done"]);
    }
    is_harmless(&app);
}

#[test]
fn a_worker_that_does_not_read_is_told_so_much_and_no_more() {
    let app = beside("time.sleep(1000)");
    let long = format!("\"{}\"", "x".repeat(100_000));
    let refused = (0..60).map(|_| app.ask(&["send", "bad", &long])).find(|output| !output.status.success());
    let refused = refused.expect("it is refused at some time");
    let said = text(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("does not read what it is told"), "{said}");
    is_harmless(&app);
    // It does not hear the notice either.
    app.does(&["recycle", "bad"]);
}

#[test]
fn a_worker_that_has_shut_its_reading_end_is_not_called_told() {
    let app = beside("channel.shutdown(socket.SHUT_RD)\nsay(b'\"shut\"\\n')\ntime.sleep(1000)");
    let tell = || app.ask(&["send", "bad", "1"]);
    let mut said = tell();
    // It may have been told before it shut it.
    eventually("it is not told", || {
        said = tell();
        !said.status.success()
    });
    let said = text(&said.stderr);
    assert!(said.contains("is gone, or has closed its channel"), "{said}");
    is_harmless(&app);
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    let app = beside(
        "for line in channel.makefile('rb'):\n  for _ in range(200): socket.send_fds(channel, [b'1\\n'], [0] * 253)\n  say(b'\"after\"\\n')",
    );
    let watch = Watch::of(&app);
    let broker = app.broker_pid();
    let open = || std::fs::read_dir(format!("/proc/{broker}/fd")).unwrap().count();
    let before = open();
    for times in 1..=3 {
        app.does(&["send", "bad", "1"]);
        watch.until_said(&json!("after"), times);
    }
    // A client's connection may be open for a moment.
    eventually("no more is open than before", || open() <= before);
    is_harmless(&app);
}

/// What was heard together with an exit stays on the channels until it is recorded, of the dead worker and of all others.
#[test]
fn an_exit_costs_nobody_what_it_has_said_though_the_broker_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let script = "import os, socket, sys, time\n\
                  channel = socket.socket(fileno=int(os.environ['SHIFTBOSS_CHANNEL_FD']))\n\
                  while not os.path.exists('go'): time.sleep(0.01)\n\
                  channel.sendall(b'{\"cmd\":\"SHIFTBOSS_READY\"}\\n')\n\
                  open(f'said-{os.getpid()}', 'w').close()\n\
                  channel.recv(1)";
    let broker = |name| {
        format!(
            "[broker.{name}]\ncommand = [\"python3\", \"-c\", {script:?}]\nkind = \"notify\"\ncwd = {:?}\n",
            folder.path()
        )
    };
    std::fs::write(path("shiftboss.toml"), format!("app = \"e2e\"\n{}{}", broker("dies"), broker("lives")))
        .unwrap();
    let (file, log, go) = (path("shiftboss.toml"), path("points"), path("go"));
    let app = App::started(folder, &["run", "-c", file.to_str().unwrap()], |command| {
        command.env("SHIFTBOSS_KILL_LOG", log).env("SHIFTBOSS_KILL_AT", "an exit was heard");
    });
    let started = app.until_event("worker_started", 2);
    let pid_of = |name: &str| {
        let event =
            started.iter().find(|event| event["event"] == "worker_started" && event["broker"] == name);
        u32::try_from(event.unwrap()["pid"].as_u64().unwrap()).unwrap()
    };
    let (dies, lives, broker) = (pid_of("dies"), pid_of("lives"), app.broker_pid());
    signal_process(broker, Signal::STOP);
    std::fs::write(go, "").unwrap();
    eventually("both have said it", || {
        [dies, lives].iter().all(|pid| app.path(&format!("said-{pid}")).exists())
    });
    signal_process(dies, Signal::KILL);
    eventually("it is gone, and the keeper knows how", || !Path::new(&format!("/proc/{dies}")).exists());
    signal_process(broker, Signal::CONT);
    let log = app.until_event("worker_ready", 3);
    assert_eq!(named(&log, "broker_adopted"), 2, "the broker process was killed");
    let told = |name: &str, pid: u32| {
        log.iter().position(|event| event["event"] == name && event["pid"] == pid).unwrap_or(usize::MAX)
    };
    assert!(told("worker_ready", lives) < usize::MAX, "{log:?}");
    assert!(told("worker_ready", dies) < told("worker_death", dies), "{log:?}");
    assert!(app.stop().0.success());
}
