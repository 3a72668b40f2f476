//! Servers that encrypt: what their tickets are made with is the same in all workers, and outlives each.

use std::collections::BTreeSet;

use super::*;

/// With a key that both sides know, so that no certificate is needed.
const TLS: &str = "const key = Buffer.from('01234567890123456789012345678901');
    const options = { ciphers: 'PSK', maxVersion: 'TLSv1.2' };
    const server = kept.server = https.createServer({ ...options, pskCallback: () => key },
      (request, response) => response.end(`worker ${cluster.worker.id}`));
    kept.get = port => new Promise((resolve, reject) => https.get({ ...options, port, host: '127.0.0.1', agent: false,
      checkServerIdentity: () => {}, pskCallback: () => ({ psk: key, identity: 'x' }) },
      response => response.on('data', text => resolve(String(text)))).on('error', reject));";
const KEYS: &str = "return kept.server.getTicketKeys().toString('hex')";

/// Check 38.
#[test]
fn all_workers_have_the_same_keys_for_tickets() {
    each_way(|node, balance| {
        let port = free_port();
        let cluster = Cluster::asked(node, 2, &balance.of(port));
        let listen = format!("{TLS} return kept.listen(server, {port})");
        cluster.tell_all(2, &listen);
        let keys = cluster.tell_all(2, KEYS);
        assert_eq!((keys[0].as_str().unwrap().len(), &keys[0]), (96, &keys[1]), "{node}, {balance:?}");
        let mut served = BTreeSet::new();
        eventually("both have served", || {
            served.insert(cluster.tell(0, &format!("return kept.get({port})")).to_string());
            served.len() == 2
        });
        cluster.app.kill_broker();
        cluster.app.until_event("broker_adopted", 1);
        signal_process(cluster.app.pids()[1], rustix::process::Signal::KILL);
        cluster.app.until("its successor is ready", |log| named(log, "worker_ready") == 3);
        cluster.tell(1, &listen);
        assert_eq!(cluster.tell(1, KEYS), keys[0], "{node}: a successor of both has them");
    });
}
