//! A worker cannot hurt the broker or another worker: floods, ignored signals, stopped processes, shut sockets.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use rustix::fs::{FileType, Mode};
use rustix::process::Signal;

use crate::app::*;
use crate::load::*;
use crate::ready_before_retire::web;
use crate::trace;

fn beside(command: &str) -> String {
    let port = free_port();
    format!(
        "{}\n[broker.bad]\ncommand = {command}\nready = {{ after = \"0s\" }}\n\
         stop = [{{ signal = \"TERM\", wait = \"200ms\" }}, {{ signal = \"KILL\" }}]\n",
        web(port)
    )
}

fn port_of(app: &App) -> u16 {
    let status = app.status();
    let web = status.brokers.iter().find(|broker| broker.name == "web").unwrap();
    web.listen[0].rsplit(':').next().unwrap().parse().unwrap()
}

fn is_harmless(command: &str) -> App {
    let app = App::ready(&beside(command));
    let mut load = Load::on(port_of(&app), &["--no-keep-alive"]);
    load.a_second();
    app.does(&["recycle", "web"]);
    none_lost(&load.end());
    app
}

#[test]
fn a_flood_of_output_costs_the_others_nothing() {
    let app = is_harmless(r#"["WORKER", "--flood-output"]"#);
    app.does(&["recycle", "bad"]);
    let (status, log) = app.stop();
    assert!(status.success());
    assert!(log.len() > 1000, "it was heard");
}

#[test]
fn a_worker_that_ignores_its_ladder_is_killed_and_that_is_said() {
    let ignores = beside(r#"["WORKER", "--ignore-term", "--ready", "notify"]"#);
    let app = App::ready(&ignores.replace("ready = { after = \"0s\" }", "kind = \"notify\""));
    let said = app.does(&["recycle", "bad"]);
    assert!(said.contains("1 was cut off"), "{said}");
}

#[test]
fn a_stopped_process_can_be_recycled() {
    let app = App::ready(&beside(r#"["WORKER"]"#));
    let bad = app.status().brokers.into_iter().find(|broker| broker.name == "bad").unwrap();
    signal_process(bad.workers[0].pid.unwrap(), Signal::STOP);
    app.does(&["recycle", "bad"]);
}

#[test]
fn output_of_any_kind_is_one_line_of_text_each() {
    let script = r#"["sh", "-c", "printf 'a\\377b\\n\\033[2Jc\\nno end'; head -c 100000 /dev/zero | tr '\\0' x >&2; exit 3"]"#;
    let app = App::of(&beside(script));
    let log = app.until("it died", |log| named(log, "worker_death") > 0);
    let said = lines(&log);
    assert!(said.contains(&"a\u{fffd}b".to_owned()), "{said:?}");
    assert!(said.contains(&"no end".to_owned()), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("xxx") && line.ends_with('…') && line.len() < 9000));
}

#[test]
fn a_shared_socket_that_a_worker_shuts_listens_again_at_once() {
    let port = free_port();
    // It waits for connections, and shuts the socket for everybody when it is asked to leave.
    let script = "import select, signal, socket, sys\nlistener = socket.socket(fileno=3)\n\
                  def leave(*_):\n    listener.shutdown(socket.SHUT_RDWR)\n    sys.exit()\n\
                  signal.signal(signal.SIGTERM, leave)\nwaits = select.epoll()\nwaits.register(3, select.EPOLLIN)\n\
                  while True: signal.pause()";
    let app = App::ready(&format!(
        "app = \"e2e\"\n[broker.bad]\ncommand = [\"python3\", \"-c\", {script:?}]\n\
         listen = [\"tcp://127.0.0.1:{port}\"]\n"
    ));
    let said = app.does(&["recycle", "bad"]);
    assert!(said.contains("1 of 1"), "{said}");
    eventually("clients are let in", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    app.does(&["drain", "bad"]);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "a drain is no accident");
    app.does(&["resume", "bad"]);
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
}

#[test]
fn a_log_that_nobody_reads_blocks_nobody_and_says_what_was_lost() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shiftboss.toml");
    std::fs::write(folder.path().join("version"), "good").unwrap();
    // It is ready when somebody has taken all that it had to say, which is more than may wait.
    let config = beside(r#"["WORKER", "--print", "50000", "--ready", "notify"]"#);
    let config = config.replace("ready = { after = \"0s\" }", "kind = \"notify\"");
    std::fs::write(&file, fill(&config, folder.path())).unwrap();
    let socket = socket(&folder);
    let mut command = Command::new(BIN);
    trace::record(&mut command, folder.path());
    let mut run = command
        .args(["run", "--with-parent", "-c", file.to_str().unwrap(), "--socket", socket.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ask = |words: &[&str]| {
        let output = Command::new(BIN).args(words).arg("--socket").arg(&socket).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    };
    for broker in ["web", "bad"] {
        ask(&["wait", broker, "--for", "ready", "--timeout", "60s"]);
    }
    ask(&["recycle", "web"]);
    let log = BufReader::new(run.stdout.take().unwrap()).lines();
    let (said, losses) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        log.map_while(Result::ok).filter(|line| line.contains("lines_lost")).try_for_each(|_| said.send(()))
    });
    // It is said with the next lines that there is room for.
    eventually("the loss is said", || {
        ask(&["recycle", "web"]);
        losses.try_recv().is_ok()
    });
    ask(&["stop", "--all"]);
    assert!(run.wait().unwrap().success());
    trace::promises_are_kept(folder.path());
}

#[test]
fn a_full_disk_under_the_log_is_said_and_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shiftboss.toml"), fill(&beside(r#"["WORKER"]"#), folder.path()))
        .unwrap();
    std::fs::write(folder.path().join("version"), "good").unwrap();
    let app = App::started(folder, &["run"], |command| {
        command.stdout(Stdio::from(std::fs::File::create("/dev/full").unwrap()));
    });
    app.does(&["wait", "web", "--for", "ready", "--timeout", "30s"]);
    eventually("it is said", || {
        app.stderr().contains("standard output cannot be written, lines are lost: No space")
    });
    app.does(&["recycle", "--all"]);
}

#[test]
fn a_log_that_nobody_reads_is_said_and_goes_on_when_it_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shiftboss.toml"), fill(&beside(r#"["WORKER"]"#), folder.path()))
        .unwrap();
    std::fs::write(folder.path().join("version"), "good").unwrap();
    let fifo = folder.path().join("log");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let both = std::fs::File::options().read(true).write(true).open(&fifo).unwrap();
    let writer = std::fs::File::options().write(true).open(&fifo).unwrap();
    let app = App::started(folder, &["run"], |command| {
        command.stdout(Stdio::from(writer));
    });
    app.does(&["wait", "web", "--for", "ready", "--timeout", "30s"]);
    drop(both);
    app.does(&["recycle", "--all"]);
    let said = "standard output cannot be written, lines are lost: Broken pipe";
    eventually("it is said", || app.stderr().contains(said));
    let mut lines = BufReader::new(std::fs::File::open(&fifo).unwrap()).lines().map_while(Result::ok);
    app.does(&["recycle", "--all"]);
    // What was in it when its first reader left comes before.
    assert!(lines.any(|line| line.contains("\"lines_lost\"")));
    assert!(lines.any(|line| line.contains("recycle")));
    assert_eq!(app.stderr().matches(said).count(), 1);
}

#[test]
fn a_dead_worker_that_is_held_by_a_tracer_is_replaced_and_does_not_hold_up_the_end() {
    // A grandchild in a session of its own traces the worker, which then ends: it cannot be reaped (ptrace(2)).
    let script = "import ctypes, os, sys, time\nworker = os.getpid()\nr, w = os.pipe()\nif os.fork() == 0:\n    os.setsid()\n    \
                  seized = ctypes.CDLL(None).ptrace(0x4206, worker, 0, 0) == 0\n    \
                  print('tracer', os.getpid() if seized else 'refused', flush=True)\n    os.write(w, b'x')\n    \
                  time.sleep(1000)\nos.read(r, 1)\nos._exit(3)";
    let command = format!("[\"python3\", \"-c\", {script:?}]");
    let app =
        App::of(&beside(&command).replace("ready = { after = \"0s\" }", "backoff = { base = \"30s\" }"));
    let log = app.until("it is replaced", |log| named(log, "worker_death") >= 1 && lines(log).len() >= 2);
    let tracers: Vec<u32> =
        lines(&log).iter().filter_map(|line| line.strip_prefix("tracer ")?.parse().ok()).collect();
    let (status, log) = app.stop();
    assert!(status.success(), "{:?}", log.last());
    assert!(
        tracers.iter().all(|tracer| is_gone(*tracer)),
        "it has left its group and is below the keeper still"
    );
    let death = log.iter().find(|event| event["event"] == "worker_death").unwrap();
    // Where tracing is forbidden it ends as any other.
    assert_eq!(death["code"], if tracers.is_empty() { 3 } else { -1 });
}
