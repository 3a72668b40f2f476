//! Programs that cannot start: contained, explained, counted; and what a command is taken for.

use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::*;

fn program(folder: &TempDir, name: &str, text: &str) -> String {
    let file = folder.path().join(name);
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    file.to_str().unwrap().to_owned()
}

/// It is started again and again, and everybody who asks hears why in vain.
fn is_explained(command: &[&str], words: &[&str]) {
    let app = App::of(&format!(
        "app = \"e2e\"\n[broker.web]\ncommand = {command:?}\nkind = \"node\"\nbackoff = {{ base = \"20ms\", cap = \"50ms\" }}\n"
    ));
    let log = app.until_event("broker_degraded", 1);
    assert!(named(&log, "worker_ready") == 0, "{command:?}");
    let degraded = log.iter().find(|event| event["event"] == "broker_degraded").unwrap();
    let broker = app.status().brokers.remove(0);
    let why = format!("{} {}", degraded["reason"], broker.last_failure.unwrap_or_default());
    assert!(broker.degraded, "{command:?}: {why}");
    let said = lines(&app.log()).join("\n");
    for word in words {
        assert!(
            said.contains(word) || why.contains(word),
            "{command:?}: `{word}` is not said: {why}\n{said}"
        );
    }
}

#[test]
fn a_program_that_fails_at_its_start_is_explained() {
    each(|node| {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("gone.js");
        is_explained(&[node.path(), missing.to_str().unwrap()], &["MODULE_NOT_FOUND", "exited with 1"]);
        for (name, text, word) in [
            ("throws.js", "throw new Error('no database')", "no database"),
            ("wrong.js", "const = 1", "SyntaxError"),
            ("rejects.mjs", "await Promise.reject(new Error('not today'))", "not today"),
            ("asks.mjs", "import 'nowhere'", "ERR_MODULE_NOT_FOUND"),
        ] {
            let file = program(&folder, name, text);
            is_explained(&[node.path(), &file], &[word, "exited with 1"]);
        }
    });
}

/// One that waits for ever for what never comes ends by itself: Node has nothing left to do.
#[test]
fn a_module_that_waits_for_what_never_comes_is_explained() {
    each(|node| {
        let folder = tempfile::tempdir().unwrap();
        let file = program(&folder, "waits.mjs", "await new Promise(() => {})");
        let app = App::of(&format!(
            "app = \"e2e\"\n[broker.web]\ncommand = [{:?}, {file:?}]\nkind = \"node\"\nrecycle = {{ deadline = \"2s\" }}\n\
             stop = [{{ signal = \"TERM\", wait = \"1s\" }}]\n",
            node.path()
        ));
        // A cluster's worker has its channel to wait for, and never listens; which of both it is nobody can know.
        app.until("it is over one way or the other", |log| {
            named(log, "worker_ready") + named(log, "worker_death") + named(log, "worker_ended") > 0
        });
    });
}

/// The lines that it wrote last are shown to whoever waits for it.
#[test]
fn a_recycle_that_fails_shows_the_last_lines() {
    each(|node| {
        let folder = tempfile::tempdir().unwrap();
        let good = std::fs::read_to_string(programs().join("web.js")).unwrap();
        let file = program(&folder, "server.js", &good);
        let port = free_port();
        let config = format!(
            "app = \"e2e\"\n[broker.web]\ncommand = [{:?}, {file:?}, \"{port}\"]\nworkers = 2\n",
            node.path()
        );
        let app = App::ready(&config);
        let before = app.pids();
        std::fs::write(&file, "throw new Error('the schema is too old')").unwrap();
        let output = app.ask(&["recycle", "web"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("the schema is too old"), "{node}: {said}");
        assert_eq!(app.pids(), before, "{node}: the old ones serve on");
        get(("127.0.0.1", port), "/").unwrap();
        // Mended, it goes on.
        std::fs::write(&file, &good).unwrap();
        app.does(&["recycle", "web"]);
    });
}

/// Nobody but itself knows how old a Node is: what it says is shown.
#[test]
fn a_node_that_is_no_good_is_explained_by_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let old = program(&folder, "node", "#!/bin/sh\necho v16.20.2 is too old for this >&2\nexit 9\n");
    is_explained(&[&old, "server.js"], &["v16.20.2 is too old for this", "exited with 9"]);
    // Ended with success it has failed as well: it never was ready. By another name it is not asked for its version.
    let old = program(&folder, "node16", "#!/bin/sh\necho v16.20.2\n");
    is_explained(&[&old, "server.js"], &["v16.20.2", "before it was ready"]);
}

