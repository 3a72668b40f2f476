//! Workers of okanjo-app-broker, whose ways this program has taken over: its packages as they are, from the folder that
//! `SHIFTBOSS_TEST_NODE_PATH` names (`cargo xtask test` gets them).

use rustix::process::Signal;

use super::*;

/// One worker on this port; none where the packages are not there.
fn web(node: &Node, port: u16, more: &str) -> Option<Cluster> {
    let Ok(modules) = std::env::var("SHIFTBOSS_TEST_NODE_PATH") else {
        println!("SHIFTBOSS_TEST_NODE_PATH is not set: its workers were not tried");
        return None;
    };
    let more = format!("environment = {{ NODE_PATH = {modules:?} }}\n{more}");
    Some(Cluster::ready(node, &["okanjo.js", &port.to_string()], 1, &more))
}

/// Check 40: told by both, as that broker does, by its message, by its `disconnect`, and by a signal.
#[test]
fn a_worker_prepares_for_its_end_and_leaves_however_it_is_told() {
    each_way(|node, balance| {
        let port = free_port();
        for (how, more) in [
            ("both", PATIENT.to_owned()),
            ("disconnect", PATIENT.replace("suicide", "bye")),
            ("suicide", String::new()),
            ("signal", String::new()),
        ] {
            let Some(cluster) = web(node, port, &format!("{more}{}", balance.of(port))) else { return };
            let app = &cluster.app;
            assert_eq!(get(("127.0.0.1", port), "/").unwrap(), "worker web", "{node}");
            match how {
                "suicide" => drop(app.does(&["send", "web", "\"suicide\""])),
                "signal" => signal_process(app.pids()[0], Signal::TERM),
                _ => drop(app.does(&["recycle", "web"])),
            }
            let ended = cluster.event("worker_ended", 1);
            assert_eq!((&ended["code"], &ended["forced"]), (&json!(0), &json!(false)), "{node}, {how}");
            app.until("its successor is ready", |log| named(log, "worker_ready") == 2);
            let log = app.log();
            let prepared = lines(&log).contains(&"prepares".to_owned());
            assert_eq!(prepared, how != "disconnect", "{node}, {how}");
            assert_eq!(named(&log, "worker_death"), 0, "{node}, {how}");
            assert!(get(("127.0.0.1", port), "/").is_ok());
        }
    });
}

/// Check 41.
#[test]
fn what_is_for_operators_is_told_apart() {
    each(|node| {
        let Some(cluster) = web(node, free_port(), "") else { return };
        let watch = Watch::of(&cluster.app);
        cluster.app.does(&["send", "web", "\"report\""]);
        watch.until_said(&json!({"type": "other"}), 1);
        let log = watch.until("its numbers", |log| named(log, "worker_ops") == 1);
        let ops = log.iter().find(|event| event["event"] == "worker_ops").unwrap();
        assert_eq!(ops["message"], json!({"type": "ops", "data": 1}), "{node}");
    });
}
