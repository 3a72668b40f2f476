//! What one user may not do to another, and what only root may do. These tests give up root, so they need it.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;

use super::*;

#[test]
fn an_app_of_root_does_not_answer_to_somebody_else() {
    if !can_change_users() {
        return;
    }
    let app = App::ready(SHOP);
    let before = all_pids(&app);
    refuses(&app, SOMEBODY);
    goes_on(&app, &before);
}

#[test]
fn an_app_of_somebody_answers_to_its_owner_and_to_root_only() {
    if !can_change_users() {
        return;
    }
    let app = app_of(SOMEBODY, SHOP, |_| {});
    app.until_event("app_ready", 1);
    let before = all_pids(&app);
    refuses(&app, STRANGER);
    let said = say_with(app.folder.path(), &["status"], become_user(SOMEBODY));
    assert_eq!(said.code, Some(0), "{said}");
    let said = say(app.folder.path(), &["recycle", "jobs"]);
    assert_eq!(said.code, Some(0), "root may: {said}");
    assert_eq!(all_pids(&app)[..2], before[..2]);
}

/// By the mode of its socket's folder, by the mode of the socket, and by whom it sees asking.
#[track_caller]
fn refuses(app: &App, uid: u32) {
    let folder = app.folder.path();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let socket = app.socket();
    let ask = |verb: &[&str]| {
        let line = [&["--socket", socket.to_str().unwrap()], verb].concat();
        // It may not even enter the app's folder.
        let said = say_with(Path::new("/"), &line, become_user(uid));
        said.is_one_error(77, &["only the app's own user and root may ask it"]);
        said
    };
    mode(folder, 0o700);
    ask(&["status"]);
    mode(folder, 0o755);
    assert!(ask(&["status"]).err.contains("permission denied"));
    mode(&socket, 0o666);
    for verb in [&["status"] as &[&str], &["stop", "--all"], &["recycle", "api"], &["events"]] {
        ask(verb);
    }
}

#[test]
fn a_privileged_port_is_refused_with_the_right_that_it_needs() {
    if !can_change_users() {
        return;
    }
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let first: u16 = first.trim().parse().unwrap();
    let Some(port) = first.checked_sub(1).filter(|port| *port > 0) else {
        eprintln!(
            "every port is for everybody here (net.ipv4.ip_unprivileged_port_start = {first}): not tested"
        );
        return;
    };
    let folder = folder_of(SOMEBODY);
    let (port, below) = (format!("127.0.0.1:{port}"), format!("ports below {first}"));
    let line = ["run", "-p", &port, "--", "sleep", "60"];
    let said = say_with(folder.path(), &line, become_user(SOMEBODY));
    said.is_one_error(77, &[&port, "may not be bound", &below, "CAP_NET_BIND_SERVICE", "a higher port"]);
}

