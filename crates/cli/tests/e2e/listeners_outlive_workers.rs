//! The listening socket outlives every worker: nobody is refused because workers come and go.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::app::*;
use crate::ready_before_retire::web;

fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: e2e\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn clients_that_come_while_no_worker_lives_are_served_by_the_next_one() {
    let port = free_port();
    let app = App::ready(&web(port));
    std::fs::write(app.path("version"), "broken").unwrap();
    for pid in app.pids() {
        signal_process(pid, Signal::KILL);
    }
    app.until("nobody lives", |log| named(log, "worker_death") >= 8);
    let mut clients: Vec<TcpStream> =
        (0..50).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    std::fs::write(app.path("version"), "good").unwrap();
    for client in &mut clients {
        assert!(ask(client).starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn a_drained_broker_refuses_keeps_its_port_and_serves_again_after_resume() {
    let port = free_port();
    let app = App::ready(&web(port));
    let said = app.does(&["drain", "web"]);
    assert!(said.contains("Drained web"), "{said}");
    assert_eq!(app.pids(), Vec::<u32>::new());
    assert_eq!(TcpStream::connect(("127.0.0.1", port)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    // The standard library's listener sets SO_REUSEADDR.
    assert_eq!(std::net::TcpListener::bind(("127.0.0.1", port)).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(app.status().brokers[0].state, shiftboss_api::BrokerState::Drained);
    app.does(&["resume", "web"]);
    assert!(ask(&mut TcpStream::connect(("127.0.0.1", port)).unwrap()).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_held_broker_keeps_its_clients_waiting() {
    let port = free_port();
    let app = App::ready(&web(port).replace("[broker.web]", "[broker.web]\ndrained = \"hold\""));
    app.does(&["drain", "web"]);
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "it waits");
    client.set_read_timeout(None).unwrap();
    app.does(&["resume", "web"]);
    assert!(ask(&mut client).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_unix_path_is_served_drained_and_resumed() {
    let app = App::ready(
        r#"
        app = "e2e"
        [broker.local]
        command = ["WORKER", "--http", "--ready", "notify"]
        kind = "notify"
        listen = ["unix://FOLDER/s.sock"]
        "#,
    );
    let path = app.path("s.sock");
    let connect = || std::os::unix::net::UnixStream::connect(&path);
    let serves = || {
        let mut stream = connect().unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("ok"), "{answer}");
    };
    serves();
    app.does(&["drain", "local"]);
    assert!(connect().is_err());
    app.does(&["resume", "local"]);
    serves();
    let (status, _) = app.stop();
    assert!(status.success());
    assert!(!path.exists());
}
