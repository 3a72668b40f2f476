//! No orphan, zombie, leaked descriptor or held port.

use std::collections::BTreeSet;
use std::net::TcpListener;

use rustix::process::Signal;

use crate::app::*;
use crate::ready_before_retire::web;
use crate::trace;

/// Kinds of descriptors that the app has open; which numbers does not matter. Whoever was sent one is not at rest before it
/// has taken that.
pub(crate) fn descriptors(pid: u32) -> Vec<String> {
    eventually("it is at rest", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['S', 'T']))
    });
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = links.flatten().filter_map(|link| std::fs::read_link(link.path()).ok());
    let mut kinds: Vec<String> =
        targets.map(|target| target.to_string_lossy().split(":[").next().unwrap().to_owned()).collect();
    kinds.sort();
    kinds
}

#[test]
fn recycles_deaths_and_drains_leave_no_descriptor_and_no_process() {
    let app = App::ready(&web(free_port()));
    let broker = app.broker_pid();
    let both = || [descriptors(app.pid()), descriptors(broker)];
    let before = both();
    for _ in 0..3 {
        app.does(&["recycle", "web"]);
        signal_process(app.pids()[0], Signal::KILL);
        app.does(&["wait", "web", "--for", "ready"]);
        app.does(&["drain", "web"]);
        app.does(&["resume", "web"]);
    }
    eventually("the last client is gone", || both()[1].len() <= before[1].len());
    assert_eq!(both(), before);
    assert_eq!(children(app.pid()), app.pids().into_iter().chain([broker]).collect());
    assert_eq!(children(broker), BTreeSet::new());
}

#[test]
fn a_stop_takes_the_workers_their_children_the_port_and_the_socket() {
    let port = free_port();
    let app = App::ready(&format!(
        r#"
        app = "e2e"
        [broker.parent]
        command = ["WORKER", "--fork-child", "--ready", "notify"]
        kind = "notify"
        workers = 2
        listen = ["tcp://127.0.0.1:{port}"]
        "#
    ));
    let log = app.until("each says its child", |log| lines(log).len() >= 2);
    let grandchildren: Vec<u32> =
        lines(&log).iter().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    let workers = app.pids();
    let socket = app.socket();
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!(named(&log, "worker_ended"), 2);
    for pid in workers {
        assert!(is_gone(pid), "worker {pid}");
    }
    for pid in grandchildren {
        eventually("the grandchild is gone", || is_gone(pid));
    }
    assert!(!socket.exists());
    TcpListener::bind(("127.0.0.1", port)).unwrap();
}

#[test]
fn workers_do_not_outlive_a_killed_broker() {
    let mut app = App::ready(&web(free_port()));
    let workers = app.pids();
    app.signal(Signal::KILL);
    app.ended();
    for pid in workers {
        eventually("the worker is gone", || is_gone(pid));
    }
}

#[test]
fn a_second_signal_ends_what_the_first_one_only_asked() {
    let mut app = App::ready(
        r#"
        app = "e2e"
        [broker.deaf]
        command = ["WORKER", "--ignore-term", "--ready", "notify"]
        kind = "notify"
        workers = 3
        "#,
    );
    let workers = app.pids();
    app.signal(Signal::TERM);
    app.until_event("worker_stopping", 3);
    app.signal_again(Signal::TERM);
    assert!(app.ended().success());
    let log = app.log();
    assert_eq!(log.iter().filter(|event| event["forced"] == true).count(), 3);
    assert!(workers.into_iter().all(is_gone));
}

/// As `timeout(1)` does it: to us, and then to the group that we are in.
#[test]
fn two_signals_at_once_are_one() {
    for more in [&[][..], &["--no-keeper"]] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shiftboss.toml");
        let config = "app = \"e2e\"\n[broker.slow]\nkind = \"notify\"\n\
             command = [\"WORKER\", \"--ready\", \"notify\", \"--stop-delay\", \"300\"]\n";
        std::fs::write(&file, fill(config, folder.path())).unwrap();
        let words = [&["run", "-c", file.to_str().unwrap()], more].concat();
        let mut app = App::started(folder, &words, |_| {});
        app.until_event("app_ready", 1);
        // It sees both at once, however busy the machine is.
        for signal in [Signal::STOP, Signal::TERM, Signal::INT, Signal::CONT] {
            app.signal(signal);
        }
        assert!(app.ended().success());
        assert!(app.log().iter().all(|event| event["forced"] != true), "it could finish");
    }
}

#[test]
fn a_signal_after_a_stop_command_still_only_asks() {
    let mut app = App::ready(
        r#"
        app = "e2e"
        [broker.slow]
        command = ["WORKER", "--stop-delay", "500", "--ready", "notify"]
        kind = "notify"
        "#,
    );
    app.does(&["stop", "--all", "--no-wait"]);
    app.until_event("worker_stopping", 1);
    app.signal(Signal::TERM);
    assert!(app.ended().success());
    let log = app.log();
    let ended = log.iter().find(|event| event["event"] == "worker_ended").unwrap();
    assert_eq!((&ended["forced"], &ended["code"]), (&false.into(), &0.into()), "it has finished");
}

