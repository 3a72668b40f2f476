//! What a right file means, and how that is explained.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::{Diagnostic, Severity, parse, read};
use super::{WHOLE, errors};
use crate::address::Listen;
use crate::options::{
    BackoffSpec, BrokerOptions, Drained, Kind, Ready, RecycleSpec, Rung, Signal, StopLadder,
};

#[test]
fn a_service_as_it_is_mostly_written_means_what_it_says() {
    let text = r#"
app = "shop"
[broker.api]
command   = ["node", "server.js"]
workers   = 4
listen    = ["tcp://:3000"]
recycle   = { every = "1h", jitter = "10%", surge = 1, unavailable = 0, min_ready = "0s", deadline = "60s" }
stop      = [{ signal = "TERM", wait = "5s" }, { signal = "KILL" }]
backoff   = { base = "100ms", cap = "30s", healthy_after = "10s" }
environment = { LOG_LEVEL = "info" }

[broker.jobs]
command   = ["python3", "-m", "jobs"]
workers   = 2
"#;
    let api = BrokerOptions {
        workers: 4,
        listen: vec![Listen::new("tcp://:3000", "tcp://:3000").unwrap()],
        recycle: RecycleSpec { every: Some(seconds(3600)), ..RecycleSpec::default() },
        stop: StopLadder(vec![Rung::signal(Signal::TERM, seconds(5))]),
        environment: [("LOG_LEVEL".to_owned(), "info".to_owned())].into(),
        // Guessed.
        kind: Kind::Node,
        ..BrokerOptions::new(["node", "server.js"])
    };
    let jobs = BrokerOptions { workers: 2, ..BrokerOptions::new(["python3", "-m", "jobs"]) };
    let loaded = parse("shiftboss.toml", text).unwrap();
    assert_eq!(loaded.options.brokers, [("api".to_owned(), api), ("jobs".to_owned(), jobs)]);
}

