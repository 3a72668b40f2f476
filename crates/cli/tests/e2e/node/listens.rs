//! Where workers listen: they ask for it, and all who ask for the same have the same.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use serde_json::json;

use rustix::process::Signal;

use super::*;
use crate::nothing_is_left_behind::descriptors;

/// Check 2.
#[test]
fn two_workers_serve_one_port() {
    each_way(|node, balance| {
        for how in ["json", "advanced"] {
            let port = free_port();
            let more = format!("serialization = \"{how}\"\n{}", balance.of(port));
            let cluster = Cluster::ready(node, &["web.js", &port.to_string()], 2, &more);
            let mut served = BTreeMap::new();
            eventually("both have served", || {
                *served.entry(get(("127.0.0.1", port), "/").unwrap()).or_insert(0) += 1;
                served.values().sum::<u32>() >= 40 && served.len() == 2
            });
            assert_eq!(served.keys().collect::<Vec<_>>(), ["worker 1", "worker 2"], "{balance:?}");
            if balance == ROUND_ROBIN {
                assert_eq!(served.values().copied().collect::<Vec<u32>>(), [20, 20], "{node}");
            }
            assert!(cluster.app.stop().0.success());
        }
    });
}

/// Checks 3 and 6.
#[test]
fn a_server_knows_where_it_listens() {
    each(|node| {
        let cluster = Cluster::asked(node, 1, "");
        for (host, address, family, others) in [
            ("", "::", "IPv6", &["127.0.0.1", "::1"][..]),
            ("127.0.0.1", "127.0.0.1", "IPv4", &["127.0.0.1"]),
            ("localhost", "", "", &["localhost"]),
            ("::1", "::1", "IPv6", &["::1"]),
            ("0.0.0.0", "0.0.0.0", "IPv4", &["127.0.0.1"]),
        ] {
            let port = free_port();
            let host = if host.is_empty() { "undefined".to_owned() } else { format!("'{host}'") };
            let told = cluster.tell(0, &format!("return kept.listen(kept.web(), {port}, {host})"));
            if !address.is_empty() {
                assert_eq!(told, json!({"address": address, "family": family, "port": port}), "{node}");
            }
            for client in others {
                assert_eq!(get((*client, port), "/").unwrap(), "worker 1", "{host} from {client}");
            }
        }
    });
}

/// Checks 4 and 5.
#[test]
fn any_port_is_the_same_one_for_all_workers_and_another_one_each_time() {
    each(|node| {
        let cluster = Cluster::asked(node, 2, "");
        let any = "const at = [];
            for (const _ of [1, 2]) at.push((await kept.listen(kept.web(), 0)).port);
            return at";
        let ports = cluster.tell_all(2, any);
        assert_eq!(ports[0], ports[1], "{node}");
        let ports: Vec<u16> = serde_json::from_value(ports[0].clone()).unwrap();
        assert!(ports[0] != ports[1] && !ports.contains(&0), "{ports:?}");
        for port in ports {
            get(("127.0.0.1", port), "/").unwrap();
            cluster.app.until("its address is told", |log| {
                let bound = |event: &&Value| event["event"] == "listener_bound";
                log.iter().filter(bound).any(|event| event["address"] == format!("tcp://:{port}"))
            });
        }
    });
}

/// Check 9.
#[test]
fn datagrams_go_to_whoever_takes_them_and_one_that_closes_leaves_them_to_the_others() {
    each(|node| {
        let cluster = Cluster::asked(node, 2, "");
        let port = free_port();
        let bind = format!(
            "const udp = kept.udp = dgram.createSocket('udp4');
             udp.on('message', (text, from) => udp.send(text, from.port, from.address));
             return kept.bind(udp, {port}, '127.0.0.1')"
        );
        cluster.tell_all(2, &bind);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let echoes = |count: u8| {
            for sent in 0..count {
                client.send_to(&[sent], ("127.0.0.1", port)).unwrap();
                let mut came = [0];
                client.recv_from(&mut came).unwrap();
                assert_eq!(came, [sent], "{node}");
            }
        };
        echoes(40);
        cluster.tell(0, "return new Promise(closed => kept.udp.close(() => closed(1)))");
        echoes(20);
    });
}

/// Checks 10 and 11: these ask nobody.
#[test]
fn a_worker_may_listen_for_itself() {
    each(|node| {
        let cluster = Cluster::asked(node, 2, "");
        let alone = format!("return kept.listen(kept.web(), {{ port: {}, exclusive: true }})", free_port());
        cluster.tell(0, &alone);
        assert_eq!(cluster.told(1, &alone).unwrap_err()["code"], "EADDRINUSE", "{node}");
        let reused = format!("return kept.listen(kept.web(), {{ port: {}, reusePort: true }})", free_port());
        cluster.tell_all(2, &reused);
        // Older ones do not know the word, and share.
        let bound = usize::from(node.line() < 22);
        assert_eq!(named(&cluster.app.log(), "listener_bound"), bound, "{node}");
    });
}

