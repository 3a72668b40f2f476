//! Words of the command line that make no sense, and questions that nobody can answer.

use super::*;

#[test]
fn an_unknown_type_is_named_with_the_known_ones_and_the_nearest() {
    let app = App::ready(SHOP);
    let before = all_pids(&app);
    let verbs: [&[&str]; 6] = [
        &["recycle", "apy"],
        &["drain", "apy"],
        &["resume", "apy"],
        &["scale", "apy", "3"],
        &["status", "apy"],
        &["wait", "apy", "--for", "ready"],
    ];
    for verb in verbs {
        let said = say(app.folder.path(), verb);
        said.is_one_error(2, &["`apy` is not a type of shop", "api, jobs", "did you mean `api`?"]);
    }
    let said = say(app.folder.path(), &["recycle", "api", "zebra"]);
    said.is_one_error(2, &["`zebra` is not a type of shop", "api, jobs"]);
    assert!(!said.err.contains("did you mean"), "nothing is near: {said}");
    assert_eq!(named(&app.log(), "recycle_started"), 0, "not even of the type that exists");
    goes_on(&app, &before);
}

#[test]
fn a_verb_without_a_type_asks_for_one() {
    let app = App::ready(SHOP);
    let before = all_pids(&app);
    for verb in ["recycle", "drain", "resume"] {
        say(app.folder.path(), &[verb]).is_one_error(2, &[verb, "TYPE or --all", "api, jobs"]);
    }
    goes_on(&app, &before);
}

#[test]
fn stop_ends_the_whole_app_or_nothing() {
    let app = App::ready(SHOP);
    let before = all_pids(&app);
    say(app.folder.path(), &["stop"]).is_one_error(2, &["`shiftboss stop --all`"]);
    let said = say(app.folder.path(), &["stop", "api"]);
    said.is_one_error(2, &["not `api` alone", "`shiftboss drain api`"]);
    say(app.folder.path(), &["stop", "api", "--all"]).is_one_error(2, &["`shiftboss drain api`"]);
    goes_on(&app, &before);
}

#[test]
fn a_senseless_number_of_workers_changes_nothing() {
    let app = App::ready(SHOP);
    let before = all_pids(&app);
    for number in ["-3", "many", "99999999999", "1.5", ""] {
        say(app.folder.path(), &["scale", "api", number]).is_one_error(2, &[number]);
    }
    let said = say(app.folder.path(), &["scale", "api", "100001"]);
    assert!(matches!(said.code, Some(1 | 2)), "{said}");
    said.is_one_error(said.code.unwrap(), &["100001", "100000"]);
    goes_on(&app, &before);
    assert_eq!(named(&app.log(), "broker_scaled"), 0);
}

#[test]
fn run_refuses_senseless_numbers_and_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |options: &[&str], words: &[&str]| {
        let line = [&["run"], options, &["--", "sleep", "60"]].concat();
        say(folder.path(), &line).is_one_error(2, words);
    };
    refused(&["-w", "0"], &["-w 0", "1 or more"]);
    refused(&["-w", "100001"], &["100001", "100000"]);
    refused(&["-w", "many"], &["many", "expected 1 to 100000"]);
    refused(&["-w", "-1"], &["-1"]);
    refused(&["-p", "foo"], &["`foo` is no address", "127.0.0.1:3000"]);
    refused(&["-p", "99999"], &["`99999` is no address"]);
    refused(&["-p", "http://:80"], &["`http://:80` is no address", "tcp://, udp:// or unix://"]);
    refused(&["-p", "unix://x.sock"], &["absolute path"]);
    refused(&["-p", "3000", "-p", "tcp://:3000"], &["given twice"]);
    refused(&["--kind", "magic"], &["magic", "notify", "plain"]);
    refused(&["--app", "a/b"], &["`a/b` is no name of an app"]);
    say(folder.path(), &["run", "-w", "4"]).is_one_error(2, &["--workers"]);
    say(folder.path(), &["run", "-p", "3000"]).is_one_error(2, &["--listen"]);
}

