//! Limits of the machine: workers beyond them fail with the step and the reason, everything else goes on.

use super::users::{app_of, can_change_users};
use super::*;

#[test]
fn at_the_limit_of_open_files_only_the_workers_beyond_it_fail() {
    let folder = folder_with(&shop());
    let app = App::started(folder, &["run", "-c", "shiftboss.toml"], at_most("--nofile=64:64".to_owned()));
    fails_beyond_and_recovers(&app, &["Too many open files"]);
}

#[test]
fn a_limit_of_the_size_of_files_that_is_too_low_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let run = ["run", "--", "sleep", "60"];
    let said = say_with(folder.path(), &run, at_most("--fsize=100000".to_owned()));
    said.is_one_error(1, &["RLIMIT_FSIZE"]);
}

#[test]
fn at_the_limit_of_processes_only_the_workers_beyond_it_fail() {
    if !can_change_users() {
        return;
    }
    // The limit counts all processes of a user (getrlimit(2)), so this one has to be alone.
    let user = 40_000 + std::process::id() % 20_000;
    let app = app_of(user, &shop(), at_most("--nproc=12:12".to_owned()));
    fails_beyond_and_recovers(
        &app,
        &["clone: ", "(EAGAIN)", "the limit of processes is reached: RLIMIT_NPROC"],
    );
}

fn shop() -> String {
    let backoff = "[broker.api]\nbackoff = { base = \"100ms\", cap = \"500ms\", healthy_after = \"100ms\" }";
    SHOP.replace("[broker.api]", backoff)
}

/// Runs the same under a limit (prlimit(1)).
fn at_most(limit: String) -> impl FnOnce(&mut Command) {
    move |command| {
        let mut limited = Command::new("prlimit");
        limited.arg(limit).arg("--").arg(command.get_program()).args(command.get_args());
        limited.current_dir(command.get_current_dir().unwrap());
        limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        *command = limited;
    }
}

#[track_caller]
fn fails_beyond_and_recovers(app: &App, why: &[&str]) {
    app.until_event("app_ready", 1);
    let before = all_pids(app);
    app.does(&["scale", "api", "40", "--no-wait"]);
    let log = app.until_event("broker_degraded", 1);
    let deaths: Vec<_> = log.iter().filter(|event| event["event"] == "worker_death").collect();
    for death in &deaths {
        let reason = death["reason"].as_str().unwrap();
        let step = ["no pipe for its output: ", "no notify socket: ", "no channel: ", "cannot start `"];
        assert!(step.iter().any(|step| reason.starts_with(step)), "{reason}");
        assert!(why.iter().all(|word| reason.contains(word)), "{reason}");
        assert!(death["pid"].is_null() && death["broker"] == "api", "{death}");
    }
    assert!(deaths.len() > 10, "{deaths:?}");
    app.until("those within it are ready", |log| named(log, "worker_ready") > before.len());

    let status = app.status();
    let (api, jobs) = (&status.brokers[0], &status.brokers[1]);
    assert!(api.degraded && api.wanted == 40 && (3..40).contains(&api.ready), "{} are ready", api.ready);
    assert!(!jobs.degraded && jobs.ready == 1);
    let now: Vec<u32> = all_pids(app);
    assert!(before.iter().all(|pid| now.contains(pid)), "all that served go on: {before:?} {now:?}");
    assert_eq!(app.ask(&["status", "--check"]).status.code(), Some(3));
    let tried = named(&app.log(), "worker_death");
    app.until_event("worker_death", tried + 5);

    app.does(&["scale", "api", "2"]);
    app.until_event("broker_recovered", 1);
    assert_eq!(app.ask(&["status", "--check"]).status.code(), Some(0));
    app.does(&["recycle", "--all"]);
    let status = app.status();
    assert!(status.brokers.iter().all(|broker| broker.ready == broker.wanted && !broker.degraded));
    assert!(!app.stderr().contains("panicked"), "{}", app.stderr());
}
