//! What workers bring into the world.

use rustix::process::Signal;

use super::*;

#[test]
fn a_child_that_keeps_the_channel_does_not_hide_the_death_of_its_parent() {
    let app = App::ready(
        &sleepers(1, ", \"--fork-child\"").replace("healthy_after = \"1s\"", "healthy_after = \"0s\""),
    );
    for round in 1..=times(2, 50) {
        signal_process(app.pids()[0], Signal::KILL);
        app.until_event("worker_death", round);
        app.until_event("worker_ready", 1 + round);
    }
    seen("from a death to the successor's start", &from_to(&app.log(), "worker_death", "worker_started"));
    let grandchildren: Vec<u32> =
        lines(&app.log()).iter().filter_map(|line| line.strip_prefix("child ")?.parse().ok()).collect();
    assert!(app.stop().0.success());
    assert!(grandchildren.into_iter().all(is_gone));
}

#[test]
fn thousands_of_orphans_are_reaped_and_hide_no_death() {
    let orphans = times(200, 5000);
    let script = format!(
        "for number in range({orphans}):\n    pid = os.fork()\n    if pid == 0:\n        if os.fork() == 0:\n            os._exit(0)\n        \
         os._exit(0)\n    os.waitpid(pid, 0)\n    if number % 100 == 99: print('more', flush=True)\ntime.sleep(0.05)\nos._exit(7)"
    );
    let app = App::ready(&(sleepers(2, "") + &bad(&python(&script))));
    // Each part of the wait has its own patience.
    let more = |log: &[Value]| of(log, "bad", "worker_output").filter(|line| line["line"] == "more").count();
    (1..=2 * orphans / 100).for_each(|times| drop(app.until("more orphans", |log| more(log) >= times)));
    let log = app.until("two storms are over", |log| of(log, "bad", "worker_death").count() >= 2);
    for death in of(&log, "bad", "worker_death") {
        assert_eq!((&death["code"], &death["signal"]), (&7.into(), &Value::Null), "{death}");
    }
    app.does(&["drain", "bad"]);
    nobody_else_is_there(&app);
    assert_eq!(of(&app.log(), "web", "worker_death").count(), 0);
    println!("seen: 2 x {orphans} orphans reaped");
}

#[test]
fn a_worker_that_forks_without_end_is_ended_with_all_that_came_of_it() {
    let most = times(200, 3000);
    let script = format!(
        "made = 0\nwhile made < {most}:\n    made += 1\n    if os.fork() == 0:\n        os.setsid() if made % 2 else None\n        \
         time.sleep(600)\n        os._exit(0)\nprint('made', made, flush=True)\ntime.sleep(600)"
    );
    let app = App::ready(&(sleepers(2, "") + &bad(&python(&script))));
    let asked = std::time::Instant::now();
    app.does(&["status"]);
    println!("seen: status answered after {} ms in the middle of it", asked.elapsed().as_millis());
    app.until("all are made", |log| lines(log).iter().any(|line| line.starts_with("made")));
    let bomb = all_pids(&app)[2];
    let all = children(bomb);
    assert_eq!(all.len(), most);
    let begun = std::time::Instant::now();
    assert!(app.stop().0.success());
    println!(
        "seen: {most} children, half of them in sessions of their own, gone after {} ms",
        begun.elapsed().as_millis()
    );
    assert!(all.into_iter().all(is_gone));
}
