//! Processes that are nobody's workers: children of workers, and those that the keeper's process had before.

use super::*;

fn told_children(app: &App, many: usize) -> Vec<u32> {
    let log = app.until("each says its child", |log| child_lines(log).len() >= many);
    child_lines(&log)
}

fn child_lines(log: &[Value]) -> Vec<u32> {
    let said = lines(log);
    let children = said.iter().filter_map(|line| line.strip_prefix("child "));
    children.map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn at_the_end_no_child_of_a_worker_is_left_wherever_it_went() {
    let mut app = App::ready(&sleepers_that(2, ", \"--setsid-child\", \"--fork-child\""));
    let strays = told_children(&app, 4);
    killed_while(&app, || {});
    until_adopted(&app, 1);
    // One of them has lost its parent, and is the keeper's child from then on.
    signal_process(app.pids()[0], Signal::KILL);
    app.until_event("worker_ready", 3);
    let all: Vec<u32> = strays.into_iter().chain(told_children(&app, 6)).collect();
    app.signal(Signal::TERM);
    assert!(app.ended().success());
    assert!(all.iter().all(|pid| is_gone(*pid)), "{all:?}");
}

#[test]
fn an_orphan_of_a_worker_is_reaped_when_it_ends() {
    let script = "(sh -c 'echo child $$; until [ -e FOLDER/go ]; do sleep 0.01; done' &); exec sleep 1000";
    let app = App::ready(&format!(
        "app = \"e2e\"\n[broker.web]\ncommand = [\"sh\", \"-c\", {script:?}]\nready = {{ after = \"0s\" }}\n"
    ));
    let orphan = told_children(&app, 1)[0];
    eventually("it is the keeper's", || children(app.pid()).contains(&orphan));
    std::fs::write(app.path("go"), "").unwrap();
    nobody_else_is_there(&app);
    assert_eq!(state(orphan), None, "no zombie");
    app.stop();
}

#[test]
fn a_child_that_the_keepers_process_had_before_is_left_alone() {
    let program = BIN;
    let mut app = ready_with(&sleepers(1), |command| {
        run_by(command, &["sh", "-c", "sleep 1000 & echo before $! >&2; exec \"$@\"", "sh"], program);
    });
    app.until_said("before ");
    let said = app.stderr();
    let before: u32 = said.lines().find_map(|line| line.strip_prefix("before ")).unwrap().parse().unwrap();
    assert!(children(app.pid()).contains(&before));
    killed_while(&app, || {});
    until_adopted(&app, 1);
    app.signal(Signal::TERM);
    let ended = eventually_ended(&mut app, before);
    assert!(ended, "it was ended with the app");
}

/// The app has ended, and this process has not; it is ended here.
fn eventually_ended(app: &mut App, stranger: u32) -> bool {
    let keeper = app.pid();
    eventually("the app has ended", || is_gone(keeper));
    let lives = !is_gone(stranger);
    if lives {
        // It holds the app's standard error open.
        signal_process(stranger, Signal::KILL);
    }
    lives && app.ended().success()
}

#[test]
fn as_the_first_process_of_a_container_it_does_all_of_the_same() {
    let unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let allowed = Command::new(unshare[0]).args(&unshare[1..]).arg("true").output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        eprintln!("not tried: a namespace of processes is not allowed here");
        return;
    }
    let script =
        "(sh -c 'echo orphan; until [ -e FOLDER/go ]; do sleep 0.01; done' &); exec WORKER --ready notify";
    let config = format!(
        "app = \"e2e\"\n[broker.web]\ncommand = [\"sh\", \"-c\", {script:?}]\nkind = \"notify\"\nworkers = 2\n"
    );
    let mut app = ready_with(&config, |command| run_by(command, &unshare, BIN));
    // Its numbers are others inside.
    assert_eq!(app.status().pid, 1);
    let keeper = *children(app.pid()).first().unwrap();
    app.until("both have an orphan", |log| lines(log).len() >= 2);
    eventually("the keeper has the orphans", || children(keeper).len() == 5);
    let (pids, all) = (app.pids(), children(keeper));
    let broker = *all.iter().find(|pid| is_broker(**pid, keeper)).unwrap();
    signal_process(broker, Signal::KILL);
    until_adopted(&app, 1);
    assert_eq!(app.pids(), pids);
    std::fs::write(app.path("go"), "").unwrap();
    eventually("the orphans are reaped", || children(keeper).len() == 3);
    signal_process(keeper, Signal::TERM);
    assert!(app.ended().success(), "{}", app.stderr());
    let log = once(&app.log());
    assert_eq!((named(&log, "worker_ended"), named(&log, "worker_death")), (2, 0));
}

/// What `/proc` lists there are other processes, so that whoever has left its group is only ended with the namespace.
#[test]
fn with_the_proc_of_another_namespace_that_is_said_and_the_end_is_as_ever() {
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    let allowed = Command::new(unshare[0]).args(&unshare[1..]).arg("true").output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        eprintln!("not tried: a namespace of processes is not allowed here");
        return;
    }
    let mut app = ready_with(&sleepers_that(2, ", \"--setsid-child\""), |command| {
        run_by(command, &unshare, BIN);
    });
    app.until("it is said", |log| {
        log.iter()
            .any(|line| line["text"].as_str().is_some_and(|text| text.contains("another PID namespace")))
    });
    let keeper = *children(app.pid()).first().unwrap();
    let all = children(keeper);
    signal_process(keeper, Signal::TERM);
    assert!(app.ended().success(), "{}", app.stderr());
    assert!(all.into_iter().all(is_gone));
}

fn is_broker(pid: u32, keeper: u32) -> bool {
    let arguments = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments(pid) == arguments(keeper)
}