/// Checks 12 and 13.
#[test]
fn what_cannot_be_had_is_an_error_as_the_kernel_has_it_and_may_be_had_later() {
    each(|node| {
        let cluster = Cluster::asked(node, 1, "");
        let stranger = TcpListener::bind(("0.0.0.0", free_port())).unwrap();
        let port = stranger.local_addr().unwrap().port();
        let listen = format!("return kept.listen(kept.web(), {port})");
        let error = cluster.told(0, &listen).unwrap_err();
        let members = [&error["code"], &error["syscall"], &error["port"]];
        assert_eq!(members, [&json!("EADDRINUSE"), &json!("bind"), &json!(port)], "{node}: {error}");
        for (at, code) in [
            ("{ path: '/sys/kernel/no.sock' }", "EACCES"),
            ("{ port: 1, host: '203.0.113.1' }", "EADDRNOTAVAIL"),
            // A descriptor of the primary's is not lent.
            ("{ fd: 1 }", "EINVAL"),
            // An abstract name, which comes as a path.
            (r"{ path: '\0name' }", "EINVAL"),
        ] {
            let error = cluster.told(0, &format!("return kept.listen(kept.web(), {at})")).unwrap_err();
            assert_eq!(error["code"], code, "{node}, {at}: {error}");
        }
        drop(stranger);
        cluster.tell(0, &listen);
        assert_eq!(get(("127.0.0.1", port), "/").unwrap(), "worker 1");
    });
}

/// Checks 14 and 15.
#[test]
fn a_server_that_is_closed_leaves_its_port_to_the_next_one_and_clients_wait_meanwhile() {
    each_way(|node, balance| {
        let port = free_port();
        let cluster = Cluster::asked(node, 1, &balance.of(port));
        let listen = format!("return kept.listen(kept.web(), {port})");
        cluster.tell(0, &listen);
        assert_eq!(cluster.told(0, &listen).unwrap_err()["code"], "EADDRINUSE", "{node}");
        assert_eq!(get(("127.0.0.1", port), "/").unwrap(), "worker 1", "the first one serves on");
        cluster.tell(0, "return new Promise(closed => kept.servers[0].close(() => closed(1)))");
        let client = std::thread::spawn(move || get(("127.0.0.1", port), "/"));
        cluster.tell(0, &listen);
        assert_eq!(client.join().unwrap().unwrap(), "worker 1", "{node}, {balance:?}");
        get(("127.0.0.1", port), "/").unwrap();
    });
}

/// Check 44.
#[test]
fn clients_that_come_while_nobody_is_there_are_served_by_the_next_worker() {
    each_way(|node, balance| {
        let port = free_port();
        let more = format!("drained = \"hold\"\n{}", balance.of(port));
        let cluster = Cluster::ready(node, &["web.js", &port.to_string()], 1, &more);
        cluster.app.does(&["drain", "web"]);
        let clients: Vec<_> =
            (0..5).map(|_| std::thread::spawn(move || get(("127.0.0.1", port), "/"))).collect();
        cluster.app.does(&["resume", "web"]);
        for client in clients {
            assert_eq!(client.join().unwrap().unwrap(), "worker 2", "{node}, {balance:?}");
        }
    });
}