#[test]
fn an_app_that_was_stopped_itself_hears_who_has_left_before_it_calls_anybody_late() {
    let script = "import os, signal, socket, time\n\
                  signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n\
                  channel = socket.socket(fileno=int(os.environ['SHIFTBOSS_CHANNEL_FD']))\n\
                  channel.sendall(b'{\"cmd\":\"SHIFTBOSS_READY\"}\\n')\n\
                  signal.sigwait([signal.SIGTERM])\nopen('FOLDER/told', 'w')\n\
                  while not os.path.exists('FOLDER/go'): time.sleep(0.01)";
    let app = App::ready(&format!(
        "app = \"e2e\"\n[broker.slow]\ncommand = [\"python3\", \"-c\", {script:?}]\nkind = \"notify\"\n\
         stop = [{{ signal = \"TERM\", wait = \"3s\" }}, {{ signal = \"KILL\" }}]\n"
    ));
    let worker = app.pids()[0];
    app.does(&["drain", "slow", "--no-wait"]);
    eventually("it is told to leave", || app.path("told").exists());
    app.signal_both(Signal::STOP);
    std::fs::write(app.path("go"), "").unwrap();
    let asked = std::time::Instant::now();
    eventually("it has left, and is late", || is_gone(worker) && asked.elapsed().as_millis() > 3200);
    app.signal_both(Signal::CONT);
    let log = app.until_event("broker_drained", 1);
    let ended = log.iter().find(|event| event["event"] == "worker_ended").unwrap();
    assert_eq!((&ended["forced"], &ended["code"]), (&false.into(), &0.into()), "it was in time");
    app.stop();
}

#[test]
fn a_signal_that_comes_with_the_last_exit_changes_nothing() {
    let script = "import os, socket, time\n\
                  channel = socket.socket(fileno=int(os.environ['SHIFTBOSS_CHANNEL_FD']))\n\
                  channel.sendall(b'{\"cmd\":\"SHIFTBOSS_READY\"}\\n')\n\
                  channel.recv(99)\nopen('FOLDER/told', 'w')\n\
                  while not os.path.exists('FOLDER/go'): time.sleep(0.01)";
    let mut app = App::ready(&format!(
        "app = \"e2e\"\n[broker.slow]\ncommand = [\"python3\", \"-c\", {script:?}]\nkind = \"notify\"\n"
    ));
    let worker = app.pids()[0];
    app.signal(Signal::TERM);
    eventually("it is told to leave", || app.path("told").exists());
    app.signal_both(Signal::STOP);
    std::fs::write(app.path("go"), "").unwrap();
    eventually("it has left", || is_gone(worker));
    app.signal(Signal::TERM);
    app.signal_both(Signal::CONT);
    assert!(app.ended().success());
    let log = app.log();
    let ended = log.iter().find(|event| event["event"] == "worker_ended").unwrap();
    assert_eq!(ended["forced"], false, "there was nobody left to kill");
}

#[test]
fn an_app_ends_with_the_terminal_that_it_was_started_on() {
    let folder = tempfile::tempdir().unwrap();
    let socket = socket(&folder);
    let script = "import os, pty, signal, sys\nsignal.alarm(60)\npid, terminal = pty.fork()\nif pid == 0: os.execv(sys.argv[1], sys.argv[1:])\n\
                  while not os.path.exists(sys.argv[3]): pass\nos.close(terminal)\n\
                  print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
    let mut command = std::process::Command::new("python3");
    trace::record(&mut command, folder.path());
    let output = command
        .args([
            "-c",
            script,
            BIN,
            "--socket",
            socket.to_str().unwrap(),
            "run",
            "--with-parent",
            "--",
            "sleep",
            "1000",
        ])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "0\n", "{}", text(&output.stderr));
    assert!(!socket.exists());
    trace::promises_are_kept(folder.path());
}

#[test]
fn what_a_killed_run_has_left_is_named_and_ended_by_the_next_one() {
    let config = r#"
        app = "e2e"
        [broker.parent]
        command = ["WORKER", "--fork-child", "--ready", "notify"]
        kind = "notify"
        "#;
    let mut app = App::ready(config);
    let log = app.until("it says its child", |log| !lines(log).is_empty());
    let child: u32 = lines(&log)[0].rsplit(' ').next().unwrap().parse().unwrap();
    let both = [app.broker_pid(), app.pid()];
    for signal in [Signal::STOP, Signal::KILL] {
        both.into_iter().for_each(|pid| signal_process(pid, signal));
    }
    app.ended();
    assert!(!is_gone(child), "it has no parent that would take it along");
    let file = app.path("shiftboss.toml");
    let socket = app.socket();
    let folder = tempfile::tempdir().unwrap();
    let again = App::started(
        folder,
        &["run", "-c", file.to_str().unwrap(), "--socket", socket.to_str().unwrap()],
        |_| {},
    );
    let log = again.until_event("app_ready", 1);
    let said = log.iter().filter_map(|event| event["text"].as_str());
    assert!(
        said.clone().any(|text| text.contains(&format!("pid {child}"))),
        "{:?}",
        said.collect::<Vec<_>>()
    );
    assert!(is_gone(child));
    // Its worker has a child as well.
    assert!(again.stop().0.success());
}
