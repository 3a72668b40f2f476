//! Upgrades: the program on disk takes over under load, or says why it cannot, and then everything goes on.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::*;
use crate::load::*;
use crate::nothing_is_left_behind::descriptors;
use crate::ready_before_retire::web;

/// The app as a program of its own, which can be replaced.
pub(super) fn replaceable(config: &str) -> App {
    let app = replaceable_begun(config);
    app.until_event("app_ready", 1);
    app
}

/// The same, which may not be ready yet.
pub(crate) fn replaceable_begun(config: &str) -> App {
    let folder = folder_with(config);
    let program = folder.path().join(PROGRAM);
    copy(BIN, &program);
    App::started(folder, &["run", "-c", "shiftboss.toml"], |command| {
        run_by(command, &["env"], program.to_str().unwrap());
    })
}

/// Puts this in the program's place, all at once.
pub(crate) fn replace(app: &App, image: &[u8]) {
    let (bytes, new) = (app.path("bytes"), app.path("new"));
    std::fs::write(&bytes, image).unwrap();
    copy(&bytes, &new);
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(new, app.path(PROGRAM)).unwrap();
}

/// The program that fails so.
pub(super) fn that(fails: &str) -> Vec<u8> {
    let mut image = std::fs::read(worker().with_file_name("bad-image")).unwrap();
    image.extend(format!("\nfails so: {fails}").bytes());
    image
}

/// An upgrade fails, says this, and moves no worker.
pub(super) fn fails(app: &App, says: &str) {
    let pids = app.pids();
    let answer = app.ask(&["upgrade"]);
    let said = text(&answer.stdout) + &text(&answer.stderr);
    assert_eq!(answer.status.code(), Some(1), "{said}");
    assert!(said.contains(says), "instead of {says}: {said}");
    assert_eq!(app.pids(), pids);
    nobody_else_is_there(app);
}

#[test]
fn upgrades_in_a_row_under_load_lose_nothing_and_keep_every_worker() {
    let port = free_port();
    let app = replaceable(&web(port));
    let pids = app.pids();
    let mut load = Load::on(port, &["--rate", "200"]);
    let good = std::fs::read(BIN).unwrap();
    let mut before = [Vec::new(), Vec::new()];
    for times in 1..=5 {
        replace(&app, &good);
        let broker = app.broker_pid();
        app.does(&["upgrade", "--check"]);
        assert_eq!(app.broker_pid(), broker, "it was only asked");
        if times == 5 {
            app.signal(Signal::USR2);
        } else {
            app.does(&["upgrade"]);
        }
        until_adopted(&app, times);
        assert_ne!(app.broker_pid(), broker);
        if times == 1 {
            // The last upgrade is remembered.
            before = [descriptors(app.pid()), descriptors(app.broker_pid())];
        }
    }
    app.until("the last one has proved itself", |log| {
        notes(log, "upgrade: the image on disk has taken over") == 5
    });
    assert_eq!(app.pids(), pids);
    load.a_second();
    none_lost(&load.end());
    let now = || [descriptors(app.pid()), descriptors(app.broker_pid())];
    // A client may have been there before.
    eventually("the last client is gone", || now()[1].len() <= before[1].len());
    assert_eq!(now()[0], before[0]);
    nobody_else_is_there(&app);
    let (status, log) = app.stop();
    assert!(status.success());
    let log = once(&log);
    assert_eq!((named(&log, "worker_started"), named(&log, "worker_death")), (4, 0));
}

fn notes(log: &[Value], note: &str) -> usize {
    log.iter().filter(|line| line["text"] == note).count()
}

#[test]
fn an_upgrade_during_a_recycle_leaves_it_and_its_command_going_on() {
    let app = replaceable(&sleepers_that(4, ", \"--ready-after\", \"100\""));
    let said = std::thread::scope(|scope| {
        let recycle = scope.spawn(|| app.does(&["recycle", "web"]));
        app.until_event("recycle_started", 1);
        app.does(&["upgrade"]);
        recycle.join().unwrap()
    });
    assert!(said.contains("4 of 4"), "{said}");
    let (status, log) = app.stop();
    assert!(status.success());
    let log = once(&log);
    assert_eq!((named(&log, "recycle_started"), named(&log, "recycle_finished")), (1, 1));
    assert_eq!((named(&log, "worker_started"), named(&log, "worker_death")), (8, 0));
}

