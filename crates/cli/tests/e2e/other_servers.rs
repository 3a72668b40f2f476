//! Servers that others wrote, unmodified: gunicorn, uvicorn, and a plain asyncio program; each as four workers on one
//! port, recycled, killed, drained and resumed under load; and a version that cannot be imported goes back.
//!
//! `SHIFTBOSS_TEST_VENV` names a Python environment with gunicorn and uvicorn; `cargo xtask test` makes it.

use std::path::PathBuf;

use serde_json::Value;

use crate::app::*;
use crate::load::*;

struct Server {
    command: Vec<String>,
    kind: &'static str,
    program: &'static str,
    /// It closes idle connections when it leaves: a request may cross that on the wire.
    may_cross: bool,
}

fn python(module: &str) -> String {
    let venv = std::env::var("SHIFTBOSS_TEST_VENV").unwrap_or_else(|_| {
        panic!("SHIFTBOSS_TEST_VENV is not set: run `cargo xtask test`, or see CONTRIBUTING.md for a single test")
    });
    PathBuf::from(venv).join("bin").join(module).to_str().unwrap().to_owned()
}

fn gunicorn() -> Server {
    let arguments = "--preload --workers 1 --threads 64 --worker-class gthread --graceful-timeout 20 --log-level warning";
    let arguments = arguments.split(' ').map(str::to_owned);
    let command = [python("gunicorn")].into_iter().chain(arguments).chain(["wsgi:app".to_owned()]).collect();
    Server { command, kind: "notify", program: "wsgi.py", may_cross: true }
}

fn uvicorn() -> Server {
    let arguments = "--fd 3 --no-access-log --log-level warning --lifespan on asgi:app".split(' ').map(str::to_owned);
    let command = [python("uvicorn")].into_iter().chain(arguments).collect();
    Server { command, kind: "plain", program: "asgi.py", may_cross: true }
}

fn asyncio() -> Server {
    Server { command: vec![python("python"), "plain.py".into()], kind: "plain", program: "plain.py", may_cross: false }
}

impl Server {
    /// Four workers on a free port, ready, in a folder that holds the program.
    fn run(&self) -> (App, u16) {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/programs").join(self.program);
        std::fs::copy(program, folder.path().join(self.program)).unwrap();
        let file = folder.path().join("shiftboss.toml");
        let config = format!(
            r#"
            app = "others"
            [broker.web]
            command = {command:?}
            kind = "{kind}"
            workers = 4
            listen = ["tcp://127.0.0.1:{port}"]
            cwd = "{folder}"
            "#,
            command = self.command,
            kind = self.kind,
            folder = folder.path().display(),
        );
        std::fs::write(&file, config).unwrap();
        let app = App::started(folder, &["run", "-c", file.to_str().unwrap()], |_| {});
        app.until_event("app_ready", 1);
        (app, port)
    }

    fn is_recycled(&self, more: &[&str]) {
        let (app, port) = self.run();
        let mut load = Load::on(port, more);
        for _ in 0..3 {
            load.a_second();
            let said = app.does(&["recycle", "web"]);
            assert!(said.contains("4 of 4") && said.contains("none was stopped"), "{said}");
        }
        load.a_second();
        self.nothing_was_lost(&load.end());
        let (status, log) = app.stop();
        assert!(status.success());
        assert_eq!((named(&log, "worker_started"), named(&log, "worker_ended")), (16, 16));
    }

    fn nothing_was_lost(&self, counts: &Value) {
        if self.may_cross {
            let (crossed, sent) = (counts["crossed"].as_u64().unwrap(), counts["sent"].as_u64().unwrap());
            assert_eq!(counts["failed"], 0, "{counts}");
            assert!(crossed * 5000 <= sent.max(5000), "{counts}");
        } else {
            none_lost(counts);
        }
    }
}
