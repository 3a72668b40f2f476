//! The app that a service creates first. What depends on the process is tested in processes of its own: this program
//! again, with one test of it.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Deserialize;
use serde_json::{Value, json};
use shiftboss::{App, AppError, ConfigError, Report};

#[path = "app/files.rs"]
#[cfg(feature = "config")]
mod files;
#[path = "app/sentry.rs"]
#[cfg(feature = "sentry")]
mod sentry;
#[path = "app/services.rs"]
mod services;

/// Runs one test of this program in a process of its own, with these variables.
fn in_child(test: &str, variables: &[(&str, &str)]) -> Output {
    child(test, variables).output().unwrap()
}

fn child(test: &str, variables: &[(&str, &str)]) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([test, "--exact", "--nocapture", "--test-threads", "1"]);
    for known in ["env", "worker_type", "SILENCE_REPORTS", "SENTRY_DSN", "SENTRY_RELEASE", "RUST_BACKTRACE"] {
        child.env_remove(known);
    }
    for proxy in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy", "http_proxy"] {
        child.env_remove(proxy);
    }
    child.env("SHIFTBOSS_TEST_CHILD", "1").envs(variables.iter().copied()).stdin(Stdio::null());
    child
}

fn is_child() -> bool {
    std::env::var_os("SHIFTBOSS_TEST_CHILD").is_some()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[derive(Debug, Deserialize, PartialEq)]
struct Web {
    port: u16,
    hosts: Vec<String>,
}

fn web_config() -> Value {
    json!({
        "web": { "port": 3000, "hosts": ["a", "b"] },
        "production": { "web": { "port": 80, "hosts": ["c"] } },
        "broken": { "web": { "port": "zqxzqx" } },
    })
}

#[test]
fn a_configuration_is_that_of_the_environment_which_the_process_is_in() {
    if is_child() {
        let app = App::with_config("shop", web_config()).unwrap();
        let web: Web = app.config_at("web").unwrap();
        assert_eq!((app.environment(), app.worker_type()), ("production", "api"));
        assert_eq!(web, Web { port: 80, hosts: vec!["c".to_owned()] });
        return;
    }
    let name = "a_configuration_is_that_of_the_environment_which_the_process_is_in";
    assert!(in_child(name, &[("env", "production"), ("worker_type", "api")]).status.success());
}

#[test]
fn a_configuration_is_read_into_the_programs_types_or_refused_with_the_key_and_no_value() {
    #[derive(Debug, Deserialize)]
    struct Whole {
        web: Web,
    }
    let of = |environment| App::builder("shop").environment(environment).config(web_config()).build();
    let app = of("default").unwrap();
    assert_eq!(app.config::<Whole>().unwrap().web.port, 3000);
    assert_eq!(app.config_at::<u16>("web.port").unwrap(), 3000);
    let missing = app.config_at::<u16>("web.prot").unwrap_err();
    assert_eq!(missing.to_string(), "there is no `web.prot` in the configuration");
    let app = of("broken").unwrap();
    let refused = app.config::<Whole>().unwrap_err().to_string();
    assert_eq!(refused, "`web.port`: invalid type: string, expected u16");
    assert_eq!(app.config_at::<Web>("web").unwrap_err().to_string(), refused);
    let unknown = of("staging").unwrap_err();
    assert!(matches!(unknown, AppError::Config(ConfigError::Environment { name }) if name == "staging"));
    let wrong = App::with_config("shop", 5).unwrap_err();
    assert_eq!(wrong.to_string(), "the configuration has to be a table, and is a number");
    assert!(!format!("{app:?}").contains("zqx"));
}

#[test]
fn a_report_is_a_block_on_standard_error_with_cause_and_context() {
    let name = "a_report_is_a_block_on_standard_error_with_cause_and_context";
    if is_child() {
        let app = App::new("shop");
        app.set_reporting_context([("region", json!("eu")), ("shared", json!("global"))]);
        let error = "x".parse::<u16>().unwrap_err();
        let report = Report::new("could not load\u{1b}[2J").error(&error).context("broker", "api");
        let reported = app.report(report.context("shared", "own"));
        assert!(reported.shown);
        assert_eq!(reported.event_id, None);
        app.report("only a text");
        app.report(&error);
        app.log("a line");
        app.dump(&json!({ "a": [1] }));
        return;
    }
    let output = in_child(name, &[("worker_type", "api"), ("env", "test")]);
    assert!(output.status.success());
    let text = said(&output);
    let first = "\
│ could not load\\u{1b}[2J
│ because: invalid digit found in string
│
│ broker       \"api\"
│ environment  \"test\"
│ region       \"eu\"
│ shared       \"own\"
│ worker_type  \"api\"
│
│ 20";
    assert!(text.contains(first), "{text}");
    assert!(text.contains(", shop at crates/shiftboss/tests/app.rs:"), "{text}");
    assert!(text.contains("│ only a text\n│\n│ environment"), "{text}");
    assert!(text.contains("│ invalid digit found in string\n│\n"), "{text}");
    assert!(text.contains("\na line\n{\n  \"a\": [\n    1\n  ]\n}\n"), "{text}");
}

#[test]
fn silence_holds_for_reports_and_lines_is_looked_at_each_time_and_does_not_hold_for_dumps() {
    let name = "silence_holds_for_reports_and_lines_is_looked_at_each_time_and_does_not_hold_for_dumps";
    if is_child() {
        let app = App::new("shop");
        assert!(!app.report("unheard").shown);
        app.log("unheard");
        app.dump(&"dumped");
        return;
    }
    let text = said(&in_child(name, &[("SILENCE_REPORTS", "1")]));
    assert!(!text.contains("unheard") && text.contains("\"dumped\""), "{text}");
    let text = said(&in_child(name, &[("SILENCE_REPORTS", "")]));
    assert!(text.contains("│ unheard"), "{text}");
}

#[test]
fn a_report_that_nobody_reads_is_given_up() {
    if is_child() {
        let app = App::new("shop");
        let long = "long ".repeat(500);
        while app.report(long.as_str()).shown {}
        return;
    }
    let mut command = child("a_report_that_nobody_reads_is_given_up", &[]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let unread = child.stderr.take();
    assert!(child.wait().unwrap().success());
    drop(unread);
}

#[test]
fn a_panic_is_reported_and_ends_the_process_with_code_1() {
    let name = "a_panic_is_reported_and_ends_the_process_with_code_1";
    if is_child() {
        let app = App::new("shop");
        app.report_panics();
        let thread = std::thread::Builder::new().name("baker".to_owned());
        let _ = thread.spawn(|| panic!("no {}\u{7}", "flour")).unwrap().join();
        println!("went on");
        return;
    }
    for silence in ["", "1"] {
        let output = in_child(name, &[("SILENCE_REPORTS", silence)]);
        assert_eq!(output.status.code(), Some(1));
        let text = said(&output);
        assert!(text.contains("┌ panic ─"), "{text}");
        assert!(text.contains("│ no flour\\u{7}\n"), "{text}");
        assert!(text.contains("│ thread       \"baker\"\n"), "{text}");
        assert!(text.contains(", shop at crates/shiftboss/tests/app.rs:"), "{text}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("went on"));
    }
    assert!(said(&in_child(name, &[("RUST_BACKTRACE", "1")])).contains("backtrace"));
}

#[test]
fn a_panic_after_the_app_is_gone_is_for_the_hook_that_was_there_before() {
    let name = "a_panic_after_the_app_is_gone_is_for_the_hook_that_was_there_before";
    if is_child() {
        App::new("shop").report_panics();
        assert!(std::thread::spawn(|| panic!("as ever")).join().is_err());
        return;
    }
    let output = in_child(name, &[]);
    assert!(output.status.success());
    assert!(said(&output).contains("panicked at") && !said(&output).contains("┌ panic"));
}

#[test]
fn a_clone_is_the_same_app_on_any_thread() {
    fn anywhere<T: Clone + Send + Sync + 'static>(_: &T) {}
    let app = App::new("shop");
    anywhere(&app);
    assert!(!app.graceful_shutdown());
    let clone = app.clone();
    std::thread::spawn(move || clone.set_graceful_shutdown(true)).join().unwrap();
    assert!(app.graceful_shutdown());
    app.set_graceful_shutdown(false);
    assert!(!app.graceful_shutdown());
    assert_eq!((app.name(), app.broker_options("api"), app.broker_types().count()), ("shop", None, 0));
    assert!(app.flush(std::time::Duration::ZERO));
}

/// Counts calls.
fn counter() -> (Arc<AtomicU32>, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    (Arc::clone(&count), count)
}

fn calls(counter: &AtomicU32) -> u32 {
    counter.load(Ordering::SeqCst)
}