/// Brokers that listen at the same port have the same listener, whoever's it is.
#[test]
fn a_listener_serves_one_broker_while_another_that_uses_it_is_drained() {
    each(|node| {
        let port = free_port();
        let app = two_at(node, port);
        let serves = || get(("127.0.0.1", port), "/").unwrap();
        for (first, second) in [("one", "two"), ("two", "one")] {
            app.does(&["drain", first]);
            serves();
            app.does(&["recycle", second]);
            serves();
            app.does(&["drain", second]);
            let refused = TcpStream::connect(("127.0.0.1", port)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{node}: nobody is left");
            app.does(&["resume", second]);
            serves();
            app.does(&["resume", first]);
            serves();
        }
        assert_eq!(named(&app.log(), "listener_bound"), 1, "{node}");
        app.stop();
    });
}

/// Two brokers whose workers listen at the same port.
fn two_at(node: &Node, port: u16) -> App {
    let script = programs().join("web.js");
    let command = [node.path(), script.to_str().unwrap(), &port.to_string()];
    let broker = |name| format!("[broker.{name}]\ncommand = {command:?}\nkind = \"node\"\n");
    App::ready(&format!("app = \"node\"\n{}{}", broker("one"), broker("two")))
}

/// That the one whose it is was drained is not forgotten with the broker process.
#[test]
fn a_successor_shuts_a_listener_of_a_drained_broker_with_the_last_one_that_uses_it() {
    each(|node| {
        let port = free_port();
        let app = two_at(node, port);
        let drained = |name| {
            app.does(&["drain", name]);
            let refused = TcpStream::connect(("127.0.0.1", port)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{node}: nobody is left");
        };
        let mut adopted = 0;
        let mut dies = || {
            adopted += 2;
            app.kill_broker();
            app.until_event("broker_adopted", adopted);
        };
        for (first, second) in [("one", "two"), ("two", "one")] {
            app.does(&["drain", first]);
            dies();
            get(("127.0.0.1", port), "/").unwrap();
            drained(second);
            dies();
            app.does(&["resume", second]);
            get(("127.0.0.1", port), "/").unwrap();
            drained(second);
            app.does(&["resume", second]);
            app.does(&["resume", first]);
        }
    });
}

/// [`two_at`], of which the one whose listener both use is drained; the name of the other.
fn borrower_at(node: &Node, port: u16) -> (App, &'static str) {
    let app = two_at(node, port);
    let status = app.status();
    let lends = |name| status.brokers.iter().any(|broker| broker.name == name && !broker.listen.is_empty());
    let (lender, borrower) = if lends("one") { ("one", "two") } else { ("two", "one") };
    app.does(&["drain", lender]);
    (app, borrower)
}

/// As while the one whose it is is drained.
#[test]
fn whoever_comes_while_the_last_that_uses_a_listener_is_drained_waits_and_is_refused_then() {
    each(|node| {
        let port = free_port();
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let (app, borrower) = borrower_at(node, port);
        let mut first = half_asked(port);
        let own = first.local_addr().unwrap().port();
        eventually("it is accepted", || is_accepted(port, own));
        std::thread::scope(|scope| {
            let drains = scope.spawn(|| app.does(&["drain", borrower]));
            app.until_event("worker_stopping", 2);
            let waits = TcpStream::connect_timeout(&at, Duration::from_millis(300)).unwrap_err();
            assert_eq!(waits.kind(), io::ErrorKind::TimedOut, "{node}");
            first.write_all(b"\r\n").unwrap();
            body(&mut first).unwrap();
            drains.join().unwrap();
        });
        let log = app.until_event("broker_drained", 2);
        assert!(
            log.iter().all(|event| event["event"] != "broker_drained" || event["refused"] == 0),
            "{node}"
        );
        let refused = TcpStream::connect(at).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{node}");
        app.does(&["resume", borrower]);
        get(at, "/").unwrap();
    });
}

#[test]
fn a_drain_that_is_given_up_lets_clients_in_where_it_uses_a_listener_of_a_drained_broker() {
    // What nobody takes keeps the drain where it is for two seconds, which a busy machine may take for something else.
    each(|node| assert!((0..10).any(|_| is_given_up_in_time(node)), "{node}: never within two seconds"));
}

fn is_given_up_in_time(node: &Node) -> bool {
    let port = free_port();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let (app, borrower) = borrower_at(node, port);
    let status = app.status();
    let worker = status.brokers.iter().find_map(|broker| broker.workers.first()?.pid).unwrap();
    signal_process(worker, Signal::STOP);
    let queued = TcpStream::connect(at).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| app.ask(&["drain", borrower]));
        app.until_event("broker_draining", 2);
        app.does(&["resume", borrower]);
    });
    signal_process(worker, Signal::CONT);
    get(at, "/").unwrap();
    drop(queued);
    let is_asked_to_leave = named(&app.log(), "worker_stopping") > 1;
    let stays =
        app.status().brokers.iter().any(|broker| broker.workers.iter().any(|of| of.pid == Some(worker)));
    assert!(stays || is_asked_to_leave, "{node}");
    !is_asked_to_leave
}

#[test]
fn a_listener_is_closed_after_a_recycle_of_the_last_broker_that_used_it() {
    each(|node| {
        let port = free_port();
        let script = programs().join("asked.js");
        let two = format!(
            "[broker.two]\ncommand = {:?}\nkind = \"node\"\nready = \"notify\"",
            [node.path(), script.to_str().unwrap()]
        );
        let cluster = Cluster::asked(node, 1, &two);
        let listen = format!("return kept.listen(kept.web(), {port})");
        cluster.tell(0, &listen);
        cluster.told_by("two/0", &listen).unwrap();
        cluster.app.does(&["recycle", "web"]);
        get(("127.0.0.1", port), "/").unwrap();
        assert_eq!(named(&cluster.app.log(), "listener_closed"), 0, "{node}");
        cluster.app.does(&["recycle", "two"]);
        assert_eq!(cluster.event("listener_closed", 1)["broker"], "web", "{node}");
        eventually("it is closed", || TcpStream::connect(("127.0.0.1", port)).is_err());
    });
}