#[test]
fn run_without_a_file_and_without_a_command_says_how_to_do_without() {
    let folder = tempfile::tempdir().unwrap();
    let said = say(folder.path(), &["run"]);
    said.is_one_error(78, &["there is no shiftboss.toml", "`shiftboss run -w 4 -p 3000 -- CMD`"]);
}

#[test]
fn an_unknown_verb_or_option_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    say(folder.path(), &["restart"]).is_one_error(2, &["restart", "shiftboss recycle TYPE"]);
    say(folder.path(), &["run", "--nothing"]).is_one_error(2, &["--nothing", "shiftboss run -- CMD"]);
    say(folder.path(), &["recicle"]).is_one_error(2, &["recicle", "recycle"]);
    say(folder.path(), &["status", "--josn"]).is_one_error(2, &["--josn", "--json"]);
    say(folder.path(), &["status", "--timeout", "soon"]).is_one_error(2, &["`soon` is no duration", "30s"]);
    say(folder.path(), &["status", "--timeout", "48h"]).is_one_error(2, &["`48h` is too long: at most 1d"]);
}

#[test]
fn a_usage_error_that_nobody_can_be_told_has_the_same_exit_code() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let said = say_with(Path::new("."), &["restart"], |command| {
        command.stderr(full);
    });
    assert_eq!(said.code, Some(2));
}

#[test]
fn help_that_cannot_be_written_is_a_failure_as_with_every_verb_that_prints() {
    for arguments in [&["--help"][..], &["--version"], &["recycle", "--help"], &["man"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let said = say_with(Path::new("."), arguments, |command| {
            command.stdout(full);
        });
        said.is_one_error(1, &["cannot write to standard output: No space left"]);
    }
}

#[test]
fn who_asks_for_more_words_is_told_whom_it_asks_and_how_long_it_took() {
    let app = App::ready(SHOP);
    let said = say(app.folder.path(), &["status", "-v"]);
    let lines: Vec<&str> = said.err.lines().collect();
    let asks = format!("asks {}, the app is pid {}", app.socket().display(), app.pid());
    assert!(lines.len() == 2 && lines[0] == asks && lines[1].starts_with("took "), "{said}");
    assert_eq!(say(app.folder.path(), &["status"]).err, "");
    let said = say(app.folder.path(), &["check", "-v"]);
    assert_eq!(said.err, "reads shiftboss.toml, environment default\n");
}

#[test]
fn whoever_asks_when_no_app_answers_is_told_where_nobody_is() {
    let folder = tempfile::tempdir().unwrap();
    let verbs: [&[&str]; 7] = [
        &["status"],
        &["recycle", "api"],
        &["drain", "--all"],
        &["resume", "api"],
        &["scale", "api", "2"],
        &["stop", "--all"],
        &["events", "-f"],
    ];
    for verb in verbs {
        let said = say(folder.path(), verb);
        said.is_one_error(69, &["no app answers at", "app.sock (no such file)", "`shiftboss run`"]);
    }
    // Whoever waits may have come before the app.
    say(folder.path(), &["wait", "api", "--for", "ready", "--timeout", "50ms"]).is_one_error(75, &["api"]);
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("app.sock")).unwrap());
    say(folder.path(), &["status"]).is_one_error(69, &["no app answers at", "nobody listens there"]);
    let said = say(folder.path(), &["status", "--app", "there-is-no-such-app"]);
    said.is_one_error(69, &["no app answers at", "there-is-no-such-app.sock"]);
}

#[test]
fn a_command_that_takes_longer_than_its_timeout_goes_on() {
    let app = App::ready(&SHOP.replacen("\"notify\"]", "\"notify\", \"--stop-delay\", \"4000\"]", 1));
    let said = say(app.folder.path(), &["recycle", "api", "--timeout", "2s"]);
    said.is_one_error(75, &["recycle of api is not done after 2.0 s", "it goes on"]);
    let said = say(app.folder.path(), &["wait", "jobs", "--for", "drained", "--timeout", "50ms"]);
    said.is_one_error(75, &["jobs"]);
    app.until_event("recycle_finished", 1);
}
