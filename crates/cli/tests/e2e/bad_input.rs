//! What people get wrong, and what a machine refuses: each is said in one clear error with the documented exit code,
//! and whatever runs goes on running.

mod command_line;
mod file;
mod limits;
mod start;
mod users;

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::app::*;
use crate::trace;

/// What a command that came to its end has said.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    /// Exactly one error, with this exit code and these words, and nothing else on standard output.
    #[track_caller]
    fn is_one_error(&self, code: i32, words: &[&str]) {
        assert_eq!(self.errors(), 1, "{self}");
        self.is_refusal(code, words);
    }

    /// Any number of errors, with this exit code and these words; nothing was started.
    #[track_caller]
    fn is_refusal(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self}");
        assert_eq!(self.out, "", "{self}");
        assert!(!self.err.contains("panicked") && !self.err.contains("RUST_BACKTRACE"), "{self}");
        for word in words {
            assert!(self.err.contains(word), "`{word}` is not said:\n{self}");
        }
    }

    fn errors(&self) -> usize {
        self.err.lines().filter(|line| line.starts_with("error:")).count()
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}\n{}{}", self.code, self.out, self.err)
    }
}

/// Runs `shiftboss` in that folder to its end, which must come by itself.
#[track_caller]
fn say(folder: &Path, arguments: &[&str]) -> Said {
    say_with(folder, arguments, |_| {})
}

#[track_caller]
fn say_with(folder: &Path, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Said {
    let mut command = Command::new(BIN);
    // Before the verb, since what follows `--` is the workers'.
    if !arguments.iter().any(|word| ["--socket", "--app"].contains(word)) {
        command.arg("--socket").arg(folder.join("app.sock"));
    }
    command.args(arguments).current_dir(folder).env_remove("env").env_remove("NO_COLOR");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let recorded = trace::is_recorded(folder);
    if !recorded {
        trace::record(&mut command, folder);
    }
    prepare(&mut command);
    let mut child = command.spawn().unwrap();
    let end = std::time::Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if std::time::Instant::now() > end {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("{arguments:?} does not end:\n{}{}", text(&output.stdout), text(&output.stderr));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    if !recorded && trace::is_recorded(folder) {
        trace::promises_are_kept(folder);
    }
    // The commands that it proposes repeat what was added here.
    let err = text(&output.stderr).replace(&format!(" --socket {}", folder.join("app.sock").display()), "");
    Said { code: output.status.code(), out: text(&output.stdout), err }
}

/// A folder with this as its `shiftboss.toml`.
fn folder_with(config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shiftboss.toml"), fill(config, folder.path())).unwrap();
    folder
}

/// Two brokers that nothing ails.
const SHOP: &str = r#"
    app = "shop"
    [broker.api]
    command = ["WORKER", "--ready", "notify"]
    kind = "notify"
    workers = 2
    [broker.jobs]
    command = ["WORKER", "--ready", "notify"]
    kind = "notify"
"#;

/// The same workers as before, all ready, and none has died.
#[track_caller]
fn goes_on(app: &App, before: &[u32]) {
    assert_eq!(all_pids(app), before);
    let brokers = app.status().brokers;
    assert!(brokers.iter().all(|broker| broker.ready == broker.wanted && !broker.degraded), "{brokers:?}");
    assert_eq!(named(&app.log(), "worker_death"), 0);
    assert!(!app.stderr().contains("panicked"), "{}", app.stderr());
}

fn all_pids(app: &App) -> Vec<u32> {
    let brokers = app.status().brokers;
    brokers.iter().flat_map(|broker| broker.workers.iter().filter_map(|worker| worker.pid)).collect()
}

/// Far longer than any of these commands takes.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
