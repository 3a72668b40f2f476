//! How workers leave: by themselves, when they are told, or because nobody is there any more.

use std::io::Read as _;

use rustix::process::Signal;

use super::*;

/// How the worker of that id has left: event, code, signal, whether it was cut off.
fn left(cluster: &Cluster, worker: &str) -> (String, Value, Value, Value) {
    let has_left = |event: &&Value| {
        event["worker"] == worker && (event["event"] == "worker_ended" || event["event"] == "worker_death")
    };
    let log = cluster.app.until("it has left", |log| log.iter().any(|event| has_left(&event)));
    let event = log.iter().find(has_left).unwrap();
    let name = event["event"].as_str().unwrap().to_owned();
    (name, event["code"].clone(), event["signal"].clone(), event["forced"].clone())
}

fn normally() -> (String, Value, Value, Value) {
    ("worker_ended".to_owned(), json!(0), Value::Null, json!(false))
}

/// One worker that listens at this port.
fn one(node: &Node, port: u16, more: &str) -> Cluster {
    let cluster = Cluster::asked(node, 1, more);
    cluster.tell(0, &format!("return kept.listen(kept.web(), {port})"));
    cluster
}

/// A client that has sent half of a request.
fn half(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap();
    stream
}

/// One that is answered once, and stays connected.
fn idle(port: u16) -> TcpStream {
    let mut stream = half(port);
    stream.write_all(b"\r\n").unwrap();
    let mut came = Vec::new();
    while !came.ends_with(b"0\r\n\r\n") && !came.windows(6).any(|part| part == b"worker") {
        let mut piece = [0; 1000];
        let got = stream.read(&mut piece).unwrap();
        assert!(got > 0);
        came.extend(&piece[..got]);
    }
    stream
}

/// Checks 21, 22 and 23: in each case it is replaced.
#[test]
fn a_worker_may_leave_by_itself() {
    each_way(|node, balance| {
        for leave in ["cluster.worker.disconnect()", "process.disconnect()", "cluster.worker.kill()"] {
            let port = free_port();
            let cluster = one(node, port, &balance.of(port));
            cluster.tell(0, &format!("kept.soon(() => {leave})"));
            assert_eq!(left(&cluster, "1"), normally(), "{node}, {leave}");
            cluster.app.until("its successor is ready", |log| named(log, "worker_ready") == 2);
            assert_eq!(cluster.app.status().brokers[0].deaths, 0, "{node}, {leave}");
        }
    });
}

/// Check 24.
#[test]
fn an_idle_worker_leaves_when_it_is_told() {
    each_way(|node, balance| {
        for how in ["json", "advanced"] {
            let port = free_port();
            let more = format!("serialization = \"{how}\"\n{PATIENT}{}", balance.of(port));
            let cluster = Cluster::ready(node, &["web.js", &port.to_string()], 2, &more);
            get(("127.0.0.1", port), "/").unwrap();
            let said = cluster.app.does(&["recycle", "web"]);
            assert!(said.contains("2 of 2") && said.contains("none was stopped"), "{node}: {said}");
            assert_eq!((left(&cluster, "1"), left(&cluster, "2")), (normally(), normally()), "{node}, {how}");
        }
    });
}

/// Checks 25 and 26: told by a recycle, and by the app's end, it hears of it once.
#[test]
fn a_worker_finishes_what_it_has_however_often_it_is_told_to_leave() {
    each_way(|node, balance| {
        let port = free_port();
        let mut cluster = one(node, port, &(PATIENT.to_owned() + &balance.of(port)));
        let mut client = half(port);
        // It is accepted by the only worker before that is told.
        cluster.tell(
            0,
            "while (await new Promise(count => setTimeout(() => kept.servers[0].getConnections((_, is) => count(is)))) < 1);",
        );
        cluster.app.does(&["recycle", "web", "--no-wait"]);
        cluster.event("worker_stopping", 1);
        cluster.app.signal(Signal::TERM);
        cluster.event("app_stopping", 1);
        // An answer to whoever asks meanwhile shows that time has passed since.
        cluster.app.status();
        let has_ended = |event: &Value| event["event"] == "worker_ended" && event["worker"] == "1";
        assert!(!cluster.app.log().iter().any(has_ended), "{node}");
        client.write_all(b"Connection: close\r\n\r\n").unwrap();
        assert_eq!(body(&mut client).unwrap(), "worker 1", "{node}, {balance:?}");
        assert!(cluster.app.ended().success());
        assert_eq!(left(&cluster, "1"), normally(), "{node}");
    });
}

