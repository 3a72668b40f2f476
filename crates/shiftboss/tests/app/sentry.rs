//! Reports that are sent to Sentry: to a server of our own, which speaks as much of its protocol as is needed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use shiftboss::SentryOptions;

use super::*;

/// Takes one request, of which it returns the head and the envelope's lines.
fn take_envelope(listener: &TcpListener) -> (String, Vec<Value>) {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap()];
    reader.read_exact(&mut body).unwrap();
    answer(stream);
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    (head, lines.map(|line| serde_json::from_slice(line).unwrap()).collect())
}

fn answer(mut stream: TcpStream) {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").unwrap();
}

fn dsn(listener: &TcpListener) -> String {
    format!("http://zqxkey@{}/42", listener.local_addr().unwrap())
}

#[test]
fn a_report_is_an_event_in_sentry_also_while_reports_are_silenced() {
    let name = "sentry::a_report_is_an_event_in_sentry_also_while_reports_are_silenced";
    if is_child() {
        let app = App::builder("shop").sentry(SentryOptions::new().release("shop@1.2.0")).build().unwrap();
        app.set_reporting_context([("region", json!("eu"))]);
        let error = "x".parse::<u16>().unwrap_err();
        let reported = app.report(Report::new("could not load").error(&error).context("broker", "api"));
        println!("event id: {}", reported.event_id.unwrap());
        assert!(app.flush(Duration::from_secs(60)));
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let variables = [
        ("SENTRY_DSN", dsn(&listener)),
        ("SILENCE_REPORTS", "1".to_owned()),
        ("worker_type", "api".to_owned()),
        ("env", "production".to_owned()),
    ];
    let server = std::thread::spawn(move || take_envelope(&listener));
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let output = in_child(name, &variables);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!said(&output).contains("could not load"));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let id = stdout.lines().find_map(|line| Some(line.split_once("event id: ")?.1)).unwrap();
    let (head, lines) = server.join().unwrap();
    assert!(head.starts_with("POST /api/42/envelope/ HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("sentry_key=zqxkey"), "{head}");
    let [envelope, item, event, ..] = lines.as_slice() else { panic!("{lines:?}") };
    let bare = |value: &Value| value.as_str().unwrap().replace('-', "");
    assert_eq!((bare(&envelope["event_id"]), bare(&event["event_id"])), (id.to_owned(), id.to_owned()));
    assert_eq!(id.len(), 32);
    assert_eq!(item["type"], "event");
    assert_eq!(event["message"], "could not load");
    assert_eq!(event["environment"], "production");
    assert_eq!(event["release"], "shop@1.2.0");
    assert_eq!(event["tags"], json!({ "app": "shop", "worker_type": "api" }));
    let expected =
        json!({ "broker": "api", "region": "eu", "environment": "production", "worker_type": "api" });
    assert_eq!(event["extra"], expected);
    let exception = &event["exception"]["values"][0];
    assert_eq!(exception["type"], "ParseIntError");
    assert_eq!(exception["value"], "invalid digit found in string");
    assert!(exception["stacktrace"]["frames"].as_array().is_some_and(|frames| !frames.is_empty()));
    assert!(event["contexts"]["os"].is_object(), "{event}");
}

#[test]
fn a_panic_is_a_fatal_event_before_the_process_ends() {
    let name = "sentry::a_panic_is_a_fatal_event_before_the_process_ends";
    if is_child() {
        App::new("shop").report_panics();
        let app = App::new("shop");
        app.report_panics();
        panic!("no flour");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dsn = dsn(&listener);
    let server = std::thread::spawn(move || take_envelope(&listener));
    let output = in_child(name, &[("SENTRY_DSN", &dsn)]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let (_, lines) = server.join().unwrap();
    assert_eq!((&lines[2]["level"], &lines[2]["message"]), (&json!("fatal"), &json!("no flour")));
    assert!(said(&output).contains("│ in Sentry as "), "{}", said(&output));
}

#[test]
fn a_server_that_is_away_or_hangs_delays_no_report_and_no_end() {
    let name = "sentry::a_server_that_is_away_or_hangs_delays_no_report_and_no_end";
    if is_child() {
        let app = App::new("shop");
        let begun = Instant::now();
        assert!((0..100).all(|_| app.report("still told").event_id.is_some()));
        // Each by itself would wait for 10 s at least.
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        let begun = Instant::now();
        let flushed = app.flush(Duration::from_millis(50));
        drop(app);
        // 2 s for the last flush; what hangs is given up after 10 s at the soonest.
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        println!("flushed: {flushed}");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = dsn(&listener);
    let output = in_child(name, &[("SENTRY_DSN", &hanging)]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output).matches("│ still told\n").count(), 100);
    assert!(String::from_utf8_lossy(&output.stdout).contains("flushed: false"));
    drop(listener);
    let output = in_child(name, &[("SENTRY_DSN", &hanging)]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output).matches("│ still told\n").count(), 100);
}

#[test]
fn an_https_address_is_spoken_to_by_tls_and_a_server_that_cannot_is_survived() {
    let name = "sentry::an_https_address_is_spoken_to_by_tls_and_a_server_that_cannot_is_survived";
    if is_child() {
        let app = App::new("shop");
        assert!(app.report("told").event_id.is_some());
        assert!(app.flush(Duration::from_secs(60)));
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dsn = dsn(&listener).replace("http:", "https:");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = [0; 3];
        stream.read_exact(&mut hello).unwrap();
        hello
    });
    let output = in_child(name, &[("SENTRY_DSN", &dsn)]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!said(&output).contains("panicked"), "{}", said(&output));
    // A handshake's record of TLS 1.x (RFC 8446, 5.1).
    let hello = server.join().unwrap();
    assert_eq!(hello[..2], [0x16, 3]);
}

#[test]
fn a_dsn_that_is_none_is_refused_and_not_shown() {
    let name = "sentry::a_dsn_that_is_none_is_refused_and_not_shown";
    if is_child() {
        let refused = App::builder("shop").build().unwrap_err().to_string();
        assert!(
            refused.starts_with("the DSN of Sentry is not valid: ") && !refused.contains("zqx"),
            "{refused}"
        );
        assert_eq!(App::new("shop").report("told").event_id, None);
        return;
    }
    let output = in_child(name, &[("SENTRY_DSN", "https://zqx:zqx@/zqx")]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("│ reports are not sent"), "{}", said(&output));
    assert!(!said(&output).contains("zqx"));
}
