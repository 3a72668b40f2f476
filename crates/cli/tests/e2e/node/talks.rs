//! What workers say and are told on their channels.

use std::collections::BTreeSet;
use std::io::BufRead as _;
use std::os::unix::net::UnixStream;

use super::*;

/// In each way to write messages.
fn each_serialization(test: impl Fn(&Node, &str) + Sync) {
    each(|node| {
        ["json", "advanced"].iter().for_each(|how| test(node, &format!("serialization = \"{how}\"\n")));
    });
}

/// What `send` does, for messages that are too long for a command; again and again, until the worker has read so much that
/// there is room for it.
fn post(app: &App, message: &str) {
    let body = format!("{{\"message\":{message}}}");
    let head = "POST /v1/brokers/web/send HTTP/1.1\r\nHost: x\r\nConnection: close";
    eventually("it has room", || {
        let mut stream = UnixStream::connect(app.socket()).unwrap();
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut first = String::new();
        io::BufReader::new(stream).read_line(&mut first).unwrap();
        assert!(first.contains(" 200 ") || first.contains(" 409 "), "{first}");
        first.contains(" 200 ")
    });
}

/// The messages of workers, in order.
fn said(log: &[Value]) -> impl Iterator<Item = &Value> {
    log.iter().filter(|event| event["event"] == "worker_message").map(|event| &event["message"])
}

const IDENTITY: &str = "return { worker: cluster.isWorker, primary: cluster.isPrimary, id: cluster.worker.id,
    connected: process.connected, variables: Object.keys(process.env).filter(name => /^NODE_(CHANNEL|UNIQUE)/.test(name)) }";

/// Check 1.
#[test]
fn a_worker_is_one_of_a_cluster_and_nothing_of_that_is_in_its_environment() {
    each_serialization(|node, more| {
        let cluster = Cluster::asked(node, 2, more);
        for slot in 0..2 {
            let expected =
                json!({"worker": true, "primary": false, "id": slot + 1, "connected": true, "variables": []});
            assert_eq!(cluster.tell(slot, IDENTITY), expected, "{node}");
        }
    });
}

/// Check 46.
#[test]
fn a_worker_has_no_channel_but_its_own_and_its_children_have_none() {
    each(|node| {
        let cluster = Cluster::asked(node, 3, "");
        let children = "return child_process.execFileSync('ls', ['-l', '/proc/self/fd']).toString()";
        for listed in cluster.tell_all(3, children) {
            // The three that it is given. Files may be among them, too: while Node reads certificates in another thread,
            // whoever is started inherits those.
            let sockets = listed.as_str().unwrap().lines().filter(|line| line.contains(" -> socket:"));
            assert_eq!(sockets.count(), 3, "{node}: {listed}");
        }
        let mut seen = BTreeSet::new();
        for pid in cluster.app.pids() {
            for link in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
                let target = std::fs::read_link(link.path()).unwrap_or_default().display().to_string();
                assert!(!target.starts_with("socket:") || seen.insert(target.clone()), "{node}: {target}");
            }
        }
    });
}

/// Checks 16 and 17.
#[test]
fn whatever_is_sent_is_heard_and_the_callback_called() {
    each_serialization(|node, more| {
        let cluster = Cluster::asked(node, 1, more);
        let watch = Watch::of(&cluster.app);
        for sent in [
            json!({"hello": "ü\n日本😀"}),
            json!("text"),
            json!(1.5),
            json!(true),
            Value::Null,
            json!([1, [2]]),
            json!({"cmd": "x"}),
            json!({"cmd": "NODE_"}),
        ] {
            let script = format!(
                "return new Promise(called => {{ const more = process.send({sent}, error => called([more, error])) }})"
            );
            assert_eq!(cluster.tell(0, &script), json!([true, null]), "{node}, {sent}");
            watch.until_said(&sent, 1);
        }
    });
}

/// Check 50.
#[test]
fn words_of_nodes_own_are_no_messages_even_if_the_program_says_them() {
    each_serialization(|node, more| {
        let cluster = Cluster::asked(node, 1, more);
        let watch = Watch::of(&cluster.app);
        cluster.tell(0, "process.send({ cmd: 'NODE_X', a: 1 }); process.send({ cmd: 'NODE_CLUSTER' }); process.send('after')");
        let log = watch.until("after", |log| said(log).any(|message| message == "after"));
        assert!(!said(&log).any(|message| message.to_string().contains("NODE_")), "{node}");
        assert_eq!(named(&cluster.app.log(), "worker_death"), 0);
    });
}

/// Check 18.
#[test]
fn whatever_is_told_is_heard() {
    each_serialization(|node, more| {
        let cluster = Cluster::asked(node, 1, more);
        let told = [
            json!({"a": "ü\n日本😀", "b": [1.5, null]}),
            json!("x"),
            json!(-1),
            json!(false),
            Value::Null,
            json!([[]]),
            json!({"cmd": "NODE_"}),
        ];
        for message in &told {
            cluster.app.does(&["send", "web/0", &message.to_string()]);
        }
        assert_eq!(cluster.tell(0, "return kept.heard"), json!(told), "{node}");
    });
}

