//! Connections that the broker accepts and hands over in turn: what becomes of those that a worker does not take.

use std::io::Read as _;
use std::time::Instant;

use rustix::process::Signal;

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

/// A server that takes one connection at a time.
fn takes_one(port: u16) -> String {
    format!("const web = kept.web(); web.maxConnections = 1; return kept.listen(web, {port})")
}

/// Check 37: the second client waits, and nobody spins for it.
#[test]
fn a_server_that_is_full_takes_the_next_connection_when_it_has_room() {
    each(|node| {
        let port = free_port();
        let cluster = Cluster::asked(node, 1, &ROUND_ROBIN.of(port));
        cluster.tell(0, &takes_one(port));
        let mut first = half_asked(port);
        cluster.tell(0, ONE_IS_THERE);
        let second = std::thread::spawn(move || get(("127.0.0.1", port), "/"));
        // How often the worker has waited meanwhile, and been woken up again.
        let count = "const waits = () => fs.readFileSync('/proc/self/status', 'utf8').match(/\\nvoluntary_ctxt_switches:\\s+(\\d+)/)[1];
            const before = waits();
            await new Promise(over => setTimeout(over, 1000));
            return waits() - before";
        let waits = cluster.tell(0, count).as_u64().unwrap();
        assert!(waits < 100, "{node}: woken up {waits} times in a second");
        assert!(!second.is_finished(), "{node}: it waits");
        first.write_all(b"\r\n").unwrap();
        assert_eq!(body(&mut first).unwrap(), "worker 1", "{node}");
        assert_eq!(second.join().unwrap().unwrap(), "worker 1", "{node}");
    });
}

/// Nobody takes it any more.
#[test]
fn a_connection_that_all_have_refused_is_reset_and_counted_when_they_are_drained() {
    each(|node| {
        let port = free_port();
        let cluster = Cluster::asked(node, 1, &ROUND_ROBIN.of(port));
        cluster.tell(0, &takes_one(port));
        let mut first = half_asked(port);
        cluster.tell(0, ONE_IS_THERE);
        let mut second = TcpStream::connect(("127.0.0.1", port)).unwrap();
        second.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let own = second.local_addr().unwrap().port();
        eventually("it is accepted", || is_accepted(port, own));
        std::thread::scope(|scope| {
            let drains = scope.spawn(|| cluster.app.does(&["drain", "web"]));
            cluster.app.until_event("worker_stopping", 1);
            first.write_all(b"\r\n").unwrap();
            assert_eq!(body(&mut first).unwrap(), "worker 1", "{node}");
            let said = drains.join().unwrap();
            assert!(said.contains("1 was reset"), "{node}: {said}");
        });
        assert_eq!(cluster.event("broker_drained", 1)["refused"], 1, "{node}");
        let got = second.read(&mut [0]);
        assert!(got.as_ref().is_err_and(is_cut), "{node}: {got:?}");
    });
}

/// Who is at its `maxConnections` refuses, and is asked again, also while another one has not answered.
#[test]
fn a_connection_that_one_refuses_does_not_wait_for_another_that_is_busy() {
    each(|node| {
        let port = free_port();
        let cluster = Cluster::asked(node, 2, &ROUND_ROBIN.of(port));
        cluster.tell(0, &takes_one(port));
        let mut first = half_asked(port);
        cluster.tell(0, ONE_IS_THERE);
        cluster.tell(1, &format!("return kept.listen(kept.web(), {port})"));
        // One is with the worker that is stopped, one is refused by the other.
        let stopped = cluster.app.pids()[1];
        signal_process(stopped, Signal::STOP);
        let mut clients: Vec<_> = (0..2).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        for client in &mut clients {
            client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let own = client.local_addr().unwrap().port();
            eventually("it is accepted", || is_accepted(port, own));
        }
        // What it was handed before, it has refused by now.
        cluster.tell(0, "return 1");
        first.write_all(b"\r\n").unwrap();
        assert_eq!(body(&mut first).unwrap(), "worker 1", "{node}");
        let served = |client: &TcpStream| client.peek(&mut [0]).is_ok();
        clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
        eventually("the other one is served", || clients.iter().any(served));
        signal_process(stopped, Signal::CONT);
        eventually("both are served", || clients.iter().all(served));
    });
}

/// It has its turn at what it was offered last, though it is dead when that is heard.
#[test]
fn a_connection_that_a_dead_worker_has_taken_is_nobody_elses() {
    each(|node| {
        let port = free_port();
        let cluster = Cluster::asked(node, 2, &ROUND_ROBIN.of(port));
        let deadly = "http.createServer(() => process.kill(process.pid, 'SIGKILL'))";
        cluster.tell_all(2, &format!("return kept.listen({deadly}, {port})"));
        let (workers, broker) = (cluster.app.pids(), cluster.app.broker_pid());
        workers.iter().for_each(|worker| signal_process(*worker, Signal::STOP));
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let own = client.local_addr().unwrap().port();
        eventually("it is accepted", || is_accepted(port, own));
        signal_process(broker, Signal::STOP);
        workers.iter().for_each(|worker| signal_process(*worker, Signal::CONT));
        let mut stopped = Instant::now();
        eventually("who has taken it is dead", || {
            if stopped.elapsed() > Duration::from_secs(1) {
                // It may have been stopped before it had offered it to anybody.
                signal_process(broker, Signal::CONT);
                std::thread::sleep(Duration::from_millis(5));
                signal_process(broker, Signal::STOP);
                stopped = Instant::now();
            }
            workers.iter().any(|worker| is_gone(*worker))
        });
        signal_process(broker, Signal::CONT);
        let got = client.read(&mut [0; 100]);
        assert!(matches!(&got, Ok(0)) || got.as_ref().is_err_and(is_cut), "{node}: {got:?}");
    });
}

fn is_cut(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionReset
}

/// Nobody of the new shift asks for the other port when the old one has left, and it is closed.
#[test]
fn connections_are_heard_of_when_another_listener_was_closed() {
    each(|node| {
        let (port, other) = (free_port(), free_port());
        let program = ["probes.js", &port.to_string(), &other.to_string()];
        let cluster = Cluster::ready(node, &program, 2, &ROUND_ROBIN.of(port));
        for closed in 1..=2 {
            cluster.app.does(&["recycle", "web"]);
            cluster.app.until_event("listener_closed", closed);
            assert_eq!(get(("127.0.0.1", port), "/").unwrap(), "worker", "{node}");
        }
    });
}

const ONE_IS_THERE: &str = "while (await new Promise(count => setTimeout(() => kept.servers[0].getConnections((_, is) => count(is)))) < 1);";
