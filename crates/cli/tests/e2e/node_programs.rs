//! Programs that were written for Node alone, for express, for `ws` and for okanjo-app-broker, unmodified, from
//! `examples/node`: under load they are recycled, killed, drained and resumed, and their broker process is killed.
//!
//! `SHIFTBOSS_TEST_NODE_PATH` names a folder of the packages that they need; `cargo xtask test` makes it. Where it is not set,
//! only those run that need none.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;

use crate::app::*;
use crate::load::*;

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/node").canonicalize().unwrap()
}

/// Where the packages are, as `NODE_PATH` has it; none = what needs them is left out.
fn packages() -> Option<String> {
    let path = std::env::var("SHIFTBOSS_TEST_NODE_PATH").ok().filter(|path| !path.is_empty());
    if path.is_none() {
        eprintln!("not tried: SHIFTBOSS_TEST_NODE_PATH is not set, so the packages are not there");
    }
    path
}

/// A broker of an example's program.
fn broker(name: &str, program: &str, workers: u32, port: u16, more: &str) -> String {
    let program = examples().join(program);
    let modules = std::env::var("SHIFTBOSS_TEST_NODE_PATH").unwrap_or_default();
    format!(
        r#"
        [broker.{name}]
        command = ["node", "{}"]
        workers = {workers}
        environment = {{ PORT = "{port}", NODE_PATH = "{modules}" }}
        {more}
        "#,
        program.display()
    )
}

/// Recycled with kept and with new connections, and with its broker process killed meanwhile: nothing is lost. Node closes
/// a kept connection when it leaves, sent to or not: a request may cross that, with each that leaves.
fn is_recycled(program: &str, more: &str) {
    let port = free_port();
    let app = App::ready(&("app = \"node\"\n".to_owned() + &broker("web", program, 4, port, more)));
    for (words, may_cross) in [(&["--no-keep-alive"][..], 0), (&[][..], 12)] {
        let mut load = Load::on(port, words);
        load.a_second();
        for _ in 0..2 {
            let said = app.does(&["recycle", "web"]);
            assert!(said.contains("4 of 4") && said.contains("none was stopped"), "{said}");
        }
        app.kill_broker();
        load.a_second();
        let said = app.does(&["recycle", "web"]);
        assert!(said.contains("4 of 4"), "{said}");
        load.a_second();
        let counts = load.end();
        assert_eq!(counts["failed"], 0, "{counts}");
        assert!(counts["crossed"].as_u64() <= Some(may_cross), "{counts}");
    }
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!((named(&log, "worker_ended"), named(&log, "worker_death")), (28, 0));
}

/// Requests are lost only inside the killed worker; those of the drained time are refused or wait.
fn is_repaired_drained_and_resumed(program: &str) {
    let port = free_port();
    let app = App::ready(&("app = \"node\"\n".to_owned() + &broker("web", program, 4, port, "")));
    let mut load = Load::on(port, &["--no-keep-alive"]);
    load.a_second();
    let victim = app.pids()[0];
    let killed = load.now();
    signal_process(victim, Signal::KILL);
    app.until("the successor is ready", |log| named(log, "worker_ready") == 5);
    load.a_second();
    let repaired = load.now();
    load.a_second();
    load.a_second();
    let drained = load.now();
    app.does(&["drain", "web"]);
    load.until(|count| count["refused"].as_u64() > Some(20));
    app.does(&["resume", "web"]);
    load.a_second();
    let resumed = load.now();
    load.a_second();
    let counts = load.end();
    failed_only_in(&counts, &[killed..=repaired, drained..=resumed]);
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!(named(&log, "worker_death"), 1);
}

#[test]
fn a_server_that_handles_no_signal_and_no_message_loses_no_request() {
    is_recycled("http/server.js", "");
}

