//! Descriptors that travel with messages.

use super::*;

/// Check 31.
#[test]
fn a_worker_may_send_a_connection_away_and_close_its_server() {
    each(|node| {
        for how in ["json", "advanced"] {
            let cluster = Cluster::asked(node, 1, &format!("serialization = \"{how}\"\n"));
            let port = free_port();
            let watch = Watch::of(&cluster.app);
            let broker = cluster.app.broker_pid();
            let open = || std::fs::read_dir(format!("/proc/{broker}/fd")).unwrap().count();
            let script = format!(
                "const server = net.createServer(socket => {{ process.send({{ take: 1 }}, socket); process.send({{ after: 1 }}) }});
                 return kept.listen(server, {port})"
            );
            cluster.tell(0, &script);
            let before = open();
            for times in 1..=2 {
                let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
                watch.until_said(&json!({"take": 1}), times);
                watch.until_said(&json!({"after": 1}), times);
                // Nobody has a use for it.
                assert_eq!(io::Read::read(&mut client, &mut [0]).unwrap(), 0, "{node}, {how}");
            }
            let count = "return new Promise(counted => kept.servers[0].getConnections((error, count) => counted(error ?? count)))";
            assert_eq!(cluster.tell(0, count), 0, "{node}, {how}");
            let close = "return new Promise(closed => kept.servers[0].close(() => closed('closed')))";
            assert_eq!(cluster.tell(0, close), "closed", "{node}, {how}");
            // But the memory in which a successor finds what it owes for them.
            eventually("nothing is left open", || open() <= before + 1);
        }
    });
}

/// Check 35, and descriptors of any kind: a program in another language that speaks as a Node program does.
#[test]
fn each_descriptor_belongs_to_its_line_and_each_line_is_heard() {
    let script = programs().join("handles.py");
    let app = App::of(&format!(
        "app = \"e2e\"\n[broker.web]\ncommand = [\"python3\", {script:?}]\nkind = \"node\"\nready = \"notify\"\n"
    ));
    app.until_event("app_ready", 1);
    let watch = Watch::of(&app);
    let broker = app.broker_pid();
    let open = || std::fs::read_dir(format!("/proc/{broker}/fd")).unwrap().count();
    let before = open();
    for times in 1..=3 {
        app.does(&["send", "web", "\"go\""]);
        watch.until_said(&json!("last"), times);
        for message in [json!("before"), json!({"with": 1}), json!("between"), json!({"with": 2})] {
            watch.until_said(&message, times);
        }
        // What was said of a descriptor that did not come, it was asked for once more.
        watch.until_said(&json!(["NODE_HANDLE_ACK", "NODE_HANDLE_ACK", "NODE_HANDLE_NACK"]), times);
    }
    let log = watch.until("all", |_| true);
    assert!(!log.iter().any(|event| event["message"] == json!({"without": 1})), "nothing came with it");
    // But the memory in which a successor finds what it owes for them.
    eventually("nothing is left open", || open() <= before + 1);
    assert_eq!(named(&app.log(), "worker_death"), 0);
}

/// Killed there: the worker says no more without a receipt, and dies of a second.
#[test]
fn a_broker_process_that_is_killed_around_a_receipt_has_a_successor_that_gives_it_once() {
    each(|node| {
        for how in ["json", "advanced"] {
            for kill_at in ["a receipt is owed", "a receipt goes out"] {
                let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
                let config = format!(
                    "app = \"node\"\n[broker.web]\ncommand = [{:?}, {:?}, \"{port}\"]\nserialization = \"{how}\"\n",
                    node.path(),
                    programs().join("away.js"),
                );
                std::fs::write(folder.path().join("shiftboss.toml"), config).unwrap();
                let log = folder.path().join("points");
                let app = App::started(folder, &["run"], |command| {
                    command.env("SHIFTBOSS_KILL_LOG", log).env("SHIFTBOSS_KILL_AT", kill_at);
                });
                app.until_event("app_ready", 1);
                let goes_on = |times| {
                    let what = format!("{node}, {how}, killed where {kill_at}: it goes on");
                    eventually(&what, || std::fs::read(app.path("after")).unwrap_or_default().len() == times);
                };
                for times in 1..=2 {
                    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
                    goes_on(times);
                }
                // One too many has come before this.
                app.does(&["send", "web", "1"]);
                goes_on(3);
                let log = app.until_event("broker_adopted", 1);
                assert_eq!(named(&log, "worker_death"), 0, "{node}, {how}, killed where {kill_at}");
            }
        }
    });
}
