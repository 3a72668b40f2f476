//! What is expected of a worker is what the one that serves in its slot does, whatever others do that leave or have failed.

use super::*;

/// Workers that listen on the second port so much later than on the first; with this ladder, which says nothing first.
const LATER: u64 = 1500;
const LADDER: &str = "stop = [{ signal = \"TERM\", wait = \"7s\" }]\n";

fn second(node: &Node, more: &str) -> Cluster {
    let ports = [free_port(), free_port()].map(|port| port.to_string());
    let more = format!("cwd = \"FOLDER\"\n{LADDER}{more}");
    let cluster = Cluster::ready(node, &["second.js", &ports[0], &ports[1]], 1, &more);
    eventually("it listens on both", || get(("127.0.0.1", ports[1].parse().unwrap()), "/").is_ok());
    cluster
}

/// Recycles it: whoever comes is ready once it listens on both.
fn waits_for_both(cluster: &Cluster, ready: usize) {
    cluster.app.does(&["recycle", "web"]);
    let took = cluster.event("worker_ready", ready)["ready_ms"].as_f64().unwrap();
    // By its start as the broker process has heard of it.
    assert!(took >= LATER as f64 / 2.0, "ready after {took} ms");
}

#[test]
fn whoever_is_asked_to_leave_by_a_signal_closes_its_servers_and_the_same_is_expected_of_the_next_one() {
    each(|node| {
        let cluster = second(node, "");
        for ready in 2..=3 {
            waits_for_both(&cluster, ready);
            // All that it has closed is heard by then.
            cluster.app.until_event("worker_ended", ready - 1);
        }
    });
}

#[test]
fn what_a_successor_that_has_failed_did_is_expected_of_nobody_after_an_adoption() {
    each(|node| {
        let cluster = second(node, "recycle = { deadline = \"9s\" }\n");
        std::fs::write(cluster.app.path("half"), "").unwrap();
        assert!(!cluster.app.ask(&["recycle", "web"]).status.success(), "{node}: it is late");
        // It is leaving, and takes its time.
        cluster.app.kill_broker();
        cluster.app.until_event("broker_adopted", 1);
        std::fs::remove_file(cluster.app.path("half")).unwrap();
        cluster.app.until_event("worker_death", 1);
        waits_for_both(&cluster, 2);
    });
}