/// Check 25, its other half.
#[test]
fn a_worker_that_never_finishes_is_signalled_in_the_end() {
    each(|node| {
        let port = free_port();
        let cluster = one(
            node,
            port,
            "stop = [{ message = \"x\", wait = \"100ms\" }, { signal = \"TERM\", wait = \"10s\" }]\n",
        );
        let client = half(port);
        cluster.tell(
            0,
            "while (await new Promise(count => setTimeout(() => kept.servers[0].getConnections((_, is) => count(is)))) < 1);",
        );
        cluster.app.does(&["recycle", "web"]);
        let (name, _, signal, _) = left(&cluster, "1");
        assert_eq!((name.as_str(), signal), ("worker_ended", json!("SIGTERM")), "{node}");
        drop(client);
    });
}

/// Check 27.
#[test]
fn a_worker_that_closes_its_channel_and_stays_is_signalled() {
    each(|node| {
        for stays in
            ["setInterval(() => {}, 1000)", "http.createServer().listen({ port: 0, exclusive: true })"]
        {
            let cluster = Cluster::asked(node, 1, "");
            cluster.tell(0, &format!("{stays}; 0"));
            cluster.app.does(&["recycle", "web"]);
            let (name, _, signal, _) = left(&cluster, "1");
            assert_eq!((name.as_str(), signal), ("worker_ended", json!("SIGTERM")), "{node}, {stays}");
        }
    });
}

/// Check 28: Node 18 waits until its time for an idle connection is over.
#[test]
fn an_idle_client_does_not_keep_a_worker() {
    each_way(|node, balance| {
        let port = free_port();
        let cluster = one(node, port, &(PATIENT.to_owned() + &balance.of(port)));
        let client = idle(port);
        cluster.app.does(&["recycle", "web"]);
        assert_eq!(left(&cluster, "1"), normally(), "{node}, {balance:?}");
        drop(client);
    });
}

/// Check 29.
#[test]
fn when_a_worker_is_killed_the_others_serve() {
    each_way(|node, balance| {
        let port = free_port();
        let cluster = Cluster::ready(node, &["web.js", &port.to_string()], 2, &balance.of(port));
        signal_process(cluster.app.pids()[0], Signal::KILL);
        assert_eq!(left(&cluster, "1").2, "SIGKILL", "{node}");
        for _ in 0..20 {
            get(("127.0.0.1", port), "/").unwrap();
        }
        cluster.app.until("its successor is ready", |log| named(log, "worker_ready") == 3);
    });
}

/// Check 30: without a keeper the broker process is all there is, with one it is the keeper.
#[test]
fn workers_do_not_outlive_what_keeps_them() {
    each(|node| {
        let mut cluster = Cluster::asked(node, 3, "");
        let workers = cluster.app.pids();
        cluster.app.signal(Signal::KILL);
        cluster.app.ended();
        for pid in workers {
            eventually("it is gone", || is_gone(pid));
        }

        let folder = tempfile::tempdir().unwrap();
        let script = programs().join("asked.js");
        let socket = socket(&folder);
        let words = [
            "--socket",
            socket.to_str().unwrap(),
            "run",
            "--no-keeper",
            "--",
            node.path(),
            script.to_str().unwrap(),
        ];
        let mut app = App::started(folder, &words, |_| {});
        app.until_event("app_ready", 1);
        let worker = app.pids()[0];
        app.signal(Signal::KILL);
        app.ended();
        eventually("it is gone", || is_gone(worker));
    });
}