#[test]
fn a_unix_listener_where_one_may_not_write_is_refused_without_a_word_of_ports() {
    if !can_change_users() {
        return;
    }
    let (folder, closed) = (folder_of(SOMEBODY), tempfile::tempdir().unwrap());
    std::fs::set_permissions(closed.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let address = format!("unix://{}/x.sock", closed.path().display());
    let line = ["run", "-p", &address, "--", "sleep", "60"];
    let said = say_with(folder.path(), &line, become_user(SOMEBODY));
    said.is_one_error(77, &[&address, "may not write to its folder", "a path in a folder of your own"]);
    assert!(!said.err.contains("port") && !said.err.contains("setcap"), "{said}");
}

#[test]
fn a_control_socket_where_one_may_not_write_is_refused() {
    if !can_change_users() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let said = say_with(folder.path(), &["run", "--", "sleep", "60"], become_user(SOMEBODY));
    said.is_one_error(77, &["app.sock", "Permission denied", "--socket PATH"]);
}

#[test]
fn a_file_in_a_folder_that_one_may_not_enter_is_not_said_to_be_missing() {
    if !can_change_users() {
        return;
    }
    let folder = folder_with(SHOP);
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let file = folder.path().join("shiftboss.toml");
    for verb in ["check", "run"] {
        let words = ["--socket", "/nowhere/app.sock", verb, "-c", file.to_str().unwrap()];
        let said = say_with(Path::new("/"), &words, become_user(SOMEBODY));
        said.is_one_error(78, &["shiftboss.toml", "permission denied"]);
    }
}

#[test]
fn who_has_asked_for_a_change_is_in_the_log_with_what_it_was() {
    let mut app = App::ready(SHOP);
    for verb in [&["status"] as &[&str], &["recycle", "jobs"], &["recycle", "api/1"], &["scale", "jobs", "2"]]
    {
        app.does(verb);
    }
    app.does(&["drain", "jobs"]);
    app.does(&["resume", "jobs"]);
    // What is no command changes nothing, and is not there.
    assert!(!app.ask(&["recycle", "nobody"]).status.success());
    app.does(&["stop", "--all"]);
    assert!(app.ended().success());
    let log = app.log();
    let asked = log.iter().filter_map(|line| line["text"].as_str()?.split_once(" asks: "));
    let (who, what): (Vec<&str>, Vec<&str>) = asked.unzip();
    let me = format!("user {}, process ", rustix::process::geteuid().as_raw());
    assert!(who.iter().all(|who| who.starts_with(&me)), "{who:?}");
    let what: Vec<&str> = what.iter().filter_map(|what| what.split(" (request ").next()).collect();
    assert_eq!(what, ["recycle jobs", "recycle api/1", "scale jobs 2", "drain jobs", "resume jobs", "stop"]);
}

#[test]
fn root_follows_no_file_that_somebody_else_may_change() {
    if !can_change_users() {
        return;
    }
    let folder = folder_with(SHOP);
    let file = folder.path().join("shiftboss.toml");
    let owned = |path: &Path, uid: u32, gid: u32, mode: u32| {
        chown(path, Some(uid), Some(gid)).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    let elsewhere = tempfile::tempdir().unwrap();
    owned(elsewhere.path(), 0, 0, 0o755);
    let said = |name: &str| say(elsewhere.path(), &["-c", name, "check"]);
    // Owner, group and mode of the file, and of its folder.
    for (of_file, of_folder, who) in [
        ((SOMEBODY, 0, 0o644), (0, 0, 0o755), Some("user 65534")),
        ((0, SOMEBODY, 0o664), (0, 0, 0o755), Some("group 65534")),
        ((0, 0, 0o666), (0, 0, 0o755), Some("everybody")),
        ((0, 0, 0o644), (SOMEBODY, 0, 0o755), Some("user 65534")),
        ((0, 0, 0o644), (0, SOMEBODY, 0o775), Some("group 65534")),
        ((0, 0, 0o644), (0, 0, 0o777), Some("everybody")),
        // As in /tmp: nobody else can put another file in its place.
        ((0, 0, 0o644), (0, 0, 0o1777), None),
        ((0, 0, 0o664), (0, 0, 0o775), None),
        ((0, SOMEBODY, 0o640), (0, SOMEBODY, 0o750), None),
    ] {
        owned(&file, of_file.0, of_file.1, of_file.2);
        owned(folder.path(), of_folder.0, of_folder.1, of_folder.2);
        let said = said(file.to_str().unwrap());
        match who {
            Some(who) => {
                said.is_one_error(
                    78,
                    &[
                        "root does not follow a file",
                        &format!("{who} may change"),
                        "chown root",
                        "chmod go-w",
                    ],
                );
            }
            None => assert_eq!(said.code, Some(0), "{said}"),
        }
    }
    // Whoever can write where a link lies chooses where it leads.
    owned(&file, 0, 0, 0o644);
    owned(folder.path(), 0, 0, 0o755);
    std::os::unix::fs::symlink(&file, elsewhere.path().join("link.toml")).unwrap();
    assert_eq!(said("link.toml").code, Some(0));
    owned(elsewhere.path(), SOMEBODY, 0, 0o755);
    said("link.toml").is_one_error(78, &["in a folder that user 65534 may change"]);
}

#[test]
fn a_file_of_ones_own_may_be_as_it_is() {
    if !can_change_users() {
        return;
    }
    let folder = folder_of(SOMEBODY);
    let file = folder.path().join("shiftboss.toml");
    std::fs::write(&file, fill(SHOP, folder.path())).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
    let said = say_with(folder.path(), &["check"], become_user(SOMEBODY));
    assert_eq!(said.code, Some(0), "{said}");
}

/// False, and said, where these tests cannot be run.
pub(super) fn can_change_users() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("needs root: not tested");
    }
    root
}

/// Runs the app as that user, in a folder that is theirs.
pub(super) fn app_of(uid: u32, config: &str, prepare: impl FnOnce(&mut Command)) -> App {
    let folder = folder_of(uid);
    std::fs::write(folder.path().join("shiftboss.toml"), fill(config, folder.path())).unwrap();
    App::started(folder, &["run", "-c", "shiftboss.toml"], |command| {
        prepare(command);
        become_user(uid)(command);
    })
}

fn folder_of(uid: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), Some(uid), Some(uid)).unwrap();
    folder
}

/// Also gives up every further group (`CommandExt::uid`).
fn become_user(uid: u32) -> impl FnOnce(&mut Command) {
    move |command| {
        command.uid(uid).gid(uid);
    }
}

const SOMEBODY: u32 = 65534;
const STRANGER: u32 = 65533;

#[test]
fn too_many_watchers_are_told_so_and_silent_clients_lose_their_place() {
    let app = App::ready(SHOP);
    let connect = || UnixStream::connect(app.socket()).unwrap();
    let mut silent = connect();
    let watch = |_| {
        let mut stream = connect();
        stream.write_all(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        // It has its place once the answer has begun.
        stream.read_exact(&mut [0]).unwrap();
        stream
    };
    let mut watchers: Vec<UnixStream> = (0..255).map(watch).collect();
    // The place of the silent one is taken by whoever asks, again and again.
    app.does(&["status"]);
    assert_eq!(silent.read(&mut [0]).unwrap(), 0, "it made room");
    watchers.push(watch(0));
    let refused = app.ask(&["status"]);
    assert_eq!(refused.status.code(), Some(75), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("busy: 256 clients"), "{}", text(&refused.stderr));
    watchers.pop();
    eventually("there is a place again", || app.ask(&["status"]).status.success());
    // With places to spare, too, the app closes what says nothing.
    drop(watchers);
    assert_eq!(connect().read(&mut [0]).unwrap(), 0);
}