/// Check 45: one that waits by itself would hang whoever comes second.
#[test]
fn listening_sockets_never_wait() {
    each(|node| {
        for is_declared in [false, true] {
            let port = free_port();
            let declared =
                if is_declared { format!("listen = [\"tcp://:{port}\"]\n") } else { String::new() };
            let cluster = Cluster::ready(node, &["web.js", &port.to_string()], 2, &declared);
            for pid in cluster.app.pids() {
                let sockets = listening(pid, port);
                assert!(!sockets.is_empty(), "{node}");
                for flags in sockets {
                    assert_ne!(flags & NONBLOCK, 0, "{node}, {declared}");
                }
            }
        }
    });
}

/// Check 47.
#[test]
fn a_thousand_connections_leave_nothing_open() {
    each_way(|node, balance| {
        let port = free_port();
        let cluster = Cluster::ready(node, &["web.js", &port.to_string()], 2, &balance.of(port));
        let broker = cluster.app.broker_pid();
        let before = descriptors(broker);
        for _ in 0..1000 {
            get(("127.0.0.1", port), "/").unwrap();
        }
        eventually("nothing is left open", || descriptors(broker) == before);
    });
}

/// The flags of a process's sockets that listen at this port.
fn listening(pid: u32, port: u16) -> Vec<u32> {
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/net/{table}")).unwrap());
    let at = format!(":{port:04X}");
    let rows = tables.iter().flat_map(|table| table.lines().skip(1));
    let inodes: Vec<String> = rows
        .map(|row| row.split_whitespace().collect::<Vec<_>>())
        .filter(|row| row[1].ends_with(&at) && row[3] == "0A")
        .map(|row| format!("socket:[{}]", row[9]))
        .collect();
    let folder = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = folder.flatten().filter(|link| {
        let target = std::fs::read_link(link.path()).unwrap_or_default();
        inodes.iter().any(|inode| target.as_os_str() == inode.as_str())
    });
    links
        .map(|link| {
            let name = link.file_name().into_string().unwrap();
            let about = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{name}")).unwrap();
            let flags = about.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            u32::from_str_radix(flags.trim(), 8).unwrap()
        })
        .collect()
}

const NONBLOCK: u32 = rustix::fs::OFlags::NONBLOCK.bits();

fn more(node: &Node, who: &str, workers: u32, settings: &str) -> (Cluster, [u16; 2]) {
    let ports = [free_port(), free_port()];
    let words = ports.map(|port| port.to_string());
    let settings = format!("{settings}cwd = \"FOLDER\"\nenvironment = {{ WHO = \"{who}\" }}\n");
    (Cluster::of(node, &["more.js", &words[0], &words[1]], workers, &settings), ports)
}

/// Who listens on less than the one before it is ready, a second later, and that is said.
#[test]
fn a_successor_that_listens_on_less_serves_all_the_same() {
    each(|node| {
        let (cluster, [port, other]) = more(node, "all", 1, "");
        cluster.app.until_event("app_ready", 1);
        eventually("it listens on both", || get(("127.0.0.1", other), "/").is_ok());
        std::fs::write(cluster.app.path("none"), "").unwrap();
        for ready in 2..=3 {
            signal_process(cluster.app.pids()[0], Signal::KILL);
            cluster.app.until_event("worker_ready", ready);
            get(("127.0.0.1", port), "/").unwrap();
        }
        let log = cluster.app.log();
        assert_eq!(named(&log, "worker_death"), 2, "{node}: those that were killed");
        let said = format!("does not listen on tcp://:{other}, as the one before it in its slot did");
        assert_eq!(notes(&log, &said), 1, "{node}: {log:?}");
    });
}

/// What one worker does is expected of no other.
#[test]
fn one_worker_may_listen_on_more_than_the_others() {
    each(|node| {
        let (cluster, [port, other]) = more(node, "one", 3, "");
        cluster.app.until_event("app_ready", 1);
        eventually("it listens on both", || get(("127.0.0.1", other), "/").is_ok());
        cluster.app.does(&["scale", "web", "4"]);
        get(("127.0.0.1", port), "/").unwrap();
        assert_eq!(named(&cluster.app.log(), "worker_death"), 0, "{node}");
    });
}

#[test]
fn that_nobody_listens_where_it_is_declared_is_said() {
    each(|node| {
        let declared = free_port();
        let (cluster, [port, _]) = more(node, "none", 2, &format!("listen = [\"tcp://:{declared}\"]\n"));
        let said = format!("nobody listens on tcp://:{declared}, and whoever connects there waits");
        let log = cluster.app.until("it is said", |log| notes(log, &said) > 0);
        assert_eq!(notes(&log, &format!("listens on tcp://:{port}; correct `listen`, or the program")), 1);
    });
}

fn notes(log: &[Value], words: &str) -> usize {
    let said = |line: &&Value| line["event"] == "note" && line["text"].as_str().unwrap().contains(words);
    log.iter().filter(said).count()
}