#[test]
fn what_v8_could_not_read_is_refused_with_the_reason_and_the_worker_lives() {
    each(|node| {
        let cluster = Cluster::asked(node, 1, "serialization = \"advanced\"\n");
        for message in [r#"{"日":1,"日":2}"#, r#"{"a":1,"a":2}"#] {
            let output = cluster.app.ask(&["send", "web/0", message]);
            let said = text(&output.stderr);
            assert!(
                output.status.code() == Some(1) && said.contains("an object names a member twice"),
                "{said}"
            );
        }
        cluster.app.does(&["send", "web/0", r#"{"日":1,"本":2}"#]);
        assert_eq!(cluster.tell(0, "return kept.heard"), json!([{"日": 1, "本": 2}]), "{node}");
        assert_eq!(named(&cluster.app.log(), "worker_death"), 0);
    });
}

/// Check 19.
#[test]
fn long_short_and_many_messages_arrive_whole_and_in_order() {
    each_serialization(|node, more| {
        let cluster = Cluster::asked(node, 1, more);
        post(&cluster.app, &format!("\"{}\"", "é".repeat(1_000_000)));
        (0..500).for_each(|count| post(&cluster.app, &count.to_string()));
        let script = "const [long, ...rest] = kept.heard;
            return [/^é{1000000}$/.test(long), rest.length, rest.every((message, at) => message === at)]";
        assert_eq!(cluster.tell(0, script), json!([true, 500, true]), "{node}");

        let watch = Watch::of(&cluster.app);
        cluster.tell(0, "process.send('ü'.repeat(5e6)); process.send('after')");
        let log = watch.until("after", |log| said(log).any(|message| message == "after"));
        assert!(
            said(&log).any(|message| message.as_str().is_some_and(|text| text.chars().count() == 5_000_000)),
            "{node}"
        );
        // No more at once than are held for a watcher that is late.
        for from in (0..500).step_by(50) {
            cluster.tell(0, &format!("for (let at = {from}; at < {from} + 50; at++) process.send(at)"));
            watch.until_said(&json!(from + 49), 1);
        }
        let log = watch.until("all of it", |_| true);
        assert!(said(&log).filter_map(Value::as_u64).eq(0..500), "{node}");
    });
}

/// Check 19: the channel is the first descriptor after the usual three.
#[test]
fn a_message_may_come_byte_by_byte() {
    each(|node| {
        let cluster = Cluster::asked(node, 1, "");
        let watch = Watch::of(&cluster.app);
        cluster.tell(
            0,
            r#"for (const byte of Buffer.from('{"slow":"é日"}\n')) { fs.writeSync(3, Buffer.of(byte)) }"#,
        );
        watch.until_said(&json!({"slow": "é日"}), 1);
    });
}

/// Check 20. A watcher that is slow misses long messages, which is documented; the worker is told of each that it is heard.
#[test]
fn a_worker_that_says_much_to_a_broker_that_does_not_listen_works_on_and_nothing_is_lost() {
    each(|node| {
        let cluster = Cluster::asked(node, 1, "");
        let broker = cluster.app.broker_pid();
        // It stands still until the worker's event loop has turned for a second.
        let flood = format!(
            "process.kill({broker}, 'SIGSTOP');
             let [turns, sent] = [0, 0];
             const until = Date.now() + 1000;
             const turning = setInterval(() => ++turns > 2 && Date.now() > until && process.kill({broker}, 'SIGCONT'), 10);
             for (let at = 0; at < 200; at++) process.send(at + 'x'.repeat(65000), () => sent++);
             while (sent < 200) await new Promise(next => setTimeout(next, 10));
             clearInterval(turning);
             process.send('end');
             return turns > 2"
        );
        let watch = Watch::of(&cluster.app);
        assert_eq!(cluster.tell(0, &flood), true, "{node}");
        let log = watch.until("all of it", |log| said(log).any(|message| message == "end"));
        let mut next = 0;
        for text in said(&log).filter_map(Value::as_str).filter(|text| *text != "end") {
            let number: usize = text.trim_end_matches('x').parse().unwrap();
            assert!(text.len() > 65_000 && number >= next, "{node}");
            next = number + 1;
        }
        assert!(next > 0, "{node}");
    });
}

/// Check 49.
#[test]
fn what_is_cut_by_the_end_is_no_message_and_no_fault() {
    each_serialization(|node, more| {
        let cluster = Cluster::asked(node, 1, more);
        cluster.tell(0, "kept.soon(() => { process.send('x'.repeat(5e6)); process.exit(3) })");
        let death = cluster.event("worker_death", 1);
        assert_eq!((&death["code"], &death["signal"]), (&json!(3), &Value::Null), "{node}");
        assert!(!death["reason"].as_str().unwrap_or_default().contains("channel"), "{node}: {death}");
        cluster.app.until("its successor is ready", |log| named(log, "worker_ready") == 2);
    });
}

/// Check 48.
#[test]
fn a_module_is_a_worker_too() {
    each(|node| {
        let port = free_port();
        let cluster = Cluster::ready(node, &["module.mjs", &port.to_string()], 2, "");
        let expected = json!({"worker": true, "primary": false, "connected": true, "variables": []});
        // It listens after the first turn of its loop, and may count as ready before.
        eventually("it listens", || get(("127.0.0.1", port), "/").is_ok());
        let answer: Value = serde_json::from_str(&get(("127.0.0.1", port), "/").unwrap()).unwrap();
        assert_eq!(answer, expected, "{node}");
        assert_eq!(cluster.app.status().brokers[0].ready, 2);
    });
}
