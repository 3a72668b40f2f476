//! Upgrades that nobody asks for, and those of the keeper itself.

use super::images::{replace, replaceable};
use super::*;

#[test]
fn a_new_program_on_disk_is_enough_and_a_bad_one_changes_nothing() {
    let app = replaceable(&sleepers(2).replace("app = \"e2e\"", "app = \"e2e\"\nupgrade = \"auto\""));
    let (pids, good) = (app.pids(), std::fs::read(BIN).unwrap());
    let says = |what: &str, times: usize| {
        app.until(what, |log| {
            let texts = log.iter().filter_map(|line| line["text"].as_str());
            texts.filter(|text| text.contains(what)).count() >= times
        });
    };
    replace(&app, &good);
    says("has taken over", 1);
    let broker = app.broker_pid();
    replace(&app, b"no program");
    says("cannot run", 1);
    assert_eq!(app.broker_pid(), broker);
    replace(&app, &good);
    says("has taken over", 2);
    assert_eq!(app.pids(), pids);
    assert!(app.stop().0.success());
}

#[test]
fn a_keeper_becomes_another_one_and_keeps_its_children_their_ends_and_its_orders() {
    let folder = folder_with(&sleepers(3));
    let program = folder.path().join("program");
    copy(BIN, &program);
    let app = App::started(folder, &["run", "-c", "shiftboss.toml"], |command| {
        let limited = ["prlimit", "--nofile=700:4000", "env", "SHIFTBOSS_OTHER_KEEPER=1"];
        run_by(command, &limited, program.to_str().unwrap());
    });
    app.until_event("app_ready", 1);
    let pids = app.pids();
    let image = || std::fs::metadata(format!("/proc/{}/exe", app.pid())).map(|exe| exe.ino()).unwrap();
    for _ in 0..2 {
        let before = image();
        replace(&app, &std::fs::read(BIN).unwrap());
        app.does(&["upgrade"]);
        eventually("the keeper has become the new one", || image() != before);
        assert_eq!(app.pids(), pids);
    }
    signal_process(pids[0], Signal::KILL);
    app.until_event("worker_death", 1);
    app.kill_broker();
    app.does(&["wait", "web", "--for", "ready"]);
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", app.broker_pid())).unwrap();
    assert!(environment.split('\0').any(|entry| entry == "SHIFTBOSS_NOFILE=700"), "what workers are to have");
    app.signal(Signal::HUP);
    app.until_event("recycle_finished", 1);
    nobody_else_is_there(&app);
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!(named(&once(&log), "worker_death"), 1);
}