/// Runs `shiftboss run` with these words in that folder, to its end.
fn run(folder: &Path, words: &[&str], path: Option<&Path>) -> Output {
    let mut command = Command::new(BIN);
    command.arg("--socket").arg(folder.join("app.sock")).arg("run").args(words);
    command.current_dir(folder).stdin(Stdio::null());
    if let Some(path) = path {
        command.env("PATH", path);
    }
    command.output().unwrap()
}

#[test]
fn without_a_node_nothing_is_started_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["--", "node", "server.js"], Some(folder.path()));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("`node` is in none of the") && said.contains("PATH"), "{said}");
}

#[test]
fn a_launcher_that_hides_its_program_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    for (words, why) in [
        (&["--", "npx", "server"][..], "child of its own"),
        (&["--", "npm", "start"], "package.json cannot be read"),
        (&["--kind", "node", "--", "npx", "server"], "child of its own"),
    ] {
        let output = run(folder.path(), words, None);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(why) && said.contains("[\"node\", \"server.js\"]"), "{words:?}: {said}");
    }
}

#[test]
fn a_command_is_taken_for_what_it_is_and_that_is_said() {
    let Some(_) = Node::at("node") else { return };
    let port = free_port().to_string();
    for (words, said) in [
        (&["--", "node", "server.js", &port][..], "kind = node, guessed: a worker of Node's cluster"),
        (&["--", "npm", "start", "--", &port], "kind = node, guessed; runs node server.js"),
        (&["--kind", "node", "--", "npm", "start", "--", &port], "keeping"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(programs().join("web.js"), folder.path().join("server.js")).unwrap();
        std::fs::write(folder.path().join("package.json"), r#"{"scripts":{"start":"node server.js"}}"#)
            .unwrap();
        let socket = socket(&folder);
        let line = [&["--socket", socket.to_str().unwrap(), "run"], words].concat();
        let app = App::started(folder, &line, |_| {});
        app.until_event("app_ready", 1);
        app.until_said(said);
        assert_eq!(get(format!("127.0.0.1:{port}"), "/").unwrap(), "worker 1");
        assert!(app.stop().0.success());
    }
}

#[test]
fn a_node_that_is_too_old_is_refused_before_anything_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("node");
    std::fs::write(&old, "#!/bin/sh\necho v16.20.2\n").unwrap();
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new(BIN).args(["run", "--", old.to_str().unwrap(), "server.js"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("is Node 16.20.2: 18 or newer is needed") && said.contains("help:"), "{said}");
}

/// As PM2's `wait_ready`: it listens long before that.
#[test]
fn with_notify_a_program_is_ready_when_it_says_so_wherever_it_listens() {
    each(|node| {
        let folder = tempfile::tempdir().unwrap();
        let go = folder.path().join("go");
        let text = format!(
            "const server = require('http').createServer((_, answer) => answer.end());\n\
             server.listen(0, '127.0.0.1', () => {{\n\
             console.log('listens');\n\
             setInterval(() => {{ if (require('fs').existsSync({go:?})) process.send('ready') }}, 10) }})"
        );
        let file = program(&folder, "waits.js", &text);
        let app = App::of(&format!(
            "app = \"e2e\"\n[broker.web]\ncommand = [{:?}, {file:?}]\nready = \"notify\"\nrecycle = {{ deadline = \"5s\" }}\n\
             stop = [{{ signal = \"TERM\", wait = \"1s\" }}]\n",
            node.path()
        ));
        app.until("it listens", |log| lines(log).iter().any(|line| line == "listens"));
        std::fs::write(&go, "").unwrap();
        app.until_event("worker_ready", 1);
        std::fs::remove_file(&go).unwrap();
        let answer = app.ask(&["recycle", "web"]);
        assert!(!answer.status.success(), "its successor listens, and never says that it is ready");
        assert_eq!(named(&app.log(), "worker_ready"), 1);
    });
}

#[test]
fn a_standby_that_says_at_the_door_that_it_is_ready_is_once_it_is_promoted() {
    each(|node| {
        let folder = tempfile::tempdir().unwrap();
        let text = "require('http').createServer((_, answer) => answer.end()).listen(0, '127.0.0.1');\n\
                    process.send('ready')";
        let file = program(&folder, "says.js", text);
        let app = App::of(&format!(
            "app = \"e2e\"\n[broker.web]\ncommand = [{:?}, {file:?}]\nready = \"notify\"\nstandby = 1\n",
            node.path()
        ));
        // Which of the two is there first is open.
        app.until_event("app_ready", 1);
        app.until_event("worker_standby", 1);
        // The next one has it from this one.
        signal_process(app.broker_pid(), Signal::KILL);
        app.until_event("broker_adopted", 1);
        signal_process(app.pids()[0], Signal::KILL);
        app.until_event("worker_promoted", 1);
        app.until_event("worker_ready", 2);
        assert_eq!(named(&app.log(), "worker_death"), 1);
    });
}
