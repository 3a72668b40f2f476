//! Apps that cannot start, and workers that cannot be started while everybody else goes on.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Child;

use rustix::process::Signal;

use super::*;

#[test]
fn a_program_that_cannot_be_run_is_named_before_anything_is_started() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("server"), "#!/bin/sh\n").unwrap();
    let run = |program: &str| say(folder.path(), &["run", "--", program]);
    let said = run("no-such-program");
    said.is_one_error(1, &["`no-such-program` is in none of the", "directories of PATH", "no shell"]);
    run("./gone").is_one_error(1, &["/gone` does not exist"]);
    run("./server").is_one_error(1, &["/server` is not executable", "help: `chmod +x /"]);
    run("/usr").is_one_error(1, &["`/usr` is a directory"]);
    assert!(!run("/usr").err.contains("keeping"), "no welcome to what does not start");
}

#[test]
fn a_limit_of_open_files_that_is_too_low_is_said_before_anything_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("ulimit -n 256; exec {BIN} --socket app.sock run -w 100 -- sleep 1000");
    let output = std::process::Command::new("sh").args(["-c", &script]).current_dir(folder.path()).output();
    let output = output.unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("428 descriptors are needed") && said.contains("than 256 files"), "{said}");
    assert!(said.contains("help: raise it"), "{said}");
}

#[test]
fn a_file_that_is_no_program_fails_alone_and_starts_once_it_is_mended() {
    let folder = folder_with(
        r#"
        app = "shop"
        [broker.api]
        command = ["WORKER", "--ready", "notify"]
        kind = "notify"
        [broker.script]
        command = ["FOLDER/script"]
        ready = { after = "50ms" }
        backoff = { base = "20ms", cap = "50ms", healthy_after = "50ms" }
        "#,
    );
    program(&folder, "script", "");
    let app = App::started(folder, &["run", "-c", "shiftboss.toml"], |_| {});
    let log = app.until_event("worker_death", 4);
    let reason =
        log.iter().find(|event| event["event"] == "worker_death").unwrap()["reason"].as_str().unwrap();
    assert!(
        reason.contains("execve: Exec format error (ENOEXEC)") && reason.contains("#!/bin/sh"),
        "{reason}"
    );
    app.until_event("broker_degraded", 1);
    assert_eq!(app.ask(&["status", "--check"]).status.code(), Some(3));
    program(&app.folder, "script", "#!/no/such/interpreter\n");
    app.until("the other reason", |log| {
        reasons(log).any(|reason| reason.contains("the interpreter in its first line"))
    });
    program(&app.folder, "script", "#!/bin/sh\nexec sleep 60\n");
    app.until("the script is ready", |log| ready_of(log, "script") == 1);
    app.until_event("broker_recovered", 1);
    assert_eq!(ready_of(&app.log(), "api"), 1, "it was left alone");
    assert_eq!(app.ask(&["status", "--check"]).status.code(), Some(0));
}