#[test]
fn a_server_whose_connections_are_handed_over_loses_no_request() {
    let port = free_port();
    let program = examples().join("http/server.js");
    let app = App::ready(&format!(
        r#"
        app = "node"
        [broker.web]
        command = ["node", "{}"]
        workers = 2
        environment = {{ PORT = "{port}" }}
        listen = [{{ address = "tcp://:{port}", balance = "round-robin" }}]
        "#,
        program.display()
    ));
    // Each connection is two turns of every process: a machine that is busy with other things has not many.
    let mut load = Load::on(port, &["--no-keep-alive", "--rate", "60"]);
    load.a_second();
    for _ in 0..3 {
        let said = app.does(&["recycle", "web"]);
        assert!(said.contains("2 of 2"), "{said}");
    }
    load.a_second();
    none_lost(&load.end());
    app.stop();
}

#[test]
fn a_plain_server_is_repaired_drained_and_resumed() {
    is_repaired_drained_and_resumed("http/server.js");
}

#[test]
fn an_express_server_loses_no_request() {
    if packages().is_some() {
        is_recycled("express/server.js", "");
    }
}

#[test]
fn two_types_of_okanjo_workers_in_one_file_keep_all_that_they_had() {
    if packages().is_none() {
        return;
    }
    let port = free_port();
    let config = "app = \"okanjo\"\n".to_owned()
        + &broker("api", "okanjo/app.js", 2, port, "")
        + &broker("jobs", "okanjo/app.js", 1, port, "");
    let app = App::ready(&config);
    let watch = Watch::of(&app);
    let mut load = Load::on(port, &["--no-keep-alive"]);
    load.a_second();
    let has = |log: &[Value], event: &str, is: &dyn Fn(&Value) -> bool| {
        log.iter().any(|line| line["event"] == event && line["broker"] == "jobs" && is(&line["message"]))
    };
    watch.until("messages and ops", |log| {
        has(log, "worker_ops", &|message| message["type"] == "ops" && message["data"]["done"].is_u64())
            && has(log, "worker_message", &|message| message["job"].is_u64())
    });
    for verb in [&["recycle", "--all"][..], &["drain", "jobs"], &["resume", "jobs"]] {
        app.does(verb);
    }
    watch.until("it has said farewell", |log| {
        has(log, "worker_message", &|message| message["farewell"].is_u64())
    });
    drop(watch);
    app.kill_broker();
    app.until_event("broker_adopted", 2);
    let said = app.does(&["recycle", "api"]);
    assert!(said.contains("2 of 2"), "{said}");
    load.a_second();
    none_lost(&load.end());
    let jobs = app.status().brokers.into_iter().find(|broker| broker.name == "jobs").unwrap();
    signal_process(jobs.workers[0].pid.unwrap(), Signal::KILL);
    app.until("it is replaced", |log| named(log, "worker_death") == 1);
    app.does(&["wait", "jobs", "--for", "ready"]);
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!(named(&log, "worker_death"), 1);
}

#[test]
fn websockets_are_told_and_closed_in_order_when_their_worker_leaves() {
    let Some(modules) = packages() else { return };
    let port = free_port();
    let app = App::ready(&("app = \"ws\"\n".to_owned() + &broker("web", "websocket/server.js", 2, port, "")));
    // Ten clients; each prints what it hears, and how it was closed.
    let script = format!(
        "const WebSocket = require('ws');\n\
         let open = 0, closed = 0;\n\
         for (let i = 0; i < 10; i++) {{\n\
           const socket = new WebSocket('ws://127.0.0.1:{port}');\n\
           socket.on('message', () => {{ if (++open === 10) console.log('all are open'); }});\n\
           socket.on('close', (code) => {{ console.log('closed ' + code); if (++closed === 10) process.exit(0); }});\n\
         }}"
    );
    let mut command = std::process::Command::new("node");
    command.args(["-e", &script]).env("NODE_PATH", modules).stdout(std::process::Stdio::piped());
    let mut clients = command.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(clients.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "all are open");
    let said = app.does(&["recycle", "web"]);
    assert!(said.contains("2 of 2") && said.contains("none was stopped"), "{said}");
    let closed: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(closed, vec!["closed 1012"; 10]);
    assert!(clients.wait().unwrap().success());
    app.stop();
}