#[test]
fn an_image_that_cannot_go_on_is_never_started_in_our_place() {
    let app = replaceable(&sleepers(2));
    let broker = app.broker_pid();
    let good = std::fs::read(BIN).unwrap();
    let mut strange = good.clone();
    // The machine that it was made for (elf(5)).
    strange[18..20].copy_from_slice(&[0xf0, 0xff]);
    for (image, says) in [
        (&b""[..], "Exec format error"),
        (&[0x5a; 5000], "Exec format error"),
        (&strange, "Exec format error"),
        (&good[..64 * 1024], "cannot"),
        (b"#!/bin/sh\nexit 0\n", "it is a script"),
        (&std::fs::read("/bin/true").unwrap(), "cannot take over"),
        (&that("dies at once"), "cannot take over: Error: it cannot stand it"),
    ] {
        replace(&app, image);
        fails(&app, says);
    }
    replace(&app, &good);
    std::fs::set_permissions(app.path(PROGRAM), PermissionsExt::from_mode(0o644)).unwrap();
    fails(&app, "Permission denied");
    replace(&app, &good);
    let busy = std::fs::OpenOptions::new().append(true).open(app.path(PROGRAM)).unwrap();
    fails(&app, "Text file busy");
    drop(busy);
    std::fs::remove_file(app.path(PROGRAM)).unwrap();
    fails(&app, "No such file or directory");
    assert_eq!(app.broker_pid(), broker);
    replace(&app, &good);
    app.does(&["upgrade"]);
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!((named(&log, "worker_started"), named(&log, "broker_adopted")), (2, 1));
}

#[test]
fn while_an_image_is_asked_another_upgrade_is_refused_and_the_same_one_waits() {
    let app = replaceable(&sleepers(2));
    let broker = app.broker_pid();
    replace(&app, &that("says nothing"));
    let (first, again, other) = std::thread::scope(|scope| {
        let first = scope.spawn(|| post(&app.socket(), "one"));
        let mut asked = BTreeSet::new();
        eventually("the image is asked", || {
            asked = children_of_all_threads(broker);
            !asked.is_empty()
        });
        let again = scope.spawn(|| post(&app.socket(), "one"));
        let other = post(&app.socket(), "other");
        assert_eq!(children_of_all_threads(broker), asked, "nobody else was asked");
        (first.join().unwrap(), again.join().unwrap(), other)
    });
    assert!(other.contains("another upgrade is under way") && other.contains("\"busy\":true"), "{other}");
    for answer in [first, again, post(&app.socket(), "one")] {
        assert!(answer.contains("did not answer within 10s"), "{answer}");
    }
    assert_eq!(app.broker_pid(), broker);
    nobody_else_is_there(&app);
    app.stop();
}

#[test]
fn an_upgrade_whose_broker_process_is_killed_while_it_asks_is_begun_again_and_answered_once() {
    let app = replaceable(&sleepers(2));
    let (pids, broker) = (app.pids(), app.broker_pid());
    replace(&app, &that("says nothing"));
    let said = std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| app.does(&["upgrade"]));
        eventually("the image is asked", || !children_of_all_threads(broker).is_empty());
        replace(&app, &std::fs::read(BIN).unwrap());
        app.kill_broker();
        upgrade.join().unwrap()
    });
    assert!(said.contains("the image on disk has taken over"), "{said}");
    assert_eq!(app.pids(), pids);
    nobody_else_is_there(&app);
    let (status, log) = app.stop();
    assert!(status.success());
    assert_eq!(named(&once(&log), "broker_adopted"), 2);
}

fn children_of_all_threads(pid: u32) -> BTreeSet<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

fn post(socket: &Path, key: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    let request = format!(
        "POST /v1/upgrade?wait=1 HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {key}\r\nConnection: close\r\n\
         Content-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(super) const PROGRAM: &str = "program";
