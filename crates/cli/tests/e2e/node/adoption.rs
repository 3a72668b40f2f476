//! The broker process is killed in the midst of all of it: its successor plays the same primary.

use super::*;
use crate::load::*;

fn is_killed(cluster: &Cluster, times: usize) {
    cluster.app.kill_broker();
    cluster.app.until_event("broker_adopted", times);
}

#[test]
fn a_successor_answers_whatever_the_workers_ask_then() {
    each_way(|node, balance| {
        for how in ["json", "advanced"] {
            let port = free_port();
            let more = format!("serialization = \"{how}\"\n{}", balance.of(port));
            let cluster = Cluster::asked(node, 2, &more);
            let before = cluster.app.pids();
            let listen = format!("return kept.listen(kept.web(), {port})");
            cluster.tell_all(2, &listen);
            let any = "return (await kept.listen(kept.web(), 0)).port";
            let first = cluster.tell(0, any);
            is_killed(&cluster, 1);
            get(("127.0.0.1", port), "/").unwrap();
            assert_eq!(cluster.tell(1, any), first, "{node}: the first of any port is still the same");
            assert_ne!(cluster.tell(0, any), first, "{node}");
            assert_eq!(cluster.told(0, &listen).unwrap_err()["code"], "EADDRINUSE", "{node}: it has that");
            // What it was given before is closed, and asked for again.
            let again = format!(
                "await new Promise(closed => kept.servers.shift().close(closed)); return kept.listen(kept.web(), {port})"
            );
            cluster.tell_all(2, &again);
            is_killed(&cluster, 2);
            get(("127.0.0.1", port), "/").unwrap();
            cluster.tell(1, "kept.soon(() => cluster.worker.disconnect())");
            cluster.app.until("its successor is ready", |log| named(log, "worker_ready") == 3);
            assert_eq!(cluster.event("worker_ended", 1)["code"], 0, "{node}, {how}: it was answered");
            cluster.tell(1, &listen);
            is_killed(&cluster, 3);
            let said = cluster.app.does(&["recycle", "web"]);
            assert!(said.contains("2 of 2") && said.contains("none was stopped"), "{node}: {said}");
            assert_eq!(named(&cluster.app.log(), "worker_death"), 0, "{node}, {how}");
            assert!(cluster.app.pids().iter().all(|pid| !before.contains(pid)), "{node}");
        }
    });
}

/// Between question and answer: it is killed while all ask at once.
#[test]
fn a_worker_that_asks_while_nobody_is_there_is_answered() {
    each_way(|node, balance| {
        let port = free_port();
        let cluster = Cluster::asked(node, 2, &balance.of(port));
        for round in 1..=3 {
            let broker = cluster.app.broker_pid();
            let ask = format!(
                "process.kill({broker}, 'SIGKILL');
                 const port = (await kept.listen(kept.web(), 0)).port;
                 await kept.listen(kept.web(), {});
                 return port",
                free_port()
            );
            let port = cluster.tell(round % 2, &ask).as_u64().unwrap();
            cluster.app.until_event("broker_adopted", round as usize);
            get(("127.0.0.1", u16::try_from(port).unwrap()), "/").unwrap();
        }
        assert_eq!(named(&cluster.app.log(), "worker_death"), 0, "{node}");
    });
}

#[test]
fn killed_again_and_again_under_load_it_loses_no_request() {
    let _alone = alone();
    each_way(|node, balance| {
        let port = free_port();
        let cluster = Cluster::ready(node, &["web.js", &port.to_string()], 2, &balance.of(port));
        let before = cluster.app.pids();
        let mut load = Load::on(port, &["--rate", "50", "--no-keep-alive"]);
        for times in 1..=3 {
            // One that dies within a second of its beginning is slowed down by its keeper.
            load.a_second();
            load.a_second();
            is_killed(&cluster, times);
        }
        load.a_second();
        let counts = load.end();
        if balance == ROUND_ROBIN {
            // One that was accepted in the very moment is lost with the broker process; that is told, and counted.
            assert!(counts["failed"].as_u64() <= Some(5), "{node}: {counts}");
        } else {
            none_lost(&counts);
        }
        assert_eq!(cluster.app.pids(), before, "{node}");
        assert_eq!(named(&cluster.app.log(), "worker_death"), 0);
    });
}
