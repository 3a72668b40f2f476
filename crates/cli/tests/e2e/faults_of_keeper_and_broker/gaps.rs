//! What workers do while there is no broker process.

use std::time::Duration;

use super::*;

#[test]
fn half_a_line_that_was_not_read_yet_is_told_whole_by_the_successor() {
    let app = App::ready(
        r#"
        app = "e2e"
        [broker.web]
        command = ["sh", "-c", "until [ -e FOLDER/go ]; do sleep 0.01; done; printf half; touch FOLDER/said; until [ -e FOLDER/on ]; do sleep 0.01; done; echo ' and whole'; exec sleep 1000"]
        ready = { after = "0s" }
        "#,
    );
    killed_while(&app, || {
        std::fs::write(app.path("go"), "").unwrap();
        eventually("half of it is written", || app.path("said").exists());
    });
    until_adopted(&app, 1);
    std::fs::write(app.path("on"), "").unwrap();
    let log = app.until("the line", |log| !lines(log).is_empty());
    assert_eq!(lines(&log), ["half and whole"]);
    app.stop();
}

#[test]
fn a_word_of_readiness_that_came_meanwhile_is_heard_by_the_successor() {
    let script = "import os, socket, time\n\
                  while not os.path.exists('FOLDER/go'): time.sleep(0.01)\n\
                  s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
                  s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])\n\
                  open('FOLDER/said', 'w')\ntime.sleep(1000)";
    let app = App::of(&format!(
        "app = \"e2e\"\n[broker.web]\ncommand = [\"python3\", \"-c\", {script:?}]\nkind = \"notify\"\n"
    ));
    app.until_event("worker_started", 1);
    killed_while(&app, || {
        std::fs::write(app.path("go"), "").unwrap();
        eventually("it is said", || app.path("said").exists());
    });
    let log = app.until_event("worker_ready", 1);
    assert_eq!((named(&log, "worker_started"), named(&log, "worker_death")), (1, 0));
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!(named(&once(&log), "worker_ready"), 1);
}

#[test]
fn a_worker_without_its_standard_output_is_adopted_as_any_other() {
    let app = App::ready(&sleepers_that(2, ", \"--close-stdout\""));
    let pids = app.pids();
    for times in 1..=2 {
        killed_while(&app, || {});
        until_adopted(&app, times);
        assert_eq!(app.pids(), pids);
    }
    signal_process(pids[0], Signal::KILL);
    app.until_event("worker_ready", 3);
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!((named(&log, "worker_started"), named(&log, "worker_death")), (3, 1));
}

#[test]
fn a_worker_that_leaves_its_output_to_a_child_and_ends_meanwhile_is_told_once() {
    let app = App::ready(&sleepers_that(2, ", \"--setsid-child\", \"--print\", \"3\""));
    app.until("each has said its lines", |log| lines(log).len() >= 8);
    let pids = app.pids();
    killed_while(&app, || signal_process(pids[0], Signal::KILL));
    let log = app.until_event("worker_ready", 3);
    assert_eq!(named(&once(&log), "worker_death"), 1);
    let said = app.until("its successor has said its lines", |log| lines(log).len() >= 12);
    assert_eq!(lines(&said).len(), 12, "no line was told twice");
    app.stop();
}

#[test]
fn a_listener_that_is_shut_after_or_during_a_takeover_listens_again() {
    let port = free_port();
    let script = "import os, signal, socket\nlistener = socket.socket(fileno=3)\n\
                  signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n\
                  ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
                  ready.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])\n\
                  while signal.sigwait([signal.SIGUSR1]):\n\
                  \tlistener.shutdown(socket.SHUT_RDWR)\n\
                  \tprint('shut', flush=True)";
    let app = App::ready(&format!(
        r#"
        app = "e2e"
        [broker.web]
        command = ["python3", "-c", {script:?}]
        kind = "notify"
        listen = ["tcp://127.0.0.1:{port}"]
        "#
    ));
    let worker = app.pids()[0];
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    // Nobody accepts: a full queue is no refusal.
    let connects = || match std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::ConnectionRefused,
    };
    assert!(connects());
    app.kill_broker();
    until_adopted(&app, 1);
    signal_process(worker, Signal::USR1);
    eventually("it is shut", || app.heard().iter().any(|event| event["line"] == "shut"));
    eventually("it listens again", connects);
    killed_while(&app, || {
        signal_process(worker, Signal::USR1);
        eventually("it is shut", || !connects());
    });
    until_adopted(&app, 2);
    eventually("it listens again", connects);
    assert_eq!(app.pids(), [worker]);
    app.stop();
}
