//! What was written down for a successor is damaged: nobody goes on from it, nobody ends because of it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::*;

/// The memory of that name, as the keeper holds it.
fn held(app: &App, name: &str) -> File {
    let links = std::fs::read_dir(format!("/proc/{}/fd", app.pid())).unwrap().flatten();
    let is_it = |link: &std::fs::DirEntry| {
        std::fs::read_link(link.path())
            .is_ok_and(|target| target.starts_with(format!("/memfd:{name} (deleted)")))
    };
    let path = links.into_iter().find(is_it).unwrap().path();
    File::options().read(true).write(true).open(path).unwrap()
}

/// Turns a bit of each of these bytes.
fn flip(file: &File, places: &[u64]) {
    for place in places {
        let mut byte = [0];
        file.read_exact_at(&mut byte, *place).unwrap();
        file.write_all_at(&[byte[0] ^ 4], *place).unwrap();
    }
}

/// A refusal that says this; afterwards all is well again as soon as the bytes are.
fn refused_until_mended(places: &[u64], says: &str) {
    let app = App::ready(&sleepers(2));
    let (pids, socket) = (app.pids(), app.socket());
    let records = held(&app, "shiftboss-records");
    assert!(records.set_len(4096).is_err(), "they cannot be cut off");
    killed_while(&app, || flip(&records, places));
    eventually("it is refused", || app.stderr().matches(says).count() >= 2);
    assert!(pids.iter().all(|pid| !is_gone(*pid)));
    assert!(socket.exists() && !app.stderr().contains("panicked"), "{}", app.stderr());
    flip(&records, places);
    until_adopted(&app, 1);
    assert_eq!(app.pids(), pids);
    app.does(&["recycle", "web"]);
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!((named(&log, "worker_started"), named(&log, "worker_death")), (4, 0));
}

#[test]
fn records_that_are_none_are_refused_and_the_workers_run_on() {
    refused_until_mended(&[0], "these are not the records of an app");
}

#[test]
fn records_of_a_newer_version_are_refused_and_the_workers_run_on() {
    refused_until_mended(&[9], "of a newer version than this one");
}

#[test]
fn damaged_records_are_refused_and_two_signals_end_everything() {
    let mut app = App::ready(&sleepers(2));
    let all = children(app.pid());
    let records = held(&app, "shiftboss-records");
    killed_while(&app, || flip(&records, &[APP + 100, APP + 512 + 100]));
    eventually("it is refused", || app.stderr().contains("the app's record is damaged"));
    app.signal(Signal::TERM);
    eventually("it is refused again", || app.stderr().matches("the app's record is damaged").count() >= 3);
    assert_eq!(all.iter().filter(|pid| !is_gone(**pid)).count(), 2);
    app.signal_again(Signal::TERM);
    assert_eq!(app.ended().code(), Some(1), "{}", app.stderr());
    assert!(all.iter().all(|pid| is_gone(*pid)) && !app.stderr().contains("panicked"));
}

#[test]
fn a_process_that_is_no_child_of_the_keeper_is_nobodys_worker() {
    let app = App::ready(&sleepers(2));
    // With the end of another one the keeper has looked up who its workers are.
    signal_process(app.pids()[1], Signal::KILL);
    app.until_event("worker_ready", 3);
    let pids = app.pids();
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    let records = held(&app, "shiftboss-records");
    let put = |pid: u32| records.write_all_at(&pid.to_ne_bytes(), PID).unwrap();
    killed_while(&app, || put(stranger.id()));
    let says = format!("worker 1: process {} is no child of the keeper, but of", stranger.id());
    eventually("it is refused", || app.stderr().contains(&says));
    put(pids[0]);
    until_adopted(&app, 1);
    assert_eq!((app.pids(), stranger.try_wait().unwrap()), (pids, None));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(app.stop().0.success());
}

#[test]
fn damaged_notes_of_events_cost_only_what_was_not_told() {
    let app = App::ready(&sleepers(2));
    let pids = app.pids();
    app.status();
    let events = held(&app, "shiftboss-events");
    for (times, place) in [0, 8, 17, 26, 70, 100].into_iter().enumerate() {
        killed_while(&app, || flip(&events, &[place]));
        until_adopted(&app, times + 1);
        assert_eq!(app.pids(), pids);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(1);
        eventually("it has proved itself", || std::time::Instant::now() >= until);
    }
    assert!(!app.stderr().contains("panicked"), "{}", app.stderr());
    let (status, _) = app.stop();
    assert!(status.success());
}

/// Where the pid of the first worker stands.
const PID: u64 = 4096;
/// Where the app's record stands: behind those of 400,000 workers.
const APP: u64 = 4096 + 400_000 * 264;
