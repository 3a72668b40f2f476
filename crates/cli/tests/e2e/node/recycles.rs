//! Promise 1 with servers that know nothing: no signal, no message, nothing but `listen`.

use super::*;
use crate::load::*;

fn is_recycled_under_load(more: &[&str]) {
    let _alone = alone();
    each_way(|node, balance| {
        let port = free_port();
        let cluster = Cluster::ready(node, &["web.js", &port.to_string()], 2, &balance.of(port));
        let mut load = Load::on(port, &[&["--rate", "50"], more].concat());
        load.a_second();
        let said = cluster.app.does(&["recycle", "web"]);
        assert!(said.contains("2 of 2") && said.contains("none was stopped"), "{node}: {said}");
        load.a_second();
        let counts = load.end();
        // Node closes idle connections when it is told to leave: a request may be on its way on one, and a client tries again.
        assert_eq!((&counts["failed"], &counts["refused"]), (&json!(0), &json!(0)), "{node}: {counts}");
        let log = cluster.app.log();
        assert_eq!((named(&log, "worker_ended"), named(&log, "worker_death")), (2, 0), "{node}");
    });
}

#[test]
fn a_recycle_loses_no_request_with_a_connection_for_each() {
    is_recycled_under_load(&["--no-keep-alive"]);
}

#[test]
fn a_recycle_loses_no_request_with_keep_alive() {
    is_recycled_under_load(&[]);
}
