//! Checks 42 and 43: a program that is fully started waits at the door, since the answer to its `listen` is withheld.

use rustix::process::Signal;
use shiftboss_api::WorkerState;

use super::*;
use crate::load::*;

const STANDBY: &str = "standby = 1\n";

fn pids(cluster: &Cluster, state: WorkerState) -> Vec<u32> {
    let workers = cluster.app.status().brokers.remove(0).workers;
    workers.into_iter().filter(|worker| worker.state == state).filter_map(|worker| worker.pid).collect()
}

fn standbys(cluster: &Cluster) -> Vec<u32> {
    pids(cluster, WorkerState::Standby)
}

fn serving(cluster: &Cluster) -> Vec<u32> {
    pids(cluster, WorkerState::Ready)
}

fn with_standby(node: &Node, balance: Balance, port: u16) -> Cluster {
    let more = STANDBY.to_owned() + &balance.of(port);
    let cluster = Cluster::ready(node, &["web.js", &port.to_string()], 2, &more);
    cluster.app.until_event("worker_standby", 1);
    cluster
}

/// Check 42.
#[test]
fn a_death_is_repaired_by_whoever_waits_at_the_door_and_nobody_is_refused() {
    let _alone = alone();
    each_way(|node, balance| {
        let port = free_port();
        let cluster = with_standby(node, balance, port);
        let waiting = standbys(&cluster);
        let mut load = Load::on(port, &["--rate", "50", "--no-keep-alive"]);
        let victim = serving(&cluster)[0];
        let killed = load.now();
        signal_process(victim, Signal::KILL);
        let log = cluster.app.until("it serves in its place", |log| {
            named(log, "worker_promoted") == 1 && named(log, "worker_ready") == 3
        });
        load.a_second();
        let repaired = load.now();
        let promoted = log.iter().find(|event| event["event"] == "worker_promoted").unwrap();
        assert_eq!((&promoted["pid"], &promoted["slot"]), (&json!(waiting[0]), &json!(0)), "{node}");
        cluster.app.until_event("worker_standby", 2);
        load.a_second();
        load.a_second();
        let counts = load.end();
        // Nothing but what the killed worker had in hand.
        assert_eq!(counts["refused"], 0, "{node} {balance:?}: {counts}");
        failed_only_in(&counts, &[killed..=repaired]);
        assert!(cluster.app.stop().0.success());
    });
}

#[test]
fn a_recycle_lets_those_in_who_were_started_for_it() {
    each(|node| {
        let port = free_port();
        let cluster = with_standby(node, SHARED, port);
        let before = standbys(&cluster);
        cluster.app.does(&["recycle", "web"]);
        let log = cluster.app.until("it has ended", |log| named(log, "recycle_finished") == 1);
        // Whoever waited from before may be what the files were before.
        let promoted = log.iter().filter(|event| event["event"] == "worker_promoted");
        assert!(promoted.map(|event| &event["pid"]).all(|pid| *pid != json!(before[0])), "{node}");
        get(("127.0.0.1", port), "/").unwrap();
        cluster.app.until("one waits again", |_| !standbys(&cluster).is_empty());
        assert!(cluster.app.stop().0.success());
    });
}

#[test]
fn whoever_waits_at_the_door_is_let_in_by_the_next_broker_process_too() {
    each(|node| {
        let port = free_port();
        let cluster = with_standby(node, SHARED, port);
        let waiting = standbys(&cluster);
        cluster.app.kill_broker();
        cluster.app.until_event("broker_adopted", 1);
        assert_eq!(standbys(&cluster), waiting, "{node}");
        signal_process(serving(&cluster)[0], Signal::KILL);
        cluster.app.until("it serves in its place", |log| {
            named(log, "worker_promoted") == 1 && named(log, "worker_ready") == 3
        });
        assert!(serving(&cluster).contains(&waiting[0]), "{node}");
        get(("127.0.0.1", port), "/").unwrap();
        assert!(cluster.app.stop().0.success());
    });
}

/// Check 43.
#[test]
fn whoever_waits_at_the_door_leaves_when_it_is_told_to() {
    each(|node| {
        let port = free_port();
        let more = format!("{STANDBY}{PATIENT}{}", SHARED.of(port));
        let cluster = Cluster::ready(node, &["web.js", &port.to_string()], 2, &more);
        cluster.app.until_event("worker_standby", 1);
        cluster.app.does(&["drain", "web"]);
        let log = cluster.app.until("all have left", |log| named(log, "worker_ended") == 3);
        let ended = log.iter().filter(|event| event["event"] == "worker_ended");
        assert!(ended.clone().all(|event| event["code"] == 0), "{node}");
        assert_eq!(ended.filter(|event| event["slot"].is_null()).count(), 1, "{node}");
        cluster.app.does(&["resume", "web"]);
        cluster.app.until_event("worker_standby", 2);
        assert!(cluster.app.stop().0.success());
    });
}

/// A slot that no worker was started for has its lane all the same.
#[test]
fn more_workers_come_from_the_door_in_each_way() {
    each_way(|node, balance| {
        let port = free_port();
        let more = "standby = 2\n".to_owned() + &balance.of(port);
        let cluster = Cluster::ready(node, &["web.js", &port.to_string()], 1, &more);
        cluster.app.until_event("worker_standby", 2);
        cluster.app.does(&["scale", "web", "3"]);
        // The log may come after the answer.
        let log = cluster.app.until_event("worker_promoted", 2);
        assert_eq!(named(&log, "worker_death"), 0, "{node} {balance:?}");
        let mut served = std::collections::BTreeSet::new();
        eventually("each serves", || {
            served.insert(get(("127.0.0.1", port), "/").unwrap());
            served.len() == 3
        });
    });
}

/// A listener that nobody has is not closed while somebody at the door waits for it.
#[test]
fn what_somebody_at_the_door_waits_for_stays_open() {
    each(|node| {
        let port = free_port();
        let script = programs().join("lets_go.js");
        let command = [node.path(), script.to_str().unwrap(), &port.to_string()];
        // The next one is at the door before its predecessor in the slot leaves, however slowly it starts.
        let two = format!(
            "[broker.two]\ncommand = {command:?}\nkind = \"node\"\nstandby = 1\nrecycle = {{ min_ready = \"5s\" }}\n"
        );
        let cluster = Cluster::asked(node, 1, &two);
        cluster.app.until_event("worker_standby", 1);
        cluster.tell(0, &format!("return kept.listen(kept.web(), {port})"));
        for _ in 0..2 {
            cluster.app.does(&["recycle", "web"]);
        }
        assert_eq!(named(&cluster.app.log(), "listener_closed"), 0, "{node}");
        cluster.app.does(&["recycle", "two"]);
        assert_eq!(named(&cluster.app.log(), "listener_bound"), 1, "{node}: it was the same for all");
        assert!(cluster.app.stop().0.success());
    });
}
