//! Programs that say to their primary what cannot be: it costs them alone.

use super::*;

/// A program that says what the test wants, and beside it one that serves.
struct Beside {
    app: App,
    port: u16,
}

impl Beside {
    /// The script runs after `line` and `write` are there, and `channel`, in a worker that is ready.
    fn run(node: &Node, script: &str) -> Beside {
        let port = free_port();
        let web = programs().join("web.js");
        let begin = "const fs = require('fs');
            const line = what => (typeof what === 'string' ? what : JSON.stringify(what)) + '\\n';
            const write = (...all) => { for (let text = all.map(line).join(''); text;) {
              try { text = text.slice(fs.writeSync(3, text)) } catch (error) { if (error.code !== 'EAGAIN') throw error } } };
            const act = (act, more) => ({ cmd: 'NODE_CLUSTER', act, seq: 1, ...more });
            process.on('message', message => message === 'end' && process.send('heard'));
            process.send('ready');";
        let node = node.path();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bad.js");
        std::fs::write(&file, format!("{begin}\n{script}\nsetInterval(() => {{}}, 1000)")).unwrap();
        let config = format!(
            "app = \"e2e\"
             [broker.web]
             command = [{node:?}, {web:?}, \"{port}\"]
             [broker.bad]
             command = [{node:?}, {file:?}]
             kind = \"node\"
             ready = \"notify\"
             stop = [{{ message = \"x\", wait = \"200ms\" }}, {{ signal = \"KILL\" }}]
             backoff = {{ base = \"50ms\", cap = \"400ms\" }}"
        );
        let config = config.replace("             ", "");
        std::fs::write(folder.path().join("shiftboss.toml"), config).unwrap();
        let app = App::started(folder, &["run"], |_| {});
        app.until_event("app_ready", 1);
        Beside { app, port }
    }

    /// The other one is served, recycled and told, and nothing is left open.
    #[track_caller]
    fn is_harmless(&self) {
        for _ in 0..20 {
            get(("127.0.0.1", self.port), "/").unwrap();
        }
        let said = self.app.does(&["recycle", "web"]);
        assert!(said.contains("1 of 1"), "{said}");
        let broker = self.app.broker_pid();
        let open = std::fs::read_dir(format!("/proc/{broker}/fd")).unwrap().count();
        assert!(open < 700, "{open} descriptors are open");
        let about = std::fs::read_to_string(format!("/proc/{broker}/status")).unwrap();
        let peak = about.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kilobytes < 96 << 10, "{kilobytes} kB at the peak");
        assert!(!self.app.stderr().contains("panicked"), "{}", self.app.stderr());
        let deaths = |log: &[Value], of| {
            log.iter().filter(|e| e["event"] == "worker_death" && e["broker"] == of).count()
        };
        assert_eq!(deaths(&self.app.log(), "web"), 0);
        // It can be got rid of, too.
        self.app.does(&["recycle", "bad"]);
    }

    /// It has heard what was said to it after all that.
    fn hears(&self) {
        let watch = Watch::of(&self.app);
        self.app.does(&["send", "bad", "\"end\""]);
        watch.until_said(&json!("heard"), 1);
    }
}

#[test]
fn nonsense_is_passed_over() {
    each(|node| {
        let bad = Beside::run(
            node,
            r#"for (const more of [{}, { seq: -1 }, { seq: 1e300 }, { seq: 'x' }, { key: {} }, { key: null }, { key: 'x'.repeat(1e5) },
                 { address: {} }, { port: 'x' }, { port: 1e9, addressType: 4 }, { port: -5, addressType: 'udp4' }, { addressType: [] },
                 { address: '\0', addressType: -1 }, { address: '/'.repeat(70000), addressType: -1, port: -1 },
                 { address: 'x', addressType: 4, port: 0 }, { fd: 1e18 }, { flags: 'all', addressType: 4, port: 0 },
                 { readableAll: 1 }, { index: -1, addressType: 4, port: 0 }, { data: [[[]]], addressType: null }]) {
                 for (const name of ['online', 'queryServer', 'listening', 'close', 'exitedAfterDisconnect', 'newconn', 'disconnect', '', 7, null]) {
                   // Answers to what nobody asked are Node's own to bear: it ends.
                   if (name === 'queryServer' && more.seq === undefined) more.seq = 1e9;
                   write(act(name, more));
                 }
               }
               for (const cmd of ['NODE_SOCKET_NOTIFY_CLOSE', 'NODE_SOCKET_GET_COUNT', 'NODE_SOCKET_COUNT', 'NODE_DEBUG_ENABLED', 'NODE_', 'NODE_X'])
                 write({ cmd }, { cmd, key: 7 }, { cmd, key: {} });
               write({ cmd: 'NODE_CLUSTER', ack: 1 }, { cmd: 'NODE_CLUSTER', ack: -1 }, { cmd: 'NODE_CLUSTER', ack: 1e300, accepted: {} },
                 { cmd: 'NODE_CLUSTER', ack: 'x', accepted: true }, { cmd: 'NODE_HANDLE' }, { cmd: 'NODE_HANDLE', msg: null, type: 7 });"#,
        );
        bad.is_harmless();
    });
}

#[test]
fn a_question_asked_twice_and_one_never_asked_hurt_nobody() {
    each(|node| {
        let bad = Beside::run(
            node,
            r"const server = require('http').createServer();
              server.listen(0, () => {
                const query = act('queryServer', { address: null, port: 0, addressType: 4, index: 5, seq: 1000 });
                // Heard again, it has the same answer again; the numbers are none of the program's own.
                write(query, query, { ...query, seq: 1001 }, act('listening', { port: 1, addressType: 4 }), act('close', { key: 'nobody' }));
                write(act('online'), act('online'), { cmd: 'NODE_HANDLE_NACK' }, { cmd: 'NODE_HANDLE_ACK' });
                process.send('asked');
              });",
        );
        bad.hears();
        bad.is_harmless();
    });
}

#[test]
fn a_flood_of_questions_costs_the_others_nothing() {
    each_alone(|node| {
        for flood in [
            "act('online')",
            "act('queryServer', { address: null, port: 0, addressType: 4, index: at, seq: at })",
            "act('queryServer', { address: '203.0.113.1', port: 1 + at % 60000, addressType: 4, seq: at })",
            "act('queryServer', { address: null, port: 0, addressType: 4, seq: at, data: 'x'.repeat(100000) })",
            "act('exitedAfterDisconnect', { seq: at })",
            "({ cmd: 'NODE_HANDLE', type: 'net.Native', msg: { at } })",
            "({ cmd: 'NODE_HANDLE_NACK' })",
            "({ cmd: 'NODE_SOCKET_GET_COUNT', key: 'x'.repeat(1000) })",
        ] {
            // It takes no notice of answers: its event loop does not turn.
            let script = format!("setTimeout(() => {{ for (let at = 0;; at++) write({flood}) }}, 50)");
            let bad = Beside::run(node, &script);
            bad.is_harmless();
        }
    });
}

#[test]
fn a_worker_that_shuts_one_half_of_its_channel_is_replaced_or_goes_on() {
    let script = programs().join("halves.py");
    for half in ["SHUT_RD", "SHUT_WR", "SHUT_RDWR"] {
        let app = App::of(&format!(
            "app = \"e2e\"\n[broker.web]\ncommand = [\"python3\", {script:?}, \"{half}\"]\nkind = \"node\"\n\
             ready = \"notify\"\nbackoff = {{ base = \"20ms\", cap = \"50ms\" }}\n\
             stop = [{{ message = \"x\", wait = \"100ms\" }}, {{ signal = \"TERM\", wait = \"10s\" }}]\n"
        ));
        app.until_event("app_ready", 1);
        match half {
            // It is not told to leave by a message, but leaves.
            "SHUT_RD" => drop(app.does(&["recycle", "web"])),
            _ => {
                let log = app.until_event("worker_death", 1);
                let death = log.iter().find(|event| event["event"] == "worker_death").unwrap();
                assert_eq!(death["reason"], "closed its channel and did not leave", "{half}");
            }
        }
        app.until("its successor is ready", |log| named(log, "worker_ready") >= 2);
        assert!(app.stop().0.success());
    }
}