#[test]
fn every_key_means_what_it_says_and_brokers_keep_their_order() {
    let loaded = parse("shiftboss.toml", WHOLE).unwrap();
    let api = BrokerOptions {
        kind: Kind::Notify,
        workers: 4,
        standby: 2,
        listen: vec![
            Listen::new("tcp://:3000", "tcp://:3000").unwrap(),
            Listen::new("web", "unix:///run/web.sock").unwrap(),
        ],
        ready: Some(Ready::Notify),
        recycle: RecycleSpec {
            every: Some(seconds(3600)),
            jitter: 0.2,
            surge: 2,
            unavailable: 1,
            min_ready: seconds(1),
            deadline: seconds(90),
        },
        stop: StopLadder(vec![
            Rung::signal(Signal::INT, seconds(20)),
            Rung::signal(Signal::TERM, seconds(5)),
        ]),
        backoff: BackoffSpec {
            base: Duration::from_millis(200),
            cap: seconds(60),
            healthy_after: seconds(5),
        },
        drained: Drained::Hold,
        cwd: Some(PathBuf::from("/srv/shop")),
        environment: [("LOG_LEVEL", "zqxzqxzqx"), ("odd name", "zqx")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        clean_environment: true,
        ..BrokerOptions::new(["node", "server.js", "é"])
    };
    let about = BrokerOptions {
        ready: Some(Ready::After(Duration::from_millis(1500))),
        ..BrokerOptions::new(["./about"])
    };
    assert_eq!(loaded.options.app, "shop");
    assert_eq!(loaded.options.brokers, [("api".to_owned(), api), ("about".to_owned(), about)]);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn a_command_is_all_that_a_broker_needs() {
    let loaded = parse("/srv/shop/shiftboss.toml", "[broker.api]\ncommand = [\"./api\"]\n").unwrap();
    assert_eq!(loaded.options.app, "shop");
    assert_eq!(loaded.options.brokers, [("api".to_owned(), BrokerOptions::new(["./api"]))]);
}

#[test]
fn byte_order_marks_and_line_ends_of_windows_change_nothing() {
    let plain = parse("shiftboss.toml", WHOLE).unwrap();
    let windows = format!("\u{feff}{}", WHOLE.replace('\n', "\r\n"));
    assert_eq!(parse("shiftboss.toml", &windows).unwrap().options, plain.options);
    let wrong = "\u{feff}app = 1\r\n[broker.api]\r\ncommand = [\"x\"]\r\n";
    assert_eq!(
        errors(wrong),
        "\
error: `app`: expected a string, found an integer
  ┌ shop/shiftboss.toml:1:7
1 │ app = 1
  │       ^"
    );
}

#[test]
fn as_many_workers_as_processors_are_at_least_one() {
    let loaded = parse("a/b", "[broker.api]\ncommand = [\"x\"]\nworkers = \"cpus\"\n").unwrap();
    assert!(loaded.options.brokers[0].1.workers >= 1);
}

#[test]
fn a_ladder_of_kill_alone_has_no_rung_before_it() {
    let loaded = parse("a/b", "[broker.api]\ncommand = [\"x\"]\nstop = [{ signal = \"KILL\" }]\n").unwrap();
    assert_eq!(loaded.options.brokers[0].1.stop, StopLadder(Vec::new()));
}

#[test]
fn workers_that_serve_udp_only_are_not_waited_for_to_accept() {
    let loaded = parse("a/b", "[broker.dns]\ncommand = [\"x\"]\nlisten = [\"udp://:53\"]\n").unwrap();
    assert_eq!(loaded.options.brokers[0].1.effective_ready(), Ready::After(seconds(1)));
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let text = "[broker.api]\ncommand = [\"x\"]\ndrained = \"hold\"\nrecycle = { jitter = \"5%\" }\n";
    let loaded = parse("shop/shiftboss.toml", text).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "\
warning: broker `api`: `drained` has no effect without `listen`
  ┌ shop/shiftboss.toml:3:11
3 │ drained = \"hold\"
  │           ^^^^^^",
            "\
warning: broker `api`: `recycle.jitter` has no effect without `recycle.every`
  ┌ shop/shiftboss.toml:4:22
4 │ recycle = { jitter = \"5%\" }
  │                      ^^^^"
        ]
    );
}

#[test]
fn the_explanation_says_of_each_key_whether_it_was_set() {
    let text = "[broker.api]\ncommand = [\"x\"]\nlisten = [\"3000\"]\nenvironment = { KEY = \"zqx\" }\n";
    let expected = "\
app = \"shop\"                              # the directory's name
upgrade = \"asked\"                         # default

[broker.api]
command = [\"x\"]                           # line 2
kind = \"plain\"                            # default, guessed from the command
workers = 1                               # default
standby = 0                               # default
listen = [\"3000\"]                         # line 3
ready = \"accepting\"                       # default with these listeners
# recycle.every                           # default: only when asked
recycle.jitter = \"10%\"                    # default
recycle.surge = 1                         # default
recycle.unavailable = 0                   # default
recycle.min_ready = \"0s\"                  # default
recycle.deadline = \"1m\"                   # default
stop = [{ message = \"suicide\", wait = \"30s\" }, { signal = \"TERM\", wait = \"5s\" }, { signal = \"KILL\" }]  # default
backoff.base = \"100ms\"                    # default
backoff.cap = \"30s\"                       # default
backoff.healthy_after = \"10s\"             # default
drained = \"refuse\"                        # default
# cwd                                     # default: that of shiftboss
# environment.KEY                         # line 4, value not shown
clean_environment = false                 # default
";
    // What this library was built without is no key of it.
    let mut parts: Vec<&str> = Vec::new();
    if cfg!(feature = "schedule") {
        parts.push("# schedule                                # default: always open\n");
    }
    if cfg!(feature = "watch") {
        parts.push("# watch                                   # default: no files\n");
    }
    let expected = expected.replace("# cwd ", &format!("{}# cwd ", parts.concat()));
    assert_eq!(parse("shop/shiftboss.toml", text).unwrap().explain(), expected);
}

#[test]
fn an_explanation_is_a_file_of_the_same_meaning() {
    let mut first = parse("shiftboss.toml", WHOLE).unwrap();
    let mut second = parse("shiftboss.toml", &first.explain()).unwrap();
    for (_, broker) in first.options.brokers.iter_mut().chain(&mut second.options.brokers) {
        broker.environment.clear();
        broker.ready = Some(broker.effective_ready());
    }
    assert_eq!(second.options, first.options);
}

#[test]
fn a_missing_directory_is_found_at_its_line() {
    let there = tempfile::tempdir().unwrap();
    let file = |cwd: &Path| format!("[broker.api]\ncommand = [\"sh\"]\ncwd = \"{}\"\n", cwd.display());
    assert_eq!(parse("shop/s", &file(there.path())).unwrap().check_files(), []);
    let missing = parse("shop/s", &file(Path::new("/nowhere/at/all"))).unwrap().check_files();
    assert_eq!(
        missing.iter().map(ToString::to_string).collect::<String>(),
        "\
error: broker `api`: there is no directory `/nowhere/at/all`
  ┌ shop/s:3:1
3 │ cwd = \"/nowhere/at/all\"
  │ ^^^"
    );
}

/// Each as `line: message`.
fn told(found: &[Diagnostic]) -> Vec<String> {
    let line = |found: &Diagnostic| found.place.as_ref().map_or(0, |place| place.line);
    found.iter().map(|found| format!("{}: {}", line(found), found.message)).collect()
}

#[test]
fn what_is_not_there_is_found_in_every_environment_and_beside_other_mistakes() {
    let text = "\
[broker.api]
command = [\"/nowhere/program\"]
cwd = \"/nowhere/at/all\"
[broker.jobs]
command = [\"sh\"]
[env.production.broker.jobs]
cwd = \"/nowhere/else\"
[env.staging.broker.jobs]
command = [\"./program\"]
cwd = \"/nowhere/else\"
";
    let api = [
        "3: broker `api`: there is no directory `/nowhere/at/all`",
        "2: broker `api`: `/nowhere/program` does not exist",
    ];
    let jobs = "7: broker `jobs`: there is no directory `/nowhere/else`";
    let loaded = parse("shop/s", text).unwrap();
    assert_eq!(told(&loaded.check_files()), api);
    let others = loaded.check_other_files();
    assert!(others.iter().all(|found| found.severity == Severity::Warning));
    let of = |environment, line, what| format!("{line}: environment `{environment}`: {what}");
    let gone = "broker `jobs`: there is no directory `/nowhere/else`";
    // Whether there is such a program in a folder that is not there cannot be told.
    assert_eq!(told(&others), [of("production", 7, gone), of("staging", 10, gone)]);
    let production = loaded.choose("production").unwrap();
    assert_eq!(told(&production.check_files()), [api[0], api[1], jobs]);
    assert_eq!(told(&production.check_other_files()), [of("staging", 10, gone)]);

    let broken = parse("shop/s", &text.replace("[broker.jobs]", "workers = 0\n[broker.jobs]")).unwrap_err();
    assert_eq!(told(&broken.check_files("default")), api);
    assert_eq!(broken.check_files("production").len(), 3);
    // What is said and wrong is not guessed.
    let broken = parse("shop/s", "[broker.api]\ncommand = [\"./program\"]\ncwd = 1\n").unwrap_err();
    assert_eq!(broken.check_files("default"), []);
}

#[test]
fn what_stands_in_an_environment_is_explained_with_its_own_line() {
    let text = "\
[broker.api]
command = [\"sh\"]
ready = { after = \"1s\" }
environment = { A = \"1\" }
[env.production.broker.api]
ready = { after = \"2s\" }
[env.production.broker.api.environment]
B = \"3\"
";
    let explained = parse("shop/s", text).unwrap().choose("production").unwrap().explain();
    let line = |key: &str| {
        let line = explained.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split("# line ").last().unwrap_or_default().to_owned()
    };
    assert_eq!(line("ready"), "6");
    assert_eq!(line("# environment.A"), "4, value not shown");
    assert_eq!(line("# environment.B"), "8, value not shown");
}

#[test]
fn keys_without_effect_are_warned_of() {
    let warnings = |lines: &str| {
        let loaded = parse("shop/s", &format!("[broker.api]\ncommand = [\"sh\"]\n{lines}\n")).unwrap();
        told(&loaded.warnings)
    };
    let node = "hung_after = \"5s\"\npreload = true\nserialization = \"json\"";
    let of = |line: usize, key: &str| {
        format!("{line}: broker `api`: `{key}` has no effect without kind = \"node\"")
    };
    assert_eq!(warnings(node), [of(3, "hung_after"), of(4, "preload"), of(5, "serialization")]);
    assert_eq!(warnings(&format!("{node}\nkind = \"notify\"")).len(), 3);
    assert_eq!(warnings(&format!("{node}\nkind = \"node\"")), Vec::<String>::new());
}

#[test]
fn a_file_is_read_whole_and_names_its_app_by_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let shop = directory.path().join("shop");
    std::fs::create_dir(&shop).unwrap();
    let path = shop.join("shiftboss.toml");
    std::fs::write(&path, "[broker.api]\ncommand = [\"x\"]\n").unwrap();
    assert_eq!(read(&path).unwrap().options.app, "shop");
    let link = directory.path().join("current");
    std::os::unix::fs::symlink(&shop, &link).unwrap();
    assert_eq!(read(&link.join("shiftboss.toml")).unwrap().options.app, "current");
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_ladder_may_begin_with_a_message() {
    let stop = "stop = [{ message = \"leave\", wait = \"9s\" }, { signal = \"TERM\", wait = \"2s\" }, { signal = \"KILL\" }]";
    let loaded = parse("a/b", &format!("[broker.api]\ncommand = [\"x\"]\n{stop}\n")).unwrap();
    let options = &loaded.options.brokers[0].1;
    let rungs = vec![Rung::notice(seconds(9)), Rung::signal(Signal::TERM, seconds(2))];
    assert_eq!((&options.stop, &options.notice), (&StopLadder(rungs), &"leave".into()));
    for wrong in [
        "stop = [{ message = \"a\", signal = \"TERM\", wait = \"1s\" }]",
        "stop = [{ message = \"a\" }]",
        "stop = [{ message = 7, wait = \"1s\" }]",
        "stop = [{ message = \"a\", wait = \"1s\" }, { message = \"b\", wait = \"1s\" }]",
    ] {
        let found = errors(&format!("[broker.api]\ncommand = [\"x\"]\n{wrong}\n"));
        assert!(found.matches("error:").count() == 1 && found.contains("`stop"), "{wrong}\n{found}");
    }
}
