//! Connections that the broker accepts and hands over in turn: what becomes of those that a worker does not take.

use super::*;

/// Check 36: whoever is closed meanwhile refuses, and another one serves.
#[test]
fn a_connection_for_a_server_that_has_just_closed_is_served_by_another() {
    each(|node| {
        let port = free_port();
        let cluster = Cluster::asked(node, 2, &ROUND_ROBIN.of(port));
        let listen = format!("return kept.listen(kept.web(), {port})");
        cluster.tell_all(2, &listen);
        for _ in 0..5 {
            // Half of them come to a worker that is busy closing.
            let close = "return new Promise(closed => kept.servers.pop().close(() => closed(1)))";
            let clients: Vec<_> =
                (0..10).map(|_| std::thread::spawn(move || get(("127.0.0.1", port), "/"))).collect();
            cluster.tell(0, close);
            for client in clients {
                client.join().unwrap().unwrap();
            }
            for _ in 0..4 {
                assert_eq!(get(("127.0.0.1", port), "/").unwrap(), "worker 2", "{node}");
            }
            cluster.tell(0, &listen);
        }
    });
}

/// Check 37: the second client waits, and nobody spins for it.
#[test]
fn a_server_that_is_full_takes_the_next_connection_when_it_has_room() {
    each(|node| {
        let port = free_port();
        let cluster = Cluster::asked(node, 1, &ROUND_ROBIN.of(port));
        let listen =
            format!("const web = kept.web(); web.maxConnections = 1; return kept.listen(web, {port})");
        cluster.tell(0, &listen);
        let mut first = TcpStream::connect(("127.0.0.1", port)).unwrap();
        first.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        first.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n").unwrap();
        cluster.tell(0, ONE_IS_THERE);
        let second = std::thread::spawn(move || get(("127.0.0.1", port), "/"));
        // What is on the channel while it waits, as the worker reads it.
        let count = "const before = fs.readFileSync('/proc/self/io', 'utf8').match(/syscr: (\\d+)/)[1];
            await new Promise(over => setTimeout(over, 1000));
            return fs.readFileSync('/proc/self/io', 'utf8').match(/syscr: (\\d+)/)[1] - before";
        let reads = cluster.tell(0, count).as_u64().unwrap();
        assert!(reads < 300, "{node}: {reads} reads in a second");
        assert!(!second.is_finished(), "{node}: it waits");
        first.write_all(b"\r\n").unwrap();
        assert_eq!(body(&mut first).unwrap(), "worker 1", "{node}");
        assert_eq!(second.join().unwrap().unwrap(), "worker 1", "{node}");
    });
}

const ONE_IS_THERE: &str =
    "while (await new Promise(count => kept.servers[0].getConnections((_, is) => count(is))) < 1);";