/// Puts it in place whole, since a program that is being written cannot be run.
fn program(folder: &TempDir, name: &str, text: &str) {
    let new = folder.path().join("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(new, folder.path().join(name)).unwrap();
}

fn ready_of(log: &[serde_json::Value], broker: &str) -> usize {
    log.iter().filter(|event| event["event"] == "worker_ready" && event["broker"] == broker).count()
}

fn reasons(log: &[serde_json::Value]) -> impl Iterator<Item = &str> {
    log.iter().filter(|event| event["event"] == "worker_death").filter_map(|event| event["reason"].as_str())
}

/// A process of somebody else that listens at a port of its own.
struct Holder {
    child: Child,
    port: u16,
}

impl Holder {
    fn new() -> Holder {
        let program = "import socket, sys\ns = socket.create_server(('127.0.0.1', 0))\n\
            print(s.getsockname()[1], flush=True)\nsys.stdin.read()";
        let mut child = Command::new(python())
            .args(["-I", "-S", "-c", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Holder { child, port: port.trim().parse().unwrap() }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same again, until it says this: who holds a port is looked for briefly, and a machine may be busy.
fn say_until(words: &str, folder: &Path, arguments: &[&str]) -> Said {
    let mut said = say(folder, arguments);
    for _ in 0..20 {
        if said.err.contains(words) {
            break;
        }
        said = say(folder, arguments);
    }
    said
}

#[test]
fn a_port_that_is_taken_is_refused_with_the_name_and_the_pid_of_its_holder() {
    let holder = Holder::new();
    let (pid, port) = (holder.child.id(), holder.port);
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    let held = format!("held by {} (pid {pid}, user ", name.trim_end());
    let address = format!("tcp://127.0.0.1:{port}");
    let folder = folder_with(&format!(
        "app = \"shop\"\n[broker.jobs]\ncommand = [\"WORKER\"]\n\
         [broker.api]\ncommand = [\"WORKER\", \"--http\"]\nlisten = [\"{address}\"]\n"
    ));
    let said = say_until(&held, folder.path(), &["run"]);
    said.is_one_error(1, &["broker `api`", &address, "is in use", &held, "choose another address"]);
    assert!(!folder.path().join("app.sock").exists(), "its name is given back");
    let line = ["run", "-p", &port.to_string(), "--", "sleep", "60"];
    say_until(&held, folder.path(), &line).is_one_error(1, &["broker `sleep`", "is in use", &held]);
}

#[test]
fn a_port_that_another_app_has_is_refused_with_the_name_of_that_app_and_its_pid() {
    let port = free_port();
    let app = App::ready(&format!(
        "app = \"shop\"\n[broker.api]\ncommand = [\"WORKER\", \"--ready\", \"notify\"]\nkind = \"notify\"\n\
         listen = [\"tcp://127.0.0.1:{port}\"]\n"
    ));
    let folder = tempfile::tempdir().unwrap();
    let held = format!("is in use by the app `app`, pid {}", app.pid());
    let line = ["run", "-p", &format!("127.0.0.1:{port}"), "--", "sleep", "60"];
    let said = say_until(&held, folder.path(), &line);
    let end = format!("`shiftboss --socket {} stop --all`", app.socket().display());
    said.is_one_error(1, &["broker `sleep`", &held, &end, "choose another address"]);
}

#[test]
fn a_second_run_of_an_app_is_refused_and_names_the_first() {
    let port = free_port();
    let app = App::ready(&format!(
        "app = \"shop\"\n[broker.api]\ncommand = [\"BIN\", \"demo-worker\"]\nkind = \"notify\"\n\
         listen = [\"tcp://127.0.0.1:{port}\"]\nenvironment = {{ DEMO_VERSION_FILE = \"FOLDER/version\" }}\n"
    ));
    let before = all_pids(&app);
    let pid = format!("pid {}", app.pid());
    let said = say(app.folder.path(), &["run"]);
    said.is_one_error(75, &["runs already", &pid, "`shiftboss status`", "`shiftboss stop --all`"]);
    assert!(!said.err.contains("keeping"), "no welcome to what does not start: {said}");
    assert_eq!(serves(port), 200);
    goes_on(&app, &before);
}

#[test]
fn a_second_run_is_refused_also_when_the_folder_of_the_socket_was_removed() {
    for more in [&[][..], &["--no-keeper"]] {
        let folder = folder_with(SHOP);
        let run = folder.path().join("run");
        let socket = run.join("app.sock");
        let words = [&["run", "-c", "shiftboss.toml", "--socket", socket.to_str().unwrap()], more].concat();
        let mut app = App::started(folder, &words, |_| {});
        let log = app.until_event("app_ready", 1);
        std::fs::remove_dir_all(&run).unwrap();
        let hint = format!(
            "`app` runs already as pid {pid}, but its socket was removed: `kill -TERM {pid}` ends it",
            pid = app.pid()
        );
        // Nor does what the first one leaves behind let the second one in.
        for _ in 0..2 {
            say(app.folder.path(), &words).is_one_error(75, &[&hint]);
        }
        assert!(!socket.exists(), "its name is given back");
        let started = log.iter().filter(|event| event["event"] == "worker_started");
        let pids: Vec<u64> = started.map(|event| event["pid"].as_u64().unwrap()).collect();
        assert_eq!(pids.len(), 3);
        assert!(!pids.iter().any(|pid| is_gone(u32::try_from(*pid).unwrap())), "{pids:?}");
        app.signal(Signal::TERM);
        assert!(app.ended().success());
        let log = app.log();
        assert_eq!((named(&log, "worker_death"), named(&log, "worker_ended")), (0, 3));
    }
}

/// The status of an answer.
fn serves(port: u16) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

#[test]
fn a_program_that_is_never_seen_accepting_is_told_what_to_set_while_the_others_serve() {
    let (port, python) = (free_port(), python());
    let app = App::of(&format!(
        r#"
        app = "shop"
        [broker.unseen]
        command = ["{python}", "-I", "-S", "-c", """
import socket
import time
listener = socket.socket(fileno=3)
listener.setblocking(False)
print('accepts', flush=True)
while True:
    try: listener.accept()[0].close()
    except BlockingIOError: time.sleep(.01)
"""]
        kind = "plain"
        listen = ["tcp://127.0.0.1:0"]
        recycle = {{ deadline = "500ms" }}
        backoff = {{ base = "20ms", cap = "50ms" }}
        [broker.web]
        command = ["BIN", "demo-worker"]
        kind = "notify"
        listen = ["tcp://127.0.0.1:{port}"]
        environment = {{ DEMO_VERSION_FILE = "FOLDER/version" }}
        "#
    ));
    let log = app.until_event("broker_degraded", 1);
    for reason in reasons(&log) {
        assert!(
            reason.contains("was not ready within 500ms")
                && reason.contains("never seen waiting for connections")
                && reason.contains("ready = { after = \"1s\" }"),
            "{reason}"
        );
    }
    assert_eq!(serves(port), 200);
    let status = app.status();
    assert_eq!((status.brokers[0].degraded, status.brokers[0].ready), (true, 0));
    let tried = log.len();
    app.until("it is tried again, and does accept", |log| {
        named(&log[tried..], "worker_started") > 0 && lines(log).iter().any(|line| line == "accepts")
    });
    assert_eq!(serves(port), 200);
    let said = say(app.folder.path(), &["wait", "unseen", "--for", "ready", "--timeout", "50ms"]);
    said.is_one_error(75, &["unseen"]);
}

/// The interpreter itself, which starts far sooner than the scripts that choose among several.
fn python() -> String {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    text(&output.stdout).trim().to_owned()
}

#[test]
fn an_app_whose_trace_cannot_be_written_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let run = |trace: &str| {
        say_with(folder.path(), &["run", "--", "sleep", "60"], |command| {
            command.env("SHIFTBOSS_TRACE", trace);
        })
    };
    let help = "SHIFTBOSS_TRACE names a file";
    run("gone/trace").is_one_error(1, &["cannot write the trace gone/trace: No such file", help]);
    run("/").is_one_error(1, &["cannot write the trace /: Is a directory", help]);
    let said = run("/dev/full");
    said.is_one_error(1, &["cannot write the trace /dev/full: No space left", help]);
    assert!(!said.err.contains("keeping"), "no welcome to what does not start: {said}");
    assert!(!folder.path().join("app.sock").exists(), "its name is given back");

    let app = App::ready(SHOP);
    let taken = app.path("trace").to_str().unwrap().to_owned();
    run(&taken).is_one_error(1, &["another app writes to it", &taken]);
}
