//! Environments of a file, and the program's own settings in it.

use std::time::Duration;

use super::super::{Loaded, parse};
use super::errors;
use crate::address::Listen;
use crate::options::{BrokerOptions, RecycleSpec, UpgradeWhen};

/// A file with two environments and settings of the program.
const LAYERED: &str = r#"
app = "shop"
[broker.api]
command = ["./api", "--verbose"]
workers = 4
listen = ["tcp://:3000", "tcp://:3001"]
cwd = "/srv"
environment = { LOG_LEVEL = "debug", DEBUG = "1" }
recycle = { every = "1h", surge = 2 }

[broker.jobs]
command = ["./jobs"]

[settings]
debug = true
since = 2026-11-24
[settings.apiBroker]
port = 3000
hosts = ["a", "b"]

[env.production]
upgrade = "auto"
[env.production.broker]
jobs = false
[env.production.broker.api]
workers = 8
listen = ["tcp://:80"]
cwd = false
environment = { DEBUG = false, LOG_LEVEL = "info" }
recycle = { surge = 1 }
[env.production.settings]
debug = false
apiBroker = { port = 80, hosts = ["c"] }

[env.staging.broker.mail]
command = ["./mail"]
"#;

#[test]
fn an_environment_merges_tables_replaces_the_rest_and_removes_by_false() {
    let base = parse("shiftboss.toml", LAYERED).unwrap();
    assert_eq!(base.clone().choose("default").unwrap().options, base.options);
    let production = base.clone().choose("production").unwrap();
    let [(name, api)] = production.options.brokers.as_slice() else { panic!("{:?}", production.options) };
    let (_, before) = &base.options.brokers[0];
    let expected = BrokerOptions {
        workers: 8,
        listen: vec![Listen::new("tcp://:80", "tcp://:80").unwrap()],
        cwd: None,
        environment: [("LOG_LEVEL".to_owned(), "info".to_owned())].into(),
        recycle: RecycleSpec { every: Some(Duration::from_secs(3600)), surge: 1, ..RecycleSpec::default() },
        ..before.clone()
    };
    assert_eq!((name.as_str(), api), ("api", &expected));
    assert_eq!(production.options.upgrade, UpgradeWhen::Auto);
    let staging = base.clone().choose("staging").unwrap();
    let names: Vec<&str> = staging.options.brokers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["api", "jobs", "mail"]);
    assert_eq!(staging.settings.value, base.settings.value);
}

#[test]
fn the_programs_settings_are_layered_too_and_false_is_a_value_there() {
    let base = parse("shiftboss.toml", LAYERED).unwrap();
    let of = |loaded: &Loaded| serde_json::Value::Object(loaded.settings.value.clone());
    let expected = serde_json::json!({
        "debug": true, "since": "2026-11-24", "apiBroker": { "port": 3000, "hosts": ["a", "b"] },
    });
    assert_eq!(of(&base), expected);
    let production = base.choose("production").unwrap();
    let expected = serde_json::json!({
        "debug": false, "since": "2026-11-24", "apiBroker": { "port": 80, "hosts": ["c"] },
    });
    assert_eq!(of(&production), expected);
    assert_eq!(production.settings.lines["apiBroker.port"], 33);
}

#[test]
fn settings_are_explained_by_name_line_and_nothing_else() {
    let explained = parse("shiftboss.toml", LAYERED).unwrap().choose("production").unwrap().explain();
    let settings = explained.split("\n[settings]\n").nth(1).unwrap();
    let expected = "\
# apiBroker.hosts                         # line 33, value not shown
# apiBroker.port                          # line 33, value not shown
# debug                                   # line 32, value not shown
# since                                   # line 16, value not shown
";
    assert_eq!(settings, expected);
    assert!(explained.contains("workers = 8                               # line 26"), "{explained}");
}

#[test]
fn an_environment_that_is_not_there_is_refused_with_those_that_are() {
    let error = parse("shiftboss.toml", LAYERED).unwrap().choose("prod").unwrap_err();
    let expected =
        "there is no environment `prod` in the configuration; it has: default, production, staging";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn every_environment_is_checked_and_what_is_wrong_in_all_is_said_once() {
    let text = "\
app = \"shop\"
[broker.api]
command = [\"x\"]
worker = 1
recycle = { unavailable = 1 }
[env.default]
[env.production]
app = \"other\"
brokers = 1
[env.production.broker.api]
drained = \"hodl\"
recycle = { unavailable = 2 }
command = false
[env.staging.settings]
big = 99999999999999999999999
far = inf
[env]
test = 5
";
    let expected = "\
error: environment `production`: broker `api`: `command` is missing
  ┌ shop/shiftboss.toml:2:9
2 │ [broker.api]
  │         ^^^ write command = [\"program\", \"argument\"]

error: unknown key `worker` in broker `api`
  ┌ shop/shiftboss.toml:4:1
4 │ worker = 1
  │ ^^^^^^ did you mean `workers`?

error: the environment `default` is what stands outside of [env]
  ┌ shop/shiftboss.toml:6:6
6 │ [env.default]
  │      ^^^^^^^
  └ help: write its keys without `env.default.`
";
    let found = errors(text);
    assert!(found.starts_with(expected), "{found}");
    for said in [
        "error: unknown key `app` in environment `production`\n  ┌ shop/shiftboss.toml:8:1",
        "error: unknown key `brokers` in environment `production`\n  ┌ shop/shiftboss.toml:9:1",
        "error: environment `production`: broker `api`: recycle.unavailable is 2, but\n       there is only 1 worker\n   ┌ shop/shiftboss.toml:12:",
        "error: environment `production`: broker `api`: `drained`: expected \"refuse\" or\n       \"hold\", found \"hodl\"\n   ┌ shop/shiftboss.toml:11:11",
        "error: environment `staging`: `settings.big`: expected an integer of 64 bits\n   ┌ shop/shiftboss.toml:15:1",
        "error: environment `staging`: `settings.far`: expected a finite number\n   ┌ shop/shiftboss.toml:16:1",
        "error: `env.test`: expected a table, found an integer\n   ┌ shop/shiftboss.toml:18:8",
    ] {
        assert!(found.contains(said), "{said}\n\n{found}");
    }
    assert_eq!(found.matches("error:").count(), 10, "{found}");
}
